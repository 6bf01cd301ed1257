//! Gram matrices of structured points, in transform space.
//!
//! On the first `n = 2^m` points of a shifted lattice in natural order the matrix of a shift-invariant kernel becomes
//! diagonal by the Fourier transform in bit-reversed order; on those of a digital net with one digital shift that of a
//! digitally shift-invariant kernel does by the Walsh-Hadamard transform. With the first column
//! `k_i = K(x_i, x_0)` and `ft` unitary:
//!
//! ```text
//! lambda = sqrt(n) ft(k) > 0        K y = ift(lambda ft(y))        (K + xi)^-1 y = ift(ft(y) / (lambda + xi))
//! log det (K + xi) = sum log(lambda + xi)
//! ```
//!
//! so all of these cost `O(n log n)`. Data are real: half of a Fourier spectrum is enough. Two measures keep digits:
//! the mean of `y` is taken out before the transform, and the column is that of `K - S`, whose transform lacks only
//! `n S` in its first value. What is left of that value, `sum_i (K(x_i, x_0) - S)`, is kept apart: with it the
//! variance of the cubature has no cancellation.

use kc_core::math::{Function, apply_in_place};
use kc_core::{Complex, Error, Isa, Result};
use kc_fft::bitrev::root_of_unity;
use kc_fft::{fwht, fwht_double, irfftbr, rfftbr};

use crate::kernel::{Kernel, not_structured};
use crate::points::Points;
use crate::product;

/// Which transform makes a matrix diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Fourier with bit-reversed points: lattices.
    Fourier,
    /// Walsh-Hadamard: digital nets.
    Walsh,
}

impl Transform {
    /// `sum_k f_k` over the whole transform, from the values that stand for it.
    pub(crate) fn total(self, n: usize, f: &[f64]) -> f64 {
        match self {
            Transform::Walsh => sum(f),
            Transform::Fourier => {
                let last = if n > 1 { f[n / 2] } else { 0.0 };
                2.0 * sum(f) - f[0] - last
            }
        }
    }

    /// The transform of real numbers whose mean is taken out first.
    pub(crate) fn forward(self, y: &[f64]) -> Result<Spectrum> {
        let n = y.len();
        let mean = mean(y);
        let root = (n as f64).sqrt();
        match self {
            Transform::Walsh => {
                let mut out: Vec<f64> = y.iter().map(|y| y - mean).collect();
                fwht(&mut out, n)?;
                out[0] += mean * root;
                Ok(Spectrum::Walsh(out))
            }
            Transform::Fourier => {
                let centred: Vec<f64> = y.iter().map(|y| y - mean).collect();
                let mut out = vec![Complex::default(); n / 2 + 1];
                rfftbr(&centred, n, &mut out)?;
                out[0].re += mean * root;
                Ok(Spectrum::Fourier(out))
            }
        }
    }

    /// The inverse transform of a symmetric real spectrum, given by the values that stand for it.
    pub(crate) fn backward(self, n: usize, f: &[f64]) -> Result<Vec<f64>> {
        match self {
            Transform::Walsh => Spectrum::Walsh(f.to_vec()),
            Transform::Fourier => Spectrum::Fourier(f.iter().map(|&re| Complex::new(re, 0.0)).collect()),
        }
        .inverse(n)
    }
}

/// The transform of real numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Spectrum {
    /// The first `n/2 + 1` values; the others are their conjugates.
    Fourier(Vec<Complex<f64>>),
    /// All values.
    Walsh(Vec<f64>),
}

impl Spectrum {
    /// Each value times a real number.
    pub(crate) fn scaled(&self, by: impl Fn(usize) -> f64) -> Self {
        match self {
            Spectrum::Fourier(z) => Spectrum::Fourier(z.iter().enumerate().map(|(k, z)| z * by(k)).collect()),
            Spectrum::Walsh(v) => Spectrum::Walsh(v.iter().enumerate().map(|(k, v)| v * by(k)).collect()),
        }
    }

    /// Squared moduli.
    pub(crate) fn energy(&self) -> Vec<f64> {
        match self {
            Spectrum::Fourier(z) => z.iter().map(|z| z.norm_sqr()).collect(),
            Spectrum::Walsh(v) => v.iter().map(|v| v * v).collect(),
        }
    }

    /// The first value, `sqrt(n)` times the mean.
    pub(crate) fn first(&self) -> f64 {
        match self {
            Spectrum::Fourier(z) => z[0].re,
            Spectrum::Walsh(v) => v[0],
        }
    }

    /// Real parts.
    pub(crate) fn real(&self) -> Vec<f64> {
        match self {
            Spectrum::Fourier(z) => z.iter().map(|z| z.re).collect(),
            Spectrum::Walsh(v) => v.clone(),
        }
    }

    /// Largest imaginary part.
    fn imaginary(&self) -> f64 {
        match self {
            Spectrum::Fourier(z) => z.iter().fold(0.0, |most, z| most.max(z.im.abs())),
            Spectrum::Walsh(_) => 0.0,
        }
    }

    /// The real numbers; their mean is put in last.
    pub(crate) fn inverse(mut self, n: usize) -> Result<Vec<f64>> {
        let mean = self.first() / (n as f64).sqrt();
        let mut out = match &mut self {
            Spectrum::Walsh(v) => {
                v[0] = 0.0;
                fwht(v, n)?;
                std::mem::take(v)
            }
            Spectrum::Fourier(z) => {
                z[0] = Complex::default();
                let mut out = vec![0.0; n];
                irfftbr(z, n, &mut out)?;
                out
            }
        };
        out.iter_mut().for_each(|v| *v += mean);
        Ok(out)
    }

    /// The transform of twice as many numbers, from those of the two halves: `n` is the whole length.
    pub(crate) fn doubled(self, second: Self, n: usize) -> Result<Self> {
        match (self, second) {
            (Spectrum::Walsh(mut first), Spectrum::Walsh(second)) => {
                first.extend(second);
                fwht_double(&mut first, n)?;
                Ok(Spectrum::Walsh(first))
            }
            (Spectrum::Fourier(first), Spectrum::Fourier(second)) => {
                let (half, scale) = (n / 2, 0.5f64.sqrt());
                let value =
                    |z: &[Complex<f64>], k: usize| if 2 * k <= half { z[k] } else { z[half - k].conj() };
                let mut out: Vec<_> = (0..half)
                    .map(|k| (value(&first, k) + value(&second, k) * root_of_unity(k, n)) * scale)
                    .collect();
                out.push((first[0] - second[0]) * scale);
                Ok(Spectrum::Fourier(out))
            }
            _ => Err(Error::argument("spectrum", "two of the same transform", "one of each")),
        }
    }
}

/// A sum in the fixed tree of blocks of 1024.
pub(crate) fn sum(x: &[f64]) -> f64 {
    let parts = kc_core::par::chunks(x.len(), 1024).map(|rows| x[rows].iter().sum::<f64>()).collect();
    kc_core::par::tree_reduce(parts, |a: f64, b| a + b).unwrap_or(0.0)
}

fn mean(y: &[f64]) -> f64 {
    if y.is_empty() { 0.0 } else { sum(y) / y.len() as f64 }
}

/// A Gram matrix of structured points, by its eigenvalues.
///
/// ```
/// use kc_core::TensorView;
/// use kc_kernel::{Gram, KernelConfig, Smoothness, si::SiKernel};
///
/// // The lattice with generating vector (1, 3), natural order: multiples of 0, 1/2, 1/4, 3/4.
/// let x = [0.0, 0.0, 0.5, 0.5, 0.25, 0.75, 0.75, 0.25];
/// let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(1, 2)))?;
/// let gram = Gram::new(&kernel, TensorView::from_slice([4, 2], &x)?)?;
/// let y = gram.mul(&[1.0, 2.0, 3.0, 4.0])?;
/// let back = gram.solve(&y, 0.0)?;
/// assert!((back[2] - 3.0).abs() < 1e-12);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    transform: Transform,
    n: usize,
    /// The values that stand for all eigenvalues.
    lambda: Vec<f64>,
    /// `lambda_0 - n S`.
    excess: f64,
    /// `S`.
    scale: f64,
}

impl Gram {
    /// The matrix of a kernel on points `(n, d)`.
    ///
    /// # Errors
    /// `Argument` if `n` is not a power of two, a coordinate is outside of the domain, or the points are not those of
    /// a lattice (net) with one shift in natural order; `Shape` for another number of dimensions.
    pub fn new<K: Kernel>(kernel: &K, x: kc_core::TensorView<'_, K::Point, 2>) -> Result<Self> {
        power_of_two(x.rows())?;
        let points = Points::from_rows(kernel, x)?;
        kernel.check_structure(&points)?;
        Self::of_points(kernel, &points)
    }

    /// As [`new`](Self::new), of points whose structure is known.
    pub(crate) fn of_points<K: Kernel>(kernel: &K, points: &Points<K::Point>) -> Result<Self> {
        let column = column(kernel, points, 0..points.len());
        let excess = sum(&column);
        Self::of_column(kernel, &K::TRANSFORM.forward(&column)?, excess, points.len())
    }

    /// From the transform of the first column of `K - S` and its sum.
    pub(crate) fn of_column<K: Kernel>(kernel: &K, column: &Spectrum, excess: f64, n: usize) -> Result<Self> {
        let (root, scale) = ((n as f64).sqrt(), kernel.config().scale);
        let mut lambda = column.real();
        lambda.iter_mut().for_each(|v| *v *= root);
        lambda[0] = excess + n as f64 * scale;
        let largest = lambda.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        if !largest.is_finite() {
            return Err(Error::not_finite("K", &[], largest));
        }
        let imaginary = column.imaginary() * root;
        if imaginary > 1e-8 * largest {
            let got = format!("eigenvalues with imaginary parts up to {imaginary:e}");
            return Err(not_structured("a lattice or digital net", got));
        }
        Ok(Self { transform: K::TRANSFORM, n, lambda, excess, scale })
    }

    /// Rows of the matrix.
    pub fn len(&self) -> usize {
        self.n
    }

    /// False: a matrix has at least one row.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The transform that makes it diagonal.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// All `n` eigenvalues, in the order of the transform.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let mut all = self.lambda.clone();
        if self.transform == Transform::Fourier {
            all.extend((self.n / 2 + 1..self.n).map(|k| self.lambda[self.n - k]));
        }
        all
    }

    /// `K y`.
    ///
    /// # Errors
    /// `Shape` for another length, `NotFinite` for NaN or infinity.
    pub fn mul(&self, y: &[f64]) -> Result<Vec<f64>> {
        check_values("y", y, self.n)?;
        self.transform.forward(y)?.scaled(|k| self.lambda[k]).inverse(self.n)
    }

    /// `(K + noise)^-1 y`.
    ///
    /// # Errors
    /// As [`mul`](Self::mul) and [`log_det`](Self::log_det).
    pub fn solve(&self, y: &[f64], noise: f64) -> Result<Vec<f64>> {
        check_values("y", y, self.n)?;
        let shifted = self.shifted(noise)?;
        self.transform.forward(y)?.scaled(|k| 1.0 / shifted[k]).inverse(self.n)
    }

    /// `log det (K + noise)`.
    ///
    /// # Errors
    /// `Singular` with the index of an eigenvalue that is not positive, `Argument` for noise that is negative.
    pub fn log_det(&self, noise: f64) -> Result<f64> {
        Ok(self.log_det_of(self.shifted(noise)?))
    }

    /// The sum of the logarithms of [`shifted`](Self::shifted) eigenvalues.
    pub(crate) fn log_det_of(&self, mut shifted: Vec<f64>) -> f64 {
        apply_in_place(Isa::best(), Function::Log, &mut shifted);
        self.transform.total(self.n, &shifted)
    }

    /// `lambda + noise`. Rounding may leave values at or below 0 that are exact zeros relative to the largest; they
    /// are raised to the precision of the largest.
    ///
    /// # Errors
    /// `Singular` with the index of a value that is further below 0, `Argument` for noise that is negative.
    pub(crate) fn shifted(&self, noise: f64) -> Result<Vec<f64>> {
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::argument("noise", "a finite number from 0", noise));
        }
        let largest = self.lambda.iter().fold(0.0f64, |most, &v| most.max(v));
        let floor = f64::EPSILON * largest;
        let mut shifted = Vec::with_capacity(self.lambda.len());
        for (index, &lambda) in self.lambda.iter().enumerate() {
            // Within rounding of 0: as a positive definite matrix has it.
            let lambda = if lambda.abs() <= 64.0 * floor { lambda.max(0.0) } else { lambda };
            let value = if noise > 0.0 { lambda + noise } else { lambda.max(floor) };
            if value <= 0.0 || lambda < -64.0 * floor && noise == 0.0 {
                return Err(Error::Singular { arg: "K".into(), index });
            }
            shifted.push(value);
        }
        Ok(shifted)
    }

    /// The values that stand for all eigenvalues.
    pub(crate) fn half(&self) -> &[f64] {
        &self.lambda
    }

    /// `lambda_0 - n S`, without cancellation.
    pub(crate) fn excess(&self) -> f64 {
        self.excess
    }

    /// `S`.
    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }
}

/// The first column of `K - S`, or a part of it.
pub(crate) fn column<K: Kernel>(
    kernel: &K,
    points: &Points<K::Point>,
    rows: std::ops::Range<usize>,
) -> Vec<f64> {
    let mut column = vec![0.0; rows.len()];
    if points.is_empty() {
        return column;
    }
    product::excess(Isa::best(), kernel, points, rows.start, &points.point(0), &mut column);
    column
}

/// `n` is a power of two.
pub(crate) fn power_of_two(n: usize) -> Result<()> {
    if n.is_power_of_two() { Ok(()) } else { Err(Error::argument("n", "a power of two", n)) }
}

/// `n` finite values.
pub(crate) fn check_values(arg: &'static str, y: &[f64], n: usize) -> Result<()> {
    if y.len() != n {
        return Err(Error::shape(arg, format!("[{n}], one value per point"), &[y.len()]));
    }
    match kc_core::math::first_non_finite(y) {
        Some(at) => Err(Error::not_finite(arg, &[at], y[at])),
        None => Ok(()),
    }
}
