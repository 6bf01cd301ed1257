//! Sums whose shape depends on the number of terms only, and running moments.

use kc_core::Result;

use super::state::{Reader, Writer};

/// Terms that are added in eight running sums; longer sums are split in halves.
const LEAF: usize = 256;

/// Pairwise sum: error grows with the logarithm of the length, bits depend on the length only.
pub(super) fn sum(values: &[f64]) -> f64 {
    sum_of(values, |v| v)
}

/// Pairwise sum of `map(v)`.
pub(super) fn sum_of<T: Copy>(values: &[T], map: impl Fn(T) -> f64 + Copy) -> f64 {
    if values.len() > LEAF {
        let half = (values.len() / 2).next_multiple_of(LEAF);
        let (low, high) = values.split_at(half.min(values.len() - 1));
        return sum_of(low, map) + sum_of(high, map);
    }
    let mut lanes = [0.0; 8];
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += map(*v);
        }
    }
    let tail: f64 = chunks.remainder().iter().map(|v| map(*v)).sum();
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])) + tail
}

/// Count, mean and sum of squared deviations of a sample that grows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) mean: f64,
    /// Sum of squared deviations from the mean.
    pub(super) spread: f64,
}

impl Moments {
    /// Of one batch, in two passes.
    pub(super) fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let mean = sum(values) / values.len() as f64;
        let spread = sum_of(values, |v| (v - mean) * (v - mean));
        Self { count: values.len() as u64, mean, spread }
    }

    /// Of both samples together (Chan, Golub and LeVeque).
    pub(super) fn join(self, other: Self) -> Self {
        if self.count == 0 {
            return other;
        }
        if other.count == 0 {
            return self;
        }
        let count = self.count + other.count;
        let (a, b, n) = (self.count as f64, other.count as f64, count as f64);
        let shift = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + shift * (b / n),
            spread: self.spread + other.spread + shift * shift * (a * b / n),
        }
    }

    pub(super) fn save(&self, out: &mut Writer) {
        out.u64(self.count);
        out.f64(self.mean);
        out.f64(self.spread);
    }

    pub(super) fn load(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { count: from.u64()?, mean: from.f64()?, spread: from.f64()? })
    }

    /// Sample standard deviation, with `count - 1`; 0 for a single value.
    pub(super) fn deviation(self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.spread / (self.count - 1) as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_where_doubles_are() {
        for n in [0usize, 1, 7, 8, 9, 255, 256, 257, 1000, 4096, 5000] {
            let values: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let exact = (n * n.saturating_sub(1) / 2) as f64;
            assert_eq!(sum(&values), exact);
            assert_eq!(sum_of(&values, |v| v), exact);
        }
    }

    #[test]
    fn long_sums_lose_nothing() {
        let values = vec![0.1; 1 << 20];
        assert!((sum(&values) / (0.1 * f64::from(1 << 20)) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn moments_of_parts_join_to_those_of_the_whole() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * 37 % 101) + 1e6).collect();
        let whole = Moments::of(&values);
        for cut in [0, 1, 500, 999, 1000] {
            let joined = Moments::of(&values[..cut]).join(Moments::of(&values[cut..]));
            assert_eq!(joined.count, 1000);
            assert!((joined.mean / whole.mean - 1.0).abs() < 1e-15);
            assert!((joined.spread / whole.spread - 1.0).abs() < 1e-12);
        }
    }
}
