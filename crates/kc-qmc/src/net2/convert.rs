//! Integers of t bits as numbers.

use kc_core::Isa;

use super::Interval;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// How results go to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stores {
    /// Through the caches: small outputs, which are read soon.
    Cached,
    /// Past the caches: outputs that would not fit there.
    Streamed,
}

/// What a point's integer becomes.
pub(super) trait Output: Copy + Send + Sync {
    /// The number's type.
    type Value: Copy + Send;

    fn convert(self, digits: u64) -> Self::Value;

    /// `out[i]` from the integer `low[i] ^ high[i mod high.len()]`, on a level.
    fn combine(self, isa: Isa, low: &[u64], high: &[u64], out: &mut [Self::Value], _stores: Stores) {
        #[cfg(target_arch = "x86_64")]
        x86::combine(isa, low, high, out, self);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            super::portable::combine(low, high, out, self);
        }
    }
}

/// The integer itself.
#[derive(Clone, Copy)]
pub(super) struct Digits;

impl Output for Digits {
    type Value = u64;

    #[inline(always)]
    fn convert(self, digits: u64) -> u64 {
        digits
    }
}

/// `x 2^-t`, rounded to nearest.
#[derive(Clone, Copy)]
pub(super) struct Nearest {
    pub(super) bits: u32,
}

impl Output for Nearest {
    type Value = f64;

    #[inline(always)]
    fn convert(self, digits: u64) -> f64 {
        digits as f64 * power(self.bits)
    }

    #[cfg(target_arch = "x86_64")]
    fn combine(self, isa: Isa, low: &[u64], high: &[u64], out: &mut [f64], stores: Stores) {
        x86::nearest(isa, low, high, out, self, stores);
    }
}

/// The first 53 bits and half a unit of the last of them, at most `1 - 2^-53`.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    /// The bits kept.
    pub(super) mask: u64,
    pub(super) bits: u32,
}

impl Inner {
    pub(super) fn new(bits: u32) -> Self {
        Self { mask: u64::MAX << bits.saturating_sub(f64::MANTISSA_DIGITS), bits }
    }
}

impl Output for Inner {
    type Value = f64;

    #[inline(always)]
    fn convert(self, digits: u64) -> f64 {
        ((digits & self.mask) as f64 * power(self.bits) + HALF_UNIT).min(1.0 - f64::EPSILON / 2.0)
    }

    #[cfg(target_arch = "x86_64")]
    fn combine(self, isa: Isa, low: &[u64], high: &[u64], out: &mut [f64], stores: Stores) {
        x86::inner(isa, low, high, out, self, stores);
    }
}

/// 2^-54.
pub(super) const HALF_UNIT: f64 = f64::EPSILON / 4.0;

/// The first 24 bits, exactly, in single precision; plus half a unit (at most `1 - 2^-24`) if the interval is
/// open.
#[derive(Clone, Copy)]
pub(super) struct Single {
    shift: u32,
    unit: f32,
    half: f32,
}

impl Single {
    pub(super) fn new(bits: u32, interval: Interval) -> Self {
        let kept = bits.min(f32::MANTISSA_DIGITS);
        let half = match interval {
            Interval::HalfOpen => 0.0,
            Interval::Open => f32::EPSILON / 4.0,
        };
        Self { shift: bits - kept, unit: 1.0 / (1u32 << kept) as f32, half }
    }
}

impl Output for Single {
    type Value = f32;

    #[inline(always)]
    fn convert(self, digits: u64) -> f32 {
        ((digits >> self.shift) as i32 as f32 * self.unit + self.half).min(1.0 - f32::EPSILON / 2.0)
    }
}

/// `2^-bits`.
#[inline(always)]
pub(super) fn power(bits: u32) -> f64 {
    f64::from_bits(u64::from(1023 - bits) << 52)
}
