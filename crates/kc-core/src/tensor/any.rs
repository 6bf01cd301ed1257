//! The door: a tensor whose type and rank are known only at run time.

use bytemuck::PodCastError;
use half::{bf16, f16};

use super::{Tensor, TensorView};
use crate::shape::checked_len;
use crate::{Bytes, DType, Element, Error, Float, Name, Result};

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

    /// A copy as f32, rounded to nearest even, from any type but complex. The rank must match.
    pub fn to_f32<const N: usize>(&self, name: impl Into<Name>) -> Result<Tensor<f32, N>> {
        self.convert(name.into())
    }

    /// A copy as f64, from any type but complex; exact, but for 64-bit integers beyond 2^53. The rank must
    /// match.
    pub fn to_f64<const N: usize>(&self, name: impl Into<Name>) -> Result<Tensor<f64, N>> {
        self.convert(name.into())
    }

    fn convert<T: Float, const N: usize>(&self, name: Name) -> Result<Tensor<T, N>> {
        let Ok(shape) = <[usize; N]>::try_from(self.shape.as_slice()) else {
            return Err(Error::shape(name, format!("{N} dimensions"), &self.shape));
        };
        let mut out = Tensor::zeros(shape)?;
        macro_rules! from {
            ($t:ty, $value:expr) => {
                for (slot, bytes) in
                    out.as_mut_slice().iter_mut().zip(self.data.chunks_exact(size_of::<$t>()))
                {
                    // The bytes of a file need not be aligned for their type.
                    *slot = $value(bytemuck::pod_read_unaligned::<$t>(bytes));
                }
            };
        }
        match self.dtype {
            DType::Bool => from!(u8, |x| T::from_f32(f32::from(x != 0))),
            DType::U8 => from!(u8, |x| T::from_f32(f32::from(x))),
            DType::I8 => from!(i8, |x| T::from_f32(f32::from(x))),
            DType::U16 => from!(u16, |x| T::from_f32(f32::from(x))),
            DType::I16 => from!(i16, |x| T::from_f32(f32::from(x))),
            DType::U32 => from!(u32, |x| T::from_f64(f64::from(x))),
            DType::I32 => from!(i32, |x| T::from_f64(f64::from(x))),
            DType::U64 => from!(u64, |x| T::from_f64(x as f64)),
            DType::I64 => from!(i64, |x| T::from_f64(x as f64)),
            DType::F16 => from!(f16, |x: f16| T::from_f32(x.to_f32())),
            DType::BF16 => from!(bf16, |x: bf16| T::from_f32(x.to_f32())),
            DType::F32 => from!(f32, T::from_f32),
            DType::F64 => from!(f64, T::from_f64),
            DType::C64 | DType::C128 => return Err(Error::dtype(name, "a real type", self.dtype)),
        }
        Ok(out)
    }
}

impl<T: Element, const N: usize> From<Tensor<T, N>> for AnyTensor {
    fn from(tensor: Tensor<T, N>) -> Self {
        tensor.into_any()
    }
}
