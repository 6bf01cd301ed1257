//! The definition, stage by stage.

use kc_core::{Float, Result};

use crate::rows;

/// The unitary Walsh-Hadamard transform of each row of `n` values, in place.
///
/// # Errors
/// As [`fwht`](super::fwht).
pub fn fwht<T: Float + std::ops::Add<Output = T> + std::ops::Sub<Output = T> + std::ops::Mul<Output = T>>(
    x: &mut [T],
    n: usize,
) -> Result<()> {
    rows::check("x", x.len(), n)?;
    let scale = T::from_f64((n as f64).sqrt().recip());
    for row in x.chunks_exact_mut(n) {
        let mut half = 1;
        while half < n {
            for block in row.chunks_exact_mut(2 * half) {
                for k in 0..half {
                    let (a, b) = (block[k], block[k + half]);
                    (block[k], block[k + half]) = (a + b, a - b);
                }
            }
            half *= 2;
        }
        row.iter_mut().for_each(|v| *v = *v * scale);
    }
    Ok(())
}
