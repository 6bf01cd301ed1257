//! One coordinate of one replication: a matrix, and what happens to the digits that it gives.

use super::matrix::DigitMatrix;
use super::random;
use crate::rng::Sfc64;

/// What happens to each digit of a point.
#[derive(Debug, Clone)]
pub(super) enum DigitMap {
    /// Nothing; digits beyond the matrix are 0.
    Identity,
    /// This is added to digit `k`.
    Shift(Vec<u16>),
    /// Each digit has its own permutation; drawn again from here whenever they are needed, as together they can be
    /// large.
    Permute(Sfc64),
}

/// A coordinate.
#[derive(Debug, Clone)]
pub(super) struct Coordinate {
    pub(super) matrix: DigitMatrix,
    pub(super) map: DigitMap,
    /// Digits of a point.
    pub(super) digits: usize,
}

impl Coordinate {
    /// Digits that can differ from 0.
    pub(super) fn significant(&self) -> usize {
        match self.map {
            DigitMap::Identity => self.matrix.rows.min(self.digits),
            _ => self.digits,
        }
    }

    /// What the first `count` digits become: entry `[k][digit]`.
    pub(super) fn images(&self, count: usize) -> Vec<u16> {
        let base = self.matrix.base;
        let mut images = vec![0; count * base as usize];
        let mut rng = match &self.map {
            DigitMap::Permute(rng) => Some(rng.clone()),
            _ => None,
        };
        for (k, images) in images.chunks_exact_mut(base as usize).enumerate() {
            match (&self.map, &mut rng) {
                (_, Some(rng)) => random::permutation(rng, images),
                (DigitMap::Shift(shift), _) => {
                    for (digit, image) in (0..base).zip(images) {
                        *image = ((digit + u32::from(shift[k])) % base) as u16;
                    }
                }
                _ => {
                    for (digit, image) in (0..base).zip(images) {
                        *image = digit as u16;
                    }
                }
            }
        }
        images
    }

    /// The value of point `i` from all of its digits: for values so small that digits matter which tables leave out.
    pub(super) fn value(&self, i: u64) -> f64 {
        let digits = self.matrix.digits(i);
        let count = self.significant();
        let at = |k: usize| digits.get(k).copied().unwrap_or(0);
        match self.map {
            DigitMap::Identity => sum_of_digits(self.matrix.base, (0..count).map(at)),
            _ => {
                let images = self.images(count);
                let image = |k| u32::from(images[k * self.matrix.base as usize + at(k) as usize]);
                sum_of_digits(self.matrix.base, (0..count).map(image))
            }
        }
    }
}

/// `b^-1, b^-2, ...`, by repeated division as the sum of digits needs them.
pub(super) fn powers(base: u32) -> impl Iterator<Item = f64> {
    let base = f64::from(base);
    std::iter::successors(Some(1.0 / base), move |power| Some(power / base))
}

/// The value of digits, most significant first and summed in that order.
pub(super) fn sum_of_digits(base: u32, digits: impl IntoIterator<Item = u32>) -> f64 {
    powers(base).zip(digits).fold(0.0, |value, (power, digit)| value + power * f64::from(digit))
}
