//! The loops of `affine`: tiles of 4 rows and a panel, whose sums stay in registers.

use kc_core::math::portable::Arith;

use super::COLUMNS;

const ROWS: usize = 4;

#[inline(always)]
pub(super) fn affine<A: Arith>(panels: &[f64], z: &[f64], shift: &[f64], out: &mut [f64]) {
    let d = shift.len();
    for (panel, first) in panels.chunks_exact(COLUMNS * d).zip((0..d).step_by(COLUMNS)) {
        let width = COLUMNS.min(d - first);
        let mut start = [0.0; COLUMNS];
        start[..width].copy_from_slice(&shift[first..first + width]);
        for (z, out) in z.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)) {
            if z.len() == ROWS * d {
                let sums = tile::<A>(panel, z, d, &start);
                for (sums, out) in sums.iter().zip(out.chunks_exact_mut(d)) {
                    store(sums, &mut out[first..first + width]);
                }
            } else {
                for (z, out) in z.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
                    store(&row::<A>(panel, z, &start), &mut out[first..first + width]);
                }
            }
        }
    }
}

#[inline(always)]
fn store(sums: &[f64; COLUMNS], out: &mut [f64]) {
    match <&mut [f64; COLUMNS]>::try_from(&mut *out) {
        Ok(out) => *out = *sums,
        Err(_) => out.copy_from_slice(&sums[..out.len()]),
    }
}

#[inline(always)]
fn add<A: Arith>(sums: &mut [f64; COLUMNS], z: f64, row: &[f64; COLUMNS]) {
    for (sum, &a) in sums.iter_mut().zip(row) {
        *sum = A::fma64(z, a, *sum);
    }
}

/// Four rows.
#[inline(always)]
fn tile<A: Arith>(panel: &[f64], z: &[f64], d: usize, start: &[f64; COLUMNS]) -> [[f64; COLUMNS]; ROWS] {
    let [mut s0, mut s1, mut s2, mut s3] = [*start; ROWS];
    let (z0, rest) = z.split_at(d);
    let (z1, rest) = rest.split_at(d);
    let (z2, z3) = rest.split_at(d);
    let (rows, _) = panel.as_chunks::<COLUMNS>();
    for ((((row, &z0), &z1), &z2), &z3) in rows.iter().zip(z0).zip(z1).zip(z2).zip(z3) {
        add::<A>(&mut s0, z0, row);
        add::<A>(&mut s1, z1, row);
        add::<A>(&mut s2, z2, row);
        add::<A>(&mut s3, z3, row);
    }
    [s0, s1, s2, s3]
}

#[inline(always)]
fn row<A: Arith>(panel: &[f64], z: &[f64], start: &[f64; COLUMNS]) -> [f64; COLUMNS] {
    let mut sums = *start;
    let (rows, _) = panel.as_chunks::<COLUMNS>();
    for (row, &z) in rows.iter().zip(z) {
        add::<A>(&mut sums, z, row);
    }
    sums
}
