//! Into and out of [`Csr`]: coordinates, compressed columns, dense, and (feature `sprs`) sprs matrices.
//!
//! All conversions are counting sorts, linear in the number of entries. None of them drops a stored zero.
//!
//! ```
//! use kc_sparse::{Csr, Triplets, semiring::PlusTimes};
//! let t = Triplets { nrows: 2, ncols: 3, rows: &[1, 0, 1], cols: &[2, 1, 2], values: &[5.0, 1.0, 0.5] };
//! let a: Csr<f64> = t.to_csr()?;                       // repeated entries stay ...
//! assert_eq!((a.nnz(), a.values()), (3, &[1.0, 5.0, 0.5][..]));
//! let a = a.sum_duplicates(PlusTimes::new());          // ... until they are added up
//! assert_eq!((a.nnz(), a.values()), (2, &[1.0, 5.5][..]));
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Element, Error, Result, Tensor, TensorView};

use crate::csr::{Csr, CsrView, Index, Order, Value};
use crate::semiring::{Number, Semiring};

/// Entries by coordinates (COO), in any order, with repetitions. Indices start at 0.
#[derive(Debug, Clone, Copy)]
pub struct Triplets<'a, T> {
    /// Number of rows.
    pub nrows: usize,
    /// Number of columns.
    pub ncols: usize,
    /// The row of each entry.
    pub rows: &'a [usize],
    /// The column of each entry.
    pub cols: &'a [usize],
    /// The value of each entry.
    pub values: &'a [T],
}

impl<T: Value> Triplets<'_, T> {
    /// Compressed rows. Within a row, entries keep their order; repeated ones stay apart.
    pub fn to_csr<I: Index>(&self) -> Result<Csr<T, I>> {
        let n = self.values.len();
        for (name, len) in [("rows", self.rows.len()), ("cols", self.cols.len())] {
            if len != n {
                return Err(Error::shape(name, format!("{n} elements, as many as values"), &[len]));
            }
        }
        if let Some(at) = self.rows.iter().position(|&r| r >= self.nrows) {
            return Err(Error::index("rows", &[at], self.rows[at], self.nrows));
        }
        if let Some(at) = self.cols.iter().position(|&c| c >= self.ncols) {
            return Err(Error::index("cols", &[at], self.cols[at], self.ncols));
        }
        let mut indptr = offsets(self.nrows, self.rows.iter().copied())?;
        let mut indices = vec![I::default(); n];
        let mut values = vec![T::default(); n];
        for ((&r, &c), &v) in self.rows.iter().zip(self.cols).zip(self.values) {
            let at = take(&mut indptr, r);
            indices[at] = I::from_usize(c);
            values[at] = v;
        }
        rewind(&mut indptr);
        Csr::new(self.nrows, self.ncols, indptr, indices, values)
    }
}

/// Offsets of rows whose entries are listed by `keys`.
fn offsets(nrows: usize, keys: impl Iterator<Item = usize>) -> Result<Vec<i64>> {
    let len =
        nrows.checked_add(1).ok_or_else(|| Error::too_large("nrows", u64::MAX, i64::MAX as u64, "rows"))?;
    let mut indptr = vec![0i64; len];
    for key in keys {
        indptr[key + 1] += 1;
    }
    let mut sum = 0;
    for p in &mut indptr {
        sum += *p;
        *p = sum;
    }
    Ok(indptr)
}

/// The next free place of row `r`.
#[inline(always)]
fn take(indptr: &mut [i64], r: usize) -> usize {
    let at = indptr[r];
    indptr[r] = at + 1;
    at as usize
}

/// Undoes the advances of [`take`] once all rows are full.
fn rewind(indptr: &mut [i64]) {
    let rows = indptr.len() - 1;
    indptr.copy_within(0..rows, 1);
    indptr[0] = 0;
}

impl<'a, T: Value, I: Index> CsrView<'a, T, I> {
    /// The transpose, by a counting sort: its rows are sorted, and repeated entries keep their order.
    ///
    /// Fails if the number of rows does not fit the index width.
    pub fn transpose(&self) -> Result<Csr<T, I>> {
        let (m, n) = (self.nrows(), self.ncols());
        if m > I::MAX.to_usize() {
            return Err(Error::too_large(
                "nrows",
                m as u64,
                I::MAX.to_usize() as u64,
                "columns of the transpose",
            ));
        }
        let mut indptr = offsets(n, self.indices().iter().map(|c| c.to_usize()))?;
        let mut indices = vec![I::default(); self.nnz()];
        let mut values = vec![T::default(); self.nnz()];
        for i in 0..m {
            let (cols, vals) = self.row(i);
            for (c, &v) in cols.iter().zip(vals) {
                let at = take(&mut indptr, c.to_usize());
                indices[at] = I::from_usize(i);
                values[at] = v;
            }
        }
        rewind(&mut indptr);
        // Rows rise; a repetition can only come from a repetition.
        let order = if self.order() == Order::Strict { Order::Strict } else { Order::Sorted };
        Ok(Csr::from_parts(n, m, indptr, indices, values, order))
    }

    /// The entries by coordinates: rows, columns, values.
    pub fn to_triplets(&self) -> (Vec<usize>, Vec<usize>, Vec<T>) {
        let rows = (0..self.nrows()).flat_map(|i| std::iter::repeat_n(i, self.range(i).len())).collect();
        (rows, self.indices().iter().map(|c| c.to_usize()).collect(), self.values().to_vec())
    }

    /// Compressed columns: offsets of the columns, rows, values. Rows rise along each column.
    pub fn to_csc(&self) -> Result<(Vec<i64>, Vec<I>, Vec<T>)> {
        Ok(self.transpose()?.into_parts())
    }

    /// The same matrix with every row sorted. Repeated columns keep their order, so a later product gives
    /// the same bits.
    pub fn sorted(&self) -> Csr<T, I> {
        let mut out = self.to_owned();
        if self.order() != Order::Unsorted {
            return out;
        }
        let (indptr, mut indices, mut values) = {
            let taken =
                std::mem::replace(&mut out, Csr::from_parts(0, 0, vec![0], vec![], vec![], Order::Strict));
            taken.into_parts()
        };
        let mut pairs: Vec<(I, T)> = Vec::new();
        let mut order = Order::Strict;
        for w in indptr.windows(2) {
            let range = w[0] as usize..w[1] as usize;
            let (cols, vals) = (&mut indices[range.clone()], &mut values[range]);
            if !cols.is_sorted() {
                pairs.clear();
                pairs.extend(cols.iter().copied().zip(vals.iter().copied()));
                pairs.sort_by_key(|p| p.0);
                for ((c, v), &(pc, pv)) in cols.iter_mut().zip(vals.iter_mut()).zip(&pairs) {
                    (*c, *v) = (pc, pv);
                }
            }
            if cols.windows(2).any(|p| p[0] == p[1]) {
                order = Order::Sorted;
            }
        }
        Csr::from_parts(self.nrows(), self.ncols(), indptr, indices, values, order)
    }
}

impl<T: Value, I: Index> Csr<T, I> {
    /// The transpose. See [`CsrView::transpose`].
    pub fn transpose(&self) -> Result<Self> {
        self.view().transpose()
    }

    /// The matrix with these compressed columns (offsets of the columns, rows, values).
    pub fn from_csc(nrows: usize, ncols: usize, indptr: &[i64], indices: &[I], values: &[T]) -> Result<Self> {
        CsrView::new(ncols, nrows, indptr, indices, values)?.transpose()
    }

    /// Sorts every row and adds up repeated entries, in their stored order, with the addition of `s`.
    pub fn sum_duplicates<S: Semiring<Out = T>>(self, s: S) -> Self {
        if self.order() == Order::Strict {
            return self;
        }
        let (nrows, ncols) = (self.nrows(), self.ncols());
        let (mut indptr, mut indices, mut values) = self.view().sorted().into_parts();
        let (mut write, mut start) = (0usize, 0usize);
        for i in 0..nrows {
            let end = indptr[i + 1] as usize;
            let first = write;
            for q in start..end {
                if write > first && indices[write - 1] == indices[q] {
                    values[write - 1] = s.add(values[write - 1], values[q]);
                } else {
                    (indices[write], values[write]) = (indices[q], values[q]);
                    write += 1;
                }
            }
            start = end;
            indptr[i + 1] = write as i64;
        }
        indices.truncate(write);
        values.truncate(write);
        Self::from_parts(nrows, ncols, indptr, indices, values, Order::Strict)
    }
}

impl<T: Number + Element, I: Index> Csr<T, I> {
    /// The non-zero elements of a dense matrix.
    pub fn from_dense(dense: TensorView<'_, T, 2>) -> Result<Self> {
        let [m, n] = dense.shape();
        let mut indptr = Vec::with_capacity(m + 1);
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        indptr.push(0);
        for i in 0..m {
            for j in 0..n {
                let x = dense.at([i, j]);
                if x != T::ZERO {
                    indices.push(I::from_usize(j));
                    values.push(x);
                }
            }
            indptr.push(indices.len() as i64);
        }
        Self::new(m, n, indptr, indices, values)
    }
}

impl<T: Number + Element, I: Index> CsrView<'_, T, I> {
    /// The dense matrix, repeated entries added. Fails if it is too large for the memory.
    pub fn to_dense(&self) -> Result<Tensor<T, 2>> {
        let n = self.ncols();
        let mut out: Tensor<T, 2> = Tensor::zeros([self.nrows(), n])?;
        let dense = out.as_mut_slice();
        for i in 0..self.nrows() {
            let (cols, vals) = self.row(i);
            for (c, &v) in cols.iter().zip(vals) {
                let x = &mut dense[i * n + c.to_usize()];
                *x = x.plus(v);
            }
        }
        Ok(out)
    }
}

/// Feature `sprs`: the matrix as an sprs CSR matrix of `usize` indices. Rows are sorted and repeated entries
/// added first, as sprs requires.
#[cfg(feature = "sprs")]
impl<T: Number, I: Index> From<Csr<T, I>> for sprs::CsMat<T> {
    fn from(matrix: Csr<T, I>) -> Self {
        let (m, n) = (matrix.nrows(), matrix.ncols());
        let (indptr, indices, values) = matrix.sum_duplicates(crate::semiring::PlusTimes::new()).into_parts();
        let indptr = indptr.into_iter().map(|p| p as usize).collect();
        sprs::CsMat::new((m, n), indptr, indices.into_iter().map(Index::to_usize).collect(), values)
    }
}

/// Feature `sprs`: from an sprs matrix in either storage order.
#[cfg(feature = "sprs")]
impl<T: Value, I: Index> TryFrom<&sprs::CsMat<T>> for Csr<T, I> {
    type Error = Error;

    fn try_from(matrix: &sprs::CsMat<T>) -> Result<Self> {
        let outer = matrix.indptr();
        let indptr = outer.as_slice().unwrap_or(&[0]).iter().map(|&p| p as i64).collect();
        if matrix.cols().max(matrix.rows()) > I::MAX.to_usize() {
            let need = matrix.cols().max(matrix.rows()) as u64;
            return Err(Error::too_large("matrix", need, I::MAX.to_usize() as u64, "columns"));
        }
        let indices = matrix.indices().iter().map(|&c| I::from_usize(c)).collect();
        let values = matrix.data().to_vec();
        if matrix.is_csr() {
            Self::new(matrix.rows(), matrix.cols(), indptr, indices, values)
        } else {
            Csr::new(matrix.cols(), matrix.rows(), indptr, indices, values)?.transpose()
        }
    }
}
