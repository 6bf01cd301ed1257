//! The exact nuclear norm and its companions from one set of singular values.

use kc_core::{Float, Result, TensorView};

use super::MnnConfig;
use super::exact::{ExactMethod, singular_values_of_normalised};

/// What the matrix entropy is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogBase {
    /// ln d, also when N < d: the published choice.
    #[default]
    Dim,
    /// ln min(N, d): the largest value that the entropy can have, so that it can reach 1.
    MinSide,
}

/// Settings of [`spectrum`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SpectrumConfig {
    /// How the singular values are found.
    pub method: ExactMethod,
    /// What the matrix entropy is divided by.
    pub log_base: LogBase,
}

/// Quantities of the singular values `s` of the centred, row-normalised matrix; `p = s / sum s` and
/// `q = s^2 / sum s^2`. All are NaN where the matrix is undefined (zero rows under
/// [`ZeroRows::Nan`](super::ZeroRows::Nan)), and those that divide are NaN for a matrix of zeros.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SpectrumStats {
    /// Nuclear norm, `sum s`.
    pub nuclear: f64,
    /// Frobenius norm, `sqrt(sum s^2)`.
    pub frobenius: f64,
    /// Spectral norm, the largest s.
    pub spectral: f64,
    /// `(frobenius / spectral)^2`.
    pub stable_rank: f64,
    /// RankMe, `exp(-sum p ln p)`.
    pub rankme: f64,
    /// Effective rank, `exp(-sum q ln q)`.
    pub erank: f64,
    /// Schatten 4-norm, `(sum s^4)^(1/4)`.
    pub schatten4: f64,
    /// Matrix entropy, `-sum q ln q` over the logarithm of [`LogBase`]. NaN if that logarithm is 0.
    pub matrix_entropy: f64,
    /// The singular values, largest first; none where the matrix is undefined.
    pub singular_values: Vec<f64>,
    /// The method that found them: [`ExactMethod::Gram`] or [`ExactMethod::Svd`], never `Auto`.
    pub method: ExactMethod,
}

impl SpectrumStats {
    /// The quantities of given singular values (largest first) of an `N x d` matrix.
    fn of(values: Vec<f64>, method: ExactMethod, shape: [usize; 2], log_base: LogBase) -> Self {
        let nuclear: f64 = values.iter().sum();
        let squares: f64 = values.iter().map(|s| s * s).sum();
        let spectral = values.first().copied().unwrap_or(f64::NAN);
        let entropy = shannon(values.iter().map(|s| s * s / squares));
        let [rows, dim] = shape;
        let base = match log_base {
            LogBase::Dim => dim,
            LogBase::MinSide => rows.min(dim),
        };
        Self {
            nuclear,
            frobenius: squares.sqrt(),
            spectral,
            stable_rank: squares / (spectral * spectral),
            rankme: shannon(values.iter().map(|s| s / nuclear)).exp(),
            erank: entropy.exp(),
            schatten4: values.iter().map(|s| s.powi(4)).sum::<f64>().powf(0.25),
            matrix_entropy: if base > 1 { entropy / (base as f64).ln() } else { f64::NAN },
            singular_values: values,
            method,
        }
    }

    fn undefined(method: ExactMethod) -> Self {
        Self {
            nuclear: f64::NAN,
            frobenius: f64::NAN,
            spectral: f64::NAN,
            stable_rank: f64::NAN,
            rankme: f64::NAN,
            erank: f64::NAN,
            schatten4: f64::NAN,
            matrix_entropy: f64::NAN,
            singular_values: Vec::new(),
            method: if method == ExactMethod::Svd { method } else { ExactMethod::Gram },
        }
    }
}

/// Shannon entropy in nats, with 0 ln 0 = 0.
fn shannon(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|&p| p != 0.0).map(|p| -p * p.ln()).sum()
}

/// The exact quantities of `x` of shape `[N, d]`. `config.top` and `config.length` do not matter here.
pub fn spectrum<T: Float>(
    x: TensorView<'_, T, 2>,
    config: &MnnConfig,
    exact: &SpectrumConfig,
) -> Result<SpectrumStats> {
    Ok(match singular_values_of_normalised(x, config, exact.method)? {
        Some((values, method)) => SpectrumStats::of(values, method, x.shape(), exact.log_base),
        None => SpectrumStats::undefined(exact.method),
    })
}

/// The exact nuclear norm of the centred, row-normalised matrix: what [`mnn`](super::mnn()) stands in for.
pub fn nuclear_norm_exact<T: Float>(
    x: TensorView<'_, T, 2>,
    config: &MnnConfig,
    method: ExactMethod,
) -> Result<f64> {
    let exact = SpectrumConfig { method, ..Default::default() };
    Ok(spectrum(x, config, &exact)?.nuclear)
}

/// Matrix entropy: the entropy of the eigenvalues of `Z^T Z`, scaled to sum 1, over a logarithm.
pub fn matrix_entropy<T: Float>(
    x: TensorView<'_, T, 2>,
    config: &MnnConfig,
    log_base: LogBase,
) -> Result<f64> {
    let exact = SpectrumConfig { log_base, ..Default::default() };
    Ok(spectrum(x, config, &exact)?.matrix_entropy)
}

/// Diff-eRank: how much larger the effective rank of `a` is than that of `b`, for the states that two models
/// (say before and after training) give the same text.
pub fn diff_erank<A: Float, B: Float>(
    a: TensorView<'_, A, 2>,
    b: TensorView<'_, B, 2>,
    config: &MnnConfig,
    exact: &SpectrumConfig,
) -> Result<f64> {
    Ok(spectrum(a, config, exact)?.erank - spectrum(b, config, exact)?.erank)
}
