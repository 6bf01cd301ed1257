//! Many products at once.

use kc_core::{Error, Result, Tensor, TensorView};
use rayon::prelude::*;

use crate::Real;
use crate::gemm::{Operand, gemm_into};

/// `out[i] = a[i] b[i]` for `a [B, M, K]` and `b [B, K, N]`. A batch of one, or a stride of zero, repeats an
/// operand (`TensorView::broadcast_to`).
pub fn gemm_batched<T: Operand>(
    a: TensorView<'_, T, 3>,
    b: TensorView<'_, T, 3>,
) -> Result<Tensor<T::Sum, 3>> {
    let ([batch, m, k], [others, depth, n]) = (a.shape(), b.shape());
    if others != batch || depth != k {
        return Err(Error::shape("b", format!("[{batch}, {k}, N] to match a {:?}", a.shape()), &b.shape()));
    }
    let mut out = Tensor::zeros([batch, m, n])?;
    if !out.is_empty() {
        let products = out.view_mut().chunks(0, 1)?;
        products.into_par_iter().enumerate().try_for_each(|(i, mut out)| {
            gemm_into(T::Sum::ONE, a.matrix(i), b.matrix(i), T::Sum::default(), out.matrix_mut(0))
        })?;
    }
    Ok(out)
}

/// `x [M, G K] x diag(blocks)` for `blocks [G, K, N]`: `out[:, g N..] = x[:, g K..] blocks[g]`, in `2 M G K N`
/// operations; the zeros outside of the diagonal are never touched.
pub fn gemm_block_diagonal<T: Operand>(
    x: TensorView<'_, T, 2>,
    blocks: TensorView<'_, T, 3>,
) -> Result<Tensor<T::Sum, 2>> {
    let ([m, width], [groups, k, n]) = (x.shape(), blocks.shape());
    if groups.checked_mul(k) != Some(width) {
        return Err(Error::shape(
            "x",
            format!("[M, {groups} * {k}] to match blocks {:?}", blocks.shape()),
            &x.shape(),
        ));
    }
    let columns =
        groups.checked_mul(n).ok_or_else(|| Error::shape("blocks", "a size that fits", &blocks.shape()))?;
    let mut out = Tensor::zeros([m, columns])?;
    if n > 0 {
        let stripes = out.view_mut().chunks(1, n)?;
        stripes.into_par_iter().enumerate().try_for_each(|(g, out)| {
            gemm_into(T::Sum::ONE, x.slice(1, g * k..(g + 1) * k)?, blocks.matrix(g), T::Sum::default(), out)
        })?;
    }
    Ok(out)
}
