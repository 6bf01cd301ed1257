//! Products of one pattern with many values: the pattern and the place of every product are found once.
//!
//! `execute` reads, for each product, the slot where it goes (4 bytes) instead of probing a table; nothing is
//! allocated. The bits are those of a fresh product. Memory: patterns of A, B and C, and 4 bytes per product
//! (if they are at most [`PlanConfig::slot_limit`]; otherwise each thread has an array over the columns).
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

use super::schedule;
use super::segments::{Cut, Factors};
use super::{SpgemmConfig, spgemm};
use crate::csr::{Csr, CsrView, Index, Value};
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

/// The pattern of a product, ready for any values. See the [module](super) for what it computes.
#[derive(Debug)]
pub struct SpgemmPlan<I: Index = u32> {
    a: Csr<(), I>,
    b: Csr<(), I>,
    c: Csr<(), I>,
    /// Prefix sums of the products of each row.
    weights: Vec<u64>,
    /// Per product, its place in its row of C; the first one of an entry marked.
    slots: Option<Vec<u32>>,
    /// Without slots: arrays from column to place, one per thread.
    places: Vec<Mutex<Vec<u32>>>,
    blocks: Vec<Range<usize>>,
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
        let weights = schedule::weights(a.view(), b.view(), true);
        let products = weights[a.nrows()];
        let threads = schedule::threads(config.threads, products);
        let parts = if threads == 1 { 1 } else { 8 * threads };
        let blocks = schedule::rows(&weights, parts);
        let longest = c.indptr().windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        if longest >= i64::from(FIRST) {
            return Err(Error::too_large("plan", longest as u64, u64::from(FIRST), "entries in a row"));
        }
        let mut plan = Self { a, b, c, weights, slots: None, places: Vec::new(), blocks };
        if products <= config.slot_limit {
            plan.slots = Some(plan.find_slots(products as usize));
        } else {
            let columns = plan.c.ncols();
            plan.places = (0..threads).map(|_| Mutex::new(vec![0; columns])).collect();
        }
        Ok(plan)
    }

    fn find_slots(&self, products: usize) -> Vec<u32> {
        let mut slots = Vec::with_capacity(products);
        let mut seen = Vec::new();
        for i in 0..self.a.nrows() {
            let (cols, _) = self.c.row(i);
            seen.clear();
            seen.resize(cols.len(), false);
            for k in self.a.row(i).0 {
                for column in self.b.row(k.to_usize()).0 {
                    // Every product has an entry: C's pattern is the product's.
                    let at = cols.partition_point(|c| c < column);
                    let first = !std::mem::replace(&mut seen[at], true);
                    slots.push(at as u32 | if first { FIRST } else { 0 });
                }
            }
        }
        slots
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
        let slots = self.slots.as_ref().map_or(0, |s| 4 * s.len());
        let places = self.places.len() * 4 * self.c.ncols();
        self.a.bytes() + self.b.bytes() + self.c.bytes() + 8 * self.weights.len() + slots + places
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
        self.blocks(Isa::best(), &Factors { s, a, b }, 0..self.blocks.len(), c);
        Ok(())
    }

    /// Some blocks, halved until one is left; `c` holds their values.
    fn blocks<S: Semiring>(&self, isa: Isa, f: &Factors<'_, S, I>, blocks: Range<usize>, c: &mut [S::Out]) {
        if blocks.len() > 1 {
            let middle = blocks.start + blocks.len() / 2;
            let start = self.c.indptr()[self.blocks[blocks.start].start];
            let (left, right) = c.split_at_mut((self.c.indptr()[self.blocks[middle].start] - start) as usize);
            rayon::join(
                || self.blocks(isa, f, blocks.start..middle, left),
                || self.blocks(isa, f, middle..blocks.end, right),
            );
            return;
        }
        for block in blocks {
            let rows = self.blocks[block].clone();
            match &self.slots {
                Some(slots) => dispatch(isa, Slotted { plan: self, f, rows, slots, c: &mut *c }),
                None => {
                    let own = rayon::current_thread_index().unwrap_or(0) % self.places.len().max(1);
                    let Some(place) = self.places.get(own) else { continue };
                    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
                    dispatch(isa, Placed { plan: self, f, rows, place: &mut place, c: &mut *c });
                }
            }
        }
    }
}

fn wrong(name: &'static str, want: usize, got: usize) -> Error {
    Error::shape(name, format!("{want} values, the entries of its pattern"), &[got])
}

/// Rows whose slots are stored.
struct Slotted<'p, 'a, S: Semiring, I: Index> {
    plan: &'p SpgemmPlan<I>,
    f: &'p Factors<'a, S, I>,
    rows: Range<usize>,
    slots: &'p [u32],
    c: &'p mut [S::Out],
}

impl<S: Semiring, I: Index> Kernel for Slotted<'_, '_, S, I> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (f, indptr) = (self.f, self.plan.c.indptr());
        let base = indptr[self.rows.start];
        let mut slots = &self.slots[self.plan.weights[self.rows.start] as usize..];
        for i in self.rows {
            let c = &mut self.c[(indptr[i] - base) as usize..(indptr[i + 1] - base) as usize];
            f.for_each(v, i, Cut::ALL, |a, _, vals| {
                let (here, rest) = slots.split_at(vals.len());
                slots = rest;
                for (&slot, &b) in here.iter().zip(vals) {
                    let (x, first) = (&mut c[(slot & !FIRST) as usize], slot & FIRST != 0);
                    let product = f.s.multiply(a, b);
                    if S::SPECULATE {
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
