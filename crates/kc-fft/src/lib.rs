//! Fast transforms of power-of-two length: Walsh-Hadamard, and Fourier with the time axis in bit-reversed order.
//!
//! All are unitary (scaled by `n^-1/2`), in f64 and f32, and work on the last axis of a batch laid out row after
//! row.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`fwht`](mod@crate::fwht) | [`fwht()`], its own inverse, and [`fwht_double`] |
//! | [`bitrev`] | [`fftbr`], [`ifftbr`], for real data [`rfftbr`], [`irfftbr`], and [`fftbr_double`] |
//!
//! The points of a lattice in its natural order are those of an equidistant grid with bit-reversed indices, and those
//! of a digital net are a group under exclusive or. These are therefore the transforms that turn kernel matrices on
//! such points into diagonals, without ever reordering anything.
//!
//! ```
//! use kc_fft::{fftbr, fwht, ifftbr};
//! use kc_core::Complex;
//!
//! let mut x = [1.0, 2.0, 3.0, 4.0];
//! fwht(&mut x, 4)?;
//! assert_eq!(x, [5.0, -1.0, -2.0, 0.0]);
//!
//! let mut z = [1.0, 2.0, 3.0, 4.0].map(|re| Complex::new(re, 0.0));
//! fftbr(&mut z, 4)?; // the signal in natural order is 1, 3, 2, 4
//! assert_eq!(z[1], Complex::new(-0.5, 0.5));
//! ifftbr(&mut z, 4)?;
//! assert_eq!(z[3], Complex::new(4.0, 0.0));
//! # Ok::<(), kc_core::Error>(())
//! ```

pub mod bitrev;
pub mod fwht;
mod lanes;
mod rows;
mod sample;

pub use bitrev::{fftbr, fftbr_double, ifftbr, irfftbr, rfftbr};
pub use fwht::{fwht, fwht_double};
pub use sample::Sample;

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
