//! Linear matrix scrambling and interlacing of generating matrices.

use crate::rng::Sfc64;

/// A random lower-triangular matrix of `bits` rows and `table_bits` columns with ones on the diagonal, full
/// below the square part, ready to be multiplied: for each group of four columns, the sums of its 16 subsets.
pub(super) struct LinearScramble {
    sums: [[u64; 16]; 16],
    table_bits: u32,
    bits: u32,
}

impl LinearScramble {
    /// For matrices of `bits` rows and `table_bits` columns (`table_bits <= bits <= 64`).
    pub(super) fn new(table_bits: u32, bits: u32) -> Self {
        Self { sums: [[0; 16]; 16], table_bits, bits }
    }

    /// Draws a matrix: `bits` integers of `table_bits` bits.
    pub(super) fn draw(&mut self, rng: &mut Sfc64) {
        let mut rows = [0u64; 64];
        for row in &mut rows[..self.bits as usize] {
            *row = rng.bits(self.table_bits) << (64 - self.table_bits);
        }
        for (k, row) in rows.iter_mut().enumerate().take(self.table_bits as usize) {
            let diagonal = 1 << (63 - k);
            *row = *row & !(diagonal | (diagonal - 1)) | diagonal;
        }
        transpose(&mut rows, self.table_bits as usize);
        // Now entry c is column c, first row on top.
        let groups = self.table_bits.div_ceil(4) as usize;
        for (sums, columns) in self.sums.iter_mut().zip(rows.as_chunks::<4>().0).take(groups) {
            let [a, b, c, d] = columns.map(|column| column >> (64 - self.bits));
            let quarter = [0, d, c, c ^ d];
            for (upper, part) in [0, b, a, a ^ b].into_iter().zip(sums.as_chunks_mut::<4>().0) {
                *part = quarter.map(|lower| lower ^ upper);
            }
        }
    }

    /// The product with a column of `table_bits` bits.
    pub(super) fn apply(&self, column: u64) -> u64 {
        let (mut rest, mut sum) = (column << (64 - self.table_bits), 0);
        for group in &self.sums {
            if rest == 0 {
                break;
            }
            sum ^= group[(rest >> 60) as usize];
            rest <<= 4;
        }
        sum
    }
}

/// Transposes a 64 x 64 bit matrix, of whose rows only the first `keep` will be used; row 0 is the first word, column 0
/// the most significant bit.
fn transpose(rows: &mut [u64; 64], keep: usize) {
    let (mut width, mut mask) = (32, u64::MAX >> 32);
    while width > 0 {
        let used = &mut rows[..keep.next_multiple_of(2 * width)];
        for pair in used.chunks_exact_mut(2 * width) {
            let (upper, lower) = pair.split_at_mut(width);
            for (a, b) in upper.iter_mut().zip(lower) {
                let swap = (*a ^ *b >> width) & mask;
                *a ^= swap;
                *b ^= swap << width;
            }
        }
        width /= 2;
        mask ^= mask << width;
    }
}

/// Interlaces integers of `bits` bits to one of `out_bits`: bit b, counted from the top, is bit b / alpha of
/// component b mod alpha.
#[derive(Debug, Clone)]
pub(super) struct Interlace {
    /// For each component, its bits' places in the result, and how many of its low bits have none.
    parts: Vec<(u64, u32)>,
}

impl Interlace {
    pub(super) fn new(alpha: usize, bits: u32, out_bits: u32) -> Self {
        let part = |component| {
            // With few components the last places of a short result stay empty.
            let places = (component..out_bits as usize).step_by(alpha).take(bits as usize);
            let mask = places.fold(0u64, |mask, b| mask | 1 << (out_bits as usize - 1 - b));
            (mask, bits - mask.count_ones())
        };
        Self { parts: (0..alpha).map(part).collect() }
    }

    /// The interlaced integer.
    pub(super) fn apply(&self, components: impl IntoIterator<Item = u64>) -> u64 {
        let parts = self.parts.iter().zip(components);
        parts.fold(0, |sum, (&(mask, dropped), value)| sum | deposit(checked_shift(value, dropped), mask))
    }
}

fn checked_shift(value: u64, by: u32) -> u64 {
    value.checked_shr(by).unwrap_or(0)
}

/// Spreads the low bits of `value` over the places that `mask` marks, lowest first.
fn deposit(value: u64, mut mask: u64) -> u64 {
    let (mut rest, mut sum) = (value, 0);
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        sum |= place & (rest & 1).wrapping_neg();
        rest >>= 1;
        mask ^= place;
    }
    sum
}
