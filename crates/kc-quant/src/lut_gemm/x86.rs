//! The kernels for AVX2.
//!
//! Integer tables: a byte of signs is two look-ups of 32 rows each (`vpshufb`). Entries are stored without sign, so that
//! bytes can be added and then split into sums of even and odd bytes with one shift: the odd ones are the high halves of
//! 16-bit lanes, and the even ones what is left of the sum of whole lanes, whatever it wrapped. At the end of a segment
//! low and high parts meet in one multiply-add.
//!
//! f32: the up to eight values of a row's group fit one register. Codes of three planes choose among them (`vpermps`), one
//! fused multiply-add takes eight columns. This makes a weight in two instructions, which serve all tokens.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::pack::{CODE_ROWS, Codes, OCTET, Planes, ROWS, codes_per_word};
use super::portable::{self, Block};
use super::table::{self, Entries, Narrow, Wide};

/// Octets whose sums fit the 16 bits of a lane: two entries below 128 each.
const SEGMENT: usize = 128;

/// [`table::build`] on a level.
pub(super) fn build_tables<E: Entries>(isa: Isa, x: &[f32], out: &mut [u8]) -> f32 {
    match isa.level() {
        Level::Portable => table::build::<E>(x, out),
        _ => {
            let (factor, scale) = table::factor::<E>(x);
            if scale.is_nan() {
                return table::build::<E>(x, out);
            }
            // SAFETY: an Isa of this level or above was detected, so the processor has AVX2 and FMA.
            unsafe { fill::<E>(x, factor, out) };
            scale
        }
    }
}

/// The tables of a group; products with `factor` fit 13 bits.
#[target_feature(enable = "avx2,fma")]
fn fill<E: Entries>(x: &[f32], factor: f32, out: &mut [u8]) {
    let factor = _mm256_set1_ps(factor);
    let (bias, seven_bits) = (_mm256_set1_epi16(E::BIAS as i16), _mm256_set1_epi16(127));
    for (x, out) in x.as_chunks::<4>().0.iter().zip(out.chunks_exact_mut(E::BYTES / 2)) {
        // Lanes are the low three bits of the entries; the fourth activation is subtracted in the first eight.
        let low = _mm256_add_ps(signed(x[0], 0), signed(x[1], 1));
        let (third, fourth) = (signed(x[2], 2), _mm256_set1_ps(x[3]));
        let first = _mm256_add_ps(low, _mm256_sub_ps(third, fourth));
        let second = _mm256_add_ps(low, _mm256_add_ps(third, fourth));
        let first = _mm256_cvtps_epi32(_mm256_mul_ps(first, factor));
        let second = _mm256_cvtps_epi32(_mm256_mul_ps(second, factor));
        let entries = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, second));
        let entries = _mm256_add_epi16(entries, bias);
        let (low, high) = (_mm256_and_si256(entries, seven_bits), _mm256_srli_epi16::<7>(entries));
        let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(low, high));
        if let Some(out) = out.first_chunk_mut::<32>() {
            // SAFETY: 32 bytes are a whole register.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) };
        } else if let Some(out) = out.first_chunk_mut::<16>() {
            // SAFETY: 16 bytes are half a register. Narrow entries have no high part.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(bytes)) };
        }
    }
}

/// `x` in the lanes that have bit `i`, minus `x` in the others.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn signed(x: f32, i: usize) -> __m256 {
    // SAFETY: an entry of MINUS is a whole register.
    let minus = unsafe { _mm256_loadu_ps(MINUS[i].as_ptr().cast()) };
    _mm256_xor_ps(_mm256_set1_ps(x), minus)
}

/// [`portable::reconstruct`] on a level.
pub(super) fn reconstruct(isa: Isa, block: &Block, bits: usize, first: u32, width: usize, panel: &mut [f32]) {
    match isa.level() {
        Level::Portable => portable::reconstruct(block, bits, first, width, panel),
        // SAFETY: an Isa of this level or above was detected, so the processor has AVX2 and FMA.
        _ => unsafe { reconstruct_avx2(block, bits, first, width, panel) },
    }
}

#[target_feature(enable = "avx2,fma")]
fn reconstruct_avx2(block: &Block, bits: usize, first: u32, width: usize, panel: &mut [f32]) {
    portable::reconstruct(block, bits, first, width, panel);
}

/// Results of a panel of 64 rows from tables of [`Wide`] entries.
pub(super) fn wide_panel(
    isa: Isa,
    planes: &Planes,
    p: usize,
    tables: &[u8],
    scales: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    assert!(isa.level() >= Level::Avx2, "packed for AVX2");
    // SAFETY: the level was checked.
    unsafe { panel::<Wide>(planes, p, tables, scales, sums, out) }
}

/// Results of a panel of 64 rows from tables of [`Narrow`] entries.
pub(super) fn narrow_panel(
    isa: Isa,
    planes: &Planes,
    p: usize,
    tables: &[u8],
    scales: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    assert!(isa.level() >= Level::Avx2, "packed for AVX2");
    // SAFETY: the level was checked.
    unsafe { panel::<Narrow>(planes, p, tables, scales, sums, out) }
}

#[target_feature(enable = "avx2,fma")]
fn panel<E: Segments>(
    planes: &Planes,
    p: usize,
    tables: &[u8],
    table_scales: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    let layout = planes.layout;
    let (mut signs, mut tables) = (planes.panel(p), tables);
    let mut scales = planes.scales(p).as_chunks::<ROWS>().0.iter();
    let mut y = [_mm256_setzero_ps(); 8];
    for (g, &scale) in table_scales.iter().enumerate() {
        let octets = layout.group_octets(g);
        let (group_tables, next_tables) = tables.split_at(octets * E::BYTES);
        for _ in 0..planes.bits {
            let (plane, next) = signs.split_at(octets * ROWS);
            let Some(scales) = scales.next() else { return };
            let parts = plane.chunks(SEGMENT * ROWS).zip(group_tables.chunks(SEGMENT * E::BYTES));
            for (signs, tables) in parts {
                // SAFETY: this function is compiled for AVX2 as well.
                let integers = unsafe { E::segment(signs, tables) };
                let bias = _mm256_set1_epi32(2 * E::BIAS * (signs.len() / ROWS) as i32);
                let table_scale = _mm256_set1_ps(scale);
                for v in 0..8 {
                    let sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(integers[v], bias));
                    let scale = _mm256_mul_ps(load(scales, 8 * v), table_scale);
                    y[v] = _mm256_fmadd_ps(sum, scale, y[v]);
                }
            }
            signs = next;
        }
        tables = next_tables;
    }
    if let Some(offsets) = planes.offsets(p) {
        for (offsets, &sum) in offsets.as_chunks::<ROWS>().0.iter().zip(sums) {
            for (v, y) in y.iter_mut().enumerate() {
                *y = _mm256_fmadd_ps(load(offsets, 8 * v), _mm256_set1_ps(sum), *y);
            }
        }
    }
    for (v, &y) in y.iter().enumerate() {
        store(out, 8 * v, y);
    }
}

/// Entries whose sums the processor can make.
trait Segments: Entries {
    /// The biased sums of 64 rows over at most [`SEGMENT`] octets.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn segment(signs: &[u8], tables: &[u8]) -> [__m256i; 8];
}

impl Segments for Wide {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn segment(signs: &[u8], tables: &[u8]) -> [__m256i; 8] {
        let zero = _mm256_setzero_si256();
        let (mut low, mut low_odd) = ([zero; 2], [zero; 2]);
        let (mut high, mut high_odd) = ([zero; 2], [zero; 2]);
        let (pairs, last) = signs.as_chunks::<{ 2 * ROWS }>();
        let (pair_tables, last_tables) = tables.as_chunks::<{ 2 * Wide::BYTES }>();
        for (signs, tables) in pairs.iter().zip(pair_tables) {
            // The high parts of four entries fit a byte.
            let mut bytes = [zero; 2];
            wide_octet(&signs[..ROWS], &tables[..Wide::BYTES], &mut low, &mut low_odd, &mut bytes);
            wide_octet(&signs[ROWS..], &tables[Wide::BYTES..], &mut low, &mut low_odd, &mut bytes);
            add_split(bytes, &mut high, &mut high_odd);
        }
        if last.len() == ROWS && last_tables.len() == Wide::BYTES {
            let mut bytes = [zero; 2];
            wide_octet(last, last_tables, &mut low, &mut low_odd, &mut bytes);
            add_split(bytes, &mut high, &mut high_odd);
        }
        // low + 128 high
        let weights = _mm256_set1_epi32(128 << 16 | 1);
        let mut out = [zero; 8];
        for r in 0..2 {
            let low_even = even(low[r], low_odd[r]);
            let high_even = even(high[r], high_odd[r]);
            out[4 * r] = _mm256_madd_epi16(_mm256_unpacklo_epi16(low_even, high_even), weights);
            out[4 * r + 1] = _mm256_madd_epi16(_mm256_unpackhi_epi16(low_even, high_even), weights);
            out[4 * r + 2] = _mm256_madd_epi16(_mm256_unpacklo_epi16(low_odd[r], high_odd[r]), weights);
            out[4 * r + 3] = _mm256_madd_epi16(_mm256_unpackhi_epi16(low_odd[r], high_odd[r]), weights);
        }
        out
    }
}

impl Segments for Narrow {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn segment(signs: &[u8], tables: &[u8]) -> [__m256i; 8] {
        let zero = _mm256_setzero_si256();
        let (mut sum, mut odd) = ([zero; 2], [zero; 2]);
        let octets = signs.as_chunks::<ROWS>().0.iter().zip(tables.as_chunks::<{ Narrow::BYTES }>().0);
        for (signs, tables) in octets {
            let (first, second) = (broadcast(tables, 0), broadcast(tables, 16));
            let mut bytes = [zero; 2];
            for (r, bytes) in bytes.iter_mut().enumerate() {
                let (low, high) = nibbles(signs, 32 * r);
                *bytes = _mm256_add_epi8(_mm256_shuffle_epi8(first, low), _mm256_shuffle_epi8(second, high));
            }
            add_split(bytes, &mut sum, &mut odd);
        }
        let mut out = [zero; 8];
        for r in 0..2 {
            let even = even(sum[r], odd[r]);
            out[4 * r] = _mm256_unpacklo_epi16(even, zero);
            out[4 * r + 1] = _mm256_unpackhi_epi16(even, zero);
            out[4 * r + 2] = _mm256_unpacklo_epi16(odd[r], zero);
            out[4 * r + 3] = _mm256_unpackhi_epi16(odd[r], zero);
        }
        out
    }
}

/// Adds an octet: low parts to the 16-bit sums, high parts to `bytes`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn wide_octet(
    signs: &[u8],
    tables: &[u8],
    low: &mut [__m256i; 2],
    low_odd: &mut [__m256i; 2],
    bytes: &mut [__m256i; 2],
) {
    let (low_first, high_first) = (broadcast(tables, 0), broadcast(tables, 16));
    let (low_second, high_second) = (broadcast(tables, 32), broadcast(tables, 48));
    let mut sums = [_mm256_setzero_si256(); 2];
    for r in 0..2 {
        let (first, second) = nibbles(signs, 32 * r);
        sums[r] =
            _mm256_add_epi8(_mm256_shuffle_epi8(low_first, first), _mm256_shuffle_epi8(low_second, second));
        let high =
            _mm256_add_epi8(_mm256_shuffle_epi8(high_first, first), _mm256_shuffle_epi8(high_second, second));
        bytes[r] = _mm256_add_epi8(bytes[r], high);
    }
    add_split(sums, low, low_odd);
}

/// Adds bytes to sums of whole 16-bit lanes, which may wrap, and to sums of their high halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_split(bytes: [__m256i; 2], sum: &mut [__m256i; 2], odd: &mut [__m256i; 2]) {
    for r in 0..2 {
        sum[r] = _mm256_add_epi16(sum[r], bytes[r]);
        odd[r] = _mm256_add_epi16(odd[r], _mm256_srli_epi16::<8>(bytes[r]));
    }
}

/// The sums of even bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn even(sum: __m256i, odd: __m256i) -> __m256i {
    _mm256_sub_epi16(sum, _mm256_slli_epi16::<8>(odd))
}

/// The low and the high four bits of 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nibbles(signs: &[u8], at: usize) -> (__m256i, __m256i) {
    let signs = &signs[at..at + 32];
    // SAFETY: the slice has 32 bytes, a whole register.
    let bytes = unsafe { _mm256_loadu_si256(signs.as_ptr().cast()) };
    let mask = _mm256_set1_epi8(15);
    (_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask))
}

/// 16 bytes in both halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn broadcast(tables: &[u8], at: usize) -> __m256i {
    let table = &tables[at..at + 16];
    // SAFETY: the slice has 16 bytes, half a register.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(from: &[f32], at: usize) -> __m256 {
    let from = &from[at..at + 8];
    // SAFETY: the slice has 8 elements, a whole register.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(to: &mut [f32], at: usize, value: __m256) {
    let to = &mut to[at..at + 8];
    // SAFETY: the slice has 8 elements, a whole register.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
}

/// Adds a panel of four rows to `out`, `[M, 64]` from the first of the four on. `x` is `[M, stride]`.
pub(super) fn code_rows(isa: Isa, codes: &Codes, p: usize, x: &[f32], stride: usize, out: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2, "packed for AVX2");
    // SAFETY: the level was checked.
    unsafe {
        match codes.bits {
            1 => pieces::<1>(codes, p, x, stride, out),
            2 => pieces::<2>(codes, p, x, stride, out),
            _ => pieces::<3>(codes, p, x, stride, out),
        }
    }
}

/// Tokens four, two or one at a time.
#[target_feature(enable = "avx2,fma")]
fn pieces<const B: i32>(codes: &Codes, p: usize, x: &[f32], stride: usize, out: &mut [f32]) {
    let (mut x, mut first) = (x, 0);
    while !x.is_empty() {
        let out = &mut out[first * ROWS..];
        let count = match x.len() / stride {
            1 => {
                code_tile::<B, 4, 1>(codes, p, 0, x, stride, out);
                1
            }
            2 | 3 => {
                code_tile::<B, 4, 2>(codes, p, 0, x, stride, out);
                2
            }
            _ => {
                code_tile::<B, 2, 4>(codes, p, 0, x, stride, out);
                code_tile::<B, 2, 4>(codes, p, 2, x, stride, out);
                4
            }
        };
        x = &x[count * stride..];
        first += count;
    }
}

/// Sign bits of the lanes that have no bit `i`.
static MINUS: [[u32; 8]; 3] = {
    let mut out = [[0; 8]; 3];
    let mut i = 0;
    while i < 24 {
        out[i / 8][i % 8] = if (i % 8) >> (i / 8) & 1 == 1 { 0 } else { 0x8000_0000 };
        i += 1;
    }
    out
};

/// Rows `first..first + R` of a panel times `M` tokens.
#[target_feature(enable = "avx2,fma")]
fn code_tile<const B: i32, const R: usize, const M: usize>(
    codes: &Codes,
    p: usize,
    first: usize,
    x: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    let (layout, bits) = (codes.layout, B as usize);
    assert!(x.len() >= M * stride && stride >= layout.octets() * OCTET && first + R <= CODE_ROWS);
    let mut words = codes.panel(p).as_chunks::<{ CODE_ROWS * OCTET }>().0.iter();
    let scales = codes.scales(p).chunks_exact(CODE_ROWS * (bits + 1));
    let mut sums = [[_mm256_setzero_ps(); M]; R];
    let mut word = [_mm256_setzero_si256(); R];
    let (mut left, mut column) = (0, 0);
    for (g, scales) in scales.enumerate() {
        let mut levels = [_mm256_setzero_ps(); R];
        for r in 0..R {
            let scales = &scales[(first + r) * (bits + 1)..][..bits + 1];
            levels[r] = _mm256_set1_ps(scales[bits]);
            for (i, &scale) in scales[..bits].iter().enumerate() {
                levels[r] = _mm256_add_ps(levels[r], signed(scale, i));
            }
        }
        let mut octets = layout.group_octets(g);
        while octets > 0 {
            if left == 0 {
                let Some(next) = words.next() else { return };
                for r in 0..R {
                    let from = &next[(first + r) * OCTET..][..OCTET];
                    // SAFETY: the slice has 8 elements, a whole register.
                    word[r] = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
                }
                left = codes_per_word(bits);
            }
            let run = octets.min(left);
            for _ in 0..run {
                for r in 0..R {
                    let w = if B == 3 {
                        _mm256_permutevar8x32_ps(levels[r], word[r])
                    } else {
                        _mm256_permutevar_ps(levels[r], word[r])
                    };
                    word[r] = _mm256_srli_epi32::<B>(word[r]);
                    for (m, sum) in sums[r].iter_mut().enumerate() {
                        // SAFETY: octets of all groups end at `stride`, and `x` has M times that.
                        let x = unsafe { _mm256_loadu_ps(x.as_ptr().add(m * stride + column)) };
                        *sum = _mm256_fmadd_ps(w, x, *sum);
                    }
                }
                column += OCTET;
            }
            left -= run;
            octets -= run;
        }
    }
    for r in 0..R {
        for m in 0..M {
            out[m * ROWS + first + r] += sum_lanes(sums[r][m]);
        }
    }
}

/// The sum of eight lanes, halves first.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_lanes(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}
