//! How a batch is cut into rows and shared among threads.

use kc_core::{Error, Result};
use rayon::prelude::*;

/// Elements that a task has at least.
pub(crate) const TASK: usize = 1 << 14;

/// Checks that `len` elements are rows of `n`, a power of two.
pub(crate) fn check(arg: &'static str, len: usize, n: usize) -> Result<()> {
    if !n.is_power_of_two() {
        return Err(Error::argument("n", "a power of two", n));
    }
    if !len.is_multiple_of(n) {
        return Err(Error::shape(arg, format!("a multiple of {n} elements"), &[len]));
    }
    Ok(())
}

/// Checks that a row has halves.
pub(crate) fn check_halves(n: usize) -> Result<()> {
    if n < 2 { Err(Error::argument("n", "a power of two from 2", n)) } else { Ok(()) }
}

/// Runs `body` on each row of `n`; several short rows are one task.
pub(crate) fn for_each<T: Send>(x: &mut [T], n: usize, body: impl Fn(&mut [T]) + Sync) {
    let task = n * (TASK / n).max(1);
    if x.len() <= task {
        x.chunks_exact_mut(n).for_each(body);
    } else {
        x.par_chunks_mut(task).for_each(|rows| rows.chunks_exact_mut(n).for_each(&body));
    }
}

/// As [`for_each`], on rows of `n` in `x` and of `m` in `y`.
pub(crate) fn for_each_pair<S: Sync, T: Send>(
    (x, n): (&[S], usize),
    (y, m): (&mut [T], usize),
    body: impl Fn(&[S], &mut [T]) + Sync,
) {
    let rows = (TASK / n).max(1);
    let some = |(x, y): (&[S], &mut [T])| {
        x.chunks_exact(n).zip(y.chunks_exact_mut(m)).for_each(|(x, y)| body(x, y));
    };
    if x.len() <= n * rows {
        some((x, y));
    } else {
        x.par_chunks(n * rows).zip(y.par_chunks_mut(m * rows)).for_each(some);
    }
}

/// `x` as `R` rows of equal length.
pub(crate) fn split<T, const R: usize>(x: &mut [T]) -> [&mut [T]; R] {
    let mut rows = x.chunks_exact_mut((x.len() / R).max(1));
    std::array::from_fn(|_| rows.next().unwrap_or_default())
}

/// The first `at` columns of rows, and the others.
pub(crate) fn halves<T, const R: usize>(rows: [&mut [T]; R], at: usize) -> [[&mut [T]; R]; 2] {
    let mut left: [&mut [T]; R] = std::array::from_fn(|_| [].as_mut_slice());
    let mut right: [&mut [T]; R] = std::array::from_fn(|_| [].as_mut_slice());
    for ((row, left), right) in rows.into_iter().zip(&mut left).zip(&mut right) {
        (*left, *right) = row.split_at_mut(at);
    }
    [left, right]
}
