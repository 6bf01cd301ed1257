//! Rows of A with one or two entries: a scaled copy, or a merge of two rows of B. B's rows rise strictly.

use super::segments::{Cut, Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;

/// True if [`row`] can do rows of this many entries.
pub(crate) fn fits(entries: usize) -> bool {
    entries <= 2
}

/// Row `i` inside of `cut`, columns ascending; the number of its entries. A's row has at most two entries.
#[inline(always)]
pub(crate) fn row<S: Semiring<Out = T>, T: Value, I: Index>(
    f: &Factors<'_, S, I>,
    i: usize,
    cut: Cut,
    out: Out<'_, I, T>,
) -> usize {
    let entries = f.a.range(i);
    let (a0, c0, v0) = piece(f, entries.start, cut);
    if entries.len() == 1 {
        if let Some((cols, vals)) = out {
            copy(f.s, (a0, c0, v0), cols, vals);
        }
        return c0.len();
    }
    let (a1, c1, v1) = piece(f, entries.start + 1, cut);
    let (mut p, mut q, mut n) = (0, 0, 0);
    let Some((cols, vals)) = out else {
        while p < c0.len() && q < c1.len() {
            let (x, y) = (c0[p], c1[q]);
            p += usize::from(x <= y);
            q += usize::from(y <= x);
            n += 1;
        }
        return n + c0.len() - p + c1.len() - q;
    };
    while p < c0.len() && q < c1.len() {
        let (x, y) = (c0[p], c1[q]);
        cols[n] = x.min(y);
        vals[n] = if x < y {
            f.s.multiply(a0, v0[p])
        } else if y < x {
            f.s.multiply(a1, v1[q])
        } else if S::ANY {
            f.s.multiply(a0, v0[p])
        } else {
            f.s.add(f.s.multiply(a0, v0[p]), f.s.multiply(a1, v1[q]))
        };
        p += usize::from(x <= y);
        q += usize::from(y <= x);
        n += 1;
    }
    for (a, c, v) in [(a0, &c0[p..], &v0[p..]), (a1, &c1[q..], &v1[q..])] {
        copy(f.s, (a, c, v), &mut cols[n..], &mut vals[n..]);
        n += c.len();
    }
    n
}

/// A factor and the row of B that it multiplies.
type Piece<'a, S, I> = (<S as Semiring>::Left, &'a [I], &'a [<S as Semiring>::Right]);

#[inline(always)]
fn piece<'a, S: Semiring, I: Index>(f: &Factors<'a, S, I>, q: usize, cut: Cut) -> Piece<'a, S, I> {
    let range = cut.segment(&f.b, f.a.indices()[q].to_usize());
    (f.a.values()[q], &f.b.indices()[range.clone()], &f.b.values()[range])
}

#[inline(always)]
fn copy<S: Semiring, I: Index>(s: S, (a, c, v): Piece<'_, S, I>, cols: &mut [I], vals: &mut [S::Out]) {
    if let ([c], [v]) = (c, v) {
        // Diagonals and permutations: not worth a call to copy.
        (cols[0], vals[0]) = (*c, s.multiply(a, *v));
        return;
    }
    cols[..c.len()].copy_from_slice(c);
    vals[..v.len()].iter_mut().zip(v).for_each(|(x, &b)| *x = s.multiply(a, b));
}
