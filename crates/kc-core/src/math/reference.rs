//! The definitions, one element at a time in f64 with the standard library: slow, never tuned.

use super::Function;

/// `function` of `x`.
pub fn function(function: Function, x: f64) -> f64 {
    match function {
        Function::Exp => x.exp(),
        Function::Log => x.ln(),
        Function::Tanh => x.tanh(),
        Function::Erf => erf(x),
        // For negative numbers e^x / (1 + e^x), as 1 + e^-x would lose the digits of a small result.
        Function::Sigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
    }
}

/// The error function: below 1 by its Maclaurin series, `2/sqrt(pi) x sum_n (-x^2)^n / (n! (2n+1))`; from 1 on
/// as 1 - erfc(x) by the continued fraction `exp(-x^2) / sqrt(pi) / (x + 1/2 / (x + 1 / (x + 3/2 / (x + ...))))`
/// (Abramowitz and Stegun 7.1.5 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    /// Enough for 60 bits at 1, where both converge slowest.
    const TERMS: u32 = 24;
    const DEPTH: u32 = 250;
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    if size >= 1.0 {
        let fraction = (1..=DEPTH).rev().fold(size, |below, n| size + 0.5 * f64::from(n) / below);
        let bell = (-size * size).exp() * std::f64::consts::FRAC_2_SQRT_PI;
        return (1.0 - 0.5 * bell / fraction).copysign(x);
    }
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let series = (0..TERMS)
        .rev()
        .fold(0.0, |sum, n| (-(size * size)).mul_add(sum, 1.0 / (factorial(n) * f64::from(2 * n + 1))));
    std::f64::consts::FRAC_2_SQRT_PI * x * series
}

/// `exp(x) / sum exp(x)`, shifted by the largest element.
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
    x.iter().map(|x| (x - max).exp() / sum).collect()
}

/// `ln(sum exp(x))`.
pub fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// The inner product.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// The positions of the `k` largest elements (no NaN), largest first, the first of equals first.
pub fn top_k(x: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
    order.truncate(k);
    order
}
