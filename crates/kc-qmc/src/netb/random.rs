//! Random numbers of scramblings, in NumPy's order of drawing.

use crate::rng::Sfc64;

/// A `rows` x `columns` matrix, row by row: uniform below the diagonal, from 1 on it, 0 above.
pub(super) fn lower_triangle(rng: &mut Sfc64, base: u32, rows: usize, columns: usize) -> Vec<u16> {
    let mut values = vec![0; rows * columns];
    for (k, row) in values.chunks_exact_mut(columns).enumerate() {
        for slot in &mut row[..k.min(columns)] {
            *slot = rng.below(base.into()) as u16;
        }
    }
    for k in 0..columns.min(rows) {
        values[k * columns + k] = 1 + rng.below((base - 1).into()) as u16;
    }
    values
}

/// `count` digits.
pub(super) fn shift(rng: &mut Sfc64, base: u32, count: usize) -> Vec<u16> {
    (0..count).map(|_| rng.below(base.into()) as u16).collect()
}

/// Overwrites `values` with a permutation of its indices.
pub(super) fn permutation(rng: &mut Sfc64, values: &mut [u16]) {
    for (at, slot) in values.iter_mut().enumerate() {
        *slot = at as u16;
    }
    rng.shuffle(values);
}
