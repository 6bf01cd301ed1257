//! How far the student is from its teacher, and the gradients of that.
//!
//! Both the estimated scores (stretched to tokens by the nearest cell) and the student's own dense scores are compared
//! with the teacher's scores after softmax: `0.1 (KL_est + KL_score) + MSE_est + MSE_score + MSE_context`. This part is
//! quadratic in the number of tokens, as the teacher's scores are.

use kc_core::math::{Real, softmax_with};
use kc_core::{Error, Isa, Result, TensorView};
use rayon::prelude::*;

use super::SeaConfig;
use super::portable::{Product, times_transposed};
use super::stretch::cell_of;

/// Weight of the divergences.
const KL_WEIGHT: f64 = 0.1;
/// Added to probabilities before their logarithms in bidirectional layers.
const LOG_FLOOR: f64 = 1e-12;

/// What a student learns from.
#[derive(Debug, Clone, Copy)]
pub struct Teacher<'a, T: kc_core::Element> {
    /// Scores before softmax `[N, H, T, T]`.
    pub scores: TensorView<'a, T, 4>,
    /// Attention's result `[N, H, T, d]`, if the student's result is to be compared with it.
    pub context: Option<TensorView<'a, T, 4>>,
}

/// The parts of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SeaLoss {
    /// Divergence of the estimate from the teacher.
    pub kl_est: f64,
    /// Mean square of their difference.
    pub mse_est: f64,
    /// Divergence of the student's dense attention from the teacher.
    pub kl_score: f64,
    /// Mean square of their difference.
    pub mse_score: f64,
    /// Mean square of the difference of the results.
    pub mse_ctx: f64,
    /// `0.1 (kl_est + kl_score) + mse_est + mse_score + mse_ctx`
    pub total: f64,
}

/// Gradients of the loss.
#[derive(Debug, Clone)]
pub(super) struct LossGrads<T> {
    /// By the estimated scores `[N, H, T, t_m]`.
    pub(super) score: Vec<T>,
    /// By queries, keys `[N, H, T, d]`, through the dense scores.
    pub(super) q: Vec<T>,
    pub(super) k: Vec<T>,
    /// By the result `[N, H, T, d]`.
    pub(super) out: Vec<T>,
}

/// How the rows of one comparison are weighed.
struct Weights {
    causal: bool,
    kl: f64,
    mse: f64,
}

/// One row: divergence and square of softmax(`logits`) from `want`; `logits` becomes the gradient.
fn compare_row<T: Real>(
    isa: Isa,
    want: &[T],
    logits: &mut [T],
    probs: &mut [T],
    (weights, counts): (&Weights, bool),
) -> Result<(f64, f64)> {
    softmax_with(isa, logits, probs)?;
    let (mut kl, mut square, mut along) = (0.0, 0.0, 0.0);
    // By probabilities first; the divergence of causal layers goes straight to the logits.
    for ((want, p), slope) in want.iter().zip(&*probs).zip(logits.iter_mut()) {
        let (want, p) = (want.to_f64(), p.to_f64());
        square += (p - want) * (p - want);
        let mut d = 2.0 * weights.mse * (p - want);
        if !weights.causal && counts {
            kl += want * ((want + LOG_FLOOR).ln() - (p + LOG_FLOOR).ln());
            d -= KL_WEIGHT * weights.kl * want / (p + LOG_FLOOR);
        } else if weights.causal && want > 0.0 {
            // The logarithm of a probability that rounds to 0 is that of the smallest number.
            kl += want * (want.ln() - p.max(f64::from(f32::MIN_POSITIVE)).ln());
        }
        along += d * p;
        *slope = T::from_f64(d);
    }
    for ((want, p), slope) in want.iter().zip(&*probs).zip(logits.iter_mut()) {
        let (want, p) = (want.to_f64(), p.to_f64());
        let direct = if weights.causal { KL_WEIGHT * weights.kl * (p - want) } else { 0.0 };
        *slope = T::from_f64(p * (slope.to_f64() - along) + direct);
    }
    Ok((kl, square))
}

/// The loss of a batch and its gradients. `est_score` is `[N, H, T, t_m]`, `q`, `k` and `out` `[N, H, T, d]`.
pub(super) fn loss<T: Real>(
    isa: Isa,
    config: &SeaConfig,
    teacher: &Teacher<'_, T>,
    (q, k, out): (&[T], &[T], &[T]),
    est_score: &[T],
    lengths: &[usize],
) -> Result<(SeaLoss, LossGrads<T>)> {
    let [n, h, t, _] = teacher.scores.shape();
    let (d, t_m) = (config.head_dim, config.t_m);
    if teacher.scores.shape() != [lengths.len(), config.heads, t, t] || lengths.len() * h * t * d != q.len() {
        let rows = q.len() / (lengths.len() * config.heads * d).max(1);
        let want = format!("[{}, {}, {rows}, {rows}]", lengths.len(), config.heads);
        return Err(Error::shape("teacher_scores", want, &teacher.scores.shape()));
    }
    if let Some(context) = teacher.context {
        if context.shape() != [n, h, t, d] {
            return Err(Error::shape("teacher_context", format!("[{n}, {h}, {t}, {d}]"), &context.shape()));
        }
        super::finite("teacher_context", context)?;
    }
    super::finite("teacher_scores", teacher.scores)?;
    let scores = teacher.scores.to_tensor()?;
    let rows = if config.causal { n * h * t } else { lengths.iter().sum::<usize>() };
    let weights = Weights {
        causal: config.causal,
        kl: 1.0 / rows.max(1) as f64,
        mse: 1.0 / (n * h * t * t).max(1) as f64,
    };
    let scale = T::from_f64(config.score_scale());
    type Part<T> = ([f64; 4], [Vec<T>; 3]);
    let head = |i: usize| -> Result<Part<T>> {
        let len = lengths[i / h];
        let (q, k) = (&q[i * t * d..][..t * d], &k[i * t * d..][..t * d]);
        let mut dense = vec![T::ZERO; t * t];
        times_transposed(isa, [t, t, d], q, k, &mut dense, false);
        let mut d_score = vec![T::ZERO; t * t_m];
        let mut sums = [0.0; 4];
        let (mut want, mut probs, mut logits) = (vec![T::ZERO; t], vec![T::ZERO; t], vec![T::ZERO; t]);
        for row in 0..t {
            let width = if config.causal { row + 1 } else { len };
            let (want, probs) = (&mut want[..width], &mut probs[..width]);
            softmax_with(isa, &scores.as_slice()[(i * t + row) * t..][..width], want)?;
            let counts = row < len;
            let logits = &mut logits[..width];
            let estimate = &est_score[(i * t + row) * t_m..][..t_m];
            for (j, x) in logits.iter_mut().enumerate() {
                *x = estimate[cell_of(j, width, t_m)];
            }
            let found = compare_row(isa, want, logits, probs, (&weights, counts))?;
            sums[0] += found.0;
            sums[1] += found.1;
            let to = &mut d_score[row * t_m..][..t_m];
            for (j, x) in logits.iter().enumerate() {
                let cell = cell_of(j, width, t_m);
                to[cell] = to[cell] + *x;
            }
            let dense = &mut dense[row * t..(row + 1) * t];
            dense.iter_mut().for_each(|x| *x = *x * scale);
            let found = compare_row(isa, want, &mut dense[..width], probs, (&weights, counts))?;
            sums[2] += found.0;
            sums[3] += found.1;
            dense[..width].iter_mut().for_each(|x| *x = *x * scale);
            dense[width..].fill(T::ZERO);
        }
        let (mut dq, mut dk) = (vec![T::ZERO; t * d], vec![T::ZERO; t * d]);
        Product { m: t, n: d, k: t, a: [t, 1], b: d, c: d }.run(isa, &dense, k, &mut dq, false);
        Product { m: t, n: d, k: t, a: [1, t], b: d, c: d }.run(isa, &dense, q, &mut dk, false);
        Ok((sums, [d_score, dq, dk]))
    };
    let parts = (0..n * h).into_par_iter().map(head).collect::<Result<Vec<_>>>()?;
    let mut sums = [0.0; 4];
    let mut grads = LossGrads { score: Vec::new(), q: Vec::new(), k: Vec::new(), out: Vec::new() };
    for (part, [d_score, dq, dk]) in parts {
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        grads.score.extend(d_score);
        grads.q.extend(dq);
        grads.k.extend(dk);
    }
    let count = out.len().max(1) as f64;
    let mut square = 0.0;
    let context = teacher.context.map(|context| context.to_vec()).unwrap_or_default();
    for (y, want) in out.iter().zip(&context) {
        let gap = y.to_f64() - want.to_f64();
        square += gap * gap;
        grads.out.push(T::from_f64(2.0 * gap / count));
    }
    let [kl_est, mse_est, kl_score, mse_score] =
        [sums[0] * weights.kl, sums[1] * weights.mse, sums[2] * weights.kl, sums[3] * weights.mse];
    let mse_ctx = square / count;
    let total = KL_WEIGHT * (kl_est + kl_score) + mse_est + mse_score + mse_ctx;
    Ok((SeaLoss { kl_est, mse_est, kl_score, mse_score, mse_ctx, total }, grads))
}
