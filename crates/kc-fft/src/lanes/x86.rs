//! Registers of AVX2 as [`Lanes`].
//!
//! The types leave this crate's kernels nowhere, and kernels with them run in functions that an
//! [`Isa`](kc_core::Isa) of AVX2 opens: that is the proof which every block below rests on.

#![expect(unsafe_code, reason = "AVX2 intrinsics, and loads and stores of whole arrays")]

use std::arch::x86_64::*;

use super::Lanes;

/// Four f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x4(__m256d);

/// Eight f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// What both types do alike.
macro_rules! arithmetic {
    ($v:ident, $t:ty, $l:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident,
     $fnma:ident) => {
        #[inline(always)]
        fn load(from: &[$t; $l]) -> Self {
            // SAFETY: the array has as many elements as the register; AVX2 is there (see the module).
            Self(unsafe { $load(from.as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut [$t; $l]) {
            // SAFETY: as for `load`.
            unsafe { $store(to.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn splat(x: $t) -> Self {
            // SAFETY: AVX2 is there (see the module).
            Self(unsafe { $splat(x) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX2 is there (see the module).
            Self(unsafe { $add(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: AVX2 is there (see the module).
            Self(unsafe { $sub(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: AVX2 is there (see the module).
            Self(unsafe { $mul(self.0, other.0) })
        }
        #[inline(always)]
        fn fma(self, by: Self, plus: Self) -> Self {
            // SAFETY: AVX2 and FMA are there (see the module).
            Self(unsafe { $fma(self.0, by.0, plus.0) })
        }
        #[inline(always)]
        fn fnma(self, by: Self, from: Self) -> Self {
            // SAFETY: AVX2 and FMA are there (see the module).
            Self(unsafe { $fnma(self.0, by.0, from.0) })
        }
    };
}

impl Lanes<f64, 4> for F64x4 {
    arithmetic!(
        F64x4,
        f64,
        4,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_fmadd_pd,
        _mm256_fnmadd_pd
    );

    #[inline(always)]
    fn swap(self, step: usize) -> Self {
        // SAFETY: AVX2 is there (see the module).
        Self(unsafe {
            match step {
                1 => _mm256_permute_pd::<0b0101>(self.0),
                _ => _mm256_permute2f128_pd::<1>(self.0, self.0),
            }
        })
    }
    #[inline(always)]
    fn split([a, b]: &[[f64; 4]; 2]) -> [Self; 2] {
        let (a, b) = (Self::load(a).0, Self::load(b).0);
        // SAFETY: AVX2 is there (see the module).
        unsafe {
            let (low, high) = (_mm256_permute2f128_pd::<0x20>(a, b), _mm256_permute2f128_pd::<0x31>(a, b));
            [Self(_mm256_unpacklo_pd(low, high)), Self(_mm256_unpackhi_pd(low, high))]
        }
    }
    #[inline(always)]
    fn join([re, im]: [Self; 2], [a, b]: &mut [[f64; 4]; 2]) {
        // SAFETY: AVX2 is there (see the module).
        let (low, high) = unsafe { (_mm256_unpacklo_pd(re.0, im.0), _mm256_unpackhi_pd(re.0, im.0)) };
        // SAFETY: as above.
        let (low, high) =
            unsafe { (_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high)) };
        Self(low).store(a);
        Self(high).store(b);
    }
}

impl Lanes<f32, 8> for F32x8 {
    arithmetic!(
        F32x8,
        f32,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_fnmadd_ps
    );

    #[inline(always)]
    fn swap(self, step: usize) -> Self {
        // SAFETY: AVX2 is there (see the module).
        Self(unsafe {
            match step {
                1 => _mm256_permute_ps::<0b10_11_00_01>(self.0),
                2 => _mm256_permute_ps::<0b01_00_11_10>(self.0),
                _ => _mm256_permute2f128_ps::<1>(self.0, self.0),
            }
        })
    }
    #[inline(always)]
    fn split([a, b]: &[[f32; 8]; 2]) -> [Self; 2] {
        let (a, b) = (Self::load(a).0, Self::load(b).0);
        // SAFETY: AVX2 is there (see the module).
        unsafe {
            let (low, high) = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            [
                Self(_mm256_shuffle_ps::<0b10_00_10_00>(low, high)),
                Self(_mm256_shuffle_ps::<0b11_01_11_01>(low, high)),
            ]
        }
    }
    #[inline(always)]
    fn join([re, im]: [Self; 2], [a, b]: &mut [[f32; 8]; 2]) {
        // SAFETY: AVX2 is there (see the module).
        let (low, high) = unsafe { (_mm256_unpacklo_ps(re.0, im.0), _mm256_unpackhi_ps(re.0, im.0)) };
        // SAFETY: as above.
        let (low, high) =
            unsafe { (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)) };
        Self(low).store(a);
        Self(high).store(b);
    }
}
