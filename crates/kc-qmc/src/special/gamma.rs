//! The gamma function's logarithm.

use std::f64::consts::PI;

/// `zeta(k) - 1` for k = 2, 3, ...
const ZETA_MINUS_1: [f64; 30] = [
    0.644_934_066_848_226_4,
    0.202_056_903_159_594_3,
    0.082_323_233_711_138_19,
    0.036_927_755_143_369_93,
    0.017_343_061_984_449_14,
    0.008_349_277_381_922_827,
    0.004_077_356_197_944_339,
    0.002_008_392_826_082_214_3,
    0.000_994_575_127_818_085_3,
    0.000_494_188_604_119_464_6,
    0.000_246_086_553_308_048_3,
    0.000_122_713_347_578_489_15,
    6.124_813_505_870_483e-5,
    3.058_823_630_702_049e-5,
    1.528_225_940_865_187e-5,
    7.637_197_637_899_763e-6,
    3.817_293_264_999_84e-6,
    1.908_212_716_553_939e-6,
    9.539_620_338_727_962e-7,
    4.769_329_867_878_066e-7,
    2.384_505_027_277_33e-7,
    1.192_199_259_653_110_6e-7,
    5.960_818_905_125_948e-8,
    2.980_350_351_465_228e-8,
    1.490_155_482_836_504e-8,
    7.450_711_789_835_43e-9,
    3.725_334_024_788_457e-9,
    1.862_659_723_513_049e-9,
    9.313_274_324_196_682e-10,
    4.656_629_065_033_784e-10,
];
const ONE_MINUS_EULER: f64 = 0.422_784_335_098_467_13;

/// `ln Gamma(x)` for `x > 0` (infinity at 0, NaN below), with a small relative error also near its zeros 1 and 2.
///
/// Between 1/2 and 5/2 by the Maclaurin series of `ln Gamma(1 + z)` with `zeta(k) - 1` for coefficients (Abramowitz and
/// Stegun 6.1.33), elsewhere by Stirling's formula or the recurrence.
///
/// ```
/// use kc_qmc::special::ln_gamma;
/// assert_eq!(ln_gamma(1.0), 0.0);
/// assert!((ln_gamma(5.0) - 24f64.ln()).abs() < 1e-15);
/// ```
pub fn ln_gamma(x: f64) -> f64 {
    if x < 0.0 || x.is_nan() {
        f64::NAN
    } else if x == f64::INFINITY {
        x
    } else if x < 0.5 {
        // Gamma(x) = Gamma(1 + x) / x
        near_one(x) - x.ln_1p() - x.ln()
    } else if x < 1.5 {
        near_one(x - 1.0) - (x - 1.0).ln_1p()
    } else if x < 2.5 {
        near_one(x - 2.0)
    } else if x < 8.0 {
        // (x - 1)(x - 2)... down to the series.
        let (mut y, mut product) = (x, 1.0);
        while y >= 2.5 {
            y -= 1.0;
            product *= y;
        }
        near_one(y - 2.0) + f64::ln(product)
    } else {
        (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + stirling_series(x)
    }
}

/// `ln Gamma(2 + z)` for `|z| <= 1/2`.
fn near_one(z: f64) -> f64 {
    let series = ZETA_MINUS_1.iter().enumerate().rev().fold(0.0, |sum, (i, zeta)| {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        sum * z + sign * zeta / (i as f64 + 2.0)
    });
    z * (ONE_MINUS_EULER + z * series)
}

/// What Stirling's formula lacks, `ln Gamma(x) - ((x - 1/2) ln x - x + ln sqrt(2 pi))`, for `x >= 8`.
fn stirling_series(x: f64) -> f64 {
    /// Bernoulli numbers `B_2k / (2k (2k - 1))`.
    const TERMS: [f64; 9] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
        -3617.0 / 122_400.0,
        43_867.0 / 244_188.0,
    ];
    let inverse = 1.0 / x;
    TERMS.iter().rev().fold(0.0, |sum, term| sum * inverse * inverse + term) * inverse
}

/// [`stirling_series`] for any `x > 0`.
pub(crate) fn stirling_remainder(x: f64) -> f64 {
    if x >= 8.0 {
        stirling_series(x)
    } else if x >= 0.5 {
        ln_gamma(x) - ((x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln())
    } else {
        // One step up: the logarithm of x itself would lose digits.
        ln_gamma(1.0 + x) - ((x + 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln())
    }
}

/// `x ln(x / m) + m - x` without cancellation for `x` near `m` (C. Loader, *Fast and accurate computation of binomial
/// probabilities*, 2000).
pub(crate) fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() > 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    // ln(x / m) = 2 artanh(v)
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let (mut power, squared) = (2.0 * x * v, v * v);
    for j in 1.. {
        power *= squared;
        let next = sum + power / (2.0 * f64::from(j) + 1.0);
        if next == sum || j == 1000 {
            break;
        }
        sum = next;
    }
    sum
}

/// `x^a e^-x / Gamma(a + 1)`
pub(crate) fn gamma_front(a: f64, x: f64) -> f64 {
    (-stirling_remainder(a) - deviance(a, x)).exp() / (2.0 * PI * a).sqrt()
}

/// The lower and the upper regularised incomplete gamma function, `(P(a, x), Q(a, x))`, for `a > 0`, `x >= 0`; NaN
/// elsewhere. The smaller one has a relative error around 1e-14.
///
/// Series below `a + 1`, continued fraction above (Abramowitz and Stegun 6.5.29 and 6.5.31).
pub fn gamma_pq(a: f64, x: f64) -> (f64, f64) {
    if !(a > 0.0 && x >= 0.0) || a.is_infinite() {
        return (f64::NAN, f64::NAN);
    }
    if x == 0.0 {
        return (0.0, 1.0);
    }
    if x == f64::INFINITY {
        return (1.0, 0.0);
    }
    if a < 1.0 && x < 1.5 {
        // P = x^a / Gamma(1 + a) (1 + a sum (-x)^n / ((a + n) n!)), which gives Q without cancellation.
        let log = a * x.ln() - ln_gamma(1.0 + a);
        let (mut term, mut sum) = (1.0, 0.0);
        for n in 1..60 {
            let n = f64::from(n);
            term *= -x / n;
            sum += term / (a + n);
        }
        return (log.exp() * (1.0 + a * sum), -log.exp_m1() - log.exp() * a * sum);
    }
    let front = gamma_front(a, x);
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0, 1.0, a);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        let p = front * sum;
        (p, 1.0 - p)
    } else {
        let q = front * a * upper_fraction(a, x);
        (1.0 - q, q)
    }
}

/// `1/(x + 1 - a - 1(1 - a)/(x + 3 - a - 2(2 - a)/...))`, by Lentz's method.
fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |x: f64| if x.abs() < TINY { TINY } else { x };
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / nonzero(b);
    let mut value = d;
    for n in 1..200_000 {
        let n = f64::from(n);
        let top = -n * (n - a);
        b += 2.0;
        d = 1.0 / nonzero(top * d + b);
        c = nonzero(b + top / c);
        let factor = c * d;
        value *= factor;
        if (factor - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

/// The quantile of the gamma distribution of shape `a` and scale 1 for the lower probability `p` and the upper one
/// `q = 1 - p`, of which the smaller is used. 0 at `p = 0`, infinity at `q = 0`, NaN outside. Relative error around
/// 1e-14, where the result is not below 1e-300.
///
/// ```
/// use kc_qmc::special::{gamma_pq, gamma_quantile};
/// let x = gamma_quantile(2.5, 0.3, 0.7);
/// assert!((gamma_pq(2.5, x).0 - 0.3).abs() < 1e-15);
/// ```
pub fn gamma_quantile(a: f64, p: f64, q: f64) -> f64 {
    if !(a > 0.0 && p >= 0.0 && q >= 0.0) {
        return f64::NAN;
    }
    if p == 0.0 {
        return 0.0;
    }
    if q == 0.0 {
        return f64::INFINITY;
    }
    // Wilson and Hilferty's cube of a normal number; near 0 the leading power.
    let z = if p < q { super::normal_quantile(p) } else { -super::normal_quantile(q) };
    let root = 1.0 - 1.0 / (9.0 * a) + z / (3.0 * a.sqrt());
    let power = (p.ln() + ln_gamma(a + 1.0)) / a;
    let start =
        if a > 0.5 && root > 0.3 { a * root * root * root } else { power.exp().min(a + 1.0 - 2.0 * q.ln()) };
    if start < 1e-290 {
        return power.exp();
    }
    solve(start, |x| {
        let (lower, upper) = gamma_pq(a, x);
        let slope = gamma_front(a, x) * a;
        if p < q { (lower.ln() - p.ln(), slope / lower) } else { (q.ln() - upper.ln(), slope / upper) }
    })
}

/// The positive root of a function that increases with `ln x`; `f` gives its value and its slope in `ln x`. Newton's
/// method, kept in the bracket that is known so far.
pub(crate) fn solve(start: f64, f: impl Fn(f64) -> (f64, f64)) -> f64 {
    const LONGEST: f64 = 6.0;
    let (mut x, mut low, mut high) = (start.clamp(1e-300, 1e300), 0.0f64, f64::INFINITY);
    let mut last = f64::INFINITY;
    for _ in 0..200 {
        let (value, slope) = f(x);
        if value == 0.0 || value.is_nan() {
            break;
        }
        if value > 0.0 {
            high = high.min(x);
        } else {
            low = low.max(x);
        }
        let step = -value / slope;
        let step = if step.is_finite() { step.clamp(-LONGEST, LONGEST) } else { -LONGEST.copysign(value) };
        let mut next = x * step.exp();
        if next <= low || next >= high {
            next = if low > 0.0 && high < f64::INFINITY { low.sqrt() * high.sqrt() } else { next };
        }
        let moved = (next / x).ln().abs();
        x = next;
        // Rounding in `f` keeps steps from vanishing altogether.
        if moved < 3e-16 || (moved < 1e-13 && moved >= last) {
            break;
        }
        last = moved;
    }
    x
}
