//! Tables of sums of activations.

use kc_core::{Error, Result, Tensor};

/// `[ceil(K/8), 256]`: entry `i` of table `j` is `sum_(t<8) (2 bit_t(i) - 1) x[8 j + t]`, `x` continued by zeros. Built by
/// doubling, in f32.
///
/// # Errors
/// `NotFinite` for an activation that is NaN or infinite.
///
/// ```
/// let table = kc_quant::lut_gemm::table8(&[1.0, 2.0, 4.0])?;
/// assert_eq!([table[[0, 0]], table[[0, 0b101]], table[[0, 255]]], [-7.0, 3.0, 7.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn table8(x: &[f32]) -> Result<Tensor<f32, 2>> {
    if let Some(at) = x.iter().position(|x| !x.is_finite()) {
        return Err(Error::not_finite("x", &[at], f64::from(x[at])));
    }
    let mut out = Tensor::zeros([x.len().div_ceil(8), 256])?;
    for (x, table) in x.chunks(8).zip(out.as_mut_slice().chunks_exact_mut(256)) {
        fill8(x, table);
    }
    Ok(out)
}

/// The 256 sums of up to eight activations. Twice an activation is added to the half of the sums that was made
/// before, so each entry is one addition.
pub(super) fn fill8(x: &[f32], table: &mut [f32]) {
    table[0] = -x.iter().sum::<f32>();
    for t in 0..8 {
        let twice = 2.0 * x.get(t).copied().unwrap_or(0.0);
        let (done, next) = table.split_at_mut(1 << t);
        for (to, from) in next.iter_mut().zip(done.iter()) {
            *to = from + twice;
        }
    }
}

/// The 16 sums of four activations.
#[inline(always)]
pub(super) fn sums4(x: &[f32; 4]) -> [f32; 16] {
    let low = [-x[0] - x[1], x[0] - x[1], x[1] - x[0], x[0] + x[1]];
    let high = [-x[2] - x[3], x[2] - x[3], x[3] - x[2], x[2] + x[3]];
    let mut out = [0.0; 16];
    for i in 0..16 {
        out[i] = low[i % 4] + high[i / 4];
    }
    out
}

/// Tables of integers: what an entry of mode [`I16`](super::LutMode::I16) or [`I8`](super::LutMode::I8) is.
pub(super) trait Entries {
    /// The largest entry.
    const MOST: f32;
    /// Added to entries, so that they are stored without sign.
    const BIAS: i32;
    /// Bytes of the two tables of an octet.
    const BYTES: usize;

    /// Stores 16 entries, biased.
    fn store(entries: &[u16; 16], out: &mut [u8]);

    /// The sum of the two entries of an octet of signs, biased.
    fn sum(tables: &[u8], signs: u8) -> i32;
}

/// 13 bits in two bytes: the low 7 bits of 16 entries, then the high 6. Two low parts, and four high ones, add in a
/// byte.
#[derive(Debug)]
pub(super) struct Wide;

/// 7 bits in a byte. Two entries add in it.
#[derive(Debug)]
pub(super) struct Narrow;

impl Entries for Wide {
    const MOST: f32 = 4095.0;
    const BIAS: i32 = 4096;
    const BYTES: usize = 64;

    #[inline(always)]
    fn store(entries: &[u16; 16], out: &mut [u8]) {
        for i in 0..16 {
            out[i] = (entries[i] & 127) as u8;
            out[16 + i] = (entries[i] >> 7) as u8;
        }
    }

    #[inline(always)]
    fn sum(tables: &[u8], signs: u8) -> i32 {
        let (low, high) = (usize::from(signs & 15), usize::from(signs >> 4));
        let low = i32::from(tables[low]) + 128 * i32::from(tables[16 + low]);
        low + i32::from(tables[32 + high]) + 128 * i32::from(tables[48 + high])
    }
}

impl Entries for Narrow {
    const MOST: f32 = 63.0;
    const BIAS: i32 = 64;
    const BYTES: usize = 32;

    #[inline(always)]
    fn store(entries: &[u16; 16], out: &mut [u8]) {
        for i in 0..16 {
            out[i] = entries[i] as u8;
        }
    }

    #[inline(always)]
    fn sum(tables: &[u8], signs: u8) -> i32 {
        let (low, high) = (usize::from(signs & 15), usize::from(signs >> 4));
        i32::from(tables[low]) + i32::from(tables[16 + high])
    }
}

/// The factor that turns sums of a group into entries, and its inverse, the scale: both 0 for zeros; a scale of NaN if sums
/// overflow.
pub(super) fn factor<E: Entries>(x: &[f32]) -> (f32, f32) {
    let mut largest = 0.0f32;
    for x in x.as_chunks::<4>().0 {
        let sum = (x[0].abs() + x[1].abs()) + (x[2].abs() + x[3].abs());
        largest = if sum > largest { sum } else { largest };
    }
    if largest == 0.0 {
        return (0.0, 0.0);
    }
    if largest.is_infinite() {
        return (0.0, f32::NAN);
    }
    // The smallest numbers lose digits rather than overflow the factor.
    let factor = (E::MOST / largest).min(f32::MAX);
    (factor, 1.0 / factor)
}

/// The tables of a group of whole octets; returns their scale.
pub(super) fn build<E: Entries>(x: &[f32], out: &mut [u8]) -> f32 {
    let (factor, scale) = factor::<E>(x);
    for (x, out) in x.as_chunks::<4>().0.iter().zip(out.chunks_exact_mut(E::BYTES / 2)) {
        let sums = sums4(x);
        let mut entries = [0u16; 16];
        for (entry, sum) in entries.iter_mut().zip(sums) {
            // Overflow is NaN here, an entry of 0, and NaN in the scale.
            let rounded = (sum * factor).round_ties_even() as i32;
            *entry = (rounded + E::BIAS) as u16;
        }
        E::store(&entries, out);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry is within half a step of the sum, and none leaves its bytes.
    fn check<E: Entries>(x: &[f32; 8]) {
        let mut tables = vec![0; E::BYTES];
        let scale = build::<E>(x, &mut tables);
        for signs in 0..=255u8 {
            let exact: f32 = (0..8).map(|t| if signs >> t & 1 == 1 { x[t] } else { -x[t] }).sum();
            let sum = E::sum(&tables, signs) - 2 * E::BIAS;
            assert!(sum.abs() <= 2 * E::MOST as i32);
            assert!(
                (scale * sum as f32 - exact).abs() <= 1.001 * scale + 1e-6 * exact.abs(),
                "{x:?} {signs}"
            );
        }
    }

    #[test]
    fn entries_are_rounded_sums() {
        let cases = [
            [1.0, -2.0, 0.5, 0.25, 3.0, 0.0, -1.0, 0.125],
            [7.0; 8],
            [-7.0; 8],
            [0.0; 8],
            [1e-37; 8],
            [1e37, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        ];
        for x in cases {
            check::<Wide>(&x);
            check::<Narrow>(&x);
        }
    }

    #[test]
    fn overflow_is_not_hidden() {
        assert!(build::<Wide>(&[3e38; 8], &mut [0; 64]).is_nan());
        assert_eq!(build::<Narrow>(&[0.0; 8], &mut [0; 32]), 0.0);
    }
}
