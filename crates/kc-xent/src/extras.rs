//! What else comes from the same tiles: the largest logits of each token, accuracy, likelihoods, perplexity.

use kc_core::{AlignedBuf, Error, Float, Result, Tensor};
use rayon::prelude::*;

use crate::config::{Reduction, XentConfig};
use crate::forward::{self, Loss};
use crate::input::{ELSEWHERE, Embedding, Token, XentInput};
use crate::kernel::CHUNK;
use crate::panel::{Panel, Words};

/// The `k` words of the largest logits of every token `[B T, k]`, largest first, the first of equals first; and
/// their logits. Targets do not matter. NaN counts as smallest.
///
/// # Errors
/// `Argument` unless `1 <= k <= V`.
pub fn top_k<T: Embedding>(
    input: &XentInput<'_, T>,
    k: usize,
    config: &XentConfig,
) -> Result<(Tensor<i64, 2>, Tensor<f32, 2>)> {
    let (v, [b, t]) = (input.vocabulary(), input.tokens());
    if k == 0 || k > v {
        return Err(Error::argument("k", format!("1 to the {v} words"), k));
    }
    let rows = b * t;
    let mut words = Tensor::zeros([rows, k])?;
    let mut logits = Tensor::zeros([rows, k])?;
    let size = forward::forward_tokens(rows);
    let groups =
        words.as_mut_slice().par_chunks_mut(size * k).zip(logits.as_mut_slice().par_chunks_mut(size * k));
    groups.enumerate().try_for_each(|(g, (words, logits))| {
        let token = |i: usize| Token { row: (g * size + i) as u32, at: 0, target: ELSEWHERE };
        let tokens: Vec<Token> = (0..words.len() / k).map(token).collect();
        let mut panel = Panel::new(config.isa, tokens.len(), input.dim(), false)?;
        panel.load(input, &tokens);
        let r = panel.r;
        let mut z = AlignedBuf::zeroed(CHUNK * r)?;
        let mut best: Vec<Vec<(f64, u32)>> = vec![Vec::with_capacity(k + 1); tokens.len()];
        for first in (0..v).step_by(CHUNK) {
            let chunk = first..v.min(first + CHUNK);
            let z = &mut z[..chunk.len() * r];
            panel.logits(input, &Words::Range(chunk.clone()), config.softcap, z);
            for (i, best) in best.iter_mut().enumerate() {
                for (j, word) in chunk.clone().enumerate() {
                    let logit = z[j * r + i].to_f64();
                    let logit = if logit.is_nan() { f64::NEG_INFINITY } else { logit };
                    if best.len() == k && best.last().is_some_and(|last| logit <= last.0) {
                        continue;
                    }
                    let at = best.partition_point(|other| other.0 >= logit);
                    best.insert(at, (logit, word as u32));
                    best.truncate(k);
                }
            }
        }
        let rows = words.chunks_mut(k).zip(logits.chunks_mut(k)).zip(&best);
        for ((words, logits), best) in rows {
            for ((word, logit), found) in words.iter_mut().zip(logits).zip(best) {
                (*word, *logit) = (i64::from(found.1), found.0 as f32);
            }
        }
        Ok(())
    })?;
    Ok((words, logits))
}

/// The share of the tokens that count whose target has the largest logit (the first of equals). NaN without tokens.
///
/// # Errors
/// Those of [`linear_cross_entropy`](crate::linear_cross_entropy).
pub fn accuracy<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig) -> Result<f64> {
    let (tokens, _) = crate::input::tokens(input, config, 0, input.vocabulary())?;
    let (best, _) = top_k(input, 1, config)?;
    let right = tokens.iter().filter(|t| best.as_slice()[t.row as usize] == i64::from(t.target)).count();
    Ok(right as f64 / tokens.len() as f64)
}

/// The negative log-likelihood of every target, `[B, T - shift]`, 0 at ignored places: what DPO and PPO compare.
/// Without label smoothing and class weights, whatever the configuration says.
///
/// # Errors
/// Those of [`linear_cross_entropy`](crate::linear_cross_entropy).
pub fn nll_of<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig) -> Result<Tensor<f64, 2>> {
    let plain = XentConfig {
        reduction: Reduction::None,
        label_smoothing: 0.0,
        class_weights: None,
        sort_vocab: false,
        ..config.clone()
    };
    let forward = forward::run(input, &plain)?;
    match forward.loss {
        Loss::PerToken(losses) => Ok(losses),
        Loss::Scalar(loss) => Tensor::from_slice([1, 1], &[loss]),
    }
}

/// `exp` of the mean negative log-likelihood, and the number of tokens that count. NaN without tokens.
///
/// # Errors
/// Those of [`linear_cross_entropy`](crate::linear_cross_entropy).
pub fn perplexity<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig) -> Result<(f64, usize)> {
    let plain = XentConfig {
        reduction: Reduction::Mean,
        label_smoothing: 0.0,
        class_weights: None,
        sort_vocab: false,
        ..config.clone()
    };
    let forward = forward::run(input, &plain)?;
    Ok((forward.total().exp(), forward.n_valid))
}

/// `weight` times the mean of the squares of the log-sum-exps at the places `valid` (their sum, for a sum): the term
/// that keeps logits small, from log-sum-exps that a forward pass gave.
pub fn z_loss(lse: &Tensor<f64, 2>, valid: &[u32], weight: f64, reduction: Reduction) -> f64 {
    let square = |&at: &u32| lse.as_slice().get(at as usize).map_or(0.0, |lse| lse * lse);
    let sum: f64 = valid.iter().map(square).sum();
    weight * if reduction == Reduction::Mean && !valid.is_empty() { sum / valid.len() as f64 } else { sum }
}
