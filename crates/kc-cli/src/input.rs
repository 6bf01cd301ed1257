//! Loading: files become typed tensors, without a copy where the type already fits.

use anyhow::{Context, Result};
use kc_core::{AnyTensor, DType, Element, Error, Tensor, TensorView};

/// A tensor that is either viewed in the file or converted.
#[derive(Debug)]
pub(crate) enum Loaded<T: Element, const N: usize> {
    /// The file's own type is T: the data are viewed in place.
    Mapped(AnyTensor),
    /// The file held another type.
    Converted(Tensor<T, N>),
}

impl<T: Element, const N: usize> Loaded<T, N> {
    /// The tensor.
    pub(crate) fn view(&self, name: &str) -> Result<TensorView<'_, T, N>> {
        match self {
            Loaded::Mapped(any) => Ok(any.view(name.to_owned())?),
            Loaded::Converted(tensor) => Ok(tensor.view()),
        }
    }
}

/// Any tensor of `location` (a path, or `FILE:TENSOR`). `name` is the flag, for messages.
pub(crate) fn any(name: &str, location: &str) -> Result<AnyTensor> {
    kc_io::read(location).with_context(|| name.to_owned())
}

/// Real numbers (f16, bf16, f32, f64) as f32.
pub(crate) fn f32<const N: usize>(name: &str, location: &str) -> Result<Loaded<f32, N>> {
    let tensor = any(name, location)?;
    require_float(name, &tensor)?;
    if tensor.dtype() == DType::F32 && tensor.view::<f32, N>(name.to_owned()).is_ok() {
        return Ok(Loaded::Mapped(tensor));
    }
    Ok(Loaded::Converted(tensor.to_f32(name.to_owned())?))
}

/// A vector of real numbers as f32.
pub(crate) fn f32_vector(name: &str, location: &str) -> Result<Vec<f32>> {
    Ok(f32::<1>(name, location)?.view(name)?.to_vec())
}

fn require_float(name: &str, tensor: &AnyTensor) -> Result<()> {
    if tensor.dtype().is_float() {
        return Ok(());
    }
    Err(Error::dtype(name.to_owned(), "float16, bfloat16, float32 or float64", tensor.dtype()).into())
}
