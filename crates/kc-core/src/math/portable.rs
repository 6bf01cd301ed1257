//! The algorithms: branch-free scalar functions, and loops over blocks that compilers turn into vector code.
//!
//! Everything here is safe and generic over the element ([`Real`]) and over how `a * b + c` is computed
//! ([`Arith`]). `x86.rs` compiles the same bodies once per instruction set.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Function;
use super::coefficients::Coefficients;
use crate::Float;

/// Elements per block of an element-wise loop, and lanes of a reduction.
pub const BLOCK: usize = 32;

/// How `a * b + c` is computed.
pub trait Arith {
    /// In f32.
    fn fma32(a: f32, b: f32, c: f32) -> f32;
    /// In f64.
    fn fma64(a: f64, b: f64, c: f64) -> f64;
}

/// A product and a sum: for processors without fused multiply-add, where `mul_add` is a slow library call.
#[derive(Debug)]
pub struct Plain;

/// One instruction with one rounding.
#[derive(Debug)]
pub struct Fused;

impl Arith for Plain {
    #[inline(always)]
    fn fma32(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn fma64(a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }
}

impl Arith for Fused {
    #[inline(always)]
    fn fma32(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn fma64(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }
}

/// f32 and f64: the types that vector mathematics is offered for. Sealed through [`Float`].
pub trait Real:
    Float
    + Coefficients
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// 1/2
    const HALF: Self;
    /// Infinity.
    const INFINITY: Self;
    /// NaN
    const NAN: Self;
    /// 1 / ln 2
    const LOG2_E: Self;
    /// 2 / pi
    const FRAC_2_PI: Self;
    /// e^x is infinity above `EXP_RANGE.1` and 0 below `EXP_RANGE.0`.
    const EXP_RANGE: (Self, Self);
    /// tanh is 1 from here on.
    const TANH_ONE: Self;
    /// erf is 1 from here on.
    const ERF_ONE: Self;
    /// The reduction of sine and cosine holds up to here.
    const TRIG_RANGE: Self;
    /// 1.5 times the power of two above which there are no fractions: adding it rounds to an integer that
    /// stands in the low bits.
    const ROUND: Self;

    /// `a * b + c`.
    fn fma<A: Arith>(a: Self, b: Self, c: Self) -> Self;
    /// True for NaN.
    fn is_nan(self) -> bool;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The sign of `sign` on the size of `self`.
    fn copysign(self, sign: Self) -> Self;
    /// `self * 2^n` where `t = n + ROUND`, with one rounding if the result is denormal. |n| < 2 * largest exponent.
    fn scale_by(self, t: Self) -> Self;
    /// `2^n` where `t = n + ROUND`, for normal results.
    fn power_of_two(t: Self) -> Self;
    /// `(m, k)` with `self = m 2^k`, `m` in `[sqrt(1/2), sqrt(2))`, for positive finite numbers.
    fn split_exponent(self) -> (Self, Self);
    /// The two low bits of the integer in `t = n + ROUND`.
    fn quadrant(t: Self) -> u32;
    /// sin of the standard library.
    fn std_sin(self) -> Self;
    /// cos of the standard library.
    fn std_cos(self) -> Self;
}

macro_rules! real {
    ($t:ident, $bits:ident, $mantissa:literal, $exponent_bias:literal, $fma:ident, $exp:expr, $tanh:expr, $erf:expr,
     $trig:expr, $sqrt_half:literal) => {
        impl Real for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const HALF: $t = 0.5;
            const INFINITY: $t = <$t>::INFINITY;
            const NAN: $t = <$t>::NAN;
            const LOG2_E: $t = std::$t::consts::LOG2_E;
            const FRAC_2_PI: $t = std::$t::consts::FRAC_2_PI;
            const EXP_RANGE: ($t, $t) = $exp;
            const TANH_ONE: $t = $tanh;
            const ERF_ONE: $t = $erf;
            const TRIG_RANGE: $t = $trig;
            const ROUND: $t = (3u64 << ($mantissa - 1)) as $t;

            #[inline(always)]
            fn fma<A: Arith>(a: $t, b: $t, c: $t) -> $t {
                A::$fma(a, b, c)
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }

            #[inline(always)]
            fn abs(self) -> $t {
                <$t>::abs(self)
            }

            #[inline(always)]
            fn copysign(self, sign: $t) -> $t {
                <$t>::copysign(self, sign)
            }

            #[inline(always)]
            fn scale_by(self, t: $t) -> $t {
                // Two factors, so that neither 2^n leaves the normal numbers and only the second product rounds.
                // ROUND keeps n in two's complement in the low bits; n/2 rounded down is a shift of n + 2 bias.
                let n = t.to_bits().wrapping_sub(Self::ROUND.to_bits());
                let half = (n.wrapping_add(4 * $exponent_bias) >> 1).wrapping_sub(2 * $exponent_bias);
                let power = |n: $bits| <$t>::from_bits(n.wrapping_add($exponent_bias) << $mantissa);
                self * power(half) * power(n.wrapping_sub(half))
            }

            #[inline(always)]
            fn power_of_two(t: $t) -> $t {
                let n = t.to_bits().wrapping_sub(Self::ROUND.to_bits());
                <$t>::from_bits(n.wrapping_add($exponent_bias) << $mantissa)
            }

            #[inline(always)]
            fn split_exponent(self) -> ($t, $t) {
                const ONE: $bits = $exponent_bias << $mantissa;
                const LIFT: $t = (1u64 << $mantissa) as $t;
                let denormal = self < <$t>::MIN_POSITIVE;
                let x = if denormal { self * LIFT } else { self };
                let bits = x.to_bits().wrapping_add(ONE - $sqrt_half);
                let m = <$t>::from_bits((bits & ((1 << $mantissa) - 1)) + $sqrt_half);
                // The biased exponent becomes a number by standing in the low bits of 2^mantissa.
                let raw = <$t>::from_bits((bits >> $mantissa) | LIFT.to_bits()) - LIFT;
                let lift = if denormal { $mantissa as $t } else { 0.0 };
                (m, raw - $exponent_bias as $t - lift)
            }

            #[inline(always)]
            fn quadrant(t: $t) -> u32 {
                t.to_bits() as u32 & 3
            }

            #[inline]
            fn std_sin(self) -> $t {
                self.sin()
            }

            #[inline]
            fn std_cos(self) -> $t {
                self.cos()
            }
        }
    };
}

real!(f32, u32, 23, 127, fma32, (-104.0, 89.0), 9.1, 4.0, 8192.0, 0x3f35_04f3);
real!(f64, u64, 52, 1023, fma64, (-746.0, 710.0), 19.1, 6.0, 1_048_576.0, 0x3fe6_a09e_667f_3bcd);

/// Horner's rule, lowest power first.
#[inline(always)]
fn polynomial<T: Real, A: Arith>(x: T, coefficients: &[T]) -> T {
    coefficients.iter().rev().fold(T::ZERO, |sum, &c| T::fma::<A>(sum, x, c))
}

/// `(p, t)` with `e^x = (1 + p) 2^n`, `t = n + ROUND`.
#[inline(always)]
fn exp_parts<T: Real, A: Arith>(x: T) -> (T, T) {
    let t = T::fma::<A>(x, T::LOG2_E, T::ROUND);
    let n = t - T::ROUND;
    let r = T::fma::<A>(n, -T::LN2[0], x);
    let r = T::fma::<A>(n, -T::LN2[1], r);
    (T::fma::<A>(r * r, polynomial::<T, A>(r, T::EXP), r), t)
}

/// e^x.
#[inline(always)]
pub fn exp<T: Real, A: Arith>(x: T) -> T {
    // Comparisons that keep NaN.
    let x = if x > T::EXP_RANGE.1 { T::EXP_RANGE.1 } else { x };
    let x = if x < T::EXP_RANGE.0 { T::EXP_RANGE.0 } else { x };
    let (p, t) = exp_parts::<T, A>(x);
    (T::ONE + p).scale_by(t)
}

/// The natural logarithm.
#[inline(always)]
pub fn log<T: Real, A: Arith>(x: T) -> T {
    let (m, k) = x.split_exponent();
    let f = m - T::ONE;
    let s = f / (f + T::ONE + T::ONE);
    let z = s * s;
    // log(1+f) = f - (f^2/2 - s (f^2/2 + R(z))) with R(z) = z * LOG(z).
    let r = z * polynomial::<T, A>(z, T::LOG);
    let half = T::HALF * f * f;
    let low = T::fma::<A>(s, half + r, k * T::LN2[1]);
    let y = T::fma::<A>(k, T::LN2[0], f - (half - low));
    let y = if x == T::ZERO { -T::INFINITY } else { y };
    let y = if x == T::INFINITY { x } else { y };
    // Negative numbers and NaN.
    if x >= T::ZERO { y } else { T::NAN }
}

/// The hyperbolic tangent: (e^2x - 1) / (e^2x + 1).
#[inline(always)]
pub fn tanh<T: Real, A: Arith>(x: T) -> T {
    let size = x.abs();
    let size = if size > T::TANH_ONE { T::TANH_ONE } else { size };
    let (p, t) = exp_parts::<T, A>(size + size);
    let power = T::power_of_two(t);
    let e = T::fma::<A>(p, power, power - T::ONE);
    let y = e / (e + T::ONE + T::ONE);
    let y = if x.abs() >= T::TANH_ONE { T::ONE } else { y };
    y.copysign(x)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<T: Real, A: Arith>(x: T) -> T {
    let e = exp::<T, A>(-x.abs());
    let top = if x < T::ZERO { e } else { T::ONE };
    top / (T::ONE + e)
}

/// The error function.
#[inline(always)]
pub fn erf<T: Real, A: Arith>(x: T) -> T {
    let size = x.abs();
    let squared = size * size;
    let small = T::fma::<A>(size, polynomial::<T, A>(squared, T::ERF_SMALL), size);
    let clamped = if size > T::ERF_ONE { T::ERF_ONE } else { size };
    let two = T::ONE + T::ONE;
    let q = polynomial::<T, A>((clamped - two) / (clamped + two), T::ERF_LARGE);
    let large = T::ONE - exp::<T, A>(-(clamped * clamped)) * q;
    let y = if size < T::ONE { small } else { large };
    let y = if x.is_nan() { x } else { y };
    y.copysign(x)
}

/// The sine (`shift` 0) or the cosine (`shift` 1), up to `TRIG_RANGE`.
#[inline(always)]
fn sine<T: Real, A: Arith>(x: T, shift: u32) -> T {
    let t = T::fma::<A>(x, T::FRAC_2_PI, T::ROUND);
    let n = t - T::ROUND;
    // x - n pi/2 as r + rest. The products are exact; what a difference loses is carried along.
    let first = T::fma::<A>(n, -T::PIO2[0], x);
    let second = T::fma::<A>(n, -T::PIO2[1], first);
    let lost = T::fma::<A>(n, -T::PIO2[1], first - second);
    let third = T::fma::<A>(n, -T::PIO2[2], second);
    let lost = T::fma::<A>(n, -T::PIO2[2], second - third) + lost;
    let low = T::fma::<A>(n, -T::PIO2[3], lost);
    let r = third + low;
    let rest = low - (r - third);
    let z = r * r;
    let sin = r + T::fma::<A>(r * z, polynomial::<T, A>(z, T::SIN), rest);
    // The reduction loses the sign of zero.
    let sin = if x == T::ZERO { x } else { sin };
    let half = T::HALF * z;
    let top = T::ONE - half;
    let tail = T::fma::<A>(z * z, polynomial::<T, A>(z, T::COS), (T::ONE - top) - half - r * rest);
    let cos = top + tail;
    let quadrant = T::quadrant(t).wrapping_add(shift);
    let y = if quadrant & 1 == 0 { sin } else { cos };
    if quadrant & 2 == 0 { y } else { -y }
}

/// True above the limit, and for NaN.
#[inline(always)]
pub fn above_or_nan<T: Real>(x: T, limit: T) -> bool {
    x > limit || x.is_nan()
}

/// An expression for every element of a block. A loop where it stands: a closure is a function of its own, compiled
/// without the instructions of its caller unless the compiler finds it small enough to inline.
macro_rules! each {
    (|$x:ident| $value:expr, $block:expr) => {{
        let mut out = *$block;
        for $x in &mut out {
            *$x = {
                let $x = *$x;
                $value
            };
        }
        out
    }};
}

/// Sine or cosine of a block; elements beyond the reduction's range (and NaN, infinity) are done one by one.
#[inline(always)]
fn sine_block<T: Real, A: Arith>(x: &[T; BLOCK], shift: u32) -> [T; BLOCK] {
    let mut out = each!(|x| sine::<T, A>(x, shift), x);
    if x.iter().any(|x| above_or_nan(x.abs(), T::TRIG_RANGE)) {
        for (y, &x) in out.iter_mut().zip(x) {
            if above_or_nan(x.abs(), T::TRIG_RANGE) {
                *y = if shift == 0 { x.std_sin() } else { x.std_cos() };
            }
        }
    }
    out
}

#[inline(always)]
fn block<T: Real, A: Arith>(function: Function, x: &[T; BLOCK]) -> [T; BLOCK] {
    match function {
        Function::Exp => each!(|x| exp::<T, A>(x), x),
        Function::Log => each!(|x| log::<T, A>(x), x),
        Function::Tanh => each!(|x| tanh::<T, A>(x), x),
        Function::Erf => each!(|x| erf::<T, A>(x), x),
        Function::Sigmoid => each!(|x| sigmoid::<T, A>(x), x),
        Function::Sin => sine_block::<T, A>(x, 0),
        Function::Cos => sine_block::<T, A>(x, 1),
    }
}

/// `x`, padded with zeros to a block.
#[inline(always)]
fn padded<T: Real>(x: &[T]) -> [T; BLOCK] {
    let mut out = [T::ZERO; BLOCK];
    out[..x.len()].copy_from_slice(x);
    out
}

/// `function` of every element.
#[inline(always)]
pub fn map<T: Real, A: Arith>(function: Function, x: &[T], out: &mut [T]) {
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<BLOCK>();
    for (x, out) in blocks.iter().zip(out_blocks) {
        *out = block::<T, A>(function, x);
    }
    if !rest.is_empty() {
        out_rest.copy_from_slice(&block::<T, A>(function, &padded(rest))[..rest.len()]);
    }
}

/// `function` of every element, in place.
#[inline(always)]
pub fn map_in_place<T: Real, A: Arith>(function: Function, x: &mut [T]) {
    let (blocks, rest) = x.as_chunks_mut::<BLOCK>();
    for x in blocks {
        *x = block::<T, A>(function, x);
    }
    if !rest.is_empty() {
        let len = rest.len();
        rest.copy_from_slice(&block::<T, A>(function, &padded(rest))[..len]);
    }
}

/// Writes `exp(x - shift)` and returns the sum.
#[inline(always)]
pub fn exp_shifted<T: Real, A: Arith>(x: &[T], shift: T, out: &mut [T]) -> f64 {
    let mut lanes = [0.0f64; BLOCK];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<BLOCK>();
    for (x, out) in blocks.iter().zip(out_blocks) {
        *out = each!(|x| exp::<T, A>(x - shift), x);
        add_to_lanes(&mut lanes, out);
    }
    if !rest.is_empty() {
        let y = each!(|x| exp::<T, A>(x - shift), &padded(rest));
        out_rest.copy_from_slice(&y[..rest.len()]);
        add_to_lanes(&mut lanes, &padded(out_rest));
    }
    tree(lanes, |a, b| a + b)
}

/// The sum of `exp(x - shift)`.
#[inline(always)]
pub fn sum_exp_shifted<T: Real, A: Arith>(x: &[T], shift: T) -> f64 {
    let mut lanes = [0.0f64; BLOCK];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for x in blocks {
        add_to_lanes(&mut lanes, &each!(|x| exp::<T, A>(x - shift), x));
    }
    let y = each!(|x| exp::<T, A>(x - shift), &padded(rest));
    add_to_lanes(&mut lanes, &padded(&y[..rest.len()]));
    tree(lanes, |a, b| a + b)
}

#[inline(always)]
fn add_to_lanes<T: Real>(lanes: &mut [f64; BLOCK], x: &[T; BLOCK]) {
    for (lane, x) in lanes.iter_mut().zip(x) {
        *lane += x.to_f64();
    }
}

/// Multiplies every element.
#[inline(always)]
pub fn scale<T: Real, A: Arith>(by: T, x: &mut [T]) {
    for x in x {
        *x = *x * by;
    }
}

/// The lanes combined in a fixed binary tree.
#[inline(always)]
fn tree<R: Copy>(mut lanes: [R; BLOCK], combine: impl Fn(R, R) -> R) -> R {
    let mut width = BLOCK / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn add_products<T: Real, A: Arith>(lanes: &mut [T; BLOCK], x: &[T; BLOCK], y: &[T; BLOCK]) {
    for i in 0..BLOCK {
        lanes[i] = T::fma::<A>(x[i], y[i], lanes[i]);
    }
}

#[inline(always)]
fn add_products_f64<T: Real, A: Arith>(lanes: &mut [f64; BLOCK], x: &[T; BLOCK], y: &[T; BLOCK]) {
    for i in 0..BLOCK {
        lanes[i] = A::fma64(x[i].to_f64(), y[i].to_f64(), lanes[i]);
    }
}

#[inline(always)]
fn add_elements<T: Real>(lanes: &mut [T; BLOCK], x: &[T; BLOCK]) {
    for i in 0..BLOCK {
        lanes[i] = lanes[i] + x[i];
    }
}

/// The inner product.
#[inline(always)]
pub fn dot<T: Real, A: Arith>(x: &[T], y: &[T]) -> T {
    let mut lanes = [T::ZERO; BLOCK];
    let (x, x_rest) = x.as_chunks::<BLOCK>();
    let (y, y_rest) = y.as_chunks::<BLOCK>();
    for (x, y) in x.iter().zip(y) {
        add_products::<T, A>(&mut lanes, x, y);
    }
    add_products::<T, A>(&mut lanes, &padded(x_rest), &padded(y_rest));
    tree(lanes, |a, b| a + b)
}

/// The inner product in f64.
#[inline(always)]
pub fn dot_f64<T: Real, A: Arith>(x: &[T], y: &[T]) -> f64 {
    let mut lanes = [0.0f64; BLOCK];
    let (x, x_rest) = x.as_chunks::<BLOCK>();
    let (y, y_rest) = y.as_chunks::<BLOCK>();
    for (x, y) in x.iter().zip(y) {
        add_products_f64::<T, A>(&mut lanes, x, y);
    }
    add_products_f64::<T, A>(&mut lanes, &padded(x_rest), &padded(y_rest));
    tree(lanes, |a, b| a + b)
}

/// The sum.
#[inline(always)]
pub fn sum<T: Real, A: Arith>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; BLOCK];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for x in blocks {
        add_elements(&mut lanes, x);
    }
    add_elements(&mut lanes, &padded(rest));
    tree(lanes, |a, b| a + b)
}

/// The sum in f64.
#[inline(always)]
pub fn sum_f64<T: Real, A: Arith>(x: &[T]) -> f64 {
    let mut lanes = [0.0f64; BLOCK];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for x in blocks {
        add_to_lanes(&mut lanes, x);
    }
    add_to_lanes(&mut lanes, &padded(rest));
    tree(lanes, |a, b| a + b)
}

/// The smallest and the largest element of a slice that holds `first`; NaN for both if one is NaN.
#[inline(always)]
pub fn min_max<T: Real, A: Arith>(x: &[T], first: T) -> (T, T) {
    let (mut low, mut high, mut nan) = ([first; BLOCK], [first; BLOCK], [T::ZERO; BLOCK]);
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut last = [first; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for x in blocks.iter().chain([&last]) {
        for i in 0..BLOCK {
            low[i] = if x[i] < low[i] { x[i] } else { low[i] };
            high[i] = if x[i] > high[i] { x[i] } else { high[i] };
            // Stays 0 until a NaN makes it NaN.
            nan[i] = if x[i].is_nan() { x[i] } else { nan[i] };
        }
    }
    let nan = tree(nan, |a, b| if a.is_nan() { a } else { b });
    if nan.is_nan() {
        return (nan, nan);
    }
    (tree(low, |a, b| if b < a { b } else { a }), tree(high, |a, b| if b > a { b } else { a }))
}

/// True if an element is above the threshold, or NaN.
#[inline(always)]
pub fn any_above<T: Real, A: Arith>(x: &[T], threshold: T) -> bool {
    x.iter().fold(false, |any, &x| any | above_or_nan(x, threshold))
}
