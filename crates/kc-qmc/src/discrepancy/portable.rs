//! Sums over blocks of pairs of points.

use super::{BLOCK, Columns, Kind};

/// The constant of a factor, less its base.
pub(super) fn constant(kind: Kind) -> f64 {
    match kind {
        Kind::L2Star | Kind::WrapAround => 1.0 / 3.0,
        Kind::Centered => 1.0 / 12.0,
        Kind::Mixture => 7.0 / 12.0,
    }
}

/// The factor of one point, less its base.
fn single(kind: Kind, x: f64, off: f64) -> f64 {
    match kind {
        Kind::L2Star => (1.0 - x * x) / 2.0,
        Kind::Centered => (off - off * off) / 2.0,
        Kind::WrapAround => 1.0 / 3.0,
        Kind::Mixture => 2.0 / 3.0 - (off + off * off) / 4.0,
    }
}

/// Sums of the products of single points in a block, and of all pairs of it with itself and with later blocks, these
/// counted twice.
#[inline(always)]
pub(super) fn row(kind: Kind, columns: &Columns, block: usize) -> [f64; 2] {
    let first = block * BLOCK;
    let last = (first + BLOCK).min(columns.n);
    let singles = |i: usize| -> f64 {
        let factor = |(j, g): (usize, &f64)| {
            let at = j * columns.padded + i;
            columns.base + g * single(kind, columns.x[at], columns.off[at])
        };
        columns.weights.iter().enumerate().map(factor).product()
    };
    let pairs = match kind {
        Kind::L2Star => pairs(columns, block, |[x, _], [y, _]| 1.0 - if x > y { x } else { y }),
        Kind::Centered => pairs(columns, block, |[x, a], [y, b]| 0.5 * ((a + b) - (x - y).abs())),
        Kind::WrapAround => pairs(columns, block, |[x, _], [y, _]| {
            let e = (x - y).abs();
            0.5 - e * (1.0 - e)
        }),
        Kind::Mixture => pairs(columns, block, |[x, a], [y, b]| {
            let e = (x - y).abs();
            (0.875 - 0.25 * (a + b)) - e * (0.75 - 0.5 * e)
        }),
    };
    [(first..last).map(singles).sum(), pairs]
}

/// The pairs of [`row`], from the factor of two points (coordinate and distance from the centre), less its base.
#[inline(always)]
fn pairs(columns: &Columns, block: usize, factor: impl Fn([f64; 2], [f64; 2]) -> f64) -> f64 {
    let first = block * BLOCK;
    let last = (first + BLOCK).min(columns.n);
    let mut sum = 0.0;
    for start in (first..columns.padded).step_by(BLOCK) {
        let mut lanes = [0.0; BLOCK];
        for i in first..last {
            let mut product = [1.0; BLOCK];
            for (j, &g) in columns.weights.iter().enumerate() {
                let column = j * columns.padded;
                let (x, a) = (columns.x[column + i], columns.off[column + i]);
                let here = column + start..column + start + BLOCK;
                let (y, b) = (&columns.x[here.clone()], &columns.off[here]);
                for ((product, &y), &b) in product.iter_mut().zip(y).zip(b) {
                    *product *= columns.base + g * factor([x, a], [y, b]);
                }
            }
            lanes.iter_mut().zip(product).for_each(|(lane, product)| *lane += product);
        }
        let valid = BLOCK.min(columns.n - start);
        let total: f64 = lanes[..valid].iter().sum();
        sum += if start == first { total } else { 2.0 * total };
    }
    sum
}
