//! Keister's integral.

use std::f64::consts::PI;

use kc_core::math::{Function, apply_in_place};
use kc_core::{Isa, Result};

use super::{Integrand, Transformed, points};
use crate::measure::Gaussian;
use crate::special::ln_gamma;

/// `pi^(d/2) cos |t|` for `t ~ N(0, I/2)`: the integral of `cos|x| exp(-|x|^2)` over all of space.
///
/// Source: B. D. Keister, *Multidimensional quadrature algorithms*, Computers in Physics 10 (1996).
///
/// ```
/// use kc_qmc::Integrand;
/// use kc_qmc::integrand::Keister;
/// let f = Keister::on_cube(3)?;
/// let mut y = [0.0];
/// f.evaluate(&[0.5; 3], &[true], &mut y)?;
/// assert!((y[0] - std::f64::consts::PI.powf(1.5)).abs() < 1e-14);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Keister {
    dim: usize,
}

impl Keister {
    /// As a function on the unit cube.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn on_cube(dim: usize) -> Result<Transformed<Gaussian, Keister>> {
        Transformed::new(Gaussian::iid(dim, 0.0, 0.5)?, Keister { dim })
    }

    /// The value of the integral: `2 pi^(d/2) / Gamma(d/2)` times the integral of `r^(d-1) cos(r) exp(-r^2)` over
    /// `r > 0`, by recurrence in `d`.
    pub fn exact(dim: usize) -> f64 {
        // Pairs of integrals with cos and sin: integration by parts leads from d-2 and d-1 to d.
        /// The integral of `sin(r) exp(-r^2)`: Dawson's function at 1/2.
        const SINE: f64 = 0.424_436_383_502_022_3;
        let mut last = (PI.sqrt() / 2.0 * (-0.25f64).exp(), SINE);
        let mut here = ((1.0 - last.1) / 2.0, last.0 / 2.0);
        if dim <= 1 {
            here = last;
        }
        for j in 2..dim {
            let j = (j - 1) as f64;
            (last, here) = (here, ((j * last.0 - here.1) / 2.0, (j * last.1 + here.0) / 2.0));
        }
        let half = dim as f64 / 2.0;
        2.0 * (half * PI.ln() - ln_gamma(half)).exp() * here.0
    }
}

impl Integrand for Keister {
    fn dim(&self) -> usize {
        self.dim
    }

    fn evaluate(&self, t: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        points(self, t, active, out)?;
        for (t, out) in t.chunks_exact(self.dim).zip(out.iter_mut()) {
            *out = t.iter().map(|t| t * t).sum();
        }
        out.iter_mut().for_each(|y| *y = y.sqrt());
        apply_in_place(Isa::best(), Function::Cos, out);
        let scale = PI.powf(self.dim as f64 / 2.0);
        out.iter_mut().for_each(|y| *y *= scale);
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("keister {}", self.dim))
    }
}
