//! The kernel on packed codes, and the filling of panels, with AVX2. A register of eight 32-bit words holds four columns
//! (or eight, or sixteen) of eight rows: a column is one field of every word.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::input::{Row, shift};
use super::{LANES, Lane, Layout, MOST, Panel, Zero};
use crate::interleaved::BLOCK;

/// [`super::portable::multiply`] at a level with AVX2.
pub(super) fn multiply(
    isa: Isa,
    layout: Layout,
    panels: [Panel<'_>; 2],
    rows: &[Row<'_>],
    sums: &mut [[Lane; 2]; MOST],
) {
    assert!(isa.level() >= Level::Avx2, "the kernel needs AVX2");
    macro_rules! rows {
        ($width:literal) => {
            // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
            unsafe {
                match *rows {
                    [] => {}
                    [a] => two_panels::<$width, 1, 4>(layout, panels, [a], sums),
                    [a, b] => two_panels::<$width, 2, 2>(layout, panels, [a, b], sums),
                    [a, b, c] => two_panels::<$width, 3, 1>(layout, panels, [a, b, c], sums),
                    [a, b, c, d, ..] => two_panels::<$width, 4, 1>(layout, panels, [a, b, c, d], sums),
                }
            }
        };
    }
    match layout.width {
        2 => rows!(2),
        4 => rows!(4),
        6 => rows!(6),
        _ => rows!(8),
    }
}

/// [`super::portable::dequantize`] at a level with AVX2.
pub(super) fn dequantize(
    isa: Isa,
    layout: Layout,
    panel: Panel<'_>,
    g: usize,
    b: usize,
    out: &mut [Lane; BLOCK],
) {
    assert!(isa.level() >= Level::Avx2, "the kernel needs AVX2");
    // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
    unsafe {
        match layout.width {
            2 => dequantize_block::<2>(layout, panel, g, b, out),
            4 => dequantize_block::<4>(layout, panel, g, b, out),
            6 => dequantize_block::<6>(layout, panel, g, b, out),
            _ => dequantize_block::<8>(layout, panel, g, b, out),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &Lane) -> __m256 {
    // SAFETY: the array has LANES elements.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(v: __m256, to: &mut Lane) {
    // SAFETY: the array has LANES elements.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
}

/// The four quads of a block, each in the place that [`shift`] says.
#[inline]
#[target_feature(enable = "avx2")]
fn quads<const WIDTH: u8>(block: &[u8]) -> [__m256i; 4] {
    const REGISTER: usize = 4 * LANES;
    let registers = usize::from(WIDTH) / 2;
    let block = &block[..registers * REGISTER];
    let mut r = [_mm256_setzero_si256(); 4];
    for i in 0..registers {
        // SAFETY: register i lies inside of the block.
        r[i] = unsafe { _mm256_loadu_si256(block.as_ptr().add(i * REGISTER).cast()) };
    }
    match WIDTH {
        2 => [r[0]; 4],
        4 => [r[0], r[0], r[1], r[1]],
        6 => {
            let high = _mm256_set1_epi8(0xc0u8 as i8);
            let a = _mm256_srli_epi32::<2>(_mm256_and_si256(r[0], high));
            let b = _mm256_srli_epi32::<4>(_mm256_and_si256(r[1], high));
            let c = _mm256_srli_epi32::<6>(_mm256_and_si256(r[2], high));
            [r[0], r[1], r[2], _mm256_or_si256(_mm256_or_si256(a, b), c)]
        }
        _ => r,
    }
}

/// Column `column` as numbers: the code times the power of two of its place, but the highest of a word as it is.
#[inline]
#[target_feature(enable = "avx2")]
fn field<const WIDTH: u8>(quads: &[__m256i; 4], column: usize) -> __m256 {
    let (v, at) = (quads[column / 4], shift(WIDTH, column));
    if at + u32::from(WIDTH) == 32 {
        return _mm256_cvtepi32_ps(_mm256_srlv_epi32(v, _mm256_set1_epi32(at as i32)));
    }
    let mask = ((1u32 << WIDTH) - 1) << at;
    _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(mask as i32)))
}

/// Runs `$step!(column)` for each column of a block, unrolled.
macro_rules! columns {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
        $step!(8);
        $step!(9);
        $step!(10);
        $step!(11);
        $step!(12);
        $step!(13);
        $step!(14);
        $step!(15);
    };
}

/// Two panels and `R` rows of `X`, each with `A` partial sums, so that eight sums are under way.
#[target_feature(enable = "avx2,fma")]
fn two_panels<const WIDTH: u8, const R: usize, const A: usize>(
    layout: Layout,
    panels: [Panel<'_>; 2],
    rows: [Row<'_>; R],
    sums: &mut [[Lane; 2]; MOST],
) {
    let block_bytes = usize::from(WIDTH) / 2 * 4 * LANES;
    assert_eq!(block_bytes, layout.block_bytes, "blocks of eight rows");
    let group_bytes = layout.group_blocks * block_bytes;
    let mut totals = [[_mm256_setzero_ps(); 2]; R];
    let (first, second) = (panels[0].codes, panels[1].codes);
    if group_bytes == 0 {
        return;
    }
    let groups = first.chunks(group_bytes).zip(second.chunks(group_bytes));
    for (g, (first, second)) in groups.enumerate() {
        let mut parts = [[[_mm256_setzero_ps(); A]; 2]; R];
        let blocks = first.chunks_exact(block_bytes).zip(second.chunks_exact(block_bytes));
        for (b, (first, second)) in blocks.enumerate() {
            let at = g * layout.group_blocks + b;
            let codes = [quads::<WIDTH>(first), quads::<WIDTH>(second)];
            let mut x = [&[0.0; BLOCK]; R];
            for r in 0..R {
                x[r] = &rows[r].x[at];
            }
            macro_rules! step {
                ($c:literal) => {
                    let (a, b) = (field::<WIDTH>(&codes[0], $c), field::<WIDTH>(&codes[1], $c));
                    for r in 0..R {
                        let x = _mm256_broadcast_ss(&x[r][$c]);
                        parts[r][0][$c % A] = _mm256_fmadd_ps(a, x, parts[r][0][$c % A]);
                        parts[r][1][$c % A] = _mm256_fmadd_ps(b, x, parts[r][1][$c % A]);
                    }
                };
            }
            columns!(step);
        }
        for r in 0..R {
            let (sum, factor) = (_mm256_set1_ps(rows[r].sums[g]), _mm256_set1_ps(rows[r].factor));
            for p in 0..2 {
                let mut part = parts[r][p][0];
                for a in 1..A {
                    part = _mm256_add_ps(part, parts[r][p][a]);
                }
                let scale = _mm256_mul_ps(load(&panels[p].scales[g]), factor);
                totals[r][p] = match panels[p].zero {
                    Zero::Constant(zero) => {
                        let part = _mm256_fnmadd_ps(_mm256_set1_ps(zero), sum, part);
                        _mm256_fmadd_ps(scale, part, totals[r][p])
                    }
                    Zero::Group(zeros) => {
                        let part = _mm256_fnmadd_ps(load(&zeros[g]), sum, part);
                        _mm256_fmadd_ps(scale, part, totals[r][p])
                    }
                    Zero::Added(offsets) => {
                        let offset = _mm256_mul_ps(load(&offsets[g]), factor);
                        let total = _mm256_fmadd_ps(offset, sum, totals[r][p]);
                        _mm256_fmadd_ps(scale, part, total)
                    }
                };
            }
        }
    }
    for r in 0..R {
        for p in 0..2 {
            store(totals[r][p], &mut sums[r][p]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn dequantize_block<const WIDTH: u8>(
    layout: Layout,
    panel: Panel<'_>,
    g: usize,
    b: usize,
    out: &mut [Lane; BLOCK],
) {
    let at = (g * layout.group_blocks + b) * layout.block_bytes;
    let codes = quads::<WIDTH>(&panel.codes[at..at + layout.block_bytes]);
    let scale = load(&panel.scales[g]);
    // `code - zero` is exact; an offset is added behind the scale.
    let (zero, offset) = match panel.zero {
        Zero::Constant(zero) => (_mm256_set1_ps(-zero), None),
        Zero::Group(zeros) => (_mm256_xor_ps(load(&zeros[g]), _mm256_set1_ps(-0.0)), None),
        Zero::Added(offsets) => (_mm256_setzero_ps(), Some(load(&offsets[g]))),
    };
    macro_rules! step {
        ($c:literal) => {
            let at = shift(WIDTH, $c);
            let undo = if at + u32::from(WIDTH) == 32 { 1.0 } else { 1.0 / (1u32 << at) as f32 };
            let code = _mm256_fmadd_ps(field::<WIDTH>(&codes, $c), _mm256_set1_ps(undo), zero);
            let value = match offset {
                None => _mm256_mul_ps(scale, code),
                Some(offset) => _mm256_fmadd_ps(scale, code, offset),
            };
            store(value, &mut out[$c]);
        };
    }
    columns!(step);
}
