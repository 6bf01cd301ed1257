//! The definition in plain loops, with sums in f64.

use kc_core::{Float, Result, Tensor, TensorView};

use crate::layout::Dims;
use crate::mask::{Mask, Select};

/// Output `[B, Hq, Nq, D]` and lse `[B, Hq, Nq]` of queries `[B, Hq, Nq, D]`, keys and values `[B, Hkv, Nk, D]`.
///
/// # Errors
/// If shapes do not fit.
pub fn attention<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    scale: f64,
) -> Result<(Tensor<f64, 4>, Tensor<f64, 3>)> {
    let dims = Dims::of(q.shape(), k.shape(), v.shape())?;
    let mask = mask.broadcast(&dims)?;
    let mut out = Tensor::zeros(q.shape())?;
    let mut lse = Tensor::zeros([dims.batch, dims.heads, dims.queries])?;
    for b in 0..dims.batch {
        for h in 0..dims.heads {
            for i in 0..dims.queries {
                let scores = scores(q, k, &mask, &dims, [b, h, i], scale);
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if top == f64::NEG_INFINITY {
                    lse[[b, h, i]] = top;
                    continue;
                }
                let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                lse[[b, h, i]] = top + sum.ln();
                for c in 0..dims.channels {
                    let value = |j: usize| v.at([b, dims.kv_head(h), j, c]).to_f64();
                    let total: f64 = scores.iter().enumerate().map(|(j, s)| (s - top).exp() * value(j)).sum();
                    out[[b, h, i, c]] = total / sum;
                }
            }
        }
    }
    Ok((out, lse))
}

/// The gradients `dQ`, `dK`, `dV` of `sum(O dO)`.
///
/// # Errors
/// If shapes do not fit.
pub fn attention_backward<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    d_o: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    scale: f64,
) -> Result<[Tensor<f64, 4>; 3]> {
    let dims = Dims::of(q.shape(), k.shape(), v.shape())?;
    let mask = mask.broadcast(&dims)?;
    let (out, lse) = attention(q, k, v, &mask, scale)?;
    let [mut dq, mut dk, mut dv] =
        [Tensor::zeros(q.shape())?, Tensor::zeros(k.shape())?, Tensor::zeros(v.shape())?];
    for b in 0..dims.batch {
        for h in 0..dims.heads {
            let g = dims.kv_head(h);
            for i in 0..dims.queries {
                let lse = lse[[b, h, i]];
                if lse == f64::NEG_INFINITY {
                    continue;
                }
                let slope = |c: usize| d_o.at([b, h, i, c]).to_f64();
                let delta: f64 = (0..dims.channels).map(|c| slope(c) * out[[b, h, i, c]]).sum();
                for (j, s) in scores(q, k, &mask, &dims, [b, h, i], scale).into_iter().enumerate() {
                    let p = (s - lse).exp();
                    let dp: f64 = (0..dims.channels).map(|c| slope(c) * v.at([b, g, j, c]).to_f64()).sum();
                    let ds = scale * p * (dp - delta);
                    for c in 0..dims.channels {
                        dv[[b, g, j, c]] += p * slope(c);
                        dq[[b, h, i, c]] += ds * k.at([b, g, j, c]).to_f64();
                        dk[[b, g, j, c]] += ds * q.at([b, h, i, c]).to_f64();
                    }
                }
            }
        }
    }
    Ok([dq, dk, dv])
}

/// The scaled scores of a query, `-inf` where it does not see the key.
fn scores<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    dims: &Dims,
    [b, h, i]: [usize; 3],
    scale: f64,
) -> Vec<f64> {
    let score = |j: usize| {
        let hidden = match mask.select {
            Select::Keep(keep) => keep.at([b, h, i, j]) == 0,
            _ => false,
        };
        if hidden || j >= mask.end(i, dims) {
            return f64::NEG_INFINITY;
        }
        let added = match mask.select {
            Select::Add(add) => f64::from(add.at([b, h, i, j])),
            _ => 0.0,
        };
        let product = |c: usize| q.at([b, h, i, c]).to_f64() * k.at([b, dims.kv_head(h), j, c]).to_f64();
        scale * (0..dims.channels).map(product).sum::<f64>() + added
    };
    (0..dims.keys).map(score).collect()
}
