//! The Fourier transform of data whose time axis is in bit-reversed order.
//!
//! ```text
//! fftbr:   y_k = n^-1/2 sum_i x_i exp(-2 pi i k rev(i) / n)        rev: the m bits of the index in opposite order
//! ifftbr:  x_i = n^-1/2 sum_k y_k exp(+2 pi i k rev(i) / n)
//! ```
//!
//! This is a fast Fourier transform by decimation in time without the reordering that usually comes first (backwards:
//! decimation in frequency without the one that comes last), so there is no such pass anywhere. The points of a
//! lattice in natural order have just this order.
//!
//! | Function | Rows in | Rows out |
//! |---|---|---|
//! | [`fftbr`], [`ifftbr`] | `n` complex | `n` complex, in place |
//! | [`rfftbr`] | `n` real | the `n/2 + 1` independent complex values |
//! | [`irfftbr`] | `n/2 + 1` complex | `n` real |
//! | [`fftbr_double`] | transforms of the two halves | transform of the whole, in place |
//!
//! # Method
//! Two stages (radix 4) are one pass. Between the passes real and imaginary parts lie in separate vectors, side by
//! side; the first pass takes complex numbers apart while it works inside of vectors, the last puts them together.
//! Blocks are finished in the first cache before they are combined. Powers of the root of unity come from a
//! table of 256, or are products of such a table and a coarse one, so that no pass reads more than the data. Real rows are
//! half as many complex numbers: the first half of a row is the even samples of its signal.
//!
//! Cost: about `4.5 n log2 n` operations (complex). The relative error (root mean square) is below `1e-15` up to
//! `n = 2^24` in f64.

use kc_core::bytemuck::Pod;
use kc_core::{Complex, Error, Float, Isa, Result};
use rayon::prelude::*;

use crate::Sample;
use crate::rows::{self, TASK};

mod portable;
mod real;
pub mod reference;
mod roots;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use real::{irfftbr, irfftbr_with, rfftbr, rfftbr_with};
pub use roots::root_of_unity;

/// Units of a block that is finished in the first cache (16 KiB).
const LEAF: usize = 256;

/// How a pass finds or leaves its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Complex numbers, one after the other.
    Complex,
    /// A vector of real parts, then one of imaginary parts.
    Parts,
}

/// The kernels of an element type. A unit is two vectors of 32 bytes: as many complex numbers as one vector has lanes.
pub(crate) trait Kernels: Float {
    /// Two arrays of this type.
    type Unit: Pod + Send + Sync;

    /// Complex numbers of a unit.
    const LANES: usize;

    /// The units that `x` is, whose length is a multiple of theirs.
    fn units(x: &mut [Complex<Self>]) -> &mut [Self::Unit];

    /// `exp(-2 pi i k / n)` for `k` below `n / 2`; `n` is at least `4 LANES`.
    fn root(k: usize, n: usize) -> Complex<f64>;

    /// All stages of a block of at most [`LEAF`] units, times `scale`.
    fn leaf(isa: Isa, way: Way, x: &mut [Self::Unit], layout: [Layout; 2], scale: Self);

    /// Two stages across rows of equal length: the columns from `at` (a multiple of the table's length) of rows
    /// of `h` units.
    fn pass(isa: Isa, way: Way, rows: [&mut [Self::Unit]; 4], h: usize, at: usize, layout: [Layout; 2]);
}

/// Which transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Inverse,
}

/// The unitary transform of each row of `n` values in bit-reversed order, in place.
///
/// # Errors
/// `Argument` if `n` is not a power of two, `Shape` if it does not divide the length.
pub fn fftbr<T: Sample>(x: &mut [Complex<T>], n: usize) -> Result<()> {
    fftbr_with(Isa::best(), x, n)
}

/// As [`fftbr`], on a chosen level.
pub fn fftbr_with<T: Sample>(isa: Isa, x: &mut [Complex<T>], n: usize) -> Result<()> {
    rows::check("x", x.len(), n)?;
    check_length(n)?;
    rows::for_each(x, n, |row| transform(isa, Way::Forward, row));
    Ok(())
}

/// The inverse of [`fftbr`].
///
/// # Errors
/// As [`fftbr`].
pub fn ifftbr<T: Sample>(y: &mut [Complex<T>], n: usize) -> Result<()> {
    ifftbr_with(Isa::best(), y, n)
}

/// As [`ifftbr`], on a chosen level.
pub fn ifftbr_with<T: Sample>(isa: Isa, y: &mut [Complex<T>], n: usize) -> Result<()> {
    rows::check("y", y.len(), n)?;
    check_length(n)?;
    rows::for_each(y, n, |row| transform(isa, Way::Inverse, row));
    Ok(())
}

/// The transforms of rows of `n` values whose halves have been transformed already, in place: one stage,
/// `((y1 + w y2), (y1 - w y2)) / sqrt 2` with `w_k = exp(-2 pi i k / n)`.
///
/// # Errors
/// As [`fftbr`], and `n` is at least 2.
pub fn fftbr_double<T: Sample>(x: &mut [Complex<T>], n: usize) -> Result<()> {
    rows::check("x", x.len(), n)?;
    rows::check_halves(n)?;
    check_length(n)?;
    let scale = 0.5f64.sqrt();
    let root =
        |k: usize| -> Complex<f64> { if n >= 4 * T::LANES { T::root(k, n) } else { root_of_unity(k, n) } };
    rows::for_each(x, n, |row| {
        let (low, high) = row.split_at_mut(n / 2);
        for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
            let wide = |z: Complex<T>| Complex::new(z.re.to_f64(), z.im.to_f64());
            let narrow = |z: Complex<f64>| Complex::new(T::from_f64(z.re * scale), T::from_f64(z.im * scale));
            let (x, y) = (wide(*a), wide(*b) * root(k));
            (*a, *b) = (narrow(x + y), narrow(x - y));
        }
    });
    Ok(())
}

/// Tables of roots are made for rows of up to `2^40` values.
fn check_length(n: usize) -> Result<()> {
    const LIMIT: u64 = 1 << 40;
    if n as u64 > LIMIT { Err(Error::too_large("n", n as u64, LIMIT, "values")) } else { Ok(()) }
}

fn transform<T: Sample>(isa: Isa, way: Way, row: &mut [Complex<T>]) {
    let n = row.len();
    let scale = (n as f64).sqrt().recip();
    if n < T::LANES {
        return portable::short(way, row, scale);
    }
    run::<T>(isa, way, T::units(row), [Layout::Complex; 2], T::from_f64(scale));
}

/// All stages: quarters first forward, last backward. Each block is combined while the smallest cache that holds it
/// still does.
fn run<T: Kernels>(isa: Isa, way: Way, x: &mut [T::Unit], [from, to]: [Layout; 2], scale: T) {
    if x.len() <= LEAF {
        return T::leaf(isa, way, x, [from, to], scale);
    }
    let quarter = x.len() / 4;
    if way == Way::Inverse {
        combine::<T>(isa, way, rows::split(x), quarter, 0, [from, Layout::Parts]);
    }
    let inner = if way == Way::Forward { [from, Layout::Parts] } else { [Layout::Parts, to] };
    if size_of_val(x) >= TASK * size_of::<f64>() {
        x.par_chunks_exact_mut(quarter).for_each(|x| run::<T>(isa, way, x, inner, scale));
    } else {
        x.chunks_exact_mut(quarter).for_each(|x| run::<T>(isa, way, x, inner, scale));
    }
    if way == Way::Forward {
        combine::<T>(isa, way, rows::split(x), quarter, 0, [Layout::Parts, to]);
    }
}

fn combine<T: Kernels>(
    isa: Isa,
    way: Way,
    rows: [&mut [T::Unit]; 4],
    h: usize,
    at: usize,
    layout: [Layout; 2],
) {
    let columns = rows[0].len();
    if columns * 4 * size_of::<T::Unit>() <= TASK * size_of::<f64>() {
        return T::pass(isa, way, rows, h, at, layout);
    }
    let half = columns / 2;
    let [left, right] = rows::halves(rows, half);
    rayon::join(
        || combine::<T>(isa, way, left, h, at, layout),
        || combine::<T>(isa, way, right, h, at + half, layout),
    );
}
