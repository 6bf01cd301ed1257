//! Exact attention on the entries of a mask, and its gradients.

use kc_core::math::{Real, softmax_with};
use kc_core::{Error, Isa, Result, Tensor, TensorView};
use kc_sparse::FlatCsr;
use rayon::prelude::*;

use super::portable::{mix, scores};

/// Results of sparse attention.
#[derive(Debug, Clone)]
pub struct SparseOut<T: kc_core::Element> {
    /// `[N, H, T, d]`; 0 where a query has no entry.
    pub out: Tensor<T, 4>,
    /// The probabilities on the entries of the mask.
    pub probs: FlatCsr<T>,
}

/// Gradients by `q`, `k` and `v`.
#[derive(Debug, Clone)]
pub struct SparseGrads<T: kc_core::Element> {
    /// By queries.
    pub q: Tensor<T, 4>,
    /// By keys.
    pub k: Tensor<T, 4>,
    /// By values.
    pub v: Tensor<T, 4>,
}

fn check<T: Real>(
    q: TensorView<'_, T, 4>,
    k: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    mask: [usize; 4],
) -> Result<()> {
    let [n, h, rows, keys] = mask;
    let d = q.shape()[3];
    if q.shape()[..3] != [n, h, rows] || d == 0 {
        return Err(Error::shape("q", format!("[{n}, {h}, {rows}, d] to match the mask"), &q.shape()));
    }
    for (name, x) in [("k", k), ("v", v)] {
        if x.shape() != [n, h, keys, d] {
            return Err(Error::shape(
                name,
                format!("[{n}, {h}, {keys}, {d}] to match q and the mask"),
                &x.shape(),
            ));
        }
    }
    Ok(())
}

/// Softmax attention over the entries of `mask`, each row and head for itself: scores `scale q . k`, 0 where a query
/// has no entry. `q` is `[N, H, Tq, d]`, `k` and `v` `[N, H, Tk, d]`, the mask's shape `[N, H, Tq, Tk]`; its values do
/// not count. Cost: `2 d` products per entry.
///
/// # Errors
/// Shapes that do not fit; numbers that are not finite, `scale` among them.
pub fn sparse_attention<T: Real, M: Real>(
    q: TensorView<'_, T, 4>,
    k: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    mask: &FlatCsr<M>,
    scale: f64,
) -> Result<SparseOut<T>> {
    sparse_attention_with(Isa::best(), q, k, v, mask, scale)
}

/// [`sparse_attention`] at a given level.
///
/// # Errors
/// As [`sparse_attention`].
pub fn sparse_attention_with<T: Real, M: Real>(
    isa: Isa,
    q: TensorView<'_, T, 4>,
    k: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    mask: &FlatCsr<M>,
    scale: f64,
) -> Result<SparseOut<T>> {
    check(q, k, v, mask.shape())?;
    if !scale.is_finite() {
        return Err(Error::argument("scale", "a finite number", scale));
    }
    for (name, x) in [("q", q), ("k", k), ("v", v)] {
        super::finite(name, x)?;
    }
    let [n, h, rows, keys] = mask.shape();
    let d = q.shape()[3];
    let (q, k, v) = (q.to_tensor()?, k.to_tensor()?, v.to_tensor()?);
    let (q, k, v) = (q.as_slice(), k.as_slice(), v.as_slice());
    let mut out = Tensor::zeros([n, h, rows, d])?;
    let work = |row: usize| -> Result<(Vec<T>, Vec<T>)> {
        let (n, i) = (row / rows, row % rows);
        let entries = mask.row(n, i);
        let (mut probs, mut result) = (vec![T::ZERO; entries.len()], vec![T::ZERO; h * d]);
        let (mut at, mut raw) = (Vec::new(), Vec::new());
        for (head, part) in mask.heads(n, i) {
            let base = (n * h + head) * keys * d;
            at.clear();
            at.extend(mask.cols()[part.clone()].iter().map(|&c| c - (head * keys) as u32));
            raw.clear();
            raw.resize(part.len(), T::ZERO);
            let q = &q[((n * h + head) * rows + i) * d..][..d];
            scores(isa, q, &k[base..base + keys * d], &at, T::from_f64(scale), &mut raw);
            let probs = &mut probs[part.start - entries.start..part.end - entries.start];
            softmax_with(isa, &raw, probs)?;
            mix(isa, probs, &v[base..base + keys * d], &at, &mut result[head * d..][..d]);
        }
        Ok((probs, result))
    };
    let found = (0..n * rows).into_par_iter().map(work).collect::<Result<Vec<_>>>()?;
    let mut values = Vec::with_capacity(mask.nnz());
    for (row, (probs, result)) in found.into_iter().enumerate() {
        values.extend(probs);
        for (head, result) in result.chunks_exact(d).enumerate() {
            let to = (((row / rows) * h + head) * rows + row % rows) * d;
            out.as_mut_slice()[to..to + d].copy_from_slice(result);
        }
    }
    Ok(SparseOut { out, probs: mask.with_values(values)? })
}

/// From the gradient by the result of [`sparse_attention`]: `dS = p (dP - sum p dP)` on the entries. `probs` are the
/// probabilities that it returned.
///
/// # Errors
/// Shapes that do not fit.
pub fn sparse_attention_backward<T: Real>(
    q: TensorView<'_, T, 4>,
    k: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    probs: &FlatCsr<T>,
    scale: f64,
    d_out: TensorView<'_, T, 4>,
) -> Result<SparseGrads<T>> {
    check(q, k, v, probs.shape())?;
    if d_out.shape() != q.shape() {
        return Err(Error::shape("d_out", format!("{:?} to match q", q.shape()), &d_out.shape()));
    }
    let [n, h, rows, keys] = probs.shape();
    let d = q.shape()[3];
    let (q, k, v, d_out) = (q.to_tensor()?, k.to_tensor()?, v.to_tensor()?, d_out.to_tensor()?);
    let (mut dq, mut dk, mut dv) =
        (Tensor::zeros([n, h, rows, d])?, Tensor::zeros([n, h, keys, d])?, Tensor::zeros([n, h, keys, d])?);
    let scale = T::from_f64(scale);
    let mut dp = Vec::new();
    for (n, i) in (0..n).flat_map(|n| (0..rows).map(move |i| (n, i))) {
        for (head, part) in probs.heads(n, i) {
            let base = (n * h + head) * keys;
            let line = ((n * h + head) * rows + i) * d;
            let (q, d_out) = (&q.as_slice()[line..line + d], &d_out.as_slice()[line..line + d]);
            let p = &probs.values()[part.clone()];
            let places = probs.cols()[part].iter().map(|&c| (base + c as usize - head * keys) * d);
            dp.clear();
            let mut along = T::ZERO;
            for (place, p) in places.clone().zip(p) {
                let mut sum = T::ZERO;
                let (v, dv) = (&v.as_slice()[place..place + d], &mut dv.as_mut_slice()[place..place + d]);
                for j in 0..d {
                    sum = sum + v[j] * d_out[j];
                    dv[j] = dv[j] + *p * d_out[j];
                }
                dp.push(sum);
                along = along + *p * sum;
            }
            let dq = &mut dq.as_mut_slice()[line..line + d];
            for ((place, p), dp) in places.zip(p).zip(&dp) {
                let ds = scale * *p * (*dp - along);
                let (k, dk) = (&k.as_slice()[place..place + d], &mut dk.as_mut_slice()[place..place + d]);
                for j in 0..d {
                    dq[j] = dq[j] + ds * k[j];
                    dk[j] = dk[j] + ds * q[j];
                }
            }
        }
    }
    Ok(SparseGrads { q: dq, k: dk, v: dv })
}
