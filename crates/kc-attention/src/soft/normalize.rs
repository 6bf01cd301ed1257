//! Symmetric normalisation of the inverse, and products with it. All in f64.

use kc_core::{Result, TensorView, TensorViewMut};
use kc_gemm::gemm_into;

/// `D_i^(-1/2)` with `D` the row sums of `a` `[m, m]`. The diagonal is 1, so no sum is less.
pub(super) fn factors(a: &[f64], m: usize) -> Vec<f64> {
    a.chunks_exact(m.max(1)).map(|row| 1.0 / row.iter().sum::<f64>().sqrt()).collect()
}

/// `e_i y_ij e_j`, or `y` itself without factors.
pub(super) fn applied(y: &[f64], e: &[f64]) -> Vec<f64> {
    let mut out = y.to_vec();
    for (row, left) in out.chunks_exact_mut(e.len().max(1)).zip(e) {
        row.iter_mut().zip(e).for_each(|(y, right)| *y *= left * right);
    }
    out
}

/// From the gradient by the normalised inverse, what the row sums add to that by `A`: one number for each row.
pub(super) fn backward(y: &[f64], e: &[f64], grad: &[f64]) -> Vec<f64> {
    let m = e.len();
    let mut d_e = vec![0.0; m];
    for i in 0..m {
        for j in 0..m {
            let part = grad[i * m + j] * y[i * m + j];
            d_e[i] += part * e[j];
            d_e[j] += part * e[i];
        }
    }
    d_e.iter().zip(e).map(|(d, e)| -0.5 * e * e * e * d).collect()
}

/// `a b` for `a` `[l, m]` and `b` `[m, n]`.
pub(super) fn product(a: &[f64], b: &[f64], n: usize) -> Result<Vec<f64>> {
    let m = b.len() / n.max(1);
    let l = a.len() / m.max(1);
    let mut out = vec![0.0; l * n];
    if !out.is_empty() {
        let (a, b) = (TensorView::from_slice([l, m], a)?, TensorView::from_slice([m, n], b)?);
        gemm_into(1.0, a, b, 0.0, TensorViewMut::from_slice([l, n], &mut out)?)?;
    }
    Ok(out)
}
