//! Matrix nuclear-norm: how compressed a matrix of hidden states is, in two passes over it.
//!
//! # Idea
//!
//! The nuclear norm of the centred, row-normalised hidden states of a text tells how many directions they
//! use, but needs singular values. Li et al. replace it by the sum of the largest column norms, which costs
//! as much as reading the matrix twice. The score is meant for comparing checkpoints, layers or answers
//! without labels, and as an alarm when representations collapse during training.
//!
//! For `X` of shape `[N, d]` (tokens, hidden size; one sequence, no padding rows):
//!
//! ```text
//! mu_j   = mean_i X_ij            C = X - mu
//! Z_i    = C_i / |C_i|_2          rows; a row of zeros has no direction, see ZeroRows
//! c_j    = sqrt(sum_i Z_ij^2)     columns
//! raw    = sum of the D largest c_j,   D = min(N, d) unless given
//! score  = raw / N
//! ```
//!
//! # The surrogate is not the nuclear norm
//!
//! With all columns (`D = d`), `raw >= |Z|_*`, with equality for orthogonal columns; with fewer columns there
//! is no bound in either direction. On token states of a small encoder (d = 384) raw / exact runs from 0.46
//! (12 tokens) over 0.78 (75) to 1.34 (228); for rank 16 plus noise (1024 x 1024) it is 6.7. [`spectrum`]
//! gives the exact value and its companions from one decomposition, [`estimate_nuclear`] an estimate with
//! error bars for matrices too large for that.
//!
//! | Function | Result | Cost |
//! |---|---|---|
//! | [`mnn`] | raw and score | two reads of X; nothing of size N x d is written |
//! | [`column_norms`] | the c_j | the same |
//! | [`MnnStream`] | the same from row blocks pushed twice | memory 5 d numbers |
//! | [`mnn_backward`] | gradient with respect to X | two reads and two writes more |
//! | [`spectrum`] | exact nuclear norm, entropy, RankMe, effective and stable rank ... | n^3 with n = min(N, d) |
//! | [`estimate_nuclear`] | nuclear norm by stochastic quadrature | one read of X and 4 N d p operations a step |
//!
//! # Cost and accuracy
//!
//! `2 N d` elements are read, about `12 N d` operations done, and `O(d)` memory used per part of rows (at
//! most 64 parts): the limit is the rate at which memory is read, or arithmetic where X fits a cache. f16, bf16
//! and f32 are computed in f32 with f64 means (kept in two parts, so that offsets far larger than the spread cost
//! no digits) and f64 sums over blocks of 64 rows; scores agree with f64 to 3e-6 or better, usually 1e-7. f64 is
//! computed in f64. Columns whose share of every row is below 1e-19 may come out as zero for f32.
//!
//! The same bits come out for any number of threads. Different levels ([`Isa`]) differ by rounding.
//!
//! # When not to use it
//!
//! To compare texts of very different lengths (the score grows with length and flattens), or wherever the
//! nuclear norm itself matters: use [`spectrum`].
//!
//! # Example
//!
//! ```
//! use kc_core::{KcRng, Tensor};
//! use kc_linalg::mnn::{MnnConfig, SpectrumConfig, mnn, spectrum};
//!
//! let mut rng = KcRng::new(1, 0);
//! let x = Tensor::<f32, 2>::from_fn([20, 64], |_| rng.normal() as f32)?;
//! let config = MnnConfig::default();
//! let score = mnn(x.view(), &config)?;
//! assert_eq!((score.n_tokens, score.dim, score.top), (20, 64, 20));
//! assert_eq!(score.score, score.raw / 20.0);
//!
//! let exact = spectrum(x.view(), &config, &SpectrumConfig::default())?;
//! assert!(exact.nuclear <= 20.0 && (exact.frobenius - 20f64.sqrt()).abs() < 1e-12);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Source
//!
//! Y. Li, T. Xia, Y. Chang, Y. Wu, "Large Language Model Evaluation via Matrix Nuclear-Norm" (2024), with the
//! matrix entropy of Wei et al. (2024) as its baseline. RankMe: Garrido et al. (2023). Effective rank: Roy
//! and Vetterli (2007).

mod estimate;
mod exact;
mod grad;
mod norm;
mod normalised;
mod portable;
mod rank;
pub mod reference;
mod stream;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use estimate::{EstimateConfig, NuclearEstimate, estimate_nuclear};
pub use exact::{ExactMethod, singular_values_of_normalised};
pub use grad::{mnn_backward, mnn_backward_into};
pub use rank::{
    LogBase, SpectrumConfig, SpectrumStats, diff_erank, matrix_entropy, nuclear_norm_exact, spectrum,
};
pub use stream::{MnnNormStream, MnnStream};

use kc_core::{Error, Float, Isa, Result, TensorView};

use norm::{Hidden, Squares, with_hidden};

/// What to do with rows that are zero after centring (always so for a single token, or for equal tokens):
/// they have no direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroRows {
    /// The result is NaN, as 0/0 is in the published formula.
    #[default]
    Nan,
    /// They add nothing to the column norms. They remain tokens: N, and so D and the division by N, stay.
    Drop,
    /// [`Error::Argument`] with the first such row.
    Error,
}

/// Settings of the score; the default is the published one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MnnConfig {
    /// D: how many of the largest column norms are summed, 1 to d. `None`: min(N, d).
    pub top: Option<usize>,
    /// Rows that are zero after centring.
    pub zero_rows: ZeroRows,
    /// Subtract the column means.
    pub center: bool,
    /// Scale each row to length 1.
    pub normalize: bool,
    /// What the sum is divided by, at least 1. `None`: N.
    pub length: Option<usize>,
}

impl Default for MnnConfig {
    fn default() -> Self {
        Self { top: None, zero_rows: ZeroRows::Nan, center: true, normalize: true, length: None }
    }
}

/// The score of one matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MnnScore {
    /// The sum of the `top` largest column norms. NaN if there are zero rows, under [`ZeroRows::Nan`].
    pub raw: f64,
    /// `raw` over the length.
    pub score: f64,
    /// N: rows of the matrix, zero rows among them.
    pub n_tokens: usize,
    /// d: columns of the matrix.
    pub dim: usize,
    /// D: columns summed.
    pub top: usize,
    /// Rows that are zero after centring.
    pub zero_rows: usize,
}

/// The score of `x` of shape `[N, d]`.
///
/// Fails if `x` has no element ([`Error::Empty`]) or holds NaN or infinity ([`Error::NotFinite`] with row and
/// column), if `top` is not in 1..=d or `length` is 0 ([`Error::Argument`]).
pub fn mnn<T: Float>(x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<MnnScore> {
    mnn_with(Isa::best(), x, config)
}

/// [`mnn`] on a given level.
pub fn mnn_with<T: Float>(isa: Isa, x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<MnnScore> {
    let [rows, dim] = x.shape();
    check(rows, dim, config)?;
    let squares = with_hidden!(x, |x| squares_of(isa, x, config))?;
    Ok(score_of(&squares, rows, config))
}

/// The norms of all columns of the centred, row-normalised matrix. `config.top` and `config.length` do not
/// matter here. All are NaN if there are zero rows, under [`ZeroRows::Nan`].
pub fn column_norms<T: Float>(x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<Vec<f64>> {
    let mut out = vec![0.0; x.cols()];
    column_norms_into(x, &mut out, config)?;
    Ok(out)
}

/// [`column_norms`] into the caller's memory, of length d.
pub fn column_norms_into<T: Float>(
    x: TensorView<'_, T, 2>,
    out: &mut [f64],
    config: &MnnConfig,
) -> Result<()> {
    let [rows, dim] = x.shape();
    check_matrix(rows, dim)?;
    if out.len() != dim {
        return Err(Error::shape("out", format!("[{dim}], one number a column"), &[out.len()]));
    }
    let squares = with_hidden!(x, |x| squares_of(Isa::best(), x, config))?;
    out.copy_from_slice(&norms_of(&squares, config));
    Ok(())
}

fn squares_of<H: Hidden>(isa: Isa, x: TensorView<'_, H, 2>, config: &MnnConfig) -> Result<Squares> {
    let mean = norm::mean_for(isa, x, config)?;
    norm::squares(isa, x, &mean, config, 0)
}

fn norms_of(squares: &Squares, config: &MnnConfig) -> Vec<f64> {
    if is_undefined(squares.zero_rows, config) {
        return vec![f64::NAN; squares.sums.len()];
    }
    squares.sums.iter().map(|s| s.sqrt()).collect()
}

fn score_of(squares: &Squares, rows: usize, config: &MnnConfig) -> MnnScore {
    let dim = squares.sums.len();
    let top = config.top.unwrap_or(rows.min(dim));
    let raw =
        if is_undefined(squares.zero_rows, config) { f64::NAN } else { norm::top_sum(&squares.sums, top) };
    let score = raw / config.length.unwrap_or(rows) as f64;
    MnnScore { raw, score, n_tokens: rows, dim, top, zero_rows: squares.zero_rows }
}

/// A zero row has no direction, so that nothing is defined unless it is left out. Without normalisation it
/// is a row like any other.
fn is_undefined(zero_rows: usize, config: &MnnConfig) -> bool {
    zero_rows > 0 && config.zero_rows == ZeroRows::Nan && config.normalize
}

fn check(rows: usize, dim: usize, config: &MnnConfig) -> Result<()> {
    check_matrix(rows, dim)?;
    check_settings(dim, config)
}

fn check_matrix(rows: usize, dim: usize) -> Result<()> {
    if rows == 0 || dim == 0 { Err(Error::empty("x")) } else { Ok(()) }
}

fn check_settings(dim: usize, config: &MnnConfig) -> Result<()> {
    if let Some(top) = config.top.filter(|top| !(1..=dim).contains(top)) {
        return Err(Error::argument("top", format!("1 to {dim}, the number of columns"), top));
    }
    if config.length == Some(0) {
        return Err(Error::argument("length", "at least 1", 0));
    }
    Ok(())
}
