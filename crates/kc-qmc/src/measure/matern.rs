//! Gaussian processes with Matérn covariance, seen at given points.

use kc_core::{Error, Result};

use super::{Covariance, Decomposition, Gaussian, parameter};
use crate::special::{ln_bessel_k, ln_gamma};

/// Settings of a Matérn process.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MaternConfig {
    /// The length over which values are correlated, positive.
    pub length_scale: f64,
    /// The smoothness, positive; infinity is the squared exponential.
    pub nu: f64,
    /// The variance of a value, positive.
    pub variance: f64,
    /// The mean: one value, or one per point.
    pub mean: Vec<f64>,
    /// What is added to the diagonal of the covariance, positive.
    pub nugget: f64,
    /// How coordinates drive values: principal components or Cholesky.
    pub decomposition: Decomposition,
}

impl Default for MaternConfig {
    fn default() -> Self {
        Self {
            length_scale: 1.0,
            nu: 1.5,
            variance: 1.0,
            mean: vec![0.0],
            nugget: 1e-6,
            decomposition: Decomposition::Pca,
        }
    }
}

/// The Matérn correlation at a distance in units of the length: `2^(1-nu) / Gamma(nu) k^nu K_nu(k)`, `k = sqrt(2 nu) r`.
///
/// ```
/// use kc_qmc::measure::matern_correlation;
/// assert!((matern_correlation(0.5, 2.0) - (-2f64).exp()).abs() < 1e-16);
/// assert_eq!(matern_correlation(2.2, 0.0), 1.0);
/// ```
pub fn matern_correlation(nu: f64, r: f64) -> f64 {
    if r == 0.0 {
        return 1.0;
    }
    if nu == f64::INFINITY {
        return (-0.5 * r * r).exp();
    }
    let k = (2.0 * nu).sqrt() * r;
    if nu == 0.5 {
        (-k).exp()
    } else if nu == 1.5 {
        (1.0 + k) * (-k).exp()
    } else if nu == 2.5 {
        (1.0 + k + k * k / 3.0) * (-k).exp()
    } else {
        ((1.0 - nu) * std::f64::consts::LN_2 - ln_gamma(nu) + nu * k.ln() + ln_bessel_k(nu, k)).exp()
    }
}

/// The values of a Matérn process at `points`, rows of `width` coordinates: a [`Gaussian`] with one coordinate per point.
///
/// Cost: the decomposition of a covariance as large as there are points.
///
/// # Errors
/// `Empty` without points, `Shape`, `NotFinite`, `Argument` for settings out of their range.
pub fn matern_gp(points: &[f64], width: usize, config: &MaternConfig) -> Result<Gaussian> {
    if points.is_empty() || width == 0 {
        return Err(Error::empty("matern_gp.points"));
    }
    if !points.len().is_multiple_of(width) {
        return Err(Error::shape("matern_gp.points", format!("rows of {width} values"), &[points.len()]));
    }
    if let Some(at) = kc_core::math::first_non_finite(points) {
        return Err(Error::not_finite("matern_gp.points", &[at / width, at % width], points[at]));
    }
    for (name, value) in [
        ("length_scale", config.length_scale),
        ("variance", config.variance),
        ("nugget", config.nugget),
        ("nu", if config.nu == f64::INFINITY { 1.0 } else { config.nu }),
    ] {
        parameter("matern_gp", name, value, "a positive number", |x| x > 0.0)?;
    }
    let n = points.len() / width;
    let mut covariance = vec![0.0; n * n];
    for (i, a) in points.chunks_exact(width).enumerate() {
        for (j, b) in points.chunks_exact(width).enumerate().take(i + 1) {
            let distance = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            let value = config.variance * matern_correlation(config.nu, distance / config.length_scale);
            covariance[i * n + j] = value;
            covariance[j * n + i] = value;
        }
        covariance[i * n + i] += config.nugget;
    }
    Gaussian::new(n, &config.mean, Covariance::Matrix(covariance), config.decomposition)
}
