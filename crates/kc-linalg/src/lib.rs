//! Dense linear algebra: decompositions, pairwise distances and matrix scores.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`decomp`] | [`eigvalsh`], [`eigh`], [`singular_values`], [`svd`], [`cholesky`] |
//! | [`pairwise`](mod@crate::pairwise) | inner products, cosines and distances of all pairs of rows, whole or by tiles |
//! | [`mnn`](mod@crate::mnn) | matrix nuclear norm: how compressed a matrix of hidden states is, in two passes over it |
#![cfg_attr(feature = "faer", doc = "| [`faer`](mod@crate::faer) | views to and from faer, without copies |")]
//!
//! ```
//! use kc_core::Tensor;
//! use kc_linalg::eigvalsh;
//!
//! let a = Tensor::<f64, 2>::from_slice([2, 2], &[0.0, 1.0, 1.0, 0.0])?;
//! let values = eigvalsh(a.view())?;
//! assert!((values[0] + 1.0).abs() < 1e-15 && (values[1] - 1.0).abs() < 1e-15);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Features: `faer` makes the module of that name public; `avx512` compiles faer's AVX-512 code, which is
//! chosen at run time (10 to 15 % faster decompositions where there is AVX-512, half as much again of
//! compilation). Both are off by default.

pub mod decomp;
#[cfg(feature = "faer")]
pub mod faer;
#[cfg(not(feature = "faer"))]
#[expect(dead_code, reason = "the module is complete for those who see it; the crate needs two functions")]
#[expect(unreachable_pub, reason = "public with the feature faer")]
mod faer;
pub mod mnn;
pub mod pairwise;
mod real;

pub use decomp::{Eigh, Svd, Vectors, cholesky, eigh, eigvalsh, singular_values, svd};
pub use mnn::mnn as matrix_nuclear_norm;
pub use real::Real;

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
