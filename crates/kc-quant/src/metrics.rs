//! How far a quantised result is from the exact one.

use kc_core::{Error, Float, Result, TensorView};

/// `||got - want||_F / ||want||_F`, summed in f64. 0 if both are zero or empty; infinite if only `want` is
/// zero.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::metrics::relative_error;
/// let want = TensorView::from_slice([1, 2], &[3.0f32, 4.0])?;
/// let got = TensorView::from_slice([1, 2], &[3.0f32, 4.5])?;
/// assert_eq!(relative_error(got, want)?, 0.1);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn relative_error<A: Float, B: Float, const N: usize>(
    got: TensorView<'_, A, N>,
    want: TensorView<'_, B, N>,
) -> Result<f64> {
    if got.shape() != want.shape() {
        return Err(Error::shape("got", format!("{:?} to match want", want.shape()), &got.shape()));
    }
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (g, w) in got.iter().zip(want.iter()) {
        let (g, w) = (g.to_f64(), w.to_f64());
        difference += (g - w) * (g - w);
        size += w * w;
    }
    Ok(if difference == 0.0 { 0.0 } else { (difference / size).sqrt() })
}
