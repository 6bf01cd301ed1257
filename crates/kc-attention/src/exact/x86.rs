//! The operations of [`kernels`](super::kernels) for AVX2 and AVX-512, in f32 and f64.

#![expect(unsafe_code, reason = "vector intrinsics on tiles whose bounds the safe entries assert")]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::kernels::{BLOCK, Left, Right, Running, Scalar, Size};

/// Defines a module with the kernels of an element type: register tiles of `$mr` rows by 2 vectors.
macro_rules! kernels {
    (
        $t:ident, $level:ident, $features:literal, $lanes:literal, $mr:literal, $round:expr, $shift:literal,
        $zero:ident, $set:ident, $load:ident, $store:ident, $fma:ident, $mul:ident, $add:ident, $sub:ident, $max:ident,
        $to_bits:ident, $from_bits:ident, $shift_left:ident, $sum_of:ident, $max_of:ident
    ) => {
        pub(in crate::exact) mod $t {
            use super::super::*;

            const LANES: usize = $lanes;
            const COLUMNS: usize = 2 * LANES;
            const ROWS: usize = $mr;

            /// See `portable::product`.
            pub(in crate::exact) fn product(
                isa: Isa,
                left: Left<'_, $t>,
                right: Right<'_, $t>,
                out: &mut [$t],
                stride: usize,
                size: Size,
                add: bool,
            ) {
                let Size { rows, depth, columns } = size;
                if rows == 0 || columns == 0 || depth == 0 {
                    return;
                }
                assert!(isa.level() >= Level::$level, "the level of these kernels");
                assert!(rows % ROWS == 0 && columns % LANES == 0, "whole tiles");
                let last = (rows - 1) * left.row + (depth - 1) * left.step;
                assert!(left.data.len() > last, "the left factor is there");
                let last = (columns - 1) / COLUMNS * COLUMNS;
                assert!(
                    right.data.len() >= last * right.depth + (columns - last) * depth && right.depth >= depth,
                    "the right factor is there"
                );
                assert!(
                    out.len() >= (rows - 1) * stride + columns && stride >= columns,
                    "the result has room"
                );
                // SAFETY: the level is proven, and the asserts cover every element that a tile touches.
                unsafe {
                    if left.row == 1 {
                        tiles::<true>(left, right, out.as_mut_ptr(), stride, size, add);
                    } else {
                        assert!(left.step == 1, "rows or columns of the left factor are adjacent");
                        tiles::<false>(left, right, out.as_mut_ptr(), stride, size, add);
                    }
                }
            }

            /// # Safety
            /// As asserted by `product`.
            #[target_feature(enable = $features)]
            unsafe fn tiles<const ADJACENT: bool>(
                left: Left<'_, $t>,
                right: Right<'_, $t>,
                out: *mut $t,
                stride: usize,
                size: Size,
                add: bool,
            ) {
                for j in (0..size.columns).step_by(COLUMNS) {
                    for i in (0..size.rows).step_by(ROWS) {
                        let jump = if ADJACENT { left.step } else { left.row };
                        // SAFETY: tile (i, j) lies inside of all three.
                        unsafe {
                            let a = left.data.as_ptr().add(i * left.row);
                            let b = right.data.as_ptr().add(j * right.depth);
                            let c = out.add(i * stride + j);
                            if size.columns - j >= COLUMNS {
                                tile::<2, ADJACENT>(a, jump, b, c, stride, size.depth, add);
                            } else {
                                tile::<1, ADJACENT>(a, jump, b, c, stride, size.depth, add);
                            }
                        }
                    }
                }
            }

            /// # Safety
            /// A tile of the factors and the result, as asserted by `product`.
            #[target_feature(enable = $features)]
            unsafe fn tile<const WIDTH: usize, const ADJACENT: bool>(
                mut a: *const $t,
                jump: usize,
                mut b: *const $t,
                c: *mut $t,
                stride: usize,
                depth: usize,
                add: bool,
            ) {
                let mut sums = [[$zero(); WIDTH]; ROWS];
                macro_rules! step {
                    ($at:expr) => {
                        // SAFETY: step `at` of the factors.
                        unsafe {
                            let mut columns = [$zero(); WIDTH];
                            for v in 0..WIDTH {
                                columns[v] = $load(b.add(($at * WIDTH + v) * LANES));
                            }
                            for r in 0..ROWS {
                                let at = if ADJACENT { $at * jump + r } else { r * jump + $at };
                                let x = $set(*a.add(at));
                                for v in 0..WIDTH {
                                    sums[r][v] = $fma(x, columns[v], sums[r][v]);
                                }
                            }
                        }
                    };
                }
                for _ in 0..depth / 4 {
                    step!(0);
                    step!(1);
                    step!(2);
                    step!(3);
                    a = a.wrapping_add(4 * if ADJACENT { jump } else { 1 });
                    b = b.wrapping_add(4 * WIDTH * LANES);
                }
                for _ in 0..depth % 4 {
                    step!(0);
                    a = a.wrapping_add(if ADJACENT { jump } else { 1 });
                    b = b.wrapping_add(WIDTH * LANES);
                }
                for r in 0..ROWS {
                    for v in 0..WIDTH {
                        // SAFETY: inside of the tile of the result.
                        unsafe {
                            let to = c.add(r * stride + v * LANES);
                            let sum = sums[r][v];
                            $store(to, if add { $add(sum, $load(to)) } else { sum });
                        }
                    }
                }
            }

            /// `2^x` for `x <= 0`; 0 from `LOWEST` down.
            macro_rules! exp2 {
                ($x:expr) => {{
                    const ROUND: $t = $round;
                    const C: &[$t] = <$t as Scalar>::EXP2;
                    let x = $max($set(<$t as Scalar>::LOWEST), $x);
                    // The low bits of t hold the biased exponent of 2^n, where n is the integer next to x.
                    let t = $add(x, $set(ROUND));
                    let f = $sub(x, $sub(t, $set(ROUND)));
                    let mut p = $set(C[C.len() - 1]);
                    for i in 1..C.len() {
                        p = $fma(p, f, $set(C[C.len() - 1 - i]));
                    }
                    p = $fma(p, f, $set(1.0));
                    $mul(p, $from_bits($shift_left::<$shift>($to_bits(t))))
                }};
            }

            /// See `portable::soften`.
            pub(in crate::exact) fn soften(
                isa: Isa,
                scores: &mut [$t],
                stride: usize,
                keys: usize,
                state: &mut Running<'_, $t>,
            ) {
                let rows = state.top.len();
                if rows == 0 || keys == 0 {
                    return;
                }
                assert!(isa.level() >= Level::$level, "the level of these kernels");
                assert!(keys % LANES == 0 && state.channels % LANES == 0, "whole vectors");
                assert!(scores.len() >= (rows - 1) * stride + keys, "scores are there");
                assert!(state.sum.len() >= rows, "sums are there");
                assert!(state.out.len() >= (rows - 1) * state.stride + state.channels, "values are there");
                // SAFETY: the level is proven, and rows of scores and values lie inside of what was asserted.
                unsafe { soften_rows(scores, stride, keys, state) }
            }

            /// # Safety
            /// As asserted by `soften`.
            #[target_feature(enable = $features)]
            unsafe fn soften_rows(
                scores: &mut [$t],
                stride: usize,
                keys: usize,
                state: &mut Running<'_, $t>,
            ) {
                for r in 0..state.top.len() {
                    // SAFETY: row r of the scores.
                    let row = unsafe { scores.as_mut_ptr().add(r * stride) };
                    let mut tops = [$set(<$t>::NEG_INFINITY); 2];
                    for at in (0..keys).step_by(LANES) {
                        // SAFETY: whole vectors of the row.
                        tops[0] = $max(tops[0], unsafe { $load(row.add(at)) });
                        tops.swap(0, 1);
                    }
                    let before = state.top[r];
                    let top = before.max($max_of($max(tops[0], tops[1])));
                    if top == <$t>::NEG_INFINITY {
                        for at in (0..keys).step_by(LANES) {
                            // SAFETY: as above.
                            unsafe { $store(row.add(at), $zero()) };
                        }
                        continue;
                    }
                    let tops = $set(top);
                    let mut sums = $zero();
                    for at in (0..keys).step_by(LANES) {
                        // SAFETY: as above.
                        unsafe {
                            let weight = exp2!($sub($load(row.add(at)), tops));
                            $store(row.add(at), weight);
                            sums = $add(sums, weight);
                        }
                    }
                    let sum = $sum_of(sums);
                    if top > before {
                        let factor = exp2!($sub($set(before), tops));
                        // SAFETY: row r of the values so far.
                        unsafe {
                            let out = state.out.as_mut_ptr().add(r * state.stride);
                            for at in (0..state.channels).step_by(LANES) {
                                $store(out.add(at), $mul(factor, $load(out.add(at))));
                            }
                        }
                        let mut first = [0.0; LANES];
                        // SAFETY: as long as a vector.
                        unsafe { $store(first.as_mut_ptr(), factor) };
                        state.sum[r] = state.sum[r].mul_add(first[0], sum);
                        state.top[r] = top;
                    } else {
                        state.sum[r] += sum;
                    }
                }
            }

            /// Fetches the block that follows, row by row, as reading all rows of a block at once hides their order from
            /// the processor.
            #[target_feature(enable = $features)]
            fn fetch_next(rows: &[&[$t]; BLOCK]) {
                const LINE: usize = 64 / size_of::<$t>();
                // In bytes; rows may lie backwards, or all in one place.
                let step = (rows[1].as_ptr() as isize).wrapping_sub(rows[0].as_ptr() as isize);
                for row in rows {
                    let next = row.as_ptr().wrapping_byte_offset(step.wrapping_mul(BLOCK as isize));
                    for at in (0..row.len()).step_by(LINE) {
                        // A prefetch touches nothing, wherever it points.
                        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(at).cast());
                    }
                }
            }

            /// See `portable::dots`.
            pub(in crate::exact) fn dots(
                isa: Isa,
                q: &[$t],
                count: usize,
                keys: &[&[$t]; BLOCK],
                scores: &mut [$t],
                stride: usize,
            ) {
                let channels = keys[0].len();
                if count == 0 {
                    return;
                }
                assert!(isa.level() >= Level::$level, "the level of these kernels");
                assert!(channels % LANES == 0 && keys.iter().all(|k| k.len() == channels), "whole vectors");
                assert!(q.len() >= count * channels, "queries are there");
                assert!(scores.len() >= (count - 1) * stride + BLOCK, "scores have room");
                // SAFETY: the level is proven, and everything lies inside of what was asserted.
                unsafe { dots_of_block(q, count, keys, scores, stride) }
            }

            /// # Safety
            /// As asserted by `dots`.
            #[target_feature(enable = $features)]
            unsafe fn dots_of_block(
                q: &[$t],
                count: usize,
                keys: &[&[$t]; BLOCK],
                scores: &mut [$t],
                stride: usize,
            ) {
                let channels = keys[0].len();
                fetch_next(keys);
                for r in 0..count {
                    let mut sums = [$zero(); BLOCK];
                    for at in (0..channels).step_by(LANES) {
                        // SAFETY: whole vectors of query r and of each key.
                        unsafe {
                            let q = $load(q.as_ptr().add(r * channels + at));
                            for j in 0..BLOCK {
                                sums[j] = $fma(q, $load(keys[j].as_ptr().add(at)), sums[j]);
                            }
                        }
                    }
                    for j in 0..BLOCK {
                        scores[r * stride + j] = $sum_of(sums[j]);
                    }
                }
            }

            /// See `portable::blend`.
            pub(in crate::exact) fn blend(
                isa: Isa,
                weights: &[$t],
                stride: usize,
                count: usize,
                values: &[&[$t]; BLOCK],
                out: &mut [$t],
            ) {
                let channels = values[0].len();
                if count == 0 {
                    return;
                }
                assert!(isa.level() >= Level::$level, "the level of these kernels");
                assert!(channels % LANES == 0 && values.iter().all(|v| v.len() == channels), "whole vectors");
                assert!(weights.len() >= (count - 1) * stride + BLOCK, "weights are there");
                assert!(out.len() >= count * channels, "the result has room");
                // SAFETY: the level is proven, and everything lies inside of what was asserted.
                unsafe { blend_block(weights, stride, count, values, out) }
            }

            /// # Safety
            /// As asserted by `blend`.
            #[target_feature(enable = $features)]
            unsafe fn blend_block(
                weights: &[$t],
                stride: usize,
                count: usize,
                values: &[&[$t]; BLOCK],
                out: &mut [$t],
            ) {
                let channels = values[0].len();
                fetch_next(values);
                for r in 0..count {
                    let mut by = [$zero(); BLOCK];
                    for j in 0..BLOCK {
                        by[j] = $set(weights[r * stride + j]);
                    }
                    for at in (0..channels).step_by(LANES) {
                        // SAFETY: whole vectors of row r and of each value.
                        unsafe {
                            let to = out.as_mut_ptr().add(r * channels + at);
                            let mut sum = $load(to);
                            for j in 0..BLOCK {
                                sum = $fma(by[j], $load(values[j].as_ptr().add(at)), sum);
                            }
                            $store(to, sum);
                        }
                    }
                }
            }

            /// See `portable::slopes`.
            pub(in crate::exact) fn slopes(
                isa: Isa,
                scores: &mut [$t],
                products: &mut [$t],
                stride: usize,
                keys: usize,
                shift: &[$t],
                delta: &[$t],
            ) {
                let rows = shift.len();
                if rows == 0 || keys == 0 {
                    return;
                }
                assert!(isa.level() >= Level::$level, "the level of these kernels");
                assert!(keys % LANES == 0 && delta.len() >= rows, "whole vectors");
                let end = (rows - 1) * stride + keys;
                assert!(scores.len() >= end && products.len() >= end, "scores are there");
                // SAFETY: the level is proven, and all rows lie inside of what was asserted.
                unsafe { slopes_of_rows(scores, products, stride, keys, shift, delta) }
            }

            /// # Safety
            /// As asserted by `slopes`.
            #[target_feature(enable = $features)]
            unsafe fn slopes_of_rows(
                scores: &mut [$t],
                products: &mut [$t],
                stride: usize,
                keys: usize,
                shift: &[$t],
                delta: &[$t],
            ) {
                for (r, (&shift, &delta)) in shift.iter().zip(delta).enumerate() {
                    let (shift, delta) = ($set(shift), $set(delta));
                    for at in (r * stride..r * stride + keys).step_by(LANES) {
                        // SAFETY: whole vectors of row r.
                        unsafe {
                            let (s, p) = (scores.as_mut_ptr().add(at), products.as_mut_ptr().add(at));
                            let weight = exp2!($sub($load(s), shift));
                            $store(s, weight);
                            $store(p, $mul(weight, $sub($load(p), delta)));
                        }
                    }
                }
            }
        }
    };
}

/// Defines the sum or the largest of the lanes of an AVX2 vector, in a fixed tree.
macro_rules! reduce {
    ($name32:ident, $name64:ident, $op32:ident, $op32_one:ident, $op64:ident, $op64_one:ident) => {
        #[target_feature(enable = "avx2,fma")]
        fn $name32(x: __m256) -> f32 {
            let x = $op32(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = $op32(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32($op32_one(x, _mm_movehdup_ps(x)))
        }

        #[target_feature(enable = "avx2,fma")]
        fn $name64(x: __m256d) -> f64 {
            let x = $op64(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
            _mm_cvtsd_f64($op64_one(x, _mm_unpackhi_pd(x, x)))
        }
    };
}

reduce!(sum_f32x8, sum_f64x4, _mm_add_ps, _mm_add_ss, _mm_add_pd, _mm_add_sd);
reduce!(max_f32x8, max_f64x4, _mm_max_ps, _mm_max_ss, _mm_max_pd, _mm_max_sd);

pub(super) mod avx2 {
    kernels!(
        f32,
        Avx2,
        "avx2,fma",
        8,
        6,
        12_582_912.0 + 127.0,
        23,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_mul_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_max_ps,
        _mm256_castps_si256,
        _mm256_castsi256_ps,
        _mm256_slli_epi32,
        sum_f32x8,
        max_f32x8
    );
    kernels!(
        f64,
        Avx2,
        "avx2,fma",
        4,
        6,
        6_755_399_441_055_744.0 + 1023.0,
        52,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_mul_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_max_pd,
        _mm256_castpd_si256,
        _mm256_castsi256_pd,
        _mm256_slli_epi64,
        sum_f64x4,
        max_f64x4
    );
}

pub(super) mod avx512 {
    kernels!(
        f32,
        Avx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
        16,
        12,
        12_582_912.0 + 127.0,
        23,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_mul_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_max_ps,
        _mm512_castps_si512,
        _mm512_castsi512_ps,
        _mm512_slli_epi32,
        _mm512_reduce_add_ps,
        _mm512_reduce_max_ps
    );
    kernels!(
        f64,
        Avx512,
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
        8,
        12,
        6_755_399_441_055_744.0 + 1023.0,
        52,
        _mm512_setzero_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_mul_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_max_pd,
        _mm512_castpd_si512,
        _mm512_castsi512_pd,
        _mm512_slli_epi64,
        _mm512_reduce_add_pd,
        _mm512_reduce_max_pd
    );
}
