//! Points, a column for each dimension.

use std::ops::Range;

use kc_core::{Element, Error, Result, TensorView};

use crate::kernel::Kernel;

/// Points `(n, d)`, stored dimension by dimension: kernels read one dimension of many points at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Points<P: Element> {
    columns: Vec<Vec<P>>,
}

impl<P: Element> Points<P> {
    /// No points yet, of so many dimensions.
    pub fn new(dims: usize) -> Self {
        Self { columns: vec![Vec::new(); dims] }
    }

    /// The rows of `x`.
    ///
    /// # Errors
    /// `Shape` if `x` has not as many columns as the kernel has dimensions, `Argument` or `NotFinite` for a coordinate
    /// outside of the kernel's domain.
    pub fn from_rows<K: Kernel<Point = P>>(kernel: &K, x: TensorView<'_, P, 2>) -> Result<Self> {
        let [n, dims] = x.shape();
        if dims != kernel.dims() {
            return Err(Error::shape(
                "x",
                format!("[n, {}], one column per dimension", kernel.dims()),
                &[n, dims],
            ));
        }
        let mut points = Self { columns: vec![Vec::with_capacity(n); dims] };
        for i in 0..n {
            for (j, column) in points.columns.iter_mut().enumerate() {
                let value = x.at([i, j]);
                kernel.check_point(value)?;
                column.push(value);
            }
        }
        Ok(points)
    }

    /// One point.
    pub(crate) fn single(x: &[P]) -> Self {
        Self { columns: x.iter().map(|&x| vec![x]).collect() }
    }

    /// Adds points, row by row.
    pub(crate) fn extend(&mut self, rows: &[P]) {
        let dims = self.columns.len();
        for (j, column) in self.columns.iter_mut().enumerate() {
            column.extend(rows.iter().skip(j).step_by(dims));
        }
    }

    /// How many points.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// True without points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dimensions.
    pub fn dims(&self) -> usize {
        self.columns.len()
    }

    /// A dimension of all points.
    pub fn column(&self, dim: usize) -> &[P] {
        &self.columns[dim]
    }

    /// A dimension of some points.
    pub(crate) fn part(&self, dim: usize, rows: &Range<usize>) -> &[P] {
        &self.columns[dim][rows.clone()]
    }

    /// A point.
    pub fn point(&self, i: usize) -> Vec<P> {
        self.columns.iter().map(|column| column[i]).collect()
    }

    /// The first points.
    pub(crate) fn truncated(&self, n: usize) -> Self {
        Self { columns: self.columns.iter().map(|column| column[..n].to_vec()).collect() }
    }
}
