//! The passes of `portable.rs` with registers of AVX2.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::{Isa, Level};

use super::portable::{self, Unit};
use super::roots::Roots;
use super::{Layout, Way};
use crate::lanes::x86::{F32x8, F64x4};

/// The kernels of one type of register, each with the safe entry that takes the proof. Way and layout are
/// constants in the loops.
macro_rules! kernels {
    ($module:ident, $t:ty, $v:ty, $l:literal) => {
        pub(super) mod $module {
            use super::*;

            pub(in super::super) fn leaf(
                isa: Isa,
                way: Way,
                x: &mut [Unit<$t, $l>],
                layout: [Layout; 2],
                scale: $t,
                roots: fn(usize) -> &'static Roots<$t, $l>,
            ) {
                #[target_feature(enable = "avx2,fma")]
                fn forward(
                    x: &mut [Unit<$t, $l>],
                    layout: [Layout; 2],
                    scale: $t,
                    roots: fn(usize) -> &'static Roots<$t, $l>,
                ) {
                    portable::leaf::<$t, $v, $l>(Way::Forward, x, layout, scale, roots);
                }
                #[target_feature(enable = "avx2,fma")]
                fn inverse(
                    x: &mut [Unit<$t, $l>],
                    layout: [Layout; 2],
                    scale: $t,
                    roots: fn(usize) -> &'static Roots<$t, $l>,
                ) {
                    portable::leaf::<$t, $v, $l>(Way::Inverse, x, layout, scale, roots);
                }
                assert!(isa.level() >= Level::Avx2);
                // SAFETY: an Isa of this level proves AVX2 and FMA.
                unsafe {
                    match way {
                        Way::Forward => forward(x, layout, scale, roots),
                        Way::Inverse => inverse(x, layout, scale, roots),
                    }
                }
            }

            pub(in super::super) fn pass(
                isa: Isa,
                way: Way,
                rows: [&mut [Unit<$t, $l>]; 4],
                at: usize,
                layout: [Layout; 2],
                roots: &Roots<$t, $l>,
            ) {
                #[target_feature(enable = "avx2,fma")]
                fn forward(
                    rows: [&mut [Unit<$t, $l>]; 4],
                    at: usize,
                    layout: [Layout; 2],
                    roots: &Roots<$t, $l>,
                ) {
                    portable::pass::<$t, $v, $l>(Way::Forward, rows, at, layout, roots);
                }
                #[target_feature(enable = "avx2,fma")]
                fn inverse(
                    rows: [&mut [Unit<$t, $l>]; 4],
                    at: usize,
                    layout: [Layout; 2],
                    roots: &Roots<$t, $l>,
                ) {
                    portable::pass::<$t, $v, $l>(Way::Inverse, rows, at, layout, roots);
                }
                assert!(isa.level() >= Level::Avx2);
                // SAFETY: an Isa of this level proves AVX2 and FMA.
                unsafe {
                    match way {
                        Way::Forward => forward(rows, at, layout, roots),
                        Way::Inverse => inverse(rows, at, layout, roots),
                    }
                }
            }
        }
    };
}

kernels!(f64x4, f64, F64x4, 4);
kernels!(f32x8, f32, F32x8, 8);
