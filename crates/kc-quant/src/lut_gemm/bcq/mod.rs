//! [`BcqMatrix`]: the format. See the [page of the room](super) for what it stands for.

mod files;
mod quantize;
mod small;
mod solve;
mod uniform;

use kc_core::{Error, Result, Tensor, TensorView, shape};

pub use files::FileParts;
pub use quantize::BcqFit;
pub use uniform::{RtnSpec, rtn};

use crate::group::ScaleDtype;
use crate::rows::Rows;

/// A matrix `[N, K]` as sums of 1 to 8 scaled matrices of signs and an offset, per row and group of consecutive
/// columns.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::{BcqMatrix, BcqSpec, Group};
/// let w = [1.0f32, -1.0, 0.5, -0.5];
/// let spec = BcqSpec { bits: 2, group: Group::Row, ..BcqSpec::default() };
/// let q = BcqMatrix::quantize(TensorView::from_slice([1, 4], &w)?, &spec, None)?;
/// // Each value is a sum of two signed scales; bit j is the sign of column j.
/// assert_eq!(q.scales(), [0.75, 0.25]);
/// assert_eq!((q.plane_row(0, 0), q.plane_row(1, 0)), (&[0b0101u8][..], &[0b1001u8][..]));
/// assert_eq!(q.dequantize()?.as_slice(), w);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BcqMatrix {
    shape: [usize; 2],
    bits: u8,
    group: usize,
    /// `[q, N, ceil(K/8)]`
    planes: Vec<u8>,
    /// `[N, G, q]`
    scales: Vec<f32>,
    /// `[N, G]`, or nothing for zeros.
    offsets: Option<Vec<f32>>,
    scale_dtype: ScaleDtype,
    /// Stored column `j` is column `order[j]` of the matrix.
    order: Option<Vec<u32>>,
}

/// What the published program stores: 32 columns in a word, scales and offsets by group first.
#[derive(Debug, Clone)]
pub struct ReferenceArrays {
    /// `[ceil(K/32), q, N]`, bit `k % 32` set for `+1`.
    pub binary: Tensor<u32, 3>,
    /// `[G, q, N]`
    pub alpha: Tensor<f32, 3>,
    /// `[G, N]`
    pub q_bias: Tensor<f32, 2>,
}

impl BcqMatrix {
    /// Puts the parts together: `planes` `[q, N, ceil(K/8)]`, bit `t` of byte `j` of a row set where the sign of column
    /// `8 j + t` is `+1` and clear behind column K; `scales` `[N, G, q]`; `offsets` `[N, G]`, or nothing for zeros.
    ///
    /// # Errors
    /// `Empty` without rows or columns; `Argument` for bits outside of 1 to 8, a group of 0 columns, or bits behind
    /// the last column; `Shape` for lengths that do not agree; `NotFinite` for scales or offsets.
    pub fn from_parts(
        shape: [usize; 2],
        bits: u8,
        group: usize,
        planes: Vec<u8>,
        scales: Vec<f32>,
        offsets: Option<Vec<f32>>,
    ) -> Result<Self> {
        let [n, k] = shape;
        check_bits(bits)?;
        if n == 0 || k == 0 {
            return Err(Error::empty("w"));
        }
        if group == 0 {
            return Err(Error::argument("group", "at least 1 column", group));
        }
        let group = group.min(k);
        let (groups, row, q) = (k.div_ceil(group), k.div_ceil(8), usize::from(bits));
        let expect = |name: &'static str, got: usize, shape: &[usize]| {
            if got == shape::checked_len(name, shape)? {
                return Ok(());
            }
            Err(Error::shape(name, format!("{shape:?}"), &[got]))
        };
        expect("bits", planes.len(), &[q, n, row])?;
        expect("alpha", scales.len(), &[n, groups, q])?;
        finite("alpha", &scales)?;
        if let Some(offsets) = &offsets {
            expect("offset", offsets.len(), &[n, groups])?;
            finite("offset", offsets)?;
        }
        let unused = if k.is_multiple_of(8) { 0 } else { 0xffu8 << (k % 8) };
        if let Some(at) = planes.iter().skip(row - 1).step_by(row).position(|byte| byte & unused != 0) {
            let expected = format!("no bit behind column {k}");
            return Err(Error::argument(
                "bits",
                expected,
                format!("one in row {} of plane {}", at % n, at / n),
            ));
        }
        let scale_dtype = ScaleDtype::F32;
        Ok(Self { shape, bits, group, planes, scales, offsets, scale_dtype, order: None })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Matrices of signs, 1 to 8.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Columns of a group; the last may be shorter.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.shape[1].div_ceil(self.group)
    }

    /// All signs, `[q, N, ceil(K/8)]`.
    pub fn planes(&self) -> &[u8] {
        &self.planes
    }

    /// The signs of a row in one of the matrices, 8 columns to a byte, least significant bit first.
    ///
    /// # Panics
    /// If there is no such plane or row, as for slices.
    pub fn plane_row(&self, plane: usize, row: usize) -> &[u8] {
        let [n, k] = self.shape;
        let len = k.div_ceil(8);
        &self.planes[(plane * n + row) * len..][..len]
    }

    /// The scales, `[N, G, q]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The scales of a row and group.
    ///
    /// # Panics
    /// If there is no such row or group, as for slices.
    pub fn group_scales(&self, row: usize, group: usize) -> &[f32] {
        let q = usize::from(self.bits);
        &self.scales[(row * self.groups() + group) * q..][..q]
    }

    /// The offsets, `[N, G]`, unless they are all 0.
    pub fn offsets(&self) -> Option<&[f32]> {
        self.offsets.as_deref()
    }

    /// The offset of a row and group.
    ///
    /// # Panics
    /// If there is no such row or group, as for slices.
    pub fn offset(&self, row: usize, group: usize) -> f32 {
        self.offsets.as_ref().map_or(0.0, |offsets| offsets[row * self.groups() + group])
    }

    /// The type in which scales and offsets are stored.
    pub fn scale_dtype(&self) -> ScaleDtype {
        self.scale_dtype
    }

    /// The matrix's column at each stored column, if they differ (weights in activation order).
    pub fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    /// Bits of storage per weight: signs, scales and offsets, without padding.
    pub fn bits_per_weight(&self) -> f64 {
        let [n, k] = self.shape;
        let floats = self.scales.len() + self.offsets.as_ref().map_or(0, Vec::len);
        f64::from(self.bits) + (8 * self.scale_dtype.bytes() * floats) as f64 / (n as f64 * k as f64)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.scales.len() + self.offsets.as_ref().map_or(0, Vec::len);
        self.planes.len() + 4 * (floats + self.order.as_ref().map_or(0, Vec::len))
    }

    /// Row `n` of the matrix in f64, the columns in the order of the matrix.
    fn row_f64(&self, n: usize, out: &mut [f64]) {
        for g in 0..self.groups() {
            let mut scales = [0.0; 8];
            for (to, from) in scales.iter_mut().zip(self.group_scales(n, g)) {
                *to = f64::from(*from);
            }
            let levels = solve::levels(&scales[..usize::from(self.bits)], f64::from(self.offset(n, g)));
            let (first, end) = (g * self.group, self.shape[1].min((g + 1) * self.group));
            let mut octet = [0; 8];
            for j in first..end {
                if j == first || j.is_multiple_of(8) {
                    for (b, byte) in octet[..usize::from(self.bits)].iter_mut().enumerate() {
                        *byte = self.plane_row(b, n)[j / 8];
                    }
                }
                let mut code = 0;
                for (b, byte) in octet[..usize::from(self.bits)].iter().enumerate() {
                    code |= (byte >> (j % 8) & 1) << b;
                }
                let column = self.order.as_ref().map_or(j, |order| order[j] as usize);
                out[column] = levels[usize::from(code)];
            }
        }
    }

    /// What it stands for, `[N, K]`: sums in f64, rounded once.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        use rayon::prelude::*;
        let k = self.shape[1];
        let mut out = Tensor::zeros(self.shape)?;
        out.as_mut_slice().par_chunks_mut(k).enumerate().for_each_init(
            || vec![0.0; k],
            |row, (n, out)| {
                self.row_f64(n, row);
                out.iter_mut().zip(row.iter()).for_each(|(o, &x)| *o = x as f32);
            },
        );
        Ok(out)
    }

    /// `sum (w - w^)^2 / sum w^2`, in f64; 0 if both are 0, infinite if only the second is.
    pub fn rel_sq_error(&self, w: TensorView<'_, f32, 2>) -> Result<f64> {
        if w.shape() != self.shape {
            return Err(Error::shape("w", format!("{:?}", self.shape), &w.shape()));
        }
        let rows = Rows::of(w)?;
        let sums = |range: std::ops::Range<usize>| {
            let mut row = vec![0.0; self.shape[1]];
            let (mut error, mut size) = (0.0, 0.0);
            for n in range {
                self.row_f64(n, &mut row);
                for (x, &w) in row.iter().zip(rows.row(n)) {
                    let w = f64::from(w);
                    error += (w - x) * (w - x);
                    size += w * w;
                }
            }
            (error, size)
        };
        let total = kc_core::par::map_reduce(self.shape[0], 16, sums, |a, b| (a.0 + b.0, a.1 + b.1));
        Ok(total.map_or(0.0, |(error, size)| if error == 0.0 { 0.0 } else { error / size }))
    }

    /// The arrays of the published program. Columns stay in stored order.
    pub fn to_reference(&self) -> Result<ReferenceArrays> {
        let ([n, k], q, groups) = (self.shape, usize::from(self.bits), self.groups());
        let word = |w: usize, b: usize, row: usize| {
            let mut bytes = [0; 4];
            for (to, from) in bytes.iter_mut().zip(&self.plane_row(b, row)[4 * w..]) {
                *to = *from;
            }
            u32::from_le_bytes(bytes)
        };
        Ok(ReferenceArrays {
            binary: Tensor::from_fn([k.div_ceil(32), q, n], |[w, b, row]| word(w, b, row))?,
            alpha: Tensor::from_fn([groups, q, n], |[g, b, row]| self.group_scales(row, g)[b])?,
            q_bias: Tensor::from_fn([groups, n], |[g, row]| self.offset(row, g))?,
        })
    }

    /// From the arrays of the published program: `k` columns in groups of `group`.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts); `Shape` for arrays that do not agree with `k` and `group`.
    pub fn from_reference(
        k: usize,
        group: usize,
        binary: TensorView<'_, u32, 3>,
        alpha: TensorView<'_, f32, 3>,
        q_bias: Option<TensorView<'_, f32, 2>>,
    ) -> Result<Self> {
        let [words, q, n] = binary.shape();
        if group == 0 {
            return Err(Error::argument("group", "at least 1 column", group));
        }
        let groups = k.div_ceil(group);
        if words != k.div_ceil(32) {
            return Err(Error::shape("binary", format!("[{}, q, N]", k.div_ceil(32)), &binary.shape()));
        }
        if alpha.shape() != [groups, q, n] {
            return Err(Error::shape("alpha", format!("[{groups}, {q}, {n}]"), &alpha.shape()));
        }
        if let Some(bias) = q_bias.filter(|bias| bias.shape() != [groups, n]) {
            return Err(Error::shape("q_bias", format!("[{groups}, {n}]"), &bias.shape()));
        }
        let row = k.div_ceil(8);
        let mut planes = vec![0; shape::checked_len("binary", &[q, n, row])?];
        for (at, bytes) in planes.chunks_mut(row.max(1)).enumerate() {
            for (w, bytes) in bytes.chunks_mut(4).enumerate() {
                let word = binary.at([w, at / n, at % n]).to_le_bytes();
                bytes.copy_from_slice(&word[..bytes.len()]);
            }
        }
        let scales = (0..n * groups * q).map(|i| alpha.at([i / q % groups, i % q, i / q / groups])).collect();
        let offsets = q_bias.map(|bias| (0..n * groups).map(|i| bias.at([i % groups, i / groups])).collect());
        let bits = u8::try_from(q).unwrap_or(u8::MAX);
        Self::from_parts([n, k], bits, group, planes, scales, offsets)
    }
}

pub(super) fn check_bits(bits: u8) -> Result<()> {
    if (1..=8).contains(&bits) { Ok(()) } else { Err(Error::argument("bits", "1 to 8", bits)) }
}

fn finite(name: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::not_finite(name, &[at], f64::from(values[at]))),
        None => Ok(()),
    }
}
