//! The definitions in plain loops: roundings where the definition rounds, all sums in f64.

use kc_core::{Error, Result, Tensor, TensorView, bf16};

use super::weights::ScaleType;

/// The nearest number of E4M3, ties to the even mantissa, saturating at 448.
pub fn fp8(x: f64) -> f64 {
    let size = x.abs();
    // The distance of neighbours: an eighth of the power of two below, at least 2^-9.
    let exponent = if size < 2f64.powi(-6) { -6 } else { size.log2().floor() as i32 };
    let step = 2f64.powi(exponent - 3);
    ((size / step).round_ties_even() * step).min(448.0).copysign(x)
}

/// A scale as it is stored; 1 for a group of zeros.
pub fn scale(largest: f32, top: f32, scale_type: ScaleType) -> f32 {
    if largest == 0.0 {
        return 1.0;
    }
    match scale_type {
        ScaleType::Fp8 => fp8(f64::from(largest / top)).max(2f64.powi(-9)) as f32,
        ScaleType::Bf16 => bf16::from_f32(largest / top).to_f32(),
        ScaleType::F32 => largest / top,
    }
}

/// Codes `[N, K]` and scales `[N, G]` of `sigma w`.
pub fn quantize(
    w: TensorView<'_, f32, 2>,
    group: usize,
    scale_type: ScaleType,
    sigma: f32,
) -> Result<(Tensor<i8, 2>, Tensor<f32, 2>)> {
    if group == 0 {
        return Err(Error::argument("group", "at least 1 column", group));
    }
    let [n, k] = w.shape();
    let scales = Tensor::from_fn([n, k.div_ceil(group)], |[i, g]| {
        let columns = g * group..k.min((g + 1) * group);
        let largest = columns.map(|j| (w.at([i, j]) * sigma).abs()).fold(0.0, f32::max);
        scale(largest, 7.0, scale_type)
    })?;
    let codes = Tensor::from_fn([n, k], |[i, j]| {
        let q = w.at([i, j]) * sigma / scales[[i, j / group]];
        q.round_ties_even().clamp(-8.0, 7.0) as i8
    })?;
    Ok((codes, scales))
}

/// `sx / sigma sum_k x8 w + bias`, with `w = q s`, or `fp8(q s)` for `fp8_product`.
pub fn linear(
    x: TensorView<'_, f32, 2>,
    codes: &Tensor<i8, 2>,
    scales: &Tensor<f32, 2>,
    group: usize,
    sigma: f32,
    fp8_product: bool,
    bias: Option<&[f32]>,
) -> Result<Tensor<f64, 2>> {
    let [n, k] = codes.shape();
    if x.cols() != k {
        return Err(Error::shape("x", format!("[T, {k}]"), &x.shape()));
    }
    let token = |i: usize| {
        let largest = (0..k).map(|j| x.at([i, j]).abs()).fold(0.0, f32::max);
        if largest == 0.0 { 1.0 } else { largest / 448.0 }
    };
    Tensor::from_fn([x.rows(), n], |[i, row]| {
        let sx = token(i);
        let mut sum = 0.0;
        for j in 0..k {
            let w = f64::from(codes[[row, j]]) * f64::from(scales[[row, j / group]]);
            sum += fp8(f64::from(x.at([i, j]) / sx)) * if fp8_product { fp8(w) } else { w };
        }
        sum * f64::from(sx) / f64::from(sigma) + bias.map_or(0.0, |b| f64::from(b[row]))
    })
}

/// Attention of `q` `[Tq, H, hd]` over keys and values `[Tk, KVH, hd]` as they are given (quantise them before). Query
/// `i` sees keys up to `i + offset`, all without an offset.
pub fn attention(
    q: TensorView<'_, f32, 3>,
    k: TensorView<'_, f32, 3>,
    v: TensorView<'_, f32, 3>,
    offset: Option<i64>,
    q_fp8: bool,
    p_fp8: bool,
) -> Result<Tensor<f64, 3>> {
    let ([tq, heads, hd], [tk, kv_heads, _]) = (q.shape(), k.shape());
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || k.shape() != v.shape() || k.shape()[2] != hd {
        return Err(Error::shape("k", "keys and values [Tk, KVH, hd] that fit q", &k.shape()));
    }
    let mut out = Tensor::zeros([tq, heads, hd])?;
    for i in 0..tq {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            let largest = (0..hd).map(|c| q.at([i, h, c]).abs()).fold(0.0, f32::max);
            let scale = if largest == 0.0 { 1.0 } else { largest / 448.0 };
            let query = |c: usize| match q_fp8 {
                true => fp8(f64::from(q.at([i, h, c]) / scale)) * f64::from(scale),
                false => f64::from(q.at([i, h, c])),
            };
            let score = |j: usize| {
                let dot: f64 = (0..hd).map(|c| query(c) * f64::from(k.at([j, kv, c]))).sum();
                dot / (hd as f64).sqrt()
            };
            let seen = offset.map_or(tk, |offset| (i as i64 + offset + 1).clamp(0, tk as i64) as usize);
            let scores: Vec<f64> = (0..seen).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let sum: f64 = exps.iter().sum();
            for (j, e) in exps.iter().enumerate() {
                let p = if p_fp8 { fp8(448.0 * e) / 448.0 } else { *e };
                for c in 0..hd {
                    out[[i, h, c]] += p * f64::from(v.at([j, kv, c])) / sum;
                }
            }
        }
    }
    Ok(out)
}
