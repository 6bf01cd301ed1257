//! [`QuantLinear`]: a linear layer for weights of any kind that the crate holds.
//!
//! | Weights | Activations | Product |
//! |---|---|---|
//! | [`UniformGroups`]: GPTQ, AWQ, compressed-tensors, GGUF, MatMulNBits, [`flexq`] | f32 | [`WeightOnly`] |
//! | the same | 1 to 8 bits | [`FlexLinear`] |
//! | [`BcqMatrix`] | f32 | [`LutLinear`] |
//! | [`FireqWeights`] | FP8, or as its config says | [`FireqLinear`] |
//!
//! What a file holds is multiplied as it is: nothing is quantised again.
//!
//! Any of them can carry column factors, as [`crossquant`](crate::crossquant) and SmoothQuant fold them into weights:
//! activations are divided by them first ([`QuantLinear::with_column_factors`]).

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};

use crate::fireq::{self, Epilogue, FireqLinear, FireqWeights};
use crate::flexq::{self, FlexLinear, KernelChoice};
use crate::lut_gemm::{self, BcqMatrix, LutLinear, LutMode, LutScratch};
use crate::uniform::UniformGroups;
use crate::weight_only::WeightOnly;

/// Activations of uniform weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// As they are.
    #[default]
    F32,
    /// Quantised in each call to so many bits, 1 to 8, in the groups of the weights.
    Bits(u8),
}

/// A linear layer `y = x W^T + bias` with quantised weights of any kind.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::linear::{Activations, QuantLinear};
/// use kc_quant::{UniformGroups, Zeros};
///
/// // Two rows of four 4-bit codes, as a file might hold them.
/// let codes = vec![8, 12, 0, 15, 9, 8, 7, 6];
/// let w = UniformGroups::new([2, 4], 4, 4, codes, vec![0.5, 0.25], Zeros::Constant(8))?;
/// let layer = QuantLinear::from_uniform(&w, None, Activations::F32)?;
/// let x = [1.0f32, 1.0, 0.0, 2.0];
/// let y = layer.forward(TensorView::from_slice([1, 4], &x)?)?;
/// assert_eq!(y.as_slice(), [0.5 * (0.0 + 4.0 + 14.0), 0.25 * (1.0 + 0.0 - 4.0)]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct QuantLinear {
    engine: Engine,
    columns: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Engine {
    WeightOnly(WeightOnly),
    Flex(FlexLinear, u8),
    Lut(Box<LutLinear>),
    Fireq(FireqLinear),
}

impl QuantLinear {
    /// Packs uniform weights `[N, K]`; `bias` has N values.
    ///
    /// # Errors
    /// Those of [`WeightOnly::new`] and [`FlexLinear::new`]; `Argument` for bits outside of 1 to 8.
    pub fn from_uniform(w: &UniformGroups, bias: Option<&[f32]>, activations: Activations) -> Result<Self> {
        let engine = match activations {
            Activations::F32 => Engine::WeightOnly(WeightOnly::new(w, bias)?),
            Activations::Bits(bits) if (1..=8).contains(&bits) => {
                Engine::Flex(FlexLinear::from_uniform(w, bias, KernelChoice::Auto)?, bits)
            }
            Activations::Bits(bits) => return Err(Error::argument("activations", "1 to 8 bits", bits)),
        };
        Ok(Self { engine, columns: None })
    }

    /// Packs binary-coded weights for look-up tables of `mode`.
    ///
    /// # Errors
    /// Those of [`LutLinear::new`].
    pub fn from_bcq(w: &BcqMatrix, bias: Option<&[f32]>, mode: LutMode) -> Result<Self> {
        let linear = LutLinear::new(w, bias, mode, lut_gemm::KernelChoice::Auto)?;
        Ok(Self { engine: Engine::Lut(Box::new(linear)), columns: None })
    }

    /// Packs INT4 weights with FP8 scales.
    ///
    /// # Errors
    /// Those of [`FireqLinear::new`].
    pub fn from_fireq(w: &FireqWeights, bias: Option<&[f32]>, config: &fireq::LinearConfig) -> Result<Self> {
        Ok(Self { engine: Engine::Fireq(FireqLinear::new(w, bias, config)?), columns: None })
    }

    /// States that the weights were multiplied with `factors` `[K]` before they were quantised, so that
    /// activations must be divided by them. A factor of 0 makes the column 0.
    ///
    /// # Errors
    /// `Shape` for another length, `NotFinite` or `Argument` for factors that are not numbers of at least 0.
    pub fn with_column_factors(mut self, factors: Vec<f32>) -> Result<Self> {
        let [_, k] = self.shape();
        if factors.len() != k {
            return Err(Error::shape("factors", format!("[{k}], one per column"), &[factors.len()]));
        }
        if let Some(j) = factors.iter().position(|f| !f.is_finite()) {
            return Err(Error::not_finite("factors", &[j], f64::from(factors[j])));
        }
        if let Some(j) = factors.iter().position(|f| *f < 0.0) {
            let got = format!("{} at {j}", factors[j]);
            return Err(Error::argument("factors", "numbers of at least 0", got));
        }
        self.columns = Some(factors);
        Ok(self)
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.engine {
            Engine::WeightOnly(linear) => linear.shape(),
            Engine::Flex(linear, _) => linear.shape(),
            Engine::Lut(linear) => linear.shape(),
            Engine::Fireq(linear) => linear.shape(),
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let engine = match &self.engine {
            Engine::WeightOnly(linear) => linear.bytes(),
            Engine::Flex(linear, _) => linear.bytes(),
            Engine::Lut(linear) => linear.bytes(),
            Engine::Fireq(linear) => linear.bytes(),
        };
        engine + self.columns.as_ref().map_or(0, |c| size_of_val(c.as_slice()))
    }

    /// The product that runs, for reports.
    pub fn product(&self) -> &'static str {
        match &self.engine {
            Engine::WeightOnly(_) => "weight-only",
            Engine::Flex(..) => "flexq",
            Engine::Lut(_) => "lut",
            Engine::Fireq(_) => "fireq",
        }
    }

    /// `y` `[M, N]` for `x` `[M, K]`. No rows give no rows.
    ///
    /// # Errors
    /// `Shape` if K differs; `NotFinite` with the position of a NaN or infinity.
    pub fn forward(&self, x: TensorView<'_, f32, 2>) -> Result<Tensor<f32, 2>> {
        let mut y = Tensor::zeros([x.rows(), self.shape()[0]])?;
        self.forward_into(x, y.view_mut(), &mut Scratch::new())?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into `y` `[M, N]`; `scratch` is memory that is used again.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and `Shape` for `y`.
    pub fn forward_into(
        &self,
        x: TensorView<'_, f32, 2>,
        y: TensorViewMut<'_, f32, 2>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some(factors) = &self.columns else { return self.multiply(x, y, scratch) };
        let [m, k] = x.shape();
        if k != factors.len() {
            return Err(Error::shape("x", format!("[M, {}] to match w", factors.len()), &[m, k]));
        }
        let mut divided = std::mem::take(&mut scratch.divided);
        divided.clear();
        for i in 0..m {
            let row = x.row(i);
            divided.extend(row.iter().zip(factors).map(|(x, f)| if *f == 0.0 { 0.0 } else { x / f }));
        }
        let result = self.multiply(TensorView::from_slice([m, k], &divided)?, y, scratch);
        scratch.divided = divided;
        result
    }

    fn multiply(
        &self,
        x: TensorView<'_, f32, 2>,
        y: TensorViewMut<'_, f32, 2>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        match &self.engine {
            Engine::WeightOnly(linear) => linear.forward_into(x, y),
            Engine::Flex(linear, bits) => linear.forward_into(x, *bits, y, &mut scratch.codes),
            Engine::Lut(linear) => linear.forward_into(x, y, &mut scratch.tables),
            Engine::Fireq(linear) => {
                linear.forward_into(x, Epilogue::None, None, y, &mut [], &mut scratch.numbers)
            }
        }
    }
}

/// The memory of a [`QuantLinear`]'s calls.
#[derive(Debug, Default)]
pub struct Scratch {
    divided: Vec<f32>,
    codes: flexq::Activations,
    tables: LutScratch,
    numbers: fireq::Activations,
}

impl Scratch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}
