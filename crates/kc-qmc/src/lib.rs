//! Quasi-Monte Carlo: point sets that fill the cube evenly, measures, integrands and adaptive cubature.

mod data;
pub mod integrand;
pub mod measure;
pub mod net2;
pub mod rng;
pub mod sequence;

pub use integrand::Integrand;
pub use measure::Measure;
pub use net2::{DigitalNet, DigitalNetConfig};
pub use rng::{Seed, Sfc64};
pub use sequence::{Dims, Family, NusEngine, Order, Randomize, Sequence};
