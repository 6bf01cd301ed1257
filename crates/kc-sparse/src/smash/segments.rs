//! Walking the products of one row: every kernel sees them as pieces of rows of B, in the stored order of
//! A's row.

use std::ops::Range;

use crate::csr::{CsrView, Index};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// The two factors and the algebra.
pub(crate) struct Factors<'a, S: Semiring, I> {
    pub(crate) s: S,
    pub(crate) a: CsrView<'a, S::Left, I>,
    pub(crate) b: CsrView<'a, S::Right, I>,
}

impl<S: Semiring, I> Clone for Factors<'_, S, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Semiring, I> Copy for Factors<'_, S, I> {}

/// The columns of the result that are computed: all, or `lo..hi` (B is sorted then).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut(pub(crate) Option<(usize, usize)>);

impl Cut {
    /// All columns.
    pub(crate) const ALL: Cut = Cut(None);

    /// The first column.
    #[inline(always)]
    pub(crate) fn low(self) -> usize {
        self.0.map_or(0, |(lo, _)| lo)
    }

    /// Number of columns out of `ncols`.
    #[inline(always)]
    pub(crate) fn width(self, ncols: usize) -> usize {
        self.0.map_or(ncols, |(lo, hi)| hi - lo)
    }

    /// The part of row `k` of `b` inside of the cut.
    #[inline(always)]
    pub(crate) fn segment<T: crate::Value, I: Index>(self, b: &CsrView<'_, T, I>, k: usize) -> Range<usize> {
        let range = b.range(k);
        let Some((lo, hi)) = self.0 else { return range };
        let cols = &b.indices()[range.clone()];
        let start = cols.partition_point(|c| c.to_usize() < lo);
        let len = cols[start..].partition_point(|c| c.to_usize() < hi);
        range.start + start..range.start + start + len
    }
}

/// A's entries ahead whose row offsets of B are asked for.
const FAR: usize = 8;
/// A's entries ahead whose first entries of B are asked for.
const NEAR: usize = 4;

impl<S: Semiring, I: Index> Factors<'_, S, I> {
    /// Calls `body(a_ik, columns, values)` with each piece of B that row `i` multiplies, in stored order.
    #[inline(always)]
    pub(crate) fn for_each<V: Vector>(
        &self,
        v: V,
        i: usize,
        cut: Cut,
        mut body: impl FnMut(S::Left, &[I], &[S::Right]),
    ) {
        let (a, b) = (&self.a, &self.b);
        for q in a.range(i) {
            self.prefetch(v, q);
            let range = cut.segment(b, a.indices()[q].to_usize());
            body(a.values()[q], &b.indices()[range.clone()], &b.values()[range]);
        }
    }

    /// Asks for what entry `q` of A's coming neighbours will need: these reads have no pattern that hardware
    /// could guess.
    #[inline(always)]
    pub(crate) fn prefetch<V: Vector>(&self, v: V, q: usize) {
        let ahead = self.a.indices();
        if let Some(k) = ahead.get(q + FAR) {
            v.prefetch(self.b.indptr(), k.to_usize());
        }
        if let Some(k) = ahead.get(q + NEAR) {
            let at = self.b.indptr()[k.to_usize()] as usize;
            v.prefetch(self.b.indices(), at);
            v.prefetch(self.b.indices(), at + 64 / size_of::<I>());
            v.prefetch(self.b.values(), at);
            v.prefetch(self.b.values(), at + 64 / size_of::<S::Right>().max(1));
        }
    }

    /// Number of products of row `i` inside of the cut.
    pub(crate) fn products(&self, i: usize, cut: Cut) -> u64 {
        let (a, b) = (&self.a, &self.b);
        a.row(i).0.iter().map(|k| cut.segment(b, k.to_usize()).len() as u64).sum()
    }
}

/// Where a finished row goes: columns and values, or nowhere when rows are only counted.
pub(crate) type Out<'o, I, T> = Option<(&'o mut [I], &'o mut [T])>;
