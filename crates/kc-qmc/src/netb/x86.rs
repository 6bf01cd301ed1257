//! The portable kernel compiled for AVX2: constants are added to 4 sums at a time. What looks terms up is bound by its
//! loads, which wider gathers do not make cheaper.

#![expect(unsafe_code, reason = "functions compiled for a detected level")]

use kc_core::{Isa, Level};

use super::portable::Plan;

/// [`Plan::fill`] on a level.
pub(super) fn fill(isa: Isa, plan: &Plan<'_>, first: u64, out: &mut [f64]) {
    match isa.level() {
        Level::Portable => plan.fill(first, out),
        // SAFETY: an Isa of at least this level was detected, so the processor has AVX2.
        _ => unsafe { fill_avx2(plan, first, out) },
    }
}

#[target_feature(enable = "avx2")]
fn fill_avx2(plan: &Plan<'_>, first: u64, out: &mut [f64]) {
    plan.fill(first, out);
}
