//! Blocks from numbers and from codes.
//!
//! Q4_0 and Q8_0 are rounded exactly as ggml's reference does, so files are equal byte by byte. Q4_K and Q6_K have no
//! such definition; here the squared error is made small: scales are tried on a grid and refined by least squares, first
//! alone, then as the file rounds them.

use kc_core::{Error, Result, TensorView, f16};
use rayon::prelude::*;

use super::super::cannot_hold;
use super::super::scales::exact_halves;
use super::{GgufType, search};
use crate::UniformGroups;
use crate::rows::Rows;

/// Rounds `w`, `[N, K]`, to blocks, row by row.
///
/// # Errors
/// `Shape` if K is no multiple of the block; `NotFinite` for numbers that are not, or too large for the scales in half
/// precision; `Unsupported` for types other than F32, F16, Q4_0, Q8_0, Q4_K and Q6_K.
pub fn quantize(w: TensorView<'_, f32, 2>, kind: GgufType) -> Result<Vec<u8>> {
    let block: fn(&[f32], &mut [u8]) = match kind {
        GgufType::F32 => |x, out| out.copy_from_slice(&x[0].to_le_bytes()),
        GgufType::F16 => |x, out| out.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
        GgufType::Q4_0 => q4_0,
        GgufType::Q8_0 => q8_0,
        GgufType::Q4_K => search::q4_k,
        GgufType::Q6_K => search::q6_k,
        other => {
            return Err(Error::unsupported(
                format!("quantising to {}", other.name()),
                "F32, F16, Q4_0, Q8_0, Q4_K and Q6_K are made",
            ));
        }
    };
    let [n, k] = w.shape();
    let row_bytes = kind.row_bytes(k)?;
    let (len, bytes) = kind.block().unwrap_or((1, 1));
    let mut out = vec![0u8; kc_core::shape::checked_len("w", &[n, row_bytes])?];
    if out.is_empty() {
        return Ok(out);
    }
    let rows = Rows::of(w)?;
    out.par_chunks_mut(row_bytes).enumerate().try_for_each(|(i, out)| {
        let row = rows.row(i);
        if let Some(j) = row.iter().position(|x| !x.is_finite()) {
            return Err(Error::not_finite("w", &[i, j], f64::from(row[j])));
        }
        for (x, out) in row.chunks_exact(len).zip(out.chunks_exact_mut(bytes)) {
            block(x, out);
        }
        Ok(())
    })?;
    Ok(out)
}

/// Codes of Q4_0 or Q8_0 from groups whose scales and codes the type holds.
///
/// # Errors
/// `Unsupported` for other types, offsets instead of zeros, codes too far from their zeros, groups that 32 does not
/// divide, scales that half precision does not hold, or columns in another order.
pub fn pack_uniform(weights: &UniformGroups, kind: GgufType) -> Result<Vec<u8>> {
    let (bias, most, format) = match kind {
        GgufType::Q4_0 => (8, 15, "Q4_0"),
        GgufType::Q8_0 => (128, 255, "Q8_0"),
        other => {
            let reason = "only Q4_0 and Q8_0 take codes as they are; quantise the dequantised weights";
            return Err(Error::unsupported(format!("codes as {}", other.name()), reason));
        }
    };
    if weights.order().is_some() {
        return Err(cannot_hold(format, "it has no activation order"));
    }
    let [n, k] = weights.shape();
    let row_bytes = kind.row_bytes(k)?;
    let (_, bytes) = kind.block().unwrap_or((32, 1));
    let zeros = super::super::whole_zeros(weights, format)?;
    let halves = exact_halves(weights.scales(), format)?;
    let (group, groups) = (weights.group(), weights.groups());
    if !group.is_multiple_of(32) && groups > 1 {
        return Err(cannot_hold(
            format,
            format!("its groups are 32 columns, which {group} is no multiple of"),
        ));
    }
    let mut out = vec![0u8; kc_core::shape::checked_len("weights", &[n, row_bytes])?];
    for (i, block) in out.chunks_exact_mut(bytes).enumerate() {
        let (row, column) = (i * 32 / k, i * 32 % k);
        let at = row * groups + column / group;
        block[..2].copy_from_slice(&halves[at].to_le_bytes());
        let mut codes = [0u8; 32];
        for (to, &code) in codes.iter_mut().zip(&weights.codes()[row * k + column..]) {
            let biased = i64::from(code) - i64::from(zeros[at]) + bias;
            if !(0..=most).contains(&biased) {
                return Err(cannot_hold(format, format!("code {code} with zero {} does not fit", zeros[at])));
            }
            *to = biased as u8;
        }
        if kind == GgufType::Q4_0 {
            nibbles(&codes, &mut block[2..]);
        } else {
            for (to, code) in block[2..].iter_mut().zip(codes) {
                *to = code ^ 0x80;
            }
        }
    }
    Ok(out)
}

/// The first half of the codes to low nibbles, the second to high ones.
fn nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low | high << 4;
    }
}

/// 1 / d, or 0 for 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn q4_0(x: &[f32], out: &mut [u8]) {
    // The number of the largest magnitude becomes code 0, whatever its sign; of equals the first.
    let mut max = 0.0f32;
    for &x in x {
        if x.abs() > max.abs() {
            max = x;
        }
    }
    let d = max / -8.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let mut codes = [0u8; 32];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = ((x * id + 8.5) as u8).min(15);
    }
    nibbles(&codes, &mut out[2..]);
}

fn q8_0(x: &[f32], out: &mut [u8]) {
    let max = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let d = max / 127.0;
    let id = inverse(d);
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (byte, x) in out[2..].iter_mut().zip(x) {
        *byte = (x * id).round() as i8 as u8;
    }
}
