//! The kernel on packed codes, and the filling of panels, with AVX2. A register of eight 32-bit words holds four columns
//! (or eight, or sixteen) of eight rows: a column is one field of every word.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::input::{DIGITS, DigitBlock, Integers, Row, shift};
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
    macro_rules! of_width {
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
        2 => of_width!(2),
        4 => of_width!(4),
        6 => of_width!(6),
        _ => of_width!(8),
    }
}

/// Sums of two panels and one row of `X` in integers, for codes of at most four bits.
pub(super) fn multiply_one(
    isa: Isa,
    layout: Layout,
    panels: [Panel<'_>; 2],
    row: Integers<'_>,
    sums: &mut [Lane; 2],
) {
    assert!(isa.level() >= Level::Avx2, "the kernel needs AVX2");
    // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
    unsafe {
        match layout.width {
            2 => one_row::<2>(layout, panels, row, sums),
            4 => one_row::<4>(layout, panels, row, sums),
            width => unreachable!("codes of {width} bits leave no room for sums of 16 bits"),
        }
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

/// Quad `quad` of a block, in the place that [`shift`] says.
#[inline]
#[target_feature(enable = "avx2")]
fn quad<const WIDTH: u8>(block: &[u8], quad: usize) -> __m256i {
    match WIDTH {
        2 => register(block, 0),
        4 => register(block, quad / 2),
        6 if quad == 3 => {
            let high = _mm256_set1_epi8(0xc0u8 as i8);
            let a = _mm256_srli_epi32::<2>(_mm256_and_si256(register(block, 0), high));
            let b = _mm256_srli_epi32::<4>(_mm256_and_si256(register(block, 1), high));
            let c = _mm256_srli_epi32::<6>(_mm256_and_si256(register(block, 2), high));
            _mm256_or_si256(_mm256_or_si256(a, b), c)
        }
        _ => register(block, quad),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn register(block: &[u8], index: usize) -> __m256i {
    const BYTES: usize = 4 * LANES;
    let bytes: &[u8] = &block[index * BYTES..index * BYTES + BYTES];
    // SAFETY: the slice is a whole register.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Column `column`, of this quad, as numbers: the code times the power of two of its place, but the highest of a word
/// as it is.
#[inline]
#[target_feature(enable = "avx2")]
fn field<const WIDTH: u8>(quad: __m256i, column: usize) -> __m256 {
    let at = shift(WIDTH, column);
    if at + u32::from(WIDTH) == 32 {
        return _mm256_cvtepi32_ps(_mm256_srlv_epi32(quad, _mm256_set1_epi32(at as i32)));
    }
    let mask = ((1u32 << WIDTH) - 1) << at;
    _mm256_cvtepi32_ps(_mm256_and_si256(quad, _mm256_set1_epi32(mask as i32)))
}

/// Runs `$quad!(quad)` before and `$step!(column)` for each of its columns, unrolled.
macro_rules! columns {
    ($quad:ident, $step:ident) => {
        $quad!(0);
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $quad!(1);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
        $quad!(2);
        $step!(8);
        $step!(9);
        $step!(10);
        $step!(11);
        $quad!(3);
        $step!(12);
        $step!(13);
        $step!(14);
        $step!(15);
    };
}

/// Runs `$row!(r)` for each of the rows that a kernel may have. Written out, and not a loop: sums that a loop indexes stay
/// in memory.
macro_rules! rows {
    ($row:ident) => {
        $row!(0);
        $row!(1);
        $row!(2);
        $row!(3);
    };
}

#[inline]
#[target_feature(enable = "avx2")]
fn total<const A: usize>(parts: [__m256; A]) -> __m256 {
    let mut sum = parts[0];
    for part in &parts[1..] {
        sum = _mm256_add_ps(sum, *part);
    }
    sum
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
    let (first, second) = (panels[0].codes, panels[1].codes);
    if group_bytes == 0 {
        return;
    }
    let groups = first.chunks(group_bytes).zip(second.chunks(group_bytes));
    for (g, (first, second)) in groups.enumerate() {
        let mut parts = [[[_mm256_setzero_ps(); A]; 2]; MOST];
        let blocks = first.chunks_exact(block_bytes).zip(second.chunks_exact(block_bytes));
        for (b, (first, second)) in blocks.enumerate() {
            let at = g * layout.group_blocks + b;
            let (mut a, mut b);
            let mut x = [&rows[0].x[at]; MOST];
            for r in 1..R {
                x[r] = &rows[r].x[at];
            }
            macro_rules! both {
                ($quad:literal) => {
                    (a, b) = (quad::<WIDTH>(first, $quad), quad::<WIDTH>(second, $quad));
                };
            }
            macro_rules! step {
                ($c:literal) => {
                    let (a, b) = (field::<WIDTH>(a, $c), field::<WIDTH>(b, $c));
                    macro_rules! row {
                        ($r:literal) => {
                            if $r < R {
                                let x = _mm256_broadcast_ss(&x[$r][$c]);
                                parts[$r][0][$c % A] = _mm256_fmadd_ps(a, x, parts[$r][0][$c % A]);
                                parts[$r][1][$c % A] = _mm256_fmadd_ps(b, x, parts[$r][1][$c % A]);
                            }
                        };
                    }
                    rows!(row);
                };
            }
            columns!(both, step);
        }
        let mut finished = [[[0.0; LANES]; 2]; MOST];
        macro_rules! finish {
            ($r:literal) => {
                if $r < R {
                    store(total(parts[$r][0]), &mut finished[$r][0]);
                    store(total(parts[$r][1]), &mut finished[$r][1]);
                }
            };
        }
        rows!(finish);
        for r in 0..R {
            for p in 0..2 {
                add_group(&panels[p], g, &rows[r], &finished[r][p], &mut sums[r][p]);
            }
        }
    }
}

/// Adds a group's `scale (part - zero sum)`, or `scale part + offset sum`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_group(panel: &Panel<'_>, g: usize, row: &Row<'_>, part: &Lane, total: &mut Lane) {
    let (sum, factor) = (_mm256_set1_ps(row.sums[g]), _mm256_set1_ps(row.factor));
    let scale = _mm256_mul_ps(load(&panel.scales[g]), factor);
    let (part, old) = (load(part), load(total));
    let new = match panel.zero {
        Zero::Constant(zero) => {
            _mm256_fmadd_ps(scale, _mm256_fnmadd_ps(_mm256_set1_ps(zero), sum, part), old)
        }
        Zero::Group(zeros) => _mm256_fmadd_ps(scale, _mm256_fnmadd_ps(load(&zeros[g]), sum, part), old),
        Zero::Added(offsets) => {
            let offset = _mm256_mul_ps(load(&offsets[g]), factor);
            _mm256_fmadd_ps(scale, part, _mm256_fmadd_ps(offset, sum, old))
        }
    };
    store(new, total);
}

/// Quad `quad` of a block as bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes<const WIDTH: u8>(block: &[u8], quad: usize) -> __m256i {
    let (v, mask) = if WIDTH == 2 {
        let v = register(block, 0);
        let v = match quad {
            0 => v,
            1 => _mm256_srli_epi16::<2>(v),
            2 => _mm256_srli_epi16::<4>(v),
            _ => _mm256_srli_epi16::<6>(v),
        };
        (v, 3)
    } else {
        let v = register(block, quad / 2);
        (if quad.is_multiple_of(2) { v } else { _mm256_srli_epi16::<4>(v) }, 15)
    };
    _mm256_and_si256(v, _mm256_set1_epi8(mask))
}

/// Two panels and one row of `X` in three digits: 32 products in one instruction, summed exactly.
#[target_feature(enable = "avx2,fma")]
fn one_row<const WIDTH: u8>(layout: Layout, panels: [Panel<'_>; 2], row: Integers<'_>, sums: &mut [Lane; 2]) {
    let block_bytes = usize::from(WIDTH) / 2 * 4 * LANES;
    assert_eq!(block_bytes, layout.block_bytes, "blocks of eight rows");
    let group_bytes = layout.group_blocks * block_bytes;
    if group_bytes == 0 {
        return;
    }
    let ones = _mm256_set1_epi16(1);
    let groups = panels[0].codes.chunks(group_bytes).zip(panels[1].codes.chunks(group_bytes));
    let groups = groups.zip(row.blocks.chunks(layout.group_blocks));
    for (g, ((first, second), digits)) in groups.enumerate() {
        let (mut wide_a, mut wide_b) = ([_mm256_setzero_si256(); DIGITS], [_mm256_setzero_si256(); DIGITS]);
        // Eight quads: their sums of 16 bits are at most 8 * 2 * 15 * 128.
        let steps = first.chunks(2 * block_bytes).zip(second.chunks(2 * block_bytes)).zip(digits.chunks(2));
        for ((first, second), digits) in steps {
            let (mut a, mut b) = ([_mm256_setzero_si256(); DIGITS], [_mm256_setzero_si256(); DIGITS]);
            let blocks = first.chunks_exact(block_bytes).zip(second.chunks_exact(block_bytes));
            for ((first, second), digits) in blocks.zip(digits) {
                macro_rules! quad {
                    ($quad:literal) => {
                        let (x, y) = (bytes::<WIDTH>(first, $quad), bytes::<WIDTH>(second, $quad));
                        let [d0, d1, d2] = digits_of(digits, $quad);
                        a[0] = _mm256_add_epi16(a[0], _mm256_maddubs_epi16(x, d0));
                        b[0] = _mm256_add_epi16(b[0], _mm256_maddubs_epi16(y, d0));
                        a[1] = _mm256_add_epi16(a[1], _mm256_maddubs_epi16(x, d1));
                        b[1] = _mm256_add_epi16(b[1], _mm256_maddubs_epi16(y, d1));
                        a[2] = _mm256_add_epi16(a[2], _mm256_maddubs_epi16(x, d2));
                        b[2] = _mm256_add_epi16(b[2], _mm256_maddubs_epi16(y, d2));
                    };
                }
                quad!(0);
                quad!(1);
                quad!(2);
                quad!(3);
            }
            macro_rules! widen {
                ($d:literal) => {
                    wide_a[$d] = _mm256_add_epi32(wide_a[$d], _mm256_madd_epi16(a[$d], ones));
                    wide_b[$d] = _mm256_add_epi32(wide_b[$d], _mm256_madd_epi16(b[$d], ones));
                };
            }
            widen!(0);
            widen!(1);
            widen!(2);
        }
        add_digits(&panels[0], g, &row, wide_a, &mut sums[0]);
        add_digits(&panels[1], g, &row, wide_b, &mut sums[1]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn digits_of(block: &DigitBlock, quad: usize) -> [__m256i; DIGITS] {
    let [a, b, c] = block[quad];
    [
        _mm256_set1_epi32(i32::from_le_bytes(a)),
        _mm256_set1_epi32(i32::from_le_bytes(b)),
        _mm256_set1_epi32(i32::from_le_bytes(c)),
    ]
}

/// Adds a group's sums of digits. `sum - zero * (sum of x)` is exact in each digit.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_digits(panel: &Panel<'_>, g: usize, row: &Integers<'_>, wide: [__m256i; DIGITS], total: &mut Lane) {
    let zero = match panel.zero {
        Zero::Constant(zero) => _mm256_set1_ps(zero),
        Zero::Group(zeros) => load(&zeros[g]),
        Zero::Added(_) => _mm256_setzero_ps(),
    };
    let [x0, x1, x2] = row.digit_sums[g];
    let low = _mm256_fnmadd_ps(zero, _mm256_set1_ps(x0), _mm256_cvtepi32_ps(wide[0]));
    let middle = _mm256_fnmadd_ps(zero, _mm256_set1_ps(x1), _mm256_cvtepi32_ps(wide[1]));
    let high = _mm256_fnmadd_ps(zero, _mm256_set1_ps(x2), _mm256_cvtepi32_ps(wide[2]));
    let sum = _mm256_fmadd_ps(middle, _mm256_set1_ps(256.0), low);
    let sum = _mm256_fmadd_ps(high, _mm256_set1_ps(65536.0), sum);
    let sum = _mm256_mul_ps(sum, _mm256_set1_ps(row.steps[g]));
    let mut new = _mm256_fmadd_ps(load(&panel.scales[g]), sum, load(total));
    if let Zero::Added(offsets) = panel.zero {
        new = _mm256_fmadd_ps(load(&offsets[g]), _mm256_set1_ps(row.sums[g]), new);
    }
    store(new, total);
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
    let codes = &panel.codes[at..at + layout.block_bytes];
    let mut four;
    let scale = load(&panel.scales[g]);
    // `code - zero` is exact; an offset is added behind the scale.
    let (zero, offset) = match panel.zero {
        Zero::Constant(zero) => (_mm256_set1_ps(-zero), None),
        Zero::Group(zeros) => (_mm256_xor_ps(load(&zeros[g]), _mm256_set1_ps(-0.0)), None),
        Zero::Added(offsets) => (_mm256_setzero_ps(), Some(load(&offsets[g]))),
    };
    macro_rules! take {
        ($quad:literal) => {
            four = quad::<WIDTH>(codes, $quad);
        };
    }
    macro_rules! step {
        ($c:literal) => {
            let at = shift(WIDTH, $c);
            let undo = if at + u32::from(WIDTH) == 32 { 1.0 } else { 1.0 / (1u32 << at) as f32 };
            let code = _mm256_fmadd_ps(field::<WIDTH>(four, $c), _mm256_set1_ps(undo), zero);
            let value = match offset {
                None => _mm256_mul_ps(scale, code),
                Some(offset) => _mm256_fmadd_ps(scale, code, offset),
            };
            store(value, &mut out[$c]);
        };
    }
    columns!(take, step);
}
