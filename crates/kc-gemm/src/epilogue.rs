//! [`Epilogue`]: what happens to a finished tile of a product.
//!
//! The tile is in the cache when the epilogue sees it, and need never be stored. An epilogue is cut by rows for
//! the threads; inside of a range of rows the tiles come in the order of their columns, so that a fold over a
//! row (a maximum, a softmax denominator) has one fixed order.

use std::ops::Range;

use kc_core::TensorViewMut;

use crate::Real;

/// A finished part of a product: complete sums.
#[derive(Debug)]
pub struct FinishedTile<'a, T> {
    /// Rows of the result.
    pub rows: Range<usize>,
    /// Columns of the result.
    pub columns: Range<usize>,
    /// The sums, row by row: `columns.len()` each.
    pub values: &'a mut [T],
}

impl<T> FinishedTile<'_, T> {
    /// Every row: its index and its sums.
    pub fn each_row(&mut self) -> impl Iterator<Item = (usize, &mut [T])> {
        self.rows.clone().zip(self.values.chunks_exact_mut(self.columns.len()))
    }
}

/// The consumer of a product.
pub trait Epilogue<T: Real>: Sized + Send {
    /// Cuts the consumer in two: rows before `at`, counted from its first row, and the rest.
    fn split_rows(self, at: usize) -> (Self, Self);

    /// Takes a tile. `first_row` is the first row of this part of the consumer.
    fn finish(&mut self, first_row: usize, tile: FinishedTile<'_, T>);
}

/// Stores `map(alpha * sum + column_bias[j])`.
#[derive(Debug)]
pub struct Store<'a, T: Real, F> {
    /// Where to.
    pub out: TensorViewMut<'a, T, 2>,
    /// Factor of the sums.
    pub alpha: T,
    /// Added to every row, if there.
    pub column_bias: Option<&'a [T]>,
    /// Applied last (an activation; `|x| x` for none).
    pub map: F,
}

impl<T: Real, F: Fn(T) -> T + Clone + Send> Epilogue<T> for Store<'_, T, F> {
    fn split_rows(self, at: usize) -> (Self, Self) {
        let Self { out, alpha, column_bias, map } = self;
        let at = at.min(out.shape()[0]);
        match out.split_at(0, at) {
            Ok((head, tail)) => (
                Self { out: head, alpha, column_bias, map: map.clone() },
                Self { out: tail, alpha, column_bias, map },
            ),
            Err(_) => unreachable!("at is at most the number of rows"),
        }
    }

    fn finish(&mut self, first_row: usize, mut tile: FinishedTile<'_, T>) {
        let columns = tile.columns.clone();
        for (i, values) in tile.each_row() {
            for (j, value) in columns.clone().zip(values) {
                let sum = self.alpha * *value + self.column_bias.map_or(T::default(), |b| b[j]);
                self.out.set([i - first_row, j], (self.map)(sum));
            }
        }
    }
}

/// Folds every row of a product into one state and drops the product.
#[derive(Debug)]
pub struct FoldRows<'a, S, F> {
    /// One state per row.
    pub states: &'a mut [S],
    /// `fold(state, row, first_column, sums)`, in the order of the columns.
    pub fold: F,
}

impl<T: Real, S: Send, F: Fn(&mut S, usize, usize, &[T]) + Clone + Send> Epilogue<T> for FoldRows<'_, S, F> {
    fn split_rows(self, at: usize) -> (Self, Self) {
        let (head, tail) = self.states.split_at_mut(at.min(self.states.len()));
        (FoldRows { states: head, fold: self.fold.clone() }, FoldRows { states: tail, fold: self.fold })
    }

    fn finish(&mut self, first_row: usize, mut tile: FinishedTile<'_, T>) {
        let column = tile.columns.start;
        for (i, values) in tile.each_row() {
            (self.fold)(&mut self.states[i - first_row], i, column, values);
        }
    }
}
