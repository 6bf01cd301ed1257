//! Multilevel problems and the engine that runs them.
//!
//! A plan is a function of the sums over the first n points of each level. It runs from the beginning whenever a sum
//! has come in, until it wants one that is not there. What it wants is therefore the same whether a run goes through,
//! is asked and told, or is resumed with another tolerance.

use std::ops::Range;

use kc_core::{Error, Result};

use super::doubling::no_fingerprint;
use super::estimate::Estimate;
use super::run::{Engine, Request, Run};
use super::state::{Reader, Writer};
use super::sums::{sum, sum_of};
use crate::special::normal_quantile;
use crate::{Integrand, Sequence};

/// A sequence of ever finer approximations: level l is the fine one minus the coarse one at the same random numbers,
/// level 0 the coarsest alone.
pub trait Multilevel: Send + Sync {
    /// Coordinates of a point of the level.
    fn dim(&self, level: usize) -> usize;

    /// Cost of one value of the level, in any unit.
    fn cost(&self, level: usize) -> f64;

    /// The difference of the level: one output.
    ///
    /// # Errors
    /// The level is too fine.
    fn level(&self, level: usize) -> Result<Box<dyn Integrand>>;

    /// A text that is equal for two problems only if they are the same; the key under which a run can be resumed.
    fn fingerprint(&self) -> Option<String> {
        None
    }
}

/// Algorithms for multilevel problems.
pub trait MultilevelCubature {
    /// A run that has not evaluated anything yet. Each level gets a sequence that is spawned from `sequence`, in the
    /// order of first use.
    ///
    /// # Errors
    /// Settings out of range, a sequence that does not suit.
    fn start<'a>(&self, sequence: &'a mut dyn Sequence, problem: &'a dyn Multilevel) -> Result<Run<'a>>;

    /// Runs to the end.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Run::finish`].
    fn integrate(&self, sequence: &mut dyn Sequence, problem: &dyn Multilevel) -> Result<Estimate> {
        self.start(sequence, problem)?.finish()
    }
}

/// Rows of one request.
const CHUNK: u64 = 1 << 16;

/// Levels beyond which no run goes: level l has dimensions and cost that double l times.
pub(super) const MOST_LEVELS: usize = 40;

/// Settings that all multilevel algorithms share.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LevelsConfig {
    /// Absolute tolerance, above 0: half width of an interval of level `1 - alpha`.
    pub abs_tol: f64,
    /// Root mean square error, above 0; `None`: `abs_tol` over the normal quantile of `1 - alpha/2`.
    pub rmse_tol: Option<f64>,
    /// Points of each level (and replication) to begin with, 2 or more; for mlqmc a power of two.
    pub n_init: u64,
    /// Most points, over all levels and replications.
    pub n_limit: u64,
    /// Chance that the interval misses, above 0 and below 1.
    pub alpha: f64,
    /// Finest level to begin with, 2 or more.
    pub min: usize,
    /// Finest level.
    pub max: usize,
}

impl Default for LevelsConfig {
    fn default() -> Self {
        Self {
            abs_tol: 0.05,
            rmse_tol: None,
            n_init: 256,
            n_limit: 10_000_000_000,
            alpha: 0.01,
            min: 2,
            max: 10,
        }
    }
}

impl LevelsConfig {
    /// Half width of the interval over root mean square error.
    fn quantile(&self) -> f64 {
        -normal_quantile(0.5 * self.alpha)
    }

    /// The root mean square error to reach.
    ///
    /// # Errors
    /// `Argument` for settings out of range.
    pub(super) fn rmse(&self) -> Result<f64> {
        super::stop::check_alpha(self.alpha)?;
        let (name, value) = self.rmse_tol.map_or(("abs_tol", self.abs_tol), |rmse| ("rmse_tol", rmse));
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::argument(name, "a finite number above 0", value));
        }
        if !(2..=1 << 32).contains(&self.n_init) {
            return Err(Error::argument("n_init", "2 to 2^32 points", self.n_init));
        }
        if self.min < 2 || self.max < self.min || self.max >= MOST_LEVELS {
            let expected = format!("min of 2 or more, up to max, which is below {MOST_LEVELS}");
            return Err(Error::argument("levels", expected, format!("{} and {}", self.min, self.max)));
        }
        Ok(self.rmse_tol.unwrap_or_else(|| self.abs_tol / self.quantile()))
    }
}

/// Tolerances that shrink step by step to the one that is asked for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Continuation {
    /// Tolerances on the way, 1 to 1000.
    pub n_tols: usize,
    /// Factor between two of them, 1 or more.
    pub inflate: f64,
}

impl Default for Continuation {
    fn default() -> Self {
        Self { n_tols: 10, inflate: 100f64.powf(1.0 / 9.0) }
    }
}

impl Continuation {
    /// # Errors
    /// `Argument` for what is out of range.
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=1000).contains(&self.n_tols) {
            return Err(Error::argument("n_tols", "1 to 1000", self.n_tols));
        }
        super::stop::check_inflate(self.inflate)
    }

    /// The tolerances, ending with `last`.
    pub(super) fn tolerances(&self, last: f64) -> impl Iterator<Item = f64> {
        let (steps, inflate) = (self.n_tols, self.inflate);
        (0..steps).map(move |t| last * inflate.powf((steps - t - 1) as f64))
    }
}

/// What a plan wants before it can go on: the sums over the first `n` points of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) level: usize,
    pub(super) n: u64,
}

/// The end of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Outcome {
    pub(super) solution: f64,
    /// Estimated root mean square error.
    pub(super) rmse: f64,
    pub(super) n_level: Vec<u64>,
    pub(super) levels: usize,
    pub(super) exhausted: bool,
}

/// Sums over the first points of each level, at some numbers of points in ascending order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ledger {
    levels: Vec<Vec<(u64, Vec<f64>)>>,
}

impl Ledger {
    /// The sums over the first `n` points of a level.
    pub(super) fn at(&self, level: usize, n: u64) -> Result<&[f64], Need> {
        let marks = self.levels.get(level).map_or(&[][..], Vec::as_slice);
        match marks.binary_search_by_key(&n, |(n, _)| *n) {
            Ok(at) => Ok(&marks[at].1),
            Err(_) => Err(Need { level, n }),
        }
    }

    /// The largest number of points up to `n` whose sums are there.
    fn below(&self, level: usize, n: u64) -> u64 {
        let marks = self.levels.get(level).map_or(&[][..], Vec::as_slice);
        marks.iter().rev().map(|(n, _)| *n).find(|have| *have <= n).unwrap_or(0)
    }

    /// Adds the sums over the `rows` to those before them.
    fn add(&mut self, level: usize, rows: Range<u64>, mut sums: Vec<f64>) {
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Vec::new());
        }
        if let Ok(before) = self.at(level, rows.start) {
            sums.iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
        }
        let marks = &mut self.levels[level];
        let at = marks.partition_point(|(n, _)| *n < rows.end);
        marks.insert(at, (rows.end, sums));
    }
}

/// An algorithm as a function of the ledger.
pub(super) trait Plan: Send {
    fn name(&self) -> &'static str;
    /// Sums that the ledger keeps of the values of one request, shape (replications, rows).
    fn sums(&self, values: &[f64], replications: usize) -> Vec<f64>;
    fn run(&self, problem: &dyn Multilevel, ledger: &Ledger, replications: usize) -> Result<Outcome, Need>;
}

/// Sum and sum of squares.
pub(super) fn two_sums(values: &[f64]) -> Vec<f64> {
    vec![sum(values), sum_of(values, |v| v * v)]
}

/// The sum of each replication.
pub(super) fn replicated_sums(values: &[f64], replications: usize) -> Vec<f64> {
    values.chunks_exact((values.len() / replications).max(1)).map(sum).collect()
}

/// Runs a plan.
pub(super) struct Levels<'a, P> {
    sequence: &'a mut dyn Sequence,
    problem: &'a dyn Multilevel,
    plan: P,
    /// Sequence and integrand of each level used so far.
    levels: Vec<(Box<dyn Sequence>, Box<dyn Integrand>)>,
    ledger: Ledger,
    state: Result<Outcome, Need>,
    config: LevelsConfig,
}

impl<'a, P: Plan> Levels<'a, P> {
    pub(super) fn new(
        sequence: &'a mut dyn Sequence,
        problem: &'a dyn Multilevel,
        plan: P,
        config: &LevelsConfig,
    ) -> Self {
        let mut levels = Self {
            sequence,
            problem,
            plan,
            levels: Vec::new(),
            ledger: Ledger::default(),
            state: Err(Need { level: 0, n: 0 }),
            config: config.clone(),
        };
        levels.think();
        levels
    }

    fn think(&mut self) {
        self.state = self.plan.run(self.problem, &self.ledger, self.sequence.replications());
    }

    /// All settings but tolerances and limits.
    fn settings(&self) -> String {
        format!("n_init {}", self.config.n_init)
    }

    /// Makes the levels up to `level`, in order.
    fn ensure(&mut self, level: usize) -> Result<()> {
        while self.levels.len() <= level {
            let next = self.levels.len();
            let integrand = self.problem.level(next)?;
            let dim = self.problem.dim(next);
            if integrand.dim() != dim || integrand.outputs() != 1 {
                let got = [integrand.dim(), integrand.outputs()];
                return Err(Error::shape(
                    format!("level {next}"),
                    format!("[{dim}, 1] (dim, outputs)"),
                    &got,
                ));
            }
            let sequence =
                self.sequence.spawn(&[dim])?.pop().ok_or_else(|| Error::empty("spawned sequences"))?;
            self.levels.push((sequence, integrand));
        }
        Ok(())
    }
}

impl<P: Plan> Engine for Levels<'_, P> {
    fn next(&mut self) -> Result<Option<Request>> {
        let Err(need) = self.state else { return Ok(None) };
        self.ensure(need.level)?;
        let from = self.ledger.below(need.level, need.n);
        let rows = from..need.n.min(from + CHUNK);
        Ok(Some(Request { level: need.level, rows, active: vec![true] }))
    }

    fn replications(&self) -> usize {
        self.sequence.replications()
    }

    fn integrand(&self, level: usize) -> &dyn Integrand {
        &*self.levels[level].1
    }

    fn fill(&mut self, level: usize, rows: Range<u64>, points: &mut [f64]) -> Result<()> {
        self.levels[level].0.fill_block(rows, points)
    }

    fn tell(&mut self, request: Request, values: Vec<Vec<f64>>) -> Result<()> {
        let sums = self.plan.sums(&values[0], self.sequence.replications());
        self.ledger.add(request.level, request.rows, sums);
        self.think();
        Ok(())
    }

    fn estimate(&self) -> Estimate {
        let (solution, half, outcome) = match &self.state {
            Ok(outcome) => (outcome.solution, self.config.quantile() * outcome.rmse, outcome.clone()),
            Err(_) => {
                let n_level = self.ledger.levels.iter().map(|l| l.last().map_or(0, |(n, _)| *n)).collect();
                let outcome = Outcome { n_level, levels: self.ledger.levels.len(), ..Outcome::default() };
                (f64::NAN, f64::NAN, outcome)
            }
        };
        let n_total = outcome.n_level.iter().sum::<u64>() * self.sequence.replications() as u64;
        Estimate {
            solution: vec![solution],
            low: vec![solution - half],
            high: vec![solution + half],
            n_total,
            n: vec![n_total],
            exhausted: outcome.exhausted,
            levels: Some(outcome.levels),
            n_level: Some(outcome.n_level),
            n_limit: self.config.n_limit,
            ..Estimate::default()
        }
    }

    fn save(&self, out: &mut Writer) -> Result<()> {
        let key = self.problem.fingerprint().ok_or_else(no_fingerprint)?;
        out.text(self.plan.name());
        out.text(&self.settings());
        out.text(&self.sequence.fingerprint());
        out.text(&key);
        out.u64(self.ledger.levels.len() as u64);
        for marks in &self.ledger.levels {
            out.u64(marks.len() as u64);
            for (n, sums) in marks {
                out.u64(*n);
                out.list(sums);
            }
        }
        Ok(())
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<()> {
        let key = self.problem.fingerprint().ok_or_else(no_fingerprint)?;
        from.same("algorithm", self.plan.name())?;
        from.same("settings", &self.settings())?;
        from.same("sequence", &self.sequence.fingerprint())?;
        from.same("integrand", &key)?;
        let sums =
            self.plan.sums(&vec![0.0; self.sequence.replications()], self.sequence.replications()).len();
        let count = from.count(8)?;
        if count > MOST_LEVELS {
            return Err(from.wrong(format_args!("{count} levels")));
        }
        let mut ledger = Ledger { levels: Vec::with_capacity(count) };
        for _ in 0..count {
            let marks = from.count(16)?;
            let mut list: Vec<(u64, Vec<f64>)> = Vec::with_capacity(marks);
            for _ in 0..marks {
                let n = from.u64()?;
                if list.last().map_or(0, |(before, _)| *before) >= n {
                    return Err(from.wrong("numbers of points must ascend"));
                }
                list.push((n, from.list_of(sums)?));
            }
            ledger.levels.push(list);
        }
        self.ledger = ledger;
        self.think();
        Ok(())
    }
}

/// Error that is left beyond level `last`, if the means of the two finest levels, `before` and `mean`, go on to shrink
/// as they do.
pub(super) fn bias(before: f64, mean: f64, last: usize) -> f64 {
    let (y0, y1) = (before.abs().log2(), mean.abs().log2());
    let slope = y1 - y0;
    let intercept = y1 - slope * last as f64;
    (intercept + slope * (last + 1) as f64).exp2() / ((0.5f64).max(-slope).exp2() - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_adds_up_and_says_what_is_missing() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.at(1, 4), Err(Need { level: 1, n: 4 }));
        ledger.add(1, 0..4, vec![1.0]);
        ledger.add(1, 4..10, vec![2.0]);
        ledger.add(1, 4..6, vec![0.5]);
        assert_eq!(ledger.at(1, 10), Ok(&[3.0][..]));
        assert_eq!(ledger.at(1, 6), Ok(&[1.5][..]));
        assert_eq!((ledger.below(1, 9), ledger.below(1, 3), ledger.below(5, 9)), (6, 0, 0));
    }

    #[test]
    fn bias_continues_the_line() {
        // Means 1/4 and 1/8 on levels 1 and 2: 1/16 + 1/32 + ... = 1/8 is left.
        assert!((bias(0.25, -0.125, 2) - 0.0625).abs() < 1e-15);
    }
}
