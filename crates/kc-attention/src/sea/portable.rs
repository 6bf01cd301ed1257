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
    assert!(at.len() == out.len() && at.iter().all(|&j| (j as usize + 1) * d <= keys.len()), "keys of a row");
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
    let inside = at.iter().all(|&j| (j as usize + 1) * d <= values.len());
    assert!(at.len() == weights.len() && inside, "values of a row");
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
