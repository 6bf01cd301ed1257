//! Shift-invariant kernels: functions of `(x - z) mod 1`, for lattices.
//!
//! ```text
//! K(x, z) = S prod_j (1 + gamma_j kappa_{alpha_j}((x_j - z_j) mod 1))
//! kappa_alpha(t) = (-1)^(alpha+1) (2 pi)^(2 alpha) / (2 alpha)! B_{2 alpha}(t) = sum_{h != 0} |h|^(-2 alpha) e^(2 pi i h t)
//! ```
//!
//! They reproduce the periodic functions with `alpha` square-integrable mixed derivatives; their integral over the cube
//! in one argument, and in both, is `S`. Even Bernoulli polynomials are polynomials in `u = t (1 - t)`, and `|x - z|`
//! gives the same `u` as the difference modulo 1: so a factor is a subtraction, `u`, and `alpha` multiplications, and
//! `K` is symmetric to the last bit.
//!
//! The derivative of order `b0` in `x` and `b1` in `z` has the factors `1_{b0 + b1 = 0} + gamma kappa` with
//! `kappa = (-1)^(alpha + b1 + 1) (2 pi)^(2 alpha) / (2 alpha - b)! B_{2 alpha - b}(t)`, `b = b0 + b1`, while
//! `2 alpha - b >= 2` ([`crate::derivative::eval`]). A [combined](crate::Smoothness::Combined) kernel sums the orders 1 to 4,
//! which are Bernoulli polynomials of degree 2, 4, 6 and 8. (QMCPy takes degrees 1 to 4 there, which is neither
//! symmetric nor positive definite.)

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor};
use kc_qmc::Sequence;

use crate::config::{KernelConfig, Smoothness, orders};
use crate::derivative::Term;
use crate::ft::Transform;
use crate::kernel::{Kernel, not_structured};
use crate::multitask::not_shifted;
use crate::points::Points;

mod bernoulli;
mod derivative;
mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

use bernoulli::{EVEN, factor_of_order};

/// Highest order.
pub const MAX_ORDER: u8 = 5;

/// Coefficients of a polynomial in `u`, lowest first.
type Polynomial = [f64; 6];

/// A shift-invariant kernel.
///
/// ```
/// use kc_kernel::{KernelConfig, Smoothness, si::SiKernel};
/// let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(2, 3)))?;
/// let k = kernel.eval(&[0.1, 0.2, 0.3], &[0.1, 0.2, 0.3])?;
/// assert!(k > 1.0);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SiKernel {
    config: KernelConfig,
    /// For each dimension.
    polynomials: Vec<Polynomial>,
}

impl SiKernel {
    /// A kernel with these parameters.
    ///
    /// # Errors
    /// `Argument` for an order outside of 1 to 5, weights, scale or factors that are not positive; `Shape` for weights
    /// that are not one per dimension; `Unsupported` for adaptive smoothness.
    pub fn new(config: KernelConfig) -> Result<Self> {
        config.check()?;
        let polynomials = match &config.smoothness {
            Smoothness::Orders(all) => {
                orders(all, MAX_ORDER)?;
                all.iter().map(|&alpha| polynomial(alpha)).collect()
            }
            Smoothness::Combined(all) => all.iter().map(combined).collect(),
            Smoothness::Adaptive(_) => {
                let reason =
                    "only digitally shift-invariant kernels have it; give orders or factors of the orders";
                return Err(Error::unsupported("adaptive smoothness", reason));
            }
        };
        Ok(Self { config, polynomials })
    }

    /// `K(x, z)`.
    ///
    /// # Errors
    /// `Shape` for arguments of other dimensions, `Argument` for coordinates outside of `[0, 1]`.
    pub fn eval(&self, x: &[f64], z: &[f64]) -> Result<f64> {
        crate::product::eval(self, x, z)
    }
}

/// `kappa_alpha` as a polynomial in `u`.
fn polynomial(alpha: u8) -> Polynomial {
    EVEN[usize::from(alpha) - 1].map(|c| c * factor_of_order(u32::from(alpha)))
}

fn combined(factors: &[f64; 4]) -> Polynomial {
    let mut sum = [0.0; 6];
    for (alpha, factor) in (1..).zip(factors) {
        sum.iter_mut().zip(polynomial(alpha)).for_each(|(sum, c)| *sum += factor * c);
    }
    sum
}

impl Kernel for SiKernel {
    type Point = f64;
    const TRANSFORM: Transform = Transform::Fourier;

    fn config(&self) -> &KernelConfig {
        &self.config
    }

    fn with_config(&self, config: KernelConfig) -> Result<Self> {
        Self::new(config)
    }

    fn diagonal(&self) -> f64 {
        let product =
            self.polynomials.iter().zip(&self.config.weights).map(|(c, weight)| 1.0 + weight * c[0]);
        self.config.scale * product.product::<f64>()
    }

    fn check_point(&self, x: f64) -> Result<()> {
        if (0.0..=1.0).contains(&x) { Ok(()) } else { Err(Error::argument("x", "coordinates in [0, 1]", x)) }
    }

    fn check_structure(&self, points: &Points<f64>) -> Result<()> {
        check_lattice(points)
    }

    fn check_shifted(&self, points: &Points<f64>, other: &Points<f64>) -> Result<()> {
        for dim in 0..points.dims() {
            let (x, z) = (points.column(dim), other.column(dim));
            for i in 1..z.len() {
                if apart(x[i] - x[0] - (z[i] - z[0])) {
                    return Err(not_shifted(i, dim));
                }
            }
        }
        Ok(())
    }

    fn draw(&self, sequence: &mut dyn Sequence, rows: Range<u64>) -> Result<(Vec<f64>, Tensor<f64, 3>)> {
        let points = sequence.points(rows)?;
        Ok((points.as_slice().to_vec(), points))
    }

    fn factor(&self, isa: Isa, dim: usize, x: &[f64], z: f64, out: &mut [f64]) {
        factor(isa, &self.polynomials[dim], x, z, out);
    }

    fn slope(&self, isa: Isa, dim: usize, term: usize, x: &[f64], z: f64, out: &mut [f64]) {
        let Smoothness::Combined(all) = &self.config.smoothness else { return out.fill(0.0) };
        let by = all[dim][term];
        factor(isa, &polynomial(term as u8 + 1).map(|c| c * by), x, z, out);
    }

    fn multiply(&self, isa: Isa, dim: usize, x: &[f64], z: f64, v: &mut [f64]) {
        let weighted = self.polynomials[dim].map(|c| c * self.config.weights[dim]);
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= kc_core::Level::Avx2 {
            return x86::multiply(isa, &weighted, x, z, v);
        }
        let _ = isa;
        portable::multiply::<false>(&weighted, x, z, v);
    }

    fn check_derivative(&self, left: &Term, right: &Term) -> Result<()> {
        derivative::check(self, left, right)
    }

    fn derivative(&self, left: &Term, right: &Term, x: &[f64], z: &[f64]) -> f64 {
        derivative::eval(self, left, right, x, z)
    }
}

fn factor(isa: Isa, polynomial: &Polynomial, x: &[f64], z: f64, out: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= kc_core::Level::Avx2 {
        return x86::factor(isa, polynomial, x, z, out);
    }
    let _ = isa;
    portable::factor::<false>(polynomial, x, z, out);
}

/// True for numbers that are not equal modulo 1, given their difference.
fn apart(difference: f64) -> bool {
    const TOLERANCE: f64 = 1e-9;
    (difference - difference.round()).abs() > TOLERANCE
}

/// Every point is the sum of the steps that the bits of its index stand for, and each step is half of the one before:
/// then the points are a shifted lattice in natural order.
fn check_lattice(points: &Points<f64>) -> Result<()> {
    let n = points.len();
    for dim in 0..points.dims() {
        let x = points.column(dim);
        let wrong = |i: usize| not_structured("a lattice", format!("another value at [{i}, {dim}]"));
        for i in 1..n {
            let top = 1 << i.ilog2();
            let rest = i - top;
            if apart(x[i] - x[0] - (x[top] - x[0]) - (x[rest] - x[0])) {
                return Err(wrong(i));
            }
            let before = if top == 1 { 0 } else { top / 2 };
            if i == top && apart(2.0 * (x[top] - x[0]) - (x[before] - x[0])) {
                return Err(wrong(i));
            }
        }
    }
    Ok(())
}
