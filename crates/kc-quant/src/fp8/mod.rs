//! FP8 in the format E4M3FN: a sign, four bits of exponent (bias 7), three of mantissa.
//!
//! The largest number is 448 (`0x7e`), the smallest normal `2^-6`, the smallest of all `2^-9`; `0x7f` and `0xff` are
//! NaN, there are no infinities, and `-0` is kept. Encoding rounds to nearest, ties to even, and *saturates*: whatever
//! is beyond 448, infinities too, becomes 448 of its sign; NaN becomes `0x7f`. (Other libraries give NaN above 464.)
//!
//! ```
//! use kc_quant::fp8;
//! assert_eq!(fp8::encode(1.0), 0x38);
//! // Halfway between 1 and 1.125: to the even code.
//! assert_eq!(fp8::decode(fp8::encode(1.0625)), 1.0);
//! assert_eq!(fp8::decode(fp8::encode(-1e9)), -448.0);
//! assert_eq!(fp8::encode_checked(500.0), (0x7e, true));
//!
//! let (x, mut codes, mut back) = ([0.1f32, -3.0], [0u8; 2], [0f32; 2]);
//! fp8::encode_slice(&x, &mut codes)?;
//! fp8::decode_slice(&codes, &mut back)?;
//! assert_eq!(back, [0.1015625, -3.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Cost: a dozen integer operations per number, without branches, on whole registers: slices run near the speed of
//! memory. Every level gives the same bits.

use kc_core::{Error, Isa, Result};

#[cfg(target_arch = "x86_64")]
mod x86;

/// The largest number.
pub const MAX: f32 = 448.0;

/// The smallest positive number, `2^-9`.
pub const MIN_POSITIVE: f32 = 1.0 / 512.0;

/// Elements of a step of a loop: one register of bytes.
const STEP: usize = 32;

/// Bits of the smallest normal number, `2^-6`.
const NORMAL: u32 = 0x3c80_0000;

/// Adding `2^14` to a number below `2^-6` leaves its multiple of `2^-9`, half to even, in the lowest bits of the sum.
const MAGIC: f32 = 16384.0;

/// One number, by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct E4M3(pub u8);

impl From<f32> for E4M3 {
    /// The nearest number: see [`encode`].
    fn from(x: f32) -> Self {
        E4M3(encode(x))
    }
}

impl From<E4M3> for f32 {
    fn from(x: E4M3) -> Self {
        decode(x.0)
    }
}

/// The code of the nearest number.
#[inline(always)]
pub fn encode(x: f32) -> u8 {
    let bits = x.to_bits();
    let size = bits & 0x7fff_ffff;
    let normal = ((size + 0x7_ffff + (size >> 20 & 1)) >> 20).wrapping_sub(120 << 3);
    let small = (f32::from_bits(size) + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
    let code = if size < NORMAL { small } else { normal };
    let code = if code > 0x7e { 0x7e } else { code } | (bits >> 24 & 0x80);
    (if size > 0x7f80_0000 { 0x7f } else { code }) as u8
}

/// The code, and whether the number was beyond the range and became its end.
pub fn encode_checked(x: f32) -> (u8, bool) {
    (encode(x), x.abs() > MAX)
}

/// What a code stands for, exactly.
#[inline(always)]
pub fn decode(code: u8) -> f32 {
    let size = u32::from(code & 0x7f);
    let normal = f32::from_bits((size << 20) + (120 << 23));
    let small = size as i32 as f32 * MIN_POSITIVE;
    let value = if size < 8 { small } else { normal };
    let value = if size == 0x7f { f32::NAN } else { value };
    f32::from_bits(value.to_bits() | u32::from(code & 0x80) << 24)
}

/// The number that encoding and decoding leaves.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    decode(encode(x))
}

/// The codes of a slice.
///
/// # Errors
/// `Shape` unless both have the same length.
pub fn encode_slice(x: &[f32], out: &mut [u8]) -> Result<()> {
    encode_slice_with(Isa::best(), x, out)
}

/// As [`encode_slice`], at a level.
pub fn encode_slice_with(isa: Isa, x: &[f32], out: &mut [u8]) -> Result<()> {
    same_length(x.len(), out.len())?;
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => x86::encode(isa, x, out),
        _ => encode_all(x, out),
    }
    Ok(())
}

/// The codes of a slice, and how many numbers were beyond the range.
///
/// # Errors
/// `Shape` unless both have the same length.
pub fn encode_slice_checked(x: &[f32], out: &mut [u8]) -> Result<usize> {
    encode_slice(x, out)?;
    Ok(x.iter().filter(|x| x.abs() > MAX).count())
}

/// What the codes of a slice stand for.
///
/// # Errors
/// `Shape` unless both have the same length.
pub fn decode_slice(codes: &[u8], out: &mut [f32]) -> Result<()> {
    decode_slice_with(Isa::best(), codes, out)
}

/// As [`decode_slice`], at a level.
pub fn decode_slice_with(isa: Isa, codes: &[u8], out: &mut [f32]) -> Result<()> {
    same_length(codes.len(), out.len())?;
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => x86::decode(isa, codes, out),
        _ => decode_all(codes, out),
    }
    Ok(())
}

/// Replaces every number by the nearest one of FP8.
pub fn round_slice_with(isa: Isa, x: &mut [f32]) {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        level if level > kc_core::Level::Portable => x86::round(isa, x),
        _ => round_all(x),
    }
}

/// The first code that is NaN.
///
/// # Errors
/// `NotFinite` with its position, under the name `arg`.
pub fn check(arg: &'static str, codes: &[u8]) -> Result<()> {
    match codes.iter().position(|c| c & 0x7f == 0x7f) {
        Some(at) => Err(Error::not_finite(arg, &[at], f64::NAN)),
        None => Ok(()),
    }
}

fn same_length(want: usize, got: usize) -> Result<()> {
    if want == got {
        Ok(())
    } else {
        Err(Error::shape("out", format!("{want} elements, as the input"), &[got]))
    }
}

// The loops, compiled once for every processor and once for AVX2.

#[inline(always)]
fn encode_all(x: &[f32], out: &mut [u8]) {
    let (steps, tail) = x.as_chunks::<STEP>();
    let (to, to_tail) = out.as_chunks_mut::<STEP>();
    for (x, to) in steps.iter().zip(to) {
        for l in 0..STEP {
            to[l] = encode(x[l]);
        }
    }
    for (x, to) in tail.iter().zip(to_tail) {
        *to = encode(*x);
    }
}

#[inline(always)]
fn decode_all(codes: &[u8], out: &mut [f32]) {
    let (steps, tail) = codes.as_chunks::<STEP>();
    let (to, to_tail) = out.as_chunks_mut::<STEP>();
    for (code, to) in steps.iter().zip(to) {
        for l in 0..STEP {
            to[l] = decode(code[l]);
        }
    }
    for (code, to) in tail.iter().zip(to_tail) {
        *to = decode(*code);
    }
}

#[inline(always)]
fn round_all(x: &mut [f32]) {
    let (steps, tail) = x.as_chunks_mut::<STEP>();
    for x in steps {
        for x in x {
            *x = round(*x);
        }
    }
    for x in tail {
        *x = round(*x);
    }
}
