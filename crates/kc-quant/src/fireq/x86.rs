//! The cache read with AVX2: tiles dequantised, and, for a few rows, products with the codes as they are stored.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;
use std::ops::Range;

use kc_core::{Isa, Level};

use super::kv::{KvCache4, Packed, Side};

/// Numbers of a register, and codes of a word.
const LANES: usize = 8;

/// [`KvCache4::tokens`] at a level with AVX2.
pub(super) fn tokens(
    isa: Isa,
    cache: &KvCache4,
    side: Side,
    head: usize,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    #[target_feature(enable = "avx2,fma")]
    fn avx2(cache: &KvCache4, side: Side, head: usize, tokens: Range<usize>, out: &mut [f32]) {
        cache.tokens(side, head, tokens, out);
    }
    assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
    // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
    unsafe { avx2(cache, side, head, tokens, out) }
}

/// `out[r * stride + t] = scale q_r . k_t` for rows `q` `[rows, hd]`.
pub(super) fn dots(isa: Isa, keys: Packed<'_>, q: &[f32], scale: f32, out: &mut [f32], stride: usize) {
    assert!(isa.level() >= Level::Avx2, "the kernel needs AVX2");
    let hd = keys.words * LANES;
    let q: Vec<&[[f32; LANES]]> = q.chunks_exact(hd).map(|row| row.as_chunks().0).collect();
    let mut r = 0;
    while r < q.len() {
        let out = &mut out[r * stride..];
        // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
        r += unsafe {
            match q[r..] {
                [a, b, c, d, ..] => dots_of(keys, [a, b, c, d], scale, out, stride),
                [a, b, ..] => dots_of(keys, [a, b], scale, out, stride),
                [a, ..] => dots_of(keys, [a], scale, out, stride),
                [] => return,
            }
        };
    }
}

/// `values[r * hd + c] += sum_t p[r * stride + t] v_tc` for rows of weights.
pub(super) fn combine(isa: Isa, tokens: Packed<'_>, p: &[f32], stride: usize, values: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2, "the kernel needs AVX2");
    let hd = tokens.words * LANES;
    let count = tokens.codes.len() / tokens.words.max(1);
    let groups = tokens.words.div_ceil(tokens.group);
    // The weights times the scales of a group, token by token.
    let mut weights = vec![[0.0; 4]; count];
    for (r, values) in values.chunks_mut(4 * hd).enumerate() {
        let rows = values.len() / hd;
        for g in 0..groups {
            for (t, weights) in weights.iter_mut().enumerate() {
                let scale = tokens.scales[t * groups + g];
                for (i, weight) in weights.iter_mut().enumerate().take(rows) {
                    *weight = p[(4 * r + i) * stride + t] * scale;
                }
            }
            let words = g * tokens.group..tokens.words.min((g + 1) * tokens.group);
            // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
            unsafe {
                match rows {
                    1 => combine_of::<1>(tokens, words, &weights, values, hd),
                    2 => combine_of::<2>(tokens, words, &weights, values, hd),
                    3 => combine_of::<3>(tokens, words, &weights, values, hd),
                    _ => combine_of::<4>(tokens, words, &weights, values, hd),
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[f32]) -> __m256 {
    let lanes: &[f32] = &x[..LANES];
    // SAFETY: the slice has LANES elements.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

/// The eight codes of a word as numbers: each is shifted to the top, and back with its sign.
#[inline]
#[target_feature(enable = "avx2")]
fn numbers(word: u32) -> __m256 {
    let up = _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0);
    let top = _mm256_sllv_epi32(_mm256_set1_epi32(word as i32), up);
    _mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(top))
}

#[inline]
#[target_feature(enable = "avx2")]
fn total(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

/// Returns the number of rows.
#[target_feature(enable = "avx2,fma")]
fn dots_of<const R: usize>(
    keys: Packed<'_>,
    q: [&[[f32; LANES]]; R],
    scale: f32,
    out: &mut [f32],
    stride: usize,
) -> usize {
    let groups = keys.words.div_ceil(keys.group);
    for (t, words) in keys.codes.chunks_exact(keys.words).enumerate() {
        let mut sums = [_mm256_setzero_ps(); R];
        for (g, words) in words.chunks(keys.group).enumerate() {
            let mut part = [_mm256_setzero_ps(); R];
            let first = g * keys.group;
            let mut queries: [&[[f32; LANES]]; R] = [&[]; R];
            for r in 0..R {
                queries[r] = &q[r][first..first + words.len()];
            }
            for (w, word) in words.iter().enumerate() {
                let k = numbers(*word);
                for r in 0..R {
                    part[r] = _mm256_fmadd_ps(k, load(&queries[r][w]), part[r]);
                }
            }
            let scale = _mm256_set1_ps(keys.scales[t * groups + g]);
            for r in 0..R {
                sums[r] = _mm256_fmadd_ps(scale, part[r], sums[r]);
            }
        }
        for r in 0..R {
            out[r * stride + t] = scale * total(sums[r]);
        }
    }
    R
}

/// Adds the weighted values of some words: two at a time, so that they share the weights.
#[target_feature(enable = "avx2,fma")]
fn combine_of<const R: usize>(
    tokens: Packed<'_>,
    words: Range<usize>,
    weights: &[[f32; 4]],
    values: &mut [f32],
    hd: usize,
) {
    let mut w = words.start;
    while w < words.end {
        let pair = w + 1 < words.end;
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for (codes, weights) in tokens.codes.chunks_exact(tokens.words).zip(weights) {
            let (a, b) = (numbers(codes[w]), numbers(codes[w + usize::from(pair)]));
            for r in 0..R {
                let p = _mm256_set1_ps(weights[r]);
                sums[r][0] = _mm256_fmadd_ps(a, p, sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(b, p, sums[r][1]);
            }
        }
        for r in 0..R {
            for (i, sum) in sums[r].iter().enumerate().take(1 + usize::from(pair)) {
                let to = &mut values[r * hd + (w + i) * LANES..][..LANES];
                let new = _mm256_add_ps(load(to), *sum);
                // SAFETY: the slice has LANES elements.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), new) };
            }
        }
        w += 2;
    }
}
