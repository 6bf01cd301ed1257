//! The bias of a layer.

use kc_core::{Error, Result, math};

/// A copy of a bias for `n` outputs.
///
/// # Errors
/// `Shape` for another length, `NotFinite` with the position of a NaN or infinity.
pub(crate) fn checked(bias: Option<&[f32]>, n: usize) -> Result<Option<Vec<f32>>> {
    let Some(bias) = bias else { return Ok(None) };
    if bias.len() != n {
        return Err(Error::shape("bias", format!("[{n}], one per row of w"), &[bias.len()]));
    }
    match math::first_non_finite(bias) {
        Some(at) => Err(Error::not_finite("bias", &[at], f64::from(bias[at]))),
        None => Ok(Some(bias.to_vec())),
    }
}
