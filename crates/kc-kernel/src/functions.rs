//! Kernels of the distance, for [`DenseGp`](crate::gp::DenseGp).
//!
//! With `r^2 = sum_j ((x_j - z_j) / (sqrt(2) l_j))^2` (note the 2):
//!
//! | [`Radial`] | `K(x, z) / S` |
//! |---|---|
//! | `Gaussian` (squared exponential) | `exp(-r^2)` |
//! | `RationalQuadratic` | `(1 + r^2 / alpha)^-alpha` |
//! | `Matern12` | `exp(-r)` |
//! | `Matern32` | `(1 + sqrt(3) r) exp(-sqrt(3) r)` |
//! | `Matern52` | `(1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r)` |

use std::f64::consts::{PI, SQRT_2};

use kc_core::math::{Function, apply_in_place};
use kc_core::{Error, Isa, Result, Tensor, TensorView};

use crate::config::positive;

/// A function of the distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Radial {
    /// The Gaussian, or squared exponential.
    Gaussian,
    /// A mixture of Gaussians of many lengths.
    RationalQuadratic {
        /// `alpha > 0`; the Gaussian for infinity.
        alpha: f64,
    },
    /// Matérn 1/2: continuous.
    Matern12,
    /// Matérn 3/2: once differentiable.
    Matern32,
    /// Matérn 5/2: twice differentiable.
    Matern52,
}

/// A kernel of the distance with a length for each dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct RadialKernel {
    radial: Radial,
    lengths: Vec<f64>,
    scale: f64,
}

impl RadialKernel {
    /// A kernel with lengths `l_j > 0` and `S > 0`.
    ///
    /// # Errors
    /// `Argument` for a parameter that is not positive, `Empty` without lengths.
    pub fn new(radial: Radial, lengths: &[f64], scale: f64) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::empty("lengths"));
        }
        lengths.iter().try_for_each(|&length| positive("length", length))?;
        positive("scale", scale)?;
        if let Radial::RationalQuadratic { alpha } = radial {
            positive("alpha", alpha)?;
        }
        Ok(Self { radial, lengths: lengths.to_vec(), scale })
    }

    /// The value at equal arguments.
    pub fn diagonal(&self) -> f64 {
        self.scale
    }

    /// `K(x, z)`.
    ///
    /// # Errors
    /// `Shape` for arguments of other dimensions.
    pub fn eval(&self, x: &[f64], z: &[f64]) -> Result<f64> {
        for point in [x, z] {
            self.check(&[point.len()], point.len())?;
        }
        let r2 = x.iter().zip(z).zip(&self.lengths).map(|((x, z), l)| ((x - z) / (SQRT_2 * l)).powi(2)).sum();
        Ok(self.scale * self.value(r2))
    }

    /// `K(x_i, z_j)` for points `x` `(n, d)` and `z` `(m, d)`: `(n, m)`.
    ///
    /// # Errors
    /// `Shape` for points of other dimensions, `TooLarge`.
    pub fn gram(&self, x: TensorView<'_, f64, 2>, z: TensorView<'_, f64, 2>) -> Result<Tensor<f64, 2>> {
        self.check(&x.shape(), x.cols())?;
        self.check(&z.shape(), z.cols())?;
        Tensor::from_fn([x.rows(), z.rows()], |[i, j]| {
            let part = |(k, l): (usize, &f64)| ((x.at([i, k]) - z.at([j, k])) / (SQRT_2 * l)).powi(2);
            self.scale * self.value(self.lengths.iter().enumerate().map(part).sum())
        })
    }

    /// `int K(x, z) dz` over the unit cube (Gaussian only).
    ///
    /// # Errors
    /// `Unsupported` for other functions, `Shape` for a point of other dimensions.
    pub fn integral(&self, x: &[f64]) -> Result<f64> {
        self.gaussian()?;
        self.check(&[x.len()], x.len())?;
        let part = |(x, l): (&f64, &f64)| {
            let a = SQRT_2 * l;
            0.5 * PI.sqrt() * a * (erf((1.0 - x) / a) + erf(x / a))
        };
        Ok(self.scale * x.iter().zip(&self.lengths).map(part).product::<f64>())
    }

    /// `int int K(x, z) dx dz` over the unit cube (Gaussian only).
    ///
    /// # Errors
    /// `Unsupported` for other functions.
    pub fn double_integral(&self) -> Result<f64> {
        self.gaussian()?;
        let part = |l: &f64| {
            let a = SQRT_2 * l;
            PI.sqrt() * a * erf(1.0 / a) + a * a * (-1.0 / (a * a)).exp_m1()
        };
        Ok(self.scale * self.lengths.iter().map(part).product::<f64>())
    }

    fn value(&self, r2: f64) -> f64 {
        let r = r2.sqrt();
        match self.radial {
            Radial::Gaussian => (-r2).exp(),
            Radial::RationalQuadratic { alpha } => (-alpha * (r2 / alpha).ln_1p()).exp(),
            Radial::Matern12 => (-r).exp(),
            Radial::Matern32 => {
                let r = 3f64.sqrt() * r;
                (1.0 + r) * (-r).exp()
            }
            Radial::Matern52 => {
                let r = 5f64.sqrt() * r;
                (1.0 + r + r * r / 3.0) * (-r).exp()
            }
        }
    }

    fn gaussian(&self) -> Result<()> {
        match self.radial {
            Radial::Gaussian => Ok(()),
            _ => Err(Error::unsupported(
                "an integral of this kernel",
                "only the Gaussian has one in closed form",
            )),
        }
    }

    fn check(&self, shape: &[usize], dims: usize) -> Result<()> {
        let want = self.lengths.len();
        if dims == want { Ok(()) } else { Err(Error::shape("x", format!("{want} dimensions"), shape)) }
    }
}

fn erf(x: f64) -> f64 {
    let mut value = [x];
    apply_in_place(Isa::PORTABLE, Function::Erf, &mut value);
    value[0]
}
