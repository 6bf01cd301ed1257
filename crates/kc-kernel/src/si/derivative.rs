//! Factors of partial derivatives.

use kc_core::{Error, Result};

use super::bernoulli::{polynomial, scale};
use super::{Kernel, SiKernel};
use crate::config::Smoothness;
use crate::derivative::Term;

/// Checks that the kernel has the derivatives of `left` in its first argument and `right` in its second.
///
pub(crate) fn check(kernel: &SiKernel, left: &Term, right: &Term) -> Result<()> {
    let alphas = crate::derivative::orders(kernel, left, right)?;
    for (j, &alpha) in alphas.iter().enumerate() {
        let order = u32::from(left.orders[j]) + u32::from(right.orders[j]);
        if order > 0 && order + 2 > 2 * u32::from(alpha) {
            let most = 2 * alpha - 2;
            return Err(Error::argument("derivative", format!("at most {most} in dimension {j}"), order));
        }
    }
    Ok(())
}

/// `d^left/dx d^right/dz K(x, z)` with the terms' factors; [`check`] has seen the orders.
pub(crate) fn eval(kernel: &SiKernel, left: &Term, right: &Term, x: &[f64], z: &[f64]) -> f64 {
    let config = kernel.config();
    let Smoothness::Orders(alphas) = &config.smoothness else { return f64::NAN };
    let mut product = config.scale * left.factor * right.factor;
    for (j, &alpha) in alphas.iter().enumerate() {
        let (alpha, b1) = (u32::from(alpha), u32::from(right.orders[j]));
        let order = u32::from(left.orders[j]) + b1;
        let t = (x[j] - z[j]).rem_euclid(1.0);
        let sign = if (alpha + b1 + 1).is_multiple_of(2) { 1.0 } else { -1.0 };
        let degree = 2 * alpha - order;
        let kappa = sign * scale(alpha, degree) * polynomial(degree, t);
        product *= f64::from(u8::from(order == 0)) + config.weights[j] * kappa;
    }
    product
}
