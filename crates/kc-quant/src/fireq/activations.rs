//! Activations in FP8 (or INT8): one scale per token.

use kc_core::{Error, Isa, Result, TensorView, bf16, math};

use crate::fp8;
use crate::rows::Rows;

/// In what numbers activations are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Numbers {
    /// FP8, the scale of a token `max|x| / 448` in f32.
    #[default]
    Fp8,
    /// FP8, the scale rounded to bf16 before dividing.
    Fp8Bf16,
    /// FP8 with this scale for every token. What is beyond 448 times it saturates.
    Fp8Static(f32),
    /// INT8, the scale of a token `max|x| / 127`.
    Int8,
    /// As they are.
    F32,
}

/// Codes of tokens `[T, K]` with their scales. Also the memory that the next call uses again.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    shape: [usize; 2],
    numbers: Numbers,
    codes: Vec<u8>,
    scales: Vec<f32>,
    /// What the codes stand for, without the scale.
    values: Vec<f32>,
}

impl Activations {
    /// No tokens yet: memory to fill.
    pub fn new() -> Self {
        Self::default()
    }

    /// `[T, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// In what numbers the codes are.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The codes, row by row: E4M3, or two's complement for INT8. Empty for f32.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The scale of each token.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// What the codes stand for before the scales, `[T, K]`.
    pub fn values(&self) -> Result<TensorView<'_, f32, 2>> {
        TensorView::from_slice(self.shape, &self.values)
    }
}

/// Quantises tokens `x` `[T, K]`.
///
/// # Errors
/// `NotFinite` with the position; `Argument` for a static scale that is not positive.
pub fn quantize_activations(x: TensorView<'_, f32, 2>, numbers: Numbers) -> Result<Activations> {
    let mut out = Activations::new();
    quantize_activations_into(Isa::best(), x, numbers, &mut out)?;
    Ok(out)
}

/// As [`quantize_activations`], at a level and into memory that is used again.
pub fn quantize_activations_into(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    numbers: Numbers,
    out: &mut Activations,
) -> Result<()> {
    if let Numbers::Fp8Static(scale) = numbers
        && !(scale.is_finite() && scale > 0.0)
    {
        return Err(Error::argument("scale", "a positive number", scale));
    }
    let [t, k] = x.shape();
    let rows = Rows::of(x)?;
    let coded = if numbers == Numbers::F32 { 0 } else { t * k };
    out.shape = [t, k];
    out.numbers = numbers;
    out.codes.resize(coded, 0);
    out.values.resize(t * k, 0.0);
    out.scales.clear();
    for i in 0..t {
        let (row, values) = (rows.row(i), &mut out.values[i * k..][..k]);
        if let Some(j) = math::first_non_finite(row) {
            return Err(Error::not_finite("x", &[i, j], f64::from(row[j])));
        }
        if numbers == Numbers::F32 {
            values.copy_from_slice(row);
            out.scales.push(1.0);
            continue;
        }
        let scale = token_scale(isa, row, numbers);
        out.scales.push(scale);
        values.iter_mut().zip(row).for_each(|(v, x)| *v = x / scale);
        let codes = &mut out.codes[i * k..][..k];
        if numbers == Numbers::Int8 {
            for (v, code) in values.iter_mut().zip(codes) {
                *v = v.round_ties_even().clamp(-127.0, 127.0);
                *code = *v as i8 as u8;
            }
        } else {
            fp8::encode_slice_with(isa, values, codes)?;
            fp8::decode_slice_with(isa, codes, values)?;
        }
    }
    Ok(())
}

/// The scale of one token; 1 for a token of zeros.
pub(super) fn token_scale(isa: Isa, row: &[f32], numbers: Numbers) -> f32 {
    let top = match numbers {
        Numbers::F32 => return 1.0,
        Numbers::Fp8Static(scale) => return scale,
        Numbers::Int8 => 127.0,
        Numbers::Fp8 | Numbers::Fp8Bf16 => fp8::MAX,
    };
    let (low, high) = math::min_max_with(isa, row).unwrap_or((0.0, 0.0));
    let scale = (-low).max(high) / top;
    let scale = if numbers == Numbers::Fp8Bf16 { bf16::from_f32(scale).to_f32() } else { scale };
    if scale == 0.0 { 1.0 } else { scale }
}
