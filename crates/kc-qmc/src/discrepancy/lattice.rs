//! The worst-case error of lattices for periodic functions.

use kc_core::{Error, Result, par};
use rayon::prelude::*;

use super::check_weights;

/// Points of a lattice whose merit is asked for, at most.
const MOST: u64 = 1 << 28;

/// Points of a part of a sum.
const PART: usize = 1 << 12;

/// `sum over h != 0 of |h|^-alpha e^(2 pi i h x)` at `x = k / n`, for `alpha` 2, 4 or 6: a multiple of a Bernoulli
/// polynomial. The same bits at `k` and `n - k`.
pub(super) fn kernel(alpha: u32, n: u64) -> Result<Vec<f64>> {
    let tau = std::f64::consts::TAU;
    let value = |x: f64| match alpha {
        2 => tau.powi(2) / 2.0 * (x * x - x + 1.0 / 6.0),
        4 => -tau.powi(4) / 24.0 * ((x * x - x) * (x * x - x) - 1.0 / 30.0),
        _ => {
            let y = x * x - x;
            tau.powi(6) / 720.0 * (y * y * (y - 0.5) + 1.0 / 42.0)
        }
    };
    if ![2, 4, 6].contains(&alpha) {
        return Err(Error::argument("alpha", "2, 4 or 6", alpha));
    }
    if n == 0 {
        return Err(Error::empty("n"));
    }
    if n > MOST {
        return Err(Error::too_large("n", n, MOST, "points"));
    }
    Ok((0..n).into_par_iter().map(|k| value(k.min(n - k) as f64 / n as f64)).collect())
}

/// The figure of merit of a lattice of `n` points with vector `z` and product weights:
///
/// ```text
/// P_alpha = -1 + 1/n sum_k prod_j (1 + weight_j sum over h != 0 of |h|^-alpha e^(2 pi i h k z_j / n))
/// ```
///
/// the square of the worst error for functions of the weighted Korobov space whose mixed derivatives of order
/// `alpha / 2` are square integrable. Costs `n` products of d factors.
///
/// # Errors
/// `alpha` other than 2, 4 and 6, no points or more than 2^28, no coordinates, or weights that are not d finite
/// numbers from 0.
pub fn lattice_p(alpha: u32, n: u64, z: &[u64], weights: &[f64]) -> Result<f64> {
    if z.is_empty() {
        return Err(Error::empty("vector"));
    }
    check_weights(weights, z.len())?;
    let kernel = kernel(alpha, n)?;
    let part = |range: std::ops::Range<usize>| {
        let mut products = vec![1.0; range.len()];
        for (&z, weight) in z.iter().zip(weights) {
            multiply(&mut products, range.start as u64, z % n, *weight, &kernel);
        }
        products.iter().sum::<f64>()
    };
    let sum = par::map_reduce(n as usize, PART, part, |a, b| a + b).unwrap_or(0.0);
    Ok(sum / n as f64 - 1.0)
}

/// Multiplies the products of points `first` and on by the factors of a component.
pub(super) fn multiply(products: &mut [f64], first: u64, z: u64, weight: f64, kernel: &[f64]) {
    let n = kernel.len() as u64;
    let mut at = first * z % n;
    for product in products {
        *product *= 1.0 + weight * kernel[at as usize];
        at += z;
        at -= if at >= n { n } else { 0 };
    }
}
