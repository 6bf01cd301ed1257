//! Generating matrices in the form that points are made from.
//!
//! Point i is the sum (exclusive or) of the columns that the bits of i select. With the sums of the lowest columns
//! tabulated for all 2^b values of the low bits, `point(i) = high(i >> b) ^ low[i & (2^b - 1)]`, and the high part
//! goes from one block of 2^b rows to the next by one column: the sum of the columns of all bits that change. In
//! Gray order, bit k of the index selects columns k and k - 1, which is again a matrix.

use std::ops::Range;

use crate::sequence::Order;

/// Values in the table of low rows: a quarter of the first-level cache.
const LOW_VALUES: usize = 2048;

/// Values in a vector: a multiple of those of every level.
const LANES: usize = 8;

/// Values that the repeated high row has at least.
const PERIOD: usize = 32;

/// The fewest low bits: four rows, so that a whole number of rows fills a vector.
const LOW_BITS_MIN: u32 = 2;

/// One replication's matrices.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    dim: usize,
    /// How often the high row is repeated, so that vectors can run over several rows.
    copies: usize,
    low_bits: u32,
    /// (2^low_bits, dim): sums of the low columns.
    low: Vec<u64>,
    /// (columns - low_bits, dim): row k is the sum of columns low_bits to low_bits + k.
    steps: Vec<u64>,
}

impl Columns {
    /// Room for matrices of `dim` coordinates and `columns` columns, both at least 1. [`set`](Self::set) each,
    /// then [`finish`](Self::finish).
    pub(super) fn new(dim: usize, columns: usize) -> Self {
        let fit = (LOW_VALUES / dim).max(1).ilog2();
        let low_bits = fit.max(LOW_BITS_MIN).min(columns as u32);
        let unit = LANES >> dim.trailing_zeros().min(LANES.ilog2());
        let copies = if unit * dim > LOW_VALUES { 1 } else { unit * PERIOD.div_ceil(unit * dim) };
        let (low, steps) = (vec![0; dim << low_bits], vec![0; dim * (columns - low_bits as usize)]);
        Self { dim, copies, low_bits, low, steps }
    }

    /// The matrix of coordinate `j`.
    pub(super) fn set(&mut self, j: usize, matrix: &[u64], order: Order) {
        let (mut previous, mut sum) = (0, 0);
        let (low, high) = matrix.split_at(self.low_bits as usize);
        let mut select = |column| match order {
            Order::Gray => column ^ std::mem::replace(&mut previous, column),
            _ => column,
        };
        for (k, &column) in low.iter().enumerate() {
            self.low[(self.dim << k) + j] = select(column);
        }
        for (steps, &column) in self.steps.chunks_exact_mut(self.dim).zip(high) {
            sum ^= select(column);
            steps[j] = sum;
        }
    }

    /// Adds up the low columns, once all matrices are set.
    pub(super) fn finish(&mut self) {
        let dim = self.dim;
        for k in 0..self.low_bits {
            // Row 2^k is column k; the rows up to the next power of 2 are those before it plus this column.
            let (known, new) = self.low.split_at_mut(dim << k);
            let (column, new) = new.split_at_mut(dim);
            for (row, known) in new.chunks_exact_mut(dim).zip(known.chunks_exact(dim).skip(1)) {
                for ((x, known), column) in row.iter_mut().zip(known).zip(column.iter()) {
                    *x = known ^ column;
                }
            }
        }
    }

    /// Rows in a whole block.
    pub(super) fn block_rows(&self) -> u64 {
        1 << self.low_bits
    }

    /// Calls `body` with the low and the high part of each piece of the points `rows`: the points are `low[i] ^
    /// high[i mod high.len()]`, in row-major order. The high part is a few copies of one row, a multiple of 8
    /// long.
    pub(super) fn each_block(&self, rows: Range<u64>, shift: &[u64], mut body: impl FnMut(&[u64], &[u64])) {
        if rows.is_empty() {
            return;
        }
        let (dim, copies) = (self.dim, self.copies);
        let mask = self.block_rows() - 1;
        let mut high = vec![0; dim * copies];
        let mut at = rows.start;
        self.high(at >> self.low_bits, shift, &mut high[..dim]);
        while at < rows.end {
            for copy in 1..copies {
                high.copy_within(..dim, copy * dim);
            }
            let count = (rows.end - at).min(mask + 1 - (at & mask));
            let first = (at & mask) as usize * dim;
            body(&self.low[first..first + count as usize * dim], &high);
            at += count;
            if at < rows.end {
                let changed = (at >> self.low_bits).trailing_zeros() as usize;
                xor(&mut high[..dim], &self.steps[changed * dim..(changed + 1) * dim]);
            }
        }
    }

    /// Calls `body` with one coordinate of each of the points `rows`.
    pub(super) fn coordinate(&self, j: usize, rows: Range<u64>, mut body: impl FnMut(u64)) {
        let (dim, mask) = (self.dim, self.block_rows() - 1);
        let step = |k: u32| self.steps[k as usize * dim + j];
        let mut high = 0;
        let mut at = rows.start;
        while at < rows.end {
            let block = at >> self.low_bits;
            let gray = block ^ block >> 1;
            high = match at & mask {
                0 if at > rows.start => high ^ step(block.trailing_zeros()),
                _ => (0..u64::BITS).filter(|k| gray >> k & 1 == 1).fold(0, |sum, k| sum ^ step(k)),
            };
            let end = at + (rows.end - at).min(mask + 1 - (at & mask));
            for row in at..end {
                body(self.low[(row & mask) as usize * dim + j] ^ high);
            }
            at = end;
        }
    }

    /// The high part of block `block`, plus `shift` (empty: none).
    fn high(&self, block: u64, shift: &[u64], high: &mut [u64]) {
        high.fill(0);
        if !shift.is_empty() {
            high.copy_from_slice(shift);
        }
        // Columns are differences of neighbouring steps, so the index's Gray code selects steps.
        let mut gray = block ^ block >> 1;
        while gray != 0 {
            let k = gray.trailing_zeros() as usize;
            xor(high, &self.steps[k * self.dim..(k + 1) * self.dim]);
            gray &= gray - 1;
        }
    }

    /// Bytes of the tables.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.low[..]) + size_of_val(&self.steps[..])
    }

    /// All numbers of the table.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.low.iter().chain(&self.steps).copied()
    }
}

fn xor(sum: &mut [u64], term: &[u64]) {
    for (sum, term) in sum.iter_mut().zip(term) {
        *sum ^= term;
    }
}
