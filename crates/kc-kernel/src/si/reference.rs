//! The definition: Bernoulli polynomials by their coefficients, one value at a time.

use super::bernoulli::{factor_of_order, polynomial};
use crate::config::{KernelConfig, Smoothness};

/// `kappa_alpha(t)` for `t` in `[0, 1]`.
pub fn kappa(alpha: u8, t: f64) -> f64 {
    factor_of_order(u32::from(alpha)) * polynomial(2 * u32::from(alpha), t)
}

/// `K(x, z)`.
pub fn kernel(config: &KernelConfig, x: &[f64], z: &[f64]) -> f64 {
    let mut product = config.scale;
    for (j, (x, z)) in x.iter().zip(z).enumerate() {
        let t = (x - z).rem_euclid(1.0);
        let value = match &config.smoothness {
            Smoothness::Orders(all) => kappa(all[j], t),
            Smoothness::Combined(all) => (1..).zip(all[j]).map(|(alpha, a)| a * kappa(alpha, t)).sum(),
            Smoothness::Adaptive(_) => f64::NAN,
        };
        product *= 1.0 + config.weights[j] * value;
    }
    product
}
