//! Gaussian processes on any points, by the Cholesky factor of their matrix: `n^3 / 3` operations.

use kc_core::{Error, Result, Tensor, TensorView};
use kc_linalg::cholesky;

use crate::ft::check_values;

/// A Gaussian process from a matrix of any kernel: for points without structure, for kernels without
/// invariance ([`crate::functions`]), and to compare the fast one with.
///
/// ```
/// use kc_core::TensorView;
/// use kc_kernel::functions::{Radial, RadialKernel};
/// use kc_kernel::gp::DenseGp;
///
/// let kernel = RadialKernel::new(Radial::Gaussian, &[0.3], 1.0)?;
/// let x = TensorView::from_slice([3, 1], &[0.0, 0.4, 1.0])?;
/// let gp = DenseGp::new(kernel.gram(x, x)?.view(), 1e-10, &[1.0, 2.0, 0.5])?;
/// let mean = gp.mean(kernel.gram(x, x)?.view())?;
/// assert!((mean[1] - 2.0).abs() < 1e-8);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DenseGp {
    factor: Tensor<f64, 2>,
    coefficients: Vec<f64>,
    mll: f64,
}

impl DenseGp {
    /// A process with the Gram matrix `k` `[n, n]` of its points, noise from 0, and values `y`.
    ///
    /// # Errors
    /// `Shape` for a matrix that is not square or another number of values, `NotFinite`, `Singular` for a matrix that is not
    /// positive definite, `Argument` for noise below 0.
    pub fn new(k: TensorView<'_, f64, 2>, noise: f64, y: &[f64]) -> Result<Self> {
        let n = k.rows();
        check_values("y", y, n)?;
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::argument("noise", "a finite number from 0", noise));
        }
        let mut shifted = k.to_tensor()?;
        for i in 0..n.min(k.cols()) {
            shifted[[i, i]] += noise;
        }
        let factor = cholesky(shifted.view())?;
        let mut coefficients = y.to_vec();
        forward(&factor, &mut coefficients);
        let fit: f64 = coefficients.iter().map(|v| v * v).sum();
        let log_det: f64 = (0..n).map(|i| 2.0 * factor[[i, i]].ln()).sum();
        backward(&factor, &mut coefficients);
        let mll = -0.5 * (fit + log_det + n as f64 * (2.0 * std::f64::consts::PI).ln());
        Ok(Self { factor, coefficients, mll })
    }

    /// `(K + noise)^-1 y`.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The marginal log-likelihood.
    pub fn mll(&self) -> f64 {
        self.mll
    }

    /// Means at points with the kernel values `k` `[points, n]` towards the data.
    ///
    /// # Errors
    /// `Shape` for another number of columns.
    pub fn mean(&self, k: TensorView<'_, f64, 2>) -> Result<Vec<f64>> {
        self.check(k)?;
        let row = |i: usize| (0..k.cols()).map(|j| k.at([i, j]) * self.coefficients[j]).sum();
        Ok((0..k.rows()).map(row).collect())
    }

    /// Variances, from 0, at points with the kernel values `k` towards the data and `diagonal` at themselves.
    ///
    /// # Errors
    /// `Shape` for another number of columns, or values on the diagonal that are not one per row.
    pub fn variance(&self, k: TensorView<'_, f64, 2>, diagonal: &[f64]) -> Result<Vec<f64>> {
        self.check(k)?;
        if diagonal.len() != k.rows() {
            return Err(Error::shape("diagonal", format!("[{}]", k.rows()), &[diagonal.len()]));
        }
        let one = |(i, &prior): (usize, &f64)| {
            let mut v: Vec<f64> = (0..k.cols()).map(|j| k.at([i, j])).collect();
            forward(&self.factor, &mut v);
            (prior - v.iter().map(|v| v * v).sum::<f64>()).max(0.0)
        };
        Ok(diagonal.iter().enumerate().map(one).collect())
    }

    fn check(&self, k: TensorView<'_, f64, 2>) -> Result<()> {
        let n = self.coefficients.len();
        if k.cols() == n { Ok(()) } else { Err(Error::shape("k", format!("[points, {n}]"), &k.shape())) }
    }
}

/// `L^-1 v`.
fn forward(l: &Tensor<f64, 2>, v: &mut [f64]) {
    for (i, row) in l.as_slice().chunks_exact(v.len().max(1)).enumerate() {
        let sum: f64 = row[..i].iter().zip(&*v).map(|(l, v)| l * v).sum();
        v[i] = (v[i] - sum) / row[i];
    }
}

/// `L^-T v`.
fn backward(l: &Tensor<f64, 2>, v: &mut [f64]) {
    for (i, row) in l.as_slice().chunks_exact(v.len().max(1)).enumerate().rev() {
        let x = v[i] / row[i];
        v[i] = x;
        v[..i].iter_mut().zip(row).for_each(|(v, l)| *v -= x * l);
    }
}
