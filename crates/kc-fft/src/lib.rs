//! Fast transforms of power-of-two length: Walsh-Hadamard, and Fourier with the input in bit-reversed order.
//!
//! All are unitary (scaled by `n^-1/2`) and work on the last axis of a batch laid out row after row.

#![forbid(unsafe_code)]

mod reference_path;

pub use reference_path::{fftbr, fwht, ifftbr};
