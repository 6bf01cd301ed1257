//! Sparse matrices and their products: deterministic parallel SpGEMM with semirings, masks and plans.
//!
//! | Room | What for |
//! |---|---|
//! | [`csr`] | [`Csr`], [`CsrView`]: compressed sparse rows, checked once |
//! | [`semiring`] | eleven algebras, and the trait for your own |
//! | [`convert`] | coordinates, compressed columns, dense, sprs |
//! | [`ops`] | add, scale, diagonal, sums, permutations |
//! | [`spmv`] | sparse times vector, sparse times dense |
//! | [`flat`] | [`FlatCsr`]: sparse attention masks, all heads of a query in one row |
//! | [`smash`] | sparse times sparse: [`spgemm`], [`SpgemmPlan`], [`Mask`], the cost model of the SMASH paper |
//!
//! ```
//! use kc_sparse::{Csr, SpgemmConfig, Triplets, semiring::MinPlus, spgemm};
//! // Shortest paths of two steps: 0 -> 1 -> 2 costs 3, 0 -> 3 -> 2 costs 0.
//! let edges = Triplets { nrows: 4, ncols: 4, rows: &[0, 1, 0, 3], cols: &[1, 2, 3, 2], values: &[1.0, 2.0, 0.0, 0.0] };
//! let a: Csr<f64> = edges.to_csr()?;
//! let c = spgemm(MinPlus::new(), a.view(), a.view(), &SpgemmConfig::default())?;
//! assert_eq!((c.row(0).0, c.row(0).1), (&[2u32][..], &[0.0][..]));
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Features: `sprs` (default) converts to and from the `sprs` crate.

pub mod convert;
pub mod csr;
pub mod flat;
pub mod ops;
pub mod semiring;
mod simd;
pub mod smash;
pub mod spmv;

pub use convert::Triplets;
pub use csr::{Csr, CsrView, Index, Order, Value};
pub use flat::FlatCsr;
pub use semiring::Semiring;
pub use smash::{
    Accumulator, Mask, Phases, PlanConfig, SpgemmConfig, SpgemmPlan, SpgemmStats, Workspace, spgemm,
    spgemm_accumulate, spgemm_as, spgemm_stats, spgemm_with,
};

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
    #[doc = include_str!("../../../docs/sparse.md")]
    pub struct Guide;
    #[doc = include_str!("../../../README.md")]
    pub struct Repository;
}
