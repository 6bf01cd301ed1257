//! Rows of `X` in the order and scale in which the kernels read them.

use std::cell::RefCell;

use kc_core::{Isa, Level};

use super::{MOST, Offsets, WeightOnly};
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
pub(super) struct Batch<'a> {
    rows: [Row<'a>; MOST],
    len: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn as_slice(&self) -> &[Row<'a>] {
        &self.rows[..self.len]
    }
}

/// Columns of a block as integers: for each of four quads three signed digits, base 256, of four columns.
pub(super) type DigitBlock = [[[u8; 4]; DIGITS]; 4];

/// Digits of a number.
pub(super) const DIGITS: usize = 3;

/// Bits of the largest number of a group: three signed digits hold less than `2^23`.
const BITS: i32 = 22;

/// One row of `X` in integers: `x = step (digits)` in each group, with a step of `2^-22` of the largest.
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
    /// `None` unless every number is a whole number of its group's steps, as decoded FP8 is: rounding to them would be a
    /// large error where the weight of the largest number is small.
    pub(super) fn of(w: &WeightOnly, row: &[f32], scratch: &'a mut Scratch) -> Option<Self> {
        let k = row.len();
        let offsets = matches!(w.zeros, Offsets::Added(_));
        scratch.digits.clear();
        scratch.digit_sums.clear();
        scratch.sums.clear();
        scratch.factors.clear();
        for start in (0..k).step_by(w.packed.group()) {
            let end = k.min(start + w.packed.group());
            scratch.group.clear();
            for first in (start..end).step_by(BLOCK) {
                let mut block = [0.0; BLOCK];
                let columns = first..end.min(first + BLOCK);
                match &w.order {
                    None => block[..columns.len()].copy_from_slice(&row[columns]),
                    Some(order) => {
                        for (x, &column) in block.iter_mut().zip(&order[columns]) {
                            *x = row[column as usize];
                        }
                    }
                }
                scratch.group.push(block);
            }
            let step = step_of(&scratch.group);
            let mut totals = [[0i32; BLOCK]; DIGITS];
            for block in &scratch.group {
                scratch.digits.push(split(block, step, &mut totals)?);
            }
            let mut digit_sums = [0.0; DIGITS];
            for (sum, lanes) in digit_sums.iter_mut().zip(&totals) {
                *sum = lanes.iter().sum::<i32>() as f32;
            }
            let sum = || scratch.group.as_flattened().iter().map(|&x| f64::from(x)).sum::<f64>();
            scratch.digit_sums.push(digit_sums);
            scratch.sums.push(if offsets { sum() as f32 } else { 0.0 });
            scratch.factors.push(power(step));
        }
        Some(Integers {
            blocks: &scratch.digits,
            steps: &scratch.factors,
            digit_sums: &scratch.digit_sums,
            sums: &scratch.sums,
        })
    }
}

/// The exponent of the step of a group: its largest magnitude is below `2^BITS` steps.
fn step_of(group: &[Block]) -> i32 {
    let mut top = [0.0f32; BLOCK];
    for block in group {
        for l in 0..BLOCK {
            let size = block[l].abs();
            top[l] = if size > top[l] { size } else { top[l] };
        }
    }
    let largest = top.iter().fold(0.0f32, |top, &x| if x > top { x } else { top });
    // In f64 denormal numbers are like others.
    let exponent = (f64::from(largest).to_bits() >> 52) as i32 - 1023;
    if largest == 0.0 { 0 } else { exponent + 1 - BITS }
}

/// `2^exponent`, from `2^-149` to `2^127`.
fn power(exponent: i32) -> f32 {
    f64::from_bits(((exponent + 1023) as u64) << 52) as f32
}

/// The digits of a block, whose sums are added to `totals`; `None` if a number is not whole.
#[inline(always)]
fn split(block: &Block, step: i32, totals: &mut [[i32; BLOCK]; DIGITS]) -> Option<DigitBlock> {
    // Adding 1.5 * 2^23 leaves a whole number of up to 22 bits in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    // Two factors, neither of which leaves the range of f32.
    let half = -step / 2;
    let (first, second) = (power(half), power(-step - half));
    let mut rest = [0i32; BLOCK];
    let mut whole = true;
    for l in 0..BLOCK {
        let x = block[l] * first * second;
        rest[l] = (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
        // What scaling lost is not whole either.
        whole &= rest[l] as f32 == x && (x == 0.0) == (block[l] == 0.0);
    }
    if !whole {
        return None;
    }
    let mut out = [[[0; 4]; DIGITS]; 4];
    for d in 0..DIGITS {
        for l in 0..BLOCK {
            let digit = rest[l] << 24 >> 24;
            totals[d][l] += digit;
            rest[l] = (rest[l] - digit) >> 8;
            out[l / 4][d][l % 4] = digit as u8;
        }
    }
    Some(out)
}

/// Memory that a thread keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    x: Vec<Block>,
    sums: Vec<f32>,
    factors: Vec<f32>,
    group: Vec<Block>,
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
    pub(super) fn batch(&self, first: usize) -> Batch<'a> {
        let len = MOST.min(self.rows() - first);
        let mut rows = [Row { x: &[], sums: &[], factor: 1.0 }; MOST];
        for (i, row) in (first..).zip(&mut rows[..len]) {
            *row = Row {
                x: &self.x[i * self.blocks..][..self.blocks],
                sums: &self.sums[i * self.groups..][..self.groups],
                factor: self.factors[i],
            };
        }
        Batch { rows, len }
    }
}
