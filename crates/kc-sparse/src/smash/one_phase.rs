//! Computing the rows of the result without counting them first: each piece goes into a chunk, and a finished chunk
//! to its place as soon as those before it are finished.
//!
//! Pieces are taken in order, so few chunks wait for an earlier one, and a chunk that has been copied serves the
//! next piece while it still lies in the cache. A single piece is the result itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kc_core::Isa;

use super::row::Problem;
use super::schedule::{self, Piece, Pool};
use super::symbolic::{Arrays, Run, Sink, fits, offsets};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;
use crate::simd::dispatch;

/// Rows of a piece, one after another, in buffers that are longer than what they hold.
pub(super) struct Chunk<T, I> {
    pub(super) cols: Vec<I>,
    pub(super) vals: Vec<T>,
    pub(super) len: usize,
}

/// What all chunks together may still take, in bytes.
pub(super) struct Quota(AtomicUsize);

impl Quota {
    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

impl<T: Value, I: Index> Chunk<T, I> {
    /// A chunk that expects `entries`. Fresh zero pages cost nothing until they are written.
    fn new(entries: usize) -> Self {
        let mut chunk = Self { cols: vec![I::default(); entries], vals: vec![T::default(); entries], len: 0 };
        kc_core::advise_huge_pages(&mut chunk.cols);
        kc_core::advise_huge_pages(&mut chunk.vals);
        chunk
    }

    /// Makes room for `entries` more; false if the quota does not allow it.
    pub(super) fn reserve(&mut self, entries: usize, quota: &Quota) -> bool {
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

/// Where the rows of a piece stand in the result.
type Place<'o, T, I> = (&'o mut [I], &'o mut [T]);

/// The result as it fills up from the front.
struct Line<'o, T, I> {
    /// The piece that comes next.
    next: usize,
    cols: &'o mut [I],
    vals: &'o mut [T],
    /// Finished pieces that wait for an earlier one.
    waiting: BTreeMap<usize, Chunk<T, I>>,
    /// Chunks to fill again.
    free: Vec<Chunk<T, I>>,
    /// More entries than were planned for.
    full: bool,
}

impl<'o, T: Value, I: Index> Line<'o, T, I> {
    /// The next piece, if it is finished, and its place.
    fn pop(&mut self) -> Option<(Chunk<T, I>, Place<'o, T, I>)> {
        let chunk = self.waiting.remove(&self.next)?;
        if chunk.len > self.cols.len() {
            self.full = true;
            return None;
        }
        let (cols, rest) = std::mem::take(&mut self.cols).split_at_mut(chunk.len);
        self.cols = rest;
        let (vals, rest) = std::mem::take(&mut self.vals).split_at_mut(chunk.len);
        self.vals = rest;
        self.next += 1;
        Some((chunk, (cols, vals)))
    }
}

/// Computes the product in one pass, in room for `planned` entries. `None` if there are more, if that room
/// cannot be had, or if chunks would need more than `limit` bytes.
pub(crate) fn one_phase<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pieces: &[Piece],
    pool: &Pool<S::Out, I>,
    planned: usize,
    limit: usize,
) -> Option<Arrays<S::Out, I>> {
    if !fits::<S::Out, I>(planned) {
        return None;
    }
    if let [piece] = pieces {
        return single(isa, p, piece, pool, planned);
    }
    let Chunk { mut cols, mut vals, .. } = Chunk::new(planned);
    let quota = Quota(AtomicUsize::new(limit));
    let (waiting, free) = (BTreeMap::new(), Vec::new());
    let line = Mutex::new(Line { next: 0, cols: &mut cols, vals: &mut vals, waiting, free, full: false });
    let locked = || line.lock().unwrap_or_else(PoisonError::into_inner);
    let numbered: Vec<(usize, &Piece)> = pieces.iter().enumerate().collect();
    let counts = schedule::run(numbered, |(k, piece)| {
        let mut chunk = {
            let mut line = locked();
            if line.full {
                return None;
            }
            line.free.pop().unwrap_or_else(|| Chunk::new(0))
        };
        let sink = Sink::Chunk { chunk: &mut chunk, quota: &quota };
        let piece = piece.clone();
        let counts = pool.with(|scratch| dispatch(isa, Run { p, piece, scratch, sink }));
        if counts.is_none() {
            locked().full = true;
            return None;
        }
        locked().waiting.insert(k, chunk);
        loop {
            // The lock is not held while a chunk is copied.
            let next = locked().pop();
            let Some((mut chunk, (cols, vals))) = next else { return counts };
            cols.copy_from_slice(&chunk.cols[..chunk.len]);
            vals.copy_from_slice(&chunk.vals[..chunk.len]);
            chunk.len = 0;
            locked().free.push(chunk);
        }
    });
    let full = line.into_inner().unwrap_or_else(PoisonError::into_inner).full;
    let counts = counts.into_iter().collect::<Option<Vec<_>>>().filter(|_| !full);
    let (indptr, lengths) = offsets(p.f.a.nrows(), pieces, counts?);
    let nnz = lengths.iter().sum();
    Some((indptr, trimmed(cols, nnz), trimmed(vals, nnz)))
}

/// The product as a single piece, which grows where it is.
fn single<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    piece: &Piece,
    pool: &Pool<S::Out, I>,
    planned: usize,
) -> Option<Arrays<S::Out, I>> {
    let (mut chunk, quota) = (Chunk::new(planned), Quota(AtomicUsize::new(usize::MAX)));
    let sink = Sink::Chunk { chunk: &mut chunk, quota: &quota };
    let counts = pool.with(|scratch| dispatch(isa, Run { p, piece: piece.clone(), scratch, sink }))?;
    let (indptr, _) = offsets(p.f.a.nrows(), std::slice::from_ref(piece), vec![counts]);
    Some((indptr, trimmed(chunk.cols, chunk.len), trimmed(chunk.vals, chunk.len)))
}

/// The first `len` elements. Gives back what was planned in vain; large buffers shrink in place.
fn trimmed<T>(mut data: Vec<T>, len: usize) -> Vec<T> {
    data.truncate(len);
    data.shrink_to_fit();
    data
}
