//! First-order optimisers, for parameters in slices of the caller's.

use crate::math::Real;
use crate::{Error, Result};

/// Adam (Kingma and Ba, 2014) with bias-corrected moments of decay 0.9 and 0.999 and `eps` 1e-8, for one slice of
/// parameters. The moments are kept in f64, whatever the parameters are.
///
/// ```
/// use kc_core::optim::Adam;
/// let mut x = [3.0f32, -2.0];
/// let mut adam = Adam::new(x.len(), 0.1);
/// for _ in 0..200 {
///     let gradient = [2.0 * x[0], 2.0 * x[1]];
///     adam.step(&mut x, &gradient)?;
/// }
/// assert!(x[0].abs() < 0.05 && x[1].abs() < 0.05);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Adam {
    /// The step length; may be changed between steps.
    pub rate: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    steps: i32,
}

impl Adam {
    /// For `len` parameters.
    pub fn new(len: usize, rate: f64) -> Self {
        Adam { rate, first: vec![0.0; len], second: vec![0.0; len], steps: 0 }
    }

    /// Moves `x` against `gradient`.
    ///
    /// # Errors
    /// If `x` or `gradient` has another length than the optimiser.
    pub fn step<T: Real>(&mut self, x: &mut [T], gradient: &[T]) -> Result<()> {
        for (name, len) in [("x", x.len()), ("gradient", gradient.len())] {
            if len != self.first.len() {
                return Err(Error::shape(name, format!("{} parameters", self.first.len()), &[len]));
            }
        }
        self.steps = self.steps.saturating_add(1);
        let (fade_first, fade_second) = (1.0 - 0.9f64.powi(self.steps), 1.0 - 0.999f64.powi(self.steps));
        for (i, (x, g)) in x.iter_mut().zip(gradient).enumerate() {
            let g = g.to_f64();
            self.first[i] = 0.9 * self.first[i] + 0.1 * g;
            self.second[i] = 0.999 * self.second[i] + 0.001 * g * g;
            let scale = (self.second[i] / fade_second).sqrt() + 1e-8;
            *x = T::from_f64(x.to_f64() - self.rate * self.first[i] / fade_first / scale);
        }
        Ok(())
    }

    /// Forgets the moments, not the number of steps.
    pub fn forget(&mut self) {
        self.first.fill(0.0);
    }
}
