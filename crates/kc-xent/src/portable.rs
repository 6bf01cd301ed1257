//! The kernels in safe code, for any processor and for f64. See [`crate::kernel`] for what each computes.

use kc_core::math::Real;
use kc_core::math::portable::{Plain, exp};

use crate::kernel::{DEPTH, RowTerms};

/// Columns of a packed panel.
pub(crate) const WIDTH: usize = 16;
/// Tokens of a panel are a multiple of this; also the lanes of a tile.
pub(crate) const GRAIN: usize = 8;
/// Rows of a tile.
pub(crate) const ROWS: usize = 4;

/// `sums[m][l] = sum_k a[m][k * step] b[k * width + l]` for up to `ROWS` rows.
#[inline(always)]
fn tile<T: Real>(a: &[&[T]], step: usize, b: &[T], width: usize) -> [[T; GRAIN]; ROWS] {
    let mut sums = [[T::ZERO; GRAIN]; ROWS];
    for (sums, a) in sums.iter_mut().zip(a) {
        for (x, b) in a.iter().step_by(step).zip(b.chunks(width)) {
            for (sum, &y) in sums.iter_mut().zip(&b[..GRAIN]) {
                *sum = *sum + *x * y;
            }
        }
    }
    sums
}

pub(crate) fn logits<T: Real>(rows: &[&[T]], e: &[T], r: usize, z: &mut [T]) {
    let depth = rows.first().map_or(0, |row| row.len());
    for (rows, z) in rows.chunks(ROWS).zip(z.chunks_mut(ROWS * r)) {
        for start in (0..depth).step_by(DEPTH) {
            let block = start..depth.min(start + DEPTH);
            let mut parts: [&[T]; ROWS] = [&[]; ROWS];
            for (part, row) in parts.iter_mut().zip(rows) {
                *part = &row[block.clone()];
            }
            for first in (0..r).step_by(WIDTH) {
                let width = WIDTH.min(r - first);
                let panel = &e[start * r + first * block.len()..][..width * block.len()];
                for lane in (0..width).step_by(GRAIN) {
                    let sums = tile(&parts[..rows.len()], 1, &panel[lane..], width);
                    for (z, sums) in z.chunks_mut(r).zip(&sums) {
                        for (z, &sum) in z[first + lane..].iter_mut().zip(sums) {
                            *z = if start == 0 { sum } else { *z + sum };
                        }
                    }
                }
            }
        }
    }
}

pub(crate) fn grad_c<T: Real>(g: &[T], r: usize, keep: &[u16], e: &[T], dc: &mut [T], d: usize) {
    for rows in keep.chunks(ROWS) {
        let mut parts: [&[T]; ROWS] = [&[]; ROWS];
        for (part, &row) in parts.iter_mut().zip(rows) {
            *part = &g[usize::from(row) * r..][..r];
        }
        for (p, panel) in e.chunks(r * WIDTH).enumerate() {
            for lane in (0..WIDTH).step_by(GRAIN) {
                let column = p * WIDTH + lane;
                let sums = tile(&parts[..rows.len()], 1, &panel[lane..], WIDTH);
                for (&row, sums) in rows.iter().zip(&sums) {
                    let row = &mut dc[usize::from(row) * d..][..d];
                    for (to, &sum) in row.iter_mut().skip(column).zip(sums) {
                        *to = *to + sum;
                    }
                }
            }
        }
    }
}

pub(crate) fn grad_e<T: Real>(g: &[T], c: &[T], de: &mut [T], _soon: &[&[T]]) {
    let words = c.len() / WIDTH;
    for (g, de) in g.chunks(words * ROWS).zip(de.chunks_mut(ROWS * WIDTH)) {
        let mut parts: [&[T]; ROWS] = [&[]; ROWS];
        for (m, part) in parts.iter_mut().enumerate() {
            *part = &g[m..];
        }
        for lane in (0..WIDTH).step_by(GRAIN) {
            let sums = tile(&parts, ROWS, &c[lane..], WIDTH);
            for (de, sums) in de.chunks_mut(WIDTH).zip(&sums) {
                for (to, &sum) in de[lane..].iter_mut().zip(sums) {
                    *to = *to + sum;
                }
            }
        }
    }
}

pub(crate) fn absorb<T: Real>(z: &[T], max: &mut [T], sum: &mut [f64]) {
    let r = max.len();
    for first in (0..r).step_by(GRAIN) {
        let mut old = [T::ZERO; GRAIN];
        old.copy_from_slice(&max[first..first + GRAIN]);
        let max = &mut max[first..first + GRAIN];
        for row in z.chunks(r) {
            for (m, &z) in max.iter_mut().zip(&row[first..]) {
                *m = if z > *m { z } else { *m };
            }
        }
        let mut sums = [T::ZERO; GRAIN];
        for row in z.chunks(r) {
            for l in 0..GRAIN {
                sums[l] = sums[l] + exp::<T, Plain>(row[first + l] - max[l]);
            }
        }
        for (l, sum) in sum[first..first + GRAIN].iter_mut().enumerate() {
            *sum = *sum * exp::<T, Plain>(old[l] - max[l]).to_f64() + sums[l].to_f64();
        }
    }
}

pub(crate) fn masked_sum<T: Real>(row: &[T], mask: &[T]) -> T {
    row.iter().zip(mask).fold(T::ZERO, |sum, (&x, &m)| sum + x * m)
}

pub(crate) fn reaches<T: Real>(row: &[T], hi: &[T], limit: T) -> bool {
    row.iter().zip(hi).any(|(&z, &hi)| {
        let above = z - hi;
        above >= limit || above.is_nan()
    })
}

pub(crate) fn gradient<T: Real>(row: &mut [T], terms: &RowTerms<'_, T>) -> T {
    let mut sum = T::ZERO;
    for (i, z) in row.iter_mut().enumerate() {
        let mut g = exp::<T, Plain>((*z - terms.hi[i]) - terms.lo[i]) * terms.scale[i];
        if let Some((spread, weight)) = terms.spread {
            g = g - weight * spread[i];
        }
        if let Some(inverse) = terms.inverse_cap {
            let tanh = *z * inverse;
            g = g * (T::ONE - tanh * tanh);
        }
        *z = g;
        sum = sum + g;
    }
    sum
}
