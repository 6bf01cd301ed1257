//! The two ways to find out how long the rows of the result are: count first ([`two_phase`]), or compute into
//! growing chunks and copy ([`one_phase`]). A single chunk is the result itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use kc_core::{Error, Isa, Result};

use super::row::{Problem, Scratch};
use super::schedule::{self, Piece, Pool};
use super::segments::{Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::{Semiring, Structure};
use crate::simd::{Kernel, Vector, dispatch};

/// The arrays of a result.
pub(crate) type Arrays<T, I> = (Vec<i64>, Vec<I>, Vec<T>);

/// Where the rows of a piece go.
enum Sink<'s, T, I> {
    Count,
    Chunk { chunk: &'s mut Chunk<T, I>, quota: &'s Quota },
    Exact { cols: &'s mut [I], vals: &'s mut [T] },
}

/// Rows of a piece, one after another, in buffers that are longer than what they hold.
struct Chunk<T, I> {
    cols: Vec<I>,
    vals: Vec<T>,
    len: usize,
}

/// What all chunks together may still take, in bytes.
struct Quota(AtomicUsize);

impl Quota {
    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

impl<T: Value, I: Index> Chunk<T, I> {
    /// A chunk that expects `entries`. Fresh zero pages cost nothing until they are written.
    fn new(entries: usize) -> Self {
        let mut chunk = Self { cols: vec![I::default(); entries], vals: vec![T::default(); entries], len: 0 };
        advise(&mut chunk.cols, &mut chunk.vals);
        chunk
    }

    /// Makes room for `entries` more; false if the quota does not allow it.
    fn reserve(&mut self, entries: usize, quota: &Quota) -> bool {
        let need = self.len + entries;
        if need <= self.cols.len() {
            return true;
        }
        let len = need.max(self.cols.len() + self.cols.len() / 2);
        if !quota.take((len - self.cols.len()) * (size_of::<I>() + size_of::<T>())) {
            return false;
        }
        self.cols.resize(len, I::default());
        self.vals.resize(len, T::default());
        true
    }
}

/// Huge-page advice for the two arrays of a result.
fn advise<T, I>(cols: &mut [I], vals: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    {
        super::x86::advise_huge(cols);
        super::x86::advise_huge(vals);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (cols, vals);
}

/// The rows of one piece.
struct Run<'a, 's, S: Semiring, I: Index> {
    p: &'s Problem<'a, S, I>,
    piece: Piece,
    scratch: &'s mut Scratch<S::Out, I>,
    sink: Sink<'s, S::Out, I>,
}

impl<S: Semiring, I: Index> Kernel for Run<'_, '_, S, I> {
    /// Entries of each row; `None` if the quota did not suffice.
    type Out = Option<Vec<usize>>;

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) -> Option<Vec<usize>> {
        let mut counts = Vec::with_capacity(self.piece.rows.len());
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
            counts.push(n);
        }
        Some(counts)
    }
}

/// Offsets of the rows from the counts of the pieces, and the entries of each piece.
fn offsets(nrows: usize, pieces: &[Piece], counts: &[Vec<usize>]) -> (Vec<i64>, Vec<usize>) {
    let mut indptr = vec![0i64; nrows + 1];
    for (piece, counts) in pieces.iter().zip(counts) {
        for (i, &n) in piece.rows.clone().zip(counts) {
            indptr[i + 1] += n as i64;
        }
    }
    let mut sum = 0;
    for p in &mut indptr {
        sum += *p;
        *p = sum;
    }
    (indptr, counts.iter().map(|c| c.iter().sum()).collect())
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

/// The arrays for `nnz` entries, or an error if they would not fit the address space.
fn allocate<T: Value, I: Index>(nnz: usize) -> Result<(Vec<I>, Vec<T>)> {
    let each = size_of::<I>() + size_of::<T>();
    let bytes = (nnz as u64).saturating_mul(each as u64);
    let room = |n: usize| n.checked_mul(each).is_some_and(|bytes| bytes <= isize::MAX as usize);
    let (mut cols, mut vals) = (Vec::new(), Vec::new());
    let fits = room(nnz) && {
        // Asks before allocating, so that a refusal is an error and not the end of the process.
        let (mut c, mut v) = (Vec::<I>::new(), Vec::<T>::new());
        c.try_reserve_exact(nnz).is_ok() && v.try_reserve_exact(nnz).is_ok()
    };
    if !fits {
        return Err(Error::too_large("product", bytes, isize::MAX as u64, "bytes"));
    }
    if nnz > 0 {
        cols = vec![I::default(); nnz];
        vals = vec![T::default(); nnz];
        advise(&mut cols, &mut vals);
    }
    Ok((cols, vals))
}

/// The same problem without values.
fn structure<'a, S: Semiring, I: Index>(
    p: &Problem<'a, S, I>,
) -> Problem<'a, Structure<S::Left, S::Right>, I> {
    let Problem { f, weights, accumulator, budget, mask, bt, longest, runs, .. } = *p;
    let f = Factors { s: Structure::new(), a: f.a, b: f.b };
    Problem { f, weights, accumulator, sorted: false, budget, mask, bt, longest, runs }
}

/// The entries of each row of each piece.
pub(crate) fn count<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pieces: &[Piece],
    pool: &Pool<(), I>,
) -> Vec<Vec<usize>> {
    let p = &structure(p);
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
    let (indptr, lengths) = offsets(p.f.a.nrows(), pieces, &counts);
    drop(counts);
    let (mut cols, mut vals) = allocate(lengths.iter().sum())?;
    let parts = pieces.iter().cloned().zip(split(&mut cols, &lengths)).zip(split(&mut vals, &lengths));
    schedule::run(parts.collect(), |((piece, cols), vals)| {
        let sink = Sink::Exact { cols, vals };
        pool.with(|scratch| dispatch(isa, Run { p, piece, scratch, sink }));
    });
    Ok((indptr, cols, vals))
}

/// Computes into a chunk per piece, then copies. `expected` entries are planned for; `None` if the chunks
/// would need more than `limit` bytes.
pub(crate) fn one_phase<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pieces: &[Piece],
    pool: &Pool<S::Out, I>,
    expected: u64,
    limit: usize,
) -> Result<Option<Arrays<S::Out, I>>> {
    let each = size_of::<I>() + size_of::<S::Out>();
    let total = p.weights[p.weights.len() - 1];
    let quota = Quota(AtomicUsize::new(limit));
    let chunks = schedule::run(pieces.to_vec(), |piece| {
        let products = match piece.cut.0 {
            None => p.weights[piece.rows.end] - p.weights[piece.rows.start],
            Some(_) => p.f.products(piece.rows.start, piece.cut),
        };
        let share = expected as f64 * (products as f64 / total.max(1) as f64);
        let bound: u64 = piece.rows.clone().map(|i| p.bound(i) as u64).sum();
        let entries = ((share * 1.1) as u64 + 1024).min(bound) as usize;
        if !quota.take(entries.saturating_mul(each)) {
            return None;
        }
        let mut chunk = Chunk::new(entries);
        let sink = Sink::Chunk { chunk: &mut chunk, quota: &quota };
        let counts = pool.with(|scratch| dispatch(isa, Run { p, piece, scratch, sink }))?;
        Some((counts, chunk))
    });
    let Some(chunks) = chunks.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (counts, mut chunks): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
    let (indptr, lengths) = offsets(p.f.a.nrows(), pieces, &counts);
    if let [chunk] = &mut chunks[..] {
        let Chunk { cols, vals, len } = chunk;
        cols.truncate(*len);
        vals.truncate(*len);
        // Gives back what was planned in vain; large buffers shrink in place.
        cols.shrink_to_fit();
        vals.shrink_to_fit();
        return Ok(Some((indptr, std::mem::take(cols), std::mem::take(vals))));
    }
    let (mut cols, mut vals) = allocate(lengths.iter().sum())?;
    let parts = chunks.into_iter().zip(split(&mut cols, &lengths)).zip(split(&mut vals, &lengths));
    schedule::run(parts.collect(), |((chunk, cols), vals)| {
        cols.copy_from_slice(&chunk.cols[..chunk.len]);
        vals.copy_from_slice(&chunk.vals[..chunk.len]);
    });
    Ok(Some((indptr, cols, vals)))
}
