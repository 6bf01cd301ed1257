//! Activations in 2 to 8 bits with a step for each element, and the share of elements that quantisation
//! turns into zeros.
//!
//! A few channels of a transformer's activations are far larger than the rest. With one step per token they
//! decide the step, and most other elements of the token round to zero. Here the step of element `(i, j)`
//! blends the largest magnitude `t_i` of its token with the largest magnitude `c_j` of its channel:
//!
//! ```text
//! delta_ij = t_i^alpha * c_j^(1 - alpha) / qmax      qmax = 2^(bits-1) - 1      0 <= alpha <= 1
//! code_ij  = rne(x_ij / delta_ij)                    x_ij ~ code_ij * r_i * d_j
//! ```
//!
//! `alpha = 1` is per-token quantisation, `alpha = 0` per-channel. Since `|x_ij| <= min(t_i, c_j)`, no code
//! leaves the range when the channel maxima come from the same `X`. The elements whose code is 0 are the
//! *quantisation kernel*; [`kernel_report`] measures it for the blend and for its two ends, and [`kernel_of`]
//! for any other quantiser.
//!
//! | Item | What it does |
//! |---|---|
//! | [`quantize`], [`CrossCodes`] | codes `[T, K]`, row factors `r`, column factors `d`, counts |
//! | [`kernel_report`], [`kernel_of`], [`remove_kernel`] | how much is lost to zeros, and what only that loses |
//! | [`sweep`] | a grid of `alpha`, and which is best for a layer |
//! | [`CrossLinear`] | `X W^T + bias` in integers (folded) or simulated, and two rivals: per-token, SmoothQuant |
//! | [`ColumnStats`] | channel maxima or percentiles over calibration batches |
//!
//! ```
//! use kc_core::TensorView;
//! use kc_quant::crossquant::{CrossSpec, kernel_report, quantize};
//!
//! // Two tokens, four channels, the last one an outlier.
//! let data = [0.5f32, -0.25, 1.0, 60.0, 0.75, 0.5, -1.0, 45.0];
//! let x = TensorView::from_slice([2, 4], &data)?;
//! let codes = quantize(x, &CrossSpec::default())?;
//! assert_eq!(codes.clipped(), 0);
//! assert!((codes.dequantize()?.as_slice()[0] - 0.5).abs() < 0.01);
//!
//! let report = kernel_report(x, &CrossSpec { bits: 4, ..CrossSpec::default() })?;
//! assert_eq!((report.per_token.share, report.kernel.share), (0.75, 0.0));
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! # Exactness
//! `r_i = f32(t_i^alpha / qmax)` and `d_j = f32(c_j^(1 - alpha))` from powers in f64 (`0^0 = 1`); then
//! `delta = f32(r_i d_j)`, `code = rne(f32(x / delta))`: a true division, half to even, and 0 where the step
//! is 0. Codes, factors and counts are the same on every level and any number of threads.
//!
//! # Cost
//! `T K` divisions, on x86 only of blocks where multiplying could round to another code (1 of 120 by chance) or
//! a code is out of range. Bytes moved: X is read twice with dynamic columns (once if it fits the cache) and once
//! with static ones, and `T K` bytes of codes are written. On one core of a Zen 3 processor 4096 x 4096
//! values take the time that `memcpy` needs for the same bytes; `docs/performance.md` has the figures.
//!
//! # When not to use it
//! With dynamic columns the factors of a call depend on all of its tokens: a batch of one token is its own
//! channel maximum, and nothing is learnt from others. Use [`Columns::Static`] for serving. The folded
//! product moves `d_j` into the weights, which then quantise worse the more the channels differ; that is why
//! its default is `alpha = 0.5` and not the 0.15 that suits the simulated product.
//!
//! # Source
//! "CrossQuant: A Post-Training Quantization Method with Smaller Quantization Kernel for Precise Large
//! Language Model Compression" (2024): the step and the kernel. Folding, tight rows and the kernel without
//! exact zeros are additions of this crate.

use kc_core::{Error, Isa, Result, Tensor, TensorView, TensorViewMut};

use crate::round::qmax;

mod calibrate;
mod encode;
mod kernel_share;
mod linear;
mod portable;
pub mod reference;
mod sweep;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use calibrate::{ColumnStats, StatsState};
pub use kernel_share::{KernelReport, KernelShare, kernel_of, kernel_report, remove_kernel};
pub use linear::{CrossLinear, LinearConfig, Mode, column_factors, fold_columns};
pub use sweep::{Sweep, SweepPoint, SweepWeights, default_grid, sweep};

/// Where a token's factor `r_i` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowFactor {
    /// `t_i^alpha / qmax`, the paper's.
    #[default]
    Absmax,
    /// `max_j(|x_ij| / d_j) / qmax`, the smallest factor without clipping for this token. Never larger than
    /// the other when the columns come from the same X, and never clips when they do not.
    Tight,
}

/// Where the channel maxima `c_j` come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Columns {
    /// From the X of the call.
    #[default]
    Dynamic,
    /// Given, for instance by [`ColumnStats`]: one value `>= 0` per channel. With [`RowFactor::Absmax`]
    /// larger values of X then clip. A channel of 0 loses what X has there; both are counted.
    Static(Vec<f32>),
}

/// How to quantise activations. The default is the paper's setting: 8 bits, `alpha` 0.15, absmax rows,
/// dynamic columns.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossSpec {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Weight of the token against the channel, 0 to 1.
    pub alpha: f64,
    /// Row factors.
    pub row: RowFactor,
    /// Channel maxima.
    pub columns: Columns,
}

impl Default for CrossSpec {
    fn default() -> Self {
        Self { bits: 8, alpha: 0.15, row: RowFactor::Absmax, columns: Columns::Dynamic }
    }
}

impl CrossSpec {
    /// Everything in range, and static columns one per channel of `k`.
    pub(crate) fn check(&self, k: usize) -> Result<()> {
        qmax(self.bits)?;
        check_alpha("alpha", self.alpha)?;
        let Columns::Static(maxima) = &self.columns else { return Ok(()) };
        if maxima.len() != k {
            return Err(Error::shape("columns", format!("[{k}], one per column of x"), &[maxima.len()]));
        }
        if let Some(j) = maxima.iter().position(|c| !c.is_finite()) {
            return Err(Error::not_finite("columns", &[j], f64::from(maxima[j])));
        }
        if let Some(j) = maxima.iter().position(|c| *c < 0.0) {
            return Err(Error::argument("columns", "values of at least 0", format!("{} at {j}", maxima[j])));
        }
        Ok(())
    }
}

/// `alpha` in 0 to 1, and not NaN.
pub(crate) fn check_alpha(arg: &'static str, alpha: f64) -> Result<()> {
    if (0.0..=1.0).contains(&alpha) { Ok(()) } else { Err(Error::argument(arg, "0 to 1", alpha)) }
}

/// Codes `[T, K]` with their factors: element `(i, j)` stands for `code * row[i] * col[j]`.
///
/// Also the memory that [`quantize_into`] and [`CrossLinear::forward_into`] use again in every call.
#[derive(Debug, Clone, Default)]
pub struct CrossCodes {
    shape: [usize; 2],
    bits: u8,
    codes: Vec<i8>,
    row: Vec<f32>,
    col: Vec<f32>,
    counts: portable::RowCounts,
    scratch: encode::Scratch,
}

impl CrossCodes {
    /// No codes yet: memory to fill.
    pub fn new() -> Self {
        Self::default()
    }

    /// `[T, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The codes, row by row.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The codes as a matrix.
    pub fn view(&self) -> Result<TensorView<'_, i8, 2>> {
        TensorView::from_slice(self.shape, &self.codes)
    }

    /// Row factors `r`, `[T]`.
    pub fn row(&self) -> &[f32] {
        &self.row
    }

    /// Column factors `d`, `[K]`.
    pub fn col(&self) -> &[f32] {
        &self.col
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Codes that were beyond the range and became its end. 0 with dynamic columns or tight rows (unless
    /// steps are so small that they are denormal numbers).
    pub fn clipped(&self) -> usize {
        self.counts.clipped
    }

    /// Inputs other than 0 whose step is 0: what channels that calibration never saw lose.
    pub fn lost(&self) -> usize {
        self.counts.lost
    }

    /// The quantisation kernel of these codes, counted while they were made.
    pub fn kernel(&self) -> KernelShare {
        KernelShare::of(self.counts.zeros, self.counts.exact_zeros, self.codes.len())
    }

    /// Inputs that were 0 already, as a share of all.
    pub fn exact_zeros(&self) -> f64 {
        kernel_share::share(self.counts.exact_zeros, self.codes.len())
    }

    /// What the codes stand for, `[T, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        let mut out = Tensor::zeros(self.shape)?;
        self.dequantize_into(out.view_mut())?;
        Ok(out)
    }

    /// What the codes stand for, written to `out` `[T, K]`.
    pub fn dequantize_into(&self, mut out: TensorViewMut<'_, f32, 2>) -> Result<()> {
        if out.shape() != self.shape {
            return Err(Error::shape("out", format!("{:?}", self.shape), &out.shape()));
        }
        let k = self.shape[1];
        for (i, &r) in self.row.iter().enumerate() {
            let codes = &self.codes[i * k..i * k + k];
            let mut row = out.row_mut(i);
            if let Some(row) = row.as_mut_slice() {
                for ((o, &q), d) in row.iter_mut().zip(codes).zip(&self.col) {
                    *o = f32::from(q) * r * d;
                }
            } else {
                for (j, (&q, d)) in codes.iter().zip(&self.col).enumerate() {
                    row.set([j], f32::from(q) * r * d);
                }
            }
        }
        Ok(())
    }
}

/// Quantises `x` `[T, K]`. An empty `x` gives empty codes.
///
/// # Errors
/// `NotFinite` with the position of a NaN or infinity in `x` or the columns; `Argument` for bits outside of 2
/// to 8, `alpha` outside of 0 to 1 or a negative column; `Shape` for columns that are not one per channel.
pub fn quantize(x: TensorView<'_, f32, 2>, spec: &CrossSpec) -> Result<CrossCodes> {
    let mut out = CrossCodes::new();
    quantize_into(x, spec, &mut out)?;
    Ok(out)
}

/// As [`quantize`], into memory that is used again.
pub fn quantize_into(x: TensorView<'_, f32, 2>, spec: &CrossSpec, out: &mut CrossCodes) -> Result<()> {
    quantize_with(Isa::best(), x, spec, out)
}

/// As [`quantize_into`], on a chosen level. Every level gives the same codes, factors and counts.
pub fn quantize_with(
    isa: Isa,
    x: TensorView<'_, f32, 2>,
    spec: &CrossSpec,
    out: &mut CrossCodes,
) -> Result<()> {
    encode::run(isa, x, spec, out)
}
