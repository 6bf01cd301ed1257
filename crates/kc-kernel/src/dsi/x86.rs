//! The loops of `portable.rs`, compiled for AVX2. (Without fused multiplications: the same bits.)

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::{Isa, Level};

use super::portable::{self, Kappa};

macro_rules! levels {
    ($($name:ident),*) => {$(
        pub(super) fn $name(isa: Isa, kappa: Kappa, by: f64, bits: u32, x: &[u64], z: u64, out: &mut [f64]) {
            #[target_feature(enable = "avx2")]
            fn avx2(kappa: Kappa, by: f64, bits: u32, x: &[u64], z: u64, out: &mut [f64]) {
                portable::$name(kappa, by, bits, x, z, out);
            }
            assert!(isa.level() >= Level::Avx2);
            // SAFETY: an Isa of this level proves AVX2.
            unsafe { avx2(kappa, by, bits, x, z, out) }
        }
    )*};
}

levels!(add, multiply);
