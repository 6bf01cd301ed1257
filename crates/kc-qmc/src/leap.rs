//! Every so many points of another sequence, from a first one on.
//!
//! Skipping the first point of a Halton or unscrambled Sobol' sequence keeps the origin away from transforms that are
//! infinite there; leaping over points with a step prime to all bases is an old remedy for the correlation of
//! Halton's high dimensions (L. Kocis, W. Whiten, 1997). Neither is needed for randomised points, and what is
//! left of a net or lattice is none any more: its balance is gone, and structured methods refuse it.
//!
//! ```
//! use kc_qmc::{Halton, HaltonConfig, Randomize, Sequence, leap::Leaped};
//!
//! let mut config = HaltonConfig::new(1, 0u64);
//! config.randomize = Randomize::None;
//! let mut points = Leaped::new(Halton::new(config)?, 1, 2)?;
//! assert_eq!(points.points(0..3)?.as_slice(), [0.5, 0.75, 0.625]); // rows 1, 3 and 5 of 0, 1/2, 1/4, 3/4, 1/8, 5/8
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Cost: that of all rows from the first to the last.

use std::ops::Range;

use kc_core::{Error, Result};

use crate::fingerprint::Fingerprint;
use crate::sequence::{Family, Order, Randomize, Sequence};

/// Rows `skip`, `skip + step`, `skip + 2 step`, ... of a sequence.
#[derive(Debug, Clone)]
pub struct Leaped<S> {
    sequence: S,
    skip: u64,
    step: u64,
}

/// Values that are made at a time.
const VALUES: u64 = 1 << 15;

impl<S: Sequence> Leaped<S> {
    /// From row `skip` on, every `step`-th.
    ///
    /// # Errors
    /// `Argument` if `step` is 0, or the sequence has no row `skip`.
    pub fn new(sequence: S, skip: u64, step: u64) -> Result<Self> {
        if step == 0 {
            return Err(Error::argument("step", "at least 1", step));
        }
        if u128::from(skip) >= sequence.limit() {
            return Err(Error::argument("skip", format!("less than {}", sequence.limit()), skip));
        }
        Ok(Self { sequence, skip, step })
    }

    /// The row of the whole sequence that row `at` is.
    fn row(&self, at: u64) -> Result<u64> {
        let row = u128::from(self.skip) + u128::from(at) * u128::from(self.step);
        u64::try_from(row).map_err(|_| Error::too_large("rows", at, u64::MAX / self.step, "points"))
    }
}

impl<S: Sequence + 'static> Sequence for Leaped<S> {
    fn dim(&self) -> usize {
        self.sequence.dim()
    }

    fn replications(&self) -> usize {
        self.sequence.replications()
    }

    fn limit(&self) -> u128 {
        (self.sequence.limit() - u128::from(self.skip)).div_ceil(u128::from(self.step))
    }

    fn family(&self) -> Family {
        Family::Subsequence
    }

    fn order(&self) -> Order {
        self.sequence.order()
    }

    fn randomize(&self) -> Randomize {
        self.sequence.randomize()
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("leaped")
            .field("skip", self.skip)
            .field("step", self.step)
            .field("of", self.sequence.fingerprint())
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let (dim, replications) = (self.dim(), self.replications());
        let count = crate::blocks::count_rows(&rows, self.limit())?;
        crate::blocks::check_out(out, [replications, count, dim])?;
        let each = (VALUES / self.step / (dim * replications) as u64).max(1);
        let mut buffer = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let end = at.saturating_add(each).min(rows.end);
            let (first, last) = (self.row(at)?, self.row(end - 1)?);
            let wide = usize::try_from(last - first + 1)
                .ok()
                .and_then(|wide| wide.checked_mul(dim * replications))
                .ok_or_else(|| Error::too_large("step", self.step, VALUES, "rows at a time"))?;
            buffer.resize(wide, 0.0);
            self.sequence.fill_block(first..last + 1, &mut buffer)?;
            for (from, to) in buffer.chunks_exact(wide / replications).zip(out.chunks_exact_mut(count * dim))
            {
                let to = to[(at - rows.start) as usize * dim..].chunks_exact_mut(dim);
                let from = from.chunks_exact(dim).step_by(usize::try_from(self.step).unwrap_or(usize::MAX));
                from.zip(to).for_each(|(from, to)| to.copy_from_slice(from));
            }
            at = end;
        }
        Ok(())
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let (skip, step) = (self.skip, self.step);
        let leaped = |child| Ok(Box::new(Leaped::new(child, skip, step)?) as Box<dyn Sequence>);
        self.sequence.spawn(dims)?.into_iter().map(leaped).collect()
    }
}
