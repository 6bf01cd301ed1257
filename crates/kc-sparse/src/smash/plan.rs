//! Products of one pattern with many values: the pattern and the place of every product are found once.
//!
//! `execute` reads where each product goes instead of probing a table: 4 bytes per product, or 8 bytes for a whole
//! row of B that lands on neighbouring entries of C. Nothing is allocated, and the bits are those of a fresh product.
//! Memory: patterns of A, B and C, and these places (if there are at most [`PlanConfig::slot_limit`] products;
//! otherwise each thread has an array over the columns).
//!
//! ```
//! use kc_sparse::{Csr, PlanConfig, SpgemmPlan, semiring::PlusTimes};
//! let a: Csr<f64> = Csr::new(2, 2, vec![0, 2, 3], vec![0, 1, 1], vec![1.0, 2.0, 3.0])?;
//! let plan = SpgemmPlan::new(a.view(), a.view(), &PlanConfig::default())?;
//! let mut c = vec![0.0; plan.nnz()];
//! plan.execute(PlusTimes::new(), a.values(), a.values(), &mut c)?;
//! assert_eq!(c, [1.0, 8.0, 9.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::hint::select_unpredictable;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use kc_core::{Error, Isa, Result};

use super::segments::{Cut, Factors};
use super::{SpgemmConfig, runs, schedule, spgemm};
use crate::csr::{Csr, CsrView, Index, Order, Value};
use crate::semiring::{Semiring, Structure};
use crate::simd::{Kernel, Vector, dispatch};

/// How to plan.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// The most products whose slots are stored, 4 bytes each. Default 2^27.
    pub slot_limit: u64,
    /// Threads to cut the work for; 0 (default): all of the pool that runs `new`. No result depends on it.
    pub threads: usize,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self { slot_limit: 1 << 27, threads: 0 }
    }
}

/// Marks the first product of an entry in its slot.
const FIRST: u32 = 1 << 31;
/// Rows of B that are shorter are not worth a run.
const LEAST: usize = 4;

/// The pattern of a product, ready for any values. See the [module](super) for what it computes.
#[derive(Debug)]
pub struct SpgemmPlan<I: Index = u32> {
    a: Csr<(), I>,
    b: Csr<(), I>,
    c: Csr<(), I>,
    blocks: Vec<Block>,
    /// Without slots: arrays from column to place, one per thread.
    places: Vec<Mutex<Vec<u32>>>,
}

/// Rows that one thread computes, and where their products go.
#[derive(Debug)]
struct Block {
    rows: Range<usize>,
    /// Per entry of A; empty if places are looked up instead.
    segments: Vec<Segment>,
    /// Per product of a listed segment, its place in its row of C; the first one of an entry marked.
    slots: Vec<u32>,
}

/// Where the products of one entry of A go.
#[derive(Debug, Clone, Copy)]
enum Segment {
    /// To the places in [`Block::slots`].
    Listed,
    /// To `start` and the places after it, of which the first `old` hold something already.
    Run { start: u32, old: u32 },
}

/// The pattern of a matrix.
fn pattern<T: Value, I: Index>(m: CsrView<'_, T, I>) -> Csr<(), I> {
    let values = vec![(); m.nnz()];
    Csr::from_parts(m.nrows(), m.ncols(), m.indptr().to_vec(), m.indices().to_vec(), values, m.order())
}

impl<I: Index> SpgemmPlan<I> {
    /// Plans `A B` for these two patterns; values are not read.
    ///
    /// Fails as [`spgemm`] does.
    pub fn new<L: Value, R: Value>(
        a: CsrView<'_, L, I>,
        b: CsrView<'_, R, I>,
        config: &PlanConfig,
    ) -> Result<Self> {
        let base = SpgemmConfig { threads: config.threads, ..SpgemmConfig::default() };
        let (a, b) = (pattern(a), pattern(b));
        let c = spgemm(Structure, a.view(), b.view(), &base)?;
        let longest = c.indptr().windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        if longest >= i64::from(FIRST) {
            return Err(Error::too_large("plan", longest as u64, u64::from(FIRST), "entries in a row"));
        }
        let weights = schedule::weights(a.view(), b.view(), true);
        let products = weights[a.nrows()];
        let threads = schedule::threads(config.threads, products);
        let rows = schedule::rows(&weights, if threads == 1 { 1 } else { 8 * threads });
        let mut plan = Self { a, b, c, blocks: Vec::new(), places: Vec::new() };
        if products <= config.slot_limit {
            plan.blocks = schedule::run(rows, |rows| plan.block(rows));
        } else {
            let bare = |rows| Block { rows, segments: Vec::new(), slots: Vec::new() };
            plan.blocks = rows.into_iter().map(bare).collect();
            plan.places = (0..threads).map(|_| Mutex::new(vec![0; plan.c.ncols()])).collect();
        }
        Ok(plan)
    }

    /// Finds the places of all products of these rows.
    fn block(&self, rows: Range<usize>) -> Block {
        let entries = self.a.indptr()[rows.end] - self.a.indptr()[rows.start];
        let (mut segments, mut slots) = (Vec::with_capacity(entries as usize), Vec::new());
        let mut place = vec![0; self.c.ncols()];
        let strict = self.b.order() == Order::Strict;
        for i in rows.clone() {
            for (p, column) in self.c.row(i).0.iter().enumerate() {
                place[column.to_usize()] = p as u32 | FIRST;
            }
            for k in self.a.row(i).0 {
                let from = slots.len();
                // Every product has an entry: C's pattern is the product's.
                slots.extend(self.b.row(k.to_usize()).0.iter().map(|column| {
                    let at = &mut place[column.to_usize()];
                    let slot = *at;
                    *at &= !FIRST;
                    slot
                }));
                let segment = if strict { run(&slots[from..]) } else { None };
                if segment.is_some() {
                    slots.truncate(from);
                }
                segments.push(segment.unwrap_or(Segment::Listed));
            }
        }
        slots.shrink_to_fit();
        Block { rows, segments, slots }
    }

    /// Entries of C: the length of the values that [`execute`](Self::execute) fills.
    pub fn nnz(&self) -> usize {
        self.c.nnz()
    }

    /// Offsets of the rows of C.
    pub fn indptr(&self) -> &[i64] {
        self.c.indptr()
    }

    /// Columns of C.
    pub fn indices(&self) -> &[I] {
        self.c.indices()
    }

    /// Bytes that the plan holds.
    pub fn bytes(&self) -> usize {
        let block = |b: &Block| size_of_val(&*b.segments) + size_of_val(&*b.slots);
        let blocks: usize = self.blocks.iter().map(block).sum();
        let places = self.places.len() * 4 * self.c.ncols();
        self.a.bytes() + self.b.bytes() + self.c.bytes() + blocks + places
    }

    /// The values of `A B` for these values of A and B, in the order of C's pattern. Allocates nothing.
    ///
    /// Fails if a length is not that of its pattern.
    pub fn execute<S: Semiring>(&self, s: S, a: &[S::Left], b: &[S::Right], c: &mut [S::Out]) -> Result<()> {
        if c.len() != self.nnz() {
            return Err(Error::shape("c", format!("{} values, the entries of C", self.nnz()), &[c.len()]));
        }
        let a = self.a.view().with_values(a).map_err(|_| wrong("a", self.a.nnz(), a.len()))?;
        let b = self.b.view().with_values(b).map_err(|_| wrong("b", self.b.nnz(), b.len()))?;
        self.run(Isa::best(), &Factors { s, a, b }, &self.blocks, c);
        Ok(())
    }

    /// Some blocks, halved until one is left; `c` holds their values.
    fn run<S: Semiring>(&self, isa: Isa, f: &Factors<'_, S, I>, blocks: &[Block], c: &mut [S::Out]) {
        let [block] = blocks else {
            let (first, second) = blocks.split_at(blocks.len() / 2);
            if let ([from, ..], [to, ..]) = (first, second) {
                let row = |block: &Block| self.c.indptr()[block.rows.start];
                let (left, right) = c.split_at_mut((row(to) - row(from)) as usize);
                rayon::join(|| self.run(isa, f, first, left), || self.run(isa, f, second, right));
            }
            return;
        };
        if self.places.is_empty() {
            return dispatch(isa, Slotted { plan: self, f, block, c });
        }
        let own = rayon::current_thread_index().unwrap_or(0) % self.places.len();
        let mut place = self.places[own].lock().unwrap_or_else(PoisonError::into_inner);
        dispatch(isa, Placed { plan: self, f, rows: block.rows.clone(), place: &mut place, c });
    }
}

/// The run that these slots of a strictly ascending row of B make, if they do: neighbouring entries of C, those that
/// hold something already before those that do not.
fn run(slots: &[u32]) -> Option<Segment> {
    let (first, last) = (*slots.first()?, *slots.last()?);
    let start = first & !FIRST;
    let neighbours = ((last & !FIRST) - start) as usize + 1 == slots.len();
    let old = slots.iter().take_while(|&slot| slot & FIRST == 0).count();
    let split = slots[old..].iter().all(|&slot| slot & FIRST != 0);
    (slots.len() >= LEAST && neighbours && split).then_some(Segment::Run { start, old: old as u32 })
}

fn wrong(name: &'static str, want: usize, got: usize) -> Error {
    Error::shape(name, format!("{want} values, the entries of its pattern"), &[got])
}

/// Rows whose places are stored.
struct Slotted<'p, 'a, S: Semiring, I: Index> {
    plan: &'p SpgemmPlan<I>,
    f: &'p Factors<'a, S, I>,
    block: &'p Block,
    c: &'p mut [S::Out],
}

impl<S: Semiring, I: Index> Kernel for Slotted<'_, '_, S, I> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self { plan, f, block: Block { rows, segments, slots }, c } = self;
        let indptr = plan.c.indptr();
        let base = indptr[rows.start];
        let (mut segments, mut slots) = (segments.iter(), &slots[..]);
        if S::NEUTRAL && !slots.is_empty() {
            c.fill(S::Out::NEUTRAL);
        }
        for i in rows.clone() {
            let c = &mut c[(indptr[i] - base) as usize..(indptr[i + 1] - base) as usize];
            f.for_each(v, i, Cut::ALL, |a, _, vals| {
                if let Some(&Segment::Run { start, old }) = segments.next() {
                    let (start, old) = (start as usize, old as usize);
                    let (before, new) = c[start..start + vals.len()].split_at_mut(old);
                    runs::add(f.s, a, &vals[..old], before);
                    runs::store(f.s, a, &vals[old..], new);
                    return;
                }
                let (here, rest) = slots.split_at(vals.len());
                slots = rest;
                for (&slot, &b) in here.iter().zip(vals) {
                    let (x, first) = (&mut c[(slot & !FIRST) as usize], slot & FIRST != 0);
                    let product = f.s.multiply(a, b);
                    if S::NEUTRAL {
                        *x = f.s.add(*x, product);
                    } else if S::SPECULATE {
                        *x = select_unpredictable(first, product, f.s.add(*x, product));
                    } else if first {
                        *x = product;
                    } else if !S::ANY {
                        *x = f.s.add(*x, product);
                    }
                }
            });
        }
    }
}

/// Rows whose slots are found through an array over the columns.
struct Placed<'p, 'a, S: Semiring, I: Index> {
    plan: &'p SpgemmPlan<I>,
    f: &'p Factors<'a, S, I>,
    rows: Range<usize>,
    /// The place of each column of the current row, with [`FIRST`] until its first product came.
    place: &'p mut [u32],
    c: &'p mut [S::Out],
}

impl<S: Semiring, I: Index> Kernel for Placed<'_, '_, S, I> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (f, pattern, place) = (self.f, &self.plan.c, self.place);
        let base = pattern.indptr()[self.rows.start];
        for i in self.rows {
            let range = pattern.view().range(i);
            let c = &mut self.c[range.start - base as usize..range.end - base as usize];
            for (p, column) in pattern.row(i).0.iter().enumerate() {
                place[column.to_usize()] = p as u32 | FIRST;
            }
            f.for_each(v, i, Cut::ALL, |a, cols, vals| {
                for (column, &b) in cols.iter().zip(vals) {
                    let at = &mut place[column.to_usize()];
                    let (x, first) = (&mut c[(*at & !FIRST) as usize], *at & FIRST != 0);
                    let product = f.s.multiply(a, b);
                    if first {
                        *x = product;
                    } else if !S::ANY {
                        *x = f.s.add(*x, product);
                    }
                    *at &= !FIRST;
                }
            });
        }
    }
}
