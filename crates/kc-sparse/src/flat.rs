//! [`FlatCsr`]: the sparse matrix of many heads in one set of compressed rows.
//!
//! One row per (batch entry, query). Its column ids are `head * keys + key` and rise strictly, so that the entries of a
//! head lie together and a head may have none. This is how sparse attention keeps masks whose heads share one budget
//! of entries per query. Memory: `8 batch (rows + 1) + (4 + size of T) nnz` bytes.
//!
//! ```
//! use kc_sparse::FlatCsr;
//! // One batch entry, two heads, one query, three keys: head 0 sees keys 0 and 2, head 1 sees key 1.
//! let mut m = FlatCsr::new([1, 2, 1, 3], &[0, 3], &[0, 2, 4], vec![1.0f32, 1.0, 5.0])?;
//! m.softmax();
//! assert_eq!(m.to_dense()?.as_slice(), [0.5, 0.0, 0.5, 0.0, 1.0, 0.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::ops::Range;

use kc_core::math::{Real, exp_in_place};
use kc_core::{Error, Result, Tensor, TensorView, shape::checked_len};

/// Row-sparse matrices `[rows, keys]` of `heads` heads in `batch` batch entries.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatCsr<T> {
    shape: [usize; 4],
    /// `rows + 1` offsets per batch entry, each from 0.
    crow: Vec<i64>,
    /// Where each batch entry starts in `cols`.
    starts: Vec<usize>,
    cols: Vec<u32>,
    values: Vec<T>,
}

impl<T: Real> FlatCsr<T> {
    /// A matrix of `shape` `[batch, heads, rows, keys]` from `batch * (rows + 1)` offsets (each batch entry counts from
    /// 0) and the column ids of all batch entries, one after the other.
    ///
    /// # Errors
    /// Lengths that do not fit, offsets that fall, column ids that do not rise strictly within a row or are not below
    /// `heads * keys` (the error names the row), or more than 2^32 columns.
    pub fn new(shape: [usize; 4], crow: &[i64], cols: &[i64], values: Vec<T>) -> Result<Self> {
        let [batch, heads, rows, keys] = shape;
        let columns = checked_len("shape", &[heads, keys])?;
        if columns > u32::MAX as usize {
            return Err(Error::too_large("shape", columns as u64, u64::from(u32::MAX), "columns"));
        }
        let per = rows.checked_add(1).ok_or_else(|| Error::argument("shape", "fewer rows", rows))?;
        if checked_len("shape", &[batch, per])? != crow.len() {
            return Err(Error::shape("crow", format!("[{batch}, {per}]"), &[crow.len()]));
        }
        if values.len() != cols.len() {
            return Err(Error::shape("values", format!("{}, as many as cols", cols.len()), &[values.len()]));
        }
        let (mut starts, mut narrow) = (Vec::with_capacity(batch), Vec::with_capacity(cols.len()));
        for (n, crow) in crow.chunks_exact(per).enumerate() {
            let start = narrow.len();
            starts.push(start);
            if crow[0] != 0 {
                return Err(Error::argument("crow", format!("0 at the start of entry {n}"), crow[0]));
            }
            for (i, ends) in crow.windows(2).enumerate() {
                let left = cols.len() - start;
                if ends[1] < ends[0] || ends[1] as u64 > left as u64 {
                    let what = format!("offsets that rise to at most {left} in row {i} of entry {n}");
                    return Err(Error::argument("crow", what, ends[1]));
                }
                let row = &cols[start + ends[0] as usize..start + ends[1] as usize];
                if row.windows(2).any(|pair| pair[1] <= pair[0]) {
                    let what = format!("column ids that rise strictly in row {i} of entry {n}");
                    return Err(Error::argument("cols", what, "others"));
                }
                for &c in row {
                    match usize::try_from(c) {
                        Ok(c) if c < columns => narrow.push(c as u32),
                        Ok(c) => return Err(Error::index("cols", &[n, i], c, columns)),
                        Err(_) => return Err(Error::argument("cols", format!("0 and more in row {i}"), c)),
                    }
                }
            }
        }
        if narrow.len() != cols.len() {
            return Err(Error::shape(
                "cols",
                format!("{} entries, as crow says", narrow.len()),
                &[cols.len()],
            ));
        }
        Ok(FlatCsr { shape, crow: crow.to_vec(), starts, cols: narrow, values })
    }

    /// A matrix of the column ids of each row, batch entry after batch entry, every value 1.
    ///
    /// # Errors
    /// As [`new`](Self::new), except that ids are trusted to rise: for producers of this workspace.
    pub fn from_rows(shape: [usize; 4], lengths: &[u32], cols: Vec<u32>) -> Result<Self> {
        let [batch, heads, rows, keys] = shape;
        let columns = checked_len("shape", &[heads, keys])?;
        if checked_len("shape", &[batch, rows])? != lengths.len() {
            return Err(Error::shape("lengths", format!("{batch} x {rows}"), &[lengths.len()]));
        }
        if columns > u32::MAX as usize || cols.iter().any(|&c| c as usize >= columns) {
            return Err(Error::argument("cols", format!("ids below {columns}"), "others"));
        }
        let (mut crow, mut starts, mut start) = (Vec::with_capacity(batch * (rows + 1)), Vec::new(), 0);
        for n in 0..batch {
            starts.push(start);
            let mut end = 0i64;
            crow.push(0);
            for &len in &lengths[n * rows..(n + 1) * rows] {
                end += i64::from(len);
                crow.push(end);
            }
            start += end as usize;
        }
        if start != cols.len() {
            return Err(Error::shape("cols", format!("{start} entries, as lengths say"), &[cols.len()]));
        }
        let values = vec![T::ONE; cols.len()];
        Ok(FlatCsr { shape, crow, starts, cols, values })
    }

    /// `[batch, heads, rows, keys]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Stored entries, of all batch entries together.
    pub fn nnz(&self) -> usize {
        self.cols.len()
    }

    /// Offsets, `[batch, rows + 1]`.
    pub fn crow(&self) -> &[i64] {
        &self.crow
    }

    /// Column ids `head * keys + key`.
    pub fn cols(&self) -> &[u32] {
        &self.cols
    }

    /// The value of each entry.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The value of each entry, to change. The pattern stays.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// The same pattern with other values.
    ///
    /// # Errors
    /// If their number is another one.
    pub fn with_values<U: Real>(&self, values: Vec<U>) -> Result<FlatCsr<U>> {
        if values.len() != self.nnz() {
            return Err(Error::shape("values", format!("{} entries", self.nnz()), &[values.len()]));
        }
        let (crow, starts, cols) = (self.crow.clone(), self.starts.clone(), self.cols.clone());
        Ok(FlatCsr { shape: self.shape, crow, starts, cols, values })
    }

    /// The entries of row `row` of batch entry `n`: a range of [`cols`](Self::cols).
    ///
    /// # Panics
    /// If there is no such row, as for slices.
    pub fn row(&self, n: usize, row: usize) -> Range<usize> {
        let at = n * (self.shape[2] + 1) + row;
        self.starts[n] + self.crow[at] as usize..self.starts[n] + self.crow[at + 1] as usize
    }

    /// The entries of each batch entry.
    pub fn nnz_per_batch(&self) -> Vec<usize> {
        let ends = self.starts.iter().skip(1).copied().chain([self.nnz()]);
        self.starts.iter().zip(ends).map(|(start, end)| end - start).collect()
    }

    /// The parts of row `row` that belong to one head each: `(head, entries)`; heads without entries are left out.
    pub fn heads(&self, n: usize, row: usize) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let (keys, whole) = (self.shape[3].max(1), self.row(n, row));
        let mut start = whole.start;
        std::iter::from_fn(move || {
            let head = *self.cols[..whole.end].get(start)? as usize / keys;
            let end =
                start + self.cols[start..whole.end].partition_point(|&c| (c as usize) < (head + 1) * keys);
            let part = start..end;
            start = end;
            Some((head, part))
        })
    }

    /// The dense `[batch, heads, rows, keys]`: for tests and pictures, quadratic in memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn to_dense(&self) -> Result<Tensor<T, 4>> {
        let [batch, _, rows, keys] = self.shape;
        let mut out = Tensor::zeros(self.shape)?;
        for (n, i) in (0..batch).flat_map(|n| (0..rows).map(move |i| (n, i))) {
            for e in self.row(n, i) {
                let c = self.cols[e] as usize;
                out[[n, c / keys, i, c % keys]] = self.values[e];
            }
        }
        Ok(out)
    }

    /// Softmax of the values over the entries of each row and head.
    pub fn softmax(&mut self) {
        let [batch, _, rows, _] = self.shape;
        for (n, i) in (0..batch).flat_map(|n| (0..rows).map(move |i| (n, i))) {
            let parts: Vec<Range<usize>> = self.heads(n, i).map(|(_, part)| part).collect();
            for part in parts {
                softmax(&mut self.values[part]);
            }
        }
    }

    /// Multiplies the entries of each row and head by `scale[n, head, row]`.
    ///
    /// # Errors
    /// If `scale` is not `[batch, heads, rows]`.
    pub fn row_scale(&mut self, scale: TensorView<'_, T, 3>) -> Result<()> {
        let [batch, heads, rows, keys] = self.shape;
        if scale.shape() != [batch, heads, rows] {
            return Err(Error::shape("scale", format!("[{batch}, {heads}, {rows}]"), &scale.shape()));
        }
        for (n, i) in (0..batch).flat_map(|n| (0..rows).map(move |i| (n, i))) {
            for e in self.row(n, i) {
                self.values[e] = self.values[e] * scale.at([n, self.cols[e] as usize / keys, i]);
            }
        }
        Ok(())
    }

    /// The product of every head's matrix with `v` `[batch, heads, keys, d]`: `[batch, heads, rows, d]`.
    ///
    /// # Errors
    /// If `v` does not fit.
    pub fn matmul(&self, v: TensorView<'_, T, 4>) -> Result<Tensor<T, 4>> {
        let [batch, heads, rows, keys] = self.shape;
        let d = v.shape()[3];
        if v.shape()[..3] != [batch, heads, keys] {
            return Err(Error::shape("v", format!("[{batch}, {heads}, {keys}, d]"), &v.shape()));
        }
        let (v, mut out) = (v.to_tensor()?, Tensor::zeros([batch, heads, rows, d])?);
        for (n, i) in (0..batch).flat_map(|n| (0..rows).map(move |i| (n, i))) {
            for e in self.row(n, i) {
                let (c, p) = (self.cols[e] as usize, self.values[e]);
                let from = &v.as_slice()[(n * heads * keys + c) * d..][..d];
                let to = &mut out.as_mut_slice()[((n * heads + c / keys) * rows + i) * d..][..d];
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *to + p * *from;
                }
            }
        }
        Ok(out)
    }
}

/// Softmax in place.
fn softmax<T: Real>(x: &mut [T]) {
    let most = x.iter().fold(-T::INFINITY, |m, &x| if x > m { x } else { m });
    x.iter_mut().for_each(|x| *x = *x - most);
    exp_in_place(x);
    let sum: f64 = x.iter().map(|x| x.to_f64()).sum();
    let scale = T::from_f64(1.0 / sum);
    x.iter_mut().for_each(|x| *x = *x * scale);
}
