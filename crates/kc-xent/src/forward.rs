//! The forward pass: log-sum-exp, correct logit and mean logits, tile by tile.

use kc_core::{AlignedBuf, Float, Result, Tensor};
use rayon::prelude::*;

use crate::config::{Reduction, XentConfig};
use crate::input::{self, ELSEWHERE, Embedding, Token, XentInput};
use crate::kernel::{CHUNK, Scalar};
use crate::panel::{Panel, Words};

/// The loss.
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// Of all tokens: mean or sum.
    Scalar(f64),
    /// Of each token, `[B, T - shift]`, 0 at ignored places.
    PerToken(Tensor<f64, 2>),
}

/// What the forward pass finds.
#[derive(Debug, Clone, PartialEq)]
pub struct XentForward {
    /// The loss, without the z-loss.
    pub loss: Loss,
    /// The log-sum-exp of each token's logits, `[B, T - shift]`, 0 at ignored places.
    pub lse: Tensor<f64, 2>,
    /// `z_loss` times the mean (for a sum: the sum) of `lse^2` over the tokens that count.
    pub z_loss: f64,
    /// Mean logit of every word over the tokens that count; there when a filter will want it.
    pub logit_avg: Option<Vec<f32>>,
    /// Places in `[B, T - shift]` that count.
    pub valid: Vec<u32>,
    /// Their number.
    pub n_valid: usize,
    /// What a mean divides by: the number, or the sum of the class weights of the targets.
    pub total_weight: f64,
}

impl XentForward {
    /// The loss as one number; for a loss per token their sum.
    pub fn total(&self) -> f64 {
        match &self.loss {
            Loss::Scalar(loss) => *loss,
            Loss::PerToken(losses) => losses.as_slice().iter().sum(),
        }
    }
}

/// What is known of a token after the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Stats {
    pub(crate) lse: f64,
    /// The correct logit, 0 if it stands in another shard.
    pub(crate) correct: f64,
    /// `sum_j w_j z_j`, for label smoothing.
    pub(crate) weighted: f64,
}

/// Words of one task: by the size of the vocabulary alone.
pub(crate) fn span(vocabulary: usize) -> usize {
    vocabulary.div_ceil(32).next_multiple_of(CHUNK)
}

/// Tokens of a panel that keeps no logits.
pub(crate) fn forward_tokens(count: usize) -> usize {
    count.clamp(1, 96)
}

/// One pass over the vocabulary for the tokens of `panel`. Keeps the logits `[V, r]` in `kept` if given; adds the
/// sums over the tokens to `average` if given.
pub(crate) fn scan<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    start: usize,
    panel: &Panel<T::Sum>,
    kept: Option<&mut [T::Sum]>,
    average: Option<&mut [f64]>,
) -> Result<Vec<Stats>> {
    let (v, r) = (input.vocabulary(), panel.r);
    let span = span(v);
    let mut kept: Vec<Option<&mut [T::Sum]>> = match kept {
        Some(kept) => kept[..v * r].chunks_mut(span * r).map(Some).collect(),
        None => (0..v.div_ceil(span)).map(|_| None).collect(),
    };
    let mut average: Vec<Option<&mut [f64]>> = match average {
        Some(average) => average.chunks_mut(span).map(Some).collect(),
        None => kept.iter().map(|_| None).collect(),
    };
    let spans = kept.par_iter_mut().zip(average.par_iter_mut()).enumerate();
    let parts: Vec<Part<T::Sum>> = spans
        .map(|(s, (kept, average))| {
            let first = s * span;
            let words = first..v.min(first + span);
            Span { input, config, start, panel }.run(words, kept.as_deref_mut(), average)
        })
        .collect::<Result<_>>()?;
    let mut out = vec![Stats::default(); r];
    for (i, out) in out.iter_mut().enumerate() {
        let top = parts.iter().fold(f64::NEG_INFINITY, |top, part| top.max(part.max[i].to_f64()));
        let sum: f64 = parts.iter().map(|part| part.sum[i] * (part.max[i].to_f64() - top).exp()).sum();
        out.lse = top + sum.ln();
        out.correct = parts.iter().map(|part| part.correct[i]).sum();
        out.weighted = parts.iter().map(|part| part.weighted[i]).sum();
    }
    Ok(out)
}

/// What one span of words knows of each token.
struct Part<S> {
    max: Vec<S>,
    sum: Vec<f64>,
    correct: Vec<f64>,
    weighted: Vec<f64>,
}

/// A task over some words.
struct Span<'a, 'b, T: Embedding> {
    input: &'a XentInput<'b, T>,
    config: &'a XentConfig,
    start: usize,
    panel: &'a Panel<T::Sum>,
}

impl<T: Embedding> Span<'_, '_, T> {
    fn run(
        &self,
        words: std::ops::Range<usize>,
        mut kept: Option<&mut [T::Sum]>,
        average: &mut Option<&mut [f64]>,
    ) -> Result<Part<T::Sum>> {
        let (panel, r) = (self.panel, self.panel.r);
        let mut part = Part {
            // Below every logit, and finite: the difference of two infinities is NaN.
            max: vec![T::Sum::from_f32(-1e38); r],
            sum: vec![0.0; r],
            correct: vec![0.0; r],
            weighted: vec![0.0; r],
        };
        let mut scratch = AlignedBuf::zeroed(if kept.is_some() { 0 } else { CHUNK * r })?;
        for first in words.clone().step_by(CHUNK) {
            let chunk = first..words.end.min(first + CHUNK);
            let at = first - words.start;
            let z = match kept.as_deref_mut() {
                Some(kept) => &mut kept[at * r..(at + chunk.len()) * r],
                None => &mut scratch[..chunk.len() * r],
            };
            panel.logits(self.input, &Words::Range(chunk.clone()), self.config.softcap, z);
            T::Sum::absorb(panel.isa, z, &mut part.max, &mut part.sum);
            if let Some(average) = average {
                for (sum, row) in average[at..].iter_mut().zip(z.chunks(r)) {
                    *sum += T::Sum::masked_sum(panel.isa, row, &panel.mask).to_f64();
                }
            }
            for (j, i) in panel.targets_in(chunk.clone()) {
                part.correct[i] = z[j * r + i].to_f64();
            }
            if self.config.label_smoothing > 0.0 {
                for (j, row) in z.chunks(r).enumerate() {
                    let weight = word_weight(self.config, self.start + first + j);
                    for (sum, z) in part.weighted.iter_mut().zip(row) {
                        *sum += weight * z.to_f64();
                    }
                }
            }
        }
        Ok(part)
    }
}

/// The class weight of a word, 1 without weights.
pub(crate) fn word_weight(config: &XentConfig, word: usize) -> f64 {
    config.class_weights.as_ref().map_or(1.0, |weights| f64::from(weights[word]))
}

/// Passes over all tokens. Gives their statistics and the sums of the logits of every word.
pub(crate) fn all<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    start: usize,
    tokens: &[Token],
    average: bool,
) -> Result<(Vec<Stats>, Option<Vec<f64>>)> {
    let mut sums = average.then(|| vec![0.0; input.vocabulary()]);
    let mut stats = Vec::with_capacity(tokens.len());
    let size = forward_tokens(tokens.len());
    let mut panel = Panel::new(config.isa, size, input.dim(), false)?;
    for group in tokens.chunks(size) {
        panel.load(input, group);
        let found = scan(input, config, start, &panel, None, sums.as_deref_mut())?;
        stats.extend_from_slice(&found[..group.len()]);
    }
    Ok((stats, sums))
}

/// Whether a backward pass with this configuration would order the vocabulary.
pub(crate) fn wants_average<T: Embedding>(config: &XentConfig) -> bool {
    config.sort_vocab && config.threshold(T::DTYPE).is_some()
}

/// Losses from statistics.
pub(crate) fn finish(
    config: &XentConfig,
    vocabulary: usize,
    shape: [usize; 2],
    tokens: &[Token],
    words: &[u32],
    stats: &[Stats],
    sums: Option<Vec<f64>>,
) -> Result<XentForward> {
    let n = tokens.len();
    let spread = config.label_smoothing / vocabulary as f64;
    let all_weights: f64 = match &config.class_weights {
        Some(weights) => weights.iter().map(|&w| f64::from(w)).sum(),
        None => vocabulary as f64,
    };
    let mut lse = Tensor::zeros(shape)?;
    let mut losses = Tensor::zeros(shape)?;
    let (mut total, mut total_weight, mut squares) = (0.0, 0.0, 0.0);
    for ((token, stats), &word) in tokens.iter().zip(stats).zip(words) {
        let weight = word_weight(config, word as usize);
        let mut nll = (1.0 - config.label_smoothing) * weight * (stats.lse - stats.correct);
        if config.label_smoothing > 0.0 {
            nll += spread * (all_weights * stats.lse - stats.weighted);
        }
        total += nll;
        total_weight += weight;
        squares += stats.lse * stats.lse;
        lse.as_mut_slice()[token.at as usize] = stats.lse;
        losses.as_mut_slice()[token.at as usize] = nll;
    }
    let loss = match config.reduction {
        Reduction::Mean => Loss::Scalar(total / total_weight),
        Reduction::Sum => Loss::Scalar(total),
        Reduction::None => Loss::PerToken(losses),
    };
    let z_loss = config.z_loss
        * if config.reduction == Reduction::Mean && n > 0 { squares / n as f64 } else { squares };
    let logit_avg = sums.map(|sums| sums.iter().map(|sum| (sum / n.max(1) as f64) as f32).collect());
    Ok(XentForward {
        loss,
        lse,
        z_loss,
        logit_avg,
        valid: tokens.iter().map(|token| token.at).collect(),
        n_valid: n,
        total_weight,
    })
}

/// The targets of a whole vocabulary.
pub(crate) fn words(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| if token.target == ELSEWHERE { 0 } else { token.target }).collect()
}

pub(crate) fn run<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig) -> Result<XentForward> {
    let v = input.vocabulary();
    let (tokens, shape) = input::tokens(input, config, 0, v)?;
    let (stats, sums) = all(input, config, 0, &tokens, wants_average::<T>(config))?;
    finish(config, v, shape, &tokens, &words(&tokens), &stats, sums)
}
