//! The portable sums compiled for AVX2.

#![expect(unsafe_code, reason = "functions compiled for a detected level")]

use kc_core::{Isa, Level};

use super::{Columns, Kind, portable};

/// [`portable::row`] on a level.
pub(super) fn row(isa: Isa, kind: Kind, columns: &Columns, block: usize) -> [f64; 2] {
    match isa.level() {
        Level::Portable => portable::row(kind, columns, block),
        // SAFETY: an Isa of at least this level was detected, so the processor has AVX2.
        _ => unsafe { row_avx2(kind, columns, block) },
    }
}

#[target_feature(enable = "avx2")]
fn row_avx2(kind: Kind, columns: &Columns, block: usize) -> [f64; 2] {
    portable::row(kind, columns, block)
}
