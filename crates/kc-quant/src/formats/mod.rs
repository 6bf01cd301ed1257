//! Weight files that people bring: GPTQ, AWQ, compressed-tensors, MatMulNBits and GGUF, read and written exactly.
//!
//! Nobody quantises from scratch: published models come in a handful of packings. Each reader here checks the
//! arrays of one packing and gives the weights in two ways, neither of which quantises again:
//!
//! - `dequantize()`: the numbers that the file means, `[N, K]` in f32;
//! - `to_uniform()`: [`UniformGroups`], which every product of this crate takes.
//!
//! Each `write` takes `UniformGroups` and refuses, with [`Unsupported`](kc_core::Error::Unsupported), whatever its
//! packing cannot hold to the last bit. Making weights fit is quantising, which is a decision of the caller.
//!
//! | Type | Arrays (`N` rows, `K` columns, `G` groups, `b` bits) | `w` |
//! |---|---|---|
//! | [`GptqTensor`] | `qweight [K b/32, N]`, `qzeros [G, N b/32]`, `scales [G, N]`, `g_idx [K]`; b = 2, 3, 4, 8 | `s (q - z)`, z = stored + 1 (v1) or stored (v2) |
//! | [`AwqTensor`] | `qweight [K, N/8]`, `qzeros [G, N/8]`, `scales [G, N]`; b = 4 | `s (q - z)` |
//! | [`PackQuantized`] | `weight_packed [N, K b/32]`, `weight_scale [N, G]`, `weight_zero_point`, `weight_shape [2]`; b = 1 to 8 | `s (q - z)`, z = 2^(b-1) without zero points |
//! | [`MatMulNBits`] | `B [N, G, block b/8]`, `scales [N G]`, `zero_points [N, G b/8]`; b = 2, 4, 8 | `s (q - z)`, z = 2^(b-1) without zero points |
//! | [`GgufFile`] | blocks of 32 or 256 along a row | see [`gguf`] |
//!
//! All numbers are little-endian; all code streams run from the least significant bit ([`int`](crate::int)).
//!
//! # Cost
//! One pass over the packed bytes, in parallel over rows, and as many bytes written as the result has: codes take
//! `N K` bytes, f32 takes `4 N K`. Codes are spread eight at a time in 64-bit words, so that both are bound by
//! memory. Arrays are borrowed, never copied.
//!
//! # When not to use it
//! A packing of floats (fp8, f16, bf16) is no code with a scale: load it as a tensor. GGUF's `IQ` types, whose codes
//! index tables, are not read.
//!
//! # Sources
//! The packings are defined by programs rather than papers: GPTQModel and AutoGPTQ, AutoAWQ, compressed-tensors,
//! ONNX Runtime's `MatMulNBits` operator, and ggml.
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::formats::{ScaleView, AwqTensor, AwqViews};
//!
//! // One group of one column for eight rows: nibble i of a word belongs to row 0, 2, 4, 6, 1, 3, 5, 7.
//! let (word, zeros) = ([0x7531_6420u32 as i32], [0i32]);
//! let scales = [kc_core::f16::from_f32(0.5); 8];
//! let awq = AwqTensor::read(AwqViews {
//!     qweight: TensorView::from_slice([1, 1], &word)?,
//!     qzeros: TensorView::from_slice([1, 1], &zeros)?,
//!     scales: ScaleView::F16(TensorView::from_slice([1, 8], &scales)?),
//! })?;
//! assert_eq!(awq.dequantize()?.as_slice(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
//! # Ok::<(), kc_core::Error>(())
//! ```

pub mod awq;
pub mod gguf;
pub mod gptq;
pub mod mat_mul_n_bits;
pub mod pack_quantized;
pub mod reference;
mod scales;
mod tiles;

pub use awq::{AwqArrays, AwqTensor, AwqViews};
pub use gguf::{GgufFile, GgufTensor, GgufType};
pub use gptq::{GptqArrays, GptqConfig, GptqTensor, GptqVersion, GptqViews};
pub use mat_mul_n_bits::{MatMulNBits, MatMulNBitsArrays, MatMulNBitsViews};
pub use pack_quantized::{PackQuantized, PackQuantizedArrays, PackQuantizedViews, ZeroPoints};
pub use scales::ScaleView;

use kc_core::{Error, Result};

use crate::{UniformGroups, Zeros};

/// Weights that a packing cannot hold as they are.
fn cannot_hold(format: &'static str, why: impl std::fmt::Display) -> Error {
    Error::unsupported(format, format!("{why}; requantise the weights for it"))
}

/// The columns of `groups` columns of rows of `k`, or an error that names `scales`.
fn group_len(k: usize, groups: usize, named: Option<usize>) -> Result<usize> {
    let group = named.unwrap_or_else(|| k.div_ceil(groups.max(1)));
    if group == 0 || k.div_ceil(group) != groups {
        let expected = match named {
            Some(group) => format!("{} groups of {group} columns", k.div_ceil(group.max(1))),
            None => format!("groups of equal length in {k} columns"),
        };
        return Err(Error::shape("scales", expected, &[groups]));
    }
    Ok(group)
}

/// Whole zeros `[N, G]`, or an error for real offsets.
fn whole_zeros(weights: &UniformGroups, format: &'static str) -> Result<Vec<i32>> {
    match weights.zeros() {
        Zeros::Constant(zero) => Ok(vec![*zero; weights.scales().len()]),
        Zeros::PerGroup(zeros) => Ok(zeros.clone()),
        Zeros::Offset(_) => Err(cannot_hold(format, "its zeros are whole, those of the weights are offsets")),
    }
}

/// The smallest of `widths` that holds the codes of `weights` and zeros of `lowest` to `lowest + 2^b - 1`.
fn width_for(
    weights: &UniformGroups,
    zeros: &[i32],
    lowest: i32,
    widths: &[u8],
    format: &'static str,
) -> Result<u8> {
    let fits = |b: u8| {
        let zeros_fit = zeros.iter().all(|&z| (lowest..lowest + (1 << b)).contains(&z));
        b >= weights.bits() && zeros_fit
    };
    widths.iter().copied().find(|&b| fits(b)).ok_or_else(|| {
        let why = format!(
            "codes of {} bits with zeros of {} to {} do not fit {widths:?} bits with zeros from {lowest}",
            weights.bits(),
            zeros.iter().min().unwrap_or(&0),
            zeros.iter().max().unwrap_or(&0),
        );
        cannot_hold(format, why)
    })
}
