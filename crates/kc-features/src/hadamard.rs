//! Projections by fast Walsh-Hadamard transforms: rows of `H D1 H D2 H D3` instead of a stored matrix.

use kc_core::{KcRng, Result};

use crate::Scalar;

/// Blocks `(1 / D) H D1 H D2 H D3`, where `D` is `d` rounded up to a power of two, `H` the Walsh-Hadamard matrix of
/// entries 1 and -1, and `D1` to `D3` random signs of the block. The rows of a block are orthogonal on the padded
/// input, of length `sqrt(D)`, and close to Gaussian ones; `3 D` bits replace `D d` numbers, `3 D log2 D` additions
/// `D d` multiplications.
#[derive(Debug, Clone)]
pub(crate) struct Hadamard<T> {
    /// A power of two.
    width: usize,
    /// For each block `D3`, `D2` and `D1`, in the order in which they are applied; 1 or -1.
    signs: Vec<T>,
}

impl<T: Scalar> Hadamard<T> {
    pub(crate) fn draw(rows: usize, inputs: usize, seed: u64) -> Self {
        let width = inputs.next_power_of_two();
        let mut rng = KcRng::new(seed, 0);
        let mut signs = Vec::with_capacity(rows.div_ceil(width) * 3 * width);
        for _ in 0..rows.div_ceil(width) * 3 {
            let (mut bits, mut left) = (0, 0);
            for _ in 0..width {
                if left == 0 {
                    (bits, left) = (rng.next_u64(), 64);
                }
                signs.push(T::from_f64(if bits & 1 == 1 { -1.0 } else { 1.0 }));
                (bits, left) = (bits >> 1, left - 1);
            }
        }
        Self { width, signs }
    }

    /// `out = G x` for one row; `work` has the width of the transform.
    fn forward(&self, x: &[T], out: &mut [T], work: &mut [T]) {
        let unit = T::from_f64(1.0 / self.width as f64);
        for (out, signs) in out.chunks_mut(self.width).zip(self.signs.chunks_exact(3 * self.width)) {
            work[..x.len()].copy_from_slice(x);
            work[x.len()..].fill(<T as kc_core::math::Real>::ZERO);
            for signs in signs.chunks_exact(self.width) {
                multiply(work, signs);
                transform(work);
            }
            for (out, &value) in out.iter_mut().zip(&*work) {
                *out = value * unit;
            }
        }
    }

    /// `x = G^T z` for one row.
    fn backward(&self, z: &[T], x: &mut [T], work: &mut [T]) {
        let unit = T::from_f64(1.0 / self.width as f64);
        x.fill(<T as kc_core::math::Real>::ZERO);
        for (z, signs) in z.chunks(self.width).zip(self.signs.chunks_exact(3 * self.width)) {
            work[..z.len()].copy_from_slice(z);
            work[z.len()..].fill(<T as kc_core::math::Real>::ZERO);
            for signs in signs.chunks_exact(self.width).rev() {
                transform(work);
                multiply(work, signs);
            }
            for (x, &value) in x.iter_mut().zip(&*work) {
                *x += value * unit;
            }
        }
    }

    /// `z = x G^T` for rows of `inputs` and `outputs` elements, or `x = z G` backwards.
    pub(crate) fn rows(
        &self,
        from: &[T],
        from_width: usize,
        to: &mut [T],
        to_width: usize,
        back: bool,
    ) -> Result<()> {
        crate::scratch::with(self.width, |work: &mut [T]| {
            for (from, to) in from.chunks_exact(from_width).zip(to.chunks_exact_mut(to_width)) {
                if back {
                    self.backward(from, to, work);
                } else {
                    self.forward(from, to, work);
                }
            }
            Ok(())
        })
    }
}

fn multiply<T: Scalar>(x: &mut [T], signs: &[T]) {
    for (x, &sign) in x.iter_mut().zip(signs) {
        *x = *x * sign;
    }
}

/// The Walsh-Hadamard transform without scale, in place. The length is a power of two.
fn transform<T: Scalar>(x: &mut [T]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let (sum, difference) = (*a + *b, *a - *b);
                (*a, *b) = (sum, difference);
            }
        }
        half *= 2;
    }
}
