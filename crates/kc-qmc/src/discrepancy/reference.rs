//! The definition: sums over all points and all pairs.

use super::Kind;

/// The discrepancy of the rows of `points`, of `d` values each. A weight for each coordinate, or none.
pub fn discrepancy(points: &[f64], d: usize, kind: Kind, weights: Option<&[f64]>) -> f64 {
    let n = (points.len() / d) as f64;
    let weighted = |j: usize, factor: f64| match (weights, kind) {
        (None, _) => factor,
        (Some(g), Kind::L2Star) => 1.0 + g[j] * factor,
        (Some(g), _) => 1.0 + g[j] * (factor - 1.0),
    };
    let constant = match kind {
        Kind::L2Star => 1.0 / 3.0,
        Kind::Centered => 13.0 / 12.0,
        Kind::WrapAround => 4.0 / 3.0,
        Kind::Mixture => 19.0 / 12.0,
    };
    let single = |x: f64| {
        let a = (x - 0.5).abs();
        match kind {
            Kind::L2Star => (1.0 - x * x) / 2.0,
            Kind::Centered => 1.0 + a / 2.0 - a * a / 2.0,
            Kind::WrapAround => 4.0 / 3.0,
            Kind::Mixture => 5.0 / 3.0 - a / 4.0 - a * a / 4.0,
        }
    };
    let double = |x: f64, y: f64| {
        let (a, b, e) = ((x - 0.5).abs(), (y - 0.5).abs(), (x - y).abs());
        match kind {
            Kind::L2Star => 1.0 - x.max(y),
            Kind::Centered => 1.0 + (a + b) / 2.0 - e / 2.0,
            Kind::WrapAround => 1.5 - e * (1.0 - e),
            Kind::Mixture => 15.0 / 8.0 - (a + b) / 4.0 - 0.75 * e + e * e / 2.0,
        }
    };
    let constant: f64 = (0..d).map(|j| weighted(j, constant)).product();
    let (mut once, mut twice) = (0.0, 0.0);
    for x in points.chunks(d) {
        once += x.iter().enumerate().map(|(j, &x)| weighted(j, single(x))).product::<f64>();
        for y in points.chunks(d) {
            twice += (0..d).map(|j| weighted(j, double(x[j], y[j]))).product::<f64>();
        }
    }
    let square = constant - 2.0 * once / n + twice / (n * n);
    if kind == Kind::L2Star { square.max(0.0).sqrt() } else { square }
}
