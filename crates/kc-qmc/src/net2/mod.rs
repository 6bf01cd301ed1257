//! Digital nets in base 2: Sobol', Niederreiter-Xing and other points, randomised, of higher order, from any
//! index.
//!
//! # Idea
//! Coordinate j of point i is a binary fraction whose digits are a matrix product over the field of two elements:
//! `x_ij = C_j (bits of i)`. With each column of `C_j` held as one integer of t bits this is an exclusive or of
//! the columns that the bits of i select (in [`Order::Gray`], the bits of `i ^ i >> 1`). For good matrices any
//! first 2^m points fill every box of a certain volume equally.
//!
//! # Randomisation
//! | [`Randomize`] | What happens to the digits |
//! |---|---|
//! | `Ds` | a random t-bit shift per coordinate is added without carry |
//! | `Lms` | each matrix is multiplied by a random lower-triangular one with a unit diagonal (J. Matousek, 1998) |
//! | `LmsDs` | both: variance O(n^-3 log^(d-1) n) for smooth functions |
//! | `Nus` | each digit is flipped by a bit of its own for every value of the digits before it (A. Owen, 1995) |
//!
//! Points remain a net, and with `Ds`, `LmsDs` or `Nus` each is uniform. `Lms` draws t integers of t0 bits per
//! coordinate (t0: bits of the table), keeps k bits of row k < t0 and puts a 1 after them, and leaves the other
//! rows full, so that all t bits are random.
//!
//! # Higher order
//! With `alpha` > 1, `alpha * d` coordinates are interlaced to d: bit b of the result is bit `b / alpha` of
//! component `b mod alpha` (J. Dick, 2008). Scrambled, such nets integrate smooth functions with errors near
//! `n^-(alpha + 1/2)`.
//!
//! # Numbers
//! `f64`: `x 2^-t` rounded to nearest, as in QMCPy; a value that begins with 54 one-bits becomes 1.0. With
//! [`Interval::Open`] the first 53 bits and 2^-54, at most `1 - 2^-53`, so that neither end occurs. `f32`: the
//! first 24 bits, exactly, hence below 1 (and 2^-25 more, at most `1 - 2^-24`, in the open interval). Integers:
//! all t bits.
//!
//! The same seed gives the bits of QMCPy 2.4 (`DigitalNetB2`).
//!
//! # Nested scrambling
//! [`NusEngine::Trie`](crate::NusEngine::Trie) draws flips when they are first needed, as QMCPy does, and always
//! as if all rows from 0 on had been asked for in order: a range from the middle equals that part of the whole,
//! and costs as much. [`NusEngine::Hash`](crate::NusEngine::Hash) computes the flips of any point at once from a
//! hash of its digits. [`NusEngine::Auto`](crate::NusEngine::Auto) takes the flips of every digit that the first
//! 2^12 points pass through from their trie, and all others from the hash: one scrambling, that begins with
//! QMCPy's points and has no end.
//!
//! # Cost
//! One load, one exclusive or and one conversion per value: stores to memory are the limit. A table holds the low
//! rows, one column sum per 2^b rows the rest (see `columns.rs`); any first index costs the same.
//!
//! One core of a server processor (Zen 4, AVX2), shifted and matrix-scrambled points in f64: 3.4e9 values/s for 1
//! to 100 dimensions and 2^17 to 2^22 points, which is 95 to 99 % of what streaming stores of a constant reach (27
//! GB/s); 3.2e9 with 1000 dimensions; 3e9 to 5e9 in blocks of 4096 rows that stay in the caches; f32: 3.1e9.
//! Scrambling the matrices of all 21 201 dimensions: 9 ms. Nested scrambling: 8e6 new
//! values/s and 3e7 known ones by the trie, 1.0e8 by the hash, 6e7 by both.
//!
//! ```
//! use kc_qmc::{Sequence, net2::{DigitalNet, DigitalNetConfig}};
//! let mut net = DigitalNet::new(DigitalNetConfig::new(4, 7u64))?;
//! let points = net.points(0..16)?;
//! assert_eq!(points.shape(), [1, 16, 4]);
//! // One point in each sixteenth of the unit interval, in every coordinate.
//! let mut cells: Vec<u64> = points.as_slice().iter().step_by(4).map(|x| (x * 16.0) as u64).collect();
//! cells.sort_unstable();
//! assert_eq!(cells, (0..16).collect::<Vec<_>>());
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Sources: S. Joe and F. Kuo (2008) for the table; H. Hong and F. Hickernell, *Algorithm 823* (2003) for matrix
//! scrambling; A. Sorokin, *QMCPy: A Python Software for Randomized Low-Discrepancy Sequences* (2025).

use std::ops::Range;

use kc_core::{Error, Isa, Result};

use crate::blocks::{check_powers_of_two, count_rows, replications_need_randomization};
use crate::fingerprint::Fingerprint;
use crate::sequence::{Dims, Family, Order, Randomize, Sequence};

mod columns;
mod config;
mod convert;
mod joe_kuo;
mod nested;
mod portable;
mod quality;
pub mod reference;
mod scramble;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;

use columns::Columns;
use config::components;
use convert::{Digits, Inner, Nearest, Output, Single, Stores};
use nested::Nested;
use scramble::{Interlace, LinearScramble};
use table::Source;

pub use config::{DigitalNetConfig, Interval, NetWarning};
pub use quality::{t_value, walsh_figure_of_merit};
pub use table::{BitOrder, GeneratingMatrices, NetTable};

/// A digital net in base 2.
#[derive(Debug, Clone)]
pub struct DigitalNet {
    config: DigitalNetConfig,
    isa: Isa,
    dim: usize,
    columns: usize,
    bits: u32,
    warnings: Vec<NetWarning>,
    /// One per replication, or one for all.
    matrices: Vec<Columns>,
    /// (replications, dim), or empty.
    shifts: Vec<u64>,
    nested: Option<Nested>,
}

/// Below so many values work stays on the calling thread; above, it is cut into pieces of at least so many.
const PIECE: u64 = 1 << 16;

/// Columns that all matrices together may have: 4 GiB.
const WORDS: u64 = 1 << 29;

/// Outputs of so many bytes go past the caches.
const STREAMED_BYTES: usize = 8 << 20;

impl DigitalNet {
    /// Builds the net: reads the table, draws all random numbers of the matrices and shifts.
    ///
    /// # Errors
    /// - `Argument` or `Index`: `dims` is 0, beyond the table, or names one twice; `replications` or `alpha` is 0;
    ///   `bits` is not 1 to 64, or below the bits of the user's matrices; a randomisation or an order that nets do
    ///   not have; several replications without randomisation; `alpha` > 1 with listed dimensions.
    /// - `TooLarge`: more than 2^29 matrix columns over all replications.
    /// - `Shape`: user matrices for another number of replications.
    pub fn new(config: DigitalNetConfig) -> Result<Self> {
        Self::new_with(Isa::best(), config)
    }

    /// [`new`](Self::new) on a chosen level.
    ///
    /// # Errors
    /// As `new`.
    pub fn new_with(isa: Isa, config: DigitalNetConfig) -> Result<Self> {
        let components = components(&config)?;
        let dim = components.len() / config.alpha;
        let table = Source::new(&config.table, &components)?;
        let [sets, _, columns] = table.shape();
        let replications = config.replications;
        if sets != 1 && sets != replications {
            let expected = format!("1 or {replications} sets of matrices, one per replication");
            return Err(Error::shape("matrices", expected, &table.shape()));
        }
        if config.randomize == Randomize::None && sets != replications {
            return Err(replications_need_randomization(replications));
        }
        let words = (replications as u64).saturating_mul(components.len() as u64 * columns as u64);
        if words > WORDS {
            return Err(Error::too_large("replications times dimensions", words, WORDS, "matrix columns"));
        }
        let mut warnings = Vec::new();
        if matches!(config.randomize, Randomize::None | Randomize::Lms) {
            warnings.push(NetWarning::OriginIsAPoint);
        }
        if config.order == Order::Gray {
            warnings.push(NetWarning::GrayOrder);
        }
        let cut = table.bits().saturating_sub(config.bits);
        let table_bits = table.bits() - cut;
        if cut > 0 {
            if matches!(config.table, NetTable::Matrices(_)) {
                let expected = format!("{} (the bits of the matrices) to 64", table.bits());
                return Err(Error::argument("bits", expected, config.bits));
            }
            warnings.push(NetWarning::Truncated { table: table.bits(), bits: table_bits });
        }
        if config.alpha > 1 && columns != table.bits() as usize {
            warnings.push(NetWarning::NotSquare { columns, bits: table.bits() });
        }
        let mut net = Self {
            isa,
            dim,
            columns,
            bits: config.bits,
            warnings,
            matrices: Vec::new(),
            shifts: Vec::new(),
            nested: None,
            config,
        };
        net.draw(&table, cut);
        Ok(net)
    }

    /// Draws the random numbers and prepares the matrices.
    fn draw(&mut self, table: &Source<'_>, cut: u32) {
        let Self { config, dim, columns, .. } = self;
        let (dim, columns, bits) = (*dim, *columns, config.bits);
        let table_bits = table.bits() - cut;
        let linear = matches!(config.randomize, Randomize::Lms | Randomize::LmsDs);
        let shifted = matches!(config.randomize, Randomize::Ds | Randomize::LmsDs);
        let nested = matches!(config.randomize, Randomize::Nus(_));
        let sets = if linear { config.replications } else { table.shape()[0] };
        // Nested scrambling comes before interlacing, and so interlaces points.
        let (width, alpha) = if nested { (config.alpha * dim, 1) } else { (dim, config.alpha) };
        let matrix_bits = if linear { bits } else { table_bits };
        let interlaced_bits = bits.min((alpha as u32).saturating_mul(matrix_bits));
        let interlace = (alpha > 1).then(|| Interlace::new(self.isa, alpha, matrix_bits, interlaced_bits));
        self.bits = if config.randomize == Randomize::None { interlaced_bits } else { bits };
        let rise = self.bits - interlaced_bits;

        let mut rng = config.seed.rng();
        let mut scramble = LinearScramble::new(table_bits, bits);
        let mut matrix = vec![0; columns];
        let mut group = vec![0; alpha * columns];
        let mut transposed = group.clone();
        for set in 0..sets {
            let mut reader = table.reader(set);
            let mut net = Columns::new(width, columns);
            for j in 0..width {
                for part in group.chunks_exact_mut(columns) {
                    reader.read(part, cut);
                    if linear {
                        scramble.scramble(self.isa, &mut rng, part);
                    }
                }
                match &interlace {
                    None => matrix.copy_from_slice(&group),
                    Some(interlace) => {
                        // Component by component becomes column by column.
                        for (at, part) in transposed.iter_mut().enumerate() {
                            *part = group[at % alpha * columns + at / alpha];
                        }
                        matrix.clear();
                        interlace.each(&transposed, |column| matrix.push(column));
                    }
                }
                for column in &mut matrix {
                    *column <<= rise;
                }
                net.set(j, &matrix, config.order);
            }
            net.finish();
            self.matrices.push(net);
        }
        if shifted {
            self.shifts = (0..config.replications * dim).map(|_| rng.bits(bits)).collect();
        }
        if let Randomize::Nus(engine) = config.randomize {
            let r = config.replications;
            let interlace = (config.alpha > 1).then(|| Interlace::new(self.isa, config.alpha, bits, bits));
            self.nested = Some(Nested::new(engine, &mut config.seed, r, width, columns, bits, interlace));
        }
    }

    /// Bits t of the points' integers: those of the configuration if anything is random, else those of the table
    /// (and of interlacing).
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// What to know about this configuration.
    pub fn warnings(&self) -> &[NetWarning] {
        &self.warnings
    }

    /// Bytes that the tables take, and what nested scrambling remembers.
    pub fn bytes(&self) -> usize {
        let nested = self.nested.as_ref().map_or(0, Nested::bytes);
        self.matrices.iter().map(Columns::bytes).sum::<usize>() + size_of_val(&self.shifts[..]) + nested
    }

    /// The settings.
    pub fn config(&self) -> &DigitalNetConfig {
        &self.config
    }

    /// As [`fill`](Sequence::fill), in single precision.
    ///
    /// # Errors
    /// As `fill`.
    pub fn fill_f32(&mut self, rows: Range<u64>, out: &mut [f32]) -> Result<()> {
        self.check_order(&rows)?;
        self.write(rows, out, Single::new(self.bits, self.config.interval))
    }

    /// In natural order, points come in sets whose sizes are powers of 2.
    fn check_order(&self, rows: &Range<u64>) -> Result<()> {
        if self.config.order == Order::Natural { check_powers_of_two(rows) } else { Ok(()) }
    }

    fn write<O: Output>(&mut self, rows: Range<u64>, out: &mut [O::Value], output: O) -> Result<()> {
        let count = count_rows(&rows, self.limit())?;
        let (r, d) = (self.config.replications, self.dim);
        if count as u128 * r as u128 * d as u128 != out.len() as u128 {
            return Err(Error::shape("out", format!("({r}, {count}, {d}) values"), &[out.len()]));
        }
        if count == 0 {
            return Ok(());
        }
        if let Some(nested) = &mut self.nested {
            nested.grow(&self.matrices, rows.end)?;
        }
        let stores = match size_of_val(out) {
            bytes if bytes >= STREAMED_BYTES => Stores::Streamed,
            _ => Stores::Cached,
        };
        let piece = (PIECE / d as u64).max(1).next_power_of_two();
        let net = &*self;
        let mut jobs = Vec::new();
        for (replication, mut out) in out.chunks_exact_mut(count * d).enumerate() {
            let mut at = rows.start;
            while at < rows.end {
                let len = (rows.end - at).min(piece - at % piece);
                let (head, tail) = out.split_at_mut(len as usize * d);
                jobs.push((replication, at..at + len, head));
                (out, at) = (tail, at + len);
            }
        }
        let run = |(replication, rows, out): (usize, Range<u64>, &mut [O::Value])| {
            net.piece(replication, rows, out, output, stores);
        };
        if jobs.len() == 1 {
            jobs.into_iter().for_each(run);
        } else {
            use rayon::prelude::*;
            jobs.into_par_iter().for_each(run);
        }
        Ok(())
    }

    /// Some rows of one replication.
    fn piece<O: Output>(
        &self,
        replication: usize,
        rows: Range<u64>,
        out: &mut [O::Value],
        output: O,
        stores: Stores,
    ) {
        let columns = &self.matrices[replication % self.matrices.len()];
        if let Some(nested) = &self.nested {
            return self.nested_piece(nested, columns, replication, rows, out, output);
        }
        let shift = self.shifts.get(replication * self.dim..(replication + 1) * self.dim).unwrap_or(&[]);
        let mut at = 0;
        columns.each_block(rows, shift, |low, high| {
            output.combine(self.isa, low, high, &mut out[at..at + low.len()], stores);
            at += low.len();
        });
        #[cfg(target_arch = "x86_64")]
        x86::fence(stores);
    }

    /// [`piece`](Self::piece) with nested scrambling.
    fn nested_piece<O: Output>(
        &self,
        nested: &Nested,
        columns: &Columns,
        replication: usize,
        rows: Range<u64>,
        out: &mut [O::Value],
        output: O,
    ) {
        let width = nested.width();
        let mut digits = Vec::new();
        let mut out = out.iter_mut();
        for rows in nested.batches(rows) {
            digits.resize((rows.end - rows.start) as usize * width, 0);
            let mut at = 0;
            columns.each_block(rows, &[], |low, high| {
                Digits.combine(self.isa, low, high, &mut digits[at..at + low.len()], Stores::Cached);
                at += low.len();
            });
            nested.scramble(self.isa, replication, &mut digits);
            match nested.interlace() {
                None => digits.iter().zip(out.by_ref()).for_each(|(&x, out)| *out = output.convert(x)),
                Some(interlace) => interlace.each(&digits, |x| {
                    if let Some(out) = out.next() {
                        *out = output.convert(x);
                    }
                }),
            }
        }
    }
}

impl Sequence for DigitalNet {
    fn dim(&self) -> usize {
        self.dim
    }

    fn replications(&self) -> usize {
        self.config.replications
    }

    fn limit(&self) -> u128 {
        1 << self.columns
    }

    fn family(&self) -> Family {
        Family::DigitalNet
    }

    fn order(&self) -> Order {
        self.config.order
    }

    fn randomize(&self) -> Randomize {
        self.config.randomize
    }

    fn fingerprint(&self) -> String {
        let DigitalNetConfig { seed, randomize, order, alpha, replications, table, interval, .. } =
            &self.config;
        Fingerprint::new("digital-net-base-2")
            .field("table", table.name())
            .field("dim", self.dim)
            .field("seed", seed.name())
            .field("randomize", format_args!("{randomize:?}"))
            .field("order", format_args!("{order:?}"))
            .field("alpha", alpha)
            .field("bits", self.bits)
            .field("replications", replications)
            .field("interval", format_args!("{interval:?}"))
            .integers("matrices", self.matrices.iter().flat_map(Columns::words))
            .integers("shifts", self.shifts.iter().copied())
            .integers("nested", self.nested.iter().flat_map(Nested::words))
            .finish()
    }

    fn fill(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        self.check_order(&rows)?;
        self.fill_block(rows, out)
    }

    fn fill_block(&mut self, rows: Range<u64>, out: &mut [f64]) -> Result<()> {
        match self.config.interval {
            Interval::HalfOpen => self.write(rows, out, Nearest { bits: self.bits }),
            Interval::Open => self.write(rows, out, Inner::new(self.bits)),
        }
    }

    fn fill_digits(&mut self, rows: Range<u64>, out: &mut [u64]) -> Result<u32> {
        self.check_order(&rows)?;
        self.write(rows, out, Digits)?;
        Ok(self.bits)
    }

    fn spawn(&mut self, dims: &[usize]) -> Result<Vec<Box<dyn Sequence>>> {
        let seeds = self.config.seed.spawn(dims.len());
        let child = |(seed, &count)| {
            let config = DigitalNetConfig { seed, dims: Dims::First(count), ..self.config.clone() };
            Ok(Box::new(Self::new_with(self.isa, config)?) as Box<dyn Sequence>)
        };
        seeds.into_iter().zip(dims).map(child).collect()
    }
}
