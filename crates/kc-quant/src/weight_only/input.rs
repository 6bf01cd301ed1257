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

/// Memory that a thread keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    x: Vec<Block>,
    sums: Vec<f32>,
    factors: Vec<f32>,
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
