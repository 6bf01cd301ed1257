//! Coefficients in the order that the guaranteed algorithms keep: large ones first, as far as doublings tell.
//!
//! kappa is a permutation of the wave numbers `0..n`. For `l = m-1` down to 1 and each `i` in `1..2^l` the
//! coefficients at `kappa_i` and `kappa_(i + 2^l)` are compared, and if the later is larger the two are exchanged
//! together with all pairs `j` places on, `j` a multiple of `2^(l+1)`. When the number of points doubles, kappa
//! becomes `(kappa, n + kappa)` and only the four upper levels are compared.
//!
//! The coefficients are stored in the order of kappa, so that comparing and exchanging run along the memory; only
//! the coefficients of the new half of the points are gathered, once.

use kc_core::{Complex, par};

use super::state::Field;

/// Levels below the top that a doubling compares.
pub(super) const LAG: u32 = 4;

/// Positions that one task looks after.
const CHUNK: usize = 1 << 14;

/// Coefficients that are gathered before they are used.
const GATHER: usize = 512;

/// A coefficient of a transform.
pub(super) trait Coefficient: Field + Send + Sync {
    /// Grows with the magnitude; all that comparisons need.
    fn order(self) -> f64;
    fn magnitude(self) -> f64;
    fn real(self) -> f64;
    fn scale(self, factor: f64) -> Self;
    fn minus(self, other: Self) -> Self;
    /// `(b, a)` if `swap`, else `(a, b)`, without a branch: whether noise is swapped nobody can predict.
    fn exchange(swap: bool, a: Self, b: Self) -> (Self, Self);
    /// `((a + b) / 2, (a - b) / 2)`.
    fn butterfly(self, other: Self) -> (Self, Self);
}

impl Coefficient for f64 {
    #[inline]
    fn order(self) -> f64 {
        self.abs()
    }
    #[inline]
    fn magnitude(self) -> f64 {
        self.abs()
    }
    #[inline]
    fn real(self) -> f64 {
        self
    }
    #[inline]
    fn scale(self, factor: f64) -> Self {
        self * factor
    }
    #[inline]
    fn minus(self, other: Self) -> Self {
        self - other
    }
    #[inline]
    fn exchange(swap: bool, a: Self, b: Self) -> (Self, Self) {
        let difference = (a.to_bits() ^ b.to_bits()) & u64::from(swap).wrapping_neg();
        (f64::from_bits(a.to_bits() ^ difference), f64::from_bits(b.to_bits() ^ difference))
    }
    #[inline]
    fn butterfly(self, other: Self) -> (Self, Self) {
        (0.5 * (self + other), 0.5 * (self - other))
    }
}

impl Coefficient for Complex<f64> {
    #[inline]
    fn order(self) -> f64 {
        self.norm_sqr()
    }
    #[inline]
    fn magnitude(self) -> f64 {
        self.norm_sqr().sqrt()
    }
    #[inline]
    fn real(self) -> f64 {
        self.re
    }
    #[inline]
    fn scale(self, factor: f64) -> Self {
        self * factor
    }
    #[inline]
    fn minus(self, other: Self) -> Self {
        self - other
    }
    #[inline]
    fn exchange(swap: bool, a: Self, b: Self) -> (Self, Self) {
        let (re, im) = (f64::exchange(swap, a.re, b.re), f64::exchange(swap, a.im, b.im));
        (Complex::new(re.0, im.0), Complex::new(re.1, im.1))
    }
    #[inline]
    fn butterfly(self, other: Self) -> (Self, Self) {
        ((self + other) * 0.5, (self - other) * 0.5)
    }
}

/// Coefficients in the order of kappa.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ordered<T> {
    pub(super) values: Vec<T>,
    pub(super) kappa: Vec<u32>,
}

impl<T: Coefficient> Ordered<T> {
    /// Orders the coefficients of the first points, all levels. Their number is a power of two.
    pub(super) fn new(values: Vec<T>) -> Self {
        let kappa = (0..values.len() as u32).collect();
        let mut ordered = Self { values, kappa };
        ordered.settle(ordered.values.len().ilog2().saturating_sub(1), 0);
        ordered
    }

    /// Doubles the number of points: `fresh` are the coefficients of the new points alone, in natural order, to be
    /// multiplied by `factor` (and for lattices already turned by half a step).
    pub(super) fn double(&mut self, fresh: &[T], factor: f64) {
        let n = self.values.len();
        self.values.reserve_exact(n);
        kc_core::advise_huge_pages(self.values.spare_capacity_mut());
        self.values.extend_from_within(..);
        self.kappa.extend_from_within(..);
        let (low, high) = self.values.split_at_mut(n);
        let (low_kappa, high_kappa) = self.kappa.split_at_mut(n);
        let low = low.chunks_mut(CHUNK).zip(low_kappa.chunks_mut(CHUNK));
        let high = high.chunks_mut(CHUNK).zip(high_kappa.chunks_mut(CHUNK));
        in_parallel(low.zip(high).collect(), |_, ((low, low_kappa), (high, high_kappa))| {
            let mut taken = [fresh[0]; GATHER];
            let low = low.chunks_mut(GATHER).zip(low_kappa.chunks_mut(GATHER));
            let high = high.chunks_mut(GATHER).zip(high_kappa.chunks_mut(GATHER));
            for ((low, low_kappa), (high, high_kappa)) in low.zip(high) {
                // A loop of nothing but loads keeps as many of them in flight as the processor can.
                for (taken, wave) in taken.iter_mut().zip(&*low_kappa) {
                    *taken = fresh[*wave as usize];
                }
                let pairs = low.iter_mut().zip(low_kappa).zip(high.iter_mut().zip(high_kappa));
                for (((a, ka), (b, kb)), taken) in pairs.zip(&taken) {
                    let wave = *ka;
                    let (sum, difference) = a.butterfly(taken.scale(factor));
                    // The top level is compared on the way; wave number 0 stays where it is.
                    let swap = (wave != 0) & (difference.order() > sum.order());
                    (*a, *b) = T::exchange(swap, sum, difference);
                    (*ka, *kb) = exchange_bits(swap, wave, wave + n as u32);
                }
            }
        });
        let m = self.values.len().ilog2();
        self.settle(m.saturating_sub(2), m.saturating_sub(LAG + 1));
    }

    /// As [`double`](Self::double) where all coefficients are given anew, in natural order.
    pub(super) fn double_anew(&mut self, natural: &[T]) {
        let n = self.kappa.len() as u32;
        self.kappa.extend_from_within(..);
        self.kappa[n as usize..].iter_mut().for_each(|k| *k += n);
        self.values = self.kappa.iter().map(|k| natural[*k as usize]).collect();
        let m = self.values.len().ilog2();
        self.settle(m.saturating_sub(1), m.saturating_sub(LAG + 1));
    }

    /// Compares the levels `top` down to `bottom + 1`.
    fn settle(&mut self, top: u32, bottom: u32) {
        let mut swaps = Vec::new();
        for level in (bottom + 1..=top).rev() {
            let half = 1usize << level;
            swaps.clear();
            swaps.resize(half, false);
            let (low, high) = self.values[..2 * half].split_at(half);
            let parts = swaps.chunks_mut(CHUNK).zip(low.chunks(CHUNK)).zip(high.chunks(CHUNK));
            let any = in_parallel(parts.collect(), |_, ((swaps, low), high)| {
                let mut any = false;
                for ((swap, a), b) in swaps.iter_mut().zip(low).zip(high) {
                    *swap = b.order() > a.order();
                    any |= *swap;
                }
                any
            });
            swaps[0] = false;
            if any.iter().any(|any| *any) {
                exchange(&swaps, &mut self.values, T::exchange);
                exchange(&swaps, &mut self.kappa, exchange_bits);
            }
        }
    }

    /// The mean of the values: the coefficient of wave number 0.
    pub(super) fn mean(&self) -> f64 {
        self.values[0].real()
    }

    /// Sum of magnitudes at the positions `2^level .. 2^(level+1)`.
    pub(super) fn level_sum(&self, level: u32) -> f64 {
        super::sums::sum_of(&self.values[1 << level..2 << level], T::magnitude)
    }
}

/// As [`Coefficient::exchange`], for wave numbers.
#[inline]
fn exchange_bits(swap: bool, a: u32, b: u32) -> (u32, u32) {
    let difference = (a ^ b) & u32::from(swap).wrapping_neg();
    (a ^ difference, b ^ difference)
}

/// Exchanges position i of the lower half of each block with the same of its upper half where `swaps[i]`.
fn exchange<T: Copy + Send>(
    swaps: &[bool],
    values: &mut [T],
    select: impl Fn(bool, T, T) -> (T, T) + Copy + Sync + Send,
) {
    let half = swaps.len();
    let mut parts = Vec::with_capacity(values.len() / (2 * CHUNK) + 1);
    for block in values.chunks_exact_mut(2 * half) {
        let (low, high) = block.split_at_mut(half);
        parts.extend(swaps.chunks(CHUNK).zip(low.chunks_mut(CHUNK)).zip(high.chunks_mut(CHUNK)));
    }
    in_parallel(parts, |_, ((swaps, low), high)| {
        for ((swap, a), b) in swaps.iter().zip(low).zip(high) {
            (*a, *b) = select(*swap, *a, *b);
        }
    });
}

/// Runs `body` on each part, on the caller's pool where there is more than one.
fn in_parallel<P: Send, R: Send>(parts: Vec<P>, body: impl Fn(usize, P) -> R + Sync + Send) -> Vec<R> {
    use rayon::prelude::*;
    if parts.len() <= 1 || par::threads() == 1 {
        return parts.into_iter().enumerate().map(|(i, part)| body(i, part)).collect();
    }
    parts.into_par_iter().enumerate().map(|(i, part)| body(i, part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, on a permutation and coefficients in natural order.
    fn settle(kappa: &mut [u32], magnitude: &dyn Fn(u32) -> f64, top: u32, bottom: u32) {
        let n = kappa.len();
        for level in (bottom + 1..=top).rev() {
            let half = 1 << level;
            let swaps: Vec<usize> =
                (1..half).filter(|i| magnitude(kappa[i + half]) > magnitude(kappa[*i])).collect();
            for i in swaps {
                for j in (0..n).step_by(2 * half) {
                    kappa.swap(i + j, i + j + half);
                }
            }
        }
    }

    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut rng = crate::Seed::from(seed).rng();
        move || rng.uniform() - 0.5
    }

    #[test]
    fn doublings_follow_the_definition() {
        let mut draw = noise(3);
        let mut natural: Vec<f64> = (0..64).map(|k| draw() / f64::from(k + 1)).collect();
        let mut ordered = Ordered::new(natural.clone());
        let mut kappa: Vec<u32> = (0..64).collect();
        settle(&mut kappa, &|k| natural[k as usize].abs(), 5, 0);
        for m in 7..=16 {
            assert_eq!(ordered.kappa, kappa);
            let fresh: Vec<f64> = natural.iter().map(|_| draw()).collect();
            ordered.double(&fresh, 0.5);
            let n = natural.len();
            natural.extend_from_within(..);
            for k in 0..n {
                let (a, b) = (natural[k], 0.5 * fresh[k]);
                (natural[k], natural[k + n]) = ((a + b) / 2.0, (a - b) / 2.0);
            }
            kappa = kappa.iter().copied().chain(kappa.iter().map(|k| k + n as u32)).collect();
            settle(&mut kappa, &|k| natural[k as usize].abs(), m - 1, m - LAG - 1);
            assert_eq!(ordered.kappa[0], 0);
        }
        assert_eq!(ordered.kappa, kappa);
        for (value, k) in ordered.values.iter().zip(&ordered.kappa) {
            assert_eq!(*value, natural[*k as usize]);
        }
    }

    #[test]
    fn given_anew_is_the_same() {
        let mut draw = noise(5);
        let first: Vec<f64> = (0..256).map(|_| draw()).collect();
        let fresh: Vec<f64> = (0..256).map(|_| draw()).collect();
        let mut doubled = Ordered::new(first.clone());
        let mut anew = doubled.clone();
        doubled.double(&fresh, 1.0);
        let low = first.iter().zip(&fresh).map(|(a, b)| 0.5 * (a + b));
        let high = first.iter().zip(&fresh).map(|(a, b)| 0.5 * (a - b));
        let natural: Vec<f64> = low.chain(high).collect();
        anew.double_anew(&natural);
        assert_eq!(doubled, anew);
    }
}
