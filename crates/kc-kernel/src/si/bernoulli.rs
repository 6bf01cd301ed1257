//! Bernoulli polynomials up to degree 10.

use std::f64::consts::TAU;

/// `B_{2 alpha}` as polynomials in `u = x (1 - x)`, lowest first, for `alpha` = 1 to 5.
pub(crate) const EVEN: [[f64; 6]; 5] = [
    [1.0 / 6.0, -1.0, 0.0, 0.0, 0.0, 0.0],
    [-1.0 / 30.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    [1.0 / 42.0, 0.0, -0.5, -1.0, 0.0, 0.0],
    [-1.0 / 30.0, 0.0, 2.0 / 3.0, 4.0 / 3.0, 1.0, 0.0],
    [5.0 / 66.0, 0.0, -1.5, -3.0, -2.5, -1.0],
];

/// Bernoulli numbers `B_0` to `B_10`.
const NUMBERS: [f64; 11] =
    [1.0, -0.5, 1.0 / 6.0, 0.0, -1.0 / 30.0, 0.0, 1.0 / 42.0, 0.0, -1.0 / 30.0, 0.0, 5.0 / 66.0];

/// `B_n(x)` by its coefficients `binomial(n, k) B_k`; `n` is at most 10.
pub(crate) fn polynomial(n: u32, x: f64) -> f64 {
    let mut binomial = 1.0;
    let mut sum = 0.0;
    for k in 0..=n {
        sum = sum * x + binomial * NUMBERS[k as usize];
        binomial = binomial * f64::from(n - k) / f64::from(k + 1);
    }
    sum
}

/// `(2 pi)^(2 alpha) / m!`.
pub(crate) fn scale(alpha: u32, m: u32) -> f64 {
    let mut scale = TAU.powi(2 * alpha as i32);
    for k in 2..=m {
        scale /= f64::from(k);
    }
    scale
}

/// `(-1)^(alpha + 1) (2 pi)^(2 alpha) / (2 alpha)!`.
pub(crate) fn factor_of_order(alpha: u32) -> f64 {
    let sign = if alpha.is_multiple_of(2) { -1.0 } else { 1.0 };
    sign * scale(alpha, 2 * alpha)
}
