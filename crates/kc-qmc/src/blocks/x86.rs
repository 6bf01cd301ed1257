//! Stores that leave the caches alone: a long output would only push out what is still needed, and each line would
//! first be read from memory in order to be overwritten.

#![expect(unsafe_code, reason = "non-temporal stores, in a function compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

/// Values of a register.
const LANES: usize = 4;

/// Copies `from` to `to`, which are of one length, if the level has 32-byte stores; else false.
pub(super) fn stream(isa: Isa, from: &[f64], to: &mut [f64]) -> bool {
    if isa.level() < Level::Avx2 || from.len() != to.len() {
        return false;
    }
    // SAFETY: an Isa of this level was detected, so the processor has AVX2.
    unsafe { stream_avx2(from, to) };
    true
}

#[target_feature(enable = "avx2")]
fn stream_avx2(from: &[f64], to: &mut [f64]) {
    let head = to.as_ptr().align_offset(LANES * size_of::<f64>()).min(to.len());
    let (first, to) = to.split_at_mut(head);
    let (start, from) = from.split_at(head);
    first.copy_from_slice(start);
    let whole = to.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        // SAFETY: at + LANES <= whole, at most the length of both slices, and `to` begins at a multiple of 32 bytes.
        unsafe { _mm256_stream_pd(to.as_mut_ptr().add(at), _mm256_loadu_pd(from.as_ptr().add(at))) };
    }
    to[whole..].copy_from_slice(&from[whole..]);
    // Makes the stores visible to other threads in the usual order.
    _mm_sfence();
}
