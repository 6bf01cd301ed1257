//! Kernels for AVX2 and AVX-512 VNNI, and the quantiser of activations compiled for them.
//!
//! AVX2: `vpmaddubsw` multiplies unsigned weights with signed activations and sums pairs in 16 bits. Up to
//! [`Depth`] of its results are added in 16 bits, then `vpmaddwd` with ones widens them. VNNI: `vpdpbusd` does it
//! at once.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]
#![expect(clippy::needless_range_loop, reason = "registers of several arrays share an index")]

use std::arch::x86_64::*;
use std::ops::Range;

use kc_core::{Isa, Level, Result};

use super::QuantSpec;
use super::activations::{self, Activations, Parts};
use super::linear::Weights;
use super::planes::Planes;
use super::portable::{self, Correction, Depth, Kernel, PANELS, QUADS, Scratch, Tokens, Unpacked};
use crate::interleaved::BLOCK;
use crate::uniform::Zeros;

mod registers;

use registers::{Bytes, Lane};

/// [`activations::line_of`] on a level.
pub(super) fn line(isa: Isa, x: &[f32], spec: &QuantSpec, parts: Parts<'_>) -> Result<()> {
    #[target_feature(enable = "avx2")]
    fn avx2(x: &[f32], spec: &QuantSpec, parts: Parts<'_>) -> Result<()> {
        activations::line_of(x, spec, parts)
    }
    match isa.level() {
        Level::Portable => activations::line_of(x, spec, parts),
        // SAFETY: every level from Avx2 on has AVX2.
        _ => unsafe { avx2(x, spec, parts) },
    }
}

/// [`portable::strip`] with AVX2, if `isa` has it and panels have 8 rows.
pub(super) fn strip_avx2(
    isa: Isa,
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    out: impl FnMut(usize, &mut [f32]),
) {
    #[target_feature(enable = "avx2")]
    fn avx2(
        w: &Weights,
        x: &Activations,
        index: usize,
        depth: Depth,
        scratch: &mut Scratch,
        out: impl FnMut(usize, &mut [f32]),
    ) {
        portable::strip::<Avx2, 16>(w, x, index, depth, scratch, out);
    }
    assert!(isa.level() >= Level::Avx2 && w.codes.lanes() == 8, "AVX2 and panels of 8 rows");
    // SAFETY: the level was checked.
    unsafe { avx2(w, x, index, depth, scratch, out) }
}

/// [`portable::strip`] with AVX-512 VNNI, if `isa` has it and panels have 16 rows.
pub(super) fn strip_vnni(
    isa: Isa,
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    scratch: &mut Scratch,
    out: impl FnMut(usize, &mut [f32]),
) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn vnni(
        w: &Weights,
        x: &Activations,
        index: usize,
        depth: Depth,
        scratch: &mut Scratch,
        out: impl FnMut(usize, &mut [f32]),
    ) {
        portable::strip::<Vnni, 32>(w, x, index, depth, scratch, out);
    }
    assert!(isa.level() >= Level::Avx512Icl && w.codes.lanes() == 16, "VNNI and panels of 16 rows");
    // SAFETY: the level was checked.
    unsafe { vnni(w, x, index, depth, scratch, out) }
}

/// [`Planes::multiply_rows`] on a level.
pub(super) fn multiply_planes(
    isa: Isa,
    w: &Planes,
    x: &Activations,
    rows: Range<usize>,
    store: impl FnMut(usize, usize, &mut [f32]),
) {
    #[target_feature(enable = "avx2,popcnt")]
    fn avx2(w: &Planes, x: &Activations, rows: Range<usize>, store: impl FnMut(usize, usize, &mut [f32])) {
        w.multiply_rows(x, rows, store);
    }
    match isa.level() {
        Level::Portable => w.multiply_rows(x, rows, store),
        // SAFETY: every level from Avx2 on has AVX2 and POPCNT.
        _ => unsafe { avx2(w, x, rows, store) },
    }
}

/// The quads of a block of codes of `W` bits.
///
/// # Safety
/// The instructions of `B`; `from` holds a block of `B::LANES` rows.
#[inline(always)]
unsafe fn unpack_block<B: Bytes, const W: usize>(from: *const u8) -> [B; QUADS] {
    // SAFETY: a block has W / 2 registers.
    unsafe {
        let register = |i: usize| B::load(from.add(i * 4 * B::LANES));
        let a = register(0);
        match W {
            2 => [a.and(3), a.right::<2>().and(3), a.right::<4>().and(3), a.right::<6>().and(3)],
            4 => {
                let b = register(1);
                [a.and(15), a.right::<4>().and(15), b.and(15), b.right::<4>().and(15)]
            }
            6 => {
                let (b, c) = (register(1), register(2));
                let top = a.right::<2>().and(0x30).or(b.right::<4>().and(0x0c)).or(c.right::<6>().and(3));
                [a.and(63), b.and(63), c.and(63), top]
            }
            _ => [a, register(1), register(2), register(3)],
        }
    }
}

/// # Safety
/// The instructions of `B`; `codes` holds `blocks` blocks of `B::LANES` rows, `out` has room for their quads.
#[inline(always)]
unsafe fn unpack<B: Bytes, const W: usize>(codes: *const u8, blocks: usize, out: *mut u8) {
    let step = PANELS * 4 * B::LANES;
    for block in 0..blocks {
        // SAFETY: inside of what the contract grants.
        unsafe {
            let quads = unpack_block::<B, W>(codes.add(block * W * 2 * B::LANES));
            for q in 0..QUADS {
                quads[q].store(out.add((block * QUADS + q) * step));
            }
        }
    }
}

/// Bytes between what is read and what is asked for.
const AHEAD: usize = 4096;

/// A strip with `T` tokens: codes are multiplied as they are unpacked, and everything else stays in registers.
///
/// # Safety
/// The instructions of `B`; `w` is packed for `B::LANES` and codes of `W` bits, `x` has `T` rows without zeros;
/// `results` has room for a strip of `T` tokens.
#[inline(always)]
unsafe fn few<B: Bytes, const W: usize, const T: usize, const D: usize>(
    w: &Weights,
    x: &Activations,
    index: usize,
    results: *mut f32,
) {
    let (codes, row) = (&w.codes, PANELS * B::LANES);
    let ([n, k], group, groups) = (codes.shape(), codes.group(), codes.groups());
    for panel in 0..PANELS.min(n.div_ceil(B::LANES) - index * PANELS) {
        let mut from = codes.panel(index * PANELS + panel).as_ptr();
        // SAFETY: a panel holds the blocks of all groups, x and the tables one entry for each group, and each is
        // read in order.
        unsafe {
            let mut totals = [B::load_floats([0f32; 16].as_ptr()); T];
            for g in 0..groups {
                let blocks = group.min(k - g * group).div_ceil(BLOCK);
                let line = x.codes.as_ptr().add(g * T * x.stride);
                let mut acc = [B::load_sums([0i32; 16].as_ptr()); T];
                for block in 0..blocks {
                    let quads = unpack_block::<B, W>(from);
                    // Weights that come from memory are asked for early; a prefetch never faults.
                    for line in (0..W * 2 * B::LANES).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line).cast());
                    }
                    from = from.add(W * 2 * B::LANES);
                    for t in 0..T {
                        acc[t] = B::dot_block::<D>(acc[t], quads, line.add(t * x.stride + block * BLOCK));
                    }
                }
                let at = (index * groups + g) * row + panel * B::LANES;
                for t in 0..T {
                    let m = g * T + t;
                    let centred = *x.sums.get_unchecked(m);
                    let lane = match &w.zeros {
                        Zeros::Constant(zero) => Lane::Constant(zero.wrapping_mul(centred)),
                        Zeros::PerGroup(zeros) => Lane::Zeros(zeros.as_ptr().add(at), centred),
                        Zeros::Offset(offsets) => Lane::Offsets(offsets.as_ptr().add(at), centred as f32),
                    };
                    let (scales, by) = (w.scales.as_ptr().add(at), *x.scales.get_unchecked(m));
                    totals[t] = B::add_scaled(totals[t], acc[t], lane, scales, by);
                }
            }
            for t in 0..T {
                B::store_floats(totals[t], results.add(t * row + panel * B::LANES));
            }
        }
    }
}

/// [`few`] for what it has code for.
///
/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn few_strip<B: Bytes>(
    w: &Weights,
    x: &Activations,
    index: usize,
    depth: Depth,
    results: &mut [f32],
) -> bool {
    let (row, groups) = (PANELS * B::LANES, w.codes.groups());
    if !(1..=4).contains(&x.rows) || !x.zeros.is_empty() {
        return false;
    }
    let tables = (index + 1) * groups * row;
    let zeros = match &w.zeros {
        Zeros::Constant(_) => tables,
        Zeros::PerGroup(zeros) => zeros.len(),
        Zeros::Offset(offsets) => offsets.len(),
    };
    assert!(
        w.codes.lanes() == B::LANES && w.scales.len() >= tables && zeros >= tables,
        "packed for this kernel"
    );
    assert!(x.stride >= w.codes.group_blocks() * BLOCK, "groups of the weights");
    assert!(x.codes.len() >= groups * x.rows * x.stride, "codes of all groups");
    assert!(x.scales.len() >= groups * x.rows && x.sums.len() >= groups * x.rows, "a scale for each group");
    assert!(results.len() >= x.rows * row, "room for all tokens");
    let results = results.as_mut_ptr();
    macro_rules! widths {
        ($($w:literal, $depth:pat => $d:literal;)*) => {
            // SAFETY: the lengths were checked.
            unsafe {
                match (w.codes.width(), depth) {
                    $(
                        ($w, $depth) => match x.rows {
                            1 => few::<B, $w, 1, $d>(w, x, index, results),
                            2 => few::<B, $w, 2, $d>(w, x, index, results),
                            3 => few::<B, $w, 3, $d>(w, x, index, results),
                            _ => few::<B, $w, 4, $d>(w, x, index, results),
                        },
                    )*
                    _ => return false,
                }
            }
        };
    }
    widths! {
        2, _ => 4;
        4, _ => 4;
        6, Depth::Sums(2) => 2;
        6, _ => 4;
        8, Depth::Split => 0;
        8, Depth::Sums(1) => 1;
        8, _ => 2;
    }
    true
}

/// The products of `T` tokens.
///
/// # Safety
/// The instructions of `B`; `w` holds `quads` quads of two panels, `x` as many activations of `T` tokens, `sums`
/// two registers for each token.
#[inline(always)]
unsafe fn tile<B: Bytes, const T: usize, const D: usize>(
    w: *const u8,
    quads: usize,
    x: *const i8,
    stride: usize,
    sums: *mut i32,
) {
    let row = PANELS * B::LANES;
    // SAFETY: inside of what the contract grants.
    unsafe {
        let mut acc = [[B::load_sums(sums); PANELS]; T];
        for t in 0..T {
            for v in 0..PANELS {
                acc[t][v] = B::load_sums(sums.add(t * row + v * B::LANES));
            }
        }
        B::dot::<T, D>(w, quads, x, stride, &mut acc);
        for t in 0..T {
            for v in 0..PANELS {
                acc[t][v].store_sums(sums.add(t * row + v * B::LANES));
            }
        }
    }
}

/// All tokens in tiles of at most four, or six where sums stay in 16 bits for long.
///
/// # Safety
/// As [`tile`], for `x.count` tokens.
#[inline(always)]
unsafe fn tiles<B: Bytes, const D: usize>(w: *const u8, quads: usize, x: Tokens<'_>, sums: &mut [i32]) {
    let row = PANELS * B::LANES;
    let mut t = 0;
    while t < x.count {
        let (codes, sums) = (x.codes[t * x.stride..].as_ptr(), sums[t * row..].as_mut_ptr());
        // SAFETY: by the contract, for the tokens from t on.
        unsafe {
            match x.count - t {
                1 => tile::<B, 1, D>(w, quads, codes, x.stride, sums),
                2 => tile::<B, 2, D>(w, quads, codes, x.stride, sums),
                3 => tile::<B, 3, D>(w, quads, codes, x.stride, sums),
                4 | 5 => tile::<B, 4, D>(w, quads, codes, x.stride, sums),
                _ if D < 8 => tile::<B, 4, D>(w, quads, codes, x.stride, sums),
                _ => tile::<B, 6, D>(w, quads, codes, x.stride, sums),
            }
        }
        t += if D < 8 || x.count - t < 6 { 4 } else { 6 };
    }
}

/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn multiply<B: Bytes>(w: &Unpacked, quads: usize, x: Tokens<'_>, depth: Depth, sums: &mut [i32]) {
    let row = PANELS * B::LANES;
    assert!(quads.is_multiple_of(QUADS) && quads * 4 * row <= w.0.len(), "whole blocks");
    assert!(sums.len() >= x.count * row, "room for all tokens");
    assert!(
        x.count == 0 || x.codes.len() >= (x.count - 1) * x.stride + 4 * quads,
        "activations of all tokens"
    );
    let w = w.0.as_ptr();
    // SAFETY: the lengths were checked.
    unsafe {
        match depth {
            Depth::Split => tiles::<B, 0>(w, quads, x, sums),
            Depth::Sums(1) => tiles::<B, 1>(w, quads, x, sums),
            Depth::Sums(2) => tiles::<B, 2>(w, quads, x, sums),
            Depth::Sums(_) => tiles::<B, 8>(w, quads, x, sums),
        }
    }
}

/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn add_scaled<B: Bytes, const ROW: usize>(
    sums: &[i32; ROW],
    zeros: Correction<'_, ROW>,
    scales: &[f32; ROW],
    by: f32,
    results: &mut [f32; ROW],
) {
    assert_eq!(ROW, PANELS * B::LANES, "two registers");
    for at in (0..ROW).step_by(B::LANES) {
        // SAFETY: at + lanes <= ROW, the length of all arrays.
        unsafe {
            let lane = match zeros {
                Correction::Constant(shift) => Lane::Constant(shift),
                Correction::Zeros(zeros, centred) => Lane::Zeros(zeros.as_ptr().add(at), centred),
                Correction::Offsets(offsets, centred) => Lane::Offsets(offsets.as_ptr().add(at), centred),
            };
            let (sums, results) = (B::load_sums(sums.as_ptr().add(at)), results.as_mut_ptr().add(at));
            let total = B::load_floats(results);
            B::store_floats(B::add_scaled(total, sums, lane, scales.as_ptr().add(at), by), results);
        }
    }
}

/// # Safety
/// The instructions of `B`.
#[inline(always)]
unsafe fn unpack_strip<B: Bytes>(a: &[u8], b: &[u8], width: u8, blocks: usize, out: &mut Unpacked) {
    let bytes = blocks * B::LANES * BLOCK * usize::from(width) / 8;
    let register = 4 * B::LANES;
    assert!(blocks * QUADS * PANELS * register <= out.0.len() && a.len() >= bytes, "room for all blocks");
    for (panel, codes) in [a, b].into_iter().enumerate() {
        if codes.len() < bytes {
            continue;
        }
        // SAFETY: the lengths were checked; the second panel is written one register further on.
        unsafe {
            let (codes, out) = (codes.as_ptr(), out.0.as_mut_ptr().add(panel * register));
            match width {
                2 => unpack::<B, 2>(codes, blocks, out),
                4 => unpack::<B, 4>(codes, blocks, out),
                6 => unpack::<B, 6>(codes, blocks, out),
                _ => unpack::<B, 8>(codes, blocks, out),
            }
        }
    }
}

macro_rules! kernels {
    ($($name:ident: $register:ty;)*) => {$(
        /// Only called by the function of this level above.
        struct $name;

        impl Kernel for $name {
            #[inline(always)]
            fn unpack(a: &[u8], b: &[u8], width: u8, blocks: usize, out: &mut Unpacked) {
                // SAFETY: the type is private, and its one user has checked the level.
                unsafe { unpack_strip::<$register>(a, b, width, blocks, out) }
            }

            #[inline(always)]
            fn multiply(
                w: &Unpacked,
                quads: usize,
                x: Tokens<'_>,
                depth: Depth,
                sums: &mut [i32],
            ) {
                // SAFETY: as above.
                unsafe { multiply::<$register>(w, quads, x, depth, sums) }
            }

            #[inline(always)]
            fn few(w: &Weights, x: &Activations, index: usize, depth: Depth, results: &mut [f32]) -> bool {
                // SAFETY: as above.
                unsafe { few_strip::<$register>(w, x, index, depth, results) }
            }

            #[inline(always)]
            fn add_scaled<const ROW: usize>(
                sums: &[i32; ROW],
                zeros: Correction<'_, ROW>,
                scales: &[f32; ROW],
                by: f32,
                results: &mut [f32; ROW],
            ) {
                // SAFETY: as above.
                unsafe { add_scaled::<$register, ROW>(sums, zeros, scales, by, results) }
            }
        }
    )*};
}

kernels! {
    Avx2: __m256i;
    Vnni: __m512i;
}
