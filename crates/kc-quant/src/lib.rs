//! Quantised matrix products: low-bit weights and activations on the CPU.
//!
//! For people who run trained networks and want their linear layers in small integers, or want to know what
//! that would cost. Inputs are borrowed views, results are owned; nothing here opens a file.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`flexq`] | weights of 6 bits (or 1 to 8), activations of 6 or 8, exact integer products; sensitive layers |
//! | [`lut_gemm`] | weights of 1 to 8 bits as sums of signs, products by table look-up |
//! | [`fireq`] | INT4 weights, FP8 activations, INT4 key/value cache, scalings around rotary positions |
//! | [`crossquant`] | activations whose step blends token and channel maxima, and the quantisation-kernel report |
//! | [`formats`] | GPTQ, AWQ, compressed-tensors, MatMulNBits and GGUF files, read and written exactly |
//! | [`linear`], [`stored`] | [`QuantLinear`]: a layer of any of them, in memory; [`stored::StoredLayer`]: in a file |
//! | [`uniform`] | [`UniformGroups`]: codes, scales and zeros, in which formats and products meet |
//! | [`weight_only`] | [`WeightOnly`]: f32 activations times packed codes |
//! | [`qtensor`] | [`QTensor`]: symmetric codes with scales per row or group |
//! | [`fp8`], [`int`], [`round`], [`group`], [`metrics`] | E4M3, streams of codes, rounding, groups, errors |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::linear::{Activations, QuantLinear};
//! use kc_quant::{QuantMatrix, QuantSpec};
//!
//! let w = [0.5f32, -0.25, 1.0, 0.125, 0.75, -0.5];
//! let q = QuantMatrix::quantize(TensorView::from_slice([2, 3], &w)?, &QuantSpec::default())?;
//! let layer = QuantLinear::from_uniform(q.uniform(), None, Activations::Bits(8))?;
//! let x = [1.0f32, 2.0, -1.0];
//! let y = layer.forward(TensorView::from_slice([1, 3], &x)?)?;
//! assert!((y.as_slice()[0] + 1.0).abs() < 0.05);
//! # Ok::<(), kc_core::Error>(())
//! ```

mod bias;
pub mod crossquant;
mod dense;
pub mod fireq;
pub mod flexq;
pub mod formats;
pub mod fp8;
pub mod group;
pub mod int;
mod interleaved;
pub mod linear;
pub mod lut_gemm;
pub mod metrics;
pub mod qtensor;
pub mod round;
mod rows;
pub mod stored;
pub mod uniform;
pub mod weight_only;

pub use crossquant::{CrossCodes, CrossLinear, CrossSpec};
pub use fireq::{FireqLinear, FireqWeights};
pub use flexq::{FlexLinear, QuantMatrix, QuantSpec};
pub use group::{Group, ScaleDtype};
pub use linear::QuantLinear;
pub use lut_gemm::{BcqMatrix, BcqSpec, LutLinear, LutMode};
pub use qtensor::QTensor;
pub use uniform::{UniformGroups, Zeros};
pub use weight_only::WeightOnly;

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
