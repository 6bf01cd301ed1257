//! The passes of `portable.rs` with registers of AVX2.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::{Isa, Level};

use super::portable;
use crate::lanes::x86::{F32x8, F64x4};

/// The kernels of one type of register, each with the safe entry that takes the proof.
macro_rules! kernels {
    ($module:ident, $t:ty, $v:ty, $l:literal) => {
        pub(super) mod $module {
            use super::*;

            kernels!(@entry $t, $v, $l, leaf, x: &mut [[$t; $l]], scale: Option<$t>);
            kernels!(@entry $t, $v, $l, pass, rows: [&mut [[$t; $l]]; 8], scale: Option<$t>);
            kernels!(@entry $t, $v, $l, double, rows: [&mut [[$t; $l]]; 2], scale: $t);
        }
    };
    (@entry $t:ty, $v:ty, $l:literal, $name:ident, $($arg:ident: $ty:ty),*) => {
        pub(in super::super) fn $name(isa: Isa, $($arg: $ty),*) {
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                portable::$name::<$t, $v, $l>($($arg),*);
            }
            assert!(isa.level() >= Level::Avx2);
            // SAFETY: an Isa of this level proves AVX2 and FMA.
            unsafe { avx2($($arg),*) }
        }
    };
}

kernels!(f64x4, f64, F64x4, 4);
kernels!(f32x8, f32, F32x8, 8);
