//! A small Gaussian process: mean 0, isotropic Matérn 5/2 covariance, exact values.
//!
//! Adding values updates the predictions at fixed points in time proportional to the number of values, as long as the
//! length scale stays as it is.

use kc_core::{Result, par};

use crate::small::cholesky;

/// Relative addition to the diagonal that keeps factors stable.
const NUGGET: f64 = 1e-8;

/// Length scales that are considered.
const SHORTEST: f64 = 0.02;
const LONGEST: f64 = 20.0;

/// The process given values at points.
#[derive(Debug, Clone)]
pub(super) struct Process {
    dim: usize,
    points: Vec<f64>,
    values: Vec<f64>,
    length: f64,
    /// Variance of the process.
    scale: f64,
    /// Lower factor of the correlation matrix, row-major.
    factor: Vec<f64>,
    /// Correlation matrix inverse times the values.
    weights: Vec<f64>,
}

/// Correlation at a squared distance.
fn matern(square: f64, length: f64) -> f64 {
    let r = (5.0 * square).sqrt() / length;
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

fn square(x: &[f64], z: &[f64]) -> f64 {
    x.iter().zip(z).map(|(x, z)| (x - z) * (x - z)).sum()
}

/// Solves `L x = b` in place.
fn forward(factor: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        let row = &factor[i * n..][..i];
        let known: f64 = row.iter().zip(&*b).map(|(l, b)| l * b).sum();
        b[i] = (b[i] - known) / factor[i * n + i];
    }
}

/// Solves `L^T x = b` in place.
fn backward(factor: &[f64], n: usize, b: &mut [f64]) {
    for i in (0..n).rev() {
        b[i] /= factor[i * n + i];
        let x = b[i];
        for (j, b) in b[..i].iter_mut().enumerate() {
            *b -= factor[i * n + j] * x;
        }
    }
}

/// Factor and weights at one length scale.
fn solve(points: &[f64], values: &[f64], dim: usize, length: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = values.len();
    let mut nugget = NUGGET;
    loop {
        let mut matrix = vec![0.0; n * n];
        for (i, row) in matrix.chunks_exact_mut(n).enumerate() {
            for (j, k) in row.iter_mut().enumerate() {
                *k = matern(square(&points[i * dim..][..dim], &points[j * dim..][..dim]), length);
            }
            row[i] += nugget;
        }
        match cholesky("correlation", &matrix, n) {
            Ok(factor) => {
                let mut weights = values.to_vec();
                forward(&factor, n, &mut weights);
                backward(&factor, n, &mut weights);
                return Ok((factor, weights));
            }
            Err(error) if nugget > 1e-2 => return Err(error),
            Err(_) => nugget *= 10.0,
        }
    }
}

/// Variance of greatest likelihood at given weights; values that are all 0 leave a little.
fn best_scale(values: &[f64], weights: &[f64]) -> f64 {
    let quadratic: f64 = values.iter().zip(weights).map(|(y, w)| y * w).sum();
    (quadratic / values.len() as f64).max(f64::MIN_POSITIVE)
}

impl Process {
    /// Fits length scale and variance to the values by maximum likelihood: a grid, then golden sections around its best.
    ///
    /// # Errors
    /// `Singular` if no nugget up to 0.01 makes the correlation positive definite.
    pub(super) fn fit(dim: usize, points: Vec<f64>, values: Vec<f64>) -> Result<Self> {
        let n = values.len();
        let loss = |log_length: f64| -> Result<f64> {
            let (factor, weights) = solve(&points, &values, dim, log_length.exp())?;
            let logs: f64 = (0..n).map(|i| factor[i * n + i].ln()).sum();
            Ok(n as f64 * best_scale(&values, &weights).ln() + 2.0 * logs)
        };
        const GRID: usize = 12;
        let (low, high) = (SHORTEST.ln(), LONGEST.ln());
        let at = |k: usize| low + (high - low) * k as f64 / GRID as f64;
        let mut best = (f64::INFINITY, 0);
        for k in 0..=GRID {
            let here = loss(at(k))?;
            if here < best.0 {
                best = (here, k);
            }
        }
        let ratio = 0.5 * (5f64.sqrt() - 1.0);
        let (mut a, mut b) = (at(best.1.saturating_sub(1)), at((best.1 + 1).min(GRID)));
        while b - a > 1e-2 {
            let (left, right) = (b - ratio * (b - a), a + ratio * (b - a));
            if loss(left)? < loss(right)? { b = right } else { a = left }
        }
        Self::at_length(dim, points, values, (0.5 * (a + b)).exp())
    }

    fn at_length(dim: usize, points: Vec<f64>, values: Vec<f64>, length: f64) -> Result<Self> {
        let (factor, weights) = solve(&points, &values, dim, length)?;
        let scale = best_scale(&values, &weights);
        Ok(Self { dim, points, values, length, scale, factor, weights })
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The process with more values, at the same length scale and variance.
    pub(super) fn extend(&self, points: &[f64], values: &[f64]) -> Result<Self> {
        let all_points = [&self.points[..], points].concat();
        let all_values = [&self.values[..], values].concat();
        let more = Self::at_length(self.dim, all_points, all_values, self.length)?;
        Ok(Self { scale: self.scale, ..more })
    }

    /// Chance that the process is 0 or more at each of the points.
    pub(super) fn chances(&self, points: &[f64]) -> Vec<f64> {
        let n = self.len();
        par::map_chunks(points.len() / self.dim, 1024, |rows| {
            let mut column = vec![0.0; n];
            let chance = |x: &[f64]| {
                for (k, z) in column.iter_mut().zip(self.points.chunks_exact(self.dim)) {
                    *k = matern(square(x, z), self.length);
                }
                let mean: f64 = column.iter().zip(&self.weights).map(|(k, w)| k * w).sum();
                forward(&self.factor, n, &mut column);
                let explained: f64 = column.iter().map(|v| v * v).sum();
                chance(mean, self.scale * (1.0 - explained))
            };
            let points = &points[rows.start * self.dim..rows.end * self.dim];
            points.chunks_exact(self.dim).map(chance).collect::<Vec<f64>>()
        })
        .concat()
    }
}

/// Chance that a normal variable is 0 or more.
fn chance(mean: f64, variance: f64) -> f64 {
    if variance <= 0.0 {
        return if mean >= 0.0 { 1.0 } else { 0.0 };
    }
    crate::special::normal_cdf(mean / variance.sqrt())
}

/// Predictions at fixed points that follow a growing process.
#[derive(Debug, Clone)]
pub(super) struct Field {
    points: Vec<f64>,
    mean: Vec<f64>,
    /// Variance over that of the process.
    share: Vec<f64>,
}

impl Field {
    pub(super) fn new(points: Vec<f64>) -> Self {
        Self { points, mean: Vec::new(), share: Vec::new() }
    }

    /// Predictions of a process from scratch.
    pub(super) fn set(&mut self, process: &Process) {
        let dim = process.dim;
        self.mean = vec![0.0; self.points.len() / dim];
        self.share = vec![1.0; self.points.len() / dim];
        let n = process.len();
        // The rows of the inverse factor turn the columns of correlations into independent ones, so that each value
        // takes its part from the variance.
        let mut inverse = vec![0.0; n * n];
        for (i, row) in inverse.chunks_exact_mut(n).enumerate() {
            row[i] = 1.0;
            backward_row(&process.factor, n, i, row);
        }
        self.add_rows(process, &inverse, n);
    }

    /// Predictions of a process that has grown from `old` values at the same length scale.
    pub(super) fn update(&mut self, process: &Process, old: usize) {
        let n = process.len();
        let mut inverse = vec![0.0; (n - old) * n];
        for (i, row) in (old..n).zip(inverse.chunks_exact_mut(n)) {
            row[i] = 1.0;
            backward_row(&process.factor, n, i, row);
        }
        self.add_rows(process, &inverse, n);
    }

    /// Adds the parts of the rows of the inverse factor: `v = row . k(x)`, variance less `v^2`, mean plus `v` times that
    /// row's part of the values.
    fn add_rows(&mut self, process: &Process, rows: &[f64], n: usize) {
        use rayon::prelude::*;
        let dim = process.dim;
        let parts: Vec<f64> = rows
            .chunks_exact(n)
            .map(|row| row.iter().zip(&process.values).map(|(l, y)| l * y).sum())
            .collect();
        const CHUNK: usize = 1024;
        let chunks = self.mean.par_chunks_mut(CHUNK).zip(self.share.par_chunks_mut(CHUNK));
        chunks.zip(self.points.par_chunks(CHUNK * dim)).for_each(|((mean, share), points)| {
            let mut column = vec![0.0; n];
            for ((mean, share), x) in mean.iter_mut().zip(share).zip(points.chunks_exact(dim)) {
                for (k, z) in column.iter_mut().zip(process.points.chunks_exact(dim)) {
                    *k = matern(square(x, z), process.length);
                }
                for (row, part) in rows.chunks_exact(n).zip(&parts) {
                    let v: f64 = row.iter().zip(&column).map(|(l, k)| l * k).sum();
                    *mean += v * part;
                    *share -= v * v;
                }
            }
        });
    }

    /// Share of the points where the process is rather 0 or more than not, and the mean of `min(p, 1 - p)`.
    pub(super) fn summary(&self, process: &Process) -> (f64, f64) {
        let chances: Vec<f64> = self
            .mean
            .iter()
            .zip(&self.share)
            .map(|(mean, share)| chance(*mean, process.scale * share))
            .collect();
        let above = chances.iter().filter(|p| **p >= 0.5).count();
        let count = chances.len() as f64;
        (above as f64 / count, super::sums::sum_of(&chances, |p| p.min(1.0 - p)) / count)
    }
}

/// Row `i` of the inverse of a lower factor, into `row`, which holds the unit vector: solves `r L = e_i`.
fn backward_row(factor: &[f64], n: usize, i: usize, row: &mut [f64]) {
    for j in (0..=i).rev() {
        row[j] /= factor[j * n + j];
        let x = row[j];
        let (head, line) = (&mut row[..j], &factor[j * n..][..j]);
        head.iter_mut().zip(line).for_each(|(r, l)| *r -= l * x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: usize, seed: u64) -> Vec<f64> {
        let mut rng = crate::Seed::from(seed).rng();
        (0..2 * count).map(|_| rng.uniform()).collect()
    }

    fn truth(points: &[f64]) -> Vec<f64> {
        points.chunks_exact(2).map(|x| (3.0 * x[0]).sin() - x[1]).collect()
    }

    #[test]
    fn the_process_passes_through_its_values_and_predicts_between_them() {
        let points = sample(60, 1);
        let process = Process::fit(2, points.clone(), truth(&points)).unwrap();
        let fresh = sample(500, 2);
        let chances = process.chances(&fresh);
        let right = truth(&fresh).iter().zip(&chances).filter(|(y, p)| (**y >= 0.0) == (**p >= 0.5)).count();
        assert!(right >= 490, "{right}");
        for (y, p) in truth(&points).iter().zip(process.chances(&points)) {
            assert!((*y >= 0.0) == (p >= 0.5));
        }
    }

    #[test]
    fn updated_predictions_are_those_from_scratch() {
        let points = sample(40, 3);
        let values = truth(&points);
        let process = Process::fit(2, points[..60].to_vec(), values[..30].to_vec()).unwrap();
        let grown = process.extend(&points[60..], &values[30..]).unwrap();
        let (mut updated, mut scratch) = (Field::new(sample(200, 4)), Field::new(sample(200, 4)));
        updated.set(&process);
        updated.update(&grown, 30);
        scratch.set(&grown);
        let chances = grown.chances(&sample(200, 4));
        for (i, expected) in chances.iter().enumerate() {
            assert!((updated.mean[i] - scratch.mean[i]).abs() < 1e-9);
            assert!((updated.share[i] - scratch.share[i]).abs() < 1e-9);
            let p = chance(scratch.mean[i], grown.scale * scratch.share[i]);
            assert!((p - expected).abs() < 1e-3, "{p} {expected}");
        }
    }
}
