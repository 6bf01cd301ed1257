//! The portable kernel compiled for AVX2, where rounding down is one instruction. Wider registers do not help: the
//! limit is the memory.

#![expect(unsafe_code, reason = "functions compiled for a detected level")]

use std::ops::Range;

use kc_core::{Isa, Level};

use super::portable::{self, Walk};

/// [`portable::fill`] on a level.
pub(super) fn fill(isa: Isa, walk: &Walk, rows: Range<u64>, out: &mut [f64]) {
    match isa.level() {
        Level::Portable => portable::fill(walk, rows, out),
        // SAFETY: an Isa of at least this level was detected, so the processor has AVX2.
        _ => unsafe { fill_avx2(walk, rows, out) },
    }
}

#[target_feature(enable = "avx2")]
fn fill_avx2(walk: &Walk, rows: Range<u64>, out: &mut [f64]) {
    portable::fill_by(f64::floor, walk, rows, out);
}
