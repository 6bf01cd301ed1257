//! ReLU features of two kinds.
//!
//! **Arc-cosine.** `phi(x) = m^-1/2 max(G x, t)`. With `t = 0`,
//! `E[phi(x) . phi(w)] = |x| |w| (sin a + (pi - a) cos a) / (2 pi)`, `a` the angle between `x` and `w`: half of the
//! arc-cosine kernel of order 1. Cho and Saul, "Kernel Methods for Deep Learning"
//! (2009).
//!
//! **Favor.** `phi(x) = max(d^-1/4 G x, 0) + 1e-3`, the generalised-kernel features of the Performer (Choromanski et
//! al., "Rethinking Attention with Performers", 2021, the ReLU kernel): positive, not normalised, since attention
//! divides by their sum.
//!
//! ```
//! use kc_core::TensorView;
//! use kc_features::relu::Relu;
//! use kc_features::{FeatureMap, Projection};
//! let g = TensorView::from_slice([2, 2], &[1.0f32, 0.0, 0.0, -1.0])?.to_tensor()?;
//! let phi = Relu::favor(Projection::new(g)?).apply(TensorView::from_slice([1, 2], &[4.0, 3.0])?)?;
//! assert!((phi[[0, 0]] - (4.0 / 2f32.powf(0.25) + 1e-3)).abs() < 1e-6 && phi[[0, 1]] == 1e-3);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::math::{self, Real};
use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};

use crate::{FeatureMap, Projection, Scalar, check_finite};

/// `scale_out * max(scale_in * G x, threshold) + offset`.
#[derive(Debug, Clone)]
pub struct Relu<T: Scalar> {
    projection: Projection<T>,
    scale_in: T,
    threshold: T,
    scale_out: T,
    offset: T,
}

impl<T: Scalar> Relu<T> {
    /// `m^-1/2 max(G x, threshold)`.
    ///
    /// # Errors
    /// `Argument` if `threshold` is not finite.
    pub fn arc_cosine(projection: Projection<T>, threshold: f64) -> Result<Self> {
        if !threshold.is_finite() {
            return Err(Error::argument("threshold", "a finite number", threshold));
        }
        let scale_out = T::from_f64((projection.outputs() as f64).powf(-0.5));
        Ok(Self {
            projection,
            scale_in: <T as Real>::ONE,
            threshold: T::from_f64(threshold),
            scale_out,
            offset: T::ZERO,
        })
    }

    /// `max(d^-1/4 G x, 0) + 1e-3`.
    pub fn favor(projection: Projection<T>) -> Self {
        let scale_in = T::from_f64((projection.inputs() as f64).powf(-0.25));
        Self {
            projection,
            scale_in,
            threshold: T::ZERO,
            scale_out: <T as Real>::ONE,
            offset: T::from_f64(1e-3),
        }
    }

    /// The directions.
    pub fn projection(&self) -> &Projection<T> {
        &self.projection
    }

    /// What is cut off below.
    pub fn threshold(&self) -> f64 {
        self.threshold.to_f64()
    }

    /// From the gradient by the features to that by `z = G x`, in place: only where `z` was above the threshold.
    ///
    /// # Errors
    /// `Shape` if the lengths differ.
    pub fn backward_projected(&self, features: &[T], gradient: &mut [T]) -> Result<()> {
        if features.len() != gradient.len() {
            return Err(Error::shape("gradient", format!("{} features", features.len()), &[gradient.len()]));
        }
        let floor = self.threshold * self.scale_out + self.offset;
        let slope = self.scale_in * self.scale_out;
        for (g, f) in gradient.iter_mut().zip(features) {
            *g = if *f > floor { *g * slope } else { T::ZERO };
        }
        Ok(())
    }

    /// From the gradient by the features `[n, m]`, and these, to that by `x`: `[n, d]`.
    ///
    /// # Errors
    /// `Shape`.
    pub fn backward(
        &self,
        features: TensorView<'_, T, 2>,
        gradient: TensorView<'_, T, 2>,
    ) -> Result<Tensor<T, 2>> {
        let mut dz = gradient.to_tensor()?;
        self.backward_projected(features.to_tensor()?.as_slice(), dz.as_mut_slice())?;
        let mut dx = Tensor::zeros([dz.shape()[0], self.inputs()])?;
        self.projection.back_into(dz.view(), dx.view_mut())?;
        Ok(dx)
    }
}

impl<T: Scalar> FeatureMap<T> for Relu<T> {
    fn inputs(&self) -> usize {
        self.projection.inputs()
    }

    fn width(&self) -> usize {
        self.projection.outputs()
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        check_finite("x", rows, first)?;
        let view = TensorViewMut::from_slice([rows.rows(), self.width()], out)?;
        self.projection.apply_into(rows, view)?;
        for z in &mut *out {
            let scaled = *z * self.scale_in;
            // NaN, which sums of infinities are, stays.
            let cut = if scaled < self.threshold { self.threshold } else { scaled };
            *z = cut * self.scale_out + self.offset;
        }
        if let Some(at) = math::first_non_finite(out) {
            return Err(Error::argument(
                "x",
                "projections that do not overflow (normalise the rows)",
                format!("{} in row {}", out[at].to_f64(), first + at / self.width()),
            ));
        }
        Ok(())
    }
}
