//! Rows times a matrix: what turns independent normal numbers into dependent ones.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use kc_core::Isa;
#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::math::portable::Plain;

/// `out[r] = shift + sum_k z[r][k] a[k]` for rows of `shift.len()` values; `a` has as many rows as columns. Each
/// entry is summed in the order of `k`, so a row's result does not depend on its place.
pub(crate) fn affine(isa: Isa, z: &[f64], a: &[f64], shift: &[f64], out: &mut [f64]) {
    debug_assert!(z.len() == out.len() && a.len() == shift.len() * shift.len());
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 {
        x86::affine(isa, z, a, shift, out);
        return;
    }
    let _ = isa;
    portable::affine::<Plain>(z, a, shift, out);
}
