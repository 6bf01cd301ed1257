//! The transformer block: attention and two linear layers, each with a sum and a normalisation after it.

use kc_core::neural::{Gelu, LayerNorm, gelu, gelu_backward};
use kc_core::{Error, Result, Tensor, TensorView};

use super::layer::Linear;
use super::{Grid, LN_EPS, LayerCache, LayerGrads, Scalar, SoftAttention};

/// `y = LN(x + attention(x))`, `z = LN(y + W2 gelu(W1 y + b1) + b2)` with GELU's tanh form and eps 1e-5, on `[B, N, C]`.
#[derive(Debug, Clone)]
pub struct SoftBlock<T: Scalar> {
    /// The attention layer.
    pub attention: SoftAttention<T>,
    first: Norm<T>,
    up: Linear<T>,
    down: Linear<T>,
    second: Norm<T>,
}

/// Scale and shift of a layer normalisation.
#[derive(Debug, Clone)]
struct Norm<T> {
    gamma: Vec<T>,
    beta: Vec<T>,
}

impl<T: Scalar> Norm<T> {
    fn new(name: &'static str, (gamma, beta): (Vec<T>, Vec<T>), width: usize) -> Result<Self> {
        if gamma.len() != width || beta.len() != width {
            return Err(Error::shape(name, format!("[{width}] twice"), &[gamma.len(), beta.len()]));
        }
        Ok(Norm { gamma, beta })
    }

    fn layer(&self) -> LayerNorm<'_, T> {
        LayerNorm { gamma: &self.gamma, beta: &self.beta, eps: LN_EPS }
    }

    /// The normalised `x`.
    fn forward(&self, x: &Tensor<T, 2>) -> Result<Tensor<T, 2>> {
        let mut y = Tensor::zeros(x.shape())?;
        self.layer().forward(x.as_slice(), y.as_mut_slice())?;
        Ok(y)
    }

    fn backward(&self, x: &Tensor<T, 2>, dy: &Tensor<T, 2>) -> Result<(Tensor<T, 2>, Norm<T>)> {
        let mut dx = Tensor::zeros(x.shape())?;
        let (mut gamma, mut beta) = (vec![0.0; self.gamma.len()], vec![0.0; self.beta.len()]);
        self.layer().backward(x.as_slice(), dy.as_slice(), dx.as_mut_slice(), &mut gamma, &mut beta)?;
        let narrow = |x: Vec<f64>| x.into_iter().map(T::from_f64).collect();
        Ok((dx, Norm { gamma: narrow(gamma), beta: narrow(beta) }))
    }
}

/// Weights of a [`SoftBlock`] beside its attention, for width `C` and any inner width `I` (4 C in the paper).
#[derive(Debug, Clone)]
pub struct BlockWeights<T: Scalar> {
    /// `[C]` and `[C]`: scale and shift after attention.
    pub first: (Vec<T>, Vec<T>),
    /// `[I, C]` and `[I]`.
    pub up: (Tensor<T, 2>, Vec<T>),
    /// `[C, I]` and `[C]`.
    pub down: (Tensor<T, 2>, Vec<T>),
    /// `[C]` and `[C]`: scale and shift at the end.
    pub second: (Vec<T>, Vec<T>),
}

/// What the backward pass of a block needs.
#[derive(Debug, Clone)]
pub struct BlockCache<T: Scalar> {
    layer: LayerCache<T>,
    /// Before the first normalisation, after it, before and after GELU, before the second normalisation.
    before_first: Tensor<T, 2>,
    y: Tensor<T, 2>,
    inner: Tensor<T, 2>,
    active: Tensor<T, 2>,
    before_second: Tensor<T, 2>,
}

/// Gradients of a block by its parameters, in the order of [`SoftBlock::parameters_mut`].
#[derive(Debug, Clone)]
pub struct BlockGrads<T: Scalar> {
    layer: LayerGrads<T>,
    first: Norm<T>,
    up: Linear<T>,
    down: Linear<T>,
    second: Norm<T>,
}

impl<T: Scalar> BlockGrads<T> {
    /// The gradients, parameter by parameter.
    pub fn slices(&self) -> Vec<&[T]> {
        let mut all = self.layer.slices();
        all.extend([&self.first.gamma[..], &self.first.beta]);
        all.extend([self.up.w.as_slice(), &self.up.b, self.down.w.as_slice(), &self.down.b]);
        all.extend([&self.second.gamma[..], &self.second.beta]);
        all
    }
}

impl<T: Scalar> SoftBlock<T> {
    /// A block around an attention layer.
    ///
    /// # Errors
    /// `Shape` for weights that do not fit its width.
    pub fn new(attention: SoftAttention<T>, weights: BlockWeights<T>) -> Result<Self> {
        let (c, inner) = (attention.width(), weights.up.1.len());
        Ok(SoftBlock {
            attention,
            first: Norm::new("first", weights.first, c)?,
            up: Linear::new("up", weights.up.0, weights.up.1, [inner, c])?,
            down: Linear::new("down", weights.down.0, weights.down.1, [c, inner])?,
            second: Norm::new("second", weights.second, c)?,
        })
    }

    /// The result `[B, N, C]` of `x` `[B, N, C]`, and what the backward pass needs.
    ///
    /// # Errors
    /// As [`SoftAttention::forward`].
    pub fn forward(&self, x: TensorView<'_, T, 3>, grid: Grid) -> Result<(Tensor<T, 3>, BlockCache<T>)> {
        let [batch, tokens, c] = x.shape();
        let (found, layer) = self.attention.forward(x, grid)?;
        let mut before_first = found.reshape([batch * tokens, c])?;
        before_first.as_mut_slice().iter_mut().zip(x.iter()).for_each(|(a, x)| *a = *a + x);
        let y = self.first.forward(&before_first)?;
        let inner = self.up.forward(y.view())?;
        let mut active = inner.clone();
        gelu(Gelu::Tanh, active.as_mut_slice());
        let mut before_second = self.down.forward(active.view())?;
        add(&mut before_second, &y);
        let z = self.second.forward(&before_second)?.reshape([batch, tokens, c])?;
        Ok((z, BlockCache { layer, before_first, y, inner, active, before_second }))
    }

    /// From the gradient `dz` `[B, N, C]` by the result to those by `x` and the parameters.
    ///
    /// # Errors
    /// As [`SoftAttention::backward`].
    pub fn backward(
        &self,
        cache: &BlockCache<T>,
        dz: TensorView<'_, T, 3>,
    ) -> Result<(Tensor<T, 3>, BlockGrads<T>)> {
        let shape = dz.shape();
        let [rows, c] = cache.y.shape();
        if shape[0].checked_mul(shape[1]) != Some(rows) || shape[2] != c {
            return Err(Error::shape("dz", format!("[B, N, {c}] with {rows} tokens in all"), &shape));
        }
        let dz = dz.to_tensor()?.reshape([rows, c])?;
        let (d_sum, second) = self.second.backward(&cache.before_second, &dz)?;
        let (mut d_active, down) = self.down.backward(cache.active.view(), d_sum.view())?;
        gelu_backward(Gelu::Tanh, cache.inner.as_slice(), d_active.as_mut_slice())?;
        let (mut dy, up) = self.up.backward(cache.y.view(), d_active.view())?;
        add(&mut dy, &d_sum);
        let (d_sum, first) = self.first.backward(&cache.before_first, &dy)?;
        let d_sum = d_sum.reshape(shape)?;
        let (mut dx, layer) = self.attention.backward(&cache.layer, d_sum.view())?;
        dx.as_mut_slice().iter_mut().zip(d_sum.as_slice()).for_each(|(a, b)| *a = *a + *b);
        Ok((dx, BlockGrads { layer, first, up, down, second }))
    }

    /// All parameters, for an optimiser: those of the attention layer, first normalisation, both linear layers, second normalisation.
    pub fn parameters_mut(&mut self) -> Vec<&mut [T]> {
        let mut all = self.attention.parameters_mut();
        all.extend([&mut self.first.gamma[..], &mut self.first.beta]);
        all.extend([self.up.w.as_mut_slice(), &mut self.up.b]);
        all.extend([self.down.w.as_mut_slice(), &mut self.down.b]);
        all.extend([&mut self.second.gamma[..], &mut self.second.beta]);
        all
    }
}

fn add<T: Scalar>(to: &mut Tensor<T, 2>, x: &Tensor<T, 2>) {
    to.as_mut_slice().iter_mut().zip(x.as_slice()).for_each(|(a, b)| *a = *a + *b);
}
