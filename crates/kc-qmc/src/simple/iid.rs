//! Independent uniform points: plain Monte Carlo, the peer of everything else.

use std::ops::Range;

use kc_core::Result;

use crate::blocks::{ENDLESS, check_out, check_replications, count_rows};
use crate::fingerprint::Fingerprint;
use crate::rng::{Seed, Sfc64};
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// What independent points are made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IidConfig {
    /// Coordinates. Which ones makes no difference.
    pub dims: Dims,
    /// Where the points come from.
    pub seed: Seed,
    /// Independent sets; at least 1.
    pub replications: usize,
}

impl IidConfig {
    /// One set.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self { dims: dims.into(), seed: seed.into(), replications: 1 }
    }
}

/// Independent uniform points from one generator, as NumPy's `uniform(size=(replications, n, dims))`.
///
/// Rows that go on where the last call ended are the generator's next numbers. Any other range begins anew: it is
/// that part of the rows from 0 to its end. With several replications the numbers of a row therefore depend on the
/// ranges that were asked for before: NumPy draws replication after replication.
///
/// ```
/// use kc_qmc::{Sequence, simple::{Iid, IidConfig}};
///
/// let (mut once, mut pieces) = (Iid::new(IidConfig::new(2, 7u64))?, Iid::new(IidConfig::new(2, 7u64))?);
/// let all = once.points(0..4)?;
/// pieces.points(0..1)?;
/// assert_eq!(pieces.points(1..4)?.as_slice(), &all.as_slice()[2..]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Iid {
    config: IidConfig,
    dim: usize,
    rng: Sfc64,
    next: u64,
}

impl Iid {
    /// A generator at its first point.
    ///
    /// # Errors
    /// No dimensions or no replications.
    pub fn new(config: IidConfig) -> Result<Self> {
        let dim = config.dims.resolve(1 << 24)?.len();
        check_replications(config.replications, dim)?;
        Ok(Self { dim, rng: config.seed.rng(), next: 0, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &IidConfig {
        &self.config
    }
}

impl Sequence for Iid {
    fn dim(&self) -> usize {
        self.dim
    }

    fn replications(&self) -> usize {
        self.config.replications
    }

    fn limit(&self) -> u128 {
        ENDLESS
    }

    fn family(&self) -> Family {
        Family::Iid
    }

    fn order(&self) -> Order {
        Order::Natural
    }

    fn randomize(&self) -> Randomize {
        Randomize::Iid
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("iid")
            .field("seed", self.config.seed.name())
            .field("dims", self.dim)
            .field("replications", self.config.replications)
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let count = count_rows(&rows, ENDLESS)?;
        check_out(out, [self.config.replications, count, self.dim])?;
        let mut skipped = 0;
        if rows.start != self.next {
            (self.rng, skipped) = (self.config.seed.rng(), rows.start);
        }
        for set in out.chunks_mut((count * self.dim).max(1)) {
            for _ in 0..skipped * self.dim as u64 {
                self.rng.next_u64();
            }
            set.fill_with(|| self.rng.uniform());
        }
        self.next = rows.end;
        Ok(())
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = IidConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(Iid::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}
