//! The small products and the sparse rows that everything here is made of, in safe code for f32 and f64.

use kc_core::math::Real;
use kc_core::{DType, Isa, Level, bytemuck};

/// A product `c[i, j] = sum_k a[i, k] b[k, j]`; rows of `b` and `c` are contiguous, `a` may have any strides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// Rows of `c`.
    pub(super) m: usize,
    /// Columns of `c`.
    pub(super) n: usize,
    /// Length of the sums.
    pub(super) k: usize,
    /// Steps of `a` along `i` and `k`.
    pub(super) a: [usize; 2],
    /// Step of `b` along `k`.
    pub(super) b: usize,
    /// Step of `c` along `i`.
    pub(super) c: usize,
}

impl Product {
    /// Whether all elements lie inside of slices of these lengths.
    pub(super) fn fits(&self, a: usize, b: usize, c: usize) -> bool {
        let Product { m, n, k, .. } = *self;
        if m == 0 || n == 0 {
            return true;
        }
        (m - 1) * self.c + n <= c
            && (k == 0 || (m - 1) * self.a[0] + (k - 1) * self.a[1] < a && (k - 1) * self.b + n <= b)
    }

    /// Runs at the level of `isa`; adds to `c` if `add`.
    ///
    /// # Panics
    /// If the slices are too short, which is a mistake in this module.
    pub(super) fn run<T: Real>(self, isa: Isa, a: &[T], b: &[T], c: &mut [T], add: bool) {
        assert!(self.fits(a.len(), b.len(), c.len()), "operands of a product");
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= Level::Avx2 && T::DTYPE == DType::F32 {
            let (a, b) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
            return super::x86::product(isa, self, a, b, bytemuck::cast_slice_mut(c), add);
        }
        let _ = (isa, Level::Portable, DType::F32);
        for i in 0..self.m {
            let row = &mut c[i * self.c..i * self.c + self.n];
            if !add {
                row.fill(T::ZERO);
            }
            for k in 0..self.k {
                let x = a[i * self.a[0] + k * self.a[1]];
                for (c, b) in row.iter_mut().zip(&b[k * self.b..k * self.b + self.n]) {
                    *c = *c + x * *b;
                }
            }
        }
    }
}

/// `c = a b^T` (or plus), by way of a transposed copy of `b` `[n, k]`; `a` is `[m, k]` with `k` contiguous.
pub(super) fn times_transposed<T: Real>(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: &[T],
    b: &[T],
    c: &mut [T],
    add: bool,
) {
    let turned = transposed(b, n, k);
    Product { m, n, k, a: [k, 1], b: n, c: n }.run(isa, a, &turned, c, add);
}

/// `[rows, columns]` as `[columns, rows]`.
pub(super) fn transposed<T: Real>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; rows * columns];
    for i in 0..rows {
        for j in 0..columns {
            out[j * rows + i] = x[i * columns + j];
        }
    }
    out
}

/// The scores `scale q . k_j` of some keys of `[keys, q.len()]`.
pub(super) fn scores<T: Real>(isa: Isa, q: &[T], keys: &[T], at: &[u32], scale: T, out: &mut [T]) {
    let d = q.len();
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 && T::DTYPE == DType::F32 {
        let (q, keys) = (bytemuck::cast_slice(q), bytemuck::cast_slice(keys));
        let out: &mut [f32] = bytemuck::cast_slice_mut(out);
        return super::x86::scores(isa, q, keys, at, scale.to_f32(), out);
    }
    let _ = isa;
    for (out, &j) in out.iter_mut().zip(at) {
        let mut sum = T::ZERO;
        for (q, k) in q.iter().zip(&keys[j as usize * d..][..d]) {
            sum = sum + *q * *k;
        }
        *out = scale * sum;
    }
}

/// `out = sum_j weights_j values_j` over some rows of `[keys, out.len()]`.
pub(super) fn mix<T: Real>(isa: Isa, weights: &[T], values: &[T], at: &[u32], out: &mut [T]) {
    let d = out.len();
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 && T::DTYPE == DType::F32 {
        let (weights, values) = (bytemuck::cast_slice(weights), bytemuck::cast_slice(values));
        return super::x86::mix(isa, weights, values, at, bytemuck::cast_slice_mut(out));
    }
    let _ = isa;
    out.fill(T::ZERO);
    for (w, &j) in weights.iter().zip(at) {
        for (out, v) in out.iter_mut().zip(&values[j as usize * d..][..d]) {
            *out = *out + *w * *v;
        }
    }
}

/// A row of a 3x3 convolution on padded rows: place `x` of the result sees places `x`, `x + step` and `x + 2 step` of
/// three rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps {
    /// Places of the result.
    pub(super) width: usize,
    /// Places between the columns that a place sees.
    pub(super) step: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// Results below become it: 0 for a rectified row.
    pub(super) floor: f32,
}

impl Taps {
    /// Whether everything lies inside of slices of these lengths.
    pub(super) fn fit(&self, rows: [usize; 3], w: &[f32], bias: &[f32], out: &[f32]) -> bool {
        rows.iter().all(|&len| len >= (self.width + 2 * self.step) * self.c_in)
            && w.len() >= 9 * self.c_in * self.c_out
            && bias.len() >= self.c_out
            && out.len() >= self.width * self.c_out
    }

    /// Runs at the level of `isa`; `w` is `[3][3][c_in][c_out]`.
    ///
    /// # Panics
    /// If the slices are too short, which is a mistake in this module.
    pub(super) fn run(self, isa: Isa, rows: [&[f32]; 3], w: &[f32], bias: &[f32], out: &mut [f32]) {
        assert!(self.fit(rows.map(<[f32]>::len), w, bias, out), "a convolution");
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= Level::Avx2 {
            return super::x86::conv(isa, self, rows, w, bias, out);
        }
        let _ = isa;
        let Taps { width, step, c_in, c_out, floor } = self;
        for (x, out) in out.chunks_exact_mut(c_out).take(width).enumerate() {
            out.copy_from_slice(&bias[..c_out]);
            for (i, row) in rows.iter().enumerate() {
                for j in 0..3 {
                    let from = &row[(x + j * step) * c_in..][..c_in];
                    for (k, from) in from.iter().enumerate() {
                        let w = &w[((i * 3 + j) * c_in + k) * c_out..][..c_out];
                        out.iter_mut().zip(w).for_each(|(out, w)| *out += from * w);
                    }
                }
            }
            out.iter_mut().for_each(|x| *x = x.max(floor));
        }
    }
}

/// Appends the places, plus `base`, of keys of at least `least`.
#[inline(always)]
pub(super) fn at_least(keys: &[u32], least: u32, base: u32, found: &mut Vec<u32>) {
    for (i, key) in keys.iter().enumerate() {
        if *key >= least {
            found.push(base + i as u32);
        }
    }
}

/// Lanes of the sums below.
const LANES: usize = 16;

/// The sum of `f` over elements, in lanes.
#[inline(always)]
fn lane_sum(x: &[f32], shift: f32, square: bool) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            let y = block[i] - shift;
            lanes[i] += if square { y * y } else { y };
        }
    }
    for (i, x) in rest.iter().enumerate() {
        let y = x - shift;
        lanes[i] += if square { y * y } else { y };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Layer normalisation of rows of `gamma.len()` elements, in place.
#[inline(always)]
pub(super) fn normalise(rows: &mut [f32], gamma: &[f32], beta: &[f32]) {
    let width = gamma.len();
    for row in rows.chunks_exact_mut(width) {
        let mean = lane_sum(row, 0.0, false) / width as f32;
        let variance = lane_sum(row, mean, true) / width as f32;
        let rstd = 1.0 / (variance + super::estimate::EPS as f32).sqrt();
        for i in 0..width {
            row[i] = (row[i] - mean) * rstd * gamma[i] + beta[i];
        }
    }
}

/// Rows of `width` elements, minus the largest of each.
#[inline(always)]
pub(super) fn lower(rows: &mut [f32], width: usize) {
    for row in rows.chunks_mut(width.max(1)) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (blocks, rest) = row.as_chunks::<LANES>();
        for block in blocks {
            for i in 0..LANES {
                lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
            }
        }
        for (i, x) in rest.iter().enumerate() {
            lanes[i] = if *x > lanes[i] { *x } else { lanes[i] };
        }
        let mut most = lanes[0];
        for lane in lanes {
            most = if lane > most { lane } else { most };
        }
        for x in row {
            *x -= most;
        }
    }
}

/// Rows of `width` elements, divided by the sum of each.
#[inline(always)]
pub(super) fn unit(rows: &mut [f32], width: usize) {
    for row in rows.chunks_mut(width.max(1)) {
        let scale = 1.0 / lane_sum(row, 0.0, false);
        for x in row {
            *x *= scale;
        }
    }
}

/// Every element of `x` four times, one `ends` before and one after, and the means of neighbours that bring that back
/// to `4 x.len()` elements: the area resizing of the causal estimator, whose areas are all two places wide.
#[inline(always)]
pub(super) fn pool(ends: f32, x: &[f32], out: &mut [f32]) {
    let (quads, _) = out.as_chunks_mut::<4>();
    let half = x.len() * 2;
    for (quad, x) in quads.iter_mut().zip(x) {
        *quad = [*x; 4];
    }
    // In the first half element j is the mean of places j and j + 1, in the second of j + 1 and j + 2, counted with the
    // end before: of elements j - 1 and j, or j and j + 1. Only the edges of fours differ from their neighbours.
    let last = x.len() - 1;
    for i in 0..=last {
        if 4 * i < half {
            let before = if i == 0 { ends } else { x[i - 1] };
            quads[i][0] = (before + x[i]) * 0.5;
        }
        if 4 * i + 3 >= half {
            let after = if i == last { ends } else { x[i + 1] };
            quads[i][3] = (x[i] + after) * 0.5;
        }
    }
}

/// A row stretched to twice its length: element `j` of the result reads place `j / 2 - 1 / 4`, bilinearly, of `x`.
#[inline(always)]
pub(super) fn stretch(x: &[f32], out: &mut [f32]) {
    let (pairs, _) = out.as_chunks_mut::<2>();
    let last = x.len() - 1;
    for i in 0..=last {
        let (before, after) = (x[i.max(1) - 1], x[(i + 1).min(last)]);
        pairs[i] = [0.25 * before + 0.75 * x[i], 0.75 * x[i] + 0.25 * after];
    }
}

/// One of the bodies above at the level of `isa`.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($arg:expr),* )) => {{
        #[cfg(target_arch = "x86_64")]
        if $isa.level() >= kc_core::Level::Avx2 {
            crate::sea::x86::$name($isa, $($arg),*)
        } else {
            crate::sea::portable::$name($($arg),*)
        }
        #[cfg(not(target_arch = "x86_64"))]
        crate::sea::portable::$name($($arg),*)
    }};
}
pub(super) use dispatch;
