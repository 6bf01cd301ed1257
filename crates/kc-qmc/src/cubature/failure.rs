//! pf-gp: a credible interval for a probability of failure.

use std::ops::Range;

use kc_core::{Error, Result};

use super::doubling::{check_problem, no_fingerprint};
use super::estimate::Estimate;
use super::gp::{Field, Process};
use super::run::{Engine, Request, Run};
use super::state::{Reader, Writer};
use super::stop::check_alpha;
use super::variates::ControlVariates;
use super::{Cubature, no_variates};
use crate::rng::Sfc64;
use crate::{Integrand, Randomize, Seed, Sequence};

/// What failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Failure {
    /// A value at the threshold or above.
    #[default]
    Above,
    /// A value at the threshold or below.
    Below,
}

/// Settings of pf-gp: the probability that an expensive function reaches a threshold.
///
/// A Gaussian process (Matérn 5/2, fitted by maximum likelihood, again whenever the number of values has grown by an
/// eighth) says for each point how sure failure is, p. The estimate is the share of points with p of 1/2 or more, on a
/// fixed set of the sequence, and the half width of its interval the mean of min(p, 1 - p) over alpha. New points are
/// drawn where the process is unsure, with density proportional to min(p, 1 - p), by acceptance and rejection.
///
/// Source: A. Sorokin, V. Rao, *Credible intervals for probability of failure with Gaussian processes* (2023).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FailureConfig {
    /// Half width of the interval, above 0.
    pub abs_tol: f64,
    /// The value that means failure.
    pub threshold: f64,
    /// On which side of it.
    pub failure: Failure,
    /// Values to begin with, 2 or more.
    pub n_init: u64,
    /// Values of a batch, 1 or more.
    pub n_batch: u64,
    /// Most values, up to 10 000. Never exceeded.
    pub n_limit: u64,
    /// Points at which the process is evaluated: a power of two.
    pub n_approx: u64,
    /// Chance that the interval misses, above 0 and below 1.
    pub alpha: f64,
}

impl Default for FailureConfig {
    fn default() -> Self {
        Self {
            abs_tol: 5e-3,
            threshold: 0.0,
            failure: Failure::Above,
            n_init: 64,
            n_batch: 4,
            n_limit: 1000,
            n_approx: 1 << 20,
            alpha: 0.01,
        }
    }
}

/// Most values: the factor of their correlation has the square of it entries.
const MOST: u64 = 10_000;

/// Proposals of one round of acceptance and rejection.
const ROUND: usize = 1 << 12;

/// Rounds after which the surest of the unsure points are taken.
const ROUNDS: usize = 256;

impl Cubature for FailureConfig {
    fn start_controlled<'a>(
        &self,
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
    ) -> Result<Run<'a>> {
        no_variates(variates)?;
        check_alpha(self.alpha)?;
        check_problem(sequence, integrand)?;
        super::single(sequence)?;
        if !(self.abs_tol > 0.0 && self.abs_tol.is_finite()) {
            return Err(Error::argument("abs_tol", "a finite number above 0", self.abs_tol));
        }
        if !self.threshold.is_finite() {
            return Err(Error::not_finite("threshold", &[], self.threshold));
        }
        if sequence.randomize() == Randomize::None {
            return Err(Error::argument("randomize", "a randomised sequence", "none"));
        }
        if integrand.outputs() != 1 || integrand.combined() != 1 {
            return Err(Error::unsupported("vector integrands", "pf-gp takes one output"));
        }
        for (name, value, range) in [
            ("n_init", self.n_init, 2..=MOST),
            ("n_batch", self.n_batch, 1..=MOST),
            ("n_limit", self.n_limit, self.n_init..=MOST),
        ] {
            if !range.contains(&value) {
                let expected = format!("{} to {} for pf-gp", range.start(), range.end());
                return Err(Error::argument(name, expected, value));
            }
        }
        let most = sequence.limit().min(1 << 24);
        if !self.n_approx.is_power_of_two() || u128::from(self.n_approx) > most {
            return Err(Error::argument("n_approx", format!("a power of two, up to {most}"), self.n_approx));
        }
        Ok(Run::new(Search::new(self, sequence, integrand)?))
    }
}

struct Search<'a> {
    config: FailureConfig,
    integrand: &'a dyn Integrand,
    dim: usize,
    fingerprint: String,
    /// Points whose values are known or asked for, and the how far beyond the threshold they are.
    points: Vec<f64>,
    values: Vec<f64>,
    field: Field,
    process: Option<Process>,
    /// Number of values that the length scale was fitted to.
    fitted: usize,
    rng: Sfc64,
    /// Estimate and mean of min(p, 1 - p).
    known: Option<(f64, f64)>,
}

impl<'a> Search<'a> {
    fn new(
        config: &FailureConfig,
        sequence: &mut dyn Sequence,
        integrand: &'a dyn Integrand,
    ) -> Result<Self> {
        let dim = integrand.dim();
        let mut first = sequence.spawn(&[dim])?.pop().ok_or_else(|| Error::empty("spawned sequences"))?;
        let mut points = vec![0.0; config.n_init as usize * dim];
        first.fill_block(0..config.n_init, &mut points)?;
        let mut fixed = vec![0.0; config.n_approx as usize * dim];
        sequence.fill_block(0..config.n_approx, &mut fixed)?;
        let fingerprint = sequence.fingerprint();
        // The proposals follow from the sequence, so that a run is a function of its seed.
        let digest = fingerprint.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Ok(Self {
            config: config.clone(),
            integrand,
            dim,
            fingerprint,
            points,
            values: Vec::new(),
            field: Field::new(fixed),
            process: None,
            fitted: 0,
            rng: Seed::from(digest).rng(),
            known: None,
        })
    }

    /// Estimate, low and high end of the interval.
    fn interval(&self) -> Option<[f64; 3]> {
        let (estimate, unsure) = self.known?;
        let half = unsure / self.config.alpha;
        Some([estimate, (estimate - half).max(0.0), (estimate + half).min(1.0)])
    }

    fn meets_tolerance(&self) -> bool {
        let widest = |[estimate, low, high]: [f64; 3]| (estimate - low).max(high - estimate);
        self.interval().is_some_and(|interval| widest(interval) <= self.config.abs_tol)
    }

    /// Takes in how far values are on the side of failure, and chooses the next points unless it is over.
    fn learn(&mut self, beyond: &[f64]) -> Result<()> {
        let old = self.values.len();
        self.values.extend_from_slice(beyond);
        let n = self.values.len();
        let process = match self.process.take() {
            Some(process) if n <= self.fitted + self.fitted / 8 => {
                let grown =
                    process.extend(&self.points[old * self.dim..n * self.dim], &self.values[old..])?;
                self.field.update(&grown, old);
                grown
            }
            _ => {
                self.fitted = n;
                let process =
                    Process::fit(self.dim, self.points[..n * self.dim].to_vec(), self.values.clone())?;
                self.field.set(&process);
                process
            }
        };
        self.known = Some(self.field.summary(&process));
        let count = self.config.n_batch.min(self.config.n_limit - n as u64) as usize;
        if !self.meets_tolerance() && count > 0 {
            self.propose(&process, count);
        }
        self.process = Some(process);
        Ok(())
    }

    /// Adds `count` points where the process is unsure.
    fn propose(&mut self, process: &Process, count: usize) {
        let mut missing = count;
        let mut best: Vec<(f64, Vec<f64>)> = Vec::new();
        for _ in 0..ROUNDS {
            let proposals: Vec<f64> = (0..ROUND * self.dim).map(|_| self.rng.uniform()).collect();
            let levels: Vec<f64> = (0..ROUND).map(|_| self.rng.uniform()).collect();
            let chances = process.chances(&proposals);
            for ((x, level), p) in proposals.chunks_exact(self.dim).zip(levels).zip(chances) {
                let unsure = 2.0 * p.min(1.0 - p);
                if level < unsure {
                    self.points.extend_from_slice(x);
                    missing -= 1;
                    if missing == 0 {
                        return;
                    }
                } else if best.len() < count {
                    best.push((unsure, x.to_vec()));
                } else if let Some(least) = best.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0))
                    && unsure > least.0
                {
                    *least = (unsure, x.to_vec());
                }
            }
        }
        for (_, x) in best.into_iter().take(missing) {
            self.points.extend(x);
        }
    }
}

impl Engine for Search<'_> {
    fn next(&mut self) -> Result<Option<Request>> {
        let (known, asked) = (self.values.len(), self.points.len() / self.dim);
        if known == asked {
            return Ok(None);
        }
        Ok(Some(Request { level: 0, rows: known as u64..asked as u64, active: vec![true] }))
    }

    fn replications(&self) -> usize {
        1
    }

    fn integrand(&self, _level: usize) -> &dyn Integrand {
        self.integrand
    }

    fn fill(&mut self, _level: usize, rows: Range<u64>, points: &mut [f64]) -> Result<()> {
        points.copy_from_slice(&self.points[rows.start as usize * self.dim..rows.end as usize * self.dim]);
        Ok(())
    }

    fn tell(&mut self, _request: Request, values: Vec<Vec<f64>>) -> Result<()> {
        let sign = if self.config.failure == Failure::Above { 1.0 } else { -1.0 };
        let beyond: Vec<f64> = values[0].iter().map(|y| sign * (y - self.config.threshold)).collect();
        self.learn(&beyond)
    }

    fn estimate(&self) -> Estimate {
        let [solution, low, high] = self.interval().unwrap_or([f64::NAN; 3]);
        let n_total = self.values.len() as u64;
        Estimate {
            solution: vec![solution],
            low: vec![low],
            high: vec![high],
            n_total,
            n: vec![n_total],
            exhausted: n_total >= self.config.n_limit && !self.meets_tolerance(),
            n_limit: self.config.n_limit,
            ..Estimate::default()
        }
    }

    fn save(&self, out: &mut Writer) -> Result<()> {
        out.text("pf-gp");
        out.text(&format!("{:?}", self.config));
        out.text(&self.fingerprint);
        out.text(&self.integrand.fingerprint().ok_or_else(no_fingerprint)?);
        out.list(&self.values);
        Ok(())
    }

    /// The run follows from its values, so they are all that is kept.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<()> {
        from.same("algorithm", "pf-gp")?;
        from.same("settings", &format!("{:?}", self.config))?;
        from.same("sequence", &self.fingerprint)?;
        from.same("integrand", &self.integrand.fingerprint().ok_or_else(no_fingerprint)?)?;
        let values = from.list::<f64>()?;
        if !self.values.is_empty() {
            return Err(Error::unsupported("restoring a state", "this run has begun; start another"));
        }
        let mut rest = &values[..];
        while let Some(request) = self.next()?.filter(|_| !rest.is_empty()) {
            let count = (request.rows.end - request.rows.start) as usize;
            let Some((batch, after)) = rest.split_at_checked(count) else {
                return Err(from.wrong("a batch of values is not complete"));
            };
            self.learn(batch)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(from.wrong("more values than the run asks for")) }
    }

    fn resumable(&self) -> bool {
        false
    }
}
