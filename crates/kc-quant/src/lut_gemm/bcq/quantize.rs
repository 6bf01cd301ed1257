//! From weights to signs and scales: options, importance, rows in parallel.

use kc_core::{Error, Result, TensorView, par};

use super::solve::{Solver, Sorted};
use super::{BcqMatrix, check_bits};
use crate::group::ScaleDtype;
use crate::lut_gemm::{Assign, BcqSpec, Init, Method, Offset};
use crate::rows::Rows;

/// Rows of one piece of work.
const ROWS: usize = 4;

/// Each round has its error in the report; solvers stand still after a few dozen.
const MOST_ROUNDS: u32 = 1000;

/// A quantised matrix and how the solver came to it.
#[derive(Debug, Clone)]
pub struct BcqFit {
    /// The matrix.
    pub matrix: BcqMatrix,
    /// The best `sum h (w - w^)^2 / sum h w^2` after each round, the start first; `h` is the importance. It never
    /// rises. Scales are not yet rounded to their type.
    pub round_errors: Vec<f64>,
    /// `sum (w - w^)^2 / sum w^2` of the matrix.
    pub rel_sq_error: f64,
}

/// What a row becomes.
struct Row {
    /// `[q, ceil(K/8)]`
    planes: Vec<u8>,
    /// `[G, q]`
    scales: Vec<f32>,
    /// `[G]`
    offsets: Vec<f32>,
    /// Squared error after each round.
    errors: Vec<f64>,
    /// `sum h w^2`
    size: f64,
}

impl BcqMatrix {
    /// Quantises `w` `[N, K]`. `importance`, `[1, K]` or `[N, K]`, weighs the squared errors.
    ///
    /// # Errors
    /// `Empty` without rows or columns; `NotFinite` for a weight or importance that is NaN or infinite; `Argument` for
    /// options out of range, negative importance, a uniform start without joint offsets, or scales beyond their
    /// type; `Shape` for an importance of another shape.
    pub fn quantize(
        w: TensorView<'_, f32, 2>,
        spec: &BcqSpec,
        importance: Option<TensorView<'_, f32, 2>>,
    ) -> Result<Self> {
        Ok(fit_matrix(w, spec, importance)?.0)
    }

    /// As [`quantize`](Self::quantize), and tells the error after each round.
    pub fn fit(
        w: TensorView<'_, f32, 2>,
        spec: &BcqSpec,
        importance: Option<TensorView<'_, f32, 2>>,
    ) -> Result<BcqFit> {
        let (matrix, round_errors) = fit_matrix(w, spec, importance)?;
        let rel_sq_error = matrix.rel_sq_error(w)?;
        Ok(BcqFit { matrix, round_errors, rel_sq_error })
    }
}

impl BcqSpec {
    fn check(&self) -> Result<()> {
        check_bits(self.bits)?;
        if self.init != Init::Greedy && self.offset != Offset::Joint {
            return Err(Error::argument("init", "`greedy` unless offsets are `joint`", self.init.name()));
        }
        if self.rounds > MOST_ROUNDS {
            return Err(Error::argument("rounds", format!("at most {MOST_ROUNDS}"), self.rounds));
        }
        let range = |name, value: f64, ok: bool, expected: &str| {
            if ok { Ok(()) } else { Err(Error::argument(name, expected, value)) }
        };
        let (e, c, p) = (self.exponent, self.clipping, self.pruning);
        range("exponent", e, e.is_finite() && e >= 0.0, "a finite number of at least 0")?;
        range("clipping", c, c > 0.0 && c <= 1.0, "above 0, at most 1")?;
        range("pruning", p, (0.0..1.0).contains(&p), "at least 0, below 1")
    }
}

fn fit_matrix(
    w: TensorView<'_, f32, 2>,
    spec: &BcqSpec,
    importance: Option<TensorView<'_, f32, 2>>,
) -> Result<(BcqMatrix, Vec<f64>)> {
    spec.check()?;
    let [n, k] = w.shape();
    if n == 0 || k == 0 {
        return Err(Error::empty("w"));
    }
    let group = spec.group.len(k)?;
    let weights = Weights::of(w, spec, importance)?;
    let (q, groups, row_bytes) = (usize::from(spec.bits), k.div_ceil(group), k.div_ceil(8));
    let count = kc_core::shape::checked_len("w", &[q, n, row_bytes])?;
    let solved = par::map_chunks(n, ROWS, |range| {
        let mut solver = Solver::new(spec);
        let (mut values, mut h) = (vec![0.0; k], vec![0.0; k]);
        range
            .map(|i| {
                weights.row(i, &mut values, &mut h);
                solve_row(&mut solver, spec, group, &values, &mut h)
            })
            .collect::<Vec<Row>>()
    });
    let mut planes = vec![0; count];
    let mut scales = Vec::with_capacity(n * groups * q);
    let mut offsets = Vec::with_capacity(n * groups);
    let (mut errors, mut size) = (Vec::new(), 0.0);
    for (i, row) in solved.into_iter().flatten().enumerate() {
        for (b, bytes) in row.planes.chunks(row_bytes).enumerate() {
            planes[(b * n + i) * row_bytes..][..row_bytes].copy_from_slice(bytes);
        }
        scales.extend(row.scales);
        offsets.extend(row.offsets);
        errors.resize(row.errors.len(), 0.0);
        errors.iter_mut().zip(&row.errors).for_each(|(sum, e)| *sum += e);
        size += row.size;
    }
    if let Some(at) = scales.iter().chain(&offsets).position(|s| !s.is_finite()) {
        let at = at % scales.len();
        let expected = format!("a type that holds the scales, not {}", spec.scale_dtype.name());
        return Err(Error::argument("scale_dtype", expected, format!("a scale beyond it at {at}")));
    }
    let offsets = (spec.offset != Offset::None).then_some(offsets);
    let matrix = BcqMatrix {
        scale_dtype: spec.scale_dtype,
        ..BcqMatrix::from_parts([n, k], spec.bits, group, planes, scales, offsets)?
    };
    let relative = |e: f64| if e == 0.0 { 0.0 } else { e / size };
    Ok((matrix, errors.into_iter().map(relative).collect()))
}

fn solve_row(solver: &mut Solver, spec: &BcqSpec, group: usize, w: &[f64], h: &mut [f64]) -> Row {
    let (q, row_bytes) = (usize::from(spec.bits), w.len().div_ceil(8));
    let mut row = Row {
        planes: vec![0; q * row_bytes],
        scales: Vec::new(),
        offsets: Vec::new(),
        errors: vec![0.0; solver.rounds() + 1],
        size: 0.0,
    };
    for (g, (w, h)) in w.chunks(group).zip(h.chunks_mut(group)).enumerate() {
        if h.iter().sum::<f64>() == 0.0 {
            h.fill(1.0);
        }
        solver.solve(w, h);
        row.errors.iter_mut().zip(&solver.errors).for_each(|(sum, e)| *sum += e);
        row.size += w.iter().zip(h.iter()).map(|(w, h)| h * w * w).sum::<f64>();
        let best = &mut solver.best;
        let mut stored = [0.0; 8];
        for (to, &scale) in stored.iter_mut().zip(&best.scales[..q]) {
            let scale = spec.scale_dtype.round(scale as f32);
            row.scales.push(scale);
            *to = f64::from(scale);
        }
        let offset = spec.scale_dtype.round(best.offset as f32);
        row.offsets.push(offset);
        let again = spec.method == Method::Alternating && spec.assign == Assign::Nearest;
        if spec.scale_dtype != ScaleDtype::F32 && again {
            // The rounded scales have levels of their own.
            let sorted = Sorted::of(&stored[..q], f64::from(offset));
            best.codes.iter_mut().zip(w).for_each(|(code, &w)| *code = sorted.code(w));
        }
        for (j, &code) in best.codes.iter().enumerate() {
            let column = g * group + j;
            for b in 0..q {
                row.planes[b * row_bytes + column / 8] |= (code >> b & 1) << (column % 8);
            }
        }
    }
    row
}

/// The weights and the importance of each.
struct Weights<'a> {
    w: Rows<'a, f32>,
    importance: Option<Rows<'a, f32>>,
    /// One row of importance for all.
    shared: bool,
    exponent: f64,
    /// The magnitude from which on the reference's importance is 1.
    clip: f64,
    /// Smaller magnitudes become 0.
    prune: f32,
}

impl<'a> Weights<'a> {
    fn of(
        w: TensorView<'a, f32, 2>,
        spec: &BcqSpec,
        importance: Option<TensorView<'a, f32, 2>>,
    ) -> Result<Self> {
        let [n, k] = w.shape();
        let rows = Rows::of(w)?;
        check("w", &rows, n, false)?;
        let shared = importance.is_some_and(|h| h.rows() == 1);
        let importance = match importance {
            None => None,
            Some(h) if h.cols() != k || h.rows() != n && h.rows() != 1 => {
                return Err(Error::shape("importance", format!("[1, {k}] or [{n}, {k}]"), &h.shape()));
            }
            Some(h) => {
                let count = h.rows();
                let h = Rows::of(h)?;
                check("importance", &h, count, true)?;
                Some(h)
            }
        };
        let (mut clip, mut prune) = (0.0, 0.0);
        if spec.pruning > 0.0 || spec.exponent > 0.0 {
            let mut sizes: Vec<f32> = Vec::with_capacity(n * k);
            for i in 0..n {
                sizes.extend(rows.row(i).iter().map(|w| w.abs()));
            }
            let mut quantile = |p: f64| {
                let at = ((sizes.len() as f64 * p) as usize).min(sizes.len() - 1);
                *sizes.select_nth_unstable_by(at, f32::total_cmp).1
            };
            clip = f64::from(quantile(spec.clipping));
            prune = quantile(spec.pruning);
        }
        let prune = if spec.pruning > 0.0 { prune } else { 0.0 };
        Ok(Self { w: rows, importance, shared, exponent: spec.exponent, clip, prune })
    }

    /// Row `i` and its importance.
    fn row(&self, i: usize, w: &mut [f64], h: &mut [f64]) {
        let row = self.w.row(i);
        match &self.importance {
            Some(rows) => {
                let from = rows.row(if self.shared { 0 } else { i });
                h.iter_mut().zip(from).for_each(|(h, &x)| *h = f64::from(x));
            }
            None => h.fill(1.0),
        }
        for ((to, h), &from) in w.iter_mut().zip(h).zip(row) {
            let size = f64::from(from.abs());
            *to = f64::from(from);
            if self.exponent > 0.0 {
                *h *= if size >= self.clip { 1.0 } else { (size / self.clip).powf(self.exponent) };
            }
            if from.abs() < self.prune {
                (*to, *h) = (0.0, 0.0);
            }
        }
    }
}

fn check(name: &'static str, rows: &Rows<'_, f32>, count: usize, not_negative: bool) -> Result<()> {
    for i in 0..count {
        let row = rows.row(i);
        if let Some(j) = row.iter().position(|x| !x.is_finite()) {
            return Err(Error::not_finite(name, &[i, j], f64::from(row[j])));
        }
        if not_negative && let Some(j) = row.iter().position(|x| *x < 0.0) {
            return Err(Error::argument(name, "values of at least 0", format!("{} at [{i}, {j}]", row[j])));
        }
    }
    Ok(())
}
