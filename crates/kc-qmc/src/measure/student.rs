//! The t distribution in any dimension.

use std::f64::consts::PI;

use kc_core::{Error, Result};

use super::gaussian::forward_solve;
use super::{Measure, broadcast, density_rows, dimension, in_unit_interval, parameter, rows};
use crate::small::cholesky;
use crate::special::{ln_gamma_half_step, t_quantile};

/// The dependent part of a t distribution around 0, as a chain of exact conditional distributions.
///
/// With `shape = L L^T` the point is `L w`, where `w_i` is the t quantile of `u_i` with `df + i` degrees of freedom times
/// `sqrt((df + w_0^2 + .. + w_(i-1)^2) / (df + i))`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConditionalT {
    lower: Vec<f64>,
    dim: usize,
    df: f64,
    /// The logarithm of the density at the centre.
    peak_log: f64,
}

impl ConditionalT {
    /// From a symmetric matrix.
    pub(crate) fn new(arg: &'static str, shape: &[f64], dim: usize, df: f64) -> Result<Self> {
        let lower = cholesky(arg, shape, dim)?;
        let volume: f64 = (0..dim).map(|i| lower[i * dim + i].ln()).sum();
        // ln Gamma((df + d) / 2) - ln Gamma(df / 2), in steps of one half.
        let gammas: f64 = (0..dim).map(|i| ln_gamma_half_step(0.5 * (df + i as f64))).sum();
        let peak_log = gammas - 0.5 * dim as f64 * (df * PI).ln() - volume;
        Ok(Self { lower, dim, df, peak_log })
    }

    /// Maps a point of the cube, moved off its faces by one rounding.
    pub(crate) fn transform(&self, u: &[f64], w: &mut [f64], t: &mut [f64]) {
        let mut squared = 0.0;
        for (i, (w, &u)) in w.iter_mut().zip(u).enumerate() {
            let df = self.df + i as f64;
            *w = t_quantile(clip(u), df) * ((self.df + squared) / df).sqrt();
            squared += *w * *w;
        }
        for (row, t) in self.lower.chunks_exact(self.dim).zip(t) {
            *t = row.iter().zip(w.iter()).map(|(l, w)| l * w).sum();
        }
    }

    /// The logarithm of the density at a distance from the centre.
    pub(crate) fn ln_density(&self, from_centre: &[f64], w: &mut [f64]) -> f64 {
        forward_solve(&self.lower, from_centre, w);
        let squared: f64 = w.iter().map(|w| w * w).sum();
        self.peak_log - 0.5 * (self.df + self.dim as f64) * (squared / self.df).ln_1p()
    }
}

/// Moves 0 and 1 inside by one rounding.
pub(crate) fn clip(u: f64) -> f64 {
    u.clamp(f64::EPSILON, 1.0 - f64::EPSILON)
}

/// Half the sum of a matrix and its transpose.
pub(crate) fn symmetrised(arg: &'static str, matrix: &[f64], dim: usize) -> Result<Vec<f64>> {
    if matrix.len() != dim * dim {
        return Err(Error::shape(arg, format!("{dim} x {dim} values"), &[matrix.len()]));
    }
    if let Some(at) = kc_core::math::first_non_finite(matrix) {
        return Err(Error::not_finite(arg, &[at / dim, at % dim], matrix[at]));
    }
    Ok((0..dim * dim).map(|at| 0.5 * matrix[at] + 0.5 * matrix[at % dim * dim + at / dim]).collect())
}

/// Student's t around `loc` with a shape matrix and `df` degrees of freedom. Uniform values are clipped to
/// `[eps, 1 - eps]`.
///
/// Cost per point: `dim` t quantiles, some microseconds each.
///
/// ```
/// use kc_qmc::{Measure, measure::StudentT};
/// let measure = StudentT::new(&[1.0, 2.0], &[4.0, 1.0, 1.0, 3.0], 5.0)?;
/// let mut t = [0.0; 2];
/// measure.transform(&[0.5, 0.5], &mut t)?;
/// assert_eq!(t, [1.0, 2.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StudentT {
    loc: Vec<f64>,
    shape: Vec<f64>,
    df: f64,
    conditional: ConditionalT,
}

impl StudentT {
    /// From a centre, a positive definite shape matrix (row-major; it is made symmetric) and degrees of freedom.
    ///
    /// # Errors
    /// `Empty`, `Shape`, `NotFinite`, `Argument`; `Singular` if the matrix is not positive definite.
    pub fn new(loc: &[f64], shape: &[f64], df: f64) -> Result<Self> {
        let dim = loc.len();
        dimension("student_t", dim)?;
        let loc = broadcast("student_t", "loc", loc, dim)?;
        for &x in &loc {
            parameter("student_t", "loc", x, "a number", |_| true)?;
        }
        parameter("student_t", "df", df, "a positive number", |df| df > 0.0)?;
        let shape = symmetrised("student_t.shape", shape, dim)?;
        let conditional = ConditionalT::new("student_t.shape", &shape, dim, df)?;
        Ok(Self { loc, shape, df, conditional })
    }
}

impl Measure for StudentT {
    fn dim(&self) -> usize {
        self.loc.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        vec![(f64::NEG_INFINITY, f64::INFINITY); self.dim()]
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        rows(dim, u, t)?;
        in_unit_interval(dim, u)?;
        let mut w = vec![0.0; dim];
        for (u, t) in u.chunks_exact(dim).zip(t.chunks_exact_mut(dim)) {
            self.conditional.transform(u, &mut w, t);
            t.iter_mut().zip(&self.loc).for_each(|(t, loc)| *t += loc);
        }
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        density_rows(dim, t, out)?;
        let (mut from_loc, mut w) = (vec![0.0; dim], vec![0.0; dim]);
        for (t, out) in t.chunks_exact(dim).zip(out) {
            from_loc.iter_mut().zip(t).zip(&self.loc).for_each(|((x, t), loc)| *x = t - loc);
            *out = self.conditional.ln_density(&from_loc, &mut w).exp();
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("student_t {:?} {:?} {:?}", self.loc, self.shape, self.df)
    }

    fn mean(&self) -> Option<Vec<f64>> {
        (self.df > 1.0).then(|| self.loc.clone())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        let covariance = self.covariance()?;
        Some(covariance.iter().step_by(self.dim() + 1).copied().collect())
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        let scale = self.df / (self.df - 2.0);
        (self.df > 2.0).then(|| self.shape.iter().map(|x| scale * x).collect())
    }
}
