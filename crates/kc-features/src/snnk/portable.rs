//! The fused layer: features of a tile of rows, and their product with the parameter while they are in the cache.
//!
//! Safe code for every level: the instructions are in kc-gemm's tiles and kc-core's exponentials, sines and cosines.

use kc_core::{Result, TensorView, TensorViewMut};
use kc_gemm::{PackedB, gemm_packed_into};

use super::map::Map;
use crate::{FeatureMap, Scalar, scratch};

/// `out = Phi(rows) psi`, `psi` packed as `[width, outputs]`. The features live in a buffer of the thread.
pub(super) fn tile<T: Scalar>(
    map: &Map<T>,
    psi: &PackedB<T>,
    rows: TensorView<'_, T, 2>,
    first: usize,
    mut out: TensorViewMut<'_, T, 2>,
) -> Result<()> {
    let [n, width] = [rows.rows(), map.width()];
    scratch::with(n * width, |phi: &mut [T]| {
        map.fill(rows, first, phi)?;
        let phi = TensorView::from_slice([n, width], phi)?;
        if out.strides()[1] == 1 || out.shape()[1] == 1 {
            return gemm_packed_into(one(), phi, psi, T::ZERO, out);
        }
        scratch::with(out.len(), |whole: &mut [T]| {
            let shape = out.shape();
            gemm_packed_into(one(), phi, psi, T::ZERO, TensorViewMut::from_slice(shape, whole)?)?;
            out.copy_from(TensorView::from_slice(shape, whole)?)
        })
    })
}

/// 1, which two traits of a [`Scalar`] call by the same name.
pub(super) fn one<T: Scalar>() -> T {
    <T as kc_core::math::Real>::ONE
}
