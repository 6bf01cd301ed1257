//! The hot loops for AVX2 and AVX-512. Same results as [`super::portable`], bit for bit; what intrinsics add is
//! the narrowing of codes to bytes, the counting by masks, and codes without division.
//!
//! # Codes without division
//! `x * (2^16 / r) * (1 / d) + 2^15` in 32 bits is the quotient `x / (r d)` with 16 bits of fraction, and its
//! upper half the code. Against the rounded quotient of the definition it is off by five roundings of f32,
//! 2.5 units for the largest codes, and by at most 1 unit for becoming an integer. So [`MARGIN`] units more
//! leave the upper half as it is unless the lower half is then below twice that: such a block, 1 of 120 by
//! chance, and any with a code out of range, is divided.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::portable::{self, ABS, RowCounts, SLACK};

/// 1 in fixed point.
const ONE: f32 = (1u32 << 16) as f32;

/// Units of fixed point, twice what codes can be off by.
const MARGIN: u16 = 8;

/// A safe entry for each kernel that runs what the [`Isa`] proves.
macro_rules! entries {
    ($($name:ident $(<const $n:ident: usize>)? ($($arg:ident: $type:ty),*) -> $out:ty;)*) => {$(
        pub(super) fn $name $(<const $n: usize>)? (isa: Isa, $($arg: $type),*) -> $out {
            match isa.level() {
                Level::Portable => portable::$name($($arg),*),
                // SAFETY: an Isa of this level was detected, so the processor has AVX2.
                Level::Avx2 => unsafe { avx2::$name($($arg),*) },
                // SAFETY: every level above Avx2 contains AVX-512 F, BW, DQ and VL.
                _ => unsafe { avx512::$name($($arg),*) },
            }
        }
    )*};
}

entries! {
    maxima<const R: usize>(rows: [&[f32]; R], columns: &mut [u32]) -> [u32; R];
    row_maximum(row: &[f32]) -> u32;
    ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> (f32, u32);
}

/// [`portable::encode`] on a level; `inverse` is as in [`portable::ratio`].
pub(super) fn encode(
    isa: Isa,
    x: &[f32],
    r: f32,
    d: &[f32],
    inverse: &[f32],
    limit: i8,
    out: &mut [i8],
) -> RowCounts {
    match isa.level() {
        Level::Portable => portable::encode(x, r, d, limit, out),
        // SAFETY: an Isa of this level was detected, so the processor has AVX2 and FMA.
        Level::Avx2 => unsafe { avx2::encode(x, r, d, inverse, limit, out) },
        // SAFETY: every level above Avx2 contains AVX-512 F, BW, DQ and VL.
        _ => unsafe { avx512::encode(x, r, d, inverse, limit, out) },
    }
}

/// Asks for the part of the next row that lies below `x`, in rows of `k`: encoding a row takes longer than
/// reading it, and without this the memory would idle meanwhile. A hint only: any address will do.
#[inline(always)]
fn prefetch_next_row(x: &[f32], k: usize) {
    for line in (0..x.len()).step_by(16) {
        let next = x.as_ptr().wrapping_add(k + line);
        // SAFETY: prefetching never faults, wherever the address points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(next.cast()) };
    }
}

mod avx2 {
    use super::*;

    /// Lanes of a register.
    const LANES: usize = 8;
    /// Elements of one step.
    const STEP: usize = 4 * LANES;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(x: &[f32], at: usize) -> __m256 {
        let lanes: &[f32] = &x[at..at + LANES];
        // SAFETY: the slice has LANES elements.
        unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes(v: __m256) -> [f32; LANES] {
        // SAFETY: both are 32 bytes without invalid values.
        unsafe { std::mem::transmute(v) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn abs(v: __m256) -> __m256 {
        _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(ABS as i32)))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn maxima<const R: usize>(rows: [&[f32]; R], columns: &mut [u32]) -> [u32; R] {
        portable::maxima(rows, columns)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn row_maximum(row: &[f32]) -> u32 {
        let mut top = [_mm256_setzero_si256(); 4];
        let done = row.len() / STEP * STEP;
        for at in (0..done).step_by(STEP) {
            for (v, top) in top.iter_mut().enumerate() {
                let bits = _mm256_castps_si256(abs(load(row, at + v * LANES)));
                *top = _mm256_max_epu32(*top, bits);
            }
        }
        largest(top).max(portable::row_maximum(&row[done..]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn largest([a, b, c, d]: [__m256i; 4]) -> u32 {
        let all = _mm256_max_epu32(_mm256_max_epu32(a, b), _mm256_max_epu32(c, d));
        lanes(_mm256_castsi256_ps(all)).into_iter().fold(0, |m, x| m.max(x.to_bits()))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> (f32, u32) {
        let (blocks, tail) = x.as_chunks::<STEP>();
        let done = x.len() - tail.len();
        let mut top = 0.0f32;
        let mut level = _mm256_setzero_ps();
        let mut bits = [_mm256_setzero_si256(); 4];
        let divisors = d.as_chunks::<STEP>().0.iter().zip(inverse.as_chunks::<STEP>().0);
        for (x, (d, inverse)) in blocks.iter().zip(divisors) {
            let mut estimate = |v: usize| {
                let x = abs(load(x, v * LANES));
                bits[v] = _mm256_max_epu32(bits[v], _mm256_castps_si256(x));
                _mm256_mul_ps(x, load(inverse, v * LANES))
            };
            let [a, b, c, e] = [estimate(0), estimate(1), estimate(2), estimate(3)];
            let most = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, e));
            if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(most, level)) != 0 {
                let exact = |v: usize| _mm256_div_ps(abs(load(x, v * LANES)), load(d, v * LANES));
                let [a, b, c, e] = [exact(0), exact(1), exact(2), exact(3)];
                let most = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, e));
                top = lanes(most).into_iter().fold(top, f32::max);
                level = _mm256_set1_ps(top * SLACK);
            }
        }
        let (rest, rest_bits) = portable::ratio(tail, &d[done..], &inverse[done..]);
        (top.max(rest), largest(bits).max(rest_bits))
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn encode(
        x: &[f32],
        r: f32,
        d: &[f32],
        inverse: &[f32],
        limit: i8,
        out: &mut [i8],
    ) -> RowCounts {
        let zero = _mm256_setzero_si256();
        let scale = _mm256_set1_ps(ONE / r);
        let middle = _mm256_set1_ps(ONE / 2.0 + f32::from(MARGIN));
        let (margin, high) = (_mm256_set1_epi16(2 * MARGIN as i16), _mm256_set1_epi16(i16::from(limit)));
        let lower = _mm256_set1_epi32(0xffff);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let mut counts = RowCounts::default();
        let mut exact = zero;
        let (blocks, tail) = out.as_chunks_mut::<STEP>();
        let done = blocks.len() * STEP;
        let divisors = d.as_chunks::<STEP>().0.iter().zip(inverse.as_chunks::<STEP>().0);
        for ((block, from), (d, inverse)) in blocks.iter_mut().zip(x.as_chunks::<STEP>().0).zip(divisors) {
            prefetch_next_row(from, x.len());
            let mut least = lower;
            let mut fixed = |v: usize| {
                let x = load(from, v * LANES);
                let none = _mm256_cmp_ps::<_CMP_EQ_OQ>(x, _mm256_setzero_ps());
                exact = _mm256_sub_epi32(exact, _mm256_castps_si256(none));
                let sum = _mm256_fmadd_ps(_mm256_mul_ps(x, scale), load(inverse, v * LANES), middle);
                let sum = _mm256_cvtps_epi32(sum);
                least = _mm256_min_epu16(least, sum);
                _mm256_srai_epi32::<16>(sum)
            };
            let (a, b) = (_mm256_packs_epi32(fixed(0), fixed(1)), _mm256_packs_epi32(fixed(2), fixed(3)));
            let near = _mm256_and_si256(_mm256_cmpeq_epi16(_mm256_subs_epu16(least, margin), zero), lower);
            let over = _mm256_max_epu16(_mm256_abs_epi16(a), _mm256_abs_epi16(b));
            let doubt = _mm256_or_si256(near, _mm256_subs_epu16(over, high));
            let mut codes = _mm256_packs_epi16(a, b);
            if _mm256_testz_si256(doubt, doubt) == 0 {
                codes = divide(from, r, d, limit, &mut counts.clipped);
            }
            let codes = _mm256_permutevar8x32_epi32(codes, order);
            counts.zeros += _mm256_movemask_epi8(_mm256_cmpeq_epi8(codes, zero)).count_ones() as usize;
            // SAFETY: the block has STEP bytes, a whole register.
            unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), codes) };
        }
        counts.exact_zeros = lanes(_mm256_castsi256_ps(exact)).iter().map(|x| x.to_bits() as usize).sum();
        portable::encode_each(&x[done..], r, &d[done..], limit, tail, &mut counts);
        counts
    }

    /// Codes of one block by the definition, in the order that packing leaves them in.
    #[cold]
    #[target_feature(enable = "avx2,popcnt")]
    fn divide(x: &[f32; STEP], r: f32, d: &[f32; STEP], limit: i8, clipped: &mut usize) -> __m256i {
        let (factor, high) = (_mm256_set1_ps(r), _mm256_set1_ps(f32::from(limit)));
        let low = _mm256_set1_ps(-f32::from(limit));
        let beyond = _mm256_set1_ps(portable::beyond(limit));
        let mut code = |v: usize| {
            let delta = _mm256_mul_ps(factor, load(d, v * LANES));
            let q = _mm256_div_ps(load(x, v * LANES), delta);
            let over = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(abs(q), beyond));
            *clipped += over.count_ones() as usize;
            _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(q, high), low))
        };
        let (a, b) = (_mm256_packs_epi32(code(0), code(1)), _mm256_packs_epi32(code(2), code(3)));
        _mm256_packs_epi16(a, b)
    }
}

mod avx512 {
    use super::*;

    /// Lanes of a register.
    const LANES: usize = 16;
    /// Elements of one step of the loops that keep several maxima.
    const STEP: usize = 4 * LANES;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(x: &[f32], at: usize) -> __m512 {
        let lanes: &[f32] = &x[at..at + LANES];
        // SAFETY: the slice has LANES elements.
        unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn maxima<const R: usize>(rows: [&[f32]; R], columns: &mut [u32]) -> [u32; R] {
        portable::maxima(rows, columns)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn row_maximum(row: &[f32]) -> u32 {
        let mut top = [_mm512_setzero_si512(); 4];
        let done = row.len() / STEP * STEP;
        for at in (0..done).step_by(STEP) {
            for (v, top) in top.iter_mut().enumerate() {
                let bits = _mm512_castps_si512(_mm512_abs_ps(load(row, at + v * LANES)));
                *top = _mm512_max_epu32(*top, bits);
            }
        }
        largest(top).max(portable::row_maximum(&row[done..]))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn largest([a, b, c, d]: [__m512i; 4]) -> u32 {
        let all = _mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d));
        _mm512_reduce_max_epu32(all)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> (f32, u32) {
        let (blocks, tail) = x.as_chunks::<STEP>();
        let done = x.len() - tail.len();
        let mut top = 0.0f32;
        let mut level = _mm512_setzero_ps();
        let mut bits = [_mm512_setzero_si512(); 4];
        let divisors = d.as_chunks::<STEP>().0.iter().zip(inverse.as_chunks::<STEP>().0);
        for (x, (d, inverse)) in blocks.iter().zip(divisors) {
            let mut estimate = |v: usize| {
                let x = _mm512_abs_ps(load(x, v * LANES));
                bits[v] = _mm512_max_epu32(bits[v], _mm512_castps_si512(x));
                _mm512_mul_ps(x, load(inverse, v * LANES))
            };
            let [a, b, c, e] = [estimate(0), estimate(1), estimate(2), estimate(3)];
            let most = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, e));
            if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(most, level) != 0 {
                let exact = |v: usize| _mm512_div_ps(_mm512_abs_ps(load(x, v * LANES)), load(d, v * LANES));
                let [a, b, c, e] = [exact(0), exact(1), exact(2), exact(3)];
                let most = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, e));
                top = top.max(_mm512_reduce_max_ps(most));
                level = _mm512_set1_ps(top * SLACK);
            }
        }
        let (rest, rest_bits) = portable::ratio(tail, &d[done..], &inverse[done..]);
        (top.max(rest), largest(bits).max(rest_bits))
    }

    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn encode(
        x: &[f32],
        r: f32,
        d: &[f32],
        inverse: &[f32],
        limit: i8,
        out: &mut [i8],
    ) -> RowCounts {
        let scale = _mm512_set1_ps(ONE / r);
        let middle = _mm512_set1_ps(ONE / 2.0 + f32::from(MARGIN));
        let (margin, high) = (_mm512_set1_epi32(2 * i32::from(MARGIN)), _mm512_set1_epi32(i32::from(limit)));
        let lower = _mm512_set1_epi32(0xffff);
        let mut counts = RowCounts::default();
        let (blocks, tail) = out.as_chunks_mut::<LANES>();
        let done = blocks.len() * LANES;
        let divisors = d.as_chunks::<LANES>().0.iter().zip(inverse.as_chunks::<LANES>().0);
        for ((block, from), (d, inverse)) in blocks.iter_mut().zip(x.as_chunks::<LANES>().0).zip(divisors) {
            prefetch_next_row(from, x.len());
            let x = load(from, 0);
            let none = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, _mm512_setzero_ps());
            counts.exact_zeros += none.count_ones() as usize;
            let sum = _mm512_fmadd_ps(_mm512_mul_ps(x, scale), load(inverse, 0), middle);
            let sum = _mm512_cvtps_epi32(sum);
            let mut codes = _mm512_srai_epi32::<16>(sum);
            let near = _mm512_cmple_epi32_mask(_mm512_and_si512(sum, lower), margin);
            let over = _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(codes), high);
            if near | over != 0 {
                codes = divide(x, r, load(d, 0), limit, &mut counts.clipped);
            }
            counts.zeros += _mm512_testn_epi32_mask(codes, codes).count_ones() as usize;
            let bytes = _mm512_cvtepi32_epi8(codes);
            // SAFETY: the block has LANES bytes, a whole register.
            unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), bytes) };
        }
        portable::encode_each(&x[done..], r, &d[done..], limit, tail, &mut counts);
        counts
    }

    /// Codes by the definition.
    #[cold]
    #[target_feature(enable = "avx512f,popcnt")]
    fn divide(x: __m512, r: f32, d: __m512, limit: i8, clipped: &mut usize) -> __m512i {
        let q = _mm512_div_ps(x, _mm512_mul_ps(_mm512_set1_ps(r), d));
        let beyond = _mm512_set1_ps(portable::beyond(limit));
        *clipped += _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_abs_ps(q), beyond).count_ones() as usize;
        let (low, high) = (_mm512_set1_ps(-f32::from(limit)), _mm512_set1_ps(f32::from(limit)));
        _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(q, high), low))
    }
}
