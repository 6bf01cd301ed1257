//! Element-wise and structural operations: add, scale, diagonal, row and column sums, permutations.
//!
//! ```
//! use kc_sparse::{Csr, ops, semiring::PlusTimes};
//! let a: Csr<f64> = Csr::from_diagonal(&[1.0, 2.0])?;
//! let b: Csr<f64> = Csr::new(2, 2, vec![0, 1, 1], vec![1], vec![5.0])?;
//! let c = ops::add(PlusTimes::new(), a.view(), b.view())?;
//! assert_eq!((c.indices(), c.values()), (&[0, 1, 1][..], &[1.0, 5.0, 2.0][..]));
//! assert_eq!(ops::row_sums(c.view()), [6.0, 2.0]);
//! assert_eq!(ops::diagonal(c.view()), [1.0, 2.0]);
//! # Ok::<(), kc_core::Error>(())
//! ```

use kc_core::{Error, Result};

use crate::csr::{Csr, CsrView, Index, Order, Value};
use crate::semiring::{Number, Semiring};

/// The union of two patterns: entries that both have are added by the addition of `s`, `a`'s first.
/// Repeated entries of one matrix are added up before. Rows of the result rise strictly.
///
/// Fails if the shapes differ.
pub fn add<S: Semiring<Out = T>, T: Value, I: Index>(
    s: S,
    a: CsrView<'_, T, I>,
    b: CsrView<'_, T, I>,
) -> Result<Csr<T, I>> {
    if (a.nrows(), a.ncols()) != (b.nrows(), b.ncols()) {
        let expected = format!("shape {:?} to match a", [a.nrows(), a.ncols()]);
        return Err(Error::shape("b", expected, &[b.nrows(), b.ncols()]));
    }
    let (tidy_a, tidy_b);
    let a = if a.order() == Order::Strict {
        a
    } else {
        tidy_a = a.to_owned().sum_duplicates(s);
        tidy_a.view()
    };
    let b = if b.order() == Order::Strict {
        b
    } else {
        tidy_b = b.to_owned().sum_duplicates(s);
        tidy_b.view()
    };
    let mut indptr = Vec::with_capacity(a.nrows() + 1);
    let mut indices = Vec::with_capacity(a.nnz().max(b.nnz()));
    let mut values = Vec::with_capacity(a.nnz().max(b.nnz()));
    indptr.push(0);
    for i in 0..a.nrows() {
        let ((ac, av), (bc, bv)) = (a.row(i), b.row(i));
        let (mut p, mut q) = (0, 0);
        while p < ac.len() && q < bc.len() {
            let column = ac[p].min(bc[q]);
            let value = match (ac[p] == column, bc[q] == column) {
                (true, true) => s.add(av[p], bv[q]),
                (true, false) => av[p],
                (false, _) => bv[q],
            };
            p += usize::from(ac[p] == column);
            q += usize::from(bc[q] == column);
            indices.push(column);
            values.push(value);
        }
        indices.extend_from_slice(&ac[p..]);
        values.extend_from_slice(&av[p..]);
        indices.extend_from_slice(&bc[q..]);
        values.extend_from_slice(&bv[q..]);
        indptr.push(indices.len() as i64);
    }
    Ok(Csr::from_parts(a.nrows(), a.ncols(), indptr, indices, values, Order::Strict))
}

/// Multiplies every entry by `alpha`, from the left.
pub fn scale<T: Number, I: Index>(a: &mut Csr<T, I>, alpha: T) {
    for x in a.values_mut() {
        *x = alpha.times(*x);
    }
}

/// The diagonal, of length `min(nrows, ncols)`; zero where there is no entry, repeated entries added.
pub fn diagonal<T: Number, I: Index>(a: CsrView<'_, T, I>) -> Vec<T> {
    let at = |i: usize| {
        let (cols, vals) = a.row(i);
        let here = cols.iter().zip(vals).filter(|(c, _)| c.to_usize() == i);
        here.fold(None, |sum: Option<T>, (_, &v)| Some(sum.map_or(v, |s| s.plus(v)))).unwrap_or(T::ZERO)
    };
    (0..a.nrows().min(a.ncols())).map(at).collect()
}

/// The sum of each row, in stored order.
pub fn row_sums<T: Number, I: Index>(a: CsrView<'_, T, I>) -> Vec<T> {
    (0..a.nrows()).map(|i| a.row(i).1.iter().fold(T::ZERO, |s, &v| s.plus(v))).collect()
}

/// The sum of each column, in the order of the rows.
pub fn col_sums<T: Number, I: Index>(a: CsrView<'_, T, I>) -> Vec<T> {
    let mut sums = vec![T::ZERO; a.ncols()];
    for (c, &v) in a.indices().iter().zip(a.values()) {
        let s = &mut sums[c.to_usize()];
        *s = s.plus(v);
    }
    sums
}

/// The matrix whose row `i` is row `order[i]` of `a`. `order` must be a permutation of the rows.
pub fn permute_rows<T: Value, I: Index>(a: CsrView<'_, T, I>, order: &[usize]) -> Result<Csr<T, I>> {
    inverse("order", order, a.nrows())?;
    let mut indptr = Vec::with_capacity(a.nrows() + 1);
    let (mut indices, mut values) = (Vec::with_capacity(a.nnz()), Vec::with_capacity(a.nnz()));
    indptr.push(0);
    for &i in order {
        let (cols, vals) = a.row(i);
        indices.extend_from_slice(cols);
        values.extend_from_slice(vals);
        indptr.push(indices.len() as i64);
    }
    Ok(Csr::from_parts(a.nrows(), a.ncols(), indptr, indices, values, a.order()))
}

/// The matrix whose column `j` is column `order[j]` of `a`, with sorted rows. `order` must be a permutation of
/// the columns.
pub fn permute_cols<T: Value, I: Index>(a: CsrView<'_, T, I>, order: &[usize]) -> Result<Csr<T, I>> {
    let to = inverse("order", order, a.ncols())?;
    let indices = a.indices().iter().map(|c| I::from_usize(to[c.to_usize()])).collect();
    let moved = Csr::new(a.nrows(), a.ncols(), a.indptr().to_vec(), indices, a.values().to_vec())?;
    Ok(moved.view().sorted())
}

/// The matrix without the entries that are exactly zero (of either sign).
pub fn drop_zeros<T: Number, I: Index>(a: Csr<T, I>) -> Csr<T, I> {
    drop_where(a, |v| v == T::ZERO)
}

/// The matrix without the entries whose value satisfies `drop`.
pub(crate) fn drop_where<T: Value, I: Index>(a: Csr<T, I>, drop: impl Fn(T) -> bool) -> Csr<T, I> {
    let (nrows, ncols, order) = (a.nrows(), a.ncols(), a.order());
    let (mut indptr, mut indices, mut values) = a.into_parts();
    let (mut write, mut start) = (0, 0);
    for end in &mut indptr[1..] {
        for q in start..*end as usize {
            if !drop(values[q]) {
                (indices[write], values[write]) = (indices[q], values[q]);
                write += 1;
            }
        }
        start = *end as usize;
        *end = write as i64;
    }
    indices.truncate(write);
    values.truncate(write);
    Csr::from_parts(nrows, ncols, indptr, indices, values, order)
}

/// Where each index goes; fails unless `order` is a permutation of `0..n`.
fn inverse(name: &'static str, order: &[usize], n: usize) -> Result<Vec<usize>> {
    if order.len() != n {
        return Err(Error::shape(name, format!("a permutation of {n} elements"), &[order.len()]));
    }
    let mut to = vec![usize::MAX; n];
    for (i, &o) in order.iter().enumerate() {
        match to.get_mut(o) {
            None => return Err(Error::index(name, &[i], o, n)),
            Some(slot) if *slot != usize::MAX => {
                return Err(Error::argument(name, "each index once", format!("{o} twice")));
            }
            Some(slot) => *slot = i,
        }
    }
    Ok(to)
}
