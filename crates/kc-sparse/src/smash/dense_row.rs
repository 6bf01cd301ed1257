//! The dense accumulator: a value, a mark and, for each tile of 64 columns, one more mark.
//!
//! Marks are bytes that are only ever stored while products come in: no product waits for the bits that its
//! neighbour has just set. Gathering scans the marks of tiles, then those of the columns of marked tiles:
//! columns come out ascending without a sort, and everything is reset on the way. Cost per row: products +
//! entries + n / 4096.

use std::hint::select_unpredictable;

use super::segments::{Cut, Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// A set mark: every bit, so that any bit of it can be gathered.
const SET: u8 = u8::MAX;

/// The accumulator of one thread. Between rows no mark is set and every value is [`Value::NEUTRAL`].
#[derive(Debug)]
pub(crate) struct DenseRow<T> {
    values: Vec<[T; 64]>,
    marks: Vec<[u8; 64]>,
    tiles: Vec<[u8; 64]>,
}

impl<T> Default for DenseRow<T> {
    fn default() -> Self {
        Self { values: Vec::new(), marks: Vec::new(), tiles: Vec::new() }
    }
}

/// Bytes that a tile takes.
const fn tile<T>() -> usize {
    64 * (size_of::<T>() + 1) + 1
}

/// Bytes of an accumulator for `columns`.
pub(crate) fn bytes<T>(columns: usize) -> usize {
    columns.div_ceil(64).saturating_mul(tile::<T>())
}

/// Columns of an accumulator that takes about `bytes`.
pub(crate) fn columns<T>(bytes: usize) -> usize {
    (bytes / tile::<T>()).max(1) * 64
}

impl<T: Value> DenseRow<T> {
    fn fit(&mut self, columns: usize) {
        let tiles = columns.div_ceil(64);
        if self.values.len() < tiles {
            self.values.resize(tiles, [T::NEUTRAL; 64]);
            self.marks.resize(tiles, [0; 64]);
            self.tiles.resize(tiles.div_ceil(64), [0; 64]);
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
        let (marks, tiles) = (&mut self.marks[..width.div_ceil(64)], &mut self.tiles[..width.div_ceil(4096)]);
        let values = &mut self.values[..marks.len()];
        let (flat, live) = (values.as_flattened_mut(), tiles.as_flattened_mut());
        let seen = marks.as_flattened_mut();
        f.for_each(v, i, cut, |a, cols, vals| {
            for (&column, &b) in cols.iter().zip(vals) {
                if !allows(column) {
                    continue;
                }
                let c = column.to_usize() - low;
                let (slot, mark) = (&mut flat[c], &mut seen[c]);
                if S::NEUTRAL {
                    *slot = f.s.add(*slot, f.s.multiply(a, b));
                } else if S::SPECULATE {
                    let product = f.s.multiply(a, b);
                    *slot = select_unpredictable(*mark == 0, product, f.s.add(*slot, product));
                } else if *mark == 0 {
                    *slot = f.s.multiply(a, b);
                } else if !S::ANY {
                    *slot = f.s.add(*slot, f.s.multiply(a, b));
                }
                *mark = SET;
                live[c / 64] = SET;
            }
        });
        self.gather(v, low, width, out)
    }

    /// Moves everything out, or counts it, and leaves the accumulator empty.
    #[inline(always)]
    fn gather<V: Vector, I: Index>(
        &mut self,
        v: V,
        low: usize,
        width: usize,
        mut out: Out<'_, I, T>,
    ) -> usize {
        let mut n = 0;
        for (w, word) in self.tiles[..width.div_ceil(4096)].iter_mut().enumerate() {
            let mut rest = v.bits(word);
            if rest == 0 {
                continue;
            }
            *word = [0; 64];
            while rest != 0 {
                let t = w * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let bits = v.bits(&self.marks[t]);
                self.marks[t] = [0; 64];
                n += match &mut out {
                    Some((cols, vals)) => {
                        v.emit(low + t * 64, bits, &mut self.values[t], &mut cols[n..], &mut vals[n..])
                    }
                    None => bits.count_ones() as usize,
                };
            }
        }
        n
    }
}
