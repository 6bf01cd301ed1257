//! Attention on the CPU: exact, in 4 and 8 bits, sparse by estimate, and without softmax.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`exact`] | softmax attention, tile by tile, with its gradients |
//! | [`sage`] | attention in 4 and 8 bits |
//! | [`compare`](mod@compare) | how far one result is from another |
//! | [`soft`] | a Gaussian kernel through landmarks instead of softmax, linear in the tokens |
//! | [`sea`] | sparse attention on a mask that a small network estimates, linear in the tokens |
//!
//! All take queries `[B, Hq, Nq, D]` with keys and values `[B, Hkv, Nk, D]` ([`Layout::Hnd`]; or tokens before heads),
//! with `Hq` a multiple of `Hkv`: query head `h` reads key head `h / (Hq / Hkv)`.

#![deny(unsafe_code)]

pub mod compare;
pub mod exact;
mod layout;
mod mask;
pub mod sage;
pub mod sea;
pub mod soft;

pub use compare::{Metrics, compare};
pub use exact::{
    Attention, AttentionConfig, AttentionGrads, PackedAttention, attention, attention_backward,
    attention_backward_into, attention_into, attention_varlen, attention_varlen_backward,
};
pub use layout::{Dims, Layout};
pub use mask::{Mask, Select};
pub use sea::{SeaConfig, SeaLayer, SeaParams};

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
