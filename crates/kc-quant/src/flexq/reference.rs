//! The definition in plain loops.

use super::activations::Activations;
use crate::uniform::{UniformGroups, Zeros};

/// One element of the product from codes: exact integer sums of each group, added as f32 in the order of the
/// groups. What every kernel returns, bit for bit, but for the bias.
pub(super) fn dot(w: &UniformGroups, x: &Activations, n: usize, t: usize) -> f32 {
    let k = w.shape()[1];
    let mut total = 0f32;
    for g in 0..w.groups() {
        let m = g * x.rows + t;
        let zero = i64::from(x.zeros.get(m).copied().unwrap_or(0));
        let columns = g * w.group()..k.min((g + 1) * w.group());
        let (mut sum, mut centred, mut count) = (0i64, 0i64, 0i64);
        for (within, column) in columns.enumerate() {
            let a = i64::from(x.codes[m * x.stride + within]) - zero;
            sum += a * i64::from(w.codes()[n * k + column]);
            centred += a;
            count += 1;
        }
        debug_assert!(count > 0);
        let (scale, by) = (w.scales()[n * w.groups() + g], x.scales[m]);
        total += match w.zeros() {
            Zeros::Offset(offsets) => {
                (sum as f32 * scale + centred as f32 * offsets[n * w.groups() + g]) * by
            }
            _ => {
                let zero = i64::from(w.zero(n, g).unwrap_or(0));
                (sum - zero * centred) as f32 * (scale * by)
            }
        };
    }
    total
}

/// `y = x W^T` in f64 from codes, scales and zeros as the definition has them: `qx` `[M, K]` and `qw` `[N, K]`,
/// scales and zeros `[rows, G]`, groups of `group` columns.
pub fn product(
    [m, n, k]: [usize; 3],
    group: usize,
    (qx, sx, zx): (&[i16], &[f32], &[i32]),
    (qw, sw, zw): (&[i16], &[f32], &[i32]),
) -> Vec<f64> {
    let groups = k.div_ceil(group);
    let mut y = vec![0f64; m * n];
    for i in 0..m {
        for j in 0..n {
            for g in 0..groups {
                let mut sum = 0i64;
                for c in g * group..k.min((g + 1) * group) {
                    let x = i64::from(qx[i * k + c]) - i64::from(zx[i * groups + g]);
                    let w = i64::from(qw[j * k + c]) - i64::from(zw[j * groups + g]);
                    sum += x * w;
                }
                let scale = f64::from(sx[i * groups + g]) * f64::from(sw[j * groups + g]);
                y[i * n + j] += sum as f64 * scale;
            }
        }
    }
    y
}
