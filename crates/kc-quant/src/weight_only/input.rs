//! Rows of `X` in the order and scale in which the kernels read them.

use std::cell::RefCell;

use kc_core::{Isa, Level};

use super::{MOST, WeightOnly};
use crate::interleaved::BLOCK;
use crate::rows::Rows;

/// Rows whose largest magnitude is below this are multiplied by its inverse, so that undoing the place of a code
/// (down to `2^-30`) leaves normal numbers.
const SMALL: f32 = 1.0 / (1u64 << 60) as f32;

/// The columns of a block.
pub(super) type Block = [f32; BLOCK];

/// One row of `X`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// Block by block as the codes lie, times the power of two of each column's place.
    pub(super) x: &'a [Block],
    /// The sum of each group.
    pub(super) sums: &'a [f32],
    /// What the row was divided by: 1, or [`SMALL`].
    pub(super) factor: f32,
}

/// All rows of a call.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    x: &'a [Block],
    sums: &'a [f32],
    factors: &'a [f32],
    blocks: usize,
    groups: usize,
}

/// Up to [`MOST`] rows.
pub(super) struct Some<'a> {
    rows: [Row<'a>; MOST],
    len: usize,
}

impl<'a> Some<'a> {
    pub(super) fn as_slice(&self) -> &[Row<'a>] {
        &self.rows[..self.len]
    }
}

/// Columns of a block as integers: for each of four quads three signed digits, base 256, of four columns.
pub(super) type DigitBlock = [[[u8; 4]; DIGITS]; 4];

/// Digits of a number.
pub(super) const DIGITS: usize = 3;

/// Bits of the largest number of a group, below `2^23`, which is what three signed digits hold.
const BITS: i32 = 22;

/// One row of `X` in integers: `x = step (digits)` in each group, rounded to a step of `2^-22` of the largest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Integers<'a> {
    pub(super) blocks: &'a [DigitBlock],
    /// Of each group: a power of two.
    pub(super) steps: &'a [f32],
    /// Sums of each digit over each group.
    pub(super) digit_sums: &'a [[f32; DIGITS]],
    /// The sum of `x` over each group.
    pub(super) sums: &'a [f32],
}

impl<'a> Integers<'a> {
    pub(super) fn of(w: &WeightOnly, row: &[f32], scratch: &'a mut Scratch) -> Self {
        let packed = &w.packed;
        let k = row.len();
        scratch.digits.clear();
        scratch.digit_sums.clear();
        scratch.sums.clear();
        scratch.factors.clear();
        let at = |column: usize| row[w.order.as_ref().map_or(column, |order| order[column] as usize)];
        for start in (0..k).step_by(packed.group()) {
            let end = k.min(start + packed.group());
            let largest =
                (start..end).map(at).fold(0.0f32, |top, x| if x.abs() > top { x.abs() } else { top });
            // In f64, where neither the step nor its inverse leaves the range.
            let exponent =
                if largest == 0.0 { 0 } else { f64::from(largest).log2().floor() as i32 + 1 - BITS };
            let (step, up) = (2f64.powi(exponent), 2f64.powi(-exponent));
            let (mut sum, mut digit_sums) = (0.0f64, [0i32; DIGITS]);
            for first in (start..end).step_by(BLOCK) {
                let mut block = [[[0; 4]; DIGITS]; 4];
                for (c, column) in (first..end.min(first + BLOCK)).enumerate() {
                    let x = f64::from(at(column));
                    sum += x;
                    // Adding 1.5 * 2^52 rounds half to even.
                    const MAGIC: f64 = 6_755_399_441_055_744.0;
                    let mut rest = ((x * up + MAGIC) - MAGIC) as i32;
                    for (digits, total) in block[c / 4].iter_mut().zip(&mut digit_sums) {
                        let digit = rest as i8;
                        digits[c % 4] = digit as u8;
                        *total += i32::from(digit);
                        rest = (rest - i32::from(digit)) >> 8;
                    }
                }
                scratch.digits.push(block);
            }
            scratch.digit_sums.push(digit_sums.map(|sum| sum as f32));
            scratch.sums.push(sum as f32);
            scratch.factors.push(step as f32);
        }
        Integers {
            blocks: &scratch.digits,
            steps: &scratch.factors,
            digit_sums: &scratch.digit_sums,
            sums: &scratch.sums,
        }
    }
}

/// Memory that a thread keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    x: Vec<Block>,
    sums: Vec<f32>,
    factors: Vec<f32>,
    digits: Vec<DigitBlock>,
    digit_sums: Vec<[f32; DIGITS]>,
}

/// `body` with the memory of this thread.
pub(super) fn with_scratch<R>(body: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static KEPT: RefCell<Scratch> = RefCell::default();
    }
    // Taken out while in use: a thread that waits for a part of its work may start on another product.
    let mut scratch = KEPT.take();
    let result = body(&mut scratch);
    KEPT.set(scratch);
    result
}

/// The bit at which column `column` of a block begins in its word.
pub(super) const fn shift(width: u8, column: usize) -> u32 {
    let (quad, byte) = (column / 4, column % 4);
    let within = match width {
        2 => 2 * quad,
        4 => 4 * (quad % 2),
        _ => 0,
    };
    (8 * byte + within) as u32
}

/// What `x` of each column is multiplied by. The highest code of a word is shifted down, because it would become the
/// sign; all others stay in place.
fn places(isa: Isa, width: u8) -> Block {
    let mut out = [1.0; BLOCK];
    if isa.level() > Level::Portable {
        for (column, out) in out.iter_mut().enumerate() {
            let shift = shift(width, column);
            if shift + u32::from(width) < 32 {
                *out = 1.0 / (1u32 << shift) as f32;
            }
        }
    }
    out
}

impl<'a> Prepared<'a> {
    pub(super) fn of(
        isa: Isa,
        w: &WeightOnly,
        rows: &Rows<'_, f32>,
        m: usize,
        scratch: &'a mut Scratch,
    ) -> Self {
        let packed = &w.packed;
        let ([_, k], blocks, groups) = (packed.shape(), packed.blocks(), packed.groups());
        let places = places(isa, packed.width());
        scratch.x.clear();
        scratch.sums.clear();
        scratch.factors.clear();
        for i in 0..m {
            let row = rows.row(i);
            let largest = row.iter().fold(0.0f32, |top, x| if x.abs() > top { x.abs() } else { top });
            let factor = if largest < SMALL { SMALL } else { 1.0 };
            let up = 1.0 / factor;
            scratch.factors.push(factor);
            for start in (0..k).step_by(packed.group()) {
                let end = k.min(start + packed.group());
                let mut sum = 0.0f64;
                for first in (start..end).step_by(BLOCK) {
                    let mut block = [0.0; BLOCK];
                    for (c, column) in (first..end.min(first + BLOCK)).enumerate() {
                        let x = up * row[w.order.as_ref().map_or(column, |order| order[column] as usize)];
                        sum += f64::from(x);
                        block[c] = x * places[c];
                    }
                    scratch.x.push(block);
                }
                scratch.sums.push(sum as f32);
            }
        }
        Prepared { x: &scratch.x, sums: &scratch.sums, factors: &scratch.factors, blocks, groups }
    }

    pub(super) fn rows(&self) -> usize {
        self.factors.len()
    }

    /// The rows from `first` on.
    pub(super) fn some(&self, first: usize) -> Some<'a> {
        let len = MOST.min(self.rows() - first);
        let mut rows = [Row { x: &[], sums: &[], factor: 1.0 }; MOST];
        for (i, row) in (first..).zip(&mut rows[..len]) {
            *row = Row {
                x: &self.x[i * self.blocks..][..self.blocks],
                sums: &self.sums[i * self.groups..][..self.groups],
                factor: self.factors[i],
            };
        }
        Some { rows, len }
    }
}
