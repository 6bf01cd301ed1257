//! The door: a tensor whose type and rank are known only at run time.

use bytemuck::PodCastError;

use super::{Tensor, TensorView};
use crate::shape::checked_len;
use crate::{Bytes, DType, Element, Error, Name, Result};

/// A row-major tensor of a type and rank known at run time, over shared bytes. Files are read into this.
#[derive(Debug, Clone)]
pub struct AnyTensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl AnyTensor {
    /// Row-major native-endian elements. The length of `data` must be that of `shape`.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self> {
        let bytes = checked_len("shape", &shape)?
            .checked_mul(dtype.size())
            .ok_or_else(|| Error::shape("shape", "a shape whose size fits the address space", &shape))?;
        if bytes != data.len() {
            return Err(Error::shape(
                "data",
                format!("{bytes} bytes for {shape:?} of {dtype}"),
                &[data.len()],
            ));
        }
        Ok(Self { dtype, shape, data })
    }

    pub(super) fn from_parts(dtype: DType, shape: Vec<usize>, data: Bytes) -> Self {
        Self { dtype, shape, data }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The raw bytes, row-major, native-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// A typed view without a copy. `name` is the argument's name in error messages.
    ///
    /// Fails if the type, the rank or the alignment differ; booleans may be viewed as `u8`.
    pub fn view<T: Element, const N: usize>(&self, name: impl Into<Name>) -> Result<TensorView<'_, T, N>> {
        let name = name.into();
        let boolean = self.dtype == DType::Bool && T::DTYPE == DType::U8;
        if self.dtype != T::DTYPE && !boolean {
            return Err(Error::dtype(name, T::DTYPE, self.dtype));
        }
        let Ok(shape) = <[usize; N]>::try_from(self.shape.as_slice()) else {
            return Err(Error::shape(name, format!("{N} dimensions"), &self.shape));
        };
        match bytemuck::try_cast_slice(&self.data) {
            Ok(data) => TensorView::from_slice(shape, data),
            Err(PodCastError::TargetAlignmentGreaterAndInputNotAligned) => Err(Error::unsupported(
                name,
                "the data are not aligned for their type; read them with a copy (`to_tensor`)",
            )),
            Err(error) => Err(Error::argument(name, "whole elements", error)),
        }
    }

    /// A typed copy, aligned whatever the alignment of the source. The type and rank must match.
    pub fn to_tensor<T: Element, const N: usize>(&self, name: impl Into<Name>) -> Result<Tensor<T, N>> {
        let name = name.into();
        let boolean = self.dtype == DType::Bool && T::DTYPE == DType::U8;
        if self.dtype != T::DTYPE && !boolean {
            return Err(Error::dtype(name, T::DTYPE, self.dtype));
        }
        let Ok(shape) = <[usize; N]>::try_from(self.shape.as_slice()) else {
            return Err(Error::shape(name, format!("{N} dimensions"), &self.shape));
        };
        let mut out = Tensor::zeros(shape)?;
        bytemuck::cast_slice_mut(out.as_mut_slice()).copy_from_slice(&self.data);
        Ok(out)
    }
}

impl<T: Element, const N: usize> From<Tensor<T, N>> for AnyTensor {
    fn from(tensor: Tensor<T, N>) -> Self {
        tensor.into_any()
    }
}
