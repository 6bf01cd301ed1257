//! Rows whose rows of B are runs of consecutive columns (banded, stencil and block matrices): a contiguous
//! accumulator and vector additions, no look-up per product.
//!
//! While each run overlaps or touches what is covered so far, the accumulator is the result row itself. Runs
//! with gaps between them go through a window of at most [`WINDOW`] columns with a bitmap.

use super::segments::{Cut, Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;

/// The most columns that the union of a row's runs may span.
pub(crate) const WINDOW: usize = 4096;

/// The window of one thread.
#[derive(Debug)]
pub(crate) struct RunsRow<T> {
    values: Vec<T>,
}

impl<T> Default for RunsRow<T> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

/// What the runs of a row cover.
#[derive(Clone, Copy)]
struct Span {
    lo: usize,
    hi: usize,
    contiguous: bool,
}

/// The row of B that entry `q` of A multiplies, if it is a run: its first column, its values.
#[inline(always)]
fn run<'a, S: Semiring, I: Index>(
    f: &Factors<'a, S, I>,
    q: usize,
    cut: Cut,
) -> Option<(usize, &'a [S::Right])> {
    let range = cut.segment(&f.b, f.a.indices()[q].to_usize());
    let cols = &f.b.indices()[range.clone()];
    let (Some(first), Some(last)) = (cols.first(), cols.last()) else { return Some((0, &[])) };
    // Columns rise strictly, so only a run spans exactly its length.
    let is_run = last.to_usize() - first.to_usize() + 1 == cols.len();
    is_run.then(|| (first.to_usize(), &f.b.values()[range]))
}

/// What row `i` covers, if all of it are runs inside of one window. B's rows rise strictly.
#[inline(always)]
fn span<S: Semiring, I: Index>(f: &Factors<'_, S, I>, i: usize, cut: Cut) -> Option<Span> {
    let mut span = Span { lo: 0, hi: 0, contiguous: true };
    for q in f.a.range(i) {
        let (first, values) = run(f, q, cut)?;
        if values.is_empty() {
            continue;
        }
        let end = first + values.len();
        if span.lo == span.hi {
            (span.lo, span.hi) = (first, end);
        } else {
            span.contiguous &= first <= span.hi && end >= span.lo;
            (span.lo, span.hi) = (span.lo.min(first), span.hi.max(end));
        }
        if span.hi - span.lo > WINDOW {
            return None;
        }
    }
    Some(span)
}

#[inline(always)]
fn store<S: Semiring>(s: S, a: S::Left, b: &[S::Right], out: &mut [S::Out]) {
    for (x, &b) in out.iter_mut().zip(b) {
        *x = s.multiply(a, b);
    }
}

#[inline(always)]
fn add<S: Semiring>(s: S, a: S::Left, b: &[S::Right], out: &mut [S::Out]) {
    if S::ANY {
        return;
    }
    for (x, &b) in out.iter_mut().zip(b) {
        *x = s.add(*x, s.multiply(a, b));
    }
}

impl<T: Value> RunsRow<T> {
    /// Row `i` inside of `cut`, columns ascending; the number of its entries, or `None` if the row is not
    /// made of runs inside of one window (nothing is written then).
    #[inline(always)]
    pub(crate) fn row<S: Semiring<Out = T>, I: Index>(
        &mut self,
        f: &Factors<'_, S, I>,
        i: usize,
        cut: Cut,
        out: Out<'_, I, T>,
    ) -> Option<usize> {
        let span = span(f, i, cut)?;
        if !span.contiguous {
            return Some(self.window(f, i, cut, span.lo, out));
        }
        let n = span.hi - span.lo;
        let Some((cols, vals)) = out else { return Some(n) };
        let vals = &mut vals[..n];
        cols[..n].iter_mut().enumerate().for_each(|(t, c)| *c = I::from_usize(span.lo + t));
        // Covered so far: lo..hi.
        let (mut lo, mut hi) = (0, 0);
        for q in f.a.range(i) {
            let (Some((first, b)), a) = (run(f, q, cut), f.a.values()[q]) else { continue };
            if b.is_empty() {
                continue;
            }
            let (first, end) = (first - span.lo, first - span.lo + b.len());
            if lo == hi {
                store(f.s, a, b, &mut vals[first..end]);
                (lo, hi) = (first, end);
                continue;
            }
            let left = lo.saturating_sub(first);
            let inside = hi.min(end) - first;
            store(f.s, a, &b[..left], &mut vals[first..first + left]);
            add(f.s, a, &b[left..inside], &mut vals[first + left..first + inside]);
            store(f.s, a, &b[inside..], &mut vals[first + inside..end]);
            (lo, hi) = (lo.min(first), hi.max(end));
        }
        Some(n)
    }

    /// The row through the window that starts at column `lo`.
    #[inline(always)]
    fn window<S: Semiring<Out = T>, I: Index>(
        &mut self,
        f: &Factors<'_, S, I>,
        i: usize,
        cut: Cut,
        lo: usize,
        out: Out<'_, I, T>,
    ) -> usize {
        self.values.resize(WINDOW, T::default());
        let mut present = [0u64; WINDOW / 64];
        for q in f.a.range(i) {
            let (Some((first, b)), a) = (run(f, q, cut), f.a.values()[q]) else { continue };
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
