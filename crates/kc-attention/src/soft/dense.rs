//! Small symmetric matrices in f64: Cholesky's factors and Jacobi's rotations.

use kc_core::{Error, Result};

/// The inverse of a positive definite matrix `[m, m]`.
///
/// # Errors
/// `Singular` with the pivot that is not positive.
pub(super) fn inverse(a: &[f64], m: usize) -> Result<Vec<f64>> {
    let mut l = a.to_vec();
    for j in 0..m {
        let (done, rest) = l.split_at_mut(j * m);
        let row = &mut rest[..m];
        for i in 0..j {
            let other = &done[i * m..i * m + m];
            let dot: f64 = row[..i].iter().zip(&other[..i]).map(|(x, y)| x * y).sum();
            row[i] = (row[i] - dot) / other[i];
        }
        let pivot = row[j] - row[..j].iter().map(|x| x * x).sum::<f64>();
        // Below this a pivot is what rounding left of zero.
        if pivot.is_nan() || pivot <= m as f64 * f64::EPSILON * a[j * m + j].abs() {
            return Err(Error::Singular { arg: "a".into(), index: j });
        }
        row[j] = pivot.sqrt();
    }
    // Row i of `z` is row i of L^-1; then A^-1 = L^-T L^-1.
    let mut z = vec![0.0; m * m];
    for i in 0..m {
        let (done, rest) = z.split_at_mut(i * m);
        let row = &mut rest[..m];
        row[i] = 1.0;
        for k in 0..i {
            let factor = l[i * m + k];
            row[..=k].iter_mut().zip(&done[k * m..]).for_each(|(x, y)| *x -= factor * y);
        }
        row[..=i].iter_mut().for_each(|x| *x /= l[i * m + i]);
    }
    let mut out = vec![0.0; m * m];
    for row in z.chunks_exact(m.max(1)) {
        for (i, &x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            out[i * m..i * m + m].iter_mut().zip(row).for_each(|(o, y)| *o += x * y);
        }
    }
    Ok(out)
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors in the rows of the second (cyclic Jacobi method).
///
/// # Errors
/// `NotConverged` if 60 sweeps leave more than rounding beside the diagonal.
pub(super) fn eigen(a: &[f64], m: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    const SWEEPS: usize = 60;
    let mut a = a.to_vec();
    let mut vectors = vec![0.0; m * m];
    (0..m).for_each(|i| vectors[i * m + i] = 1.0);
    let size: f64 = a.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut beside = 0.0;
    for _ in 0..SWEEPS {
        beside = (0..m * m).filter(|i| i / m != i % m).map(|i| a[i] * a[i]).sum::<f64>().sqrt();
        if beside <= 1e-15 * size {
            return Ok(((0..m).map(|i| a[i * m + i]).collect(), vectors));
        }
        for p in 0..m {
            for q in p + 1..m {
                let off = a[p * m + q];
                if off.abs() <= f64::MIN_POSITIVE {
                    continue;
                }
                let ratio = (a[q * m + q] - a[p * m + p]) / (2.0 * off);
                let tan = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let cos = 1.0 / tan.hypot(1.0);
                let sin = tan * cos;
                for k in 0..m {
                    let (x, y) = (a[k * m + p], a[k * m + q]);
                    a[k * m + p] = cos * x - sin * y;
                    a[k * m + q] = sin * x + cos * y;
                }
                rotate(&mut a, m, [p, q], [cos, sin]);
                rotate(&mut vectors, m, [p, q], [cos, sin]);
            }
        }
    }
    Err(Error::NotConverged { what: "eigenvalues".into(), iterations: SWEEPS, residual: beside / size })
}

/// Turns rows `p < q`.
fn rotate(a: &mut [f64], m: usize, [p, q]: [usize; 2], [cos, sin]: [f64; 2]) {
    let (above, below) = a.split_at_mut(q * m);
    for (x, y) in above[p * m..p * m + m].iter_mut().zip(&mut below[..m]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row i, column j of a positive definite matrix.
    fn entry(i: usize, j: usize) -> f64 {
        (-0.3 * (i as f64 - j as f64).powi(2)).exp()
    }

    #[test]
    fn inverses_and_eigenvalues_give_the_matrix_back() {
        for m in [0, 1, 2, 7, 20] {
            let a: Vec<f64> = (0..m * m).map(|i| entry(i / m, i % m)).collect();
            let y = inverse(&a, m).unwrap();
            let (values, vectors) = eigen(&a, m).unwrap();
            for i in 0..m {
                for j in 0..m {
                    let unit: f64 = (0..m).map(|k| a[i * m + k] * y[k * m + j]).sum();
                    assert!((unit - f64::from(u8::from(i == j))).abs() < 1e-9, "{m} {i} {j} {unit}");
                    let sum: f64 = (0..m).map(|k| values[k] * vectors[k * m + i] * vectors[k * m + j]).sum();
                    assert!((sum - a[i * m + j]).abs() < 1e-12, "{m} {i} {j} {sum}");
                }
            }
        }
    }

    #[test]
    fn a_repeated_row_is_singular() {
        let a = [1.0, 1.0, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0];
        assert_eq!(inverse(&a, 3), Err(Error::Singular { arg: "a".into(), index: 1 }));
        let (values, _) = eigen(&a, 3).unwrap();
        assert!(values.iter().any(|v| v.abs() < 1e-15));
    }
}
