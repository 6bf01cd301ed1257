//! Products over the dimensions: columns and matrices of kernels, sums with them, and their derivatives backwards.
//!
//! All work with `K - S`, built as `v = v (1 + p_j) + p_j` with `p_j = gamma_j kappa_j`: where the product is close
//! to 1, what differs from it keeps its digits.

use std::ops::Range;

use kc_core::{Element, Error, Isa, Result, Tensor, TensorView, par};

use crate::kernel::Kernel;
use crate::points::Points;

/// Points that are worked on together: their values stay in the first cache.
const BLOCK: usize = 256;
/// Points of a task.
const TASK: usize = 4096;

/// `K(x, z)`, checked.
pub(crate) fn eval<K: Kernel>(kernel: &K, x: &[K::Point], z: &[K::Point]) -> Result<f64> {
    let dims = kernel.dims();
    for (arg, point) in [("x", x), ("z", z)] {
        if point.len() != dims {
            return Err(Error::shape(arg, format!("[{dims}], one value per dimension"), &[point.len()]));
        }
        point.iter().try_for_each(|&x| kernel.check_point(x))?;
    }
    let mut v = [0.0];
    for j in 0..dims {
        kernel.multiply(Isa::PORTABLE, j, &x[j..=j], z[j], &mut v);
    }
    Ok(kernel.config().scale * (1.0 + v[0]))
}

/// `(K(x_i, z) - S) / S` for the points `rows`.
fn relative<K: Kernel>(
    isa: Isa,
    kernel: &K,
    x: &Points<K::Point>,
    rows: &Range<usize>,
    z: &[K::Point],
    v: &mut [f64],
) {
    v.fill(0.0);
    for (j, &z) in z.iter().enumerate() {
        kernel.multiply(isa, j, x.part(j, rows), z, v);
    }
}

/// `K(x_i, z) - S` for points from `first`, as many as `out` is long.
pub(crate) fn excess<K: Kernel>(
    isa: Isa,
    kernel: &K,
    x: &Points<K::Point>,
    first: usize,
    z: &[K::Point],
    out: &mut [f64],
) {
    let scale = kernel.config().scale;
    let fill = |start: usize, out: &mut [f64]| {
        for (at, out) in (start..).step_by(BLOCK).zip(out.chunks_mut(BLOCK)) {
            relative(isa, kernel, x, &(at..at + out.len()), z, out);
            out.iter_mut().for_each(|v| *v *= scale);
        }
    };
    if out.len() <= TASK {
        return fill(first, out);
    }
    use rayon::prelude::*;
    out.par_chunks_mut(TASK).enumerate().for_each(|(task, out)| fill(first + task * TASK, out));
}

/// `sum_i (K(x_i, z) - S) c_i` for each column `c`, without storing kernel values. Sums run in a fixed order.
pub(crate) fn dot<K: Kernel>(
    isa: Isa,
    kernel: &K,
    x: &Points<K::Point>,
    z: &[K::Point],
    columns: &[Vec<f64>],
    out: &mut [f64],
) {
    out.fill(0.0);
    let mut v = [0.0; BLOCK];
    let n = columns.first().map_or(0, Vec::len);
    for rows in par::chunks(n, BLOCK) {
        let v = &mut v[..rows.len()];
        relative(isa, kernel, x, &rows, z, v);
        for (out, c) in out.iter_mut().zip(columns) {
            *out += inner(v, &c[rows.clone()]);
        }
    }
    out.iter_mut().for_each(|sum| *sum *= kernel.config().scale);
}

/// The inner product of blocks, in eight sums.
fn inner(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..8 {
            sums[l] += a[l] * b[l];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The derivatives of `sum_i g_i K(x_i, z)` by the logarithms of the weights, then of the parameters of the
/// smoothness (dimension by dimension): two passes over the dimensions, no divisions.
pub(crate) fn backward<K: Kernel>(
    isa: Isa,
    kernel: &K,
    x: &Points<K::Point>,
    z: &[K::Point],
    g: &[f64],
) -> Vec<f64> {
    let (dims, terms) = (kernel.dims(), kernel.config().smoothness.terms());
    let parameters = dims * (1 + terms);
    // Scratch: p_j, and the product of (1 + p_l) over l < j.
    let block = |rows: Range<usize>, p: &mut [f64], before: &mut [f64], sums: &mut [f64]| {
        let n = rows.len();
        before[..n].fill(1.0);
        for j in 0..dims {
            let weight = kernel.config().weights[j];
            let p = &mut p[j * n..][..n];
            kernel.factor(isa, j, x.part(j, &rows), z[j], p);
            p.iter_mut().for_each(|p| *p *= weight);
            if j + 1 < dims {
                let (done, next) = before.split_at_mut((j + 1) * n);
                for ((next, done), p) in next[..n].iter_mut().zip(&done[j * n..]).zip(p) {
                    *next = done * (1.0 + *p);
                }
            }
        }
        let mut after: Vec<f64> = g[rows.clone()].iter().map(|g| g * kernel.config().scale).collect();
        let mut slope = vec![0.0; if terms > 0 { n } else { 0 }];
        for j in (0..dims).rev() {
            let (p, before) = (&p[j * n..][..n], &mut before[j * n..][..n]);
            before.iter_mut().zip(&after).for_each(|(before, after)| *before *= after);
            sums[j] += inner(p, before);
            for term in 0..terms {
                kernel.slope(isa, j, term, x.part(j, &rows), z[j], &mut slope);
                sums[dims + j * terms + term] += kernel.config().weights[j] * inner(&slope, before);
            }
            after.iter_mut().zip(p).for_each(|(after, p)| *after *= 1.0 + p);
        }
    };
    let task = |rows: Range<usize>| {
        let mut sums = vec![0.0; parameters];
        let (mut p, mut before) = (vec![0.0; dims * BLOCK], vec![0.0; dims * BLOCK]);
        for part in par::chunks(rows.len(), BLOCK) {
            block(rows.start + part.start..rows.start + part.end, &mut p, &mut before, &mut sums);
        }
        sums
    };
    let add = |mut a: Vec<f64>, b: Vec<f64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    par::map_reduce(g.len(), TASK, task, add).unwrap_or_else(|| vec![0.0; parameters])
}

/// The matrix `K(x_i, z_j)`.
///
/// # Errors
/// `TooLarge` if it does not fit the memory; see [`Points::from_rows`] for the others.
pub fn gram<K: Kernel>(
    kernel: &K,
    x: TensorView<'_, K::Point, 2>,
    z: TensorView<'_, K::Point, 2>,
) -> Result<Tensor<f64, 2>> {
    let (x, z) = (Points::from_rows(kernel, x)?, Points::from_rows(kernel, z)?);
    between(kernel, &x, &z)
}

/// As [`gram`], of points that are known to be good.
pub(crate) fn between<K: Kernel>(
    kernel: &K,
    x: &Points<K::Point>,
    z: &Points<K::Point>,
) -> Result<Tensor<f64, 2>> {
    use rayon::prelude::*;
    let mut out = Tensor::zeros([x.len(), z.len()])?;
    if z.is_empty() || x.is_empty() {
        return Ok(out);
    }
    let scale = kernel.config().scale;
    out.as_mut_slice().par_chunks_mut(z.len()).enumerate().for_each(|(i, row)| {
        let x = x.point(i);
        for rows in par::chunks(z.len(), BLOCK) {
            let part = &mut row[rows.clone()];
            relative(Isa::best(), kernel, z, &rows, &x, part);
            part.iter_mut().for_each(|v| *v = scale * (1.0 + *v));
        }
    });
    Ok(out)
}

/// The points `x`, as `f64` or digits, of a kernel.
pub(crate) fn same_dims<P: Element>(arg: &'static str, points: &Points<P>, dims: usize) -> Result<()> {
    if points.dims() == dims {
        return Ok(());
    }
    Err(Error::shape(arg, format!("[n, {dims}], one column per dimension"), &[points.len(), points.dims()]))
}
