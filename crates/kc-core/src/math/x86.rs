//! The bodies of `portable.rs`, compiled for AVX2 and for AVX-512.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use super::Function;
use super::portable::{self, Fused, Real};
use crate::{Isa, Level};

/// For each body, a function per instruction set and the safe entry that picks by the level of the `Isa`.
macro_rules! levels {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) $(-> $ret:ty)?;)*) => {$(
        pub(super) fn $name<T: Real>(isa: Isa, $($arg: $ty),*) $(-> $ret)? {
            #[target_feature(enable = "avx2,fma")]
            fn avx2<T: Real>($($arg: $ty),*) $(-> $ret)? {
                portable::$name::<T, Fused>($($arg),*)
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
            fn avx512<T: Real>($($arg: $ty),*) $(-> $ret)? {
                portable::$name::<T, Fused>($($arg),*)
            }

            if isa.level() >= Level::Avx512 {
                // SAFETY: an Isa of this level proves AVX-512 F, BW, DQ, VL, CD and all of AVX2's level.
                unsafe { avx512($($arg),*) }
            } else {
                debug_assert!(isa.level() >= Level::Avx2);
                // SAFETY: the only caller comes here for levels above Portable, and an Isa of such a level
                // proves AVX2 and FMA.
                unsafe { avx2($($arg),*) }
            }
        }
    )*};
}

levels! {
    map(function: Function, x: &[T], out: &mut [T]);
    map_in_place(function: Function, x: &mut [T]);
    exp_shifted(x: &[T], shift: T, out: &mut [T]) -> f64;
    sum_exp_shifted(x: &[T], shift: T) -> f64;
    scale(by: T, x: &mut [T]);
    dot(x: &[T], y: &[T]) -> T;
    dot_f64(x: &[T], y: &[T]) -> f64;
    sum(x: &[T]) -> T;
    sum_f64(x: &[T]) -> f64;
    min_max(x: &[T], first: T) -> (T, T);
    any_above(x: &[T], threshold: T) -> bool;
}
