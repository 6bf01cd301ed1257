//! The loops, for any processor; `x86.rs` compiles them for AVX2.

/// A function of one difference of digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kappa {
    One,
    Two,
    Three,
    Four,
    /// Of a real order.
    Adaptive(f64),
    /// The derivative of the above by the logarithm of the order.
    AdaptiveSlope(f64),
}

impl Kappa {
    /// That of an order from 1 to 4.
    pub(super) fn of_order(alpha: u8) -> Self {
        match alpha {
            1 => Kappa::One,
            2 => Kappa::Two,
            3 => Kappa::Three,
            _ => Kappa::Four,
        }
    }
}

const EXPONENT: u64 = 0x7ff << 52;

/// `x` rounded once, by its halves in the last bits of 2^84 and 2^52: all of it in vectors, for which AVX2 has no
/// conversion.
#[inline(always)]
fn float(x: u64) -> f64 {
    let high = f64::from_bits(x >> 32 | 0x4530 << 48);
    let low = f64::from_bits(x & 0xffff_ffff | 0x4330 << 48);
    (high - f64::from_bits(0x4530_0000_0010_0000)) + low
}

/// The largest power of two that is at most `delta`; 0 for 0. Without the bit after the highest one, converting
/// to f64 cannot round up to the next power.
#[inline(always)]
fn power(delta: u64) -> f64 {
    f64::from_bits(float(delta & !(delta >> 1)).to_bits() & EXPONENT)
}

/// A difference and what the functions need of it.
struct Digits {
    /// `delta 2^-t`.
    x: f64,
    /// `2^-b`, or 0.
    s: f64,
    /// `-floor(log2 x)`, or 0.
    b: f64,
}

/// What is the same for all differences.
#[derive(Clone, Copy)]
struct Scale {
    /// `2^-t`.
    unit: f64,
    /// Exponent field of `2^t`.
    top: f64,
}

impl Scale {
    #[inline(always)]
    fn new(bits: u32) -> Self {
        Self { unit: f64::from_bits(u64::from(1023 - bits) << 52), top: f64::from(1023 + bits) }
    }

    #[inline(always)]
    fn digits(self, delta: u64) -> Digits {
        let power = power(delta);
        let field = f64::from_bits(power.to_bits() >> 52 | 0x4330 << 48) - f64::from_bits(0x4330 << 48);
        let b = if power == 0.0 { 0.0 } else { self.top - field };
        Digits { x: float(delta) * self.unit, s: power * self.unit, b }
    }
}

/// `sum_{a < 8} (-1)^(digit a) 2^(-3 a)` for the eight digits of a byte.
static SIGNS: [f64; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut digit, mut weight) = (0, 1.0);
        while digit < 8 {
            let sign = if byte >> (7 - digit) & 1 == 1 { -1.0 } else { 1.0 };
            table[byte] += sign * weight;
            weight /= 8.0;
            digit += 1;
        }
        byte += 1;
    }
    table
};

const BYTE: f64 = 1.0 / (1u64 << 24) as f64;

/// `W`. Digits after the 24th weigh less than `2^-71`.
#[inline(always)]
fn alternating(delta: u64, bits: u32, beyond: f64) -> f64 {
    let digits = delta << (64 - bits);
    let byte = |k: u32| SIGNS[(digits >> (56 - 8 * k)) as usize & 255];
    byte(0) + BYTE * (byte(1) + BYTE * byte(2)) - beyond
}

/// What the table has too much for short integers: their missing digits count as zeros.
fn beyond(bits: u32) -> f64 {
    (bits..24).map(|a| 0.125f64.powi(a as i32)).sum()
}

#[inline(always)]
fn one(d: &Digits) -> f64 {
    1.0 - 3.0 * d.s
}

#[inline(always)]
fn two(d: &Digits) -> f64 {
    2.5 * (1.0 - d.s) - 1.0 - d.b * d.x
}

#[inline(always)]
fn three(d: &Digits) -> f64 {
    (d.b * d.x - 5.0 * (1.0 - d.s)) * d.x + (43.0 / 18.0 * (1.0 - d.s * d.s) - 1.0)
}

#[inline(always)]
fn four(d: &Digits, w: f64) -> f64 {
    let (s1, s2, s3) = (1.0 - d.s, 1.0 - d.s * d.s, 1.0 - d.s * d.s * d.s);
    let cubic = ((-2.0 / 3.0 * d.b * d.x + 5.0 * s1) * d.x - 43.0 / 9.0 * s2) * d.x;
    cubic + 701.0 / 294.0 * s3 + (d.b * (w / 48.0 - 1.0 / 42.0) - 1.0)
}

/// The values of an adaptive function at each exponent field of `power`, from the highest digit down.
fn adaptive(alpha: f64, slope: bool, bits: u32) -> [f64; 65] {
    let ln2 = std::f64::consts::LN_2;
    let base = (alpha + 1.0).exp2();
    let v = base / (base - 2.0);
    // dv/d log alpha
    let dv = -2.0 * ln2 * alpha * base / ((base - 2.0) * (base - 2.0));
    let mut table = [if slope { dv } else { v }; 65];
    for (b, value) in table.iter_mut().enumerate().take(bits as usize + 1).skip(1) {
        let power = 1.0 - b as f64;
        let decay = (alpha * power).exp2();
        *value = if slope {
            dv - dv * decay - (v + 1.0) * decay * ln2 * alpha * power
        } else {
            v - (v + 1.0) * decay
        };
    }
    table
}

/// Runs `$body` with `$value` the function of each difference.
macro_rules! each {
    ($kappa:expr, $bits:expr, $x:expr, $z:expr, $out:expr, |$slot:ident, $value:ident| $body:expr) => {{
        let (bits, x, z, out) = ($bits, $x, $z, $out);
        let scale = Scale::new(bits);
        match $kappa {
            Kappa::One => each!(@loop x, z, out, |$slot, d| { let $value = one(&scale.digits(d)); $body }),
            Kappa::Two => each!(@loop x, z, out, |$slot, d| { let $value = two(&scale.digits(d)); $body }),
            Kappa::Three => each!(@loop x, z, out, |$slot, d| { let $value = three(&scale.digits(d)); $body }),
            Kappa::Four => {
                let beyond = beyond(bits);
                each!(@loop x, z, out, |$slot, d| {
                    let $value = four(&scale.digits(d), alternating(d, bits, beyond));
                    $body
                });
            }
            Kappa::Adaptive(alpha) | Kappa::AdaptiveSlope(alpha) => {
                let table = adaptive(alpha, matches!($kappa, Kappa::AdaptiveSlope(_)), bits);
                each!(@loop x, z, out, |$slot, d| {
                    let $value = table[(scale.digits(d).b as usize).min(64)];
                    $body
                });
            }
        }
    }};
    (@loop $x:ident, $z:ident, $out:ident, |$slot:ident, $d:ident| $body:expr) => {
        for ($slot, &x) in $out.iter_mut().zip($x) {
            let $d = x ^ $z;
            $body
        }
    };
}

/// Adds `factor kappa` to each value.
#[inline(always)]
pub(super) fn add(kappa: Kappa, factor: f64, bits: u32, x: &[u64], z: u64, out: &mut [f64]) {
    each!(kappa, bits, x, z, out, |slot, value| *slot += factor * value);
}

/// `v = (1 + v) (1 + weight kappa) - 1`.
#[inline(always)]
pub(super) fn multiply(kappa: Kappa, weight: f64, bits: u32, x: &[u64], z: u64, out: &mut [f64]) {
    each!(kappa, bits, x, z, out, |slot, value| {
        let p = weight * value;
        *slot += p + *slot * p;
    });
}
