//! The engine of algorithms that draw independent samples whose sizes follow from earlier ones: mc-clt and mc-g.
//!
//! A plan is a function of the samples drawn so far; it answers with the size of the next one or with the end. The
//! samples are remembered by their moments alone.

use std::ops::Range;

use kc_core::{Error, Result};

use super::doubling::{check_problem, no_fingerprint};
use super::estimate::Estimate;
use super::independent;
use super::run::{Engine, Request};
use super::state::{Reader, Writer};
use super::sums::{Moments, sum};
use super::variates::{ControlVariates, Controlled, least_squares};
use crate::{Integrand, Sequence};

/// Rows of one request.
const CHUNK: u64 = 1 << 18;

/// The answer of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// So many more points, as a sample of their own.
    Sample(u64),
    /// The end: answer and half width.
    Done { solution: f64, half: f64, exhausted: bool },
}

/// A rule of sample sizes.
pub(super) trait Plan: Send {
    fn name(&self) -> &'static str;
    fn fingerprint(&self) -> String;
    fn n_init(&self) -> u64;
    /// What follows from these samples, the first of which has [`n_init`](Self::n_init) points.
    fn next(&self, samples: &[Moments], n_limit: u64) -> Result<Next>;
}

/// Runs a plan.
pub(super) struct Stages<'a, P> {
    sequence: &'a mut dyn Sequence,
    function: Controlled<'a>,
    plan: P,
    n_limit: u64,
    clipped: bool,
    /// Coefficients of the variates, from the first sample.
    beta: Vec<f64>,
    /// Complete samples, then the one that grows.
    samples: Vec<Moments>,
    current: Moments,
    next: Next,
}

impl<'a, P: Plan> Stages<'a, P> {
    pub(super) fn new(
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
        plan: P,
        n_limit: u64,
    ) -> Result<Self> {
        check_problem(sequence, integrand)?;
        independent(sequence)?;
        if integrand.outputs() != 1 || integrand.combined() != 1 {
            let reason = format!("{} takes one output; for several there is mc-clt-vec", plan.name());
            return Err(Error::unsupported("vector integrands", reason));
        }
        variates.check(integrand)?;
        let n_init = plan.n_init();
        if !(2..=1 << 32).contains(&n_init) {
            return Err(Error::argument("n_init", "2 to 2^32 points", n_init));
        }
        let most = u64::try_from(sequence.limit()).unwrap_or(u64::MAX);
        let clipped = n_limit > most;
        let n_limit = n_limit.min(most);
        if n_limit / 2 < n_init {
            return Err(Error::argument("n_limit", format!("twice n_init ({n_init}) or more"), n_limit));
        }
        Ok(Self {
            sequence,
            function: Controlled { integrand, variates: variates.clone() },
            plan,
            n_limit,
            clipped,
            beta: Vec::new(),
            samples: Vec::new(),
            current: Moments::default(),
            next: Next::Sample(n_init),
        })
    }

    fn drawn(&self) -> u64 {
        self.samples.iter().map(|sample| sample.count).sum::<u64>() + self.current.count
    }

    /// Values without the variates' part.
    fn controlled(&self, values: Vec<Vec<f64>>) -> Vec<f64> {
        let mut lists = values.into_iter();
        let mut y = lists.next().unwrap_or_default();
        for ((beta, mean), variate) in self.beta.iter().zip(self.function.means(0)).zip(lists) {
            y.iter_mut().zip(&variate).for_each(|(y, cv)| *y -= beta * (cv - mean));
        }
        y
    }

    fn fit(&mut self, values: &[Vec<f64>]) {
        let centred = |list: &Vec<f64>| {
            let mean = sum(list) / list.len() as f64;
            list.iter().map(|v| v - mean).collect::<Vec<f64>>()
        };
        self.beta = least_squares(values[1..].iter().map(centred).collect(), centred(&values[0]));
    }
}

impl<P: Plan> Engine for Stages<'_, P> {
    fn next(&mut self) -> Result<Option<Request>> {
        let Next::Sample(size) = self.next else { return Ok(None) };
        // The first sample comes whole, as the variates' coefficients are fitted to it.
        let chunk = if self.samples.is_empty() { size } else { CHUNK };
        let from = self.drawn();
        let rows = from..from + (size - self.current.count).min(chunk);
        Ok(Some(Request { level: 0, rows, active: self.function.active(&[true]) }))
    }

    fn replications(&self) -> usize {
        1
    }

    fn integrand(&self, _level: usize) -> &dyn Integrand {
        &self.function
    }

    fn fill(&mut self, _level: usize, rows: Range<u64>, points: &mut [f64]) -> Result<()> {
        self.sequence.fill_block(rows, points)
    }

    fn tell(&mut self, _request: Request, values: Vec<Vec<f64>>) -> Result<()> {
        let Next::Sample(size) = self.next else { return Ok(()) };
        if self.samples.is_empty() {
            self.fit(&values);
        }
        self.current = self.current.join(Moments::of(&self.controlled(values)));
        if self.current.count == size {
            self.samples.push(std::mem::take(&mut self.current));
            self.next = self.plan.next(&self.samples, self.n_limit)?;
        }
        Ok(())
    }

    fn estimate(&self) -> Estimate {
        let n_total = self.drawn();
        let (solution, half, exhausted) = match self.next {
            Next::Done { solution, half, exhausted } => (solution, half, exhausted),
            Next::Sample(_) => (f64::NAN, f64::NAN, false),
        };
        Estimate {
            solution: vec![solution],
            low: vec![solution - half],
            high: vec![solution + half],
            n_total,
            n: vec![n_total],
            exhausted,
            n_limit: self.n_limit,
            clipped: self.clipped,
            ..Estimate::default()
        }
    }

    fn save(&self, out: &mut Writer) -> Result<()> {
        let key = self.function.fingerprint().ok_or_else(no_fingerprint)?;
        out.text(self.plan.name());
        out.text(&self.plan.fingerprint());
        out.text(&self.sequence.fingerprint());
        out.text(&key);
        out.list(&self.beta);
        out.u64(self.samples.len() as u64);
        self.samples.iter().for_each(|sample| sample.save(out));
        self.current.save(out);
        Ok(())
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<()> {
        let key = self.function.fingerprint().ok_or_else(no_fingerprint)?;
        from.same("algorithm", self.plan.name())?;
        from.same("settings", &self.plan.fingerprint())?;
        from.same("sequence", &self.sequence.fingerprint())?;
        from.same("integrand", &key)?;
        let beta = from.list::<f64>()?;
        let count = from.count(24)?;
        let samples = (0..count).map(|_| Moments::load(from)).collect::<Result<Vec<_>>>()?;
        let current = Moments::load(from)?;
        let variates = if samples.is_empty() { 0 } else { self.function.variates.functions.len() };
        if beta.len() != variates || (samples.is_empty() && current.count > 0) {
            return Err(from.wrong("another number of control variates"));
        }
        // The sizes must be those that the plan asks for.
        let mut next = Next::Sample(self.plan.n_init());
        for k in 0..count {
            if next != Next::Sample(samples[k].count) {
                return Err(from.wrong(format_args!("sample {k} has another size")));
            }
            next = self.plan.next(&samples[..=k], self.n_limit)?;
        }
        match next {
            Next::Sample(size) if current.count < size => {}
            Next::Done { .. } if current.count == 0 => {}
            _ => return Err(from.wrong("the last sample has too many points")),
        }
        (self.beta, self.samples, self.current, self.next) = (beta, samples, current, next);
        Ok(())
    }

    fn resumable(&self) -> bool {
        false
    }
}
