//! The attention layer: projections, [`soft_attention`], projection.

use kc_core::{Error, Result, Tensor, TensorView};
use kc_gemm::gemm_into;

use super::grad::backward;
use super::{Grid, Inverse, Landmark, Scalar, SoftConfig, SoftGrads, SoftWorkspace, State, forward_state};

/// `x W^T + b` with `W` `[out, in]`.
#[derive(Debug, Clone)]
pub(super) struct Linear<T: Scalar> {
    pub(super) w: Tensor<T, 2>,
    pub(super) b: Vec<T>,
}

impl<T: Scalar> Linear<T> {
    pub(super) fn new(name: &'static str, w: Tensor<T, 2>, b: Vec<T>, shape: [usize; 2]) -> Result<Self> {
        if w.shape() != shape {
            return Err(Error::shape(name, format!("{shape:?}"), &w.shape()));
        }
        if b.len() != shape[0] {
            return Err(Error::shape(name, format!("a bias [{}]", shape[0]), &[b.len()]));
        }
        Ok(Linear { w, b })
    }

    /// The results of rows `x`.
    pub(super) fn forward(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut y = Tensor::zeros([x.rows(), self.b.len()])?;
        for row in y.as_mut_slice().chunks_exact_mut(self.b.len().max(1)) {
            row.copy_from_slice(&self.b);
        }
        gemm_into(T::ONE, x, self.w.view().transposed(), T::ONE, y.view_mut())?;
        Ok(y)
    }

    /// From the gradient by the results to those by rows, weights and bias.
    pub(super) fn backward(
        &self,
        x: TensorView<'_, T, 2>,
        dy: TensorView<'_, T, 2>,
    ) -> Result<(Tensor<T, 2>, Linear<T>)> {
        let dx = kc_gemm::gemm(dy, self.w.view())?;
        let w = kc_gemm::gemm(dy.transposed(), x)?;
        let mut sums = vec![0.0f64; self.b.len()];
        for i in 0..dy.rows() {
            sums.iter_mut().zip(dy.row(i).iter()).for_each(|(sum, d)| *sum += d.to_f64());
        }
        Ok((dx, Linear { w, b: sums.into_iter().map(T::from_f64).collect() }))
    }

    fn slices(&self) -> [&[T]; 2] {
        [self.w.as_slice(), &self.b]
    }

    fn slices_mut(&mut self) -> [&mut [T]; 2] {
        [self.w.as_mut_slice(), &mut self.b]
    }
}

/// Softmax-free self-attention of `[B, N, C]`: `q = x Wq^T + bq`, `v = x Wv^T + bv`, heads of `C / h` adjacent channels, landmarks by convolution, and
/// a projection `Wo`, `bo` of the heads side by side. There is no `Wk`: keys are the queries.
#[derive(Debug, Clone)]
pub struct SoftAttention<T: Scalar> {
    heads: usize,
    q: Linear<T>,
    v: Linear<T>,
    out: Linear<T>,
    conv_w: Tensor<T, 4>,
    gamma: Vec<T>,
    beta: Vec<T>,
    local: Option<Tensor<T, 3>>,
    /// How the landmarks' kernel is inverted.
    pub inverse: Inverse,
    /// Symmetric normalisation.
    pub norm: bool,
    /// Memory that one call leaves to the next. Layers that run one after the other can have clones of the same.
    pub workspace: SoftWorkspace<T>,
}

/// What the backward pass of a layer needs.
#[derive(Debug, Clone)]
pub struct LayerCache<T: Scalar> {
    x: Tensor<T, 2>,
    q: Tensor<T, 2>,
    v: Tensor<T, 2>,
    joined: Tensor<T, 2>,
    grid: Grid,
    state: State<T>,
}

/// Gradients of a layer by its parameters, in the order of [`SoftAttention::parameters_mut`].
#[derive(Debug, Clone)]
pub struct LayerGrads<T: Scalar> {
    q: Linear<T>,
    v: Linear<T>,
    out: Linear<T>,
    conv_w: Tensor<T, 4>,
    gamma: Vec<T>,
    beta: Vec<T>,
    local: Option<Tensor<T, 3>>,
}

impl<T: Scalar> LayerGrads<T> {
    /// The gradients, parameter by parameter.
    pub fn slices(&self) -> Vec<&[T]> {
        let mut all = [self.q.slices(), self.v.slices(), self.out.slices()].concat();
        all.extend([self.conv_w.as_slice(), &self.gamma, &self.beta]);
        all.extend(self.local.as_ref().map(Tensor::as_slice));
        all
    }
}

/// Weights of a [`SoftAttention`] layer of width `C` with heads of `d = C / h` channels.
#[derive(Debug, Clone)]
pub struct SoftWeights<T: Scalar> {
    /// `[C, C]` and `[C]`: queries.
    pub q: (Tensor<T, 2>, Vec<T>),
    /// `[C, C]` and `[C]`: values.
    pub v: (Tensor<T, 2>, Vec<T>),
    /// `[C, C]` and `[C]`: the projection of the result.
    pub out: (Tensor<T, 2>, Vec<T>),
    /// `[d, d, r, r]`: the landmarks' convolution; its `r` is the ratio.
    pub conv_w: Tensor<T, 4>,
    /// `[d]` and `[d]`: scale and shift of the normalisation after it.
    pub norm: (Vec<T>, Vec<T>),
    /// `[h, k, k]`: local kernels.
    pub local: Option<Tensor<T, 3>>,
}

impl<T: Scalar> SoftAttention<T> {
    /// A layer with `heads` heads, Newton's inverse and no normalisation.
    ///
    /// # Errors
    /// `Argument` unless `heads` divides the width; `Shape` for weights of another shape.
    pub fn new(heads: usize, weights: SoftWeights<T>) -> Result<Self> {
        let c = weights.q.0.shape()[0];
        if heads == 0 || !c.is_multiple_of(heads) || c == 0 {
            return Err(Error::argument("heads", format!("a divisor of the width {c}"), heads));
        }
        let d = c / heads;
        let [out, input, rows, columns] = weights.conv_w.shape();
        if [out, input] != [d, d] || columns == 0 || (rows != columns && rows != 1) {
            return Err(Error::shape("conv_w", format!("[{d}, {d}, r, r]"), &weights.conv_w.shape()));
        }
        let (gamma, beta) = weights.norm;
        if gamma.len() != d || beta.len() != d {
            return Err(Error::shape("norm", format!("[{d}] twice"), &[gamma.len(), beta.len()]));
        }
        Ok(SoftAttention {
            heads,
            q: Linear::new("q", weights.q.0, weights.q.1, [c, c])?,
            v: Linear::new("v", weights.v.0, weights.v.1, [c, c])?,
            out: Linear::new("out", weights.out.0, weights.out.1, [c, c])?,
            conv_w: weights.conv_w,
            gamma,
            beta,
            local: weights.local,
            inverse: Inverse::default(),
            norm: false,
            workspace: SoftWorkspace::default(),
        })
    }

    /// The number of channels, `C`.
    pub fn width(&self) -> usize {
        self.q.b.len()
    }

    fn config(&self, grid: Grid) -> SoftConfig<'_, T> {
        SoftConfig {
            inverse: self.inverse,
            norm: self.norm,
            local: self.local.as_ref().map(Tensor::view),
            workspace: Some(&self.workspace),
            ..SoftConfig::new(grid, self.conv_w.shape()[3])
        }
    }

    fn landmark(&self) -> Landmark<'_, T> {
        Landmark::Conv { w: self.conv_w.view(), gamma: &self.gamma, beta: &self.beta }
    }

    /// Rows of channels as `[B, h, N, d]`, without a copy.
    fn split<'a>(&self, x: &'a Tensor<T, 2>, tokens: usize) -> Result<TensorView<'a, T, 4>> {
        let [rows, c] = x.shape();
        let four = [rows / tokens.max(1), tokens, self.heads, c / self.heads];
        x.view().reshaped(four)?.permuted([0, 2, 1, 3])
    }

    /// The result `[B, N, C]` of `x` `[B, N, C]` on a grid of `N` tokens, and what the backward pass needs.
    ///
    /// # Errors
    /// `Shape` for another width, and all of [`soft_attention`](super::soft_attention).
    pub fn forward(&self, x: TensorView<'_, T, 3>, grid: Grid) -> Result<(Tensor<T, 3>, LayerCache<T>)> {
        let [batch, tokens, c] = x.shape();
        if c != self.width() {
            return Err(Error::shape("x", format!("[B, N, {}]", self.width()), &x.shape()));
        }
        let x = x.to_tensor()?.reshape([batch * tokens, c])?;
        let (q, v) = (self.q.forward(x.view())?, self.v.forward(x.view())?);
        let mut joined = Tensor::zeros([batch * tokens, c])?;
        let four = [batch, tokens, self.heads, c / self.heads];
        let to = kc_core::TensorViewMut::from_slice(four, joined.as_mut_slice())?;
        let [q4, v4] = [self.split(&q, tokens)?, self.split(&v, tokens)?];
        let state = forward_state(q4, v4, &self.landmark(), &self.config(grid), heads_first(to)?)?;
        let y = self.out.forward(joined.view())?.reshape([batch, tokens, c])?;
        Ok((y, LayerCache { x, q, v, joined, grid, state }))
    }

    /// From the gradient `dy` `[B, N, C]` by the result to those by `x` and the parameters.
    ///
    /// # Errors
    /// `Shape` for `dy` unlike the result; `NotFinite` with the position.
    pub fn backward(
        &self,
        cache: &LayerCache<T>,
        dy: TensorView<'_, T, 3>,
    ) -> Result<(Tensor<T, 3>, LayerGrads<T>)> {
        let [rows, c] = cache.x.shape();
        let tokens = cache.grid.tokens()?;
        let shape = [rows / tokens.max(1), tokens, c];
        if dy.shape() != shape {
            return Err(Error::shape("dy", format!("{shape:?}"), &dy.shape()));
        }
        let dy = dy.to_tensor()?.reshape([rows, c])?;
        let (d_joined, out) = self.out.backward(cache.joined.view(), dy.view())?;
        let views = [self.split(&cache.q, tokens)?, self.split(&cache.v, tokens)?];
        let dx = self.split(&d_joined, tokens)?;
        let (landmark, config) = (self.landmark(), self.config(cache.grid));
        let mut grads = SoftGrads::room(dx.shape(), &landmark, &config)?;
        backward(&cache.state, views, &landmark, &config, dx, &mut grads)?;
        let SoftGrads { dq, dv, d_conv_w, d_gamma, d_beta, d_local, .. } = grads;
        let join = |x: Tensor<T, 4>| x.view().permuted([0, 2, 1, 3])?.to_tensor()?.reshape([rows, c]);
        let (mut dx, q) = self.q.backward(cache.x.view(), join(dq)?.view())?;
        let (more, v) = self.v.backward(cache.x.view(), join(dv)?.view())?;
        dx.as_mut_slice().iter_mut().zip(more.as_slice()).for_each(|(a, b)| *a = *a + *b);
        let d = c / self.heads;
        let grads = LayerGrads {
            q,
            v,
            out,
            conv_w: d_conv_w.map_or_else(|| Tensor::zeros(self.conv_w.shape()), Ok)?,
            gamma: d_gamma.unwrap_or_else(|| vec![T::ZERO; d]),
            beta: d_beta.unwrap_or_else(|| vec![T::ZERO; d]),
            local: d_local,
        };
        Ok((dx.reshape(shape)?, grads))
    }

    /// All parameters, for an optimiser: weights and biases of queries, values and output, convolution, its normalisation, local kernels.
    pub fn parameters_mut(&mut self) -> Vec<&mut [T]> {
        let mut all: Vec<&mut [T]> = Vec::new();
        for linear in [&mut self.q, &mut self.v, &mut self.out] {
            all.extend(linear.slices_mut());
        }
        all.extend([self.conv_w.as_mut_slice(), &mut self.gamma, &mut self.beta]);
        all.extend(self.local.as_mut().map(Tensor::as_mut_slice));
        all
    }
}

/// `[B, N, h, d]` as `[B, h, N, d]`.
fn heads_first<T: Scalar>(x: kc_core::TensorViewMut<'_, T, 4>) -> Result<kc_core::TensorViewMut<'_, T, 4>> {
    x.permuted([0, 2, 1, 3])
}
