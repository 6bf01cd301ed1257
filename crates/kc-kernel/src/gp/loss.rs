//! What a fit minimises, and its derivatives.

use kc_core::{Isa, Result};

use super::FastGp;
use crate::ft::Gram;
use crate::kernel::Kernel;
use crate::product;

/// How well parameters suit the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    /// Marginal log-likelihood (larger is better).
    #[default]
    Mll,
    /// Generalised cross-validation (smaller is better).
    Gcv,
    /// Leave-one-out cross-validation (smaller is better); equal to the above for one task.
    Loo,
}

/// A loss and its derivatives by the logarithms of the parameters.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gradient {
    /// The loss.
    pub value: f64,
    /// By `log S`.
    pub scale: f64,
    /// By `log gamma_j`.
    pub weights: Vec<f64>,
    /// By `log xi`.
    pub noise: f64,
    /// By the logarithms of the parameters of the smoothness, dimension by dimension; empty for orders.
    pub smoothness: Vec<f64>,
}

/// A loss and its derivative by each eigenvalue; `energy` holds the squared moduli of the values' transforms, summed
/// over the outputs. Totals of several outputs.
fn by_eigenvalues(loss: Loss, gram: &Gram, shifted: &[f64], energy: &[Vec<f64>]) -> (f64, Vec<f64>) {
    let (n, transform) = (gram.len(), gram.transform());
    let total = |values: Vec<f64>| transform.total(n, &values);
    let all = n as f64;
    match loss {
        Loss::Mll => {
            let log_det = gram.log_det_of(shifted.to_vec());
            let outputs = energy.len() as f64;
            let sum = |k: usize| energy.iter().map(|e| e[k]).sum::<f64>();
            let fit = total((0..shifted.len()).map(|k| sum(k) / shifted[k]).collect());
            let value = -0.5 * (fit + outputs * (log_det + all * (2.0 * std::f64::consts::PI).ln()));
            let slope = |k: usize| 0.5 * (sum(k) / shifted[k] - outputs) / shifted[k];
            (value, (0..shifted.len()).map(slope).collect())
        }
        // For one task the diagonal of the inverse is constant, and both are the same.
        Loss::Gcv | Loss::Loo => {
            let trace = total((0..shifted.len()).map(|k| 1.0 / shifted[k]).collect()) / all;
            let sum = |k: usize| energy.iter().map(|e| e[k]).sum::<f64>();
            let square = total((0..shifted.len()).map(|k| sum(k) / (shifted[k] * shifted[k])).collect());
            let value = square / (trace * trace);
            let slope = |k: usize| {
                let inverse = 1.0 / shifted[k];
                2.0 * inverse * inverse / (trace * trace) * (square / (trace * all) - sum(k) * inverse)
            };
            (value, (0..shifted.len()).map(slope).collect())
        }
    }
}

impl<K: Kernel> FastGp<K> {
    /// A loss of the present parameters, summed over the outputs.
    ///
    /// # Errors
    /// `Empty` while there are no values, `Singular` for a matrix that is not positive definite.
    pub fn loss(&self, loss: Loss) -> Result<f64> {
        let gram = self.gram()?;
        Ok(by_eigenvalues(loss, gram, &gram.shifted(self.noise)?, &self.energy()).0)
    }

    /// A loss of the present parameters and its derivatives: one transform for all of them.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn gradient(&self, loss: Loss) -> Result<Gradient> {
        self.gradient_of(loss, &self.energy())
    }

    /// Squared moduli of the transformed values, per output.
    pub(super) fn energy(&self) -> Vec<Vec<f64>> {
        self.spectra.iter().map(|y| y.energy()).collect()
    }

    pub(super) fn gradient_of(&self, loss: Loss, energy: &[Vec<f64>]) -> Result<Gradient> {
        let gram = self.gram()?;
        let (n, transform) = (gram.len(), gram.transform());
        let (value, slope) = by_eigenvalues(loss, gram, &gram.shifted(self.noise)?, energy);
        let by_scale: Vec<f64> =
            slope.iter().zip(gram.half()).map(|(slope, lambda)| slope * lambda).collect();
        let mut column = transform.backward(n, &slope)?;
        let root = (n as f64).sqrt();
        column.iter_mut().for_each(|v| *v *= root);
        let by_factors =
            product::backward(Isa::best(), &self.kernel, &self.points, &self.points.point(0), &column);
        let (weights, smoothness) = by_factors.split_at(self.kernel.dims());
        let terms = self.kernel.config().terms().len();
        Ok(Gradient {
            value,
            scale: transform.total(n, &by_scale),
            weights: weights.to_vec(),
            noise: self.noise * transform.total(n, &slope),
            smoothness: smoothness[..terms].to_vec(),
        })
    }
}
