//! Quasi-Monte Carlo: point sets that fill the cube evenly, measures, integrands and adaptive cubature.

#![deny(unsafe_code)]

mod blocks;
pub mod cubature;
mod data;
mod fingerprint;
pub mod integrand;
pub mod lattice;
pub mod measure;
pub mod net2;
pub mod netb;
pub mod periodize;
mod primes;
pub mod rng;
pub mod sequence;
pub mod simple;
pub mod small;
pub mod special;

pub use integrand::Integrand;
pub use lattice::{Lattice, LatticeConfig, LatticeVector};
pub use measure::Measure;
pub use net2::{DigitalNet, DigitalNetConfig};
pub use netb::{Faure, FaureConfig, GeneralNet, GeneralNetConfig, Halton, HaltonConfig};
pub use rng::{Seed, Sfc64};
pub use sequence::{Dims, Family, NusEngine, Order, Randomize, Sequence};
pub use simple::{
    Hammersley, HammersleyConfig, Iid, IidConfig, Korobov, KorobovConfig, Kronecker, KroneckerConfig,
    LatinHypercube, LatinHypercubeConfig,
};
