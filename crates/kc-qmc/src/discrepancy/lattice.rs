//! The worst-case error of lattices for periodic functions, and the search for vectors that make it small.

use kc_core::{Error, Result, par};
use rayon::prelude::*;

use super::check_weights;

/// Points of a lattice whose merit is asked for, at most.
const MOST: u64 = 1 << 31;

/// Products of a search, at most: some minutes on a few cores.
const EFFORT: u64 = 1 << 42;

/// Points of a part of a sum.
const PART: usize = 1 << 12;

/// `sum over h != 0 of |h|^-alpha e^(2 pi i h x)` at `x = k / n`, for `alpha` 2, 4 or 6: a multiple of a Bernoulli
/// polynomial. The same bits at `k` and `n - k`.
fn kernel(alpha: u32, n: u64) -> Result<Vec<f64>> {
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
/// `alpha` other than 2, 4 and 6, no points or more than 2^31, no coordinates, or weights that are not d finite
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
fn multiply(products: &mut [f64], first: u64, z: u64, weight: f64, kernel: &[f64]) {
    let n = kernel.len() as u64;
    let mut at = first * z % n;
    for product in products {
        *product *= 1.0 + weight * kernel[at as usize];
        at += z;
        at -= if at >= n { n } else { 0 };
    }
}

/// A generating vector that is found component by component: each makes [`lattice_p`] smallest, given those before it,
/// among the numbers without a common divisor with `n`; of equal ones the smallest. The first is 1. Costs `n^2 / 4`
/// products per dimension.
///
/// Source: I. H. Sloan, A. V. Reztsov, *Component-by-component construction of good lattice rules* (2002).
///
/// # Errors
/// As [`lattice_p`]; more than 2^42 products.
pub fn cbc(alpha: u32, n: u64, weights: &[f64]) -> Result<Vec<u64>> {
    if weights.is_empty() {
        return Err(Error::empty("weights"));
    }
    check_weights(weights, weights.len())?;
    let kernel = kernel(alpha, n)?;
    let effort = u128::from(n) * u128::from(n) / 4 * weights.len() as u128;
    if effort > u128::from(EFFORT) {
        let need = u64::try_from(effort).unwrap_or(u64::MAX);
        return Err(Error::too_large("n", need, EFFORT, "products of the search"));
    }
    // Points k and n - k have equal factors: half of them tell all, and z and n - z are equally good.
    let half = (n / 2) as usize + 1;
    let mut products = vec![1.0; half];
    let candidates: Vec<u64> = (1..=(n / 2).max(1)).filter(|&z| gcd(z, n) == 1).collect();
    let mut vector = Vec::with_capacity(weights.len());
    for (j, &weight) in weights.iter().enumerate() {
        let merit = |&z: &u64| {
            let (mut at, mut sum) = (0, 0.0);
            for (k, product) in products.iter().enumerate() {
                let twice = k > 0 && 2 * k as u64 != n;
                sum += product * kernel[at as usize] * if twice { 2.0 } else { 1.0 };
                at += z;
                at -= if at >= n { n } else { 0 };
            }
            sum
        };
        let z = if j == 0 {
            1 % n.max(2)
        } else {
            let merits: Vec<f64> = candidates.par_iter().map(merit).collect();
            let least = merits.iter().copied().fold(f64::INFINITY, f64::min);
            // Equal merits differ by the rounding of sums in another order.
            let size: f64 = products.iter().sum::<f64>() * 2.0 * kernel[0];
            let bound = least + 1e-14 * size;
            candidates.iter().zip(&merits).find(|(_, merit)| **merit <= bound).map_or(1, |(&z, _)| z)
        };
        multiply(&mut products, 0, z % n, weight, &kernel);
        vector.push(z);
    }
    Ok(vector)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
