//! The ordinary way, for comparison: all logits stored, three products by kc-gemm, softmax over the matrix.

use kc_core::math::Real as _;
use kc_core::{Float, Result, Tensor, math};
use kc_gemm::gemm_into_with;

use crate::backward::{Seed, Seeding, Terms, XentGrads};
use crate::config::{Need, Seeds, XentConfig};
use crate::forward::{self, Stats, XentForward, word_weight};
use crate::input::{self, Embedding, XentInput};

/// Loss and exact gradients with all `n V` logits in memory.
///
/// # Errors
/// Those of [`linear_cross_entropy_with_grad`](crate::linear_cross_entropy_with_grad); `TooLarge` if the logits do not
/// fit.
pub fn materialized<T: Embedding>(
    input: &XentInput<'_, T>,
    seeds: Seeds<'_>,
    need: Need,
    config: &XentConfig,
) -> Result<(XentForward, XentGrads<T::Sum>)> {
    let (v, d) = (input.vocabulary(), input.dim());
    let (tokens, shape) = input::tokens(input, config, 0, v)?;
    let words = forward::words(&tokens);
    let n = tokens.len();
    let (one, zero) = (T::Sum::from_f32(1.0), T::Sum::ZERO);
    let mut e = Tensor::<T::Sum, 2>::zeros([n, d])?;
    for (row, token) in e.as_mut_slice().chunks_mut(d).zip(&tokens) {
        input.token_into(token.row as usize, 0, row);
    }
    let mut c = Tensor::<T::Sum, 2>::zeros([v, d])?;
    for (j, row) in c.as_mut_slice().chunks_mut(d).enumerate() {
        input::row_into(input.c.row(j), 0, row);
    }
    let mut logits = Tensor::<T::Sum, 2>::zeros([n, v])?;
    gemm_into_with(config.isa, one, e.view(), c.view().transposed(), zero, logits.view_mut())?;
    let mut sums = forward::wants_average::<T>(config).then(|| vec![0.0; v]);
    let mut stats = Vec::with_capacity(n);
    for (row, token) in logits.as_mut_slice().chunks_mut(v).zip(&tokens) {
        for (j, z) in row.iter_mut().enumerate() {
            *z += input.bias.map_or(zero, |bias| bias[j]);
            if let Some(cap) = config.softcap {
                *z = T::Sum::from_f64(cap * (z.to_f64() / cap).tanh());
            }
            if let Some(sums) = &mut sums {
                sums[j] += z.to_f64();
            }
        }
        let lse = math::log_sum_exp_with(config.isa, row).to_f64();
        let weighted = row.iter().enumerate().map(|(j, z)| word_weight(config, j) * z.to_f64());
        let weighted = if config.label_smoothing > 0.0 { weighted.sum() } else { 0.0 };
        stats.push(Stats { lse, correct: row[token.target as usize].to_f64(), weighted });
    }
    let total_weight = words.iter().map(|&word| word_weight(config, word as usize)).sum();
    let seeding = Seeding::new(config, seeds, n, total_weight, shape[0] * shape[1])?;
    let mut grads = XentGrads::zeros(input, need)?;
    (grads.blocks_kept, grads.blocks_total) = (1, 1);
    for ((row, token), (stats, &word)) in
        logits.as_mut_slice().chunks_mut(v).zip(&tokens).zip(stats.iter().zip(&words))
    {
        let seed: Seed = seeding.of(token, stats.lse);
        let terms = Terms::<T::Sum>::new(config, v, &[word], &[stats.lse], &[seed], 1);
        for (j, z) in row.iter_mut().enumerate() {
            let tanh = config.softcap.map_or(0.0, |cap| z.to_f64() / cap);
            let g = terms.entry(*z, j == word as usize, word_weight(config, j));
            *z = g * T::Sum::from_f64(1.0 - tanh * tanh);
            if let Some(dbias) = &mut grads.dbias {
                let dbias = &mut dbias.as_mut_slice()[j];
                *dbias += *z;
            }
        }
    }
    if let Some(de) = &mut grads.de {
        let mut rows = Tensor::<T::Sum, 2>::zeros([n, d])?;
        gemm_into_with(config.isa, one, logits.view(), c.view(), zero, rows.view_mut())?;
        for (row, token) in rows.as_slice().chunks(d).zip(&tokens) {
            de.as_mut_slice()[token.row as usize * d..][..d].copy_from_slice(row);
        }
    }
    if let Some(dc) = &mut grads.dc {
        gemm_into_with(config.isa, one, logits.view().transposed(), e.view(), zero, dc.view_mut())?;
    }
    Ok((forward::finish(config, v, shape, &tokens, &words, &stats, sums)?, grads))
}
