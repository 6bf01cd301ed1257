//! The definition in plain loops with f64 sums. Slow, never tuned.

use kc_core::{Float, Result, Tensor, TensorView};

use super::{MnnConfig, ZeroRows, check, check_matrix};

/// The centred, row-normalised matrix; rows of zeros become NaN (or stay zero under [`ZeroRows::Drop`]).
pub fn normalised<T: Float>(x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<Tensor<f64, 2>> {
    let [rows, dim] = x.shape();
    check_matrix(rows, dim)?;
    let mut z = Tensor::from_fn([rows, dim], |at| x.at(at).to_f64())?;
    if config.center {
        for j in 0..dim {
            // Against the first entry, so that equal entries have exactly their own value as mean.
            let first = z[[0, j]];
            let mean = first + (0..rows).map(|i| z[[i, j]] - first).sum::<f64>() / rows as f64;
            for i in 0..rows {
                z[[i, j]] -= mean;
            }
        }
    }
    if config.normalize {
        for i in 0..rows {
            let norm = (0..dim).map(|j| z[[i, j]] * z[[i, j]]).sum::<f64>().sqrt();
            if norm == 0.0 && config.zero_rows == ZeroRows::Drop {
                continue;
            }
            for j in 0..dim {
                z[[i, j]] /= norm;
            }
        }
    }
    Ok(z)
}

/// The norms of the columns of [`normalised`].
pub fn column_norms<T: Float>(x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<Vec<f64>> {
    let z = normalised(x, config)?;
    let [rows, dim] = z.shape();
    Ok((0..dim).map(|j| (0..rows).map(|i| z[[i, j]] * z[[i, j]]).sum::<f64>().sqrt()).collect())
}

/// The sum of the largest column norms: `raw` of [`MnnScore`](super::MnnScore).
pub fn mnn<T: Float>(x: TensorView<'_, T, 2>, config: &MnnConfig) -> Result<f64> {
    let [rows, dim] = x.shape();
    check(rows, dim, config)?;
    let mut norms = column_norms(x, config)?;
    norms.sort_by(|a, b| b.total_cmp(a));
    Ok(norms[..config.top.unwrap_or(rows.min(dim))].iter().sum())
}
