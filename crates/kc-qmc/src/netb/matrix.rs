//! Generating matrices in a base: how they are made, scrambled and interlaced.

use kc_core::{Error, Result};

use super::random;
use crate::fingerprint::Fingerprint;
use crate::rng::Sfc64;

/// Digits of a point, at most.
pub(crate) const MOST_DIGITS: usize = 64;

/// The largest base: digits are stored in 16 bits.
pub(crate) const MOST_BASE: u32 = 1 << 16;

/// Column `c` holds what digit `c` of the index adds to the digits of the point, most significant first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigitMatrix {
    pub(crate) base: u32,
    pub(crate) rows: usize,
    /// Column after column.
    values: Vec<u16>,
}

impl DigitMatrix {
    /// A matrix by its entries.
    pub(crate) fn from_fn(
        base: u32,
        columns: usize,
        rows: usize,
        entry: impl Fn(usize, usize) -> u32,
    ) -> Self {
        let values = (0..columns).flat_map(|c| (0..rows).map(move |k| (c, k)));
        Self { base, rows, values: values.map(|(c, k)| entry(c, k) as u16).collect() }
    }

    /// Digits of the index that it reads.
    pub(crate) fn columns(&self) -> usize {
        self.values.len() / self.rows
    }

    /// Column `c`.
    pub(crate) fn column(&self, c: usize) -> &[u16] {
        &self.values[c * self.rows..(c + 1) * self.rows]
    }

    /// The matrix of the radical inverse.
    pub(crate) fn identity(base: u32, columns: usize, rows: usize) -> Self {
        Self::from_fn(base, columns, rows, |c, k| u32::from(c == k))
    }

    /// Dimension `k` of H. Faure's sequence: powers of Pascal's matrix modulo `base`.
    pub(crate) fn faure(base: u32, k: u32, columns: usize, rows: usize) -> Self {
        let b = u64::from(base);
        // Column c: binom(c, row) k^(c - row), from the column before by Pascal's rule.
        let mut column = vec![0u64; rows.max(columns)];
        let mut values = Vec::with_capacity(columns * rows);
        for c in 0..columns {
            let before = column.clone();
            for (row, slot) in column.iter_mut().enumerate() {
                let above = if row == 0 { u64::from(c == 0) } else { before[row - 1] };
                *slot = (above + u64::from(k) % b * before[row]) % b;
            }
            values.extend(column[..rows].iter().map(|&v| v as u16));
        }
        Self { base, rows, values }
    }

    /// The product with a random lower triangular matrix of `rows` x `self.rows` entries with a diagonal of units.
    pub(crate) fn scrambled(&self, rng: &mut Sfc64, rows: usize) -> Self {
        let inner = self.rows;
        let scramble = random::lower_triangle(rng, self.base, rows, inner);
        let mut values = Vec::with_capacity(self.columns() * rows);
        for c in 0..self.columns() {
            let column = self.column(c);
            // Most columns are nearly empty (Halton), or end early (Faure).
            let used: Vec<(usize, u64)> = column
                .iter()
                .enumerate()
                .filter(|(_, v)| **v > 0)
                .map(|(at, &v)| (at, u64::from(v)))
                .collect();
            for row in scramble.chunks_exact(inner) {
                let sum: u64 = used.iter().map(|&(at, v)| u64::from(row[at]) * v).sum();
                values.push((sum % u64::from(self.base)) as u16);
            }
        }
        Self { base: self.base, rows, values }
    }

    /// One matrix of `rows` rows that takes its rows in turn from `parts`.
    pub(crate) fn interlaced(parts: &[Self], rows: usize) -> Self {
        let alpha = parts.len();
        let columns = parts.iter().map(Self::columns).min().unwrap_or(0);
        let entry = |c: usize, k: usize| {
            let digits = parts[k % alpha].column(c);
            digits.get(k / alpha).map_or(0, |&v| u32::from(v))
        };
        Self::from_fn(parts.first().map_or(2, |p| p.base), columns, rows, entry)
    }

    /// Adds to `digits` what digit `digit` at place `c` of the index adds.
    pub(crate) fn add(&self, c: usize, digit: u32, digits: &mut [u32]) {
        for (slot, &v) in digits.iter_mut().zip(self.column(c)) {
            *slot = ((u64::from(*slot) + u64::from(digit) * u64::from(v)) % u64::from(self.base)) as u32;
        }
    }

    /// The digits of point `i`.
    pub(crate) fn digits(&self, i: u64) -> Vec<u32> {
        let mut digits = vec![0; self.rows];
        for (c, digit) in digits_of(i, self.base).enumerate().take(self.columns()) {
            if digit > 0 {
                self.add(c, digit, &mut digits);
            }
        }
        digits
    }
}

/// The digits of `i`, least significant first, down to the last that is not 0.
pub(crate) fn digits_of(mut i: u64, base: u32) -> impl Iterator<Item = u32> {
    let base = u64::from(base);
    std::iter::from_fn(move || {
        (i > 0).then(|| {
            let digit = i % base;
            i /= base;
            digit as u32
        })
    })
}

/// Bases and generating matrices that are given: one set for all replications, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseMatrices {
    sets: usize,
    dims: usize,
    columns: usize,
    rows: usize,
    bases: Vec<u32>,
    values: Vec<u32>,
}

impl BaseMatrices {
    /// One matrix for each of `bases` (2 to 65536), in `values` of shape (bases, columns, rows): entry `(j, c, k)` is
    /// what digit `c` of the index (least significant first) adds to digit `k` of coordinate `j` (most significant
    /// first). Up to 64 columns and 64 rows.
    ///
    /// # Errors
    /// A base, shape or entry out of range.
    pub fn new(bases: Vec<u32>, columns: usize, values: Vec<u32>) -> Result<Self> {
        Self::per_replication(1, bases, columns, values)
    }

    /// `sets` of them one after another, both in `bases` (sets, dimensions) and in `values` (sets, dimensions,
    /// columns, rows).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn per_replication(sets: usize, bases: Vec<u32>, columns: usize, values: Vec<u32>) -> Result<Self> {
        if bases.is_empty() {
            return Err(Error::empty("bases"));
        }
        if sets == 0 || !bases.len().is_multiple_of(sets) {
            return Err(Error::shape("bases", format!("{sets} sets of bases"), &[bases.len()]));
        }
        if let Some((at, base)) = bases.iter().enumerate().find(|(_, b)| !(2..=MOST_BASE).contains(b)) {
            return Err(Error::argument("bases", format!("2 to {MOST_BASE}"), format!("{base} at {at}")));
        }
        let matrices = bases.len().saturating_mul(columns);
        if columns == 0
            || columns > MOST_DIGITS
            || values.is_empty()
            || !values.len().is_multiple_of(matrices)
        {
            let expected = format!("[{}, {columns}, digits], with 1 to {MOST_DIGITS} columns", bases.len());
            return Err(Error::shape("matrices", expected, &[values.len()]));
        }
        let rows = values.len() / matrices;
        if rows > MOST_DIGITS {
            return Err(Error::argument("matrices", format!("up to {MOST_DIGITS} digits"), rows));
        }
        for (at, (matrix, &base)) in values.chunks_exact(columns * rows).zip(&bases).enumerate() {
            if let Some(value) = matrix.iter().find(|&&v| v >= base) {
                let expected = format!("entries below the base, {base}");
                return Err(Error::argument("matrices", expected, format!("{value} in matrix {at}")));
            }
        }
        Ok(Self { sets, dims: bases.len() / sets, columns, rows, bases, values })
    }

    /// Coordinates.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Sets of matrices.
    pub fn sets(&self) -> usize {
        self.sets
    }

    /// Digits of an index.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Digits of a coordinate.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The base of coordinate `dim` in a set.
    pub fn base(&self, set: usize, dim: usize) -> u32 {
        self.bases[set * self.dims + dim]
    }

    /// Adds all of it to a fingerprint.
    pub(crate) fn print(&self, print: Fingerprint) -> Fingerprint {
        let numbers = |values: &[u32]| values.iter().map(|&v| u64::from(v)).collect::<Vec<_>>();
        print
            .field("columns", self.columns)
            .field("sets", self.sets)
            .integers("bases", numbers(&self.bases))
            .integers("matrices", numbers(&self.values))
    }

    pub(crate) fn matrix(&self, set: usize, dim: usize) -> DigitMatrix {
        let at = (set * self.dims + dim) * self.columns * self.rows;
        let entry = |c: usize, k: usize| self.values[at + c * self.rows + k];
        DigitMatrix::from_fn(self.base(set, dim), self.columns, self.rows, entry)
    }
}
