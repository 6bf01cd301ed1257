//! GPTQ: codes in columns of words, zeros less one in version 1, groups in any order of columns.
//!
//! `qweight` `[K b/32, N]` holds one dense stream of codes along K for each output row, `qzeros` `[G, N b/32]` one
//! stream of zeros along N for each group. `w[n, k] = scales[g, n] (q[n, k] - z[g, n])` with `g = g_idx[k]`. The
//! first version of the format stores `z - 1`: a stored `2^b - 1` means a zero of `2^b`. With activation order
//! `g_idx` is any sequence of groups; [`GptqTensor::to_uniform`] sorts the columns and remembers the order.

use std::borrow::Cow;
use std::ops::Range;

use kc_core::{Error, Result, Tensor, TensorView, f16};
use rayon::prelude::*;

use super::scales::exact_halves;
use super::tiles::{CodeSource, Columns, Grid, dense, signed, words};
use super::{ScaleView, group_len, whole_zeros, width_for};
use crate::int::{pack_stream, stream_words, unpack_block, unpack_stream, with_bits};
use crate::{UniformGroups, Zeros};

const FORMAT: &str = "GPTQ";
const WIDTHS: [u8; 4] = [2, 3, 4, 8];

/// How zeros are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GptqVersion {
    /// Less one (`checkpoint_format` `gptq`).
    #[default]
    V1,
    /// As they are (`gptq_v2`).
    V2,
}

impl GptqVersion {
    /// What is added to a stored zero.
    fn shift(self) -> i32 {
        match self {
            GptqVersion::V1 => 1,
            GptqVersion::V2 => 0,
        }
    }
}

/// What the arrays alone may not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GptqConfig {
    /// Bits of a code: 2, 3, 4 or 8. `None` takes them from the shapes.
    pub bits: Option<u8>,
    /// Columns of a group, for files without `g_idx`. `None` divides the columns evenly.
    pub group: Option<usize>,
    /// How zeros are stored.
    pub version: GptqVersion,
}

/// The arrays of a file.
#[derive(Debug, Clone, Copy)]
pub struct GptqViews<'a> {
    /// Codes, `[K b/32, N]`.
    pub qweight: TensorView<'a, i32, 2>,
    /// Zeros, `[G, N b/32]`.
    pub qzeros: TensorView<'a, i32, 2>,
    /// Scales, `[G, N]`.
    pub scales: ScaleView<'a>,
    /// The group of each column, `[K]`.
    pub g_idx: Option<TensorView<'a, i32, 1>>,
}

/// The arrays of a file, to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct GptqArrays {
    /// Bits of a code.
    pub bits: u8,
    /// Columns of a group, if they are consecutive and of equal number.
    pub group: usize,
    /// Codes, `[K b/32, N]`.
    pub qweight: Tensor<i32, 2>,
    /// Zeros, `[G, N b/32]`.
    pub qzeros: Tensor<i32, 2>,
    /// Scales, `[G, N]`.
    pub scales: Tensor<f16, 2>,
    /// The group of each column, `[K]`.
    pub g_idx: Tensor<i32, 1>,
}

/// Weights in the GPTQ packing.
#[derive(Debug, Clone)]
pub struct GptqTensor<'a> {
    qweight: Cow<'a, [i32]>,
    grid: Grid,
}

impl<'a> GptqTensor<'a> {
    /// Checks the arrays of a file. Codes are not touched.
    ///
    /// # Errors
    /// `Argument` for bits that are not 2, 3, 4 or 8, or that the shapes leave open; `Shape` for arrays that do
    /// not agree; `Index` for a `g_idx` beyond the groups; `Empty` without rows or columns.
    pub fn read(views: GptqViews<'a>, config: &GptqConfig) -> Result<Self> {
        let [rows, n] = views.qweight.shape();
        let [groups, zero_words] = views.qzeros.shape();
        if rows == 0 || n == 0 || groups == 0 {
            return Err(Error::empty("qweight"));
        }
        let stored = rows.checked_mul(32).ok_or_else(|| Error::shape("qweight", "fewer rows", &[rows, n]))?;
        let bits = match (config.bits, views.g_idx) {
            (Some(bits), _) => bits,
            (None, Some(index)) => {
                let bits = WIDTHS.into_iter().find(|&b| index.len().checked_mul(b.into()) == Some(stored));
                bits.ok_or_else(|| {
                    let expected = format!("[K, N] codes of 2, 3, 4 or 8 bits for K = {}", index.len());
                    Error::shape("qweight", expected, &[rows, n])
                })?
            }
            (None, None) => bits_of_zeros(n, zero_words)?,
        };
        if !WIDTHS.contains(&bits) {
            return Err(Error::argument("bits", "2, 3, 4 or 8", bits));
        }
        if !stored.is_multiple_of(bits.into()) {
            return Err(Error::shape(
                "qweight",
                format!("whole columns of codes of {bits} bits"),
                &[rows, n],
            ));
        }
        let k = stored / usize::from(bits);
        if zero_words != stream_words(n, bits) {
            return Err(Error::shape(
                "qzeros",
                format!("[G, {}]", stream_words(n, bits)),
                &[groups, zero_words],
            ));
        }
        if views.scales.shape() != [groups, n] {
            return Err(Error::shape("scales", format!("[{groups}, {n}]"), &views.scales.shape()));
        }
        let columns = match views.g_idx {
            Some(index) => Columns::of_index(index, k, groups)?,
            None => Columns::Runs(group_len(k, groups, config.group)?),
        };
        let qzeros = dense(views.qzeros);
        let mut zeros = vec![0; n * groups];
        let mut line = vec![0u8; n];
        for (g, stream) in words(&qzeros).chunks_exact(zero_words).enumerate() {
            unpack_stream(stream, bits, &mut line);
            for (row, &zero) in line.iter().enumerate() {
                zeros[row * groups + g] = i32::from(zero) + config.version.shift();
            }
        }
        let scales = views.scales.columns();
        let grid = Grid { shape: [n, k], bits, columns, scales, zeros: Zeros::PerGroup(zeros) };
        Ok(Self { qweight: dense(views.qweight), grid })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.grid.shape
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.grid.bits
    }

    /// Columns of a group; `None` if `g_idx` puts them in another order.
    pub fn group(&self) -> Option<usize> {
        self.grid.group()
    }

    /// What the codes stand for, `[N, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        self.grid.dequantize(self)
    }

    /// The same codes in this crate's form; with activation order, columns are sorted by group.
    ///
    /// # Errors
    /// `NotFinite` for scales that are not.
    pub fn to_uniform(&self) -> Result<UniformGroups> {
        self.grid.to_uniform(self)
    }

    /// Packs weights, in the narrowest of 2, 3, 4 and 8 bits that holds codes and zeros. An order of columns
    /// becomes `g_idx`.
    ///
    /// # Errors
    /// `Unsupported` for offsets instead of zeros, scales that half precision does not hold, zeros outside of the
    /// codes (in version 1: of 1 to 2^b), or sizes that leave words half filled.
    pub fn write(weights: &UniformGroups, version: GptqVersion) -> Result<GptqArrays> {
        let [n, k] = weights.shape();
        let groups = weights.groups();
        let zeros = whole_zeros(weights, FORMAT)?;
        let bits = width_for(weights, &zeros, version.shift(), &WIDTHS, FORMAT)?;
        let b = usize::from(bits);
        if !(k * b).is_multiple_of(32) || !(n * b).is_multiple_of(32) {
            let why = format!("{n} rows of {k} codes of {bits} bits do not fill words of 32 bits");
            return Err(super::cannot_hold(FORMAT, why));
        }
        let halves = exact_halves(weights.scales(), FORMAT)?;
        let scales = Tensor::from_fn([groups, n], |[g, row]| halves[row * groups + g])?;

        let mut zero_words = vec![0u32; groups * (n * b / 32)];
        for (g, stream) in zero_words.chunks_exact_mut((n * b / 32).max(1)).enumerate() {
            let line: Vec<u8> = (0..n).map(|row| (zeros[row * groups + g] - version.shift()) as u8).collect();
            pack_stream(&line, bits, stream);
        }
        let mut codes = vec![0u32; k * b / 32 * n];
        let place = place_of(weights);
        codes.par_chunks_mut((b * n).max(1)).enumerate().for_each(|(block, out)| {
            let columns = block * 32..(block * 32 + 32).min(k);
            let (mut line, mut packed) = (Vec::with_capacity(32), [0u32; 8]);
            for row in 0..n {
                let codes = &weights.codes()[row * k..][..k];
                line.clear();
                line.extend(columns.clone().map(|c| codes[place.as_ref().map_or(c, |p| p[c] as usize)]));
                pack_stream(&line, bits, &mut packed);
                for (word, out) in packed.iter().zip(out.chunks_exact_mut(n)) {
                    out[row] = *word;
                }
            }
        });
        let index = Columns::index_of(weights);
        Ok(GptqArrays {
            bits,
            group: weights.group(),
            qweight: Tensor::from_slice([k * b / 32, n], signed(&codes))?,
            qzeros: Tensor::from_slice([groups, n * b / 32], signed(&zero_words))?,
            scales,
            g_idx: Tensor::from_slice([k], &index)?,
        })
    }
}

/// The bits of a code, from the length of a row of zeros.
fn bits_of_zeros(n: usize, zero_words: usize) -> Result<u8> {
    let mut fitting = WIDTHS.into_iter().filter(|&b| stream_words(n, b) == zero_words);
    match (fitting.next(), fitting.next()) {
        (Some(bits), None) => Ok(bits),
        _ => Err(Error::argument("bits", "a number, because the shapes do not tell it", "none")),
    }
}

/// Where each column of the matrix is stored, if not in its own place.
fn place_of(weights: &UniformGroups) -> Option<Vec<u32>> {
    let order = weights.order()?;
    let mut place = vec![0; order.len()];
    for (j, &column) in order.iter().enumerate() {
        place[column as usize] = j as u32;
    }
    Some(place)
}

impl CodeSource for GptqTensor<'_> {
    const ROWS: usize = 64;
    const COLUMNS: usize = 256;

    fn tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [u8], stride: usize) {
        with_bits!(self.grid.bits, columns_tile(&self.qweight, self.grid.shape[0], rows, cols, out, stride));
    }
}

/// Codes of 32 columns at a time: `B` words of each row, `n` words apart.
fn columns_tile<const B: usize>(
    qweight: &[i32],
    n: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    out: &mut [u8],
    stride: usize,
) {
    let qweight = words(qweight);
    for (block, first) in cols.clone().step_by(32).enumerate() {
        let source = &qweight[first / 32 * B * n..];
        let len = (cols.end - first).min(32);
        for (i, row) in rows.clone().enumerate() {
            let mut column = [0; B];
            for (j, word) in column.iter_mut().enumerate() {
                // The last block of a file may have fewer words.
                *word = source.get(j * n + row).copied().unwrap_or(0);
            }
            let (codes, out) = (unpack_block::<B>(&column), &mut out[i * stride + 32 * block..]);
            // A length that is known needs no call to copy it.
            match out.first_chunk_mut::<32>() {
                Some(out) if len == 32 => *out = codes,
                _ => out[..len].copy_from_slice(&codes[..len]),
            }
        }
    }
}
