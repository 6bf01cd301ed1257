//! Sequences of different lengths, one after another.

use std::ops::Range;

use kc_core::{Error, Float, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::{AttentionConfig, attention_backward, attention_into, check_finite, same_shape};
use crate::layout::Layout;
use crate::mask::Mask;

/// The result of attention over packed sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedAttention<E: Float> {
    /// `[tokens, Hq, D]`, as the queries.
    pub out: Tensor<E, 3>,
    /// `ln sum exp` of the scores of each query, `[Hq, tokens]`, if it was asked for.
    pub lse: Option<Tensor<f32, 2>>,
}

/// Attention within each of several sequences: queries `[tokens, Hq, D]`, keys and values `[tokens, Hkv, D]`; sequence
/// `s` has queries `cu_q[s]..cu_q[s + 1]` and keys `cu_k[s]..cu_k[s + 1]`. `causal` aligns the last query of each sequence with
/// its last key. Queries of a sequence without keys get 0 and an lse of minus infinity. `config.layout` has no meaning here.
///
/// # Errors
/// `Argument` if `cu_q` or `cu_k` do not begin at 0, decrease, do not end at the number of tokens or differ in length;
/// otherwise as [`attention`](super::attention).
pub fn attention_varlen<E: Float>(
    q: TensorView<'_, E, 3>,
    k: TensorView<'_, E, 3>,
    v: TensorView<'_, E, 3>,
    cu_q: &[usize],
    cu_k: &[usize],
    causal: bool,
    config: &AttentionConfig,
) -> Result<PackedAttention<E>> {
    let [tokens, heads, _] = q.shape();
    let sequences = sequences(cu_q, cu_k, [q.shape(), k.shape(), v.shape()])?;
    let config = AttentionConfig { layout: Layout::Nhd, ..*config };
    let mask = Mask { causal, ..Mask::NONE };
    let mut out = Tensor::zeros(q.shape())?;
    let mut lse = if config.lse { Some(Tensor::zeros([heads, tokens])?) } else { None };
    let mut rest = out.view_mut();
    let mut rest_lse = lse.as_mut().map(Tensor::view_mut);
    let mut work = Vec::with_capacity(sequences.len());
    for (queries, keys) in sequences {
        let (out, after) = rest.split_at(0, queries.len())?;
        rest = after;
        let lse = match rest_lse.take() {
            Some(lse) => {
                let (lse, after) = lse.split_at(1, queries.len())?;
                rest_lse = Some(after);
                Some(lse)
            }
            None => None,
        };
        work.push((queries, keys, out, lse));
    }
    let done = work.into_par_iter().try_for_each(|(queries, keys, out, lse)| {
        let q = q.slice(0, queries)?.unsqueezed();
        if keys.is_empty() {
            if let Some(mut lse) = lse {
                lse.fill(f32::NEG_INFINITY);
            }
            return if config.check_finite { check_finite("q", q) } else { Ok(()) };
        }
        let (k, v) = (k.slice(0, keys.clone())?, v.slice(0, keys)?);
        let (k, v) = (k.unsqueezed(), v.unsqueezed());
        attention_into(q, k, v, &mask, &config, out.unsqueezed(), lse.map(|lse| lse.unsqueezed()))
    });
    if let Err(Error::NotFinite { .. }) = done {
        // Found in one sequence or another: the first of all is told, by its place among all tokens.
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            check_finite(name, x.unsqueezed()).map_err(without_batch)?;
        }
    }
    done?;
    Ok(PackedAttention { out, lse })
}

/// An error about a tensor with one batch entry in front, as one about the tensor itself.
fn without_batch(error: Error) -> Error {
    match error {
        Error::NotFinite { arg, index, value } => Error::NotFinite { arg, index: index[1..].to_vec(), value },
        other => other,
    }
}

/// The queries and keys of each sequence, if the offsets and the shapes `[tokens, heads, channels]` of queries, keys and
/// values fit each other.
pub(crate) fn sequences(
    cu_q: &[usize],
    cu_k: &[usize],
    [q, k, v]: [[usize; 3]; 3],
) -> Result<Vec<(Range<usize>, Range<usize>)>> {
    for (name, cu, tokens) in [("cu_q", cu_q, q[0]), ("cu_k", cu_k, k[0])] {
        let (first, last) = (cu.first().copied(), cu.last().copied());
        if first != Some(0) || last != Some(tokens) || cu.windows(2).any(|w| w[0] > w[1]) {
            let expected = format!("offsets that begin at 0, do not decrease and end at {tokens}");
            return Err(Error::argument(name, expected, format!("{cu:?}")));
        }
    }
    if cu_q.len() != cu_k.len() {
        return Err(Error::argument("cu_k", format!("{} offsets, as cu_q", cu_q.len()), cu_k.len()));
    }
    if v != k {
        return Err(Error::shape("v", format!("{k:?} to match k"), &v));
    }
    let ([_, heads, channels], [_, kv_heads, key_channels]) = (q, k);
    if key_channels != channels || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let expected = format!("[tokens, a divisor of {heads}, {channels}] to match q");
        return Err(Error::shape("k", expected, &k));
    }
    let ranges = |cu: &[usize]| cu.windows(2).map(|w| w[0]..w[1]).collect::<Vec<_>>();
    Ok(ranges(cu_q).into_iter().zip(ranges(cu_k)).collect())
}

/// The gradients `[dq, dk, dv]` of `sum(O dO)` over packed sequences. `found` is the result, with its lse, of
/// [`attention_varlen`] for the same inputs, offsets `[cu_q, cu_k]` and settings.
///
/// # Errors
/// As [`attention_varlen`] and [`attention_backward`]; `Empty` if `found` has no lse.
pub fn attention_varlen_backward<E: Float>(
    q: TensorView<'_, E, 3>,
    k: TensorView<'_, E, 3>,
    v: TensorView<'_, E, 3>,
    found: &PackedAttention<E>,
    d_o: TensorView<'_, E, 3>,
    [cu_q, cu_k]: [&[usize]; 2],
    causal: bool,
    config: &AttentionConfig,
) -> Result<[Tensor<E, 3>; 3]> {
    let [tokens, heads, _] = q.shape();
    let sequences = sequences(cu_q, cu_k, [q.shape(), k.shape(), v.shape()])?;
    same_shape("o", q.shape(), found.out.shape())?;
    same_shape("d_o", q.shape(), d_o.shape())?;
    let lse = found.lse.as_ref().ok_or_else(|| Error::empty("lse"))?;
    same_shape("lse", [heads, tokens], lse.shape())?;
    let config = AttentionConfig { layout: Layout::Nhd, ..*config };
    let mask = Mask { causal, ..Mask::NONE };
    let mut grads = [Tensor::zeros(q.shape())?, Tensor::zeros(k.shape())?, Tensor::zeros(v.shape())?];
    for (queries, keys) in sequences {
        if queries.is_empty() || keys.is_empty() {
            continue;
        }
        let (q, k) = (q.slice(0, queries.clone())?, k.slice(0, keys.clone())?);
        let (v, d_o) = (v.slice(0, keys.clone())?, d_o.slice(0, queries.clone())?);
        let o = found.out.view().slice(0, queries.clone())?;
        let lse = lse.view().slice(1, queries.clone())?.unsqueezed();
        let all = attention_backward(
            q.unsqueezed(),
            k.unsqueezed(),
            v.unsqueezed(),
            o.unsqueezed(),
            lse,
            d_o.unsqueezed(),
            &mask,
            &config,
        )?;
        let parts = [(all.dq, &queries), (all.dk, &keys), (all.dv, &keys)];
        for (whole, (part, range)) in grads.iter_mut().zip(parts) {
            whole.view_mut().slice(0, range.clone())?.copy_from(part.view().outer(0))?;
        }
    }
    Ok(grads)
}
