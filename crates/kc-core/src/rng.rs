//! Random numbers: one seeded generator for the whole workspace.

use rand::Rng;
use rand::SeedableRng;
use rand::rand_core::TryRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// ChaCha8 with a seed and a stream. The same pair gives the same numbers on every machine and in every
/// version; different streams of one seed are independent, so parallel work takes one stream per chunk.
///
/// ```
/// use kc_core::KcRng;
/// let mut a = KcRng::new(7, 0);
/// let mut b = KcRng::new(7, 0);
/// assert_eq!(a.uniform(), b.uniform());
/// assert_ne!(KcRng::new(7, 1).next_u64(), b.next_u64());
/// ```
#[derive(Debug, Clone)]
pub struct KcRng(ChaCha8Rng);

impl KcRng {
    /// The generator of `seed`, on stream `stream`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        Rng::next_u64(&mut self.0)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Uniform in `0..bound`, without bias (Lemire's method). 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Fills with standard normals.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for x in out {
            *x = self.normal() as f32;
        }
    }

    /// Fills with uniforms in `[low, high)`.
    pub fn fill_uniform(&mut self, out: &mut [f32], low: f32, high: f32) {
        for x in out {
            *x = low + (high - low) * self.uniform() as f32;
        }
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// A random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// `KcRng` drives every distribution of `rand_distr`.
impl TryRng for KcRng {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.0.try_fill_bytes(dst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_seeds_repeat() {
        let take = |seed, stream| {
            let mut rng = KcRng::new(seed, stream);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(take(1, 0), take(1, 0));
        assert_ne!(take(1, 0), take(1, 1));
        assert_ne!(take(1, 0), take(2, 0));
    }

    #[test]
    fn below_is_in_range_and_permutations_are_complete() {
        let mut rng = KcRng::new(3, 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        let mut seen = rng.permutation(100);
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));
    }

    #[test]
    fn normals_have_the_moments_of_normals() {
        let mut rng = KcRng::new(5, 0);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.02);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.02);
    }
}
