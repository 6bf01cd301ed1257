//! The definitions: double sums.

use kc_core::{Complex, Float, Result};

use super::root_of_unity;
use crate::rows;

/// The `bits` low bits of `i` in opposite order.
pub fn reverse_bits(i: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) }
}

fn sums<T: Float>(
    x: &[Complex<T>],
    n: usize,
    exponent: impl Fn(usize, usize) -> usize,
) -> Result<Vec<Complex<f64>>> {
    rows::check("x", x.len(), n)?;
    let scale = (n as f64).sqrt().recip();
    let wide = |z: &Complex<T>| Complex::new(z.re.to_f64(), z.im.to_f64());
    let row = |row: &[Complex<T>]| -> Vec<Complex<f64>> {
        let sum =
            |to| row.iter().enumerate().map(|(from, z)| wide(z) * root_of_unity(exponent(from, to), n)).sum();
        (0..n).map(sum).map(|sum: Complex<f64>| sum * scale).collect()
    };
    Ok(x.chunks_exact(n).flat_map(row).collect())
}

/// `n^-1/2 sum_i x_i exp(-2 pi i k rev(i) / n)` for each row of `n` values, in f64: `n^2` operations.
///
/// # Errors
/// As [`fftbr`](super::fftbr).
pub fn fftbr<T: Float>(x: &[Complex<T>], n: usize) -> Result<Vec<Complex<f64>>> {
    sums(x, n, |i, k| ((k as u128 * reverse_bits(i, n.trailing_zeros()) as u128) % n as u128) as usize)
}

/// `n^-1/2 sum_k y_k exp(+2 pi i k rev(i) / n)` for each row of `n` values, in f64: `n^2` operations.
///
/// # Errors
/// As [`fftbr`](super::fftbr).
pub fn ifftbr<T: Float>(y: &[Complex<T>], n: usize) -> Result<Vec<Complex<f64>>> {
    let back = |k, i| ((k as u128 * reverse_bits(i, n.trailing_zeros()) as u128) % n as u128) as usize;
    sums(y, n, |k, i| (n - back(k, i)) % n)
}
