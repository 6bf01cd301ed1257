//! The points of a lattice from tables that repeat every few rows.
//!
//! The radical inverse of `g h + l`, `g` a power of two and `l < g`, is that of `l` plus `1 / g` times that of `h`. So
//! a group of `g` rows needs one table of the inverses of `0..g`, written out value by value like the vector and the
//! shift, and a number for each group. In Gray order odd groups are even ones backwards.

use std::ops::Range;

use super::reference::phi;
use crate::sequence::Order;

/// Values that a group of rows has at least, so that the loop over them is worth starting.
const GROUP: usize = 48;

/// What does not change from group to group, each value by value for a group of rows.
#[derive(Debug)]
pub(super) struct Walk {
    order: Order,
    /// Points of the set, for linear order.
    n: u64,
    dim: usize,
    /// Rows of a group, a power of two.
    rows: u64,
    z: Vec<f64>,
    shift: Vec<f64>,
    /// Inverses of the rows of an even and of an odd group.
    low: [Vec<f64>; 2],
}

impl Walk {
    pub(super) fn new(order: Order, n: u64, z: &[f64], shift: &[f64]) -> Self {
        let dim = z.len();
        // At least 4 rows make whole registers of any dimension.
        let rows = if dim >= 2 * GROUP { 1 } else { GROUP.div_ceil(dim).next_power_of_two().max(4) } as u64;
        let low = |group: u64| {
            let inverse = |row: u64| match order {
                Order::Natural => phi(order, row, n),
                Order::Gray => {
                    phi(Order::Natural, ((group * rows + row) ^ (group * rows + row) >> 1) % rows, n)
                }
                Order::Linear => 0.0,
            };
            (0..rows).flat_map(|row| std::iter::repeat_n(inverse(row), dim)).collect()
        };
        let repeat = |values: &[f64]| values.repeat(rows as usize);
        Self { order, n, dim, rows, z: repeat(z), shift: repeat(shift), low: [low(0), low(1)] }
    }
}

/// Writes `rows` to `out`. `floor` is the quickest way down to an integer.
#[inline(always)]
pub(super) fn fill_by(floor: impl Fn(f64) -> f64 + Copy, walk: &Walk, rows: Range<u64>, out: &mut [f64]) {
    let (dim, step) = (walk.dim, walk.rows);
    let mut row = rows.start;
    let mut rest = out;
    let mut inverses = vec![0.0; if walk.order == Order::Linear { walk.z.len() } else { 0 }];
    while row < rows.end {
        let whole = row.is_multiple_of(step) && row + step <= rows.end;
        let count = if whole { step } else { 1 };
        let len = count as usize * dim;
        let (now, later) = rest.split_at_mut(len);
        let (z, shift) = (&walk.z[..len], &walk.shift[..len]);
        match walk.order {
            Order::Linear => {
                let inverses = &mut inverses[..len];
                for (i, part) in (row..).zip(inverses.chunks_exact_mut(dim)) {
                    part.fill(phi(walk.order, i, walk.n));
                }
                group(floor, z, shift, inverses, 0.0, now);
            }
            // The first row of an even group has inverse 0, which makes its table that of a single row.
            order if !whole => group(floor, z, shift, &walk.low[0][..len], phi(order, row, walk.n), now),
            order => {
                let h = row / step;
                let high = phi(order, h, walk.n) * (1.0 / step as f64);
                group(floor, z, shift, &walk.low[(h & 1) as usize], high, now);
            }
        }
        (rest, row) = (later, row + count);
    }
}

/// `frac(frac(z (low + high)) + shift)`, value by value.
#[inline(always)]
fn group(floor: impl Fn(f64) -> f64, z: &[f64], shift: &[f64], low: &[f64], high: f64, out: &mut [f64]) {
    let (z, shift, low) = (&z[..out.len()], &shift[..out.len()], &low[..out.len()]);
    for (((out, z), shift), low) in out.iter_mut().zip(z).zip(shift).zip(low) {
        let y = z * (low + high);
        let x = y - floor(y) + shift;
        *out = if x >= 1.0 { x - 1.0 } else { x };
    }
}

/// [`fill_by`] for any processor.
pub(super) fn fill(walk: &Walk, rows: Range<u64>, out: &mut [f64]) {
    // Without an instruction for it `floor` is a call. Adding and subtracting 2^52 rounds to the nearest integer, for
    // values below 2^51, which products of a vector's components and inverses are.
    const ROUND: f64 = (1u64 << 52) as f64;
    let floor = |y: f64| {
        let near = (y + ROUND) - ROUND;
        if near > y { near - 1.0 } else { near }
    };
    fill_by(floor, walk, rows, out);
}
