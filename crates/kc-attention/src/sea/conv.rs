//! The convolutions of the estimator, on planes `[rows, width, channels]`, with their gradients.
//!
//! A 3x3 convolution is nine products `[width, c_in] x [c_in, c_out]` per row, added up: channels are contiguous, so no
//! patches are gathered.

use kc_core::Isa;
use kc_core::math::Real;
use rayon::prelude::*;

use super::portable::Product;

/// A convolution: which rows and columns it sees, and its weights.
#[derive(Debug, Clone)]
pub(super) struct Conv<T> {
    /// Row offsets of the taps; row `r` of the result sees rows `stride r + offset`.
    pub(super) rows: Vec<isize>,
    /// Column offsets of the taps.
    pub(super) cols: Vec<isize>,
    pub(super) stride: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// `[rows][cols][c_in][c_out]`
    weights: Vec<T>,
    bias: Vec<T>,
}

/// Gradients of a convolution, in the layout of the parameters.
#[derive(Debug)]
pub(super) struct ConvGrads<T> {
    pub(super) x: Vec<T>,
    pub(super) w: Vec<T>,
    pub(super) b: Vec<T>,
}

impl<T: Real> Conv<T> {
    /// From weights `[c_out, c_in, rows, cols]`.
    pub(super) fn new(rows: &[isize], cols: &[isize], stride: usize, w: &[T], b: &[T]) -> Self {
        let (c_out, taps) = (b.len(), rows.len() * cols.len());
        let c_in = w.len() / (c_out * taps).max(1);
        let mut weights = vec![T::ZERO; w.len()];
        for o in 0..c_out {
            for i in 0..c_in {
                for tap in 0..taps {
                    weights[(tap * c_in + i) * c_out + o] = w[(o * c_in + i) * taps + tap];
                }
            }
        }
        Conv { rows: rows.to_vec(), cols: cols.to_vec(), stride, c_in, c_out, weights, bias: b.to_vec() }
    }

    /// Taps of row `r` that lie inside of `rows` rows: the row they read, their number.
    fn taps(&self, r: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.rows.iter().enumerate().filter_map(move |(i, off)| {
            let at = (r * self.stride).checked_add_signed(*off)?;
            (at < rows).then_some((at, i))
        })
    }

    /// Columns of a tap that read inside of `width`: first of the result, first of the input, how many.
    fn span(off: isize, width: usize) -> (usize, usize, usize) {
        let skip = off.unsigned_abs().min(width);
        if off < 0 { (skip, 0, width - skip) } else { (0, skip, width - skip) }
    }

    /// One row of the result from the rows of the input that `row` gives (`None` above and below).
    pub(super) fn row<'a>(
        &self,
        isa: Isa,
        width: usize,
        row: impl Fn(usize) -> Option<&'a [T]>,
        out: &mut [T],
    ) where
        T: 'a,
    {
        let (c_in, c_out) = (self.c_in, self.c_out);
        out.chunks_exact_mut(c_out).for_each(|out| out.copy_from_slice(&self.bias));
        for i in 0..self.rows.len() {
            let Some(from) = row(i) else { continue };
            for (j, &off) in self.cols.iter().enumerate() {
                let (to, at, many) = Self::span(off, width);
                if many == 0 {
                    continue;
                }
                let w = &self.weights[(i * self.cols.len() + j) * c_in * c_out..][..c_in * c_out];
                let p = Product { m: many, n: c_out, k: c_in, a: [c_in, 1], b: c_out, c: c_out };
                p.run(isa, &from[at * c_in..], w, &mut out[to * c_out..], true);
            }
        }
    }

    /// The whole plane: `x` `[rows, width, c_in]` to `[out_rows, width, c_out]`.
    pub(super) fn forward(&self, isa: Isa, x: &[T], width: usize, out_rows: usize) -> Vec<T> {
        let line = width * self.c_in;
        let rows = x.len() / line.max(1);
        let mut out = vec![T::ZERO; out_rows * width * self.c_out];
        out.par_chunks_exact_mut((width * self.c_out).max(1)).enumerate().for_each(|(r, out)| {
            let row = |i: usize| {
                let at = (r * self.stride).checked_add_signed(self.rows[i])?;
                (at < rows).then(|| &x[at * line..(at + 1) * line])
            };
            self.row(isa, width, row, out);
        });
        out
    }

    /// From the gradient by the result.
    pub(super) fn backward(&self, isa: Isa, x: &[T], dy: &[T], width: usize) -> ConvGrads<T> {
        let (c_in, c_out, taps) = (self.c_in, self.c_out, self.rows.len() * self.cols.len());
        let (line, out_line) = (width * c_in, width * c_out);
        let rows = x.len() / line.max(1);
        let mut turned = vec![T::ZERO; self.weights.len()];
        for tap in 0..taps {
            for i in 0..c_in {
                for o in 0..c_out {
                    turned[(tap * c_out + o) * c_in + i] = self.weights[(tap * c_in + i) * c_out + o];
                }
            }
        }
        let (mut dx, mut dw) = (vec![T::ZERO; x.len()], vec![T::ZERO; self.weights.len()]);
        let mut db = vec![T::ZERO; c_out];
        for (r, dy) in dy.chunks_exact(out_line.max(1)).enumerate() {
            for dy in dy.chunks_exact(c_out) {
                db.iter_mut().zip(dy).for_each(|(b, dy)| *b = *b + *dy);
            }
            for (at, i) in self.taps(r, rows) {
                for (j, &off) in self.cols.iter().enumerate() {
                    let (to, first, many) = Self::span(off, width);
                    if many == 0 {
                        continue;
                    }
                    let tap = (i * self.cols.len() + j) * c_in * c_out;
                    let (from, dy) = (at * line + first * c_in, &dy[to * c_out..]);
                    let back = Product { m: many, n: c_in, k: c_out, a: [c_out, 1], b: c_in, c: c_in };
                    back.run(isa, dy, &turned[tap..][..c_in * c_out], &mut dx[from..], true);
                    let outer = Product { m: c_in, n: c_out, k: many, a: [1, c_in], b: c_out, c: c_out };
                    outer.run(isa, &x[from..], dy, &mut dw[tap..][..c_in * c_out], true);
                }
            }
        }
        let mut w = vec![T::ZERO; dw.len()];
        for o in 0..c_out {
            for i in 0..c_in {
                for tap in 0..taps {
                    w[(o * c_in + i) * taps + tap] = dw[(tap * c_in + i) * c_out + o];
                }
            }
        }
        ConvGrads { x: dx, w, b: db }
    }
}

/// Negative elements become 0.
pub(super) fn relu<T: Real>(x: &mut [T]) {
    x.iter_mut().for_each(|x| *x = if *x > T::ZERO { *x } else { T::ZERO });
}

/// `dy` where `y`, the rectified value, is positive.
pub(super) fn relu_backward<T: Real>(y: &[T], dy: &mut [T]) {
    dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = if *y > T::ZERO { *dy } else { T::ZERO });
}

/// Where one element of a resized axis reads: two places and their weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap {
    pub(super) at: [usize; 2],
    pub(super) weight: [f64; 2],
}

/// Bilinear resizing of an axis, corners not aligned: what element `i` reads.
pub(super) fn bilinear_at(i: usize, from: usize, to: usize) -> Tap {
    let x = ((i as f64 + 0.5) * (from as f64 / to as f64) - 0.5).max(0.0);
    let low = (x as usize).min(from - 1);
    let part = x - low as f64;
    Tap { at: [low, (low + 1).min(from - 1)], weight: [1.0 - part, part] }
}

/// Bilinear resizing of a whole axis.
pub(super) fn bilinear(from: usize, to: usize) -> Vec<Tap> {
    (0..to).map(|i| bilinear_at(i, from, to)).collect()
}

/// Area resizing of a row of `from` elements to `to` fewer: each reads the mean of a range.
pub(super) fn area(from: usize, to: usize) -> Vec<std::ops::Range<usize>> {
    (0..to).map(|i| i * from / to..((i + 1) * from).div_ceil(to)).collect()
}
