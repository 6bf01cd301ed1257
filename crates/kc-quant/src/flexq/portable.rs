//! What every kernel shares: the loops around it and the scales behind it; and the kernel in safe code.
//!
//! A task is a *strip*, [`PANELS`] panels of weights, and a run of tokens. Group by group, and in a long group chunk by
//! chunk, the codes are unpacked to bytes, multiplied with every token of the run, and the sums of a group scaled
//! into the f32 results of the task. Unpacked codes, activations, sums and results stay in the first cache.

use std::ops::Range;

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
const TOKENS: usize = 64;
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
    fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, lanes: usize, out: &mut Unpacked);

    /// Adds the products of `quads` unpacked quads with all tokens to `sums[t][PANELS * lanes]`.
    fn multiply(w: &Unpacked, quads: usize, x: Tokens<'_>, depth: Depth, lanes: usize, sums: &mut [i32]);
}

/// Safe code for any processor.
pub(super) struct Portable;

impl Kernel for Portable {
    fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, lanes: usize, out: &mut Unpacked) {
        let bytes = lanes * BLOCK * usize::from(width) / 8;
        let register = 4 * lanes;
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

    fn multiply(w: &Unpacked, quads: usize, x: Tokens<'_>, _: Depth, lanes: usize, sums: &mut [i32]) {
        let row = PANELS * lanes;
        for (t, sums) in sums.chunks_exact_mut(row).take(x.count).enumerate() {
            let codes = &x.codes[t * x.stride..][..4 * quads];
            for (x, w) in codes.as_chunks::<4>().0.iter().zip(w.0.chunks_exact(4 * row)) {
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
}

/// The strip `index` for all tokens of `x`: `out(tokens, rows of w, results [token][PANELS * lanes])`.
#[inline(always)]
pub(super) fn strip<K: Kernel>(
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    mut out: impl FnMut(Range<usize>, &[f32]),
) {
    let Scratch { unpacked, sums, results } = scratch;
    let codes = &w.codes;
    let lanes = codes.lanes();
    let row = PANELS * lanes;
    let panels = codes.shape()[0].div_ceil(lanes);
    let (first, second) = (index * PANELS, (index * PANELS + 1 < panels).then_some(index * PANELS + 1));
    let (a, b) = (codes.panel(first), second.map_or(&[][..], |p| codes.panel(p)));
    let (k, group, bytes) = (codes.shape()[1], codes.group(), codes.block_bytes());

    for start in (0..x.rows).step_by(TOKENS) {
        let tokens = start..x.rows.min(start + TOKENS);
        let results = &mut results[..tokens.len() * row];
        let sums = &mut sums[..tokens.len() * row];
        results.fill(0.0);
        let mut block = 0;
        for g in 0..codes.groups() {
            let blocks = group.min(k - g * group).div_ceil(BLOCK);
            sums.fill(0);
            let from = (g * x.rows + start) * x.stride;
            for chunk in (0..blocks).step_by(CHUNK) {
                let count = CHUNK.min(blocks - chunk);
                let here = (block + chunk) * bytes;
                let b = b.get(here..).unwrap_or_default();
                K::unpack(&a[here..], b, codes.width(), count, lanes, unpacked);
                let codes = &x.codes[from + chunk * BLOCK..];
                let x = Tokens { codes, stride: x.stride, count: tokens.len() };
                K::multiply(unpacked, count * QUADS, x, depth, lanes, sums);
            }
            block += blocks;
            scale(w, x, index, g, tokens.clone(), sums, results);
        }
        out(tokens, results);
    }
}

/// `results += (sum - zx * S(u) - zw * S(x - zx)) * sw * sx`, for one group.
#[inline(always)]
fn scale(
    w: &Weights,
    x: &Activations,
    index: usize,
    g: usize,
    tokens: Range<usize>,
    sums: &[i32],
    results: &mut [f32],
) {
    let row = PANELS * w.codes.lanes();
    let at = (index * w.codes.groups() + g) * row;
    let scales = &w.scales[at..at + row];
    for (t, (sums, results)) in tokens.zip(sums.chunks_exact(row).zip(results.chunks_exact_mut(row))) {
        let m = g * x.rows + t;
        let (by, centred) = (x.scales[m], x.sums[m]);
        let mut exact = [0i32; PANELS * MAX_LANES];
        let exact = &mut exact[..row];
        exact.copy_from_slice(sums);
        if let Some(&zero) = x.zeros.get(m) {
            for (e, &s) in exact.iter_mut().zip(&w.code_sums[at..at + row]) {
                *e = e.wrapping_sub(zero.wrapping_mul(s));
            }
        }
        match &w.zeros {
            Zeros::Constant(zero) => {
                let shift = zero.wrapping_mul(centred);
                for ((r, &e), &s) in results.iter_mut().zip(exact.iter()).zip(scales) {
                    *r += e.wrapping_sub(shift) as f32 * (s * by);
                }
            }
            Zeros::PerGroup(zeros) => {
                let zeros = &zeros[at..at + row];
                for (((r, &e), &s), &z) in results.iter_mut().zip(exact.iter()).zip(scales).zip(zeros) {
                    *r += e.wrapping_sub(z.wrapping_mul(centred)) as f32 * (s * by);
                }
            }
            Zeros::Offset(offsets) => {
                let (offsets, centred) = (&offsets[at..at + row], centred as f32);
                for (((r, &e), &s), &o) in results.iter_mut().zip(exact.iter()).zip(scales).zip(offsets) {
                    *r += (e as f32 * s + centred * o) * by;
                }
            }
        }
    }
}
