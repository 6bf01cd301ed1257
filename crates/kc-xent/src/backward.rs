//! The backward pass over a panel of tokens, and the pass that starts from a log-sum-exp.
//!
//! For each group of words: logits (again, unless they were kept), the test of the filter, gradients in place, `dC`
//! of the words at hand; then `dE` of the whole group. Threads own words in the first part and columns of `dE` in the
//! second, and every sum runs in the order of the words: nothing depends on how many threads there are.

use std::ops::Range;

use kc_core::{AlignedBuf, Element, Error, Float, Result, Tensor};
use rayon::prelude::*;

use crate::config::{Need, Reduction, Seeds, Upstream, XentConfig};
use crate::filter::{Filtering, Kept};
use crate::forward::{XentForward, word_weight};
use crate::input::{self, ELSEWHERE, Embedding, Token, XentInput};
use crate::kernel::{RowTerms, Scalar};
use crate::panel::{Panel, Words, pack_strip};
use crate::sort::{VocabOrder, unpermute_rows};

/// Logits of one group of words in a pass that does not keep them, in bytes.
const GROUP_BYTES: usize = 2 << 20;

/// Columns of a chunk of C that a task takes from one group of words to the next: half of a small second cache.
const STRIP_BYTES: usize = 256 << 10;

/// Gradients, in the type of the sums (f32, or f64 for inputs in f64).
#[derive(Debug, Clone, PartialEq)]
pub struct XentGrads<S: Element> {
    /// By the embeddings, `[B T, D]`; 0 at tokens that do not count.
    pub de: Option<Tensor<S, 2>>,
    /// By the classifier, `[V, D]`.
    pub dc: Option<Tensor<S, 2>>,
    /// By the bias, `[V]`.
    pub dbias: Option<Tensor<S, 1>>,
    /// Blocks of (tokens, words) that were computed.
    pub blocks_kept: usize,
    /// Blocks in all.
    pub blocks_total: usize,
}

impl<S: Float> XentGrads<S> {
    /// The same in another type (that of the inputs, for instance), rounded to nearest even.
    ///
    /// # Errors
    /// `TooLarge` if there is no memory.
    pub fn cast<T: Float>(&self) -> Result<XentGrads<T>> {
        fn cast<S: Float, T: Float, const N: usize>(
            from: &Option<Tensor<S, N>>,
        ) -> Result<Option<Tensor<T, N>>> {
            let Some(from) = from else { return Ok(None) };
            let mut to = Tensor::zeros(from.shape())?;
            for (to, x) in to.as_mut_slice().iter_mut().zip(from.as_slice()) {
                *to = T::from_f64(x.to_f64());
            }
            Ok(Some(to))
        }
        Ok(XentGrads {
            de: cast(&self.de)?,
            dc: cast(&self.dc)?,
            dbias: cast(&self.dbias)?,
            blocks_kept: self.blocks_kept,
            blocks_total: self.blocks_total,
        })
    }

    /// Zeros for the gradients that are wanted, of the shapes for `input`: what an `_into` call writes to. A bias that
    /// `input` does not have gets none.
    ///
    /// # Errors
    /// `TooLarge` if there is no memory.
    pub fn zeros<T: Embedding<Sum = S>>(input: &XentInput<'_, T>, need: Need) -> Result<Self> {
        let ([b, t], v, d) = (input.tokens(), input.vocabulary(), input.dim());
        Ok(Self {
            de: if need.e { Some(Tensor::zeros([b * t, d])?) } else { None },
            dc: if need.c { Some(Tensor::zeros([v, d])?) } else { None },
            dbias: if need.bias && input.bias.is_some() { Some(Tensor::zeros([v])?) } else { None },
            blocks_kept: 0,
            blocks_total: 0,
        })
    }

    /// Refuses gradients of other shapes than those for `input`.
    pub(crate) fn check<T: Embedding<Sum = S>>(&self, input: &XentInput<'_, T>) -> Result<()> {
        fn same<S: Float, const N: usize>(
            arg: &'static str,
            gradient: &Option<Tensor<S, N>>,
            shape: [usize; N],
        ) -> Result<()> {
            match gradient {
                Some(gradient) if gradient.shape() != shape => {
                    Err(Error::shape(arg, format!("{shape:?}"), &gradient.shape()))
                }
                _ => Ok(()),
            }
        }
        let ([b, t], v, d) = (input.tokens(), input.vocabulary(), input.dim());
        same("grads.de", &self.de, [b * t, d])?;
        same("grads.dc", &self.dc, [v, d])?;
        same("grads.dbias", &self.dbias, [if input.bias.is_some() { v } else { 0 }])
    }

    /// Forgets what an earlier call left, in `dC` only if that will be added to.
    pub(crate) fn clear(&mut self, c: bool) {
        let whole = [self.de.as_mut(), self.dc.as_mut().filter(|_| c)];
        whole.into_iter().flatten().for_each(|gradient| gradient.as_mut_slice().fill(S::default()));
        if let Some(dbias) = &mut self.dbias {
            dbias.as_mut_slice().fill(S::default());
        }
        (self.blocks_kept, self.blocks_total) = (0, 0);
    }
}

/// The gradients by a token's loss and by its log-sum-exp.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seed {
    pub(crate) loss: f64,
    pub(crate) lse: f64,
}

/// Turns what the caller gives into seeds of tokens.
#[derive(Debug)]
pub(crate) struct Seeding<'a> {
    seeds: Seeds<'a>,
    /// Factor of the loss of a token.
    share: f64,
    /// `2 z_loss` times the factor of a token's square.
    squares: f64,
}

impl<'a> Seeding<'a> {
    /// `n` tokens of that total weight, results of `places` places.
    pub(crate) fn new(
        config: &XentConfig,
        seeds: Seeds<'a>,
        n: usize,
        total_weight: f64,
        places: usize,
    ) -> Result<Self> {
        let lengths = [
            ("grad_out", if let Upstream::PerToken(g) = seeds.loss { Some(g.len()) } else { None }),
            ("grad_lse", seeds.lse.map(<[f32]>::len)),
        ];
        for (name, length) in lengths {
            if let Some(got) = length.filter(|&got| got != places) {
                return Err(Error::shape(name, format!("{places} values, one per target"), &[got]));
            }
        }
        if matches!(seeds.loss, Upstream::PerToken(_)) && config.reduction != Reduction::None {
            return Err(Error::argument(
                "grad_out",
                "one number for a loss that is one number",
                "one per token",
            ));
        }
        let mean = config.reduction == Reduction::Mean;
        let share = if mean { 1.0 / total_weight } else { 1.0 };
        let squares = 2.0 * config.z_loss * if mean { 1.0 / n.max(1) as f64 } else { 1.0 };
        Ok(Self { seeds, share, squares })
    }

    /// Whether log-sum-exps have gradients of their own.
    pub(crate) fn by_lse(&self) -> bool {
        self.seeds.lse.is_some() || self.squares != 0.0
    }

    pub(crate) fn of(&self, token: &Token, lse: f64) -> Seed {
        let at = token.at as usize;
        let up = match self.seeds.loss {
            Upstream::Scalar(up) => up,
            Upstream::PerToken(up) => f64::from(up[at]),
        };
        let own = self.seeds.lse.map_or(0.0, |g| f64::from(g[at]));
        Seed { loss: up * self.share, lse: own + up * self.squares * lse }
    }
}

/// Per token of a panel: what the gradient is made of.
pub(crate) struct Terms<S> {
    pub(crate) hi: Vec<S>,
    pub(crate) lo: Vec<S>,
    scale: Vec<S>,
    target: Vec<S>,
    spread: Option<Vec<S>>,
}

impl<S: Scalar> Terms<S> {
    /// For `tokens` with these log-sum-exps, padded to `r`. `words` are the targets in the whole vocabulary.
    pub(crate) fn new(
        config: &XentConfig,
        vocabulary: usize,
        words: &[u32],
        lse: &[f64],
        seeds: &[Seed],
        r: usize,
    ) -> Self {
        // The probability of padding is 0.
        let (mut hi, mut lo) = (vec![S::from_f32(3e38); r], vec![S::ZERO; r]);
        let (mut scale, mut target) = (vec![S::ZERO; r], vec![S::ZERO; r]);
        let mut spread = (config.label_smoothing > 0.0).then(|| vec![S::ZERO; r]);
        let all: f64 = match &config.class_weights {
            Some(weights) => weights.iter().map(|&w| f64::from(w)).sum(),
            None => vocabulary as f64,
        };
        let share = config.label_smoothing / vocabulary as f64;
        for (i, ((&lse, seed), &word)) in lse.iter().zip(seeds).zip(words).enumerate() {
            hi[i] = S::from_f64(lse);
            lo[i] = S::from_f64(lse - hi[i].to_f64());
            let own = (1.0 - config.label_smoothing) * word_weight(config, word as usize);
            scale[i] = S::from_f64(seed.loss * (own + share * all) + seed.lse);
            target[i] = S::from_f64(seed.loss * own);
            if let Some(spread) = &mut spread {
                spread[i] = S::from_f64(seed.loss * share);
            }
        }
        Self { hi, lo, scale, target, spread }
    }

    /// The gradient of one logit of the first token, before the softcap.
    pub(crate) fn entry(&self, z: S, is_target: bool, weight: f64) -> S {
        let p = S::from_f64(((z - self.hi[0]) - self.lo[0]).to_f64().exp());
        let target = if is_target { self.target[0] } else { S::ZERO };
        let spread = self.spread.as_ref().map_or(S::ZERO, |spread| S::from_f64(weight) * spread[0]);
        p * self.scale[0] - target - spread
    }

    /// For a word of weight `weight`.
    pub(crate) fn row(&self, weight: f64, cap: Option<f64>) -> RowTerms<'_, S> {
        RowTerms {
            hi: &self.hi,
            lo: &self.lo,
            scale: &self.scale,
            spread: self.spread.as_ref().map(|spread| (spread.as_slice(), S::from_f64(weight))),
            inverse_cap: cap.map(|cap| S::from_f64(1.0 / cap)),
        }
    }
}

/// The backward pass of one panel after the other into shared gradients.
pub(crate) struct Pass<'a, 'b, T: Embedding> {
    pub(crate) input: &'a XentInput<'b, T>,
    pub(crate) config: &'a XentConfig,
    /// First word of this shard.
    pub(crate) start: usize,
    pub(crate) order: Option<&'a [u32]>,
    pub(crate) filtering: Filtering,
    /// Words of a chunk: of a filter block.
    pub(crate) chunk: usize,
}

/// What one task of words works on.
struct Task<'a, S> {
    words: Range<usize>,
    z: &'a mut [S],
    dc: Option<&'a mut [S]>,
    dbias: Option<&'a mut [S]>,
    kept: &'a mut Kept,
}

/// A chunk of every task, or nothing for each.
pub(crate) fn pieces<S>(whole: Option<&mut [S]>, size: usize, count: usize) -> Vec<Option<&mut [S]>> {
    match whole {
        Some(whole) => whole.chunks_mut(size).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

impl<T: Embedding> Pass<'_, '_, T> {
    /// Adds the gradients of a panel. `logits`: those of the whole vocabulary if they were kept (and are overwritten),
    /// else memory for a group of words.
    pub(crate) fn panel(
        &self,
        panel: &Panel<T::Sum>,
        tokens: &[Token],
        terms: &Terms<T::Sum>,
        logits: &mut [T::Sum],
        stored: bool,
        grads: &mut XentGrads<T::Sum>,
    ) -> Result<()> {
        let (v, d, r, chunk) = (self.input.vocabulary(), self.input.dim(), panel.r, self.chunk);
        let group = if stored { v } else { group_words(logits.len(), r, chunk) };
        let strip = panel.width * r;
        let mut de =
            AlignedBuf::zeroed(if grads.de.is_some() { d.div_ceil(panel.width) * strip } else { 0 })?;
        for first in (0..v).step_by(group) {
            let words = first..v.min(first + group);
            let count = words.len().div_ceil(chunk);
            let mut kept = vec![Kept::default(); count];
            let dc = grads.dc.as_mut().map(|dc| &mut dc.as_mut_slice()[first * d..words.end * d]);
            let dbias = grads.dbias.as_mut().map(|b| &mut b.as_mut_slice()[words.clone()]);
            let tasks = logits[..words.len() * r]
                .chunks_mut(chunk * r)
                .zip(pieces(dc, chunk * d, count))
                .zip(pieces(dbias, chunk, count))
                .zip(&mut kept)
                .enumerate()
                .map(|(i, (((z, dc), dbias), kept))| {
                    let at = first + i * chunk;
                    Task { words: at..at + z.len() / r, z, dc, dbias, kept }
                });
            let tasks: Vec<Task<'_, T::Sum>> = tasks.collect();
            tasks.into_par_iter().for_each(|task| self.words(panel, terms, stored, task));
            for kept in &kept {
                grads.blocks_kept += kept.units;
                grads.blocks_total += kept.of;
            }
            if grads.de.is_some() {
                self.embeddings(panel, first, &logits[..words.len() * r], &kept, &mut de);
            }
        }
        if let Some(out) = &mut grads.de {
            for (i, token) in tokens.iter().enumerate() {
                let row = &mut out.as_mut_slice()[token.row as usize * d..][..d];
                for (part, strip) in row.chunks_mut(panel.width).zip(de.chunks(strip)) {
                    part.copy_from_slice(&strip[i * panel.width..][..part.len()]);
                }
            }
        }
        Ok(())
    }

    /// Gradients of the logits of one chunk, in place; `dC` and the bias' gradient.
    fn words(&self, panel: &Panel<T::Sum>, terms: &Terms<T::Sum>, stored: bool, task: Task<'_, T::Sum>) {
        let Task { words, z, dc, dbias, kept } = task;
        self.gradients(panel, terms, stored, words, z, dbias, kept);
        if kept.computed.is_empty() {
            return;
        }
        if let Some(dc) = dc {
            let rows = if self.filtering.c { &kept.kept } else { &kept.computed };
            panel.grad_c(z, rows, dc, self.input.dim());
        }
        panel.pack_tiles(z, kept.for_e(self.filtering.e));
    }

    /// Turns logits of one chunk (computed first, unless they are `stored`) into gradients, where they are `kept`.
    pub(crate) fn gradients(
        &self,
        panel: &Panel<T::Sum>,
        terms: &Terms<T::Sum>,
        stored: bool,
        words: Range<usize>,
        z: &mut [T::Sum],
        mut dbias: Option<&mut [T::Sum]>,
        kept: &mut Kept,
    ) {
        let (r, cap) = (panel.r, self.config.softcap);
        let list = Words::of(self.order, words);
        if !stored {
            panel.logits(self.input, &list, cap, z);
        }
        let targets: Vec<(usize, usize)> = match &list {
            Words::Range(range) => panel.targets_in(range.clone()).collect(),
            Words::Listed(list) => {
                let places = list.iter().enumerate();
                places
                    .flat_map(|(j, &w)| panel.targets_in(w as usize..w as usize + 1).map(move |t| (j, t.1)))
                    .collect()
            }
        };
        self.filtering.choose(panel.isa, z, r, terms, &targets, kept);
        let correction = |&(j, i): &(usize, usize)| {
            let tanh = cap.map_or(0.0, |cap| z[j * r + i].to_f64() / cap);
            (j, i, terms.target[i] * T::Sum::from_f64(1.0 - tanh * tanh))
        };
        let corrections: Vec<(usize, usize, T::Sum)> = targets.iter().map(correction).collect();
        let mut rest = corrections.as_slice();
        for &j in &kept.computed {
            let j = usize::from(j);
            let row = &mut z[j * r..(j + 1) * r];
            let weight = word_weight(self.config, self.start + list.at(j));
            let mut sum = T::Sum::gradient(panel.isa, row, &terms.row(weight, cap));
            while let Some(((word, i, correction), others)) = rest.split_first() {
                if *word > j {
                    break;
                }
                if *word == j {
                    row[*i] = row[*i] - *correction;
                    sum = sum - *correction;
                }
                rest = others;
            }
            if let Some(dbias) = dbias.as_deref_mut() {
                dbias[j] += sum;
            }
        }
    }

    /// Adds a group of words to `dE`, in strips of columns.
    fn embeddings(
        &self,
        panel: &Panel<T::Sum>,
        first: usize,
        g: &[T::Sum],
        kept: &[Kept],
        de: &mut [T::Sum],
    ) {
        let (r, width, d, chunk) = (panel.r, panel.width, self.input.dim(), self.chunk);
        let end = first + g.len() / r;
        let strips = d.div_ceil(width);
        // How the columns are cut changes no sum.
        let share = strips.div_ceil(2 * rayon::current_num_threads());
        let together = (STRIP_BYTES / (chunk * width * size_of::<T::Sum>())).min(share).max(1);
        de.par_chunks_mut(together * width * r).enumerate().for_each(|(task, de)| {
            let strips = de.len() / (width * r);
            let start = task * together * width;
            let columns = start..d.min(start + strips * width);
            let words = |i: usize| {
                let at = first + i * chunk;
                Words::of(self.order, at..end.min(at + chunk))
            };
            let pieces = |i: usize| {
                let kept = kept.get(i).map(|kept| kept.for_e(self.filtering.e));
                kept.map_or(Vec::new(), |kept| words(i).pieces(self.input, kept, columns.clone()))
            };
            let mut packed = vec![T::Sum::default(); chunk * width];
            let mut wide = Vec::new();
            let mut ahead = pieces(0);
            for (i, (kept, g)) in kept.iter().zip(g.chunks(chunk * r)).enumerate() {
                let for_e = kept.for_e(self.filtering.e);
                let mut rows = std::mem::replace(&mut ahead, pieces(i + 1));
                if for_e.is_empty() {
                    continue;
                }
                if rows.is_empty() {
                    wide.resize(chunk * columns.len(), T::Sum::default());
                    words(i).widened(self.input, for_e, columns.clone(), &mut wide);
                    rows = wide.chunks_exact(columns.len()).take(for_e.len()).collect();
                }
                let (packed, g) = (&mut packed[..for_e.len() * width], &g[..for_e.len() * r]);
                // What the next chunk will pack comes from memory while this one is multiplied.
                let share = ahead.len().div_ceil(strips).max(1);
                let mut soon = ahead.chunks(share);
                for (s, de) in de.chunks_mut(width * r).enumerate() {
                    pack_strip(&rows, s * width, width, packed);
                    T::Sum::grad_e(panel.isa, g, packed, de, soon.next().unwrap_or_default());
                }
            }
        });
    }
}

/// Words of a group: whole chunks that fit `len` logits, at least one.
fn group_words(len: usize, r: usize, chunk: usize) -> usize {
    (len / r / chunk * chunk).max(chunk)
}

/// Memory for the logits of a group, in elements.
pub(crate) fn group_len<S>(v: usize, r: usize, chunk: usize) -> usize {
    let fits = group_words(GROUP_BYTES / size_of::<S>(), r, chunk);
    fits.min(v.next_multiple_of(chunk)) * r
}

/// Gradients of a shard that starts at word `start`, from log-sum-exps of all places, into zeros.
pub(crate) fn run<T: Embedding>(
    input: &XentInput<'_, T>,
    config: &XentConfig,
    start: usize,
    vocabulary: usize,
    forward: &XentForward,
    order: Option<&VocabOrder>,
    seeds: Seeds<'_>,
    grads: &mut XentGrads<T::Sum>,
) -> Result<()> {
    let v = input.vocabulary();
    let (tokens, shape) = input::tokens(input, config, start, vocabulary)?;
    if forward.lse.shape() != shape {
        return Err(Error::shape("forward.lse", format!("{shape:?}"), &forward.lse.shape()));
    }
    let seeding = Seeding::new(config, seeds, tokens.len(), forward.total_weight, shape[0] * shape[1])?;
    let filtering = Filtering::new::<T>(config, seeding.by_lse());
    let sorted;
    let order = match (order, &forward.logit_avg) {
        _ if filtering.threshold.is_none() || !config.sort_vocab => None,
        (Some(order), _) => Some(order),
        (None, Some(average)) if average.len() == v => {
            sorted = VocabOrder::by_logits(average);
            Some(&sorted)
        }
        _ => None,
    };
    if let Some(order) = order
        && order.len() != v
    {
        return Err(Error::shape("order", format!("[{v}]"), &[order.len()]));
    }
    let order = order.map(VocabOrder::as_slice);
    let (size, chunk) = (config.block.0.min(tokens.len().max(1)), config.block.1.min(v));
    let mut panel = Panel::new(config.isa, size, input.dim(), grads.dc.is_some())?;
    let mut logits = AlignedBuf::zeroed(group_len::<T::Sum>(v, panel.r, chunk))?;
    let pass = Pass { input, config, start, order, filtering, chunk };
    for group in tokens.chunks(size) {
        panel.load(input, group);
        let lse: Vec<f64> = group.iter().map(|token| forward.lse.as_slice()[token.at as usize]).collect();
        let seeds: Vec<Seed> = group.iter().zip(&lse).map(|(token, &lse)| seeding.of(token, lse)).collect();
        let words: Vec<u32> = group.iter().map(|token| whole_word(input, config, token)).collect();
        let terms = Terms::new(config, vocabulary, &words, &lse, &seeds, panel.r);
        pass.panel(&panel, group, &terms, &mut logits, false, grads)?;
    }
    if let Some(order) = order {
        if let Some(dc) = &mut grads.dc {
            unpermute_rows(dc.as_mut_slice(), order, input.dim());
        }
        if let Some(dbias) = &mut grads.dbias {
            unpermute_rows(dbias.as_mut_slice(), order, 1);
        }
    }
    Ok(())
}

/// The target of a token in the whole vocabulary, whose weight counts also where the target stands in another shard.
pub(crate) fn whole_word<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig, token: &Token) -> u32 {
    if token.target == ELSEWHERE || config.class_weights.is_some() {
        let [_, length] = input.tokens();
        let kept = length - config.shift;
        let (sequence, place) = (token.at as usize / kept, token.at as usize % kept);
        return u32::try_from(input.targets[sequence * length + place + config.shift]).unwrap_or(0);
    }
    token.target
}
