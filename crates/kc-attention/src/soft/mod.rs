//! Attention without softmax whose cost grows linearly with the number of tokens.
//!
//! Queries are their own keys, and a Gaussian kernel takes the place of `exp(q k)`. The kernel of all tokens with each
//! other is positive semi-definite, so a few *landmarks* `L` (patches of the image, say) describe it (Nystrom):
//!
//! ```text
//! qs = q d^(-1/4)         K1 = exp(-|qs_i - L_j|^2 / 2)  [N, m]        A = exp(-|L_i - L_j|^2 / 2)  [m, m]
//! X  = K1 (Y (K1^T V)) + conv(V)        Y ~ A^-1        normalised: Y <- D^(-1/2) Y D^(-1/2),  D = A 1
//! ```
//!
//! | Item | What it does |
//! |---|---|
//! | [`soft_attention`], [`soft_attention_into`], [`SoftConfig`] | `X` of `q`, `v` `[B, h, N, d]` on a [`Grid`] of tokens |
//! | [`soft_attention_backward`], [`soft_attention_backward_into`] | gradients by `q`, `v`, the landmarks' convolution and normalisation, the local kernels |
//! | [`SoftWorkspace`] | memory that one call leaves to the next |
//! | [`Landmark`] | convolution (the paper's), mean, maximum, tokens by chance, or given ones |
//! | [`Inverse`], [`newton_inverse()`] | 20 steps of Newton's iteration (the paper's), its backtracking form, exact, pseudo-inverse |
//! | [`gaussian_kernel`], [`gaussian_kernel_backward`], [`soft_exact`] | the kernel, its gradient, and attention through all of it: `O(N^2)` |
//! | [`SoftAttention`], [`SoftBlock`] | the layer and the transformer block, forward and backward |
//! | [`SoftVit`] | the vision backbone: four stages, from named tensors |
//!
//! ```
//! use kc_attention::soft::{Grid, Landmark, SoftConfig, soft_attention};
//! use kc_core::Tensor;
//!
//! // One head of 8 channels on a 6 x 6 grid of tokens, one landmark for every 2 x 2 of them.
//! let q = Tensor::from_fn([1, 1, 36, 8], |[_, _, i, c]| ((i * 5 + c * 3) % 7) as f32 * 0.3)?;
//! let v = Tensor::from_fn([1, 1, 36, 8], |[_, _, i, c]| ((i + c) % 5) as f32)?;
//! let config = SoftConfig::new(Grid::Image { h: 6, w: 6 }, 2);
//! let (x, cache) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config)?;
//! assert_eq!((x.shape(), cache.landmarks()?.shape()), ([1, 1, 36, 8], [1, 1, 9, 8]));
//! assert_eq!(cache.kernel()?[[0, 0, 4, 4]], 1.0);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Definitions
//! Convolution landmarks pass through layer normalisation (eps 1e-5) and exact GELU. Newton's iteration doubles an exponent with each step: an eigenvalue
//! `x` of `P` is inverted up to the factor `1 - (1 - alpha x^2)^(2^20)`. Where the kernel is ill-conditioned 20 steps are not enough for an inverse, and
//! that is part of the method: [`Inverse::Newton`] is not replaced by a solver. The gradient through any inverse is `-Y^T dY Y^T`.
//! The part of `m x m` runs in f64; distances are taken from the landmarks' centre, so a shift of all tokens costs no digits.
//!
//! Masked tokens ([`SoftConfig::mask`]) give zeros and are seen by no other; a convolution reads zeros there, means and
//! maxima leave them out, and a patch without any token that counts has no landmark. On a sequence ([`Grid::Seq`]) patches are `r` tokens in a row.
//!
//! # Cost
//! `8 N m d` operations forward and `24 N m d` forward and backward, besides `O(m^3)` per head: linear in `N` for a fixed number of landmarks,
//! quadratic for a fixed ratio, as `m = N / r^2` grows too. A large `K1` is never stored: 48 tokens at a time, distances,
//! exponentials and products stay in the first-level cache, and the second pass computes them again (or finds them, where all of them fit 8 MiB). Memory beyond inputs and result is
//! `O(m d + m^2)` per head and a few tiles per thread.
//!
//! Multiply-adds are the limit, not memory: with `m = 49`, `d = 32` and landmarks by convolution a token of a head costs 12 thousand operations
//! forward and 36 thousand forward and backward, against less than 3 kB moved. On the reference machine one core does 60 % of its multiply-adds at
//! 12544 tokens. A loop should have a [`SoftWorkspace`] and call the `_into` twins: first touches of fresh memory can cost half as much again as the work.
//!
//! # When not to use it
//! For few tokens (below a thousand or so, exact attention is as fast); for causal masks, which Nystrom's form does not
//! have; and for a model trained with softmax attention, whose weights mean something else.
//!
//! # Source
//! Lu, Yao, Zhang, Zhu, Xu, Gao, Xu, Xiang and Zhang, "SOFT: Softmax-free Transformer with Linear Complexity" (NeurIPS 2021); Lu, Zhang, Zhu, Feng and
//! Xiang, "Softmax-free Linear Transformers" (2022): normalisation and backbones. Sequences, masks, and a step length of its own for each head of a batch are additions of this crate.

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut, math};

mod block;
mod conv;
mod dense;
mod gaussian;
mod grad;
mod kernel;
mod landmark;
mod layer;
mod local;
mod newton;
mod normalize;
mod portable;
pub mod reference;
mod vit;
mod workspace;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use block::{BlockCache, BlockGrads, BlockWeights, SoftBlock};
pub use gaussian::{gaussian_kernel, gaussian_kernel_backward, soft_exact};
pub use grad::{SoftGrads, soft_attention_backward, soft_attention_backward_into};
pub use landmark::Landmark;
pub use layer::{LayerCache, LayerGrads, SoftAttention, SoftWeights};
pub use newton::{Inverse, NewtonReport, newton_inverse};
pub use portable::Scalar;
pub use vit::{SoftVit, VitSize};
pub use workspace::SoftWorkspace;

use kernel::{Kept, Panels};
use landmark::Plan;

/// The epsilon of all layer normalisations but those of the last stage of [`SoftVit`].
pub(crate) const LN_EPS: f64 = 1e-5;

/// How the tokens lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grid {
    /// Rows of an image, one after the other.
    Image {
        /// Rows.
        h: usize,
        /// Tokens of a row.
        w: usize,
    },
    /// A sequence of so many tokens.
    Seq(usize),
}

impl Grid {
    /// Rows and columns; a sequence is one row.
    pub fn sides(self) -> [usize; 2] {
        match self {
            Grid::Image { h, w } => [h, w],
            Grid::Seq(n) => [1, n],
        }
    }

    /// Rows and columns of a patch.
    pub fn patch(self, ratio: usize) -> [usize; 2] {
        match self {
            Grid::Image { .. } => [ratio, ratio],
            Grid::Seq(_) => [1, ratio],
        }
    }

    /// The number of tokens.
    ///
    /// # Errors
    /// If it does not fit a `usize`.
    pub fn tokens(self) -> Result<usize> {
        kc_core::shape::checked_len("grid", &self.sides())
    }
}

/// Settings of one call. [`SoftConfig::new`] has the paper's.
#[derive(Debug, Clone, Copy)]
pub struct SoftConfig<'a, T: Scalar> {
    /// How the tokens lie.
    pub grid: Grid,
    /// Side of a patch, which gives one landmark; at least 1 and at most the shorter side of the grid. Rows and
    /// columns that do not fill a patch are left out.
    pub ratio: usize,
    /// How the landmarks' kernel is inverted.
    pub inverse: Inverse,
    /// Symmetric normalisation, which bounds the spectrum on long sequences.
    pub norm: bool,
    /// One kernel per head `[h, k, k]`, `k` odd (`[h, 1, k]` on a sequence): a depthwise convolution of V with zero
    /// padding is added to the result.
    pub local: Option<TensorView<'a, T, 3>>,
    /// `[B, N]`: tokens where it is 0 do not count.
    pub mask: Option<TensorView<'a, u8, 2>>,
    /// More landmarks than this are refused, as the inverse costs their cube.
    pub most_landmarks: usize,
    /// Where calls in a loop find the memory of the one before.
    pub workspace: Option<&'a SoftWorkspace<T>>,
    /// The instruction level.
    pub isa: Isa,
}

impl<T: Scalar> SoftConfig<'_, T> {
    /// Newton's inverse with 20 steps and a ridge of 0.01, no normalisation, no local kernels, no mask, at most 4096
    /// landmarks, memory of its own, on the best level.
    pub fn new(grid: Grid, ratio: usize) -> Self {
        SoftConfig {
            grid,
            ratio,
            inverse: Inverse::default(),
            norm: false,
            local: None,
            mask: None,
            most_landmarks: 4096,
            workspace: None,
            isa: Isa::best(),
        }
    }
}

/// Sizes of a call, and what has been checked about it.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) tokens: usize,
    pub(crate) channels: usize,
    /// Rows and columns of the grid.
    pub(crate) sides: [usize; 2],
    /// `d^(-1/4)`
    pub(crate) scale: f64,
}

impl Shape {
    /// Checks everything that a forward pass relies on.
    fn of<T: Scalar>(
        q: TensorView<'_, T, 4>,
        v: TensorView<'_, T, 4>,
        config: &SoftConfig<'_, T>,
    ) -> Result<Self> {
        let [batch, heads, tokens, channels] = q.shape();
        if v.shape() != q.shape() {
            return Err(Error::shape("v", format!("{:?} to match q", q.shape()), &v.shape()));
        }
        let sides = config.grid.sides();
        if config.grid.tokens()? != tokens {
            return Err(Error::shape("grid", format!("{tokens} tokens, as q {:?} has", q.shape()), &sides));
        }
        if tokens == 0 || channels == 0 {
            return Err(Error::empty("q"));
        }
        let patch = config.grid.patch(config.ratio);
        if config.ratio == 0 || patch[0] > sides[0] || patch[1] > sides[1] {
            let most = if sides[0] == 1 { sides[1] } else { sides[0].min(sides[1]) };
            return Err(Error::argument(
                "ratio",
                format!("1 to {most} for a grid of {sides:?}"),
                config.ratio,
            ));
        }
        if let Some(mask) = config.mask
            && mask.shape() != [batch, tokens]
        {
            return Err(Error::shape("mask", format!("[{batch}, {tokens}]"), &mask.shape()));
        }
        config.inverse.check()?;
        local::check(config.local, heads, config.grid)?;
        check_finite("q", q)?;
        check_finite("v", v)?;
        let scale = (channels as f64).powf(-0.25);
        Ok(Shape { batch, heads, tokens, channels, sides, scale })
    }

    /// Tokens of a piece of work, a multiple of a tile: at most 16 pieces a head, so that partial sums stay small.
    pub(crate) fn piece(&self) -> usize {
        (self.tokens.div_ceil(16).max(384)).div_ceil(kernel::TOKENS) * kernel::TOKENS
    }

    /// Batch entries times heads.
    pub(crate) fn all_heads(&self) -> usize {
        self.batch * self.heads
    }
}

/// All elements finite, or an error with the position of the first that is not.
pub(crate) fn check_finite<T: Scalar, const N: usize>(
    name: &'static str,
    x: TensorView<'_, T, N>,
) -> Result<()> {
    if let Some(all) = x.as_slice() {
        match math::first_non_finite(all) {
            None => return Ok(()),
            Some(at) => return Err(not_finite(name, x, at)),
        }
    }
    match x.iter().position(|value| !value.to_f64().is_finite()) {
        None => Ok(()),
        Some(at) => Err(not_finite(name, x, at)),
    }
}

fn not_finite<T: Scalar, const N: usize>(name: &'static str, x: TensorView<'_, T, N>, flat: usize) -> Error {
    let (mut index, mut rest) = ([0; N], flat);
    for axis in (0..N).rev() {
        index[axis] = rest % x.shape()[axis];
        rest /= x.shape()[axis];
    }
    Error::not_finite(name, &index, x.at(index).to_f64())
}

/// Head `head` of batch entry `entry`, `[N, d]`.
pub(crate) fn head_of<'a, T: Scalar>(
    x: TensorView<'a, T, 4>,
    entry: usize,
    head: usize,
) -> TensorView<'a, T, 2> {
    x.outer(entry).matrix(head)
}

/// What a head keeps from the forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Head<T: Scalar> {
    /// The number of landmarks, `m`.
    pub(crate) count: usize,
    /// Landmarks, `[m, d]`.
    pub(crate) landmarks: Vec<T>,
    /// What the convolution gave, before normalisation; empty for other landmarks.
    pub(crate) before: Vec<T>,
    /// The landmarks' kernel, `[m, m]`.
    pub(crate) a: Vec<f64>,
    /// Its inverse, before normalisation.
    pub(crate) y: Vec<f64>,
    /// `1 / sqrt(A 1)`; empty without normalisation.
    pub(crate) e: Vec<f64>,
    /// `K1^T V`, `[m, d]`.
    pub(crate) sums: Vec<f64>,
    pub(crate) report: NewtonReport,
}

impl<T: Scalar> Head<T> {
    /// The inverse that multiplies: normalised if there is a normalisation.
    pub(crate) fn inverse(&self) -> Vec<f64> {
        normalize::applied(&self.y, &self.e)
    }
}

/// What the backward pass needs from the forward pass: views of its inputs, and per head the landmarks, their kernel and its inverse.
#[derive(Debug, Clone)]
pub struct SoftCache<'a, T: Scalar> {
    pub(crate) q: TensorView<'a, T, 4>,
    pub(crate) v: TensorView<'a, T, 4>,
    pub(crate) landmark: Landmark<'a, T>,
    pub(crate) config: SoftConfig<'a, T>,
    pub(crate) state: State<T>,
}

/// The part of a [`SoftCache`] that owns its data.
#[derive(Debug, Clone)]
pub(crate) struct State<T: Scalar> {
    pub(crate) shape: Shape,
    pub(crate) plan: Plan<T>,
    pub(crate) heads: Vec<Head<T>>,
    /// The kernels of a small call.
    kept: Option<Kept<T>>,
}

impl<T: Scalar> SoftCache<'_, T> {
    /// The landmarks `[B, h, m, d]`; zeros for patches without tokens.
    pub fn landmarks(&self) -> Result<Tensor<T, 4>> {
        let (shape, m) = (&self.state.shape, self.state.plan.count());
        let mut out = Tensor::zeros([shape.batch, shape.heads, m, shape.channels])?;
        for (i, head) in self.state.heads.iter().enumerate() {
            let kept = self.state.plan.kept(i / shape.heads.max(1));
            for (&j, row) in kept.iter().zip(head.landmarks.chunks_exact(shape.channels)) {
                let at = (i * m + j) * shape.channels;
                out.as_mut_slice()[at..at + shape.channels].copy_from_slice(row);
            }
        }
        Ok(out)
    }

    /// The landmarks' kernel `A` `[B, h, m, m]`; zeros for patches without tokens.
    pub fn kernel(&self) -> Result<Tensor<f64, 4>> {
        self.squares(|head| head.a.clone())
    }

    /// The inverse that multiplied, after normalisation if there was one, `[B, h, m, m]`; zeros for patches without tokens.
    pub fn inverse(&self) -> Result<Tensor<f64, 4>> {
        self.squares(Head::inverse)
    }

    /// How the inverse went, for each batch entry and head.
    pub fn reports(&self) -> Vec<NewtonReport> {
        self.state.heads.iter().map(|head| head.report).collect()
    }

    fn squares(&self, of: impl Fn(&Head<T>) -> Vec<f64>) -> Result<Tensor<f64, 4>> {
        let (shape, m) = (&self.state.shape, self.state.plan.count());
        let mut out = Tensor::zeros([shape.batch, shape.heads, m, m])?;
        for (i, head) in self.state.heads.iter().enumerate() {
            let kept = self.state.plan.kept(i / shape.heads.max(1));
            let square = of(head);
            for (&r, row) in kept.iter().zip(square.chunks_exact(kept.len().max(1))) {
                for (&c, &value) in kept.iter().zip(row) {
                    out.as_mut_slice()[(i * m + r) * m + c] = value;
                }
            }
        }
        Ok(out)
    }
}

/// Softmax-free attention of `q`, `v` `[B, h, N, d]` (f32 or f64, any strides): the result `[B, h, N, d]`, and what the backward pass needs.
///
/// # Errors
/// `Shape` for tokens that are not those of the grid, `v` unlike `q`, and parameters of another shape; `Argument` for a ratio of 0 or beyond the grid, even
/// local kernels, or settings of the inverse out of range; `NotFinite` with the position; `TooLarge` for more landmarks than allowed (a larger ratio gives
/// fewer); `NotConverged` with head and residual if Newton's iteration diverges; `Singular` if an exact inverse does not exist.
pub fn soft_attention<'a, T: Scalar>(
    q: TensorView<'a, T, 4>,
    v: TensorView<'a, T, 4>,
    landmark: &Landmark<'a, T>,
    config: &SoftConfig<'a, T>,
) -> Result<(Tensor<T, 4>, SoftCache<'a, T>)> {
    let shape = Shape::of(q, v, config)?;
    let (plan, heads) = landmarks_of(&shape, q, landmark, config)?;
    // Only now, as the inverses need memory too.
    let mut out = Tensor::zeros(q.shape())?;
    let state = forward(shape, plan, heads, [q, v], config, out.view_mut())?;
    Ok((out, SoftCache { q, v, landmark: *landmark, config: *config, state }))
}

/// As [`soft_attention`], into `out` `[B, h, N, d]` (any strides).
pub fn soft_attention_into<'a, T: Scalar>(
    q: TensorView<'a, T, 4>,
    v: TensorView<'a, T, 4>,
    landmark: &Landmark<'a, T>,
    config: &SoftConfig<'a, T>,
    out: TensorViewMut<'_, T, 4>,
) -> Result<SoftCache<'a, T>> {
    let state = forward_state(q, v, landmark, config, out)?;
    Ok(SoftCache { q, v, landmark: *landmark, config: *config, state })
}

/// As [`soft_attention_into`], without holding on to the inputs.
pub(crate) fn forward_state<T: Scalar>(
    q: TensorView<'_, T, 4>,
    v: TensorView<'_, T, 4>,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
    out: TensorViewMut<'_, T, 4>,
) -> Result<State<T>> {
    let shape = Shape::of(q, v, config)?;
    if out.shape() != q.shape() {
        return Err(Error::shape("out", format!("{:?}", q.shape()), &out.shape()));
    }
    let (plan, heads) = landmarks_of(&shape, q, landmark, config)?;
    forward(shape, plan, heads, [q, v], config, out)
}

/// Landmarks of every head, their kernels and inverses.
fn landmarks_of<T: Scalar>(
    shape: &Shape,
    q: TensorView<'_, T, 4>,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
) -> Result<(Plan<T>, Vec<Head<T>>)> {
    let mut plan = Plan::of(shape, landmark, config)?;
    let found = kc_core::par::map_chunks(shape.all_heads(), 1, |one| {
        let (entry, head) = (one.start / shape.heads, one.start % shape.heads);
        prepare(shape, &plan, entry, head, head_of(q, entry, head), landmark, config)
    });
    let heads = found.into_iter().collect::<Result<Vec<Head<T>>>>()?;
    plan.drop_weights();
    Ok((plan, heads))
}

/// The two passes over the tokens.
fn forward<T: Scalar>(
    shape: Shape,
    plan: Plan<T>,
    mut heads: Vec<Head<T>>,
    [q, v]: [TensorView<'_, T, 4>; 2],
    config: &SoftConfig<'_, T>,
    mut out: TensorViewMut<'_, T, 4>,
) -> Result<State<T>> {
    let panels: Vec<Panels<T>> = heads.iter().map(|h| Panels::of(&h.landmarks, shape.channels)).collect();
    let inputs = kernel::Inputs { shape: &shape, q, v, mask: config.mask, isa: config.isa };
    let mut kept = Kept::room(&inputs, &panels, config.workspace)?;
    let sums = match &mut kept {
        Some(room) => kernel::sums_keeping(&inputs, &panels, v, room),
        None => kernel::sums(&inputs, &panels, v, None),
    };
    for (head, sums) in heads.iter_mut().zip(sums) {
        head.sums = sums;
    }
    let weights = heads
        .iter()
        .map(|head| normalize::product(&head.inverse(), &head.sums, shape.channels))
        .collect::<Result<Vec<Vec<f64>>>>()?;
    kernel::apply(&inputs, &panels, &weights, kept.as_ref(), out.reborrow())?;
    if let Some(kernels) = config.local {
        local::add(&inputs, kernels, out)?;
    }
    Ok(State { shape, plan, heads, kept })
}

/// Landmarks of a head, their kernel and its inverse.
fn prepare<T: Scalar>(
    shape: &Shape,
    plan: &Plan<T>,
    entry: usize,
    head: usize,
    q: TensorView<'_, T, 2>,
    landmark: &Landmark<'_, T>,
    config: &SoftConfig<'_, T>,
) -> Result<Head<T>> {
    let (landmarks, before) = landmark::of_head(shape, plan, [entry, head], q, landmark, config)?;
    let a = gaussian::square(config.isa, &landmarks, shape.channels);
    let m = landmarks.len() / shape.channels;
    let (y, report) = newton::invert(config.isa, &a, m, &config.inverse).map_err(|error| match error {
        Error::NotConverged { iterations, residual, .. } => Error::NotConverged {
            what: format!("inverse of head {head} of batch entry {entry}").into(),
            iterations,
            residual,
        },
        other => other,
    })?;
    let e = if config.norm { normalize::factors(&a, m) } else { Vec::new() };
    Ok(Head { count: m, landmarks, before, a, y, e, sums: Vec::new(), report })
}
