//! The ground floor of kc: tensors and views, one error type, instruction-set detection, vector
//! mathematics, deterministic parallelism and random numbers. It knows no system, no file and no foreign
//! matrix type (except behind a feature).
//!
//! | Module | What it holds |
//! |---|---|
//! | [`tensor`] | [`Tensor`], [`TensorView`], [`TensorViewMut`], [`AnyTensor`] |
//! | [`dtype`] | [`DType`], [`Element`], [`Float`] |
//! | [`error`] | [`Error`], [`Result`] |
//! | [`simd`] | [`Level`], [`Isa`] |
//! | [`math`] | exp, log, tanh, softmax, dot, sum, top-k ... on slices, at every level |
//! | [`par`] | chunks and reductions with the same bits on any number of threads |
//! | [`rng`] | [`KcRng`] |
//! | [`neural`] | layer normalisation and GELU, with their gradients |
//! | [`optim`] | Adam |
//!
//! ```
//! use kc_core::{Tensor, TensorView};
//!
//! let data = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let a = TensorView::from_slice([2, 3], &data)?;
//! let t: Tensor<f32, 2> = a.transposed().to_tensor()?;
//! assert_eq!(t.shape(), [3, 2]);
//! assert_eq!(t.as_slice(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Features: `ndarray` (views to and from the `ndarray` crate).

pub mod buffer;
pub mod dtype;
pub mod error;
pub mod math;
pub mod neural;
pub mod optim;
pub mod par;
pub mod rng;
pub mod shape;
pub mod simd;
pub mod tensor;

pub use buffer::{AlignedBuf, Bytes, advise_huge_pages};
pub use dtype::{DType, Element, Float};
pub use error::{Error, Name, Position, Result};
pub use rng::KcRng;
pub use simd::{Isa, Level};
pub use tensor::{AnyTensor, Tensor, TensorView, TensorViewMut};

pub use bytemuck;
pub use half::{self, bf16, f16};
pub use num_complex::{self, Complex};

/// What most code needs: `use kc_core::prelude::*`.
pub mod prelude {
    pub use crate::{
        AnyTensor, DType, Element, Error, Float, Isa, KcRng, Level, Result, Tensor, TensorView, TensorViewMut,
    };
}

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
