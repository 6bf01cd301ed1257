//! Transposes of blocks in registers.

#![expect(unsafe_code, reason = "vector intrinsics on blocks whose bounds the safe entries assert")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

/// Defines the transpose of whole blocks of `$lanes` by `$lanes`.
macro_rules! turn {
    ($turn:ident, $blocks:ident, $t:ident, $lanes:literal, $load:ident, $store:ident, $block:ident) => {
        /// See `portable::turn`.
        pub(in crate::exact) fn $turn(isa: Isa, from: &[$t], depth: usize, width: usize, to: &mut [$t]) {
            const LANES: usize = $lanes;
            assert!(isa.level() >= Level::Avx2, "the level of this kernel");
            assert!(width % LANES == 0, "whole blocks of rows");
            assert!(from.len() >= width * depth && to.len() >= width * depth, "both matrices are there");
            let whole = depth - depth % LANES;
            // SAFETY: the level is proven, and blocks lie inside of both matrices.
            unsafe { $blocks(from.as_ptr(), depth, width, whole, to.as_mut_ptr()) }
            for c in whole..depth {
                for r in 0..width {
                    to[c * width + r] = from[r * depth + c];
                }
            }
        }

        /// # Safety
        /// `from` has `width` rows of `depth >= whole` elements, `to` has `whole` rows of `width`; `width` and `whole` are
        /// multiples of the lanes.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $blocks(from: *const $t, depth: usize, width: usize, whole: usize, to: *mut $t) {
            const LANES: usize = $lanes;
            for r in (0..width).step_by(LANES) {
                for c in (0..whole).step_by(LANES) {
                    // SAFETY: the block of rows r.. and columns c.., and its transpose.
                    unsafe {
                        let mut x = [$load(from.add(r * depth + c)); LANES];
                        for i in 1..LANES {
                            x[i] = $load(from.add((r + i) * depth + c));
                        }
                        let x = $block(x);
                        for i in 0..LANES {
                            $store(to.add((c + i) * width + r), x[i]);
                        }
                    }
                }
            }
        }
    };
}

turn!(turn_f32, blocks_f32, f32, 8, _mm256_loadu_ps, _mm256_storeu_ps, block_f32);
turn!(turn_f64, blocks_f64, f64, 4, _mm256_loadu_pd, _mm256_storeu_pd, block_f64);

#[inline]
#[target_feature(enable = "avx2,fma")]
fn block_f32(x: [__m256; 8]) -> [__m256; 8] {
    // Pairs of rows, then of pairs, within each half; then halves.
    let (a0, a1) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
    let (a2, a3) = (_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
    let (a4, a5) = (_mm256_unpacklo_ps(x[4], x[5]), _mm256_unpackhi_ps(x[4], x[5]));
    let (a6, a7) = (_mm256_unpacklo_ps(x[6], x[7]), _mm256_unpackhi_ps(x[6], x[7]));
    let (b0, b1) = (_mm256_shuffle_ps::<0x44>(a0, a2), _mm256_shuffle_ps::<0xee>(a0, a2));
    let (b2, b3) = (_mm256_shuffle_ps::<0x44>(a1, a3), _mm256_shuffle_ps::<0xee>(a1, a3));
    let (b4, b5) = (_mm256_shuffle_ps::<0x44>(a4, a6), _mm256_shuffle_ps::<0xee>(a4, a6));
    let (b6, b7) = (_mm256_shuffle_ps::<0x44>(a5, a7), _mm256_shuffle_ps::<0xee>(a5, a7));
    [
        _mm256_permute2f128_ps::<0x20>(b0, b4),
        _mm256_permute2f128_ps::<0x20>(b1, b5),
        _mm256_permute2f128_ps::<0x20>(b2, b6),
        _mm256_permute2f128_ps::<0x20>(b3, b7),
        _mm256_permute2f128_ps::<0x31>(b0, b4),
        _mm256_permute2f128_ps::<0x31>(b1, b5),
        _mm256_permute2f128_ps::<0x31>(b2, b6),
        _mm256_permute2f128_ps::<0x31>(b3, b7),
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn block_f64(x: [__m256d; 4]) -> [__m256d; 4] {
    let (a0, a1) = (_mm256_unpacklo_pd(x[0], x[1]), _mm256_unpackhi_pd(x[0], x[1]));
    let (a2, a3) = (_mm256_unpacklo_pd(x[2], x[3]), _mm256_unpackhi_pd(x[2], x[3]));
    [
        _mm256_permute2f128_pd::<0x20>(a0, a2),
        _mm256_permute2f128_pd::<0x20>(a1, a3),
        _mm256_permute2f128_pd::<0x31>(a0, a2),
        _mm256_permute2f128_pd::<0x31>(a1, a3),
    ]
}
