//! Sparse times sparse, row by row, partial products merged at once in an accumulator that stays in the
//! core's own cache.
//!
//! # Idea
//! Row `i` of `C = A B` is the sum of the rows of B that row `i` of A points to (Gustavson). SMASH keeps the
//! sums in a scratchpad hash table, so that no intermediate product matrix ever exists. Here the scratchpad
//! is the L2 cache, and each row takes the accumulator that suits it:
//!
//! | [`Accumulator`] | for rows | cost per row (w products, u entries, n columns) |
//! |---|---|---|
//! | `Merge` | one or two entries in A's row | w |
//! | `Runs` | B's rows are runs of consecutive columns | w, vectorised |
//! | `Sort` | at most 32 entries | w log w |
//! | `Dense` | n columns fit the budget, or the row fills much of them | w + u + n / 4096 |
//! | `Hash` | all others; tables over the budget are cut into column ranges | w + u log u |
//!
//! # Definition
//! `C_ij = ((p1 + p2) + p3) ...` over the products of column `j` in the stored order of A's row, each
//! multiplied and added separately (no fused operation). The result is as if the first product were stored, not
//! added to a zero (where sums do start from something, it is negative zero, which changes no bit).
//! Every accumulator, phase, thread count and instruction level therefore gives the same bits, which are those
//! of [`reference`](mod@reference) and, for f64, of SciPy. An entry exists if and only if a product does: cancelled sums stay,
//! unless [`SpgemmConfig::drop_zeros`].
//!
//! # Cost
//! Products + entries of C + m n / 4096 for dense rows. Memory traffic is at least
//! `12 (nnz A + products that miss the L2 + 2 nnz C)` bytes for f64 with u32 columns. Temporary memory: one
//! accumulator per thread, `8 m` bytes, and in one phase on several threads the pieces that have not been copied to
//! their place yet, usually one or two per thread and at most [`SpgemmConfig::max_temp_bytes`]. One phase
//! reserves addresses for the largest result that there can be, but touches only what is written.
//!
//! # When not to use it
//! When C is nearly dense: a dense product does more work per second. For one product with a few vectors use
//! [`spmm`](crate::spmv::spmm). When the pattern stays and values change, build a [`SpgemmPlan`] once.
//!
//! # Source
//! SMASH: Sparse Matrix Atomic Scratchpad Hashing (2021): the row-wise product with merging in a scratchpad,
//! its three versions as the cost model [`model`]. The accumulators and their choice are this crate's.
//!
//! ```
//! use kc_sparse::{Csr, SpgemmConfig, semiring::PlusTimes, spgemm};
//! let a: Csr<f64> = Csr::new(2, 2, vec![0, 2, 3], vec![0, 1, 1], vec![1.0, 2.0, 3.0])?;
//! let c = spgemm(PlusTimes::new(), a.view(), a.view(), &SpgemmConfig::default())?;
//! assert_eq!((c.indptr(), c.indices(), c.values()), (&[0, 2, 3][..], &[0, 1, 1][..], &[1.0, 8.0, 9.0][..]));
//! # Ok::<(), kc_core::Error>(())
//! ```

mod dense_row;
pub mod generate;
mod hash;
mod mask;
mod merge;
pub mod model;
mod one_phase;
mod plan;
pub(crate) mod portable;
pub mod reference;
mod row;
mod runs;
mod schedule;
mod segments;
mod sort;
mod symbolic;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use kc_core::{Error, Isa, KcRng, Result};

pub use mask::Mask;
pub use plan::{PlanConfig, SpgemmPlan};

use crate::csr::{Csr, CsrView, Index, Order, Value};
use crate::ops;
use crate::semiring::{Semiring, Structure};
use row::Problem;
use schedule::{Piece, Pool};
use segments::{Cut, Factors};

/// Where the products of a row are added up. All give the same bits. Rows that a forced accumulator cannot
/// do (see the table of the [module](self)) take the one that `Auto` would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accumulator {
    /// The best for each row.
    #[default]
    Auto,
    /// A value per column and a mark that it has one.
    Dense,
    /// A hash table.
    Hash,
    /// Collect, then sort.
    Sort,
    /// Contiguous accumulation of runs of columns.
    Runs,
    /// Copy or merge of one or two rows of B.
    Merge,
}

impl Accumulator {
    /// All of them, `Auto` first.
    pub const ALL: [Accumulator; 6] =
        [Self::Auto, Self::Dense, Self::Hash, Self::Sort, Self::Runs, Self::Merge];
}

/// How the lengths of the rows are found out. Both give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phases {
    /// One if room for the most entries that there can be fits [`SpgemmConfig::max_temp_bytes`], or if these are
    /// at most four times the estimated entries; else two.
    #[default]
    Auto,
    /// Compute into growing chunks, then copy. Falls back to two when the chunks would not fit.
    One,
    /// Count first, then compute in place.
    Two,
}

/// How to multiply. `SpgemmConfig::default()` suits all inputs.
#[derive(Debug, Clone)]
pub struct SpgemmConfig<'m, I: Index = u32> {
    /// Default `Auto`.
    pub accumulator: Accumulator,
    /// Default `Auto`.
    pub phases: Phases,
    /// Threads to cut the work for; the work runs on the caller's rayon pool. 0 (default): all of the pool; 1:
    /// the calling thread alone. No result depends on it.
    pub threads: usize,
    /// Columns ascending (default), or in any order, which saves the sorts of hash rows.
    pub sorted: bool,
    /// Drop entries of the result that are exactly zero (its type's default). Default false.
    pub drop_zeros: bool,
    /// Which entries to compute. Default: all.
    pub mask: Option<Mask<'m, I>>,
    /// Multiply the transpose of A. Default false.
    pub transpose_a: bool,
    /// Multiply by the transpose of B. Default false.
    pub transpose_b: bool,
    /// Bytes that one thread's accumulator may take before rows are cut. Default 1.25 MiB, most of an L2.
    pub l2_bytes: usize,
    /// Bytes that pieces on their way to the result may take in one phase, and addresses that it may reserve without
    /// an estimate. Default 1 GiB.
    pub max_temp_bytes: usize,
}

impl<I: Index> Default for SpgemmConfig<'_, I> {
    fn default() -> Self {
        Self {
            accumulator: Accumulator::Auto,
            phases: Phases::Auto,
            threads: 0,
            sorted: true,
            drop_zeros: false,
            mask: None,
            transpose_a: false,
            transpose_b: false,
            l2_bytes: 5 << 18,
            max_temp_bytes: 1 << 30,
        }
    }
}

/// Accumulators kept between products, so that many small products do not allocate them each time.
#[derive(Debug)]
pub struct Workspace<T, I: Index = u32> {
    numeric: Pool<T, I>,
    symbolic: Pool<(), I>,
}

impl<T, I: Index> Workspace<T, I> {
    /// An empty workspace; it grows with use.
    pub fn new() -> Self {
        Self { numeric: Pool::default(), symbolic: Pool::default() }
    }
}

impl<T, I: Index> Default for Workspace<T, I> {
    fn default() -> Self {
        Self::new()
    }
}

/// `A B` over the semiring `s`.
///
/// Fails with [`Error::Shape`] if the inner dimensions differ or the mask has another shape, and with
/// [`Error::TooLarge`] if the result cannot be had.
pub fn spgemm<S: Semiring, I: Index>(
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    config: &SpgemmConfig<'_, I>,
) -> Result<Csr<S::Out, I>> {
    spgemm_with(Isa::best(), &Workspace::new(), s, a, b, config)
}

/// [`spgemm`] with accumulators of an earlier product, on an instruction level of the caller's choice.
pub fn spgemm_with<S: Semiring, I: Index>(
    isa: Isa,
    workspace: &Workspace<S::Out, I>,
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    config: &SpgemmConfig<'_, I>,
) -> Result<Csr<S::Out, I>> {
    let a = oriented(a, config.transpose_a)?;
    let b = oriented(b, config.transpose_b)?;
    let out = product(isa, workspace, s, a.view(), b.view(), config)?;
    let zero = S::Out::default();
    Ok(if config.drop_zeros { ops::drop_where(out, |v| v == zero) } else { out })
}

/// [`spgemm`] with another width of column indices in the result. Fails with [`Error::TooLarge`], before
/// anything is computed, if the columns of B do not fit.
pub fn spgemm_as<O: Index, S: Semiring, I: Index>(
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    config: &SpgemmConfig<'_, I>,
) -> Result<Csr<S::Out, O>> {
    let columns = if config.transpose_b { b.nrows() } else { b.ncols() };
    if columns > O::MAX.to_usize() {
        return Err(Error::too_large("product", columns as u64, O::MAX.to_usize() as u64, "columns"));
    }
    spgemm(s, a, b, config)?.with_index()
}

/// `C (+) alpha (x) (A B)`: the finished product, each entry multiplied by `alpha` from the left if given, added
/// to `c`.
pub fn spgemm_accumulate<S, T: Value, I: Index>(
    s: S,
    c: CsrView<'_, T, I>,
    alpha: Option<T>,
    a: CsrView<'_, T, I>,
    b: CsrView<'_, T, I>,
    config: &SpgemmConfig<'_, I>,
) -> Result<Csr<T, I>>
where
    S: Semiring<Left = T, Right = T, Out = T>,
{
    let mut product = spgemm(s, a, b, config)?;
    if let Some(alpha) = alpha {
        for x in product.values_mut() {
            *x = s.multiply(alpha, *x);
        }
    }
    ops::add(s, c, product.view())
}

/// What a product would cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpgemmStats {
    /// Number of multiplications.
    pub products: u64,
    /// Entries of the result.
    pub nnz_c: u64,
    /// Products per entry of the result; 0 if there is none.
    pub compression: f64,
    /// The most products of one row.
    pub max_row_products: u64,
    /// Bytes of the result as stored here: offsets, columns and values of A's type.
    pub bytes: u64,
}

/// Counts a product without computing it (the symbolic phase alone).
pub fn spgemm_stats<T: Value, I: Index>(a: CsrView<'_, T, I>, b: CsrView<'_, T, I>) -> Result<SpgemmStats> {
    check_inner(a, b)?;
    let weights = schedule::weights(a, b, true);
    let config = SpgemmConfig::default();
    let products = weights[a.nrows()];
    let counts = with_problem(
        Structure,
        a.pattern(&vec![(); a.nnz()]),
        b.pattern(&vec![(); b.nnz()]),
        &weights,
        &config,
        |p| {
            let pieces = schedule::pieces(p, schedule::threads(0, products));
            symbolic::count(Isa::best(), p, &pieces, &Pool::default())
        },
    )?;
    let nnz_c: u64 = counts.iter().map(|c| symbolic::total(c)).sum();
    let entry = (size_of::<I>() + size_of::<T>()) as u64;
    Ok(SpgemmStats {
        products,
        nnz_c,
        compression: if nnz_c == 0 { 0.0 } else { products as f64 / nnz_c as f64 },
        max_row_products: weights.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0),
        bytes: nnz_c * entry + 8 * (a.nrows() as u64 + 1),
    })
}

fn check_inner<L: Value, R: Value, I: Index>(a: CsrView<'_, L, I>, b: CsrView<'_, R, I>) -> Result<()> {
    if a.ncols() == b.nrows() {
        return Ok(());
    }
    let expected = format!("{} rows to match a of shape {:?}", a.ncols(), [a.nrows(), a.ncols()]);
    Err(Error::shape("b", expected, &[b.nrows(), b.ncols()]))
}

/// A factor, or its transpose.
enum Oriented<'a, T, I> {
    Given(CsrView<'a, T, I>),
    Made(Csr<T, I>),
}

impl<T: Value, I: Index> Oriented<'_, T, I> {
    fn view(&self) -> CsrView<'_, T, I> {
        match self {
            Oriented::Given(view) => *view,
            Oriented::Made(matrix) => matrix.view(),
        }
    }
}

fn oriented<T: Value, I: Index>(matrix: CsrView<'_, T, I>, transpose: bool) -> Result<Oriented<'_, T, I>> {
    Ok(if transpose { Oriented::Made(matrix.transpose()?) } else { Oriented::Given(matrix) })
}

fn product<S: Semiring, I: Index>(
    isa: Isa,
    workspace: &Workspace<S::Out, I>,
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    config: &SpgemmConfig<'_, I>,
) -> Result<Csr<S::Out, I>> {
    check_inner(a, b)?;
    if let Some(mask) = &config.mask {
        mask.check(a.nrows(), b.ncols(), config.max_temp_bytes)?;
    }
    let weights = schedule::weights(a, b, config.threads != 1 && a.nnz() > 1 << 14);
    let total = weights[a.nrows()];
    let (indptr, cols, vals) = with_problem(s, a, b, &weights, config, |p| {
        let pieces = schedule::pieces(p, schedule::threads(config.threads, total));
        let Workspace { numeric, symbolic } = workspace;
        if let Some(planned) = one_pass(isa, p, symbolic, config) {
            let limit = config.max_temp_bytes;
            if let Some(done) = one_phase::one_phase(isa, p, &pieces, numeric, planned, limit) {
                return Ok(done);
            }
        }
        symbolic::two_phase(isa, p, &pieces, numeric, symbolic)
    })??;
    let order = if config.sorted { Order::Strict } else { Order::Unsorted };
    Ok(Csr::from_parts(a.nrows(), b.ncols(), indptr, cols, vals, order))
}

/// Prepares a problem (sorts or transposes B where needed) and runs `body` on it.
fn with_problem<S: Semiring, I: Index, R>(
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    weights: &[u64],
    config: &SpgemmConfig<'_, I>,
    body: impl FnOnce(&Problem<'_, S, I>) -> R,
) -> Result<R> {
    let longest = b.indptr().windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
    let budget = config.l2_bytes.max(1 << 12);
    // Only rows that are cut by columns need B sorted, and only wide ones are.
    let wide = dense_row::bytes::<S::Out>(b.ncols()) > budget;
    let sorted = (wide && b.order() == Order::Unsorted).then(|| b.sorted());
    let b = sorted.as_ref().map_or(b, Csr::view);
    let transposed = match &config.mask {
        Some(mask) if !mask.is_complement() && b.order() != Order::Unsorted => {
            let saved = |i: usize| {
                let products = weights[i + 1] - weights[i];
                if row::by_columns(products, mask.row(i).len(), longest) { products } else { 0 }
            };
            let saved: u64 = (0..a.nrows()).map(saved).sum();
            if saved > (b.nnz() + b.ncols()) as u64 { Some(b.transpose()?) } else { None }
        }
        _ => None,
    };
    // Short rows all around have nothing to gain from runs.
    let starts = if longest >= 4 { runs::starts(b) } else { None };
    Ok(body(&Problem {
        f: Factors { s, a, b },
        weights,
        accumulator: config.accumulator,
        sorted: config.sorted,
        budget,
        mask: config.mask.as_ref(),
        bt: transposed.as_ref().map(Csr::view),
        longest,
        runs: starts.as_deref(),
    }))
}

/// The entries to plan for, if one phase is the better way. Pages that are never written cost nothing, so a plan is
/// generous.
fn one_pass<S: Semiring, I: Index>(
    isa: Isa,
    p: &Problem<'_, S, I>,
    pool: &Pool<(), I>,
    config: &SpgemmConfig<'_, I>,
) -> Option<usize> {
    if config.phases == Phases::Two {
        return None;
    }
    let bound: u64 = (0..p.f.a.nrows()).map(|i| p.bound(i) as u64).sum();
    let bytes = bound.saturating_mul((size_of::<I>() + size_of::<S::Out>()) as u64);
    if bytes <= config.max_temp_bytes as u64 {
        return usize::try_from(bound).ok();
    }
    let expected = estimate(isa, p, pool, bound);
    let worth = config.phases == Phases::One || bound <= expected.saturating_mul(4);
    let planned = usize::try_from((expected + expected / 4 + 4096).min(bound)).ok()?;
    worth.then_some(planned)
}

/// An estimate of the entries of the result, from one row in a hundred.
fn estimate<S: Semiring, I: Index>(isa: Isa, p: &Problem<'_, S, I>, pool: &Pool<(), I>, bound: u64) -> u64 {
    let m = p.f.a.nrows();
    if m < 1000 {
        return bound;
    }
    let mut rng = KcRng::new(0, 0);
    let mut rows: Vec<usize> = (0..m / 100).map(|_| rng.below(m as u64) as usize).collect();
    rows.sort_unstable();
    rows.dedup();
    let pieces: Vec<Piece> = rows.into_iter().map(|i| Piece { rows: i..i + 1, cut: Cut::ALL }).collect();
    let seen: u64 = pieces.iter().map(|piece| p.bound(piece.rows.start) as u64).sum();
    let entries: u64 = symbolic::count(isa, p, &pieces, pool).iter().map(|c| symbolic::total(c)).sum();
    let share = if seen == 0 { 1.0 } else { entries as f64 / seen as f64 };
    (bound as f64 * share) as u64
}
