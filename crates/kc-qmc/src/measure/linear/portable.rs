//! The loops of `affine`: tiles of 4 rows and 8 columns whose sums stay in registers.

use kc_core::math::portable::Arith;

const ROWS: usize = 4;
const COLUMNS: usize = 8;

#[inline(always)]
pub(super) fn affine<A: Arith>(z: &[f64], a: &[f64], shift: &[f64], out: &mut [f64]) {
    let d = shift.len();
    if d == 0 {
        return;
    }
    for (z, out) in z.chunks(ROWS * d).zip(out.chunks_mut(ROWS * d)) {
        let whole = if z.len() == ROWS * d { d - d % COLUMNS } else { 0 };
        for column in (0..whole).step_by(COLUMNS) {
            tile::<A>(z, a, shift, out, column);
        }
        for (z, out) in z.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            for column in whole..d {
                let terms = z.iter().zip(a[column..].iter().step_by(d));
                out[column] = terms.fold(shift[column], |sum, (&z, &a)| A::fma64(z, a, sum));
            }
        }
    }
}

/// Columns `column..column + COLUMNS` of ROWS rows.
#[inline(always)]
fn tile<A: Arith>(z: &[f64], a: &[f64], shift: &[f64], out: &mut [f64], column: usize) {
    let d = shift.len();
    let mut sums = [[0.0f64; COLUMNS]; ROWS];
    for sums in &mut sums {
        sums.copy_from_slice(&shift[column..column + COLUMNS]);
    }
    let (z0, rest) = z.split_at(d);
    let (z1, rest) = rest.split_at(d);
    let (z2, z3) = rest.split_at(d);
    for (k, row) in a.chunks_exact(d).enumerate() {
        let row: &[f64] = &row[column..column + COLUMNS];
        let z = [z0[k], z1[k], z2[k], z3[k]];
        for (sums, z) in sums.iter_mut().zip(z) {
            for (sum, &a) in sums.iter_mut().zip(row) {
                *sum = A::fma64(z, a, *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(d)) {
        out[column..column + COLUMNS].copy_from_slice(sums);
    }
}
