//! The modified Bessel function of the second kind.

/// `ln K_nu(x)` for `x >= 0` and any real order; NaN elsewhere. Relative error of K around 1e-14.
///
/// The trapezoidal rule on the integral of `exp(-x cosh t) cosh(nu t)` over `t > 0` (NIST DLMF 10.32.9), whose error
/// falls like exp(-pi^2 / step).
pub fn ln_bessel_k(order: f64, x: f64) -> f64 {
    if x == 0.0 || x == f64::INFINITY {
        return if x == 0.0 { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    if !(x > 0.0 && order.is_finite()) {
        return f64::NAN;
    }
    let order = order.abs();
    let step = 1.0 / (8.0 + 2.0 * (x * x + order * order).powf(0.25));
    // Exponents relative to the largest one, which lies near asinh(order / x).
    let exponent = |t: f64| {
        let half = (0.5 * t).sinh();
        order * t - 2.0 * x * half * half
    };
    let peak = (order / x).asinh();
    let top = exponent(peak);
    let mut sum = 0.5 * (exponent(0.0) - top).exp();
    for i in 1..100_000 {
        let t = f64::from(i) * step;
        let term = (exponent(t) - top).exp() * 0.5 * (1.0 + (-2.0 * order * t).exp());
        sum += term;
        if t > peak && term < 1e-18 * sum {
            break;
        }
    }
    (sum * step).ln() + top - x
}

/// `K_nu(x)`.
///
/// ```
/// use kc_qmc::special::bessel_k;
/// let x = 2.0f64;
/// let half = (std::f64::consts::PI / (2.0 * x)).sqrt() * (-x).exp();
/// assert!((bessel_k(0.5, x) - half).abs() < 1e-15);
/// ```
pub fn bessel_k(order: f64, x: f64) -> f64 {
    ln_bessel_k(order, x).exp()
}
