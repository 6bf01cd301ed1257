//! The steps of [`Vector`] in safe code for any processor.

use crate::csr::{Index, Value};
use crate::simd::{Kernel, Vector};

/// No instructions beyond the target's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl Vector for Plain {
    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize) {}

    #[inline(always)]
    fn find<I: Index>(self, keys: &[I], start: usize, key: I) -> usize {
        find(keys, start, key)
    }

    #[inline(always)]
    fn bits(self, marks: &[u8; 64]) -> u64 {
        let (eights, _) = marks.as_chunks::<8>();
        // The product moves bit 8 k of the word to bit 56 + k.
        let byte = |m: &[u8; 8]| {
            (u64::from_le_bytes(*m) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
        };
        eights.iter().rev().fold(0, |bits, m| bits << 8 | byte(m))
    }

    #[inline(always)]
    fn emit<T: Value, I: Index>(
        self,
        base: usize,
        bits: u64,
        tile: &mut [T; 64],
        cols: &mut [I],
        vals: &mut [T],
    ) -> usize {
        emit(base, bits, tile, cols, vals)
    }
}

/// Runs `kernel` compiled for the target's own instructions. Never inlined: all dispatchers share one copy.
#[inline(never)]
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Plain)
}

/// See [`Vector::find`].
#[inline(always)]
pub(crate) fn find<I: Index>(keys: &[I], start: usize, key: I) -> usize {
    let mask = keys.len() - 1;
    let mut at = start & mask;
    while keys[at] != key && keys[at] != I::MAX {
        at = (at + 1) & mask;
    }
    at
}

/// See [`Vector::emit`].
#[inline(always)]
pub(crate) fn emit<T: Value, I: Index>(
    base: usize,
    bits: u64,
    tile: &mut [T; 64],
    cols: &mut [I],
    vals: &mut [T],
) -> usize {
    let n = bits.count_ones() as usize;
    let (cols, vals) = (&mut cols[..n], &mut vals[..n]);
    if n == 64 {
        vals.copy_from_slice(tile);
        *tile = [T::NEUTRAL; 64];
        cols.iter_mut().enumerate().for_each(|(t, c)| *c = I::from_usize(base + t));
        return n;
    }
    let mut rest = bits;
    for (c, v) in cols.iter_mut().zip(vals) {
        let t = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        *c = I::from_usize(base + t);
        *v = std::mem::replace(&mut tile[t & 63], T::NEUTRAL);
    }
    n
}
