//! The dense accumulator: a value per column, found again through a two-level bitmap.
//!
//! 64 columns share a tile: their bitmap word and their values side by side, so one column costs two cache
//! lines at most. A second bitmap has a bit per tile that holds anything. Gathering scans the second bitmap,
//! then the words of marked tiles: columns come out ascending without a sort, and everything is reset on the
//! way. Cost per row: products + entries + n / 4096.

use std::hint::select_unpredictable;

use super::segments::{Cut, Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// 64 neighbouring columns.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Tile<T> {
    bits: u64,
    values: [T; 64],
}

/// The accumulator of one thread. Empty between rows.
#[derive(Debug)]
pub(crate) struct DenseRow<T> {
    tiles: Vec<Tile<T>>,
    top: Vec<u64>,
}

impl<T> Default for DenseRow<T> {
    fn default() -> Self {
        Self { tiles: Vec::new(), top: Vec::new() }
    }
}

/// Bytes of an accumulator for `columns`.
pub(crate) fn bytes<T>(columns: usize) -> usize {
    columns.div_ceil(64).saturating_mul(size_of::<Tile<T>>())
}

/// Columns of an accumulator that takes about `bytes`.
pub(crate) fn columns<T>(bytes: usize) -> usize {
    (bytes / size_of::<Tile<T>>()).max(1) * 64
}

impl<T: Value> DenseRow<T> {
    fn fit(&mut self, columns: usize) {
        let tiles = columns.div_ceil(64);
        if self.tiles.len() < tiles {
            self.tiles.resize(tiles, Tile { bits: 0, values: [T::default(); 64] });
            self.top.resize(tiles.div_ceil(64), 0);
        }
    }

    /// Row `i` inside of `cut`, columns ascending; the number of its entries. `allows` tells which columns
    /// may have one.
    #[inline(always)]
    pub(crate) fn row<V: Vector, S: Semiring<Out = T>, I: Index>(
        &mut self,
        v: V,
        f: &Factors<'_, S, I>,
        i: usize,
        cut: Cut,
        allows: impl Fn(I) -> bool,
        out: Out<'_, I, T>,
    ) -> usize {
        let (low, width) = (cut.low(), cut.width(f.b.ncols()));
        self.fit(width);
        let (tiles, top) = (&mut self.tiles[..width.div_ceil(64)], &mut self.top[..width.div_ceil(4096)]);
        f.for_each(v, i, cut, |a, cols, vals| {
            for (&column, &b) in cols.iter().zip(vals) {
                if !allows(column) {
                    continue;
                }
                let c = column.to_usize() - low;
                let tile = &mut tiles[c / 64];
                let bit = 1u64 << (c % 64);
                let slot = &mut tile.values[c % 64];
                let fresh = tile.bits & bit == 0;
                if S::SPECULATE {
                    let product = f.s.multiply(a, b);
                    *slot = select_unpredictable(fresh, product, f.s.add(*slot, product));
                } else if fresh {
                    *slot = f.s.multiply(a, b);
                } else if !S::ANY {
                    *slot = f.s.add(*slot, f.s.multiply(a, b));
                }
                tile.bits |= bit;
                top[c / 4096] |= 1 << (c / 64 % 64);
            }
        });
        match out {
            Some((cols, vals)) => gather(v, tiles, top, low, cols, vals),
            None => count(tiles, top),
        }
    }
}

/// Moves everything out, ascending, and leaves the accumulator empty.
#[inline(always)]
fn gather<V: Vector, T: Value, I: Index>(
    v: V,
    tiles: &mut [Tile<T>],
    top: &mut [u64],
    low: usize,
    cols: &mut [I],
    vals: &mut [T],
) -> usize {
    let mut n = 0;
    for (w, word) in top.iter_mut().enumerate() {
        let mut rest = std::mem::take(word);
        while rest != 0 {
            let t = w * 64 + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let tile = &mut tiles[t];
            n += v.emit(low + t * 64, tile.bits, &tile.values, &mut cols[n..], &mut vals[n..]);
            tile.bits = 0;
        }
    }
    n
}

/// Counts everything and leaves the accumulator empty.
#[inline(always)]
fn count<T>(tiles: &mut [Tile<T>], top: &mut [u64]) -> usize {
    let mut n = 0;
    for (w, word) in top.iter_mut().enumerate() {
        let mut rest = std::mem::take(word);
        while rest != 0 {
            let t = w * 64 + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            n += std::mem::take(&mut tiles[t].bits).count_ones() as usize;
        }
    }
    n
}
