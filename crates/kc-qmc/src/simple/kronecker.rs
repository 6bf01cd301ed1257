//! Kronecker sequences: multiples of a vector of irrational numbers modulo 1.

use std::ops::Range;

use kc_core::{Error, Isa, Result};

use super::is_shifted;
use crate::blocks::{ENDLESS, check_out, check_replications, count_rows, fill_blocks};
use crate::fingerprint::Fingerprint;
use crate::lattice::draw_shifts;
use crate::primes;
use crate::rng::Seed;
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// A vector that a component-by-component search found, as published with QMCPy.
const CBC: [f64; 13] = [
    0.4224371872086319,
    0.3605965189622313,
    0.34867213712845485,
    0.45203880550820597,
    0.2550750763977846,
    0.22052899261473505,
    0.20712428728229598,
    0.30493549910869133,
    0.38721688549745775,
    0.22758088722209868,
    0.17737408931601892,
    0.1958399682530986,
    0.32163469508309966,
];

/// Dimensions of a formula, at most.
const MOST: usize = 1 << 16;

/// The vector `alpha` of a Kronecker sequence.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum KroneckerVector {
    /// 13 numbers from a component-by-component search; `Richtmyer` if a dimension beyond is asked for.
    #[default]
    Cbc,
    /// `frac(sqrt(p_j))`, `p_j` the j-th prime (R. D. Richtmyer 1951).
    Richtmyer,
    /// `2^(j / (d + 1))`, `j` = 1 to `d`, with `d` the largest dimension in use.
    Suzuki,
    /// Given, for each dimension of the table.
    User(Vec<f64>),
}

/// What a Kronecker sequence is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KroneckerConfig {
    /// The coordinates of the vector to use.
    pub dims: Dims,
    /// Where shifts come from.
    pub seed: Seed,
    /// [`Randomize::Shift`] (the default) or [`Randomize::None`].
    pub randomize: Randomize,
    /// Independent shifts; at least 1.
    pub replications: usize,
    /// The vector.
    pub vector: KroneckerVector,
    /// Shifts in `[0, 1)`, (replications, dimensions), instead of random ones.
    pub shifts: Option<Vec<f64>>,
}

impl KroneckerConfig {
    /// Shifted, with the vector of the search.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        Self {
            dims: dims.into(),
            seed: seed.into(),
            randomize: Randomize::Shift,
            replications: 1,
            vector: KroneckerVector::default(),
            shifts: None,
        }
    }
}

/// A Kronecker sequence, `x_i = frac(i alpha + shift)`; any rows.
#[derive(Debug, Clone)]
pub struct Kronecker {
    config: KroneckerConfig,
    /// Dimensions of the table up to the last in use.
    last: usize,
    alpha: Vec<f64>,
    shifts: Vec<f64>,
}

impl Kronecker {
    /// Draws the shifts.
    ///
    /// # Errors
    /// Dimensions that the vector does not have, a component that is not finite, a randomization other than shift and
    /// none, no replications, or several without randomization that would all be equal.
    pub fn new(config: KroneckerConfig) -> Result<Self> {
        let available = match &config.vector {
            KroneckerVector::User(vector) => vector.len(),
            _ => MOST,
        };
        let dims = config.dims.resolve(available)?;
        check_replications(config.replications, dims.len())?;
        let randomized = is_shifted(config.randomize, config.replications)?;
        let shifts = draw_shifts(
            &mut config.seed.rng(),
            config.replications,
            dims.len(),
            randomized,
            config.shifts.as_deref(),
        )?;
        let last = dims.iter().max().map_or(0, |last| last + 1);
        let root = |prime: u32| f64::from(prime).sqrt().fract();
        let table = match &config.vector {
            KroneckerVector::Cbc if last <= CBC.len() => CBC.to_vec(),
            KroneckerVector::Cbc | KroneckerVector::Richtmyer => {
                primes::first(last).into_iter().map(root).collect()
            }
            KroneckerVector::Suzuki => (1..=last).map(|j| (j as f64 / (last + 1) as f64).exp2()).collect(),
            KroneckerVector::User(vector) => vector.clone(),
        };
        if let Some(at) = table.iter().position(|alpha| !alpha.is_finite()) {
            return Err(Error::not_finite("vector", &[at], table[at]));
        }
        Ok(Self { last, alpha: dims.iter().map(|&dim| table[dim]).collect(), shifts, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &KroneckerConfig {
        &self.config
    }

    /// True if [`KroneckerVector::Cbc`] had too few dimensions, so that the vector is Richtmyer's.
    pub fn fell_back(&self) -> bool {
        self.config.vector == KroneckerVector::Cbc && self.last > CBC.len()
    }

    /// The vector in use.
    pub fn vector(&self) -> &[f64] {
        &self.alpha
    }

    /// The shifts, (replications, dimensions); zeros without randomization.
    pub fn shifts(&self) -> &[f64] {
        &self.shifts
    }
}

/// The rest of a division by 1 in `[0, 1)`, as floor division leaves it.
#[inline(always)]
fn frac(y: f64) -> f64 {
    const EXACT: f64 = (1u64 << 52) as f64;
    if (0.0..EXACT).contains(&y) {
        return y - (y as i64) as f64;
    }
    let rest = y % 1.0;
    // A tiny negative rest becomes 1 when 1 is added.
    let rest = if rest < 0.0 { rest + 1.0 } else { rest };
    if rest >= 1.0 { 0.0 } else { rest }
}

impl Sequence for Kronecker {
    fn dim(&self) -> usize {
        self.alpha.len()
    }

    fn replications(&self) -> usize {
        self.config.replications
    }

    fn limit(&self) -> u128 {
        ENDLESS
    }

    fn family(&self) -> Family {
        Family::Kronecker
    }

    fn order(&self) -> Order {
        Order::Natural
    }

    fn randomize(&self) -> Randomize {
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        Fingerprint::new("kronecker")
            .field("replications", self.config.replications)
            .floats("vector", &self.alpha)
            .floats("shift", &self.shifts)
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        let dim = self.alpha.len();
        let count = count_rows(&rows, ENDLESS)?;
        check_out(out, [self.config.replications, count, dim])?;
        fill_blocks(Isa::best(), out, rows, dim, |replication, rows, values| {
            let shift = &self.shifts[replication * dim..][..dim];
            for (i, row) in rows.zip(values.chunks_exact_mut(dim)) {
                for ((x, alpha), shift) in row.iter_mut().zip(&self.alpha).zip(shift) {
                    *x = frac(i as f64 * alpha + shift);
                }
            }
        });
        Ok(())
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        if self.config.shifts.is_some() {
            return Err(Error::unsupported("spawning", "the shifts of this sequence are given"));
        }
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(&dim, seed)| {
            let config = KroneckerConfig { dims: Dims::First(dim), seed, ..self.config.clone() };
            Ok(Box::new(Kronecker::new(config)?) as Box<dyn Sequence>)
        };
        dims.iter().zip(seeds).map(child).collect()
    }
}
