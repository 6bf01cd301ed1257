//! Linear layers: the integer product with the column factors folded into the weights, its simulation, and
//! the two usual rivals.

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut};
use kc_gemm::{PackedI8, gemm_i8_scaled, gemm_into};

use super::{Columns, CrossCodes, CrossSpec, RowFactor, check_alpha, encode, quantize_into};
use crate::qtensor::QTensor;
use crate::rows::Rows;

/// Which product a [`CrossLinear`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// The paper's simulation: activations and weights are quantised separately, dequantised, and multiplied
    /// in f32. Tells what the codes cost; saves nothing.
    Fake,
    /// Integers: weights `d_j w_nj` are quantised, codes are multiplied in i32 within a group, and row and
    /// group scales are applied in f32.
    #[default]
    Folded,
    /// One step per token (`alpha = 1`), in integers: what most int8 kernels do.
    PerToken,
    /// Integers with SmoothQuant's factors `d_j = c_j^a / max_n|w_nj|^(1-a)`, `a` = `alpha`.
    SmoothQuant,
}

impl Mode {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Fake => "fake",
            Mode::Folded => "folded",
            Mode::PerToken => "per-token",
            Mode::SmoothQuant => "smoothquant",
        }
    }
}

/// How a [`CrossLinear`] quantises. The default is that of [`Mode::Folded`].
#[derive(Debug, Clone, PartialEq)]
pub struct LinearConfig {
    /// Which product.
    pub mode: Mode,
    /// The activations. [`Mode::PerToken`] uses its bits only.
    pub spec: CrossSpec,
    /// Bits of a weight, 2 to 8.
    pub weight_bits: u8,
    /// Columns that share a weight scale; 0 for whole rows.
    pub group: usize,
    /// Cross-quantises the weights too, with this exponent for their rows against their columns.
    /// [`Mode::Fake`] only, and with `group` 0.
    pub weight_alpha: Option<f64>,
}

impl LinearConfig {
    /// 8-bit weights and activations with what suits the mode: `alpha` 0.15 and absmax rows for the
    /// simulation, 0.5 and tight rows for folded products and SmoothQuant, 1 for per-token.
    pub fn for_mode(mode: Mode) -> Self {
        let (alpha, row) = match mode {
            Mode::Fake => (0.15, RowFactor::Absmax),
            Mode::Folded | Mode::SmoothQuant => (0.5, RowFactor::Tight),
            Mode::PerToken => (1.0, RowFactor::Absmax),
        };
        let spec = CrossSpec { alpha, row, ..CrossSpec::default() };
        Self { mode, spec, weight_bits: 8, group: 0, weight_alpha: None }
    }
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self::for_mode(Mode::default())
    }
}

/// A linear layer `Y = X W^T + bias` with quantised weights.
///
/// With static columns everything about the weights is done once. With dynamic columns a folded layer
/// quantises its weights again in every call, `O(N K)`, because the factors are not known before: see
/// [`refolds`](Self::refolds).
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::crossquant::{ColumnStats, Columns, CrossLinear, CrossSpec, LinearConfig, Mode};
/// let (w, x) = ([0.5f32, -0.25, 1.0, 2.0], [1.0f32, -3.0, 0.5, 2.0]);
/// let (w, x) = (TensorView::from_slice([2, 2], &w)?, TensorView::from_slice([2, 2], &x)?);
/// let mut stats = ColumnStats::new(2);
/// stats.observe(x)?;
///
/// let mut config = LinearConfig::for_mode(Mode::Folded);
/// config.spec.columns = Columns::Static(stats.maxima().to_vec());
/// let layer = CrossLinear::new(w, Some(&[0.0, 1.0]), &config)?;
/// let y = layer.forward(x)?;
/// assert!((y.as_slice()[1] - -4.0).abs() < 0.05 && !layer.refolds());
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct CrossLinear {
    config: LinearConfig,
    shape: [usize; 2],
    weights: Weights,
    bias: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Weights {
    /// Dequantised, for the simulation.
    Simulated(Tensor<f32, 2>),
    /// Folded once.
    Folded { factors: Vec<f32>, integers: Integers },
    /// As given, to be folded in every call; and their column maxima for SmoothQuant.
    Waiting { weights: Tensor<f32, 2>, maxima: Vec<f32> },
}

/// Weights ready for the integer product.
#[derive(Debug)]
struct Integers {
    packed: PackedI8,
    scales: Tensor<f32, 2>,
}

impl Integers {
    fn of(quantized: &QTensor) -> Result<Self> {
        let packed = PackedI8::pack(quantized.codes(), quantized.group())?;
        Ok(Self { packed, scales: quantized.scales().to_tensor()? })
    }
}

impl CrossLinear {
    /// Quantises the weights `w` `[N, K]` with an optional bias `[N]`.
    ///
    /// # Errors
    /// `NotFinite` for a weight or bias that is NaN or infinite, `Empty` for `N` or `K` of 0, `Shape` for a
    /// bias or static columns of another length, `Argument` for bits or exponents out of range and for
    /// `weight_alpha` where it cannot be used.
    pub fn new(w: TensorView<'_, f32, 2>, bias: Option<&[f32]>, config: &LinearConfig) -> Result<Self> {
        let [n, k] = w.shape();
        if n == 0 || k == 0 {
            return Err(Error::empty("w"));
        }
        config.spec.check(k)?;
        crate::round::qmax(config.weight_bits)?;
        let bias = crate::bias::checked(bias, n)?;
        let maxima = encode::column_maxima(Isa::best(), "w", w)?;
        let weights = match (config.mode, config.weight_alpha, &config.spec.columns) {
            (Mode::Fake, None, _) => {
                Weights::Simulated(QTensor::symmetric(w, config.weight_bits, config.group)?.dequantize()?)
            }
            (Mode::Fake, Some(alpha), _) => {
                check_alpha("weight_alpha", alpha)?;
                if config.group != 0 {
                    return Err(Error::argument("group", "0 with weight_alpha", config.group));
                }
                let spec = CrossSpec { bits: config.weight_bits, alpha, ..CrossSpec::default() };
                Weights::Simulated(super::quantize(w, &spec)?.dequantize()?)
            }
            (_, Some(alpha), _) => {
                return Err(Error::argument("weight_alpha", "none in an integer product", alpha));
            }
            (Mode::PerToken, None, _) => Self::fold(w, vec![1.0; k], config)?,
            (Mode::Folded, None, Columns::Static(columns)) => {
                let factors = columns.iter().map(|&c| encode::column_factor(c, config.spec.alpha)).collect();
                Self::fold(w, factors, config)?
            }
            (Mode::SmoothQuant, None, Columns::Static(columns)) => {
                Self::fold(w, smooth_factors(columns, &maxima, config.spec.alpha), config)?
            }
            (_, None, Columns::Dynamic) => Weights::Waiting { weights: w.to_tensor()?, maxima },
        };
        Ok(Self { config: config.clone(), shape: [n, k], weights, bias })
    }

    fn fold(w: TensorView<'_, f32, 2>, factors: Vec<f32>, config: &LinearConfig) -> Result<Weights> {
        let integers = fold(w, &factors, config)?;
        Ok(Weights::Folded { factors, integers })
    }

    /// `[N, K]` of the weights.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// How it was made.
    pub fn config(&self) -> &LinearConfig {
        &self.config
    }

    /// True if every call quantises the weights again: an integer product with dynamic columns. Worth it only
    /// for calls of at least about `N / 4` tokens.
    pub fn refolds(&self) -> bool {
        matches!(self.weights, Weights::Waiting { .. })
    }

    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        let floats = match &self.weights {
            Weights::Simulated(weights) => weights.len(),
            Weights::Folded { factors, integers } => {
                return integers.packed.bytes() + 4 * (integers.scales.len() + factors.len());
            }
            Weights::Waiting { weights, maxima } => weights.len() + maxima.len(),
        };
        4 * floats
    }

    /// `X W^T + bias`, `[T, N]`, for `x` `[T, K]`. No tokens give no rows.
    pub fn forward(&self, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let mut out = Tensor::zeros([x.rows(), self.shape[0]])?;
        self.forward_into(x, out.view_mut(), &mut CrossCodes::new())?;
        Ok(out)
    }

    /// As [`forward`](Self::forward), into the caller's memory. Afterwards `codes` holds the codes of `x` as
    /// they were multiplied, with their factors and counts; give the same one to the next call.
    pub fn forward_into(
        &self,
        x: TensorView<'_, f32, 2>,
        out: TensorViewMut<'_, f32, 2>,
        codes: &mut CrossCodes,
    ) -> Result<()> {
        let [n, k] = self.shape;
        if x.cols() != k {
            return Err(Error::shape("x", format!("[T, {k}] to match w"), &x.shape()));
        }
        if out.shape() != [x.rows(), n] {
            return Err(Error::shape("out", format!("{:?}", [x.rows(), n]), &out.shape()));
        }
        match &self.weights {
            Weights::Simulated(weights) => {
                quantize_into(x, &self.config.spec, codes)?;
                self.simulate(codes, weights, out)
            }
            Weights::Folded { factors, integers } => self.multiply(x, factors, integers, out, codes),
            Weights::Waiting { weights, maxima } => {
                let columns = encode::column_maxima(Isa::best(), "x", x)?;
                let factors = match self.config.mode {
                    Mode::SmoothQuant => smooth_factors(&columns, maxima, self.config.spec.alpha),
                    _ => columns.iter().map(|&c| encode::column_factor(c, self.config.spec.alpha)).collect(),
                };
                let integers = fold(weights.view(), &factors, &self.config)?;
                self.multiply(x, &factors, &integers, out, codes)
            }
        }
    }

    /// The product of what the codes and the weights stand for.
    fn simulate(
        &self,
        codes: &CrossCodes,
        weights: &Tensor<f32, 2>,
        mut out: TensorViewMut<'_, f32, 2>,
    ) -> Result<()> {
        gemm_into(1.0, codes.dequantize()?.view(), weights.view().transposed(), 0.0, out.reborrow())?;
        let Some(bias) = &self.bias else { return Ok(()) };
        for i in 0..out.shape()[0] {
            let mut row = out.row_mut(i);
            for (j, b) in bias.iter().enumerate() {
                let y = row.as_view().at([j]);
                row.set([j], y + b);
            }
        }
        Ok(())
    }

    /// The product of integers.
    fn multiply(
        &self,
        x: TensorView<'_, f32, 2>,
        factors: &[f32],
        integers: &Integers,
        out: TensorViewMut<'_, f32, 2>,
        codes: &mut CrossCodes,
    ) -> Result<()> {
        let row = match self.config.mode {
            Mode::PerToken => RowFactor::Absmax,
            Mode::SmoothQuant => RowFactor::Tight,
            Mode::Fake | Mode::Folded => self.config.spec.row,
        };
        let alpha = if self.config.mode == Mode::PerToken { 1.0 } else { self.config.spec.alpha };
        let spec = CrossSpec { bits: self.config.spec.bits, alpha, row, columns: Columns::Dynamic };
        encode::run_with_factors(Isa::best(), x, factors, &spec, codes)?;
        gemm_i8_scaled(
            codes.view()?,
            &integers.packed,
            codes.row(),
            integers.scales.view(),
            self.bias.as_deref(),
            out,
        )
    }
}

/// Weights with the column factors folded in, quantised.
fn fold(w: TensorView<'_, f32, 2>, factors: &[f32], config: &LinearConfig) -> Result<Integers> {
    let folded = fold_columns(w, factors)?;
    Integers::of(&QTensor::symmetric(folded.view(), config.weight_bits, config.group)?)
}

/// The factors `d_j = c_j^(1 - alpha)` of columns with the maxima `c` (from
/// [`ColumnStats`](super::ColumnStats)), to be folded into the weights of any product of the crate:
/// [`fold_columns`], then any quantiser, then
/// [`QuantLinear::with_column_factors`](crate::QuantLinear::with_column_factors).
///
/// # Errors
/// `Argument` for `alpha` outside of 0 to 1.
pub fn column_factors(maxima: &[f32], alpha: f64) -> Result<Vec<f32>> {
    check_alpha("alpha", alpha)?;
    Ok(maxima.iter().map(|&c| encode::column_factor(c, alpha)).collect())
}

/// `w` `[N, K]` with each column times its factor.
///
/// # Errors
/// `Shape` unless there is a factor for each column.
pub fn fold_columns(w: TensorView<'_, f32, 2>, factors: &[f32]) -> Result<Tensor<f32, 2>> {
    let [n, k] = w.shape();
    if factors.len() != k {
        return Err(Error::shape("factors", format!("[{k}], one per column of w"), &[factors.len()]));
    }
    let rows = Rows::of(w)?;
    let mut folded = Tensor::zeros([n, k])?;
    for (i, to) in folded.as_mut_slice().chunks_mut(k.max(1)).enumerate() {
        for ((o, w), d) in to.iter_mut().zip(rows.row(i)).zip(factors) {
            *o = d * w;
        }
    }
    Ok(folded)
}

/// SmoothQuant's factors. Weight maxima and factors are at least `1e-5`.
fn smooth_factors(columns: &[f32], weights: &[f32], alpha: f64) -> Vec<f32> {
    const FLOOR: f32 = 1e-5;
    let factor = |(&c, &w): (&f32, &f32)| {
        let d = encode::power(c, alpha) / encode::power(w.max(FLOOR), 1.0 - alpha);
        (d as f32).max(FLOOR)
    };
    columns.iter().zip(weights).map(factor).collect()
}
