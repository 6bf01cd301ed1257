//! Inverses of the landmarks' kernel: Newton's iteration, its backtracking form, exact, and pseudo-inverse. All in f64.

use kc_core::{Error, Float, Isa, Result, Tensor, TensorView, TensorViewMut};

use super::portable::{LANES, Product, at_level};
use super::{Scalar, dense};

/// How the kernel `A` of the landmarks is inverted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Inverse {
    /// The paper's: `P = A + ridge I`, `V = alpha P` with `alpha = 1.8 / (largest row sum of A)^2`, then `iters` times
    /// `V <- 2 V - V P V`.
    Newton {
        /// Steps; each doubles an exponent.
        iters: usize,
        /// Added to the diagonal, at least 0.
        ridge: f64,
    },
    /// The normalised variant's: no ridge, `alpha = 2 / (largest row sum)^2`, halved up to 10 times until the largest column sum of
    /// `|I - P V|` is at most 1.01. Each batch entry and head has an `alpha` of its own. Where all row sums are equal, as with
    /// one landmark or two, this start loses the direction of equal entries: the report has a residual of 1 or 1/2.
    NewtonBacktrack {
        /// Steps.
        iters: usize,
    },
    /// The inverse of `A + ridge I`, by Cholesky's factors.
    Exact {
        /// Added to the diagonal, at least 0.
        ridge: f64,
    },
    /// The pseudo-inverse, by eigenvalues.
    Pinv {
        /// Eigenvalues below this part of the largest count as 0.
        rcond: f64,
    },
}

impl Default for Inverse {
    /// Newton's with 20 steps and a ridge of 0.01.
    fn default() -> Self {
        Inverse::Newton { iters: 20, ridge: 0.01 }
    }
}

impl Inverse {
    pub(super) fn check(&self) -> Result<()> {
        match *self {
            Inverse::Newton { ridge, .. } | Inverse::Exact { ridge }
                if !(0.0..f64::INFINITY).contains(&ridge) =>
            {
                Err(Error::argument("ridge", "a finite number of at least 0", ridge))
            }
            Inverse::Pinv { rcond } if !(0.0..1.0).contains(&rcond) => {
                Err(Error::argument("rcond", "0 to 1, without 1", rcond))
            }
            _ => Ok(()),
        }
    }
}

/// How an inverse went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewtonReport {
    /// The largest entry of `|I - P Y|`, with `P` the matrix that was inverted (with its ridge). Not 0 where the steps were too few.
    pub residual: f64,
    /// Steps done: fewer than asked for only where the rest would change nothing but roundings; 0 for exact and pseudo-inverse.
    pub iters: usize,
}

/// The inverse of `a` `[m, m]`. Newton's iteration takes any square matrix, the others a symmetric one.
///
/// # Errors
/// `Shape` unless `a` is square, `NotFinite` with the position, `Argument` for settings out of range and for a matrix that
/// is not symmetric where it must be, `NotConverged` if the iteration diverges, `Singular` if there is no exact inverse.
///
/// ```
/// use kc_attention::soft::{Inverse, newton_inverse};
/// use kc_core::TensorView;
/// let a = TensorView::from_slice([2, 2], &[1.0, 0.5, 0.5, 1.0])?;
/// let (y, report) = newton_inverse(a, &Inverse::Newton { iters: 20, ridge: 0.0 })?;
/// assert!((y[[0, 0]] - 4.0 / 3.0).abs() < 1e-12 && report.residual < 1e-12);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn newton_inverse<E: Float>(
    a: TensorView<'_, E, 2>,
    inverse: &Inverse,
) -> Result<(Tensor<f64, 2>, NewtonReport)> {
    let [m, columns] = a.shape();
    if m != columns {
        return Err(Error::shape("a", "a square matrix", &a.shape()));
    }
    inverse.check()?;
    let values: Vec<f64> = a.to_vec().into_iter().map(E::to_f64).collect();
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        return Err(Error::not_finite("a", &[at / m, at % m], values[at]));
    }
    let (y, report) = invert(Isa::best(), &values, m, inverse)?;
    Ok((Tensor::from_slice([m, m], &y)?, report))
}

pub(super) fn invert(isa: Isa, a: &[f64], m: usize, inverse: &Inverse) -> Result<(Vec<f64>, NewtonReport)> {
    if m == 0 {
        return Ok((Vec::new(), NewtonReport { residual: 0.0, iters: 0 }));
    }
    let largest = a.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let near = |i: usize, j: usize| (a[i * m + j] - a[j * m + i]).abs() <= 1e-6 * largest;
    let symmetric = (0..m).all(|i| (0..i).all(|j| near(i, j)));
    if !symmetric && matches!(inverse, Inverse::Exact { .. } | Inverse::Pinv { .. }) {
        return Err(Error::argument("a", "a symmetric matrix", "one that is not"));
    }
    match *inverse {
        Inverse::Newton { iters, ridge } => {
            let alpha = 1.8 / square(largest_row_sum(a, m));
            Iteration::new(isa, a, m, ridge, symmetric).run(alpha, iters)
        }
        Inverse::NewtonBacktrack { iters } => {
            let mut alpha = 2.0 / square(largest_row_sum(a, m));
            let mut iteration = Iteration::new(isa, a, m, 0.0, symmetric);
            for _ in 0..10 {
                iteration.start(alpha);
                iteration.apply_p();
                if iteration.column_sum() <= 1.01 {
                    break;
                }
                alpha /= 2.0;
            }
            iteration.run(alpha, iters)
        }
        Inverse::Exact { ridge } => {
            let mut p = a.to_vec();
            p.iter_mut().step_by(m + 1).for_each(|x| *x += ridge);
            let y = dense::inverse(&p, m)?;
            let residual = residual_of(isa, &p, &y, m);
            Ok((y, NewtonReport { residual, iters: 0 }))
        }
        Inverse::Pinv { rcond } => {
            let (values, vectors) = dense::eigen(a, m)?;
            let cut = rcond * values.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            let mut y = vec![0.0; m * m];
            for (value, vector) in values.iter().zip(vectors.chunks_exact(m)) {
                if value.abs() <= cut {
                    continue;
                }
                for (row, x) in y.chunks_exact_mut(m).zip(vector) {
                    let factor = x / value;
                    row.iter_mut().zip(vector).for_each(|(y, v)| *y += factor * v);
                }
            }
            let residual = residual_of(isa, a, &y, m);
            Ok((y, NewtonReport { residual, iters: 0 }))
        }
    }
}

fn square(x: f64) -> f64 {
    x * x
}

fn largest_row_sum(a: &[f64], m: usize) -> f64 {
    a.chunks_exact(m).map(|row| row.iter().sum::<f64>()).fold(f64::NEG_INFINITY, f64::max)
}

/// The largest entry of `|I - P Y|`.
fn residual_of(isa: Isa, p: &[f64], y: &[f64], m: usize) -> f64 {
    let mut iteration = Iteration::new(isa, p, m, 0.0, false);
    for (to, from) in iteration.v.chunks_exact_mut(iteration.step).zip(y.chunks_exact(m)) {
        to[..m].copy_from_slice(from);
    }
    iteration.apply_p();
    iteration.residual()
}

/// From here on products go through the blocked product on all threads.
const BLOCKED: usize = 160;
/// Rows of a block of a symmetric product.
const BLOCK: usize = 6;
/// A step from below this leaves nothing but roundings.
const CONVERGED: f64 = 1e-8;

/// `V <- 2 V - V P V` as `V <- V - V W` with `W = P V - I`, whose entries tell how far `V` is from an inverse. Rows are padded to `step`.
struct Iteration {
    isa: Isa,
    m: usize,
    step: usize,
    /// `P` is symmetric; then so is `V W`, and half of the last product is enough. `W` is symmetric only but for roundings,
    /// which cancel in the product with `V`: mirroring its half would cost six digits.
    symmetric: bool,
    p: Vec<f64>,
    v: Vec<f64>,
    /// `P V - I`
    w: Vec<f64>,
    /// `V W`
    change: Vec<f64>,
}

impl Iteration {
    fn new(isa: Isa, a: &[f64], m: usize, ridge: f64, symmetric: bool) -> Self {
        let step = m.next_multiple_of(LANES);
        let zeros = || vec![0.0; m * step];
        let mut p = zeros();
        for (i, (to, from)) in p.chunks_exact_mut(step).zip(a.chunks_exact(m)).enumerate() {
            to[..m].copy_from_slice(from);
            to[i] += ridge;
        }
        Iteration { isa, m, step, symmetric, p, v: zeros(), w: zeros(), change: zeros() }
    }

    fn start(&mut self, alpha: f64) {
        self.v.iter_mut().zip(&self.p).for_each(|(v, p)| *v = alpha * p);
    }

    fn run(mut self, alpha: f64, iters: usize) -> Result<(Vec<f64>, NewtonReport)> {
        self.start(alpha);
        let (mut done, mut converged) = (0, false);
        while done < iters && !converged {
            self.apply_p();
            let left = self.residual();
            converged = left * (self.m as f64).sqrt() < CONVERGED;
            multiply(self.isa, [&self.v, &self.w], self.m, self.step, self.symmetric, &mut self.change);
            self.v.iter_mut().zip(&self.change).for_each(|(v, change)| *v -= change);
            done += 1;
        }
        self.apply_p();
        let residual = self.residual();
        if residual.is_nan() || residual > 1.0 + 1e-9 {
            return Err(Error::NotConverged { what: "inverse".into(), iterations: done, residual });
        }
        let mut y = Vec::with_capacity(self.m * self.m);
        self.v.chunks_exact(self.step).for_each(|row| y.extend_from_slice(&row[..self.m]));
        Ok((y, NewtonReport { residual, iters: done }))
    }

    /// `W = P V - I`
    fn apply_p(&mut self) {
        multiply(self.isa, [&self.p, &self.v], self.m, self.step, false, &mut self.w);
        self.w.iter_mut().step_by(self.step + 1).for_each(|w| *w -= 1.0);
    }

    /// The largest entry of `|W|`; NaN if one is.
    fn residual(&self) -> f64 {
        let mut most = [0.0; LANES];
        // The padding is zeros.
        at_level!(self.isa, largest(&self.w, &mut most));
        most.into_iter().fold(0.0, |most, w| if w > most || w.is_nan() { w } else { most })
    }

    /// The largest column sum of `|W|`.
    fn column_sum(&self) -> f64 {
        let mut sums = vec![0.0; self.m];
        for row in self.w.chunks_exact(self.step) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += w.abs());
        }
        sums.into_iter().fold(0.0, f64::max)
    }
}

/// `out = x y`, all of `m` rows padded to `step`. If the product is known to be symmetric, blocks of rows start at the
/// diagonal and the rest is mirrored.
fn multiply(isa: Isa, [x, y]: [&[f64]; 2], m: usize, step: usize, symmetric: bool, out: &mut [f64]) {
    if m >= BLOCKED {
        let view =
            |x| TensorView::from_slice([m, step], x).and_then(|x: TensorView<'_, f64, 2>| x.slice(1, 0..m));
        let to = TensorViewMut::from_slice([m, step], out).and_then(|out| out.slice(1, 0..m));
        if let (Ok(x), Ok(y), Ok(to)) = (view(x), view(y), to)
            && kc_gemm::gemm_into_with(isa, 1.0, x, y, 0.0, to).is_ok()
        {
            return;
        }
    }
    for first in (0..m).step_by(BLOCK) {
        let from = if symmetric { first / LANES * LANES } else { 0 };
        let product = Product {
            a: &x[first * step..],
            row_step: step,
            depth_step: 1,
            rows: BLOCK.min(m - first),
            depth: m,
            b: &y[from..],
            b_step: step,
            columns: step - from,
            c_step: step,
            add: false,
        };
        f64::product(isa, product, &mut out[first * step + from..]);
    }
    if symmetric {
        for i in 1..m {
            for j in 0..i {
                out[i * step + j] = out[j * step + i];
            }
        }
    }
}
