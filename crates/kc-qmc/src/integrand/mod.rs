//! Functions whose integrals cubature estimates.
//!
//! An [`Integrand`] lives on the unit cube. Most are a function of points of a measure: [`Transformed`] puts the two
//! together, [`ImportanceSampled`] draws the points from another measure and weights them.
//!
//! ```
//! use kc_qmc::Integrand;
//! use kc_qmc::integrand::{Transformed, from_fn};
//! use kc_qmc::measure::Gaussian;
//! let f = Transformed::new(Gaussian::iid(2, 0.0, 1.0)?, from_fn(2, |t: &[f64]| t[0] + t[1]))?;
//! let mut y = [0.0];
//! f.evaluate(&[0.5, 0.5], &[true], &mut y)?;
//! assert_eq!(y, [0.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

mod basic;
mod bayes;
mod closure;
mod genz;
mod keister;
mod option;
mod sensitivity;
mod transformed;

use kc_core::{Error, Result};

pub use basic::{
    BoxIntegral, Cubic3, FourBranch2d, Hartmann6, Ishigami, Linear0, Multimodal2d, NegExp, Sin1d,
};
pub use bayes::LogisticRegression;
pub use closure::{FnIntegrand, VectorFnIntegrand, from_fn, vector_from_fn};
pub use genz::{Coefficients, Genz, GenzFamily};
pub use keister::Keister;
pub use option::{AsianMean, AsianRule, Barrier, FinancialOption, OptionConfig, OptionKind, Side};
pub use sensitivity::{SensitivityIndices, Subsets};
pub use transformed::{Chain, ImportanceSampled, Transformed};

/// A vector-valued function on the unit cube with `outputs` values per point (the individual integrals), and a
/// map from bounds on them to bounds on the `combined` quantities that are asked for.
///
/// With nothing but [`dim`](Self::dim) and [`evaluate`](Self::evaluate) it is a scalar function whose integral
/// is the answer.
pub trait Integrand: Send + Sync {
    /// Coordinates of a point.
    fn dim(&self) -> usize;

    /// Individual outputs P.
    fn outputs(&self) -> usize {
        1
    }

    /// Combined outputs Q.
    fn combined(&self) -> usize {
        self.outputs()
    }

    /// The shape that the combined outputs are shown in, row-major.
    fn shape(&self) -> Vec<usize> {
        vec![self.combined()]
    }

    /// Writes `f(u)` of each row of `u` (shape (n, dim)) into `out` (shape (P, n)). Outputs that are not `active`
    /// are finished: they may be left as they are.
    ///
    /// # Errors
    /// What the function itself fails with.
    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()>;

    /// Bounds of the combined outputs from bounds of the individual ones.
    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        combined_low.copy_from_slice(low);
        combined_high.copy_from_slice(high);
    }

    /// Sets in `individual` which outputs are still needed when the combined outputs marked in `unfinished` are.
    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        individual.copy_from_slice(unfinished);
    }

    /// A text that is equal for two integrands only if they are the same function; the key under which cubature
    /// can be resumed. `None`: cannot be told.
    fn fingerprint(&self) -> Option<String> {
        None
    }
}

impl<F: Integrand + ?Sized> Integrand for Box<F> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn outputs(&self) -> usize {
        (**self).outputs()
    }

    fn combined(&self) -> usize {
        (**self).combined()
    }

    fn shape(&self) -> Vec<usize> {
        (**self).shape()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        (**self).evaluate(u, active, out)
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        (**self).bound(low, high, combined_low, combined_high);
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        (**self).needs(unfinished, individual);
    }

    fn fingerprint(&self) -> Option<String> {
        (**self).fingerprint()
    }
}

/// Checks the arguments of `evaluate` and gives the number of points.
pub(crate) fn points(integrand: &impl Integrand, u: &[f64], active: &[bool], out: &[f64]) -> Result<usize> {
    let (dim, outputs) = (integrand.dim(), integrand.outputs());
    if !u.len().is_multiple_of(dim) {
        return Err(Error::shape("u", format!("rows of {dim} values"), &[u.len()]));
    }
    if active.len() != outputs {
        return Err(Error::shape("active", format!("{outputs} flags"), &[active.len()]));
    }
    let count = u.len() / dim;
    if out.len() != outputs * count {
        return Err(Error::shape("out", format!("{outputs} x {count} values"), &[out.len()]));
    }
    Ok(count)
}

/// Multiplies each active output, a row of one value per point, with the points' weights.
pub(crate) fn scale_rows(active: &[bool], weights: &[f64], out: &mut [f64]) {
    if weights.is_empty() {
        return;
    }
    for (row, _) in out.chunks_exact_mut(weights.len()).zip(active).filter(|(_, active)| **active) {
        row.iter_mut().zip(weights).for_each(|(y, weight)| *y *= weight);
    }
}

/// Checks a parameter of an integrand: finite, and `accept`ed.
pub(crate) fn parameter(
    integrand: &str,
    name: &str,
    value: f64,
    expected: &str,
    accept: impl Fn(f64) -> bool,
) -> Result<()> {
    crate::measure::parameter(integrand, name, value, expected, accept)
}
