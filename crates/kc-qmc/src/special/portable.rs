//! The body of the normal quantile on slices, compiled for each instruction set.
//!
//! Five sixths of all values lie in the central region, where a rational function of `u - 1/2` is enough. The
//! others need a logarithm and a square root: their places are collected, and they are done densely, so that
//! vector lanes stay full in both parts.

use kc_core::math::portable::{Arith, log};

/// Values per piece: what the buffers on the stack hold.
const CHUNK: usize = 256;
/// `u - 1/2` up to which the central approximation holds.
const CENTRAL: f64 = 0.425;
/// `r = sqrt(-ln u)` from which the far approximation holds.
const FAR: f64 = 5.0;

/// Wichura's AS 241 (PPND16): x / q in 0.180625 - q^2, numerator and denominator, highest power first.
const CENTRE: [[f64; 8]; 2] = [
    [
        2_509.080_928_730_122_7,
        33_430.575_583_588_13,
        67_265.770_927_008_7,
        45_921.953_931_549_87,
        13_731.693_765_509_46,
        1_971.590_950_306_551_3,
        133.141_667_891_784_38,
        3.387_132_872_796_366_5,
    ],
    [
        5_226.495_278_852_854,
        28_729.085_735_721_943,
        39_307.895_800_092_71,
        21_213.794_301_586_597,
        5_394.196_021_424_751,
        687.187_007_492_057_9,
        42.313_330_701_600_91,
        1.0,
    ],
];
/// x in r - 1.6.
const NEAR_TAIL: [[f64; 8]; 2] = [
    [
        0.000_774_545_014_278_341_4,
        0.022_723_844_989_269_184,
        0.241_780_725_177_450_6,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9,
        0.000_547_593_808_499_534_5,
        0.015_198_666_563_616_457,
        0.148_103_976_427_480_08,
        0.689_767_334_985_1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ],
];
/// x in r - 5.
const FAR_TAIL: [[f64; 8]; 2] = [
    [
        2.010_334_399_292_288_1e-7,
        2.711_555_568_743_487_6e-5,
        0.001_242_660_947_388_078_4,
        0.026_532_189_526_576_124,
        0.296_560_571_828_504_87,
        1.784_826_539_917_291_3,
        5.463_784_911_164_114,
        6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_7e-15,
        1.421_511_758_316_446e-7,
        1.846_318_317_510_054_8e-5,
        0.000_786_869_131_145_613_3,
        0.014_875_361_290_850_615,
        0.136_929_880_922_735_8,
        0.599_832_206_555_888,
        1.0,
    ],
];

#[inline(always)]
fn ratio<A: Arith>(x: f64, [top, bottom]: &[[f64; 8]; 2]) -> f64 {
    let horner = |c: &[f64; 8]| c[1..].iter().fold(c[0], |sum, &c| A::fma64(sum, x, c));
    horner(top) / horner(bottom)
}

#[inline(always)]
fn central<A: Arith>(u: f64) -> f64 {
    let q = u - 0.5;
    q * ratio::<A>(A::fma64(-q, q, CENTRAL * CENTRAL), &CENTRE)
}

/// The size of the quantile for `r = sqrt(-ln p)` beyond the near tail.
fn far<A: Arith>(r: f64) -> f64 {
    if r == f64::INFINITY { r } else { ratio::<A>(r - FAR, &FAR_TAIL) }
}

/// The standard normal quantile of every element: -infinity at 0, infinity at 1, NaN outside.
#[inline(always)]
pub(super) fn quantile<A: Arith>(u: &[f64], out: &mut [f64]) {
    for (u, out) in u.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        for (&u, out) in u.iter().zip(out.iter_mut()) {
            *out = central::<A>(u);
        }
        // One place more than there can be, so that the last write needs no branch.
        let (mut at, mut count) = ([0u8; CHUNK + 1], 0);
        for (i, &u) in u.iter().enumerate() {
            at[count] = i as u8;
            // NaN is not central either.
            let central = (u - 0.5).abs() <= CENTRAL;
            count += usize::from(!central);
        }
        tails::<A>(u, out, &at[..count]);
    }
}

/// Writes the quantiles of the elements `at`, which are outside of the central region.
#[inline(always)]
fn tails<A: Arith>(u: &[f64], out: &mut [f64], at: &[u8]) {
    // Whole vectors: what the last one lacks is filled with a harmless value.
    let padded = at.len().next_multiple_of(8).min(CHUNK);
    let mut r = [0.05f64; CHUNK];
    for (r, &at) in r.iter_mut().zip(at) {
        let u = u[usize::from(at)];
        *r = if u < 0.5 { u } else { 1.0 - u };
    }
    let mut x = [0.0f64; CHUNK];
    for (r, x) in r[..padded].iter_mut().zip(&mut x[..padded]) {
        *r = (-log::<f64, A>(*r)).sqrt();
        *x = ratio::<A>(*r - 1.6, &NEAR_TAIL);
    }
    // One value in 10^11. Counted, as a maximum of floats or an early exit would keep this out of vector lanes.
    let far_ones: u64 = r[..padded].iter().map(|&r| u64::from(r > FAR)).sum();
    if far_ones > 0 {
        for (r, x) in r[..at.len()].iter().zip(&mut x) {
            if *r > FAR {
                *x = far::<A>(*r);
            }
        }
    }
    for (&x, &at) in x.iter().zip(at) {
        let at = usize::from(at);
        out[at] = x.copysign(u[at] - 0.5);
    }
}

/// The quantile of one value.
pub(super) fn quantile_of_one<A: Arith>(u: f64) -> f64 {
    if (u - 0.5).abs() <= CENTRAL {
        return central::<A>(u);
    }
    let r = (-log::<f64, A>(if u < 0.5 { u } else { 1.0 - u })).sqrt();
    let x = if r > FAR { far::<A>(r) } else { ratio::<A>(r - 1.6, &NEAR_TAIL) };
    x.copysign(u - 0.5)
}
