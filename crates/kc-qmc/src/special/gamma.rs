//! The gamma function's logarithm.

use std::f64::consts::PI;

/// `zeta(k) - 1` for k = 2, 3, ...
const ZETA_MINUS_1: [f64; 30] = [
    0.644_934_066_848_226_4,
    0.202_056_903_159_594_28,
    0.082_323_233_711_138_19,
    0.036_927_755_143_369_93,
    0.017_343_061_984_449_14,
    0.008_349_277_381_922_827,
    0.004_077_356_197_944_339,
    0.002_008_392_826_082_214_4,
    0.000_994_575_127_818_085_3,
    0.000_494_188_604_119_464_6,
    0.000_246_086_553_308_048_3,
    0.000_122_713_347_578_489_15,
    6.124_813_505_870_483e-5,
    3.058_823_630_702_049_4e-5,
    1.528_225_940_865_187_2e-5,
    7.637_197_637_899_762e-6,
    3.817_293_264_999_84e-6,
    1.908_212_716_553_939e-6,
    9.539_620_338_727_962e-7,
    4.769_329_867_878_065e-7,
    2.384_505_027_277_33e-7,
    1.192_199_259_653_110_7e-7,
    5.960_818_905_125_948e-8,
    2.980_350_351_465_228e-8,
    1.490_155_482_836_504e-8,
    7.450_711_789_835_43e-9,
    3.725_334_024_788_457e-9,
    1.862_659_723_513_049e-9,
    9.313_274_324_196_682e-10,
    4.656_629_065_033_784e-10,
];
const ONE_MINUS_EULER: f64 = 0.422_784_335_098_467_14;

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
#[expect(dead_code)]
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
