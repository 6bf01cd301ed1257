//! True measures: maps from the unit cube to the distribution that an expectation is taken under.

mod brownian;
mod copula;
mod distribution;
mod gaussian;
mod lebesgue;
mod linear;
mod marginals;
mod matern;
mod rejection;
mod student;
mod uniform;

use kc_core::{Error, Result};

pub use brownian::{BridgeOrder, BrownianConfig, BrownianMotion, GeometricBrownianMotion, OutputOrder};
pub use copula::{Copula, CopulaMeasure};
pub use distribution::Distribution;
pub use gaussian::{Covariance, Decomposition, Gaussian};
pub use lebesgue::Lebesgue;
pub use marginals::{Marginals, ProductMeasure, UniformTriangle};
pub use matern::{MaternConfig, matern_correlation, matern_gp};
pub use rejection::{AcceptanceRejection, Accepted, RejectionConfig};
pub use student::StudentT;
pub use uniform::Uniform;

/// A probability measure that uniform points can be mapped to.
pub trait Measure: Send + Sync {
    /// Coordinates of a point.
    fn dim(&self) -> usize;

    /// Lower and upper end of each coordinate's values.
    fn range(&self) -> Vec<(f64, f64)>;

    /// `t = psi(u)` for rows of [`dim`](Self::dim) values; `u` and `t` have the same length, a multiple of it.
    ///
    /// # Errors
    /// A value of `u` outside of `[0, 1]`, or an end point where `psi` is infinite.
    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()>;

    /// The density at each row of `t`.
    ///
    /// # Errors
    /// `Unsupported` if it has none in closed form.
    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()>;

    /// A text that is equal for two measures only if they are the same.
    fn fingerprint(&self) -> String;

    /// The mean of each coordinate, where a closed form is known and it exists.
    fn mean(&self) -> Option<Vec<f64>> {
        None
    }

    /// The variance of each coordinate, where a closed form is known and it exists.
    fn variance(&self) -> Option<Vec<f64>> {
        None
    }

    /// The covariance matrix, row-major, where a closed form is known and it exists.
    fn covariance(&self) -> Option<Vec<f64>> {
        None
    }
}

impl<M: Measure + ?Sized> Measure for Box<M> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        (**self).range()
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        (**self).transform(u, t)
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        (**self).density(t, out)
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }

    fn mean(&self) -> Option<Vec<f64>> {
        (**self).mean()
    }

    fn variance(&self) -> Option<Vec<f64>> {
        (**self).variance()
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        (**self).covariance()
    }
}

/// Moves 0 to 2^-53 and 1 to 1 - 2^-53, for measures whose values are infinite at the ends. Everything else
/// stays as it is.
pub fn open_interval(u: &mut [f64]) {
    const STEP: f64 = f64::EPSILON / 2.0;
    for u in u {
        *u = if *u == 0.0 {
            STEP
        } else if *u == 1.0 {
            1.0 - STEP
        } else {
            *u
        };
    }
}

/// Checks that `u` and `t` are equally long and hold whole rows of `dim` values; gives the number of rows.
pub(crate) fn rows(dim: usize, u: &[f64], t: &[f64]) -> Result<usize> {
    whole_rows("u", dim, u.len())?;
    if t.len() != u.len() {
        return Err(Error::shape("t", format!("{} values, as u", u.len()), &[t.len()]));
    }
    Ok(u.len() / dim)
}

/// Checks that `t` has whole rows and `out` a place for each.
pub(crate) fn density_rows(dim: usize, t: &[f64], out: &[f64]) -> Result<()> {
    whole_rows("t", dim, t.len())?;
    if out.len() != t.len() / dim {
        return Err(Error::shape("out", format!("{} values, one per row of t", t.len() / dim), &[out.len()]));
    }
    Ok(())
}

fn whole_rows(arg: &'static str, dim: usize, len: usize) -> Result<()> {
    if len.is_multiple_of(dim) {
        Ok(())
    } else {
        Err(Error::shape(arg, format!("rows of {dim} values"), &[len]))
    }
}

/// The error for the first of the points that a quantile function cannot map: 0, 1 or a value outside, found by
/// its image `t` not being finite.
pub(crate) fn endpoints(dim: usize, u: &[f64], t: &[f64]) -> Result<()> {
    match kc_core::math::first_non_finite(t) {
        None => Ok(()),
        Some(at) => Err(endpoint(dim, at, u[at])),
    }
}

/// The error for value `at` of a block of points.
pub(crate) fn endpoint(dim: usize, at: usize, u: f64) -> Error {
    let got = format!("{u} at point {}, coordinate {}", at / dim, at % dim);
    Error::argument("u", "values between 0 and 1, ends excluded", got)
}

/// Checks that all values lie in `[0, 1]`, ends included.
pub(crate) fn in_unit_interval(dim: usize, u: &[f64]) -> Result<()> {
    match u.iter().position(|u| !(0.0..=1.0).contains(u)) {
        None => Ok(()),
        Some(at) => {
            let got = format!("{} at point {}, coordinate {}", u[at], at / dim, at % dim);
            Err(Error::argument("u", "values from 0 to 1", got))
        }
    }
}

/// Checks a parameter: finite, and `accept`ed.
pub(crate) fn parameter(
    measure: &str,
    name: &str,
    value: f64,
    expected: &str,
    accept: impl Fn(f64) -> bool,
) -> Result<()> {
    if value.is_finite() && accept(value) {
        Ok(())
    } else {
        Err(Error::argument(format!("{measure}.{name}"), format!("{expected}, finite"), value))
    }
}

/// Checks a number of coordinates.
pub(crate) fn dimension(measure: &str, dim: usize) -> Result<()> {
    if dim == 0 { Err(Error::empty(format!("{measure}.dim"))) } else { Ok(()) }
}

/// The matrix with this diagonal, row-major.
pub(crate) fn diagonal(entries: &[f64]) -> Vec<f64> {
    let n = entries.len();
    let mut matrix = vec![0.0; n * n];
    entries.iter().enumerate().for_each(|(i, &x)| matrix[i * n + i] = x);
    matrix
}

/// A vector of `dim` values from one value for all, or one for each.
pub(crate) fn broadcast(measure: &str, name: &str, values: &[f64], dim: usize) -> Result<Vec<f64>> {
    match values.len() {
        1 => Ok(vec![values[0]; dim]),
        len if len == dim => Ok(values.to_vec()),
        len => Err(Error::shape(format!("{measure}.{name}"), format!("1 or {dim} values"), &[len])),
    }
}
