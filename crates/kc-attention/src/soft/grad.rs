//! The backward pass: two passes over the tokens, with the kernel computed again in each, and products of `m x m` between them.

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut, par};
use rayon::prelude::*;

use super::kernel::{self, Inputs, Kept, Panels, TOKENS, Tile, by_head, cut, padded_rows, write_rows};
use super::landmark::{self, ConvGrads};
use super::portable::{Product, at_level};
use super::{Head, Landmark, Scalar, SoftCache, SoftConfig, State, check_finite, head_of, local, normalize};

/// Gradients of [`soft_attention`](super::soft_attention). What has no parameters has no gradient.
#[derive(Debug, Clone)]
pub struct SoftGrads<T: Scalar> {
    /// By `q`, `[B, h, N, d]`.
    pub dq: Tensor<T, 4>,
    /// By `v`, `[B, h, N, d]`.
    pub dv: Tensor<T, 4>,
    /// By the convolution's weights, `[d, d, r, r]`.
    pub d_conv_w: Option<Tensor<T, 4>>,
    /// By the scale of its normalisation, `[d]`.
    pub d_gamma: Option<Vec<T>>,
    /// By the shift of its normalisation, `[d]`.
    pub d_beta: Option<Vec<T>>,
    /// By the local kernels, `[h, k, k]`.
    pub d_local: Option<Tensor<T, 3>>,
    /// By given landmarks, `[B, h, m, d]`.
    pub d_landmarks: Option<Tensor<T, 4>>,
}

impl<T: Scalar> SoftGrads<T> {
    /// Room for [`soft_attention_backward_into`]: zeros of the shapes that it fills.
    ///
    /// # Errors
    /// `TooLarge` without memory.
    pub fn zeros(cache: &SoftCache<'_, T>) -> Result<Self> {
        Self::room(cache.q.shape(), &cache.landmark, &cache.config)
    }

    pub(super) fn room(
        shape: [usize; 4],
        landmark: &Landmark<'_, T>,
        config: &SoftConfig<'_, T>,
    ) -> Result<Self> {
        let [conv, given] = parameters(landmark);
        let vector = || conv.map(|_| vec![T::ZERO; shape[3]]);
        Ok(SoftGrads {
            dq: Tensor::zeros(shape)?,
            dv: Tensor::zeros(shape)?,
            d_conv_w: conv.map(Tensor::zeros).transpose()?,
            d_gamma: vector(),
            d_beta: vector(),
            d_local: config.local.map(|local| Tensor::zeros(local.shape())).transpose()?,
            d_landmarks: given.map(Tensor::zeros).transpose()?,
        })
    }

    fn fits(&self, shape: [usize; 4], landmark: &Landmark<'_, T>, config: &SoftConfig<'_, T>) -> bool {
        let [conv, given] = parameters(landmark);
        let vector = |x: &Option<Vec<T>>| x.as_ref().map(Vec::len) == conv.map(|_| shape[3]);
        [self.dq.shape(), self.dv.shape()] == [shape; 2]
            && self.d_conv_w.as_ref().map(Tensor::shape) == conv
            && vector(&self.d_gamma)
            && vector(&self.d_beta)
            && self.d_local.as_ref().map(Tensor::shape) == config.local.map(|local| local.shape())
            && self.d_landmarks.as_ref().map(Tensor::shape) == given
    }
}

/// Shapes of a convolution's weights and of given landmarks, where there are some.
fn parameters<T: Scalar>(landmark: &Landmark<'_, T>) -> [Option<[usize; 4]>; 2] {
    match landmark {
        Landmark::Conv { w, .. } => [Some(w.shape()), None],
        Landmark::Given(given) => [None, Some(given.shape())],
        Landmark::AvgPool | Landmark::MaxPool | Landmark::Random { .. } => [None; 2],
    }
}

/// Heads whose gradients of the convolution are held at the same time.
const HEADS: usize = 8;

/// From the gradient `dx` `[B, h, N, d]` by the result to those by everything else. The inverse's gradient is `-Y^T dY Y^T` for every
/// [`Inverse`](super::Inverse): exact for exact ones, the paper's rule for Newton's iteration.
///
/// # Errors
/// `Shape` for `dx` unlike the result; `NotFinite` with the position.
pub fn soft_attention_backward<T: Scalar>(
    cache: &SoftCache<'_, T>,
    dx: TensorView<'_, T, 4>,
) -> Result<SoftGrads<T>> {
    let mut grads = SoftGrads::zeros(cache)?;
    soft_attention_backward_into(cache, dx, &mut grads)?;
    Ok(grads)
}

/// As [`soft_attention_backward`], into gradients of an earlier call or of [`SoftGrads::zeros`]. What they held is replaced.
pub fn soft_attention_backward_into<T: Scalar>(
    cache: &SoftCache<'_, T>,
    dx: TensorView<'_, T, 4>,
    grads: &mut SoftGrads<T>,
) -> Result<()> {
    backward(&cache.state, [cache.q, cache.v], &cache.landmark, &cache.config, dx, grads)
}

pub(super) fn backward<T: Scalar>(
    state: &State<T>,
    [q, v]: [TensorView<'_, T, 4>; 2],
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
    dx: TensorView<'_, T, 4>,
    grads: &mut SoftGrads<T>,
) -> Result<()> {
    let shape = &state.shape;
    if dx.shape() != q.shape() {
        return Err(Error::shape("dx", format!("{:?}", q.shape()), &dx.shape()));
    }
    if !grads.fits(q.shape(), landmark, config) {
        let wanted = format!("room for the gradients of a call with {:?}", q.shape());
        return Err(Error::shape("grads", wanted, &grads.dq.shape()));
    }
    check_finite("dx", dx)?;
    if dx.is_empty() {
        *grads = SoftGrads::room(q.shape(), landmark, config)?;
        return Ok(());
    }
    let inputs = Inputs { shape, q, v, mask: config.mask, isa: config.isa };
    let panels: Vec<Panels<T>> =
        state.heads.iter().map(|h| Panels::of(&h.landmarks, shape.channels)).collect();
    let pulled = kernel::sums(&inputs, &panels, dx, state.kept.as_ref());
    let middles = state
        .heads
        .par_iter()
        .zip(&panels)
        .zip(&pulled)
        .map(|((head, panels), u)| Middle::of(head, panels, u, shape.channels))
        .collect::<Result<Vec<Middle<T>>>>()?;
    let outs = [grads.dq.view_mut(), grads.dv.view_mut()];
    let from_tokens = over_tokens(&inputs, dx, &panels, &middles, state.kept.as_ref(), outs)?;
    if let (Some(kernels), Some(d_local)) = (config.local, &mut grads.d_local) {
        local::backward(&inputs, kernels, dx, grads.dv.view_mut(), d_local)?;
    }
    let mut d_all = Vec::with_capacity(middles.len());
    for (middle, tokens) in middles.iter().zip(&from_tokens) {
        let sum: Vec<T> = middle.d_landmarks.iter().zip(tokens).map(|(a, b)| T::from_f64(a + b)).collect();
        d_all.push(sum);
    }
    let conv = to_queries(state, q, &d_all, landmark, config, &mut grads.dq)?;
    if let Some(found) = conv {
        if let Some(to) = &mut grads.d_conv_w {
            state.plan.conv(shape).unfold(&found.weights, to.as_mut_slice());
        }
        for (to, from) in [(&mut grads.d_gamma, &found.gamma), (&mut grads.d_beta, &found.beta)] {
            let to = to.iter_mut().flatten();
            to.zip(from).for_each(|(to, &x)| *to = T::from_f64(x));
        }
    }
    if let Some(to) = &mut grads.d_landmarks {
        let d = d_all.iter().flatten();
        to.as_mut_slice().iter_mut().zip(d).for_each(|(to, x)| *to = *x);
    }
    Ok(())
}

/// What the products of `m x m` give to the second pass.
struct Middle<T> {
    /// `T^T` with `T = Y M`, below it `R^T` with `R = Y^T U`: `[2 depth, width]`.
    columns: Vec<T>,
    /// `R`, `[m, depth]`.
    rows: Vec<T>,
    /// The gradient by the landmarks through `A`, `[m, channels]`.
    d_landmarks: Vec<f64>,
}

impl<T: Scalar> Middle<T> {
    fn of(head: &Head<T>, panels: &Panels<T>, u: &[f64], channels: usize) -> Result<Self> {
        let (m, inverse) = (head.count, head.inverse());
        let forward = normalize::product(&inverse, &head.sums, channels)?;
        let backward = normalize::product(&transposed(&inverse, m), u, channels)?;
        // With E Y E in the place of Y, T and R have a factor E in front that Y^T dY Y^T = R T^T has not.
        let mut g = normalize::product(&backward, &transposed(&forward, channels), m)?;
        let d_rows = if head.e.is_empty() {
            vec![0.0; m]
        } else {
            for (row, left) in g.chunks_exact_mut(m).zip(&head.e) {
                row.iter_mut().zip(&head.e).for_each(|(g, right)| *g /= left * right);
            }
            let d_inverse = normalize::product(u, &transposed(&head.sums, channels), m)?;
            normalize::backward(&head.y, &head.e, &d_inverse)
        };
        for ((row, a), more) in g.chunks_exact_mut(m.max(1)).zip(head.a.chunks_exact(m.max(1))).zip(&d_rows) {
            row.iter_mut().zip(a).for_each(|(g, a)| *g = (more - *g) * a);
        }
        let both: Vec<f64> = g.iter().zip(transposed(&g, m)).map(|(g, t)| g + t).collect();
        let landmarks: Vec<f64> = head.landmarks.iter().map(|x| x.to_f64()).collect();
        let mut d_landmarks = normalize::product(&both, &landmarks, channels)?;
        let (lines, own) = (d_landmarks.chunks_exact_mut(channels), landmarks.chunks_exact(channels));
        for ((line, own), weights) in lines.zip(own).zip(both.chunks_exact(m.max(1))) {
            let sum: f64 = weights.iter().sum();
            line.iter_mut().zip(own).for_each(|(d, x)| *d -= sum * x);
        }
        let width = panels.width;
        let mut columns = vec![T::ZERO; 2 * panels.depth * width];
        for (x, to) in [&forward, &backward].into_iter().zip(columns.chunks_exact_mut(panels.depth * width)) {
            for (j, row) in x.chunks_exact(channels).enumerate() {
                row.iter().enumerate().for_each(|(c, &x)| to[c * width + j] = T::from_f64(x));
            }
        }
        let rows = padded_rows(&backward, channels, panels.depth);
        Ok(Middle { columns, rows, d_landmarks })
    }
}

/// Rows of width `n` as columns.
fn transposed(x: &[f64], n: usize) -> Vec<f64> {
    let m = x.len() / n.max(1);
    let mut out = vec![0.0; x.len()];
    for (i, row) in x.chunks_exact(n.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, &x)| out[j * m + i] = x);
    }
    out
}

/// The second pass: `dv` and the kernel's part of `dq` are written; returned is that of the landmarks, `[m, channels]` per head.
fn over_tokens<T: Scalar>(
    inputs: &Inputs<'_, T>,
    dx: TensorView<'_, T, 4>,
    panels: &[Panels<T>],
    middles: &[Middle<T>],
    kept: Option<&Kept<T>>,
    [dq, dv]: [TensorViewMut<'_, T, 4>; 2],
) -> Result<Vec<Vec<f64>>> {
    let shape = inputs.shape;
    let per_head = shape.tokens.div_ceil(shape.piece());
    let work: Vec<_> = cut(shape, dq)?.into_iter().zip(cut(shape, dv)?).enumerate().collect();
    let parts = work
        .into_par_iter()
        .map(|(i, (dq, dv))| {
            let (head, first) = (i / per_head, i % per_head * shape.piece());
            let at = [head / shape.heads, head % shape.heads];
            piece(inputs, dx, &panels[head], &middles[head], kept, [at[0], at[1], head], first, [dq, dv])
        })
        .collect();
    Ok(by_head(shape, parts, panels))
}

/// The tokens from `first` on that `dq` and `dv` have room for.
fn piece<T: Scalar>(
    inputs: &Inputs<'_, T>,
    dx: TensorView<'_, T, 4>,
    panels: &Panels<T>,
    middle: &Middle<T>,
    kept: Option<&Kept<T>>,
    [entry, head, index]: [usize; 3],
    first: usize,
    [mut dq, mut dv]: [TensorViewMut<'_, T, 4>; 2],
) -> Vec<T> {
    let (isa, depth, width) = (inputs.isa, panels.depth, panels.width);
    let tokens = dq.shape()[2];
    let (mut dq, mut dv) = (dq.outer_mut(0), dv.outer_mut(0));
    let (mut dq, mut dv) = (dq.matrix_mut(0), dv.matrix_mut(0));
    let mut tile = Tile::new(panels);
    // Rows of `dx` and `v` side by side.
    let mut pairs = vec![T::ZERO; TOKENS * 2 * depth];
    let mut out = tile.v.clone();
    let mut own = vec![T::ZERO; if kept.is_none() { TOKENS * width } else { 0 }];
    let kept = kept.map(|kept| kept.piece(inputs.shape, index, first));
    let mut d_kernel = vec![T::ZERO; TOKENS * width];
    let mut row_sums = [T::ZERO; TOKENS];
    let mut column_sums = vec![T::ZERO; width];
    let mut sums = vec![T::ZERO; panels.count * depth];
    let scale = T::from_f64(inputs.shape.scale);
    let (v, dx) = (head_of(inputs.v, entry, head), head_of(dx, entry, head));
    for part in par::chunks(tokens, TOKENS) {
        let (from, rows) = (first + part.start, part.len());
        tile.queries(inputs, panels, [entry, head], from, rows);
        let k = match kept {
            Some(kept) => &kept[part.start * width..part.end * width],
            None => {
                let k = &mut own[..rows * width];
                tile.kernel(isa, panels, k);
                k
            }
        };
        for (x, at) in [(dx, 0), (v, depth)] {
            inputs.fill(x, entry, from, [at, 2 * depth], &mut pairs[..rows * 2 * depth]);
        }
        let out = &mut out[..rows * depth];
        Tile::weigh_rows(isa, panels, k, &middle.rows, out, &mut dv, part.clone());
        let d_kernel = &mut d_kernel[..rows * width];
        let product = Product {
            a: &pairs,
            row_step: 2 * depth,
            depth_step: 1,
            rows,
            depth: 2 * depth,
            b: &middle.columns,
            b_step: width,
            columns: width,
            c_step: width,
            add: false,
        };
        T::product(isa, product, d_kernel);
        at_level!(isa, gate(k, d_kernel, &mut row_sums[..rows], &mut column_sums));
        Tile::weigh(isa, panels, d_kernel, &panels.rows, rows, out);
        at_level!(isa, pull(out, &row_sums[..rows], &tile.q[..rows * depth], depth));
        out.iter_mut().for_each(|x| *x = *x * scale);
        write_rows(&mut dq, part.start, out, depth);
        Tile::add_sums(isa, panels, d_kernel, &tile.q, rows, &mut sums);
    }
    at_level!(isa, pull(&mut sums, &column_sums[..panels.count], &panels.rows, depth));
    sums
}

/// Adds to `dq` what the landmarks owe to the queries; returns the convolution's gradients.
fn to_queries<T: Scalar>(
    state: &State<T>,
    q: TensorView<'_, T, 4>,
    d_landmarks: &[Vec<T>],
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
    dq: &mut Tensor<T, 4>,
) -> Result<Option<ConvGrads<T>>> {
    let shape = &state.shape;
    let mut heads = Vec::new();
    for entry in dq.view_mut().chunks(0, 1)? {
        heads.extend(entry.chunks(1, 1)?);
    }
    let weights = state.plan.weights_of(shape, landmark, config)?;
    let mut total: Option<ConvGrads<T>> = None;
    let mut heads: Vec<_> = heads.into_iter().enumerate().collect();
    while !heads.is_empty() {
        let later = heads.split_off(heads.len().min(HEADS));
        let found = heads
            .into_par_iter()
            .map(|(i, mut dq)| {
                one_head(state, q, &d_landmarks[i], landmark, weights.as_deref(), config, i, &mut dq)
            })
            .collect::<Result<Vec<_>>>()?;
        heads = later;
        for grads in found.into_iter().flatten() {
            match &mut total {
                Some(total) => total.add(&grads),
                None => total = Some(grads),
            }
        }
    }
    Ok(total)
}

fn one_head<T: Scalar>(
    state: &State<T>,
    q: TensorView<'_, T, 4>,
    d_landmarks: &[T],
    landmark: &Landmark<'_, T>,
    weights: Option<&[T]>,
    config: &SoftConfig<'_, T>,
    index: usize,
    dq: &mut TensorViewMut<'_, T, 4>,
) -> Result<Option<ConvGrads<T>>> {
    let shape = &state.shape;
    let (entry, head) = (index / shape.heads, index % shape.heads);
    let kept = &state.heads[index];
    let mut dq = dq.outer_mut(0);
    let d_landmarks = TensorView::from_slice([kept.count, shape.channels], d_landmarks)?;
    let views = [head_of(q, entry, head), d_landmarks];
    landmark::backward(
        shape,
        &state.plan,
        entry,
        views,
        &kept.before,
        landmark,
        weights,
        config,
        &mut dq.matrix_mut(0),
    )
}
