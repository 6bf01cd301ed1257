//! Predictions: means, variances, covariances, and the integral over the cube.

use kc_core::{Error, Isa, Result, Tensor};
use rayon::prelude::*;

use super::FastGp;
use crate::ft::{Gram, Spectrum};
use crate::kernel::Kernel;
use crate::points::Points;
use crate::product;

/// The integral over the cube.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Cubature {
    /// Its mean, for each output.
    pub mean: Vec<f64>,
    /// Its variance, the same for all.
    pub variance: f64,
}

/// Points whose transformed columns are held at once.
const TILE: usize = 32;

impl<K: Kernel> FastGp<K> {
    /// Means at the points `x`: `(points, outputs)`. Kernel values are made in tiles and never stored.
    ///
    /// # Errors
    /// `Empty` while there are no values, `Shape` for points of other dimensions, `Singular` for a matrix that is not
    /// positive definite.
    pub fn mean(&self, x: &Points<K::Point>) -> Result<Tensor<f64, 2>> {
        let coefficients = self.coefficients()?;
        product::same_dims("x", x, self.kernel.dims())?;
        let outputs = coefficients.len();
        let sums: Vec<f64> = coefficients.iter().map(|c| self.scale() * crate::ft::sum(c)).collect();
        let (kernel, data) = (&self.kernel, &self.points);
        let mut out = Tensor::zeros([x.len(), outputs])?;
        out.as_mut_slice().par_chunks_mut(outputs).enumerate().for_each(|(i, out)| {
            product::dot(Isa::best(), kernel, data, &x.point(i), &coefficients, out);
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out += sum);
        });
        Ok(out)
    }

    /// Variances at the points `x`, from 0.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub fn variance(&self, x: &Points<K::Point>) -> Result<Vec<f64>> {
        self.posterior(&self.points, self.gram()?)?.variance(x)
    }

    /// What the variances at `x` would be with the values of the first `n` points, a power of two: for planning. The
    /// points come from the sequence; the values do not matter.
    ///
    /// # Errors
    /// As [`mean`](Self::mean) and [`next_points`](Self::next_points).
    pub fn projected_variance(&mut self, x: &Points<K::Point>, n: usize) -> Result<Vec<f64>> {
        let (points, gram) = self.projected(n)?;
        self.posterior(&points, &gram)?.variance(x)
    }

    /// What the variance of the integral would be with the first `n` points.
    ///
    /// # Errors
    /// As [`projected_variance`](Self::projected_variance).
    pub fn projected_cubature_variance(&mut self, n: usize) -> Result<f64> {
        let (_, gram) = self.projected(n)?;
        self.cubature_variance(&gram)
    }

    /// Covariances between points `x` and `z`: `(x, z)`.
    ///
    /// # Errors
    /// As [`mean`](Self::mean), and `TooLarge`.
    pub fn covariance(&self, x: &Points<K::Point>, z: &Points<K::Point>) -> Result<Tensor<f64, 2>> {
        self.posterior(&self.points, self.gram()?)?.covariance(x, z)
    }

    /// The integral over the cube.
    ///
    /// # Errors
    /// `Empty` while there are no values, `Singular` for a matrix that is not positive definite.
    pub fn cubature(&self) -> Result<Cubature> {
        let gram = self.gram()?;
        let n = gram.len() as f64;
        // The values weigh alike: S / L_0 each.
        let weight = self.scale() * n.sqrt() / gram.shifted(self.noise)?[0];
        let mean = self.spectra.iter().map(|y| weight * y.first()).collect();
        Ok(Cubature { mean, variance: self.cubature_variance(gram)? })
    }

    /// `S - S^2 n / L_0 = S (L_0 - n S) / L_0`.
    fn cubature_variance(&self, gram: &Gram) -> Result<f64> {
        let first = gram.shifted(self.noise)?[0];
        Ok((gram.scale() * (gram.excess() + self.noise) / first).max(0.0))
    }

    fn scale(&self) -> f64 {
        self.kernel.config().scale
    }

    fn posterior<'a>(&'a self, points: &'a Points<K::Point>, gram: &'a Gram) -> Result<Posterior<'a, K>> {
        Ok(Posterior {
            kernel: &self.kernel,
            points,
            gram,
            noise: self.noise,
            shifted: gram.shifted(self.noise)?,
        })
    }

    fn projected(&mut self, n: usize) -> Result<(Points<K::Point>, Gram)> {
        crate::ft::power_of_two(n)?;
        let points = if n <= self.points.len() {
            self.points.truncated(n)
        } else {
            let have = self.points.len() as u64;
            let Some(sequence) = &mut self.sequence else {
                return Err(Error::unsupported("more points", "this process was made from given points"));
            };
            let (more, _) = self.kernel.draw(sequence.as_mut(), have..n as u64)?;
            let mut points = self.points.clone();
            points.extend(&more);
            points
        };
        let gram = Gram::of_points(&self.kernel, &points)?;
        Ok((points, gram))
    }
}

/// What variances need: not the values.
struct Posterior<'a, K: Kernel> {
    kernel: &'a K,
    points: &'a Points<K::Point>,
    gram: &'a Gram,
    noise: f64,
    /// Eigenvalues plus noise.
    shifted: Vec<f64>,
}

impl<K: Kernel> Posterior<'_, K> {
    fn variance(&self, x: &Points<K::Point>) -> Result<Vec<f64>> {
        product::same_dims("x", x, self.kernel.dims())?;
        let prior = self.kernel.diagonal() - self.gram.scale();
        let one = |i: usize| {
            let column = self.transformed(&x.point(i))?;
            Ok((prior + self.reduction(&column, &column)).max(0.0))
        };
        (0..x.len()).into_par_iter().map(one).collect()
    }

    fn covariance(&self, x: &Points<K::Point>, z: &Points<K::Point>) -> Result<Tensor<f64, 2>> {
        product::same_dims("x", x, self.kernel.dims())?;
        product::same_dims("z", z, self.kernel.dims())?;
        let mut out = Tensor::zeros([x.len(), z.len()])?;
        for tile in kc_core::par::chunks(z.len(), TILE) {
            let column = |j: usize| Ok((z.point(j), self.transformed(&z.point(j))?));
            let columns: Vec<(Vec<K::Point>, Spectrum)> =
                tile.clone().into_par_iter().map(column).collect::<Result<_>>()?;
            out.as_mut_slice().par_chunks_mut(z.len()).enumerate().try_for_each(|(i, row)| {
                let x = x.point(i);
                let left = self.transformed(&x)?;
                for (out, (z, right)) in row[tile.clone()].iter_mut().zip(&columns) {
                    let prior = product::eval(self.kernel, &x, z)? - self.gram.scale();
                    *out = prior + self.reduction(&left, right);
                }
                Ok::<(), Error>(())
            })?;
        }
        Ok(out)
    }

    /// The transform of `K(x_i, x) - S` at the data.
    fn transformed(&self, x: &[K::Point]) -> Result<Spectrum> {
        let mut column = vec![0.0; self.gram.len()];
        product::excess(Isa::best(), self.kernel, self.points, 0, x, &mut column);
        K::TRANSFORM.forward(&column)
    }

    /// `S - k(x)^T (K + noise)^-1 k(z)` from the transforms `X`, `Z` of `k - S`, without the cancellation of what the
    /// constant `S` contributes:
    /// `(S (L_0 - n S) - sqrt(n) S (X_0 + Z_0) - X_0 Z_0) / L_0 - sum_{k > 0} Re(X_k conj Z_k) / L_k`.
    fn reduction(&self, x: &Spectrum, z: &Spectrum) -> f64 {
        let (n, scale) = (self.gram.len(), self.gram.scale());
        let (a, b) = (x.first(), z.first());
        let first = scale * (self.gram.excess() + self.noise) - (n as f64).sqrt() * scale * (a + b) - a * b;
        let shifted = self.shifted.iter();
        let mut terms: Vec<f64> = match (x, z) {
            (Spectrum::Fourier(x), Spectrum::Fourier(z)) => {
                x.iter().zip(z).zip(shifted).map(|((x, z), l)| (x.re * z.re + x.im * z.im) / l).collect()
            }
            (Spectrum::Walsh(x), Spectrum::Walsh(z)) => {
                x.iter().zip(z).zip(shifted).map(|((x, z), l)| x * z / l).collect()
            }
            _ => return f64::NAN,
        };
        terms[0] = 0.0;
        first / self.shifted[0] - self.gram.transform().total(n, &terms)
    }
}
