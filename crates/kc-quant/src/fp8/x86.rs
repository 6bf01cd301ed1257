//! The loops of FP8 with AVX2. Decoding and rounding are the safe loops compiled for it; encoding is written out, since
//! compilers narrow four registers to bytes well in one build and badly in another.

#![expect(
    unsafe_code,
    reason = "vector loads and stores, and functions compiled for a level that the Isa proves"
)]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::{MAGIC, NORMAL, STEP};

macro_rules! entries {
    ($($name:ident => $body:expr, ($($arg:ident: $type:ty),*);)*) => {$(
        pub(super) fn $name(isa: Isa, $($arg: $type),*) {
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) {
                $body($($arg),*);
            }
            assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
            // SAFETY: an Isa of this level was detected, so the processor has AVX2.
            unsafe { avx2($($arg),*) }
        }
    )*};
}

entries! {
    decode => super::decode_all, (codes: &[u8], out: &mut [f32]);
    round => super::round_all, (x: &mut [f32]);
}

/// [`super::encode_all`] at a level with AVX2.
pub(super) fn encode(isa: Isa, x: &[f32], out: &mut [u8]) {
    assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
    let ((steps, tail), (to, to_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (x, to) in steps.iter().zip(to) {
        // SAFETY: an Isa of this level was detected, so the processor has AVX2.
        unsafe { encode_step(x, to) }
    }
    super::encode_all(tail, to_tail);
}

#[target_feature(enable = "avx2")]
fn encode_step(x: &[f32; STEP], out: &mut [u8; STEP]) {
    // Two steps of packing keep to the halves of a register; this undoes the mixing.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let (a, b) =
        (_mm256_packus_epi32(codes(x, 0), codes(x, 1)), _mm256_packus_epi32(codes(x, 2), codes(x, 3)));
    let bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
    // SAFETY: the array has the 32 bytes of a register.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn set(bits: u32) -> __m256i {
    _mm256_set1_epi32(bits as i32)
}

/// [`super::encode`] of eight numbers, operation by operation.
#[inline]
#[target_feature(enable = "avx2")]
fn codes(x: &[f32; STEP], register: usize) -> __m256i {
    let eight: &[f32] = &x[8 * register..8 * register + 8];
    // SAFETY: the slice has eight elements.
    let bits = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
    let size = _mm256_and_si256(bits, set(0x7fff_ffff));
    let odd = _mm256_and_si256(_mm256_srli_epi32::<20>(size), set(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(size, set(0x7_ffff)), odd);
    let normal = _mm256_sub_epi32(_mm256_srli_epi32::<20>(rounded), set(120 << 3));
    let sum = _mm256_add_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(MAGIC));
    let small = _mm256_sub_epi32(_mm256_castps_si256(sum), set(MAGIC.to_bits()));
    let code = _mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(set(NORMAL), size));
    let code = _mm256_min_epi32(code, set(0x7e));
    let code = _mm256_or_si256(code, _mm256_and_si256(_mm256_srli_epi32::<24>(bits), set(0x80)));
    _mm256_blendv_epi8(code, set(0x7f), _mm256_cmpgt_epi32(size, set(0x7f80_0000)))
}
