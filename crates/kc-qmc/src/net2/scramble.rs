//! Linear matrix scrambling and interlacing of generating matrices.

use crate::rng::Sfc64;

/// A random lower-triangular matrix of `bits` rows and `table_bits` columns with ones on the diagonal, full
/// below the square part, ready to be multiplied: for each group of four columns, the sums of its 16 subsets.
pub(super) struct LinearScramble {
    sums: [[u64; 16]; 16],
    table_bits: u32,
}

impl LinearScramble {
    /// Draws `bits` rows of `table_bits` bits (`table_bits <= bits <= 64`).
    pub(super) fn draw(rng: &mut Sfc64, table_bits: u32, bits: u32) -> Self {
        let mut rows = [0u64; 64];
        for (k, row) in rows[..bits as usize].iter_mut().enumerate() {
            *row = rng.bits(table_bits) << (64 - table_bits);
            if k < table_bits as usize {
                let diagonal = 1 << (63 - k);
                *row = *row & !(diagonal | (diagonal - 1)) | diagonal;
            }
        }
        transpose(&mut rows);
        // Now entry c is column c, first row on top.
        let mut sums = [[0; 16]; 16];
        for (group, columns) in sums.iter_mut().zip(rows.as_chunks::<4>().0) {
            for (at, column) in columns.iter().rev().enumerate() {
                let (known, new) = group.split_at_mut(1 << at);
                for (new, known) in new.iter_mut().zip(known.iter()) {
                    *new = known ^ column >> (64 - bits);
                }
            }
        }
        Self { sums, table_bits }
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

/// Transposes a 64 x 64 bit matrix; row 0 is the first word, column 0 the most significant bit.
fn transpose(rows: &mut [u64; 64]) {
    let (mut width, mut mask) = (32, u64::MAX >> 32);
    while width > 0 {
        for pair in rows.chunks_exact_mut(2 * width) {
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
