//! Options on ever finer time steps: the multilevel problem of finance.

use kc_core::{Error, Result};

use super::multilevel::{MOST_LEVELS, Multilevel};
use crate::integrand::{FinancialOption, OptionConfig};
use crate::measure::GeometricBrownianMotion;
use crate::{Integrand, Measure};

/// An option whose path has `2^l d0` time steps on level l; the coarse path of a level is every second step of the fine
/// one. The cost of a level is its number of steps.
#[derive(Debug, Clone)]
pub struct MultilevelOption {
    config: OptionConfig,
    coarsest: usize,
}

impl MultilevelOption {
    /// An option with `coarsest` steps on level 0: a power of two.
    ///
    /// # Errors
    /// Another number of steps; settings of the option out of their ranges.
    pub fn new(config: OptionConfig, coarsest: usize) -> Result<Self> {
        if !coarsest.is_power_of_two() || coarsest > 1 << 20 {
            return Err(Error::argument("d_coarsest", "a power of two, up to 2^20", coarsest));
        }
        FinancialOption::new(coarsest, &config)?;
        Ok(Self { config, coarsest })
    }
}

impl Multilevel for MultilevelOption {
    fn dim(&self, level: usize) -> usize {
        self.coarsest << level.min(MOST_LEVELS)
    }

    fn cost(&self, level: usize) -> f64 {
        self.dim(level) as f64
    }

    fn level(&self, level: usize) -> Result<Box<dyn Integrand>> {
        if level >= MOST_LEVELS {
            return Err(Error::index("level", &[], level, MOST_LEVELS));
        }
        let dim = self.dim(level);
        let fine = FinancialOption::new(dim, &self.config)?;
        let coarse = if level == 0 { None } else { Some(FinancialOption::new(dim / 2, &self.config)?) };
        Ok(Box::new(Difference { measure: fine.measure(dim)?, dim, fine, coarse }))
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("multilevel option {} {:?}", self.coarsest, self.config))
    }
}

/// Fine minus coarse payoff along one path.
struct Difference {
    measure: GeometricBrownianMotion,
    dim: usize,
    fine: FinancialOption,
    coarse: Option<FinancialOption>,
}

impl Integrand for Difference {
    fn dim(&self) -> usize {
        self.dim
    }

    fn evaluate(&self, u: &[f64], _active: &[bool], out: &mut [f64]) -> Result<()> {
        let mut paths = vec![0.0; u.len()];
        self.measure.transform(u, &mut paths)?;
        let mut every_second = Vec::with_capacity(self.dim / 2);
        for (path, out) in paths.chunks_exact(self.dim).zip(out) {
            *out = self.fine.payoff(path);
            if let Some(coarse) = &self.coarse {
                every_second.clear();
                every_second.extend(path.iter().skip(1).step_by(2));
                *out -= coarse.payoff(&every_second);
            }
        }
        Ok(())
    }
}
