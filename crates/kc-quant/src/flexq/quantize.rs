//! The quantiser of one group of columns, for weights and activations alike.

use kc_core::{Error, Result};

use super::{QuantSpec, Scheme};

/// Scales below this count as zero: they would make quotients overflow.
const TINY: f32 = f32::MIN_POSITIVE;
/// Zeros of [`Scheme::AsymFree`] beyond this send a group back to [`Scheme::Asym`].
const FARTHEST_ZERO: f32 = 10_000.0;
/// Adding it leaves the rounded integer, half to even, in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0;

/// Scale and zero of a group: `x ~ scale * (code - zero)` for unsigned codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// What the codes of `spec` range over: `0..=most`, and the zero of symmetric ones.
pub(crate) fn most(bits: u8) -> i32 {
    (1 << bits) - 1
}

/// The zero of unsigned symmetric codes, `2^(bits-1)`.
pub(crate) fn half(bits: u8) -> i32 {
    1 << (bits - 1)
}

/// Scale and zero for finite values.
///
/// # Errors
/// `Argument` if the scale is infinite in the type that stores it.
#[inline(always)]
pub(crate) fn fit(x: &[f32], spec: &QuantSpec) -> Result<Affine> {
    match spec.scheme {
        Scheme::Sym => {
            let mut top = 0u32;
            for v in x {
                top = top.max(v.to_bits() & 0x7fff_ffff);
            }
            let divisor = if spec.bits == 1 { 1.0 } else { (half(spec.bits) - 1) as f32 };
            let scale = stored(f32::from_bits(top) / divisor, spec)?;
            Ok(Affine { scale, zero: half(spec.bits) })
        }
        Scheme::Asym => asym(range(x), spec),
        Scheme::AsymFree => {
            let (low, high) = range(x);
            if high - low < TINY {
                return asym((low, high), spec);
            }
            let scale = stored((high - low) / most(spec.bits) as f32, spec)?;
            let zero = (-low / scale).round_ties_even();
            if zero.abs() > FARTHEST_ZERO {
                return asym((low, high), spec);
            }
            Ok(Affine { scale, zero: zero as i32 })
        }
    }
}

fn asym((low, high): (f32, f32), spec: &QuantSpec) -> Result<Affine> {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = stored((high - low) / most(spec.bits) as f32, spec)?;
    // A scale rounded down by a short type could push the zero past the codes.
    let zero = (-low / scale).round_ties_even().min(most(spec.bits) as f32);
    Ok(Affine { scale, zero: zero as i32 })
}

#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let Some(&first) = x.first() else { return (0.0, 0.0) };
    let (mut low, mut high) = (first, first);
    for &v in x {
        low = low.min(v);
        high = high.max(v);
    }
    (low, high)
}

/// The scale as it is stored: at least the floor, rounded to its type, 1 if nothing is left of it.
fn stored(scale: f32, spec: &QuantSpec) -> Result<f32> {
    let scale = spec.scale_dtype.round(scale.max(spec.scale_floor));
    if !scale.is_finite() {
        let expected = format!("scales that are finite in {}", spec.scale_dtype.name());
        return Err(Error::argument("scale_dtype", expected, "a group whose scale is too large for it"));
    }
    Ok(if scale < TINY { 1.0 } else { scale })
}

/// The unsigned codes `clamp(rne(x / scale) + zero, 0, most)`.
#[inline(always)]
pub(crate) fn encode(x: &[f32], Affine { scale, zero }: Affine, bits: u8, codes: &mut [u8]) {
    let (low, high) = (-zero as f32, (most(bits) - zero) as f32);
    for (code, &v) in codes.iter_mut().zip(x) {
        // Clamping first changes nothing, for the bounds are integers.
        let q = (v / scale).max(low).min(high) + ROUND;
        *code = (q.to_bits() as u8).wrapping_add(zero as u8);
    }
}

/// The first value that is NaN or infinite.
#[inline(always)]
pub(crate) fn not_finite(x: &[f32]) -> Option<usize> {
    let mut top = 0u32;
    for v in x {
        top = top.max(v.to_bits() & 0x7fff_ffff);
    }
    if top < 0x7f80_0000 { None } else { x.iter().position(|v| !v.is_finite()) }
}
