//! The hash accumulator: a power-of-two table of at least twice as many slots as the row can have entries.
//!
//! Multiplicative hashing, linear probing, and a list of the occupied slots, through which the table is read
//! and emptied: a row costs what it holds, whatever the size of the table. Sorted output sorts the list
//! (radix sort above 256 entries).

use super::segments::{Cut, Factors, Out};
use super::sort::sort_packed;
use crate::csr::{Index, Value};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// The smallest table: a whole number of probe groups at every level.
const LEAST: usize = 16;

/// The accumulator of one thread. Empty between rows.
#[derive(Debug)]
pub(crate) struct HashRow<T, I: Index> {
    keys: Vec<I>,
    values: Vec<T>,
    occupied: Vec<u32>,
    packed: Vec<I::Packed>,
    spare: Vec<I::Packed>,
}

impl<T, I: Index> Default for HashRow<T, I> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            occupied: Vec::new(),
            packed: Vec::new(),
            spare: Vec::new(),
        }
    }
}

/// Slots for a row of at most `entries`.
fn slots(entries: usize) -> usize {
    entries.saturating_mul(2).max(LEAST).checked_next_power_of_two().unwrap_or(1 << 31).min(1 << 31)
}

/// Bytes of the table for a row of at most `entries`.
pub(crate) fn bytes<T, I>(entries: usize) -> usize {
    slots(entries).saturating_mul(size_of::<I>() + size_of::<T>())
}

/// The first slot that a column is looked for in.
#[inline(always)]
pub(crate) fn start<I: Index>(column: I, shift: u32) -> usize {
    (column.fold().wrapping_mul(2_654_435_769) >> shift) as usize
}

impl<T: Value, I: Index> HashRow<T, I> {
    /// Makes room for `entries`; the table's mask is in the length of the slices, the shift is returned.
    fn fit(&mut self, entries: usize) -> (usize, u32) {
        let slots = slots(entries);
        if self.keys.len() < slots {
            self.keys.resize(slots, I::MAX);
            self.values.resize(slots, T::default());
        }
        (slots, 32 - slots.trailing_zeros())
    }

    /// Row `i` inside of `cut`, which has at most `bound` entries; their number. Ascending if `sorted`, else
    /// as first seen.
    #[inline(always)]
    pub(crate) fn row<V: Vector, S: Semiring<Out = T>>(
        &mut self,
        v: V,
        f: &Factors<'_, S, I>,
        i: usize,
        cut: Cut,
        bound: usize,
        allows: impl Fn(I) -> bool,
        sorted: bool,
        out: Out<'_, I, T>,
    ) -> usize {
        let (slots, shift) = self.fit(bound);
        let (keys, values, occupied) =
            (&mut self.keys[..slots], &mut self.values[..slots], &mut self.occupied);
        f.for_each(v, i, cut, |a, cols, vals| {
            for (&column, &b) in cols.iter().zip(vals) {
                if !allows(column) {
                    continue;
                }
                let at = v.find(keys, start(column, shift), column);
                if keys[at] == I::MAX {
                    keys[at] = column;
                    values[at] = f.s.multiply(a, b);
                    occupied.push(at as u32);
                } else if !S::ANY {
                    values[at] = f.s.add(values[at], f.s.multiply(a, b));
                }
            }
        });
        let n = occupied.len();
        match out {
            Some((cols, vals)) if sorted => {
                self.packed.clear();
                self.packed.extend(
                    occupied.drain(..).map(|at| std::mem::replace(&mut keys[at as usize], I::MAX).pack(at)),
                );
                sort_packed::<I>(&mut self.packed, &mut self.spare, f.b.ncols());
                for ((c, v), &p) in cols[..n].iter_mut().zip(&mut vals[..n]).zip(&self.packed) {
                    let (column, at) = I::unpack(p);
                    (*c, *v) = (column, values[at as usize]);
                }
            }
            Some((cols, vals)) => {
                for ((c, v), at) in cols[..n].iter_mut().zip(&mut vals[..n]).zip(occupied.drain(..)) {
                    let at = at as usize;
                    (*c, *v) = (std::mem::replace(&mut keys[at], I::MAX), values[at]);
                }
            }
            None => occupied.drain(..).for_each(|at| keys[at as usize] = I::MAX),
        }
        n
    }
}
