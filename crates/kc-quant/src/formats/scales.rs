//! Scales as files store them: halves of two kinds, or f32.

use kc_core::{AnyTensor, DType, Element, Error, Float, Result, TensorView, bf16, f16};

use super::cannot_hold;
use crate::ScaleDtype;

/// A matrix of scales in the type that the file has.
#[derive(Debug, Clone, Copy)]
pub enum ScaleView<'a> {
    /// IEEE half precision.
    F16(TensorView<'a, f16, 2>),
    /// bfloat16.
    Bf16(TensorView<'a, bf16, 2>),
    /// Single precision.
    F32(TensorView<'a, f32, 2>),
}

impl<'a> ScaleView<'a> {
    /// The scales of a file, in place.
    ///
    /// # Errors
    /// `DType` for other types, `Shape` for another rank.
    pub fn of(tensor: &'a AnyTensor, name: &'static str) -> Result<Self> {
        match tensor.dtype() {
            DType::F16 => Ok(ScaleView::F16(tensor.view(name)?)),
            DType::BF16 => Ok(ScaleView::Bf16(tensor.view(name)?)),
            DType::F32 => Ok(ScaleView::F32(tensor.view(name)?)),
            other => Err(Error::dtype(name, "float16, bfloat16 or float32", other)),
        }
    }

    /// The shape.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            ScaleView::F16(x) => x.shape(),
            ScaleView::Bf16(x) => x.shape(),
            ScaleView::F32(x) => x.shape(),
        }
    }

    /// The type.
    pub fn dtype(&self) -> ScaleDtype {
        match self {
            ScaleView::F16(_) => ScaleDtype::F16,
            ScaleView::Bf16(_) => ScaleDtype::Bf16,
            ScaleView::F32(_) => ScaleDtype::F32,
        }
    }

    /// The scales in f32, row by row.
    pub(super) fn rows(&self) -> Vec<f32> {
        match self {
            ScaleView::F16(x) => wide(*x),
            ScaleView::Bf16(x) => wide(*x),
            ScaleView::F32(x) => wide(*x),
        }
    }

    /// The scales in f32, column by column.
    pub(super) fn columns(&self) -> Vec<f32> {
        match self {
            ScaleView::F16(x) => wide(x.transposed()),
            ScaleView::Bf16(x) => wide(x.transposed()),
            ScaleView::F32(x) => wide(x.transposed()),
        }
    }
}

fn wide<T: Float + Element>(x: TensorView<'_, T, 2>) -> Vec<f32> {
    x.iter().map(Float::to_f32).collect()
}

/// `scales` in half precision, if that changes none of them.
pub(super) fn exact_halves(scales: &[f32], format: &'static str) -> Result<Vec<f16>> {
    let narrow = |&scale: &f32| {
        let half = f16::from_f32(scale);
        if half.to_f32() == scale {
            return Ok(half);
        }
        Err(cannot_hold(format, format!("its scales are float16, which does not hold {scale:e}")))
    };
    scales.iter().map(narrow).collect()
}

/// `scales`, `[N, G]`, as a tensor of the type, if that changes none of them.
pub(super) fn exact_tensor(
    scales: &[f32],
    shape: [usize; 2],
    dtype: ScaleDtype,
    format: &'static str,
) -> Result<AnyTensor> {
    if let Some(scale) = scales.iter().find(|&&s| dtype.round(s) != s) {
        let why = format!("its scales are {}, which does not hold {scale:e}", dtype.name());
        return Err(cannot_hold(format, why));
    }
    match dtype {
        ScaleDtype::F32 => of(scales, shape, Float::from_f32 as fn(f32) -> f32),
        ScaleDtype::F16 => of(scales, shape, f16::from_f32),
        ScaleDtype::Bf16 => of(scales, shape, bf16::from_f32),
    }
}

fn of<T: Element>(scales: &[f32], shape: [usize; 2], narrow: fn(f32) -> T) -> Result<AnyTensor> {
    let narrow: Vec<T> = scales.iter().map(|&s| narrow(s)).collect();
    Ok(kc_core::Tensor::from_slice(shape, &narrow)?.into_any())
}
