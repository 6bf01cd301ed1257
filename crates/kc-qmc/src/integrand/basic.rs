//! Small test functions of the literature.

use std::f64::consts::{PI, SQRT_2};

use kc_core::{Error, Result};

use super::{Integrand, Transformed, parameter, points};
use crate::measure::Uniform;

/// An integrand of one output that is a function of one point.
macro_rules! scalar_integrand {
    ($name:ident, dim: |$a:pat_param| $dim:expr, value: |$b:pat_param, $t:ident| $value:expr,
     fingerprint: |$c:pat_param| $fingerprint:expr) => {
        impl Integrand for $name {
            fn dim(&self) -> usize {
                let $a = self;
                $dim
            }

            fn evaluate(&self, t: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
                points(self, t, active, out)?;
                let $b = self;
                for ($t, out) in t.chunks_exact(self.dim()).zip(out) {
                    *out = $value;
                }
                Ok(())
            }

            fn fingerprint(&self) -> Option<String> {
                let $c = self;
                Some($fingerprint)
            }
        }
    };
}

/// `sum_j t_j` on `[-1/2, 1/2]^d`. The integral is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear0 {
    dim: usize,
}

impl Linear0 {
    /// As a function on the unit cube.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn on_cube(dim: usize) -> Result<Transformed<Uniform, Self>> {
        Transformed::new(Uniform::new(dim, &[-0.5], &[0.5])?, Self { dim })
    }
}

scalar_integrand!(
    Linear0,
    dim: |f| f.dim,
    value: |_, t| t.iter().sum(),
    fingerprint: |f| format!("linear0 {}", f.dim)
);

/// `sin t` on `[0, 2 pi k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sin1d {
    k: f64,
}

impl Sin1d {
    /// As a function on the unit interval, `k > 0`.
    ///
    /// # Errors
    /// `Argument`
    pub fn on_cube(k: f64) -> Result<Transformed<Uniform, Self>> {
        parameter("sin1d", "k", k, "a positive number", |k| k > 0.0)?;
        Transformed::new(Uniform::new(1, &[0.0], &[2.0 * PI * k])?, Self { k })
    }

    /// The mean, `(1 - cos(2 pi k)) / (2 pi k)`.
    pub fn exact(k: f64) -> f64 {
        // The fraction alone counts in the cosine, which is 1 - 2 sin^2 of half the angle.
        let sine = (PI * (k - k.round())).sin();
        sine * sine / (PI * k)
    }
}

scalar_integrand!(
    Sin1d,
    dim: |_| 1,
    value: |_, t| t[0].sin(),
    fingerprint: |f| format!("sin1d {:?}", f.k)
);

/// `(t_0^2 + 4)(t_1 - 1)/20 - sin(5 t_0 / 2) - 2` on `[-4, 7] x [-3, 8]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Multimodal2d;

impl Multimodal2d {
    /// As a function on the unit square.
    ///
    /// # Errors
    /// None in practice.
    pub fn on_cube() -> Result<Transformed<Uniform, Self>> {
        Transformed::new(Uniform::new(2, &[-4.0, -3.0], &[7.0, 8.0])?, Self)
    }

    /// The mean.
    pub fn exact() -> f64 {
        (407.0 / 33.0 + 4.0) * 1.5 / 20.0 - (10f64.cos() - 17.5f64.cos()) / 27.5 - 2.0
    }
}

scalar_integrand!(
    Multimodal2d,
    dim: |_| 2,
    value: |_, t| (t[0] * t[0] + 4.0) * (t[1] - 1.0) / 20.0 - (2.5 * t[0]).sin() - 2.0,
    fingerprint: |_| "multimodal2d".into()
);

/// The four-branch system of reliability analysis on `[-8, 8]^2`: the least of `3 + (t_0 - t_1)^2 / 10 -+ (t_0 + t_1) /
/// sqrt(2)` and `+-(t_0 - t_1) + 7 / sqrt(2)`.
#[derive(Debug, Clone, PartialEq)]
pub struct FourBranch2d;

impl FourBranch2d {
    /// As a function on the unit square.
    ///
    /// # Errors
    /// None in practice.
    pub fn on_cube() -> Result<Transformed<Uniform, Self>> {
        Transformed::new(Uniform::new(2, &[-8.0], &[8.0])?, Self)
    }
}

scalar_integrand!(
    FourBranch2d,
    dim: |_| 2,
    value: |_, t| {
        let (sum, difference) = ((t[0] + t[1]) / SQRT_2, t[0] - t[1]);
        let curved = 3.0 + 0.1 * difference * difference;
        (curved - sum).min(curved + sum).min(difference + 7.0 / SQRT_2).min(7.0 / SQRT_2 - difference)
    },
    fingerprint: |_| "fourbranch2d".into()
);

/// Ishigami's function `(1 + b t_2^4) sin t_0 + a sin^2 t_1` on `[-pi, pi]^3`, by default with a = 7, b = 1/10.
///
/// ```
/// use kc_qmc::integrand::Ishigami;
/// assert_eq!(Ishigami::exact(7.0), 3.5);
/// let (closed, total) = Ishigami::exact_indices(7.0, 0.1, [true, false, false]).unwrap();
/// assert!((closed - 0.313_905_191).abs() < 1e-9 && (total - 0.557_588_855).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ishigami {
    a: f64,
    b: f64,
}

impl Ishigami {
    /// As a function on the unit cube.
    ///
    /// # Errors
    /// `Argument` for parameters that are not finite.
    pub fn on_cube(a: f64, b: f64) -> Result<Transformed<Uniform, Self>> {
        parameter("ishigami", "a", a, "a number", |_| true)?;
        parameter("ishigami", "b", b, "a number", |_| true)?;
        Transformed::new(Uniform::new(3, &[-PI], &[PI])?, Self { a, b })
    }

    /// The mean, `a / 2`.
    pub fn exact(a: f64) -> f64 {
        a / 2.0
    }

    /// The closed and the total sensitivity index of a set of coordinates; `None` for all and for none.
    pub fn exact_indices(a: f64, b: f64, subset: [bool; 3]) -> Option<(f64, f64)> {
        // The parts of the variance: of t_0, of t_1, of t_0 and t_2 together.
        let first = (5.0 + b * PI.powi(4)).powi(2) / 50.0;
        let second = a * a / 8.0;
        let both = 8.0 * b * b * PI.powi(8) / 225.0;
        let parts =
            [([true, false, false], first), ([false, true, false], second), ([true, false, true], both)];
        if subset == [true; 3] || subset == [false; 3] {
            return None;
        }
        let sum = |counts: &dyn Fn([bool; 3]) -> bool| -> f64 {
            parts.iter().filter(|(part, _)| counts(*part)).map(|(_, variance)| variance).sum()
        };
        let pairs = |part: [bool; 3]| part.into_iter().zip(subset);
        let within = sum(&|part| pairs(part).all(|(part, subset)| !part || subset));
        let touched = sum(&|part| pairs(part).any(|(part, subset)| part && subset));
        let all = first + second + both;
        Some((within / all, touched / all))
    }
}

scalar_integrand!(
    Ishigami,
    dim: |_| 3,
    value: |f, t| {
        let square = t[2] * t[2];
        let sine = t[1].sin();
        (1.0 + f.b * square * square) * t[0].sin() + f.a * sine * sine
    },
    fingerprint: |f| format!("ishigami {:?} {:?}", f.a, f.b)
);

/// Hartmann's function of six variables on the unit cube, `-sum_i alpha_i exp(-sum_j A_ij (u_j - P_ij)^2)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hartmann6;

const HARTMANN_ALPHA: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
const HARTMANN_A: [[f64; 6]; 4] = [
    [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
    [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
    [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
    [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
];
const HARTMANN_P: [[f64; 6]; 4] = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
];

impl Hartmann6 {
    /// The integral: each bell is a product of one-dimensional ones.
    pub fn exact() -> f64 {
        let bells = HARTMANN_ALPHA.iter().zip(&HARTMANN_A).zip(&HARTMANN_P).map(|((alpha, a), p)| {
            let sides = a.iter().zip(p).map(|(a, p)| {
                let root = (2.0 * a).sqrt();
                let between =
                    crate::special::normal_cdf(root * (1.0 - p)) - crate::special::normal_cdf(-root * p);
                (PI / a).sqrt() * between
            });
            alpha * sides.product::<f64>()
        });
        -bells.sum::<f64>()
    }
}

scalar_integrand!(
    Hartmann6,
    dim: |_| 6,
    value: |_, u| {
        let bells = HARTMANN_ALPHA.iter().zip(&HARTMANN_A).zip(&HARTMANN_P).map(|((alpha, a), p)| {
            let distance = a.iter().zip(p).zip(u).map(|((a, p), u)| a * (u - p) * (u - p));
            alpha * (-distance.sum::<f64>()).exp()
        });
        -bells.sum::<f64>()
    },
    fingerprint: |_| "hartmann6".into()
);

/// `-exp(sum_j u_j)`: smooth, with the negative integral `-(e - 1)^d`.
#[derive(Debug, Clone, PartialEq)]
pub struct NegExp {
    dim: usize,
}

impl NegExp {
    /// On the unit cube of `dim` coordinates.
    ///
    /// # Errors
    /// `Empty` without coordinates.
    pub fn new(dim: usize) -> Result<Self> {
        if dim == 0 { Err(Error::empty("neg-exp.dim")) } else { Ok(Self { dim }) }
    }

    /// The integral.
    pub fn exact(&self) -> f64 {
        -1f64.exp_m1().powf(self.dim as f64)
    }
}

scalar_integrand!(
    NegExp,
    dim: |f| f.dim,
    value: |_, u| -u.iter().sum::<f64>().exp(),
    fingerprint: |f| format!("neg-exp {}", f.dim)
);

/// Box integrals: the mean of `|u|^s` over the unit cube, for several `s` at once.
///
/// Source: D. H. Bailey, J. M. Borwein, R. E. Crandall, *Box integrals*, J. Comput. Appl. Math. 206 (2007).
#[derive(Debug, Clone, PartialEq)]
pub struct BoxIntegral {
    dim: usize,
    s: Vec<f64>,
}

impl BoxIntegral {
    /// With one output for each exponent.
    ///
    /// # Errors
    /// `Empty` without coordinates or exponents; `Argument` for exponents that are not finite.
    pub fn new(dim: usize, s: &[f64]) -> Result<Self> {
        if dim == 0 || s.is_empty() {
            return Err(Error::empty(if dim == 0 { "box.dim" } else { "box.s" }));
        }
        for &s in s {
            parameter("box", "s", s, "a number", |_| true)?;
        }
        Ok(Self { dim, s: s.to_vec() })
    }
}

impl Integrand for BoxIntegral {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        self.s.len()
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let count = points(self, u, active, out)?;
        for (i, u) in u.chunks_exact(self.dim).enumerate() {
            let squared: f64 = u.iter().map(|u| u * u).sum();
            for (p, s) in self.s.iter().enumerate().filter(|(p, _)| active[*p]) {
                out[p * count + i] = squared.powf(s / 2.0);
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("box {} {:?}", self.dim, self.s))
    }
}

/// Three cubics on the unit cube of at least three coordinates: `u_0 + 2u_0^2 + 3u_0^3`, `2u_1 + 3u_1^2 + 4u_1^3` and
/// `3u_2 + 4u_2^2 + 5u_2^3`. Powers of the coordinates are control variates for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Cubic3 {
    dim: usize,
}

impl Cubic3 {
    /// The integrals, whatever the dimension.
    pub const EXACT: [f64; 3] = [23.0 / 12.0, 3.0, 49.0 / 12.0];

    /// On the unit cube of `dim` coordinates.
    ///
    /// # Errors
    /// `Argument` for less than 3 coordinates.
    pub fn new(dim: usize) -> Result<Self> {
        if dim < 3 { Err(Error::argument("cubic3.dim", "3 or more", dim)) } else { Ok(Self { dim }) }
    }
}

impl Integrand for Cubic3 {
    fn dim(&self) -> usize {
        self.dim
    }

    fn outputs(&self) -> usize {
        3
    }

    fn evaluate(&self, u: &[f64], active: &[bool], out: &mut [f64]) -> Result<()> {
        let count = points(self, u, active, out)?;
        for (i, u) in u.chunks_exact(self.dim).enumerate() {
            for (p, &u) in u[..3].iter().enumerate() {
                let first = p as f64 + 1.0;
                out[p * count + i] = u * (first + u * (first + 1.0 + u * (first + 2.0)));
            }
        }
        Ok(())
    }

    fn fingerprint(&self) -> Option<String> {
        Some(format!("cubic3 {}", self.dim))
    }
}
