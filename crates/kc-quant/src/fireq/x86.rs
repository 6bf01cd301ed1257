//! The unpacking of the cache compiled for AVX2, whose shifts by lane it needs.

#![expect(unsafe_code, reason = "enters a function compiled for a level that the Isa proves")]

use std::ops::Range;

use kc_core::{Isa, Level};

use super::kv::{KvCache4, Side};

/// [`KvCache4::tokens`] at a level with AVX2.
pub(super) fn tokens(
    isa: Isa,
    cache: &KvCache4,
    side: Side,
    head: usize,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    #[target_feature(enable = "avx2,fma")]
    fn avx2(cache: &KvCache4, side: Side, head: usize, tokens: Range<usize>, out: &mut [f32]) {
        cache.tokens(side, head, tokens, out);
    }
    assert!(isa.level() >= Level::Avx2, "the loop needs AVX2");
    // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
    unsafe { avx2(cache, side, head, tokens, out) }
}
