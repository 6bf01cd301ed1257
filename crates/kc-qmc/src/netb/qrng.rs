//! Halton points with the multipliers of Faure and Lemieux and random starts, as in the R package qrng.

use kc_core::{Error, Result};

use super::matrix::digits_of;
use crate::rng::Sfc64;
use crate::{data, primes};

/// Digits of a coordinate.
const DIGITS: usize = 32;

/// One coordinate: `x = (y_0 + (y_1 + ...) / p) / p` with `y_k = (f i_k + s_k) mod p`.
#[derive(Debug, Clone)]
pub(super) struct Multiplied {
    prime: u32,
    multiplier: u32,
    starts: [u32; DIGITS],
}

/// The coordinates of `dims`.
pub(super) fn draw(rng: &mut Sfc64, dims: &[usize]) -> Result<Vec<Multiplied>> {
    let last = dims.iter().copied().max().unwrap_or(0);
    if last >= data::HALTON_QRNG_DIMS {
        let expected = format!("dimensions up to {} with qrng", data::HALTON_QRNG_DIMS);
        return Err(Error::argument("dims", expected, last + 1));
    }
    let primes = primes::first(last + 1);
    let coordinate = |&dim: &usize| {
        let prime = primes[dim];
        let starts = std::array::from_fn(|_| (f64::from(prime) * rng.uniform()) as u32 % prime);
        Multiplied { prime, multiplier: data::halton_qrng(dim), starts }
    };
    Ok(dims.iter().map(coordinate).collect())
}

impl Multiplied {
    /// The value of row `i`, by its definition.
    pub(super) fn value(&self, i: u64) -> f64 {
        let mut digits = [0u32; DIGITS];
        digits.iter_mut().zip(digits_of(i, self.prime)).for_each(|(slot, digit)| *slot = digit);
        digits.iter().zip(&self.starts).rev().fold(0.0, |value, (digit, start)| {
            (value + f64::from((self.multiplier * digit + start) % self.prime)) / f64::from(self.prime)
        })
    }

    /// Writes the values of the rows from `first` on. `partial[k]` is the value of digits k and above, and only those
    /// up to the last digit that changed are computed again.
    pub(super) fn fill(&self, first: u64, out: &mut [f64]) {
        let mut digits = [0u32; DIGITS];
        for (slot, digit) in digits.iter_mut().zip(digits_of(first, self.prime)) {
            *slot = digit;
        }
        let mut partial = [0.0; DIGITS + 1];
        let mut changed = DIGITS;
        for value in out {
            for k in (0..changed).rev() {
                let digit = (self.multiplier * digits[k] + self.starts[k]) % self.prime;
                partial[k] = (partial[k + 1] + f64::from(digit)) / f64::from(self.prime);
            }
            *value = partial[0];
            changed = 0;
            for digit in &mut digits {
                changed += 1;
                *digit += 1;
                if *digit < self.prime {
                    break;
                }
                *digit = 0;
            }
        }
    }
}
