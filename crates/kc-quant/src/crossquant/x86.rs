//! The hot loops for AVX2 and AVX-512. Same operations on the same numbers as [`super::portable`], so the same
//! bits; what intrinsics add is the narrowing of codes to bytes and the counting by masks.

#![expect(unsafe_code, reason = "vector loads and stores, and functions compiled for a detected level")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::portable::{self, ABS, RowCounts, SLACK};

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
    ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> f32;
    encode(x: &[f32], r: f32, d: &[f32], limit: i8, out: &mut [i8]) -> RowCounts;
}

/// Asks for the part of the next row that lies below `x[at..]`: encoding a row takes longer than reading it,
/// and without this the memory would idle meanwhile. A hint only: any address will do.
#[inline(always)]
fn prefetch_next_row(x: &[f32], at: usize) {
    for line in [at, at + 16] {
        let next = x.as_ptr().wrapping_add(x.len() + line);
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
        let [a, b, c, d] = top;
        let all = _mm256_max_epu32(_mm256_max_epu32(a, b), _mm256_max_epu32(c, d));
        let rest = portable::row_maximum(&row[done..]);
        lanes(_mm256_castsi256_ps(all)).into_iter().fold(rest, |m, x| m.max(x.to_bits()))
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> f32 {
        let done = x.len() / STEP * STEP;
        let mut top = 0.0f32;
        let mut level = _mm256_setzero_ps();
        for at in (0..done).step_by(STEP) {
            let estimate =
                |v: usize| _mm256_mul_ps(abs(load(x, at + v * LANES)), load(inverse, at + v * LANES));
            let [a, b, c, e] = [estimate(0), estimate(1), estimate(2), estimate(3)];
            let most = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, e));
            if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(most, level)) != 0 {
                let exact = |v: usize| _mm256_div_ps(abs(load(x, at + v * LANES)), load(d, at + v * LANES));
                let [a, b, c, e] = [exact(0), exact(1), exact(2), exact(3)];
                let most = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, e));
                top = lanes(most).into_iter().fold(top, f32::max);
                level = _mm256_set1_ps(top * SLACK);
            }
        }
        top.max(portable::ratio(&x[done..], &d[done..], &inverse[done..]))
    }

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn encode(x: &[f32], r: f32, d: &[f32], limit: i8, out: &mut [i8]) -> RowCounts {
        let done = out.len() / STEP * STEP;
        let (factor, high) = (_mm256_set1_ps(r), _mm256_set1_ps(f32::from(limit)));
        let low = _mm256_set1_ps(-f32::from(limit));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let mut counts = RowCounts::default();
        let beyond = _mm256_set1_ps(portable::beyond(limit));
        let (mut exact, mut clipped) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (at, block) in (0..done).step_by(STEP).zip(out.as_chunks_mut::<STEP>().0) {
            prefetch_next_row(x, at);
            let mut code = |v: usize| {
                let x = load(x, at + v * LANES);
                let q = _mm256_div_ps(x, _mm256_mul_ps(factor, load(d, at + v * LANES)));
                let over = _mm256_cmp_ps::<_CMP_GE_OQ>(abs(q), beyond);
                clipped = _mm256_sub_epi32(clipped, _mm256_castps_si256(over));
                let zero = _mm256_cmp_ps::<_CMP_EQ_OQ>(x, _mm256_setzero_ps());
                exact = _mm256_sub_epi32(exact, _mm256_castps_si256(zero));
                _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(q, high), low))
            };
            let (a, b) = (_mm256_packs_epi32(code(0), code(1)), _mm256_packs_epi32(code(2), code(3)));
            let codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order);
            let zeros = _mm256_movemask_epi8(_mm256_cmpeq_epi8(codes, _mm256_setzero_si256()));
            counts.zeros += zeros.count_ones() as usize;
            // SAFETY: the block has STEP bytes, a whole register.
            unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), codes) };
        }
        let sum = |v: __m256i| lanes(_mm256_castsi256_ps(v)).iter().map(|x| x.to_bits() as usize).sum();
        (counts.exact_zeros, counts.clipped) = (sum(exact), sum(clipped));
        portable::encode_each(&x[done..], r, &d[done..], limit, &mut out[done..], &mut counts);
        counts
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
        let [a, b, c, d] = top;
        let all = _mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d));
        _mm512_reduce_max_epu32(all).max(portable::row_maximum(&row[done..]))
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> f32 {
        let done = x.len() / STEP * STEP;
        let mut top = 0.0f32;
        let mut level = _mm512_setzero_ps();
        for at in (0..done).step_by(STEP) {
            let estimate = |v: usize| {
                _mm512_mul_ps(_mm512_abs_ps(load(x, at + v * LANES)), load(inverse, at + v * LANES))
            };
            let [a, b, c, e] = [estimate(0), estimate(1), estimate(2), estimate(3)];
            let most = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, e));
            if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(most, level) != 0 {
                let exact =
                    |v: usize| _mm512_div_ps(_mm512_abs_ps(load(x, at + v * LANES)), load(d, at + v * LANES));
                let [a, b, c, e] = [exact(0), exact(1), exact(2), exact(3)];
                let most = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, e));
                top = top.max(_mm512_reduce_max_ps(most));
                level = _mm512_set1_ps(top * SLACK);
            }
        }
        top.max(portable::ratio(&x[done..], &d[done..], &inverse[done..]))
    }

    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn encode(x: &[f32], r: f32, d: &[f32], limit: i8, out: &mut [i8]) -> RowCounts {
        let done = out.len() / LANES * LANES;
        let (factor, high) = (_mm512_set1_ps(r), _mm512_set1_ps(f32::from(limit)));
        let low = _mm512_set1_ps(-f32::from(limit));
        let mut counts = RowCounts::default();
        let beyond = _mm512_set1_ps(portable::beyond(limit));
        for (at, block) in (0..done).step_by(LANES).zip(out.as_chunks_mut::<LANES>().0) {
            prefetch_next_row(x, at);
            let x = load(x, at);
            let q = _mm512_div_ps(x, _mm512_mul_ps(factor, load(d, at)));
            let over = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_abs_ps(q), beyond);
            counts.clipped += over.count_ones() as usize;
            let exact = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, _mm512_setzero_ps());
            counts.exact_zeros += exact.count_ones() as usize;
            let codes = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(q, high), low));
            counts.zeros += _mm512_testn_epi32_mask(codes, codes).count_ones() as usize;
            let bytes = _mm512_cvtepi32_epi8(codes);
            // SAFETY: the block has LANES bytes, a whole register.
            unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), bytes) };
        }
        portable::encode_each(&x[done..], r, &d[done..], limit, &mut out[done..], &mut counts);
        counts
    }
}
