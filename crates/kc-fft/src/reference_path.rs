//! Plain radix-2 transforms; replaced by blocked kernels.

use std::f64::consts::PI;

use kc_core::{Complex, Error, Result};

fn rows(len: usize, n: usize) -> Result<()> {
    if !n.is_power_of_two() {
        return Err(Error::argument("n", "a power of two", n));
    }
    if !len.is_multiple_of(n) {
        return Err(Error::shape("x", format!("a multiple of {n} elements"), &[len]));
    }
    Ok(())
}

/// Unitary Walsh-Hadamard transform in natural order of each row of `n` values, in place; its own inverse.
///
/// # Errors
/// `n` is not a power of two, or does not divide the length.
pub fn fwht(x: &mut [f64], n: usize) -> Result<()> {
    rows(x.len(), n)?;
    let scale = (n as f64).sqrt().recip();
    for row in x.chunks_exact_mut(n) {
        let mut half = 1;
        while half < n {
            for block in row.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        row.iter_mut().for_each(|v| *v *= scale);
    }
    Ok(())
}

/// `y_k = n^-1/2 sum_i x_i exp(-2 pi i k rev(i) / n)` of each row of `n` values, in place.
///
/// # Errors
/// As [`fwht`].
pub fn fftbr(x: &mut [Complex<f64>], n: usize) -> Result<()> {
    rows(x.len(), n)?;
    let scale = (n as f64).sqrt().recip();
    for row in x.chunks_exact_mut(n) {
        let mut half = 1;
        while half < n {
            for block in row.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                    let t = *b * Complex::cis(-PI * k as f64 / half as f64);
                    (*a, *b) = (*a + t, *a - t);
                }
            }
            half *= 2;
        }
        row.iter_mut().for_each(|v| *v *= scale);
    }
    Ok(())
}

/// The inverse of [`fftbr`].
///
/// # Errors
/// As [`fwht`].
pub fn ifftbr(y: &mut [Complex<f64>], n: usize) -> Result<()> {
    rows(y.len(), n)?;
    let scale = (n as f64).sqrt().recip();
    for row in y.chunks_exact_mut(n) {
        let mut half = n / 2;
        while half > 0 {
            for block in row.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                    let (s, d) = (*a + *b, *a - *b);
                    (*a, *b) = (s, d * Complex::cis(PI * k as f64 / half as f64));
                }
            }
            half /= 2;
        }
        row.iter_mut().for_each(|v| *v *= scale);
    }
    Ok(())
}
