//! Quantised matrix products: low-bit weights and activations on the CPU.
//!
//! For people who run trained networks and want their linear layers in small integers, or want to know what
//! that would cost. Inputs are borrowed views, results are owned; nothing here opens a file.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`formats`] | GPTQ, AWQ, compressed-tensors, MatMulNBits and GGUF files, read and written exactly |
//! | [`crossquant`] | activations whose step blends token and channel maxima, and the quantisation-kernel report |
//! | [`qtensor`] | [`QTensor`]: symmetric codes with scales per row or group |
//! | [`round`], [`metrics`] | rounding to codes, relative errors |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::crossquant::{CrossLinear, LinearConfig, Mode};
//!
//! let w = [0.5f32, -0.25, 1.0, 0.125, 0.75, -0.5];
//! let x = [1.0f32, 2.0, -1.0];
//! let layer = CrossLinear::new(TensorView::from_slice([2, 3], &w)?, None, &LinearConfig::for_mode(Mode::Folded))?;
//! let y = layer.forward(TensorView::from_slice([1, 3], &x)?)?;
//! assert!((y.as_slice()[0] + 1.0).abs() < 0.02);
//! # Ok::<(), kc_core::Error>(())
//! ```

pub mod crossquant;
pub mod flexq;
pub mod formats;
pub mod group;
pub mod int;
mod interleaved;
pub mod metrics;
pub mod qtensor;
pub mod round;
mod rows;
pub mod uniform;

pub use crossquant::{CrossCodes, CrossLinear, CrossSpec};
pub use flexq::{FlexLinear, QuantMatrix, QuantSpec};
pub use group::{Group, ScaleDtype};
pub use qtensor::QTensor;
pub use uniform::{UniformGroups, Zeros};

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
