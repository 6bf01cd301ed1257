//! mlqmc and mlqmc-cont: multilevel quasi-Monte Carlo, with and without continuation.

use kc_core::{Error, Result};

use super::multilevel::{
    Continuation, Ledger, Levels, LevelsConfig, Multilevel, MultilevelCubature, Need, Outcome, Plan, bias,
    replicated_sums,
};
use super::run::Run;
use super::sums::Moments;
use crate::{Family, Randomize, Sequence};

/// Settings of mlqmc: the level whose variance is dearest is doubled until the sum of the variances is small enough,
/// then levels are added until the bias is.
///
/// Source: M. Giles, B. Waterhouse, *Multilevel quasi-Monte Carlo path simulation* (2009).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct MlqmcConfig {
    /// Tolerance, numbers of points and levels.
    pub levels: LevelsConfig,
}

impl MultilevelCubature for MlqmcConfig {
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, problem: &'a dyn Multilevel) -> Result<Run<'a>> {
        replicated(sequence, self.levels.n_init)?;
        let rmse = self.levels.rmse()?;
        let plan = Mlqmc { config: self.clone(), rmse };
        Ok(Run::new(Levels::new(sequence, problem, plan, &self.levels)))
    }
}

/// A randomised low-discrepancy sequence of 4 replications or more, and a first number of points that doubles well.
fn replicated(sequence: &dyn Sequence, n_init: u64) -> Result<()> {
    super::stop::check_n_init(n_init, 2)?;
    if sequence.replications() < 4 {
        return Err(Error::argument("replications", "4 or more for mlqmc", sequence.replications()));
    }
    if matches!(sequence.family(), Family::Iid | Family::Closed) {
        return Err(Error::unsupported("sequence", "mlqmc needs an extensible low-discrepancy sequence"));
    }
    if sequence.randomize() == Randomize::None {
        return Err(Error::argument("randomize", "a randomised sequence for mlqmc", "none"));
    }
    Ok(())
}

/// The levels as the replications see them.
struct Statistics<'a> {
    problem: &'a dyn Multilevel,
    ledger: &'a Ledger,
    replications: u64,
    /// Points of each replication of each level.
    n: Vec<u64>,
    /// Of the replications' means: mean, and population variance.
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl<'a> Statistics<'a> {
    fn new(problem: &'a dyn Multilevel, ledger: &'a Ledger, replications: usize) -> Self {
        let (n, mean, variance) = (Vec::new(), Vec::new(), Vec::new());
        Self { problem, ledger, replications: replications as u64, n, mean, variance }
    }

    fn set(&mut self, level: usize, n: u64) -> Result<(), Need> {
        let means: Vec<f64> = self.ledger.at(level, n)?.iter().map(|sum| sum / n as f64).collect();
        let moments = Moments::of(&means);
        let variance = moments.spread / moments.count as f64;
        if level == self.n.len() {
            self.n.push(n);
            self.mean.push(moments.mean);
            self.variance.push(variance);
        } else {
            (self.n[level], self.mean[level], self.variance[level]) = (n, moments.mean, variance);
        }
        Ok(())
    }

    /// Sum of the variances of the first `levels`.
    fn spread(&self, levels: usize) -> f64 {
        self.variance[..levels].iter().sum()
    }

    /// The level whose doubling pays most.
    fn dearest(&self, levels: usize) -> usize {
        let ratio = |level: usize| self.variance[level] / self.problem.cost(level);
        (1..levels).fold(0, |best, level| if ratio(level) > ratio(best) { level } else { best })
    }

    /// Error beyond the first `levels`.
    fn bias(&self, levels: usize) -> f64 {
        bias(self.mean[levels - 2], self.mean[levels - 1], levels - 1)
    }

    /// Would doubling this level go over the limit?
    fn too_many(&self, level: usize, n_limit: u64) -> bool {
        (self.n.iter().sum::<u64>() + 2 * self.n[level]).saturating_mul(self.replications) > n_limit
    }

    fn outcome(self, levels: usize, exhausted: bool) -> Outcome {
        let bias = self.bias(levels);
        Outcome {
            solution: self.mean.iter().sum(),
            rmse: (self.spread(levels) + bias * bias).sqrt(),
            levels,
            n_level: self.n,
            exhausted,
        }
    }
}

struct Mlqmc {
    config: MlqmcConfig,
    rmse: f64,
}

impl Plan for Mlqmc {
    fn name(&self) -> &'static str {
        "mlqmc"
    }

    fn sums(&self, values: &[f64], replications: usize) -> Vec<f64> {
        replicated_sums(values, replications)
    }

    fn run(&self, problem: &dyn Multilevel, ledger: &Ledger, replications: usize) -> Result<Outcome, Need> {
        let config = &self.config;
        let mut s = Statistics::new(problem, ledger, replications);
        for level in 0..=config.levels.min {
            s.set(level, config.levels.n_init)?;
        }
        loop {
            let levels = s.n.len();
            if s.spread(levels) > 0.5 * self.rmse * self.rmse {
                let level = s.dearest(levels);
                if s.too_many(level, config.levels.n_limit) {
                    return Ok(s.outcome(levels, true));
                }
                s.set(level, 2 * s.n[level])?;
            } else if s.bias(levels) > self.rmse / 2f64.sqrt() {
                if levels > config.levels.max {
                    return Ok(s.outcome(levels, true));
                }
                s.set(levels, config.levels.n_init)?;
            } else {
                return Ok(s.outcome(levels, false));
            }
        }
    }
}

/// Settings of mlqmc-cont: as mlqmc, on tolerances that shrink step by step, with a share of the bias that adapts.
///
/// Source: P. Robbe, *MultilevelEstimators.jl*; the continuation of Collier et al. (2015).
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct MlqmcContConfig {
    /// Tolerance, numbers of points and levels.
    pub levels: LevelsConfig,
    /// The tolerances on the way.
    pub continuation: Continuation,
}

impl MultilevelCubature for MlqmcContConfig {
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, problem: &'a dyn Multilevel) -> Result<Run<'a>> {
        replicated(sequence, self.levels.n_init)?;
        let rmse = self.levels.rmse()?;
        self.continuation.check()?;
        let plan = MlqmcCont { config: self.clone(), rmse };
        Ok(Run::new(Levels::new(sequence, problem, plan, &self.levels)))
    }
}

struct MlqmcCont {
    config: MlqmcContConfig,
    rmse: f64,
}

impl Plan for MlqmcCont {
    fn name(&self) -> &'static str {
        "mlqmc-cont"
    }

    fn sums(&self, values: &[f64], replications: usize) -> Vec<f64> {
        replicated_sums(values, replications)
    }

    fn run(&self, problem: &dyn Multilevel, ledger: &Ledger, replications: usize) -> Result<Outcome, Need> {
        let config = &self.config;
        let mut s = Statistics::new(problem, ledger, replications);
        for level in 0..=config.levels.min {
            s.set(level, config.levels.n_init)?;
        }
        let mut levels = s.n.len();
        let mut exhausted = false;
        for tolerance in config.continuation.tolerances(self.rmse) {
            levels = config.levels.min + 1;
            exhausted = false;
            loop {
                let theta = |s: &Statistics<'_>| {
                    let ratio = s.bias(s.n.len()) / tolerance;
                    (ratio * ratio).clamp(0.01, 0.125)
                };
                let mut share = theta(&s);
                while s.spread(levels) > (1.0 - share) * tolerance * tolerance {
                    let level = s.dearest(levels);
                    if s.too_many(level, config.levels.n_limit) {
                        return Ok(s.outcome(levels, true));
                    }
                    s.set(level, 2 * s.n[level])?;
                    share = theta(&s);
                }
                let bias = s.bias(levels);
                if (1.0 - share) * s.spread(levels) + share * bias * bias < tolerance * tolerance {
                    break;
                }
                if levels >= config.levels.max {
                    exhausted = true;
                    break;
                }
                levels += 1;
                if levels > s.n.len() {
                    s.set(levels - 1, config.levels.n_init)?;
                }
            }
        }
        Ok(s.outcome(levels, exhausted))
    }
}
