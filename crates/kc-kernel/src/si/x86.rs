//! The loops of `portable.rs`, compiled for AVX2.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::{Isa, Level};

use super::{Polynomial, portable};

macro_rules! levels {
    ($($name:ident),*) => {$(
        pub(super) fn $name(isa: Isa, c: &Polynomial, x: &[f64], z: f64, out: &mut [f64]) {
            #[target_feature(enable = "avx2,fma")]
            fn avx2(c: &Polynomial, x: &[f64], z: f64, out: &mut [f64]) {
                portable::$name::<true>(c, x, z, out);
            }
            assert!(isa.level() >= Level::Avx2);
            // SAFETY: an Isa of this level proves AVX2 and FMA.
            unsafe { avx2(c, x, z, out) }
        }
    )*};
}

levels!(factor, multiply);
