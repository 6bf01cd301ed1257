//! Exact attention: softmax over all keys, without a matrix of scores.
//!
//! ```text
//! S = scale Q K^T + mask        O = softmax(S) V        lse = ln sum_j exp(S_ij)
//! ```
//!
//! Queries and keys meet in tiles. Each tile of scores lives in the cache only: its rows raise the largest score so
//! far, become weights `2^(S - max)`, and are multiplied with the values into an output that is rescaled whenever the
//! largest score grew. One division per row ends the pass. The backward pass makes the weights again from the lse:
//!
//! ```text
//! P = exp(S - lse)    dV = P^T dO    dS = P o (dO V^T - rowsum(dO o O))    dQ = scale dS K    dK = scale dS^T Q
//! ```
//!
//! | Tensor | Shape |
//! |---|---|
//! | queries, output, their gradients | `[B, Hq, Nq, D]` ([`Layout::Hnd`]) or `[B, Nq, Hq, D]` ([`Layout::Nhd`]) |
//! | keys, values, their gradients | `[B, Hkv, Nk, D]` or `[B, Nk, Hkv, D]`, `Hq` a multiple of `Hkv` |
//! | mask | [`Mask`], broadcast to `[B, Hq, Nq, Nk]` |
//! | lse | `[B, Hq, Nq]`, natural logarithm |
//!
//! The defaults are those of softmax attention everywhere: scale `D^(-1/2)`, no mask, no lse. Elements are f16, bf16, f32
//! (sums in f32) or f64 (sums in f64). A query that sees no key gets 0, with an lse of minus infinity.
//!
//! Cost: `4 B Hq Nq Nk D` operations forward, `10 B Hq Nq Nk D` backward, the hidden part of a causal mask skipped tile by
//! tile; memory for packed keys and values and a few tiles per thread. A few queries against many keys (decoding) read
//! keys and values once, as they are. Results have the same bits on any number of threads and in both layouts.
//!
//! When not to use it: with keys and values that are worth storing in 8 or 4 bits.
//!
//! Sources: the running softmax of Milakov and Gimelshein (2018), tiled with values as in FlashAttention (Dao et al.,
//! 2022) and FlashAttention-2 (Dao, 2023), equations of its sections 3.1 and 3.2.
//!
//! ```
//! use kc_attention::{AttentionConfig, Mask, attention};
//! use kc_core::Tensor;
//!
//! let q = Tensor::<f32, 4>::from_fn([1, 4, 10, 8], |[_, h, i, c]| (h + i * c) as f32 * 0.01)?;
//! let k = Tensor::<f32, 4>::from_fn([1, 2, 12, 8], |[_, h, i, c]| (h * 3 + i + c) as f32 * 0.1)?;
//! let v = Tensor::<f32, 4>::from_fn([1, 2, 12, 8], |[_, h, i, _]| (h * 12 + i) as f32)?;
//! let config = AttentionConfig { lse: true, ..AttentionConfig::default() };
//! let found = attention(q.view(), k.view(), v.view(), &Mask::CAUSAL, &config)?;
//! assert_eq!(found.out.shape(), [1, 4, 10, 8]);
//! // The first query sees keys 0, 1 and 2, whose values are 0, 1 and 2.
//! assert!(found.out[[0, 0, 0, 0]] > 0.0 && found.out[[0, 0, 0, 0]] < 2.0);
//! assert!(found.lse.is_some());
//! # Ok::<(), kc_core::Error>(())
//! ```

mod backward;
pub(crate) mod few;
mod forward;
pub(crate) mod kernels;
mod pack;
mod portable;
pub mod reference;
mod varlen;
mod window;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::atomic::AtomicBool;

use kc_core::math::first_non_finite;
use kc_core::{DType, Error, Float, Isa, Result, Tensor, TensorView, TensorViewMut};

use crate::layout::{Dims, Layout};
use crate::mask::{Mask, Select};
use forward::Job;

pub use backward::{AttentionGrads, attention_backward, attention_backward_into};
pub(crate) use varlen::sequences;
pub use varlen::{PackedAttention, attention_varlen, attention_varlen_backward};

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Factor of the scores, finite; `D^(-1/2)` if `None`.
    pub scale: Option<f32>,
    /// The order of the axes of all tensors of rank 4.
    pub layout: Layout,
    /// Whether the logarithm of each row's sum is wanted.
    pub lse: bool,
    /// Whether NaN and infinities in the inputs are errors. If not, they spread to what depends on them.
    pub check_finite: bool,
    /// The highest level to use.
    pub isa: Isa,
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self { scale: None, layout: Layout::Hnd, lse: false, check_finite: true, isa: Isa::best() }
    }
}

impl AttentionConfig {
    /// The factor of the scores for `channels` channels.
    ///
    /// # Errors
    /// `Argument` if it is not finite.
    pub fn scale_of(&self, channels: usize) -> Result<f64> {
        let scale = self.scale.map_or_else(|| 1.0 / (channels as f64).sqrt(), f64::from);
        if scale.is_finite() { Ok(scale) } else { Err(Error::argument("scale", "a finite number", scale)) }
    }
}

/// The result of attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention<E: Float> {
    /// As the queries.
    pub out: Tensor<E, 4>,
    /// `ln sum exp` of the scores of each query, `[B, Hq, Nq]`, if it was asked for.
    pub lse: Option<Tensor<f32, 3>>,
}

/// Attention of queries `q` over keys `k` and values `v`: see the [page](self) for shapes.
///
/// # Errors
/// `Shape` if shapes do not fit or the mask does not broadcast; `Empty` without keys or channels; `NotFinite` for NaN or
/// infinity in q, k or v (with `check_finite`), or NaN or plus infinity in an additive mask; `Argument` for the scale.
pub fn attention<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &AttentionConfig,
) -> Result<Attention<E>> {
    let [batch, heads, queries, _] = config.layout.heads_first(q)?.shape();
    let mut out = Tensor::zeros(q.shape())?;
    let mut lse = if config.lse { Some(Tensor::zeros([batch, heads, queries])?) } else { None };
    attention_into(q, k, v, mask, config, out.view_mut(), lse.as_mut().map(Tensor::view_mut))?;
    Ok(Attention { out, lse })
}

/// As [`attention`], into `out` of the shape of `q` and, if it is given, `lse` `[B, Hq, Nq]`, whatever `config.lse` says.
/// After an error their content is unspecified.
///
/// # Errors
/// As [`attention`], and `Shape` if `out` or `lse` have another shape.
pub fn attention_into<E: Float>(
    q: TensorView<'_, E, 4>,
    k: TensorView<'_, E, 4>,
    v: TensorView<'_, E, 4>,
    mask: &Mask<'_>,
    config: &AttentionConfig,
    out: TensorViewMut<'_, E, 4>,
    lse: Option<TensorViewMut<'_, f32, 3>>,
) -> Result<()> {
    let job = job([q, k, v], mask, config)?;
    same_shape("out", q.shape(), out.shape())?;
    let Dims { batch, heads, queries, .. } = job.dims;
    if let Some(lse) = &lse {
        same_shape("lse", [batch, heads, queries], lse.shape())?;
    }
    let out = config.layout.heads_first_mut(out)?;
    if E::DTYPE == DType::F64 {
        forward::run::<E, f64, f32>(&job, out, lse)?;
    } else {
        forward::run::<E, f32, f32>(&job, out, lse)?;
    }
    // Everything was read on the way; only if something looked wrong is it read again, to say where.
    if config.check_finite && job.suspect.into_inner() {
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            check_finite(name, x)?;
        }
    }
    Ok(())
}

fn same_shape<const N: usize>(name: &'static str, want: [usize; N], got: [usize; N]) -> Result<()> {
    if want == got { Ok(()) } else { Err(Error::shape(name, format!("{want:?}"), &got)) }
}

/// Checks everything that can be wrong but numbers that are not finite.
fn job<'a, E: Float>(
    inputs: [TensorView<'a, E, 4>; 3],
    mask: &Mask<'a>,
    config: &AttentionConfig,
) -> Result<Job<'a, E>> {
    let [q, k, v] = inputs.map(|x| config.layout.heads_first(x));
    let (q, k, v) = (q?, k?, v?);
    let dims = Dims::of(q.shape(), k.shape(), v.shape())?;
    let scale = config.scale_of(dims.channels)?;
    if let Select::Add(add) = mask.select {
        check_mask(add)?;
    }
    let mask = mask.broadcast(&dims)?;
    Ok(Job { q, k, v, dims, mask, scale, isa: config.isa, suspect: AtomicBool::new(false) })
}

/// Fails with the first NaN or infinity, row by row.
pub(crate) fn check_finite<E: Float>(name: &'static str, x: TensorView<'_, E, 4>) -> Result<()> {
    let [_, _, _, channels] = x.shape();
    let fail = |index: [usize; 4]| Err(Error::not_finite(name, &index, x.at(index).to_f64()));
    if let Some(all) = x.as_slice() {
        let Some(at) = first_non_finite(all) else { return Ok(()) };
        let [_, b, c, d] = x.shape();
        return fail([at / (b * c * d), at / (c * d) % b, at / d % c, at % d]);
    }
    let [outer, middle, inner, _] = x.shape();
    for a in 0..outer {
        for b in 0..middle {
            let matrix = x.outer(a).matrix(b);
            for c in 0..inner {
                let bad = match matrix.row_slice(c) {
                    Some(row) => first_non_finite(row),
                    None => (0..channels).find(|&d| !matrix.at([c, d]).to_f64().is_finite()),
                };
                if let Some(d) = bad {
                    return fail([a, b, c, d]);
                }
            }
        }
    }
    Ok(())
}

/// An additive mask holds numbers and minus infinity.
pub(crate) fn check_mask(add: TensorView<'_, f32, 4>) -> Result<()> {
    let wrong = |x: &f32| x.is_nan() || *x == f32::INFINITY;
    let at = match add.as_slice() {
        // Blocks without a branch for each number.
        Some(all) => all
            .chunks(256)
            .position(|block| block.iter().fold(false, |any, x| any | wrong(x)))
            .and_then(|block| all[block * 256..].iter().position(wrong).map(|at| block * 256 + at)),
        None => add.iter().position(|x| wrong(&x)),
    };
    let Some(at) = at else { return Ok(()) };
    let [_, b, c, d] = add.shape();
    let index = [at / (b * c * d), at / (c * d) % b, at / d % c, at % d];
    Err(Error::not_finite("mask", &index, f64::from(add.at(index))))
}
