//! Special functions that quantiles, distribution functions and densities are made of.

mod gamma;
mod normal;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use gamma::ln_gamma;
pub use normal::{erfc, normal_cdf, normal_pdf, normal_quantile, normal_quantiles, normal_quantiles_with};
