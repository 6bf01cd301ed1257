//! Views to and from faer, without copies.
//!
//! A [`TensorView`] of rank 2 and a faer matrix reference are the same three things (pointer, shape,
//! strides), so either becomes the other for free, with any strides: transposed, stepped, reversed.
//!
//! The module is public with the feature `faer`; then faer's version is part of your public interface.
//!
//! ```
//! # #[cfg(feature = "faer")] {
//! use kc_core::{Tensor, TensorView};
//! use kc_linalg::faer::{mat_ref, view};
//!
//! let a = Tensor::<f64, 2>::from_fn([3, 2], |[i, j]| (2 * i + j) as f64)?;
//! let m = mat_ref(a.view().transposed());
//! assert_eq!((m.nrows(), m.ncols(), m[(1, 2)]), (2, 3, 5.0));
//! let back: TensorView<'_, f64, 2> = view(m);
//! assert_eq!(back.at([1, 2]), 5.0);
//! # }
//! # Ok::<(), kc_core::Error>(())
//! ```

#![expect(unsafe_code, reason = "the same memory under another type; both sides promise the same bounds")]

use std::ptr::NonNull;

use ::faer::{MatMut, MatRef};
use kc_core::{TensorView, TensorViewMut};

use crate::Real;

/// The view as a faer matrix, borrowed.
pub fn mat_ref<T: Real>(a: TensorView<'_, T, 2>) -> MatRef<'_, T> {
    let [rows, cols] = a.shape();
    let [row_stride, col_stride] = a.strides();
    // SAFETY: a view's pointer is not null, every index inside of its shape reaches a T that nobody changes
    // during the view's life, and its size fits the address space.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, cols, row_stride, col_stride) }
}

/// The mutable view as a faer matrix, borrowed exclusively.
pub fn mat_mut<T: Real>(mut a: TensorViewMut<'_, T, 2>) -> MatMut<'_, T> {
    let [rows, cols] = a.shape();
    let [row_stride, col_stride] = a.strides();
    // SAFETY: as in mat_ref; moreover a mutable view is exclusive and no two of its indices meet. It is
    // consumed here, so the result takes over its borrow.
    unsafe { MatMut::from_raw_parts_mut(a.as_mut_ptr(), rows, cols, row_stride, col_stride) }
}

/// A faer matrix as a view, borrowed.
pub fn view<T: Real>(m: MatRef<'_, T>) -> TensorView<'_, T, 2> {
    // SAFETY: faer's pointers are never null (they dangle for empty matrices), and a MatRef promises what
    // from_raw_parts asks for.
    unsafe {
        let ptr = NonNull::new_unchecked(m.as_ptr().cast_mut());
        TensorView::from_raw_parts(ptr, [m.nrows(), m.ncols()], [m.row_stride(), m.col_stride()])
    }
}

/// A mutable faer matrix as a view, borrowed exclusively.
pub fn view_mut<T: Real>(m: MatMut<'_, T>) -> TensorViewMut<'_, T, 2> {
    let (shape, strides) = ([m.nrows(), m.ncols()], [m.row_stride(), m.col_stride()]);
    // SAFETY: as in view; a MatMut is exclusive and no two of its indices meet. It is consumed here, so the
    // result takes over its borrow.
    unsafe {
        let ptr = NonNull::new_unchecked(m.as_ptr().cast_mut());
        TensorViewMut::from_raw_parts(ptr, shape, strides)
    }
}
