//! The two passes: column means, then column norms of the centred, row-normalised matrix.
//!
//! Rows are cut into parts by the shape alone; each part has its own f64 sums, which are added in a fixed
//! tree. Within a part, sums run in the working type over 64 rows at most before they are folded into f64.

use std::array;
use std::ops::Range;

use kc_core::{Element, Error, Float, Isa, Result, TensorView, bf16, f16, par};

#[cfg(not(target_arch = "x86_64"))]
use super::portable;
use super::portable::{Mean, ROWS, SUMMED, Work};
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{MnnConfig, ZeroRows};

/// Rows between two folds into f64.
const BLOCK: usize = 64;

/// At most so many parts of rows have sums of their own.
const PARTS: usize = 64;

/// An element type with its kernels.
pub(super) trait Hidden: Float {
    /// What the kernels compute in.
    type W: Work;

    fn column_sums(isa: Isa, rows: [&[Self]; SUMMED], origin: &[f64], sums: &mut [f64]);
    fn square_sums(isa: Isa, rows: [&[Self]; ROWS], mean: &Mean<Self::W>) -> [f64; ROWS];
    fn accumulate(
        isa: Isa,
        rows: [&[Self]; ROWS],
        mean: &Mean<Self::W>,
        scale: [Self::W; ROWS],
        sums: &mut [Self::W],
    );
}

macro_rules! hidden {
    ($($t:ty, $w:ty, $kernels:ident);* $(;)?) => {$(
        #[cfg(target_arch = "x86_64")]
        impl Hidden for $t {
            type W = $w;

            fn column_sums(isa: Isa, rows: [&[Self]; SUMMED], origin: &[f64], sums: &mut [f64]) {
                x86::$kernels::column_sums(isa, rows, origin, sums);
            }

            fn square_sums(isa: Isa, rows: [&[Self]; ROWS], mean: &Mean<$w>) -> [f64; ROWS] {
                x86::$kernels::square_sums(isa, rows, mean)
            }

            fn accumulate(
                isa: Isa,
                rows: [&[Self]; ROWS],
                mean: &Mean<$w>,
                scale: [$w; ROWS],
                sums: &mut [$w],
            ) {
                x86::$kernels::accumulate(isa, rows, mean, scale, sums);
            }
        }

        #[cfg(not(target_arch = "x86_64"))]
        impl Hidden for $t {
            type W = $w;

            fn column_sums(_: Isa, rows: [&[Self]; SUMMED], origin: &[f64], sums: &mut [f64]) {
                portable::column_sums(rows, origin, sums);
            }

            fn square_sums(_: Isa, rows: [&[Self]; ROWS], mean: &Mean<$w>) -> [f64; ROWS] {
                portable::square_sums(rows, mean)
            }

            fn accumulate(
                _: Isa,
                rows: [&[Self]; ROWS],
                mean: &Mean<$w>,
                scale: [$w; ROWS],
                sums: &mut [$w],
            ) {
                portable::accumulate(rows, mean, scale, sums);
            }
        }
    )*};
}

hidden! {
    f16, f32, for_f16;
    bf16, f32, for_bf16;
    f32, f32, for_f32;
    f64, f64, for_f64;
}

/// Calls `$f::<H>($view, ...)` with the concrete element type of a view of any float type.
macro_rules! with_hidden {
    ($view:expr, |$x:ident| $call:expr) => {{
        use kc_core::{bf16, f16};
        let any = $view;
        if let Some($x) = any.as_type::<f32>() {
            $call
        } else if let Some($x) = any.as_type::<f64>() {
            $call
        } else if let Some($x) = any.as_type::<f16>() {
            $call
        } else if let Some($x) = any.as_type::<bf16>() {
            $call
        } else {
            Err($crate::mnn::norm::unknown_type(any))
        }
    }};
}
pub(super) use with_hidden;

/// There is no fifth float type; should one come, it is refused.
pub(super) fn unknown_type<T: Float>(_: TensorView<'_, T, 2>) -> Error {
    Error::dtype("x", "float16, bfloat16, float32 or float64", <T as Element>::DTYPE)
}

/// Rows to a part: cut by the number of rows alone.
fn part_len(rows: usize) -> usize {
    rows.div_ceil(PARTS).next_multiple_of(BLOCK).max(BLOCK)
}

/// Calls `body` with the first row's index, the number of rows (1 to R) and R rows, of which the last is
/// repeated if there are fewer. Rows whose elements are apart are gathered first.
fn for_groups<const R: usize, H: Float>(
    x: TensorView<'_, H, 2>,
    range: Range<usize>,
    mut body: impl FnMut(usize, usize, [&[H]; R]) -> Result<()>,
) -> Result<()> {
    let d = x.cols();
    let mut gathered = Vec::new();
    for start in range.clone().step_by(R) {
        let count = (range.end - start).min(R);
        let index = |i: usize| start + i.min(count - 1);
        let mut rows: [&[H]; R] = [&[]; R];
        if x.row_slice(start).is_none() {
            gathered.resize(R * d, H::default());
            for (i, row) in gathered.chunks_exact_mut(d).enumerate() {
                row.iter_mut().zip(x.row(index(i)).iter()).for_each(|(to, from)| *to = from);
            }
        }
        for (i, row) in rows.iter_mut().enumerate() {
            *row = x.row_slice(index(i)).unwrap_or_else(|| &gathered[i * d..(i + 1) * d]);
        }
        body(start, count, rows)?;
    }
    Ok(())
}

/// Column sums of `x - origin`, in f64.
pub(super) fn sums<H: Hidden>(isa: Isa, x: TensorView<'_, H, 2>, origin: &[f64]) -> Result<Vec<f64>> {
    let part = |range: Range<usize>| {
        let mut sums = vec![0.0; x.cols()];
        for_groups(x, range, |_, count, rows| {
            if count == SUMMED {
                H::column_sums(isa, rows, origin, &mut sums);
            } else {
                for row in &rows[..count] {
                    for ((sum, x), o) in sums.iter_mut().zip(*row).zip(origin) {
                        *sum += x.to_f64() - o;
                    }
                }
            }
            Ok(())
        })?;
        Ok(sums)
    };
    let sums = par::map_reduce(x.rows(), part_len(x.rows()), part, |a: Result<Vec<f64>>, b| Ok(add(a?, &b?)));
    let sums = sums.unwrap_or_else(|| Ok(vec![0.0; x.cols()]))?;
    // Without an early exit, so that it compiles to vectors.
    if sums.iter().fold(true, |all, s| all & s.is_finite()) {
        return Ok(sums);
    }
    check_finite(x, 0)?;
    Err(Error::argument("x", "column sums inside of the range of float64", "a sum that overflows"))
}

/// The position of the first entry that is NaN or infinite, as an error. `first_row` is the index of the
/// view's first row in the whole matrix.
pub(super) fn check_finite<H: Float>(x: TensorView<'_, H, 2>, first_row: usize) -> Result<()> {
    for i in 0..x.rows() {
        if let Some((j, value)) = x.row(i).iter().map(H::to_f64).enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(Error::not_finite("x", &[first_row + i, j], value));
        }
    }
    Ok(())
}

/// The first row in f64: what sums are taken against, so that equal rows give sums of exact zeros.
pub(super) fn origin_of<H: Float>(x: TensorView<'_, H, 2>) -> Vec<f64> {
    match x.row_slice(0) {
        Some(row) => row.iter().map(|x| x.to_f64()).collect(),
        None => x.row(0).iter().map(H::to_f64).collect(),
    }
}

/// The column means.
pub(super) fn means<H: Hidden>(isa: Isa, x: TensorView<'_, H, 2>) -> Result<Vec<f64>> {
    let origin = origin_of(x);
    let sums = sums(isa, x, &origin)?;
    Ok(mean_from(&origin, &sums, x.rows()))
}

/// Means from sums against an origin.
pub(super) fn mean_from(origin: &[f64], sums: &[f64], rows: usize) -> Vec<f64> {
    origin.iter().zip(sums).map(|(o, s)| o + s / rows as f64).collect()
}

/// What the second pass finds in some rows.
#[derive(Debug, Clone)]
pub(super) struct Squares {
    /// Sums of squares of the columns of Z.
    pub(super) sums: Vec<f64>,
    /// Rows that are zero after centring.
    pub(super) zero_rows: usize,
}

impl Squares {
    pub(super) fn zeros(dim: usize) -> Self {
        Self { sums: vec![0.0; dim], zero_rows: 0 }
    }

    pub(super) fn merge(self, other: &Self) -> Self {
        Self { sums: add(self.sums, &other.sums), zero_rows: self.zero_rows + other.zero_rows }
    }
}

/// The second pass over `x`. `first_row` is the index of its first row in the whole matrix, for errors.
pub(super) fn squares<H: Hidden>(
    isa: Isa,
    x: TensorView<'_, H, 2>,
    mean: &Mean<H::W>,
    config: &MnnConfig,
    first_row: usize,
) -> Result<Squares> {
    let part = |range: Range<usize>| part_squares(isa, x, range, mean, config, first_row);
    let merged =
        par::map_reduce(x.rows(), part_len(x.rows()), part, |a: Result<Squares>, b| Ok(a?.merge(&b?)));
    merged.unwrap_or_else(|| Ok(Squares::zeros(x.cols())))
}

fn part_squares<H: Hidden>(
    isa: Isa,
    x: TensorView<'_, H, 2>,
    range: Range<usize>,
    mean: &Mean<H::W>,
    config: &MnnConfig,
    first_row: usize,
) -> Result<Squares> {
    let d = x.cols();
    let mut out = Squares::zeros(d);
    let mut block = vec![H::W::default(); d];
    for rows in par::chunks(range.len(), BLOCK) {
        block.fill(H::W::default());
        for_groups(x, range.start + rows.start..range.start + rows.end, |start, count, rows| {
            let norms2 = H::square_sums(isa, rows, mean);
            let fast = |i: usize| i < count && H::W::FAST.contains(&norms2[i]);
            // Rows out of the fast range are left out by a scale of zero, and taken one by one after.
            if let Some(good) = (0..count).find(|&i| fast(i)) {
                let row = |i: usize| if fast(i) { rows[i] } else { rows[good] };
                let scale = |i: usize| match (fast(i), config.normalize) {
                    (false, _) => H::W::default(),
                    (true, true) => H::W::from_f64(1.0 / norms2[i].sqrt()),
                    (true, false) => H::W::from_f64(1.0),
                };
                H::accumulate(isa, array::from_fn(row), mean, array::from_fn(scale), &mut block);
            }
            for i in (0..count).filter(|&i| !fast(i)) {
                slow_row(rows[i], first_row + start + i, mean, config, &mut out)?;
            }
            Ok(())
        })?;
        for (sum, b) in out.sums.iter_mut().zip(&block) {
            *sum += b.to_f64();
        }
    }
    Ok(out)
}

/// A row that is zero, tiny, huge or not finite, in f64 with a scale of its own.
fn slow_row<H: Float, W: Work>(
    row: &[H],
    index: usize,
    mean: &Mean<W>,
    config: &MnnConfig,
    out: &mut Squares,
) -> Result<()> {
    if let Some((j, x)) = row.iter().enumerate().find(|(_, x)| !x.to_f64().is_finite()) {
        return Err(Error::not_finite("x", &[index, j], x.to_f64()));
    }
    let centred = |j: usize| row[j].to_f64() - mean.at(j);
    let d = row.len();
    let norm = scaled_norm(d, centred);
    if norm == 0.0 {
        out.zero_rows += 1;
        return match config.zero_rows {
            ZeroRows::Error => Err(zero_row(index)),
            ZeroRows::Nan | ZeroRows::Drop => Ok(()),
        };
    }
    for (j, sum) in out.sums.iter_mut().enumerate() {
        let z = if config.normalize { centred(j) / norm } else { centred(j) };
        *sum += z * z;
    }
    Ok(())
}

/// The error of [`ZeroRows::Error`].
pub(super) fn zero_row(index: usize) -> Error {
    Error::argument("x", "rows that are not zero after centring", format!("row {index}, which is"))
}

/// The Euclidean norm of `len` numbers without overflow or loss of small ones.
pub(super) fn scaled_norm(len: usize, at: impl Fn(usize) -> f64) -> f64 {
    let largest = (0..len).map(|j| at(j).abs()).fold(0.0, f64::max);
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    largest * (0..len).map(|j| (at(j) / largest).powi(2)).sum::<f64>().sqrt()
}

/// Indices of the `top` largest values, ties to the lower index. Not sorted.
pub(super) fn top_columns(values: &[f64], top: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    if top < order.len() {
        order.select_nth_unstable_by(top, |&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        order.truncate(top);
    }
    order
}

/// The sum of the roots of the `top` largest `squares`, compensated.
pub(super) fn top_sum(squares: &[f64], top: usize) -> f64 {
    let skipped = squares.len().saturating_sub(top);
    if skipped == 0 {
        return compensated(squares.iter().map(|s| s.sqrt()));
    }
    // Squares order as their bits do, and whole numbers are selected without a branch for each.
    let mut bits: Vec<u64> = squares.iter().map(|s| s.to_bits()).collect();
    bits.select_nth_unstable(skipped);
    compensated(bits[skipped..].iter().map(|&s| f64::from_bits(s).sqrt()))
}

/// Neumaier's sum.
fn compensated(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut rest) = (0.0f64, 0.0f64);
    for x in values {
        let next = sum + x;
        rest += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    // An infinite or undefined sum has no meaningful rest.
    if sum.is_finite() { sum + rest } else { sum }
}

fn add(mut a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// The mean of the first pass in the form of the second: zeros if rows are not to be centred.
pub(super) fn mean_for<H: Hidden>(
    isa: Isa,
    x: TensorView<'_, H, 2>,
    config: &MnnConfig,
) -> Result<Mean<H::W>> {
    let mean = if config.center { means(isa, x)? } else { vec![0.0; x.cols()] };
    Ok(Mean::of(&mean))
}
