//! A vocabulary in shards: each computes with its own rows of C, and two numbers per token travel.

use std::ops::Range;

use kc_core::{Error, Result, Tensor};

use crate::backward::{self, XentGrads};
use crate::config::{Need, Seeds, XentConfig};
use crate::forward::{self, Stats, XentForward};
use crate::input::{self, Embedding, XentInput};
use crate::sort::VocabOrder;

/// The words of shard `rank` of `world`: `vocabulary / world` each, the first `vocabulary % world` one more.
///
/// # Errors
/// `Argument` unless `rank < world`.
///
/// ```
/// assert_eq!(kc_xent::partition(10, 1, 3)?, 4..7);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn partition(vocabulary: usize, rank: usize, world: usize) -> Result<Range<usize>> {
    if rank >= world {
        return Err(Error::argument("rank", format!("below {world}"), rank));
    }
    let (each, more) = (vocabulary / world, vocabulary % world);
    let start = rank * each + rank.min(more);
    Ok(start..start + each + usize::from(rank < more))
}

/// What one shard knows of every token.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardForward {
    /// First word of the shard.
    pub start: usize,
    /// Log-sum-exp over the shard's words, `[B, T - shift]`, 0 at ignored places.
    pub lse: Tensor<f64, 2>,
    /// The correct logit, 0 where the target stands in another shard.
    pub logit: Tensor<f64, 2>,
    /// `sum_j w_j z_j` over the shard's words, for label smoothing.
    pub weighted: Tensor<f64, 2>,
    /// Mean logits of the shard's words, if a filter will want them.
    pub logit_avg: Option<Vec<f32>>,
}

fn check<T: Embedding>(input: &XentInput<'_, T>, start: usize, vocabulary: usize) -> Result<()> {
    if start.checked_add(input.vocabulary()).is_some_and(|end| end <= vocabulary) {
        return Ok(());
    }
    let got = format!("{start} and {} rows of c", input.vocabulary());
    Err(Error::argument("start", format!("a shard inside of {vocabulary} words"), got))
}

/// The forward pass of a shard: `input` holds its rows of C (and its part of the bias) and the targets in the whole
/// vocabulary; class weights are those of the whole vocabulary.
///
/// # Errors
/// Those of [`linear_cross_entropy`](crate::linear_cross_entropy); `Argument` for a shard beyond the vocabulary.
pub fn shard_forward<T: Embedding>(
    input: &XentInput<'_, T>,
    start: usize,
    vocabulary: usize,
    config: &XentConfig,
) -> Result<ShardForward> {
    check(input, start, vocabulary)?;
    let (tokens, shape) = input::tokens(input, config, start, vocabulary)?;
    let (stats, sums) = forward::all(input, config, start, &tokens, forward::wants_average::<T>(config))?;
    let [mut lse, mut logit, mut weighted] =
        [Tensor::zeros(shape)?, Tensor::zeros(shape)?, Tensor::zeros(shape)?];
    for (token, stats) in tokens.iter().zip(&stats) {
        let at = token.at as usize;
        lse.as_mut_slice()[at] = stats.lse;
        logit.as_mut_slice()[at] = stats.correct;
        weighted.as_mut_slice()[at] = stats.weighted;
    }
    let n = tokens.len().max(1) as f64;
    let logit_avg = sums.map(|sums| sums.iter().map(|sum| (sum / n) as f32).collect());
    Ok(ShardForward { start, lse, logit, weighted, logit_avg })
}

/// The loss of the whole vocabulary from all of its shards. `input` is that of any shard: its targets count.
///
/// # Errors
/// `Empty` without shards, `Shape` for shards of different shapes.
pub fn shard_merge<T: Embedding>(
    shards: &[ShardForward],
    input: &XentInput<'_, T>,
    vocabulary: usize,
    config: &XentConfig,
) -> Result<XentForward> {
    // No word is local: targets are looked up in the whole vocabulary.
    let (tokens, shape) = input::tokens(input, config, 0, vocabulary)?;
    if shards.is_empty() {
        return Err(Error::empty("shards"));
    }
    if let Some(shard) = shards.iter().find(|shard| shard.lse.shape() != shape) {
        return Err(Error::shape("shards", format!("{shape:?}"), &shard.lse.shape()));
    }
    let merged = |at: usize| {
        let parts = || shards.iter().map(move |shard| shard.lse.as_slice()[at]);
        let top = parts().fold(f64::NEG_INFINITY, f64::max);
        Stats {
            lse: top + parts().map(|lse| (lse - top).exp()).sum::<f64>().ln(),
            correct: shards.iter().map(|shard| shard.logit.as_slice()[at]).sum(),
            weighted: shards.iter().map(|shard| shard.weighted.as_slice()[at]).sum(),
        }
    };
    let stats: Vec<Stats> = tokens.iter().map(|token| merged(token.at as usize)).collect();
    let words: Vec<u32> = tokens.iter().map(|token| backward::whole_word(input, config, token)).collect();
    forward::finish(config, vocabulary, shape, &tokens, &words, &stats, None)
}

/// The gradients of a shard, from the merged forward pass: `dC` and the bias' gradient are the shard's own, `dE` is
/// its part of a sum over all shards.
///
/// # Errors
/// Those of [`linear_cross_entropy_backward`](crate::linear_cross_entropy_backward).
pub fn shard_backward<T: Embedding>(
    merged: &XentForward,
    shard: &ShardForward,
    input: &XentInput<'_, T>,
    vocabulary: usize,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<XentGrads<T::Sum>> {
    check(input, shard.start, vocabulary)?;
    let order = shard.logit_avg.as_deref().map(VocabOrder::by_logits);
    let mut grads = XentGrads::zeros(input, need)?;
    backward::run(input, config, shard.start, vocabulary, merged, order.as_ref(), seeds, &mut grads)?;
    Ok(grads)
}
