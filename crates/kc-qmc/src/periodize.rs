//! Periodising transforms: lattices integrate periodic functions best, and these make any function periodic.
//!
//! A transform `x -> psi(x)` of each coordinate with weight `psi'(x)` leaves the integral over the cube as it is.
//! The smoother the periodic extension, the faster lattice rules converge and the larger the variance becomes.
//!
//! | Name | psi(x) | psi'(x) |
//! |---|---|---|
//! | `Baker` | `1 - 2 abs(x - 1/2)` | taken as 1, as it is `+-2` on halves that mirror each other |
//! | `C0` | `3x^2 - 2x^3` | `6x(1-x)` |
//! | `C1` | `x^3 (10 - 15x + 6x^2)` | `30 x^2 (1-x)^2` |
//! | `C1Sin` | `x - sin(2 pi x) / 2 pi` | `2 sin^2(pi x)` |
//! | `C2Sin` | `(8 - 9 cos(pi x) + cos(3 pi x)) / 16` | `pi (9 sin(pi x) - 3 sin(3 pi x)) / 16` |
//! | `C3Sin` | `(12 pi x - 8 sin(2 pi x) + sin(4 pi x)) / 12 pi` | `(12 - 16 cos(2 pi x) + 4 cos(4 pi x)) / 12` |
//!
//! The last four are clipped to `[eps, 1 - eps]`: they are so flat at the ends that they round to 0 or 1 there.
//! Sources: F. J. Hickernell, *Obtaining O(N^-2+e) convergence for lattice quadrature rules* (2002); A. Sidi, *A new
//! variable transformation for numerical integration* (1993).
//!
//! ```
//! use kc_qmc::Integrand;
//! use kc_qmc::integrand::from_fn;
//! use kc_qmc::periodize::{Periodization, Periodized};
//! let f = Periodized::new(from_fn(1, |x: &[f64]| x[0]), Periodization::C0);
//! let mut y = [0.0; 2];
//! f.evaluate(&[0.25, 1.0], &[true], &mut y)?;
//! assert_eq!(y, [0.15625 * 1.125, 0.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::f64::consts::PI;
use std::str::FromStr;

use kc_core::{Error, Result};

use crate::Integrand;

/// A periodising transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Periodization {
    /// The identity.
    #[default]
    None,
    /// The tent.
    Baker,
    /// The cubic with a derivative that vanishes at the ends.
    C0,
    /// The quintic with two vanishing derivatives.
    C1,
    /// Sidi's sine transform of order 1.
    C1Sin,
    /// Sidi's sine transform of order 2.
    C2Sin,
    /// Sidi's sine transform of order 3.
    C3Sin,
}

impl Periodization {
    /// All of them.
    pub const ALL: [Periodization; 7] = [
        Periodization::None,
        Periodization::Baker,
        Periodization::C0,
        Periodization::C1,
        Periodization::C1Sin,
        Periodization::C2Sin,
        Periodization::C3Sin,
    ];

    /// The name in command lines and files.
    pub const fn name(self) -> &'static str {
        match self {
            Periodization::None => "none",
            Periodization::Baker => "baker",
            Periodization::C0 => "c0",
            Periodization::C1 => "c1",
            Periodization::C1Sin => "c1sin",
            Periodization::C2Sin => "c2sin",
            Periodization::C3Sin => "c3sin",
        }
    }

    /// `(psi(x), psi'(x))`.
    pub fn apply(self, x: f64) -> (f64, f64) {
        match self {
            Periodization::None => (x, 1.0),
            Periodization::Baker => (1.0 - 2.0 * (x - 0.5).abs(), 1.0),
            Periodization::C0 => (x * x * (3.0 - 2.0 * x), 6.0 * x * (1.0 - x)),
            Periodization::C1 => {
                let slope = x * (1.0 - x);
                (inside(x * x * x * (10.0 - 15.0 * x + 6.0 * x * x)), 30.0 * slope * slope)
            }
            Periodization::C1Sin => {
                let sine = (PI * x).sin();
                (inside(x - (2.0 * PI * x).sin() / (2.0 * PI)), 2.0 * sine * sine)
            }
            Periodization::C2Sin => {
                let ((sin, cos), (sin3, cos3)) = ((PI * x).sin_cos(), (3.0 * PI * x).sin_cos());
                (inside((8.0 - 9.0 * cos + cos3) / 16.0), PI * (9.0 * sin - 3.0 * sin3) / 16.0)
            }
            Periodization::C3Sin => {
                let ((sin2, cos2), (sin4, cos4)) = ((2.0 * PI * x).sin_cos(), (4.0 * PI * x).sin_cos());
                let psi = (12.0 * PI * x - 8.0 * sin2 + sin4) / (12.0 * PI);
                (inside(psi), (12.0 - 16.0 * cos2 + 4.0 * cos4) / 12.0)
            }
        }
    }

    /// Transforms rows of `dim` coordinates; `weights` gets the product of the weights of each row.
    ///
    /// # Errors
    /// `Shape` unless `u` has whole rows, `x` is as long and `weights` has a place for each row.
    pub fn transform(self, dim: usize, u: &[f64], x: &mut [f64], weights: &mut [f64]) -> Result<()> {
        crate::measure::rows(dim, u, x)?;
        crate::measure::density_rows(dim, u, weights)?;
        for ((u, x), weight) in u.chunks_exact(dim).zip(x.chunks_exact_mut(dim)).zip(weights) {
            *weight = 1.0;
            for (&u, x) in u.iter().zip(x) {
                let (psi, slope) = self.apply(u);
                *x = psi;
                *weight *= slope;
            }
        }
        Ok(())
    }
}

impl FromStr for Periodization {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| Error::argument("ptransform", Self::ALL.map(Periodization::name).join(", "), text))
    }
}

fn inside(x: f64) -> f64 {
    x.clamp(f64::EPSILON, 1.0 - f64::EPSILON)
}

/// An integrand made periodic: `f(psi(u)) psi'(u)`.
#[derive(Debug, Clone)]
pub struct Periodized<F> {
    integrand: F,
    transform: Periodization,
}

impl<F: Integrand> Periodized<F> {
    /// `integrand` under `transform`.
    pub fn new(integrand: F, transform: Periodization) -> Self {
        Self { integrand, transform }
    }
}

impl<F: Integrand> Integrand for Periodized<F> {
    fn dim(&self) -> usize {
        self.integrand.dim()
    }

    fn outputs(&self) -> usize {
        self.integrand.outputs()
    }

    fn combined(&self) -> usize {
        self.integrand.combined()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        if self.transform == Periodization::None {
            return self.integrand.evaluate(u, active, out);
        }
        let dim = self.dim();
        let mut x = vec![0.0; u.len()];
        let mut weights = vec![0.0; u.len() / dim];
        self.transform.transform(dim, u, &mut x, &mut weights)?;
        self.integrand.evaluate(&x, active, out)?;
        if self.transform != Periodization::Baker {
            crate::integrand::scale_rows(active, &weights, out);
        }
        Ok(())
    }

    fn bound(&self, low: &[f64], high: &[f64], combined_low: &mut [f64], combined_high: &mut [f64]) {
        self.integrand.bound(low, high, combined_low, combined_high);
    }

    fn needs(&self, unfinished: &[bool], individual: &mut [bool]) {
        self.integrand.needs(unfinished, individual);
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("{} of {}", self.transform.name(), self.integrand.fingerprint()?))
    }
}
