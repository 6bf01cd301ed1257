//! Kernel methods on lattices and digital nets: Gram matrices that fast transforms make diagonal, and Gaussian
//! processes of a million points.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`si`] | shift-invariant kernels, for lattices |
//! | [`dsi`] | digitally shift-invariant kernels, for digital nets |
//! | [`derivative`] | their partial derivatives |
//! | [`ft`] | [`Gram`]: products, solutions, determinants in `O(n log n)` |
//! | [`gp`] | [`FastGp`](gp::FastGp): fit, predict, integrate; [`DenseGp`](gp::DenseGp) for any points |
//! | [`multitask`] | several tasks, derivatives among them, with sets of different sizes |
//! | [`functions`] | kernels of the distance, for dense matrices |

#![deny(unsafe_code)]

mod config;
pub mod derivative;
pub mod dsi;
pub mod ft;
pub mod functions;
pub mod gp;
mod kernel;
pub mod multitask;
mod points;
mod product;
pub mod si;

pub use config::{KernelConfig, Smoothness};
pub use dsi::DsiKernel;
pub use ft::{Gram, Transform};
pub use kernel::Kernel;
pub use points::Points;
pub use product::gram;
pub use si::SiKernel;

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
