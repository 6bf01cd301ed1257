//! Linear matrix scrambling and interlacing of generating matrices.

use kc_core::Isa;

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

    /// Draws a matrix, `bits` integers of `table_bits` bits, and multiplies columns of `table_bits` bits by it.
    pub(super) fn scramble(&mut self, isa: Isa, rng: &mut Sfc64, columns: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        super::x86::linear_scramble(isa, self, rng, columns);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            self.scramble_on(rng, columns);
        }
    }

    /// [`scramble`](Self::scramble), compiled for the caller's level.
    #[inline(always)]
    pub(super) fn scramble_on(&mut self, rng: &mut Sfc64, columns: &mut [u64]) {
        self.draw(rng);
        for column in columns {
            *column = self.apply(*column);
        }
    }

    #[inline(always)]
    fn draw(&mut self, rng: &mut Sfc64) {
        let mut rows = [0u64; 64];
        // A generator of its own can stay in registers.
        let mut local = rng.clone();
        for row in &mut rows[..self.bits as usize] {
            *row = local.bits(self.table_bits) << (64 - self.table_bits);
        }
        *rng = local;
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

    /// The product with a column.
    #[inline(always)]
    fn apply(&self, column: u64) -> u64 {
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

/// Transposes a 64 x 64 bit matrix, of whose rows only the first `keep` will be used; row 0 is the first word,
/// column 0 the most significant bit.
#[inline(always)]
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
    isa: Isa,
}

impl Interlace {
    pub(super) fn new(isa: Isa, alpha: usize, bits: u32, out_bits: u32) -> Self {
        let part = |component| {
            // With few components the last places of a short result stay empty.
            let places = (component..out_bits as usize).step_by(alpha).take(bits as usize);
            let mask = places.fold(0u64, |mask, b| mask | 1 << (out_bits as usize - 1 - b));
            (mask, bits - mask.count_ones())
        };
        Self { parts: (0..alpha).map(part).collect(), isa }
    }

    /// Interlaces groups of as many integers as there are components; calls `body` with each result.
    pub(super) fn each(&self, components: &[u64], body: impl FnMut(u64)) {
        #[cfg(target_arch = "x86_64")]
        super::x86::interlace(self.isa, self, components, body);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = self.isa;
            self.each_with(components, body, deposit);
        }
    }

    /// [`each`](Self::each) with a function that spreads the low bits of its first argument over the places that
    /// the second marks.
    #[inline(always)]
    pub(super) fn each_with(
        &self,
        components: &[u64],
        mut body: impl FnMut(u64),
        deposit: impl Fn(u64, u64) -> u64,
    ) {
        for group in components.chunks_exact(self.parts.len()) {
            let parts = self.parts.iter().zip(group);
            body(parts.fold(0, |sum, (&(mask, dropped), value)| {
                sum | deposit(value.checked_shr(dropped).unwrap_or(0), mask)
            }));
        }
    }
}

/// Spreads the low bits of `value` over the places that `mask` marks, lowest first.
pub(super) fn deposit(value: u64, mut mask: u64) -> u64 {
    let (mut rest, mut sum) = (value, 0);
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        sum |= place & (rest & 1).wrapping_neg();
        rest >>= 1;
        mask ^= place;
    }
    sum
}
