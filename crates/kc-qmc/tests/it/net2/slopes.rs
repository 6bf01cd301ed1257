//! How fast errors fall: the slopes that QMCPy shows for the same seed and functions.

use kc_qmc::{NusEngine, Randomize, Sequence};

use super::{config, net};

/// The slope of log2 of the root mean squared error over log2 of the number of points.
fn slope(randomize: Randomize, alpha: usize, f: fn(&[f64]) -> f64, replications: usize, last: u32) -> f64 {
    let mut net =
        net(&config(2, 3, |c| (c.randomize, c.alpha, c.replications) = (randomize, alpha, replications)));
    let logs = 4..=last;
    let errors: Vec<f64> = logs
        .clone()
        .map(|log| {
            let points = net.points(0..1 << log).unwrap();
            let squares = points.as_slice().chunks(2 << log).map(|set| {
                let mean = set.chunks(2).map(f).sum::<f64>() / f64::from(1u32 << log);
                mean * mean
            });
            (squares.sum::<f64>() / replications as f64).sqrt().log2()
        })
        .collect();
    let logs: Vec<f64> = logs.map(f64::from).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (x, y) = (mean(&logs), mean(&errors));
    let product: f64 = logs.iter().zip(&errors).map(|(a, b)| (a - x) * (b - y)).sum();
    product / logs.iter().map(|a| (a - x).powi(2)).sum::<f64>()
}

/// Not symmetric, with mean 0.
fn skew(x: &[f64]) -> f64 {
    x[1] * (x[0] * x[1]).exp() / (1f64.exp() - 2.0) - 1.0
}

/// A product of lines, with mean 0.
fn lines(x: &[f64]) -> f64 {
    (0.5 + x[0]) * (0.5 + x[1]) - 1.0
}

/// Randomisation, interlacing, integrand, replications, largest log2 n, the slope of QMCPy's points.
type Case = (Randomize, usize, fn(&[f64]) -> f64, usize, u32, f64);

#[test]
fn errors_fall_as_fast_as_the_references() {
    let nus = |engine| Randomize::Nus(engine);
    let cases: [Case; 10] = [
        (Randomize::Ds, 1, skew, 64, 14, -1.01),
        (Randomize::LmsDs, 1, skew, 64, 14, -1.57),
        (nus(NusEngine::Trie), 1, skew, 16, 10, -1.41),
        (nus(NusEngine::Hash), 1, skew, 64, 14, -1.41),
        (nus(NusEngine::Auto), 1, skew, 64, 14, -1.41),
        (Randomize::LmsDs, 2, skew, 64, 14, -2.09),
        (Randomize::LmsDs, 3, skew, 64, 14, -2.10),
        (Randomize::LmsDs, 1, lines, 64, 14, -2.56),
        (Randomize::LmsDs, 2, lines, 64, 14, -2.83),
        (Randomize::LmsDs, 3, lines, 64, 14, -3.95),
    ];
    for (randomize, alpha, f, replications, last, want) in cases {
        let got = slope(randomize, alpha, f, replications, last);
        assert!((got - want).abs() < 0.3, "{randomize:?} alpha {alpha}: {got}, expected {want}");
    }
}
