//! The pass that keeps everything: for training, for inspection, and in f64 for checks.

use kc_core::math::{Function, Real, apply_in_place};
use kc_core::{Result, Tensor};
use kc_sparse::FlatCsr;
use rayon::prelude::*;

use super::estimate::{Convs, Estimate, inputs, softmax_backward};
use super::loss::{LossGrads, SeaLoss, Teacher, loss};
use super::performer::{self, Features, Head, Map};
use super::sparse::{SparseOut, sparse_attention_backward, sparse_attention_with};
use super::stretch::{cell_of, stretch_mask};
use super::topk::{Kept, topk_mask};
use super::{Checked, SeaInputs, SeaLayer, SeaParams};

/// Everything that a forward pass made.
#[derive(Debug, Clone)]
pub struct SeaTrace<T: kc_core::Element> {
    /// The result `[N, H, T, d]`.
    pub out: Tensor<T, 4>,
    /// Estimated scores `[N, H, T, t_m]`.
    pub est_score: Tensor<T, 4>,
    /// Estimated probabilities `[N, H, T, t_m]`; 0 in padded rows.
    pub est_prob: Tensor<T, 4>,
    /// Gates before the logistic function `[N, H, T, 2]`.
    pub scales: Tensor<T, 4>,
    /// Result of the linear attention `[N, H, T, 2d]`.
    pub performer: Tensor<T, 4>,
    /// Encodings `[N, H, T, 2d]`.
    pub enc: Tensor<T, 4>,
    /// Which cells were kept.
    pub kept: Kept,
    /// Probabilities of the sparse attention on the mask, each row and head adding to 1: gates not included.
    pub probs: FlatCsr<T>,
    /// Result of the sparse attention, gate included `[N, H, T, d]`.
    pub sparse_ctx: Tensor<T, 4>,
    /// The average that it is mixed with: `[N, H, 1, d]`, causal `[N, H, T, d]`.
    pub avg: Tensor<T, 4>,
}

/// What [`SeaLayer::backward`] needs.
#[derive(Debug)]
pub struct Cache<T: kc_core::Element> {
    x: Checked<T>,
    values: Vec<Vec<T>>,
    heads: Vec<Head<T>>,
    estimates: Vec<Estimate<T>>,
    sparse: SparseOut<T>,
    sparse_ctx: Tensor<T, 4>,
    avg: Tensor<T, 4>,
    mean: Vec<T>,
    gates: Vec<T>,
    loss: Option<LossGrads<T>>,
}

/// Gradients of a layer.
#[derive(Debug, Clone)]
pub struct SeaGrads<T: kc_core::Element> {
    /// By queries.
    pub q: Tensor<T, 4>,
    /// By keys.
    pub k: Tensor<T, 4>,
    /// By values.
    pub v: Tensor<T, 4>,
    /// By the estimator's own queries, keys and values, if it has some; else they are in those above.
    pub estimator: Option<[Tensor<T, 4>; 3]>,
    /// By parameters; `proj` gets none.
    pub params: SeaParams<T>,
}

impl<T: Real> SeaLayer<T> {
    fn map(&self, t: usize, len: usize) -> Map<'_, T> {
        let config = &self.config;
        Map {
            proj: &self.params.proj,
            d: config.head_dim,
            kind: if config.causal { Features::Relu } else { Features::Softmax },
            scale: config.score_scale(),
            causal: config.causal,
            keys: if config.mask_padding { len } else { t },
        }
    }

    /// Augmented values `[t, 2d]` of a head: where a token is, and its value; 0 in padding.
    pub(super) fn augmented(&self, v: &[T], len: usize) -> Vec<T> {
        let d = self.config.head_dim;
        let mut out = vec![T::ZERO; 2 * v.len()];
        for (t, (out, v)) in out.chunks_exact_mut(2 * d).zip(v.chunks_exact(d)).enumerate().take(len) {
            let (place, value) = out.split_at_mut(d);
            value.copy_from_slice(v);
            if self.config.causal {
                place.copy_from_slice(&self.params.pos[t * d..][..d]);
            } else {
                performer::place(t, len, place);
            }
        }
        out
    }

    /// A forward pass of which everything is kept, and what the gradients need.
    pub(super) fn pass(&self, inputs_: &SeaInputs<'_, T>) -> Result<(SeaTrace<T>, Cache<T>)> {
        let x = self.checked(inputs_)?;
        let config = &self.config;
        let [n, h, t, d] = x.shape;
        let t_m = config.t_m;
        let isa = self.isa;
        let convs = Convs::new(config, &self.params);
        let [eq, ek, ev] = x.estimator();
        let line = t * d;
        let values: Vec<Vec<T>> = (0..n * h)
            .into_par_iter()
            .map(|i| self.augmented(&ev[i * line..][..line], x.lengths[i / h]))
            .collect();
        let heads: Vec<Head<T>> = (0..n * h)
            .into_par_iter()
            .map(|i| {
                let map = self.map(t, x.lengths[i / h]);
                map.forward(isa, &eq[i * line..][..line], &ek[i * line..][..line], &values[i])
            })
            .collect();
        let estimates = (0..n)
            .map(|i| {
                let mut v = ev[i * h * line..][..h * line].to_vec();
                for v in v.chunks_exact_mut(line.max(1)) {
                    v[x.lengths[i] * d..].fill(T::ZERO);
                }
                let contexts: Vec<&[T]> =
                    heads[i * h..(i + 1) * h].iter().map(|head| &head.ctx[..]).collect();
                Estimate::forward(isa, config, &self.params, &convs, inputs(&contexts, &v, d), x.lengths[i])
            })
            .collect::<Result<Vec<_>>>()?;
        let gather = |width: usize, part: fn(&Estimate<T>) -> &Vec<T>| -> Result<Tensor<T, 4>> {
            let all: Vec<T> = estimates.iter().flat_map(|e| part(e).iter().copied()).collect();
            Tensor::from_slice([n, h, t, width], &all)
        };
        let est_score = gather(t_m, |e| &e.score)?;
        let est_prob = gather(t_m, |e| &e.prob)?;
        let scales = gather(2, |e| &e.scales)?;
        let kept = topk_mask(est_prob.view(), &x.lengths, config)?;
        let mask = stretch_mask(&kept, &x.lengths, config, inputs_.jitter)?;
        let [q, k, v] = x.views()?;
        let sparse = sparse_attention_with(isa, q, k, v, &mask, config.score_scale())?;
        let mut gates = scales.as_slice().to_vec();
        apply_in_place(isa, Function::Sigmoid, &mut gates);
        if !config.partial_scaler {
            gates.iter_mut().step_by(2).for_each(|g| *g = T::ONE);
        }
        let mut sparse_ctx = sparse.out.clone();
        for (row, gate) in sparse_ctx.as_mut_slice().chunks_exact_mut(d).zip(gates.chunks_exact(2)) {
            row.iter_mut().for_each(|x| *x = *x * gate[0]);
        }
        let (mean, avg) = self.average(&x, &est_prob)?;
        let mut out = sparse_ctx.clone();
        for (i, (row, gate)) in out.as_mut_slice().chunks_exact_mut(d).zip(gates.chunks_exact(2)).enumerate()
        {
            let from = if config.causal { i } else { i / t };
            for (x, a) in row.iter_mut().zip(&avg.as_slice()[from * d..][..d]) {
                *x = gate[1] * *x + (T::ONE - gate[1]) * *a;
            }
        }
        let performer: Vec<T> = heads.iter().flat_map(|head| head.ctx.iter().copied()).collect();
        let trace = SeaTrace {
            out,
            est_score,
            est_prob,
            scales,
            performer: Tensor::from_slice([n, h, t, 2 * d], &performer)?,
            enc: gather(2 * d, |e| &e.enc)?,
            kept,
            probs: sparse.probs.clone(),
            sparse_ctx: sparse_ctx.clone(),
            avg: avg.clone(),
        };
        let cache = Cache { x, values, heads, estimates, sparse, sparse_ctx, avg, mean, gates, loss: None };
        Ok((trace, cache))
    }

    /// The average of the values that the sparse result is mixed with, and the column means `[N, H, t_m]` of the
    /// estimate that weigh it in bidirectional layers.
    fn average(&self, x: &Checked<T>, est_prob: &Tensor<T, 4>) -> Result<(Vec<T>, Tensor<T, 4>)> {
        let [n, h, t, d] = x.shape;
        let t_m = self.config.t_m;
        if self.config.causal {
            let mut avg = Tensor::zeros([n, h, t, d])?;
            let work = avg
                .as_mut_slice()
                .par_chunks_exact_mut((t * d).max(1))
                .zip(x.v.par_chunks_exact((t * d).max(1)));
            work.for_each(|(avg, v)| {
                let mut sums = vec![0.0f64; d];
                for (i, (avg, v)) in avg.chunks_exact_mut(d).zip(v.chunks_exact(d)).enumerate() {
                    for ((sum, v), avg) in sums.iter_mut().zip(v).zip(avg) {
                        *sum += v.to_f64();
                        *avg = T::from_f64(*sum / (i + 1) as f64);
                    }
                }
            });
            return Ok((Vec::new(), avg));
        }
        let mut mean = Vec::with_capacity(n * h * t_m);
        for prob in est_prob.as_slice().chunks_exact((t * t_m).max(1)) {
            let mut sums = vec![0.0f64; t_m];
            for row in prob.chunks_exact(t_m) {
                sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += p.to_f64());
            }
            mean.extend(sums.iter().map(|sum| T::from_f64(sum / t as f64)));
        }
        let mut avg = Tensor::zeros([n, h, 1, d])?;
        for (i, avg) in avg.as_mut_slice().chunks_exact_mut(d).enumerate() {
            let (len, mean) = (x.lengths[i / h], &mean[i * t_m..][..t_m]);
            let mut sums = vec![0.0f64; d];
            for (j, v) in x.v[i * t * d..][..len * d].chunks_exact(d).enumerate() {
                let g = mean[cell_of(j, len, t_m)].to_f64();
                sums.iter_mut().zip(v).for_each(|(sum, v)| *sum += g * v.to_f64());
            }
            avg.iter_mut().zip(sums).for_each(|(avg, sum)| *avg = T::from_f64(sum));
        }
        Ok((mean, avg))
    }

    /// A forward pass with everything kept, and, with a teacher, the losses.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and a teacher of other shapes.
    pub fn forward_train(
        &self,
        inputs: &SeaInputs<'_, T>,
        teacher: Option<&Teacher<'_, T>>,
    ) -> Result<(SeaTrace<T>, SeaLoss, Cache<T>)> {
        let (trace, mut cache) = self.pass(inputs)?;
        let Some(teacher) = teacher else { return Ok((trace, SeaLoss::default(), cache)) };
        let x = &cache.x;
        let triple = (&x.q[..], &x.k[..], trace.out.as_slice());
        let (found, grads) =
            loss(self.isa, &self.config, teacher, triple, trace.est_score.as_slice(), &x.lengths)?;
        cache.loss = Some(grads);
        Ok((trace, found, cache))
    }

    /// Gradients of `sum(out * d_out) + loss`, the loss being that of [`forward_train`](Self::forward_train).
    ///
    /// # Errors
    /// If `d_out` has another shape than the result.
    pub fn backward(&self, cache: &Cache<T>, d_out: kc_core::TensorView<'_, T, 4>) -> Result<SeaGrads<T>> {
        let config = &self.config;
        let x = &cache.x;
        let [n, h, t, d] = x.shape;
        if d_out.shape() != x.shape {
            return Err(kc_core::Error::shape("d_out", format!("{:?}", x.shape), &d_out.shape()));
        }
        let isa = self.isa;
        let (line, t_m) = (t * d, config.t_m);
        let mut d_out = d_out.to_tensor()?;
        if let Some(loss) = &cache.loss {
            d_out.as_mut_slice().iter_mut().zip(&loss.out).for_each(|(d, l)| *d = *d + *l);
        }
        // The mixture and the gates.
        let (mut d_sparse, mut d_avg) = (Tensor::zeros(x.shape)?, Tensor::<T, 4>::zeros(cache.avg.shape())?);
        let mut d_scales = vec![T::ZERO; n * h * t * 2];
        for (i, d_out) in d_out.as_slice().chunks_exact(d).enumerate() {
            let (g0, g1) = (cache.gates[2 * i], cache.gates[2 * i + 1]);
            let from = if config.causal { i } else { i / t };
            let (mut along0, mut along1) = (T::ZERO, T::ZERO);
            for (j, &dy) in d_out.iter().enumerate() {
                let at = i * d + j;
                let (raw, gated) = (cache.sparse.out.as_slice()[at], cache.sparse_ctx.as_slice()[at]);
                along0 = along0 + dy * g1 * raw;
                along1 = along1 + dy * (gated - cache.avg.as_slice()[from * d + j]);
                d_sparse.as_mut_slice()[at] = dy * g1 * g0;
                let to = &mut d_avg.as_mut_slice()[from * d + j];
                *to = *to + dy * (T::ONE - g1);
            }
            d_scales[2 * i] = along0 * g0 * (T::ONE - g0);
            d_scales[2 * i + 1] = along1 * g1 * (T::ONE - g1);
        }
        let [q, k, v] = x.views()?;
        let mut sparse =
            sparse_attention_backward(q, k, v, &cache.sparse.probs, config.score_scale(), d_sparse.view())?;
        let (mut d_score, mut d_prob) = (vec![T::ZERO; n * h * t * t_m], vec![T::ZERO; n * h * t * t_m]);
        if let Some(loss) = &cache.loss {
            d_score.copy_from_slice(&loss.score);
            sparse.q.as_mut_slice().iter_mut().zip(&loss.q).for_each(|(d, l)| *d = *d + *l);
            sparse.k.as_mut_slice().iter_mut().zip(&loss.k).for_each(|(d, l)| *d = *d + *l);
        }
        let d_v = sparse.v.as_mut_slice();
        if config.causal {
            for (d_v, d_avg) in
                d_v.chunks_exact_mut(line.max(1)).zip(d_avg.as_slice().chunks_exact(line.max(1)))
            {
                let mut later = vec![0.0f64; d];
                for i in (0..t).rev() {
                    for j in 0..d {
                        later[j] += d_avg[i * d + j].to_f64() / (i + 1) as f64;
                        d_v[i * d + j] = d_v[i * d + j] + T::from_f64(later[j]);
                    }
                }
            }
        } else {
            for i in 0..n * h {
                let (len, d_avg) = (x.lengths[i / h], &d_avg.as_slice()[i * d..][..d]);
                let mut d_mean = vec![0.0f64; t_m];
                for j in 0..len {
                    let (cell, at) = (cell_of(j, len, t_m), (i * t + j) * d);
                    let g = cache.mean[i * t_m + cell];
                    for c in 0..d {
                        d_v[at + c] = d_v[at + c] + g * d_avg[c];
                        d_mean[cell] += x.v[at + c].to_f64() * d_avg[c].to_f64();
                    }
                }
                for row in d_prob[i * t * t_m..(i + 1) * t * t_m].chunks_exact_mut(t_m) {
                    row.iter_mut().zip(&d_mean).for_each(|(d, g)| *d = T::from_f64(g / t as f64));
                }
            }
        }
        let mut params = SeaParams::zeros(config)?;
        params.pos.resize(self.params.pos.len(), T::ZERO);
        let convs = Convs::new(config, &self.params);
        let [eq, ek, _] = x.estimator();
        let mut est: [Tensor<T, 4>; 3] =
            [Tensor::zeros(x.shape)?, Tensor::zeros(x.shape)?, Tensor::zeros(x.shape)?];
        for i in 0..n {
            let (estimate, len, cells) =
                (&cache.estimates[i], x.lengths[i], i * h * t * t_m..(i + 1) * h * t * t_m);
            softmax_backward(&estimate.prob, &d_prob[cells.clone()], t_m, &mut d_score[cells.clone()]);
            let d_scales = &d_scales[i * h * t * 2..][..h * t * 2];
            let d_x = estimate.backward(
                isa,
                config,
                &self.params,
                &convs,
                (&d_score[cells], d_scales),
                &mut params,
            )?;
            let work = (0..h).into_par_iter().map(|head| {
                let at = i * h + head;
                let rows = d_x[head * t * 3 * d..][..t * 3 * d].chunks_exact(3 * d);
                let d_ctx: Vec<T> = rows.flat_map(|row| row[..2 * d].iter().copied()).collect();
                let triple = [&eq[at * line..][..line], &ek[at * line..][..line], &cache.values[at][..]];
                self.map(t, len).backward(isa, triple, &cache.heads[at], &d_ctx)
            });
            for (head, found) in work.collect::<Vec<_>>().into_iter().enumerate() {
                let at = (i * h + head) * line;
                est[0].as_mut_slice()[at..at + line].copy_from_slice(&found.q);
                est[1].as_mut_slice()[at..at + line].copy_from_slice(&found.k);
                for s in 0..len {
                    let augmented = &found.values[s * 2 * d..][..2 * d];
                    let own = &d_x[(head * t + s) * 3 * d + 2 * d..][..d];
                    for c in 0..d {
                        est[2].as_mut_slice()[at + s * d + c] = augmented[d + c] + own[c];
                        if config.causal {
                            params.pos[s * d + c] = params.pos[s * d + c] + augmented[c];
                        }
                    }
                }
                if config.mask_padding {
                    est[0].as_mut_slice()[at + len * d..at + line].fill(T::ZERO);
                    est[1].as_mut_slice()[at + len * d..at + line].fill(T::ZERO);
                }
            }
        }
        let mut estimator = None;
        let (mut q, mut k, mut v) = (sparse.q, sparse.k, sparse.v);
        if x.own.is_some() {
            estimator = Some(est);
        } else {
            for (to, from) in [&mut q, &mut k, &mut v].into_iter().zip(&est) {
                to.as_mut_slice().iter_mut().zip(from.as_slice()).for_each(|(to, from)| *to = *to + *from);
            }
        }
        Ok(SeaGrads { q, k, v, estimator, params })
    }
}
