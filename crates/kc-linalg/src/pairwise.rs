//! Distances and inner products of all pairs of rows of two matrices.
//!
//! The `M x N` result comes out of one matrix product. It can be had as a whole ([`pairwise`]) or tile by tile
//! ([`pairwise_tiles`]), so that nothing of size `M x N` is ever stored.
//!
//! | [`Pair`] | entry `(i, j)` |
//! |---|---|
//! | [`Inner`](Pair::Inner) | `a_i . b_j` |
//! | [`Cosine`](Pair::Cosine) | `a_i . b_j / (norm a_i norm b_j)`, in -1..=1 |
//! | [`SquaredEuclidean`](Pair::SquaredEuclidean) | `norm(a_i - b_j)^2`, never negative |
//!
//! **Cost.** `2 M N d` operations through [`kc_gemm`], and `(M + N) d` for norms and centred copies; memory of
//! one tile and its rows.
//!
//! **Accuracy.** Squared distances come from `norm(a)^2 + norm(b)^2 - 2 a.b` after both sides are moved by the
//! mean of `b`, so that a common offset costs no digits. Pairs so close that this still cancels more than four
//! digits in f32 (twelve in f64) are computed again from their difference: equal rows have distance 0.
//!
//! **Threads.** The product runs on the caller's pool; no bit depends on the number of threads. Tiles come one
//! after the other, by rows, then columns.
//!
//! ```
//! use kc_core::Tensor;
//! use kc_linalg::pairwise::{Pair, pairwise};
//!
//! let points = Tensor::<f32, 2>::from_slice([2, 2], &[0.0, 0.0, 3.0, 4.0])?;
//! let d = pairwise(points.view(), points.view(), Pair::SquaredEuclidean)?;
//! assert_eq!(d.as_slice(), [0.0, 25.0, 25.0, 0.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::ops::Range;

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut, par};
use kc_gemm::gemm_into;
use rayon::prelude::*;

use crate::Real;

/// Rows and columns of a tile of [`pairwise`] itself.
const TILE: usize = 1024;

/// Squared distances below this many eps of the squared norms are computed again.
const CANCELLED: f64 = 1e4;

/// Rows for whose norms one task is made.
const CHUNK: usize = 256;

/// What is computed of two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pair {
    /// The inner product; with `a = b` the Gram matrix.
    Inner,
    /// The cosine of the angle; 0 if a row is zero.
    Cosine,
    /// The squared Euclidean distance.
    SquaredEuclidean,
}

/// Some rows and columns of the result.
#[derive(Debug)]
pub struct Tile<'a, T: Real> {
    /// Rows of `a`.
    pub rows: Range<usize>,
    /// Rows of `b`.
    pub columns: Range<usize>,
    /// Entries `[rows, columns]`, row-major.
    pub values: &'a mut [T],
}

/// All pairs: `[M, N]` for `a` of shape `[M, d]` and `b` of shape `[N, d]`.
pub fn pairwise<T: Real>(
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    pair: Pair,
) -> Result<Tensor<T, 2>> {
    let mut out = Tensor::zeros([a.rows(), b.rows()])?;
    pairwise_into(a, b, pair, out.view_mut())?;
    Ok(out)
}

/// [`pairwise`] into the caller's memory, of any strides.
pub fn pairwise_into<T: Real>(
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    pair: Pair,
    mut out: TensorViewMut<'_, T, 2>,
) -> Result<()> {
    let shape = [a.rows(), b.rows()];
    if out.shape() != shape {
        return Err(Error::shape("out", format!("{shape:?}"), &out.shape()));
    }
    pairwise_tiles(a, b, pair, [TILE, TILE], |tile| {
        let values = TensorView::from_slice([tile.rows.len(), tile.columns.len()], tile.values)?;
        out.reborrow().slice(0, tile.rows)?.slice(1, tile.columns)?.copy_from(values)
    })
}

/// All pairs, a tile of at most `tile` rows and columns at a time. An error of `body` ends the run.
pub fn pairwise_tiles<T: Real>(
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    pair: Pair,
    tile: [usize; 2],
    mut body: impl FnMut(Tile<'_, T>) -> Result<()>,
) -> Result<()> {
    if a.cols() != b.cols() {
        return Err(Error::shape("b", format!("[_, {}] to match a", a.cols()), &b.shape()));
    }
    if tile.contains(&0) {
        return Err(Error::argument("tile", "at least 1 x 1", format!("{tile:?}")));
    }
    let origin = match pair {
        Pair::SquaredEuclidean => mean(b),
        Pair::Inner | Pair::Cosine => vec![0.0; b.cols()],
    };
    let mut values = Tensor::<T, 2>::zeros([tile[0].min(a.rows()), tile[1].min(b.rows())])?;
    for rows in par::chunks(a.rows(), tile[0]) {
        let left = Side::new(a.slice(0, rows.clone())?, &origin, pair)?;
        for columns in par::chunks(b.rows(), tile[1]) {
            let right = Side::new(b.slice(0, columns.clone())?, &origin, pair)?;
            let shape = [rows.len(), columns.len()];
            let values = &mut values.as_mut_slice()[..shape[0] * shape[1]];
            let out = TensorViewMut::from_slice(shape, &mut *values)?;
            gemm_into(T::from_f64(1.0), left.rows(), right.rows().transposed(), T::default(), out)?;
            finish(pair, &left, &right, values);
            body(Tile { rows: rows.clone(), columns, values })?;
        }
    }
    Ok(())
}

/// Rows of one operand, moved if need be, with their squared norms.
struct Side<'a, T: Real> {
    given: TensorView<'a, T, 2>,
    moved: Option<Tensor<T, 2>>,
    norms2: Vec<f64>,
}

impl<'a, T: Real> Side<'a, T> {
    fn new(given: TensorView<'a, T, 2>, origin: &[f64], pair: Pair) -> Result<Self> {
        let moved = match pair {
            Pair::SquaredEuclidean => Some(Tensor::from_fn(given.shape(), |[i, j]| {
                T::from_f64(given.at([i, j]).to_f64() - origin[j])
            })?),
            Pair::Inner | Pair::Cosine => None,
        };
        let mut side = Self { given, moved, norms2: Vec::new() };
        if pair != Pair::Inner {
            let rows = side.rows();
            let norm2 = |i: usize| rows.row(i).iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>();
            let parts = par::map_chunks(rows.rows(), CHUNK, |range| range.map(norm2).collect::<Vec<f64>>());
            side.norms2 = parts.concat();
        }
        Ok(side)
    }

    fn rows(&self) -> TensorView<'_, T, 2> {
        self.moved.as_ref().map_or(self.given, |moved| moved.view())
    }
}

fn mean<T: Real>(b: TensorView<'_, T, 2>) -> Vec<f64> {
    let part = |range: Range<usize>| {
        let mut sums = vec![0.0; b.cols()];
        for i in range {
            sums.iter_mut().zip(b.row(i).iter()).for_each(|(s, x)| *s += x.to_f64());
        }
        sums
    };
    let sums = par::map_reduce(b.rows(), CHUNK, part, |mut x, y| {
        x.iter_mut().zip(&y).for_each(|(x, y)| *x += y);
        x
    });
    let sums = sums.unwrap_or_else(|| vec![0.0; b.cols()]);
    let mean = sums.iter().map(|s| s / b.rows() as f64);
    // A row that is not finite must not reach the pairs of other rows.
    mean.map(|m| if m.is_finite() { m } else { 0.0 }).collect()
}

/// Turns inner products into what was asked for.
fn finish<T: Real>(pair: Pair, left: &Side<'_, T>, right: &Side<'_, T>, values: &mut [T]) {
    let columns = right.given.rows();
    let entry = |i: usize, j: usize, product: f64| match pair {
        Pair::Inner => product,
        Pair::Cosine => {
            let size = (left.norms2[i] * right.norms2[j]).sqrt();
            if size == 0.0 { 0.0 } else { (product / size).clamp(-1.0, 1.0) }
        }
        Pair::SquaredEuclidean => {
            let size = left.norms2[i] + right.norms2[j];
            let squared = size - 2.0 * product;
            // Written so that NaN passes through.
            if squared <= CANCELLED * T::EPS * size { difference2(left, right, i, j) } else { squared }
        }
    };
    if pair == Pair::Inner || columns == 0 {
        return;
    }
    values.par_chunks_mut(columns).enumerate().for_each(|(i, row)| {
        for (j, value) in row.iter_mut().enumerate() {
            *value = T::from_f64(entry(i, j, value.to_f64()));
        }
    });
}

fn difference2<T: Real>(left: &Side<'_, T>, right: &Side<'_, T>, i: usize, j: usize) -> f64 {
    let pairs = left.given.row(i).iter().zip(right.given.row(j).iter());
    pairs.map(|(x, y)| (x.to_f64() - y.to_f64()).powi(2)).sum()
}
