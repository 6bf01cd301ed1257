//! Several tasks on one lattice or net: related functions, or a function with its derivatives.
//!
//! Task `l` has values at the first `n_l = 2^{m_l}` points of the sequence, with a shift of its own. The kernel of
//! two tasks is `K_task[l, l'] K(x, z)` ([`Tasks::Related`]) or a sum of derivatives of `K` ([`Tasks::Derivatives`]).
//! With `n_l >= n_l'` their block of the Gram matrix is, in transform space, `n_l / n_l'` diagonal matrices on top of one
//! another: a vector `B` of `n_l` numbers that stands for the entries `(k, k mod n_l')`,
//!
//! ```text
//! B = sqrt(n_l') ft(K_{l l'}(x_i, z_0), i < n_l)
//! ```
//!
//! Eliminating the task with most points leaves blocks of the same form, so that `K = L D L^H` costs
//! `O(T^2 n log n + T^3 n)`, whatever the sizes. [`MultiGp::gradient`] differentiates the log-likelihood by the kernel's
//! parameters, the noise and the task matrix (or its factors) at the same cost.

use kc_core::{Complex, Error, Isa, Result};
use kc_fft::{fftbr, fwht, ifftbr};

use crate::config::positive;
use crate::derivative::{self, Term};
use crate::ft::{Transform, check_values, power_of_two};
use crate::kernel::{Kernel, not_structured};
use crate::points::Points;
use crate::product;

mod gp;
mod gradient;

pub use gp::MultiGp;
pub use gradient::MultiGradient;

/// How tasks are related.
#[derive(Debug, Clone, PartialEq)]
pub enum Tasks {
    /// A symmetric positive definite matrix, row by row: see [`Tasks::low_rank`] and [`Tasks::triangular`].
    Related {
        /// How many tasks.
        count: usize,
        /// `count * count` entries.
        matrix: Vec<f64>,
    },
    /// A sum of derivatives of one function for each task (the function itself is [`Term::value`]).
    Derivatives(Vec<Vec<Term>>),
}

impl Tasks {
    /// `F F^T + diag(v)` with `F` of `v.len()` rows, row by row, and `v > 0`.
    ///
    /// # Errors
    /// `Empty` without tasks, `Shape` if `F` is not whole rows, `Argument` for `v` that is not positive, `NotFinite`.
    pub fn low_rank(factor: &[f64], diagonal: &[f64]) -> Result<Self> {
        let count = diagonal.len();
        if count == 0 {
            return Err(Error::empty("tasks"));
        }
        if !factor.len().is_multiple_of(count) {
            return Err(Error::shape("factor", format!("{count} rows"), &[factor.len()]));
        }
        check_values("factor", factor, factor.len())?;
        diagonal.iter().try_for_each(|&v| positive("diagonal", v))?;
        let rank = factor.len() / count;
        let row = |l: usize| &factor[l * rank..(l + 1) * rank];
        let entry = |l: usize, m: usize| {
            let product: f64 = row(l).iter().zip(row(m)).map(|(a, b)| a * b).sum();
            product + if l == m { diagonal[l] } else { 0.0 }
        };
        let matrix = (0..count * count).map(|at| entry(at / count, at % count)).collect();
        Ok(Tasks::Related { count, matrix })
    }

    /// `L L^T` with a lower triangular `L` of `count` rows and a positive diagonal.
    ///
    /// # Errors
    /// As [`low_rank`](Self::low_rank); entries above the diagonal must be 0.
    pub fn triangular(factor: &[f64], count: usize) -> Result<Self> {
        if count == 0 {
            return Err(Error::empty("tasks"));
        }
        if Some(factor.len()) != count.checked_mul(count) {
            return Err(Error::shape("factor", format!("{count} rows of {count}"), &[factor.len()]));
        }
        check_values("factor", factor, factor.len())?;
        for (l, row) in factor.chunks_exact(count).enumerate() {
            positive("factor", row[l])?;
            if row[l + 1..].iter().any(|&v| v != 0.0) {
                return Err(Error::argument("factor", "zeros above the diagonal", format!("row {l}")));
            }
        }
        let row = |l: usize| &factor[l * count..(l + 1) * count];
        let entry = |l: usize, m: usize| row(l).iter().zip(row(m)).map(|(a, b)| a * b).sum();
        Ok(Tasks::Related {
            count,
            matrix: (0..count * count).map(|at| entry(at / count, at % count)).collect(),
        })
    }

    /// How many tasks.
    pub fn count(&self) -> usize {
        match self {
            Tasks::Related { count, .. } => *count,
            Tasks::Derivatives(all) => all.len(),
        }
    }

    fn check<K: Kernel>(&self, kernel: &K) -> Result<()> {
        match self {
            Tasks::Related { count, matrix } => {
                if *count == 0 {
                    return Err(Error::empty("tasks"));
                }
                if Some(matrix.len()) != count.checked_mul(*count) {
                    return Err(Error::shape("tasks", format!("{count} rows of {count}"), &[matrix.len()]));
                }
                let asymmetric =
                    (0..matrix.len()).any(|at| matrix[at] != matrix[at % count * count + at / count]);
                if asymmetric {
                    return Err(Error::argument("tasks", "a symmetric matrix without NaN", "another"));
                }
                check_values("tasks", matrix, matrix.len())
            }
            Tasks::Derivatives(all) => {
                if all.is_empty() {
                    return Err(Error::empty("tasks"));
                }
                for left in all {
                    all.iter().try_for_each(|right| derivative::check(kernel, left, right))?;
                }
                Ok(())
            }
        }
    }

    /// `K_{left right}(x_i, z)` for the first points of `x`, as many as `out` is long.
    pub(crate) fn column<K: Kernel>(
        &self,
        kernel: &K,
        [left, right]: [usize; 2],
        x: &Points<K::Point>,
        z: &[K::Point],
        out: &mut [f64],
    ) {
        match self {
            Tasks::Related { count, matrix } => {
                product::excess(Isa::best(), kernel, x, 0, z, out);
                let (by, scale) = (matrix[left * count + right], kernel.config().scale);
                out.iter_mut().for_each(|v| *v = by * (scale + *v));
            }
            Tasks::Derivatives(all) => {
                use rayon::prelude::*;
                let value = |i: usize| derivative::sum(kernel, &all[left], &all[right], &x.point(i), z);
                out.par_iter_mut().enumerate().for_each(|(i, out)| *out = value(i));
            }
        }
    }
}

/// The Gram matrix of several tasks, in transform space.
#[derive(Debug, Clone)]
pub struct MultiGram {
    transform: Transform,
    /// Points of each task.
    sizes: Vec<usize>,
    /// The tasks, most points first.
    order: Vec<usize>,
    /// Blocks of the upper triangle in that order.
    blocks: Vec<Vec<Complex<f64>>>,
}

/// Where the block of two tasks stands, `left <= right` in order of size.
fn place(tasks: usize, left: usize, right: usize) -> usize {
    left * tasks - left * (left + 1) / 2 + right
}

impl MultiGram {
    /// The matrix of tasks with these points each: the first ones of one lattice or net, with one shift for each task.
    ///
    /// # Errors
    /// `Shape` for points that are not one set per task; `Argument` for numbers of points that are not powers of two, or
    /// points without the structure; for the tasks see [`Tasks`] and [`derivative::eval`].
    pub fn new<K: Kernel>(kernel: &K, tasks: &Tasks, points: &[Points<K::Point>]) -> Result<Self> {
        tasks.check(kernel)?;
        let count = tasks.count();
        if points.len() != count {
            return Err(Error::shape("points", format!("{count} sets, one per task"), &[points.len()]));
        }
        for x in points {
            product::same_dims("points", x, kernel.dims())?;
            power_of_two(x.len())?;
            kernel.check_structure(x)?;
        }
        let sizes: Vec<usize> = points.iter().map(Points::len).collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&l| std::cmp::Reverse(sizes[l]));
        for &l in &order[1..] {
            kernel.check_shifted(&points[order[0]], &points[l])?;
        }
        let mut blocks = Vec::with_capacity(count * (count + 1) / 2);
        for (at, &left) in order.iter().enumerate() {
            for &right in &order[at..] {
                let mut column = vec![0.0; sizes[left]];
                tasks.column(kernel, [left, right], &points[left], &points[right].point(0), &mut column);
                check_values("K", &column, column.len())?;
                let mut block = forward(K::TRANSFORM, column)?;
                let root = (sizes[right] as f64).sqrt();
                block.iter_mut().for_each(|z| *z *= root);
                blocks.push(block);
            }
        }
        Ok(Self { transform: K::TRANSFORM, sizes, order, blocks })
    }

    /// Points of each task.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The trace of each task's own block.
    pub fn traces(&self) -> Vec<f64> {
        let count = self.order.len();
        let mut traces = vec![0.0; count];
        for (at, &l) in self.order.iter().enumerate() {
            traces[l] = self.blocks[place(count, at, at)].iter().map(|z| z.re).sum();
        }
        traces
    }

    /// `K y` for values of each task.
    ///
    /// # Errors
    /// `Shape` for values that are not one list per task with one value per point, `NotFinite`.
    pub fn mul(&self, y: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let y = self.transformed(y)?;
        let count = self.order.len();
        let mut out: Vec<Vec<Complex<f64>>> = y.iter().map(|y| vec![Complex::default(); y.len()]).collect();
        for left in 0..count {
            for right in left..count {
                let block = &self.blocks[place(count, left, right)];
                let n = y[right].len();
                for (k, b) in block.iter().enumerate() {
                    out[left][k] += b * y[right][k % n];
                    if right > left {
                        out[right][k % n] += b.conj() * y[left][k];
                    }
                }
            }
        }
        self.back(out)
    }

    /// The factors of `K` with noise `xi_l >= 0` added to each task.
    ///
    /// # Errors
    /// `Shape` for noise that is not one number per task, `Argument` for noise below 0, `Singular` with the place of a pivot
    /// (in the transform of the largest task first) that is not positive.
    pub fn factor(&self, noise: &[f64]) -> Result<MultiFactor<'_>> {
        let count = self.order.len();
        if noise.len() != count {
            return Err(Error::shape("noise", format!("[{count}], one per task"), &[noise.len()]));
        }
        if let Some(bad) = noise.iter().find(|v| !(**v >= 0.0 && v.is_finite())) {
            return Err(Error::argument("noise", "finite numbers from 0", bad));
        }
        let mut blocks = self.blocks.clone();
        for (at, &l) in self.order.iter().enumerate() {
            blocks[place(count, at, at)].iter_mut().for_each(|z| z.re += noise[l]);
        }
        let largest = (0..count)
            .flat_map(|p| blocks[place(count, p, p)].iter().map(|z| z.re))
            .fold(0.0f64, |most, v| most.max(v));
        let floor = f64::EPSILON * largest;
        let mut passed = 0;
        for p in 0..count {
            let (head, tail) = blocks.split_at_mut(place(count, p, p) + count - p);
            let row = &mut head[place(count, p, p)..];
            for (k, pivot) in row[0].iter_mut().enumerate() {
                if pivot.re.is_nan() || pivot.re < -64.0 * floor || largest <= 0.0 {
                    return Err(Error::Singular { arg: "K".into(), index: passed + k });
                }
                // What rounding has taken below 0, as in a single matrix.
                *pivot = Complex::new(pivot.re.max(floor), 0.0);
            }
            passed += row[0].len();
            // What the pivots take from the blocks behind them.
            let mut rest = tail.iter_mut();
            for left in 1..row.len() {
                for right in left..row.len() {
                    let Some(block) = rest.next() else { break };
                    let n = block.len();
                    for (k, pivot) in row[0].iter().enumerate() {
                        let (a, b) = (row[left][k], row[right][k]);
                        block[k % n] -= a.conj() * b / pivot.re;
                    }
                }
            }
        }
        Ok(MultiFactor { gram: self, blocks })
    }

    /// Values in transform space, in order of size.
    fn transformed(&self, y: &[Vec<f64>]) -> Result<Vec<Vec<Complex<f64>>>> {
        if y.len() != self.sizes.len() {
            return Err(Error::shape("y", format!("{} lists, one per task", self.sizes.len()), &[y.len()]));
        }
        for (y, &n) in y.iter().zip(&self.sizes) {
            check_values("y", y, n)?;
        }
        self.order.iter().map(|&l| forward(self.transform, y[l].clone())).collect()
    }

    /// Back to values, in the order of the tasks.
    fn back(&self, y: Vec<Vec<Complex<f64>>>) -> Result<Vec<Vec<f64>>> {
        let mut out = vec![Vec::new(); self.order.len()];
        for (&l, y) in self.order.iter().zip(y) {
            out[l] = backward(self.transform, y)?;
        }
        Ok(out)
    }
}

/// The factors of a [`MultiGram`] with noise.
#[derive(Debug, Clone)]
pub struct MultiFactor<'a> {
    gram: &'a MultiGram,
    /// Pivots on the diagonal, and the rows `D L^H`.
    blocks: Vec<Vec<Complex<f64>>>,
}

impl MultiFactor<'_> {
    /// `(K + noise)^-1 y`.
    ///
    /// # Errors
    /// As [`MultiGram::mul`].
    pub fn solve(&self, y: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut z = self.gram.transformed(y)?;
        let count = z.len();
        self.eliminate(&mut z);
        for p in (0..count).rev() {
            let (head, done) = z.split_at_mut(p + 1);
            let own = &mut head[p];
            for (right, x) in (p + 1..).zip(done) {
                let (block, n) = (&self.blocks[place(count, p, right)], x.len());
                own.iter_mut().zip(block).enumerate().for_each(|(k, (own, b))| *own -= b * x[k % n]);
            }
            own.iter_mut().zip(&self.blocks[place(count, p, p)]).for_each(|(own, d)| *own /= d.re);
        }
        self.gram.back(z)
    }

    /// `y^T (K + noise)^-1 y`.
    ///
    /// # Errors
    /// As [`MultiGram::mul`].
    pub fn quadratic(&self, y: &[Vec<f64>]) -> Result<f64> {
        let mut z = self.gram.transformed(y)?;
        let count = z.len();
        self.eliminate(&mut z);
        let own = |p: usize| -> f64 {
            z[p].iter().zip(&self.blocks[place(count, p, p)]).map(|(z, d)| z.norm_sqr() / d.re).sum()
        };
        Ok((0..count).map(own).sum())
    }

    /// `log det (K + noise)`.
    pub fn log_det(&self) -> f64 {
        let count = self.gram.order.len();
        (0..count).map(|p| self.blocks[place(count, p, p)].iter().map(|d| d.re.ln()).sum::<f64>()).sum()
    }

    /// `L^-1 z`.
    fn eliminate(&self, z: &mut [Vec<Complex<f64>>]) {
        let count = z.len();
        for p in 0..count {
            let (head, rest) = z.split_at_mut(p + 1);
            for (right, z) in (p + 1..).zip(rest) {
                let (block, pivots, n) =
                    (&self.blocks[place(count, p, right)], &self.blocks[place(count, p, p)], z.len());
                for (k, ((own, b), d)) in head[p].iter().zip(block).zip(pivots).enumerate() {
                    z[k % n] -= b.conj() * own / d.re;
                }
            }
        }
    }
}

/// The whole transform of real values.
fn forward(transform: Transform, mut y: Vec<f64>) -> Result<Vec<Complex<f64>>> {
    let n = y.len();
    if transform == Transform::Walsh {
        fwht(&mut y, n)?;
    }
    let mut z: Vec<Complex<f64>> = y.into_iter().map(|re| Complex::new(re, 0.0)).collect();
    if transform == Transform::Fourier {
        fftbr(&mut z, n)?;
    }
    Ok(z)
}

/// The values of a whole transform.
fn backward(transform: Transform, mut z: Vec<Complex<f64>>) -> Result<Vec<f64>> {
    let n = z.len();
    if transform == Transform::Fourier {
        ifftbr(&mut z, n)?;
    }
    let mut y: Vec<f64> = z.into_iter().map(|z| z.re).collect();
    if transform == Transform::Walsh {
        fwht(&mut y, n)?;
    }
    Ok(y)
}

/// The error of sets of points that do not belong together.
pub(crate) fn not_shifted(at: usize, dim: usize) -> Error {
    not_structured("one lattice or net for all tasks", format!("another step at [{at}, {dim}]"))
}
