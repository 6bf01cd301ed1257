//! The uniform distribution on a box.

use kc_core::{Error, Result};

use super::{Measure, broadcast, density_rows, dimension, in_unit_interval, parameter, rows};

/// Uniform on the box `[lower, upper]`: `t = a + (b - a) u`, density `1 / prod(b - a)`.
///
/// ```
/// use kc_qmc::{Measure, measure::Uniform};
/// let measure = Uniform::new(2, &[-1.0], &[1.0])?;
/// let mut t = [0.0; 2];
/// measure.transform(&[0.25, 1.0], &mut t)?;
/// assert_eq!(t, [-0.5, 1.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Uniform {
    lower: Vec<f64>,
    upper: Vec<f64>,
}

impl Uniform {
    /// From the ends of each of `dim` coordinates: one value for all, or one for each.
    ///
    /// # Errors
    /// `Empty` without coordinates, `Shape`, `Argument` unless the ends are finite and lower < upper.
    pub fn new(dim: usize, lower: &[f64], upper: &[f64]) -> Result<Self> {
        dimension("uniform", dim)?;
        let lower = broadcast("uniform", "lower", lower, dim)?;
        let upper = broadcast("uniform", "upper", upper, dim)?;
        for (&low, &high) in lower.iter().zip(&upper) {
            parameter("uniform", "lower", low, "a number", |_| true)?;
            parameter("uniform", "upper", high, "a number", |_| true)?;
            if low >= high || !(high - low).is_finite() {
                return Err(Error::argument("uniform.upper", format!("more than {low}"), high));
            }
        }
        Ok(Self { lower, upper })
    }

    /// The unit cube.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn unit(dim: usize) -> Result<Self> {
        Self::new(dim, &[0.0], &[1.0])
    }
}

impl Measure for Uniform {
    fn dim(&self) -> usize {
        self.lower.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        self.lower.iter().copied().zip(self.upper.iter().copied()).collect()
    }

    fn transform(&self, u: &[f64], t: &mut [f64]) -> Result<()> {
        let dim = self.dim();
        rows(dim, u, t)?;
        in_unit_interval(dim, u)?;
        for (u, t) in u.chunks_exact(dim).zip(t.chunks_exact_mut(dim)) {
            for (((t, u), low), high) in t.iter_mut().zip(u).zip(&self.lower).zip(&self.upper) {
                *t = low + (high - low) * u;
            }
        }
        Ok(())
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim(), t, out)?;
        let inside: f64 = self.lower.iter().zip(&self.upper).map(|(low, high)| 1.0 / (high - low)).product();
        for (t, out) in t.chunks_exact(self.dim()).zip(out) {
            let mut ends = self.lower.iter().zip(&self.upper).zip(t);
            let within = ends.all(|((low, high), t)| (low..=high).contains(&t));
            *out = if within { inside } else { 0.0 };
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("uniform {:?} {:?}", self.lower, self.upper)
    }

    fn mean(&self) -> Option<Vec<f64>> {
        Some(self.lower.iter().zip(&self.upper).map(|(low, high)| 0.5 * low + 0.5 * high).collect())
    }

    fn variance(&self) -> Option<Vec<f64>> {
        Some(
            self.lower
                .iter()
                .zip(&self.upper)
                .map(|(low, high)| (high - low) * (high - low) / 12.0)
                .collect(),
        )
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        self.variance().map(|variance| super::diagonal(&variance))
    }
}
