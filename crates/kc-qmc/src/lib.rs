//! Quasi-Monte Carlo: point sets that fill the cube evenly, measures, integrands and adaptive cubature.

#![deny(unsafe_code)]

mod blocks;
mod data;
mod fingerprint;
pub mod integrand;
pub mod lattice;
pub mod measure;
pub mod netb;
mod primes;
pub mod rng;
pub mod sequence;
pub mod simple;

pub use integrand::Integrand;
pub use lattice::{Lattice, LatticeConfig, LatticeVector};
pub use measure::Measure;
pub use netb::{Faure, FaureConfig, GeneralNet, GeneralNetConfig, Halton, HaltonConfig};
pub use rng::{Seed, Sfc64};
pub use sequence::{Dims, Family, NusEngine, Order, Randomize, Sequence};
pub use simple::{
    Hammersley, HammersleyConfig, Iid, IidConfig, Korobov, KorobovConfig, Kronecker, KroneckerConfig, LatinHypercube,
    LatinHypercubeConfig,
};
