//! The three inner loops in safe generic code: what every processor can run, and what the f64 kernels of
//! the higher levels are compiled from.
//!
//! All work on groups of rows, so that the mean and the accumulators are loaded once for a group.

use std::ops::{Add, AddAssign, Mul, Sub};

use kc_core::Float;

/// Rows that a kernel of the second pass takes at once.
pub(super) const ROWS: usize = 4;

/// Rows that a kernel of the first pass takes at once.
pub(super) const SUMMED: usize = 8;

/// Columns whose squares are summed in the working type before they are added in f64.
pub(super) const STRIP: usize = 1024;

/// Lanes of the portable loops; a multiple of every vector width that compilers make of them.
const LANES: usize = 16;

/// The type that the loops compute in: f32 for f16, bf16 and f32 matrices, f64 for f64 matrices. Sums never
/// stay in it for more than [`STRIP`] columns or 64 rows.
pub(super) trait Work:
    Float + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + AddAssign
{
    /// Squared row norms in this range go through the fast loops: neither they nor the squares of their
    /// parts that matter overflow or vanish.
    const FAST: std::ops::RangeInclusive<f64>;

    /// Widens; exact.
    fn of<T: Float>(x: T) -> Self;
}

impl Work for f32 {
    const FAST: std::ops::RangeInclusive<f64> = 1e-20..=1e30;

    #[inline(always)]
    fn of<T: Float>(x: T) -> Self {
        x.to_f32()
    }
}

impl Work for f64 {
    const FAST: std::ops::RangeInclusive<f64> = 1e-200..=1e200;

    #[inline(always)]
    fn of<T: Float>(x: T) -> Self {
        x.to_f64()
    }
}

/// The column means in two parts, `hi` rounded and `lo` the rest: `(x - hi) - lo` is as exact as x, however
/// far the mean is from zero.
#[derive(Debug, Clone)]
pub(super) struct Mean<W> {
    pub(super) hi: Vec<W>,
    pub(super) lo: Vec<W>,
}

impl<W: Work> Mean<W> {
    pub(super) fn of(mean: &[f64]) -> Self {
        let hi: Vec<W> = mean.iter().map(|&m| W::from_f64(m)).collect();
        let lo = mean.iter().zip(&hi).map(|(&m, h)| W::from_f64(m - h.to_f64())).collect();
        Self { hi, lo }
    }

    /// The mean of column `j`.
    pub(super) fn at(&self, j: usize) -> f64 {
        self.hi[j].to_f64() + self.lo[j].to_f64()
    }
}

/// `sums[j] += sum_i (rows[i][j] - origin[j])`, all in f64.
#[inline(always)]
pub(super) fn column_sums<T: Float>(rows: [&[T]; SUMMED], origin: &[f64], sums: &mut [f64]) {
    let d = sums.len();
    let rows = rows.map(|row| &row[..d]);
    let origin = &origin[..d];
    for j in 0..d {
        let t = |i: usize| rows[i][j].to_f64() - origin[j];
        let (left, right) = ((t(0) + t(1)) + (t(2) + t(3)), (t(4) + t(5)) + (t(6) + t(7)));
        sums[j] += left + right;
    }
}

/// The squared norms of the centred rows.
#[inline(always)]
pub(super) fn square_sums<T: Float, W: Work>(rows: [&[T]; ROWS], mean: &Mean<W>) -> [f64; ROWS] {
    squares(rows, &mean.hi, &mean.lo)
}

/// [`square_sums`] with the parts of the mean.
#[inline(always)]
pub(super) fn squares<T: Float, W: Work>(rows: [&[T]; ROWS], hi: &[W], lo: &[W]) -> [f64; ROWS] {
    let d = hi.len();
    let mut total = [0.0; ROWS];
    for start in (0..d).step_by(STRIP) {
        let end = (start + STRIP).min(d);
        let (hi, hi_tail) = hi[start..end].as_chunks::<LANES>();
        let (lo, lo_tail) = lo[start..end].as_chunks::<LANES>();
        for (sum, row) in total.iter_mut().zip(rows) {
            let (x, x_tail) = row[start..end].as_chunks::<LANES>();
            let mut lanes = [W::default(); LANES];
            for ((x, hi), lo) in x.iter().zip(hi).zip(lo) {
                for l in 0..LANES {
                    let t = (W::of(x[l]) - hi[l]) - lo[l];
                    lanes[l] += t * t;
                }
            }
            let mut rest = W::default();
            for ((&x, &hi), &lo) in x_tail.iter().zip(hi_tail).zip(lo_tail) {
                let t = (W::of(x) - hi) - lo;
                rest += t * t;
            }
            *sum += lanes.iter().map(|l| l.to_f64()).sum::<f64>() + rest.to_f64();
        }
    }
    total
}

/// `sums[j] += sum_i (scale[i] * (rows[i][j] - mean[j]))^2`.
#[inline(always)]
pub(super) fn accumulate<T: Float, W: Work>(
    rows: [&[T]; ROWS],
    mean: &Mean<W>,
    scale: [W; ROWS],
    sums: &mut [W],
) {
    add_squares(rows, &mean.hi, &mean.lo, scale, sums);
}

/// [`accumulate`] with the parts of the mean.
#[inline(always)]
pub(super) fn add_squares<T: Float, W: Work>(
    rows: [&[T]; ROWS],
    hi: &[W],
    lo: &[W],
    scale: [W; ROWS],
    sums: &mut [W],
) {
    let d = sums.len();
    let rows = rows.map(|row| &row[..d]);
    let (hi, lo) = (&hi[..d], &lo[..d]);
    for j in 0..d {
        let mut sum = sums[j];
        for i in 0..ROWS {
            let t = ((W::of(rows[i][j]) - hi[j]) - lo[j]) * scale[i];
            sum += t * t;
        }
        sums[j] = sum;
    }
}
