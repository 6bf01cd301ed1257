//! The kernels of `portable.rs` for f32 with AVX2 and AVX-512.

#![expect(
    unsafe_code,
    reason = "vector instructions and raw loads; the Isa proves the one, assertions the other"
)]

use std::arch::x86_64::*;

use kc_core::{Isa, Level};

use super::portable::{self, Product, Taps};

/// Runs a tile of at most `$left` rows that keeps about twelve sums: eight rows of one vector, six of two, four of three.
/// Gives the number of rows done.
macro_rules! block {
    ($left:expr, $vectors:expr, $tile:ident, $args:tt) => {
        match ($vectors, $left) {
            (3, 1) => block!(@ $tile 1 3 $args),
            (3, 2) => block!(@ $tile 2 3 $args),
            (3, 3) => block!(@ $tile 3 3 $args),
            (3, _) => block!(@ $tile 4 3 $args),
            (2, 1) => block!(@ $tile 1 2 $args),
            (2, 2) => block!(@ $tile 2 2 $args),
            (2, 3) => block!(@ $tile 3 2 $args),
            (2, 4) => block!(@ $tile 4 2 $args),
            (2, 5) => block!(@ $tile 5 2 $args),
            (2, _) => block!(@ $tile 6 2 $args),
            (_, 1) => block!(@ $tile 1 1 $args),
            (_, 2 | 3) => block!(@ $tile 2 1 $args),
            (_, 4..8) => block!(@ $tile 4 1 $args),
            (_, _) => block!(@ $tile 8 1 $args),
        }
    };
    (@ $tile:ident $r:literal $v:literal ($($arg:expr),*)) => {{
        $tile::<$r, $v>($($arg),*);
        $r
    }};
}

/// The same kernels for a width of registers.
macro_rules! width {
    ($name:ident, $features:literal, $lanes:literal, $mask:ty, $masks:ident, $zero:ident, $one:ident, $load:ident,
     $store:ident, $fma:ident, $max:ident, $load_some:ident, $store_some:ident, $four:ident) => {
        mod $name {
            use super::*;

            pub(super) const LANES: usize = $lanes;

            /// Rows `R` of `c`, `V` vectors wide; of the last vector only the lanes of `mask`.
            ///
            /// # Safety
            /// `a`, `b` and `c` point to the first elements of a tile whose elements all lie inside of their slices.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const V: usize>(
                p: &Product,
                a: *const f32,
                b: *const f32,
                c: *mut f32,
                mask: $mask,
                add: bool,
            ) {
                let mut sums = [[$zero(); V]; R];
                // SAFETY: every access is to an element of the tile, or to lanes that the mask leaves out.
                unsafe {
                    if add {
                        for i in 0..R {
                            for j in 0..V - 1 {
                                sums[i][j] = $load(c.add(i * p.c + j * LANES));
                            }
                            sums[i][V - 1] = $load_some(c.add(i * p.c + (V - 1) * LANES), mask);
                        }
                    }
                    for k in 0..p.k {
                        let line = b.add(k * p.b);
                        let mut right = [$zero(); V];
                        for j in 0..V - 1 {
                            right[j] = $load(line.add(j * LANES));
                        }
                        right[V - 1] = $load_some(line.add((V - 1) * LANES), mask);
                        for i in 0..R {
                            let left = $one(*a.add(i * p.a[0] + k * p.a[1]));
                            for j in 0..V {
                                sums[i][j] = $fma(left, right[j], sums[i][j]);
                            }
                        }
                    }
                    for i in 0..R {
                        for j in 0..V - 1 {
                            $store(c.add(i * p.c + j * LANES), sums[i][j]);
                        }
                        $store_some(c.add(i * p.c + (V - 1) * LANES), mask, sums[i][V - 1]);
                    }
                }
            }

            /// Vectors of the next block of columns, and lanes of the last of them.
            fn columns(left: usize) -> (usize, usize) {
                let all = left.div_ceil(LANES);
                let vectors = if all == 3 { 3 } else { all.min(2) };
                (vectors, (left - (vectors - 1) * LANES).min(LANES))
            }

            /// # Safety
            /// All elements of the product lie inside of the slices that the pointers come from.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn product(p: &Product, a: *const f32, b: *const f32, c: *mut f32, add: bool) {
                let mut column = 0;
                while column < p.n {
                    let (vectors, lanes) = columns(p.n - column);
                    let mask = $masks(lanes);
                    let mut row = 0;
                    while row < p.m {
                        // SAFETY: the tile is a part of the product.
                        row += unsafe {
                            let (a, b) = (a.add(row * p.a[0]), b.add(column));
                            let c = c.add(row * p.c + column);
                            block!(p.m - row, vectors, tile, (p, a, b, c, mask, add))
                        };
                    }
                    column += vectors * LANES;
                }
            }

            /// `R` places of a row of a 3x3 convolution, `V` vectors of channels.
            ///
            /// # Safety
            /// All that the places read lies inside of the rows; weights, biases and result have their channels.
            #[target_feature(enable = $features)]
            unsafe fn places<const R: usize, const V: usize>(
                p: &Taps,
                rows: [*const f32; 3],
                w: *const f32,
                bias: *const f32,
                out: *mut f32,
                mask: $mask,
            ) {
                // SAFETY: as the function's own.
                unsafe {
                    let mut first = [$zero(); V];
                    for j in 0..V - 1 {
                        first[j] = $load(bias.add(j * LANES));
                    }
                    first[V - 1] = $load_some(bias.add((V - 1) * LANES), mask);
                    let mut sums = [first; R];
                    let mut line = w;
                    for row in rows {
                        for col in 0..3 {
                            let from = row.add(col * p.step * p.c_in);
                            for k in 0..p.c_in {
                                let mut right = [$zero(); V];
                                for j in 0..V - 1 {
                                    right[j] = $load(line.add(j * LANES));
                                }
                                right[V - 1] = $load_some(line.add((V - 1) * LANES), mask);
                                for i in 0..R {
                                    let left = $one(*from.add(i * p.c_in + k));
                                    for j in 0..V {
                                        sums[i][j] = $fma(left, right[j], sums[i][j]);
                                    }
                                }
                                line = line.add(p.c_out);
                            }
                        }
                    }
                    let floor = $one(p.floor);
                    for i in 0..R {
                        for j in 0..V - 1 {
                            $store(out.add(i * p.c_out + j * LANES), $max(sums[i][j], floor));
                        }
                        let last = $max(sums[i][V - 1], floor);
                        $store_some(out.add(i * p.c_out + (V - 1) * LANES), mask, last);
                    }
                }
            }

            /// # Safety
            /// `p.fit` holds for slices that the pointers come from.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn conv(
                p: &Taps,
                rows: [*const f32; 3],
                w: *const f32,
                bias: *const f32,
                out: *mut f32,
            ) {
                let mut column = 0;
                while column < p.c_out {
                    let (vectors, lanes) = columns(p.c_out - column);
                    let mask = $masks(lanes);
                    let mut at = 0;
                    while at < p.width {
                        // SAFETY: the places are a part of the row.
                        at += unsafe {
                            let [x, y, z] = rows;
                            let rows = [x.add(at * p.c_in), y.add(at * p.c_in), z.add(at * p.c_in)];
                            let out = out.add(at * p.c_out + column);
                            let (w, bias) = (w.add(column), bias.add(column));
                            block!(p.width - at, vectors, places, (p, rows, w, bias, out, mask))
                        };
                    }
                    column += vectors * LANES;
                }
            }

            /// # Safety
            /// `keys` holds `(j + 1) * q.len()` elements for every `j` of `at`, and `out` is as long as `at`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn scores(
                q: &[f32],
                keys: *const f32,
                at: &[u32],
                scale: f32,
                out: &mut [f32],
            ) {
                let (d, whole) = (q.len(), q.len() / LANES);
                let mask = $masks(d % LANES);
                let mut done = 0;
                while done < at.len() {
                    let many = (at.len() - done).min(4);
                    let mut sums = [$zero(); 4];
                    // Keys beyond the last are the last again, so that four run at a time.
                    // SAFETY: the caller vouches for all rows of `at`.
                    unsafe {
                        let row = |i: usize| keys.add(at[done + i.min(many - 1)] as usize * d);
                        let rows = [row(0), row(1), row(2), row(3)];
                        for &j in at.iter().skip(done + AHEAD).take(4) {
                            fetch(keys.add(j as usize * d), d);
                        }
                        for v in 0..whole {
                            let x = $load(q.as_ptr().add(v * LANES));
                            for i in 0..4 {
                                sums[i] = $fma(x, $load(rows[i].add(v * LANES)), sums[i]);
                            }
                        }
                        if whole * LANES < d {
                            let x = $load_some(q.as_ptr().add(whole * LANES), mask);
                            for i in 0..4 {
                                sums[i] = $fma(x, $load_some(rows[i].add(whole * LANES), mask), sums[i]);
                            }
                        }
                    }
                    let four = $four(sums);
                    for i in 0..many {
                        out[done + i] = scale * four[i];
                    }
                    done += many;
                }
            }

            /// # Safety
            /// `values` holds `(j + 1) * out.len()` elements for every `j` of `at`; `weights` is as long as `at`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn mix(weights: &[f32], values: *const f32, at: &[u32], out: &mut [f32]) {
                const WIDE: usize = 64 / LANES;
                let d = out.len();
                let mut start = 0;
                while start < d {
                    let left = d - start;
                    // SAFETY: columns start.. of rows that the caller vouches for.
                    unsafe {
                        let to = out.as_mut_ptr().add(start);
                        if left >= WIDE * LANES {
                            let mut sums = [$zero(); WIDE];
                            for (i, (w, j)) in weights.iter().zip(at).enumerate() {
                                if let Some(&j) = at.get(i + AHEAD) {
                                    fetch(values.add(j as usize * d + start), WIDE * LANES);
                                }
                                let (w, row) = ($one(*w), values.add(*j as usize * d + start));
                                for v in 0..WIDE {
                                    sums[v] = $fma(w, $load(row.add(v * LANES)), sums[v]);
                                }
                            }
                            for v in 0..WIDE {
                                $store(to.add(v * LANES), sums[v]);
                            }
                            start += WIDE * LANES;
                        } else {
                            let mask = $masks(left.min(LANES));
                            // Two sums, so that additions need not wait for each other.
                            let mut sums = [$zero(); 2];
                            for (i, (w, j)) in weights.iter().zip(at).enumerate() {
                                let row = values.add(*j as usize * d + start);
                                sums[i % 2] = $fma($one(*w), $load_some(row, mask), sums[i % 2]);
                            }
                            $store_some(to, mask, $fma(sums[1], $one(1.0), sums[0]));
                            start += LANES;
                        }
                    }
                }
            }
        }
    };
}

/// How many rows ahead of their use gathered rows are fetched.
const AHEAD: usize = 8;

/// Fetches `len` elements into the cache.
///
/// # Safety
/// They lie inside of a slice.
#[inline(always)]
unsafe fn fetch(from: *const f32, len: usize) {
    for line in (0..len).step_by(16) {
        // SAFETY: an element of the slice; fetching reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.add(line).cast()) };
    }
}

/// The first `lanes` of eight.
#[target_feature(enable = "avx2,fma")]
fn masks8(lanes: usize) -> __m256i {
    let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), numbers)
}

/// The first `lanes` of sixteen.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
fn masks16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as __mmask16
}

width!(
    avx2,
    "avx2,fma",
    8,
    __m256i,
    masks8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_max_ps,
    _mm256_maskload_ps,
    _mm256_maskstore_ps,
    sums8
);

width!(
    avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma",
    16,
    __mmask16,
    masks16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_max_ps,
    load_some16,
    _mm512_mask_storeu_ps,
    sums16
);

/// The sums of the lanes of four vectors.
#[target_feature(enable = "avx2,fma")]
fn sums8(x: [__m256; 4]) -> [f32; 4] {
    let halves = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    let mut out = [0.0; 4];
    // SAFETY: an array of four.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), four) };
    out
}

/// The sums of the lanes of four vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
fn sums16(x: [__m512; 4]) -> [f32; 4] {
    let mut halves = [_mm256_setzero_ps(); 4];
    for i in 0..4 {
        halves[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps::<1>(x[i]));
    }
    sums8(halves)
}

/// The lanes of the mask; zeros elsewhere.
///
/// # Safety
/// The lanes of the mask lie inside of a slice.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
unsafe fn load_some16(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: as this function's own.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

/// [`Product::run`] for f32.
pub(super) fn product(isa: Isa, p: Product, a: &[f32], b: &[f32], c: &mut [f32], add: bool) {
    assert!(isa.level() >= Level::Avx2 && p.fits(a.len(), b.len(), c.len()), "operands of a product");
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    if isa.level() >= Level::Avx512 {
        // SAFETY: the level proves the instructions, `fits` the bounds.
        unsafe { avx512::product(&p, a, b, c, add) }
    } else {
        // SAFETY: as above.
        unsafe { avx2::product(&p, a, b, c, add) }
    }
}

/// The largest of some rows; 0 without any, which only means that one row must be there.
fn largest(at: &[u32]) -> u32 {
    at.iter().fold(0, |most, &j| most.max(j))
}

/// [`super::portable::scores`] for f32.
pub(super) fn scores(isa: Isa, q: &[f32], keys: &[f32], at: &[u32], scale: f32, out: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2 && at.len() == out.len(), "keys of a row");
    assert!((largest(at) as usize + 1) * q.len() <= keys.len(), "keys of a row");
    if isa.level() >= Level::Avx512 {
        // SAFETY: the level proves the instructions, the assertion the bounds.
        unsafe { avx512::scores(q, keys.as_ptr(), at, scale, out) }
    } else {
        // SAFETY: as above.
        unsafe { avx2::scores(q, keys.as_ptr(), at, scale, out) }
    }
}

/// [`super::portable::mix`] for f32.
pub(super) fn mix(isa: Isa, weights: &[f32], values: &[f32], at: &[u32], out: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2 && at.len() == weights.len(), "values of a row");
    assert!((largest(at) as usize + 1) * out.len() <= values.len(), "values of a row");
    if isa.level() >= Level::Avx512 {
        // SAFETY: the level proves the instructions, the assertion the bounds.
        unsafe { avx512::mix(weights, values.as_ptr(), at, out) }
    } else {
        // SAFETY: as above.
        unsafe { avx2::mix(weights, values.as_ptr(), at, out) }
    }
}

/// [`Taps::run`] for f32.
pub(super) fn conv(isa: Isa, p: Taps, rows: [&[f32]; 3], w: &[f32], bias: &[f32], out: &mut [f32]) {
    assert!(isa.level() >= Level::Avx2 && p.fit(rows.map(<[f32]>::len), w, bias, out), "a convolution");
    let (rows, w, bias, out) = (rows.map(<[f32]>::as_ptr), w.as_ptr(), bias.as_ptr(), out.as_mut_ptr());
    if isa.level() >= Level::Avx512 {
        // SAFETY: the level proves the instructions, `fit` the bounds.
        unsafe { avx512::conv(&p, rows, w, bias, out) }
    } else {
        // SAFETY: as above.
        unsafe { avx2::conv(&p, rows, w, bias, out) }
    }
}

/// [`portable::at_least`] with AVX2.
pub(super) fn at_least(isa: Isa, keys: &[u32], least: u32, found: &mut Vec<u32>) {
    #[target_feature(enable = "avx2,fma")]
    fn avx2(keys: &[u32], least: u32, found: &mut Vec<u32>) {
        let (blocks, rest) = keys.as_chunks::<8>();
        // Keys have no sign bit, so that signed comparisons order them; `least` is at least 1.
        let below = _mm256_set1_epi32(least as i32 - 1);
        for (i, block) in blocks.iter().enumerate() {
            // SAFETY: eight keys of a block.
            let block = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
            let mut hits = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(block, below)));
            while hits != 0 {
                found.push((i * 8) as u32 + hits.trailing_zeros());
                hits &= hits - 1;
            }
        }
        portable::at_least(rest, least, (blocks.len() * 8) as u32, found);
    }
    assert!(isa.level() >= Level::Avx2);
    // SAFETY: the level proves the instructions.
    unsafe { avx2(keys, least, found) }
}

/// Bodies of `portable.rs`, compiled per level.
macro_rules! levels {
    ($($name:ident ( $($arg:ident : $ty:ty),* );)*) => {$(
        pub(super) fn $name(isa: Isa, $($arg: $ty),*) {
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                portable::$name($($arg),*)
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma")]
            fn avx512($($arg: $ty),*) {
                portable::$name($($arg),*)
            }
            assert!(isa.level() >= Level::Avx2);
            if isa.level() >= Level::Avx512 {
                // SAFETY: the level proves the instructions.
                unsafe { avx512($($arg),*) }
            } else {
                // SAFETY: as above.
                unsafe { avx2($($arg),*) }
            }
        }
    )*};
}

levels! {
    normalise(rows: &mut [f32], gamma: &[f32], beta: &[f32]);
    pool(ends: f32, x: &[f32], out: &mut [f32]);
    stretch(x: &[f32], out: &mut [f32]);
    lower(rows: &mut [f32], width: usize);
    unit(rows: &mut [f32], width: usize);
}
