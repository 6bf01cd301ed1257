//! The definitions in plain loops: slow, never tuned, what tests compare with.

use kc_core::{Result, Tensor, TensorView};

use super::{Columns, CrossSpec, RowFactor};
use crate::qtensor::{QTensor, group_len};
use crate::round::{code, qmax};

/// What [`quantize`] returns: as [`CrossCodes`](super::CrossCodes), with everything open.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of CrossCodes")]
pub struct Codes {
    pub codes: Vec<i8>,
    pub row: Vec<f32>,
    pub col: Vec<f32>,
    pub clipped: usize,
    pub lost: usize,
    pub zeros: usize,
    pub exact_zeros: usize,
}

/// `base^exponent` with `0^0 = 1`, as Rust's `powf` has it.
fn power(base: f32, exponent: f64) -> f64 {
    f64::from(base).powf(exponent)
}

/// Codes and factors by the definition. `x` must be finite and `spec` in range.
pub fn quantize(x: TensorView<'_, f32, 2>, spec: &CrossSpec) -> Result<Codes> {
    let maxima = match &spec.columns {
        Columns::Static(maxima) => maxima.clone(),
        Columns::Dynamic => {
            (0..x.cols()).map(|j| (0..x.rows()).map(|i| x.at([i, j]).abs()).fold(0.0, f32::max)).collect()
        }
    };
    let col: Vec<f32> = maxima.iter().map(|&c| power(c, 1.0 - spec.alpha) as f32).collect();
    quantize_with_factors(x, &col, spec)
}

/// As [`quantize`], with the column factors given.
pub fn quantize_with_factors(x: TensorView<'_, f32, 2>, col: &[f32], spec: &CrossSpec) -> Result<Codes> {
    let limit = qmax(spec.bits)?;
    let [t, k] = x.shape();
    let mut out = Codes {
        codes: vec![0; t * k],
        row: vec![0.0; t],
        col: col.to_vec(),
        clipped: 0,
        lost: 0,
        zeros: 0,
        exact_zeros: 0,
    };
    for i in 0..t {
        out.row[i] = match spec.row {
            RowFactor::Absmax => {
                let top = (0..k).map(|j| x.at([i, j]).abs()).fold(0.0, f32::max);
                (power(top, spec.alpha) / f64::from(limit)) as f32
            }
            RowFactor::Tight => {
                let ratios = (0..k).filter(|&j| col[j] > 0.0).map(|j| x.at([i, j]).abs() / col[j]);
                ratios.fold(0.0, f32::max).min(f32::MAX) / f32::from(limit)
            }
        };
        for (j, factor) in col.iter().enumerate() {
            let (value, step) = (x.at([i, j]), out.row[i] * factor);
            let q = code(value, step, limit);
            out.codes[i * k + j] = q;
            out.zeros += usize::from(q == 0);
            out.exact_zeros += usize::from(value == 0.0);
            out.lost += usize::from(step == 0.0 && value != 0.0);
            let wide = if step == 0.0 { 0.0 } else { (value / step).round_ties_even() };
            out.clipped += usize::from(wide.abs() > f32::from(limit));
        }
    }
    Ok(out)
}

/// `X^ W^^T + bias` in f64: dequantised codes times dequantised weights.
pub fn fake(x: &Codes, w: &QTensor, bias: Option<&[f32]>) -> Result<Tensor<f64, 2>> {
    let (t, [n, k]) = (x.row.len(), w.codes().shape());
    let group = group_len(w.group(), k);
    Tensor::from_fn([t, n], |[i, m]| {
        let mut sum = 0.0;
        for j in 0..k {
            let a = f64::from(x.codes[i * k + j]) * f64::from(x.row[i]) * f64::from(x.col[j]);
            sum += a * f64::from(w.codes().at([m, j])) * f64::from(w.scales().at([m, j / group]));
        }
        sum + bias.map_or(0.0, |b| f64::from(b[m]))
    })
}

/// The integer product by its definition: `r_i sum_g s_ng sum_(k in g) code_ik w_nk + bias_n`, where `w` holds
/// the weights that the column factors are folded into already.
pub fn folded(x: &Codes, w: &QTensor, bias: Option<&[f32]>) -> Result<Tensor<f64, 2>> {
    let (t, [n, k]) = (x.row.len(), w.codes().shape());
    let group = group_len(w.group(), k);
    Tensor::from_fn([t, n], |[i, m]| {
        let mut sum = 0.0;
        for (g, first) in (0..k).step_by(group).enumerate() {
            let last = (first + group).min(k);
            let whole: i64 =
                (first..last).map(|j| i64::from(x.codes[i * k + j]) * i64::from(w.codes().at([m, j]))).sum();
            sum += f64::from(w.scales().at([m, g])) * whole as f64;
        }
        sum * f64::from(x.row[i]) + bias.map_or(0.0, |b| f64::from(b[m]))
    })
}

/// `f32(d_j w_nj)`: weights with the column factors folded in.
pub fn fold(w: TensorView<'_, f32, 2>, factors: &[f32]) -> Result<Tensor<f32, 2>> {
    Tensor::from_fn(w.shape(), |[n, j]| factors[j] * w.at([n, j]))
}
