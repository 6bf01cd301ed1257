//! Rewrites of neighbouring layers that leave their product as it is and make the weights easier to quantise.
//!
//! All of them divide one layer by a factor per channel and multiply the next one with it, in f64, once.

use kc_core::{Error, Result, Tensor, TensorView};

use super::DequantMode;
use super::portable::code_of;
use super::weights::{FireqWeights, WeightSpec};
use crate::rows::Rows;

/// Where the factor of an input channel `j` of `W` comes from, for a constant `c`. A channel of zeros gets 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FactorKind {
    /// `c`
    Const,
    /// `c / max_n |w_nj|`
    AbsMax,
    /// `c / mean_n |w_nj|`
    #[default]
    AbsMean,
}

impl FactorKind {
    /// All of them.
    pub const ALL: [FactorKind; 3] = [FactorKind::Const, FactorKind::AbsMax, FactorKind::AbsMean];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            FactorKind::Const => "const",
            FactorKind::AbsMax => "absmax",
            FactorKind::AbsMean => "absmean",
        }
    }
}

/// What stands before the layers whose inputs are scaled. Only something linear can take the inverse factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Block {
    /// Normalisation before the layers, a gate of two linear layers between them: Llama.
    #[default]
    PreNormGated,
    /// Normalisation before the layers, GELU between them.
    PreNormGelu,
    /// The residual stream reads the normalised values too, GELU between the layers: BERT.
    PostNorm,
}

impl Block {
    fn norm_takes_factors(self) -> Result<()> {
        if self == Block::PostNorm {
            let reason =
                "the residual stream reads the normalised values; factors in the norm would change it";
            return Err(Error::unsupported("scaling into a post-norm", reason));
        }
        Ok(())
    }

    fn gate_takes_factors(self) -> Result<()> {
        if self != Block::PreNormGated {
            let reason = "GELU is not linear; factors before it cannot be undone behind it";
            return Err(Error::unsupported("scaling across GELU", reason));
        }
        Ok(())
    }
}

/// How [`scale_mlp`] scales. The default is that of the published run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpConfig {
    /// Where factors come from.
    pub kind: FactorKind,
    /// The constant of the inputs of `up` and `gate`; 0 leaves them.
    pub up_gate: f64,
    /// The constant of the inputs of `down`; 0 leaves them.
    pub down: f64,
    /// What the layers stand in.
    pub block: Block,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { kind: FactorKind::default(), up_gate: 0.0096, down: 0.015, block: Block::default() }
    }
}

/// The weights of a gated block: `down (silu(gate n) * (up n))` with `n = norm * x`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// `[D]`
    pub norm: Tensor<f64, 1>,
    /// `[H, D]`
    pub up: Tensor<f64, 2>,
    /// `[H, D]`
    pub gate: Tensor<f64, 2>,
    /// `[D, H]`
    pub down: Tensor<f64, 2>,
    /// Factors of the inputs of `up` and `gate`, `[D]`.
    pub s1: Vec<f64>,
    /// Factors of the inputs of `down`, `[H]`.
    pub s2: Vec<f64>,
}

/// Scales a gated block: `norm / s1`, `gate s1`, `up s1 / s2` (rows), `down s2`, so that nothing but rounding changes.
///
/// # Errors
/// `Shape` unless the parts fit; `NotFinite`; `Argument` for a negative constant; `Unsupported` where the block has no
/// linear place for the inverse factors.
pub fn scale_mlp(
    norm: TensorView<'_, f64, 1>,
    up: TensorView<'_, f64, 2>,
    gate: TensorView<'_, f64, 2>,
    down: TensorView<'_, f64, 2>,
    config: &MlpConfig,
) -> Result<Mlp> {
    let [h, d] = up.shape();
    expect("gate", gate.shape(), [h, d])?;
    expect("down", down.shape(), [d, h])?;
    if norm.shape() != [d] {
        return Err(Error::shape("norm", format!("[{d}] to match up"), &norm.shape()));
    }
    check_finite("norm", norm)?;
    for (name, w) in [("up", up), ("gate", gate), ("down", down)] {
        check_finite(name, w)?;
    }
    check_constant("up_gate", config.up_gate)?;
    check_constant("down", config.down)?;
    if config.up_gate != 0.0 {
        config.block.norm_takes_factors()?;
    }
    if config.down != 0.0 {
        config.block.gate_takes_factors()?;
    }
    let s1 = factors(&[up, gate], config.kind, config.up_gate);
    let s2 = factors(&[down], config.kind, config.down);
    let ones = vec![1.0; h];
    Ok(Mlp {
        norm: Tensor::from_fn([d], |[j]| norm.at([j]) / s1[j])?,
        up: scaled(up, &s2, &s1)?,
        gate: scaled(gate, &ones, &s1)?,
        down: scaled(down, &vec![1.0; d], &s2)?,
        s1,
        s2,
    })
}

/// How many heads read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads, a divisor of `heads`.
    pub kv_heads: usize,
}

impl Heads {
    /// Query heads of a key/value head.
    ///
    /// # Errors
    /// `Argument` unless `kv_heads` divides `heads`.
    pub fn group(self) -> Result<usize> {
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a multiple of {} key/value heads", self.kv_heads);
            return Err(Error::argument("heads", expected, self.heads));
        }
        Ok(self.heads / self.kv_heads)
    }
}

/// How [`scale_vo`] scales. The default is that of the published run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoConfig {
    /// Where factors come from.
    pub kind: FactorKind,
    /// The constant of the inputs of `o`; 0 leaves them.
    pub o: f64,
    /// Multiplies `v` and divides `o`.
    pub v_mul: f64,
}

impl Default for VoConfig {
    fn default() -> Self {
        Self { kind: FactorKind::default(), o: 0.0, v_mul: 0.9 }
    }
}

/// Scales value `[KVH hd, D]` and output `[D', H hd]` projections. Returns both and what each row of `v` was divided by;
/// a bias of `v` must be too.
///
/// First `v_mul` goes from `o` to `v`. Then a row `(kv, d)` of `v` is divided by the mean over the query heads `h` that
/// read `kv` of the factors of the columns `(h, d)` of `o`, which are multiplied with it.
///
/// # Errors
/// `Argument` unless `kv_heads` divides `heads`, for a negative constant, or a `v_mul` that is not positive; `Shape`
/// unless the parts fit; `NotFinite`.
pub fn scale_vo(
    v: TensorView<'_, f64, 2>,
    o: TensorView<'_, f64, 2>,
    heads: Heads,
    config: &VoConfig,
) -> Result<(Tensor<f64, 2>, Tensor<f64, 2>, Vec<f64>)> {
    let group = heads.group()?;
    let [rows, _] = v.shape();
    if !rows.is_multiple_of(heads.kv_heads) {
        return Err(Error::shape("v", format!("rows in {} heads", heads.kv_heads), &v.shape()));
    }
    let hd = rows / heads.kv_heads;
    expect("o", o.shape(), [o.rows(), heads.heads * hd])?;
    check_finite("v", v)?;
    check_finite("o", o)?;
    check_constant("o", config.o)?;
    if !(config.v_mul.is_finite() && config.v_mul > 0.0) {
        return Err(Error::argument("v_mul", "a positive number", config.v_mul));
    }
    let o = Tensor::from_fn(o.shape(), |[n, c]| o.at([n, c]) / config.v_mul)?;
    let columns = factors(&[o.view()], config.kind, config.o);
    let mean = |row: usize| {
        let (kv, d) = (row / hd, row % hd);
        let sum: f64 = (kv * group..(kv + 1) * group).map(|h| columns[h * hd + d]).sum();
        sum / group as f64
    };
    let of_v: Vec<f64> = (0..rows).map(|row| mean(row) / config.v_mul).collect();
    let of_o: Vec<f64> = (0..heads.heads * hd).map(|c| mean(c / hd / group * hd + c % hd)).collect();
    let v = scaled(v, &of_v, &vec![1.0; v.cols()])?;
    let o = scaled(o.view(), &vec![1.0; o.shape()[0]], &of_o)?;
    Ok((v, o, of_v))
}

/// How [`scale_qkv`] scales. The published run leaves these layers alone.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct QkvConfig {
    /// Where factors come from.
    pub kind: FactorKind,
    /// The constant; 0 leaves everything.
    pub constant: f64,
    /// What the layers stand in.
    pub block: Block,
}

/// Scales the inputs of query, key and value projections `[*, D]` into the normalisation `[D]` before them. Returns the
/// norm, the projections in their order, and the factors.
///
/// # Errors
/// As [`scale_mlp`].
#[expect(clippy::type_complexity, reason = "a vector, matrices and their factors")]
pub fn scale_qkv(
    norm: TensorView<'_, f64, 1>,
    qkv: [TensorView<'_, f64, 2>; 3],
    config: &QkvConfig,
) -> Result<(Tensor<f64, 1>, [Tensor<f64, 2>; 3], Vec<f64>)> {
    let [d] = norm.shape();
    check_finite("norm", norm)?;
    for (name, w) in ["q", "k", "v"].into_iter().zip(qkv) {
        expect(name, w.shape(), [w.rows(), d])?;
        check_finite(name, w)?;
    }
    check_constant("constant", config.constant)?;
    if config.constant != 0.0 {
        config.block.norm_takes_factors()?;
    }
    let s = factors(&qkv, config.kind, config.constant);
    let [q, k, v] = qkv;
    let column = |w: TensorView<'_, f64, 2>| scaled(w, &vec![1.0; w.rows()], &s);
    let out = [column(q)?, column(k)?, column(v)?];
    Ok((Tensor::from_fn([d], |[j]| norm.at([j]) / s[j])?, out, s))
}

/// The factors of the input channels of matrices that read the same input; all 1 for a constant of 0.
fn factors(matrices: &[TensorView<'_, f64, 2>], kind: FactorKind, c: f64) -> Vec<f64> {
    let columns = matrices.first().map_or(0, |w| w.cols());
    if c == 0.0 {
        return vec![1.0; columns];
    }
    let rows: usize = matrices.iter().map(|w| w.rows()).sum();
    let factor = |j: usize| {
        let size = matrices.iter().flat_map(|w| (0..w.rows()).map(move |n| w.at([n, j]).abs()));
        let of = match kind {
            FactorKind::Const => return c,
            FactorKind::AbsMax => size.fold(0.0, f64::max),
            FactorKind::AbsMean => size.sum::<f64>() / rows as f64,
        };
        if of == 0.0 { 1.0 } else { c / of }
    };
    (0..columns).map(factor).collect()
}

/// `w[n, j] columns[j] / rows[n]`
fn scaled(w: TensorView<'_, f64, 2>, rows: &[f64], columns: &[f64]) -> Result<Tensor<f64, 2>> {
    Tensor::from_fn(w.shape(), |[n, j]| w.at([n, j]) * columns[j] / rows[n])
}

fn expect(name: &'static str, got: [usize; 2], want: [usize; 2]) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::shape(name, format!("{want:?}"), &got)) }
}

fn check_constant(name: &'static str, c: f64) -> Result<()> {
    if c.is_finite() && c >= 0.0 { Ok(()) } else { Err(Error::argument(name, "0 or a positive number", c)) }
}

fn check_finite<const N: usize>(name: &'static str, x: TensorView<'_, f64, N>) -> Result<()> {
    match x.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        Some((at, value)) => Err(Error::not_finite(name, &[at], value)),
        None => Ok(()),
    }
}

/// What [`awq_search`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct AwqChoice {
    /// The exponent.
    pub ratio: f64,
    /// The factor of each input channel: multiply the columns of `w` with it, and divide what comes before.
    pub factors: Vec<f64>,
    /// The squared error of the outputs for each exponent of [`RATIOS`].
    pub errors: [f64; 4],
}

/// The exponents that [`awq_search`] tries.
pub const RATIOS: [f64; 4] = [0.0, 0.3, 0.6, 0.9];

/// Chooses factors `mean_t |x_tj|^r` for the input channels of `w` `[N, K]` by the error of the outputs on samples `x`
/// `[T, K]`. A channel without input gets 1.
///
/// # Errors
/// `Shape` unless both have K columns; `Empty` without samples; `NotFinite`.
pub fn awq_search(
    w: TensorView<'_, f32, 2>,
    x: TensorView<'_, f32, 2>,
    spec: &WeightSpec,
) -> Result<AwqChoice> {
    let ([n, k], [t, columns]) = (w.shape(), x.shape());
    if columns != k {
        return Err(Error::shape("x", format!("[T, {k}] to match w"), &x.shape()));
    }
    if t == 0 {
        return Err(Error::empty("x"));
    }
    check_samples(x)?;
    let mean = |j: usize| (0..t).map(|i| f64::from(x.at([i, j]).abs())).sum::<f64>() / t as f64;
    let means: Vec<f64> = (0..k).map(mean).collect();
    let mut best: Option<(f64, f64, Vec<f64>)> = None;
    let mut errors = [0.0; 4];
    for (ratio, error) in RATIOS.into_iter().zip(&mut errors) {
        let factors: Vec<f64> = means.iter().map(|&m| if m == 0.0 { 1.0 } else { m.powf(ratio) }).collect();
        let scaled = Tensor::from_fn([n, k], |[i, j]| (f64::from(w.at([i, j])) * factors[j]) as f32)?;
        let back = FireqWeights::quantize(scaled.view(), spec)?.dequantize(DequantMode::Exact)?;
        let gap = Tensor::from_fn([n, k], |[i, j]| {
            (f64::from(w.at([i, j])) - f64::from(back[[i, j]]) / factors[j]) as f32
        })?;
        let outputs = kc_gemm::gemm(x, gap.view().transposed())?;
        *error = outputs.as_slice().iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        if best.as_ref().is_none_or(|(least, ..)| *error < *least) {
            best = Some((*error, ratio, factors));
        }
    }
    let (_, ratio, factors) = best.unwrap_or_default();
    Ok(AwqChoice { ratio, factors, errors })
}

/// Clips every group of `w` `[N, K]` at the factor `(30 + i) / 40`, `i` = 10 to 1, of its largest magnitude that gives
/// the least `sum_t (x_t . (w - w^))^2` over samples `x` `[T, K]`. Returns the clipped weights, which quantise to `w^`
/// with the same spec, and the factors `[N, G]`; the larger of equals.
///
/// # Errors
/// As [`awq_search`], and as [`FireqWeights::quantize`].
pub fn clip_weights(
    w: TensorView<'_, f32, 2>,
    x: TensorView<'_, f32, 2>,
    spec: &WeightSpec,
) -> Result<(Tensor<f32, 2>, Tensor<f32, 2>)> {
    let ([n, k], [t, columns]) = (w.shape(), x.shape());
    if columns != k {
        return Err(Error::shape("x", format!("[T, {k}] to match w"), &x.shape()));
    }
    check_samples(x)?;
    let sigma = FireqWeights::quantize(w, spec)?.per_tensor();
    let group = spec.group.len(k)?;
    let (rows, samples) = (Rows::of(w)?, Rows::of(x)?);
    let mut clipped = w.to_tensor()?;
    let mut chosen = Tensor::zeros([n, k.div_ceil(group)])?;
    for i in 0..n {
        for (g, start) in (0..k).step_by(group).enumerate() {
            let part = start..k.min(start + group);
            let weights = &rows.row(i)[part.clone()];
            let top = weights.iter().fold(0.0f32, |top, w| top.max(w.abs()));
            let error = |limit: f32| -> f64 {
                let s = spec.scale_type.scale(limit * sigma, 7.0);
                let gap =
                    |w: f32| f64::from(w) - f64::from(code_of(w.clamp(-limit, limit) * sigma, s) * s / sigma);
                let gaps: Vec<f64> = weights.iter().map(|w| gap(*w)).collect();
                let dot =
                    |row: &[f32]| -> f64 { row.iter().zip(&gaps).map(|(x, gap)| f64::from(*x) * gap).sum() };
                (0..t).map(|t| dot(&samples.row(t)[part.clone()])).map(|y| y * y).sum()
            };
            let mut best = (f64::INFINITY, 1.0);
            for step in (1..=10u8).rev() {
                let factor = (30.0 + f32::from(step)) / 40.0;
                let error = error(factor * top);
                if error < best.0 {
                    best = (error, factor);
                }
            }
            let limit = best.1 * top;
            chosen[[i, g]] = best.1;
            clipped.as_mut_slice()[i * k..][part].iter_mut().for_each(|w| *w = w.clamp(-limit, limit));
        }
    }
    Ok((clipped, chosen))
}

fn check_samples(x: TensorView<'_, f32, 2>) -> Result<()> {
    match x.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let index = [at / x.cols(), at % x.cols()];
            Err(Error::not_finite("x", &index, f64::from(x.at(index))))
        }
        None => Ok(()),
    }
}
