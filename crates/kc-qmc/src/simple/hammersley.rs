//! Hammersley's set: Halton's sequence with the index itself as another coordinate.

use std::ops::Range;

use kc_core::{Error, Isa, Result};

use super::CLOSED;
use crate::blocks::{check_closed, check_out, count_rows};
use crate::fingerprint::Fingerprint;
use crate::netb::{GeneralNet, HALTON_DIMS, HaltonConfig};
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// What a Hammersley set is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HammersleyConfig {
    /// How many coordinates, up to 1001.
    pub dims: Dims,
}

impl HammersleyConfig {
    /// So many coordinates.
    pub fn new(dims: impl Into<Dims>) -> Self {
        Self { dims: dims.into() }
    }
}

/// Hammersley's set of `n` points: `(i / n, Halton's point i)`. Nothing about it is random.
///
/// Source: J. M. Hammersley, *Monte Carlo methods for solving multivariable problems* (1960).
#[derive(Debug, Clone)]
pub struct Hammersley {
    config: HammersleyConfig,
    dim: usize,
    halton: Option<GeneralNet>,
}

impl Hammersley {
    /// The set.
    ///
    /// # Errors
    /// No dimensions, too many, or a list of them: `i / n` belongs to no prime.
    pub fn new(config: HammersleyConfig) -> Result<Self> {
        let dims = config.dims.resolve(HALTON_DIMS + 1)?;
        if dims.iter().enumerate().any(|(at, &dim)| at != dim) {
            return Err(Error::argument("dims", "a number of dimensions for a Hammersley set", "a list"));
        }
        let halton = match dims.len() {
            1 => None,
            dim => {
                let mut halton = HaltonConfig::new(dim - 1, 0u64);
                halton.randomize = Randomize::None;
                Some(GeneralNet::new(halton.into())?)
            }
        };
        Ok(Self { config, dim: dims.len(), halton })
    }

    /// What it was made from.
    pub fn config(&self) -> &HammersleyConfig {
        &self.config
    }
}

impl Sequence for Hammersley {
    fn dim(&self) -> usize {
        self.dim
    }

    fn replications(&self) -> usize {
        1
    }

    fn limit(&self) -> u128 {
        CLOSED
    }

    fn family(&self) -> Family {
        Family::Closed
    }

    fn order(&self) -> Order {
        Order::Linear
    }

    fn randomize(&self) -> Randomize {
        Randomize::None
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("hammersley").field("dims", self.dim).finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let count = count_rows(&rows, CLOSED)?;
        check_closed(&rows)?;
        check_out(out, [1, count, self.dim])?;
        let step = 1.0 / count as f64;
        for (i, row) in out.chunks_exact_mut(self.dim).enumerate() {
            row[0] = step * i as f64;
        }
        match &mut self.halton {
            Some(halton) => halton.fill_columns(Isa::best(), rows, out, self.dim, 1),
            None => Ok(()),
        }
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let child = |&dim| Ok(Box::new(Hammersley::new(HammersleyConfig::new(dim))?) as Box<dyn Sequence>);
        dims.iter().map(child).collect()
    }
}
