//! Rows whose rows of B are runs of consecutive columns (banded, stencil and block matrices): a contiguous
//! accumulator and vector additions, no look-up per product.
//!
//! While each run overlaps or touches what is covered so far, the accumulator is the result row itself. Runs
//! with gaps between them go through a window of at most [`WINDOW`] columns with a bitmap.

use super::segments::{Cut, Factors, Out};
use crate::csr::{CsrView, Index, Order, Value};
use crate::semiring::Semiring;

/// The most columns that the union of a row's runs may span.
pub(crate) const WINDOW: usize = 4096;

/// The first column of each row of `b` that is a run of consecutive columns; [`Index::MAX`] for the others. `None`
/// unless most entries stand in runs of some length.
pub(crate) fn starts<T: Value, I: Index>(b: CsrView<'_, T, I>) -> Option<Vec<I>> {
    const LEAST: usize = 4;
    if b.order() != Order::Strict {
        return None;
    }
    let start = |i: usize| match b.row(i).0 {
        [] => Some(I::default()),
        // Columns rise strictly, so only a run spans exactly its length.
        row @ [first, .., last] => (last.to_usize() - first.to_usize() + 1 == row.len()).then_some(*first),
        [only] => Some(*only),
    };
    let long = |i: usize| b.range(i).len() >= LEAST && start(i).is_some();
    let entries: usize = (0..b.nrows()).filter(|&i| long(i)).map(|i| b.range(i).len()).sum();
    (2 * entries > b.nnz()).then(|| (0..b.nrows()).map(|i| start(i).unwrap_or(I::MAX)).collect())
}

/// The window of one thread, and the runs of its current row.
#[derive(Debug)]
pub(crate) struct RunsRow<T> {
    values: Vec<T>,
    runs: Vec<Run>,
}

impl<T> Default for RunsRow<T> {
    fn default() -> Self {
        Self { values: Vec::new(), runs: Vec::new() }
    }
}

/// A row of B: its first column, where its values start, their number.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    at: usize,
    len: usize,
}

/// What the runs of a row cover.
#[derive(Clone, Copy)]
struct Span {
    lo: usize,
    hi: usize,
    contiguous: bool,
}

/// Stores a multiple of `b`.
#[inline(always)]
pub(crate) fn store<S: Semiring>(s: S, a: S::Left, b: &[S::Right], out: &mut [S::Out]) {
    for (x, &b) in out.iter_mut().zip(b) {
        *x = s.multiply(a, b);
    }
}

/// Adds a multiple of `b`, eight at a time: runs are short, so longer steps would leave most of them to the rest.
#[inline(always)]
pub(crate) fn add<S: Semiring>(s: S, a: S::Left, b: &[S::Right], out: &mut [S::Out]) {
    if S::ANY {
        return;
    }
    let (eights, rest) = out.as_chunks_mut::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    for (x, b) in eights.iter_mut().zip(b_eights) {
        *x = std::array::from_fn(|t| s.add(x[t], s.multiply(a, b[t])));
    }
    for (x, &b) in rest.iter_mut().zip(b_rest) {
        *x = s.add(*x, s.multiply(a, b));
    }
}

impl<T: Value> RunsRow<T> {
    /// Row `i` inside of `cut`, columns ascending; the number of its entries, or `None` if the row is not
    /// made of runs inside of one window (nothing is written then). `starts` are B's.
    #[inline(always)]
    pub(crate) fn row<S: Semiring<Out = T>, I: Index>(
        &mut self,
        f: &Factors<'_, S, I>,
        starts: &[I],
        i: usize,
        cut: Cut,
        out: Out<'_, I, T>,
    ) -> Option<usize> {
        let span = self.span(f, starts, i, cut)?;
        if !span.contiguous {
            return Some(self.window(f, i, span.lo, out));
        }
        let n = span.hi - span.lo;
        let Some((cols, vals)) = out else { return Some(n) };
        let vals = &mut vals[..n];
        cols[..n].iter_mut().enumerate().for_each(|(t, c)| *c = I::from_usize(span.lo + t));
        // Covered so far: lo..hi.
        let (mut lo, mut hi) = (0, 0);
        for (run, &a) in self.runs.iter().zip(f.a.row(i).1) {
            if run.len == 0 {
                continue;
            }
            let b = &f.b.values()[run.at..run.at + run.len];
            let (first, end) = (run.first - span.lo, run.first - span.lo + run.len);
            if lo == hi {
                store(f.s, a, b, &mut vals[first..end]);
                (lo, hi) = (first, end);
                continue;
            }
            let left = lo.saturating_sub(first);
            let inside = hi.min(end) - first;
            if left > 0 {
                store(f.s, a, &b[..left], &mut vals[first..first + left]);
            }
            add(f.s, a, &b[left..inside], &mut vals[first + left..first + inside]);
            if inside < run.len {
                store(f.s, a, &b[inside..], &mut vals[first + inside..end]);
            }
            (lo, hi) = (lo.min(first), hi.max(end));
        }
        Some(n)
    }

    /// Lists the runs of row `i` and tells what they cover, if all of it are runs inside of one window.
    #[inline(always)]
    fn span<S: Semiring, I: Index>(
        &mut self,
        f: &Factors<'_, S, I>,
        starts: &[I],
        i: usize,
        cut: Cut,
    ) -> Option<Span> {
        self.runs.clear();
        let (low, end) = (cut.low(), cut.low() + cut.width(f.b.ncols()));
        let mut span = Span { lo: 0, hi: 0, contiguous: true };
        for k in f.a.row(i).0 {
            let k = k.to_usize();
            if starts[k] == I::MAX {
                return None;
            }
            let (start, range) = (starts[k].to_usize(), f.b.range(k));
            let first = start.max(low);
            let stop = (start + range.len()).min(end);
            let len = stop.saturating_sub(first);
            self.runs.push(Run { first, at: range.start + (first - start), len });
            if len == 0 {
                continue;
            }
            if span.lo == span.hi {
                (span.lo, span.hi) = (first, stop);
            } else {
                span.contiguous &= first <= span.hi && stop >= span.lo;
                (span.lo, span.hi) = (span.lo.min(first), span.hi.max(stop));
            }
            if span.hi - span.lo > WINDOW {
                return None;
            }
        }
        Some(span)
    }

    /// The row through the window that starts at column `lo`.
    #[inline(always)]
    fn window<S: Semiring<Out = T>, I: Index>(
        &mut self,
        f: &Factors<'_, S, I>,
        i: usize,
        lo: usize,
        out: Out<'_, I, T>,
    ) -> usize {
        self.values.resize(WINDOW, T::default());
        let mut present = [0u64; WINDOW / 64];
        for (run, &a) in self.runs.iter().zip(f.a.row(i).1) {
            let (first, b) = (run.first, &f.b.values()[run.at..run.at + run.len]);
            let mut at = 0;
            while at < b.len() {
                // The part of the run inside of one word of the bitmap.
                let c = first + at - lo;
                let len = (64 - c % 64).min(b.len() - at);
                let bits = u64::MAX >> (64 - len) << (c % 64);
                let (word, vals, b) = (&mut present[c / 64], &mut self.values[c..c + len], &b[at..at + len]);
                if *word & bits == 0 {
                    store(f.s, a, b, vals);
                } else if *word & bits == bits {
                    add(f.s, a, b, vals);
                } else {
                    for (t, (x, &b)) in vals.iter_mut().zip(b).enumerate() {
                        let product = f.s.multiply(a, b);
                        let fresh = *word >> (c % 64 + t) & 1 == 0;
                        if fresh {
                            *x = product;
                        } else if !S::ANY {
                            *x = f.s.add(*x, product);
                        }
                    }
                }
                *word |= bits;
                at += len;
            }
        }
        let Some((cols, vals)) = out else { return present.iter().map(|w| w.count_ones() as usize).sum() };
        let mut n = 0;
        for (w, mut rest) in present.into_iter().enumerate() {
            while rest != 0 {
                let c = w * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                (cols[n], vals[n]) = (I::from_usize(lo + c), self.values[c]);
                n += 1;
            }
        }
        n
    }
}
