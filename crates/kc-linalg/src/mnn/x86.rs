//! The inner loops for AVX2 and AVX-512: the same arithmetic as the portable ones, with fused
//! multiply-adds, and conversion of f16 and bf16 in registers.

#![expect(unsafe_code, reason = "vector loads and stores, and calls of functions with target features")]

use kc_core::{Isa, Level, bf16, f16};

use super::portable::{self, Mean, ROWS, STRIP, SUMMED};

/// The first `n` vectors of each row. A loop, since `map` is not inlined here, and then the kernels would check
/// every index.
#[inline(always)]
fn vectors<T, const R: usize, const L: usize>(rows: [&[T]; R], n: usize) -> [&[[T; L]]; R] {
    let mut out: [&[[T; L]]; R] = [&[]; R];
    for (out, row) in out.iter_mut().zip(rows) {
        *out = &row.as_chunks::<L>().0[..n];
    }
    out
}

/// The rows without their first elements.
#[inline(always)]
fn tails<T, const R: usize>(mut rows: [&[T]; R], done: usize) -> [&[T]; R] {
    for row in &mut rows {
        *row = &row[done..];
    }
    rows
}

/// One set of kernels: an element type on a level. `$unit` is the module with the level's vector operations;
/// `$load` reads one vector of f32, `$load_wide` half as many elements as f64.
///
/// Differences are taken from the mean, because an instruction can read what it subtracts from memory; their
/// squares are the same.
macro_rules! kernels {
    ($name:ident, $unit:ident, $features:literal, $t:ty, $load:ident, $load_wide:ident) => {
        mod $name {
            use super::$unit::*;
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn column_sums(rows: [&[$t]; SUMMED], origin: &[f64], sums: &mut [f64]) {
                const WIDE: usize = LANES / 2;
                let (out, tail) = sums.as_chunks_mut::<WIDE>();
                let n = out.len();
                let x = vectors(rows, n);
                let [at] = vectors([origin], n);
                for j in 0..n {
                    let t = |i: usize| $load_wide(&x[i][j]);
                    let left = add_f64(add_f64(t(0), t(1)), add_f64(t(2), t(3)));
                    let right = add_f64(add_f64(t(4), t(5)), add_f64(t(6), t(7)));
                    // The origin once for all rows: f64 holds their sums exactly or far beyond f32.
                    let sum = less_eight(add_f64(left, right), load_f64(&at[j]));
                    store_f64(add_f64(load_f64(&out[j]), sum), &mut out[j]);
                }
                let done = n * WIDE;
                portable::column_sums(tails(rows, done), &origin[done..], tail);
            }

            #[target_feature(enable = $features)]
            pub(super) fn square_sums(rows: [&[$t]; ROWS], mean: &Mean<f32>) -> [f64; ROWS] {
                let d = mean.hi.len();
                let mut total = [0.0; ROWS];
                for start in (0..d / LANES).step_by(STRIP / LANES) {
                    let n = (d / LANES - start).min(STRIP / LANES);
                    let x = vectors(tails(rows, start * LANES), n);
                    let [hi, lo] = vectors(tails([&mean.hi, &mean.lo], start * LANES), n);
                    let mut sums = [zero(); ROWS];
                    for j in 0..n {
                        let (h, l) = (load_f32(&hi[j]), load_f32(&lo[j]));
                        for i in 0..ROWS {
                            let t = add(sub(h, $load(&x[i][j])), l);
                            sums[i] = fma(t, t, sums[i]);
                        }
                    }
                    for i in 0..ROWS {
                        total[i] += sum_f64(sums[i]);
                    }
                }
                let done = d / LANES * LANES;
                let rest = portable::squares(tails(rows, done), &mean.hi[done..], &mean.lo[done..]);
                for i in 0..ROWS {
                    total[i] += rest[i];
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
                let mut s = [zero(); ROWS];
                for i in 0..ROWS {
                    s[i] = splat(scale[i]);
                }
                let (out, tail) = sums.as_chunks_mut::<LANES>();
                let n = out.len();
                let x = vectors(rows, n);
                let [hi, lo] = vectors([&mean.hi, &mean.lo], n);
                for j in 0..n {
                    let (h, l) = (load_f32(&hi[j]), load_f32(&lo[j]));
                    // Two chains, so that a row costs half a latency.
                    let mut chains = [load_f32(&out[j]), zero()];
                    for i in 0..ROWS {
                        let t = mul(add(sub(h, $load(&x[i][j])), l), s[i]);
                        chains[i % 2] = fma(t, t, chains[i % 2]);
                    }
                    store_f32(add(chains[0], chains[1]), &mut out[j]);
                }
                let done = n * LANES;
                portable::add_squares(tails(rows, done), &mean.hi[done..], &mean.lo[done..], scale, tail);
            }
        }
    };
}

/// The vector operations of one level: `$v` holds f32, `$d` half as many f64.
macro_rules! unit {
    ($name:ident, $features:literal, lanes $lanes:literal, wide $wide:literal, $v:ident, $d:ident,
     f32: $zero:path, $splat:path, $add:path, $sub:path, $mul:path, $fma:path, $load:path, $store:path;
     f64: $splat_d:path, $add_d:path, $less:path, $load_d:path, $store_d:path;
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

            /// `a - 8 b`, for the 8 rows of a group.
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn less_eight(a: $d, b: $d) -> $d {
                $less($splat_d(8.0), b, a)
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
    f64: _mm256_set1_pd, _mm256_add_pd, _mm256_fnmadd_pd, _mm256_loadu_pd, _mm256_storeu_pd;
    full: _mm_loadu_si128, _mm256_cvtph_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32::<16>, _mm256_castsi256_ps;
    half: _mm_loadl_epi64, _mm_cvtph_ps, _mm_cvtepu16_epi32, _mm_slli_epi32::<16>, _mm_castsi128_ps,
        _mm_loadu_ps, _mm256_cvtps_pd);

unit!(avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c", lanes 16, wide 8, __m512, __m512d,
    f32: _mm512_setzero_ps, _mm512_set1_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_storeu_ps;
    f64: _mm512_set1_pd, _mm512_add_pd, _mm512_fnmadd_pd, _mm512_loadu_pd, _mm512_storeu_pd;
    full: _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_cvtepu16_epi32, _mm512_slli_epi32::<16>, _mm512_castsi512_ps;
    half: _mm_loadu_si128, _mm256_cvtph_ps, _mm256_cvtepu16_epi32, _mm256_slli_epi32::<16>, _mm256_castsi256_ps,
        _mm256_loadu_ps, _mm512_cvtps_pd);

/// The f64 kernels are the portable ones, compiled for the level.
macro_rules! kernels_f64 {
    ($name:ident, $features:literal) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn column_sums(rows: [&[f64]; SUMMED], origin: &[f64], sums: &mut [f64]) {
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
                rows: [&[$t]; SUMMED],
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
