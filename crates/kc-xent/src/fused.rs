//! Loss and gradients in one call: logits are kept for as long as they are needed.

use kc_core::{AlignedBuf, Result};

use crate::backward::{Pass, Seed, Seeding, Terms, XentGrads};
use crate::config::{Seeds, XentConfig};
use crate::filter::Filtering;
use crate::forward::{self, Stats, XentForward, word_weight};
use crate::input::{self, Embedding, Token, XentInput};
use crate::kernel::{CHUNK, Scalar};
use crate::panel::Panel;
use crate::products;

/// Most bytes of a small panel: kept logits, two packed copies of its tokens, their gradients.
const SMALL: usize = 7 << 20;
/// The same after a large panel, whose memory a process may still hold: what is kept then fits into it.
const SMALL_AFTER_LARGE: usize = 9 << 19;
/// Most tokens of a small panel: its packed copies stay in the second cache.
const MOST_TOKENS: usize = 96;

/// The share of a trained model's words that passes a filter, roughly.
const USUAL_SHARE: f64 = 0.3;
/// Operations in the time of a byte from memory, for processors of a few cores.
const BALANCE: f64 = 2.5;

/// Tokens of a small panel whose logits are kept, or `None` where it is cheaper to compute them twice.
///
/// Per token, in units of V D: a product costs 2 operations, the last two only for what passes the filter. Kept logits
/// save one product, but their panels are small, and for each panel C is read (4 bytes) for the logits and again for
/// `dE`, while `dC` is read and written. Without them panels have `others` tokens.
fn kept_tokens<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    tokens: usize,
    bytes: usize,
    others: usize,
) -> Option<usize> {
    let grain = T::Sum::grain(config.isa);
    let each = input.vocabulary() + 3 * input.dim();
    let fits = bytes / size_of::<T::Sum>() / each / grain * grain;
    let kept = fits.min(MOST_TOKENS).min(tokens.next_multiple_of(grain));
    let share = if config.threshold(T::DTYPE).is_some() { USUAL_SHARE } else { 1.0 };
    let cost = |products: f64, tokens: usize| {
        2.0 * products + 4.0 * share + BALANCE * (4.0 * products + 12.0 * share) / tokens as f64
    };
    let others = others.clamp(1, tokens.max(1));
    (kept > 0 && (kept >= tokens || cost(1.0, kept) < cost(2.0, others))).then_some(kept)
}

/// What all panels of a call share.
struct Call<'a, 'b, T: Embedding> {
    pass: Pass<'a, 'b, T>,
    seeding: Seeding<'a>,
    /// The targets of the tokens.
    words: &'a [u32],
    stats: Vec<Stats>,
    /// Sums of the logits of every word.
    sums: Option<Vec<f64>>,
    grads: &'a mut XentGrads<T::Sum>,
}

impl<T: Embedding> Call<'_, '_, T> {
    /// The statistics of a panel became known.
    fn terms(&mut self, tokens: &[Token], found: &[Stats], r: usize) -> Terms<T::Sum> {
        let found = &found[..tokens.len()];
        let lse: Vec<f64> = found.iter().map(|stats| stats.lse).collect();
        let seeds: Vec<Seed> =
            tokens.iter().zip(&lse).map(|(token, &lse)| self.seeding.of(token, lse)).collect();
        let words = &self.words[self.stats.len()..][..tokens.len()];
        self.stats.extend_from_slice(found);
        Terms::new(self.pass.config, self.pass.input.vocabulary(), words, &lse, &seeds, r)
    }

    /// Panels whose logits are kept in memory of their own.
    fn small(&mut self, tokens: &[Token], size: usize) -> Result<()> {
        let (input, config) = (self.pass.input, self.pass.config);
        let mut panel = Panel::new(config.isa, size, input.dim(), self.grads.dc.is_some())?;
        let mut logits = AlignedBuf::zeroed(input.vocabulary() * panel.r)?;
        for tokens in tokens.chunks(size) {
            panel.load(input, tokens);
            let found = forward::scan(input, config, 0, &panel, Some(&mut logits), self.sums.as_deref_mut())?;
            let terms = self.terms(tokens, &found, panel.r);
            self.pass.panel(&panel, tokens, &terms, &mut logits, true, self.grads)?;
        }
        Ok(())
    }

    /// Panels of large products; the logits of the first one are kept in `dC` if `stored`. Rows of `dE` stand at
    /// the places of the tokens in the list.
    fn large(&mut self, tokens: &[Token], size: usize, stored: bool) -> Result<()> {
        let (input, config) = (self.pass.input, self.pass.config);
        for tokens in tokens.chunks(size) {
            let mut panel = Panel::new(config.isa, tokens.len(), input.dim(), false)?;
            panel.load(input, tokens);
            let logits = self.grads.dc.as_mut().filter(|_| stored).map(|dc| dc.as_mut_slice());
            let found = forward::scan(input, config, 0, &panel, logits, self.sums.as_deref_mut())?;
            if stored {
                panel = panel.without_logits()?;
            }
            let row = self.stats.len();
            let terms = self.terms(tokens, &found, panel.r);
            products::gradients(&self.pass, &panel, tokens, row, &terms, stored, self.grads)?;
        }
        Ok(())
    }
}

/// Loss and gradients, into zeros or, with `used`, over what an earlier call left.
pub(crate) fn run<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    seeds: Seeds<'_>,
    used: bool,
    grads: &mut XentGrads<T::Sum>,
) -> Result<XentForward> {
    let v = input.vocabulary();
    let (tokens, shape) = input::tokens(input, config, 0, v)?;
    let words = forward::words(&tokens);
    let total_weight = words.iter().map(|&word| word_weight(config, word as usize)).sum();
    let seeding = Seeding::new(config, seeds, tokens.len(), total_weight, shape[0] * shape[1])?;
    let exact = config.threshold(T::DTYPE).is_none();
    let grain = T::Sum::grain(config.isa);
    let others = if exact { products::most_tokens(input, grain, false) } else { config.block.0 };
    let mut kept = kept_tokens(input, config, tokens.len().max(1), SMALL, others);
    // As many as fit into dC, if those are more than fit elsewhere.
    let size = if exact && grads.dc.is_some() { products::most_tokens(input, grain, true) } else { 0 };
    let fit = size.min(tokens.len());
    let stored = if fit > kept.unwrap_or(0) { fit } else { 0 };
    if stored > 0 {
        kept = kept_tokens(input, config, tokens.len() - stored, SMALL_AFTER_LARGE, others);
    }
    if used {
        grads.clear(stored == 0);
    }
    if kept.is_none() && !exact {
        let forward = forward::run(input, config)?;
        crate::backward::run(input, config, 0, v, &forward, None, seeds, grads)?;
        return Ok(forward);
    }
    let filtering = Filtering { by_word: true, ..Filtering::new::<T>(config, seeding.by_lse()) };
    let mut call = Call {
        pass: Pass { input, config, start: 0, order: None, filtering, chunk: CHUNK.min(v) },
        seeding,
        words: &words,
        stats: Vec::with_capacity(tokens.len()),
        sums: forward::wants_average::<T>(config).then(|| vec![0.0; v]),
        grads,
    };
    let (first, rest) = tokens.split_at(stored);
    call.large(first, size.max(1), true)?;
    let mut in_order = first.len();
    match kept {
        Some(size) => call.small(rest, size)?,
        None => {
            call.large(rest, others, false)?;
            in_order = tokens.len();
        }
    }
    if let Some(de) = &mut call.grads.de {
        products::spread_rows(de.as_mut_slice(), input.dim(), &tokens[..in_order]);
    }
    forward::finish(config, v, shape, &tokens, &words, &call.stats, call.sums)
}
