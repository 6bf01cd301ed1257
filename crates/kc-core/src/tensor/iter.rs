//! Walking over views in row-major order.

use super::TensorView;
use crate::Element;

/// Moves `index` to its successor in row-major order (wraps to zero at the end).
pub(super) fn advance<const N: usize>(index: &mut [usize; N], shape: &[usize; N]) {
    for axis in (0..N).rev() {
        index[axis] += 1;
        if index[axis] < shape[axis] {
            return;
        }
        index[axis] = 0;
    }
}

/// The elements of a view in row-major order.
#[derive(Debug, Clone)]
pub struct Elements<'a, T: Element, const N: usize> {
    view: TensorView<'a, T, N>,
    index: [usize; N],
    left: usize,
}

impl<'a, T: Element, const N: usize> Elements<'a, T, N> {
    pub(super) fn new(view: TensorView<'a, T, N>) -> Self {
        Self { view, index: [0; N], left: view.len() }
    }
}

impl<T: Element, const N: usize> Iterator for Elements<'_, T, N> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.left == 0 {
            return None;
        }
        let value = self.view.at(self.index);
        advance(&mut self.index, &self.view.shape());
        self.left -= 1;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Element, const N: usize> ExactSizeIterator for Elements<'_, T, N> {}
