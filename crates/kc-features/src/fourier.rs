//! Random Fourier features of shift-invariant kernels.
//!
//! `phi(x) = m^-1/2 [cos(z) | sin(z)]` with `z = F x` and frequencies drawn from the kernel's spectral law:
//! `phi(x) . phi(y) = mean cos(F (x - y))`, unbiased, with `phi(x) . phi(x) = 1` exactly.
//!
//! | [`Kernel`] | `k(x, y)` with length scale `l` | Frequencies |
//! |---|---|---|
//! | `Gauss` | `exp(-|x - y|^2 / (2 l^2))` | `g / l` |
//! | `Matern { nu }` | Matern of order `nu`; `nu = 1/2` is `exp(-|x - y| / l)` | `g / l sqrt(2 nu / chi^2_{2 nu})` |
//! | `Laplace` | `exp(-|x - y|_1 / l)` | independent Cauchy numbers over `l` |
//!
//! A row costs `m d` multiplications and `m` sines and cosines. Source: Rahimi and Recht, "Random Features for
//! Large-Scale Kernel Machines" (2007).

use kc_core::math::{self, Function};
use kc_core::{Error, KcRng, Result, Tensor, TensorView, TensorViewMut};

use crate::{Draw, FeatureMap, Projection, Scalar, check_finite, scratch};

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Kernel {
    /// The squared exponential.
    #[default]
    Gauss,
    /// The exponential of the distance in the 1-norm.
    Laplace,
    /// The Matern kernel; its `nu` times differentiable paths make it rougher than `Gauss`.
    Matern {
        /// Positive; 1/2, 3/2 and 5/2 are the usual ones.
        nu: f64,
    },
}

/// Cosines and sines of random frequencies.
#[derive(Debug, Clone)]
pub struct Fourier<T: Scalar> {
    projection: Projection<T>,
    /// Factor of each direction.
    factors: Vec<T>,
}

impl<T: Scalar> Fourier<T> {
    /// `m` frequencies, hence `2 m` features, of `kernel` with length scale `length_scale`.
    ///
    /// # Errors
    /// `Argument` for a length scale or `nu` that is not positive and finite; `Unsupported` for the Laplace kernel with
    /// directions that are not independent; `Empty`.
    pub fn draw(
        kernel: Kernel,
        length_scale: f64,
        draw: Draw,
        m: usize,
        d: usize,
        seed: u64,
    ) -> Result<Self> {
        let positive = |name: &'static str, x: f64| {
            if x > 0.0 && x.is_finite() { Ok(()) } else { Err(Error::argument(name, "a positive number", x)) }
        };
        positive("length_scale", length_scale)?;
        let mut rng = KcRng::new(seed, 2);
        let mut factors = vec![T::from_f64(1.0 / length_scale); m];
        let projection = match kernel {
            Kernel::Gauss => Projection::draw(draw, m, d, seed)?,
            Kernel::Matern { nu } => {
                positive("nu", nu)?;
                for factor in &mut factors {
                    // chi^2 of 2 nu degrees of freedom is twice a Gamma variable of shape nu.
                    *factor = T::from_f64((nu / gamma(&mut rng, nu)).sqrt() / length_scale);
                }
                Projection::draw(draw, m, d, seed)?
            }
            Kernel::Laplace if draw == Draw::Independent => {
                if m == 0 || d == 0 {
                    return Err(Error::empty(if m == 0 { "m" } else { "d" }));
                }
                let cauchy = |_| T::from_f64((std::f64::consts::PI * (rng.uniform() - 0.5)).tan());
                Projection::new(Tensor::from_fn([m, d], cauchy)?)?
            }
            Kernel::Laplace => {
                return Err(Error::unsupported(
                    "draw",
                    "frequencies of the Laplace kernel are independent, not orthogonal; use Draw::Independent",
                ));
            }
        };
        Ok(Self { projection, factors })
    }

    /// Given frequencies `[m, d]`.
    ///
    /// # Errors
    /// `Empty`, `NotFinite`.
    pub fn new(frequencies: Tensor<T, 2>) -> Result<Self> {
        let factors = vec![<T as math::Real>::ONE; frequencies.shape()[0]];
        Ok(Self { projection: Projection::new(frequencies)?, factors })
    }

    /// The frequencies `[m, d]`.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn frequencies(&self) -> Result<Tensor<T, 2>> {
        let mut all = self.projection.to_matrix()?;
        for (row, &factor) in all.as_mut_slice().chunks_exact_mut(self.inputs()).zip(&self.factors) {
            row.iter_mut().for_each(|x| *x = *x * factor);
        }
        Ok(all)
    }
}

/// A Gamma variable of the given shape and scale 1 (Marsaglia and Tsang, 2000).
fn gamma(rng: &mut KcRng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(rng, shape + 1.0) * (1.0 - rng.uniform()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

impl<T: Scalar> FeatureMap<T> for Fourier<T> {
    fn inputs(&self) -> usize {
        self.projection.inputs()
    }

    fn width(&self) -> usize {
        2 * self.projection.outputs()
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        check_finite("x", rows, first)?;
        let (m, isa) = (self.projection.outputs(), self.projection.isa());
        let amplitude = T::from_f64((m as f64).powf(-0.5));
        scratch::with(rows.rows() * m, |z: &mut [T]| {
            self.projection.apply_into(rows, TensorViewMut::from_slice([rows.rows(), m], z)?)?;
            for (z, out) in z.chunks_exact_mut(m).zip(out.chunks_exact_mut(2 * m)) {
                for (z, &factor) in z.iter_mut().zip(&self.factors) {
                    *z = *z * factor;
                }
                let (cos, sin) = out.split_at_mut(m);
                math::apply(isa, Function::Cos, z, cos)?;
                math::apply(isa, Function::Sin, z, sin)?;
                for x in out {
                    *x = *x * amplitude;
                }
            }
            Ok(())
        })
    }
}
