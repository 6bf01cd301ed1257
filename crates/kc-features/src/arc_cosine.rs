//! Arc-cosine kernels, exactly: what products of ReLU features tend to.
//!
//! With `a` the angle between `x` and `w`, and `H` the step function,
//!
//! ```text
//! order 0: E[H(g.x) H(g.w)]                 = (pi - a) / (2 pi)
//! order 1: E[max(g.x, 0) max(g.w, 0)]       = |x| |w| (sin a + (pi - a) cos a) / (2 pi)
//! order 2: E[max(g.x, 0)^2 max(g.w, 0)^2]   = |x|^2 |w|^2 (3 sin a cos a + (pi - a) (1 + 2 cos^2 a)) / (2 pi)
//! ```
//!
//! for `g` of N(0, I): one half of the kernels of Cho and Saul, "Kernel Methods for Deep Learning" (2009), equation 3.
//! A row of zeros has angle pi/2 with everything. One product and `n o` arc cosines.
//!
//! ```
//! use kc_core::TensorView;
//! use kc_features::arc_cosine::{Order, arccos_kernel};
//! let x = TensorView::from_slice([1, 2], &[2.0f64, 0.0])?;
//! assert!((arccos_kernel(Order::One, x, x)?[[0, 0]] - 2.0).abs() < 1e-12);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::f64::consts::PI;

use kc_core::{Result, Tensor, TensorView, par};

use crate::{Scalar, check_finite, check_width, square_length};

/// The power of the rectified projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Steps.
    Zero,
    /// Rectified linear units.
    #[default]
    One,
    /// Squares of them.
    Two,
}

/// The kernel of every row of `x` `[n, d]` with every row of `w` `[o, d]`: `[n, o]`. Angles in f64.
///
/// # Errors
/// `Shape`, `NotFinite`.
pub fn arccos_kernel<T: Scalar>(
    order: Order,
    x: TensorView<'_, T, 2>,
    w: TensorView<'_, T, 2>,
) -> Result<Tensor<T, 2>> {
    check_width("w", w.shape(), x.cols())?;
    check_finite("x", x, 0)?;
    check_finite("w", w, 0)?;
    let lengths = |rows: TensorView<'_, T, 2>| -> Vec<f64> {
        (0..rows.rows()).map(|i| square_length(rows.row(i)).sqrt()).collect()
    };
    let (x_lengths, w_lengths) = (lengths(x), lengths(w));
    let product = kc_gemm::gemm(x, w.transposed())?;
    let columns = w.rows();
    let rows = par::map_chunks(x.rows(), 16, |rows| {
        let mut out = Vec::with_capacity(rows.len() * columns);
        for i in rows {
            for (j, length) in w_lengths.iter().enumerate() {
                out.push(T::from_f64(value(order, product[[i, j]].to_f64(), x_lengths[i] * length)));
            }
        }
        out
    });
    Tensor::from_slice([x.rows(), columns], &rows.concat())
}

/// The kernel from `x . w` and `|x| |w|`.
pub(crate) fn value(order: Order, product: f64, lengths: f64) -> f64 {
    let cos = if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) } else { 0.0 };
    let (angle, sin) = (cos.acos(), (1.0 - cos * cos).sqrt());
    let half = match order {
        Order::Zero => PI - angle,
        Order::One => lengths * (sin + (PI - angle) * cos),
        Order::Two => lengths * lengths * (3.0 * sin * cos + (PI - angle) * (1.0 + 2.0 * cos * cos)),
    };
    half / (2.0 * PI)
}
