//! One row of the product: which accumulator it takes, and the pieces it is cut into when its table would not
//! fit the cache.

use std::borrow::Cow;

use super::Accumulator;
use super::dense_row::{self, DenseRow};
use super::hash::{self, HashRow};
use super::mask::{Marks, Mask, MaskRow};
use super::merge;
use super::runs::RunsRow;
use super::segments::{Cut, Factors, Out};
use super::sort::SortRow;
use crate::csr::{CsrView, Index, Order};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// Rows with at most this many entries are sorted.
const SORT_UP_TO: usize = 32;
/// Beyond this many products the sorting accumulator would hold too much; another one is taken.
const SORT_LIMIT: u64 = 1 << 24;

/// Everything that one thread needs between rows. Empty between rows, reused between products.
#[derive(Debug)]
pub(crate) struct Scratch<T, I: Index> {
    dense: DenseRow<T>,
    hash: HashRow<T, I>,
    sort: SortRow<T, I>,
    runs: RunsRow<T>,
    mask: MaskRow<T, I>,
}

impl<T, I: Index> Default for Scratch<T, I> {
    fn default() -> Self {
        Self {
            dense: DenseRow::default(),
            hash: HashRow::default(),
            sort: SortRow::default(),
            runs: RunsRow::default(),
            mask: MaskRow::default(),
        }
    }
}

/// A product to compute: factors, and what was found out about them.
pub(crate) struct Problem<'a, S: Semiring, I: Index> {
    pub(crate) f: Factors<'a, S, I>,
    /// Prefix sums of the products of each row.
    pub(crate) weights: &'a [u64],
    pub(crate) accumulator: Accumulator,
    pub(crate) sorted: bool,
    /// Bytes that an accumulator may take.
    pub(crate) budget: usize,
    pub(crate) mask: Option<&'a Mask<'a, I>>,
    /// B's transpose, if some masked rows are computed column by column.
    pub(crate) bt: Option<CsrView<'a, S::Right, I>>,
    /// Longest row of B.
    pub(crate) longest: usize,
    /// Where B's rows start, if most are runs of consecutive columns.
    pub(crate) runs: Option<&'a [I]>,
}

impl<S: Semiring, I: Index> Clone for Problem<'_, S, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Semiring, I: Index> Copy for Problem<'_, S, I> {}

/// True if a row with `products` products and `allowed` unmasked columns is cheaper column by column.
pub(crate) fn by_columns(products: u64, allowed: usize, longest: usize) -> bool {
    let steps = (longest.max(2) as f64).log2();
    (allowed as f64) * steps < products as f64 / 4.0
}

impl<S: Semiring, I: Index> Problem<'_, S, I> {
    /// Number of products of row `i`.
    #[inline(always)]
    pub(crate) fn products(&self, i: usize) -> u64 {
        self.weights[i + 1] - self.weights[i]
    }

    /// The most entries that row `i` can have.
    #[inline(always)]
    pub(crate) fn bound(&self, i: usize) -> usize {
        let columns = match self.mask {
            Some(mask) if !mask.is_complement() => mask.row(i).len(),
            _ => self.f.b.ncols(),
        };
        usize::try_from(self.products(i)).unwrap_or(usize::MAX).min(columns)
    }

    /// Row `i` inside of `cut`, into `out`; the number of its entries.
    #[inline(always)]
    pub(crate) fn row<V: Vector>(
        &self,
        v: V,
        scratch: &mut Scratch<S::Out, I>,
        i: usize,
        cut: Cut,
        out: Out<'_, I, S::Out>,
    ) -> usize {
        if self.products(i) == 0 {
            return 0;
        }
        match self.mask {
            None => self.plain(v, scratch, i, cut, out),
            Some(mask) if mask.is_complement() => {
                if scratch.mask.forbid(mask, i, self.f.b.ncols()) == self.f.b.ncols() {
                    scratch.mask.release(mask, i);
                    return 0;
                }
                let Scratch { dense, hash, sort, mask: marks, .. } = scratch;
                let forbidden = marks.forbidden();
                let allows = |c: I| forbidden[c.to_usize() / 64] >> (c.to_usize() % 64) & 1 == 0;
                let n = self.accumulate(v, dense, hash, sort, i, cut, allows, out);
                marks.release(mask, i);
                n
            }
            Some(mask) => {
                let allowed = mask.row(i).len();
                if allowed == 0 {
                    return 0;
                }
                if let Some(bt) = self.bt.filter(|_| by_columns(self.products(i), allowed, self.longest)) {
                    return scratch.mask.dot(&self.f, bt, i, mask, out);
                }
                let marks = match self.accumulator {
                    Accumulator::Hash => Marks::Table,
                    Accumulator::Dense => Marks::Array,
                    _ if self.f.b.ncols().saturating_mul(4) <= self.budget => Marks::Array,
                    _ => Marks::Table,
                };
                scratch.mask.row(v, &self.f, i, mask, marks, out)
            }
        }
    }

    /// An unmasked row.
    #[inline(always)]
    fn plain<V: Vector>(
        &self,
        v: V,
        scratch: &mut Scratch<S::Out, I>,
        i: usize,
        cut: Cut,
        mut out: Out<'_, I, S::Out>,
    ) -> usize {
        use Accumulator::{Auto, Merge, Runs};
        let strict = self.f.b.order() == Order::Strict;
        if strict && matches!(self.accumulator, Auto | Merge) && merge::fits(self.f.a.range(i).len()) {
            return merge::row(&self.f, i, cut, out);
        }
        if let Some(starts) = self.runs.filter(|_| matches!(self.accumulator, Auto | Runs)) {
            let target = out.as_mut().map(|(cols, vals)| (&mut **cols, &mut **vals));
            if let Some(n) = scratch.runs.row(&self.f, starts, i, cut, target) {
                return n;
            }
        }
        let Scratch { dense, hash, sort, .. } = scratch;
        self.accumulate(v, dense, hash, sort, i, cut, |_| true, out)
    }

    /// A row by the dense, hash or sorting accumulator.
    #[inline(always)]
    fn accumulate<V: Vector>(
        &self,
        v: V,
        dense: &mut DenseRow<S::Out>,
        hash: &mut HashRow<S::Out, I>,
        sort: &mut SortRow<S::Out, I>,
        i: usize,
        cut: Cut,
        allows: impl Fn(I) -> bool,
        mut out: Out<'_, I, S::Out>,
    ) -> usize {
        let f = &self.f;
        let columns = cut.width(f.b.ncols());
        let products = if cut == Cut::ALL { self.products(i) } else { f.products(i, cut) };
        let bound = usize::try_from(products).unwrap_or(usize::MAX).min(columns);
        let kind = self.choose(columns, bound, products);
        if kind == Accumulator::Sort {
            return sort.row(v, f, i, cut, &allows, out);
        }
        let parts = self.cuts(kind, i, cut, columns, bound);
        let mut n = 0;
        for part in parts.iter() {
            let target = out.as_mut().map(|(cols, vals)| (&mut cols[n..], &mut vals[n..]));
            n += if kind == Accumulator::Dense {
                dense.row(v, f, i, *part, &allows, target)
            } else {
                let bound = if parts.len() == 1 {
                    bound
                } else {
                    let products = usize::try_from(f.products(i, *part)).unwrap_or(usize::MAX);
                    products.min(part.width(f.b.ncols()))
                };
                hash.row(v, f, i, *part, bound, &allows, self.sorted, target)
            };
        }
        n
    }

    /// Dense, Hash or Sort for a row of `products` products over `columns`, with at most `bound` entries.
    #[inline(always)]
    fn choose(&self, columns: usize, bound: usize, products: u64) -> Accumulator {
        match self.accumulator {
            Accumulator::Dense => return Accumulator::Dense,
            Accumulator::Hash => return Accumulator::Hash,
            Accumulator::Sort if products <= SORT_LIMIT => return Accumulator::Sort,
            _ => {}
        }
        if bound <= SORT_UP_TO && products <= 4 * SORT_UP_TO as u64 {
            return Accumulator::Sort;
        }
        let products = products as f64;
        let fits = dense_row::bytes::<S::Out>(columns) <= self.budget;
        // A dense row scans a bit per tile, 64 tiles a word; a hash row sorts what it holds.
        let dense = columns as f64 / 4096.0 + products / 8.0;
        let sort = bound as f64 * (bound as f64).log2() / 4.0;
        // Wide rows that fill much of their columns go dense in blocks of columns.
        let full = products * 16.0 >= columns as f64 && self.cuttable();
        if (fits || full) && dense < sort { Accumulator::Dense } else { Accumulator::Hash }
    }

    /// True if rows may be cut by columns.
    pub(crate) fn cuttable(&self) -> bool {
        self.f.b.order() != Order::Unsorted
    }

    /// The blocks of columns that row `i` is computed in, ascending, so that each fits the budget.
    #[inline(always)]
    fn cuts(
        &self,
        kind: Accumulator,
        i: usize,
        cut: Cut,
        columns: usize,
        bound: usize,
    ) -> Cow<'static, [Cut]> {
        let need = match kind {
            Accumulator::Dense => dense_row::bytes::<S::Out>(columns),
            _ => hash::bytes::<S::Out, I>(bound),
        };
        if need <= self.budget || !self.cuttable() {
            return match cut {
                Cut::ALL => Cow::Borrowed(const { &[Cut::ALL] }),
                cut => Cow::Owned(vec![cut]),
            };
        }
        Cow::Owned(self.blocks(kind, i, cut, columns, need))
    }

    #[cold]
    fn blocks(&self, kind: Accumulator, i: usize, cut: Cut, columns: usize, need: usize) -> Vec<Cut> {
        if kind == Accumulator::Hash {
            return quantiles(&self.f, i, cut, need.div_ceil(self.budget.max(1)));
        }
        // Blocks that hold anything, each starting at its first column.
        let width = dense_row::columns::<S::Out>(self.budget);
        let end = cut.low() + columns;
        let mut blocks = Vec::new();
        let mut low = cut.low();
        while let Some(first) = self.first_column(i, low, end) {
            let high = first.saturating_add(width).min(end);
            blocks.push(Cut(Some((first, high))));
            low = high;
        }
        blocks
    }

    /// The first column of row `i` inside of `low..end`.
    fn first_column(&self, i: usize, low: usize, end: usize) -> Option<usize> {
        let (a, b) = (&self.f.a, &self.f.b);
        let first = |k: &I| {
            let (cols, _) = b.row(k.to_usize());
            let c = cols.get(cols.partition_point(|c| c.to_usize() < low))?.to_usize();
            (c < end).then_some(c)
        };
        a.row(i).0.iter().filter_map(first).min()
    }
}

/// Cuts the columns of row `i` inside of `cut` into `parts` of about equal products, found from a sample. B is
/// sorted.
pub(crate) fn quantiles<S: Semiring, I: Index>(
    f: &Factors<'_, S, I>,
    i: usize,
    cut: Cut,
    parts: usize,
) -> Vec<Cut> {
    const SAMPLE: u64 = 4096;
    let (low, end) = (cut.low(), cut.low() + cut.width(f.b.ncols()));
    let step = (f.products(i, cut) / SAMPLE).max(1);
    let (mut sample, mut seen) = (Vec::with_capacity(2 * SAMPLE as usize), 0u64);
    for k in f.a.row(i).0 {
        let range = cut.segment(&f.b, k.to_usize());
        let mut at = seen.next_multiple_of(step) - seen;
        while at < range.len() as u64 {
            sample.push(f.b.indices()[range.start + at as usize].to_usize());
            at += step;
        }
        seen += range.len() as u64;
    }
    sample.sort_unstable();
    let mut edges: Vec<usize> =
        (1..parts).filter_map(|p| sample.get(p * sample.len() / parts)).copied().collect();
    edges.insert(0, low);
    edges.push(end);
    edges.dedup();
    edges.windows(2).map(|w| Cut(Some((w[0], w[1])))).collect()
}
