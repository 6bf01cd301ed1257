//! Cross-entropy of a linear head, `loss(softmax(E C^T + b), targets)`, and its gradients, without storing the logits.
//!
//! ```text
//! z_ij = cap(e_i . c_j + b_j)            cap(z) = softcap tanh(z / softcap), or z
//! lse_i = ln sum_j exp(z_ij)             nll_i = lse_i - z_(i, t_i)
//! g_ij = p_ij (u_i + l_i) - [j = t_i] u_i, times 1 - (z_ij / softcap)^2       p_ij = exp(z_ij - lse_i)
//! dE = G C        dC = G^T E        db_j = sum_i g_ij
//! ```
//!
//! `u_i` is the gradient by a token's loss, `l_i` by its log-sum-exp (from outside, and `2 z_loss lse_i`). With class
//! weights `w` and label smoothing `a`, `nll_i = (1 - a) w_t (lse_i - z_t) + a / V sum_j w_j (lse_i - z_j)`, and a mean
//! divides by the sum of the targets' weights. A shift `s` makes token `t` of a sequence predict the target at `t + s`;
//! ignored targets cost nothing. Logits exist for a tile of tokens and words at a time; the log-sum-exp is merged over tiles.
//!
//! | Room | What it holds |
//! |---|---|
//! | [`XentInput`], [`XentConfig`] | what a loss is computed of, and how; the default is the paper's setting |
//! | [`linear_cross_entropy`] | loss, log-sum-exps, mean logits: one product |
//! | [`linear_cross_entropy_backward`] | gradients from log-sum-exps: one product, and two of what is kept |
//! | [`linear_cross_entropy_with_grad`] | both: one product, and two of what is kept |
//! | `.._backward_into`, `.._with_grad_into` | the same over the gradients of an earlier call |
//! | [`shard_forward`], [`shard_merge`], [`shard_backward`], [`partition`] | a vocabulary in shards |
//! | [`top_k`], [`accuracy`], [`nll_of`], [`perplexity`], [`z_loss`] | what else the tiles give |
//! | [`VocabOrder`] | words with similar mean logits side by side |
//! | [`materialized`], [`mod@reference`] | all logits stored; the definition in plain loops |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_xent::{XentConfig, XentInput, linear_cross_entropy};
//!
//! // Two tokens, three words, logits (ln 1, ln 2, ln 1) and 0.
//! let e = [2f32.ln(), 0.0];
//! let c = [0.0f32, 1.0, 0.0];
//! let input = XentInput::new(
//!     TensorView::from_slice([2, 1], &e)?,
//!     TensorView::from_slice([3, 1], &c)?,
//!     TensorView::from_slice([2], &[1i64, 0])?,
//! )?;
//! let found = linear_cross_entropy(&input, &XentConfig::default())?;
//! assert!((found.total() - (2f64.ln() + 3f64.ln()) / 2.0).abs() < 1e-6);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Filter
//! An entry's key is `|p_ij - [j = t_i]|` (with `l`, the larger of that and `p_ij`), before any scaling. A block whose keys
//! are all below the threshold is left out: every entry lost is below `eps (|u_i| + |l_i|)`. The backward pass forms
//! blocks of [`XentConfig::block`] tokens and words, in the order of the mean logits; the one-call form tests every word
//! with the tokens of its panel. A block is tried on its largest `z - lse` first, without exponentials.
//!
//! # Cost
//! A product has `2 n D V` operations, for the `n` tokens that count. [`linear_cross_entropy_with_grad`] computes logits
//! once for as many tokens as it has memory to keep theirs. Exact gradients have the memory of `dC`, as long as nothing
//! has been added to it: up to D tokens (1024 of 1024 dimensions) cost three large products, at 81 of the 91 GFLOP/s that
//! one core of the reference machine can do. With a filter, or for few tokens, the logits of small panels are kept (48
//! tokens of 32768 words; 32 after a large panel): C is read twice for those and its gradient read and written once,
//! which leaves 65 to 75 GFLOP/s. Where that would cost more than a product, logits are computed twice. Memory beyond
//! inputs and gradients stays below 8 MiB (two threads, panels for more are a few hundred KiB each): tiles, packed
//! tokens, 16 bytes per word, 8 per target; never `n V`.
//!
//! # When not to use it
//! With a few hundred words, ordinary logits are small and the panel's overhead is not. With label smoothing every entry
//! of the gradient matters: nothing is filtered then.
//!
//! # Source
//! "Cut Your Losses in Large-Vocabulary Language Models" (2024). Class weights, label smoothing, z-loss, shards by hand
//! and the filter by single words are additions of this crate.

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
mod products;
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

/// The loss of every token or of all, with log-sum-exps and, if a filter will want them, mean logits.
///
/// Without a token that counts a mean is NaN and a sum 0. NaN and infinity in the inputs go through, unless
/// [`XentConfig::check_finite`].
///
/// # Errors
/// `Argument` for a target that is no word and not ignored (before any work), a shift that leaves nothing, options out
/// of range; `Shape` for class weights that are not one per word.
pub fn linear_cross_entropy<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
) -> Result<XentForward> {
    forward::run(input, config)
}

/// Gradients from a forward pass with the same input, in blocks of [`XentConfig::block`].
///
/// `order` is the order in which words form blocks; without it, that of the forward pass' mean logits.
///
/// # Errors
/// Those of [`linear_cross_entropy`]; `Shape` for seeds that are not one per target, a forward pass of another input or an
/// order of other words; `Argument` for seeds per token of a reduced loss.
pub fn linear_cross_entropy_backward<T: Embedding>(
    forward: &XentForward,
    input: &XentInput<'_, T>,
    order: Option<&VocabOrder>,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<XentGrads<T::Sum>> {
    let mut grads = XentGrads::zeros(input, need)?;
    backward::run(input, config, 0, input.vocabulary(), forward, order, seeds, &mut grads)?;
    Ok(grads)
}

/// [`linear_cross_entropy_backward`] into memory of an earlier call, or of [`XentGrads::zeros`]: the gradients that are
/// there are overwritten, no others are computed.
///
/// # Errors
/// Those of [`linear_cross_entropy_backward`]; `Shape` for gradients of another input, or of a bias that is not there.
pub fn linear_cross_entropy_backward_into<T: Embedding>(
    forward: &XentForward,
    input: &XentInput<'_, T>,
    order: Option<&VocabOrder>,
    seeds: Seeds<'_>,
    config: &XentConfig,
    grads: &mut XentGrads<T::Sum>,
) -> Result<()> {
    grads.check(input)?;
    grads.clear(true);
    backward::run(input, config, 0, input.vocabulary(), forward, order, seeds, grads)
}

/// Loss and gradients in one call.
///
/// Blocks are single words with the tokens of a panel, except with a filter and a vocabulary so large that logits
/// are computed twice.
///
/// # Errors
/// Those of [`linear_cross_entropy_backward`].
pub fn linear_cross_entropy_with_grad<T: Embedding>(
    input: &XentInput<'_, T>,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<(XentForward, XentGrads<T::Sum>)> {
    let mut grads = XentGrads::zeros(input, need)?;
    let forward = fused::run(input, config, seeds, false, &mut grads)?;
    Ok((forward, grads))
}

/// [`linear_cross_entropy_with_grad`] into memory of an earlier call, or of [`XentGrads::zeros`]: the gradients that are
/// there are overwritten, no others are computed. A training loop saves the system's zeroing of fresh memory.
///
/// ```
/// use kc_core::TensorView;
/// use kc_xent::{Need, Seeds, XentConfig, XentGrads, XentInput, linear_cross_entropy_with_grad_into};
///
/// let (mut c, e) = ([0.5f32, -0.5], [1.0f32]);
/// let config = XentConfig::default();
/// let mut grads = None;
/// for _ in 0..10 {
///     let targets = TensorView::from_slice([1], &[0i64])?;
///     let (e, head) = (TensorView::from_slice([1, 1], &e)?, TensorView::from_slice([2, 1], &c)?);
///     let input = XentInput::new(e, head, targets)?;
///     let grads = match &mut grads {
///         Some(grads) => grads,
///         none => none.insert(XentGrads::zeros(&input, Need::default())?),
///     };
///     linear_cross_entropy_with_grad_into(&input, Seeds::default(), &config, grads)?;
///     for (weight, g) in c.iter_mut().zip(grads.dc.iter().flat_map(|dc| dc.as_slice())) {
///         *weight -= g;
///     }
/// }
/// assert!(c[0] > 1.0 && c[1] < -1.0);
/// # Ok::<(), kc_core::Error>(())
/// ```
///
/// # Errors
/// Those of [`linear_cross_entropy_with_grad`]; `Shape` for gradients of another input, or of a bias that is not there.
pub fn linear_cross_entropy_with_grad_into<T: Embedding>(
    input: &XentInput<'_, T>,
    seeds: Seeds<'_>,
    config: &XentConfig,
    grads: &mut XentGrads<T::Sum>,
) -> Result<XentForward> {
    grads.check(input)?;
    fused::run(input, config, seeds, true, grads)
}

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
