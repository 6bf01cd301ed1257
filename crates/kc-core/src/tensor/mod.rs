//! Tensors: owned ([`Tensor`]), borrowed ([`TensorView`], [`TensorViewMut`]) and of a type known only at
//! run time ([`AnyTensor`], the door through which files enter).

mod any;
mod iter;
#[cfg(feature = "ndarray")]
mod ndarray;
mod view;

pub use any::AnyTensor;
pub use iter::Elements;
pub use view::{TensorView, TensorViewMut};

use crate::shape::{checked_len, row_major};
use crate::{AlignedBuf, Bytes, Element, Error, Result};

/// An owned tensor of rank `N`: row-major, 64-byte aligned.
#[derive(Debug, Clone)]
pub struct Tensor<T: Element, const N: usize> {
    buf: AlignedBuf<T>,
    shape: [usize; N],
}

impl<T: Element, const N: usize> Tensor<T, N> {
    /// Zeros. Fails if the memory cannot be had.
    pub fn zeros(shape: [usize; N]) -> Result<Self> {
        Ok(Self { buf: AlignedBuf::zeroed(checked_len("shape", &shape)?)?, shape })
    }

    /// The value of `f` at every index.
    pub fn from_fn(shape: [usize; N], mut f: impl FnMut([usize; N]) -> T) -> Result<Self> {
        let mut out = Self::zeros(shape)?;
        let mut index = [0; N];
        for slot in out.buf.iter_mut() {
            *slot = f(index);
            iter::advance(&mut index, &shape);
        }
        Ok(out)
    }

    /// A copy of `data`, read as row-major. Its length must be the product of `shape`.
    pub fn from_slice(shape: [usize; N], data: &[T]) -> Result<Self> {
        if checked_len("shape", &shape)? != data.len() {
            return Err(Error::shape("data", format!("{shape:?} = its length"), &[data.len()]));
        }
        Ok(Self { buf: AlignedBuf::copy_of(data)?, shape })
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> [usize; N] {
        self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The elements in row-major order.
    pub fn as_slice(&self) -> &[T] {
        &self.buf
    }

    /// The elements in row-major order, to change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.buf
    }

    /// A view of the whole.
    pub fn view(&self) -> TensorView<'_, T, N> {
        TensorView::of_row_major(self.shape, row_major(&self.shape), &self.buf)
    }

    /// A mutable view of the whole.
    pub fn view_mut(&mut self) -> TensorViewMut<'_, T, N> {
        TensorViewMut::of_row_major(self.shape, row_major(&self.shape), &mut self.buf)
    }

    /// The same elements under another shape of the same size, without a copy.
    pub fn reshape<const M: usize>(self, shape: [usize; M]) -> Result<Tensor<T, M>> {
        if checked_len("shape", &shape)? != self.len() {
            return Err(Error::shape("shape", format!("{} elements", self.len()), &shape));
        }
        Ok(Tensor { buf: self.buf, shape })
    }

    /// The elements in row-major order.
    pub fn into_vec(self) -> Vec<T> {
        self.buf.to_vec()
    }

    /// Forgets the static type, without a copy.
    pub fn into_any(self) -> AnyTensor {
        AnyTensor::from_parts(T::DTYPE, self.shape.to_vec(), Bytes::from(self.buf))
    }
}

impl<T: Element, const N: usize> PartialEq for Tensor<T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.as_slice() == other.as_slice()
    }
}

impl<T: Element, const N: usize> std::ops::Index<[usize; N]> for Tensor<T, N> {
    type Output = T;

    fn index(&self, index: [usize; N]) -> &T {
        &self.buf[flat(&self.shape, &index)]
    }
}

impl<T: Element, const N: usize> std::ops::IndexMut<[usize; N]> for Tensor<T, N> {
    fn index_mut(&mut self, index: [usize; N]) -> &mut T {
        let at = flat(&self.shape, &index);
        &mut self.buf[at]
    }
}

/// Row-major position of `index`.
///
/// # Panics
/// If the index is outside of the shape, as for slices.
fn flat<const N: usize>(shape: &[usize; N], index: &[usize; N]) -> usize {
    let mut at = 0;
    for (&i, &d) in index.iter().zip(shape) {
        assert!(i < d, "index {index:?} is outside of shape {shape:?}");
        at = at * d + i;
    }
    at
}
