//! The measure of volume.

use kc_core::{Error, Result};

use super::{Measure, density_rows, dimension};

/// Volume: weight 1 everywhere in a box or in all of space. It cannot be sampled, only integrated over with points of
/// another measure ([`ImportanceSampled`](crate::integrand::ImportanceSampled)).
#[derive(Debug, Clone, PartialEq)]
pub struct Lebesgue {
    range: Vec<(f64, f64)>,
}

impl Lebesgue {
    /// All of space.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn real(dim: usize) -> Result<Self> {
        dimension("lebesgue", dim)?;
        Ok(Self { range: vec![(f64::NEG_INFINITY, f64::INFINITY); dim] })
    }

    /// A box, given by the ends of each coordinate.
    ///
    /// # Errors
    /// `Empty` without coordinates; `Argument` unless each lower end is below the upper one.
    pub fn on(range: Vec<(f64, f64)>) -> Result<Self> {
        dimension("lebesgue", range.len())?;
        match range.iter().find(|(low, high)| low >= high || low.is_nan() || high.is_nan()) {
            Some((low, high)) => Err(Error::argument("lebesgue.range", format!("more than {low}"), high)),
            None => Ok(Self { range }),
        }
    }
}

impl Measure for Lebesgue {
    fn dim(&self) -> usize {
        self.range.len()
    }

    fn range(&self) -> Vec<(f64, f64)> {
        self.range.clone()
    }

    fn transform(&self, _u: &[f64], _t: &mut [f64]) -> Result<()> {
        Err(Error::unsupported(
            "lebesgue.transform",
            "volume has no samples; take another measure to draw from",
        ))
    }

    fn density(&self, t: &[f64], out: &mut [f64]) -> Result<()> {
        density_rows(self.dim(), t, out)?;
        for (t, out) in t.chunks_exact(self.dim()).zip(out) {
            let within = t.iter().zip(&self.range).all(|(t, (low, high))| (low..=high).contains(&t));
            *out = if within { 1.0 } else { 0.0 };
        }
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("lebesgue {:?}", self.range)
    }
}
