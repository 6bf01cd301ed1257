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

/// The share of a trained model's words that passes a filter, roughly.
const USUAL_SHARE: f64 = 0.3;
/// Operations in the time of a byte from memory, for processors of a few cores.
const BALANCE: f64 = 6.0;

/// Tokens whose logits are kept at a time, or `None` where it is cheaper to compute them twice.
///
/// Per token, in units of V D: a product costs 2 operations, the last two only for what passes the filter. Kept logits
/// save one product, but their panels are small, and for each panel C is read (4 bytes) for the logits and again for
/// `dE`, while `dC` is read and written. Without them panels have the tokens of a filter block.
pub(crate) fn kept_tokens<T: Embedding>(
    config: &XentConfig,
    vocabulary: usize,
    tokens: usize,
) -> Option<usize> {
    let grain = T::Sum::grain(config.isa);
    let fits = KEPT_BYTES / size_of::<T::Sum>() / vocabulary / grain * grain;
    let kept = fits.min(MOST_TOKENS).min(tokens.next_multiple_of(grain));
    let share = if config.threshold(T::DTYPE).is_some() { USUAL_SHARE } else { 1.0 };
    let cost = |products: f64, tokens: usize| {
        2.0 * products + 4.0 * share + BALANCE * (4.0 * products + 12.0 * share) / tokens as f64
    };
    let others = config.block.0.clamp(1, tokens.max(1));
    (kept > 0 && (kept >= tokens || cost(1.0, kept) < cost(2.0, others))).then_some(kept)
}

pub(crate) fn run<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    seeds: Seeds<'_>,
    need: Need,
) -> Result<(XentForward, XentGrads<T::Sum>)> {
    let v = input.vocabulary();
    let (tokens, shape) = input::tokens(input, config, 0, v)?;
    let Some(size) = kept_tokens::<T>(config, v, tokens.len().max(1)) else {
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
