//! Borrowed tensors: a pointer, a shape and strides.

#![expect(unsafe_code, reason = "strided access through raw pointers; every constructor proves the bounds")]

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use super::{Elements, Tensor};
use crate::shape::{checked_len, is_row_major, offset_bounds, row_major};
use crate::{Element, Error, Result};

/// A borrowed tensor of rank `N` with any strides (steps, reversed and transposed axes, repeats).
pub struct TensorView<'a, T: Element, const N: usize> {
    ptr: NonNull<T>,
    shape: [usize; N],
    strides: [isize; N],
    life: PhantomData<&'a [T]>,
}

/// A mutably borrowed tensor of rank `N`. No two indices reach the same element.
pub struct TensorViewMut<'a, T: Element, const N: usize> {
    ptr: NonNull<T>,
    shape: [usize; N],
    strides: [isize; N],
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: a view is a shared borrow of T, and T is Sync.
unsafe impl<T: Element, const N: usize> Send for TensorView<'_, T, N> {}
// SAFETY: as above.
unsafe impl<T: Element, const N: usize> Sync for TensorView<'_, T, N> {}
// SAFETY: a mutable view is an exclusive borrow of T, and T is Send.
unsafe impl<T: Element, const N: usize> Send for TensorViewMut<'_, T, N> {}
// SAFETY: sharing a mutable view only allows reading through it, and T is Sync.
unsafe impl<T: Element, const N: usize> Sync for TensorViewMut<'_, T, N> {}

impl<T: Element, const N: usize> Clone for TensorView<'_, T, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element, const N: usize> Copy for TensorView<'_, T, N> {}

impl<T: Element, const N: usize> fmt::Debug for TensorView<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorView<{}>{:?} strides {:?}", T::DTYPE, self.shape, self.strides)
    }
}

impl<T: Element, const N: usize> fmt::Debug for TensorViewMut<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorViewMut<{}>{:?} strides {:?}", T::DTYPE, self.shape, self.strides)
    }
}

/// What both kinds of view can tell.
macro_rules! geometry {
    () => {
        /// The lengths of the axes.
        #[inline]
        pub fn shape(&self) -> [usize; N] {
            self.shape
        }

        /// The step of each axis, in elements.
        #[inline]
        pub fn strides(&self) -> [isize; N] {
            self.strides
        }

        /// The number of elements.
        #[inline]
        pub fn len(&self) -> usize {
            // Checked when the view was made.
            self.shape.iter().product()
        }

        /// True if there is no element.
        #[inline]
        pub fn is_empty(&self) -> bool {
            self.shape.contains(&0)
        }

        /// True if the elements stand in row-major order without gaps.
        #[inline]
        pub fn is_contiguous(&self) -> bool {
            is_row_major(&self.shape, &self.strides)
        }

        /// The offset of `index`, in elements.
        ///
        /// # Panics
        /// If the index is outside of the shape, as for slices.
        #[inline]
        fn offset(&self, index: [usize; N]) -> isize {
            let mut offset = 0isize;
            for axis in 0..N {
                assert!(
                    index[axis] < self.shape[axis],
                    "index {index:?} is outside of shape {:?}",
                    self.shape
                );
                offset += index[axis] as isize * self.strides[axis];
            }
            offset
        }
    };
}

impl<'a, T: Element, const N: usize> TensorView<'a, T, N> {
    geometry!();

    /// `data`, read as row-major. Its length must be the product of `shape`.
    pub fn from_slice(shape: [usize; N], data: &'a [T]) -> Result<Self> {
        if checked_len("shape", &shape)? != data.len() {
            return Err(Error::shape("data", format!("{shape:?} = its length"), &[data.len()]));
        }
        Ok(Self::of_row_major(shape, row_major(&shape), data))
    }

    /// The elements `data[offset + sum_i index_i * strides_i]`. All of them must lie inside of `data`.
    pub fn from_slice_strided(
        shape: [usize; N],
        strides: [isize; N],
        offset: usize,
        data: &'a [T],
    ) -> Result<Self> {
        check_reach(&shape, &strides, offset, data.len())?;
        // SAFETY: check_reach proves that offset lies inside of data (or is its end, for an empty view).
        let ptr = unsafe { NonNull::from(data).cast::<T>().add(offset) };
        Ok(Self { ptr, shape, strides, life: PhantomData })
    }

    /// A view of foreign memory.
    ///
    /// # Safety
    /// For every index inside of `shape`, `ptr + sum_i index_i * strides_i` points to an initialised `T`
    /// that nobody changes during `'a`, all inside of one allocation; the product of `shape` fits a `usize`.
    pub unsafe fn from_raw_parts(ptr: NonNull<T>, shape: [usize; N], strides: [isize; N]) -> Self {
        Self { ptr, shape, strides, life: PhantomData }
    }

    pub(super) fn of_row_major(shape: [usize; N], strides: [isize; N], data: &'a [T]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { ptr: NonNull::from(data).cast(), shape, strides, life: PhantomData }
    }

    /// The same view, if `U` is the type of its elements: how generic code reaches a kernel that exists for
    /// certain types.
    #[inline]
    pub fn as_type<U: Element>(&self) -> Option<TensorView<'a, U, N>> {
        let same = TypeId::of::<T>() == TypeId::of::<U>();
        same.then(|| TensorView {
            ptr: self.ptr.cast(),
            shape: self.shape,
            strides: self.strides,
            life: PhantomData,
        })
    }

    /// A pointer to the element at index zero.
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        self.ptr.as_ptr()
    }

    /// The element at `index`.
    ///
    /// # Panics
    /// If the index is outside of the shape, as for slices.
    #[inline]
    pub fn at(&self, index: [usize; N]) -> T {
        let offset = self.offset(index);
        // SAFETY: `offset` checked the index, and every index of a view points to a valid T.
        unsafe { *self.ptr.offset(offset).as_ref() }
    }

    /// The elements as a slice, if they are contiguous.
    #[inline]
    pub fn as_slice(&self) -> Option<&'a [T]> {
        // SAFETY: a contiguous view covers `len` consecutive valid elements, borrowed for 'a.
        self.is_contiguous().then(|| unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len()) })
    }

    /// The elements in row-major order.
    pub fn iter(&self) -> Elements<'a, T, N> {
        Elements::new(*self)
    }

    /// A row-major copy.
    pub fn to_tensor(&self) -> Result<Tensor<T, N>> {
        if let Some(data) = self.as_slice() {
            return Tensor::from_slice(self.shape, data);
        }
        let mut out = Tensor::zeros(self.shape)?;
        out.as_mut_slice().iter_mut().zip(self.iter()).for_each(|(o, x)| *o = x);
        Ok(out)
    }

    /// A row-major copy as a vector.
    pub fn to_vec(&self) -> Vec<T> {
        self.as_slice().map_or_else(|| self.iter().collect(), <[T]>::to_vec)
    }

    /// The part `range` of `axis`.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        check_range(&self.shape, axis, &range)?;
        let mut out = *self;
        out.shape[axis] = range.len();
        if !out.is_empty() {
            // SAFETY: range.start < shape[axis], so the new first element is one of this view's.
            out.ptr = unsafe { self.ptr.offset(range.start as isize * self.strides[axis]) };
        }
        Ok(out)
    }

    /// Every `step`-th element of `axis`; a negative step starts from the end.
    pub fn step(&self, axis: usize, step: isize) -> Result<Self> {
        check_axis(axis, N)?;
        if step == 0 {
            return Err(Error::argument("step", "a step other than 0", step));
        }
        let mut out = *self;
        out.shape[axis] = self.shape[axis].div_ceil(step.unsigned_abs());
        // An axis of one element (or none) may have any stride; saturation only ever happens there.
        out.strides[axis] = self.strides[axis].saturating_mul(step);
        if step < 0 && !self.is_empty() {
            let last = self.shape[axis] as isize - 1;
            // SAFETY: the last index of the axis is one of this view's.
            out.ptr = unsafe { self.ptr.offset(last * self.strides[axis]) };
        }
        Ok(out)
    }

    /// The axes in reverse order; for rank 2 the transpose.
    pub fn transposed(&self) -> Self {
        let mut out = *self;
        out.shape.reverse();
        out.strides.reverse();
        out
    }

    /// Axis `axes[i]` becomes axis `i`. `axes` must be a permutation.
    pub fn permuted(&self, axes: [usize; N]) -> Result<Self> {
        let mut seen = [false; N];
        let mut out = *self;
        for (i, &axis) in axes.iter().enumerate() {
            if axis >= N || std::mem::replace(&mut seen[axis], true) {
                return Err(Error::argument("axes", format!("a permutation of 0..{N}"), format!("{axes:?}")));
            }
            out.shape[i] = self.shape[axis];
            out.strides[i] = self.strides[axis];
        }
        Ok(out)
    }

    /// The same elements under another shape, without a copy. The view must be contiguous.
    pub fn reshaped<const M: usize>(&self, shape: [usize; M]) -> Result<TensorView<'a, T, M>> {
        match self.as_slice() {
            Some(data) => TensorView::from_slice(shape, data),
            None => Err(Error::unsupported("reshape", "only contiguous views change shape without a copy")),
        }
    }

    /// Repeats axes of length 1 until the view has this shape (NumPy's rule), without a copy.
    pub fn broadcast_to(&self, shape: [usize; N]) -> Result<Self> {
        checked_len("shape", &shape)?;
        let mut out = *self;
        for axis in 0..N {
            if self.shape[axis] == shape[axis] {
                continue;
            }
            if self.shape[axis] != 1 {
                return Err(Error::shape(
                    "shape",
                    format!("one that {:?} broadcasts to", self.shape),
                    &shape,
                ));
            }
            out.strides[axis] = 0;
        }
        out.shape = shape;
        Ok(out)
    }
}

impl<'a, T: Element, const N: usize> TensorViewMut<'a, T, N> {
    geometry!();

    /// `data`, written as row-major. Its length must be the product of `shape`.
    pub fn from_slice(shape: [usize; N], data: &'a mut [T]) -> Result<Self> {
        if checked_len("shape", &shape)? != data.len() {
            return Err(Error::shape("data", format!("{shape:?} = its length"), &[data.len()]));
        }
        Ok(Self::of_row_major(shape, row_major(&shape), data))
    }

    /// The elements `data[offset + sum_i index_i * strides_i]`. All of them must lie inside of `data`, and
    /// no two indices may reach the same element.
    pub fn from_slice_strided(
        shape: [usize; N],
        strides: [isize; N],
        offset: usize,
        data: &'a mut [T],
    ) -> Result<Self> {
        check_reach(&shape, &strides, offset, data.len())?;
        check_distinct(&shape, &strides)?;
        // SAFETY: check_reach proves that offset lies inside of data (or is its end, for an empty view).
        let ptr = unsafe { NonNull::from(data).cast::<T>().add(offset) };
        Ok(Self { ptr, shape, strides, life: PhantomData })
    }

    /// A mutable view of foreign memory.
    ///
    /// # Safety
    /// As [`TensorView::from_raw_parts`]; moreover no two indices reach the same element, and nobody else
    /// touches these elements during `'a`.
    pub unsafe fn from_raw_parts(ptr: NonNull<T>, shape: [usize; N], strides: [isize; N]) -> Self {
        Self { ptr, shape, strides, life: PhantomData }
    }

    pub(super) fn of_row_major(shape: [usize; N], strides: [isize; N], data: &'a mut [T]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { ptr: NonNull::from(data).cast(), shape, strides, life: PhantomData }
    }

    /// A pointer to the element at index zero.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.ptr.as_ptr()
    }

    /// The same view, borrowed again.
    #[inline]
    pub fn reborrow(&mut self) -> TensorViewMut<'_, T, N> {
        TensorViewMut { ptr: self.ptr, shape: self.shape, strides: self.strides, life: PhantomData }
    }

    /// The same view, for reading.
    #[inline]
    pub fn as_view(&self) -> TensorView<'_, T, N> {
        TensorView { ptr: self.ptr, shape: self.shape, strides: self.strides, life: PhantomData }
    }

    /// Writes the element at `index`.
    ///
    /// # Panics
    /// If the index is outside of the shape, as for slices.
    #[inline]
    pub fn set(&mut self, index: [usize; N], value: T) {
        let offset = self.offset(index);
        // SAFETY: `offset` checked the index, and every index of a view points to a valid T, borrowed
        // exclusively.
        unsafe { *self.ptr.offset(offset).as_mut() = value }
    }

    /// The elements as a slice, if they are contiguous.
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [T]> {
        let len = self.len();
        // SAFETY: a contiguous view covers `len` consecutive valid elements, borrowed exclusively.
        self.is_contiguous().then(|| unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), len) })
    }

    /// Copies from a view of the same shape.
    pub fn copy_from(&mut self, source: TensorView<'_, T, N>) -> Result<()> {
        if source.shape() != self.shape {
            return Err(Error::shape("source", format!("{:?}", self.shape), &source.shape()));
        }
        if let (Some(to), Some(from)) = (self.as_mut_slice(), source.as_slice()) {
            to.copy_from_slice(from);
            return Ok(());
        }
        let mut index = [0; N];
        for value in source.iter() {
            self.set(index, value);
            super::iter::advance(&mut index, &self.shape);
        }
        Ok(())
    }

    /// Sets every element.
    pub fn fill(&mut self, value: T) {
        if let Some(slice) = self.as_mut_slice() {
            slice.fill(value);
            return;
        }
        let mut index = [0; N];
        for _ in 0..self.len() {
            self.set(index, value);
            super::iter::advance(&mut index, &self.shape);
        }
    }

    /// The part `range` of `axis`.
    pub fn slice(self, axis: usize, range: Range<usize>) -> Result<Self> {
        check_range(&self.shape, axis, &range)?;
        let mut out = self;
        let stride = out.strides[axis];
        out.shape[axis] = range.len();
        if !out.is_empty() {
            // SAFETY: range.start < shape[axis], so the new first element is one of this view's.
            out.ptr = unsafe { out.ptr.offset(range.start as isize * stride) };
        }
        Ok(out)
    }

    /// Two disjoint views: `..at` and `at..` of `axis`.
    pub fn split_at(self, axis: usize, at: usize) -> Result<(Self, Self)> {
        check_range(&self.shape, axis, &(0..at))?;
        let (ptr, shape, strides) = (self.ptr, self.shape, self.strides);
        // The two copies cover disjoint ranges of one axis, and no two indices of a mutable view reach the
        // same element, so they never touch the same element.
        let whole = || Self { ptr, shape, strides, life: PhantomData };
        Ok((whole().slice(axis, 0..at)?, whole().slice(axis, at..shape[axis])?))
    }

    /// Disjoint views of `chunk` indices of `axis` each (the last may be shorter), to hand to threads.
    pub fn chunks(self, axis: usize, chunk: usize) -> Result<Vec<Self>> {
        check_axis(axis, N)?;
        if chunk == 0 {
            return Err(Error::argument("chunk", "at least 1", chunk));
        }
        let mut out = Vec::with_capacity(self.shape[axis].div_ceil(chunk));
        let mut rest = self;
        while rest.shape[axis] > chunk {
            let (head, tail) = rest.split_at(axis, chunk)?;
            out.push(head);
            rest = tail;
        }
        if rest.shape[axis] > 0 {
            out.push(rest);
        }
        Ok(out)
    }

    /// The axes in reverse order; for rank 2 the transpose.
    pub fn transposed(self) -> Self {
        let mut out = self;
        out.shape.reverse();
        out.strides.reverse();
        out
    }
}

impl<'a, T: Element> TensorView<'a, T, 1> {
    /// The elements without a copy if they are contiguous, else gathered.
    pub fn to_cow(&self) -> std::borrow::Cow<'a, [T]> {
        self.as_slice().map_or_else(|| self.to_vec().into(), Into::into)
    }
}

impl<'a, T: Element> TensorView<'a, T, 2> {
    /// The number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// The number of columns.
    #[inline]
    pub fn cols(&self) -> usize {
        self.shape[1]
    }

    /// Row `i` as a slice, if the columns are adjacent.
    ///
    /// # Panics
    /// If there is no row `i`, as for slices.
    #[inline]
    pub fn row_slice(&self, i: usize) -> Option<&'a [T]> {
        self.row(i).as_slice()
    }
}

/// Rank 2 has rows and columns; rank 3 matrices; and so on: fixing the first index drops a rank.
macro_rules! outer_index {
    ($($n:literal => $m:literal, $name:ident, $name_mut:ident, $what:literal);* $(;)?) => {$(
        impl<'a, T: Element> TensorView<'a, T, $n> {
            #[doc = concat!("The ", $what, " at `i` of the first axis.")]
            ///
            /// # Panics
            /// If `i` is outside of the axis, as for slices.
            #[inline]
            pub fn $name(&self, i: usize) -> TensorView<'a, T, $m> {
                assert!(i < self.shape[0], "index {i} is outside of shape {:?}", self.shape);
                let mut ptr = self.ptr;
                if !self.is_empty() {
                    // SAFETY: i < shape[0] and no axis is empty, so this is one of the view's elements.
                    ptr = unsafe { ptr.offset(i as isize * self.strides[0]) };
                }
                let (mut shape, mut strides) = ([0; $m], [0; $m]);
                shape.copy_from_slice(&self.shape[1..]);
                strides.copy_from_slice(&self.strides[1..]);
                TensorView { ptr, shape, strides, life: PhantomData }
            }
        }

        impl<'a, T: Element> TensorView<'a, T, $m> {
            /// The same elements with an axis of length 1 in front.
            #[inline]
            pub fn unsqueezed(&self) -> TensorView<'a, T, $n> {
                let (mut shape, mut strides) = ([1; $n], [0; $n]);
                shape[1..].copy_from_slice(&self.shape);
                strides[1..].copy_from_slice(&self.strides);
                TensorView { ptr: self.ptr, shape, strides, life: PhantomData }
            }
        }

        impl<'a, T: Element> TensorViewMut<'a, T, $m> {
            /// The same elements with an axis of length 1 in front.
            #[inline]
            pub fn unsqueezed(self) -> TensorViewMut<'a, T, $n> {
                let (mut shape, mut strides) = ([1; $n], [0; $n]);
                shape[1..].copy_from_slice(&self.shape);
                strides[1..].copy_from_slice(&self.strides);
                TensorViewMut { ptr: self.ptr, shape, strides, life: PhantomData }
            }
        }

        impl<'a, T: Element> TensorViewMut<'a, T, $n> {
            #[doc = concat!("The ", $what, " at `i` of the first axis, to change.")]
            ///
            /// # Panics
            /// If `i` is outside of the axis, as for slices.
            #[inline]
            pub fn $name_mut(&mut self, i: usize) -> TensorViewMut<'_, T, $m> {
                assert!(i < self.shape[0], "index {i} is outside of shape {:?}", self.shape);
                let mut ptr = self.ptr;
                if !self.is_empty() {
                    // SAFETY: i < shape[0] and no axis is empty, so this is one of the view's elements.
                    ptr = unsafe { ptr.offset(i as isize * self.strides[0]) };
                }
                let (mut shape, mut strides) = ([0; $m], [0; $m]);
                shape.copy_from_slice(&self.shape[1..]);
                strides.copy_from_slice(&self.strides[1..]);
                TensorViewMut { ptr, shape, strides, life: PhantomData }
            }
        }
    )*};
}

outer_index! {
    2 => 1, row, row_mut, "row";
    3 => 2, matrix, matrix_mut, "matrix";
    4 => 3, outer, outer_mut, "rank-3 part";
}

/// All of shape x strides, from `offset`, lies inside of a slice of `len` elements.
fn check_reach<const N: usize>(
    shape: &[usize; N],
    strides: &[isize; N],
    offset: usize,
    len: usize,
) -> Result<()> {
    let empty = checked_len("shape", shape)? == 0;
    let fits = offset_bounds(shape, strides).is_some_and(|(low, high)| {
        let offset = offset as i128;
        let end = if empty { 0 } else { 1 };
        offset + low as i128 >= 0 && offset + high as i128 + end <= len as i128
    });
    if fits {
        return Ok(());
    }
    Err(Error::argument(
        "strides",
        format!("a view inside of {len} elements"),
        format!("shape {shape:?}, strides {strides:?}, offset {offset}"),
    ))
}

/// No two indices reach the same element. Sufficient test: sorted by stride, every axis steps over all that
/// the smaller ones reach.
fn check_distinct<const N: usize>(shape: &[usize; N], strides: &[isize; N]) -> Result<()> {
    if shape.contains(&0) {
        return Ok(());
    }
    let mut axes: Vec<(usize, usize)> =
        shape.iter().zip(strides).filter(|(d, _)| **d > 1).map(|(&d, s)| (s.unsigned_abs(), d)).collect();
    axes.sort_unstable();
    let mut reach = 0usize;
    for (stride, d) in axes {
        if stride <= reach {
            return Err(Error::argument(
                "strides",
                "strides under which no two indices overlap",
                format!("shape {shape:?}, strides {strides:?}"),
            ));
        }
        reach = reach.saturating_add((d - 1).saturating_mul(stride));
    }
    Ok(())
}

fn check_axis(axis: usize, rank: usize) -> Result<()> {
    if axis < rank { Ok(()) } else { Err(Error::argument("axis", format!("an axis below {rank}"), axis)) }
}

fn check_range<const N: usize>(shape: &[usize; N], axis: usize, range: &Range<usize>) -> Result<()> {
    check_axis(axis, N)?;
    if range.start <= range.end && range.end <= shape[axis] {
        return Ok(());
    }
    Err(Error::argument("range", format!("a range inside of 0..{}", shape[axis]), format!("{range:?}")))
}
