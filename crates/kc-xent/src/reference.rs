//! The definition in plain loops with f64 sums and all logits of a token at once. Slow, and never tuned.

use kc_core::{Float, Result, Tensor};

use crate::config::{Reduction, XentConfig};
use crate::input::{Embedding, XentInput, tokens};

/// What the definition gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Loss of each place `[B, T - shift]`, 0 where ignored; reduced by [`loss`](Self::loss).
    pub losses: Tensor<f64, 2>,
    /// The reduced loss (for no reduction: the sum).
    pub loss: f64,
    /// Log-sum-exp of each place, 0 where ignored.
    pub lse: Tensor<f64, 2>,
    /// The z-loss.
    pub z_loss: f64,
    /// Mean logits.
    pub logit_avg: Vec<f64>,
    /// Gradient by E, `[B T, D]`.
    pub de: Tensor<f64, 2>,
    /// Gradient by C.
    pub dc: Tensor<f64, 2>,
    /// Gradient by the bias (of zeros, if there is none).
    pub dbias: Vec<f64>,
}

/// Loss and exact gradients for `grad_out` (one per place, or one for all) and a gradient of the log-sum-exps.
///
/// # Errors
/// Those of the fast functions.
pub fn linear_cross_entropy<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    grad_out: &[f64],
    grad_lse: &[f64],
) -> Result<Reference> {
    let (v, d) = (input.vocabulary(), input.dim());
    let (tokens, shape) = tokens(input, config, 0, v)?;
    let [b, t] = input.tokens();
    let weight = |j: usize| config.class_weights.as_ref().map_or(1.0, |w| f64::from(w[j]));
    let a = config.label_smoothing;
    let n = tokens.len() as f64;
    let total_weight: f64 = tokens.iter().map(|token| weight(token.target as usize)).sum();
    let mean = config.reduction == Reduction::Mean;
    let c = |j: usize, k: usize| input.c.at([j, k]).to_f64();
    let mut out = Reference {
        losses: Tensor::zeros(shape)?,
        loss: 0.0,
        lse: Tensor::zeros(shape)?,
        z_loss: 0.0,
        logit_avg: vec![0.0; v],
        de: Tensor::zeros([b * t, d])?,
        dc: Tensor::zeros([v, d])?,
        dbias: vec![0.0; v],
    };
    for token in &tokens {
        let (at, target) = (token.at as usize, token.target as usize);
        let mut wide = vec![T::Sum::default(); d];
        input.token_into(token.row as usize, 0, &mut wide);
        let e: Vec<f64> = wide.iter().map(|x| x.to_f64()).collect();
        let mut z = vec![0.0; v];
        for (j, z) in z.iter_mut().enumerate() {
            for (k, e) in e.iter().enumerate() {
                *z += e * c(j, k);
            }
            *z += input.bias.map_or(0.0, |bias| bias[j].to_f64());
            if let Some(cap) = config.softcap {
                *z = cap * (*z / cap).tanh();
            }
        }
        let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        let mut loss = (1.0 - a) * weight(target) * (lse - z[target]);
        for (j, z) in z.iter().enumerate() {
            if a > 0.0 {
                loss += a / v as f64 * weight(j) * (lse - z);
            }
            out.logit_avg[j] += z / n;
        }
        out.loss += if mean { loss / total_weight } else { loss };
        out.losses.as_mut_slice()[at] = loss;
        out.lse.as_mut_slice()[at] = lse;
        out.z_loss += config.z_loss * lse * lse * if mean { 1.0 / n } else { 1.0 };
        let up = if grad_out.len() == 1 { grad_out[0] } else { grad_out[at] };
        let u = if mean { up / total_weight } else { up };
        let mut by_lse = 2.0 * config.z_loss * lse * up * if mean { 1.0 / n } else { 1.0 };
        by_lse += grad_lse.get(at).copied().unwrap_or(0.0);
        for (j, z) in z.iter().enumerate() {
            let p = (z - lse).exp();
            let mut g = u * (1.0 - a) * weight(target) * (p - if j == target { 1.0 } else { 0.0 });
            for other in 0..if a > 0.0 { v } else { 0 } {
                g += u * a / v as f64 * weight(other) * (p - if j == other { 1.0 } else { 0.0 });
            }
            g += by_lse * p;
            if let Some(cap) = config.softcap {
                g *= 1.0 - (z / cap) * (z / cap);
            }
            for (k, e) in e.iter().enumerate() {
                out.de.as_mut_slice()[token.row as usize * d + k] += g * c(j, k);
                out.dc.as_mut_slice()[j * d + k] += g * e;
            }
            out.dbias[j] += g;
        }
    }
    if mean && tokens.is_empty() {
        out.loss = f64::NAN;
    }
    Ok(out)
}
