//! The definition in plain loops: every product of a row in order, added up column by column.
//!
//! Never tuned; the fast code neither calls it nor is called by it. Sums have the type of the semiring, because
//! the definition fixes their bits.

use std::collections::BTreeMap;

use kc_core::Result;

use crate::csr::{Csr, CsrView, Index};
use crate::semiring::Semiring;

/// `A B` over `s`, columns ascending. `allows(i, j)` tells which entries are wanted.
///
/// Fails if the inner dimensions differ.
pub fn spgemm<S: Semiring, I: Index>(
    s: S,
    a: CsrView<'_, S::Left, I>,
    b: CsrView<'_, S::Right, I>,
    allows: impl Fn(usize, usize) -> bool,
) -> Result<Csr<S::Out, I>> {
    super::check_inner(a, b)?;
    let (mut indptr, mut indices, mut values) = (vec![0i64], Vec::new(), Vec::new());
    for i in 0..a.nrows() {
        let mut row: BTreeMap<I, S::Out> = BTreeMap::new();
        let (ks, xs) = a.row(i);
        for (k, &x) in ks.iter().zip(xs) {
            let (js, ys) = b.row(k.to_usize());
            for (&j, &y) in js.iter().zip(ys) {
                if !allows(i, j.to_usize()) {
                    continue;
                }
                let product = s.multiply(x, y);
                row.entry(j).and_modify(|sum| *sum = s.add(*sum, product)).or_insert(product);
            }
        }
        indices.extend(row.keys().copied());
        values.extend(row.values().copied());
        indptr.push(indices.len() as i64);
    }
    Csr::new(a.nrows(), b.ncols(), indptr, indices, values)
}
