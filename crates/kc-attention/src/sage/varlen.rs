//! Sequences of different lengths, one after another.

use kc_core::{Error, Float, Result, Tensor, TensorView};

use super::{SageConfig, sage_attention_into};
use crate::exact::sequences;
use crate::{Layout, Mask, PackedAttention};

/// Attention within each of several sequences: queries `[tokens, Hq, D]`, keys and values `[tokens, Hkv, D]`; sequence `s`
/// has queries `cu_q[s]..cu_q[s + 1]` and keys `cu_k[s]..cu_k[s + 1]`. Keys (and what else is smoothed) have a mean for each
/// sequence. `causal` aligns the last query of each sequence with its last key. Queries of a sequence without keys get 0
/// and an lse of minus infinity. `config.layout` has no meaning here.
///
/// # Errors
/// `Argument` if `cu_q` or `cu_k` do not begin at 0, decrease, do not end at the number of tokens or differ in length;
/// otherwise as [`sage_attention`](super::sage_attention).
pub fn sage_attention_varlen<E: Float>(
    q: TensorView<'_, E, 3>,
    k: TensorView<'_, E, 3>,
    v: TensorView<'_, E, 3>,
    cu_q: &[usize],
    cu_k: &[usize],
    causal: bool,
    config: &SageConfig,
) -> Result<PackedAttention<E>> {
    let [tokens, heads, _] = q.shape();
    let sequences = sequences(cu_q, cu_k, [q.shape(), k.shape(), v.shape()])?;
    let config = SageConfig { layout: Layout::Nhd, ..config.clone() };
    let mask = Mask { causal, ..Mask::NONE };
    let mut out = Tensor::zeros(q.shape())?;
    let mut lse = if config.lse { Some(Tensor::zeros([heads, tokens])?) } else { None };
    for (queries, keys) in sequences {
        if queries.is_empty() {
            continue;
        }
        let to = out.view_mut().slice(0, queries.clone())?;
        let to_lse = lse.as_mut().map(|lse| lse.view_mut().slice(1, queries.clone())).transpose()?;
        if keys.is_empty() {
            if let Some(mut lse) = to_lse {
                lse.fill(f32::NEG_INFINITY);
            }
            continue;
        }
        let first = [queries.start, keys.start];
        let (q, k, v) = (q.slice(0, queries)?, k.slice(0, keys.clone())?, v.slice(0, keys)?);
        let [q, k, v] = [q, k, v].map(|x| x.unsqueezed());
        let lse = to_lse.map(|lse| lse.unsqueezed());
        sage_attention_into(q, k, v, &mask, &config, to.unsqueezed(), lse)
            .map_err(|error| in_tokens(error, first))?;
    }
    Ok(PackedAttention { out, lse })
}

/// The same error with the position among all tokens.
fn in_tokens(error: Error, [first_query, first_key]: [usize; 2]) -> Error {
    match error {
        Error::NotFinite { arg, index, value } if index.len() == 4 => {
            let first = if arg == "q" { first_query } else { first_key };
            Error::NotFinite { arg, index: vec![index[1] + first, index[2], index[3]], value }
        }
        other => other,
    }
}
