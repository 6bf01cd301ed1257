//! Positive features of the exponential kernel: FAVOR+.
//!
//! `phi(x) = m^-1/2 exp(s G x - s^2 |x|^2 / 2)` with Gaussian rows in `G` gives `E[phi(q) . phi(k)] = exp(s^2 q . k)`:
//! with `s = d^-1/4` the numerator of softmax attention. All features are positive, so that an attention's
//! denominator cannot vanish.
//!
//! Attention divides by a sum of features; a factor common to the features of a query, or to those of all keys,
//! cancels. [`Softmax::queries`] and [`Softmax::keys`] therefore take the largest projection off the exponent, which
//! cannot overflow, and add `1e-4`:
//!
//! ```text
//! queries: m^-1/2 (exp(s G q - s^2 |q|^2 / 2 - max_k s G q) + 1e-4)        the maximum over the features of the row
//! keys:    m^-1/2 (exp(s G k - s^2 |k|^2 / 2 - max s G k) + 1e-4)          the maximum over all rows and features
//! ```
//!
//! As a [`FeatureMap`] nothing is taken off or added: unbiased, and an exponent above 80 is an error.
//!
//! ```
//! use kc_core::{Tensor, TensorView};
//! use kc_features::positive::Softmax;
//! use kc_features::{Draw, FeatureMap, Projection};
//! let map = Softmax::new(Projection::draw(Draw::Orthogonal(Default::default()), 4000, 2, 1)?);
//! let phi: Tensor<f64, 2> = map.apply(TensorView::from_slice([2, 2], &[0.5, 0.1, 0.2, -0.3])?)?;
//! let kernel: f64 = (0..4000).map(|k| phi[[0, k]] * phi[[1, k]]).sum();
//! assert!((kernel - (0.07f64 / 2f64.sqrt()).exp()).abs() < 0.05);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: Choromanski et al., "Rethinking Attention with Performers" (2021), lemma 1.

use kc_core::math::{self, Function, Real};
use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};

use crate::{
    FeatureMap, MOST_EXPONENT, Projection, Scalar, check_finite, over_tiles, overflow, square_length,
};

/// Positive features of `exp(scale^2 q . k)`.
#[derive(Debug, Clone)]
pub struct Softmax<T: Scalar> {
    projection: Projection<T>,
    /// `s`; `d^-1/4` by default, which makes the kernel that of attention with scale `d^-1/2`.
    pub scale: f64,
    /// Added to the stabilised exponentials; 1e-4 by default.
    pub epsilon: f64,
}

impl<T: Scalar> Softmax<T> {
    /// With the default scale.
    pub fn new(projection: Projection<T>) -> Self {
        let scale = (projection.inputs() as f64).powf(-0.25);
        Self { projection, scale, epsilon: 1e-4 }
    }

    /// The directions.
    pub fn projection(&self) -> &Projection<T> {
        &self.projection
    }

    /// Features of queries `[n, d]`: `[n, m]`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`.
    pub fn queries(&self, q: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut out = Tensor::zeros([q.rows(), self.width()])?;
        self.queries_into(q, out.view_mut())?;
        Ok(out)
    }

    /// [`queries`](Self::queries) into `out`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`.
    pub fn queries_into(&self, q: TensorView<'_, T, 2>, out: TensorViewMut<'_, T, 2>) -> Result<()> {
        over_tiles(q, self.inputs(), self.width(), out, |rows, first, out| {
            self.project(rows, first, out)?;
            for (i, z) in out.chunks_exact_mut(self.width()).enumerate() {
                let most = math::min_max_with(self.projection.isa(), z).map_or(T::ZERO, |(_, most)| most);
                self.stabilised(square_length(rows.row(i)), most, z);
            }
            Ok(())
        })
    }

    /// Features of all keys of a sequence, `[n, d]`: `[n, m]`. Leave padding out: the maximum runs over all rows.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`.
    pub fn keys(&self, k: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut out = Tensor::zeros([k.rows(), self.width()])?;
        self.keys_into(k, out.view_mut())?;
        Ok(out)
    }

    /// [`keys`](Self::keys) into `out`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`.
    pub fn keys_into(&self, k: TensorView<'_, T, 2>, mut out: TensorViewMut<'_, T, 2>) -> Result<()> {
        over_tiles(k, self.inputs(), self.width(), out.reborrow(), |rows, first, out| {
            self.project(rows, first, out)
        })?;
        let most = match out.as_view().as_slice() {
            Some(all) => math::min_max_with(self.projection.isa(), all).map(|(_, most)| most),
            None => out.as_view().iter().reduce(|a, b| if b > a { b } else { a }),
        };
        let Some(most) = most else { return Ok(()) };
        for i in 0..k.rows() {
            let length = square_length(k.row(i));
            let mut row = out.row_mut(i);
            if let Some(z) = row.as_mut_slice() {
                self.stabilised(length, most, z);
                continue;
            }
            let mut copy = row.as_view().to_vec();
            self.stabilised(length, most, &mut copy);
            row.copy_from(TensorView::from_slice([copy.len()], &copy)?)?;
        }
        Ok(())
    }

    /// From the gradient by the features of [`queries`](Self::queries), [`keys`](Self::keys) or the map, and these
    /// features, to that by `x`: `[n, d]`. The maximum counts as a constant.
    ///
    /// # Errors
    /// `Shape`.
    pub fn backward(
        &self,
        x: TensorView<'_, T, 2>,
        features: TensorView<'_, T, 2>,
        gradient: TensorView<'_, T, 2>,
        epsilon: f64,
    ) -> Result<Tensor<T, 2>> {
        let want = [x.rows(), self.width()];
        for (name, got) in [("features", features.shape()), ("gradient", gradient.shape())] {
            if got != want {
                return Err(Error::shape(name, format!("{want:?}"), &got));
            }
        }
        let added = T::from_f64(epsilon * self.amplitude());
        let scale = T::from_f64(self.scale);
        let mut dz = gradient.to_tensor()?;
        let mut along = Vec::with_capacity(x.rows());
        for (i, dz) in dz.as_mut_slice().chunks_exact_mut(self.width()).enumerate() {
            let mut sum = 0.0;
            for (dz, f) in dz.iter_mut().zip(features.row(i).iter()) {
                let slope = *dz * (f - added);
                sum += slope.to_f64();
                *dz = slope * scale;
            }
            along.push(sum);
        }
        let mut dx = Tensor::zeros(x.shape())?;
        self.projection.back_into(dz.view(), dx.view_mut())?;
        for (i, (dx, sum)) in dx.as_mut_slice().chunks_exact_mut(self.inputs()).zip(along).enumerate() {
            let factor = T::from_f64(sum * self.scale * self.scale);
            for (dx, x) in dx.iter_mut().zip(x.row(i).iter()) {
                *dx = *dx - factor * x;
            }
        }
        Ok(dx)
    }

    fn amplitude(&self) -> f64 {
        (self.width() as f64).powf(-0.5)
    }

    fn project(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        check_finite("x", rows, first)?;
        self.projection.apply_into(rows, TensorViewMut::from_slice([rows.rows(), self.width()], out)?)
    }

    /// From `G x` to features; `most` is the largest projection.
    fn stabilised(&self, square_length: f64, most: T, z: &mut [T]) {
        let scale = T::from_f64(self.scale);
        let off = T::from_f64(0.5 * self.scale * self.scale * square_length);
        for z in &mut *z {
            *z = (*z - most) * scale - off;
        }
        math::apply_in_place(self.projection.isa(), Function::Exp, z);
        let (amplitude, epsilon) = (T::from_f64(self.amplitude()), T::from_f64(self.epsilon));
        for z in z {
            *z = (*z + epsilon) * amplitude;
        }
    }
}

impl<T: Scalar> FeatureMap<T> for Softmax<T> {
    fn inputs(&self) -> usize {
        self.projection.inputs()
    }

    fn width(&self) -> usize {
        self.projection.outputs()
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        self.project(rows, first, out)?;
        let (scale, amplitude) = (T::from_f64(self.scale), T::from_f64(self.amplitude()));
        for (i, z) in out.chunks_exact_mut(self.width()).enumerate() {
            let off = T::from_f64(0.5 * self.scale * self.scale * square_length(rows.row(i)));
            for z in &mut *z {
                *z = *z * scale - off;
            }
            if let Some((_, most)) = math::min_max_with(self.projection.isa(), z)
                && (most.to_f64() > MOST_EXPONENT || Real::is_nan(most))
            {
                return Err(overflow("x", first + i, most.to_f64()));
            }
            math::apply_in_place(self.projection.isa(), Function::Exp, z);
            for z in z {
                *z = *z * amplitude;
            }
        }
        Ok(())
    }
}
