//! Sobol' matrices from Joe and Kuo's packed direction numbers.
//!
//! With the columns as fractions, `v_k = m_k / 2^(k+1)`, Sobol's recurrence of a polynomial of degree s reads
//! `v_k = v_{k-s} ^ v_{k-s} / 2^s ^ a_1 v_{k-1} ^ ... ^ a_{s-1} v_{k-s+1}`.

use crate::data::net2::JOE_KUO;

/// Columns of a matrix, and bits of a column.
pub(super) const COLUMNS: usize = 32;

/// Matrices unpacked side by side.
const LANES: usize = 8;

/// The matrices of some dimensions, one after the other, unpacked in groups of equal degree.
#[derive(Debug)]
pub(super) struct SobolMatrices<'a> {
    dims: &'a [usize],
    /// Where each record starts; records have no common length.
    offsets: Vec<u32>,
    group: [[u32; LANES]; COLUMNS],
    /// Matrices of the group, and how many of them are given out.
    size: usize,
    given: usize,
}

impl<'a> SobolMatrices<'a> {
    /// The matrices of `dims`, which the table must have.
    pub(super) fn new(dims: &'a [usize]) -> Self {
        let records = dims.iter().max().copied().unwrap_or(0);
        let mut offsets = Vec::with_capacity(records);
        let mut at = 0;
        for _ in 0..records {
            offsets.push(at as u32);
            let degree = read(at, 5) as usize;
            at += 5 + (degree - 1) + degree * (degree - 1) / 2;
        }
        Self { dims, offsets, group: [[0; LANES]; COLUMNS], size: 0, given: 0 }
    }

    /// Writes the next matrix's columns, without their last `cut` bits.
    pub(super) fn read(&mut self, columns: &mut [u64], cut: u32) {
        if self.given == self.size {
            self.unpack();
        }
        for (column, lanes) in columns.iter_mut().zip(&self.group) {
            *column = u64::from(lanes[self.given % LANES] >> cut);
        }
        self.given += 1;
    }

    /// The record of a dimension; none for the first.
    fn record(&self, dim: usize) -> Option<Record> {
        dim.checked_sub(1).map(|record| Record::new(self.offsets[record] as usize))
    }

    /// Unpacks the next matrices that have the same degree.
    fn unpack(&mut self) {
        (self.size, self.given) = (0, 0);
        let Some((&first, _)) = self.dims.split_first() else { return };
        let Some(first) = self.record(first) else {
            self.group = std::array::from_fn(|k| [1 << (31 - k); LANES]);
            (self.dims, self.size) = (&self.dims[1..], 1);
            return;
        };
        let degree = first.degree;
        // masks[b][lane]: all ones if the polynomial of the lane has x^(b+1), the column s - (b+1) back.
        let mut masks = [[0u32; LANES]; COLUMNS];
        while let Some((&dim, rest)) = self.dims.split_first()
            && self.size < LANES
        {
            let Some(mut record) = self.record(dim).filter(|record| record.degree == degree) else { break };
            for (b, mask) in masks.iter_mut().enumerate().take(degree - 1) {
                mask[self.size] = (record.inner >> b & 1).wrapping_neg();
            }
            for (k, column) in self.group.iter_mut().enumerate().take(degree) {
                column[self.size] = (2 * record.take(k) + 1) << (31 - k);
            }
            (self.dims, self.size) = (rest, self.size + 1);
        }
        for k in degree..COLUMNS {
            let (known, new) = self.group.split_at_mut(k);
            let mut sum = known[k - degree].map(|oldest| oldest ^ oldest >> degree);
            for (column, mask) in known[k - degree + 1..].iter().zip(&masks) {
                for ((sum, column), mask) in sum.iter_mut().zip(column).zip(mask) {
                    *sum ^= column & mask;
                }
            }
            new[0] = sum;
        }
    }
}

/// A record of the packed table.
struct Record {
    degree: usize,
    inner: u32,
    at: usize,
}

impl Record {
    fn new(at: usize) -> Self {
        let mut record = Self { degree: 0, inner: 0, at };
        record.degree = record.take(5) as usize;
        record.inner = record.take(record.degree - 1);
        record
    }

    /// The next so many bits.
    fn take(&mut self, bits: usize) -> u32 {
        let value = read(self.at, bits);
        self.at += bits;
        value
    }
}

/// Up to 32 bits of the packed table.
fn read(at: usize, bits: usize) -> u32 {
    let word = match JOE_KUO[at / 8..].first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => JOE_KUO[at / 8..].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    (word >> (at % 8) & ((1 << bits) - 1)) as u32
}
