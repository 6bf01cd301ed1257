//! The closed form: the parameter of a fully bundled network by least squares.
//!
//! `psi*` minimises `sum_i s_i |F_i psi^T - Y_i|^2 + ridge |psi|^2` with `F` the features of X and optional weights `s_i`
//! of the rows. With a ridge the normal equations are solved by Cholesky in f64. Without, the minimum-norm solution comes
//! from a complete orthogonal decomposition of F (Householder with column pivoting, then from the right), never from the
//! normal equations, which square the condition number. `O(n m^2)` either way.

use kc_core::math;
use kc_core::{Error, Result, Tensor, TensorView};
use kc_gemm::{gemm, gemm_into};

use super::bundle::{Bundle, Bundled};
use crate::{FeatureMap, Scalar, check_finite};

/// The best parameter for targets `y` `[n, out]` at inputs `x` `[n, d]`.
///
/// # Errors
/// `Shape`, `Empty`, `NotFinite`; `Argument` for a negative ridge; `Singular` if a ridge is too small for rounding.
pub fn fit_closed_form<T: Scalar>(
    bundle: &Bundle<T>,
    x: TensorView<'_, T, 2>,
    y: TensorView<'_, T, 2>,
    ridge: f64,
) -> Result<Bundled<T>> {
    fit_weighted(bundle, x, y, None, ridge)
}

/// [`fit_closed_form`] with a weight `>= 0` for each row.
///
/// # Errors
/// As [`fit_closed_form`]; `Argument` for a negative weight.
pub fn fit_weighted<T: Scalar>(
    bundle: &Bundle<T>,
    x: TensorView<'_, T, 2>,
    y: TensorView<'_, T, 2>,
    weights: Option<&[f64]>,
    ridge: f64,
) -> Result<Bundled<T>> {
    let [n, out] = y.shape();
    if x.rows() != n {
        return Err(Error::shape("y", format!("[{}, out], as x has rows", x.rows()), &y.shape()));
    }
    if n == 0 || out == 0 {
        return Err(Error::empty(if n == 0 { "x" } else { "y" }));
    }
    check_finite("y", y, 0)?;
    let (mut f, mut y) = (wide(bundle.apply(x)?.view())?, wide(y)?);
    if let Some(weights) = weights {
        if weights.len() != n {
            return Err(Error::shape("weights", format!("[{n}]"), &[weights.len()]));
        }
        if let Some(&bad) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
            return Err(Error::argument("weights", "finite numbers of at least 0", bad));
        }
        for (all, width) in [(&mut f, bundle.width()), (&mut y, out)] {
            for (row, weight) in all.as_mut_slice().chunks_exact_mut(width).zip(weights) {
                row.iter_mut().for_each(|x| *x *= weight.sqrt());
            }
        }
    }
    let coefficients = if check_ridge(ridge)? == 0.0 {
        minimum_norm(f, y)?
    } else {
        let gram = gemm(f.view().transposed(), f.view())?;
        let right = gemm(f.view().transposed(), y.view())?;
        solve_ridge(gram, right, ridge)?
    };
    bundled(bundle, &coefficients)
}

/// The network of coefficients `[width, out]` of real features. Halves of complex ones are fitted as they stand in the
/// product.
pub(crate) fn bundled<T: Scalar>(bundle: &Bundle<T>, coefficients: &Tensor<f64, 2>) -> Result<Bundled<T>> {
    let [width, out] = coefficients.shape();
    let psi = Tensor::from_fn([out, width], |[o, k]| T::from_f64(coefficients[[k, o]]))?;
    Bundled::new(bundle, bundle.last().real_form(psi.view())?)
}

pub(crate) fn check_ridge(ridge: f64) -> Result<f64> {
    if ridge >= 0.0 && ridge.is_finite() {
        return Ok(ridge);
    }
    Err(Error::argument("ridge", "a finite number of at least 0", ridge))
}

pub(crate) fn wide<T: Scalar>(x: TensorView<'_, T, 2>) -> Result<Tensor<f64, 2>> {
    let mut out = Tensor::zeros(x.shape())?;
    out.as_mut_slice().iter_mut().zip(x.iter()).for_each(|(o, x)| *o = x.to_f64());
    Ok(out)
}

/// Solves `(gram + ridge I) c = right` by Cholesky; `gram` `[m, m]` symmetric, `right` `[m, out]`.
pub(crate) fn solve_ridge(
    mut gram: Tensor<f64, 2>,
    mut right: Tensor<f64, 2>,
    ridge: f64,
) -> Result<Tensor<f64, 2>> {
    let ([m, _], out) = (gram.shape(), right.shape()[1]);
    for i in 0..m {
        gram[[i, i]] += ridge;
    }
    cholesky(&mut gram)?;
    // L z = right, then L^T c = z, whole rows at a time.
    for i in 0..m {
        let (done, rest) = right.as_mut_slice().split_at_mut(i * out);
        let row = &mut rest[..out];
        for (j, done) in done.chunks_exact(out).enumerate() {
            let factor = gram[[i, j]];
            row.iter_mut().zip(done).for_each(|(x, d)| *x -= factor * d);
        }
        let pivot = gram[[i, i]];
        row.iter_mut().for_each(|x| *x /= pivot);
    }
    for i in (0..m).rev() {
        let (before, rest) = right.as_mut_slice().split_at_mut((i + 1) * out);
        let row = &mut before[i * out..];
        for (j, below) in rest.chunks_exact(out).enumerate() {
            let factor = gram[[i + 1 + j, i]];
            row.iter_mut().zip(below).for_each(|(x, b)| *x -= factor * b);
        }
        let pivot = gram[[i, i]];
        row.iter_mut().for_each(|x| *x /= pivot);
    }
    Ok(right)
}

/// Rows that are factored together before the rest is updated by a product.
const BLOCK: usize = 64;

/// The lower Cholesky factor, in place; the part above the diagonal is left as it was.
fn cholesky(a: &mut Tensor<f64, 2>) -> Result<()> {
    let [m, _] = a.shape();
    for start in (0..m).step_by(BLOCK) {
        let end = m.min(start + BLOCK);
        for j in start..end {
            for i in j..m {
                let (row_i, row_j) = (i * m + start, j * m + start);
                let all = a.as_slice();
                let sum = all[i * m + j]
                    - math::dot(&all[row_i..row_i + j - start], &all[row_j..row_j + j - start])?;
                a[[i, j]] = if i > j {
                    sum / a[[j, j]]
                } else if sum > 0.0 {
                    sum.sqrt()
                } else {
                    return Err(Error::Singular { arg: "features".into(), index: j });
                };
            }
        }
        if end < m {
            let panel = a.view().slice(0, end..m)?.slice(1, start..end)?.to_tensor()?;
            let rest = a.view_mut().slice(0, end..m)?.slice(1, end..m)?;
            gemm_into(-1.0, panel.view(), panel.view().transposed(), 1.0, rest)?;
        }
    }
    Ok(())
}

/// The solution `[m, out]` of least norm among those that minimise `|F c - y|`.
fn minimum_norm(f: Tensor<f64, 2>, y: Tensor<f64, 2>) -> Result<Tensor<f64, 2>> {
    let ([n, m], out) = (f.shape(), y.shape()[1]);
    // Columns as rows of memory.
    let (mut a, mut y) = (f.view().transposed().to_tensor()?, y.view().transposed().to_tensor()?);
    let mut order: Vec<usize> = (0..m).collect();
    let mut lengths: Vec<f64> = a.as_slice().chunks_exact(n).map(square).collect();
    let largest = lengths.iter().copied().fold(0.0, f64::max).sqrt();
    let least = largest * f64::EPSILON * n.max(m) as f64;
    let mut rank = 0;
    while rank < n.min(m) {
        let Some(pivot) = (rank..m).max_by(|&i, &j| lengths[i].total_cmp(&lengths[j])) else { break };
        swap_rows(a.as_mut_slice(), n, rank, pivot);
        order.swap(rank, pivot);
        lengths.swap(rank, pivot);
        let (head, rest) = a.as_mut_slice().split_at_mut((rank + 1) * n);
        let column = &mut head[rank * n + rank..];
        let length = square(column).sqrt();
        if length <= least {
            break;
        }
        let Reflector { v, scale, end } = reflector(column, length);
        column.fill(0.0);
        column[0] = end;
        for (column, length) in rest.chunks_exact_mut(n).zip(&mut lengths[rank + 1..]) {
            reflect(&v, scale, &mut column[rank..])?;
            // Recomputed, as downdates lose their digits.
            *length = square(&column[rank + 1..]);
        }
        for y in y.as_mut_slice().chunks_exact_mut(n) {
            reflect(&v, scale, &mut y[rank..])?;
        }
        rank += 1;
    }
    // R = [R1 R2], rank x m, as rows; reflected from the right to [T 0] where columns are left over.
    let mut r = Tensor::from_fn([rank, m], |[i, k]| a[[k, i]])?;
    let mut turns = Vec::new();
    if rank < m {
        for i in (0..rank).rev() {
            // The part of row i to clear: its diagonal and the columns from rank on.
            let gather = |row: &[f64]| -> Vec<f64> { [&row[i..=i], &row[rank..]].concat() };
            let whole = gather(&r.as_slice()[i * m..(i + 1) * m]);
            let turn = reflector(&whole, square(&whole).sqrt());
            for row in r.as_mut_slice()[..(i + 1) * m].chunks_exact_mut(m) {
                let mut part = gather(row);
                reflect(&turn.v, turn.scale, &mut part)?;
                row[i] = part[0];
                row[rank..].copy_from_slice(&part[1..]);
            }
            turns.push((i, turn));
        }
    }
    let mut solution = Tensor::zeros([m, out])?;
    for o in 0..out {
        let mut c = vec![0.0; m];
        for i in (0..rank).rev() {
            let row = &r.as_slice()[i * m..i * m + rank];
            let known: f64 = math::dot(&row[i + 1..], &c[i + 1..rank])?;
            c[i] = (y[[o, i]] - known) / row[i];
        }
        for (i, turn) in turns.iter().rev() {
            let mut part = [&c[*i..=*i], &c[rank..]].concat();
            reflect(&turn.v, turn.scale, &mut part)?;
            c[*i] = part[0];
            c[rank..].copy_from_slice(&part[1..]);
        }
        for (&k, value) in order.iter().zip(&c) {
            solution[[k, o]] = *value;
        }
    }
    Ok(solution)
}

/// `I - scale v v^T`, which turns a vector into `(end, 0, ..., 0)`.
struct Reflector {
    v: Vec<f64>,
    scale: f64,
    end: f64,
}

fn reflector(x: &[f64], length: f64) -> Reflector {
    let mut v = x.to_vec();
    let end = -length.copysign(x[0]);
    v[0] -= end;
    let size = square(&v);
    Reflector { v, scale: if size > 0.0 { 2.0 / size } else { 0.0 }, end }
}

fn reflect(v: &[f64], scale: f64, x: &mut [f64]) -> Result<()> {
    let along = scale * math::dot(v, x)?;
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= along * v);
    Ok(())
}

fn square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

fn swap_rows(a: &mut [f64], width: usize, i: usize, j: usize) {
    if i != j {
        let (low, high) = a.split_at_mut(i.max(j) * width);
        low[i.min(j) * width..][..width].swap_with_slice(&mut high[..width]);
    }
}
