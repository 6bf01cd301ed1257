//! The search for generating vectors, component by component.
//!
//! Given the products `p_k` of the components so far, the next one makes `sum_k p_k w(k z mod n)` smallest, with `w` the
//! kernel of the figure of merit. If the units modulo `n` up to sign are the powers of one number g (primes, and powers
//! of 2 with g = 5), then with `k = g^i` and `z = g^e` this is a sum over `p(g^i) w(g^(i+e))`: a correlation, which
//! Fourier transforms give for all `z` at once. For powers of 2, points with a common factor `2^s` are such a
//! correlation modulo `n / 2^s`.

use kc_core::{Complex, Error, Result};
use kc_fft::{irfftbr, rfftbr};
use rayon::prelude::*;

use super::check_weights;
use super::lattice::{kernel, multiply};
use crate::primes;

/// Products of a search without transforms, at most: some minutes on a few cores.
const EFFORT: u64 = 1 << 42;

/// Candidates that are compared by their plain sums, at most.
const FINALISTS: usize = 64;

/// A generating vector that is found component by component: each makes [`lattice_p`](super::lattice_p) smallest, given
/// those before it, among the numbers without a common divisor with `n`; of equal ones the smallest. The first is 1.
/// Costs `n log n` per dimension for primes and powers of 2, else `n^2 / 4`.
///
/// Source: I. H. Sloan, A. V. Reztsov, *Component-by-component construction of good lattice rules* (2002); D. Nuyens,
/// R. Cools, *Fast algorithms for component-by-component construction* (2006), for the transforms.
///
/// # Errors
/// As [`lattice_p`](super::lattice_p); more than 2^42 products.
pub fn cbc(alpha: u32, n: u64, weights: &[f64]) -> Result<Vec<u64>> {
    let kernel = checked(alpha, n, weights)?;
    let Some(levels) = levels(n, &kernel)? else {
        return plain_cbc(alpha, n, weights);
    };
    let search = |products: &[f64]| {
        let mut merits = vec![0.0; levels.first().map_or(0, |level| level.points.len())];
        for level in &levels {
            let part = level.correlate(products)?;
            merits.iter_mut().zip(part.iter().cycle()).for_each(|(merit, part)| *merit += 2.0 * part);
        }
        let least = merits.iter().copied().fold(f64::INFINITY, f64::min);
        let bound = least + 1e-12 * size(products, &kernel);
        let units = levels.first().map_or(&[][..], |level| &level.points);
        let mut near: Vec<u64> =
            units.iter().zip(&merits).filter(|(_, merit)| **merit <= bound).map(|(&z, _)| z as u64).collect();
        near.sort_unstable();
        near.truncate(FINALISTS);
        Ok(best(&near, products, &kernel))
    };
    build(n, weights, &kernel, search)
}

/// [`cbc`] without transforms, for any `n`.
///
/// # Errors
/// As there.
pub fn plain_cbc(alpha: u32, n: u64, weights: &[f64]) -> Result<Vec<u64>> {
    let effort = u128::from(n) * u128::from(n) / 4 * weights.len() as u128;
    if effort > u128::from(EFFORT) {
        let need = u64::try_from(effort).unwrap_or(u64::MAX);
        return Err(Error::too_large("n", need, EFFORT, "products of the search"));
    }
    let kernel = checked(alpha, n, weights)?;
    let candidates: Vec<u64> = (1..=(n / 2).max(1)).filter(|&z| gcd(z, n) == 1).collect();
    build(n, weights, &kernel, |products| Ok(best(&candidates, products, &kernel)))
}

fn checked(alpha: u32, n: u64, weights: &[f64]) -> Result<Vec<f64>> {
    if weights.is_empty() {
        return Err(Error::empty("weights"));
    }
    check_weights(weights, weights.len())?;
    kernel(alpha, n)
}

/// Component after component, by a search from the products so far. Points k and n - k have equal factors: half of them
/// tell all, and z and n - z are equally good.
fn build(
    n: u64,
    weights: &[f64],
    kernel: &[f64],
    search: impl Fn(&[f64]) -> Result<u64>,
) -> Result<Vec<u64>> {
    let mut products = vec![1.0; (n / 2) as usize + 1];
    let mut vector = Vec::with_capacity(weights.len());
    for (j, &weight) in weights.iter().enumerate() {
        let z = if j == 0 { 1 } else { search(&products)? };
        multiply(&mut products, 0, z % n, weight, kernel);
        vector.push(z);
    }
    Ok(vector)
}

/// The best of the candidates, which are in ascending order; of equal ones the first.
fn best(candidates: &[u64], products: &[f64], kernel: &[f64]) -> u64 {
    let n = kernel.len() as u64;
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
    let merits: Vec<f64> = candidates.par_iter().map(merit).collect();
    let least = merits.iter().copied().fold(f64::INFINITY, f64::min);
    // Equal merits differ by the rounding of sums in another order.
    let bound = least + 1e-14 * size(products, kernel);
    candidates.iter().zip(&merits).find(|(_, merit)| **merit <= bound).map_or(1, |(&z, _)| z)
}

/// What a sum of products can be at most: the measure of its rounding.
fn size(products: &[f64], kernel: &[f64]) -> f64 {
    2.0 * kernel[0].abs() * products.iter().map(|product| product.abs()).sum::<f64>()
}

/// Points whose sum is a correlation.
#[derive(Debug)]
struct Level {
    /// The points `g^i` up to sign: indices of products.
    points: Vec<usize>,
    /// The transform of the kernel at `g^e`.
    spectrum: Vec<Complex<f64>>,
    /// Length of the transform, a power of 2.
    len: usize,
}

impl Level {
    fn new(points: Vec<usize>, kernel: &[f64]) -> Result<Self> {
        let period = points.len();
        // Two periods of the kernel, so that a correlation does not wrap around; or one if that is what is wanted.
        let len = if period.is_power_of_two() { period.max(2) } else { (2 * period).next_power_of_two() };
        let values = (0..len).map(|e| if e < 2 * period { kernel[points[e % period]] } else { 0.0 });
        Ok(Self { spectrum: transform(values, len)?, points, len })
    }

    /// `sum_i p(g^i) w(g^(i+e))` for each e.
    fn correlate(&self, products: &[f64]) -> Result<Vec<f64>> {
        let period = self.points.len();
        let values = (0..self.len).map(|i| self.points.get(i).map_or(0.0, |&k| products[k]));
        let mut product = transform(values, self.len)?;
        let scale = (self.len as f64).sqrt();
        product.iter_mut().zip(&self.spectrum).for_each(|(a, b)| *a = a.conj() * b * scale);
        let mut sums = vec![0.0; self.len];
        irfftbr(&product, self.len, &mut sums)?;
        Ok((0..period).map(|e| sums[reverse(e, self.len)]).collect())
    }
}

/// The independent half of the unitary transform.
fn transform(values: impl Iterator<Item = f64>, len: usize) -> Result<Vec<Complex<f64>>> {
    let mut reversed = vec![0.0; len];
    values.enumerate().for_each(|(at, value)| reversed[reverse(at, len)] = value);
    let mut out = vec![Complex::new(0.0, 0.0); len / 2 + 1];
    rfftbr(&reversed, len, &mut out)?;
    Ok(out)
}

/// The bits of an index below `len` in opposite order.
fn reverse(at: usize, len: usize) -> usize {
    at.reverse_bits() >> (usize::BITS - len.trailing_zeros())
}

/// The correlations that make up the sum, the first over all units; `None` if `n` has no such structure. Points whose
/// factor is the same for all candidates are left out.
fn levels(n: u64, kernel: &[f64]) -> Result<Option<Vec<Level>>> {
    let orbit = |start: u64, generator: u64, len: u64| {
        let powers = std::iter::successors(Some(start), |k| Some(k * generator % n));
        powers.take(len as usize).map(|k| k.min(n - k) as usize).collect()
    };
    if n.is_power_of_two() && n >= 16 {
        let levels = (0..n.ilog2() - 2).map(|s| Level::new(orbit(1 << s, 5, n >> (s + 2)), kernel));
        return Ok(Some(levels.collect::<Result<_>>()?));
    }
    if n < 16 || !primes::is_prime(n as u32) {
        return Ok(None);
    }
    let generator = primitive_root(n);
    Ok(Some(vec![Level::new(orbit(1, generator, (n - 1) / 2), kernel)?]))
}

/// The least number whose powers are all units modulo the prime `n`.
fn primitive_root(n: u64) -> u64 {
    let factors: Vec<u64> = {
        let (mut rest, mut factors) = (n - 1, Vec::new());
        for d in (2..).take_while(|d| d * d < n) {
            if rest.is_multiple_of(d) {
                factors.push(d);
                while rest.is_multiple_of(d) {
                    rest /= d;
                }
            }
        }
        factors.extend((rest > 1).then_some(rest));
        factors
    };
    let power = |base: u64, exponent: u64| {
        (0..u64::BITS - exponent.leading_zeros()).rev().fold(1, |value, bit| {
            let square = value * value % n;
            if exponent >> bit & 1 == 1 { square * base % n } else { square }
        })
    };
    (2..n).find(|&g| factors.iter().all(|f| power(g, (n - 1) / f) != 1)).unwrap_or(1)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
