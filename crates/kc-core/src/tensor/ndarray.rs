//! Views to and from `ndarray`, without a copy (feature `ndarray`).
//!
//! Every `ndarray` view of rank 1 to 4 becomes a view. The other way, strides must not be negative, because
//! `ndarray` takes unsigned strides only; such a view is an [`Error::Unsupported`] and can be copied first.
//!
//! ```
//! use kc_core::{Tensor, TensorView};
//! use ndarray::{Array2, ArrayView2, s};
//! let a = Array2::from_shape_fn((4, 6), |(i, j)| (10 * i + j) as f32);
//! let view = TensorView::from(a.slice(s![..;2, 1..;2]));
//! assert_eq!(view.to_vec(), [1.0, 3.0, 5.0, 21.0, 23.0, 25.0]);
//! let back = ArrayView2::try_from(view)?;
//! assert_eq!(back[[1, 2]], 25.0);
//! # Ok::<(), kc_core::Error>(())
//! ```

#![expect(unsafe_code, reason = "hands pointers, shapes and strides from one library's view to the other's")]

use std::ptr::NonNull;

use ndarray::{ArrayView, ArrayViewMut, Dim, ShapeBuilder};

use super::{TensorView, TensorViewMut};
use crate::{Element, Error, Result};

/// The strides as `ndarray` takes them. An axis of at most one element is never stepped along: its stride may
/// be anything.
fn unsigned<const N: usize>(shape: [usize; N], strides: [isize; N]) -> Result<[usize; N]> {
    let mut out = [0; N];
    for axis in 0..N {
        out[axis] = match usize::try_from(strides[axis]) {
            Ok(stride) => stride,
            Err(_) if shape[axis] <= 1 => 1,
            Err(_) => return Err(Error::unsupported("a reversed axis", "ndarray takes no negative strides")),
        };
    }
    Ok(out)
}

macro_rules! ranks {
    ($($n:literal),*) => {$(
        impl<'a, T: Element> From<ArrayView<'a, T, Dim<[usize; $n]>>> for TensorView<'a, T, $n> {
            fn from(array: ArrayView<'a, T, Dim<[usize; $n]>>) -> Self {
                let (mut shape, mut strides) = ([0; $n], [0; $n]);
                shape.copy_from_slice(array.shape());
                strides.copy_from_slice(array.strides());
                // ndarray's pointers are never null, not even those of empty views.
                let first = NonNull::new(array.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
                // SAFETY: ndarray's view borrows every element that its shape and strides reach for 'a.
                unsafe { TensorView::from_raw_parts(first, shape, strides) }
            }
        }

        impl<'a, T: Element> From<ArrayViewMut<'a, T, Dim<[usize; $n]>>> for TensorViewMut<'a, T, $n> {
            fn from(mut array: ArrayViewMut<'a, T, Dim<[usize; $n]>>) -> Self {
                let (mut shape, mut strides) = ([0; $n], [0; $n]);
                shape.copy_from_slice(array.shape());
                strides.copy_from_slice(array.strides());
                let first = NonNull::new(array.as_mut_ptr()).unwrap_or(NonNull::dangling());
                // SAFETY: ndarray's mutable view borrows every element that it reaches exclusively for 'a, and
                // no two of its indices reach the same one.
                unsafe { TensorViewMut::from_raw_parts(first, shape, strides) }
            }
        }

        impl<'a, T: Element> TryFrom<TensorView<'a, T, $n>> for ArrayView<'a, T, Dim<[usize; $n]>> {
            type Error = Error;

            fn try_from(view: TensorView<'a, T, $n>) -> Result<Self> {
                let strides = unsigned(view.shape(), view.strides())?;
                // SAFETY: the view borrows every element that shape and strides reach for 'a, all in one
                // allocation; the strides are the view's own, and not negative where they are used.
                Ok(unsafe { ArrayView::from_shape_ptr(view.shape().strides(strides), view.as_ptr()) })
            }
        }

        impl<'a, T: Element> TryFrom<TensorViewMut<'a, T, $n>> for ArrayViewMut<'a, T, Dim<[usize; $n]>> {
            type Error = Error;

            fn try_from(mut view: TensorViewMut<'a, T, $n>) -> Result<Self> {
                let strides = unsigned(view.shape(), view.strides())?;
                let shape = view.shape();
                // SAFETY: as for the shared view; the mutable one borrows exclusively, and no two of its
                // indices reach the same element.
                Ok(unsafe { ArrayViewMut::from_shape_ptr(shape.strides(strides), view.as_mut_ptr()) })
            }
        }
    )*};
}

ranks!(1, 2, 3, 4);
