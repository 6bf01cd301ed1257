//! The inner loops for AVX2 and AVX-512: the same arithmetic as the portable ones, with fused
//! multiply-adds, and conversion of f16 and bf16 in registers.

#![expect(unsafe_code, reason = "vector loads and stores, and calls of functions with target features")]

use kc_core::{Isa, Level, bf16, f16};

use super::portable::{self, Mean, ROWS, STRIP};

/// One set of kernels: an element type on a level. `$unit` is the module with the level's vector
/// operations; `$load` reads one vector of f32, `$load_wide` half as many elements as f64.
macro_rules! kernels {
    ($name:ident, $unit:ident, $features:literal, $t:ty, $load:ident, $load_wide:ident) => {
        mod $name {
            use super::$unit::*;
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn column_sums(rows: [&[$t]; ROWS], origin: &[f64], sums: &mut [f64]) {
                const WIDE: usize = LANES / 2;
                let d = sums.len();
                let rows = rows.map(|row| &row[..d]);
                let origin = &origin[..d];
                let (out, _) = sums.as_chunks_mut::<WIDE>();
                let n = out.len();
                let x = rows.map(|row| &row.as_chunks::<WIDE>().0[..n]);
                let at = &origin.as_chunks::<WIDE>().0[..n];
                for j in 0..n {
                    let o = load_f64(&at[j]);
                    let ab = add_f64(sub_f64($load_wide(&x[0][j]), o), sub_f64($load_wide(&x[1][j]), o));
                    let cd = add_f64(sub_f64($load_wide(&x[2][j]), o), sub_f64($load_wide(&x[3][j]), o));
                    store_f64(add_f64(load_f64(&out[j]), add_f64(ab, cd)), &mut out[j]);
                }
                let done = n * WIDE;
                portable::column_sums(rows.map(|row| &row[done..]), &origin[done..], &mut sums[done..]);
            }

            #[target_feature(enable = $features)]
            pub(super) fn square_sums(rows: [&[$t]; ROWS], mean: &Mean<f32>) -> [f64; ROWS] {
                let d = mean.hi.len();
                let rows = rows.map(|row| &row[..d]);
                let lo = &mean.lo[..d];
                let mut total = [0.0; ROWS];
                for start in (0..d).step_by(STRIP) {
                    let end = (start + STRIP).min(d);
                    let (hi, hi_tail) = mean.hi[start..end].as_chunks::<LANES>();
                    let n = hi.len();
                    let (lo, lo_tail) = lo[start..end].as_chunks::<LANES>();
                    let lo = &lo[..n];
                    let x = rows.map(|row| &row[start..end].as_chunks::<LANES>().0[..n]);
                    let mut sums = [zero(); ROWS];
                    for j in 0..n {
                        let (h, l) = (load_f32(&hi[j]), load_f32(&lo[j]));
                        for i in 0..ROWS {
                            let t = sub(sub($load(&x[i][j]), h), l);
                            sums[i] = fma(t, t, sums[i]);
                        }
                    }
                    for i in 0..ROWS {
                        let mut rest = 0.0;
                        let tail = &rows[i][start + n * LANES..end];
                        for ((x, h), l) in tail.iter().zip(hi_tail).zip(lo_tail) {
                            let t = (portable_f32(*x) - h) - l;
                            rest += t * t;
                        }
                        total[i] += sum_f64(sums[i]) + f64::from(rest);
                    }
                }
                total
            }

            #[target_feature(enable = $features)]
            pub(super) fn accumulate(
                rows: [&[$t]; ROWS],
                mean: &Mean<f32>,
                scale: [f32; ROWS],
                sums: &mut [f32],
            ) {
                let d = sums.len();
                let rows = rows.map(|row| &row[..d]);
                let (hi, lo) = (&mean.hi[..d], &mean.lo[..d]);
                let s = scale.map(|s| splat(s));
                let (out, tail) = sums.as_chunks_mut::<LANES>();
                let n = out.len();
                let x = rows.map(|row| &row.as_chunks::<LANES>().0[..n]);
                let (hi_chunks, lo_chunks) =
                    (&hi.as_chunks::<LANES>().0[..n], &lo.as_chunks::<LANES>().0[..n]);
                for j in 0..n {
                    let (h, l) = (load_f32(&hi_chunks[j]), load_f32(&lo_chunks[j]));
                    let t = |i: usize| mul(sub(sub($load(&x[i][j]), h), l), s[i]);
                    let (a, b, c, e) = (t(0), t(1), t(2), t(3));
                    // Two chains, so that four rows cost two latencies.
                    let left = fma(b, b, mul(a, a));
                    let right = fma(e, e, fma(c, c, load_f32(&out[j])));
                    store_f32(add(left, right), &mut out[j]);
                }
                let done = n * LANES;
                for (j, sum) in (done..d).zip(tail) {
                    let square = |i: usize| {
                        let t = ((portable_f32(rows[i][j]) - hi[j]) - lo[j]) * scale[i];
                        t * t
                    };
                    *sum += (square(0) + square(1)) + (square(2) + square(3));
                }
            }
        }
    };
}

/// Widens one element; for the columns that do not fill a vector.
#[inline(always)]
fn portable_f32<T: kc_core::Float>(x: T) -> f32 {
    x.to_f32()
}

/// The vector operations of one level: `$v` holds f32, `$d` half as many f64.
macro_rules! unit {
    ($name:ident, $features:literal, lanes $lanes:literal, wide $wide:literal, $v:ident, $d:ident,
     f32: $zero:path, $splat:path, $add:path, $sub:path, $mul:path, $fma:path, $load:path, $store:path;
     f64: $add_d:path, $sub_d:path, $load_d:path, $store_d:path;
     full: $ints:path, $from_f16:path, $from_u16:path, $shift:path, $cast:path;
     half: $ints_h:path, $from_f16_h:path, $from_u16_h:path, $shift_h:path, $cast_h:path, $load_h:path, $widen:path) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::{bf16, f16};

            pub(super) const LANES: usize = $lanes;

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn zero() -> $v {
                $zero()
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn splat(x: f32) -> $v {
                $splat(x)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn add(a: $v, b: $v) -> $v {
                $add(a, b)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn sub(a: $v, b: $v) -> $v {
                $sub(a, b)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn mul(a: $v, b: $v) -> $v {
                $mul(a, b)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn fma(a: $v, b: $v, c: $v) -> $v {
                $fma(a, b, c)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn add_f64(a: $d, b: $d) -> $d {
                $add_d(a, b)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn sub_f64(a: $d, b: $d) -> $d {
                $sub_d(a, b)
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn load_f32(x: &[f32; $lanes]) -> $v {
                // SAFETY: the array is one vector long.
                unsafe { $load(x.as_ptr()) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn store_f32(v: $v, to: &mut [f32; $lanes]) {
                // SAFETY: the array is one vector long and borrowed exclusively.
                unsafe { $store(to.as_mut_ptr(), v) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn load_f64(x: &[f64; $wide]) -> $d {
                // SAFETY: the array is one vector long.
                unsafe { $load_d(x.as_ptr()) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn store_f64(v: $d, to: &mut [f64; $wide]) {
                // SAFETY: the array is one vector long and borrowed exclusively.
                unsafe { $store_d(to.as_mut_ptr(), v) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn load_f16(x: &[f16; $lanes]) -> $v {
                // SAFETY: the array has as many 16-bit elements as are read.
                $from_f16(unsafe { $ints(x.as_ptr().cast()) })
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn load_bf16(x: &[bf16; $lanes]) -> $v {
                // SAFETY: the array has as many 16-bit elements as are read.
                $cast($shift($from_u16(unsafe { $ints(x.as_ptr().cast()) })))
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn wide_f32(x: &[f32; $wide]) -> $d {
                // SAFETY: the array has as many elements as are read.
                $widen(unsafe { $load_h(x.as_ptr()) })
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn wide_f16(x: &[f16; $wide]) -> $d {
                // SAFETY: the array has as many 16-bit elements as are read.
                $widen($from_f16_h(unsafe { $ints_h(x.as_ptr().cast()) }))
            }

            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn wide_bf16(x: &[bf16; $wide]) -> $d {
                // SAFETY: the array has as many 16-bit elements as are read.
                $widen($cast_h($shift_h($from_u16_h(unsafe { $ints_h(x.as_ptr().cast()) }))))
            }

            /// The sum of the lanes, added in f64.
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn sum_f64(v: $v) -> f64 {
                let mut lanes = [0.0; $lanes];
                store_f32(v, &mut lanes);
                lanes.iter().map(|&l| f64::from(l)).sum()
            }
        }
    };
}

unit!(avx2, "avx2,fma,f16c", lanes 8, wide 4, __m256, __m256d,
    f32: _mm256_setzero_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_storeu_ps;
    f64: _mm256_add_pd, _mm256_sub_pd, _mm256_loadu_pd, _mm256_storeu_pd;
    full: _mm_loadu_si128, _mm256_cvtph_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32::<16>, _mm256_castsi256_ps;
    half: _mm_loadl_epi64, _mm_cvtph_ps, _mm_cvtepu16_epi32, _mm_slli_epi32::<16>, _mm_castsi128_ps,
        _mm_loadu_ps, _mm256_cvtps_pd);

unit!(avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c", lanes 16, wide 8, __m512, __m512d,
    f32: _mm512_setzero_ps, _mm512_set1_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_storeu_ps;
    f64: _mm512_add_pd, _mm512_sub_pd, _mm512_loadu_pd, _mm512_storeu_pd;
    full: _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_cvtepu16_epi32, _mm512_slli_epi32::<16>, _mm512_castsi512_ps;
    half: _mm_loadu_si128, _mm256_cvtph_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32::<16>, _mm256_castsi256_ps,
        _mm256_loadu_ps, _mm512_cvtps_pd);

/// The f64 kernels are the portable ones, compiled for the level.
macro_rules! kernels_f64 {
    ($name:ident, $features:literal) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn column_sums(rows: [&[f64]; ROWS], origin: &[f64], sums: &mut [f64]) {
                portable::column_sums(rows, origin, sums);
            }

            #[target_feature(enable = $features)]
            pub(super) fn square_sums(rows: [&[f64]; ROWS], mean: &Mean<f64>) -> [f64; ROWS] {
                portable::square_sums(rows, mean)
            }

            #[target_feature(enable = $features)]
            pub(super) fn accumulate(
                rows: [&[f64]; ROWS],
                mean: &Mean<f64>,
                scale: [f64; ROWS],
                sums: &mut [f64],
            ) {
                portable::accumulate(rows, mean, scale, sums);
            }
        }
    };
}

/// The kernels of an element type, chosen by what the `Isa` proves.
macro_rules! dispatch {
    ($name:ident, $t:ty, $w:ty, $avx2:ident, $avx512:ident) => {
        /// The kernels for this element type.
        pub(super) mod $name {
            use super::*;

            pub(in super::super) fn column_sums(
                isa: Isa,
                rows: [&[$t]; ROWS],
                origin: &[f64],
                sums: &mut [f64],
            ) {
                match isa.level() {
                    Level::Portable => portable::column_sums(rows, origin, sums),
                    // SAFETY: the Isa proves that the processor has the features of the level.
                    Level::Avx2 => unsafe { super::$avx2::column_sums(rows, origin, sums) },
                    // SAFETY: as above; each level contains those below.
                    _ => unsafe { super::$avx512::column_sums(rows, origin, sums) },
                }
            }

            pub(in super::super) fn square_sums(
                isa: Isa,
                rows: [&[$t]; ROWS],
                mean: &Mean<$w>,
            ) -> [f64; ROWS] {
                match isa.level() {
                    Level::Portable => portable::square_sums(rows, mean),
                    // SAFETY: the Isa proves that the processor has the features of the level.
                    Level::Avx2 => unsafe { super::$avx2::square_sums(rows, mean) },
                    // SAFETY: as above; each level contains those below.
                    _ => unsafe { super::$avx512::square_sums(rows, mean) },
                }
            }

            pub(in super::super) fn accumulate(
                isa: Isa,
                rows: [&[$t]; ROWS],
                mean: &Mean<$w>,
                scale: [$w; ROWS],
                sums: &mut [$w],
            ) {
                match isa.level() {
                    Level::Portable => portable::accumulate(rows, mean, scale, sums),
                    // SAFETY: the Isa proves that the processor has the features of the level.
                    Level::Avx2 => unsafe { super::$avx2::accumulate(rows, mean, scale, sums) },
                    // SAFETY: as above; each level contains those below.
                    _ => unsafe { super::$avx512::accumulate(rows, mean, scale, sums) },
                }
            }
        }
    };
}

kernels!(f32_avx2, avx2, "avx2,fma,f16c", f32, load_f32, wide_f32);
kernels!(f16_avx2, avx2, "avx2,fma,f16c", f16, load_f16, wide_f16);
kernels!(bf16_avx2, avx2, "avx2,fma,f16c", bf16, load_bf16, wide_bf16);
kernels_f64!(f64_avx2, "avx2,fma,f16c");

kernels!(
    f32_avx512,
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c",
    f32,
    load_f32,
    wide_f32
);
kernels!(
    f16_avx512,
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c",
    f16,
    load_f16,
    wide_f16
);
kernels!(
    bf16_avx512,
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c",
    bf16,
    load_bf16,
    wide_bf16
);
kernels_f64!(f64_avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c");

dispatch!(for_f16, f16, f32, f16_avx2, f16_avx512);
dispatch!(for_bf16, bf16, f32, bf16_avx2, bf16_avx512);
dispatch!(for_f32, f32, f32, f32_avx2, f32_avx512);
dispatch!(for_f64, f64, f64, f64_avx2, f64_avx512);
