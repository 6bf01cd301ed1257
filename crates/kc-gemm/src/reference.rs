//! The definition in plain loops with f64 or 64-bit integer sums: slow, never tuned, for tests and doubts.

use kc_core::{Error, Float, Result, Tensor, TensorView, TensorViewMut};

/// `out = alpha a b + beta out` with sums in f64. `beta = 0` does not read `out`.
pub fn gemm_into<A: Float, O: Float>(
    alpha: f64,
    a: TensorView<'_, A, 2>,
    b: TensorView<'_, A, 2>,
    beta: f64,
    mut out: TensorViewMut<'_, O, 2>,
) -> Result<()> {
    if a.cols() != b.rows() {
        return Err(Error::shape("b", format!("[{}, N] to match a {:?}", a.cols(), a.shape()), &b.shape()));
    }
    if out.shape() != [a.rows(), b.cols()] {
        return Err(Error::shape("out", format!("[{}, {}]", a.rows(), b.cols()), &out.shape()));
    }
    for i in 0..a.rows() {
        for j in 0..b.cols() {
            let sum: f64 = (0..a.cols()).map(|k| a.at([i, k]).to_f64() * b.at([k, j]).to_f64()).sum();
            let old = if beta == 0.0 { 0.0 } else { beta * out.as_view().at([i, j]).to_f64() };
            out.set([i, j], O::from_f64(alpha * sum + old));
        }
    }
    Ok(())
}

/// `a b` with sums in f64.
pub fn gemm<T: Float>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>) -> Result<Tensor<f64, 2>> {
    let mut out = Tensor::zeros([a.rows(), b.cols()])?;
    gemm_into(1.0, a, b, 0.0, out.view_mut())?;
    Ok(out)
}

/// Sums `[M, N, groups]` of `a[i,k] * w[n,k]` per group of `group` columns (0 = one group), in 64-bit integers.
pub fn group_sums(a: &[i64], w: &[i64], [m, n, k]: [usize; 3], group: usize) -> Vec<i64> {
    let group = if group == 0 { k.max(1) } else { group };
    let mut sums = Vec::with_capacity(m * n * k.div_ceil(group));
    for i in 0..m {
        for j in 0..n {
            for start in (0..k).step_by(group) {
                let columns = start..k.min(start + group);
                sums.push(columns.map(|c| a[i * k + c] * w[j * k + c]).sum());
            }
        }
    }
    sums
}
