//! How far one result is from another.

use kc_core::{Error, Float, Result, TensorView};

/// Differences of two tensors, over all elements, in f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// `sum(a b) / sqrt(sum a^2 sum b^2)`; 1 if both are zero, 0 if one is.
    pub cos: f64,
    /// `sum |a - b| / sum |b|`; 0 if both are zero, infinite if only `b` is.
    pub rel_l1: f64,
    /// `sqrt(mean (a - b)^2)`; 0 if there is nothing.
    pub rmse: f64,
}

/// Compares `a` with the exact `b`.
///
/// # Errors
/// `Shape` if the shapes differ; `NotFinite` for NaN or infinity in either.
///
/// ```
/// use kc_core::TensorView;
/// let a = TensorView::from_slice([2], &[1.0f32, 2.5])?;
/// let b = TensorView::from_slice([2], &[1.0f32, 2.0])?;
/// assert!((kc_attention::compare(a, b)?.rel_l1 - 0.5 / 3.0).abs() < 1e-12);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn compare<A: Float, B: Float, const N: usize>(
    a: TensorView<'_, A, N>,
    b: TensorView<'_, B, N>,
) -> Result<Metrics> {
    if a.shape() != b.shape() {
        return Err(Error::shape("a", format!("{:?} to match b", b.shape()), &a.shape()));
    }
    let (mut ab, mut aa, mut bb) = (0.0f64, 0.0, 0.0);
    let (mut absolute, mut size, mut square) = (0.0f64, 0.0, 0.0);
    for (a, b) in a.iter().zip(b.iter()) {
        let (a, b) = (a.to_f64(), b.to_f64());
        ab += a * b;
        aa += a * a;
        bb += b * b;
        absolute += (a - b).abs();
        size += b.abs();
        square += (a - b) * (a - b);
    }
    if !(aa + bb).is_finite() {
        check_finite("a", a)?;
        check_finite("b", b)?;
    }
    let cos = match (aa > 0.0, bb > 0.0) {
        (false, false) => 1.0,
        (true, true) => ab / (aa * bb).sqrt(),
        _ => 0.0,
    };
    let rel_l1 = if absolute == 0.0 { 0.0 } else { absolute / size };
    let rmse = if a.is_empty() { 0.0 } else { (square / a.len() as f64).sqrt() };
    Ok(Metrics { cos, rel_l1, rmse })
}

fn check_finite<E: Float, const N: usize>(name: &'static str, x: TensorView<'_, E, N>) -> Result<()> {
    let bad = x.iter().enumerate().find(|(_, x)| !x.to_f64().is_finite());
    let Some((mut at, value)) = bad else { return Ok(()) };
    let mut index = [0; N];
    for (index, len) in index.iter_mut().zip(x.shape()).rev() {
        *index = at % len;
        at /= len;
    }
    Err(Error::not_finite(name, &index, value.to_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        let view = |x: &'static [f32]| TensorView::from_slice([x.len()], x).unwrap();
        let same = compare(view(&[3.0, -4.0]), view(&[3.0, -4.0])).unwrap();
        assert_eq!(same, Metrics { cos: 1.0, rel_l1: 0.0, rmse: 0.0 });
        assert_eq!(compare(view(&[]), view(&[])).unwrap(), same);
        assert_eq!(compare(view(&[1.0]), view(&[0.0])).unwrap().rel_l1, f64::INFINITY);
        assert_eq!(compare(view(&[1.0, 1.0]), view(&[0.0, 2.0])).unwrap().rmse, 1.0);
        assert!(compare(view(&[1.0]), view(&[])).is_err());
        let far = [0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0];
        let (bad, good) =
            (TensorView::from_slice([2, 3], &far), TensorView::from_slice([2, 3], &[1.0f32; 6]));
        let (bad, good) = (bad.unwrap(), good.unwrap());
        for (a, b, name) in [(bad, good, "a"), (good, bad, "b")] {
            let found = compare(a, b);
            assert!(
                matches!(found, Err(Error::NotFinite { arg, index, .. }) if arg == name && index == [1, 0])
            );
        }
    }
}
