//! The product by its definition, in f64.

use kc_core::{Error, Result, Tensor, TensorView};

use crate::uniform::{UniformGroups, Zeros};

/// `X W^T + bias` for `x` `[M, K]`: codes, scales and zeros as they stand, every operation in f64.
///
/// # Errors
/// `Shape` if `x` has not K columns or the bias not N values.
pub fn forward(x: TensorView<'_, f32, 2>, w: &UniformGroups, bias: Option<&[f32]>) -> Result<Tensor<f64, 2>> {
    let [n, k] = w.shape();
    if x.cols() != k {
        return Err(Error::shape("x", format!("[M, {k}] to match w"), &x.shape()));
    }
    if let Some(bias) = bias.filter(|bias| bias.len() != n) {
        return Err(Error::shape("bias", format!("[{n}]"), &[bias.len()]));
    }
    Tensor::from_fn([x.rows(), n], |[i, row]| {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[row]));
        for j in 0..k {
            let at = row * w.groups() + j / w.group();
            let (code, scale) = (f64::from(w.codes()[row * k + j]), f64::from(w.scales()[at]));
            let weight = match w.zeros() {
                Zeros::Constant(zero) => scale * (code - f64::from(*zero)),
                Zeros::PerGroup(zeros) => scale * (code - f64::from(zeros[at])),
                Zeros::Offset(offsets) => scale * code + f64::from(offsets[at]),
            };
            let column = w.order().map_or(j, |order| order[j] as usize);
            sum += f64::from(x.at([i, column])) * weight;
        }
        sum
    })
}
