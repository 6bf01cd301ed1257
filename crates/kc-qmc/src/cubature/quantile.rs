//! The Student quantile, for whole degrees of freedom.

use crate::special::normal_quantile;

/// `P(|T| <= t)` for `freedom` degrees of freedom: a finite sum of powers of `cos(atan(t / sqrt(freedom)))`.
fn two_sided(t: f64, freedom: u64) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = (if odd { cos } else { 1.0 }, 0.0);
    let mut k = if odd { 1.0 } else { 0.0 };
    while k <= freedom as f64 - 2.0 {
        sum += term;
        term *= cos * cos * (k + 1.0) / (k + 2.0);
        k += 2.0;
    }
    if odd { std::f64::consts::FRAC_2_PI * (angle + sin * sum) } else { sin * sum }
}

/// The t with `P(|T| > t) = alpha`.
pub(super) fn student_two_sided(alpha: f64, freedom: u64) -> f64 {
    if freedom > 1 << 20 {
        // The first term of the expansion in 1 / freedom; the next is below 1e-12.
        let z = -normal_quantile(0.5 * alpha);
        return z + z * (z * z + 1.0) / (4.0 * freedom as f64);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided(high, freedom) < 1.0 - alpha && high < f64::MAX / 4.0 {
        (low, high) = (high, 2.0 * high);
    }
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if two_sided(middle, freedom) < 1.0 - alpha { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabulated_quantiles() {
        for (alpha, freedom, t) in [
            (0.01, 14, 2.9768427343708344),
            (0.05, 1, 12.706204736174694),
            (0.01, 255, 2.5952464847916277),
            (0.05, 2, 4.302652729749462),
        ] {
            assert!((student_two_sided(alpha, freedom) / t - 1.0).abs() < 1e-12, "{alpha} {freedom}");
        }
        let close = student_two_sided(0.01, (1 << 20) + 1) / student_two_sided(0.01, 1 << 20);
        assert!((close - 1.0).abs() < 1e-9);
    }
}
