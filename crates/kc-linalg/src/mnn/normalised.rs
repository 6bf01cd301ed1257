//! The centred, row-normalised matrix in f64, made a piece at a time: what the exact quantities, the
//! estimator and the gradient read.

use std::ops::Range;

use kc_core::{Isa, Result, Tensor, TensorView, par};

use super::norm::{self, Hidden};
use super::{MnnConfig, ZeroRows};

/// Rows whose norms one task computes.
const CHUNK: usize = 64;

pub(super) struct Normalised<'a, H: Hidden> {
    x: TensorView<'a, H, 2>,
    mean: Vec<f64>,
    /// What each row is divided by. A zero row is divided by 1 and stays zero.
    norms: Vec<f64>,
    /// Rows that are zero after centring.
    pub(super) zero_rows: usize,
}

impl<'a, H: Hidden> Normalised<'a, H> {
    pub(super) fn new(x: TensorView<'a, H, 2>, config: &MnnConfig) -> Result<Self> {
        let mean = if config.center {
            norm::means(Isa::best(), x)?
        } else {
            norm::check_finite(x, 0)?;
            vec![0.0; x.cols()]
        };
        let norm = |i: usize| {
            let row = x.row(i);
            norm::scaled_norm(mean.len(), |j| row.at([j]).to_f64() - mean[j])
        };
        let parts = par::map_chunks(x.rows(), CHUNK, |rows| rows.map(norm).collect::<Vec<f64>>());
        let mut norms = parts.concat();
        let zero_rows = norms.iter().filter(|&&n| n == 0.0).count();
        if let (ZeroRows::Error, Some(i)) = (config.zero_rows, norms.iter().position(|&n| n == 0.0)) {
            return Err(norm::zero_row(i));
        }
        for n in &mut norms {
            if *n == 0.0 || !config.normalize {
                *n = 1.0;
            }
        }
        Ok(Self { x, mean, norms, zero_rows })
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.x.shape()
    }

    /// What row `i` was divided by.
    pub(super) fn norm(&self, i: usize) -> f64 {
        self.norms[i]
    }

    /// Part of row `i`.
    pub(super) fn fill(&self, i: usize, columns: Range<usize>, out: &mut [f64]) {
        let (mean, norm) = (&self.mean[columns.clone()], self.norms[i]);
        match self.x.row_slice(i) {
            Some(row) => {
                for ((z, x), m) in out.iter_mut().zip(&row[columns]).zip(mean) {
                    *z = (x.to_f64() - m) / norm;
                }
            }
            None => {
                let row = self.x.row(i);
                for ((z, j), m) in out.iter_mut().zip(columns).zip(mean) {
                    *z = (row.at([j]).to_f64() - m) / norm;
                }
            }
        }
    }

    /// All of it.
    pub(super) fn to_tensor(&self) -> Result<Tensor<f64, 2>> {
        let mut out = Tensor::zeros(self.shape())?;
        let d = self.mean.len();
        for (i, row) in out.as_mut_slice().chunks_exact_mut(d).enumerate() {
            self.fill(i, 0..d, row);
        }
        Ok(out)
    }
}
