//! The kernels for f32 on AVX2 and on AVX-512: register tiles of 6 x 16 and 8 x 32, and the passes over logits.
//!
//! A tile takes its rows by pointer, so rows of C are multiplied where they lie, in any order.

#![expect(
    unsafe_code,
    reason = "register tiles and vector passes through pointers, behind functions that check lengths"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use kc_core::math::Real;
use kc_core::{Isa, Level};

use crate::kernel::{DEPTH, RowTerms};

/// Constants of `exp`, which kc-core shares through its generic trait.
fn exp_constants<T: Real>() -> ([T; 2], &'static [T]) {
    (T::LN2, T::EXP)
}

/// Elements of a cache line.
const LINE: usize = 16;
/// e^x is taken as 0 below this.
const EXP_LOW: f32 = -87.0;
const EXP_HIGH: f32 = 88.0;

macro_rules! level {
    (
        $level:ident, $features:literal, lanes $lanes:literal, rows $mr:literal, $vector:ty,
        $zero:ident, $set:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident,
        $max:ident, $min:ident, $int:ident, $float:ident, $set_int:ident, $add_int:ident, $shift:ident, $zero_below:ident,
        $any_reaches:ident
    ) => {
        mod $level {
            use super::*;

            const LANES: usize = $lanes;
            /// Columns of a full tile.
            const NR: usize = 2 * LANES;
            /// Rows of a full tile.
            pub(super) const MR: usize = $mr;

            /// e^x for x up to 88; 0 below -87; NaN for NaN.
            #[inline]
            #[target_feature(enable = $features)]
            fn exp(x: $vector) -> $vector {
                let (ln2, coefficients) = exp_constants::<f32>();
                // The second operand wins when one is NaN.
                let y = $max($set(EXP_LOW), $min($set(EXP_HIGH), x));
                let t = $fma(y, $set(f32::LOG2_E), $set(f32::ROUND));
                let n = $sub(t, $set(f32::ROUND));
                let r = $fma(n, $set(-ln2[0]), y);
                let r = $fma(n, $set(-ln2[1]), r);
                let mut sum = $set(coefficients[4]);
                sum = $fma(sum, r, $set(coefficients[3]));
                sum = $fma(sum, r, $set(coefficients[2]));
                sum = $fma(sum, r, $set(coefficients[1]));
                sum = $fma(sum, r, $set(coefficients[0]));
                let p = $fma($mul(r, r), sum, r);
                let bias = $set_int(127u32.wrapping_sub(f32::ROUND.to_bits()) as i32);
                let power = $float($shift::<23>($add_int($int(t), bias)));
                $zero_below($fma(p, power, power), x, $set(EXP_LOW))
            }

            /// `c[m][..] (+)= sum_k a[m][k * step] b[k][..]` for `M` rows and `V` vectors of columns. What will be written
            /// next is `ahead` of `c`.
            ///
            /// # Safety
            /// `a[m]` reaches `k` elements `step` apart, `b` holds `k * V * LANES`, `c[m]` has room for `V * LANES`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn tile<const M: usize, const V: usize>(
                k: usize,
                a: [*const f32; M],
                step: usize,
                mut b: *const f32,
                c: [*mut f32; M],
                ahead: usize,
                add: bool,
            ) {
                let mut sums = [[$zero(); V]; M];
                for m in 0..M {
                    // Wanted at the end of the loop, or by the next tile. A prefetch touches nothing.
                    _mm_prefetch::<_MM_HINT_T0>(c[m].wrapping_add(ahead).cast());
                }
                let mut at = 0;
                for _ in 0..k {
                    // SAFETY: step k of the operands, by the contract.
                    unsafe {
                        let mut columns = [$zero(); V];
                        for v in 0..V {
                            columns[v] = $load(b.add(v * LANES));
                        }
                        for m in 0..M {
                            let x = $set(*a[m].add(at));
                            for v in 0..V {
                                sums[m][v] = $fma(x, columns[v], sums[m][v]);
                            }
                        }
                        b = b.add(V * LANES);
                    }
                    at += step;
                }
                for m in 0..M {
                    for v in 0..V {
                        // SAFETY: inside of the tile, by the contract.
                        unsafe {
                            let to = c[m].add(v * LANES);
                            $store(to, if add { $add(sums[m][v], $load(to)) } else { sums[m][v] });
                        }
                    }
                }
            }

            /// Logits of `M` words with the tokens from `first` on that share a packed panel, over one block of depth.
            ///
            /// # Safety
            /// `rows` holds `M` rows that reach `start + k`; `panel` holds `k` times the tokens from `first` to the end
            /// of a tile or of `r`; `z` has room for `M * r`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn words<const M: usize>(
                rows: &[&[f32]],
                [start, k]: [usize; 2],
                panel: *const f32,
                [first, r]: [usize; 2],
                z: *mut f32,
            ) {
                let mut a = [std::ptr::null(); M];
                let mut c = [std::ptr::null_mut(); M];
                // SAFETY: by the contract.
                unsafe {
                    for m in 0..M {
                        a[m] = rows[m].as_ptr().add(start);
                        c[m] = z.add(m * r + first);
                    }
                    if r - first >= NR {
                        tile::<M, 2>(k, a, 1, panel, c, 0, start > 0);
                    } else {
                        tile::<M, 1>(k, a, 1, panel, c, 0, start > 0);
                    }
                }
            }

            /// Asks for some cache lines of what stands `ahead` elements after the start of each row.
            #[inline]
            #[target_feature(enable = $features)]
            fn fetch(rows: &[&[f32]], ahead: isize, lines: Range<usize>) {
                for row in rows {
                    for line in lines.clone() {
                        // A prefetch touches nothing, wherever it points.
                        let at = row.as_ptr().wrapping_offset(ahead).wrapping_add(line * LINE);
                        _mm_prefetch::<_MM_HINT_T1>(at.cast());
                    }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) fn logits(rows: &[&[f32]], e: &[f32], r: usize, z: &mut [f32]) {
                let (n, depth) = (rows.len(), rows.first().map_or(0, |row| row.len()));
                assert!(rows.iter().all(|row| row.len() == depth), "rows of one length");
                assert!(r % LANES == 0 && e.len() >= depth * r && z.len() >= n * r, "whole panels");
                // The rows of the next call, if they follow at the same distances.
                let next = match rows {
                    [a, b, ..] => {
                        (b.as_ptr() as isize - a.as_ptr() as isize) / size_of::<f32>() as isize * n as isize
                    }
                    _ => depth as isize,
                };
                for start in (0..depth).step_by(DEPTH) {
                    let k = DEPTH.min(depth - start);
                    let ahead = if start + k < depth { (start + k) as isize } else { next };
                    let lines = k.div_ceil(LINE).div_ceil(r.div_ceil(NR));
                    // All rows share a packed panel while it is in the first cache.
                    for (strip, first) in (0..r).step_by(NR).enumerate() {
                        let mut j = 0;
                        // SAFETY: the panel of these tokens stands at `start * r + first * k`; rows reach `depth` and z
                        // holds r for each of them, as asserted above.
                        unsafe {
                            let panel = e.as_ptr().add(start * r + first * k);
                            while j + MR <= n {
                                // A part of them per strip of tokens: more at once would wait for each other.
                                fetch(&rows[j..j + MR], ahead, strip * lines..(strip + 1) * lines);
                                let z = z.as_mut_ptr().add(j * r);
                                words::<MR>(&rows[j..], [start, k], panel, [first, r], z);
                                j += MR;
                            }
                            while j + 2 <= n {
                                let z = z.as_mut_ptr().add(j * r);
                                words::<2>(&rows[j..], [start, k], panel, [first, r], z);
                                j += 2;
                            }
                            if j < n {
                                let z = z.as_mut_ptr().add(j * r);
                                words::<1>(&rows[j..], [start, k], panel, [first, r], z);
                            }
                        }
                    }
                }
            }

            /// `M` rows of the gradient of C.
            ///
            /// # Safety
            /// As asserted in `grad_c`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn c_rows<const M: usize>(
                g: *const f32,
                r: usize,
                keep: &[u16],
                e: *const f32,
                dc: *mut f32,
                d: usize,
            ) {
                let mut a = [std::ptr::null(); M];
                let mut to = [std::ptr::null_mut(); M];
                // SAFETY: rows of g and dc inside of their lengths, as asserted by the caller; an edge goes through
                // a tile of our own.
                unsafe {
                    for m in 0..M {
                        a[m] = g.add(usize::from(keep[m]) * r);
                        to[m] = dc.add(usize::from(keep[m]) * d);
                    }
                    for first in (0..d).step_by(NR) {
                        let panel = e.add(first * r);
                        if d - first >= NR {
                            let mut c = [std::ptr::null_mut(); M];
                            for m in 0..M {
                                c[m] = to[m].add(first);
                            }
                            tile::<M, 2>(r, a, 1, panel, c, NR, true);
                            continue;
                        }
                        let mut edge = [[0.0f32; NR]; M];
                        let mut c = [std::ptr::null_mut(); M];
                        for m in 0..M {
                            c[m] = edge[m].as_mut_ptr();
                        }
                        tile::<M, 2>(r, a, 1, panel, c, 0, false);
                        for m in 0..M {
                            for x in 0..d - first {
                                *to[m].add(first + x) += edge[m][x];
                            }
                        }
                    }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) fn grad_c(g: &[f32], r: usize, keep: &[u16], e: &[f32], dc: &mut [f32], d: usize) {
                let rows = keep.iter().map(|&row| usize::from(row) + 1).max().unwrap_or(0);
                assert!(g.len() >= rows * r && dc.len() >= rows * d, "kept rows exist");
                assert!(e.len() >= d.next_multiple_of(NR) * r, "the panel is complete");
                let (mut j, n) = (0, keep.len());
                let (g, e, dc) = (g.as_ptr(), e.as_ptr(), dc.as_mut_ptr());
                // SAFETY: the lengths are asserted above.
                unsafe {
                    while j + MR <= n {
                        c_rows::<MR>(g, r, &keep[j..j + MR], e, dc, d);
                        j += MR;
                    }
                    while j + 2 <= n {
                        c_rows::<2>(g, r, &keep[j..j + 2], e, dc, d);
                        j += 2;
                    }
                    if j < n {
                        c_rows::<1>(g, r, &keep[j..], e, dc, d);
                    }
                }
            }

            /// `M` tokens of a strip of the gradient of E.
            ///
            /// # Safety
            /// `g` holds them `step` apart for `k` words, `c` a packed strip of these, `de` the `M` rows of the strip.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn e_rows<const M: usize>(
                k: usize,
                g: *const f32,
                step: usize,
                c: *const f32,
                de: *mut f32,
            ) {
                let mut a = [std::ptr::null(); M];
                let mut to = [std::ptr::null_mut(); M];
                // SAFETY: by the contract.
                unsafe {
                    for m in 0..M {
                        a[m] = g.add(m);
                        to[m] = de.add(m * NR);
                    }
                    tile::<M, 2>(k, a, step, c, to, 0, true);
                }
            }

            #[target_feature(enable = $features)]
            pub(super) fn grad_e(g: &[f32], c: &[f32], de: &mut [f32], soon: &[&[f32]]) {
                let (k, r) = (c.len() / NR, de.len() / NR);
                // A few lines per tile: more at once would wait for each other.
                let lines = |piece: &&[f32]| piece.len().div_ceil(LINE);
                let share = soon.iter().map(lines).sum::<usize>().div_ceil(r.div_ceil(MR).max(1));
                let mut pieces = soon.iter();
                let mut piece: &[f32] = &[];
                assert!(r % 2 == 0 && g.len() >= k * r, "whole panels");
                let (g, c, de) = (g.as_ptr(), c.as_ptr(), de.as_mut_ptr());
                let (mut i, last) = (0, r % MR);
                // SAFETY: the lengths are asserted above; the last tile has as many tokens as remain.
                unsafe {
                    while i + MR <= r {
                        for _ in 0..share {
                            if piece.is_empty() {
                                piece = pieces.next().copied().unwrap_or_default();
                            }
                            _mm_prefetch::<_MM_HINT_T1>(piece.as_ptr().cast());
                            piece = piece.get(LINE..).unwrap_or_default();
                        }
                        e_rows::<MR>(k, g.add(i * k), MR, c, de.add(i * NR));
                        i += MR;
                    }
                    for within in (0..last).step_by(2) {
                        e_rows::<2>(k, g.add(i * k + within), last, c, de.add((i + within) * NR));
                    }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) fn absorb(z: &[f32], max: &mut [f32], sum: &mut [f64]) {
                let r = max.len();
                assert!(r % LANES == 0 && sum.len() == r, "whole panels");
                for first in (0..r).step_by(LANES) {
                    let mut old = [0.0f32; LANES];
                    old.copy_from_slice(&max[first..first + LANES]);
                    let mut new = [0.0f32; LANES];
                    let mut sums = [0.0f32; LANES];
                    let mut shrink = [0.0f32; LANES];
                    // SAFETY: every row of z and every array holds LANES elements from there on, as r is a multiple.
                    unsafe {
                        let before = $load(old.as_ptr());
                        let mut top = before;
                        for row in z.chunks_exact(r) {
                            top = $max($load(row.as_ptr().add(first)), top);
                        }
                        let mut total = $zero();
                        for row in z.chunks_exact(r) {
                            total = $add(total, exp($sub($load(row.as_ptr().add(first)), top)));
                        }
                        $store(new.as_mut_ptr(), top);
                        $store(sums.as_mut_ptr(), total);
                        $store(shrink.as_mut_ptr(), exp($sub(before, top)));
                    }
                    max[first..first + LANES].copy_from_slice(&new);
                    for (l, sum) in sum[first..first + LANES].iter_mut().enumerate() {
                        *sum = *sum * f64::from(shrink[l]) + f64::from(sums[l]);
                    }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) fn masked_sum(row: &[f32], mask: &[f32]) -> f32 {
                let mut total = $zero();
                for (x, m) in row.chunks_exact(LANES).zip(mask.chunks_exact(LANES)) {
                    // SAFETY: both hold LANES elements.
                    unsafe { total = $fma($load(x.as_ptr()), $load(m.as_ptr()), total) };
                }
                across(total)
            }

            #[target_feature(enable = $features)]
            pub(super) fn reaches(row: &[f32], hi: &[f32], limit: f32) -> bool {
                let limit = $set(limit);
                for (z, hi) in row.chunks_exact(LANES).zip(hi.chunks_exact(LANES)) {
                    // SAFETY: both hold LANES elements.
                    let above = unsafe { $sub($load(z.as_ptr()), $load(hi.as_ptr())) };
                    if $any_reaches(above, limit) {
                        return true;
                    }
                }
                false
            }

            #[target_feature(enable = $features)]
            pub(super) fn gradient(row: &mut [f32], terms: &RowTerms<'_, f32>) -> f32 {
                let r = row.len();
                assert!(r % LANES == 0, "whole panels");
                assert!(
                    terms.hi.len() == r && terms.lo.len() == r && terms.scale.len() == r,
                    "a term per token"
                );
                let (spread, weight) = terms.spread.unwrap_or((terms.hi, 0.0));
                assert!(spread.len() == r, "a term per token");
                let mut total = $zero();
                for i in (0..r).step_by(LANES) {
                    // SAFETY: all slices hold r elements, a multiple of LANES.
                    unsafe {
                        let z = $load(row.as_ptr().add(i));
                        let x =
                            $sub($sub(z, $load(terms.hi.as_ptr().add(i))), $load(terms.lo.as_ptr().add(i)));
                        let mut g = $mul(exp(x), $load(terms.scale.as_ptr().add(i)));
                        if terms.spread.is_some() {
                            g = $sub(g, $mul($set(weight), $load(spread.as_ptr().add(i))));
                        }
                        if let Some(inverse) = terms.inverse_cap {
                            let tanh = $mul(z, $set(inverse));
                            g = $mul(g, $sub($set(1.0), $mul(tanh, tanh)));
                        }
                        $store(row.as_mut_ptr().add(i), g);
                        total = $add(total, g);
                    }
                }
                across(total)
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn across(x: $vector) -> f32 {
                let mut lanes = [0.0f32; LANES];
                // SAFETY: the array holds LANES elements.
                unsafe { $store(lanes.as_mut_ptr(), x) };
                let mut width = LANES / 2;
                while width > 0 {
                    for l in 0..width {
                        lanes[l] += lanes[l + width];
                    }
                    width /= 2;
                }
                lanes[0]
            }
        }
    };
}

/// y, and 0 where x is below the limit (NaN is not).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn zero_below_avx2(y: __m256, x: __m256, limit: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, limit), y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zero_below_avx512(y: __m512, x: __m512, limit: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), y)
}

/// True if a lane is at least the limit, or NaN.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn any_reaches_avx2(x: __m256, limit: __m256) -> bool {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit)) != 0
}

#[inline]
#[target_feature(enable = "avx512f")]
fn any_reaches_avx512(x: __m512, limit: __m512) -> bool {
    _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit) != 0
}

level!(
    avx2, "avx2,fma", lanes 8, rows 6, __m256,
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps,
    _mm256_sub_ps, _mm256_mul_ps, _mm256_max_ps, _mm256_min_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_set1_epi32, _mm256_add_epi32, _mm256_slli_epi32, zero_below_avx2, any_reaches_avx2
);
level!(
    avx512, "avx512f", lanes 16, rows 8, __m512,
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps,
    _mm512_sub_ps, _mm512_mul_ps, _mm512_max_ps, _mm512_min_ps, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_set1_epi32, _mm512_add_epi32, _mm512_slli_epi32, zero_below_avx512, any_reaches_avx512
);

/// Tokens of a tile of the gradient of E.
pub(crate) fn rows(isa: Isa) -> usize {
    if isa.level() >= Level::Avx512 { avx512::MR } else { avx2::MR }
}

/// For each kernel the safe entry that picks by the level of the `Isa`.
macro_rules! entries {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) $(-> $ret:ty)?;)*) => {$(
        pub(crate) fn $name(isa: Isa, $($arg: $ty),*) $(-> $ret)? {
            if isa.level() >= Level::Avx512 {
                // SAFETY: an Isa of this level proves AVX-512 F.
                unsafe { avx512::$name($($arg),*) }
            } else {
                assert!(isa.level() >= Level::Avx2, "these kernels need AVX2");
                // SAFETY: an Isa of this level proves AVX2 and FMA.
                unsafe { avx2::$name($($arg),*) }
            }
        }
    )*};
}

entries! {
    logits(rows: &[&[f32]], e: &[f32], r: usize, z: &mut [f32]);
    grad_c(g: &[f32], r: usize, keep: &[u16], e: &[f32], dc: &mut [f32], d: usize);
    grad_e(g: &[f32], c: &[f32], de: &mut [f32], soon: &[&[f32]]);
    absorb(z: &[f32], max: &mut [f32], sum: &mut [f64]);
    masked_sum(row: &[f32], mask: &[f32]) -> f32;
    reaches(row: &[f32], hi: &[f32], limit: f32) -> bool;
    gradient(row: &mut [f32], terms: &RowTerms<'_, f32>) -> f32;
}
