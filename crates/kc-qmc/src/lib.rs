//! Quasi-Monte Carlo: point sets that fill the cube evenly, measures, integrands and adaptive cubature.

#![deny(unsafe_code)]

pub mod integrand;
pub mod measure;
pub mod periodize;
pub mod rng;
pub mod sequence;
pub mod small;
pub mod special;

pub use integrand::Integrand;
pub use measure::Measure;
pub use rng::{Seed, Sfc64};
pub use sequence::{Dims, Family, NusEngine, Order, Randomize, Sequence};
