//! Fitting the parameters.

use kc_core::{Error, Result};

use super::optimizer::State;
use super::{FastGp, Gradient, Loss, Optimizer};
use crate::config::KernelConfig;
use crate::kernel::Kernel;

/// A group of parameters that can be fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// `S`.
    Scale,
    /// `gamma_j`.
    Weights,
    /// `xi`.
    Noise,
    /// Adaptive orders, or the factors of combined orders.
    Smoothness,
}

/// How a fit is done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FitConfig {
    /// What is fitted (default: scale and weights).
    pub parameters: Vec<Parameter>,
    /// How.
    pub optimizer: Optimizer,
    /// Most iterations (default 5000).
    pub max_iterations: usize,
    /// Iterations without improvement after which the fit ends (default 10).
    pub patience: usize,
    /// What counts as an improvement of the log-likelihood, or of the logarithm of another loss (default `log 1.05`).
    pub improvement: f64,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            parameters: vec![Parameter::Scale, Parameter::Weights],
            optimizer: Optimizer::default(),
            max_iterations: 5000,
            patience: 10,
            improvement: 1.05f64.ln(),
        }
    }
}

/// What a fit did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Fit {
    /// Iterations done.
    pub iterations: usize,
    /// The loss at the start.
    pub initial: f64,
    /// The loss of the parameters that were kept, the best ones.
    pub best: f64,
}

impl<K: Kernel> FastGp<K> {
    /// Fits parameters; the best ones are kept.
    ///
    /// # Errors
    /// `Empty` while there are no values, `Singular` if the matrix of the present parameters is not positive definite,
    /// `Argument` for settings out of range.
    pub fn fit(&mut self, loss: Loss, config: &FitConfig) -> Result<Fit> {
        if let Optimizer::Adam { rate } = config.optimizer {
            crate::config::positive("rate", rate)?;
        }
        if config.improvement.is_nan() || config.improvement < 0.0 {
            return Err(Error::argument("improvement", "a number from 0", config.improvement));
        }
        let layout = Layout::new(&config.parameters, self.kernel.config());
        let energy = self.energy();
        let first = self.gradient_of(loss, &energy)?;
        let (mut value, mut slope) = layout.downhill(loss, &first);
        let mut fit = Fit { iterations: 0, initial: first.value, best: first.value };
        let mut best = (value, self.kernel.config().clone(), self.noise);
        // The value that an improvement is measured from, and when it was reached.
        let (mut mark, mut since) = (value, 0);
        let mut state = State::new(config.optimizer, &layout.pack(self.kernel.config(), self.noise));
        while fit.iterations < config.max_iterations && since < config.patience && !slope.is_empty() {
            let Some(x) = state.next(value, &slope) else { break };
            fit.iterations += 1;
            let (kernel, noise) = layout.unpack(&x, self.kernel.config(), self.noise);
            let tried = self.set_parameters(kernel, noise).and_then(|()| self.gradient_of(loss, &energy));
            // Parameters that have overflowed, or a matrix that is not positive definite, are as bad as can be.
            (value, slope) = match tried {
                Ok(gradient) => {
                    let (value, slope) = layout.downhill(loss, &gradient);
                    if value < best.0 {
                        best = (value, self.kernel.config().clone(), self.noise);
                        fit.best = gradient.value;
                    }
                    (value, slope)
                }
                Err(Error::Argument { .. } | Error::Singular { .. } | Error::NotFinite { .. }) => {
                    (f64::INFINITY, vec![0.0; slope.len()])
                }
                Err(other) => return Err(other),
            };
            since += 1;
            if value < mark - config.improvement {
                (mark, since) = (value, 0);
            }
        }
        self.set_parameters(best.1, best.2)?;
        Ok(fit)
    }
}

/// Which parameters stand where in a vector of logarithms.
struct Layout {
    scale: bool,
    weights: bool,
    noise: bool,
    smoothness: bool,
}

impl Layout {
    fn new(parameters: &[Parameter], config: &KernelConfig) -> Self {
        let has = |p| parameters.contains(&p);
        Self {
            scale: has(Parameter::Scale),
            weights: has(Parameter::Weights),
            noise: has(Parameter::Noise),
            smoothness: has(Parameter::Smoothness) && !config.terms().is_empty(),
        }
    }

    fn pick(&self, scale: f64, weights: &[f64], noise: f64, smoothness: &[f64]) -> Vec<f64> {
        let mut all = Vec::new();
        let groups: [(bool, &[f64]); 4] = [
            (self.scale, &[scale]),
            (self.weights, weights),
            (self.noise, &[noise]),
            (self.smoothness, smoothness),
        ];
        groups.iter().filter(|(on, _)| *on).for_each(|(_, values)| all.extend_from_slice(values));
        all
    }

    fn pack(&self, config: &KernelConfig, noise: f64) -> Vec<f64> {
        let mut all = self.pick(config.scale, &config.weights, noise, config.terms());
        all.iter_mut().for_each(|v| *v = v.ln());
        all
    }

    fn unpack(&self, x: &[f64], config: &KernelConfig, noise: f64) -> (KernelConfig, f64) {
        let (mut config, mut noise) = (config.clone(), noise);
        let mut values = x.iter().map(|x| x.exp());
        let mut set = |on: bool, place: &mut f64| {
            if on {
                *place = values.next().unwrap_or(*place);
            }
        };
        set(self.scale, &mut config.scale);
        config.weights.iter_mut().for_each(|w| set(self.weights, w));
        set(self.noise, &mut noise);
        config.terms_mut().iter_mut().for_each(|t| set(self.smoothness, t));
        (config, noise)
    }

    /// What is minimised, and its gradient: minus the log-likelihood, or the logarithm of another loss.
    fn downhill(&self, loss: Loss, gradient: &Gradient) -> (f64, Vec<f64>) {
        let mut slope = self.pick(gradient.scale, &gradient.weights, gradient.noise, &gradient.smoothness);
        let (value, by) = match loss {
            Loss::Mll => (-gradient.value, -1.0),
            Loss::Gcv | Loss::Loo => (gradient.value.ln(), 1.0 / gradient.value),
        };
        slope.iter_mut().for_each(|s| *s *= by);
        if value.is_nan() { (f64::INFINITY, slope) } else { (value, slope) }
    }
}
