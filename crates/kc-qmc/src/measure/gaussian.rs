//! The normal distribution in any dimension.

use std::f64::consts::PI;

use kc_core::{Error, Isa, Result};

use super::linear::Panels;
use super::student::symmetrised;
use super::{Measure, broadcast, density_rows, diagonal, dimension, endpoint, endpoints, parameter, rows};
use crate::small::{cholesky, eigen_symmetric};
use crate::special::normal_quantiles;

/// How a covariance is split into `A A^T`, which decides which coordinate of a point drives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Decomposition {
    /// Principal components: the first coordinate drives the direction of the largest variance.
    #[default]
    Pca,
    /// The lower triangular factor: coordinate after coordinate.
    Cholesky,
    /// Brownian bridge: the end first, then the middles. For [`BrownianMotion`](super::BrownianMotion) only.
    Bridge,
}

impl Decomposition {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Decomposition::Pca => "pca",
            Decomposition::Cholesky => "cholesky",
            Decomposition::Bridge => "bridge",
        }
    }
}

/// A covariance matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum Covariance {
    /// This number times the identity.
    Scalar(f64),
    /// These variances, no correlation.
    Diagonal(Vec<f64>),
    /// A matrix, row-major. It is made symmetric: half the sum with its transpose.
    Matrix(Vec<f64>),
}

/// `t = mean + A z`, `A A^T = covariance`, `z` the normal quantiles of `u`.
///
/// For [`Decomposition::Pca`] the columns of `A` are `sqrt(lambda) v`, eigenvalues in descending order, each `v` with
/// a first entry that is not negative. Cost per point: `dim` quantiles (2 ns each with AVX2) and, unless the
/// covariance is diagonal, `dim^2` multiplications.
///
/// ```
/// use kc_qmc::{Measure, measure::Gaussian};
/// let measure = Gaussian::iid(2, 1.0, 4.0)?;
/// let mut t = [0.0; 2];
/// measure.transform(&[0.5, 0.975], &mut t)?;
/// assert_eq!(t[0], 1.0);
/// assert!((t[1] - 4.919_927_969_080_108).abs() < 1e-14);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>,
    covariance: Covariance,
    decomposition: Decomposition,
    factor: Factor,
    /// `sqrt(det(2 pi covariance))`, over the directions in which there is variance.
    volume_log: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum Factor {
    /// `t_j = mean_j + deviation_j z_column(j)`.
    Diagonal { deviation: Vec<f64>, column: Vec<usize> },
    /// `t = mean + sum_k z_k row_k` for the rows of `A^T`.
    Dense { panels: Panels, inverse: Inverse },
}

#[derive(Debug, Clone, PartialEq)]
enum Inverse {
    /// Eigenvectors divided by the deviation along them; directions without variance are left out.
    Directions(Vec<f64>),
    /// The lower triangular factor, to be solved with.
    Triangle(Vec<f64>),
}

impl Gaussian {
    /// From a mean (one value for all coordinates or one for each) and a covariance.
    ///
    /// # Errors
    /// `Empty` without coordinates; `Shape`; `Argument` for values that are not finite, negative variances or
    /// eigenvalues; `Singular` if the matrix has no Cholesky factor; `Unsupported` for the bridge.
    pub fn new(
        dim: usize,
        mean: &[f64],
        covariance: Covariance,
        decomposition: Decomposition,
    ) -> Result<Self> {
        dimension("gaussian", dim)?;
        let mean = broadcast("gaussian", "mean", mean, dim)?;
        for &x in &mean {
            parameter("gaussian", "mean", x, "a number", |_| true)?;
        }
        if decomposition == Decomposition::Bridge {
            return Err(Error::unsupported("gaussian.decomposition", "the bridge needs a Brownian motion"));
        }
        match covariance {
            Covariance::Scalar(variance) => {
                Self::independent(mean, vec![variance; dim], Covariance::Scalar(variance), decomposition)
            }
            Covariance::Diagonal(variances) => {
                let variances = broadcast("gaussian", "covariance", &variances, dim)?;
                Self::independent(mean, variances.clone(), Covariance::Diagonal(variances), decomposition)
            }
            Covariance::Matrix(matrix) => Self::dependent(mean, matrix, decomposition),
        }
    }

    /// Independent coordinates with equal mean and variance.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn iid(dim: usize, mean: f64, variance: f64) -> Result<Self> {
        Self::new(dim, &[mean], Covariance::Scalar(variance), Decomposition::Pca)
    }

    fn independent(
        mean: Vec<f64>,
        variances: Vec<f64>,
        covariance: Covariance,
        decomposition: Decomposition,
    ) -> Result<Self> {
        for &variance in &variances {
            let refused = decomposition == Decomposition::Cholesky && variance == 0.0;
            parameter("gaussian", "covariance", variance, "variances that are not negative", |v| {
                v >= 0.0 && !refused
            })?;
        }
        // Principal components are the axes, in the order of their variances.
        let mut order: Vec<usize> = (0..mean.len()).collect();
        if decomposition == Decomposition::Pca {
            order.sort_by(|&i, &j| variances[j].total_cmp(&variances[i]));
        }
        let mut column = vec![0; mean.len()];
        order.iter().enumerate().for_each(|(rank, &j)| column[j] = rank);
        let volume_log = half_log_volume(variances.iter().copied().filter(|&v| v > 0.0));
        let deviation = variances.iter().map(|v| v.sqrt()).collect();
        Ok(Self {
            mean,
            covariance,
            decomposition,
            factor: Factor::Diagonal { deviation, column },
            volume_log,
        })
    }

    fn dependent(mean: Vec<f64>, matrix: Vec<f64>, decomposition: Decomposition) -> Result<Self> {
        let n = mean.len();
        let symmetric = symmetrised("gaussian.covariance", &matrix, n)?;
        let (factor, volume_log) = match decomposition {
            Decomposition::Cholesky => {
                let l = cholesky("gaussian.covariance", &symmetric, n)?;
                let volume_log = half_log_volume((0..n).map(|i| l[i * n + i] * l[i * n + i]));
                let rows: Vec<f64> = (0..n * n).map(|at| l[at % n * n + at / n]).collect();
                (Factor::Dense { panels: Panels::new(&rows, n), inverse: Inverse::Triangle(l) }, volume_log)
            }
            _ => principal(&symmetric, n)?,
        };
        Ok(Self { mean, covariance: Covariance::Matrix(symmetric), decomposition, factor, volume_log })
    }

    /// Which decomposition it uses.
    pub fn decomposition(&self) -> Decomposition {
        self.decomposition
    }
}

/// The factor by principal components, and the logarithm of the volume.
fn principal(matrix: &[f64], n: usize) -> Result<(Factor, f64)> {
    let eigen = eigen_symmetric(matrix, n)?;
    let largest = eigen.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // Rounding makes zero eigenvalues about this large, of either sign.
    let speck = largest * n as f64 * f64::EPSILON * 8.0;
    let least = eigen.values.last().copied().unwrap_or(0.0);
    if least < -speck {
        return Err(Error::argument(
            "gaussian.covariance",
            "a positive semi-definite matrix",
            format!("one with the eigenvalue {least:e}"),
        ));
    }
    let (mut rows, mut directions) = (eigen.vectors.clone(), Vec::new());
    for ((row, vector), &value) in
        rows.chunks_exact_mut(n).zip(eigen.vectors.chunks_exact(n)).zip(&eigen.values)
    {
        let deviation = value.max(0.0).sqrt();
        row.iter_mut().for_each(|x| *x *= deviation);
        if value > speck {
            directions.extend(vector.iter().map(|x| x / deviation));
        }
    }
    let volume_log = half_log_volume(eigen.values.iter().copied().filter(|&v| v > speck));
    Ok((
        Factor::Dense { panels: Panels::new(&rows, n), inverse: Inverse::Directions(directions) },
        volume_log,
    ))
}

/// `ln sqrt(prod 2 pi v)`.
fn half_log_volume(variances: impl Iterator<Item = f64>) -> f64 {
    variances.map(|v| 0.5 * (2.0 * PI * v).ln()).sum()
}

impl Measure for Gaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        vec![(f64::NEG_INFINITY, f64::INFINITY); self.dim()]
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        rows(dim, u, t)?;
        match &self.factor {
            Factor::Diagonal { deviation, column } if column.is_sorted() => {
                normal_quantiles(u, t)?;
                endpoints(dim, u, t)?;
                if let (Some(mean), Some(deviation)) = (equal(&self.mean), equal(deviation)) {
                    t.iter_mut().for_each(|t| *t = mean + deviation * *t);
                    return Ok(());
                }
                for t in t.chunks_exact_mut(dim) {
                    for ((t, mean), deviation) in t.iter_mut().zip(&self.mean).zip(deviation) {
                        *t = mean + deviation * *t;
                    }
                }
            }
            Factor::Diagonal { deviation, column } => with_quantiles(dim, u, t, |z, t| {
                for (z, t) in z.chunks_exact(dim).zip(t.chunks_exact_mut(dim)) {
                    for (j, t) in t.iter_mut().enumerate() {
                        *t = self.mean[j] + deviation[j] * z[column[j]];
                    }
                }
            })?,
            Factor::Dense { panels, .. } => {
                let isa = Isa::best();
                with_quantiles(dim, u, t, |z, t| panels.affine(isa, z, &self.mean, t))?;
            }
        }
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        density_rows(dim, t, out)?;
        let (mut from_mean, mut solution) = (vec![0.0; dim], vec![0.0; dim]);
        for (t, out) in t.chunks_exact(dim).zip(out) {
            for ((x, t), mean) in from_mean.iter_mut().zip(t).zip(&self.mean) {
                *x = t - mean;
            }
            let squared: f64 = match &self.factor {
                Factor::Diagonal { deviation, .. } => {
                    let scaled = from_mean.iter().zip(deviation).filter(|&(_, &s)| s > 0.0);
                    scaled.map(|(x, s)| (x / s) * (x / s)).sum()
                }
                Factor::Dense { inverse: Inverse::Directions(directions), .. } => {
                    let along = |v: &[f64]| v.iter().zip(&from_mean).map(|(v, x)| v * x).sum::<f64>();
                    directions.chunks_exact(dim).map(|v| along(v).powi(2)).sum()
                }
                Factor::Dense { inverse: Inverse::Triangle(l), .. } => {
                    forward_solve(l, &from_mean, &mut solution);
                    solution.iter().map(|x| x * x).sum()
                }
            };
            *out = (-0.5 * squared - self.volume_log).exp();
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("gaussian {} {:?} {:?}", self.decomposition.name(), self.mean, self.covariance)
    }

    fn mean(&self) -> Option<Vec<f64>> {
        Some(self.mean.clone())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        let dim = self.dim();
        Some(match &self.covariance {
            Covariance::Scalar(variance) => vec![*variance; dim],
            Covariance::Diagonal(variances) => variances.clone(),
            Covariance::Matrix(matrix) => matrix.iter().step_by(dim + 1).copied().collect(),
        })
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        match &self.covariance {
            Covariance::Matrix(matrix) => Some(matrix.clone()),
            _ => self.variance().map(|variance| diagonal(&variance)),
        }
    }
}

/// Calls `map` for pieces of whole rows with their normal quantiles and the places for their images. The quantiles of a
/// piece stay in the first-level cache, or there are 32 rows, which share what is loaded of a matrix.
pub(crate) fn with_quantiles(
    dim: usize,
    u: &[f64],
    t: &mut [f64],
    mut map: impl FnMut(&[f64], &mut [f64]),
) -> Result<()> {
    const VALUES: usize = 2048;
    let size = (VALUES / dim).max(32) * dim;
    let mut scratch = vec![0.0; size.min(u.len())];
    for (piece, (u_piece, t)) in u.chunks(size).zip(t.chunks_mut(size)).enumerate() {
        let z = &mut scratch[..u_piece.len()];
        normal_quantiles(u_piece, z)?;
        if let Some(at) = kc_core::math::first_non_finite(z) {
            return Err(endpoint(dim, piece * size + at, u_piece[at]));
        }
        map(z, t);
    }
    Ok(())
}

/// The value that all elements have.
fn equal(x: &[f64]) -> Option<f64> {
    let (first, rest) = x.split_first()?;
    rest.iter().all(|x| x == first).then_some(*first)
}

/// `x` with `l x = b`, `l` lower triangular.
pub(crate) fn forward_solve(l: &[f64], b: &[f64], x: &mut [f64]) {
    let n = b.len();
    for i in 0..n {
        let known: f64 = l[i * n..i * n + i].iter().zip(&x[..i]).map(|(l, x)| l * x).sum();
        x[i] = (b[i] - known) / l[i * n + i];
    }
}
