//! The loops of `portable.rs`, compiled for AVX2.

#![expect(unsafe_code, reason = "calls functions that need instruction sets which the Isa proves")]

use kc_core::math::portable::Fused;
use kc_core::{Isa, Level};

use super::portable;

/// # Panics
/// If `isa` is below AVX2, which the only caller rules out.
pub(super) fn affine(isa: Isa, panels: &[f64], z: &[f64], shift: &[f64], out: &mut [f64]) {
    #[target_feature(enable = "avx2,fma")]
    fn avx2(panels: &[f64], z: &[f64], shift: &[f64], out: &mut [f64]) {
        portable::affine::<Fused>(panels, z, shift, out);
    }

    assert!(isa.level() >= Level::Avx2, "needs AVX2");
    // SAFETY: an Isa of this level proves AVX2 and FMA.
    unsafe { avx2(panels, z, shift, out) }
}
