//! Masks: which entries of the result are wanted.
//!
//! A masked row marks the allowed columns first, so products of the others are dropped before they are
//! multiplied. When few columns are allowed and B is sorted, the row is not scattered at all: for each allowed
//! column, row `i` of A is merged with that column of B (through one transpose of B).

use std::borrow::Cow;

use kc_core::{Error, Result};

use super::segments::{Cut, Factors, Out};
use crate::csr::{CsrView, Index, Order, Value};
use crate::semiring::{Number, Semiring};
use crate::simd::Vector;

/// Which entries of a product are computed: those in the pattern of the mask, or with
/// [`complement`](Mask::complement) those outside of it.
///
/// ```
/// use kc_sparse::{Csr, Mask, SpgemmConfig, semiring::PlusPair, spgemm};
/// // A triangle 0-1-2 and a tail 2-3: common neighbours of each pair that is an edge.
/// let a: Csr<f64> = Csr::new(4, 4, vec![0, 2, 4, 7, 8], vec![1, 2, 0, 2, 0, 1, 3, 2], vec![1.0; 8])?;
/// let config = SpgemmConfig { mask: Some(Mask::structural(a.view())), ..SpgemmConfig::default() };
/// let c = spgemm(PlusPair::new(), a.view(), a.view(), &config)?;
/// assert_eq!(c.values().iter().sum::<f64>(), 6.0); // six times the number of triangles
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mask<'a, I: Index = u32> {
    nrows: usize,
    ncols: usize,
    indptr: Cow<'a, [i64]>,
    indices: Cow<'a, [I]>,
    sorted: bool,
    complement: bool,
}

impl<'a, I: Index> Mask<'a, I> {
    /// Every stored entry of `matrix` counts, whatever its value.
    pub fn structural<T: Value>(matrix: CsrView<'a, T, I>) -> Self {
        Self {
            nrows: matrix.nrows(),
            ncols: matrix.ncols(),
            indptr: Cow::Borrowed(matrix.indptr()),
            indices: Cow::Borrowed(matrix.indices()),
            sorted: matrix.order() == Order::Strict,
            complement: false,
        }
    }

    /// Only entries of `matrix` that are not zero count.
    pub fn by_value<T: Number>(matrix: CsrView<'a, T, I>) -> Self {
        let kept = crate::ops::drop_zeros(matrix.to_owned());
        let sorted = kept.order() == Order::Strict;
        let (indptr, indices, _) = kept.into_parts();
        let (nrows, ncols) = (matrix.nrows(), matrix.ncols());
        Self { nrows, ncols, indptr: indptr.into(), indices: indices.into(), sorted, complement: false }
    }

    /// Everything that this mask does not allow.
    #[must_use]
    pub fn complement(self) -> Self {
        Self { complement: !self.complement, ..self }
    }

    /// The marked columns of row `i`.
    pub(crate) fn row(&self, i: usize) -> &[I] {
        &self.indices[self.indptr[i] as usize..self.indptr[i + 1] as usize]
    }

    /// True if the marked columns are the forbidden ones.
    pub(crate) fn is_complement(&self) -> bool {
        self.complement
    }

    /// Checks the shape against that of the product, and what marking will need.
    pub(crate) fn check(&self, nrows: usize, ncols: usize, limit: usize) -> Result<()> {
        if (self.nrows, self.ncols) != (nrows, ncols) {
            let expected = format!("shape {:?}, that of the product", [nrows, ncols]);
            return Err(Error::shape("mask", expected, &[self.nrows, self.ncols]));
        }
        if self.complement && ncols / 8 > limit {
            return Err(Error::too_large("mask", ncols as u64 / 8, limit as u64, "bytes"));
        }
        Ok(())
    }
}

/// The marks of one thread. Empty between rows.
#[derive(Debug)]
pub(crate) struct MaskRow<T, I: Index> {
    /// Per column: 1 + its place among the allowed ones, or 0.
    place: Vec<u32>,
    /// The same through a hash table, when the columns are too many.
    keys: Vec<I>,
    key_place: Vec<u32>,
    columns: Vec<I>,
    values: Vec<T>,
    touched: Vec<bool>,
    /// Per column: a bit if it is forbidden.
    forbidden: Vec<u64>,
}

impl<T, I: Index> Default for MaskRow<T, I> {
    fn default() -> Self {
        Self {
            place: Vec::new(),
            keys: Vec::new(),
            key_place: Vec::new(),
            columns: Vec::new(),
            values: Vec::new(),
            touched: Vec::new(),
            forbidden: Vec::new(),
        }
    }
}

/// How a masked row finds the place of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// An array over all columns.
    Array,
    /// A hash table.
    Table,
}

impl<T: Value, I: Index> MaskRow<T, I> {
    /// Row `i`, only in the columns that `mask` allows; the number of its entries. Columns ascend.
    #[inline(always)]
    pub(crate) fn row<V: Vector, S: Semiring<Out = T>>(
        &mut self,
        v: V,
        f: &Factors<'_, S, I>,
        i: usize,
        mask: &Mask<'_, I>,
        marks: Marks,
        out: Out<'_, I, T>,
    ) -> usize {
        self.allow(mask, i);
        self.touched.clear();
        self.touched.resize(self.columns.len(), false);
        if self.values.len() < self.columns.len() {
            self.values.resize(self.columns.len(), T::default());
        }
        match marks {
            Marks::Array => {
                if self.place.len() < f.b.ncols() {
                    self.place.resize(f.b.ncols(), 0);
                }
                for (p, c) in self.columns.iter().enumerate() {
                    self.place[c.to_usize()] = p as u32 + 1;
                }
                let place = &self.place;
                scatter(v, f, i, &mut self.values, &mut self.touched, |c| place[c.to_usize()]);
                for c in &self.columns {
                    self.place[c.to_usize()] = 0;
                }
            }
            Marks::Table => {
                let slots = (self.columns.len() * 2).max(16).next_power_of_two();
                let shift = 32 - slots.trailing_zeros();
                if self.keys.len() < slots {
                    self.keys.resize(slots, I::MAX);
                    self.key_place.resize(slots, 0);
                }
                let keys = &mut self.keys[..slots];
                for (p, &c) in self.columns.iter().enumerate() {
                    let at = v.find(keys, super::hash::start(c, shift), c);
                    (keys[at], self.key_place[at]) = (c, p as u32 + 1);
                }
                let key_place = &self.key_place;
                scatter(v, f, i, &mut self.values, &mut self.touched, |c| {
                    let at = v.find(keys, super::hash::start(c, shift), c);
                    if keys[at] == c { key_place[at] } else { 0 }
                });
                keys.fill(I::MAX);
            }
        }
        let Some((cols, vals)) = out else { return self.touched.iter().filter(|&&t| t).count() };
        let mut n = 0;
        for (p, (&c, &value)) in self.columns.iter().zip(&self.values).enumerate() {
            if self.touched[p] {
                (cols[n], vals[n]) = (c, value);
                n += 1;
            }
        }
        n
    }

    /// Row `i` by merging row `i` of A with the allowed columns of B, which are the rows of `bt`.
    #[inline(never)]
    pub(crate) fn dot<S: Semiring<Out = T>>(
        &mut self,
        f: &Factors<'_, S, I>,
        bt: CsrView<'_, S::Right, I>,
        i: usize,
        mask: &Mask<'_, I>,
        mut out: Out<'_, I, T>,
    ) -> usize {
        self.allow(mask, i);
        let mut n = 0;
        for &c in &self.columns {
            if let Some(value) = dot(f, i, bt.row(c.to_usize())) {
                if let Some((cols, vals)) = &mut out {
                    (cols[n], vals[n]) = (c, value);
                }
                n += 1;
            }
        }
        n
    }

    /// Lists the allowed columns of row `i`, ascending, each once.
    fn allow(&mut self, mask: &Mask<'_, I>, i: usize) {
        self.columns.clear();
        self.columns.extend_from_slice(mask.row(i));
        if !mask.sorted {
            self.columns.sort_unstable();
            self.columns.dedup();
        }
    }

    /// Marks the columns that a complemented mask forbids in row `i`; their number.
    pub(crate) fn forbid(&mut self, mask: &Mask<'_, I>, i: usize, ncols: usize) -> usize {
        self.forbidden.resize(ncols.div_ceil(64).max(self.forbidden.len()), 0);
        let mut n = 0;
        for c in mask.row(i).iter().map(|c| c.to_usize()) {
            let (word, bit) = (&mut self.forbidden[c / 64], 1 << (c % 64));
            n += usize::from(*word & bit == 0);
            *word |= bit;
        }
        n
    }

    /// The marks of [`forbid`](Self::forbid), a bit per column.
    pub(crate) fn forbidden(&self) -> &[u64] {
        &self.forbidden
    }

    /// Undoes [`forbid`](Self::forbid).
    pub(crate) fn release(&mut self, mask: &Mask<'_, I>, i: usize) {
        for c in mask.row(i) {
            self.forbidden[c.to_usize() / 64] = 0;
        }
    }
}

/// Adds the products of row `i` at the places that `place` gives (0: none).
#[inline(always)]
fn scatter<V: Vector, S: Semiring, I: Index>(
    v: V,
    f: &Factors<'_, S, I>,
    i: usize,
    values: &mut [S::Out],
    touched: &mut [bool],
    place: impl Fn(I) -> u32,
) {
    f.for_each(v, i, Cut::ALL, |a, cols, vals| {
        for (&c, &b) in cols.iter().zip(vals) {
            let p = place(c) as usize;
            if p == 0 {
                continue;
            }
            let (value, seen) = (&mut values[p - 1], &mut touched[p - 1]);
            if !*seen {
                *value = f.s.multiply(a, b);
                *seen = true;
            } else if !S::ANY {
                *value = f.s.add(*value, f.s.multiply(a, b));
            }
        }
    });
}

/// The entry of row `i` of A and one column of B (ascending rows), summed in the stored order of A's row;
/// `None` if they have no pair.
#[inline(always)]
fn dot<S: Semiring, I: Index>(
    f: &Factors<'_, S, I>,
    i: usize,
    (rows, b): (&[I], &[S::Right]),
) -> Option<S::Out> {
    let (cols, a) = f.a.row(i);
    let mut sum = None;
    // One pair more; true if no other can change the result.
    let mut pair = |p: usize, q: usize| {
        sum = Some(match sum {
            None => f.s.multiply(a[p], b[q]),
            Some(sum) => f.s.add(sum, f.s.multiply(a[p], b[q])),
        });
        S::ANY
    };
    if f.a.order() == Order::Strict && cols.len() / 16 > rows.len() {
        // A's row is much longer: look each of the few rows up in it.
        let mut from = 0;
        for (q, row) in rows.iter().enumerate() {
            from += cols[from..].partition_point(|c| c < row);
            if cols.get(from) == Some(row) && pair(from, q) {
                break;
            }
        }
    } else if f.a.order() == Order::Strict && rows.len() / 16 <= cols.len() {
        let (mut p, mut q) = (0, 0);
        while p < cols.len() && q < rows.len() {
            if cols[p] == rows[q] {
                if pair(p, q) {
                    break;
                }
                // B's column may repeat a row, A's row repeats nothing.
                q += 1;
            } else {
                let behind = cols[p] < rows[q];
                p += usize::from(behind);
                q += usize::from(!behind);
            }
        }
    } else {
        'all: for (p, c) in cols.iter().enumerate() {
            let mut q = rows.partition_point(|r| r < c);
            while rows.get(q) == Some(c) {
                if pair(p, q) {
                    break 'all;
                }
                q += 1;
            }
        }
    }
    sum
}
