//! Quasi-Monte Carlo: point sets that fill the cube evenly, measures, integrands and adaptive cubature.
//!
//! For people who integrate in many dimensions, design experiments or need structured points for kernel methods.
//! The same seed gives the bits of QMCPy 2.4; any number of threads, any cut into pieces and any first index give
//! the same points.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`net2`] | [`DigitalNet`]: Sobol' and other nets in base 2, every scrambling, higher order |
//! | [`lattice`] | [`Lattice`]: rank-1 lattices |
//! | [`netb`] | [`Halton`], [`Faure`], [`GeneralNet`]: nets in other bases |
//! | [`simple`] | Hammersley, Korobov, Kronecker, Latin hypercubes, [`Iid`] |
//! | [`sequence`] | [`Sequence`]: what they have in common |
//! | [`discrepancy`] | how evenly points fill the cube |
//! | [`measure`] | [`Measure`]: from the cube to normal, Brownian, Student, copulas ... |
//! | [`periodize`], [`integrand`] | [`Integrand`]: functions on the cube, made from measures and payoffs |
//! | [`cubature`] | integrals to a tolerance |
//! | [`rng`], [`table`], [`fold`], [`leap`], [`special`], [`small`] | NumPy's generator, tables as text, folding, leaping, quantiles, small matrices |
//!
//! ```
//! use kc_qmc::cubature::{Cubature, GuaranteedConfig};
//! use kc_qmc::integrand::Keister;
//! use kc_qmc::{DigitalNet, DigitalNetConfig};
//!
//! let mut net = DigitalNet::new(DigitalNetConfig::new(3, 7u64))?;
//! let mut config = GuaranteedConfig::default();
//! config.abs_tol = 1e-3;
//! let answer = config.integrate(&mut net, &Keister::on_cube(3)?)?;
//! assert!((answer.solution[0] - Keister::exact(3)).abs() < 1e-3);
//! # Ok::<(), kc_core::Error>(())
//! ```

#![deny(unsafe_code)]

mod blocks;
pub mod cubature;
mod data;
pub mod discrepancy;
mod fingerprint;
pub mod fold;
pub mod integrand;
pub mod lattice;
pub mod leap;
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
pub mod table;

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

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
