//! The packings, element by element: for each the bits of one code are looked up in the file, and nothing else.
//!
//! Slow, and never called by the readers.

use kc_core::{Float, TensorView, f16};

use super::{
    AwqViews, GgufType, GptqVersion, GptqViews, MatMulNBitsViews, PackQuantizedViews, ScaleView, ZeroPoints,
};

/// Bits `at .. at + bits` of a stream of words.
fn stream_bits(word: impl Fn(usize) -> i32, at: usize, bits: u8) -> i32 {
    let mut code = 0;
    for b in 0..usize::from(bits) {
        let bit = (word((at + b) / 32) as u32) >> ((at + b) % 32) & 1;
        code |= (bit as i32) << b;
    }
    code
}

fn scale_at(scales: &ScaleView<'_>, at: [usize; 2]) -> f32 {
    match scales {
        ScaleView::F16(x) => x.at(at).to_f32(),
        ScaleView::Bf16(x) => Float::to_f32(x.at(at)),
        ScaleView::F32(x) => x.at(at),
    }
}

/// Element `(n, k)` of GPTQ arrays with groups of `group` columns unless `g_idx` says otherwise.
///
/// # Panics
/// If the arrays do not agree.
pub fn gptq(views: &GptqViews<'_>, bits: u8, group: usize, version: GptqVersion, [n, k]: [usize; 2]) -> f32 {
    let b = usize::from(bits);
    let g = views.g_idx.map_or(k / group, |index| index.at([k]) as usize);
    let code = stream_bits(|word| views.qweight.at([word, n]), k * b, bits);
    let stored = stream_bits(|word| views.qzeros.at([g, word]), n * b, bits);
    let zero = if version == GptqVersion::V1 { stored + 1 } else { stored };
    scale_at(&views.scales, [g, n]) * (code - zero) as f32
}

/// Element `(n, k)` of AWQ arrays with groups of `group` columns.
///
/// # Panics
/// If the arrays do not agree.
pub fn awq(views: &AwqViews<'_>, group: usize, [n, k]: [usize; 2]) -> f32 {
    // Where row 0, 1, ... 7 of a word stands: the inverse of 0, 2, 4, 6, 1, 3, 5, 7.
    let nibble = [0, 4, 1, 5, 2, 6, 3, 7][n % 8];
    let of = |words: TensorView<'_, i32, 2>, i| (words.at([i, n / 8]) as u32 >> (4 * nibble) & 15) as i32;
    let (code, zero) = (of(views.qweight, k), of(views.qzeros, k / group));
    scale_at(&views.scales, [k / group, n]) * (code - zero) as f32
}

/// Element `(n, k)` of `pack-quantized` arrays.
///
/// # Panics
/// If the arrays do not agree.
pub fn pack_quantized(views: &PackQuantizedViews<'_>, bits: u8, group: usize, [n, k]: [usize; 2]) -> f32 {
    let b = usize::from(bits);
    let g = views.weight_g_idx.map_or(k / group, |index| index.at([k]) as usize);
    let code = stream_bits(|word| views.weight_packed.at([n, word]), k * b, bits);
    let middle = 1 << (bits - 1);
    let zero = match views.weight_zero_point {
        None => middle,
        Some(ZeroPoints::Packed(x)) => stream_bits(|word| x.at([word, g]), n * b, bits),
        Some(ZeroPoints::Signed(x)) => i32::from(x.at([n, g])) + middle,
        Some(ZeroPoints::Unsigned(x)) => x.at([n, g]),
    };
    scale_at(&views.weight_scale, [n, g]) * (code - zero) as f32
}

/// Element `(n, k)` of `MatMulNBits` arrays.
///
/// # Panics
/// If the arrays do not agree.
pub fn mat_mul_n_bits(views: &MatMulNBitsViews<'_>, bits: u8, [n, k]: [usize; 2]) -> f32 {
    let b = usize::from(bits);
    let block = views.b.shape()[2] * 8 / b;
    let (g, inside) = (k / block, k % block);
    let bits_of = |byte: u8, at: usize| i32::from(byte >> (at % 8)) & ((1 << bits) - 1);
    let code = bits_of(views.b.at([n, g, inside * b / 8]), inside * b);
    let zero = views.zero_points.map_or(1 << (bits - 1), |x| bits_of(x.at([n, g * b / 8]), g * b));
    scale_at(&views.scales, [n, g]) * (code - zero) as f32
}

/// Element `i` of a row of GGUF blocks.
///
/// # Panics
/// If the row is too short, or of a type that is not read.
pub fn gguf(kind: GgufType, row: &[u8], i: usize) -> f32 {
    let Some((len, bytes)) = kind.block() else { panic!("{kind:?} is not read") };
    let x = &row[i / len * bytes..][..bytes];
    let i = i % len;
    let half = |at: usize| f16::from_le_bytes([x[at], x[at + 1]]).to_f32();
    let bit = |byte: u8, at: usize| i32::from(byte >> at & 1);
    // Nibble i of 16 bytes: low ones first.
    let nibble = |at: usize| i32::from(x[at + i % 16] >> (4 * (i / 16)) & 15);
    // Of 256 codes: which half, which run of 32 in it, which place there.
    let (upper, run, place) = (i / 128, i / 32 % 4, i % 32);
    let pair = |at: usize| i32::from(x[at + 32 * upper + place] >> (2 * run) & 3);
    // Sub-block s of 32 codes of Q4_K and Q5_K takes the low (even s) or high nibbles of 32 bytes.
    let s = i / 32;
    let long_nibble = |at: usize| i32::from(x[at + 32 * (s / 2) + place] >> (4 * (s % 2)) & 15);
    let six = |at: usize| {
        let p = &x[at..at + 12];
        match s {
            0..4 => (p[s] % 64, p[s + 4] % 64),
            _ => (p[s + 4] % 16 + 16 * (p[s - 4] / 64), p[s + 4] / 16 + 16 * (p[s] / 64)),
        }
    };
    match kind {
        GgufType::F32 => f32::from_le_bytes([x[0], x[1], x[2], x[3]]),
        GgufType::F16 => half(0),
        GgufType::BF16 => f32::from_bits(u32::from(u16::from_le_bytes([x[0], x[1]])) << 16),
        GgufType::Q4_0 => half(0) * (nibble(2) - 8) as f32,
        GgufType::Q4_1 => half(0) * nibble(4) as f32 + half(2),
        GgufType::Q5_0 => half(0) * (nibble(6) + 16 * bit(x[2 + i / 8], i % 8) - 16) as f32,
        GgufType::Q5_1 => half(0) * (nibble(8) + 16 * bit(x[4 + i / 8], i % 8)) as f32 + half(2),
        GgufType::Q8_0 => half(0) * f32::from(x[2 + i] as i8),
        GgufType::Q2_K => {
            let s = x[i / 16];
            half(80) * f32::from(s % 16) * pair(16) as f32 - half(82) * f32::from(s / 16)
        }
        GgufType::Q3_K => {
            let g = i / 16;
            let low = if g < 8 { x[96 + g] % 16 } else { x[96 + g - 8] / 16 };
            let high = x[104 + g % 4] >> (2 * (g / 4)) & 3;
            let scale = i32::from(low) + 16 * i32::from(high) - 32;
            let code = pair(32) - if bit(x[place], 4 * upper + run) == 1 { 0 } else { 4 };
            half(108) * scale as f32 * code as f32
        }
        GgufType::Q4_K => {
            let (scale, min) = six(4);
            half(0) * f32::from(scale) * long_nibble(16) as f32 - half(2) * f32::from(min)
        }
        GgufType::Q5_K => {
            let (scale, min) = six(4);
            let code = long_nibble(48) + 16 * bit(x[16 + place], s);
            half(0) * f32::from(scale) * code as f32 - half(2) * f32::from(min)
        }
        GgufType::Q6_K => {
            // Runs 0 and 2 share bytes 0 to 31 of their half, runs 1 and 3 the next 32.
            let low = x[64 * upper + 32 * (run % 2) + place] >> (4 * (run / 2)) & 15;
            let high = x[128 + 32 * upper + place] >> (2 * run) & 3;
            let scale = half(208) * f32::from(x[192 + i / 16] as i8);
            scale * (i32::from(low | high << 4) - 32) as f32
        }
        GgufType::Other(_) => unreachable!("has no block"),
    }
}
