//! Rows of a matrix as slices, whatever its strides.

use kc_core::{Element, Result, Tensor, TensorView};

/// The rows of a matrix. Borrowed where the columns are adjacent, else copied once.
pub(crate) enum Rows<'a, T: Element> {
    Borrowed(TensorView<'a, T, 2>),
    Copied(Tensor<T, 2>),
}

impl<'a, T: Element> Rows<'a, T> {
    pub(crate) fn of(x: TensorView<'a, T, 2>) -> Result<Self> {
        if x.cols() <= 1 || x.strides()[1] == 1 {
            return Ok(Rows::Borrowed(x));
        }
        Ok(Rows::Copied(x.to_tensor()?))
    }

    #[inline]
    pub(crate) fn row(&self, i: usize) -> &[T] {
        let view = match self {
            Rows::Borrowed(view) => *view,
            Rows::Copied(tensor) => tensor.view(),
        };
        // `of` chose a layout with adjacent columns, so the slice is always there.
        view.row_slice(i).unwrap_or_default()
    }
}
