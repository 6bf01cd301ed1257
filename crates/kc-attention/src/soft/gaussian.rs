//! The Gaussian kernel as a function: of landmarks with each other, of two sets of points with its gradient, and attention
//! through the kernel of all tokens.

use kc_core::{Error, Isa, Result, Tensor, TensorView, math, par};
use rayon::prelude::*;

use super::kernel::{Inputs, Panels, TOKENS, Tile, cut, pieces, write_rows};
use super::portable::at_level;
use super::{Scalar, Shape, check_finite, head_of};

/// The kernel of landmarks `[m, d]` with each other, in f64 from differences: exact ones on the diagonal.
pub(super) fn square<T: Scalar>(isa: Isa, landmarks: &[T], channels: usize) -> Vec<f64> {
    let rows: Vec<f64> = landmarks.iter().map(|x| x.to_f64()).collect();
    let m = rows.len() / channels;
    let mut a = vec![0.0; m * m];
    for i in 0..m {
        let below = &mut a[i * m..i * m + i];
        at_level!(isa, apart(&rows[i * channels..(i + 1) * channels], &rows[..i * channels], below));
        math::exp_in_place(below);
        a[i * m + i] = 1.0;
        for j in 0..i {
            a[j * m + i] = a[i * m + j];
        }
    }
    a
}

/// `exp(-|a_i - b_j|^2 / 2)` `[N, m]` of points `a` `[N, d]` and `b` `[m, d]`.
///
/// # Errors
/// `Shape` unless both have the same number of channels; `NotFinite` with the position.
pub fn gaussian_kernel<T: Scalar>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
    let mut out = Tensor::zeros([a.rows(), b.cols().min(1) * b.rows()])?;
    if a.cols() != b.cols() || a.cols() == 0 {
        return Err(Error::shape("b", format!("[m, {}] to match a, with d > 0", a.cols()), &b.shape()));
    }
    check_finite("a", a)?;
    check_finite("b", b)?;
    let shape = points(a);
    let panels = Panels::of(&b.to_vec(), b.cols());
    let owned;
    let four = match a.reshaped([1, 1, a.rows(), a.cols()]) {
        Ok(view) => view,
        Err(_) => {
            owned = a.to_tensor()?.reshape([1, 1, a.rows(), a.cols()])?;
            owned.view()
        }
    };
    let inputs = Inputs { shape: &shape, q: four, v: four, mask: None, isa: Isa::best() };
    if out.is_empty() {
        return Ok(out);
    }
    let outs = out.view_mut().chunks(0, shape.piece())?;
    let ranges: Vec<_> = par::chunks(shape.tokens, shape.piece()).collect();
    ranges.into_par_iter().zip(outs).for_each(|(piece, mut out)| {
        let mut tile = Tile::new(&panels);
        let mut k = vec![T::ZERO; TOKENS * panels.width];
        for part in par::chunks(piece.len(), TOKENS) {
            let k = &mut k[..part.len() * panels.width];
            tile.queries(&inputs, &panels, [0, 0], piece.start + part.start, part.len());
            tile.kernel(inputs.isa, &panels, k);
            write_rows(&mut out, part.start, k, panels.width);
        }
    });
    Ok(out)
}

/// Points as the tokens of one head, not scaled.
fn points<T: Scalar>(a: TensorView<'_, T, 2>) -> Shape {
    let [tokens, channels] = a.shape();
    Shape { batch: 1, heads: 1, tokens, channels, sides: [1, tokens], scale: 1.0 }
}

/// From the gradient `d_kernel` `[N, m]` by [`gaussian_kernel`] to those by `a` `[N, d]` and `b` `[m, d]`.
///
/// # Errors
/// As [`gaussian_kernel`], and `Shape` for another `d_kernel`.
pub fn gaussian_kernel_backward<T: Scalar>(
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    d_kernel: TensorView<'_, T, 2>,
) -> Result<(Tensor<T, 2>, Tensor<T, 2>)> {
    let mut g = gaussian_kernel(a, b)?;
    if d_kernel.shape() != g.shape() {
        return Err(Error::shape("d_kernel", format!("{:?}", g.shape()), &d_kernel.shape()));
    }
    g.as_mut_slice().iter_mut().zip(d_kernel.iter()).for_each(|(k, d)| *k = *k * d);
    let mut da = kc_gemm::gemm(g.view(), b)?;
    let mut db = kc_gemm::gemm(g.view().transposed(), a)?;
    for (grad, points, sums) in [(&mut da, a, g.view()), (&mut db, b, g.view().transposed())] {
        for i in 0..points.rows() {
            let sum = T::from_f64(sums.row(i).iter().map(|x| x.to_f64()).sum());
            for c in 0..points.cols() {
                let old = grad[[i, c]];
                grad[[i, c]] = old - sum * points.at([i, c]);
            }
        }
    }
    Ok((da, db))
}

/// Attention through the kernel of all tokens with each other: `exp(-|qs_i - qs_j|^2 / 2) v` with `qs = q d^(-1/4)`, for `q`, `v` `[B, h, N, d]`.
/// What [`soft_attention`](super::soft_attention) approximates; `O(N^2)` time, `O(N)` memory.
///
/// # Errors
/// `Shape` for `v` unlike `q`, `Empty` for no tokens or channels, `NotFinite` with the position.
pub fn soft_exact<T: Scalar>(q: TensorView<'_, T, 4>, v: TensorView<'_, T, 4>) -> Result<Tensor<T, 4>> {
    let config = super::SoftConfig::new(super::Grid::Seq(q.shape()[2]), 1);
    let shape = Shape::of(q, v, &config)?;
    let mut out = Tensor::zeros(q.shape())?;
    let scale = T::from_f64(shape.scale);
    // A block of keys takes the place of the landmarks.
    const KEYS: usize = 256;
    for at in 0..shape.all_heads() {
        let (entry, head) = (at / shape.heads, at % shape.heads);
        let one = |x: TensorView<'_, T, 4>| head_of(x, entry, head).to_tensor();
        let (q, v) = (one(q)?, one(v)?);
        let (n, d) = (shape.tokens, shape.channels);
        let four = [1, 1, n, d];
        let single = Shape { batch: 1, heads: 1, ..shape.clone() };
        let inputs = Inputs {
            shape: &single,
            q: q.view().reshaped(four)?,
            v: v.view().reshaped(four)?,
            mask: None,
            isa: Isa::best(),
        };
        let keys: Vec<Panels<T>> = q
            .as_slice()
            .chunks(KEYS * d)
            .map(|rows| Panels::of(&rows.iter().map(|x| *x * scale).collect::<Vec<T>>(), d))
            .collect();
        let to = out.view_mut().slice(0, entry..entry + 1)?.slice(1, head..head + 1)?;
        pieces(&single).into_par_iter().zip(cut(&single, to)?).for_each(|((at, piece), mut out)| {
            let mut out = out.outer_mut(0);
            let mut out = out.matrix_mut(0);
            for part in par::chunks(piece.len(), TOKENS) {
                let rows = part.len();
                let mut total = vec![0.0; rows * d];
                for (block, panels) in keys.iter().enumerate() {
                    let mut tile = Tile::new(panels);
                    let mut k = vec![T::ZERO; rows * panels.width];
                    tile.queries(&inputs, panels, at, piece.start + part.start, rows);
                    tile.kernel(inputs.isa, panels, &mut k);
                    let mut values = vec![T::ZERO; panels.count * panels.depth];
                    inputs.fill(v.view(), 0, block * KEYS, [0, panels.depth], &mut values);
                    Tile::weigh(inputs.isa, panels, &k, &values, rows, &mut tile.v);
                    let found = tile.v.chunks_exact(panels.depth).flat_map(|row| &row[..d]);
                    total.iter_mut().zip(found).for_each(|(t, x)| *t += x.to_f64());
                }
                let total: Vec<T> = total.into_iter().map(T::from_f64).collect();
                write_rows(&mut out, part.start, &total, d);
            }
        });
    }
    Ok(out)
}
