//! True measures: maps from the unit cube to the distribution that an expectation is taken under.

use kc_core::Result;

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
}
