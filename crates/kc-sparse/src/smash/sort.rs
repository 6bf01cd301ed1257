//! The sorting accumulator for short rows: collect the products, sort them by column, add neighbours up.
//!
//! A column and the order in which its products came are packed into one integer, so that sorting integers is
//! a stable sort of the products, and sums keep the order of the definition. The sorts of the hash
//! accumulator live here too.

use super::segments::{Cut, Factors, Out};
use crate::csr::{Index, Value};
use crate::semiring::Semiring;
use crate::simd::Vector;

/// The accumulator of one thread.
#[derive(Debug)]
pub(crate) struct SortRow<T, I: Index> {
    keys: Vec<I::Packed>,
    spare: Vec<I::Packed>,
    products: Vec<T>,
}

impl<T, I: Index> Default for SortRow<T, I> {
    fn default() -> Self {
        Self { keys: Vec::new(), spare: Vec::new(), products: Vec::new() }
    }
}

impl<T: Value, I: Index> SortRow<T, I> {
    /// Row `i` inside of `cut`, columns ascending; the number of its entries.
    #[inline(always)]
    pub(crate) fn row<V: Vector, S: Semiring<Out = T>>(
        &mut self,
        v: V,
        f: &Factors<'_, S, I>,
        i: usize,
        cut: Cut,
        allows: impl Fn(I) -> bool,
        out: Out<'_, I, T>,
    ) -> usize {
        let (keys, products) = (&mut self.keys, &mut self.products);
        keys.clear();
        products.clear();
        f.for_each(v, i, cut, |a, cols, vals| {
            for (&column, &b) in cols.iter().zip(vals) {
                if allows(column) {
                    keys.push(column.pack(keys.len() as u32));
                    products.push(f.s.multiply(a, b));
                }
            }
        });
        sort_packed::<I>(keys, &mut self.spare, f.b.ncols());
        let Some((cols, vals)) = out else {
            return keys.chunk_by(|&x, &y| I::unpack(x).0 == I::unpack(y).0).count();
        };
        let mut n = 0;
        let mut last = I::MAX;
        for &key in keys.iter() {
            let (column, order) = I::unpack(key);
            let product = products[order as usize];
            if column == last {
                if !S::ANY {
                    vals[n - 1] = f.s.add(vals[n - 1], product);
                }
            } else {
                (cols[n], vals[n]) = (column, product);
                (last, n) = (column, n + 1);
            }
        }
        n
    }
}

/// From here on the radix sort is faster.
const RADIX_FROM: usize = 256;
/// Bits per pass.
const DIGIT: u32 = 11;

/// Sorts by column, keeping the order of the low bits among equal columns if they rise; columns are below
/// `ncols`.
pub(crate) fn sort_packed<I: Index>(keys: &mut Vec<I::Packed>, spare: &mut Vec<I::Packed>, ncols: usize) {
    if keys.len() < RADIX_FROM {
        keys.sort_unstable();
        return;
    }
    spare.clear();
    spare.resize(keys.len(), I::Packed::default());
    let bits = usize::BITS - ncols.leading_zeros();
    for pass in 0..bits.div_ceil(DIGIT) {
        let digit = |key: I::Packed| I::unpack(key).0.to_usize() >> (pass * DIGIT) & ((1 << DIGIT) - 1);
        let mut next = [0u32; 1 << DIGIT];
        for &key in keys.iter() {
            next[digit(key)] += 1;
        }
        let mut sum = 0;
        for n in &mut next {
            sum += std::mem::replace(n, sum);
        }
        for &key in keys.iter() {
            let at = &mut next[digit(key)];
            spare[*at as usize] = key;
            *at += 1;
        }
        std::mem::swap(keys, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sorts_are_stable() {
        for len in [0usize, 1, 2, 255, 256, 257, 5000] {
            let column = |i: usize| (i * 7919 % 1009) as u32;
            let mut keys: Vec<u64> = (0..len).map(|i| column(i).pack(i as u32)).collect();
            let mut want = keys.clone();
            want.sort();
            sort_packed::<u32>(&mut keys, &mut Vec::new(), 1009);
            assert_eq!(keys, want);
            let mut wide: Vec<u128> = (0..len).map(|i| (u64::from(column(i)) << 20).pack(i as u32)).collect();
            let mut want = wide.clone();
            want.sort();
            sort_packed::<u64>(&mut wide, &mut Vec::new(), 1009 << 20);
            assert_eq!(wide, want);
        }
    }
}
