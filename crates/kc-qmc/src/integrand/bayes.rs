//! Posterior means of logistic regression as ratios of expectations.

use kc_core::{Error, Result};

use super::{Integrand, Transformed, points};
use crate::measure::{Covariance, Decomposition, Gaussian};

/// The coefficients of a Bayesian logistic regression: posterior means under a normal prior.
///
/// For each of the d coefficients (the last is the intercept) a numerator, the prior expectation of coefficient times
/// likelihood, and a denominator, that of the likelihood: 2 d individual outputs, numerators first. Combined are
/// the d ratios.
#[derive(Debug, Clone, PartialEq)]
pub struct LogisticRegression {
    /// One row per observation, the last entry is 1.
    features: Vec<f64>,
    labels: Vec<f64>,
    dim: usize,
}

impl LogisticRegression {
    /// As a function on the unit cube of `dim` coordinates. `features` has a row of `dim - 1` values for each of the
    /// `labels`, which are 0 or 1.
    ///
    /// # Errors
    /// `Shape`, `Empty` without labels, `Argument` for other labels, `NotFinite`; and those of [`Gaussian::new`].
    pub fn on_cube(
        dim: usize,
        features: &[f64],
        labels: &[f64],
        prior_mean: &[f64],
        prior_covariance: Covariance,
    ) -> Result<Transformed<Gaussian, Self>> {
        if labels.is_empty() {
            return Err(Error::empty("bayesian-lr.labels"));
        }
        let width = dim.saturating_sub(1);
        if dim == 0 || features.len() != labels.len() * width {
            let expected = format!("{} x {width} values", labels.len());
            return Err(Error::shape("bayesian-lr.features", expected, &[features.len()]));
        }
        if let Some(label) = labels.iter().find(|&&label| label != 0.0 && label != 1.0) {
            return Err(Error::argument("bayesian-lr.labels", "0 or 1", label));
        }
        if let Some(at) = kc_core::math::first_non_finite(features) {
            return Err(Error::not_finite("bayesian-lr.features", &[at / width, at % width], features[at]));
        }
        let rows =
            (0..labels.len()).flat_map(|i| features[i * width..][..width].iter().copied().chain([1.0]));
        let function = Self { features: rows.collect(), labels: labels.to_vec(), dim };
        Transformed::new(Gaussian::new(dim, prior_mean, prior_covariance, Decomposition::Pca)?, function)
    }
}

impl Integrand for LogisticRegression {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        2 * self.dim
    }

    fn combined(&self) -> usize {
        self.dim
    }

    fn evaluate(&self, t: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let (count, dim) = (points(self, t, active, out)?, self.dim);
        for (i, t) in t.chunks_exact(dim).enumerate() {
            let mut log = 0.0;
            for (features, label) in self.features.chunks_exact(dim).zip(&self.labels) {
                let z: f64 = features.iter().zip(t).map(|(x, t)| x * t).sum();
                // ln(1 + e^z) without overflow.
                log += z * label - (z.max(0.0) + (-z.abs()).exp().ln_1p());
            }
            let likelihood = log.exp();
            for (j, t) in t.iter().enumerate() {
                out[j * count + i] = t * likelihood;
                out[(dim + j) * count + i] = likelihood;
            }
        }
        Ok(())
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        let dim = self.dim;
        for j in 0..dim {
            let (top, bottom) = ([low[j], high[j]], [low[dim + j], high[dim + j]]);
            if bottom[0] <= 0.0 && bottom[1] >= 0.0 {
                (combined_low[j], combined_high[j]) = (f64::NEG_INFINITY, f64::INFINITY);
                continue;
            }
            let ratios = [top[0] / bottom[0], top[1] / bottom[0], top[0] / bottom[1], top[1] / bottom[1]];
            combined_low[j] = ratios.into_iter().fold(f64::INFINITY, f64::min);
            combined_high[j] = ratios.into_iter().fold(f64::NEG_INFINITY, f64::max);
        }
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        let (tops, bottoms) = individual.split_at_mut(self.dim);
        tops.copy_from_slice(unfinished);
        bottoms.copy_from_slice(unfinished);
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("bayesian-lr {:?} {:?}", self.features, self.labels))
    }
}
