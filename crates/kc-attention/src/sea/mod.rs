//! SEA: linear attention that still has a sparse attention matrix, estimated by a small network.
//!
//! A kernel-feature linear attention reads the whole sequence; an encoder and a small convolutional network turn what it
//! read into a compressed attention matrix with `t_m` cells per query, whatever the length. The largest cells, over all
//! heads of a query together, become a mask over tokens; exact softmax attention runs on that mask alone, and its result
//! is mixed with an average of the values. The layer learns from the attention that it replaces ([`distill()`]).
//!
//! ```text
//! ctx   = f(q) (f(k)^T [place ; v]) / (f(q) sum f(k))             f: softmax features, or ReLU if causal
//! e     = GELU(LN(enc [ctx ; v]))          gates s0, s1 = scaler e
//! score = CNN(decoder e)  [H, T, t_m]      prob = softmax(score)
//! mask  = cells of the largest prob, about k tokens per query and head, stretched from t_m cells to T columns
//! out   = sigmoid(s1) sigmoid(s0) softmax(scale q k^T on the mask) v + (1 - sigmoid(s1)) average(v)
//! ```
//!
//! | | Bidirectional | Causal |
//! |---|---|---|
//! | features | softmax, `floor(d ln d / nb_factor)` | ReLU |
//! | convolutions | 3x3 over tokens and cells, half the rows | rows t-4, t-2, t only |
//! | average | values weighed by the column means of the estimate | mean of the values so far |
//! | padding | [`SeaInputs::lengths`] | none |
//! | groups of cells | all of [`Group`] | [`Group::CausalBatch`] |
//!
//! `q`, `k`, `v` are `[N, H, T, d]`, f32, or f64 for training and checks. Defaults are the paper's for BERT (`t_m` 128,
//! `k` 7); for language models it takes `t_m` 256, `k` 64, `nb_factor` 8.
//!
//! ```
//! use kc_attention::sea::{SeaConfig, SeaInputs, SeaLayer, SeaParams};
//! use kc_core::{KcRng, Tensor};
//! let config = SeaConfig { heads: 2, head_dim: 8, t_m: 16, k: 4.0, causal: true, ..SeaConfig::default() };
//! let layer = SeaLayer::new(config.clone(), SeaParams::<f32>::init(&config, 1)?)?;
//! let mut x = Tensor::zeros([1, 2, 100, 8])?;
//! KcRng::new(0, 0).fill_normal(x.as_mut_slice());
//! let whole = layer.forward(&SeaInputs::new(x.view(), x.view(), x.view()))?;
//! assert!(whole.nnz[0] < 2 * 100 * 10); // Of 2 * 100 * 100.
//!
//! // Token by token, with a state that does not grow.
//! let mut state = layer.state(1)?;
//! for t in 0..100 {
//!     let token = x.view().slice(2, t..t + 1)?;
//!     let row = layer.decode(&mut state, token, token, token)?;
//!     assert!((row[[0, 1, 0, 3]] - whole.out[[0, 1, t, 3]]).abs() < 1e-4);
//! }
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Cost
//! Causal inference runs as a stream of 32 tokens a step ([`forward`](SeaLayer::forward)), bidirectional inference in tiles
//! of 128 queries: memory `O(T H d)`, nothing of `[H, T, t_m]`. With 12 heads of 64, 256 cells, k = 64 and `nb_factor` 8 a
//! token costs 1.5 million multiply-adds, whatever the length; dense causal attention costs 0.77 thousand times the length.
//! [`Group::Head`] and [`Group::Batch`], f64, jitter, training and [`trace`](SeaLayer::trace) keep `O(H T t_m)` numbers; a
//! teacher's scores are quadratic by themselves.
//!
//! # When not to use it
//! Below about 2000 tokens dense attention is faster. Without distillation the mask is no better than chance. Padded
//! queries and keys take part in the published estimator; [`SeaConfig::mask_padding`] keeps them out.
//!
//! Source: Lee, Kim, Willette, Hwang, "SEA: Sparse Linear Attention with Estimated Attention Mask" (ICLR 2024).

mod config;
mod conv;
mod decode;
mod distill;
mod estimate;
mod loss;
mod params;
mod performer;
mod plan;
mod portable;
pub mod reference;
mod rows;
mod segments;
mod sparse;
mod stream;
mod stretch;
mod tiles;
mod topk;
mod train;
#[cfg(target_arch = "x86_64")]
mod x86;

use kc_core::math::{Real, first_non_finite};
use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut};

pub use config::{Group, SeaConfig, Span};
pub use decode::SeaState;
pub use distill::{DistillConfig, covered_mass, distill};
pub use loss::{SeaLoss, Teacher};
pub use params::{SeaParams, shapes};
pub use performer::{Features, linear_attention};
pub use sparse::{
    SparseGrads, SparseOut, sparse_attention, sparse_attention_backward, sparse_attention_with,
};
pub use stretch::stretch_mask;
pub use topk::{Kept, topk_mask};
pub use train::{Cache, SeaGrads, SeaTrace};

/// What a layer attends with.
#[derive(Debug, Clone, Copy)]
pub struct SeaInputs<'a, T: kc_core::Element> {
    /// Queries `[N, H, T, d]`.
    pub q: TensorView<'a, T, 4>,
    /// Keys, of the same shape.
    pub k: TensorView<'a, T, 4>,
    /// Values, of the same shape.
    pub v: TensorView<'a, T, 4>,
    /// Valid tokens of each batch entry, 1 to T; the rest is padding on the right. Bidirectional layers only.
    pub lengths: Option<&'a [usize]>,
    /// Queries, keys and values that only the estimator sees, if it has its own.
    pub estimator: Option<[TensorView<'a, T, 4>; 3]>,
    /// Seed of a jitter of the mask's edges by up to 0.75 tokens: for some steps of causal training.
    pub jitter: Option<u64>,
}

impl<'a, T: kc_core::Element> SeaInputs<'a, T> {
    /// Whole sequences, one set of tensors, no jitter.
    pub fn new(q: TensorView<'a, T, 4>, k: TensorView<'a, T, 4>, v: TensorView<'a, T, 4>) -> Self {
        SeaInputs { q, k, v, lengths: None, estimator: None, jitter: None }
    }
}

/// The result of a layer.
#[derive(Debug, Clone)]
pub struct SeaOut<T: kc_core::Element> {
    /// `[N, H, T, d]`
    pub out: Tensor<T, 4>,
    /// Entries of the sparse matrix of each batch entry.
    pub nnz: Vec<usize>,
}

/// A layer: settings and parameters that fit each other.
#[derive(Debug, Clone)]
pub struct SeaLayer<T = f32> {
    config: SeaConfig,
    params: SeaParams<T>,
    isa: Isa,
}

/// Inputs that fit the layer, as contiguous copies.
#[derive(Debug)]
struct Checked<T> {
    shape: [usize; 4],
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    own: Option<[Vec<T>; 3]>,
    lengths: Vec<usize>,
}

impl<T: Real> Checked<T> {
    fn estimator(&self) -> [&[T]; 3] {
        match &self.own {
            Some([q, k, v]) => [q, k, v],
            None => [&self.q, &self.k, &self.v],
        }
    }

    fn views(&self) -> Result<[TensorView<'_, T, 4>; 3]> {
        let view = |x| TensorView::from_slice(self.shape, x);
        Ok([view(&self.q)?, view(&self.k)?, view(&self.v)?])
    }
}

/// Refuses numbers that are not finite.
fn finite<T: Real>(name: &'static str, x: TensorView<'_, T, 4>) -> Result<()> {
    let found = match x.as_slice() {
        Some(data) => first_non_finite(data),
        None => x.iter().position(|x| !x.to_f64().is_finite()),
    };
    let Some(at) = found else { return Ok(()) };
    let [_, h, t, d] = x.shape();
    let index = [at / (h * t * d), at / (t * d) % h, at / d % t, at % d];
    Err(Error::not_finite(name, &index, x.at(index).to_f64()))
}

impl<T: Real> SeaLayer<T> {
    /// A layer of these settings and parameters.
    ///
    /// # Errors
    /// Bad settings; parameters of other sizes or that are not finite.
    pub fn new(config: SeaConfig, params: SeaParams<T>) -> Result<Self> {
        config.check()?;
        params.check(&config)?;
        Ok(SeaLayer { config, params, isa: Isa::best() })
    }

    /// The same layer at a given level.
    pub fn at(self, isa: Isa) -> Self {
        SeaLayer { isa, ..self }
    }

    /// The settings.
    pub fn config(&self) -> &SeaConfig {
        &self.config
    }

    /// The parameters.
    pub fn params(&self) -> &SeaParams<T> {
        &self.params
    }

    /// The parameters, to change. Their lengths must stay.
    pub fn params_mut(&mut self) -> &mut SeaParams<T> {
        &mut self.params
    }

    /// Shape and lengths of inputs that fit.
    fn dims(&self, inputs: &SeaInputs<'_, T>) -> Result<([usize; 4], Vec<usize>)> {
        let shape @ [n, h, t, d] = inputs.q.shape();
        let config = &self.config;
        if h != config.heads || d != config.head_dim {
            let want = format!("[N, {}, T, {}]", config.heads, config.head_dim);
            return Err(Error::shape("q", want, &shape));
        }
        if n == 0 || t == 0 {
            return Err(Error::empty("q"));
        }
        let own = inputs.estimator.iter().flatten();
        let all = ["q", "k", "v", "estimator q", "estimator k", "estimator v"].into_iter();
        for (name, x) in all.zip([&inputs.q, &inputs.k, &inputs.v].into_iter().chain(own)) {
            if x.shape() != shape {
                return Err(Error::shape(name, format!("{shape:?} to match q"), &x.shape()));
            }
            finite(name, *x)?;
        }
        if config.heads.checked_mul(t).is_none_or(|columns| columns > u32::MAX as usize) {
            return Err(Error::too_large("q", t as u64, u64::from(u32::MAX) / h as u64, "tokens"));
        }
        if config.causal && t > self.params.pos.len() / d {
            return Err(Error::too_large(
                "q",
                t as u64,
                (self.params.pos.len() / d) as u64,
                "tokens (rows of pos)",
            ));
        }
        let lengths = match inputs.lengths {
            None => vec![t; n],
            Some(_) if config.causal => {
                return Err(Error::argument("lengths", "none for a causal layer", "some"));
            }
            Some(lengths) => lengths.to_vec(),
        };
        if lengths.len() != n || lengths.iter().any(|&len| len == 0 || len > t) {
            return Err(Error::argument(
                "lengths",
                format!("{n} lengths of 1 to {t}"),
                format!("{lengths:?}"),
            ));
        }
        Ok((shape, lengths))
    }

    /// Copies of inputs that fit.
    fn checked(&self, inputs: &SeaInputs<'_, T>) -> Result<Checked<T>> {
        let (shape, lengths) = self.dims(inputs)?;
        let (mut q, mut k) = (inputs.q.to_vec(), inputs.k.to_vec());
        let mut own = inputs.estimator.map(|x| x.map(|x| x.to_vec()));
        if self.config.mask_padding {
            let [_, h, t, d] = shape;
            let pairs = [&mut q, &mut k].into_iter().chain(own.iter_mut().flatten().take(2));
            for x in pairs {
                for (i, head) in x.chunks_exact_mut(t * d).enumerate() {
                    head[lengths[i / h] * d..].fill(T::ZERO);
                }
            }
        }
        Ok(Checked { shape, q, k, v: inputs.v.to_vec(), own, lengths })
    }

    /// Attention: `[N, H, T, d]`. Layers of f32 whose queries choose for themselves ([`Group::CausalBatch`] and
    /// [`Group::Query`]) take the stream or the tiles, all others the pass that keeps everything.
    ///
    /// # Errors
    /// Shapes and lengths that do not fit, no tokens, more tokens than positions, numbers that are not finite.
    pub fn forward(&self, inputs: &SeaInputs<'_, T>) -> Result<SeaOut<T>> {
        let mut out = Tensor::zeros(inputs.q.shape())?;
        let nnz = self.forward_into(inputs, out.view_mut())?;
        Ok(SeaOut { out, nnz })
    }

    /// [`forward`](Self::forward) into memory of the caller, which must be contiguous. Gives the entries of the sparse
    /// matrix of each batch entry.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and an `out` of another shape or with gaps.
    pub fn forward_into(
        &self,
        inputs: &SeaInputs<'_, T>,
        mut out: TensorViewMut<'_, T, 4>,
    ) -> Result<Vec<usize>> {
        let (shape, lengths) = self.dims(inputs)?;
        if out.shape() != shape {
            return Err(Error::shape("out", format!("{shape:?}"), &out.shape()));
        }
        let Some(slice) = out.as_mut_slice() else {
            return Err(Error::unsupported("out", "a result is written to contiguous memory"));
        };
        let fast = if self.config.causal {
            self.stream(inputs, slice)?
        } else {
            self.tiles(inputs, &lengths, slice)?
        };
        if let Some(nnz) = fast {
            return Ok(nnz);
        }
        let (trace, _) = self.pass(inputs)?;
        slice.copy_from_slice(trace.out.as_slice());
        Ok(trace.probs.nnz_per_batch())
    }

    /// Attention with everything on the way: `O(N H T t_m)` numbers.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn trace(&self, inputs: &SeaInputs<'_, T>) -> Result<SeaTrace<T>> {
        Ok(self.pass(inputs)?.0)
    }
}
