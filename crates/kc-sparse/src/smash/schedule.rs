//! Cutting a product into pieces of about equal work, and running them.
//!
//! Work is measured in products. Pieces are taken dynamically, eight per thread; a row that holds more than
//! an eighth of all products is cut by columns. No result depends on the pieces: every row is computed whole or
//! in ranges of columns, and sums run along A's row either way.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::row::{Problem, Scratch, quantiles};
use super::segments::Cut;
use crate::csr::{CsrView, Index, Value};
use crate::semiring::Semiring;

/// Pieces per thread, at least.
const PER_THREAD: usize = 8;
/// Products per piece, at most, unless the rows are heavier: what they add up to stays in the shared cache.
const PER_PIECE: u64 = 1 << 19;
/// Below this many products a product stays on the calling thread.
const SMALL: u64 = 1 << 14;

/// Some rows, or some columns of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    pub(crate) cut: Cut,
}

/// Prefix sums of the products of each row, in 64 bits.
pub(crate) fn weights<L: Value, R: Value, I: Index>(
    a: CsrView<'_, L, I>,
    b: CsrView<'_, R, I>,
    parallel: bool,
) -> Vec<u64> {
    let lengths = b.indptr();
    let one = |i: usize| {
        let row = a.row(i).0.iter();
        row.map(|k| (lengths[k.to_usize() + 1] - lengths[k.to_usize()]) as u64).sum::<u64>()
    };
    let mut sums = vec![0u64; a.nrows() + 1];
    if parallel {
        sums[1..].par_iter_mut().with_min_len(1024).enumerate().for_each(|(i, w)| *w = one(i));
    } else {
        sums[1..].iter_mut().enumerate().for_each(|(i, w)| *w = one(i));
    }
    let mut sum = 0u64;
    for w in &mut sums {
        sum = sum.saturating_add(*w);
        *w = sum;
    }
    sums
}

/// How many threads to cut for.
pub(crate) fn threads(wanted: usize, products: u64) -> usize {
    match wanted {
        _ if products <= SMALL => 1,
        0 => kc_core::par::threads(),
        n => n,
    }
}

/// Ranges of rows of about equal products, `parts` at most.
pub(crate) fn rows(weights: &[u64], parts: usize) -> Vec<Range<usize>> {
    let (n, total) = (weights.len() - 1, weights[weights.len() - 1]);
    let edge = |p: usize| {
        let target = (u128::from(total) * p as u128 / parts as u128) as u64;
        weights.partition_point(|&w| w < target).min(n)
    };
    let mut edges: Vec<usize> = (1..parts).map(edge).collect();
    edges.insert(0, 0);
    edges.push(n);
    edges.windows(2).map(|w| w[0]..w[1]).filter(|r| !r.is_empty()).collect()
}

/// The pieces of a product for `threads`.
pub(crate) fn pieces<S: Semiring, I: Index>(p: &Problem<'_, S, I>, threads: usize) -> Vec<Piece> {
    let whole = |rows| Piece { rows, cut: Cut::ALL };
    if threads <= 1 {
        return vec![whole(0..p.f.a.nrows())];
    }
    let total = p.weights[p.weights.len() - 1];
    let parts = (threads * PER_THREAD).max((total / PER_PIECE) as usize);
    let heavy = |i: usize| p.mask.is_none() && p.cuttable() && p.products(i) > total / PER_THREAD as u64;
    let mut out = Vec::with_capacity(parts + PER_THREAD);
    for block in rows(p.weights, parts) {
        let mut start = block.start;
        for i in block.clone().filter(|&i| heavy(i)) {
            if start < i {
                out.push(whole(start..i));
            }
            let share = (p.products(i) as f64 / total as f64 * parts as f64).ceil() as usize;
            let cuts = quantiles(&p.f, i, Cut::ALL, share);
            out.extend(cuts.into_iter().map(|cut| Piece { rows: i..i + 1, cut }));
            start = i + 1;
        }
        if start < block.end {
            out.push(whole(start..block.end));
        }
    }
    out
}

/// Per-thread state, kept between products.
#[derive(Debug)]
pub(crate) struct Pool<T, I: Index>(Mutex<Vec<Scratch<T, I>>>);

impl<T, I: Index> Default for Pool<T, I> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: Value, I: Index> Pool<T, I> {
    /// Runs `body` with a state that nobody else uses. A state whose user panicked is not given back.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut Scratch<T, I>) -> R) -> R {
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = free().pop().unwrap_or_default();
        let result = body(&mut scratch);
        free().push(scratch);
        result
    }
}

/// Runs `body` on every item. Threads take them in order, one at a time; the results are in order too.
pub(crate) fn run<A: Send, R: Send>(items: Vec<A>, body: impl Fn(A) -> R + Sync + Send) -> Vec<R> {
    let threads = kc_core::par::threads().min(items.len());
    if threads <= 1 {
        return items.into_iter().map(body).collect();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let serve = |_| std::iter::from_fn(|| take().map(|(k, item)| (k, body(item))));
    let mut done: Vec<(usize, R)> =
        (0..threads).into_par_iter().with_max_len(1).flat_map_iter(serve).collect();
    done.sort_unstable_by_key(|(k, _)| *k);
    done.into_iter().map(|(_, result)| result).collect()
}
