//! Least squares of up to nine unknowns, with the shortest solution where the matrix is singular.

/// Unknowns at most: eight scales and an offset.
pub(super) const MOST: usize = 9;

/// A pivot, or an eigenvalue, below this share of the largest counts as zero. Gram matrices of signs have entries
/// in steps of `1/L`, so that what is not singular stays far above it.
const NEGLIGIBLE: f64 = 1e-10;

/// The shortest `x` that minimises `|a x - b|`, for a symmetric positive semidefinite `a` `[m, m]` of unit diagonal.
pub(super) fn solve(a: &[[f64; MOST]; MOST], b: &[f64; MOST], m: usize) -> [f64; MOST] {
    cholesky(a, b, m).unwrap_or_else(|| pseudo_inverse(*a, b, m))
}

/// `None` if the matrix is singular.
fn cholesky(a: &[[f64; MOST]; MOST], b: &[f64; MOST], m: usize) -> Option<[f64; MOST]> {
    let mut l = [[0.0; MOST]; MOST];
    let mut x = [0.0; MOST];
    for i in 0..m {
        for j in 0..=i {
            let mut sum = a[i][j];
            sum -= l[i][..j].iter().zip(&l[j]).map(|(x, y)| x * y).sum::<f64>();
            if i == j {
                if sum <= NEGLIGIBLE {
                    return None;
                }
                l[i][i] = sum.sqrt();
            } else {
                l[i][j] = sum / l[j][j];
            }
        }
    }
    for i in 0..m {
        let mut sum = b[i];
        for k in 0..i {
            sum -= l[i][k] * x[k];
        }
        x[i] = sum / l[i][i];
    }
    for i in (0..m).rev() {
        let mut sum = x[i];
        for k in i + 1..m {
            sum -= l[k][i] * x[k];
        }
        x[i] = sum / l[i][i];
    }
    Some(x)
}

/// By the eigenvalues, which Jacobi's rotations find.
fn pseudo_inverse(mut a: [[f64; MOST]; MOST], b: &[f64; MOST], m: usize) -> [f64; MOST] {
    let mut v = [[0.0; MOST]; MOST];
    for (i, row) in v.iter_mut().enumerate() {
        row[i] = 1.0;
    }
    for _sweep in 0..30 {
        let off: f64 = (0..m).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if off < 1e-30 {
            break;
        }
        for p in 0..m {
            for q in p + 1..m {
                if a[p][q] != 0.0 {
                    rotate(&mut a, &mut v, p, q, m);
                }
            }
        }
    }
    let largest = (0..m).map(|i| a[i][i]).fold(0.0, f64::max);
    let mut x = [0.0; MOST];
    for e in (0..m).filter(|&e| a[e][e] > NEGLIGIBLE * largest) {
        let along: f64 = (0..m).map(|i| v[i][e] * b[i]).sum();
        for i in 0..m {
            x[i] += v[i][e] * along / a[e][e];
        }
    }
    x
}

/// Makes `a[p][q]` zero by a rotation of the axes `p` and `q`.
fn rotate(a: &mut [[f64; MOST]; MOST], v: &mut [[f64; MOST]; MOST], p: usize, q: usize, m: usize) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for row in a.iter_mut().take(m) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    let (x, y) = (a[p], a[q]);
    for (k, (x, y)) in x.into_iter().zip(y).enumerate().take(m) {
        (a[p][k], a[q][k]) = (c * x - s * y, s * x + c * y);
    }
    for row in v.iter_mut().take(m) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f64]]) -> [[f64; MOST]; MOST] {
        let mut a = [[0.0; MOST]; MOST];
        for (to, from) in a.iter_mut().zip(rows) {
            to[..from.len()].copy_from_slice(from);
        }
        a
    }

    #[test]
    fn both_ways_agree_on_regular_matrices() {
        let a = matrix(&[&[1.0, 0.5, -0.25], &[0.5, 1.0, 0.125], &[-0.25, 0.125, 1.0]]);
        let mut b = [0.0; MOST];
        b[..3].copy_from_slice(&[1.0, -2.0, 0.5]);
        let (x, y) = (cholesky(&a, &b, 3).unwrap(), pseudo_inverse(a, &b, 3));
        for i in 0..3 {
            assert!((x[i] - y[i]).abs() < 1e-12);
            let back: f64 = (0..3).map(|j| a[i][j] * x[j]).sum();
            assert!((back - b[i]).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_columns_share() {
        let a = matrix(&[&[1.0, 1.0, 0.5], &[1.0, 1.0, 0.5], &[0.5, 0.5, 1.0]]);
        let mut b = [0.0; MOST];
        b[..3].copy_from_slice(&[2.0, 2.0, 1.0]);
        let x = solve(&a, &b, 3);
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 1.0).abs() < 1e-12 && x[2].abs() < 1e-12);
        // Opposite columns: the shortest solution has opposite halves.
        let x =
            solve(&matrix(&[&[1.0, -1.0], &[-1.0, 1.0]]), &[1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 2);
        assert!((x[0] - 0.5).abs() < 1e-12 && (x[1] + 0.5).abs() < 1e-12);
    }
}
