//! Learning a layer from a teacher's scores.

use kc_core::math::{Real, softmax};
use kc_core::optim::Adam;
use kc_core::{Error, KcRng, Result, Tensor, TensorView};
use kc_sparse::FlatCsr;

use super::loss::{SeaLoss, Teacher};
use super::{SeaInputs, SeaLayer};

/// How a layer is distilled.
#[derive(Debug, Clone, PartialEq)]
pub struct DistillConfig {
    /// Steps of Adam.
    pub steps: usize,
    /// Sequences per step, taken in turn.
    pub batch: usize,
    /// Step length of Adam.
    pub rate: f64,
    /// Steps between new directions of the random features; 0 for never.
    pub redraw: usize,
    /// Share of the steps of causal layers in which the edges of the mask's cells jitter, 0 to 1; 0.1 in the reference.
    pub jitter: f64,
    /// Seed of directions and jitter.
    pub seed: u64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        DistillConfig { steps: 300, batch: 4, rate: 3e-3, redraw: 1000, jitter: 0.0, seed: 0 }
    }
}

/// Trains the parameters of `layer` (all but the directions) on sequences `[N, H, T, d]` and a teacher's scores
/// `[N, H, T, T]`, with its results if they are there. Queries, keys and values stay. `observe` sees every step and its
/// loss, and stops the training by returning false. The loss of every step comes back.
///
/// # Errors
/// As [`SeaLayer::forward_train`]; `batch`, `rate` or `jitter` out of range; parameters that left the finite numbers;
/// [`Error::Cancelled`].
pub fn distill<T: Real>(
    layer: &mut SeaLayer<T>,
    inputs: &SeaInputs<'_, T>,
    teacher: &Teacher<'_, T>,
    config: &DistillConfig,
    mut observe: impl FnMut(usize, &SeaLoss) -> bool,
) -> Result<Vec<SeaLoss>> {
    if config.batch == 0 {
        return Err(Error::argument("batch", "at least 1", 0));
    }
    if !(config.rate >= 0.0 && config.rate.is_finite()) {
        return Err(Error::argument("rate", "a finite number, 0 and more", config.rate));
    }
    if !(0.0..=1.0).contains(&config.jitter) {
        return Err(Error::argument("jitter", "0 to 1", config.jitter));
    }
    let (shape, lengths) = layer.dims(inputs)?;
    if teacher.scores.shape()[0] != shape[0] {
        return Err(Error::shape("scores", format!("{} sequences", shape[0]), &teacher.scores.shape()));
    }
    let batch = config.batch.min(shape[0]);
    let mut optimisers: Vec<Adam> =
        layer.params.entries().iter().map(|(_, values)| Adam::new(values.len(), config.rate)).collect();
    let mut rng = KcRng::new(config.seed, 3);
    let mut losses = Vec::with_capacity(config.steps.min(1 << 20));
    for step in 0..config.steps {
        if config.redraw > 0 && step > 0 && step % config.redraw == 0 {
            let settings = layer.config.clone();
            let seed = config.seed.wrapping_add((step / config.redraw) as u64);
            layer.params.redraw(&settings, seed)?;
        }
        let picks: Vec<usize> = (0..batch).map(|i| (step * batch + i) % shape[0]).collect();
        let take = |x: TensorView<'_, T, 4>| pick(x, &picks);
        let (q, k, v) = (take(inputs.q)?, take(inputs.k)?, take(inputs.v)?);
        let own = match inputs.estimator {
            Some([q, k, v]) => Some([take(q)?, take(k)?, take(v)?]),
            None => None,
        };
        let lengths: Vec<usize> = picks.iter().map(|&i| lengths[i]).collect();
        let jitter = (layer.config.causal && rng.uniform() < config.jitter).then(|| rng.next_u64());
        let x = SeaInputs {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            lengths: (!layer.config.causal).then_some(&lengths[..]),
            estimator: own.as_ref().map(|[q, k, v]| [q.view(), k.view(), v.view()]),
            jitter,
        };
        let scores = take(teacher.scores)?;
        let context = teacher.context.map(take).transpose()?;
        let teacher = Teacher { scores: scores.view(), context: context.as_ref().map(Tensor::view) };
        let (_, loss, cache) = layer.forward_train(&x, Some(&teacher))?;
        let grads = layer.backward(&cache, Tensor::zeros(q.shape())?.view())?;
        let pairs = layer.params.entries_mut().into_iter().zip(grads.params.entries());
        for (((name, values), (_, gradient)), adam) in pairs.zip(&mut optimisers) {
            if name != "proj" {
                adam.step(values, gradient)?;
            }
        }
        losses.push(loss);
        if !observe(step, &loss) {
            return Err(Error::Cancelled);
        }
    }
    layer.params.check(&layer.config)?;
    Ok(losses)
}

/// Some entries of the first axis.
fn pick<T: Real>(x: TensorView<'_, T, 4>, picks: &[usize]) -> Result<Tensor<T, 4>> {
    let [_, a, b, c] = x.shape();
    let mut all = Vec::with_capacity(picks.len() * a * b * c);
    for &i in picks {
        all.extend(x.slice(0, i..i + 1)?.iter());
    }
    Tensor::from_slice([picks.len(), a, b, c], &all)
}

/// How much of the teacher's attention lies on the entries of a mask: the mean over valid queries and heads of the sum
/// of `softmax(scores)` there. 1 is all of it.
///
/// # Errors
/// If `scores` `[N, H, T, T]` do not fit the mask.
pub fn covered_mass<T: Real, M: Real>(
    mask: &FlatCsr<M>,
    scores: TensorView<'_, T, 4>,
    lengths: &[usize],
    causal: bool,
) -> Result<f64> {
    let [n, h, rows, keys] = mask.shape();
    if scores.shape() != mask.shape() || rows != keys || lengths.len() != n {
        return Err(Error::shape("scores", format!("{:?} to match the mask", mask.shape()), &scores.shape()));
    }
    let scores = scores.to_tensor()?;
    let (mut sum, mut count, mut probs) = (0.0, 0usize, vec![T::ZERO; keys]);
    for (n, i) in (0..n).flat_map(|n| (0..lengths[n].min(rows)).map(move |i| (n, i))) {
        let width = if causal { i + 1 } else { lengths[n].min(keys) };
        count += h;
        for (head, part) in mask.heads(n, i) {
            let row = &scores.as_slice()[((n * h + head) * rows + i) * keys..][..width];
            softmax(row, &mut probs[..width])?;
            let places = mask.cols()[part].iter().map(|&c| c as usize - head * keys);
            sum += places.filter(|&j| j < width).map(|j| probs[j].to_f64()).sum::<f64>();
        }
    }
    Ok(sum / count.max(1) as f64)
}
