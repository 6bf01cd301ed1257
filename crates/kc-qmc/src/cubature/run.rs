//! A cubature in progress: asks for points, takes values.

use std::ops::{ControlFlow, Range};

use kc_core::{Error, Result, Tensor, par};

use super::estimate::Estimate;
use super::state::{Reader, Writer};
use crate::Integrand;
use crate::periodize::Periodization;

/// What an engine wants evaluated next.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// Level of a multilevel problem; 0 otherwise.
    pub(super) level: usize,
    /// Rows of the level's sequence, in each replication.
    pub(super) rows: Range<u64>,
    /// Evaluated outputs that are wanted.
    pub(super) active: Vec<bool>,
}

/// An algorithm, turned inside out: it says which points it needs and is told the values there.
pub(super) trait Engine: Send {
    /// What is wanted next; the same until it is told. `None`: finished.
    fn next(&mut self) -> Result<Option<Request>>;

    /// Replications of the sequence of a request, which come one after the other in points and values.
    fn replications(&self) -> usize;

    /// The function whose values the `level` wants.
    fn integrand(&self, level: usize) -> &dyn Integrand;

    /// How points and values are made periodic on the way to the integrand and back.
    fn periodization(&self) -> Periodization {
        Periodization::None
    }

    /// Points `rows` of the level, shape (replications, rows, dim).
    fn fill(&mut self, level: usize, rows: Range<u64>, points: &mut [f64]) -> Result<()>;

    /// The values of the request that [`next`](Self::next) returns: one list per evaluated output, shape
    /// (replications, rows), empty where not active.
    fn tell(&mut self, request: Request, values: Vec<Vec<f64>>) -> Result<()>;

    /// What is known now.
    fn estimate(&self) -> Estimate;

    /// Writes all that [`load`](Self::load) needs.
    ///
    /// # Errors
    /// The integrand has no fingerprint.
    fn save(&self, out: &mut Writer) -> Result<()>;

    /// Takes over a state that this problem wrote.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<()>;

    /// May a finished run go on with a tighter tolerance?
    fn resumable(&self) -> bool {
        true
    }
}

/// Points that wait for values.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Batch {
    /// Level of a multilevel problem; 0 otherwise.
    pub level: usize,
    /// The points, shape (rows, dim); the replications one after the other.
    pub points: Tensor<f64, 2>,
    /// Which outputs are wanted; the values of others are ignored.
    pub active: Vec<bool>,
}

/// A cubature in progress.
///
/// [`finish`](Self::finish) evaluates the integrand until the tolerance is met. [`ask`](Self::ask) and
/// [`tell`](Self::tell) leave the evaluation to the caller. [`save`](Self::save) and [`resume`](Self::resume)
/// carry a run to another day, or to a tighter tolerance: for algorithms on doubling sets the result is that of
/// a fresh run at that tolerance, bit for bit.
pub struct Run<'a> {
    engine: Box<dyn Engine + 'a>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("estimate", &self.estimate()).finish_non_exhaustive()
    }
}

/// Values of a block of points that stay in the second-level cache.
const BLOCK_VALUES: usize = 1 << 15;

/// Rows of a block, at most.
const BLOCK_ROWS: usize = 4096;

impl<'a> Run<'a> {
    pub(super) fn new(engine: impl Engine + 'a) -> Self {
        Self { engine: Box::new(engine) }
    }

    /// The next points to evaluate; the same again until [`tell`](Self::tell). `None`: finished.
    ///
    /// # Errors
    /// What the sequence fails with; `TooLarge` if the points do not fit.
    pub fn ask(&mut self) -> Result<Option<Batch>> {
        let Some(request) = self.engine.next()? else { return Ok(None) };
        let dim = self.engine.integrand(request.level).dim();
        let rows = request_rows(&request, self.engine.replications())?;
        let mut points = Tensor::zeros([rows, dim])?;
        self.engine.fill(request.level, request.rows, points.as_mut_slice())?;
        let periodization = self.engine.periodization();
        if periodization != Periodization::None {
            let uniform = points.clone();
            let mut weights = vec![0.0; rows];
            periodization.transform(dim, uniform.as_slice(), points.as_mut_slice(), &mut weights)?;
        }
        Ok(Some(Batch { level: request.level, points, active: request.active }))
    }

    /// The values at the points of [`ask`](Self::ask), shape (outputs, rows). Outputs that are not active may hold
    /// anything.
    ///
    /// # Errors
    /// `Shape`, `NotFinite` (after which the run is as it was), `Argument` if nothing was asked.
    pub fn tell(&mut self, values: &[f64]) -> Result<()> {
        let Some(request) = self.engine.next()? else {
            return Err(Error::argument("values", "none: the cubature is finished", values.len()));
        };
        let rows = request_rows(&request, self.engine.replications())?;
        let outputs = request.active.len();
        if values.len() != rows.saturating_mul(outputs) {
            return Err(Error::shape("values", format!("[{outputs}, {rows}]"), &[values.len()]));
        }
        let mut lists = Vec::with_capacity(outputs);
        for (p, (row, active)) in values.chunks_exact(rows).zip(&request.active).enumerate() {
            if *active {
                check_finite("values", p, &request, row)?;
            }
            lists.push(if *active { row.to_vec() } else { Vec::new() });
        }
        let periodization = self.engine.periodization();
        if has_weight(periodization) {
            let dim = self.engine.integrand(request.level).dim();
            let mut points = vec![0.0; rows * dim];
            self.engine.fill(request.level, request.rows.clone(), &mut points)?;
            for (row, u) in points.chunks_exact(dim).enumerate() {
                let weight: f64 = u.iter().map(|u| periodization.apply(*u).1).product();
                lists.iter_mut().filter_map(|list| list.get_mut(row)).for_each(|value| *value *= weight);
            }
        }
        self.engine.tell(request, lists)
    }

    /// Evaluates the integrand at the next points. `false`: there are none, the cubature is finished.
    ///
    /// # Errors
    /// What the sequence or the integrand fails with; `NotFinite` for a value that is NaN or infinite, with the
    /// output and the row of the point as its position.
    pub fn step(&mut self) -> Result<bool> {
        let Some(request) = self.engine.next()? else { return Ok(false) };
        let values = evaluate(&mut *self.engine, &request)?;
        self.engine.tell(request, values)?;
        Ok(true)
    }

    /// Goes on until the tolerance is met or the limit is reached.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn finish(&mut self) -> Result<Estimate> {
        self.finish_with(|_| ControlFlow::Continue(()))
    }

    /// As [`finish`](Self::finish); `observer` sees what is known after each step and may stop the run.
    ///
    /// # Errors
    /// As [`step`](Self::step); `Cancelled` if the observer breaks, after which the run can be saved or go on.
    pub fn finish_with(
        &mut self,
        mut observer: impl FnMut(&Estimate) -> ControlFlow<()>,
    ) -> Result<Estimate> {
        while self.step()? {
            if observer(&self.engine.estimate()).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(self.estimate())
    }

    /// What is known now: after the last points, whether the tolerance is met or not.
    pub fn estimate(&self) -> Estimate {
        self.engine.estimate()
    }

    /// All that [`resume`](Self::resume) needs, as bytes of a versioned format.
    ///
    /// # Errors
    /// `Unsupported` if the integrand has no fingerprint.
    pub fn save(&self) -> Result<Vec<u8>> {
        let mut out = Writer::new();
        self.engine.save(&mut out)?;
        Ok(out.finish())
    }

    /// Takes over the state of a saved run of the same algorithm, settings, sequence and integrand; tolerances and
    /// the limit on points may differ.
    ///
    /// # Errors
    /// `Parse` for bytes that are not a state, `Argument` naming what differs, `Unsupported` for algorithms that
    /// cannot go on with another tolerance (mc-clt, mc-g, pf-gp).
    pub fn resume(&mut self, state: &[u8]) -> Result<()> {
        if !self.engine.resumable() {
            return Err(Error::unsupported(
                "resume",
                "this algorithm fixes its sample from the first tolerance",
            ));
        }
        self.restore(state)
    }

    /// As [`resume`](Self::resume) with the same tolerance, for every algorithm: goes on with a run whose values
    /// come from [`tell`](Self::tell) in another process.
    ///
    /// # Errors
    /// As [`resume`](Self::resume), but never `Unsupported`.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut from = Reader::new(state)?;
        self.engine.load(&mut from)?;
        from.end()
    }
}

/// Is the weight of a transform other than 1 anywhere?
fn has_weight(periodization: Periodization) -> bool {
    !matches!(periodization, Periodization::None | Periodization::Baker)
}

/// Rows of points and values of a request.
fn request_rows(request: &Request, replications: usize) -> Result<usize> {
    let rows = request.rows.end - request.rows.start;
    usize::try_from(rows)
        .ok()
        .and_then(|rows| rows.checked_mul(replications))
        .ok_or_else(|| Error::too_large("points", rows, usize::MAX as u64 / replications as u64, "rows"))
}

/// Values of one output, shape (replications, rows): the first that is not finite is an error at
/// `[output, row]`, or `[output, replication, row]` where there are several.
fn check_finite(what: &'static str, output: usize, request: &Request, values: &[f64]) -> Result<()> {
    let damaged = |part: &[f64]| part.iter().fold(false, |bad, v| bad | !v.is_finite());
    let Some(chunk) = values.chunks(1024).position(damaged) else { return Ok(()) };
    let at = chunk * 1024 + values[chunk * 1024..].iter().position(|v| !v.is_finite()).unwrap_or(0);
    let rows = (request.rows.end - request.rows.start) as usize;
    let row = request.rows.start as usize + at % rows;
    let index = if values.len() == rows { vec![output, row] } else { vec![output, at / rows, row] };
    Err(Error::not_finite(what, &index, values[at]))
}

/// The values of a request, computed block by block: the points of a block are made, used and forgotten.
fn evaluate(engine: &mut (dyn Engine + '_), request: &Request) -> Result<Vec<Vec<f64>>> {
    let replications = engine.replications();
    let total = request_rows(request, replications)?;
    let dim = engine.integrand(request.level).dim();
    let mut values: Vec<Vec<f64>> =
        request.active.iter().map(|active| if *active { vec![0.0; total] } else { Vec::new() }).collect();
    values.iter_mut().for_each(|list| kc_core::advise_huge_pages(list));
    let rows = (request.rows.end - request.rows.start) as usize;
    let block = (BLOCK_VALUES / dim.max(1)).clamp(64, BLOCK_ROWS);
    // The threads work on the blocks of one group at a time.
    let group = (block * par::threads() / replications).max(1);
    let mut points = vec![0.0; group.min(rows) * replications * dim];
    for part in par::chunks(rows, group) {
        let here = part.len() * replications;
        let points = &mut points[..here * dim];
        let first = request.rows.start + part.start as u64;
        engine.fill(request.level, first..first + part.len() as u64, points)?;
        let block_of = Block {
            integrand: engine.integrand(request.level),
            active: &request.active,
            periodization: engine.periodization(),
        };
        let points = &*points;
        let blocks =
            par::map_chunks(here, block, |at| block_of.evaluate(&points[at.start * dim..at.end * dim]));
        for (at, out) in par::chunks(here, block).zip(blocks) {
            let out = out?;
            for (p, list) in values.iter_mut().enumerate().filter(|(_, list)| !list.is_empty()) {
                scatter(&out[p * at.len()..][..at.len()], at.clone(), part.clone(), rows, list);
            }
        }
    }
    for (p, list) in values.iter().enumerate() {
        check_finite("integrand", p, request, list)?;
    }
    Ok(values)
}

/// What the threads share while they evaluate blocks of points.
struct Block<'a> {
    integrand: &'a dyn Integrand,
    active: &'a [bool],
    periodization: Periodization,
}

impl Block<'_> {
    /// Values at these points, shape (outputs, points).
    fn evaluate(&self, points: &[f64]) -> Result<Vec<f64>> {
        let dim = self.integrand.dim();
        let rows = points.len() / dim;
        let mut out = vec![0.0; self.active.len() * rows];
        if self.periodization == Periodization::None {
            self.integrand.evaluate(points, self.active, &mut out)?;
            return Ok(out);
        }
        let (mut periodic, mut weights) = (vec![0.0; points.len()], vec![0.0; rows]);
        self.periodization.transform(dim, points, &mut periodic, &mut weights)?;
        self.integrand.evaluate(&periodic, self.active, &mut out)?;
        if has_weight(self.periodization) {
            crate::integrand::scale_rows(self.active, &weights, &mut out);
        }
        Ok(out)
    }
}

/// Puts the values of flat positions `at` of (replications, part) into `list` of (replications, rows).
fn scatter(values: &[f64], at: Range<usize>, part: Range<usize>, rows: usize, list: &mut [f64]) {
    let mut from = at.start;
    while from < at.end {
        let (replicate, row) = (from / part.len(), from % part.len());
        let count = (part.len() - row).min(at.end - from);
        let to = replicate * rows + part.start + row;
        list[to..to + count].copy_from_slice(&values[from - at.start..][..count]);
        from += count;
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::checksum;
    use super::super::{
        BayesConfig, CltConfig, CltVecConfig, Cubature, FailureConfig, GuaranteedConfig, MlmcConfig,
        MlqmcConfig, MultilevelCubature, MultilevelOption, ReplicatedConfig,
    };
    use crate::integrand::{Keister, OptionConfig};
    use crate::{DigitalNet, DigitalNetConfig, Iid, IidConfig, Sequence};

    fn net(replications: usize) -> DigitalNet {
        let mut config = DigitalNetConfig::new(2, 3u64);
        config.replications = replications;
        DigitalNet::new(config).unwrap()
    }

    fn iid() -> Iid {
        Iid::new(IidConfig::new(2, 3u64)).unwrap()
    }

    /// States with one byte changed and a check sum that fits: an error or a run that goes on, never a panic.
    fn forge(state: &[u8], mut restore: impl FnMut(&[u8])) {
        let body = state.len() - 8;
        let step = (body / 400).max(1);
        for at in (8..body.min(400)).chain((400..body).step_by(step)) {
            for change in [0x01, 0x80, 0xff] {
                let mut forged = state.to_vec();
                forged[at] ^= change;
                let check = checksum(&forged[..body]);
                forged[body..].copy_from_slice(&check.to_le_bytes());
                restore(&forged);
            }
        }
    }

    fn check(cubature: &dyn Cubature, sequence: &dyn Fn() -> Box<dyn Sequence>) {
        let f = Keister::on_cube(2).unwrap();
        let mut first = sequence();
        let mut run = cubature.start(&mut *first, &f).unwrap();
        run.step().unwrap();
        let state = run.save().unwrap();
        forge(&state, |forged| {
            let mut sequence = sequence();
            let mut run = cubature.start(&mut *sequence, &f).unwrap();
            if run.restore(forged).is_ok() {
                let _ = run.step();
            }
        });
    }

    #[test]
    fn forged_states_do_not_panic() {
        let mut small = GuaranteedConfig::default();
        (small.n_init, small.check_cone) = (1 << 8, true);
        check(&small, &|| Box::new(net(1)));
        check(&ReplicatedConfig::default(), &|| Box::new(net(4)));
        check(&CltVecConfig::default(), &|| Box::new(iid()));
        check(&CltConfig::default(), &|| Box::new(iid()));
        let small = BayesConfig { n_init: 1 << 4, ..BayesConfig::default() };
        check(&small, &|| Box::new(net(1)));
        let mut small = FailureConfig::default();
        (small.n_init, small.n_approx, small.n_limit) = (4, 1 << 4, 8);
        check(&small, &|| Box::new(net(1)));
    }

    #[test]
    fn forged_states_of_levels_do_not_panic() {
        let problem = MultilevelOption::new(OptionConfig::default(), 2).unwrap();
        let check = |cubature: &dyn MultilevelCubature, sequence: &dyn Fn() -> Box<dyn Sequence>| {
            let mut first = sequence();
            let mut run = cubature.start(&mut *first, &problem).unwrap();
            for _ in 0..4 {
                run.step().unwrap();
            }
            let state = run.save().unwrap();
            forge(&state, |forged| {
                let mut sequence = sequence();
                let mut run = cubature.start(&mut *sequence, &problem).unwrap();
                let _ = run.restore(forged);
            });
        };
        check(&MlmcConfig::default(), &|| Box::new(iid()));
        check(&MlqmcConfig::default(), &|| Box::new(net(8)));
    }
}
