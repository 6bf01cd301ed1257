//! Real rows, as half as many complex numbers.
//!
//! Bit-reversed, the even samples of a signal are the first half of its row and the odd ones the second. With
//! `z_j = x_j + i x_{j + n/2}` and `Z` its transform of `N = n/2` values, `E_k = (Z_k + conj Z_{N-k}) / 2`,
//! `O_k = (Z_k - conj Z_{N-k}) / 2i`, the transform of `x` is `E_k + exp(-2 pi i k / n) O_k`.

use kc_core::bytemuck;
use kc_core::{Complex, Error, Isa, Result};

use super::{Kernels, Layout, Way, check_length, portable, root_of_unity, run};
use crate::Sample;
use crate::rows;

/// The first `n/2 + 1` values of the unitary transform [`fftbr`](super::fftbr) of each row of `n` real values; the
/// others are `y_{n-k} = conj y_k`.
///
/// # Errors
/// `Argument` if `n` is not a power of two, `Shape` if it does not divide the length of `x`, or `out` has not
/// `n/2 + 1` values for each row (1 if `n` is 1).
pub fn rfftbr<T: Sample>(x: &[T], n: usize, out: &mut [Complex<T>]) -> Result<()> {
    rfftbr_with(Isa::best(), x, n, out)
}

/// As [`rfftbr`], on a chosen level.
pub fn rfftbr_with<T: Sample>(isa: Isa, x: &[T], n: usize, out: &mut [Complex<T>]) -> Result<()> {
    let values = check("x", x.len(), n, "out", out.len())?;
    rows::for_each_pair((x, n), (out, values), |x, out| forward(isa, x, out));
    Ok(())
}

/// The inverse of [`rfftbr`]: `n` real values for each row of `n/2 + 1` complex ones. The imaginary parts of the
/// first and the last value of a row are taken for 0.
///
/// # Errors
/// As [`rfftbr`], with `y` and `out` exchanged.
pub fn irfftbr<T: Sample>(y: &[Complex<T>], n: usize, out: &mut [T]) -> Result<()> {
    irfftbr_with(Isa::best(), y, n, out)
}

/// As [`irfftbr`], on a chosen level.
pub fn irfftbr_with<T: Sample>(isa: Isa, y: &[Complex<T>], n: usize, out: &mut [T]) -> Result<()> {
    let values = check("out", out.len(), n, "y", y.len())?;
    rows::for_each_pair((y, values), (out, n), |y, out| inverse(isa, y, out));
    Ok(())
}

/// Complex values of a row.
fn check(real: &'static str, reals: usize, n: usize, complex: &'static str, got: usize) -> Result<usize> {
    rows::check(real, reals, n)?;
    check_length(n)?;
    let values = n / 2 + 1;
    let rows = reals / n;
    if rows.checked_mul(values) != Some(got) {
        return Err(Error::shape(complex, format!("{rows} rows of {values} values"), &[got]));
    }
    Ok(values)
}

fn root<T: Kernels>(k: usize, n: usize) -> Complex<f64> {
    if n >= 4 * T::LANES { T::root(k, n) } else { root_of_unity(k, n) }
}

fn wide<T: Sample>(z: Complex<T>) -> Complex<f64> {
    Complex::new(z.re.to_f64(), z.im.to_f64())
}

fn narrow<T: Sample>(z: Complex<f64>) -> Complex<T> {
    Complex::new(T::from_f64(z.re), T::from_f64(z.im))
}

fn forward<T: Sample>(isa: Isa, x: &[T], out: &mut [Complex<T>]) {
    let n = x.len();
    let (half, scale) = (n / 2, (n as f64).sqrt().recip());
    if half == 0 {
        out[0] = Complex::new(x[0], T::from_f64(0.0));
        return;
    }
    let (even, odd) = x.split_at(half);
    let inner = &mut out[..half];
    if half < T::LANES {
        inner.iter_mut().zip(even.iter().zip(odd)).for_each(|(z, (&re, &im))| *z = Complex::new(re, im));
        portable::short(Way::Forward, inner, scale);
    } else {
        // A unit is a vector of real and one of imaginary parts.
        let units = T::units(inner);
        let flat: &mut [T] = bytemuck::cast_slice_mut(units);
        let parts = even.chunks_exact(T::LANES).zip(odd.chunks_exact(T::LANES));
        for (unit, (even, odd)) in flat.chunks_exact_mut(2 * T::LANES).zip(parts) {
            unit[..T::LANES].copy_from_slice(even);
            unit[T::LANES..].copy_from_slice(odd);
        }
        let layout = [Layout::Parts, Layout::Complex];
        run::<T>(isa, Way::Forward, units, layout, T::from_f64(scale));
    }
    let z = wide(out[0]);
    out[half] = narrow(Complex::new(z.re - z.im, 0.0));
    out[0] = narrow(Complex::new(z.re + z.im, 0.0));
    for k in 1..=half / 2 {
        let (a, b) = (wide(out[k]), wide(out[half - k]).conj());
        let (even, odd) = ((a + b) * 0.5, (a - b) * 0.5);
        // odd / i * w
        let turned = Complex::new(odd.im, -odd.re) * root::<T>(k, n);
        out[half - k] = narrow((even - turned).conj());
        out[k] = narrow(even + turned);
    }
}

fn inverse<T: Sample>(isa: Isa, y: &[Complex<T>], out: &mut [T]) {
    let n = out.len();
    let half = n / 2;
    if half == 0 {
        out[0] = y[0].re;
        return;
    }
    let mut z = vec![Complex::<T>::default(); half];
    let (first, last) = (y[0].re.to_f64(), y[half].re.to_f64());
    z[0] = narrow(Complex::new(first + last, first - last) * 0.5);
    for k in 1..=half / 2 {
        let (a, b) = (wide(y[k]), wide(y[half - k]).conj());
        let (even, odd) = ((a + b) * 0.5, (a - b) * 0.5 * root::<T>(k, n).conj());
        let turned = Complex::new(-odd.im, odd.re);
        z[half - k] = narrow((even - turned).conj());
        z[k] = narrow(even + turned);
    }
    let scale = 2.0 / (n as f64).sqrt();
    let (even, odd) = out.split_at_mut(half);
    if half < T::LANES {
        portable::short(Way::Inverse, &mut z, scale);
        z.iter().zip(even.iter_mut().zip(odd)).for_each(|(z, (re, im))| (*re, *im) = (z.re, z.im));
        return;
    }
    let units = T::units(&mut z);
    run::<T>(isa, Way::Inverse, units, [Layout::Complex, Layout::Parts], T::from_f64(scale));
    let flat: &[T] = bytemuck::cast_slice(units);
    let parts = even.chunks_exact_mut(T::LANES).zip(odd.chunks_exact_mut(T::LANES));
    for (unit, (even, odd)) in flat.chunks_exact(2 * T::LANES).zip(parts) {
        even.copy_from_slice(&unit[..T::LANES]);
        odd.copy_from_slice(&unit[T::LANES..]);
    }
}
