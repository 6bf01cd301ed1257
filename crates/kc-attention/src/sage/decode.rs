//! Attention of a few queries over a cache: page by page of codes.

use kc_core::{Float, Isa, Level, Result, Tensor, TensorView, par};
use rayon::prelude::*;

use super::QkBits;
use super::cache::{CacheValues, SageKvCache};
use super::rows;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::exact::few::{Part, merge};
use crate::exact::kernels::Scalar;
use crate::layout::Dims;
use crate::mask::Mask;

/// Keys that kernels take at a time; pages are a multiple.
pub(super) const LANES: usize = 64;
/// Rows of values are padded to a multiple of this many channels.
pub(super) const WIDE: usize = 16;
/// Keys of a piece, at least. Pieces are merged in order.
const PIECE: usize = 512;
/// Codes of queries.
const LIMIT: f32 = 127.0;

/// A query's codes in the words that meet those of keys.
#[derive(Debug, Clone)]
pub(super) struct Query {
    /// One word of 4 codes per word of a key, or two for 4 bits: the even channels, then the odd.
    pub(super) words: Vec<i32>,
    /// `-8` times the sum of the codes for 4 bits, whose nibbles are read with 8 added; else 0.
    pub(super) start: i32,
    /// Makes products with a key of scale 1 to scores in base 2.
    pub(super) factor: f32,
    /// What the mean of the keys adds to each score, in natural units.
    shift: f64,
}

impl Query {
    fn new(isa: Isa, q: &[f32], mean: &[f32], bits: QkBits, words: usize, scale: f64) -> Self {
        let amax = f32::from_bits(rows::largest(isa, q, &[])).clamp(1e-7, f32::MAX);
        let per_word = if bits == QkBits::Int4 { 8 } else { 4 };
        let mut codes = vec![0i8; words * per_word];
        rows::encode(isa, q, &[], LIMIT / amax, LIMIT, &mut codes[..q.len()]);
        let word = |a: i8, b: i8, c: i8, d: i8| i32::from_le_bytes([a, b, c, d].map(|x| x as u8));
        let mut packed = Vec::with_capacity(2 * words);
        for c in codes.chunks_exact(per_word) {
            if bits == QkBits::Int4 {
                packed.push(word(c[0], c[2], c[4], c[6]));
                packed.push(word(c[1], c[3], c[5], c[7]));
            } else {
                packed.push(word(c[0], c[1], c[2], c[3]));
            }
        }
        let sum: i32 = codes.iter().map(|&c| i32::from(c)).sum();
        let product: f64 = q.iter().zip(mean).map(|(q, m)| f64::from(*q) * f64::from(*m)).sum();
        Query {
            words: packed,
            start: if bits == QkBits::Int4 { -8 * sum } else { 0 },
            factor: (f64::from(amax / LIMIT) * scale * std::f64::consts::LOG2_E) as f32,
            shift: scale * product,
        }
    }
}

/// Attention of `q` `[B, Hq, Nq, D]` into `out`, of the cache's layout, and `lse`.
pub(super) fn attend<E: Float>(
    cache: &SageKvCache,
    q: TensorView<'_, E, 4>,
    dims: &Dims,
    causal: bool,
    out: &mut Tensor<E, 4>,
    lse: &mut Tensor<f32, 3>,
) -> Result<()> {
    let config = &cache.config;
    let scale = config.scale.map_or_else(|| 1.0 / (dims.channels as f64).sqrt(), f64::from);
    let mask = Mask { causal, ..Mask::NONE };
    let group = dims.heads / dims.kv_heads;
    let count = group * dims.queries;
    let units = dims.batch * dims.kv_heads;
    let queries: Vec<Vec<Query>> = (0..units)
        .map(|unit| {
            let one = |r: usize| {
                let head = unit % dims.kv_heads * group + r / dims.queries;
                let q = q.outer(unit / dims.kv_heads).matrix(head).row(r % dims.queries);
                let q: Vec<f32> = q.iter().map(|x| x.to_f32()).collect();
                Query::new(config.isa, &q, &cache.heads[unit].mean, config.bits, cache.words(), scale)
            };
            (0..count).map(one).collect()
        })
        .collect();
    let pages = dims.keys.div_ceil(config.page);
    let pieces: Vec<_> = par::chunks(pages, (PIECE / config.page).max(1)).collect();
    let work = |item: usize| {
        let (unit, piece) = (item / pieces.len(), &pieces[item % pieces.len()]);
        let mut part = Part::<f32>::new(count, cache.wide());
        let mut scores = vec![0.0f32; count * config.page];
        for page in piece.clone() {
            one_page(cache, unit, page, &queries[unit], dims, &mask, &mut scores, &mut part);
        }
        part
    };
    let parts: Vec<Part<f32>> = (0..units * pieces.len()).into_par_iter().map(work).collect();
    for (unit, parts) in parts.chunks(pieces.len()).enumerate() {
        let batch = unit / dims.kv_heads;
        for (r, query) in queries[unit].iter().enumerate() {
            let (head, i) = (unit % dims.kv_heads * group + r / dims.queries, r % dims.queries);
            let (top, sum, row) = merge(parts, r);
            for (c, x) in row.iter().take(dims.channels).enumerate() {
                out[config.layout.shape([batch, head, i, c])] = E::from_f32(*x);
            }
            let nats = (f64::from(top) + f64::from(sum).log2()) * std::f64::consts::LN_2;
            lse[[batch, head, i]] = (nats + query.shift) as f32;
        }
    }
    Ok(())
}

/// A page's step of the running softmax of all rows.
fn one_page(
    cache: &SageKvCache,
    unit: usize,
    page: usize,
    queries: &[Query],
    dims: &Dims,
    mask: &Mask<'_>,
    scores: &mut [f32],
    part: &mut Part<f32>,
) {
    let (config, head, wide) = (&cache.config, &cache.heads[unit], cache.wide());
    let (size, first) = (config.page, page * config.page);
    let key_bytes = cache.words() * size * 4;
    let keys = &head.keys[page * key_bytes..][..key_bytes];
    let scales = &head.scales[first..first + size];
    for (r, (query, scores)) in queries.iter().zip(scores.chunks_exact_mut(size)).enumerate() {
        products(config.isa, config.bits, keys, query, scales, scores);
        let end = mask.end(r % dims.queries, dims).min(dims.keys).clamp(first, first + size) - first;
        scores[end..].fill(f32::NEG_INFINITY);
    }
    let soften = f32::kernels(config.isa).soften;
    soften(config.isa, scores, size, size, &mut part.state());
    let value_bytes = size * wide * config.values.bytes();
    let values = &head.values[page * value_bytes..][..value_bytes];
    let deltas = match config.values {
        CacheValues::F16 => &[][..],
        _ => &head.deltas[page * wide..][..wide],
    };
    for (weights, out) in scores.chunks_exact(size).zip(part.out().chunks_exact_mut(wide)) {
        blend(config.isa, config.values, weights, values, deltas, out);
    }
}

/// Scores in base 2 of a query with the keys of a page.
fn products(isa: Isa, bits: QkBits, keys: &[u8], query: &Query, scales: &[f32], scores: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level >= Level::Avx2 => x86::decode::products(isa, bits, keys, query, scales, scores),
        _ => plain_products(bits, keys, query, scales, scores),
    }
}

/// [`products`] for any processor.
pub(super) fn plain_products(bits: QkBits, keys: &[u8], query: &Query, scales: &[f32], scores: &mut [f32]) {
    let dot = |key: &[u8], word: i32, read: fn(u8) -> i32| -> i32 {
        key.iter().zip(word.to_le_bytes()).map(|(k, q)| read(*k) * i32::from(q as i8)).sum()
    };
    let size = scores.len();
    for (j, (score, scale)) in scores.iter_mut().zip(scales).enumerate() {
        let mut sum = query.start;
        for (w, keys) in keys.chunks_exact(4 * size).enumerate() {
            let key = &keys[4 * j..4 * j + 4];
            sum += match bits {
                QkBits::Int8 => dot(key, query.words[w], |k| i32::from(k as i8)),
                QkBits::Int4 => {
                    dot(key, query.words[2 * w], |k| i32::from((k ^ 8) & 15))
                        + dot(key, query.words[2 * w + 1], |k| i32::from((k ^ 0x80) >> 4))
                }
            };
        }
        *score = sum as f32 * (scale * query.factor);
    }
}

/// Adds the weighted values of a page.
fn blend(isa: Isa, format: CacheValues, weights: &[f32], values: &[u8], deltas: &[f32], out: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level >= Level::Avx2 => x86::decode::blend(isa, format, weights, values, deltas, out),
        _ => plain_blend(format, weights, values, deltas, out),
    }
}

/// [`blend`] for any processor.
pub(super) fn plain_blend(
    format: CacheValues,
    weights: &[f32],
    values: &[u8],
    deltas: &[f32],
    out: &mut [f32],
) {
    let mut sums = vec![0.0f32; out.len()];
    for (weight, row) in weights.iter().zip(values.chunks_exact(out.len() * format.bytes())) {
        match format {
            CacheValues::F16 => sums.iter_mut().zip(row.chunks_exact(2)).for_each(|(s, x)| {
                *s += weight * kc_core::f16::from_ne_bytes([x[0], x[1]]).to_f32();
            }),
            CacheValues::Int8 => {
                sums.iter_mut().zip(row).for_each(|(s, x)| *s += weight * f32::from(*x as i8))
            }
            CacheValues::Fp8 => {
                sums.iter_mut().zip(row).for_each(|(s, x)| *s += weight * kc_quant::fp8::decode(*x));
            }
        }
    }
    if deltas.is_empty() {
        out.iter_mut().zip(&sums).for_each(|(o, s)| *o += s);
    } else {
        out.iter_mut().zip(&sums).zip(deltas).for_each(|((o, s), d)| *o += s * d);
    }
}
