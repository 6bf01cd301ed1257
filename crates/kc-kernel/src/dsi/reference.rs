//! The definition, one value at a time, with integer logarithms and all digits of `W`.

use crate::config::{KernelConfig, Smoothness};

/// `kappa_alpha` of a difference of `bits` digits.
pub fn kappa(alpha: u8, delta: u64, bits: u32) -> f64 {
    let x = delta as f64 * (-f64::from(bits)).exp2();
    let b = if delta == 0 { 0.0 } else { f64::from(bits - delta.ilog2()) };
    let s = |v: f64| if delta == 0 { 0.0 } else { (-v * b).exp2() };
    match alpha {
        1 => 1.0 - 3.0 * s(1.0),
        2 => -b * x + 2.5 * (1.0 - s(1.0)) - 1.0,
        3 => b * x * x - 5.0 * (1.0 - s(1.0)) * x + 43.0 / 18.0 * (1.0 - s(2.0)) - 1.0,
        _ => {
            let sign = |a: u32| if delta >> (bits - 1 - a) & 1 == 1 { -1.0 } else { 1.0 };
            let w: f64 = (0..bits).map(|a| sign(a) * (-3.0 * f64::from(a)).exp2()).sum();
            -2.0 / 3.0 * b * x.powi(3) + 5.0 * (1.0 - s(1.0)) * x * x - 43.0 / 9.0 * (1.0 - s(2.0)) * x
                + 701.0 / 294.0 * (1.0 - s(3.0))
                + b * (w / 48.0 - 1.0 / 42.0)
                - 1.0
        }
    }
}

/// `kappa` of a real order.
pub fn adaptive(alpha: f64, delta: u64, bits: u32) -> f64 {
    let v = (alpha + 1.0).exp2() / ((alpha + 1.0).exp2() - 2.0);
    if delta == 0 {
        return v;
    }
    let b = f64::from(bits - delta.ilog2());
    v - (v + 1.0) * (alpha * (1.0 - b)).exp2()
}

/// `K(x, z)` on integers of `bits` bits.
pub fn kernel(config: &KernelConfig, bits: u32, x: &[u64], z: &[u64]) -> f64 {
    let mut product = config.scale;
    for (j, (x, z)) in x.iter().zip(z).enumerate() {
        let delta = x ^ z;
        let value = match &config.smoothness {
            Smoothness::Orders(all) => kappa(all[j], delta, bits),
            Smoothness::Adaptive(all) => adaptive(all[j], delta, bits),
            Smoothness::Combined(all) => {
                (1..).zip(all[j]).map(|(alpha, a)| a * kappa(alpha, delta, bits)).sum()
            }
        };
        product *= 1.0 + config.weights[j] * value;
    }
    product
}
