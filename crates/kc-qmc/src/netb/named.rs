//! Halton's and Faure's sequences by name.

use std::ops::Range;

use kc_core::{Isa, Result};

use super::{GeneralNet, GeneralNetConfig, NetMatrices};
use crate::rng::Seed;
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

/// What a Halton sequence is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HaltonConfig {
    /// The primes to use, counted from 0; up to 1000.
    pub dims: Dims,
    /// Where the randomization comes from.
    pub seed: Seed,
    /// None, `Lms`, `Dp`, `Ds`, `LmsDp` (the default), `LmsDs`, `Nus` by the tree, or `Qrng`.
    pub randomize: Randomize,
    /// Independent randomizations; at least 1.
    pub replications: usize,
    /// Digits after randomization, up to 64; `None` for as many as an f64 has, and at least those of an index.
    pub digits: Option<usize>,
    /// Points, at most 2^63.
    pub limit: u64,
}

impl HaltonConfig {
    /// Scrambled and permuted, 2^32 points.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        let net = GeneralNetConfig::new(dims, seed, NetMatrices::Halton);
        let GeneralNetConfig { dims, seed, randomize, replications, digits, limit, .. } = net;
        Self { dims, seed, randomize, replications, digits, limit }
    }
}

impl From<HaltonConfig> for GeneralNetConfig {
    fn from(config: HaltonConfig) -> Self {
        let HaltonConfig { dims, seed, randomize, replications, digits, limit } = config;
        Self { dims, seed, randomize, replications, matrices: NetMatrices::Halton, alpha: 1, digits, limit }
    }
}

/// What a Faure sequence is made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FaureConfig {
    /// How many coordinates; they decide the base. Up to 7919.
    pub dims: Dims,
    /// Where the randomization comes from.
    pub seed: Seed,
    /// None, `Lms`, `Dp`, `Ds`, `LmsDp` (the default), `LmsDs`, or `Nus` by the tree.
    pub randomize: Randomize,
    /// Independent randomizations; at least 1.
    pub replications: usize,
    /// Coordinates that are interlaced to one; at least 1.
    pub alpha: usize,
    /// Digits after randomization, up to 64; `None` for as many as an f64 has, and at least those of an index.
    pub digits: Option<usize>,
    /// Points, at most 2^63.
    pub limit: u64,
}

impl FaureConfig {
    /// Scrambled and permuted, 2^32 points.
    pub fn new(dims: impl Into<Dims>, seed: impl Into<Seed>) -> Self {
        let net = GeneralNetConfig::new(dims, seed, NetMatrices::Faure);
        let GeneralNetConfig { dims, seed, randomize, replications, alpha, digits, limit, .. } = net;
        Self { dims, seed, randomize, replications, alpha, digits, limit }
    }
}

impl From<FaureConfig> for GeneralNetConfig {
    fn from(config: FaureConfig) -> Self {
        let FaureConfig { dims, seed, randomize, replications, alpha, digits, limit } = config;
        Self { dims, seed, randomize, replications, matrices: NetMatrices::Faure, alpha, digits, limit }
    }
}

/// Halton's sequence. The page is [`crate::netb`].
#[derive(Debug, Clone)]
pub struct Halton(GeneralNet);

/// Faure's sequence. The page is [`crate::netb`].
#[derive(Debug, Clone)]
pub struct Faure(GeneralNet);

macro_rules! named {
    ($name:ident, $config:ident) => {
        impl $name {
            /// Draws what is random.
            ///
            /// # Errors
            /// As [`GeneralNet::new`].
            pub fn new(config: $config) -> Result<Self> {
                Ok(Self(GeneralNet::new(config.into())?))
            }

            /// The net that it is.
            pub fn as_net(&self) -> &GeneralNet {
                &self.0
            }

            /// [`Sequence::fill`] on a level of the processor.
            ///
            /// # Errors
            /// As there.
            pub fn fill_with(&mut self, isa: Isa, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
                self.0.fill_with(isa, rows, out)
            }
        }

        impl Sequence for $name {
            fn dim(&self) -> usize {
                self.0.dim()
            }

            fn replications(&self) -> usize {
                self.0.replications()
            }

            fn limit(&self) -> u128 {
                self.0.limit()
            }

            fn family(&self) -> Family {
                self.0.family()
            }

            fn order(&self) -> Order {
                self.0.order()
            }

            fn randomize(&self) -> Randomize {
                self.0.randomize()
            }

            fn fingerprint(&self) -> String {
                self.0.fingerprint()
            }

            fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
                self.0.fill(rows, out)
            }

            fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
                self.0.spawn(dims)
            }
        }
    };
}

named!(Halton, HaltonConfig);
named!(Faure, FaureConfig);
