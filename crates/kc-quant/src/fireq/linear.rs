//! Linear layers with INT4 weights.

use std::ops::Range;

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut, bf16, math};
use kc_gemm::PanelSource;

use super::activations::{Activations, Numbers, quantize_activations_into};
use super::weights::{FireqWeights, PerTensor, ScaleType, WeightSpec, requantize_row};
use crate::dense;
use crate::fp8;
use crate::group::Group;
use crate::weight_only::{Dequantized, WeightOnly};

/// What is multiplied for a code `q` with scale `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DequantMode {
    /// `q s`, exactly: what accuracy is evaluated with.
    #[default]
    Exact,
    /// `fp8(q s)`: what the published kernel for tensor cores multiplies.
    Fp8Product,
    /// Each row `q s` in FP8 with a scale of its own: the fallback of the published kernels for bf16 scales.
    Requantized,
}

impl DequantMode {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DequantMode::Exact => "exact",
            DequantMode::Fp8Product => "fp8-product",
            DequantMode::Requantized => "requantized",
        }
    }
}

/// What happens to `y = X W^T + bias` before it is stored (and rounded, where the result is bf16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epilogue {
    /// Nothing.
    #[default]
    None,
    /// `y / (1 + exp(-y))`
    Silu,
    /// `y aux`: a gate.
    Mul,
    /// `y + aux`: a residual.
    Add,
    /// `y + aux`, and the sum of its squares in each row, for the normalisation that follows.
    SquareDot,
}

impl Epilogue {
    /// All of them.
    pub const ALL: [Epilogue; 5] =
        [Epilogue::None, Epilogue::Silu, Epilogue::Mul, Epilogue::Add, Epilogue::SquareDot];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Epilogue::None => "none",
            Epilogue::Silu => "silu",
            Epilogue::Mul => "mul",
            Epilogue::Add => "add",
            Epilogue::SquareDot => "square-dot",
        }
    }

    /// True if it reads a second operand.
    pub const fn needs_aux(self) -> bool {
        matches!(self, Epilogue::Mul | Epilogue::Add | Epilogue::SquareDot)
    }
}

/// How a [`FireqLinear`] multiplies. The default: FP8 activations, exact weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinearConfig {
    /// The weights.
    pub mode: DequantMode,
    /// The activations.
    pub numbers: Numbers,
}

/// The published combinations of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// INT4 weights with FP8 scales, FP8 activations, no factor of the tensor.
    I4F8F8,
    /// The same with the published factor of the tensor.
    ScaledI4F8F8,
    /// INT4 weights with bf16 scales, each row then in FP8; FP8 activations.
    I4F8,
    /// INT4 weights alone.
    I4,
    /// INT4 weights per row, INT8 activations.
    I4I8,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 5] =
        [Variant::I4F8F8, Variant::ScaledI4F8F8, Variant::I4F8, Variant::I4, Variant::I4I8];

    /// How weights are quantised and multiplied.
    pub fn specs(self) -> (WeightSpec, LinearConfig) {
        let weights = |scale_type, per_tensor, group| WeightSpec { group, scale_type, per_tensor };
        let group = Group::default();
        let exact = |numbers| LinearConfig { mode: DequantMode::Exact, numbers };
        match self {
            Variant::I4F8F8 => (weights(ScaleType::Fp8, PerTensor::Off, group), exact(Numbers::Fp8)),
            Variant::ScaledI4F8F8 => {
                (weights(ScaleType::Fp8, PerTensor::Reference { rank: 1 }, group), exact(Numbers::Fp8))
            }
            Variant::I4F8 => (
                weights(ScaleType::Bf16, PerTensor::Off, group),
                LinearConfig { mode: DequantMode::Requantized, numbers: Numbers::Fp8 },
            ),
            Variant::I4 => (weights(ScaleType::Bf16, PerTensor::Off, group), exact(Numbers::F32)),
            Variant::I4I8 => (weights(ScaleType::F32, PerTensor::Off, Group::Row), exact(Numbers::Int8)),
        }
    }
}

/// What a layer gives.
#[derive(Debug, Clone)]
pub struct LinearOutput {
    /// `[T, N]`
    pub out: Tensor<f32, 2>,
    /// The sum of squares of each row, with [`Epilogue::SquareDot`].
    pub square_sums: Option<Vec<f32>>,
}

/// A layer `Y = X W^T + bias`, ready for products.
#[derive(Debug, Clone)]
pub struct FireqLinear {
    config: LinearConfig,
    per_tensor: f32,
    weights: Weights,
    bias: Option<Vec<f32>>,
}

#[derive(Debug, Clone)]
enum Weights {
    /// Codes of four bits.
    Packed(WeightOnly),
    /// Codes in FP8, with a scale for each row.
    Rows { codes: Vec<u8>, scales: Vec<f32>, shape: [usize; 2] },
}

impl FireqLinear {
    /// Packs `weights`. `bias` has one value per row, and is not multiplied by the factor of the tensor.
    ///
    /// # Errors
    /// `Shape` or `NotFinite` for the bias; `Argument` for a static scale that is not positive.
    pub fn new(weights: &FireqWeights, bias: Option<&[f32]>, config: &LinearConfig) -> Result<Self> {
        let [n, k] = weights.shape();
        let bias = crate::bias::checked(bias, n)?;
        let packed = match config.mode {
            DequantMode::Exact | DequantMode::Fp8Product => Weights::Packed(weights.pack()?),
            DequantMode::Requantized => {
                let mut dense = weights.to_uniform()?.dequantize()?;
                let rows = dense.as_mut_slice().chunks_exact_mut(k.max(1));
                let scales = if k == 0 { vec![1.0; n] } else { rows.map(requantize_row).collect() };
                let mut codes = vec![0; dense.len()];
                fp8::encode_slice(dense.as_slice(), &mut codes)?;
                Weights::Rows { codes, scales, shape: [n, k] }
            }
        };
        Ok(Self { config: *config, per_tensor: weights.per_tensor(), weights: packed, bias })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.weights {
            Weights::Packed(packed) => packed.shape(),
            Weights::Rows { shape, .. } => *shape,
        }
    }

    /// How it was made.
    pub fn config(&self) -> &LinearConfig {
        &self.config
    }

    /// Bytes held: codes, scales and bias.
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |b| size_of_val(b.as_slice()));
        match &self.weights {
            Weights::Packed(packed) => packed.bytes() + bias,
            Weights::Rows { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()) + bias,
        }
    }

    /// The layer on tokens `x` `[T, K]`; `aux` `[T, N]` for the epilogues that read it. No tokens give no rows.
    ///
    /// # Errors
    /// `Shape` if `x` or `aux` does not fit, or `aux` is missing or not wanted; `NotFinite` with the position.
    pub fn forward(
        &self,
        x: TensorView<'_, f32, 2>,
        epilogue: Epilogue,
        aux: Option<TensorView<'_, f32, 2>>,
    ) -> Result<LinearOutput> {
        let mut out = Tensor::zeros([x.rows(), self.shape()[0]])?;
        let mut sums = vec![0.0; if epilogue == Epilogue::SquareDot { x.rows() } else { 0 }];
        self.forward_into(x, epilogue, aux, out.view_mut(), &mut sums, &mut Activations::new())?;
        Ok(LinearOutput { out, square_sums: (epilogue == Epilogue::SquareDot).then_some(sums) })
    }

    /// As [`forward`](Self::forward), rounded to bf16 at the end. Sums of squares are of the numbers before.
    pub fn forward_bf16(
        &self,
        x: TensorView<'_, f32, 2>,
        epilogue: Epilogue,
        aux: Option<TensorView<'_, f32, 2>>,
    ) -> Result<(Tensor<bf16, 2>, Option<Vec<f32>>)> {
        let LinearOutput { out, square_sums } = self.forward(x, epilogue, aux)?;
        let mut rounded = Tensor::zeros(out.shape())?;
        rounded.as_mut_slice().iter_mut().zip(out.as_slice()).for_each(|(r, y)| *r = bf16::from_f32(*y));
        Ok((rounded, square_sums))
    }

    /// As [`forward`](Self::forward), into `out` `[T, N]` and, for [`Epilogue::SquareDot`], `square_sums` `[T]` (else
    /// empty). Afterwards `activations` holds the codes of `x`; give the same one to the next call.
    pub fn forward_into(
        &self,
        x: TensorView<'_, f32, 2>,
        epilogue: Epilogue,
        aux: Option<TensorView<'_, f32, 2>>,
        out: TensorViewMut<'_, f32, 2>,
        square_sums: &mut [f32],
        activations: &mut Activations,
    ) -> Result<()> {
        self.forward_with(Isa::best(), x, epilogue, aux, out, square_sums, activations)
    }

    /// As [`forward_into`](Self::forward_into), at a level.
    pub fn forward_with(
        &self,
        isa: Isa,
        x: TensorView<'_, f32, 2>,
        epilogue: Epilogue,
        aux: Option<TensorView<'_, f32, 2>>,
        mut out: TensorViewMut<'_, f32, 2>,
        square_sums: &mut [f32],
        activations: &mut Activations,
    ) -> Result<()> {
        let [n, k] = self.shape();
        let t = x.rows();
        if x.cols() != k {
            return Err(Error::shape("x", format!("[T, {k}] to match w"), &x.shape()));
        }
        if out.shape() != [t, n] {
            return Err(Error::shape("out", format!("{:?}", [t, n]), &out.shape()));
        }
        check_aux(epilogue, aux, [t, n])?;
        let wanted = if epilogue == Epilogue::SquareDot { t } else { 0 };
        if square_sums.len() != wanted {
            return Err(Error::shape("square_sums", format!("[{wanted}]"), &[square_sums.len()]));
        }
        quantize_activations_into(isa, x, self.config.numbers, activations)?;
        let values = activations.values()?;
        match &self.weights {
            Weights::Packed(weights) if self.config.mode == DequantMode::Fp8Product => {
                let panels = Rounded(Dequantized { weights, isa });
                dense::product(isa, values, &panels, None, out.reborrow())?;
            }
            Weights::Packed(weights) => weights.forward_with(isa, values, out.reborrow())?,
            Weights::Rows { codes, shape, .. } => {
                let panels = Decoded { codes, shape: *shape };
                dense::product(isa, values, &panels, None, out.reborrow())?;
            }
        }
        let mut sigmoid = vec![0.0; if epilogue == Epilogue::Silu { n } else { 0 }];
        let mut apart = Vec::new();
        for i in 0..t {
            let factor = activations.scales()[i] / self.per_tensor;
            let aux = aux.map(|aux| aux.row(i));
            let mut row = out.row_mut(i);
            let sum = if let Some(row) = row.as_mut_slice() {
                self.finish(isa, factor, epilogue, aux, row, &mut sigmoid)?
            } else {
                apart.clear();
                apart.extend(row.as_view().iter());
                let sum = self.finish(isa, factor, epilogue, aux, &mut apart, &mut sigmoid)?;
                row.copy_from(TensorView::from_slice([n], &apart)?)?;
                sum
            };
            if let Some(to) = square_sums.get_mut(i) {
                *to = sum as f32;
            }
        }
        Ok(())
    }

    /// Scales, bias and epilogue of one row; the sum of squares if the epilogue wants it.
    fn finish(
        &self,
        isa: Isa,
        factor: f32,
        epilogue: Epilogue,
        aux: Option<TensorView<'_, f32, 1>>,
        row: &mut [f32],
        sigmoid: &mut [f32],
    ) -> Result<f64> {
        row.iter_mut().for_each(|y| *y *= factor);
        if let Weights::Rows { scales, .. } = &self.weights {
            row.iter_mut().zip(scales).for_each(|(y, s)| *y *= s);
        }
        if let Some(bias) = &self.bias {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        let aux = aux.map(|aux| aux.to_cow()).unwrap_or_default();
        let pairs = row.iter_mut().zip(aux.iter());
        match epilogue {
            Epilogue::None => {}
            Epilogue::Silu => {
                math::apply(isa, math::Function::Sigmoid, row, sigmoid)?;
                row.iter_mut().zip(sigmoid).for_each(|(y, s)| *y *= *s);
            }
            Epilogue::Mul => pairs.for_each(|(y, a)| *y *= a),
            Epilogue::Add | Epilogue::SquareDot => pairs.for_each(|(y, a)| *y += a),
        }
        if epilogue == Epilogue::SquareDot { math::dot_f64_with(isa, row, row) } else { Ok(0.0) }
    }
}

fn check_aux(epilogue: Epilogue, aux: Option<TensorView<'_, f32, 2>>, shape: [usize; 2]) -> Result<()> {
    match aux {
        None if epilogue.needs_aux() => {
            Err(Error::shape("aux", format!("{shape:?} for {}", epilogue.name()), &[]))
        }
        Some(aux) if !epilogue.needs_aux() => {
            Err(Error::shape("aux", format!("none for {}", epilogue.name()), &aux.shape()))
        }
        Some(aux) if aux.shape() != shape => Err(Error::shape("aux", format!("{shape:?}"), &aux.shape())),
        Some(aux) => match aux.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let index = [at / shape[1], at % shape[1]];
                Err(Error::not_finite("aux", &index, f64::from(aux.at(index))))
            }
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Panels of weights, rounded to FP8.
struct Rounded<'a>(Dequantized<'a>);

impl PanelSource<f32> for Rounded<'_> {
    fn lines(&self) -> usize {
        self.0.lines()
    }

    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        self.0.fill(lines, depth, width, panel);
        fp8::round_slice_with(self.0.isa, panel);
    }
}

/// Panels of weights that are FP8 numbers, decoded.
struct Decoded<'a> {
    codes: &'a [u8],
    shape: [usize; 2],
}

impl PanelSource<f32> for Decoded<'_> {
    fn lines(&self) -> usize {
        self.shape[0]
    }

    fn depth(&self) -> usize {
        self.shape[1]
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        for (i, line) in lines.enumerate() {
            let codes = &self.codes[line * self.shape[1]..][depth.clone()];
            panel[i..].iter_mut().step_by(width).zip(codes).for_each(|(p, &code)| *p = fp8::decode(code));
        }
    }
}
