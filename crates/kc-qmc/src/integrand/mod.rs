//! Functions on the unit cube whose integrals cubature estimates.

use kc_core::Result;

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
