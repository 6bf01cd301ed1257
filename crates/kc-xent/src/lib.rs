//! Cross-entropy of a linear head, `loss(softmax(E C^T + b), targets)`, and its gradients, without storing the logits.

#![deny(unsafe_code)]

mod backward;
mod baseline;
mod config;
mod extras;
mod filter;
mod forward;
mod fused;
mod input;
mod kernel;
mod panel;
mod portable;
pub mod reference;
mod shard;
mod sort;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use backward::XentGrads;
pub use baseline::materialized;
pub use config::{Filter, Need, Preset, Reduction, Seeds, Upstream, XentConfig};
pub use extras::{accuracy, nll_of, perplexity, top_k, z_loss};
pub use forward::{Loss, XentForward};
pub use input::{Embedding, Target, XentInput};
pub use kernel::Scalar;
pub use shard::{ShardForward, partition, shard_backward, shard_forward, shard_merge};
pub use sort::VocabOrder;

use kc_core::Result;

/// The loss.
pub fn linear_cross_entropy<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
) -> Result<XentForward> {
    forward::run(input, config)
}

/// The gradients.
pub fn linear_cross_entropy_backward<T: Embedding>(
    forward: &XentForward,
    input: &XentInput<'_, T>,
    order: Option<&VocabOrder>,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<XentGrads<T::Sum>> {
    backward::run(input, config, 0, input.vocabulary(), forward, order, seeds, need)
}

/// Loss and gradients.
pub fn linear_cross_entropy_with_grad<T: Embedding>(
    input: &XentInput<'_, T>,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<(XentForward, XentGrads<T::Sum>)> {
    fused::run(input, config, seeds, need)
}

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
