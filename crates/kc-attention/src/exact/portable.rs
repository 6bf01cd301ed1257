//! The operations of [`kernels`](super::kernels) for any processor, in safe code.

use kc_core::Isa;

use super::kernels::{BLOCK, Left, Right, Running, Scalar, Size};

/// Rows of a tile.
pub(super) const ROWS: usize = 4;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 8;

/// `out (+)= left right`, `out` row-major with rows `stride` apart.
pub(super) fn product<T: Scalar>(
    _isa: Isa,
    left: Left<'_, T>,
    right: Right<'_, T>,
    out: &mut [T],
    stride: usize,
    size: Size,
    add: bool,
) {
    for j in (0..size.columns).step_by(COLUMNS) {
        let panel = &right.data[j * right.depth..];
        for i in (0..size.rows).step_by(ROWS) {
            let out = &mut out[i * stride + j..];
            if size.columns - j >= COLUMNS {
                tile::<T, COLUMNS>(left, i, panel, out, stride, size.depth, add);
            } else {
                tile::<T, { COLUMNS / 2 }>(left, i, panel, out, stride, size.depth, add);
            }
        }
    }
}

fn tile<T: Scalar, const WIDTH: usize>(
    left: Left<'_, T>,
    first: usize,
    panel: &[T],
    out: &mut [T],
    stride: usize,
    depth: usize,
    add: bool,
) {
    let mut sums = [[T::ZERO; WIDTH]; ROWS];
    let left_data = &left.data[first * left.row..];
    for (k, b) in panel.as_chunks::<WIDTH>().0[..depth].iter().enumerate() {
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = left_data[r * left.row + k * left.step];
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (out, &sum) in out[r * stride..][..WIDTH].iter_mut().zip(sums) {
            *out = if add { *out + sum } else { sum };
        }
    }
}

/// `2^x` for `x <= 0`; 0 from `T::LOWEST` down.
#[inline(always)]
pub(super) fn exp2<T: Scalar>(x: T) -> T {
    let x = if x < T::LOWEST { T::LOWEST } else { x };
    let t = x + T::ROUND;
    let f = x - (t - T::ROUND);
    let mut p = T::EXP2[T::EXP2.len() - 1];
    for &c in T::EXP2[..T::EXP2.len() - 1].iter().rev() {
        p = p * f + c;
    }
    (p * f + T::ONE) * T::power_of_two(t)
}

/// One step of the running softmax. Scores, in base 2 and `-inf` where a key is not seen, become weights relative to
/// the largest score so far; sums and values so far are scaled to it.
pub(super) fn soften<T: Scalar>(
    _isa: Isa,
    scores: &mut [T],
    stride: usize,
    keys: usize,
    state: &mut Running<'_, T>,
) {
    for r in 0..state.top.len() {
        let row = &mut scores[r * stride..][..keys];
        let before = state.top[r];
        let top = row.iter().fold(before, |top, &s| if s > top { s } else { top });
        if top == -T::INFINITY {
            row.fill(T::ZERO);
            continue;
        }
        let mut sums = [T::ZERO; COLUMNS / 2];
        for block in row.as_chunks_mut::<{ COLUMNS / 2 }>().0 {
            for (s, sum) in block.iter_mut().zip(&mut sums) {
                *s = exp2(*s - top);
                *sum += *s;
            }
        }
        let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        if top > before {
            let factor = exp2(before - top);
            state.sum[r] = state.sum[r] * factor + sum;
            state.top[r] = top;
            for o in &mut state.out[r * state.stride..][..state.channels] {
                *o = *o * factor;
            }
        } else {
            state.sum[r] += sum;
        }
    }
}

/// Scores become weights `2^(s - shift)`, and the products `dO V^T` become slopes: weight times (product - delta).
pub(super) fn slopes<T: Scalar>(
    _isa: Isa,
    scores: &mut [T],
    products: &mut [T],
    stride: usize,
    keys: usize,
    shift: &[T],
    delta: &[T],
) {
    for (r, (&shift, &delta)) in shift.iter().zip(delta).enumerate() {
        let row = r * stride..r * stride + keys;
        for (s, p) in scores[row.clone()].iter_mut().zip(&mut products[row]) {
            *s = exp2(*s - shift);
            *p = *s * (*p - delta);
        }
    }
}

/// The transpose of `width` rows of `depth` elements.
pub(super) fn turn<T: Scalar>(_isa: Isa, from: &[T], depth: usize, width: usize, to: &mut [T]) {
    for (c, to) in to.chunks_exact_mut(width).take(depth).enumerate() {
        for (r, to) in to.iter_mut().enumerate() {
            *to = from[r * depth + c];
        }
    }
}

/// Products of `count` queries, one after another and as long as a key, with a block of keys; the scores of a query are
/// `stride` apart from those of the next.
pub(super) fn dots<T: Scalar>(
    _isa: Isa,
    q: &[T],
    count: usize,
    keys: &[&[T]; BLOCK],
    scores: &mut [T],
    stride: usize,
) {
    let channels = keys[0].len();
    for (r, q) in q.chunks_exact(channels).take(count).enumerate() {
        for (score, key) in scores[r * stride..].iter_mut().zip(keys) {
            let mut sums = [T::ZERO; COLUMNS / 2];
            for (q, k) in q.as_chunks::<{ COLUMNS / 2 }>().0.iter().zip(key.as_chunks::<{ COLUMNS / 2 }>().0)
            {
                for ((sum, &q), &k) in sums.iter_mut().zip(q).zip(k) {
                    *sum += q * k;
                }
            }
            *score = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
}

/// Adds a block of values, with `count` rows of weights `stride` apart, to `count` rows of `out`, one after another.
pub(super) fn blend<T: Scalar>(
    _isa: Isa,
    weights: &[T],
    stride: usize,
    count: usize,
    values: &[&[T]; BLOCK],
    out: &mut [T],
) {
    let channels = values[0].len();
    for (r, out) in out.chunks_exact_mut(channels).take(count).enumerate() {
        for (&weight, value) in weights[r * stride..][..BLOCK].iter().zip(values) {
            out.iter_mut().zip(*value).for_each(|(o, &v)| *o += weight * v);
        }
    }
}
