//! The tile with `vpmaddwd` on 256-bit registers: 4 rows x 16 columns (or 2 x 32) of sums.

#![expect(unsafe_code, reason = "AVX2 intrinsics over packed slices whose lengths the caller has checked")]

use std::arch::x86_64::*;

use super::NR;
use super::tile::integer_tiles;

/// Adds the products of `quads` to sums of `R` rows and `8 V` columns.
///
/// # Safety
/// `words` points to `quads` times `[stride rows][2]` words, of which the first `R` rows are read; `weights` to
/// `quads` times `NR * 4` bytes, of which the first `32 V` are read.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn group<const R: usize, const V: usize>(
    mut words: *const i32,
    mut weights: *const u8,
    quads: usize,
) -> [[__m256i; V]; R] {
    let mut sums = [[_mm256_setzero_si256(); V]; R];
    let low = _mm256_set1_epi16(0xff);
    for _ in 0..quads {
        let (mut even, mut odd) = ([_mm256_setzero_si256(); V], [_mm256_setzero_si256(); V]);
        for v in 0..V {
            // SAFETY: inside of this quad's weights, by the contract.
            let bytes = unsafe { _mm256_loadu_si256(weights.add(32 * v).cast()) };
            even[v] = _mm256_and_si256(bytes, low);
            odd[v] = _mm256_srli_epi16::<8>(bytes);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: inside of this quad's activations, by the contract.
            let (a02, a13) = unsafe { (*words.add(2 * r), *words.add(2 * r + 1)) };
            let (a02, a13) = (_mm256_set1_epi32(a02), _mm256_set1_epi32(a13));
            for v in 0..V {
                sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(even[v], a02));
                sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(odd[v], a13));
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
    features: "avx2,fma", level: Avx2, lanes: 8, words: 2,
    rows: [1 => 4, 2 => 2, 3 => 2, 4 => 2],
    int: {
        _mm256_set1_epi32, _mm256_sub_epi32, _mm256_storeu_si256
    },
    float: {
        _mm256_setzero_ps, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_add_ps, _mm256_storeu_ps
    },
}
