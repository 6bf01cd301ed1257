//! Dense symmetric matrices of a few thousand rows: Cholesky factor and eigen-decomposition.
//!
//! Covariances are factored once per measure, so these are plain loops that run along rows. Cost: n^3/3
//! operations for the factor, about 9 n^3 for the eigenvectors.

use kc_core::{Error, Result};

/// The inner product of vectors of equal length.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    // The lengths are equal, so there is no error.
    kc_core::math::dot(x, y).unwrap_or(f64::NAN)
}

/// The lower triangular `L` with `L L^T = a`, row-major, zeros above the diagonal.
///
/// # Errors
/// `Singular` with the row if `a` is not positive definite.
pub fn cholesky(arg: &'static str, a: &[f64], n: usize) -> Result<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let (row, other) = (&l[i * n..i * n + j], &l[j * n..j * n + j]);
            let rest = a[i * n + j] - dot(row, other);
            l[i * n + j] = if i > j {
                rest / l[j * n + j]
            } else if rest > 0.0 {
                rest.sqrt()
            } else {
                return Err(Error::Singular { arg: arg.into(), index: i });
            };
        }
    }
    Ok(l)
}

/// Eigenvalues, largest first, and eigenvectors of a symmetric matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// Eigenvalues in descending order; equal ones in the order in which they were found.
    pub values: Vec<f64>,
    /// Row `k` is the unit eigenvector of value `k`. Its first entry is not negative.
    pub vectors: Vec<f64>,
}

/// The eigen-decomposition of the symmetric matrix `a` (row-major; only the lower triangle is read).
///
/// Householder reduction to tridiagonal form, then QL with implicit shifts (H. Bowdler, R. S. Martin, C. Reinsch,
/// J. H. Wilkinson, *The QR and QL algorithms for symmetric matrices*, 1968).
///
/// # Errors
/// `NotConverged` if an eigenvalue takes more than 60 sweeps, which needs entries that are not finite.
pub fn eigen_symmetric(a: &[f64], n: usize) -> Result<Eigen> {
    let mut tridiagonal = Tridiagonal::reduce(a, n);
    tridiagonal.diagonalize()?;
    let Tridiagonal { diagonal, vectors, .. } = tridiagonal;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]));
    let mut sorted = Vec::with_capacity(n * n);
    for &k in &order {
        let row = &vectors[k * n..(k + 1) * n];
        // Rounding leaves specks where a vector is zero; the first entry that is more decides.
        let sign = if row.iter().find(|x| x.abs() > 1e-14).is_some_and(|&x| x < 0.0) { -1.0 } else { 1.0 };
        sorted.extend(row.iter().map(|x| sign * x));
    }
    Ok(Eigen { values: order.iter().map(|&k| diagonal[k]).collect(), vectors: sorted })
}

/// `Q^T A Q = T`, with the columns of Q as rows of `vectors`.
struct Tridiagonal {
    n: usize,
    diagonal: Vec<f64>,
    /// Entry `i` couples `i` and `i + 1`; the last is 0.
    beside: Vec<f64>,
    vectors: Vec<f64>,
}

impl Tridiagonal {
    /// Reflections from the first column on, each of which zeroes a column below its second entry.
    fn reduce(a: &[f64], n: usize) -> Self {
        let mut a = a.to_vec();
        for i in 0..n {
            for j in 0..i {
                a[j * n + i] = a[i * n + j];
            }
        }
        let mut beside = vec![0.0; n];
        // Row k of `reflectors` holds v_k from entry k + 1 on, with H_k = I - v v^T, |v|^2 = 2.
        let mut reflectors: Vec<Vec<f64>> = Vec::with_capacity(n);
        for k in 0..n.saturating_sub(1) {
            let mut v = a[k * n + k + 1..(k + 1) * n].to_vec();
            let below: f64 = v[1..].iter().map(|x| x * x).sum();
            if below == 0.0 {
                beside[k] = v[0];
                reflectors.push(Vec::new());
                continue;
            }
            let norm = v[0].hypot(below.sqrt());
            beside[k] = -norm.copysign(v[0]);
            v[0] -= beside[k];
            let scale = (2.0 / v.iter().map(|x| x * x).sum::<f64>()).sqrt();
            v.iter_mut().for_each(|x| *x *= scale);
            // A <- H A H = A - v w^T - w v^T with p = A v, w = p - (p v / 2) v.
            let first = k + 1;
            let row = |i: usize| (first + i) * n + first..(first + i + 1) * n;
            let mut w: Vec<f64> = (0..v.len()).map(|i| dot(&a[row(i)], &v)).collect();
            let half = 0.5 * dot(&w, &v);
            w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
            for i in 0..v.len() {
                let (vi, wi) = (v[i], w[i]);
                for ((x, v), w) in a[row(i)].iter_mut().zip(&v).zip(&w) {
                    *x -= vi * w + wi * v;
                }
            }
            reflectors.push(v);
        }
        let diagonal = (0..n).map(|i| a[i * n + i]).collect();
        // Q = H_0 H_1 ...; its transpose's rows are built from the last reflector on.
        let mut vectors = vec![0.0; n * n];
        (0..n).for_each(|i| vectors[i * n + i] = 1.0);
        for (k, v) in reflectors.iter().enumerate().rev().filter(|(_, v)| !v.is_empty()) {
            for i in k + 1..n {
                let row = &mut vectors[i * n + k + 1..(i + 1) * n];
                let along = dot(row, v);
                row.iter_mut().zip(v).for_each(|(x, v)| *x -= along * v);
            }
        }
        Self { n, diagonal, beside, vectors }
    }

    fn diagonalize(&mut self) -> Result<()> {
        let Self { n, diagonal: d, beside: e, vectors } = self;
        let n = *n;
        for l in 0..n {
            for sweep in 0.. {
                // The first coupling that has become negligible ends the block.
                let m = (l..n)
                    .find(|&m| m + 1 == n || e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()))
                    .unwrap_or(l);
                if m == l {
                    break;
                }
                if sweep == 60 || !d[l].is_finite() {
                    let residual = e[l].abs();
                    return Err(Error::NotConverged {
                        what: "eigenvalues".into(),
                        iterations: sweep,
                        residual,
                    });
                }
                let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
                let mut r = g.hypot(1.0);
                g = d[m] - d[l] + e[l] / (g + r.copysign(g));
                let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
                let mut split = false;
                for i in (l..m).rev() {
                    let (f, b) = (s * e[i], c * e[i]);
                    r = f.hypot(g);
                    e[i + 1] = r;
                    if r == 0.0 {
                        d[i + 1] -= p;
                        e[m] = 0.0;
                        split = true;
                        break;
                    }
                    (s, c) = (f / r, g / r);
                    g = d[i + 1] - p;
                    r = (d[i] - g) * s + 2.0 * c * b;
                    p = s * r;
                    d[i + 1] = g + p;
                    g = c * r - b;
                    let (upper, lower) = vectors.split_at_mut((i + 1) * n);
                    for (x, y) in upper[i * n..].iter_mut().zip(&mut lower[..n]) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
                if !split {
                    d[l] -= p;
                    e[l] = g;
                    e[m] = 0.0;
                }
            }
        }
        Ok(())
    }
}
