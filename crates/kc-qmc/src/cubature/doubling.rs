//! The engine of all algorithms that double one set of points until the common rule is met.
//!
//! What a family keeps of an output depends on that output's points alone, and the bounds after each doubling are
//! remembered. The rule is therefore a function of the remembered bounds: a resumed run decides again from the
//! beginning, evaluates only what was not evaluated, and ends where a fresh run would.

use std::ops::Range;

use kc_core::{Error, Result};

use super::estimate::Estimate;
use super::run::{Engine, Request};
use super::state::{Reader, Writer};
use super::stop::{Decision, Tolerance, decide};
use super::variates::{ControlVariates, Controlled};
use crate::periodize::Periodization;
use crate::{Integrand, Sequence};

/// Bounds of one output after a doubling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) mean: f64,
    /// Half width.
    pub(super) half: f64,
    /// The coefficients are outside of the cone.
    pub(super) violated: bool,
}

/// What an algorithm does with the values of the outputs.
pub(super) trait Family: Send {
    /// Its name in command lines and states.
    fn name(&self) -> &'static str;

    /// All settings that its results depend on, apart from tolerances and the limit.
    fn fingerprint(&self) -> String;

    /// Rows of one request, at most.
    fn chunk(&self) -> u64;

    /// Takes the values of `output` at the next `rows`; `values` holds all evaluated outputs, shape
    /// (1 + variates, outputs) of lists (replications, rows).
    fn add(&mut self, output: usize, rows: Range<u64>, values: &mut [Vec<f64>]) -> Result<()>;

    /// The bounds of `output` after `n` points, n having just doubled.
    fn close(&mut self, output: usize, n: u64, sequence: &mut dyn Sequence) -> Result<Bounds>;

    /// Does it look at the cone?
    fn checks_cone(&self) -> bool {
        false
    }

    /// How the integrand is made periodic.
    fn periodization(&self) -> Periodization {
        Periodization::None
    }

    fn save(&self, output: usize, out: &mut Writer);

    /// Takes over the state of an output that has seen `extent` rows.
    fn load(&mut self, output: usize, extent: u64, from: &mut Reader<'_>) -> Result<()>;
}

/// Limits of a run of doublings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    pub(super) tolerance: Tolerance,
    pub(super) n_init: u64,
    /// Over all replications.
    pub(super) n_limit: u64,
}

/// Runs a family.
pub(super) struct Doubling<'a, F> {
    sequence: &'a mut dyn Sequence,
    function: Controlled<'a>,
    family: F,
    limits: Limits,
    clipped: bool,
    /// Rows that each output has seen.
    extent: Vec<u64>,
    /// Bounds of each output after each doubling.
    history: Vec<Vec<Bounds>>,
    /// Doublings decided so far, and which of them each output's bounds are of.
    step: usize,
    used: Vec<usize>,
    active: Vec<bool>,
    decision: Decision,
    finished: bool,
    exhausted: bool,
}

impl<'a, F: Family> Doubling<'a, F> {
    /// Checks what all families share.
    ///
    /// # Errors
    /// Dimensions that differ; limits below the first set; variates of other shapes.
    pub(super) fn new(
        sequence: &'a mut dyn Sequence,
        integrand: &'a dyn Integrand,
        variates: &ControlVariates<'a>,
        family: F,
        mut limits: Limits,
    ) -> Result<Self> {
        check_problem(sequence, integrand)?;
        variates.check(integrand)?;
        let replications = sequence.replications() as u64;
        let most = sequence.limit().min(1 << 32).saturating_mul(u128::from(replications));
        let clipped = u128::from(limits.n_limit) > most;
        if clipped {
            limits.n_limit = most as u64;
        }
        if limits.n_limit / replications < limits.n_init {
            let expected =
                format!("n_limit of at least n_init x replications = {} x {replications}", limits.n_init);
            return Err(Error::argument("n_limit", expected, limits.n_limit));
        }
        let outputs = integrand.outputs();
        let (nothing, combined) = (vec![f64::NAN; integrand.combined()], integrand.combined());
        Ok(Self {
            sequence,
            function: Controlled { integrand, variates: variates.clone() },
            family,
            limits,
            clipped,
            extent: vec![0; outputs],
            history: vec![Vec::new(); outputs],
            step: 0,
            used: vec![0; outputs],
            active: vec![true; outputs],
            decision: Decision {
                low: nothing.clone(),
                high: nothing.clone(),
                solution: nothing,
                done: vec![false; combined],
                active: vec![true; outputs],
            },
            finished: false,
            exhausted: false,
        })
    }

    /// The next end of a doubling beyond `rows`.
    fn boundary(&self, rows: u64) -> u64 {
        (rows + 1).next_power_of_two().max(self.limits.n_init)
    }

    fn points(&self, output: usize) -> u64 {
        self.limits.n_init << self.used[output]
    }

    /// All active outputs have their bounds: stop or double?
    fn judge(&mut self) {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for (p, history) in self.history.iter().enumerate() {
            if self.active[p] {
                self.used[p] = self.step;
            }
            let bounds = history[self.used[p]];
            low.push(bounds.mean - bounds.half);
            high.push(bounds.mean + bounds.half);
        }
        self.decision = decide(&self.limits.tolerance, self.function.integrand, &low, &high);
        self.active.clone_from(&self.decision.active);
        let replications = self.sequence.replications() as u64;
        let n_total = (self.limits.n_init << self.step) * replications;
        if !self.active.contains(&true) {
            self.finished = true;
            self.exhausted = self.decision.done.contains(&false);
        } else if n_total > self.limits.n_limit / 2 {
            self.finished = true;
            self.exhausted = true;
        } else {
            self.step += 1;
        }
    }
}

/// The dimensions of sequence and integrand agree, and there is something to integrate.
///
/// # Errors
/// `Argument` and `Shape`.
pub(super) fn check_problem(sequence: &dyn Sequence, integrand: &dyn Integrand) -> Result<()> {
    if sequence.dim() != integrand.dim() {
        let expected = format!("{} dimensions like the sequence", sequence.dim());
        return Err(Error::shape("integrand", expected, &[integrand.dim()]));
    }
    if integrand.outputs() == 0 || integrand.combined() == 0 {
        return Err(Error::empty("integrand: outputs"));
    }
    Ok(())
}

impl<F: Family> Engine for Doubling<'_, F> {
    fn next(&mut self) -> Result<Option<Request>> {
        while !self.finished {
            let target = self.limits.n_init << self.step;
            let lacking = |p: &usize| self.active[*p] && self.extent[*p] < target;
            let Some(from) = (0..self.extent.len()).filter(lacking).map(|p| self.extent[p]).min() else {
                self.judge();
                continue;
            };
            let wanted: Vec<bool> =
                (0..self.extent.len()).map(|p| self.active[p] && self.extent[p] == from).collect();
            let end = self.boundary(from).min(from + self.family.chunk());
            return Ok(Some(Request { level: 0, rows: from..end, active: self.function.active(&wanted) }));
        }
        Ok(None)
    }

    fn replications(&self) -> usize {
        self.sequence.replications()
    }

    fn integrand(&self, _level: usize) -> &dyn Integrand {
        &self.function
    }

    fn fill(&mut self, _level: usize, rows: Range<u64>, points: &mut [f64]) -> Result<()> {
        self.sequence.fill_block(rows, points)
    }

    fn periodization(&self) -> Periodization {
        self.family.periodization()
    }

    fn tell(&mut self, request: Request, mut values: Vec<Vec<f64>>) -> Result<()> {
        let rows = request.rows;
        for p in (0..self.extent.len()).filter(|p| request.active[*p]) {
            let closes = self.boundary(rows.start) == rows.end;
            self.family.add(p, rows.clone(), &mut values)?;
            self.extent[p] = rows.end;
            if closes {
                let bounds = self.family.close(p, rows.end, self.sequence)?;
                self.history[p].push(bounds);
            }
        }
        // Decide at once, so that the estimate is that of the last points.
        self.next().map(|_| ())
    }

    fn estimate(&self) -> Estimate {
        let replications = self.sequence.replications() as u64;
        let known = self.history.iter().all(|history| !history.is_empty());
        let n: Vec<u64> =
            (0..self.extent.len()).map(|p| if known { self.points(p) * replications } else { 0 }).collect();
        let violated = |p: usize| self.history[p].get(self.used[p]).is_some_and(|bounds| bounds.violated);
        Estimate {
            solution: self.decision.solution.clone(),
            low: self.decision.low.clone(),
            high: self.decision.high.clone(),
            n_total: n.iter().copied().max().unwrap_or(0),
            cone_violation: self.family.checks_cone().then(|| (0..n.len()).map(violated).collect()),
            n,
            exhausted: self.exhausted,
            n_limit: self.limits.n_limit,
            clipped: self.clipped,
            ..Estimate::default()
        }
    }

    fn save(&self, out: &mut Writer) -> Result<()> {
        let key = self.function.fingerprint().ok_or_else(no_fingerprint)?;
        out.text(self.family.name());
        out.text(&self.settings());
        out.text(&self.sequence.fingerprint());
        out.text(&key);
        out.u64(self.extent.len() as u64);
        for (p, history) in self.history.iter().enumerate() {
            out.u64(self.extent[p]);
            out.u64(history.len() as u64);
            for bounds in history {
                out.f64(bounds.mean);
                out.f64(bounds.half);
                out.bool(bounds.violated);
            }
            self.family.save(p, out);
        }
        Ok(())
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<()> {
        let key = self.function.fingerprint().ok_or_else(no_fingerprint)?;
        from.same("algorithm", self.family.name())?;
        from.same("settings", &self.settings())?;
        from.same("sequence", &self.sequence.fingerprint())?;
        from.same("integrand", &key)?;
        if from.u64()? != self.extent.len() as u64 {
            return Err(from.wrong("another number of outputs"));
        }
        for p in 0..self.extent.len() {
            let extent = from.u64()?;
            let closed = from.count(24)?;
            let complete = |doublings: usize| match doublings {
                0 => Some(0),
                more => u32::try_from(more - 1).ok().and_then(|k| self.limits.n_init.checked_shl(k)),
            };
            let most = self.sequence.limit().min(1 << 32) as u64;
            let (Some(start), Some(end)) = (complete(closed), complete(closed + 1)) else {
                return Err(from.wrong("more doublings than there are points"));
            };
            if closed > 32 || !(start..end).contains(&extent) || extent > most {
                return Err(from.wrong(format_args!("{extent} rows after {closed} doublings")));
            }
            let mut history = Vec::with_capacity(closed);
            for _ in 0..closed {
                history.push(Bounds { mean: from.f64()?, half: from.f64()?, violated: from.bool()? });
            }
            self.family.load(p, extent, from)?;
            self.extent[p] = extent;
            self.history[p] = history;
        }
        // All decisions are made again, from the beginning.
        self.step = 0;
        self.finished = false;
        self.exhausted = false;
        self.active.fill(true);
        self.used.fill(0);
        self.next().map(|_| ())
    }
}

impl<F: Family> Doubling<'_, F> {
    fn settings(&self) -> String {
        let periodization = self.family.periodization().name();
        format!("{} n_init {} periodization {periodization}", self.family.fingerprint(), self.limits.n_init)
    }
}

/// Why a run cannot be saved.
pub(super) fn no_fingerprint() -> Error {
    Error::unsupported(
        "saving a run",
        "the integrand has no fingerprint to know it by (Integrand::fingerprint)",
    )
}
