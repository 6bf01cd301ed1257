//! The definition, digit by digit.

use super::coordinate::DigitMap;
use super::{GeneralNet, Source};

/// Point `i` of a replication of a net.
///
/// # Panics
/// If the net has no such replication, or is scrambled nested and has not been asked for the point before.
pub fn point(net: &GeneralNet, replication: usize, i: u64) -> Vec<f64> {
    match &net.source {
        Source::Digits(coordinates) => {
            coordinates[replication * net.dim..][..net.dim].iter().map(|c| value(c, i)).collect()
        }
        Source::Nested { tries, digits } => {
            let alpha = net.config.alpha;
            let of = |j: usize| {
                let mut value = [0.0];
                super::nus::fill(
                    &tries[(replication * net.dim + j) * alpha..][..alpha],
                    *digits,
                    i,
                    &mut value,
                );
                value[0]
            };
            (0..net.dim).map(of).collect()
        }
        Source::Multiplied(coordinates) => coordinates.iter().map(|c| c.value(i)).collect(),
    }
}

fn value(coordinate: &super::coordinate::Coordinate, mut i: u64) -> f64 {
    let matrix = &coordinate.matrix;
    let base = u64::from(matrix.base);
    let mut digits = vec![0u64; coordinate.digits.max(matrix.rows)];
    for c in 0..matrix.columns() {
        for (k, digit) in digits.iter_mut().enumerate().take(matrix.rows) {
            *digit = (*digit + i % base * u64::from(matrix.column(c)[k])) % base;
        }
        i /= base;
    }
    let mut rng = match &coordinate.map {
        DigitMap::Permute(rng) => Some(rng.clone()),
        _ => None,
    };
    let (mut sum, mut power) = (0.0, 1.0 / base as f64);
    for (k, &digit) in digits.iter().enumerate().take(coordinate.digits) {
        let digit = match (&coordinate.map, &mut rng) {
            (_, Some(rng)) => u64::from(rng.permutation(base as usize)[digit as usize]),
            (DigitMap::Shift(shift), _) => (digit + u64::from(shift[k])) % base,
            _ => digit,
        };
        sum += power * digit as f64;
        power /= base as f64;
    }
    sum
}
