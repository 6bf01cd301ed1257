//! The nuclear norm of matrices too large for a decomposition, with error bars.
//!
//! `|Z|_* = tr f(A)` with `A = Z^T Z` and `f` the square root. The trace is estimated by quadratic forms
//! `v^T f(A) v`, and each form by Gauss quadrature: the Lanczos recurrence from `v` gives a tridiagonal
//! matrix whose eigenvalues and eigenvectors' first entries are nodes and weights. All vectors advance
//! together, so that a step is one read of X and two products with a thin block.
//!
//! Half of the vectors are spent on the largest directions, where the variance sits (Meyer et al., "Hutch++",
//! 2021): an orthonormal basis Q of `A G` for random G. Forms over Q count exactly, the rest is estimated
//! from random signs projected off Q.
//!
//! One step costs `4 N d p` operations for `p` vectors, and `p d` numbers are kept for each.

use kc_core::{Error, Float, KcRng, Result, Tensor, TensorView, par};

use ::faer::linalg::matmul::matmul;
use ::faer::{Accum, Par};

use super::norm::{Hidden, with_hidden};
use super::normalised::Normalised;
use super::{MnnConfig, check_matrix, is_undefined};
use crate::eigh;
use crate::faer::{mat_mut, mat_ref};

/// Rows that one task multiplies.
const CHUNK: usize = 256;

/// Settings of [`estimate_nuclear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EstimateConfig {
    /// Vectors, at least 4: half span the largest directions, half are random signs. The error falls like
    /// 1 / sqrt(probes) or faster.
    pub probes: usize,
    /// Lanczos steps, at least 2; each reads the matrix once. The quadrature error falls like 1 / steps^2 for
    /// spectra that reach zero, exponentially for others.
    pub steps: usize,
    /// Seed of the random signs.
    pub seed: u64,
}

impl Default for EstimateConfig {
    fn default() -> Self {
        Self { probes: 32, steps: 24, seed: 0 }
    }
}

/// An estimated nuclear norm.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NuclearEstimate {
    /// The estimate. NaN where the matrix is undefined.
    pub nuclear: f64,
    /// One standard error from the spread of the random vectors.
    pub std_error: f64,
    /// How much the estimate moved in the last quarter of the Lanczos steps.
    pub quadrature_error: f64,
    /// Vectors used.
    pub probes: usize,
    /// Lanczos steps done.
    pub steps: usize,
}

/// An estimate of the exact nuclear norm of the centred, row-normalised `x`. The same seed gives the same
/// bits for any number of threads.
pub fn estimate_nuclear<T: Float>(
    x: TensorView<'_, T, 2>,
    config: &MnnConfig,
    estimate: &EstimateConfig,
) -> Result<NuclearEstimate> {
    let [rows, dim] = x.shape();
    check_matrix(rows, dim)?;
    if estimate.probes < 4 {
        return Err(Error::argument("probes", "at least 4", estimate.probes));
    }
    if estimate.steps < 2 {
        return Err(Error::argument("steps", "at least 2", estimate.steps));
    }
    with_hidden!(x, |x| run(x, config, estimate))
}

fn run<H: Hidden>(
    x: TensorView<'_, H, 2>,
    config: &MnnConfig,
    estimate: &EstimateConfig,
) -> Result<NuclearEstimate> {
    let z = Normalised::new(x, config)?;
    let dim = x.cols();
    if is_undefined(z.zero_rows, config) {
        let nan = f64::NAN;
        return Ok(NuclearEstimate {
            nuclear: nan,
            std_error: nan,
            quadrature_error: nan,
            probes: 0,
            steps: 0,
        });
    }
    let random = (estimate.probes / 2).max(2);
    // Vectors are rows of these blocks, so that each is contiguous.
    let mut rng = KcRng::new(estimate.seed, 0);
    let sketch = Tensor::from_fn([(estimate.probes - random).min(dim), dim], |_| sign(&mut rng))?;
    let basis = orthonormal(apply_gram(&z, &sketch)?);
    let mut rng = KcRng::new(estimate.seed, 1);
    let mut start = basis.clone();
    for _ in 0..random {
        let mut v: Vec<f64> = (0..dim).map(|_| sign(&mut rng)).collect();
        project_off(&basis, &mut v);
        start.push(v);
    }
    let forms = lanczos(&z, &start, estimate.steps)?;
    let total = |of: fn(&Form) -> f64| {
        let exact: f64 = forms[..basis.len()].iter().map(of).sum();
        let rest: f64 = forms[basis.len()..].iter().map(of).sum();
        exact + rest / random as f64
    };
    let nuclear = total(|form| form.value);
    let mean = forms[basis.len()..].iter().map(|f| f.value).sum::<f64>() / random as f64;
    let variance =
        forms[basis.len()..].iter().map(|f| (f.value - mean).powi(2)).sum::<f64>() / (random as f64 - 1.0);
    Ok(NuclearEstimate {
        nuclear,
        std_error: (variance / random as f64).sqrt(),
        quadrature_error: (nuclear - total(|form| form.earlier)).abs(),
        probes: basis.len() + random,
        steps: forms.iter().map(|f| f.steps).max().unwrap_or(0),
    })
}

fn sign(rng: &mut KcRng) -> f64 {
    if rng.next_u64() >> 63 == 0 { 1.0 } else { -1.0 }
}

/// `V A` for vectors in the rows of `v`: one read of Z.
fn apply_gram<H: Hidden>(z: &Normalised<'_, H>, v: &Tensor<f64, 2>) -> Result<Tensor<f64, 2>> {
    let [rows, dim] = z.shape();
    let [count, _] = v.shape();
    let part = |range: std::ops::Range<usize>| -> Result<Tensor<f64, 2>> {
        let mut block = Tensor::<f64, 2>::zeros([range.len(), dim])?;
        for (i, row) in range.clone().zip(block.as_mut_slice().chunks_exact_mut(dim)) {
            z.fill(i, 0..dim, row);
        }
        let mut y = Tensor::<f64, 2>::zeros([count, range.len()])?;
        let (left, right) = (mat_ref(v.view()), mat_ref(block.view().transposed()));
        matmul(mat_mut(y.view_mut()), Accum::Replace, left, right, 1.0, Par::Seq);
        let mut out = Tensor::<f64, 2>::zeros([count, dim])?;
        let (left, right) = (mat_ref(y.view()), mat_ref(block.view()));
        matmul(mat_mut(out.view_mut()), Accum::Replace, left, right, 1.0, Par::Seq);
        Ok(out)
    };
    let sum = par::map_reduce(rows, CHUNK, part, |a, b| {
        let (mut a, b) = (a?, b?);
        a.as_mut_slice().iter_mut().zip(b.as_slice()).for_each(|(a, b)| *a += b);
        Ok(a)
    });
    sum.unwrap_or_else(|| Tensor::zeros([count, dim]))
}

/// Modified Gram-Schmidt, twice; vectors that vanish are dropped.
fn orthonormal(v: Tensor<f64, 2>) -> Vec<Vec<f64>> {
    let dim = v.shape()[1];
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in v.as_slice().chunks_exact(dim) {
        let mut row = row.to_vec();
        let before = dot(&row, &row).sqrt();
        project_off(&basis, &mut row);
        project_off(&basis, &mut row);
        let after = dot(&row, &row).sqrt();
        if after > 1e-10 * before {
            row.iter_mut().for_each(|x| *x /= after);
            basis.push(row);
        }
    }
    basis
}

fn project_off(basis: &[Vec<f64>], v: &mut [f64]) {
    for q in basis {
        let along = dot(q, v);
        v.iter_mut().zip(q).for_each(|(v, q)| *v -= along * q);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The quadrature of one form.
struct Form {
    value: f64,
    /// After three quarters of the steps.
    earlier: f64,
    steps: usize,
}

/// The Lanczos recurrence of one starting vector.
struct Recurrence {
    norm2: f64,
    basis: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    done: bool,
}

/// `v^T sqrt(A) v` for each starting vector, all advancing together.
fn lanczos<H: Hidden>(z: &Normalised<'_, H>, start: &[Vec<f64>], steps: usize) -> Result<Vec<Form>> {
    let dim = z.shape()[1];
    let mut all: Vec<Recurrence> = start
        .iter()
        .map(|v| {
            let norm2 = dot(v, v);
            let unit = v.iter().map(|x| x / norm2.sqrt()).collect();
            let done = norm2 <= f64::EPSILON;
            Recurrence { norm2, basis: vec![unit], diagonal: Vec::new(), beside: Vec::new(), done }
        })
        .collect();
    for _ in 0..steps.min(dim) {
        let mut running: Vec<&mut Recurrence> = all.iter_mut().filter(|r| !r.done).collect();
        if running.is_empty() {
            break;
        }
        let mut v = Tensor::<f64, 2>::zeros([running.len(), dim])?;
        for (row, r) in v.as_mut_slice().chunks_exact_mut(dim).zip(&running) {
            if let Some(last) = r.basis.last() {
                row.copy_from_slice(last);
            }
        }
        let product = apply_gram(z, &v)?;
        for (r, w) in running.iter_mut().zip(product.as_slice().chunks_exact(dim)) {
            r.advance(w.to_vec());
        }
    }
    all.iter().map(|r| r.quadrature(steps)).collect()
}

impl Recurrence {
    /// One step, given A times the last basis vector. Orthogonalised against all earlier ones, twice: rounding
    /// would otherwise bring converged directions back and count them again.
    fn advance(&mut self, mut w: Vec<f64>) {
        let Some(last) = self.basis.last() else { return };
        let size = dot(&w, &w).sqrt();
        self.diagonal.push(dot(last, &w));
        project_off(&self.basis, &mut w);
        project_off(&self.basis, &mut w);
        let length = dot(&w, &w).sqrt();
        if length <= 1e-12 * size.max(f64::MIN_POSITIVE) {
            self.done = true;
            return;
        }
        w.iter_mut().for_each(|x| *x /= length);
        self.beside.push(length);
        self.basis.push(w);
    }

    fn quadrature(&self, steps: usize) -> Result<Form> {
        let m = self.diagonal.len();
        let early = if self.done { m } else { (steps - steps / 4).min(m) };
        Ok(Form { value: self.gauss(m)?, earlier: self.gauss(early)?, steps: m })
    }

    /// Gauss quadrature of the square root from the first `m` steps.
    fn gauss(&self, m: usize) -> Result<f64> {
        if m == 0 {
            return Ok(0.0);
        }
        let tridiagonal = Tensor::from_fn([m, m], |[i, j]| match i.abs_diff(j) {
            0 => self.diagonal[i],
            1 => self.beside[i.min(j)],
            _ => 0.0,
        })?;
        let eigen = eigh(tridiagonal.view())?;
        let nodes = eigen.values.iter().enumerate();
        Ok(self.norm2 * nodes.map(|(k, v)| eigen.vectors[[0, k]].powi(2) * v.max(0.0).sqrt()).sum::<f64>())
    }
}
