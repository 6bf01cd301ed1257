//! Special functions that quantiles, distribution functions and densities are made of.
//!
//! | Function | Relative error | How |
//! |---|---|---|
//! | [`normal_quantile`], [`normal_quantiles`] | 2e-15 | rational approximation; slices in vectors |
//! | [`normal_cdf`], [`erfc`] | 1e-15 | series, Chebyshev series |
//! | [`ln_gamma`] | 1e-15 | series, Stirling's formula |
//! | [`gamma_pq`], [`gamma_quantile`] | 1e-13 | series and continued fraction, Newton's method |
//! | [`beta_pq`], [`beta_quantile`] | 1e-13 | continued fraction, Newton's method |
//! | [`t_cdf`], [`t_quantile`] | 1e-13 | the beta functions |
//! | [`bessel_k`] | 1e-13 | an integral by the trapezoidal rule |
//!
//! Tests compare with values of 40 digits. Quantiles that take both tail probabilities keep their digits where a
//! probability is within rounding of 1.

mod bessel;
mod beta;
mod gamma;
mod normal;
mod portable;
mod student;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bessel::{bessel_k, ln_bessel_k};
pub use beta::{beta_pq, beta_quantile};
pub use gamma::{gamma_pq, gamma_quantile, ln_gamma};
pub use normal::{erfc, normal_cdf, normal_pdf, normal_quantile, normal_quantiles, normal_quantiles_with};
pub use student::{t_cdf, t_pdf, t_quantile};

pub(crate) use beta::beta_front;
pub(crate) use gamma::gamma_front;
pub(crate) use student::{ln_gamma_half_step, t_ln_pdf};
