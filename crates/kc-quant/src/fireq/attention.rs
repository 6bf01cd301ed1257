//! Attention over a [`KvCache4`], or over keys and values as they are.
//!
//! ```text
//! S = q^ k^ / sqrt(hd)      P = fp8(448 exp(S - m)) / 448      O = P v^ / sum exp(S - m)
//! ```
//!
//! with queries in FP8 per token and head, and the sum over what is not rounded. Keys and values are dequantised tile by
//! tile; scores are kept for a few queries at a time, never for all.
//!
//! [`Softmax::TwoPass`] knows the largest score `m` of a row before it rounds anything: its numbers are those of the
//! definition. [`Softmax::Online`] takes each tile as it comes, with the largest so far, as kernels on GPUs do; a weight
//! then differs by at most one rounding to FP8.

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut, math, par};
use kc_gemm::gemm_into_with;
use rayon::prelude::*;

use super::activations::{Numbers, token_scale};
use super::kv::{KvCache4, Side};
use super::rope::check_finite;
use super::smooth::Heads;
use crate::fp8;

/// Keys that are dequantised at a time.
const TILE: usize = 128;

/// Keys of a piece of work. Sums over pieces are added in a fixed tree.
const PIECE: usize = 16 * TILE;

/// Rows of scores, query times head, that share dequantised keys.
const ROWS: usize = 64;

/// Up to so many rows are multiplied with the codes as they are stored.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 8;

/// How the largest score of a row is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Softmax {
    /// Before any weight is rounded.
    #[default]
    TwoPass,
    /// As tiles of so many keys come.
    Online {
        /// Keys of a tile, at least 1.
        tile: usize,
    },
}

/// What attention does. The default is that of the paper, with exact maxima.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionConfig {
    /// Query `i` sees keys up to `i + offset` only.
    pub causal: bool,
    /// See `causal`; `None` for the number of keys minus that of queries.
    pub offset: Option<i64>,
    /// Queries in FP8.
    pub q_fp8: bool,
    /// Weights of the values in FP8.
    pub p_fp8: bool,
    /// How the largest score is found.
    pub softmax: Softmax,
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self { causal: true, offset: None, q_fp8: true, p_fp8: true, softmax: Softmax::TwoPass }
    }
}

/// Attention of queries `q` `[Tq, H, hd]` over the cache: `[Tq, H, hd]`. Query head `h` reads key/value head
/// `h / (H / KVH)`. A query that sees no key gets zeros.
///
/// # Errors
/// `Argument` unless the key/value heads divide the heads, or for a tile of 0 keys; `Shape` for another head size;
/// `NotFinite` with the position.
pub fn attention(
    q: TensorView<'_, f32, 3>,
    cache: &KvCache4,
    config: &AttentionConfig,
) -> Result<Tensor<f32, 3>> {
    let mut out = Tensor::zeros(q.shape())?;
    attention_into(q, cache, config, out.view_mut())?;
    Ok(out)
}

/// As [`attention`], into `out` `[Tq, H, hd]`.
pub fn attention_into(
    q: TensorView<'_, f32, 3>,
    cache: &KvCache4,
    config: &AttentionConfig,
    out: TensorViewMut<'_, f32, 3>,
) -> Result<()> {
    attention_into_with(Isa::best(), q, cache, config, out)
}

/// As [`attention_into`], at a level.
pub fn attention_into_with(
    isa: Isa,
    q: TensorView<'_, f32, 3>,
    cache: &KvCache4,
    config: &AttentionConfig,
    out: TensorViewMut<'_, f32, 3>,
) -> Result<()> {
    run(isa, q, Source::Cache(cache), config, out)
}

/// As [`attention`], over keys and values `[Tk, KVH, hd]` as they are.
pub fn attention_float(
    q: TensorView<'_, f32, 3>,
    k: TensorView<'_, f32, 3>,
    v: TensorView<'_, f32, 3>,
    config: &AttentionConfig,
) -> Result<Tensor<f32, 3>> {
    if k.shape() != v.shape() {
        return Err(Error::shape("v", format!("{:?} to match k", k.shape()), &v.shape()));
    }
    check_finite("k", k)?;
    check_finite("v", v)?;
    let mut out = Tensor::zeros(q.shape())?;
    run(Isa::best(), q, Source::Float { k, v }, config, out.view_mut())?;
    Ok(out)
}

/// Where keys and values come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Cache(&'a KvCache4),
    Float { k: TensorView<'a, f32, 3>, v: TensorView<'a, f32, 3> },
}

impl Source<'_> {
    /// Tokens, key/value heads, channels.
    fn shape(&self) -> [usize; 3] {
        match self {
            Source::Cache(cache) => [cache.len(), cache.config().kv_heads, cache.config().head_dim],
            Source::Float { k, .. } => k.shape(),
        }
    }

    /// The keys or values of some tokens of a head, `[tokens, hd]`.
    fn tile(&self, isa: Isa, side: Side, head: usize, tokens: Range<usize>, out: &mut [f32]) {
        let [_, _, hd] = self.shape();
        match self {
            Source::Cache(cache) => tokens_of(isa, cache, side, head, tokens, out),
            Source::Float { k, v } => {
                let x = if side == Side::Key { k } else { v };
                for (i, out) in tokens.zip(out.chunks_exact_mut(hd)) {
                    out.iter_mut().enumerate().for_each(|(c, out)| *out = x.at([i, head, c]));
                }
            }
        }
    }
}

fn tokens_of(isa: Isa, cache: &KvCache4, side: Side, head: usize, tokens: Range<usize>, out: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => super::x86::tokens(isa, cache, side, head, tokens, out),
        _ => cache.tokens(side, head, tokens, out),
    }
}

/// Some queries with all the heads that share a key/value head.
struct Block<'a> {
    isa: Isa,
    source: Source<'a>,
    config: &'a AttentionConfig,
    kv_head: usize,
    /// `[rows, hd]`, query by query.
    q: Tensor<f32, 2>,
    /// Keys that each row sees.
    limits: Vec<usize>,
}

/// What some keys contribute to each row: the sum of exponentials and the weighted values.
struct Part {
    sums: Vec<f64>,
    values: Vec<f32>,
}

fn run(
    isa: Isa,
    q: TensorView<'_, f32, 3>,
    source: Source<'_>,
    config: &AttentionConfig,
    mut out: TensorViewMut<'_, f32, 3>,
) -> Result<()> {
    let ([tq, heads, hd], [tk, kv_heads, channels]) = (q.shape(), source.shape());
    let group = Heads { heads, kv_heads }.group()?;
    if channels != hd || hd == 0 {
        return Err(Error::shape("q", format!("[Tq, H, {channels}] to match the keys"), &q.shape()));
    }
    if out.shape() != q.shape() {
        return Err(Error::shape("out", format!("{:?}", q.shape()), &out.shape()));
    }
    if config.softmax == (Softmax::Online { tile: 0 }) {
        return Err(Error::argument("tile", "at least 1 key", 0));
    }
    check_finite("q", q)?;
    let offset = config.offset.unwrap_or(tk as i64 - tq as i64);
    let limit = |i: usize| {
        let seen = (i as i64).saturating_add(offset).saturating_add(1).max(0);
        if config.causal { tk.min(usize::try_from(seen).unwrap_or(tk)) } else { tk }
    };
    let per_block = (ROWS / group).max(1);
    let blocks = tq.div_ceil(per_block);
    let work = |item: usize| -> Result<Tensor<f32, 2>> {
        let (kv_head, first) = (item / blocks, item % blocks * per_block);
        let queries = first..tq.min(first + per_block);
        let rows = queries.len() * group;
        let mut block = Block {
            isa,
            source,
            config,
            kv_head,
            q: Tensor::from_fn([rows, hd], |[r, c]| {
                q.at([first + r / group, kv_head * group + r % group, c])
            })?,
            limits: (0..rows).map(|r| limit(first + r / group)).collect(),
        };
        if config.q_fp8 {
            for row in block.q.as_mut_slice().chunks_exact_mut(hd) {
                let scale = token_scale(isa, row, Numbers::Fp8);
                row.iter_mut().for_each(|x| *x /= scale);
                fp8::round_slice_with(isa, row);
                row.iter_mut().for_each(|x| *x *= scale);
            }
        }
        block.attend()
    };
    let results = par::map_chunks(kv_heads * blocks, 1, |item| work(item.start));
    for (item, result) in results.into_iter().enumerate() {
        let (kv_head, first) = (item / blocks, item % blocks * per_block);
        for (r, row) in result?.as_slice().chunks_exact(hd).enumerate() {
            for (c, &y) in row.iter().enumerate() {
                out.set([first + r / group, kv_head * group + r % group, c], y);
            }
        }
    }
    Ok(())
}

impl Block<'_> {
    fn hd(&self) -> usize {
        self.q.shape()[1]
    }

    fn rows(&self) -> usize {
        self.q.shape()[0]
    }

    /// The result of every row, `[rows, hd]`.
    fn attend(&self) -> Result<Tensor<f32, 2>> {
        let keys = self.limits.iter().copied().max().unwrap_or(0);
        let part = match self.config.softmax {
            Softmax::TwoPass => self.two_pass(keys)?,
            Softmax::Online { tile } => self.online(keys, tile)?,
        };
        let mut out = Tensor::zeros([self.rows(), self.hd()])?;
        let Some(Part { sums, values }) = part else { return Ok(out) };
        let rows = out.as_mut_slice().chunks_exact_mut(self.hd()).zip(values.chunks_exact(self.hd()));
        for ((to, values), sum) in rows.zip(sums) {
            if sum > 0.0 {
                let undo = if self.config.p_fp8 { sum * f64::from(fp8::MAX) } else { sum };
                to.iter_mut().zip(values).for_each(|(to, v)| *to = (f64::from(*v) / undo) as f32);
            }
        }
        Ok(out)
    }

    fn two_pass(&self, keys: usize) -> Result<Option<Part>> {
        let pieces = par::map_chunks(keys, PIECE, |piece| self.scores(piece, TILE));
        let mut scores = Vec::with_capacity(pieces.len());
        for piece in pieces {
            scores.push(piece?);
        }
        let mut largest = vec![f32::NEG_INFINITY; self.rows()];
        for (i, piece) in scores.iter().enumerate() {
            self.raise(&mut largest, i * PIECE, piece);
        }
        let parts = scores
            .into_par_iter()
            .enumerate()
            .map(|(i, scores)| self.values(i * PIECE, scores, &largest))
            .collect::<Result<Vec<Part>>>()?;
        Ok(par::tree_reduce(parts, |mut a, b| {
            a.sums.iter_mut().zip(b.sums).for_each(|(a, b)| *a += b);
            a.values.iter_mut().zip(b.values).for_each(|(a, b)| *a += b);
            a
        }))
    }

    fn online(&self, keys: usize, tile: usize) -> Result<Option<Part>> {
        let mut so_far: Option<Part> = None;
        let mut largest = vec![f32::NEG_INFINITY; self.rows()];
        for tokens in par::chunks(keys, tile) {
            let before = largest.clone();
            let scores = self.scores(tokens.clone(), tile)?;
            self.raise(&mut largest, tokens.start, &scores);
            let next = self.values(tokens.start, scores, &largest)?;
            let Some(part) = &mut so_far else {
                so_far = Some(next);
                continue;
            };
            let hd = self.hd();
            for r in 0..self.rows() {
                let factor = if before[r] == largest[r] { 1.0 } else { (before[r] - largest[r]).exp() };
                part.sums[r] = part.sums[r] * f64::from(factor) + next.sums[r];
                let row = r * hd..r * hd + hd;
                let pairs = part.values[row.clone()].iter_mut().zip(&next.values[row]);
                pairs.for_each(|(old, new)| *old = *old * factor + new);
            }
        }
        Ok(so_far)
    }

    /// `q k / sqrt(hd)` of some keys, `[rows, keys]`.
    fn scores(&self, keys: Range<usize>, tile: usize) -> Result<Tensor<f32, 2>> {
        let (hd, tile) = (self.hd(), tile.min(TILE));
        let mut out = Tensor::zeros([self.rows(), keys.len()])?;
        let scale = 1.0 / (hd as f64).sqrt();
        if self.few_scores(keys.clone(), scale as f32, &mut out) {
            return Ok(out);
        }
        let mut buffer = vec![0.0; tile * hd];
        for part in par::chunks(keys.len(), tile) {
            let buffer = &mut buffer[..part.len() * hd];
            let tokens = keys.start + part.start..keys.start + part.end;
            self.source.tile(self.isa, Side::Key, self.kv_head, tokens, buffer);
            let k = TensorView::from_slice([part.len(), hd], buffer)?;
            let to = out.view_mut().slice(1, part)?;
            gemm_into_with(self.isa, scale as f32, self.q.view(), k.transposed(), 0.0, to)?;
        }
        Ok(out)
    }

    /// Raises the largest score of each row by keys from `first` on.
    fn raise(&self, largest: &mut [f32], first: usize, scores: &Tensor<f32, 2>) {
        let keys = scores.shape()[1];
        for ((top, row), limit) in
            largest.iter_mut().zip(scores.as_slice().chunks_exact(keys)).zip(&self.limits)
        {
            let seen = limit.saturating_sub(first).min(keys);
            if let Some((_, high)) = math::min_max_with(self.isa, &row[..seen]) {
                *top = top.max(high);
            }
        }
    }

    /// Weights of keys from `first` on, and the values they give.
    fn values(&self, first: usize, mut scores: Tensor<f32, 2>, largest: &[f32]) -> Result<Part> {
        let (rows, hd, keys) = (self.rows(), self.hd(), scores.shape()[1]);
        let mut sums = vec![0.0; rows];
        for (r, row) in scores.as_mut_slice().chunks_exact_mut(keys).enumerate() {
            let seen = self.limits[r].saturating_sub(first).min(keys);
            let (seen, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            seen.iter_mut().for_each(|s| *s -= largest[r]);
            math::apply_in_place(self.isa, math::Function::Exp, seen);
            sums[r] = math::sum_f64_with(self.isa, seen);
            if self.config.p_fp8 {
                seen.iter_mut().for_each(|p| *p *= fp8::MAX);
                fp8::round_slice_with(self.isa, seen);
            }
        }
        let mut values = Tensor::<f32, 2>::zeros([rows, hd])?;
        if self.few_values(first, &scores, values.as_mut_slice()) {
            return Ok(Part { sums, values: values.into_vec() });
        }
        let mut buffer = vec![0.0; TILE.min(keys) * hd];
        for part in par::chunks(keys, TILE) {
            let buffer = &mut buffer[..part.len() * hd];
            let tokens = first + part.start..first + part.end;
            self.source.tile(self.isa, Side::Value, self.kv_head, tokens, buffer);
            let v = TensorView::from_slice([part.len(), hd], buffer)?;
            let p = scores.view().slice(1, part)?;
            gemm_into_with(self.isa, 1.0, p, v, 1.0, values.view_mut())?;
        }
        Ok(Part { sums, values: values.into_vec() })
    }

    /// The cache, if its codes are multiplied as they are stored.
    #[cfg(target_arch = "x86_64")]
    fn few(&self) -> Option<&KvCache4> {
        match self.source {
            Source::Cache(cache) if self.rows() <= FEW && self.isa.level() > kc_core::Level::Portable => {
                Some(cache)
            }
            _ => None,
        }
    }

    /// [`scores`](Self::scores) of a few rows; false if this is not the way.
    #[cfg(target_arch = "x86_64")]
    fn few_scores(&self, keys: Range<usize>, scale: f32, out: &mut Tensor<f32, 2>) -> bool {
        let Some(cache) = self.few() else { return false };
        let (mut scales, mut at) = (Vec::new(), 0);
        for slots in cache.slots(keys.clone()) {
            let count = slots.len();
            let Some(packed) = cache.packed(Side::Key, self.kv_head, slots, &mut scales) else {
                return false;
            };
            let out = &mut out.as_mut_slice()[at..];
            if count > 0 {
                super::x86::dots(self.isa, packed, self.q.as_slice(), scale, out, keys.len());
            }
            at += count;
        }
        true
    }

    /// The weighted values of a few rows; false if this is not the way.
    #[cfg(target_arch = "x86_64")]
    fn few_values(&self, first: usize, weights: &Tensor<f32, 2>, values: &mut [f32]) -> bool {
        let Some(cache) = self.few() else { return false };
        let keys = weights.shape()[1];
        let mut scales = Vec::new();
        // Tiles stay in the first cache while their words are read column by column.
        for part in par::chunks(keys, TILE) {
            let mut at = part.start;
            for slots in cache.slots(first + part.start..first + part.end) {
                let count = slots.len();
                let Some(packed) = cache.packed(Side::Value, self.kv_head, slots, &mut scales) else {
                    return false;
                };
                if count > 0 {
                    super::x86::combine(self.isa, packed, &weights.as_slice()[at..], keys, values);
                }
                at += count;
            }
        }
        true
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn few_scores(&self, _: Range<usize>, _: f32, _: &mut Tensor<f32, 2>) -> bool {
        false
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn few_values(&self, _: usize, _: &Tensor<f32, 2>, _: &mut [f32]) -> bool {
        false
    }
}
