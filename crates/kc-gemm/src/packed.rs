//! [`PackedB`]: a right operand that is packed once and multiplied often.

use std::ops::Range;

use kc_core::{AlignedBuf, Isa, Result, TensorView, shape};

use crate::Real;
use crate::blocking::{Blocking, Caches};
use crate::gemm::{Operand, pack};
use crate::panel::{Lines, PanelSource};

/// A right operand `[K, N]` in the panels of one level.
///
/// Products with it have the bits of the plain ones at that level, except for those with one row or one column: the
/// plain ones stream the matrix then and add in another order, within the same bound.
///
/// ```
/// use kc_core::{Tensor, TensorView};
/// use kc_gemm::{PackedB, gemm_packed_into};
///
/// let b = PackedB::pack(TensorView::from_slice([2, 1], &[3.0f32, 4.0])?)?;
/// let mut out = Tensor::zeros([1, 1])?;
/// gemm_packed_into(1.0, TensorView::from_slice([1, 2], &[1.0f32, 2.0])?, &b, 0.0, out.view_mut())?;
/// assert_eq!(out.as_slice(), [11.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedB<T: Real> {
    /// Blocks of depth; in each, panels `[k][nr]` for all columns.
    data: AlignedBuf<T>,
    shape: [usize; 2],
    isa: Isa,
    /// Columns with padding.
    width: usize,
}

impl<T: Real> PackedB<T> {
    /// Packs `b` `[K, N]`, of the same or a narrower type, for the best level.
    pub fn pack<E: Operand<Sum = T>>(b: TensorView<'_, E, 2>) -> Result<Self> {
        Self::from_source(Isa::best(), &Lines::columns(b))
    }

    /// Packs whatever fills panels, for a given level.
    pub fn from_source(isa: Isa, b: &impl PanelSource<T>) -> Result<Self> {
        let ([k, n], kernel) = ([b.depth(), b.lines()], T::kernel(isa));
        let width = n.next_multiple_of(kernel.nr);
        let Blocking { kc, .. } =
            Blocking::of(Caches::here(), size_of::<T>(), [kernel.mr, kernel.nr], [0, k]);
        let mut data = AlignedBuf::zeroed(shape::checked_len("b", &[k, width])?)?;
        for start in (0..k).step_by(kc) {
            let depth = start..k.min(start + kc);
            pack(b, 0..n, depth.clone(), kernel.nr, true, &mut data[start * width..depth.end * width]);
        }
        Ok(Self { data, shape: [k, n], isa, width })
    }

    /// `[K, N]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<T>()
    }

    /// The level it was packed for, on which its products run.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The panels from `column` on, for one block of depth. `column` is a multiple of the panels' width.
    pub(crate) fn block(&self, column: usize, depth: Range<usize>) -> &[T] {
        &self.data[depth.start * self.width + column * depth.len()..depth.end * self.width]
    }
}
