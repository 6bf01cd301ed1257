//! mlmc and mlmc-cont: multilevel Monte Carlo, with and without continuation.

use kc_core::Result;

use super::independent;
use super::multilevel::{
    Continuation, Ledger, Levels, LevelsConfig, Multilevel, MultilevelCubature, Need, Outcome, Plan, bias,
    two_sums,
};
use super::run::Run;
use crate::Sequence;

/// Settings of mlmc (Giles): levels are added until the means of the last ones say that the bias is small enough, and
/// each has as many points as its variance and cost deserve.
///
/// Source: M. Giles, *Multilevel Monte Carlo path simulation* (2008).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct MlmcConfig {
    /// Tolerance, numbers of points and levels.
    pub levels: LevelsConfig,
    /// Rate at which the means fall, as powers of 2 per level; `None`: fitted.
    pub mean_rate: Option<f64>,
    /// Rate at which the variances fall; `None`: fitted.
    pub variance_rate: Option<f64>,
    /// Rate at which the cost grows; `None`: fitted.
    pub cost_rate: Option<f64>,
}

impl MultilevelCubature for MlmcConfig {
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, problem: &'a dyn Multilevel) -> Result<Run<'a>> {
        independent(sequence)?;
        let rmse = self.levels.rmse()?;
        for (name, rate) in [
            ("mean_rate", self.mean_rate),
            ("variance_rate", self.variance_rate),
            ("cost_rate", self.cost_rate),
        ] {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
                return Err(kc_core::Error::argument(name, "a finite number above 0", rate));
            }
        }
        let plan = Mlmc { config: self.clone(), rmse };
        Ok(Run::new(Levels::new(sequence, problem, plan, &self.levels)))
    }
}

/// Means, variances and costs of the levels, as the algorithm sees them.
struct Statistics<'a> {
    problem: &'a dyn Multilevel,
    ledger: &'a Ledger,
    /// Points of each level.
    n: Vec<u64>,
    mean: Vec<f64>,
    variance: Vec<f64>,
    cost: Vec<f64>,
    /// Rates of mean, variance and cost, and whether they are given.
    rates: [f64; 3],
    given: [bool; 3],
}

impl<'a> Statistics<'a> {
    fn new(problem: &'a dyn Multilevel, ledger: &'a Ledger, rates: [Option<f64>; 3]) -> Self {
        Self {
            problem,
            ledger,
            n: Vec::new(),
            mean: Vec::new(),
            variance: Vec::new(),
            cost: Vec::new(),
            rates: rates.map(|rate| rate.unwrap_or(0.0)),
            given: rates.map(|rate| rate.is_some()),
        }
    }

    /// Signed mean of a level.
    fn signed(&self, level: usize) -> Result<f64, Need> {
        Ok(self.ledger.at(level, self.n[level])?[0] / self.n[level] as f64)
    }

    /// Magnitudes of the means, and the variances, of the levels up to `last`, as sampled.
    fn sampled(&mut self, last: usize) -> Result<(), Need> {
        for list in [&mut self.mean, &mut self.variance, &mut self.cost] {
            list.clear();
        }
        for level in 0..=last {
            let n = self.n[level] as f64;
            let sums = self.ledger.at(level, self.n[level])?;
            let mean = (sums[0] / n).abs();
            self.mean.push(mean);
            self.variance.push((sums[1] / n - mean * mean).max(0.0));
            self.cost.push(self.problem.cost(level));
        }
        Ok(())
    }

    /// As [`sampled`](Self::sampled), with means and variances kept from falling too fast by chance, then new rates.
    fn refresh(&mut self, last: usize) -> Result<(), Need> {
        self.sampled(last)?;
        for level in 2..=last {
            self.mean[level] = self.mean[level].max(0.5 * self.mean[level - 1] / self.rates[0].exp2());
            self.variance[level] =
                self.variance[level].max(0.5 * self.variance[level - 1] / self.rates[1].exp2());
        }
        let slopes = [-slope(&self.mean[1..]), -slope(&self.variance[1..]), slope(&self.cost[1..])];
        for ((rate, given), slope) in self.rates.iter_mut().zip(self.given).zip(slopes) {
            if !given {
                *rate = slope.max(0.5);
            }
        }
        Ok(())
    }

    /// Guesses for the level after the last.
    fn extend(&mut self) {
        let [mean, variance, cost] = self.rates.map(f64::exp2);
        let after = |list: &Vec<f64>, factor: f64| list.last().map_or(0.0, |last| last * factor);
        self.mean.push(after(&self.mean, 1.0 / mean));
        self.variance.push(after(&self.variance, 1.0 / variance));
        self.cost.push(after(&self.cost, cost));
    }

    /// Points of each level that bring the variance down to `(1 - theta) rmse^2` at least cost; never fewer than there
    /// are.
    fn wanted(&self, theta: f64, rmse: f64) -> Vec<u64> {
        let total: f64 = self.variance.iter().zip(&self.cost).map(|(v, c)| (v * c).sqrt()).sum();
        let per_root = total / ((1.0 - theta) * rmse * rmse);
        let want = |(v, c): (&f64, &f64)| ((v / c).sqrt() * per_root).ceil();
        self.variance
            .iter()
            .zip(&self.cost)
            .map(want)
            .zip(self.n.iter().copied().chain(std::iter::repeat(0)))
            .map(|(want, n)| (want as u64).max(n))
            .collect()
    }

    /// Variance of the sum of the levels' means.
    fn error_variance(&self) -> f64 {
        self.variance.iter().zip(&self.n).filter(|(_, n)| **n > 0).map(|(v, n)| v / *n as f64).sum()
    }

    /// Error beyond level `last`, from the signed means of the two finest.
    fn bias(&self, last: usize) -> Result<f64, Need> {
        Ok(bias(self.signed(last - 1)?, self.signed(last)?, last))
    }

    fn solution(&self, levels: usize) -> Result<f64, Need> {
        (0..levels).map(|level| self.signed(level)).sum()
    }
}

/// Slope of the least-squares line through the binary logarithms.
fn slope(values: &[f64]) -> f64 {
    let centre = 0.5 * (values.len() as f64 - 1.0);
    let (mut product, mut square) = (0.0, 0.0);
    for (i, value) in values.iter().enumerate() {
        product += (i as f64 - centre) * value.log2();
        square += (i as f64 - centre) * (i as f64 - centre);
    }
    product / square
}

struct Mlmc {
    config: MlmcConfig,
    rmse: f64,
}

impl Plan for Mlmc {
    fn name(&self) -> &'static str {
        "mlmc"
    }

    fn sums(&self, values: &[f64], _replications: usize) -> Vec<f64> {
        two_sums(values)
    }

    fn run(&self, problem: &dyn Multilevel, ledger: &Ledger, _replications: usize) -> Result<Outcome, Need> {
        const THETA: f64 = 0.5;
        let config = &self.config;
        let rates = [config.mean_rate, config.variance_rate, config.cost_rate];
        let mut s = Statistics::new(problem, ledger, rates);
        let mut last = config.levels.min;
        let mut want = vec![config.levels.n_init; last + 1];
        let mut exhausted = false;
        let mut rest = f64::NAN;
        while want != s.n {
            s.n = want;
            s.refresh(last)?;
            want = s.wanted(THETA, self.rmse);
            if want.iter().fold(0u64, |sum, n| sum.saturating_add(*n)) > config.levels.n_limit {
                exhausted = true;
                break;
            }
            let settled = |(want, n): (&u64, &u64)| (want - n) as f64 <= 0.01 * *n as f64;
            if want.iter().zip(&s.n).all(settled) {
                let [rate, ..] = s.rates;
                rest = (0..=2.min(last - 1))
                    .map(|k| s.mean[last - k] / (k as f64 * rate).exp2())
                    .fold(0.0, f64::max)
                    / (rate.exp2() - 1.0);
                if rest > THETA.sqrt() * self.rmse {
                    if last == config.levels.max {
                        exhausted = true;
                    } else {
                        exhausted = false;
                        last += 1;
                        s.extend();
                        want = s.wanted(THETA, self.rmse);
                    }
                }
            }
        }
        Ok(Outcome {
            solution: s.solution(s.n.len())?,
            rmse: (s.error_variance() + rest * rest).sqrt(),
            levels: s.n.len(),
            n_level: s.n,
            exhausted,
        })
    }
}

/// Settings of mlmc-cont: as mlmc, on tolerances that shrink step by step, with a share of the bias that adapts.
///
/// Source: N. Collier, A.-L. Haji-Ali, F. Nobile, E. von Schwerin, R. Tempone, *A continuation multilevel Monte Carlo
/// algorithm* (2015).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct MlmcContConfig {
    /// Tolerance, numbers of points and levels.
    pub levels: LevelsConfig,
    /// The tolerances on the way.
    pub continuation: Continuation,
}

impl MultilevelCubature for MlmcContConfig {
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, problem: &'a dyn Multilevel) -> Result<Run<'a>> {
        independent(sequence)?;
        let rmse = self.levels.rmse()?;
        self.continuation.check()?;
        let plan = MlmcCont { config: self.clone(), rmse };
        Ok(Run::new(Levels::new(sequence, problem, plan, &self.levels)))
    }
}

struct MlmcCont {
    config: MlmcContConfig,
    rmse: f64,
}

impl Plan for MlmcCont {
    fn name(&self) -> &'static str {
        "mlmc-cont"
    }

    fn sums(&self, values: &[f64], _replications: usize) -> Vec<f64> {
        two_sums(values)
    }

    fn run(&self, problem: &dyn Multilevel, ledger: &Ledger, _replications: usize) -> Result<Outcome, Need> {
        let config = &self.config;
        let mut s = Statistics::new(problem, ledger, [None; 3]);
        s.n = vec![config.levels.n_init; config.levels.min + 1];
        let mut last = config.levels.min;
        let mut exhausted = false;
        'tolerances: for tolerance in config.continuation.tolerances(self.rmse) {
            last = config.levels.min;
            exhausted = false;
            s.refresh(last)?;
            loop {
                let ratio = s.bias(s.n.len() - 1)? / tolerance;
                let theta = (ratio * ratio).clamp(0.01, 0.5);
                // The numbers of points are those of the last tolerance from the start, as in the reference.
                let want = s.wanted(theta, self.rmse);
                let rest = s.n[last + 1..].iter().sum::<u64>();
                if want.iter().fold(rest, |sum, n| sum.saturating_add(*n)) > config.levels.n_limit {
                    exhausted = true;
                    break 'tolerances;
                }
                s.n[..=last].copy_from_slice(&want);
                s.refresh(last)?;
                let bias = s.bias(last)?;
                let square = (1.0 - theta) * s.error_variance() + theta * bias * bias;
                if square < tolerance * tolerance {
                    break;
                }
                if last == config.levels.max {
                    exhausted = true;
                    break;
                }
                last += 1;
                if s.n.len() > last {
                    s.sampled(last)?;
                } else {
                    s.n.push(config.levels.n_init);
                    s.refresh(last)?;
                }
            }
        }
        let bias = s.bias(last)?;
        Ok(Outcome {
            solution: s.solution(last + 1)?,
            rmse: (s.error_variance() + bias * bias).sqrt(),
            levels: last + 1,
            n_level: s.n,
            exhausted,
        })
    }
}
