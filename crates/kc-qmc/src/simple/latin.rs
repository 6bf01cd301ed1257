//! Latin hypercubes.

use std::ops::Range;

use kc_core::{Error, Result};
use rayon::prelude::*;

use super::CLOSED;
use crate::blocks::{check_closed, check_out, check_replications, count_rows};
use crate::fingerprint::Fingerprint;
use crate::rng::Seed;
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// What a Latin hypercube is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LatinHypercubeConfig {
    /// Coordinates. Which ones makes no difference.
    pub dims: Dims,
    /// Where permutations and jitter come from.
    pub seed: Seed,
    /// [`Randomize::Iid`] (the default): anywhere in its slice. [`Randomize::None`]: in the middle of its slice; which
    /// slices meet is still random.
    pub randomize: Randomize,
    /// Independent hypercubes; at least 1.
    pub replications: usize,
}

impl LatinHypercubeConfig {
    /// One hypercube with jitter.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self { dims: dims.into(), seed: seed.into(), randomize: Randomize::Iid, replications: 1 }
    }
}

/// A Latin hypercube of `n` points: each of the `n` slices of every coordinate holds one.
///
/// Source: M. D. McKay, R. J. Beckman, W. J. Conover, *A comparison of three methods for selecting values of input
/// variables* (1979).
#[derive(Debug, Clone)]
pub struct LatinHypercube {
    config: LatinHypercubeConfig,
    dim: usize,
}

impl LatinHypercube {
    /// The hypercube; points are drawn when they are asked for, from the seed.
    ///
    /// # Errors
    /// No dimensions, no replications, or a randomization other than jitter and none.
    pub fn new(config: LatinHypercubeConfig) -> Result<Self> {
        let dim = config.dims.resolve(1 << 24)?.len();
        check_replications(config.replications, dim)?;
        if !matches!(config.randomize, Randomize::Iid | Randomize::None) {
            return Err(Error::argument("randomize", "jitter or none", format!("{:?}", config.randomize)));
        }
        Ok(Self { config, dim })
    }

    /// What it was made from.
    pub fn config(&self) -> &LatinHypercubeConfig {
        &self.config
    }
}

impl Sequence for LatinHypercube {
    fn dim(&self) -> usize {
        self.dim
    }

    fn replications(&self) -> usize {
        self.config.replications
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
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("latin hypercube")
            .field("seed", self.config.seed.name())
            .field("dims", self.dim)
            .field("randomize", format_args!("{:?}", self.config.randomize))
            .field("replications", self.config.replications)
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let n = count_rows(&rows, CLOSED)?;
        check_closed(&rows)?;
        check_out(out, [self.config.replications, n, self.dim])?;
        if n == 0 {
            return Ok(());
        }
        let mut rng = self.config.seed.rng();
        // All keys come before all jitters, so `out` holds the keys while both are drawn, coordinate by coordinate.
        out.fill_with(|| rng.uniform());
        let jitter = self.config.randomize == Randomize::Iid;
        let size = n as f64;
        let mut set = vec![0.0; n * self.dim];
        for out in out.chunks_exact_mut(n * self.dim) {
            let orders: Vec<Vec<u32>> = out.par_chunks_exact(n).map(order).collect();
            for (column, order) in set.chunks_exact_mut(n).zip(&orders) {
                for (x, &at) in column.iter_mut().zip(order) {
                    let down = if jitter { rng.uniform() } else { 0.5 };
                    *x = (f64::from(at) + 1.0 - down) / size;
                }
            }
            for (i, row) in out.chunks_exact_mut(self.dim).enumerate() {
                row.iter_mut().enumerate().for_each(|(j, x)| *x = set[j * n + i]);
            }
        }
        Ok(())
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = LatinHypercubeConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(LatinHypercube::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}

/// The indices that sort the keys; equal keys keep their order.
fn order(keys: &[f64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]).then(a.cmp(&b)));
    order
}
