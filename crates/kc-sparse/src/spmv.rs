//! Sparse times dense: a vector ([`spmv`]) or a matrix ([`spmm`]).
//!
//! Every result is summed from zero in the stored order of its row, with separate multiplications and
//! additions: the same bits on any number of threads and instruction set, and the bits of SciPy.
//!
//! Cost: `nnz` products per column of the dense side; both are bound by memory: `12 nnz` bytes of an f64 matrix
//! plus the gathered elements. For [`spmm`] the rows of `x` are read contiguously, so wide `x` pays the
//! gathering once per entry instead of once per product.
//!
//! ```
//! use kc_sparse::{Csr, spmv::spmv};
//! let a: Csr<f64> = Csr::new(2, 3, vec![0, 2, 3], vec![0, 2, 1], vec![1.0, 2.0, 3.0])?;
//! assert_eq!(spmv(a.view(), &[1.0, 10.0, 100.0])?, [201.0, 30.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Element, Error, Isa, Result, Tensor, TensorView};
use rayon::prelude::*;

use crate::csr::{CsrView, Index};
use crate::semiring::Number;
use crate::simd::{Kernel, Vector, dispatch};

/// Entries per parallel task, about.
const TASK: usize = 1 << 15;

/// `a x`. The length of `x` must be the number of columns.
pub fn spmv<T: Number, I: Index>(a: CsrView<'_, T, I>, x: &[T]) -> Result<Vec<T>> {
    let mut y = vec![T::ZERO; a.nrows()];
    spmv_into(a, x, &mut y)?;
    Ok(y)
}

/// [`spmv`] into `y`, whose length must be the number of rows.
pub fn spmv_into<T: Number, I: Index>(a: CsrView<'_, T, I>, x: &[T], y: &mut [T]) -> Result<()> {
    if x.len() != a.ncols() {
        return Err(Error::shape("x", format!("{} elements, the columns of a", a.ncols()), &[x.len()]));
    }
    if y.len() != a.nrows() {
        return Err(Error::shape("y", format!("{} elements, the rows of a", a.nrows()), &[y.len()]));
    }
    let rows = |first: usize, y: &mut [T]| {
        for (i, y) in y.iter_mut().enumerate() {
            let (cols, vals) = a.row(first + i);
            *y = cols.iter().zip(vals).fold(T::ZERO, |s, (c, &v)| s.plus(v.times(x[c.to_usize()])));
        }
    };
    let chunk = rows_per_task(a.nrows(), a.nnz());
    if chunk >= a.nrows() {
        rows(0, y);
    } else {
        y.par_chunks_mut(chunk).enumerate().for_each(|(t, y)| rows(t * chunk, y));
    }
    Ok(())
}

/// `a x` for a dense matrix `x` of as many rows as `a` has columns.
pub fn spmm<T: Number + Element, I: Index>(
    a: CsrView<'_, T, I>,
    x: TensorView<'_, T, 2>,
) -> Result<Tensor<T, 2>> {
    let [n, width] = x.shape();
    let mut out = Tensor::zeros([a.nrows(), width])?;
    if n != a.ncols() {
        return Err(Error::shape("x", format!("{} rows, the columns of a", a.ncols()), &x.shape()));
    }
    let copy;
    let x = match x.as_slice() {
        Some(x) => x,
        None => {
            copy = x.to_tensor()?;
            copy.as_slice()
        }
    };
    if width == 0 || a.nrows() == 0 {
        return Ok(out);
    }
    let chunk = rows_per_task(a.nrows(), a.nnz().saturating_mul(width));
    out.as_mut_slice().par_chunks_mut(chunk * width).enumerate().for_each(|(t, y)| {
        dispatch(Isa::best(), Rows { a, x, y, width, first: t * chunk });
    });
    Ok(out)
}

/// Rows per task: cut by the size of the work alone.
fn rows_per_task(rows: usize, work: usize) -> usize {
    rows.div_ceil(work.div_ceil(TASK).max(1)).max(1)
}

/// Some rows of [`spmm`].
struct Rows<'a, 'y, T, I> {
    a: CsrView<'a, T, I>,
    x: &'a [T],
    y: &'y mut [T],
    width: usize,
    first: usize,
}

impl<T: Number, I: Index> Kernel for Rows<'_, '_, T, I> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        for (i, y) in self.y.chunks_exact_mut(self.width).enumerate() {
            let (cols, vals) = self.a.row(self.first + i);
            for (c, &v) in cols.iter().zip(vals) {
                let at = c.to_usize() * self.width;
                for (y, &x) in y.iter_mut().zip(&self.x[at..at + self.width]) {
                    *y = y.plus(v.times(x));
                }
            }
        }
    }
}
