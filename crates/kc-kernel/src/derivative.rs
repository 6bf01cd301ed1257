//! Partial derivatives of structured kernels, term by term.

use kc_core::{Error, Result};

use crate::config::Smoothness;
use crate::kernel::Kernel;

/// A term of a sum of derivatives: a factor, and an order for each dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What the derivative is multiplied by.
    pub factor: f64,
    /// Orders, one per dimension.
    pub orders: Vec<u8>,
}

impl Term {
    /// The function itself, in so many dimensions.
    pub fn value(dims: usize) -> Self {
        Self { factor: 1.0, orders: vec![0; dims] }
    }

    /// A derivative.
    pub fn derivative(orders: &[u8]) -> Self {
        Self { factor: 1.0, orders: orders.to_vec() }
    }
}

/// `sum_l sum_r d^l/dx d^r/dz K(x, z)` over the terms of two sums.
///
/// # Errors
/// `Empty` without terms; `Shape` for orders or points that are not one number per dimension; `Argument` for a derivative
/// that the kernel does not have or a point outside of its domain; `Unsupported` unless the smoothness is given by
/// orders.
pub fn eval<K: Kernel>(
    kernel: &K,
    left: &[Term],
    right: &[Term],
    x: &[K::Point],
    z: &[K::Point],
) -> Result<f64> {
    check(kernel, left, right)?;
    for point in [x, z] {
        if point.len() != kernel.dims() {
            return Err(Error::shape(
                "x",
                format!("[{}], one value per dimension", kernel.dims()),
                &[point.len()],
            ));
        }
        point.iter().try_for_each(|&x| kernel.check_point(x))?;
    }
    Ok(sum(kernel, left, right, x, z))
}

/// Checks all pairs of terms.
pub(crate) fn check<K: Kernel>(kernel: &K, left: &[Term], right: &[Term]) -> Result<()> {
    if left.is_empty() || right.is_empty() {
        return Err(Error::empty("terms"));
    }
    for l in left {
        right.iter().try_for_each(|r| kernel.check_derivative(l, r))?;
    }
    Ok(())
}

/// The sum over all pairs of terms that [`check`] has seen.
pub(crate) fn sum<K: Kernel>(
    kernel: &K,
    left: &[Term],
    right: &[Term],
    x: &[K::Point],
    z: &[K::Point],
) -> f64 {
    left.iter().map(|l| right.iter().map(|r| kernel.derivative(l, r, x, z)).sum::<f64>()).sum()
}

/// The orders of the kernel's smoothness, once the terms have one number per dimension.
pub(crate) fn orders<'a, K: Kernel>(kernel: &'a K, left: &Term, right: &Term) -> Result<&'a [u8]> {
    let dims = kernel.dims();
    for term in [left, right] {
        if term.orders.len() != dims {
            let expected = format!("[{dims}], one order per dimension");
            return Err(Error::shape("derivative", expected, &[term.orders.len()]));
        }
        if !term.factor.is_finite() {
            return Err(Error::not_finite("factor", &[], term.factor));
        }
    }
    match &kernel.config().smoothness {
        Smoothness::Orders(all) => Ok(all),
        _ => Err(Error::unsupported("derivatives", "the smoothness must be given by orders")),
    }
}
