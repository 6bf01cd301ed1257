//! The exact singular values of the normalised matrix, through its Gram matrix or by an SVD.

use ::faer::linalg::matmul::matmul;
use ::faer::{Accum, Par};
use kc_core::{Float, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::norm::{Hidden, with_hidden};
use super::normalised::Normalised;
use super::{MnnConfig, check_matrix, is_undefined};
use crate::faer::{mat_mut, mat_ref};
use crate::{eigvalsh, singular_values};

/// Columns of the long side that are multiplied at once.
const PANEL: usize = 256;

/// Rows of the Gram matrix that one task computes.
const TILE: usize = 128;

/// The relative change of the nuclear norm that [`ExactMethod::Auto`] accepts from the Gram matrix.
const AUTO_ERROR: f64 = 1e-6;

/// How the exact singular values are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExactMethod {
    /// The Gram matrix, unless a bound on its rounding errors exceeds 1e-6 of the nuclear norm; then an SVD.
    #[default]
    Auto,
    /// Eigenvalues of the f64 Gram matrix of the smaller side: n^2 max(N, d) + 4/3 n^3 operations and n^2
    /// numbers of memory. Singular values below 1e-8 of the largest have no correct digit.
    Gram,
    /// A values-only SVD in f64: about twice the operations and N d numbers of memory; all values are good to
    /// 1e-16 of the largest.
    Svd,
}

/// The singular values of the centred, row-normalised matrix, largest first, and the method that found them.
/// `None` if they are undefined (zero rows under [`ZeroRows::Nan`](super::ZeroRows::Nan)).
pub fn singular_values_of_normalised<T: Float>(
    x: TensorView<'_, T, 2>,
    config: &MnnConfig,
    method: ExactMethod,
) -> Result<Option<(Vec<f64>, ExactMethod)>> {
    let [rows, dim] = x.shape();
    check_matrix(rows, dim)?;
    with_hidden!(x, |x| values(x, config, method))
}

fn values<H: Hidden>(
    x: TensorView<'_, H, 2>,
    config: &MnnConfig,
    method: ExactMethod,
) -> Result<Option<(Vec<f64>, ExactMethod)>> {
    let z = Normalised::new(x, config)?;
    if is_undefined(z.zero_rows, config) {
        return Ok(None);
    }
    if method != ExactMethod::Svd {
        let mut values = eigvalsh(gram(&z)?.view())?;
        values.reverse();
        if method == ExactMethod::Gram || gram_error(&values) <= AUTO_ERROR {
            values.iter_mut().for_each(|v| *v = v.max(0.0).sqrt());
            return Ok(Some((values, ExactMethod::Gram)));
        }
    }
    let values = singular_values(z.to_tensor()?.view())?;
    Ok(Some((values, ExactMethod::Svd)))
}

/// A bound on the relative error of the sum of roots of these eigenvalues (largest first), if each carries
/// the rounding error of a symmetric eigensolver.
fn gram_error(values: &[f64]) -> f64 {
    let largest = values.first().copied().unwrap_or(0.0).max(0.0);
    let noise = f64::EPSILON * values.len() as f64 * largest;
    let roots: f64 = values.iter().map(|v| v.max(0.0).sqrt()).sum();
    if roots == 0.0 {
        return 0.0;
    }
    // sqrt(v + noise) - sqrt(v), without cancellation.
    let errors = values.iter().map(|v| noise / ((v.max(0.0) + noise).sqrt() + v.max(0.0).sqrt()));
    errors.sum::<f64>() / roots
}

/// The lower triangle of Z Z^T or Z^T Z, whichever is smaller.
fn gram<H: Hidden>(z: &Normalised<'_, H>) -> Result<Tensor<f64, 2>> {
    let [rows, dim] = z.shape();
    let tall = rows >= dim;
    let (short, long) = if tall { (dim, rows) } else { (rows, dim) };
    let mut gram = Tensor::<f64, 2>::zeros([short, short])?;
    let mut panel = vec![0.0; short * PANEL.min(long)];
    for start in (0..long).step_by(PANEL) {
        let width = PANEL.min(long - start);
        // As it comes: part of the rows if they are many, part of each row if they are few.
        let (line, lines) = if tall { (dim, width) } else { (width, rows) };
        panel[..lines * line].par_chunks_mut(line).enumerate().for_each(|(i, out)| {
            if tall { z.fill(start + i, 0..dim, out) } else { z.fill(i, start..start + width, out) }
        });
        let panel = TensorView::from_slice([lines, line], &panel[..lines * line])?;
        let panel = if tall { panel.transposed() } else { panel };
        gram.as_mut_slice()
            .par_chunks_mut(TILE * short)
            .enumerate()
            .try_for_each(|(i, rows)| add_tile_row(panel, i * TILE, short, rows))?;
    }
    Ok(gram)
}

/// Rows `first..` of the lower triangle of `panel panel^T`, added to `rows`.
fn add_tile_row(panel: TensorView<'_, f64, 2>, first: usize, n: usize, rows: &mut [f64]) -> Result<()> {
    let count = rows.len() / n;
    let out = kc_core::TensorViewMut::from_slice([count, n], rows)?.slice(1, 0..first + count)?;
    let left = panel.slice(0, first..first + count)?;
    let right = panel.slice(0, 0..first + count)?.transposed();
    matmul(mat_mut(out), Accum::Add, mat_ref(left), mat_ref(right), 1.0, Par::Seq);
    Ok(())
}
