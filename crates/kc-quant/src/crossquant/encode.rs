//! From a matrix to codes: factors, the passes over X, threads, dispatch.

use kc_core::{Error, Isa, Result, TensorView};
use rayon::prelude::*;

use super::portable::{self, RowCounts};
use super::{Columns, CrossCodes, CrossSpec, RowFactor};
use crate::round::qmax;
use crate::rows::Rows;

#[cfg(target_arch = "x86_64")]
use super::x86 as kernels;
#[cfg(not(target_arch = "x86_64"))]
use fallback as kernels;

/// Without instruction sets to choose from, every level is the portable one.
#[cfg(not(target_arch = "x86_64"))]
mod fallback {
    use super::{Isa, RowCounts, portable};

    pub(super) fn maxima<const R: usize>(_: Isa, rows: [&[f32]; R], columns: &mut [u32]) -> [u32; R] {
        portable::maxima(rows, columns)
    }
    pub(super) fn row_maximum(_: Isa, row: &[f32]) -> u32 {
        portable::row_maximum(row)
    }
    pub(super) fn ratio(_: Isa, x: &[f32], d: &[f32], inverse: &[f32]) -> (f32, u32) {
        portable::ratio(x, d, inverse)
    }
    pub(super) fn encode(
        _: Isa,
        x: &[f32],
        r: f32,
        d: &[f32],
        _: &[f32],
        limit: i8,
        out: &mut [i8],
    ) -> RowCounts {
        portable::encode(x, r, d, limit, out)
    }
}

/// Bits of the largest finite number; larger ones are infinities and NaN.
const LARGEST: u32 = 0x7f7f_ffff;

/// Elements of one task.
const TASK: usize = 1 << 16;

/// Factors inside of this range have products, inverses and quotients that are normal numbers.
fn tame(factor: f32) -> bool {
    const RANGE: f32 = (1u64 << 60) as f32;
    (1.0 / RANGE..=RANGE).contains(&factor)
}

/// `base^exponent` in f64; `0^0 = 1`.
pub(super) fn power(base: f32, exponent: f64) -> f64 {
    let base = f64::from(base);
    if exponent == 0.0 {
        1.0
    } else if exponent == 1.0 {
        base
    } else {
        base.powf(exponent)
    }
}

/// `c^(1 - alpha)` of a column maximum.
pub(super) fn column_factor(maximum: f32, alpha: f64) -> f32 {
    power(maximum, 1.0 - alpha) as f32
}

/// Memory of the encoder, used again by the next call.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// Bits of each row's largest magnitude.
    row_bits: Vec<u32>,
    /// Bits of the columns' largest magnitudes, first of everything, then of the other parts.
    col_bits: Vec<u32>,
    steps: Steps,
}

/// Column maxima of `|x|`, and a look at every element: an error names the first that is not finite.
pub(super) fn column_maxima(isa: Isa, arg: &'static str, x: TensorView<'_, f32, 2>) -> Result<Vec<f32>> {
    let mut scratch = Scratch::default();
    scan(isa, &Rows::of(x)?, x.shape(), &mut scratch);
    check_finite(arg, x, &scratch.row_bits)?;
    Ok(scratch.col_bits.iter().take(x.cols()).map(|&bits| f32::from_bits(bits)).collect())
}

/// The largest magnitude of each row of `x`, which is finite.
pub(super) fn row_maxima(isa: Isa, x: TensorView<'_, f32, 2>) -> Result<Vec<f32>> {
    let rows = Rows::of(x)?;
    Ok((0..x.rows()).map(|i| f32::from_bits(kernels::row_maximum(isa, rows.row(i)))).collect())
}

/// One pass: the largest bits of `|x|` of each row, and of each column in the first `k` of `col_bits`. Maxima
/// of integers, so neither the order nor the number of threads can matter. X is cut into at most 64 parts.
fn scan(isa: Isa, rows: &Rows<'_, f32>, [t, k]: [usize; 2], scratch: &mut Scratch) {
    let Scratch { row_bits, col_bits, .. } = scratch;
    let chunk = t.div_ceil(64).max(64);
    row_bits.clear();
    row_bits.resize(t, 0);
    col_bits.clear();
    col_bits.resize(k * t.div_ceil(chunk).max(1), 0);
    let part = |first: usize, row_bits: &mut [u32], columns: &mut [u32]| {
        let (fours, tail) = row_bits.as_chunks_mut::<4>();
        let mut i = first;
        for four in fours {
            let rows = [rows.row(i), rows.row(i + 1), rows.row(i + 2), rows.row(i + 3)];
            *four = kernels::maxima(isa, rows, columns);
            i += 4;
        }
        for one in tail {
            [*one] = kernels::maxima(isa, [rows.row(i)], columns);
            i += 1;
        }
    };
    if t <= chunk || k == 0 {
        return part(0, row_bits, col_bits);
    }
    row_bits
        .par_chunks_mut(chunk)
        .zip(col_bits.par_chunks_mut(k))
        .enumerate()
        .for_each(|(c, (row_bits, columns))| part(c * chunk, row_bits, columns));
    let (all, parts) = col_bits.split_at_mut(k);
    for part in parts.chunks(k) {
        all.iter_mut().zip(part).for_each(|(a, b)| *a = (*a).max(*b));
    }
}

/// An error with the first element that is not finite, if a row's bits say that there is one.
fn check_finite(arg: &'static str, x: TensorView<'_, f32, 2>, row_bits: &[u32]) -> Result<()> {
    let Some(i) = row_bits.iter().position(|&bits| bits > LARGEST) else { return Ok(()) };
    let found = x.row(i).iter().enumerate().find(|(_, v)| !v.is_finite());
    let (j, value) = found.unwrap_or((0, f32::NAN));
    Err(Error::not_finite(arg, &[i, j], f64::from(value)))
}

/// Column factors `d` as the encoder wants them.
#[derive(Debug, Clone, Default)]
struct Steps {
    /// `d` with infinity for 0: dividing by it gives code 0 without a test.
    safe: Vec<f32>,
    /// `1 / d`, and 0 for 0.
    inverse: Vec<f32>,
    /// Where `d` is 0.
    dead: Vec<usize>,
    /// Every `d` is 0 or far from the ends of the range.
    tame: bool,
}

impl Steps {
    fn fill(&mut self, col: &[f32]) {
        self.safe.clear();
        self.safe.extend(col.iter().map(|&d| if d == 0.0 { f32::INFINITY } else { d }));
        self.inverse.clear();
        self.inverse.extend(col.iter().map(|&d| if d == 0.0 { 0.0 } else { 1.0 / d }));
        self.dead.clear();
        self.dead.extend(col.iter().enumerate().filter(|(_, d)| **d == 0.0).map(|(j, _)| j));
        self.tame = col.iter().all(|&d| d == 0.0 || tame(d));
    }

    /// The smallest row factor that does not clip this row, and the bits of its largest magnitude.
    fn tight(&self, isa: Isa, x: &[f32], col: &[f32], limit: f32) -> (f32, u32) {
        const FINE: f32 = 1.0 / (1u128 << 100) as f32;
        let (mut ratio, bits) = if self.tame {
            kernels::ratio(isa, x, &self.safe, &self.inverse)
        } else {
            (0.0, kernels::row_maximum(isa, x))
        };
        if ratio < FINE {
            // Too near to the denormal numbers for the screened division, or not tame at all.
            ratio = portable::ratio_each(x, col);
        }
        (ratio.min(f32::MAX) / limit, bits)
    }

    fn encode(&self, isa: Isa, x: &[f32], r: f32, col: &[f32], limit: i8, out: &mut [i8]) -> RowCounts {
        let mut counts = RowCounts::default();
        if self.tame && tame(r) {
            counts = kernels::encode(isa, x, r, &self.safe, &self.inverse, limit, out);
            counts.lost = self.dead.iter().filter(|&&j| x[j] != 0.0).count();
        } else {
            portable::encode_each(x, r, col, limit, out, &mut counts);
        }
        counts
    }
}

/// Fills `out` with the codes of `x`.
pub(super) fn run(isa: Isa, x: TensorView<'_, f32, 2>, spec: &CrossSpec, out: &mut CrossCodes) -> Result<()> {
    spec.check(x.cols())?;
    let rows = Rows::of(x)?;
    out.col.clear();
    match &spec.columns {
        Columns::Dynamic => {
            scan(isa, &rows, x.shape(), &mut out.scratch);
            check_finite("x", x, &out.scratch.row_bits)?;
            let maxima = out.scratch.col_bits.iter().take(x.cols()).map(|&bits| f32::from_bits(bits));
            out.col.extend(maxima.map(|c| column_factor(c, spec.alpha)));
            encode_rows(isa, x, &rows, spec, true, out)
        }
        Columns::Static(maxima) => {
            out.col.extend(maxima.iter().map(|&c| column_factor(c, spec.alpha)));
            encode_rows(isa, x, &rows, spec, false, out)
        }
    }
}

/// Fills `out` with the codes for given column factors `d` (not maxima); the columns of `spec` do not count.
pub(super) fn run_with_factors(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    factors: &[f32],
    spec: &CrossSpec,
    out: &mut CrossCodes,
) -> Result<()> {
    out.col.clear();
    out.col.extend_from_slice(factors);
    encode_rows(isa, x, &Rows::of(x)?, spec, false, out)
}

/// The pass that makes codes. `scanned` says that the rows' maxima are known already.
fn encode_rows(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    rows: &Rows<'_, f32>,
    spec: &CrossSpec,
    scanned: bool,
    out: &mut CrossCodes,
) -> Result<()> {
    let limit = qmax(spec.bits)?;
    let [t, k] = x.shape();
    out.shape = [t, k];
    out.bits = spec.bits;
    // Every code is written below, so old ones may stay until then.
    out.codes.resize(x.len(), 0);
    out.row.clear();
    out.row.resize(t, 0.0);
    let (col, row_bits) = (&out.col, &mut out.scratch.row_bits);
    out.scratch.steps.fill(col);
    let steps = &out.scratch.steps;
    if !scanned {
        row_bits.clear();
        row_bits.resize(t, 0);
    }
    let encode_row = |i: usize, bits: &mut u32, row: &mut f32, codes: &mut [i8]| {
        let x = rows.row(i);
        match spec.row {
            RowFactor::Absmax => {
                if !scanned {
                    *bits = kernels::row_maximum(isa, x);
                }
                *row = (power(f32::from_bits(*bits), spec.alpha) / f64::from(limit)) as f32;
            }
            RowFactor::Tight => (*row, *bits) = steps.tight(isa, x, col, f32::from(limit)),
        }
        if *bits > LARGEST { RowCounts::default() } else { steps.encode(isa, x, *row, col, limit, codes) }
    };
    let chunk = (TASK / k.max(1)).max(1);
    let task = |first: usize, bits: &mut [u32], row: &mut [f32], codes: &mut [i8]| {
        let mut sum = RowCounts::default();
        for (i, (bits, row)) in bits.iter_mut().zip(row).enumerate() {
            sum.add(encode_row(first + i, bits, row, &mut codes[i * k..i * k + k]));
        }
        sum
    };
    out.counts = if t <= chunk {
        task(0, row_bits, &mut out.row, &mut out.codes)
    } else {
        // k > 0 here: otherwise everything fits one task.
        row_bits
            .par_chunks_mut(chunk)
            .zip(out.row.par_chunks_mut(chunk))
            .zip(out.codes.par_chunks_mut(chunk * k))
            .enumerate()
            .map(|(c, ((bits, row), codes))| task(c * chunk, bits, row, codes))
            .reduce(RowCounts::default, |mut a, b| {
                a.add(b);
                a
            })
    };
    check_finite("x", x, row_bits)
}
