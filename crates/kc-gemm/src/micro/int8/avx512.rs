//! The tile with `vpmaddwd` on 512-bit registers: 12 rows x 32 columns of sums.

#![expect(unsafe_code, reason = "AVX-512 intrinsics over packed slices whose lengths the caller has checked")]

use std::arch::x86_64::*;

use super::NR;
use super::tile::integer_tiles;

/// Sums of `R` rows and `16 V` columns over `quads` quads.
///
/// # Safety
/// `words` points to `quads` times `[R rows][2]` words; `weights` to `quads` times `NR * 4` bytes, of which the
/// first `64 V` are read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn group<const R: usize, const V: usize>(
    mut words: *const i32,
    mut weights: *const u8,
    quads: usize,
) -> [[__m512i; V]; R] {
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    let low = _mm512_set1_epi16(0xff);
    for _ in 0..quads {
        let (mut even, mut odd) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
        for v in 0..V {
            // SAFETY: inside of this quad's weights, by the contract.
            let bytes = unsafe { _mm512_loadu_si512(weights.add(64 * v).cast()) };
            even[v] = _mm512_and_si512(bytes, low);
            odd[v] = _mm512_srli_epi16::<8>(bytes);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: inside of this quad's activations, by the contract.
            let (a02, a13) = unsafe { (*words.add(2 * r), *words.add(2 * r + 1)) };
            let (a02, a13) = (_mm512_set1_epi32(a02), _mm512_set1_epi32(a13));
            for v in 0..V {
                sums[v] = _mm512_add_epi32(sums[v], _mm512_madd_epi16(even[v], a02));
                sums[v] = _mm512_add_epi32(sums[v], _mm512_madd_epi16(odd[v], a13));
            }
        }
        // SAFETY: at most one past the end, by the contract.
        unsafe {
            words = words.add(2 * R);
            weights = weights.add(4 * NR);
        }
    }
    sums
}

integer_tiles! {
    features: "avx512f,avx512bw", level: Avx512, lanes: 16, words: 2,
    rows: [1 => 2, 2 => 2, 3 => 2, 4 => 2, 5 => 2, 6 => 2, 7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2],
    int: {
        _mm512_set1_epi32, _mm512_sub_epi32, _mm512_storeu_si512
    },
    float: {
        _mm512_setzero_ps, _mm512_cvtepi32_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_add_ps, _mm512_storeu_ps
    },
}
