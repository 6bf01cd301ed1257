//! The six families of Genz.

use std::f64::consts::PI;
use std::str::FromStr;

use kc_core::{Error, Result};

use super::{Integrand, parameter, points};
use crate::special::{ln_gamma, normal_cdf};

/// A family, named for what makes it hard. `w` is the shift, 1/2 unless another one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GenzFamily {
    /// `cos(c.u)`
    #[default]
    Oscillatory,
    /// `(1 + c.u)^-(d+1)`
    CornerPeak,
    /// `prod 1 / (c_j^-2 + (u_j - w_j)^2)`
    ProductPeak,
    /// `exp(-sum c_j^2 (u_j - w_j)^2)`
    Gaussian,
    /// `exp(-sum c_j |u_j - w_j|)`
    Continuous,
    /// `exp(c.u)`, and 0 where `u_1 > w_1` or `u_2 > w_2`
    Discontinuous,
}

impl GenzFamily {
    /// All of them.
    pub const ALL: [GenzFamily; 6] = [
        GenzFamily::Oscillatory,
        GenzFamily::CornerPeak,
        GenzFamily::ProductPeak,
        GenzFamily::Gaussian,
        GenzFamily::Continuous,
        GenzFamily::Discontinuous,
    ];

    /// The name in command lines.
    pub const fn name(self) -> &'static str {
        match self {
            GenzFamily::Oscillatory => "oscillatory",
            GenzFamily::CornerPeak => "corner",
            GenzFamily::ProductPeak => "product",
            GenzFamily::Gaussian => "gaussian",
            GenzFamily::Continuous => "continuous",
            GenzFamily::Discontinuous => "discontinuous",
        }
    }

    /// What the coefficients sum to: QMCPy's 4.5 and 0.25 for the first two, those of Genz's tests (1987) in the
    /// order of magnitude for the others.
    pub const fn total(self) -> f64 {
        match self {
            GenzFamily::Oscillatory => 4.5,
            GenzFamily::CornerPeak => 0.25,
            GenzFamily::ProductPeak => 7.25,
            GenzFamily::Gaussian => 7.03,
            GenzFamily::Continuous => 2.04,
            GenzFamily::Discontinuous => 4.3,
        }
    }
}

impl FromStr for GenzFamily {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|family| family.name() == text)
            .ok_or_else(|| Error::argument("genz.family", Self::ALL.map(GenzFamily::name).join(", "), text))
    }
}

/// How coefficients fall with the coordinate `j = 1..d`, before they are scaled to their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Coefficients {
    /// Kind 1: `(j - 1/2) / d`
    #[default]
    Linear,
    /// Kind 2: `1 / j^2`
    Quadratic,
    /// Kind 3: `exp(j ln(1e-8) / d)`
    Exponential,
}

impl Coefficients {
    /// The kind with this number, 1 to 3.
    ///
    /// # Errors
    /// `Argument` for other numbers.
    pub fn from_kind(kind: u64) -> Result<Self> {
        match kind {
            1 => Ok(Coefficients::Linear),
            2 => Ok(Coefficients::Quadratic),
            3 => Ok(Coefficients::Exponential),
            _ => Err(Error::argument("genz.kind", "1, 2 or 3", kind)),
        }
    }
}

/// A Genz function on the unit cube.
///
/// Source: A. Genz, *A package for testing multiple integration subroutines* (1987); the coefficients are those of
/// DAKOTA.
///
/// ```
/// use kc_qmc::Integrand;
/// use kc_qmc::integrand::{Coefficients, Genz, GenzFamily};
/// let f = Genz::new(1, GenzFamily::CornerPeak, Coefficients::Quadratic)?;
/// let mut y = [0.0];
/// f.evaluate(&[1.0], &[true], &mut y)?;
/// assert_eq!(y, [0.64]);
/// assert!((f.exact() - 0.8).abs() < 1e-14);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Genz {
    family: GenzFamily,
    c: Vec<f64>,
    w: Vec<f64>,
}

impl Genz {
    /// With the family's own sum of coefficients.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn new(dim: usize, family: GenzFamily, coefficients: Coefficients) -> Result<Self> {
        let d = dim as f64;
        let raw: Vec<f64> = (1..=dim)
            .map(|j| match coefficients {
                Coefficients::Linear => (j as f64 - 0.5) / d,
                Coefficients::Quadratic => 1.0 / (j * j) as f64,
                Coefficients::Exponential => (j as f64 * 1e-8f64.ln() / d).exp(),
            })
            .collect();
        let sum: f64 = raw.iter().sum();
        let c: Vec<f64> = raw.iter().map(|c| family.total() * c / sum).collect();
        Self::with_coefficients(family, &c, &vec![0.5; dim])
    }

    /// With any positive coefficients `c`, and shifts `w` in `[0, 1]`, which the first two families do not use.
    ///
    /// # Errors
    /// `Empty`, `Shape`, `Argument`.
    pub fn with_coefficients(family: GenzFamily, c: &[f64], w: &[f64]) -> Result<Self> {
        if c.is_empty() {
            return Err(Error::empty("genz.c"));
        }
        if w.len() != c.len() {
            return Err(Error::shape("genz.w", format!("{} values, as c", c.len()), &[w.len()]));
        }
        for &c in c {
            parameter("genz", "c", c, "positive numbers", |c| c > 0.0)?;
        }
        for &w in w {
            parameter("genz", "w", w, "numbers from 0 to 1", |w| (0.0..=1.0).contains(&w))?;
        }
        Ok(Self { family, c: c.to_vec(), w: w.to_vec() })
    }

    /// The value of the integral.
    pub fn exact(&self) -> f64 {
        let each = || self.c.iter().copied().zip(self.w.iter().copied());
        match self.family {
            GenzFamily::Oscillatory => {
                let sinc: f64 = self.c.iter().map(|c| (c / 2.0).sin() / (c / 2.0)).product();
                sinc * (self.c.iter().sum::<f64>() / 2.0).cos()
            }
            GenzFamily::CornerPeak => corner_peak(&self.c),
            GenzFamily::ProductPeak => {
                each().map(|(c, w)| c * ((c * (1.0 - w)).atan() + (c * w).atan())).product()
            }
            GenzFamily::Gaussian => {
                let root = std::f64::consts::SQRT_2;
                let between = |c: f64, w: f64| normal_cdf(root * c * (1.0 - w)) - normal_cdf(-root * c * w);
                each().map(|(c, w)| PI.sqrt() / c * between(c, w)).product()
            }
            GenzFamily::Continuous => {
                each().map(|(c, w)| -((-c * w).exp_m1() + (-c * (1.0 - w)).exp_m1()) / c).product()
            }
            GenzFamily::Discontinuous => {
                let end = |j: usize, w: f64| if j < 2 { w } else { 1.0 };
                each().enumerate().map(|(j, (c, w))| (c * end(j, w)).exp_m1() / c).product()
            }
        }
    }

    fn value(&self, u: &[f64]) -> f64 {
        let linear = || self.c.iter().zip(u).map(|(c, u)| c * u).sum::<f64>();
        let each = || self.c.iter().zip(&self.w).zip(u).map(|((c, w), u)| (*c, u - w));
        match self.family {
            GenzFamily::Oscillatory => linear().cos(),
            GenzFamily::CornerPeak => (1.0 + linear()).powi(-(u.len() as i32 + 1)),
            GenzFamily::ProductPeak => each().map(|(c, x)| 1.0 / (1.0 / (c * c) + x * x)).product(),
            GenzFamily::Gaussian => (-each().map(|(c, x)| c * c * x * x).sum::<f64>()).exp(),
            GenzFamily::Continuous => (-each().map(|(c, x)| c * x.abs()).sum::<f64>()).exp(),
            GenzFamily::Discontinuous => {
                if u.iter().zip(&self.w).take(2).any(|(u, w)| u > w) {
                    0.0
                } else {
                    linear().exp()
                }
            }
        }
    }
}

/// The integral of `(1 + c.u)^-(d+1)`: `1/d!` times that of `x^d e^-x prod (1 - e^-(c_j x)) / (c_j x)` over `x > 0`,
/// whose terms are positive, by the trapezoidal rule in `y` with `x = exp(y - e^-y)`.
fn corner_peak(c: &[f64]) -> f64 {
    const STEP: f64 = 1.0 / 64.0;
    let d = c.len() as f64;
    let integrand = |y: f64| {
        let shrink = (-y).exp();
        let log_x = y - shrink;
        let x = log_x.exp();
        let logs: f64 = c.iter().map(|c| (-(-c * x).exp_m1() / (c * x)).ln()).sum();
        (d * log_x - x + logs + log_x - ln_gamma(d + 1.0)).exp() * (1.0 + shrink)
    };
    // Beyond these ends the integrand is far below rounding for any number of dimensions up to 10^5.
    (-320..=840).map(|i| integrand(f64::from(i) * STEP)).filter(|y| y.is_finite()).sum::<f64>() * STEP
}

impl Integrand for Genz {
    fn dim(&self) -> usize {
        self.c.len()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        points(self, u, active, out)?;
        for (u, out) in u.chunks_exact(self.dim()).zip(out) {
            *out = self.value(u);
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("genz {} {:?} {:?}", self.family.name(), self.c, self.w))
    }
}
