//! What is done to finished points: folding for more from smooth functions, and single precision.

use kc_core::{Error, Result};

/// The baker's transformation (tent map) `1 - |2 x - 1|`, in place: shifted lattices then integrate functions with two
/// derivatives with errors near `n^-2`, periodic or not.
///
/// Source: F. J. Hickernell, *Obtaining O(N^-2+eps) convergence for lattice quadrature rules* (2002).
///
/// ```
/// let mut x = [0.0, 0.25, 0.5, 0.875];
/// kc_qmc::fold::baker(&mut x);
/// assert_eq!(x, [0.0, 0.5, 1.0, 0.25]);
/// ```
pub fn baker(points: &mut [f64]) {
    for x in points {
        *x = 1.0 - (2.0 * *x - 1.0).abs();
    }
}

/// The opposite points `1 - x`, in place: the mean over points and opposite points has no error in odd functions about
/// the centre.
pub fn antithetic(points: &mut [f64]) {
    for x in points {
        *x = 1.0 - *x;
    }
}

/// Points in single precision, rounded to nearest but below 1 if they were.
///
/// # Errors
/// `out` has another length.
pub fn to_f32(points: &[f64], out: &mut [f32]) -> Result<()> {
    const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;
    if points.len() != out.len() {
        return Err(Error::shape("out", format!("[{}]", points.len()), &[out.len()]));
    }
    for (out, &x) in out.iter_mut().zip(points) {
        *out = if x < 1.0 { (x as f32).min(BELOW_ONE) } else { x as f32 };
    }
    Ok(())
}
