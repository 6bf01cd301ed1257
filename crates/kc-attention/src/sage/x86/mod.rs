//! The loops compiled for AVX2, and the kernels with intrinsics.

#![expect(unsafe_code, reason = "functions compiled for a level that the Isa proves")]

use kc_core::{Isa, Level};

use super::portable;

pub(super) mod avx2;

/// A safe entry for each loop of [`portable`], compiled for AVX2.
macro_rules! entries {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        #[inline]
        pub(super) fn $name(isa: Isa, $($arg: $type),*) $(-> $out)? {
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                portable::$name($($arg),*)
            }
            assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
            // SAFETY: an Isa of this level was detected, so the processor has AVX2.
            unsafe { avx2($($arg),*) }
        }
    )*};
}

entries! {
    add(row: &[f32], sums: &mut [f64]);
    largest(row: &[f32], mean: &[f32]) -> u32;
    encode(row: &[f32], mean: &[f32], inverse: f32, limit: f32, out: &mut [i8]);
    widen(row: &[f32], mean: &[f32], top: &mut [u32]);
    interleave(a: &[f32], b: &[f32], inverse: &[f32], limit: f32, out: &mut [i32]);
    dot_without(x: &[f32], y: &[f32], mean: &[f32]) -> f32;
    expand_bytes(packed: &[u8], out: &mut [i8]);
}
