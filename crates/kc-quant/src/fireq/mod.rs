//! INT4 weights, FP8 activations, an INT4 key/value cache, and the scalings that keep Llama-type models accurate with
//! them.
//!
//! ```text
//! weights      s = max|w| / 7 of a group, stored as FP8 (or bf16, f32)     q = clamp(rne(w / s), -8, 7)
//! activations  s = max|x| / 448 of a token                                 code = fp8(x / s)
//! product      y = sx / sigma sum_k x8 w + bias                            w = q s, or fp8(q s)
//! cache        K and V in INT4 per token, head and group of channels       bf16 scales
//! attention    P = fp8(448 exp(S - m)) / 448,  O = P V / sum exp(S - m)
//! ```
//!
//! `sigma` is a power of two that keeps the scales of small weights above `2^-9`, the smallest number of FP8.
//!
//! | Item | What it does |
//! |---|---|
//! | [`FireqWeights`], [`WeightSpec`] | codes and scales `[N, K]`, packed eight to a word; save, load, dequantise |
//! | [`quantize_activations`], [`Activations`] | FP8 (or INT8) codes of tokens |
//! | [`FireqLinear`] | `X W^T + bias` with an [`Epilogue`], [`DequantMode`] |
//! | [`scale_mlp`], [`scale_vo`], [`scale_qkv`] | exact rewrites of neighbouring layers |
//! | [`awq_search`], [`clip_weights`] | options of the published quantiser |
//! | [`rope_scales`], [`RopeScales`] | factors of keys and queries around rotary positions |
//! | [`KvCache4`] | the cache: append, truncate, reset, fork, sliding window |
//! | [`attention()`] | causal attention over the cache |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::fireq::{Epilogue, FireqLinear, FireqWeights, LinearConfig, WeightSpec};
//!
//! let w = [0.7f32, -0.3, 0.1, 0.2, 0.0, 0.5, -0.7, 0.1];
//! let weights = FireqWeights::quantize(TensorView::from_slice([2, 4], &w)?, &WeightSpec::default())?;
//! let layer = FireqLinear::new(&weights, None, &LinearConfig::default())?;
//! let x = [1.0f32, 0.5, -0.25, 2.0];
//! let y = layer.forward(TensorView::from_slice([1, 4], &x)?, Epilogue::None, None)?;
//! assert!((y.out.as_slice()[0] - 0.925).abs() < 0.1);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Exactness
//! Codes, scales and `sigma` are the same on every level and any number of threads. `q s` has at most seven
//! significant bits and is exact in f32; [`DequantMode::Fp8Product`] rounds it to FP8, as the published kernel for
//! tensor cores does, and differs by about 2 % of the weights. Sums run in f32: see [`weight_only`](crate::weight_only).
//!
//! # Cost
//! Weights take 4.06 bits with FP8 scales of groups of 128 in a file; a [`FireqLinear`] holds 4.25 bits. The cache takes
//! 4.125 bits per element with heads of 128. One token reads the weights once and is bound by memory.
//!
//! # When not to use it
//! Without FP8 units the activations' codes save nothing: they are decoded before the product. Use the weights alone
//! ([`Numbers::F32`]) for accuracy on a processor, and all of it to prepare and check models for GPUs.
//!
//! # Source
//! "FireQ: Fast INT4-FP8 Kernel and RoPE-aware Quantization for LLM Inference Acceleration" (2025). The search for `sigma`
//! by least error, interleaved pairs, attention in two passes and the correct pairing of grouped heads are additions
//! of this crate.

mod activations;
pub mod attention;
mod kv;
mod linear;
mod portable;
pub mod reference;
mod rope;
mod smooth;
mod store;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::{Activations, Numbers, quantize_activations, quantize_activations_into};
pub use attention::{
    AttentionConfig, Softmax, attention, attention_float, attention_into, attention_into_with,
};
pub use kv::{KvCache4, KvConfig, Side};
pub use linear::{DequantMode, Epilogue, FireqLinear, LinearConfig, LinearOutput, Variant};
pub use rope::{PairStyle, RopeConfig, RopeScales, Stage, rope_scales};
pub use smooth::{
    AwqChoice, Block, FactorKind, Heads, Mlp, MlpConfig, QkvConfig, RATIOS, VoConfig, awq_search,
    clip_weights, scale_mlp, scale_qkv, scale_vo,
};
pub use weights::{FireqWeights, PerTensor, ScaleType, WeightSpec};
