//! The blocks of GGUF: codes, scales and offsets of each, in one place for both ways of reading.

use kc_core::half::slice::HalfFloatSliceExt;
use kc_core::{Result, Tensor, bf16, f16};
use rayon::prelude::*;

use super::GgufType;
use crate::{UniformGroups, Zeros};

/// Bytes of packed rows that one task reads.
const TASK_BYTES: usize = 1 << 16;

/// A block of codes in groups.
trait Block {
    /// Elements.
    const LEN: usize;
    /// Bytes.
    const BYTES: usize;
    /// Bits of a code.
    const BITS: u8;
    /// Elements of a group.
    const GROUP: usize;
    /// The zero of all codes: `scale (code - zero)`; with none, `scale code + offset`.
    const ZERO: Option<i32>;

    /// Takes `bytes` apart into LEN codes and, for each group, a scale and an offset (which is left alone if
    /// there is a zero).
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]);
}

#[inline(always)]
fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Low nibbles, then high nibbles.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Adds bit `i` of four bytes, as the fifth bit, to code `i`.
#[inline(always)]
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(bytes) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> i & 1) << 4;
        }
    }
}

struct Q40;
struct Q41;
struct Q50;
struct Q51;
struct Q80;
struct Q2K;
struct Q3K;
struct Q4K;
struct Q5K;
struct Q6K;

impl Block for Q40 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const BITS: u8 = 4;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = Some(8);

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        scales[0] = half(bytes, 0);
        nibbles(&bytes[2..18], codes);
    }
}

impl Block for Q41 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const BITS: u8 = 4;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = None;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]) {
        scales[0] = half(bytes, 0);
        offsets[0] = half(bytes, 2);
        nibbles(&bytes[4..20], codes);
    }
}

impl Block for Q50 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const BITS: u8 = 5;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = Some(16);

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        scales[0] = half(bytes, 0);
        nibbles(&bytes[6..22], codes);
        fifth_bits(&bytes[2..6], codes);
    }
}

impl Block for Q51 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const BITS: u8 = 5;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = None;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]) {
        scales[0] = half(bytes, 0);
        offsets[0] = half(bytes, 2);
        nibbles(&bytes[8..24], codes);
        fifth_bits(&bytes[4..8], codes);
    }
}

impl Block for Q80 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const BITS: u8 = 8;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = Some(128);

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        scales[0] = half(bytes, 0);
        for (code, byte) in codes.iter_mut().zip(&bytes[2..34]) {
            // Two's complement plus 128.
            *code = byte ^ 0x80;
        }
    }
}

/// Codes of 2 bits: of each 32 bytes first all lowest bits, then the next ones.
#[inline(always)]
fn pairs(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * j) & 3;
            }
        }
    }
}

impl Block for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const BITS: u8 = 2;
    const GROUP: usize = 16;
    const ZERO: Option<i32> = None;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]) {
        let (d, dmin) = (half(bytes, 80), half(bytes, 82));
        for ((byte, scale), offset) in bytes[..16].iter().zip(scales).zip(offsets) {
            *scale = d * f32::from(byte & 15);
            *offset = -(dmin * f32::from(byte >> 4));
        }
        pairs(&bytes[16..80], codes);
    }
}

impl Block for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const BITS: u8 = 3;
    const GROUP: usize = 16;
    const ZERO: Option<i32> = Some(4);

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        let d = half(bytes, 108);
        let packed = &bytes[96..108];
        for (i, scale) in scales.iter_mut().enumerate() {
            // Four low bits in the nibbles of eight bytes, two high bits in the quarters of four.
            let low = packed[i % 8] >> (4 * (i / 8)) & 15;
            let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
            *scale = d * f32::from((low | high << 4) as i8 - 32);
        }
        pairs(&bytes[32..96], codes);
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, mask) in codes.iter_mut().zip(&bytes[..32]) {
                *code |= (mask >> bit & 1) << 2;
            }
        }
    }
}

/// Eight scales and eight minima of 6 bits in 12 bytes.
#[inline(always)]
pub(super) fn scale_and_min(packed: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        let low = packed[i + 4];
        (low & 15 | packed[i - 4] >> 6 << 4, low >> 4 | packed[i] >> 6 << 4)
    }
}

#[inline(always)]
fn scales_and_offsets(bytes: &[u8], scales: &mut [f32], offsets: &mut [f32]) {
    let (d, dmin) = (half(bytes, 0), half(bytes, 2));
    for (i, (to, offset)) in scales.iter_mut().zip(offsets).enumerate() {
        let (scale, min) = scale_and_min(&bytes[4..16], i);
        *to = d * f32::from(scale);
        *offset = -(dmin * f32::from(min));
    }
}

impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const BITS: u8 = 4;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = None;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]) {
        scales_and_offsets(bytes, scales, offsets);
        for (bytes, codes) in bytes[16..144].chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
            nibbles(bytes, codes);
        }
    }
}

impl Block for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const BITS: u8 = 5;
    const GROUP: usize = 32;
    const ZERO: Option<i32> = None;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], offsets: &mut [f32]) {
        scales_and_offsets(bytes, scales, offsets);
        for (bytes, codes) in bytes[48..176].chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
            nibbles(bytes, codes);
        }
        for (bit, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, high) in codes.iter_mut().zip(&bytes[16..48]) {
                *code |= (high >> bit & 1) << 4;
            }
        }
    }
}

impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const BITS: u8 = 6;
    const GROUP: usize = 16;
    const ZERO: Option<i32> = Some(32);

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
        let d = half(bytes, 208);
        for (scale, &byte) in scales.iter_mut().zip(&bytes[192..208]) {
            *scale = d * f32::from(byte as i8);
        }
        for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
            nibbles(&bytes[64 * half..][..64], codes);
            let high = &bytes[128 + 32 * half..][..32];
            for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
                for (code, high) in codes.iter_mut().zip(high) {
                    *code |= (high >> (2 * j) & 3) << 4;
                }
            }
        }
    }
}

/// One row in f32.
fn dequantize_row<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let (mut codes, mut scales, mut offsets) = ([0u8; 256], [0.0f32; 16], [0.0f32; 16]);
    let codes = &mut codes[..B::LEN];
    for (bytes, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::unpack(bytes, codes, &mut scales[..B::LEN / B::GROUP], &mut offsets[..B::LEN / B::GROUP]);
        let groups = out.chunks_exact_mut(B::GROUP).zip(codes.chunks_exact(B::GROUP));
        for ((out, codes), (&scale, &offset)) in groups.zip(scales.iter().zip(&offsets)) {
            match B::ZERO {
                Some(zero) => {
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = scale * (i32::from(code) - zero) as f32;
                    }
                }
                None => {
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = scale * f32::from(code) + offset;
                    }
                }
            }
        }
    }
}

/// Half precision, a piece at a time: the processor's own conversion takes several.
fn widen_halves(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; 256];
    for (out, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
        let halves = &mut halves[..out.len()];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves.convert_to_f32_slice(out);
    }
}

fn widen_bfloats(bytes: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *out = bf16::from_le_bytes(*bytes).to_f32();
    }
}

/// Rows of `row_bytes` bytes in f32.
pub(super) fn dequantize(kind: GgufType, bytes: &[u8], shape: [usize; 2]) -> Result<Tensor<f32, 2>> {
    let [_, k] = shape;
    let row_bytes = kind.row_bytes(k)?;
    let mut out = Tensor::zeros(shape)?;
    if out.is_empty() {
        return Ok(out);
    }
    let rows = (TASK_BYTES / row_bytes).max(1);
    let row = row_reader(kind)?;
    out.as_mut_slice().par_chunks_mut(rows * k).zip(bytes.par_chunks(rows * row_bytes)).for_each(
        |(out, bytes)| {
            for (out, bytes) in out.chunks_exact_mut(k).zip(bytes.chunks_exact(row_bytes)) {
                row(bytes, out);
            }
        },
    );
    Ok(out)
}

/// From the bytes of a row to its numbers.
type RowReader = fn(&[u8], &mut [f32]);

/// The function that reads a row of that type.
fn row_reader(kind: GgufType) -> Result<RowReader> {
    Ok(match kind {
        GgufType::F32 => |bytes, out| {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        },
        GgufType::F16 => widen_halves,
        GgufType::BF16 => widen_bfloats,
        GgufType::Q4_0 => dequantize_row::<Q40>,
        GgufType::Q4_1 => dequantize_row::<Q41>,
        GgufType::Q5_0 => dequantize_row::<Q50>,
        GgufType::Q5_1 => dequantize_row::<Q51>,
        GgufType::Q8_0 => dequantize_row::<Q80>,
        GgufType::Q2_K => dequantize_row::<Q2K>,
        GgufType::Q3_K => dequantize_row::<Q3K>,
        GgufType::Q4_K => dequantize_row::<Q4K>,
        GgufType::Q5_K => dequantize_row::<Q5K>,
        GgufType::Q6_K => dequantize_row::<Q6K>,
        GgufType::Other(_) => return Err(kc_core::Error::unsupported("GGUF type", "it is not read")),
    })
}

/// Rows of blocks in this crate's form.
pub(super) fn to_uniform(kind: GgufType, bytes: &[u8], shape: [usize; 2]) -> Result<UniformGroups> {
    match kind {
        GgufType::Q4_0 => uniform::<Q40>(kind, bytes, shape),
        GgufType::Q4_1 => uniform::<Q41>(kind, bytes, shape),
        GgufType::Q5_0 => uniform::<Q50>(kind, bytes, shape),
        GgufType::Q5_1 => uniform::<Q51>(kind, bytes, shape),
        GgufType::Q8_0 => uniform::<Q80>(kind, bytes, shape),
        GgufType::Q2_K => uniform::<Q2K>(kind, bytes, shape),
        GgufType::Q3_K => uniform::<Q3K>(kind, bytes, shape),
        GgufType::Q4_K => uniform::<Q4K>(kind, bytes, shape),
        GgufType::Q5_K => uniform::<Q5K>(kind, bytes, shape),
        GgufType::Q6_K => uniform::<Q6K>(kind, bytes, shape),
        GgufType::F32 | GgufType::F16 | GgufType::BF16 | GgufType::Other(_) => {
            Err(kc_core::Error::unsupported(
                format!("codes of GGUF type {}", kind.name()),
                "it holds no codes with scales; dequantise it and quantise the result",
            ))
        }
    }
}

fn uniform<B: Block>(kind: GgufType, bytes: &[u8], shape: [usize; 2]) -> Result<UniformGroups> {
    let [n, k] = shape;
    let row_bytes = kind.row_bytes(k)?;
    let count = kc_core::shape::checked_len("codes", &shape)?;
    let groups = k / B::GROUP;
    let mut codes = super::super::tiles::zeros(count);
    let mut scales = vec![0.0f32; n * groups];
    let mut offsets = vec![0.0f32; if B::ZERO.is_some() { 0 } else { n * groups }];
    if count > 0 {
        let rows = (TASK_BYTES / row_bytes).max(1);
        // Symmetric types have no offsets to cut; their tasks get empty parts.
        let parts = n.div_ceil(rows);
        let mut offset_parts: Vec<&mut [f32]> = offsets.chunks_mut(rows * groups).collect();
        offset_parts.resize_with(parts, Default::default);
        let codes = codes.par_chunks_mut(rows * k).zip(scales.par_chunks_mut(rows * groups));
        codes.zip(offset_parts).zip(bytes.par_chunks(rows * row_bytes)).for_each(
            |(((codes, scales), offsets), bytes)| {
                let per_block = B::LEN / B::GROUP;
                let mut unused = [0.0; 16];
                let blocks = codes.chunks_exact_mut(B::LEN).zip(scales.chunks_exact_mut(per_block));
                for (i, ((codes, scales), bytes)) in blocks.zip(bytes.chunks_exact(B::BYTES)).enumerate() {
                    let offsets = match B::ZERO {
                        Some(_) => &mut unused[..per_block],
                        None => &mut offsets[i * per_block..][..per_block],
                    };
                    B::unpack(bytes, codes, scales, offsets);
                }
            },
        );
    }
    let zeros = B::ZERO.map_or(Zeros::Offset(offsets), Zeros::Constant);
    UniformGroups::new(shape, B::BITS, B::GROUP, codes, scales, zeros)
}
