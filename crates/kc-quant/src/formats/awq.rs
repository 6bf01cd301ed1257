//! AWQ: eight output rows in a word, in an order of their own.
//!
//! `qweight` `[K, N/8]` and `qzeros` `[G, N/8]` hold 4-bit codes; nibble `i` of word `c` belongs to output row
//! `8 c + [0, 2, 4, 6, 1, 3, 5, 7][i]`. Zeros are stored as they are; `w[n, k] = scales[g, n] (q[n, k] - z[g, n])`
//! with consecutive groups of `K / G` columns. Only 4 bits exist.

use std::borrow::Cow;
use std::ops::Range;

use kc_core::{Error, Result, Tensor, TensorView, f16};
use rayon::prelude::*;

use super::scales::exact_halves;
use super::tiles::{CodeSource, Columns, Grid, dense, words};
use super::{ScaleView, cannot_hold, group_len, whole_zeros, width_for};
use crate::int::spread;
use crate::{UniformGroups, Zeros};

const FORMAT: &str = "AWQ";

/// The row of each nibble of a word.
const ROW_OF_NIBBLE: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// The arrays of a file.
#[derive(Debug, Clone, Copy)]
pub struct AwqViews<'a> {
    /// Codes, `[K, N/8]`.
    pub qweight: TensorView<'a, i32, 2>,
    /// Zeros, `[G, N/8]`.
    pub qzeros: TensorView<'a, i32, 2>,
    /// Scales, `[G, N]`.
    pub scales: ScaleView<'a>,
}

/// The arrays of a file, to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct AwqArrays {
    /// Columns of a group.
    pub group: usize,
    /// Codes, `[K, N/8]`.
    pub qweight: Tensor<i32, 2>,
    /// Zeros, `[G, N/8]`.
    pub qzeros: Tensor<i32, 2>,
    /// Scales, `[G, N]`.
    pub scales: Tensor<f16, 2>,
}

/// Weights in the AWQ packing.
#[derive(Debug, Clone)]
pub struct AwqTensor<'a> {
    qweight: Cow<'a, [i32]>,
    grid: Grid,
}

impl<'a> AwqTensor<'a> {
    /// Checks the arrays of a file. Codes are not touched.
    ///
    /// # Errors
    /// `Shape` for arrays that do not agree, `Empty` without rows or columns.
    pub fn read(views: AwqViews<'a>) -> Result<Self> {
        let [k, n_words] = views.qweight.shape();
        let [groups, zero_words] = views.qzeros.shape();
        if k == 0 || n_words == 0 || groups == 0 {
            return Err(Error::empty("qweight"));
        }
        if zero_words != n_words {
            return Err(Error::shape("qzeros", format!("[G, {n_words}]"), &[groups, zero_words]));
        }
        // The array has that many words, so eight times as many fit.
        let n = n_words * 8;
        if views.scales.shape() != [groups, n] {
            return Err(Error::shape("scales", format!("[{groups}, {n}]"), &views.scales.shape()));
        }
        let columns = Columns::Runs(group_len(k, groups, None)?);
        let qzeros = dense(views.qzeros);
        let mut zeros = vec![0; n * groups];
        for (g, line) in words(&qzeros).chunks_exact(n_words).enumerate() {
            for (c, &word) in line.iter().enumerate() {
                for (i, row) in ROW_OF_NIBBLE.into_iter().enumerate() {
                    zeros[(8 * c + row) * groups + g] = (word >> (4 * i) & 15) as i32;
                }
            }
        }
        let scales = views.scales.columns();
        let grid = Grid { shape: [n, k], bits: 4, columns, scales, zeros: Zeros::PerGroup(zeros) };
        Ok(Self { qweight: dense(views.qweight), grid })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.grid.shape
    }

    /// Columns of a group.
    pub fn group(&self) -> Option<usize> {
        self.grid.group()
    }

    /// What the codes stand for, `[N, K]`.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        self.grid.dequantize(self)
    }

    /// The same codes in this crate's form.
    ///
    /// # Errors
    /// `NotFinite` for scales that are not.
    pub fn to_uniform(&self) -> Result<UniformGroups> {
        self.grid.to_uniform(self)
    }

    /// Packs weights of at most 4 bits.
    ///
    /// # Errors
    /// `Unsupported` for offsets instead of zeros, codes or zeros of more than 4 bits, scales that half precision
    /// does not hold, columns in another order, groups that do not divide K, or rows that are no multiple of 8.
    pub fn write(weights: &UniformGroups) -> Result<AwqArrays> {
        let [n, k] = weights.shape();
        let (group, groups) = (weights.group(), weights.groups());
        let zeros = whole_zeros(weights, FORMAT)?;
        width_for(weights, &zeros, 0, &[4], FORMAT)?;
        if weights.order().is_some() {
            return Err(cannot_hold(FORMAT, "it has no activation order"));
        }
        if !n.is_multiple_of(8) || !k.is_multiple_of(group) {
            return Err(cannot_hold(FORMAT, format!("[{n}, {k}] is not [8 i, {group} j]")));
        }
        let halves = exact_halves(weights.scales(), FORMAT)?;
        let pack = |code: &dyn Fn(usize) -> u32, c: usize| {
            let mut word = 0u32;
            for (i, row) in ROW_OF_NIBBLE.into_iter().enumerate() {
                word |= code(8 * c + row) << (4 * i);
            }
            word as i32
        };
        let mut qweight = Tensor::zeros([k, n / 8])?;
        qweight.as_mut_slice().par_chunks_mut((n / 8).max(1)).enumerate().for_each(|(column, out)| {
            for (c, out) in out.iter_mut().enumerate() {
                *out = pack(&|row| u32::from(weights.codes()[row * k + column]), c);
            }
        });
        Ok(AwqArrays {
            group,
            qweight,
            qzeros: Tensor::from_fn([groups, n / 8], |[g, c]| {
                pack(&|row| zeros[row * groups + g] as u32, c)
            })?,
            scales: Tensor::from_fn([groups, n], |[g, row]| halves[row * groups + g])?,
        })
    }
}

impl CodeSource for AwqTensor<'_> {
    const ROWS: usize = 128;
    const COLUMNS: usize = 128;

    fn tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [u8], stride: usize) {
        let n_words = self.grid.shape[0] / 8;
        let qweight = words(&self.qweight);
        // Eight columns of a word become eight bytes of each of its rows.
        for (at, first) in cols.clone().step_by(8).enumerate() {
            let len = (cols.end - first).min(8);
            for (block, c) in (rows.start / 8..rows.end / 8).enumerate() {
                let mut column = [0; 8];
                for (j, word) in column[..len].iter_mut().enumerate() {
                    *word = qweight[(first + j) * n_words + c];
                }
                let codes = transposed(&column);
                for (nibble, row) in ROW_OF_NIBBLE.into_iter().enumerate() {
                    let out = &mut out[(8 * block + row) * stride + 8 * at..];
                    // A length that is known needs no call to copy it.
                    match out.first_chunk_mut::<8>() {
                        Some(out) if len == 8 => *out = codes[nibble],
                        _ => out[..len].copy_from_slice(&codes[nibble][..len]),
                    }
                }
            }
        }
    }
}

/// Nibble `i` of each of eight words.
#[inline(always)]
fn transposed(words: &[u32; 8]) -> [[u8; 8]; 8] {
    let mut lanes = [0u64; 8];
    for (lane, &word) in lanes.iter_mut().zip(words) {
        // Nibble i becomes byte i.
        *lane = spread::<4>(u64::from(word));
    }
    // A matrix of 8 x 8 bytes: single bytes, then pairs, then fours change places across its diagonal.
    for (width, mask) in
        [(1, 0x00ff_00ff_00ff_00ffu64), (2, 0x0000_ffff_0000_ffff), (4, 0x0000_0000_ffff_ffff)]
    {
        for i in 0..8 {
            if i & width == 0 {
                let (low, high) = (lanes[i], lanes[i + width]);
                lanes[i] = low & mask | (high & mask) << (8 * width);
                lanes[i + width] = (low >> (8 * width)) & mask | high & !mask;
            }
        }
    }
    let mut out = [[0; 8]; 8];
    for (out, lane) in out.iter_mut().zip(lanes) {
        *out = lane.to_le_bytes();
    }
    out
}
