//! Counting the rows of the result first, then computing straight into it. The other way is
//! [`one_phase`](super::one_phase).

use kc_core::{Error, Isa, Result};

use super::one_phase::{Chunk, Quota};
use super::row::{Problem, Scratch};
use super::schedule::{self, Piece, Pool};
use super::segments::{Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::{Semiring, Structure};
use crate::simd::{Kernel, Vector, dispatch};

/// The arrays of a result.
pub(crate) type Arrays<T, I> = (Vec<i64>, Vec<I>, Vec<T>);

/// A zero, then the entries of each row of a piece.
pub(crate) type Counts = Vec<i64>;

/// All entries of a piece.
pub(crate) fn total(counts: &[i64]) -> u64 {
    counts.iter().map(|&n| n as u64).sum()
}

/// Where the rows of a piece go.
pub(super) enum Sink<'s, T, I> {
    Count,
    Chunk { chunk: &'s mut Chunk<T, I>, quota: &'s Quota },
    Exact { cols: &'s mut [I], vals: &'s mut [T] },
}

/// The rows of one piece.
pub(super) struct Run<'a, 's, S: Semiring, I: Index> {
    pub(super) p: &'s Problem<'a, S, I>,
    pub(super) piece: Piece,
    pub(super) scratch: &'s mut Scratch<S::Out, I>,
    pub(super) sink: Sink<'s, S::Out, I>,
}

impl<S: Semiring, I: Index> Kernel for Run<'_, '_, S, I> {
    type Out = Option<Counts>;

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) -> Option<Counts> {
        let mut counts = Vec::with_capacity(self.piece.rows.len() + 1);
        counts.push(0);
        let mut written = 0;
        for i in self.piece.rows {
            let out: Out<'_, I, S::Out> = match &mut self.sink {
                Sink::Count => None,
                Sink::Chunk { chunk, quota } => {
                    if !chunk.reserve(self.p.bound(i), quota) {
                        return None;
                    }
                    Some((&mut chunk.cols[chunk.len..], &mut chunk.vals[chunk.len..]))
                }
                Sink::Exact { cols, vals } => Some((&mut cols[written..], &mut vals[written..])),
            };
            let n = self.p.row(v, self.scratch, i, self.piece.cut, out);
            if let Sink::Chunk { chunk, .. } = &mut self.sink {
                chunk.len += n;
            }
            written += n;
            counts.push(n as i64);
        }
        Some(counts)
    }
}

/// Offsets of the rows from the counts of the pieces, and the entries of each piece.
pub(super) fn offsets(nrows: usize, pieces: &[Piece], mut counts: Vec<Counts>) -> (Vec<i64>, Vec<usize>) {
    let lengths = counts.iter().map(|c| total(c) as usize).collect();
    let mut indptr = match &mut counts[..] {
        // The rows of a single piece are all rows.
        [only] => std::mem::take(only),
        _ => vec![0; nrows + 1],
    };
    for (piece, counts) in pieces.iter().zip(&counts) {
        let rows = &mut indptr[piece.rows.start..];
        rows.iter_mut().zip(counts).for_each(|(p, n)| *p += n);
    }
    let mut sum = 0;
    for p in &mut indptr {
        sum += *p;
        *p = sum;
    }
    (indptr, lengths)
}

/// Cuts `data` into parts of these lengths.
fn split<'d, T>(mut data: &'d mut [T], lengths: &[usize]) -> Vec<&'d mut [T]> {
    let mut parts = Vec::with_capacity(lengths.len());
    for &n in lengths {
        let (part, rest) = data.split_at_mut(n);
        parts.push(part);
        data = rest;
    }
    parts
}

/// True if the memory for `entries` can be had. Asked before allocating, so that a refusal is an error and not the end
/// of the process.
pub(super) fn fits<T, I>(entries: usize) -> bool {
    let (mut cols, mut vals) = (Vec::<I>::new(), Vec::<T>::new());
    cols.try_reserve_exact(entries).is_ok() && vals.try_reserve_exact(entries).is_ok()
}

/// The arrays for `nnz` entries, or an error if they would not fit the address space.
fn allocate<T: Value, I: Index>(nnz: usize) -> Result<(Vec<I>, Vec<T>)> {
    let each = size_of::<I>() + size_of::<T>();
    let bytes = (nnz as u64).saturating_mul(each as u64);
    if !fits::<T, I>(nnz) {
        return Err(Error::too_large("product", bytes, isize::MAX as u64, "bytes"));
    }
    let (mut cols, mut vals) = (vec![I::default(); nnz], vec![T::default(); nnz]);
    kc_core::advise_huge_pages(&mut cols);
    kc_core::advise_huge_pages(&mut vals);
    Ok((cols, vals))
}

/// The entries of each row of each piece. All semirings count alike, so this runs on bare patterns and is compiled
/// for each index width only.
pub(crate) fn count<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pieces: &[Piece],
    pool: &Pool<(), I>,
) -> Vec<Counts> {
    let Problem { f, weights, accumulator, budget, mask, bt, longest, runs, .. } = *p;
    // Bare entries take no memory.
    let none = |nnz: usize| vec![(); nnz];
    let (a, b, t) = (none(f.a.nnz()), none(f.b.nnz()), none(bt.map_or(0, |bt| bt.nnz())));
    let f = Factors { s: Structure, a: f.a.pattern(&a), b: f.b.pattern(&b) };
    let bt = bt.map(|bt| bt.pattern(&t));
    let p = Problem { f, weights, accumulator, sorted: false, budget, mask, bt, longest, runs };
    count_pattern(isa, &p, pieces, pool)
}

fn count_pattern<I: Index>(
    isa: Isa,
    p: &Problem<'_, Structure, I>,
    pieces: &[Piece],
    pool: &Pool<(), I>,
) -> Vec<Counts> {
    schedule::run(pieces.to_vec(), |piece| {
        let counted = pool.with(|scratch| dispatch(isa, Run { p, piece, scratch, sink: Sink::Count }));
        counted.unwrap_or_default()
    })
}

/// Counts, then computes straight into the result.
pub(crate) fn two_phase<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pieces: &[Piece],
    pool: &Pool<S::Out, I>,
    symbolic: &Pool<(), I>,
) -> Result<Arrays<S::Out, I>> {
    let counts = count(isa, p, pieces, symbolic);
    let (indptr, lengths) = offsets(p.f.a.nrows(), pieces, counts);
    let (mut cols, mut vals) = allocate(lengths.iter().sum())?;
    let parts = pieces.iter().cloned().zip(split(&mut cols, &lengths)).zip(split(&mut vals, &lengths));
    schedule::run(parts.collect(), |((piece, cols), vals)| {
        let sink = Sink::Exact { cols, vals };
        pool.with(|scratch| dispatch(isa, Run { p, piece, scratch, sink }));
    });
    Ok((indptr, cols, vals))
}
