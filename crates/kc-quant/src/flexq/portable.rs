//! What every kernel shares: the loops around it and the scales behind it; and the kernel in safe code.
//!
//! A task is a *strip*, [`PANELS`] panels of weights, and a run of tokens. Group by group, and in a long group chunk by
//! chunk, the codes are unpacked to bytes, multiplied with every token of the run, and the sums of a group scaled
//! into the f32 results of the task. Unpacked codes, activations, sums and results stay in the first cache.

use super::activations::Activations;
use super::linear::Weights;
use crate::interleaved::{BLOCK, unpack_block};
use crate::uniform::Zeros;

/// Panels of a strip.
pub(super) const PANELS: usize = 2;
/// Blocks that are unpacked at once: 128 columns.
const CHUNK: usize = 8;
/// Quads of a block.
pub(super) const QUADS: usize = BLOCK / 4;
/// Tokens of a task.
const TOKENS: usize = 96;
/// Most lanes of a panel.
const MAX_LANES: usize = 16;
/// Bytes of a quad of a strip, at most.
const QUAD_BYTES: usize = 4 * MAX_LANES * PANELS;

/// Unpacked codes, `[quad][panel][4 lanes]`, aligned for every register.
#[repr(align(64))]
pub(super) struct Unpacked(pub(super) [u8; CHUNK * QUADS * QUAD_BYTES]);

/// How far sums of 16 bits can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// So many sums of two products fit: 1, 2 or 8.
    Sums(u8),
    /// Not even one: codes are split into nibbles.
    Split,
}

impl Depth {
    /// For unsigned weights of `weight_bits` and signed activations of `bits`.
    pub(super) fn of(weight_bits: u8, bits: u8) -> Self {
        let pair = 2 * ((1i32 << weight_bits) - 1) * (1 << (bits - 1));
        match i32::from(i16::MAX) / pair {
            0 => Depth::Split,
            1 => Depth::Sums(1),
            2..8 => Depth::Sums(2),
            _ => Depth::Sums(8),
        }
    }
}

/// The memory of a task.
pub(super) struct Scratch {
    unpacked: Unpacked,
    sums: [i32; TOKENS * PANELS * MAX_LANES],
    results: [f32; TOKENS * PANELS * MAX_LANES],
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            unpacked: Unpacked([0; CHUNK * QUADS * QUAD_BYTES]),
            sums: [0; TOKENS * PANELS * MAX_LANES],
            results: [0.0; TOKENS * PANELS * MAX_LANES],
        }
    }
}

/// Activations of one chunk: `codes[t * stride..]` for token `t`.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) codes: &'a [i8],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// What an instruction set does itself.
pub(super) trait Kernel {
    /// Unpacks `blocks` of two panels (one, if `b` is empty) of codes of `width` bits.
    fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, out: &mut Unpacked);

    /// Adds the products of `quads` unpacked quads with all tokens to `sums[t][PANELS * lanes]`.
    fn multiply(w: &Unpacked, quads: usize, x: Tokens<'_>, depth: Depth, sums: &mut [i32]);

    /// A whole strip for so few tokens that codes are not worth storing: `results` `[t][PANELS * lanes]`. False, and
    /// nothing done, if this kernel has no code for them.
    fn few(_: &Weights, _: &Activations, _: usize, _: Depth, _: &mut [f32]) -> bool {
        false
    }

    /// `results += sums * scales * by` for one token, the sums corrected by `zeros` first.
    fn add_scaled<const ROW: usize>(
        sums: &[i32; ROW],
        zeros: Correction<'_, ROW>,
        scales: &[f32; ROW],
        by: f32,
        results: &mut [f32; ROW],
    );
}

/// What sums of codes lack of sums of what the codes stand for.
#[derive(Clone, Copy)]
pub(super) enum Correction<'a, const ROW: usize> {
    /// Less a number.
    Constant(i32),
    /// Less zeros times the sum of the activations.
    Zeros(&'a [i32; ROW], i32),
    /// And offsets times the sum of the activations, where scales are per weight.
    Offsets(&'a [f32; ROW], f32),
}

/// Safe code for any processor, on panels of 8 rows.
pub(super) struct Portable;

impl Portable {
    const LANES: usize = 8;
}

impl Kernel for Portable {
    fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, out: &mut Unpacked) {
        let register = 4 * Self::LANES;
        let bytes = register * usize::from(width) / 2;
        for (panel, codes) in [a, b].into_iter().enumerate() {
            for (block, codes) in codes.chunks_exact(bytes).take(blocks).enumerate() {
                let mut quads = [[0u8; 64]; QUADS];
                unpack_block(codes, width, &mut quads);
                for (q, quad) in quads.iter().enumerate() {
                    let at = ((block * QUADS + q) * PANELS + panel) * register;
                    out.0[at..at + register].copy_from_slice(&quad[..register]);
                }
            }
        }
    }

    fn multiply(w: &Unpacked, quads: usize, x: Tokens<'_>, _: Depth, sums: &mut [i32]) {
        const ROW: usize = PANELS * Portable::LANES;
        for (t, sums) in sums.as_chunks_mut::<ROW>().0.iter_mut().enumerate() {
            let codes = &x.codes[t * x.stride..][..4 * quads];
            for (x, w) in codes.as_chunks::<4>().0.iter().zip(w.0.as_chunks::<{ 4 * ROW }>().0) {
                let [x0, x1, x2, x3] = *x;
                for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
                    *sum += i32::from(x0) * i32::from(w[0])
                        + i32::from(x1) * i32::from(w[1])
                        + i32::from(x2) * i32::from(w[2])
                        + i32::from(x3) * i32::from(w[3]);
                }
            }
        }
    }

    fn add_scaled<const ROW: usize>(
        sums: &[i32; ROW],
        zeros: Correction<'_, ROW>,
        scales: &[f32; ROW],
        by: f32,
        results: &mut [f32; ROW],
    ) {
        for (i, result) in results.iter_mut().enumerate() {
            *result += match zeros {
                Correction::Constant(shift) => sums[i].wrapping_sub(shift) as f32 * (scales[i] * by),
                Correction::Zeros(zeros, centred) => {
                    sums[i].wrapping_sub(zeros[i].wrapping_mul(centred)) as f32 * (scales[i] * by)
                }
                Correction::Offsets(offsets, centred) => {
                    (sums[i] as f32 * scales[i] + centred * offsets[i]) * by
                }
            };
        }
    }
}

/// The strip `index` for all tokens of `x`: `out(tokens, results)`, results `[token][ROW]`. `ROW` is
/// `PANELS * lanes`.
#[inline(always)]
pub(super) fn strip<K: Kernel, const ROW: usize>(
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    mut out: impl FnMut(usize, &mut [f32]),
) {
    let codes = &w.codes;
    assert_eq!(ROW, PANELS * codes.lanes(), "panels are packed for this kernel");
    let few = &mut scratch.results.as_chunks_mut::<ROW>().0[..x.rows.min(TOKENS)];
    if K::few(w, x, index, depth, few.as_flattened_mut()) {
        for (t, results) in few.iter_mut().enumerate() {
            out(t, results);
        }
        return;
    }
    let first = index * PANELS;
    let a = codes.panel(first);
    let b = if (first + 1) * codes.lanes() < codes.shape()[0] { codes.panel(first + 1) } else { &[] };
    let (k, group, bytes) = (codes.shape()[1], codes.group(), codes.block_bytes());
    for start in (0..x.rows).step_by(TOKENS) {
        let tokens = start..x.rows.min(start + TOKENS);
        let sums = &mut scratch.sums.as_chunks_mut::<ROW>().0[..tokens.len()];
        let results = &mut scratch.results.as_chunks_mut::<ROW>().0[..tokens.len()];
        results.fill([0.0; ROW]);
        let mut block = 0;
        for g in 0..codes.groups() {
            let blocks = group.min(k - g * group).div_ceil(BLOCK);
            sums.fill([0; ROW]);
            let from = g * x.rows + start;
            for chunk in (0..blocks).step_by(CHUNK) {
                let count = CHUNK.min(blocks - chunk);
                let here = (block + chunk) * bytes;
                let (a, b) = (&a[here..], b.get(here..).unwrap_or_default());
                let tokens = Tokens {
                    codes: &x.codes[from * x.stride + chunk * BLOCK..],
                    stride: x.stride,
                    count: tokens.len(),
                };
                K::unpack(a, b, codes.width(), count, &mut scratch.unpacked);
                K::multiply(&scratch.unpacked, count * QUADS, tokens, depth, sums.as_flattened_mut());
            }
            block += blocks;
            scale::<K, ROW>(w, x, index * codes.groups() + g, from, sums, results);
        }
        for (t, results) in tokens.zip(results) {
            out(t, results);
        }
    }
}

/// `results += (sum - zx * S(u) - zw * S(x - zx)) * sw * sx`, for one group.
#[inline(always)]
fn scale<K: Kernel, const ROW: usize>(
    w: &Weights,
    x: &Activations,
    place: usize,
    first: usize,
    sums: &mut [[i32; ROW]],
    results: &mut [[f32; ROW]],
) {
    let at = place * ROW..(place + 1) * ROW;
    let (Some(scales), m) = (w.scales[at.clone()].first_chunk::<ROW>(), first..first + sums.len()) else {
        return;
    };
    let (by, centred) = (&x.scales[m.clone()], &x.sums[m.clone()]);
    if let (Some(zeros), Some(codes)) = (x.zeros.get(m), w.code_sums.get(at.clone())) {
        for (sums, zero) in sums.iter_mut().zip(zeros) {
            for (sum, codes) in sums.iter_mut().zip(codes) {
                *sum = sum.wrapping_sub(zero.wrapping_mul(*codes));
            }
        }
    }
    for (t, (results, sums)) in results.iter_mut().zip(sums.iter()).enumerate() {
        let correction = match &w.zeros {
            Zeros::Constant(zero) => Correction::Constant(zero.wrapping_mul(centred[t])),
            Zeros::PerGroup(zeros) => Correction::Zeros(place_of(zeros, place), centred[t]),
            Zeros::Offset(offsets) => Correction::Offsets(place_of(offsets, place), centred[t] as f32),
        };
        K::add_scaled(sums, correction, scales, by[t], results);
    }
}

/// Row `place` of a table.
#[inline(always)]
fn place_of<T, const ROW: usize>(table: &[T], place: usize) -> &[T; ROW] {
    &table.as_chunks::<ROW>().0[place]
}
