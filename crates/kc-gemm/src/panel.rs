//! [`PanelSource`]: who fills a packed panel.
//!
//! A product reads its operands from panels: `width` lines (rows of the left operand, columns of the right one)
//! side by side, `panel[k * width + line]`. Whatever can fill such a panel can be an operand, without ever being
//! stored as a matrix: a strided view ([`Lines`]), f16 or bf16 that widen on the way (also [`Lines`]), or any
//! function of `(line, k)` ([`FromFn`]): dequantised codes, merged weights, image patches.

use std::ops::Range;

use kc_core::{Float, TensorView};

use crate::Real;

/// An operand of a product.
pub trait PanelSource<T: Real>: Sync {
    /// Rows of a left operand, columns of a right one.
    fn lines(&self) -> usize;

    /// Length of the sums.
    fn depth(&self) -> usize;

    /// Writes `panel[(k - depth.start) * width + (line - lines.start)]` for all `k` of `depth` and `line` of
    /// `lines`. `lines.len() <= width`; places of lines that do not exist hold zeros or what an earlier panel
    /// left: they never reach a result.
    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [T]);
}

/// The lines of a strided matrix of any floating-point type.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a, E: Float> {
    /// `[lines, depth]`
    view: TensorView<'a, E, 2>,
}

impl<'a, E: Float> Lines<'a, E> {
    /// The rows of `a` `[M, K]`, as left operand.
    pub fn rows(a: TensorView<'a, E, 2>) -> Self {
        Self { view: a }
    }

    /// The columns of `b` `[K, N]`, as right operand.
    pub fn columns(b: TensorView<'a, E, 2>) -> Self {
        Self { view: b.transposed() }
    }
}

impl<T: Real, E: Float> PanelSource<T> for Lines<'_, E> {
    fn lines(&self) -> usize {
        self.view.rows()
    }

    fn depth(&self) -> usize {
        self.view.cols()
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [T]) {
        let across = self.view.transposed();
        let [line_stride, k_stride] = self.view.strides();
        if line_stride == 1 {
            for (k, panel) in depth.zip(panel.chunks_exact_mut(width)) {
                if let Some(row) = across.row_slice(k) {
                    panel.iter_mut().zip(&row[lines.clone()]).for_each(|(p, &x)| *p = T::widen(x));
                }
            }
        } else if k_stride == 1 || self.view.cols() <= 1 {
            for (i, line) in lines.enumerate() {
                if let Some(row) = self.view.row_slice(line) {
                    let row = &row[depth.clone()];
                    panel[i..].iter_mut().step_by(width).zip(row).for_each(|(p, &x)| *p = T::widen(x));
                }
            }
        } else {
            for (i, line) in lines.enumerate() {
                for (p, k) in panel[i..].iter_mut().step_by(width).zip(depth.clone()) {
                    *p = T::widen(self.view.at([line, k]));
                }
            }
        }
    }
}

/// An operand given by a function of `(line, k)`.
#[derive(Debug, Clone, Copy)]
pub struct FromFn<F> {
    /// Number of lines.
    pub lines: usize,
    /// Length of the sums.
    pub depth: usize,
    /// The element of `line` at `k`.
    pub element: F,
}

impl<T: Real, F: Fn(usize, usize) -> T + Sync> PanelSource<T> for FromFn<F> {
    fn lines(&self) -> usize {
        self.lines
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn fill(&self, lines: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [T]) {
        for (i, line) in lines.enumerate() {
            for (p, k) in panel[i..].iter_mut().step_by(width).zip(depth.clone()) {
                *p = (self.element)(line, k);
            }
        }
    }
}
