//! Which `alpha` suits a layer: the kernel and the errors over a grid.

use kc_core::{Error, Result, TensorView};
use kc_gemm::gemm;

use super::{
    CrossCodes, CrossLinear, CrossSpec, KernelShare, LinearConfig, Mode, check_alpha, quantize_into,
};
use crate::metrics::relative_error;

/// The weights of a [`sweep`], and how they are quantised.
#[derive(Debug, Clone, Copy)]
pub struct SweepWeights<'a> {
    /// `[N, K]`.
    pub w: TensorView<'a, f32, 2>,
    /// Bits of a weight, 2 to 8.
    pub bits: u8,
    /// Columns that share a scale; 0 for whole rows.
    pub group: usize,
    /// Which product.
    pub mode: Mode,
}

/// One `alpha` of a [`sweep`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SweepPoint {
    /// The exponent.
    pub alpha: f64,
    /// Zero codes.
    pub kernel: KernelShare,
    /// Codes beyond the range, a number.
    pub clipped: usize,
    /// Relative error of X itself.
    pub x_error: f64,
    /// Relative error of `X W^T`, when weights are given.
    pub y_error: Option<f64>,
}

/// The points of a [`sweep`] in the order of its grid, and the best of them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sweep {
    /// One per `alpha`.
    pub points: Vec<SweepPoint>,
    /// The place of the least output error (of the least error of X without weights); the first of equals.
    pub best: usize,
}

/// 0, 0.05, ... 1.
pub fn default_grid() -> Vec<f64> {
    (0..=20).map(|i| f64::from(i) / 20.0).collect()
}

/// Quantises `x` with every `alpha` of `grid` (that of `spec` does not count) and measures what it costs.
///
/// Exact products are made in f32, whose own error is about `1e-7`. Takes `T N K` multiplications for each
/// point when weights are given, and one product more.
pub fn sweep(
    x: TensorView<'_, f32, 2>,
    weights: Option<&SweepWeights<'_>>,
    spec: &CrossSpec,
    grid: &[f64],
) -> Result<Sweep> {
    if grid.is_empty() {
        return Err(Error::empty("grid"));
    }
    grid.iter().try_for_each(|&alpha| check_alpha("grid", alpha))?;
    let exact = match weights {
        Some(weights) if weights.w.cols() != x.cols() => {
            let expected = format!("[N, {}] to match x", x.cols());
            return Err(Error::shape("w", expected, &weights.w.shape()));
        }
        Some(weights) => Some(gemm(x, weights.w.transposed())?),
        None => None,
    };
    let mut codes = CrossCodes::new();
    let mut points = Vec::with_capacity(grid.len());
    for &alpha in grid {
        let spec = CrossSpec { alpha, ..spec.clone() };
        quantize_into(x, &spec, &mut codes)?;
        let x_error = relative_error(codes.dequantize()?.view(), x)?;
        let (kernel, clipped) = (codes.kernel(), codes.clipped());
        let y_error = match (weights, &exact) {
            (Some(weights), Some(exact)) => {
                let config = LinearConfig {
                    mode: weights.mode,
                    spec,
                    weight_bits: weights.bits,
                    group: weights.group,
                    weight_alpha: None,
                };
                let y = CrossLinear::new(weights.w, None, &config)?.forward(x)?;
                Some(relative_error(y.view(), exact.view())?)
            }
            _ => None,
        };
        points.push(SweepPoint { alpha, kernel, clipped, x_error, y_error });
    }
    let cost = |p: &SweepPoint| p.y_error.unwrap_or(p.x_error);
    let best = (0..points.len()).min_by(|&a, &b| cost(&points[a]).total_cmp(&cost(&points[b]))).unwrap_or(0);
    Ok(Sweep { points, best })
}
