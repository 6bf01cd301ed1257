//! [`Adapter`]: a small trained layer beside a frozen one.

use kc_core::neural::LayerNorm;
use kc_core::{Error, KcRng, Result, Tensor, TensorView};
use kc_gemm::gemm;

use super::layer::{SnnkLayer, one};
use super::map::SnnkConfig;
use crate::{Scalar, check_finite};

/// What stands between the layer and the residual sum.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Up<T: Scalar> {
    /// `w s + b` with `w` `[d, r]`, `b` `[d]`.
    Linear {
        /// `[d, r]`
        w: Tensor<T, 2>,
        /// `[d]`
        b: Vec<T>,
    },
    /// `v o s` with `v` `[d]`: the layer has `d` outputs.
    Scale {
        /// `[d]`
        v: Vec<T>,
    },
    /// `s + b`, what merging leaves.
    Shift {
        /// `[d]`
        b: Vec<T>,
    },
}

/// A trained layer normalisation.
#[derive(Debug, Clone)]
pub struct Norm<T> {
    /// Scale by column, `[d]`.
    pub gamma: Vec<T>,
    /// Shift by column, `[d]`.
    pub beta: Vec<T>,
    /// Added to the variance.
    pub eps: f64,
}

impl<T: Scalar> Norm<T> {
    /// Ones and zeros, `eps` 1e-5.
    pub fn unit(d: usize) -> Self {
        Self { gamma: vec![one(); d], beta: vec![T::ZERO; d], eps: 1e-5 }
    }

    fn layer(&self) -> LayerNorm<'_, T> {
        LayerNorm { gamma: &self.gamma, beta: &self.beta, eps: self.eps }
    }

    fn forward(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let (x, mut y) = (x.to_tensor()?, Tensor::zeros(x.shape())?);
        self.layer().forward(x.as_slice(), y.as_mut_slice())?;
        Ok(y)
    }

    /// The gradient by `x`; those by the parameters.
    fn backward(&self, x: TensorView<'_, T, 2>, dy: &Tensor<T, 2>) -> Result<(Tensor<T, 2>, [Vec<T>; 2])> {
        let (x, mut dx) = (x.to_tensor()?, Tensor::zeros(x.shape())?);
        let (mut gamma, mut beta) = (vec![0.0; self.gamma.len()], vec![0.0; self.gamma.len()]);
        self.layer().backward(x.as_slice(), dy.as_slice(), dx.as_mut_slice(), &mut gamma, &mut beta)?;
        let narrow = |all: Vec<f64>| all.into_iter().map(T::from_f64).collect();
        Ok((dx, [narrow(gamma), narrow(beta)]))
    }
}

/// The weights `W_0` from which `psi` is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// Uniform in `+- d^-1/2` (Kaiming with `a = sqrt 5`); Up is zero, so that the adapter starts as the identity.
    #[default]
    Mam,
    /// N(0, 0.02^2), Up as well.
    Bert,
}

/// How an adapter is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterConfig {
    /// The features.
    pub layer: SnnkConfig,
    /// `r`, the outputs of the layer, with a linear Up; `None` for a vector `v` instead (`d` outputs).
    pub bottleneck: Option<usize>,
    /// First values.
    pub init: Init,
    /// Normalise the inputs of the layer.
    pub norm_before: bool,
    /// Normalise what is added to `x`.
    pub norm_after: bool,
}

/// `x + after(Up(layer(before(x))))`
#[derive(Debug, Clone)]
pub struct Adapter<T: Scalar> {
    layer: SnnkLayer<T>,
    up: Up<T>,
    before: Option<Norm<T>>,
    after: Option<Norm<T>>,
}

/// Gradients of an adapter. `parameters` are in the order of [`Adapter::parameters`].
#[derive(Debug, Clone)]
pub struct AdapterGradients<T: Scalar> {
    /// By the inputs, `[n, d]`.
    pub dx: Tensor<T, 2>,
    /// By each trained parameter.
    pub parameters: Vec<(&'static str, Vec<T>)>,
}

impl<T: Scalar> Adapter<T> {
    /// A new adapter for rows of `d` numbers.
    ///
    /// # Errors
    /// `Empty`, and those of the features.
    pub fn init(d: usize, config: &AdapterConfig) -> Result<Self> {
        let r = config.bottleneck.unwrap_or(d);
        if d == 0 || r == 0 {
            return Err(Error::empty(if d == 0 { "x" } else { "bottleneck" }));
        }
        let mut rng = KcRng::new(config.layer.seed, 6);
        let bound = (d as f64).powf(-0.5);
        let mut draw = |_| match config.init {
            Init::Mam => T::from_f64(bound * (2.0 * rng.uniform() - 1.0)),
            Init::Bert => T::from_f64(0.02 * rng.normal()),
        };
        let w = Tensor::from_fn([r, d], &mut draw)?;
        let layer = SnnkLayer::from_weights(w.view(), None, &config.layer)?;
        let mut up = |shape| match config.init {
            Init::Mam => Tensor::zeros(shape),
            Init::Bert => Tensor::from_fn(shape, &mut draw),
        };
        let up = match config.bottleneck {
            Some(r) => Up::Linear { w: up([d, r])?, b: vec![T::ZERO; d] },
            None => Up::Scale { v: up([1, d])?.into_vec() },
        };
        let norm = |there: bool| there.then(|| Norm::unit(d));
        Self::new(layer, up, norm(config.norm_before), norm(config.norm_after))
    }

    /// Given parts.
    ///
    /// # Errors
    /// `Shape` if they do not fit together; `NotFinite`.
    pub fn new(
        layer: SnnkLayer<T>,
        up: Up<T>,
        before: Option<Norm<T>>,
        after: Option<Norm<T>>,
    ) -> Result<Self> {
        let (d, r) = (layer.inputs(), layer.outputs());
        let (name, got, want) = match &up {
            Up::Linear { w, .. } => ("up_w", w.shape().to_vec(), vec![d, r]),
            Up::Scale { v } => ("v", vec![v.len(), r], vec![d, d]),
            Up::Shift { b } => ("up_b", vec![b.len(), r], vec![d, d]),
        };
        if got != want {
            return Err(Error::shape(
                name,
                format!("{want:?} for {d} inputs and {r} outputs of the layer"),
                &got,
            ));
        }
        if let Up::Linear { b, .. } = &up
            && b.len() != d
        {
            return Err(Error::shape("up_b", format!("[{d}]"), &[b.len()]));
        }
        for norm in [&before, &after].into_iter().flatten() {
            if norm.gamma.len() != d || norm.beta.len() != d {
                return Err(Error::shape("norm", format!("[{d}]"), &[norm.gamma.len(), norm.beta.len()]));
            }
        }
        let out = Self { layer, up, before, after };
        for (name, values) in out.parameters() {
            check_finite(name, TensorView::from_slice([1, values.len()], values)?, 0)?;
        }
        Ok(out)
    }

    /// The layer.
    pub fn layer(&self) -> &SnnkLayer<T> {
        &self.layer
    }

    /// What stands behind it.
    pub fn up(&self) -> &Up<T> {
        &self.up
    }

    /// The trained parameters with their names: `psi`, then those of Up, then those of the normalisations.
    pub fn parameters(&self) -> Vec<(&'static str, &[T])> {
        let mut all = vec![("psi", self.layer.psi().as_slice().unwrap_or_default())];
        match &self.up {
            Up::Linear { w, b } => all.extend([("up_w", w.as_slice()), ("up_b", b.as_slice())]),
            Up::Scale { v } => all.push(("v", v)),
            Up::Shift { b } => all.push(("up_b", b)),
        }
        for (names, norm) in [(BEFORE, &self.before), (AFTER, &self.after)] {
            if let Some(norm) = norm {
                all.extend([(names[0], norm.gamma.as_slice()), (names[1], norm.beta.as_slice())]);
            }
        }
        all
    }

    /// Lets `step(i, parameter)` change each parameter, in the order of [`parameters`](Self::parameters).
    ///
    /// # Errors
    /// Those of `step`.
    pub fn update(&mut self, mut step: impl FnMut(usize, &mut [T]) -> Result<()>) -> Result<()> {
        self.layer.update(|psi| step(0, psi))?;
        let mut rest: Vec<&mut [T]> = Vec::new();
        match &mut self.up {
            Up::Linear { w, b } => rest.extend([w.as_mut_slice(), b.as_mut_slice()]),
            Up::Scale { v } => rest.push(v),
            Up::Shift { b } => rest.push(b),
        }
        for norm in [&mut self.before, &mut self.after].into_iter().flatten() {
            rest.extend([norm.gamma.as_mut_slice(), norm.beta.as_mut_slice()]);
        }
        rest.into_iter().enumerate().try_for_each(|(i, parameter)| step(i + 1, parameter))
    }

    /// Trained numbers.
    pub fn n_params(&self) -> usize {
        self.parameters().iter().map(|(_, values)| values.len()).sum()
    }

    /// `[n, d]` from `x` `[n, d]`.
    ///
    /// # Errors
    /// Those of [`SnnkLayer::forward`].
    pub fn forward(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let added = match &self.before {
            Some(norm) => self.added(norm.forward(x)?.view())?.1,
            None => self.added(x)?.1,
        };
        let mut out = match &self.after {
            Some(norm) => norm.forward(added.view())?,
            None => added,
        };
        for (out, x) in out.as_mut_slice().iter_mut().zip(x.iter()) {
            *out = *out + x;
        }
        Ok(out)
    }

    /// The layer's outputs, and what Up makes of them.
    fn added(&self, inputs: TensorView<'_, T, 2>) -> Result<(Tensor<T, 2>, Tensor<T, 2>)> {
        let s = self.layer.forward(inputs)?;
        let d = self.layer.inputs();
        let added = match &self.up {
            Up::Linear { w, b } => {
                let mut out = gemm(s.view(), w.view().transposed())?;
                for row in out.as_mut_slice().chunks_exact_mut(d) {
                    row.iter_mut().zip(b).for_each(|(x, b)| *x = *x + *b);
                }
                out
            }
            Up::Scale { v } => {
                let mut out = s.clone();
                for row in out.as_mut_slice().chunks_exact_mut(d) {
                    row.iter_mut().zip(v).for_each(|(x, v)| *x = *x * *v);
                }
                out
            }
            Up::Shift { b } => {
                let mut out = s.clone();
                for row in out.as_mut_slice().chunks_exact_mut(d) {
                    row.iter_mut().zip(b).for_each(|(x, b)| *x = *x + *b);
                }
                out
            }
        };
        Ok((s, added))
    }

    /// Gradients from that by the result, `[n, d]`.
    ///
    /// # Errors
    /// Those of [`SnnkLayer::backward`].
    pub fn backward(&self, x: TensorView<'_, T, 2>, dy: TensorView<'_, T, 2>) -> Result<AdapterGradients<T>> {
        if dy.shape() != x.shape() {
            return Err(Error::shape("dy", format!("{:?}", x.shape()), &dy.shape()));
        }
        let normed = self.before.as_ref().map(|norm| norm.forward(x)).transpose()?;
        let inputs = normed.as_ref().map_or(x, Tensor::view);
        let (s, added) = self.added(inputs)?;
        let mut norms = Vec::new();
        let mut d_added = dy.to_tensor()?;
        if let Some(norm) = &self.after {
            let (dx, [gamma, beta]) = norm.backward(added.view(), &d_added)?;
            norms.extend([(AFTER[0], gamma), (AFTER[1], beta)]);
            d_added = dx;
        }
        let d = self.layer.inputs();
        let mut parameters = Vec::new();
        let ds = match &self.up {
            Up::Linear { w, .. } => {
                parameters.push(("up_w", gemm(d_added.view().transposed(), s.view())?.into_vec()));
                parameters.push(("up_b", column_sums(&d_added)));
                gemm(d_added.view(), w.view())?
            }
            Up::Scale { v } => {
                let mut product = d_added.clone();
                product.as_mut_slice().iter_mut().zip(s.as_slice()).for_each(|(x, s)| *x = *x * *s);
                parameters.push(("v", column_sums(&product)));
                for row in d_added.as_mut_slice().chunks_exact_mut(d) {
                    row.iter_mut().zip(v).for_each(|(x, v)| *x = *x * *v);
                }
                d_added
            }
            Up::Shift { .. } => {
                parameters.push(("up_b", column_sums(&d_added)));
                d_added
            }
        };
        let inner = self.layer.backward(inputs, ds.view())?;
        let mut dx = inner.dx;
        if let Some(norm) = &self.before {
            let (through, [gamma, beta]) = norm.backward(x, &dx)?;
            norms.splice(0..0, [(BEFORE[0], gamma), (BEFORE[1], beta)]);
            dx = through;
        }
        for (dx, dy) in dx.as_mut_slice().iter_mut().zip(dy.iter()) {
            *dx = *dx + dy;
        }
        parameters.insert(0, ("psi", inner.dpsi.into_vec()));
        parameters.extend(norms);
        Ok(AdapterGradients { dx, parameters })
    }

    /// The same function with Up multiplied into `psi`: one matrix `[d, width]` and a shift.
    ///
    /// # Errors
    /// If the memory cannot be had. What is normalised after Up stays so.
    pub fn merge(&self) -> Result<Self> {
        let d = self.layer.inputs();
        let psi = self.layer.psi();
        let (psi, b) = match &self.up {
            Up::Linear { w, b } => (gemm(w.view(), psi)?, b.clone()),
            Up::Scale { v } => {
                (Tensor::from_fn(psi.shape(), |[i, k]| v[i] * psi.at([i, k]))?, vec![T::ZERO; d])
            }
            Up::Shift { b } => (psi.to_tensor()?, b.clone()),
        };
        let layer = SnnkLayer::new(self.layer.map().clone(), psi)?;
        Self::new(layer, Up::Shift { b }, self.before.clone(), self.after.clone())
    }
}

/// Names of a normalisation's parameters.
const BEFORE: [&str; 2] = ["norm_before_gamma", "norm_before_beta"];
const AFTER: [&str; 2] = ["norm_after_gamma", "norm_after_beta"];

fn column_sums<T: Scalar>(x: &Tensor<T, 2>) -> Vec<T> {
    let mut sums = vec![0.0; x.shape()[1]];
    for row in x.as_slice().chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(s, x)| *s += x.to_f64());
    }
    sums.into_iter().map(T::from_f64).collect()
}
