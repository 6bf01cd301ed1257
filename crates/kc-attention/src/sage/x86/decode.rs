//! Pages of a cache against a query, in AVX2.

#![expect(unsafe_code, reason = "AVX2 intrinsics on pages of codes")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use crate::sage::QkBits;
use crate::sage::cache::CacheValues;
use crate::sage::decode::{LANES, Query, WIDE};

/// Vectors of 8 keys that are summed at a time.
const VECTORS: usize = LANES / 8;

/// See `decode::products`.
pub(in crate::sage) fn products(
    isa: Isa,
    bits: QkBits,
    keys: &[u8],
    query: &Query,
    scales: &[f32],
    scores: &mut [f32],
) {
    let size = scores.len();
    let words = if bits == QkBits::Int4 { query.words.len() / 2 } else { query.words.len() };
    assert!(isa.level() >= Level::Avx2, "the level of these kernels");
    assert!(size.is_multiple_of(LANES) && scales.len() == size, "whole blocks of keys with their scales");
    assert!(keys.len() == words * size * 4, "all words of all keys");
    // SAFETY: the level is proven, and the sizes are those that the kernel reads and writes.
    unsafe {
        match bits {
            QkBits::Int8 => products_of_page::<false>(keys, words, query, scales, scores),
            QkBits::Int4 => products_of_page::<true>(keys, words, query, scales, scores),
        }
    }
}

/// # Safety
/// As asserted by `products`.
#[target_feature(enable = "avx2,fma")]
unsafe fn products_of_page<const FOUR: bool>(
    keys: &[u8],
    words: usize,
    query: &Query,
    scales: &[f32],
    scores: &mut [f32],
) {
    let size = scores.len();
    let ones = _mm256_set1_epi16(1);
    let (flip, low) = (_mm256_set1_epi8(0x88u8 as i8), _mm256_set1_epi8(15));
    let factor = _mm256_set1_ps(query.factor);
    for block in (0..size).step_by(LANES) {
        let mut sums = [_mm256_set1_epi32(query.start); VECTORS];
        for w in 0..words {
            // SAFETY: word w of the 64 keys of the block.
            let keys = unsafe { keys.as_ptr().add((w * size + block) * 4) };
            if FOUR {
                let even = _mm256_set1_epi32(query.words[2 * w]);
                let odd = _mm256_set1_epi32(query.words[2 * w + 1]);
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let codes = unsafe { _mm256_loadu_si256(keys.add(32 * v).cast()) };
                    let codes = _mm256_xor_si256(codes, flip);
                    let first = _mm256_maddubs_epi16(_mm256_and_si256(codes, low), even);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                    let second = _mm256_maddubs_epi16(high, odd);
                    // At most 4 * 15 * 127: no sum of 16 bits overflows.
                    let both = _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
                    *sum = _mm256_add_epi32(*sum, both);
                }
            } else {
                let word = _mm256_set1_epi32(query.words[w]);
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let codes = unsafe { _mm256_loadu_si256(keys.add(32 * v).cast()) };
                    // Codes lie within ±127, so pairs of products fit 16 bits.
                    let signed = _mm256_sign_epi8(word, codes);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: 8 of the keys of the block.
            unsafe {
                let at = block + 8 * v;
                let scale = _mm256_mul_ps(_mm256_loadu_ps(scales.as_ptr().add(at)), factor);
                _mm256_storeu_ps(scores.as_mut_ptr().add(at), _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale));
            }
        }
    }
}

/// See `decode::blend`.
pub(in crate::sage) fn blend(
    isa: Isa,
    format: CacheValues,
    weights: &[f32],
    values: &[u8],
    deltas: &[f32],
    out: &mut [f32],
) {
    let wide = out.len();
    assert!(isa.level() >= Level::Avx2, "the level of these kernels");
    assert!(wide.is_multiple_of(WIDE), "whole vectors");
    assert!(values.len() == weights.len() * wide * format.bytes(), "all values");
    assert!(deltas.len() == wide || format == CacheValues::F16, "all factors");
    // SAFETY: the level is proven, and the sizes are those that the kernels read and write.
    unsafe {
        match format {
            CacheValues::F16 => blend_channels::<0>(weights, values, deltas, out),
            CacheValues::Int8 => blend_channels::<1>(weights, values, deltas, out),
            CacheValues::Fp8 => blend_channels::<2>(weights, values, deltas, out),
        }
    }
}

/// # Safety
/// As asserted by `blend`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn blend_channels<const FORMAT: u8>(weights: &[f32], values: &[u8], deltas: &[f32], out: &mut [f32]) {
    let mut at = 0;
    // SAFETY: blocks of channels inside of each row.
    unsafe {
        while at + 4 * WIDE <= out.len() {
            blend_block::<FORMAT, 8>(weights, values, deltas, out, at);
            at += 4 * WIDE;
        }
        while at < out.len() {
            blend_block::<FORMAT, 2>(weights, values, deltas, out, at);
            at += WIDE;
        }
    }
}

/// # Safety
/// As asserted by `blend`, with `8 * VECTORS` channels from `at` on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn blend_block<const FORMAT: u8, const VECTORS: usize>(
    weights: &[f32],
    values: &[u8],
    deltas: &[f32],
    out: &mut [f32],
    at: usize,
) {
    let wide = out.len();
    let mut sums = [_mm256_setzero_ps(); VECTORS];
    for (j, &weight) in weights.iter().enumerate() {
        let by = _mm256_set1_ps(weight);
        for pair in 0..VECTORS / 2 {
            // SAFETY: 16 channels of row j.
            let [low, high] = unsafe { sixteen::<FORMAT>(values, j * wide + at + 16 * pair) };
            sums[2 * pair] = _mm256_fmadd_ps(by, low, sums[2 * pair]);
            sums[2 * pair + 1] = _mm256_fmadd_ps(by, high, sums[2 * pair + 1]);
        }
    }
    let unit = _mm256_set1_ps(if FORMAT == 2 { 256.0 } else { 1.0 });
    for (v, sum) in sums.into_iter().enumerate() {
        // SAFETY: 8 channels from at + 8 v on.
        unsafe {
            let to = out.as_mut_ptr().add(at + 8 * v);
            let factor = match FORMAT {
                0 => unit,
                _ => _mm256_mul_ps(unit, _mm256_loadu_ps(deltas.as_ptr().add(at + 8 * v))),
            };
            _mm256_storeu_ps(to, _mm256_fmadd_ps(factor, sum, _mm256_loadu_ps(to)));
        }
    }
}

/// Codes `at..at + 16` as numbers; those of E4M3 times 2^-8.
///
/// # Safety
/// The codes are there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sixteen<const FORMAT: u8>(values: &[u8], at: usize) -> [__m256; 2] {
    // SAFETY: by the contract.
    unsafe {
        if FORMAT == 0 {
            return halves(_mm256_loadu_si256(values.as_ptr().add(2 * at).cast()));
        }
        let x = _mm_loadu_si128(values.as_ptr().add(at).cast());
        if FORMAT == 1 {
            let [low, high] = [_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(x))];
            return [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)];
        }
        // Sign and 7 bits go where a half has its sign, the low exponent and the first of its digits.
        let x = _mm256_slli_epi16::<7>(_mm256_cvtepi8_epi16(x));
        halves(_mm256_and_si256(x, _mm256_set1_epi16(0xbf80u16 as i16)))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(x: __m256i) -> [__m256; 2] {
    [_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(x))]
}
