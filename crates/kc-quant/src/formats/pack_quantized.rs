//! compressed-tensors' `pack-quantized`: rows of codes as dense streams, and the native file of 6-bit weights.
//!
//! `weight_packed` `[N, ceil(K b/32)]` holds `u = q + 2^(b-1)` of each row as a dense stream that starts at a word of
//! its own, `weight_scale` `[N, G]` the scales (`G = 1` for one scale per row), `weight_shape` the two lengths.
//! `weight_zero_point`, if there, is packed along N, `[ceil(N b/32), G]`, and biased like the codes, so that
//! `w = s (u - u_z)`. The codes of `g_idx`, if there, are in any order of groups.

use std::borrow::Cow;
use std::ops::Range;

use kc_core::{AnyTensor, Error, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::scales::exact_tensor;
use super::tiles::{CodeSource, Columns, Grid, dense, signed, words};
use super::{ScaleView, cannot_hold, group_len, whole_zeros, width_for};
use crate::int::{pack_stream, stream_words, unpack_stream};
use crate::{ScaleDtype, UniformGroups, Zeros};

const FORMAT: &str = "pack-quantized";

/// Zero points as files hold them.
#[derive(Debug, Clone, Copy)]
pub enum ZeroPoints<'a> {
    /// Biased and packed along N, `[ceil(N b/32), G]`.
    Packed(TensorView<'a, i32, 2>),
    /// Signed, for signed codes, `[N, G]`.
    Signed(TensorView<'a, i8, 2>),
    /// For unsigned codes, `[N, G]`; may lie outside of them.
    Unsigned(TensorView<'a, i32, 2>),
}

/// The arrays of a file.
#[derive(Debug, Clone, Copy)]
pub struct PackQuantizedViews<'a> {
    /// Codes, `[N, ceil(K b/32)]`.
    pub weight_packed: TensorView<'a, i32, 2>,
    /// Scales, `[N, G]`.
    pub weight_scale: ScaleView<'a>,
    /// Zero points; `2^(b-1)` without them.
    pub weight_zero_point: Option<ZeroPoints<'a>>,
    /// `[N, K]`.
    pub weight_shape: [usize; 2],
    /// The group of each column, `[K]`.
    pub weight_g_idx: Option<TensorView<'a, i32, 1>>,
}

/// The arrays of a file, to be written.
#[derive(Debug, Clone)]
pub struct PackQuantizedArrays {
    /// Bits of a code.
    pub bits: u8,
    /// Columns of a group.
    pub group: usize,
    /// Codes, `[N, ceil(K b/32)]`.
    pub weight_packed: Tensor<i32, 2>,
    /// Scales, `[N, G]`.
    pub weight_scale: AnyTensor,
    /// Zero points, `[ceil(N b/32), G]`; none if all are `2^(b-1)`.
    pub weight_zero_point: Option<Tensor<i32, 2>>,
    /// `[N, K]`.
    pub weight_shape: Tensor<i64, 1>,
    /// The group of each column, `[K]`, if they are not consecutive.
    pub weight_g_idx: Option<Tensor<i32, 1>>,
}

/// Weights in the `pack-quantized` packing.
#[derive(Debug, Clone)]
pub struct PackQuantized<'a> {
    packed: Cow<'a, [i32]>,
    row_words: usize,
    grid: Grid,
}

impl<'a> PackQuantized<'a> {
    /// Checks the arrays of a file. `bits` (1 to 8) may be left to the shapes, `group` too if the groups are equal.
    ///
    /// # Errors
    /// `Argument` for bits out of range or that the shapes leave open; `Shape` for arrays that do not agree;
    /// `Index` for a `weight_g_idx` beyond the groups; `Empty` without rows or columns.
    pub fn read(views: PackQuantizedViews<'a>, bits: Option<u8>, group: Option<usize>) -> Result<Self> {
        let [n, k] = views.weight_shape;
        let [rows, row_words] = views.weight_packed.shape();
        if n == 0 || k == 0 {
            return Err(Error::empty("weight_packed"));
        }
        let bits = match bits {
            Some(bits) if (1..=8).contains(&bits) => bits,
            Some(bits) => return Err(Error::argument("bits", "1 to 8", bits)),
            None => bits_of_row(k, row_words)?,
        };
        if rows != n || row_words != stream_words(k, bits) {
            let expected = format!("[{n}, {}]", stream_words(k, bits));
            return Err(Error::shape("weight_packed", expected, &[rows, row_words]));
        }
        let [scale_rows, groups] = views.weight_scale.shape();
        if scale_rows != n || groups == 0 {
            return Err(Error::shape("weight_scale", format!("[{n}, G]"), &[scale_rows, groups]));
        }
        let columns = match views.weight_g_idx {
            Some(index) => Columns::of_index(index, k, groups)?,
            // One scale per row may be said to have any group.
            None if groups == 1 => Columns::Runs(k),
            None => Columns::Runs(group_len(k, groups, group)?),
        };
        let zeros = match views.weight_zero_point {
            None => Zeros::Constant(1 << (bits - 1)),
            Some(points) => Zeros::PerGroup(zeros_of(points, [n, groups], bits)?),
        };
        let grid = Grid { shape: [n, k], bits, columns, scales: views.weight_scale.rows(), zeros };
        Ok(Self { packed: dense(views.weight_packed), row_words, grid })
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.grid.shape
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.grid.bits
    }

    /// Columns of a group; `None` if `weight_g_idx` puts them in another order.
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

    /// Packs weights with scales of the given type, in their own number of bits or as many more as their zeros
    /// need. Zeros of `2^(b-1)` everywhere are not stored.
    ///
    /// # Errors
    /// `Unsupported` for offsets instead of zeros, zeros outside of 0 to 255, or scales that the type does not
    /// hold.
    pub fn write(weights: &UniformGroups, scale_dtype: ScaleDtype) -> Result<PackQuantizedArrays> {
        let [n, k] = weights.shape();
        let groups = weights.groups();
        let zeros = whole_zeros(weights, FORMAT)?;
        let bits = width_for(weights, &zeros, 0, &[1, 2, 3, 4, 5, 6, 7, 8], FORMAT)?;
        let row_words = stream_words(k, bits);
        let mut packed = vec![0u32; kc_core::shape::checked_len("weight_packed", &[n, row_words])?];
        let order = weights.order();
        packed.par_chunks_mut(row_words.max(1)).enumerate().for_each(|(row, out)| {
            let stored = &weights.codes()[row * k..][..k];
            match order {
                None => pack_stream(stored, bits, out),
                Some(order) => {
                    let mut line = vec![0u8; k];
                    for (&code, &column) in stored.iter().zip(order) {
                        line[column as usize] = code;
                    }
                    pack_stream(&line, bits, out);
                }
            }
        });
        let symmetric = zeros.iter().all(|&z| z == 1 << (bits - 1));
        let weight_zero_point = if symmetric {
            None
        } else {
            let zero_rows = stream_words(n, bits);
            let mut out = Tensor::zeros([zero_rows, groups])?;
            let (mut line, mut stream) = (vec![0u8; n], vec![0u32; zero_rows]);
            for g in 0..groups {
                for (row, zero) in line.iter_mut().enumerate() {
                    *zero = zeros[row * groups + g] as u8;
                }
                pack_stream(&line, bits, &mut stream);
                for (i, &word) in stream.iter().enumerate() {
                    out[[i, g]] = word as i32;
                }
            }
            Some(out)
        };
        let index = order.map(|_| Columns::index_of(weights));
        let lengths =
            [n, k].map(|d| i64::try_from(d).map_err(|_| cannot_hold(FORMAT, "a length above 2^63")));
        let [n_stored, k_stored] = lengths;
        Ok(PackQuantizedArrays {
            bits,
            group: weights.group(),
            weight_packed: Tensor::from_slice([n, row_words], signed(&packed))?,
            weight_scale: exact_tensor(weights.scales(), [n, groups], scale_dtype, FORMAT)?,
            weight_zero_point,
            weight_shape: Tensor::from_slice([2], &[n_stored?, k_stored?])?,
            weight_g_idx: index.map(|index| Tensor::from_slice([k], &index)).transpose()?,
        })
    }
}

/// The only number of bits with which a row of `k` codes takes so many words.
fn bits_of_row(k: usize, row_words: usize) -> Result<u8> {
    let mut fitting = (1..=8).filter(|&b| stream_words(k, b) == row_words);
    match (fitting.next(), fitting.next()) {
        (Some(bits), None) => Ok(bits),
        (None, _) => {
            Err(Error::shape("weight_packed", format!("rows of {k} codes of 1 to 8 bits"), &[row_words]))
        }
        _ => Err(Error::argument("bits", "a number, because the shapes do not tell it", "none")),
    }
}

/// Zeros for unsigned codes, `[N, G]`.
fn zeros_of(points: ZeroPoints<'_>, shape: [usize; 2], bits: u8) -> Result<Vec<i32>> {
    let [n, groups] = shape;
    let (got, expected) = match points {
        ZeroPoints::Packed(x) => (x.shape(), [stream_words(n, bits), groups]),
        ZeroPoints::Signed(x) => (x.shape(), shape),
        ZeroPoints::Unsigned(x) => (x.shape(), shape),
    };
    if got != expected {
        return Err(Error::shape("weight_zero_point", format!("{expected:?}"), &got));
    }
    Ok(match points {
        ZeroPoints::Unsigned(x) => x.to_vec(),
        ZeroPoints::Signed(x) => x.iter().map(|z| i32::from(z) + (1 << (bits - 1))).collect(),
        ZeroPoints::Packed(x) => {
            let mut zeros = vec![0; n * groups];
            let mut line = vec![0u8; n];
            for g in 0..groups {
                let stream: Vec<u32> = (0..expected[0]).map(|i| x.at([i, g]) as u32).collect();
                unpack_stream(&stream, bits, &mut line);
                for (row, &zero) in line.iter().enumerate() {
                    zeros[row * groups + g] = i32::from(zero);
                }
            }
            zeros
        }
    })
}

impl CodeSource for PackQuantized<'_> {
    const ROWS: usize = 1;
    const COLUMNS: usize = 2048;

    fn tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [u8], stride: usize) {
        let first_word = cols.start / 32 * usize::from(self.grid.bits);
        for (i, row) in rows.enumerate() {
            let stream = &words(&self.packed)[row * self.row_words..][..self.row_words][first_word..];
            unpack_stream(stream, self.grid.bits, &mut out[i * stride..][..cols.len()]);
        }
    }
}
