//! The tile with `vpdpbusd` on 512-bit registers: 12 rows x 32 columns of sums.
//!
//! The instruction multiplies unsigned with signed bytes: the weights are stored as `w + 128`, the activations
//! are signed.

#![expect(unsafe_code, reason = "AVX-512 intrinsics over packed slices whose lengths the caller has checked")]

use std::arch::x86_64::*;

use super::NR;
use super::tile::integer_tiles;

/// Sums of `R` rows and `16 V` columns over `quads` quads.
///
/// # Safety
/// `words` points to `quads` times `R` words; `weights` to `quads` times `NR * 4` bytes, of which the first
/// `64 V` are read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn group<const R: usize, const V: usize>(
    mut words: *const i32,
    mut weights: *const u8,
    quads: usize,
) -> [[__m512i; V]; R] {
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    for _ in 0..quads {
        let mut bytes = [_mm512_setzero_si512(); V];
        for (v, bytes) in bytes.iter_mut().enumerate() {
            // SAFETY: inside of this quad's weights, by the contract.
            *bytes = unsafe { _mm512_loadu_si512(weights.add(64 * v).cast()) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: inside of this quad's activations, by the contract.
            let four = _mm512_set1_epi32(unsafe { *words.add(r) });
            for (sum, &bytes) in sums.iter_mut().zip(&bytes) {
                *sum = _mm512_dpbusd_epi32(*sum, bytes, four);
            }
        }
        // SAFETY: at most one past the end, by the contract.
        unsafe {
            words = words.add(R);
            weights = weights.add(4 * NR);
        }
    }
    sums
}

integer_tiles! {
    features: "avx512f,avx512bw,avx512vnni", level: Avx512Icl, lanes: 16, words: 1,
    rows: [1 => 2, 2 => 2, 3 => 2, 4 => 2, 5 => 2, 6 => 2, 7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2],
    int: {
        _mm512_set1_epi32, _mm512_sub_epi32, _mm512_storeu_si512
    },
    float: {
        _mm512_setzero_ps, _mm512_cvtepi32_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_add_ps, _mm512_storeu_ps
    },
}
