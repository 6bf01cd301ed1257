//! The normal distribution: quantile, distribution function, density.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::math::portable::Plain;
use kc_core::{Error, Isa, Result};

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// The standard normal quantile: `x` with `normal_cdf(x) = u`. -infinity at 0, infinity at 1, NaN outside.
///
/// Relative error at most 2e-15 for `u` in `[1e-300, 1 - 2^-53]`. Source: M. J. Wichura, *Algorithm AS 241: the
/// percentage points of the normal distribution*, Applied Statistics 37 (1988).
///
/// ```
/// use kc_qmc::special::normal_quantile;
/// assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-14);
/// ```
pub fn normal_quantile(u: f64) -> f64 {
    portable::quantile_of_one::<Plain>(u)
}

/// [`normal_quantile`] of every element of `u`, into `out`, with the best instructions there are.
///
/// # Errors
/// `Shape` if the lengths differ.
pub fn normal_quantiles(u: &[f64], out: &mut [f64]) -> Result<()> {
    normal_quantiles_with(Isa::best(), u, out)
}

/// [`normal_quantiles`] at the level of `isa`. An element's result depends on its value alone; levels differ by
/// the error bound.
///
/// # Errors
/// `Shape` if the lengths differ.
pub fn normal_quantiles_with(isa: Isa, u: &[f64], out: &mut [f64]) -> Result<()> {
    if u.len() != out.len() {
        return Err(Error::shape("out", format!("{} elements, as u", u.len()), &[out.len()]));
    }
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 {
        x86::quantile(isa, u, out);
        return Ok(());
    }
    let _ = isa;
    portable::quantile::<Plain>(u, out);
    Ok(())
}

/// The standard normal density.
pub fn normal_pdf(x: f64) -> f64 {
    bell(x, 0.5) / (2.0 * PI).sqrt()
}

/// The standard normal distribution function. Relative error below 2e-15 wherever the result is a normal number.
pub fn normal_cdf(x: f64) -> f64 {
    // In the tail the argument is not divided by sqrt(2) before it is squared: that rounding would grow.
    if x < -1.0 {
        0.5 * bell(x, 0.5) * scaled_erfc(-x * FRAC_1_SQRT_2)
    } else {
        0.5 * erfc(-x * FRAC_1_SQRT_2)
    }
}

/// `exp(-scale x^2)` for a power of two `scale`. The square is taken in two parts, so that its rounding does not grow
/// into the result.
pub(crate) fn bell(x: f64, scale: f64) -> f64 {
    // The upper half of the digits squares exactly.
    let high = f64::from_bits(x.to_bits() & !((1 << 27) - 1));
    if !high.is_finite() {
        return if x.is_nan() { x } else { 0.0 };
    }
    (-scale * high * high).exp() * (-scale * (x - high) * (x + high)).exp()
}

/// The complementary error function `2/sqrt(pi)` times the integral of `exp(-t^2)` from `x` to infinity.
/// Relative error below 1e-15 wherever the result is a normal number.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        2.0 - erfc(-x)
    } else if x < 0.5 {
        // erf by its Maclaurin series with positive terms, exp(-x^2) sum 2^n x^(2n+1) / (2n+1)!!.
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    } else if x.is_nan() {
        x
    } else {
        bell(x, 1.0) * scaled_erfc(x)
    }
}

/// `(1 + 2x) exp(x^2) erfc(x)` as a Chebyshev series in `(x - 4) / (x + 4)` (the form of Shepherd and Laframboise,
/// 1981; coefficients computed with 40 digits).
const SCALED_ERFC: [f64; 27] = [
    1.177_483_200_537_448_7,
    -0.007_260_796_620_301_901,
    -0.081_265_123_236_185,
    0.060_092_128_041_222_25,
    -0.028_753_935_580_276_66,
    0.010_595_663_363_472_86,
    -0.003_136_927_294_554_264,
    0.000_745_649_437_253_618_4,
    -0.000_136_969_650_301_005_4,
    1.718_386_160_030_093_7e-5,
    -7.158_364_623_450_346e-7,
    -2.426_139_944_244_953_4e-7,
    5.576_570_939_570_356_6e-8,
    -2.105_786_951_380_949_4e-9,
    -1.171_788_935_188_495_7e-9,
    1.909_835_517_245_668_8e-10,
    1.408_871_764_208_813e-11,
    -6.901_108_320_480_815e-12,
    9.167_958_364_111_294e-14,
    2.145_450_828_655_455_3e-13,
    -1.471_657_502_701_062_3e-14,
    -6.668_675_118_770_408e-15,
    7.504_598_509_880_083e-16,
    2.220_093_006_666_32e-16,
    -3.170_489_895_633_088_6e-17,
    -8.193_570_309_884_333e-18,
    1.245_981_973_312_957_4e-18,
];

/// `exp(x^2) erfc(x)` for `x >= 0`.
fn scaled_erfc(x: f64) -> f64 {
    if x == f64::INFINITY {
        return 0.0;
    }
    let t = 2.0 * ((x - 4.0) / (x + 4.0));
    let (mut a, mut b) = (0.0, 0.0);
    for &c in SCALED_ERFC[1..].iter().rev() {
        (a, b) = (t * a - b + c, a);
    }
    (0.5 * t * a - b + SCALED_ERFC[0]) / (1.0 + 2.0 * x)
}
