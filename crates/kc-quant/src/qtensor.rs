//! Quantised matrices: codes with a scale per row, or per row and group of columns.

use kc_core::{Error, Result, Tensor, TensorView};

use crate::round::{code, qmax};
use crate::rows::Rows;

/// A matrix `[N, K]` of symmetric codes with one f32 scale per row and group of consecutive columns:
/// element `(n, k)` stands for `codes[n, k] * scales[n, k / group]`.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::QTensor;
/// let w = TensorView::from_slice([1, 4], &[1.27f32, -0.64, 0.0, 0.005])?;
/// let q = QTensor::symmetric(w, 8, 0)?;
/// assert_eq!(q.codes().as_slice(), Some(&[127, -64, 0, 0][..]));
/// assert_eq!(q.scales().at([0, 0]), 1.27 / 127.0);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct QTensor {
    codes: Tensor<i8, 2>,
    scales: Tensor<f32, 2>,
    bits: u8,
    group: usize,
}

impl QTensor {
    /// Quantises `w` to `bits` (2 to 8) with scale `max|w| / qmax` in f32 per row and group of `group`
    /// columns, codes `w / scale` half to even. `group` 0 means one group per row; the last group may be
    /// shorter. A group of zeros has scale 0 and codes 0.
    pub fn symmetric(w: TensorView<'_, f32, 2>, bits: u8, group: usize) -> Result<Self> {
        let limit = qmax(bits)?;
        let [n, k] = w.shape();
        let rows = Rows::of(w)?;
        let group = group_len(group, k);
        let mut codes = Tensor::zeros([n, k])?;
        let mut scales = Tensor::zeros([n, k.div_ceil(group)])?;
        let groups = scales.shape()[1];
        for i in 0..n {
            let (row, to) = (rows.row(i), &mut codes.as_mut_slice()[i * k..i * k + k]);
            let scale_row = &mut scales.as_mut_slice()[i * groups..i * groups + groups];
            if let Some(j) = row.iter().position(|x| !x.is_finite()) {
                return Err(Error::not_finite("w", &[i, j], f64::from(row[j])));
            }
            for ((part, to), scale) in row.chunks(group).zip(to.chunks_mut(group)).zip(scale_row) {
                *scale = part.iter().fold(0.0f32, |m, x| m.max(x.abs())) / f32::from(limit);
                to.iter_mut().zip(part).for_each(|(q, &x)| *q = code(x, *scale, limit));
            }
        }
        Ok(Self { codes, scales, bits, group })
    }

    /// The codes, `[N, K]`.
    pub fn codes(&self) -> TensorView<'_, i8, 2> {
        self.codes.view()
    }

    /// The scales, `[N, G]`.
    pub fn scales(&self) -> TensorView<'_, f32, 2> {
        self.scales.view()
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Columns of a group; the last may be shorter.
    pub fn group(&self) -> usize {
        self.group
    }

    /// What the codes stand for, `[N, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        let [n, k] = self.codes.shape();
        let groups = self.scales.shape()[1];
        let mut out = Tensor::zeros([n, k])?;
        for (at, (o, &q)) in out.as_mut_slice().iter_mut().zip(self.codes.as_slice()).enumerate() {
            let (i, j) = (at / k, at % k);
            *o = f32::from(q) * self.scales.as_slice()[i * groups + j / self.group];
        }
        Ok(out)
    }
}

/// `group`, or all `k` columns for 0; at least 1.
pub(crate) fn group_len(group: usize, k: usize) -> usize {
    if group == 0 { k.max(1) } else { group }
}
