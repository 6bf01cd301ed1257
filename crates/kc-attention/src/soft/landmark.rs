//! Landmarks of a head, and the way of their gradients back to the tokens.

use std::borrow::Cow;

use kc_core::neural::{Gelu, LayerNorm, gelu, gelu_backward};
use kc_core::{Error, KcRng, Result, TensorView, TensorViewMut};

use super::conv::Conv;
use super::workspace::Block;
use super::{LN_EPS, Scalar, Shape, SoftConfig, check_finite};

/// Where the landmarks come from. All but `Given` see the scaled queries `q d^(-1/4)`.
#[derive(Debug, Clone, Copy)]
pub enum Landmark<'a, T: Scalar> {
    /// A convolution with kernel and stride `r`, shared by the heads, then layer normalisation (eps 1e-5) and exact GELU.
    Conv {
        /// `[d, d, r, r]`: output, input, row, column; `[d, d, 1, r]` on a sequence.
        w: TensorView<'a, T, 4>,
        /// Scale of the normalisation, `[d]`.
        gamma: &'a [T],
        /// Its shift, `[d]`.
        beta: &'a [T],
    },
    /// The mean of each patch.
    AvgPool,
    /// The largest value of each patch, channel by channel.
    MaxPool,
    /// As many distinct tokens as there are patches, the same for all heads of a batch entry.
    Random {
        /// Seed of the choice.
        seed: u64,
    },
    /// `[B, h, m, d]`, in units of the scaled queries.
    Given(TensorView<'a, T, 4>),
}

/// Which landmarks there are.
#[derive(Debug, Clone)]
pub(crate) struct Plan<T: Scalar> {
    /// Landmarks of a batch entry without masks.
    count: usize,
    /// Patches in a row.
    across: usize,
    /// Rows and columns of a patch.
    patch: [usize; 2],
    /// Columns of the grid.
    width: usize,
    /// By batch entry: the landmarks that exist.
    kept: Vec<Vec<usize>>,
    /// By batch entry: tokens chosen by chance.
    chosen: Vec<Vec<usize>>,
    /// By batch entry: the tokens that count; empty without a mask.
    valid: Vec<Vec<bool>>,
    /// The convolution's weights, while landmarks are made.
    weights: Option<Block<T>>,
}

impl<T: Scalar> Plan<T> {
    pub(super) fn of(shape: &Shape, landmark: &Landmark<'_, T>, config: &SoftConfig<'_, T>) -> Result<Self> {
        let patch = config.grid.patch(config.ratio);
        let [down, across] = [shape.sides[0] / patch[0], shape.sides[1] / patch[1]];
        let count = match landmark {
            Landmark::Given(given) => given.shape()[2],
            _ => down * across,
        };
        if count > config.most_landmarks {
            return Err(Error::too_large(
                "landmarks (a larger ratio gives fewer)",
                count as u64,
                config.most_landmarks as u64,
                "landmarks",
            ));
        }
        let valid: Vec<Vec<bool>> = match config.mask {
            Some(mask) => (0..shape.batch).map(|b| mask.row(b).iter().map(|x| x != 0).collect()).collect(),
            None => Vec::new(),
        };
        let mut plan = Plan {
            count,
            across,
            patch,
            width: shape.sides[1],
            kept: Vec::new(),
            chosen: Vec::new(),
            valid,
            weights: None,
        };
        match landmark {
            Landmark::Conv { w, gamma, beta } => {
                let w = plan.convolution(shape, *w, gamma, beta)?;
                plan.weights = Some(plan.conv(shape).by_input(&w, config.workspace)?);
            }
            Landmark::Given(given) => {
                let want = [shape.batch, shape.heads, count, shape.channels];
                if given.shape() != want || count == 0 {
                    let expected = format!("[{}, {}, m, {}] with m > 0", want[0], want[1], want[3]);
                    return Err(Error::shape("landmarks", expected, &given.shape()));
                }
                check_finite("landmarks", *given)?;
            }
            Landmark::AvgPool | Landmark::MaxPool | Landmark::Random { .. } => {}
        }
        for entry in 0..shape.batch {
            match landmark {
                Landmark::Given(_) => plan.kept.push((0..count).collect()),
                Landmark::Random { seed } => {
                    let mut tokens: Vec<usize> =
                        (0..shape.tokens).filter(|&i| plan.counts(entry, i)).collect();
                    KcRng::new(*seed, 0).shuffle(&mut tokens);
                    tokens.truncate(count);
                    tokens.sort_unstable();
                    plan.kept.push((0..tokens.len()).collect());
                    plan.chosen.push(tokens);
                }
                _ => {
                    let full = |&j: &usize| plan.patch_tokens(j).any(|i| plan.counts(entry, i));
                    plan.kept.push((0..count).filter(full).collect());
                }
            }
        }
        Ok(plan)
    }

    /// Frees the weights, of which the backward pass wants another form.
    pub(super) fn drop_weights(&mut self) {
        self.weights = None;
    }

    /// The weights of a convolution, as [`backward`] wants them.
    pub(super) fn weights_of(
        &self,
        shape: &Shape,
        landmark: &Landmark<'_, T>,
        config: &SoftConfig<'_, T>,
    ) -> Result<Option<Block<T>>> {
        match landmark {
            Landmark::Conv { w, gamma, beta } => {
                let w = self.convolution(shape, *w, gamma, beta)?;
                Ok(Some(self.conv(shape).by_output(&w, config.workspace)?))
            }
            _ => Ok(None),
        }
    }

    /// The sizes of a convolution.
    pub(super) fn conv(&self, shape: &Shape) -> Conv {
        let down = shape.sides[0] / self.patch[0];
        Conv { channels: shape.channels, patch: self.patch, patches: [down, self.across], width: self.width }
    }

    /// The tokens that count, where not all do.
    fn valid(&self, entry: usize) -> Option<&[bool]> {
        self.valid.get(entry).map(Vec::as_slice)
    }

    /// Landmarks of a batch entry without masks.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The landmarks of a batch entry that exist.
    pub(super) fn kept(&self, entry: usize) -> &[usize] {
        &self.kept[entry]
    }

    fn counts(&self, entry: usize, token: usize) -> bool {
        self.valid.get(entry).is_none_or(|valid| valid[token])
    }

    /// Tokens of a patch, row by row.
    fn patch_tokens(&self, landmark: usize) -> impl Iterator<Item = usize> + use<T> {
        let ([rows, columns], width) = (self.patch, self.width);
        let first = landmark / self.across * rows * width + landmark % self.across * columns;
        (0..rows * columns).map(move |i| first + i / columns * width + i % columns)
    }

    /// Checks the parameters; returns the weights, row-major.
    fn convolution<'b>(
        &self,
        shape: &Shape,
        w: TensorView<'b, T, 4>,
        gamma: &[T],
        beta: &[T],
    ) -> Result<Cow<'b, [T]>> {
        let (d, [rows, columns]) = (shape.channels, self.patch);
        if w.shape() != [d, d, rows, columns] {
            return Err(Error::shape("conv_w", format!("[{d}, {d}, {rows}, {columns}]"), &w.shape()));
        }
        for (name, x) in [("ln_g", gamma), ("ln_b", beta)] {
            if x.len() != d {
                return Err(Error::shape(name, format!("[{d}]"), &[x.len()]));
            }
            check_finite(name, TensorView::from_slice([d], x)?)?;
        }
        check_finite("conv_w", w)?;
        Ok(w.as_slice().map_or_else(|| Cow::Owned(w.to_vec()), Cow::Borrowed))
    }
}

/// Row `i` of `x`.
#[inline]
pub(super) fn read_row<T: Scalar>(x: TensorView<'_, T, 2>, i: usize, out: &mut [T]) {
    match x.row_slice(i) {
        Some(row) => out.copy_from_slice(row),
        None => out.iter_mut().enumerate().for_each(|(c, out)| *out = x.at([i, c])),
    }
}

/// Adds `by * row` to row `i` of `x`.
pub(super) fn add_row<T: Scalar>(x: &mut TensorViewMut<'_, T, 2>, i: usize, by: T, row: &[T]) {
    let mut target = x.row_mut(i);
    if let Some(target) = target.as_mut_slice() {
        for (t, r) in target.iter_mut().zip(row) {
            *t = *t + by * *r;
        }
        return;
    }
    for (c, r) in row.iter().enumerate() {
        let old = target.as_view().at([c]);
        target.set([c], old + by * *r);
    }
}

/// The landmarks `[m, d]` of head `[entry, head]`, and what the convolution gave before normalisation.
pub(super) fn of_head<T: Scalar>(
    shape: &Shape,
    plan: &Plan<T>,
    [entry, head]: [usize; 2],
    q: TensorView<'_, T, 2>,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let (d, kept) = (shape.channels, plan.kept(entry));
    let mut out = vec![T::ZERO; kept.len() * d];
    let mut before = Vec::new();
    let scale = T::from_f64(shape.scale);
    match landmark {
        Landmark::Conv { gamma, beta, .. } => {
            before = vec![T::ZERO; kept.len() * d];
            if let Some(weights) = &plan.weights {
                let conv = plan.conv(shape);
                let all = conv.forward(config.isa, weights, q, plan.valid(entry));
                for (&j, to) in kept.iter().zip(before.chunks_exact_mut(d)) {
                    let from = &all[j * conv.depth()..];
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = *x * scale);
                }
            }
            LayerNorm { gamma, beta, eps: LN_EPS }.forward(&before, &mut out)?;
            gelu(Gelu::Exact, &mut out);
        }
        Landmark::AvgPool => {
            let (mut row, mut sums) = (vec![T::ZERO; d], vec![0.0f64; d]);
            for (&j, to) in kept.iter().zip(out.chunks_exact_mut(d)) {
                let tokens: Vec<usize> = plan.patch_tokens(j).filter(|&i| plan.counts(entry, i)).collect();
                sums.fill(0.0);
                for &i in &tokens {
                    read_row(q, i, &mut row);
                    sums.iter_mut().zip(&row).for_each(|(sum, x)| *sum += x.to_f64());
                }
                let share = shape.scale / tokens.len() as f64;
                to.iter_mut().zip(&sums).for_each(|(to, sum)| *to = T::from_f64(sum * share));
            }
        }
        Landmark::MaxPool => {
            for (&j, to) in kept.iter().zip(out.chunks_exact_mut(d)) {
                for (c, to) in to.iter_mut().enumerate() {
                    if let Some(at) = largest(plan, entry, j, q, c) {
                        *to = q.at([at, c]) * scale;
                    }
                }
            }
        }
        Landmark::Random { .. } => {
            for (&i, to) in plan.chosen[entry].iter().zip(out.chunks_exact_mut(d)) {
                read_row(q, i, to);
                to.iter_mut().for_each(|x| *x = *x * scale);
            }
        }
        Landmark::Given(given) => {
            let given = super::head_of(*given, entry, head);
            out.chunks_exact_mut(d).enumerate().for_each(|(j, to)| read_row(given, j, to));
        }
    }
    Ok((out, before))
}

/// The token of a patch with the largest value of a channel, the first of equals.
fn largest<T: Scalar>(
    plan: &Plan<T>,
    entry: usize,
    landmark: usize,
    q: TensorView<'_, T, 2>,
    channel: usize,
) -> Option<usize> {
    let mut best: Option<(usize, T)> = None;
    for i in plan.patch_tokens(landmark).filter(|&i| plan.counts(entry, i)) {
        let x = q.at([i, channel]);
        if best.is_none_or(|(_, most)| x > most) {
            best = Some((i, x));
        }
    }
    best.map(|(i, _)| i)
}

/// Gradients of a convolution's parameters.
#[derive(Debug, Clone)]
pub(super) struct ConvGrads<T: Scalar> {
    /// As [`Conv::by_output`] has the weights.
    pub(super) weights: Block<T>,
    pub(super) gamma: Vec<f64>,
    pub(super) beta: Vec<f64>,
}

impl<T: Scalar> ConvGrads<T> {
    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        for (a, b) in self.weights.iter_mut().zip(other.weights.iter()) {
            *a = *a + *b;
        }
        for (to, from) in [(&mut self.gamma, &other.gamma), (&mut self.beta, &other.beta)] {
            to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        }
    }
}

/// Takes the gradient by the landmarks of a head, `[m, d]`, back to the queries (added to `dq` `[N, d]`) and the convolution.
pub(super) fn backward<T: Scalar>(
    shape: &Shape,
    plan: &Plan<T>,
    entry: usize,
    [q, d_landmarks]: [TensorView<'_, T, 2>; 2],
    before: &[T],
    landmark: &Landmark<'_, T>,
    weights: Option<&[T]>,
    config: &SoftConfig<'_, T>,
    dq: &mut TensorViewMut<'_, T, 2>,
) -> Result<Option<ConvGrads<T>>> {
    let (d, kept) = (shape.channels, plan.kept(entry));
    let scale = T::from_f64(shape.scale);
    let mut row = vec![T::ZERO; d];
    match landmark {
        Landmark::Conv { gamma, beta, .. } => {
            let Some(weights) = weights else { return Ok(None) };
            let conv = plan.conv(shape);
            let norm = LayerNorm { gamma, beta, eps: LN_EPS };
            let mut normal = vec![T::ZERO; before.len()];
            norm.forward(before, &mut normal)?;
            let mut slope = d_landmarks.to_vec();
            gelu_backward(Gelu::Exact, &normal, &mut slope)?;
            let weights_room = conv.gradient_room(config.workspace)?;
            let mut grads = ConvGrads { weights: weights_room, gamma: vec![0.0; d], beta: vec![0.0; d] };
            norm.backward(before, &slope, &mut normal, &mut grads.gamma, &mut grads.beta)?;
            let depth = conv.depth();
            let mut dz = vec![T::ZERO; plan.count * depth];
            for (&j, from) in kept.iter().zip(normal.chunks_exact(d)) {
                let to = &mut dz[j * depth..];
                to.iter_mut().zip(from).for_each(|(to, x)| *to = *x * scale);
            }
            conv.backward(config.isa, weights, (q, plan.valid(entry)), &dz, &mut grads.weights, dq);
            return Ok(Some(grads));
        }
        Landmark::AvgPool => {
            for (l, &j) in kept.iter().enumerate() {
                read_row(d_landmarks, l, &mut row);
                let tokens: Vec<usize> = plan.patch_tokens(j).filter(|&i| plan.counts(entry, i)).collect();
                let share = T::from_f64(shape.scale / tokens.len() as f64);
                tokens.iter().for_each(|&i| add_row(dq, i, share, &row));
            }
        }
        Landmark::MaxPool => {
            for (l, &j) in kept.iter().enumerate() {
                for c in 0..d {
                    if let Some(at) = largest(plan, entry, j, q, c) {
                        let old = dq.as_view().at([at, c]);
                        dq.set([at, c], old + scale * d_landmarks.at([l, c]));
                    }
                }
            }
        }
        Landmark::Random { .. } => {
            for (l, &i) in plan.chosen[entry].iter().enumerate() {
                read_row(d_landmarks, l, &mut row);
                add_row(dq, i, scale, &row);
            }
        }
        Landmark::Given(_) => {}
    }
    Ok(None)
}
