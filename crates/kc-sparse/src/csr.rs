//! Compressed sparse rows: the matrix type of this crate, owned and borrowed.
//!
//! Row `i` holds the entries `indptr[i]..indptr[i + 1]` of `indices` (columns) and `values`. Rows may be
//! unsorted and may repeat a column (repeated entries add); how tidy the rows are is found out once, when the
//! matrix is built ([`Order`]). Building checks everything, so that no later call can meet a bad index.
//!
//! Memory: `8 (nrows + 1) + (size of I + size of T) nnz` bytes.
//!
//! ```
//! use kc_sparse::Csr;
//! // [ 1 0 2 ]
//! // [ 0 3 0 ]
//! let a: Csr<f64> = Csr::new(2, 3, vec![0, 2, 3], vec![0, 2, 1], vec![1.0, 2.0, 3.0])?;
//! assert_eq!(a.row(0), (&[0u32, 2][..], &[1.0, 2.0][..]));
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::fmt::Debug;
use std::hash::Hash;

use kc_core::bytemuck::NoUninit;
use kc_core::{Complex, Error, Result};

mod sealed {
    pub trait Sealed {}
}

/// A column index: `u32` (the default) or `u64`. Sealed.
pub trait Index: sealed::Sealed + NoUninit + Ord + Hash + Debug + Default + Send + Sync {
    /// The largest value. No column has it, so tables use it for "empty".
    const MAX: Self;
    /// An index together with an order, so that sorting pairs is sorting integers.
    type Packed: Copy + Ord + Debug + Default + Send + Sync;
    /// The index as a `usize`.
    fn to_usize(self) -> usize;
    /// The index of a column that is known to fit.
    fn from_usize(column: usize) -> Self;
    /// Index in the high bits, order in the low.
    fn pack(self, order: u32) -> Self::Packed;
    /// Undoes [`pack`](Self::pack).
    fn unpack(packed: Self::Packed) -> (Self, u32);
    /// The low 32 bits after folding, which a multiplicative hash spreads.
    fn fold(self) -> u32;
    /// The slice as `u32`, if that is what it is: how generic code reaches SIMD kernels.
    fn as_u32(slice: &[Self]) -> Option<&[u32]>;
    /// The mutable slice as `u32`, if that is what it is.
    fn as_u32_mut(slice: &mut [Self]) -> Option<&mut [u32]>;
}

impl sealed::Sealed for u32 {}
impl sealed::Sealed for u64 {}

impl Index for u32 {
    const MAX: Self = u32::MAX;
    type Packed = u64;
    #[inline(always)]
    fn to_usize(self) -> usize {
        self as usize
    }
    #[inline(always)]
    fn from_usize(column: usize) -> Self {
        column as u32
    }
    #[inline(always)]
    fn pack(self, order: u32) -> u64 {
        u64::from(self) << 32 | u64::from(order)
    }
    #[inline(always)]
    fn unpack(packed: u64) -> (Self, u32) {
        ((packed >> 32) as u32, packed as u32)
    }
    #[inline(always)]
    fn fold(self) -> u32 {
        self
    }
    #[inline(always)]
    fn as_u32(slice: &[u32]) -> Option<&[u32]> {
        Some(slice)
    }
    #[inline(always)]
    fn as_u32_mut(slice: &mut [u32]) -> Option<&mut [u32]> {
        Some(slice)
    }
}

impl Index for u64 {
    const MAX: Self = u64::MAX;
    type Packed = u128;
    #[inline(always)]
    fn to_usize(self) -> usize {
        self as usize
    }
    #[inline(always)]
    fn from_usize(column: usize) -> Self {
        column as u64
    }
    #[inline(always)]
    fn pack(self, order: u32) -> u128 {
        u128::from(self) << 32 | u128::from(order)
    }
    #[inline(always)]
    fn unpack(packed: u128) -> (Self, u32) {
        ((packed >> 32) as u64, packed as u32)
    }
    #[inline(always)]
    fn fold(self) -> u32 {
        (self ^ self >> 32) as u32
    }
    #[inline(always)]
    fn as_u32(_: &[u64]) -> Option<&[u32]> {
        None
    }
    #[inline(always)]
    fn as_u32_mut(_: &mut [u64]) -> Option<&mut [u32]> {
        None
    }
}

/// A type that entries can have: f32, f64, their complex pairs, i32, i64, u32, u64, bool, and `()` for a bare
/// pattern. Sealed.
pub trait Value: sealed::Sealed + NoUninit + Default + PartialEq + Debug + Send + Sync {
    /// What a sum may start from: zero, and for floats negative zero, because `-0 + x` is `x` bit by bit.
    const NEUTRAL: Self;
}

macro_rules! values {
    ($($t:ty: $neutral:expr),*) => {$(
        impl Value for $t {
            const NEUTRAL: Self = $neutral;
        }
    )*};
}
macro_rules! seal {
    ($($t:ty),*) => {$(
        impl sealed::Sealed for $t {}
    )*};
}
values!(
    f32: -0.0,
    f64: -0.0,
    Complex<f32>: Complex::new(-0.0, -0.0),
    Complex<f64>: Complex::new(-0.0, -0.0),
    i32: 0,
    i64: 0,
    u32: 0,
    u64: 0,
    bool: false,
    (): ()
);
seal!(f32, f64, Complex<f32>, Complex<f64>, i32, i64, bool, ());

/// How tidy the rows of a matrix are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Some row has a column after a larger one.
    Unsorted,
    /// Columns never fall along a row; some repeat.
    Sorted,
    /// Columns rise strictly along every row.
    Strict,
}

/// An owned sparse matrix in compressed rows.
#[derive(Debug, Clone)]
pub struct Csr<T, I = u32> {
    nrows: usize,
    ncols: usize,
    indptr: Vec<i64>,
    indices: Vec<I>,
    values: Vec<T>,
    order: Order,
}

/// A borrowed sparse matrix in compressed rows.
#[derive(Debug)]
pub struct CsrView<'a, T, I = u32> {
    nrows: usize,
    ncols: usize,
    indptr: &'a [i64],
    indices: &'a [I],
    values: &'a [T],
    order: Order,
}

impl<T, I> Clone for CsrView<'_, T, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, I> Copy for CsrView<'_, T, I> {}

/// Checks the three arrays and says how tidy the rows are.
fn check<I: Index>(
    nrows: usize,
    ncols: usize,
    indptr: &[i64],
    indices: &[I],
    values: usize,
) -> Result<Order> {
    if ncols > I::MAX.to_usize() {
        return Err(Error::too_large("ncols", ncols as u64, I::MAX.to_usize() as u64, "columns"));
    }
    if nrows.checked_add(1) != Some(indptr.len()) {
        return Err(Error::shape("indptr", format!("{nrows} rows + 1 elements"), &[indptr.len()]));
    }
    if indices.len() != values {
        return Err(Error::shape(
            "values",
            format!("{} elements, as many as indices", indices.len()),
            &[values],
        ));
    }
    let bad = |at: usize, expected: &str| {
        let what = format!("{expected} at {at}");
        Err(Error::argument("indptr", what, indptr[at]))
    };
    if indptr[0] != 0 {
        return bad(0, "0");
    }
    if let Some(at) = indptr.windows(2).position(|w| w[1] < w[0]) {
        return bad(at + 1, "offsets that never fall, but they do");
    }
    if indptr[nrows] != indices.len() as i64 {
        return bad(nrows, &format!("the number of entries, {},", indices.len()));
    }
    let mut order = Order::Strict;
    for (i, w) in indptr.windows(2).enumerate() {
        let row = &indices[w[0] as usize..w[1] as usize];
        // Branch-free, so that one pass over the indices runs at the speed of memory.
        let (mut largest, mut falls, mut repeats) = (I::default(), false, false);
        for &c in row {
            largest = largest.max(c);
        }
        for pair in row.windows(2) {
            falls |= pair[1] < pair[0];
            repeats |= pair[1] == pair[0];
        }
        if !row.is_empty() && largest.to_usize() >= ncols {
            let column = row.iter().map(|c| c.to_usize()).find(|&c| c >= ncols).unwrap_or(ncols);
            return Err(Error::index("indices", &[i], column, ncols));
        }
        if falls {
            order = Order::Unsorted;
        } else if repeats {
            order = order.min(Order::Sorted);
        }
    }
    Ok(order)
}

impl<T: Value, I: Index> Csr<T, I> {
    /// A matrix of these arrays.
    ///
    /// Fails if `indptr` does not have `nrows + 1` elements, does not start at 0, falls, or does not end at
    /// the number of entries (the error tells where); if `indices` and `values` differ in length; or if a
    /// column is not below `ncols`.
    pub fn new(
        nrows: usize,
        ncols: usize,
        indptr: Vec<i64>,
        indices: Vec<I>,
        values: Vec<T>,
    ) -> Result<Self> {
        let order = check(nrows, ncols, &indptr, &indices, values.len())?;
        Ok(Self { nrows, ncols, indptr, indices, values, order })
    }

    /// A matrix of arrays that this crate has just made.
    pub(crate) fn from_parts(
        nrows: usize,
        ncols: usize,
        indptr: Vec<i64>,
        indices: Vec<I>,
        values: Vec<T>,
        order: Order,
    ) -> Self {
        debug_assert!(check(nrows, ncols, &indptr, &indices, values.len()).is_ok_and(|found| found >= order));
        Self { nrows, ncols, indptr, indices, values, order }
    }

    /// A matrix without entries.
    pub fn empty(nrows: usize, ncols: usize) -> Result<Self> {
        let indptr =
            vec![
                0;
                nrows.checked_add(1).ok_or_else(|| Error::too_large("nrows", u64::MAX, 1 << 63, "rows"))?
            ];
        Self::new(nrows, ncols, indptr, Vec::new(), Vec::new())
    }

    /// The square matrix with `diagonal` on its diagonal.
    pub fn from_diagonal(diagonal: &[T]) -> Result<Self> {
        let n = diagonal.len();
        if n > I::MAX.to_usize() {
            return Err(Error::too_large("diagonal", n as u64, I::MAX.to_usize() as u64, "columns"));
        }
        let indices = (0..n).map(I::from_usize).collect();
        Ok(Self::from_parts(n, n, (0..=n as i64).collect(), indices, diagonal.to_vec(), Order::Strict))
    }

    /// A view of the whole.
    pub fn view(&self) -> CsrView<'_, T, I> {
        CsrView {
            nrows: self.nrows,
            ncols: self.ncols,
            indptr: &self.indptr,
            indices: &self.indices,
            values: &self.values,
            order: self.order,
        }
    }

    /// Number of rows.
    pub fn nrows(&self) -> usize {
        self.nrows
    }

    /// Number of columns.
    pub fn ncols(&self) -> usize {
        self.ncols
    }

    /// Number of stored entries.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// Where each row starts, and after the last one the number of entries.
    pub fn indptr(&self) -> &[i64] {
        &self.indptr
    }

    /// The column of each entry.
    pub fn indices(&self) -> &[I] {
        &self.indices
    }

    /// The value of each entry.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The value of each entry, to change. The pattern stays.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// How tidy the rows are.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Columns and values of row `i`.
    ///
    /// # Panics
    /// If there is no row `i`, as for slices.
    pub fn row(&self, i: usize) -> (&[I], &[T]) {
        self.view().row(i)
    }

    /// `indptr`, `indices` and `values`.
    pub fn into_parts(self) -> (Vec<i64>, Vec<I>, Vec<T>) {
        (self.indptr, self.indices, self.values)
    }

    /// Bytes that the three arrays take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.indptr) + size_of_val(&*self.indices) + size_of_val(&*self.values)
    }

    /// The same pattern with each value replaced by `f` of it.
    pub fn map<U: Value>(&self, f: impl Fn(T) -> U) -> Csr<U, I> {
        let values = self.values.iter().map(|&x| f(x)).collect();
        let (indptr, indices) = (self.indptr.clone(), self.indices.clone());
        Csr { nrows: self.nrows, ncols: self.ncols, indptr, indices, values, order: self.order }
    }

    /// The same matrix with another index width.
    ///
    /// Fails with [`Error::TooLarge`] if the number of columns does not fit.
    pub fn with_index<O: Index>(self) -> Result<Csr<T, O>> {
        if self.ncols > O::MAX.to_usize() {
            return Err(Error::too_large("ncols", self.ncols as u64, O::MAX.to_usize() as u64, "columns"));
        }
        let indices = self.indices.iter().map(|c| O::from_usize(c.to_usize())).collect();
        Ok(Csr::from_parts(self.nrows, self.ncols, self.indptr, indices, self.values, self.order))
    }
}

impl<T: Value, I: Index> PartialEq for Csr<T, I> {
    /// Same shape and the same arrays, entry by entry.
    fn eq(&self, other: &Self) -> bool {
        (self.nrows, self.ncols) == (other.nrows, other.ncols)
            && self.indptr == other.indptr
            && self.indices == other.indices
            && self.values == other.values
    }
}

impl<'a, T: Value, I: Index> CsrView<'a, T, I> {
    /// A view of these arrays, with the checks of [`Csr::new`].
    pub fn new(
        nrows: usize,
        ncols: usize,
        indptr: &'a [i64],
        indices: &'a [I],
        values: &'a [T],
    ) -> Result<Self> {
        let order = check(nrows, ncols, indptr, indices, values.len())?;
        Ok(Self { nrows, ncols, indptr, indices, values, order })
    }

    /// The same pattern over other values. Their number must be that of the entries.
    pub fn with_values<U: Value>(self, values: &'a [U]) -> Result<CsrView<'a, U, I>> {
        if values.len() != self.indices.len() {
            return Err(Error::shape("values", format!("{} entries", self.indices.len()), &[values.len()]));
        }
        let Self { nrows, ncols, indptr, indices, order, .. } = self;
        Ok(CsrView { nrows, ncols, indptr, indices, values, order })
    }

    /// The pattern alone; `none` has an element for each entry.
    pub(crate) fn pattern(self, none: &'a [()]) -> CsrView<'a, (), I> {
        debug_assert_eq!(none.len(), self.indices.len());
        let Self { nrows, ncols, indptr, indices, order, .. } = self;
        CsrView { nrows, ncols, indptr, indices, values: none, order }
    }

    /// Number of rows.
    pub fn nrows(&self) -> usize {
        self.nrows
    }

    /// Number of columns.
    pub fn ncols(&self) -> usize {
        self.ncols
    }

    /// Number of stored entries.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// Where each row starts, and after the last one the number of entries.
    pub fn indptr(&self) -> &'a [i64] {
        self.indptr
    }

    /// The column of each entry.
    pub fn indices(&self) -> &'a [I] {
        self.indices
    }

    /// The value of each entry.
    pub fn values(&self) -> &'a [T] {
        self.values
    }

    /// How tidy the rows are.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Where row `i` stands in `indices` and `values`.
    ///
    /// # Panics
    /// If there is no row `i`, as for slices.
    #[inline(always)]
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.indptr[i] as usize..self.indptr[i + 1] as usize
    }

    /// Columns and values of row `i`.
    ///
    /// # Panics
    /// If there is no row `i`, as for slices.
    #[inline(always)]
    pub fn row(&self, i: usize) -> (&'a [I], &'a [T]) {
        let range = self.range(i);
        (&self.indices[range.clone()], &self.values[range])
    }

    /// An owned copy.
    pub fn to_owned(&self) -> Csr<T, I> {
        Csr {
            nrows: self.nrows,
            ncols: self.ncols,
            indptr: self.indptr.to_vec(),
            indices: self.indices.to_vec(),
            values: self.values.to_vec(),
            order: self.order,
        }
    }
}

impl<'a, T: Value, I: Index> From<&'a Csr<T, I>> for CsrView<'a, T, I> {
    fn from(matrix: &'a Csr<T, I>) -> Self {
        matrix.view()
    }
}
