//! Coordinates in base 2.
//!
//! Sums of the first 53 binary digits are exact, so they are one integer times 2^-53. The few digits after them are
//! added one by one, as they may round.

use super::coordinate::{Coordinate, DigitMap, powers};
use super::matrix::MOST_DIGITS;

/// Base-2 logarithm of the rows of a block.
const LOW: usize = 10;

/// Digits that an integer becomes a value of without rounding.
const EXACT: usize = 53;

/// Rows of one step.
const ROWS: usize = 8;

/// A coordinate whose points are integers of 64 bits, first digit on top.
#[derive(Debug)]
pub(super) struct Binary {
    /// The points of the first block before `flips`, `2^low_digits` of them.
    low: Vec<u64>,
    /// Columns of the digits of the index after those.
    high: Vec<u64>,
    /// What shift or permutations do to all points.
    flips: u64,
    /// Where the digits after the exact ones stand, and what they are worth.
    rest: Vec<(u32, u64)>,
}

impl Binary {
    pub(super) fn new(coordinate: &Coordinate) -> Self {
        let matrix = &coordinate.matrix;
        let digits = coordinate.significant().min(MOST_DIGITS);
        let place = |k: usize| 63 - k as u32;
        let number = |column: &[u16]| {
            column
                .iter()
                .take(digits)
                .enumerate()
                .fold(0, |sum, (k, &digit)| sum | u64::from(digit) << place(k))
        };
        let columns: Vec<u64> = (0..matrix.columns()).map(|c| number(matrix.column(c))).collect();
        let (first, high) = columns.split_at(columns.len().min(LOW));
        let mut low = vec![0];
        for column in first {
            low.extend_from_within(..);
            let half = low.len() / 2;
            low[half..].iter_mut().for_each(|point| *point ^= column);
        }
        let flips = match &coordinate.map {
            DigitMap::Identity => 0,
            // The image of digit 0 is 1 where digits are flipped.
            _ => number(&coordinate.images(digits).into_iter().step_by(2).collect::<Vec<_>>()),
        };
        let worth = powers(2).take(digits).enumerate().skip(EXACT);
        let rest = worth.map(|(k, power)| (place(k), power.to_bits())).collect();
        Self { low, high: high.to_vec(), flips, rest }
    }

    /// Writes the values of the rows from `first` on.
    #[inline(always)]
    pub(super) fn fill(&self, first: u64, mut out: &mut [f64]) {
        let mut row = first;
        while !out.is_empty() {
            let block = self.low.len() as u64;
            let start = (row % block) as usize;
            let (now, later) = out.split_at_mut((self.low.len() - start).min(out.len()));
            let h = row / block;
            let chosen = |(c, column): (usize, &u64)| if h >> c & 1 == 1 { *column } else { 0 };
            let high = self.high.iter().enumerate().map(chosen).fold(self.flips, |sum, column| sum ^ column);
            let low = &self.low[start..start + now.len()];
            row += now.len() as u64;
            let mut groups = now.chunks_exact_mut(ROWS);
            let mut points = low.chunks_exact(ROWS);
            for (group, low) in groups.by_ref().zip(points.by_ref()) {
                let mut x = [0; ROWS];
                x.copy_from_slice(low);
                let mut values = [0.0; ROWS];
                for (value, x) in values.iter_mut().zip(&mut x) {
                    *x ^= high;
                    *value = exact(*x);
                }
                for &(place, power) in &self.rest {
                    for (value, x) in values.iter_mut().zip(&x) {
                        *value += f64::from_bits(power & 0u64.wrapping_sub(x >> place & 1));
                    }
                }
                group.copy_from_slice(&values);
            }
            for (value, low) in groups.into_remainder().iter_mut().zip(points.remainder()) {
                let x = low ^ high;
                let add =
                    |sum, &(place, power)| sum + f64::from_bits(power & 0u64.wrapping_sub(x >> place & 1));
                *value = self.rest.iter().fold(exact(x), add);
            }
            out = later;
        }
    }
}

/// The value of the first 53 digits.
#[inline(always)]
fn exact(x: u64) -> f64 {
    const SCALE: f64 = 1.0 / (1u64 << EXACT) as f64;
    (x >> (64 - EXACT)) as f64 * SCALE
}
