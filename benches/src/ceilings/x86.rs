//! The arithmetic ceilings with the processor's own instructions.

#![expect(unsafe_code, reason = "calls functions of a level that the Isa proves")]

use std::arch::x86_64::*;
use std::hint::black_box;

use kc_core::{Isa, Level};

/// Independent sums, enough to hide the latency of an instruction on two ports.
const SUMS: usize = 12;

/// Operations done, or None below AVX2.
pub(super) fn f32_multiply_adds(isa: Isa, rounds: u32) -> Option<f64> {
    let lanes = match isa.level() {
        Level::Portable => return None,
        Level::Avx2 => {
            // SAFETY: the Isa proves AVX2 and FMA.
            unsafe { fma_256(rounds) };
            8
        }
        _ => {
            // SAFETY: the Isa proves AVX-512 F.
            unsafe { fma_512(rounds) };
            16
        }
    };
    Some(f64::from(rounds) * (SUMS * lanes * 2) as f64)
}

/// Operations done, or None below AVX2.
pub(super) fn byte_multiply_adds(isa: Isa, rounds: u32) -> Option<f64> {
    let lanes = match isa.level() {
        Level::Portable => return None,
        Level::Avx2 => {
            // SAFETY: the Isa proves AVX2.
            unsafe { bytes_256(rounds) };
            32
        }
        Level::Avx512 => {
            // SAFETY: the Isa proves AVX-512 F and BW.
            unsafe { bytes_512(rounds) };
            64
        }
        _ => {
            // SAFETY: the Isa proves AVX-512 F and VNNI.
            unsafe { bytes_vnni(rounds) };
            64
        }
    };
    Some(f64::from(rounds) * (SUMS * lanes * 2) as f64)
}

#[target_feature(enable = "avx2,fma")]
fn fma_256(rounds: u32) {
    let (scale, shift) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.5)));
    let mut sums = [shift; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, scale, shift);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f")]
fn fma_512(rounds: u32) {
    let (scale, shift) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.5)));
    let mut sums = [shift; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, scale, shift);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2")]
fn bytes_256(rounds: u32) {
    let (codes, ones) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi16(black_box(1)));
    let mut sums = [ones; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // The sum stands in for the weights, so that no product can be moved out of the loop.
            let pairs = _mm256_maddubs_epi16(codes, *sum);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn bytes_512(rounds: u32) {
    let (codes, ones) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi16(black_box(1)));
    let mut sums = [ones; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            let pairs = _mm512_maddubs_epi16(codes, *sum);
            *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn bytes_vnni(rounds: u32) {
    let (codes, weights) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(-5)));
    let mut sums = [weights; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, codes, weights);
        }
    }
    black_box(sums);
}

/// The sum of all words with vectors of 256 bits, if the processor has them.
pub(super) fn sum(isa: Isa, words: &[u64]) -> Option<u64> {
    #[target_feature(enable = "avx2")]
    fn avx2(words: &[u64]) -> u64 {
        super::sum_of(words)
    }
    // SAFETY: an Isa of this level proves AVX2.
    (isa.level() >= Level::Avx2).then(|| unsafe { avx2(words) })
}

/// Writes `value` around the caches, if the processor can: false if it cannot.
pub(super) fn store(isa: Isa, words: &mut [u64], value: u64) -> bool {
    #[target_feature(enable = "avx2")]
    fn avx2(words: &mut [u64], value: u64) {
        // SAFETY: every bit pattern is a u64, and a vector is four of them.
        let (head, vectors, tail) = unsafe { words.align_to_mut::<__m256i>() };
        head.fill(value);
        tail.fill(value);
        let wide = _mm256_set1_epi64x(value as i64);
        for vector in vectors {
            // SAFETY: `vector` is a mutable, aligned place of 32 bytes.
            unsafe { _mm256_stream_si256(vector, wide) };
        }
        _mm_sfence();
    }
    if isa.level() < Level::Avx2 {
        return false;
    }
    // SAFETY: an Isa of this level proves AVX2.
    unsafe { avx2(words, value) };
    true
}
