//! The body of `portable.rs`, compiled for AVX2.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::math::portable::Fused;
use kc_core::{Isa, Level};

use super::portable;

/// The normal quantile of every element.
///
/// # Panics
/// If `isa` is below AVX2, which the only caller rules out.
pub(super) fn quantile(isa: Isa, u: &[f64], out: &mut [f64]) {
    #[target_feature(enable = "avx2,fma")]
    fn avx2(u: &[f64], out: &mut [f64]) {
        portable::quantile::<Fused>(u, out);
    }

    assert!(isa.level() >= Level::Avx2, "needs AVX2");
    // SAFETY: an Isa of this level proves AVX2 and FMA.
    unsafe { avx2(u, out) }
}
