//! Rows from their two parts for AVX2: the same numbers as [`super::portable`]. What intrinsics add is the
//! conversion of 64-bit integers without a multiplication, and stores that bypass the caches.
//!
//! # Integers to numbers
//! With the halves h, l of x put into the fractions of two numbers, `2^(84-t) + h 2^(32-t)` and `2^(52-t) + l
//! 2^-t`, the difference of the first and `2^(84-t) + 2^(52-t)` is exact, and adding the second rounds `x 2^-t`
//! once.
//!
//! Levels above run the same code: it waits for memory.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::convert::{HALF_UNIT, Inner, Nearest, Output, Stores};
use super::nested::hash::{self, Hash, Key};
use super::portable;
use super::scramble::{self, Interlace, LinearScramble};
use crate::rng::Sfc64;

/// Values in a vector.
pub(super) const LANES: usize = 4;

/// [`portable::combine`], compiled for the level.
pub(super) fn combine<O: Output>(isa: Isa, low: &[u64], high: &[u64], out: &mut [O::Value], output: O) {
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2<O: Output>(low: &[u64], high: &[u64], out: &mut [O::Value], output: O) {
        portable::combine(low, high, out, output);
    }
    if isa.level() == Level::Portable {
        return portable::combine(low, high, out, output);
    }
    // SAFETY: an Isa of a level above Portable was detected, so the processor has AVX2 and BMI2.
    unsafe { avx2(low, high, out, output) }
}

/// What vectors need to know of a conversion to f64.
#[derive(Clone, Copy)]
struct Doubles {
    bits: u32,
    mask: u64,
    open: bool,
}

/// [`combine`] of integers rounded to nearest.
pub(super) fn nearest(isa: Isa, low: &[u64], high: &[u64], out: &mut [f64], output: Nearest, stores: Stores) {
    doubles(isa, low, high, out, output, Doubles { bits: output.bits, mask: u64::MAX, open: false }, stores);
}

/// [`combine`] of integers moved into the open interval.
pub(super) fn inner(isa: Isa, low: &[u64], high: &[u64], out: &mut [f64], output: Inner, stores: Stores) {
    doubles(
        isa,
        low,
        high,
        out,
        output,
        Doubles { bits: output.bits, mask: output.mask, open: true },
        stores,
    );
}

fn doubles<O: Output<Value = f64>>(
    isa: Isa,
    low: &[u64],
    high: &[u64],
    out: &mut [f64],
    output: O,
    to: Doubles,
    stores: Stores,
) {
    if isa.level() == Level::Portable {
        return portable::combine(low, high, out, output);
    }
    let period = high.len();
    if period.is_multiple_of(LANES) {
        return strip(isa, low, high, out, output, to, stores);
    }
    // Long rows that are no whole number of vectors: each by itself, from where it is aligned.
    for (low, out) in low.chunks(period).zip(out.chunks_mut(period)) {
        let head = match stores {
            Stores::Streamed => out.as_ptr().align_offset(32).min(out.len()),
            Stores::Cached => 0,
        };
        let tail = out.len() - (out.len() - head) % LANES;
        portable::combine(&low[..head], high, &mut out[..head], output);
        if head < tail {
            strip(isa, &low[head..tail], &high[head..tail], &mut out[head..tail], output, to, stores);
        }
        portable::combine(&low[tail..], &high[tail..], &mut out[tail..], output);
    }
}

/// [`doubles`] above the portable level, with a high part that is a whole number of vectors.
fn strip<O: Output<Value = f64>>(
    isa: Isa,
    low: &[u64],
    high: &[u64],
    out: &mut [f64],
    output: O,
    to: Doubles,
    stores: Stores,
) {
    assert!(isa.level() != Level::Portable && low.len() == out.len());
    assert!(!high.is_empty() && high.len().is_multiple_of(LANES));
    let whole = out.len() / LANES * LANES;
    let (vectors, tail) = out.split_at_mut(whole);
    let aligned = |bytes: usize| stores == Stores::Streamed && vectors.as_ptr().addr().is_multiple_of(bytes);
    let (on32, on16) = (aligned(32), aligned(16));
    // SAFETY: an Isa of a level above Portable was detected, so the processor has AVX2. `vectors` is not longer
    // than `low`, and a whole number of vectors as `high` is; streamed stores get the alignment that they ask for.
    unsafe {
        match (to.open, on32, on16) {
            (false, true, _) => avx2::<false, 32>(low, high, vectors, to),
            (false, _, true) => avx2::<false, 16>(low, high, vectors, to),
            (false, ..) => avx2::<false, 0>(low, high, vectors, to),
            (true, true, _) => avx2::<true, 32>(low, high, vectors, to),
            (true, _, true) => avx2::<true, 16>(low, high, vectors, to),
            (true, ..) => avx2::<true, 0>(low, high, vectors, to),
        }
    }
    portable::combine(&low[whole..], &high[whole % high.len()..], tail, output);
}

/// [`Hash::scramble`]: the flips of a path by one instruction.
pub(super) fn hash(isa: Isa, hash: Hash, keys: &[Key], rows: &mut [u64]) {
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2(hash: Hash, keys: &[Key], rows: &mut [u64]) {
        hash.scramble_with(keys, rows, |word, mask| _pext_u64(word, mask));
    }
    if isa.level() == Level::Portable {
        return hash.scramble_with(keys, rows, hash::pick);
    }
    // SAFETY: an Isa of a level above Portable was detected, so the processor has AVX2 and BMI2.
    unsafe { avx2(hash, keys, rows) }
}

/// [`LinearScramble::scramble`], compiled for the level.
pub(super) fn linear_scramble(isa: Isa, scramble: &mut LinearScramble, rng: &mut Sfc64, columns: &mut [u64]) {
    #[target_feature(enable = "avx2,bmi2")]
    fn avx2(scramble: &mut LinearScramble, rng: &mut Sfc64, columns: &mut [u64]) {
        scramble.scramble_on(rng, columns);
    }
    if isa.level() == Level::Portable {
        return scramble.scramble_on(rng, columns);
    }
    // SAFETY: an Isa of a level above Portable was detected, so the processor has AVX2 and BMI2.
    unsafe { avx2(scramble, rng, columns) }
}

/// [`Interlace::each`]: bits spread by one instruction.
pub(super) fn interlace(isa: Isa, interlace: &Interlace, components: &[u64], body: impl FnMut(u64)) {
    #[target_feature(enable = "bmi2")]
    fn bmi2(interlace: &Interlace, components: &[u64], body: impl FnMut(u64)) {
        interlace.each_with(components, body, |value, mask| _pdep_u64(value, mask));
    }
    if isa.level() == Level::Portable {
        return interlace.each_with(components, body, scramble::deposit);
    }
    // SAFETY: an Isa of a level above Portable was detected, so the processor has BMI2.
    unsafe { bmi2(interlace, components, body) }
}

/// Makes the streamed stores of this thread visible to all who synchronise with it later.
pub(super) fn fence(stores: Stores) {
    if stores == Stores::Streamed {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() };
    }
}

/// # Safety
/// The processor has AVX2; `out` is not longer than `low`, a multiple of [`LANES`] long as `high` is, which is not
/// empty, and starts at a multiple of `STREAM` bytes if that is not 0.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const OPEN: bool, const STREAM: usize>(
    low: &[u64],
    high: &[u64],
    out: &mut [f64],
    to: Doubles,
) {
    let exponent = |e: u32| i64::from(1023 + e - to.bits) << 52;
    let (upper, lower) = (exponent(84), exponent(52));
    let bias = f64::from_bits(upper as u64) + f64::from_bits(lower as u64);
    let (upper, lower) = (_mm256_set1_epi64x(upper), _mm256_set1_epi64x(lower));
    let bias = _mm256_set1_pd(bias);
    let mask = _mm256_set1_epi64x(to.mask as i64);
    let (half, top) = (_mm256_set1_pd(HALF_UNIT), _mm256_set1_pd(1.0 - f64::EPSILON / 2.0));
    for (low, out) in low.chunks(high.len()).zip(out.chunks_mut(high.len())) {
        for at in (0..out.len()).step_by(LANES) {
            // SAFETY: `at + LANES` is at most the length of `out`, and so of `low` and `high`.
            let (a, b) = unsafe {
                (
                    _mm256_loadu_si256(low.as_ptr().add(at).cast()),
                    _mm256_loadu_si256(high.as_ptr().add(at).cast()),
                )
            };
            let mut x = _mm256_xor_si256(a, b);
            if OPEN {
                x = _mm256_and_si256(x, mask);
            }
            let h = _mm256_castsi256_pd(_mm256_or_si256(_mm256_srli_epi64::<32>(x), upper));
            let l = _mm256_castsi256_pd(_mm256_blend_epi32::<0b1010_1010>(x, lower));
            let mut value = _mm256_add_pd(_mm256_sub_pd(h, bias), l);
            if OPEN {
                value = _mm256_min_pd(_mm256_add_pd(value, half), top);
            }
            // SAFETY: as above for the place; the alignment is the caller's promise, kept by steps of 32 bytes.
            unsafe {
                let place = out.as_mut_ptr().add(at);
                match STREAM {
                    32 => _mm256_stream_pd(place, value),
                    16 => {
                        _mm_stream_pd(place, _mm256_castpd256_pd128(value));
                        _mm_stream_pd(place.add(2), _mm256_extractf128_pd::<1>(value));
                    }
                    _ => _mm256_storeu_pd(place, value),
                }
            }
        }
    }
}
