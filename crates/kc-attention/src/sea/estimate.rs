//! The estimator with everything kept for its gradients: encoder, gates, row decoder, convolutions, scores.
//!
//! Rows are (head, token) pairs until the decoder; then planes `[token, column, channel]`, in which heads mix.

use kc_core::math::{Real, softmax_with};
use kc_core::neural::{Gelu, LayerNorm, gelu, gelu_backward};
use kc_core::{Isa, Result};
use rayon::prelude::*;

use super::conv::{Conv, area, bilinear, relu, relu_backward};
use super::portable::{Product, times_transposed};
use super::{SeaConfig, SeaParams};

/// Of the layer normalisations.
pub(super) const EPS: f64 = 1e-5;

/// What one batch entry went through.
#[derive(Debug, Clone)]
pub(super) struct Estimate<T> {
    /// Encoder inputs `[H T, 3d]`.
    x: Vec<T>,
    linear: Vec<T>,
    normal: Vec<T>,
    /// Encodings `[H T, 2d]`.
    pub(super) enc: Vec<T>,
    /// Gates before the logistic function `[H T, 2]`.
    pub(super) scales: Vec<T>,
    rows: Vec<T>,
    plane: Vec<T>,
    first: Vec<T>,
    second: Vec<T>,
    /// Second plane with every row twice (bidirectional).
    twice: Vec<T>,
    /// Scores before their normalisation (causal).
    pooled: Vec<T>,
    /// `[H, T, t_m]`
    pub(super) score: Vec<T>,
    /// `[H, T, t_m]`, 0 in padded rows.
    pub(super) prob: Vec<T>,
}

/// The layer's convolutions, unpacked for use.
#[derive(Debug, Clone)]
pub(super) struct Convs<T> {
    pub(super) first: Conv<T>,
    pub(super) second: Conv<T>,
    pub(super) last: Conv<T>,
}

impl<T: Real> Convs<T> {
    pub(super) fn new(config: &SeaConfig, p: &SeaParams<T>) -> Self {
        if config.causal {
            let back: &[isize] = &[-4, -2, 0];
            let cols: &[isize] = &[-2, 0, 2];
            Convs {
                first: Conv::new(back, cols, 1, &p.c1_w, &p.c1_b),
                second: Conv::new(back, cols, 1, &p.c2_w, &p.c2_b),
                last: Conv::new(&[0], &[0], 1, &p.c3_w, &p.c3_b),
            }
        } else {
            let near: &[isize] = &[-1, 0, 1];
            Convs {
                first: Conv::new(near, near, 2, &p.c1_w, &p.c1_b),
                second: Conv::new(near, near, 1, &p.c2_w, &p.c2_b),
                last: Conv::new(near, near, 1, &p.c3_w, &p.c3_b),
            }
        }
    }
}

/// `x w^T + b`, `w` `[outputs, inputs]`.
pub(super) fn linear<T: Real>(isa: Isa, x: &[T], w: &[T], b: &[T]) -> Vec<T> {
    let inputs = w.len() / b.len().max(1);
    let m = x.len() / inputs.max(1);
    let mut out = Vec::with_capacity(m * b.len());
    (0..m).for_each(|_| out.extend_from_slice(b));
    times_transposed(isa, [m, b.len(), inputs], x, w, &mut out, true);
    out
}

/// Adds the gradients of a linear layer by `w` and `b`, and gives that by `x`.
fn linear_backward<T: Real>(isa: Isa, x: &[T], w: &[T], dy: &[T], dw: &mut [T], db: &mut [T]) -> Vec<T> {
    let (outputs, inputs) = (db.len(), w.len() / db.len().max(1));
    let m = x.len() / inputs.max(1);
    for dy in dy.chunks_exact(outputs) {
        db.iter_mut().zip(dy).for_each(|(b, dy)| *b = *b + *dy);
    }
    let outer = Product { m: outputs, n: inputs, k: m, a: [1, outputs], b: inputs, c: inputs };
    outer.run(isa, dy, x, dw, true);
    let mut dx = vec![T::ZERO; x.len()];
    let back = Product { m, n: inputs, k: outputs, a: [outputs, 1], b: inputs, c: inputs };
    back.run(isa, dy, w, &mut dx, false);
    dx
}

/// Gradients by a normalisation's inputs (returned), scales and shifts (added).
fn norm_backward<T: Real>(
    norm: &LayerNorm<'_, T>,
    x: &[T],
    dy: &[T],
    gamma: &mut [T],
    beta: &mut [T],
) -> Result<Vec<T>> {
    let (mut dx, mut dg, mut db) = (vec![T::ZERO; x.len()], vec![0.0; gamma.len()], vec![0.0; beta.len()]);
    norm.backward(x, dy, &mut dx, &mut dg, &mut db)?;
    gamma.iter_mut().zip(dg).for_each(|(g, d)| *g = *g + T::from_f64(d));
    beta.iter_mut().zip(db).for_each(|(b, d)| *b = *b + T::from_f64(d));
    Ok(dx)
}

/// Encoder inputs `[H T, 3d]` from contexts `[T, 2d]` of each head and values `[H, T, d]`.
pub(super) fn inputs<T: Real>(contexts: &[&[T]], v: &[T], d: usize) -> Vec<T> {
    let mut x = Vec::with_capacity(v.len() * 3);
    for (ctx, v) in contexts.iter().flat_map(|ctx| ctx.chunks_exact(2 * d)).zip(v.chunks_exact(d)) {
        x.extend_from_slice(ctx);
        x.extend_from_slice(v);
    }
    x
}

/// Rows `[H T, s W']` as a plane `[T, W', H s]`; and back if `to_plane` is false.
fn rearrange<T: Real>(config: &SeaConfig, x: &[T], to_plane: bool) -> Vec<T> {
    let (h, s, w) = (config.heads, config.splits(), config.width());
    let t = x.len() / (h * s * w);
    let mut out = vec![T::ZERO; x.len()];
    for (head, row, split) in (0..h).flat_map(|i| (0..t).flat_map(move |j| (0..s).map(move |k| (i, j, k)))) {
        for col in 0..w {
            let in_rows = (head * t + row) * s * w + split * w + col;
            let in_plane = (row * w + col) * h * s + head * s + split;
            if to_plane {
                out[in_plane] = x[in_rows];
            } else {
                out[in_rows] = x[in_plane];
            }
        }
    }
    out
}

impl<T: Real> Estimate<T> {
    /// From encoder inputs `x` `[H T, 3d]`; queries from `len` on are padding.
    pub(super) fn forward(
        isa: Isa,
        config: &SeaConfig,
        p: &SeaParams<T>,
        convs: &Convs<T>,
        x: Vec<T>,
        len: usize,
    ) -> Result<Self> {
        let (h, w, t_m) = (config.heads, config.width(), config.t_m);
        let t = x.len() / (3 * config.head_dim * h);
        let linear_x = linear(isa, &x, &p.enc_w, &p.enc_b);
        let mut normal = vec![T::ZERO; linear_x.len()];
        LayerNorm { gamma: &p.enc_ln_g, beta: &p.enc_ln_b, eps: EPS }.forward(&linear_x, &mut normal)?;
        let mut enc = normal.clone();
        gelu(Gelu::Exact, &mut enc);
        let scales = linear(isa, &enc, &p.scale_w, &p.scale_b);
        let rows = linear(isa, &enc, &p.dec_w, &p.dec_b);
        let (plane, first, second, twice, pooled);
        let mut score = vec![T::ZERO; h * t * t_m];
        if config.causal {
            let mut levelled = vec![T::ZERO; rows.len()];
            LayerNorm { gamma: &p.ln1_g, beta: &p.ln1_b, eps: EPS }.forward(&rows, &mut levelled)?;
            plane = rearrange(config, &levelled, true);
            first = rectified(convs.first.forward(isa, &plane, w, t));
            second = rectified(convs.second.forward(isa, &first, w, t));
            twice = Vec::new();
            let last = convs.last.forward(isa, &second, w, t);
            let mut pools = vec![T::ZERO; score.len()];
            let areas = area(t_m + 2, t_m);
            pools.par_chunks_exact_mut(t_m).enumerate().for_each(|(row, out)| {
                let (head, t) = (row / t, row % t);
                let cell = |c: usize| match c {
                    0 => p.c3_b[head],
                    c if c == t_m + 1 => p.c3_b[head],
                    c => last[(t * w + (c - 1) / 4) * h + head],
                };
                for (out, area) in out.iter_mut().zip(&areas) {
                    let sum = area.clone().fold(T::ZERO, |sum, c| sum + cell(c));
                    *out = sum * T::from_f64(1.0 / area.len() as f64);
                }
            });
            LayerNorm { gamma: &p.ln2_g, beta: &p.ln2_b, eps: EPS }.forward(&pools, &mut score)?;
            pooled = pools;
        } else {
            plane = rearrange(config, &rows, true);
            let half = t.div_ceil(2);
            first = rectified(convs.first.forward(isa, &plane, w, half));
            second = rectified(convs.second.forward(isa, &first, w, half));
            twice = doubled(&second, w * config.channels());
            let last = convs.last.forward(isa, &twice, w, 2 * half);
            let (down, across) = (bilinear(2 * half, t), bilinear(w, t_m));
            score.par_chunks_exact_mut(t_m).enumerate().for_each(|(row, out)| {
                let (head, t) = (row / t, row % t);
                for (out, col) in out.iter_mut().zip(&across) {
                    let mut sum = T::ZERO;
                    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let weight = T::from_f64(down[t].weight[i] * col.weight[j]);
                        sum = sum + weight * last[(down[t].at[i] * w + col.at[j]) * h + head];
                    }
                    *out = sum;
                }
            });
            pooled = Vec::new();
        }
        let mut prob = vec![T::ZERO; score.len()];
        for (row, (score, prob)) in score.chunks_exact(t_m).zip(prob.chunks_exact_mut(t_m)).enumerate() {
            if row % t < len {
                softmax_with(isa, score, prob)?;
            }
        }
        let linear = linear_x;
        Ok(Estimate {
            x,
            linear,
            normal,
            enc,
            scales,
            rows,
            plane,
            first,
            second,
            twice,
            pooled,
            score,
            prob,
        })
    }

    /// From the gradients by scores and gates to that by the encoder's inputs; those by parameters are added.
    pub(super) fn backward(
        &self,
        isa: Isa,
        config: &SeaConfig,
        p: &SeaParams<T>,
        convs: &Convs<T>,
        (d_score, d_scales): (&[T], &[T]),
        grads: &mut SeaParams<T>,
    ) -> Result<Vec<T>> {
        let (h, w, t_m) = (config.heads, config.width(), config.t_m);
        let t = self.score.len() / (h * t_m);
        let d_plane = if config.causal {
            let norm = LayerNorm { gamma: &p.ln2_g, beta: &p.ln2_b, eps: EPS };
            let d_pooled = norm_backward(&norm, &self.pooled, d_score, &mut grads.ln2_g, &mut grads.ln2_b)?;
            let mut d_last = vec![T::ZERO; t * w * h];
            let areas = area(t_m + 2, t_m);
            for (row, d_pooled) in d_pooled.chunks_exact(t_m).enumerate() {
                let (head, t) = (row / t, row % t);
                for (d, area) in d_pooled.iter().zip(&areas) {
                    let d = *d * T::from_f64(1.0 / area.len() as f64);
                    for c in area.clone() {
                        let to = match c {
                            0 => &mut grads.c3_b[head],
                            c if c == t_m + 1 => &mut grads.c3_b[head],
                            c => &mut d_last[(t * w + (c - 1) / 4) * h + head],
                        };
                        *to = *to + d;
                    }
                }
            }
            let mut d_second =
                take(convs.last.backward(isa, &self.second, &d_last, w), &mut grads.c3_w, &mut grads.c3_b);
            relu_backward(&self.second, &mut d_second);
            self.first_two(isa, convs, d_second, w, grads)
        } else {
            let half = t.div_ceil(2);
            let (down, across) = (bilinear(2 * half, t), bilinear(w, t_m));
            let mut d_last = vec![T::ZERO; 2 * half * w * h];
            for (row, d_score) in d_score.chunks_exact(t_m).enumerate() {
                let (head, t) = (row / t, row % t);
                for (d, col) in d_score.iter().zip(&across) {
                    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let to = &mut d_last[(down[t].at[i] * w + col.at[j]) * h + head];
                        *to = *to + *d * T::from_f64(down[t].weight[i] * col.weight[j]);
                    }
                }
            }
            let d_twice =
                take(convs.last.backward(isa, &self.twice, &d_last, w), &mut grads.c3_w, &mut grads.c3_b);
            let line = w * config.channels();
            let mut d_second = vec![T::ZERO; half * line];
            for (to, from) in d_second.chunks_exact_mut(line).zip(d_twice.chunks_exact(2 * line)) {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = from[i] + from[line + i];
                }
            }
            relu_backward(&self.second, &mut d_second);
            self.first_two(isa, convs, d_second, w, grads)
        };
        let mut d_rows = rearrange(config, &d_plane, false);
        if config.causal {
            let norm = LayerNorm { gamma: &p.ln1_g, beta: &p.ln1_b, eps: EPS };
            d_rows = norm_backward(&norm, &self.rows, &d_rows, &mut grads.ln1_g, &mut grads.ln1_b)?;
        }
        let mut d_enc =
            linear_backward(isa, &self.enc, &p.dec_w, &d_rows, &mut grads.dec_w, &mut grads.dec_b);
        let gates =
            linear_backward(isa, &self.enc, &p.scale_w, d_scales, &mut grads.scale_w, &mut grads.scale_b);
        d_enc.iter_mut().zip(gates).for_each(|(d, g)| *d = *d + g);
        gelu_backward(Gelu::Exact, &self.normal, &mut d_enc)?;
        let norm = LayerNorm { gamma: &p.enc_ln_g, beta: &p.enc_ln_b, eps: EPS };
        let d_linear = norm_backward(&norm, &self.linear, &d_enc, &mut grads.enc_ln_g, &mut grads.enc_ln_b)?;
        Ok(linear_backward(isa, &self.x, &p.enc_w, &d_linear, &mut grads.enc_w, &mut grads.enc_b))
    }

    /// Back through the second and the first convolution.
    fn first_two(
        &self,
        isa: Isa,
        convs: &Convs<T>,
        d_second: Vec<T>,
        w: usize,
        grads: &mut SeaParams<T>,
    ) -> Vec<T> {
        let back = convs.second.backward(isa, &self.first, &d_second, w);
        let mut d_first = take(back, &mut grads.c2_w, &mut grads.c2_b);
        relu_backward(&self.first, &mut d_first);
        take(convs.first.backward(isa, &self.plane, &d_first, w), &mut grads.c1_w, &mut grads.c1_b)
    }
}

/// Adds the gradients of a convolution by its parameters and gives that by its input.
fn take<T: Real>(found: super::conv::ConvGrads<T>, w: &mut [T], b: &mut [T]) -> Vec<T> {
    w.iter_mut().zip(found.w).for_each(|(w, d)| *w = *w + d);
    b.iter_mut().zip(found.b).for_each(|(b, d)| *b = *b + d);
    found.x
}

fn rectified<T: Real>(mut x: Vec<T>) -> Vec<T> {
    relu(&mut x);
    x
}

/// Every row of `line` elements twice.
fn doubled<T: Real>(x: &[T], line: usize) -> Vec<T> {
    x.chunks_exact(line).flat_map(|row| [row, row]).flatten().copied().collect()
}

/// The estimator's part of a gradient by probabilities: back through the softmax of each row.
pub(super) fn softmax_backward<T: Real>(prob: &[T], d_prob: &[T], t_m: usize, d_score: &mut [T]) {
    let rows = prob.chunks_exact(t_m).zip(d_prob.chunks_exact(t_m)).zip(d_score.chunks_exact_mut(t_m));
    for ((prob, d_prob), d_score) in rows {
        let along: f64 = prob.iter().zip(d_prob).map(|(p, d)| p.to_f64() * d.to_f64()).sum();
        let along = T::from_f64(along);
        for ((d, p), dp) in d_score.iter_mut().zip(prob).zip(d_prob) {
            *d = *d + *p * (*dp - along);
        }
    }
}
