//! What layers of neural networks share: layer normalisation and GELU, with their gradients. f32 or f64; sums in f64.
//!
//! ```
//! use kc_core::neural::{self, Gelu};
//! let (x, mut y) = ([1.0f64, -1.0, 3.0, 5.0], [0.0; 4]);
//! let norm = neural::LayerNorm { gamma: &[1.0, 1.0], beta: &[0.0, 0.0], eps: 1e-5 };
//! norm.forward(&x, &mut y)?;
//! assert!((y[0] - 1.0).abs() < 1e-4 && (y[1] + 1.0).abs() < 1e-4);
//! neural::gelu(Gelu::Exact, &mut y);
//! assert!((y[0] - 0.841_345).abs() < 1e-4);
//! # Ok::<(), kc_core::Error>(())
//! ```

use crate::math::{self, Function, Real};
use crate::{Error, Isa, Result};

/// Elements that are handled between two calls of the vector functions.
const BLOCK: usize = 256;

/// Normalisation of each row of width `gamma.len()` to mean 0 and variance 1, then `gamma * x + beta` (Ba, Kiros and
/// Hinton, 2016).
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a, T> {
    /// Scale by column.
    pub gamma: &'a [T],
    /// Shift by column.
    pub beta: &'a [T],
    /// Added to the variance; 1e-5 as a rule.
    pub eps: f64,
}

impl<T: Real> LayerNorm<'_, T> {
    /// `y` = the normalised rows of `x`.
    ///
    /// # Errors
    /// If `gamma` and `beta` differ in length, or `x` and `y` do, or rows do not fill them.
    pub fn forward(&self, x: &[T], y: &mut [T]) -> Result<()> {
        self.check(&[("x", x.len()), ("y", y.len())], x.len())?;
        for (x, y) in self.rows(x).zip(y.chunks_exact_mut(self.gamma.len().max(1))) {
            let (mean, rstd) = self.moments(x);
            for (j, (x, y)) in x.iter().zip(y).enumerate() {
                *y = T::from_f64((x.to_f64() - mean) * rstd) * self.gamma[j] + self.beta[j];
            }
        }
        Ok(())
    }

    /// From the gradient by `y` to those by `x` (written), `gamma` and `beta` (added).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: &[T],
        dy: &[T],
        dx: &mut [T],
        d_gamma: &mut [f64],
        d_beta: &mut [f64],
    ) -> Result<()> {
        self.check(&[("x", x.len()), ("dy", dy.len()), ("dx", dx.len())], x.len())?;
        let width = self.gamma.len();
        self.check(&[("d_gamma", d_gamma.len()), ("d_beta", d_beta.len())], width)?;
        for ((x, dy), dx) in self.rows(x).zip(self.rows(dy)).zip(dx.chunks_exact_mut(width.max(1))) {
            let (mean, rstd) = self.moments(x);
            let (mut along_one, mut along_x) = (0.0f64, 0.0f64);
            for j in 0..width {
                let (unit, dy) = ((x[j].to_f64() - mean) * rstd, dy[j].to_f64());
                d_gamma[j] += dy * unit;
                d_beta[j] += dy;
                let d_unit = dy * self.gamma[j].to_f64();
                along_one += d_unit;
                along_x += d_unit * unit;
            }
            let (along_one, along_x) = (along_one / width as f64, along_x / width as f64);
            for j in 0..width {
                let unit = (x[j].to_f64() - mean) * rstd;
                let d_unit = dy[j].to_f64() * self.gamma[j].to_f64();
                dx[j] = T::from_f64(rstd * (d_unit - along_one - unit * along_x));
            }
        }
        Ok(())
    }

    fn rows<'b>(&self, x: &'b [T]) -> std::slice::ChunksExact<'b, T> {
        x.chunks_exact(self.gamma.len().max(1))
    }

    fn moments(&self, row: &[T]) -> (f64, f64) {
        let n = row.len() as f64;
        let mean = math::sum_f64(row) / n;
        let mut square = 0.0;
        for x in row {
            let off = x.to_f64() - mean;
            square += off * off;
        }
        (mean, 1.0 / (square / n + self.eps).sqrt())
    }

    fn check(&self, lengths: &[(&'static str, usize)], want: usize) -> Result<()> {
        let width = self.gamma.len();
        if self.beta.len() != width {
            return Err(Error::shape("beta", format!("as long as gamma ({width})"), &[self.beta.len()]));
        }
        for &(name, len) in lengths {
            if len != want || (width == 0 && len != 0) || (width > 0 && !len.is_multiple_of(width)) {
                return Err(Error::shape(name, format!("{want} elements in rows of {width}"), &[len]));
            }
        }
        Ok(())
    }
}

/// Which form of the Gaussian error linear unit (Hendrycks and Gimpel, 2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// `x Phi(x)` with the distribution function of the normal distribution.
    #[default]
    Exact,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    Tanh,
}

impl Gelu {
    /// `Phi(x)`, or the other form's factor, of at most [`BLOCK`] elements.
    fn factors<T: Real>(self, x: &[T], factor: &mut [T]) {
        let root = T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
        for (x, f) in x.iter().zip(&mut *factor) {
            *f = match self {
                Gelu::Exact => *x * root,
                Gelu::Tanh => inner(*x),
            };
        }
        let function = if self == Gelu::Exact { Function::Erf } else { Function::Tanh };
        math::apply_in_place(Isa::best(), function, factor);
        for f in factor {
            *f = T::HALF * (T::ONE + *f);
        }
    }
}

/// The argument of the hyperbolic tangent of [`Gelu::Tanh`].
fn inner<T: Real>(x: T) -> T {
    T::from_f64((2.0 / std::f64::consts::PI).sqrt()) * (x + T::from_f64(0.044_715) * x * x * x)
}

/// `x` becomes `gelu(x)`.
pub fn gelu<T: Real>(form: Gelu, x: &mut [T]) {
    let mut factor = [T::ZERO; BLOCK];
    for x in x.chunks_mut(BLOCK) {
        let factor = &mut factor[..x.len()];
        form.factors(x, factor);
        for (x, f) in x.iter_mut().zip(&*factor) {
            *x = *x * *f;
        }
    }
}

/// `dy`, the gradient by `gelu(x)`, becomes that by `x`.
///
/// # Errors
/// If the lengths differ.
pub fn gelu_backward<T: Real>(form: Gelu, x: &[T], dy: &mut [T]) -> Result<()> {
    if x.len() != dy.len() {
        return Err(Error::shape("dy", format!("{} elements, as x has", x.len()), &[dy.len()]));
    }
    let (mut factor, mut slope) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    let density = T::from_f64(1.0 / (2.0 * std::f64::consts::PI).sqrt());
    for (x, dy) in x.chunks(BLOCK).zip(dy.chunks_mut(BLOCK)) {
        let (factor, slope) = (&mut factor[..x.len()], &mut slope[..x.len()]);
        form.factors(x, factor);
        match form {
            Gelu::Exact => {
                for (x, s) in x.iter().zip(&mut *slope) {
                    *s = -T::HALF * *x * *x;
                }
                math::apply_in_place(Isa::best(), Function::Exp, slope);
                for s in &mut *slope {
                    *s = *s * density;
                }
            }
            Gelu::Tanh => {
                let (one, three) =
                    (T::from_f64((2.0 / std::f64::consts::PI).sqrt()), T::from_f64(3.0 * 0.044_715));
                for ((x, f), s) in x.iter().zip(&*factor).zip(&mut *slope) {
                    // With f = (1 + t) / 2, half of 1 - t^2 is 2 f (1 - f).
                    let half = *f * (T::ONE - *f);
                    *s = (half + half) * one * (T::ONE + three * *x * *x);
                }
            }
        }
        for (((x, f), s), dy) in x.iter().zip(&*factor).zip(&*slope).zip(dy) {
            *dy = *dy * (*f + *x * *s);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences of `f` in direction `i`.
    fn difference(f: impl Fn(&[f64]) -> f64, x: &[f64], i: usize) -> f64 {
        let (mut up, mut down) = (x.to_vec(), x.to_vec());
        (up[i], down[i]) = (x[i] + 1e-5, x[i] - 1e-5);
        (f(&up) - f(&down)) / 2e-5
    }

    #[test]
    fn gradients_are_the_slopes() {
        let x: Vec<f64> = (0..12).map(|i| ((i * 7 % 12) as f64 - 5.5) * 0.6).collect();
        let dy: Vec<f64> = (0..12).map(|i| 0.3 + (i * 5 % 12) as f64 * 0.1).collect();
        for form in [Gelu::Exact, Gelu::Tanh] {
            let value = |x: &[f64]| {
                let mut y = x.to_vec();
                gelu(form, &mut y);
                math::dot(&y, &dy).unwrap()
            };
            let mut dx = dy.clone();
            gelu_backward(form, &x, &mut dx).unwrap();
            for (i, dx) in dx.iter().enumerate() {
                assert!((dx - difference(value, &x, i)).abs() < 1e-8, "{form:?} {i}");
            }
        }
        let (gamma, beta) = ([0.5, 1.0, -1.5, 2.0], [0.1, 0.2, 0.3, 0.4]);
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
            let mut y = vec![0.0; 12];
            LayerNorm { gamma, beta, eps: 1e-5 }.forward(x, &mut y).unwrap();
            math::dot(&y, &dy).unwrap()
        };
        let (mut dx, mut d_gamma, mut d_beta) = (vec![0.0; 12], [0.0; 4], [0.0; 4]);
        let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-5 };
        norm.backward(&x, &dy, &mut dx, &mut d_gamma, &mut d_beta).unwrap();
        for (i, dx) in dx.iter().enumerate() {
            assert!((dx - difference(|x| loss(x, &gamma, &beta), &x, i)).abs() < 1e-7, "x {i}");
        }
        for j in 0..4 {
            assert!((d_gamma[j] - difference(|g| loss(&x, g, &beta), &gamma, j)).abs() < 1e-7, "gamma {j}");
            assert!((d_beta[j] - difference(|b| loss(&x, &gamma, b), &beta, j)).abs() < 1e-7, "beta {j}");
        }
    }

    #[test]
    fn gelu_has_the_values_of_its_definition() {
        let mut x = vec![0.0f64, 1.0, -2.0, 40.0, -40.0];
        x.resize(300, 0.5);
        gelu(Gelu::Exact, &mut x);
        let want = [0.0, 0.841_344_746_068_542_9, -0.045_500_263_896_358_41, 40.0, 0.0];
        assert!(x.iter().zip(want).all(|(x, w)| (x - w).abs() < 1e-14), "{:?}", &x[..5]);
        assert!((x[299] - 0.5 * 0.691_462_461_274_013_1).abs() < 1e-14);
        let mut x = [1.0f64, -3.0];
        gelu(Gelu::Tanh, &mut x);
        assert!(
            (x[0] - 0.841_191_990_608_276_8).abs() < 1e-12 && (x[1] + 0.003_637_392_070_807_68).abs() < 1e-7
        );
    }

    #[test]
    fn lengths_are_checked() {
        let norm = LayerNorm { gamma: &[1.0f32; 3], beta: &[0.0; 3], eps: 1e-5 };
        assert!(norm.forward(&[0.0; 4], &mut [0.0; 4]).is_err());
        assert!(norm.forward(&[0.0; 6], &mut [0.0; 3]).is_err());
        assert!(LayerNorm { gamma: &[1.0f32; 3], beta: &[0.0; 2], eps: 1e-5 }.forward(&[], &mut []).is_err());
        assert!(gelu_backward(Gelu::Exact, &[0.0f32; 2], &mut [0.0; 3]).is_err());
    }
}
