//! The quantisation kernel: which share of the elements becomes 0.

use kc_core::{Error, Isa, Result, Tensor, TensorView};

use super::{Columns, CrossCodes, CrossSpec, RowFactor, encode, quantize_into};

/// A share of zeros, in two forms. Both are relative to all elements.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct KernelShare {
    /// Elements whose code is 0.
    pub share: f64,
    /// Elements whose code is 0 although they are not: the loss. After a ReLU half of the inputs are zeros
    /// that cost nothing, and only this number means something.
    pub nonzero: f64,
}

impl KernelShare {
    pub(super) fn of(zeros: usize, exact_zeros: usize, len: usize) -> Self {
        Self { share: share(zeros, len), nonzero: share(zeros - exact_zeros, len) }
    }
}

/// `part / whole`, 0 of nothing.
pub(super) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What [`kernel_report`] measures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct KernelReport {
    /// With the spec's own `alpha`, rows and columns.
    pub kernel: KernelShare,
    /// With one step per token (`alpha = 1`).
    pub per_token: KernelShare,
    /// With one step per channel of X itself (`alpha = 0`).
    pub per_column: KernelShare,
    /// Inputs that are 0, as a share of all.
    pub exact_zeros: f64,
    /// Share of elements `(i, j)` with `c_j < t_i`, maxima of X itself: where the blend lowers the bound
    /// below which an element becomes 0.
    pub columns_below_row: f64,
    /// Codes beyond the range, a number.
    pub clipped: usize,
    /// Inputs other than 0 in channels whose static maximum is 0, a number.
    pub lost: usize,
}

/// The quantisation kernel of `x` under `spec`, between its two ends: per token and per channel. These two,
/// and `columns_below_row`, are properties of `x` alone; static columns of the spec do not enter.
///
/// Reads `x` four times (five with static columns). Errors as [`quantize`](super::quantize).
pub fn kernel_report(x: TensorView<'_, f32, 2>, spec: &CrossSpec) -> Result<KernelReport> {
    spec.check(x.cols())?;
    let isa = Isa::best();
    let columns = encode::column_maxima(isa, "x", x)?;
    let rows = encode::row_maxima(isa, x)?;
    let columns_below_row = columns_below_row(&columns, &rows);
    let mut codes = CrossCodes::new();
    let own = Columns::Static(columns);
    let mut end = |alpha| {
        let spec = CrossSpec { bits: spec.bits, alpha, row: RowFactor::Absmax, columns: own.clone() };
        quantize_into(x, &spec, &mut codes).map(|()| codes.kernel())
    };
    let (per_token, per_column) = (end(1.0)?, end(0.0)?);
    quantize_into(x, spec, &mut codes)?;
    Ok(KernelReport {
        kernel: codes.kernel(),
        per_token,
        per_column,
        exact_zeros: codes.exact_zeros(),
        columns_below_row,
        clipped: codes.clipped(),
        lost: codes.lost(),
    })
}

/// The share of pairs with `column < row`, from sorted columns in `O((T + K) log K)`.
fn columns_below_row(columns: &[f32], rows: &[f32]) -> f64 {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let below: usize = rows.iter().map(|t| sorted.partition_point(|c| c < t)).sum();
    share(below, columns.len() * rows.len())
}

/// The quantisation kernel of any quantiser: zeros among `codes` against the inputs `x` they were made from.
pub fn kernel_of(codes: TensorView<'_, i8, 2>, x: TensorView<'_, f32, 2>) -> Result<KernelShare> {
    if codes.shape() != x.shape() {
        return Err(Error::shape("codes", format!("{:?} to match x", x.shape()), &codes.shape()));
    }
    let (mut zeros, mut loss) = (0usize, 0usize);
    for (q, x) in codes.iter().zip(x.iter()) {
        zeros += usize::from(q == 0);
        loss += usize::from(q == 0 && x != 0.0);
    }
    Ok(KernelShare { share: share(zeros, x.len()), nonzero: share(loss, x.len()) })
}

/// `x` with the elements of its kernel set to 0 and all others untouched: what the kernel alone costs.
pub fn remove_kernel(x: TensorView<'_, f32, 2>, spec: &CrossSpec) -> Result<Tensor<f32, 2>> {
    let codes = super::quantize(x, spec)?;
    let mut out = x.to_tensor()?;
    for (o, q) in out.as_mut_slice().iter_mut().zip(codes.codes()) {
        if *q == 0 {
            *o = 0.0;
        }
    }
    Ok(out)
}
