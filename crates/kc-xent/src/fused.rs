//! Loss and gradients in one call: the logits of a few tokens are kept for as long as they are needed.

use kc_core::{AlignedBuf, Result};

use crate::backward::{Pass, Seed, Seeding, Terms, XentGrads};
use crate::config::{Need, Seeds, XentConfig};
use crate::filter::Filtering;
use crate::forward::{self, XentForward, word_weight};
use crate::input::{self, Embedding, XentInput};
use crate::kernel::{CHUNK, Scalar};
use crate::panel::Panel;

/// Most bytes of kept logits.
const KEPT_BYTES: usize = 13 << 19;
/// Most tokens of a panel: its packed copies stay in the second cache.
const MOST_TOKENS: usize = 96;

/// Tokens whose logits are kept at a time, or `None` where it is cheaper to compute them twice.
///
/// Per token, in units of V D: a product costs 2 operations; C is read twice and its gradient read and written once
/// for each panel, 16 bytes in all, shared by the tokens of the panel. Keeping saves one product of four; without
/// keeping, panels have as many tokens as a filter block. A processor does about 6 operations in the time of a byte, of
/// which half overlaps.
pub(crate) fn kept_tokens<S: Scalar>(config: &XentConfig, vocabulary: usize, tokens: usize) -> Option<usize> {
    let grain = S::grain(config.isa);
    let fits = KEPT_BYTES / size_of::<S>() / vocabulary / grain * grain;
    let kept = fits.min(MOST_TOKENS).min(tokens.next_multiple_of(grain));
    let traffic = |tokens: usize| 16.0 * 3.0 / tokens as f64;
    let worth = kept > 0 && 6.0 + traffic(kept) < 8.0 + traffic(config.block.0.max(kept));
    worth.then_some(kept)
}

pub(crate) fn run<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    seeds: Seeds<'_>,
    need: Need,
) -> Result<(XentForward, XentGrads<T::Sum>)> {
    let v = input.vocabulary();
    let (tokens, shape) = input::tokens(input, config, 0, v)?;
    let Some(size) = kept_tokens::<T::Sum>(config, v, tokens.len().max(1)) else {
        let forward = forward::run(input, config)?;
        let grads = crate::backward::run(input, config, 0, v, &forward, None, seeds, need)?;
        return Ok((forward, grads));
    };
    let words = forward::words(&tokens);
    let total_weight = words.iter().map(|&word| word_weight(config, word as usize)).sum();
    let seeding = Seeding::new(config, seeds, tokens.len(), total_weight, shape[0] * shape[1])?;
    let filtering = Filtering { by_word: true, ..Filtering::new::<T>(config, seeding.by_lse()) };
    let mut sums = forward::wants_average::<T>(config).then(|| vec![0.0; v]);
    let mut stats = Vec::with_capacity(tokens.len());
    let mut grads = XentGrads::zeros(input, need)?;
    let mut panel = Panel::new(config.isa, size, input.dim(), need.c)?;
    let mut logits = AlignedBuf::zeroed(v * panel.r)?;
    let pass = Pass { input, config, start: 0, order: None, filtering, chunk: CHUNK.min(v) };
    for (group, words) in tokens.chunks(size).zip(words.chunks(size)) {
        panel.load(input, group);
        let found = forward::scan(input, config, 0, &panel, Some(&mut logits), sums.as_deref_mut())?;
        let found = &found[..group.len()];
        let lse: Vec<f64> = found.iter().map(|stats| stats.lse).collect();
        let seeds: Vec<Seed> = group.iter().zip(&lse).map(|(token, &lse)| seeding.of(token, lse)).collect();
        let terms = Terms::new(config, v, words, &lse, &seeds, panel.r);
        pass.panel(&panel, group, &terms, &mut logits, true, &mut grads)?;
        stats.extend_from_slice(found);
    }
    let forward = forward::finish(config, v, shape, &tokens, &words, &stats, sums)?;
    Ok((forward, grads))
}
