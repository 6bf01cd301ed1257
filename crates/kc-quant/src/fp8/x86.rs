//! The loops of FP8 compiled for AVX2.

#![expect(unsafe_code, reason = "enters functions compiled for a level that the Isa proves")]

use kc_core::{Isa, Level};

macro_rules! entries {
    ($($name:ident => $body:ident ($($arg:ident: $type:ty),*);)*) => {$(
        pub(super) fn $name(isa: Isa, $($arg: $type),*) {
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) {
                super::$body($($arg),*);
            }
            assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
            // SAFETY: an Isa of this level was detected, so the processor has AVX2.
            unsafe { avx2($($arg),*) }
        }
    )*};
}

entries! {
    encode => encode_all(x: &[f32], out: &mut [u8]);
    decode => decode_all(codes: &[u8], out: &mut [f32]);
    round => round_all(x: &mut [f32]);
}
