//! ONNX Runtime's `MatMulNBits`: rows of blocks of whole bytes.
//!
//! `B` `[N, G, block b/8]` (bytes) holds the codes of each block from the least significant bit, `scales` `[N G]` a
//! scale for each, `zero_points` one stream of whole bytes of zeros for each row, `[N, ceil(G b/8)]`; without
//! them all zeros are `2^(b-1)`. `G = ceil(K / block)`; a last block may be longer than what K leaves for it.

use std::borrow::Cow;
use std::ops::Range;

use kc_core::{AnyTensor, Error, Result, Tensor, TensorView};
use rayon::prelude::*;

use super::scales::exact_tensor;
use super::tiles::{CodeSource, Columns, Grid, dense};
use super::{ScaleView, cannot_hold, whole_zeros, width_for};
use crate::int::{spread, with_bits};
use crate::{ScaleDtype, UniformGroups, Zeros};

const FORMAT: &str = "MatMulNBits";
const WIDTHS: [u8; 3] = [2, 4, 8];

/// The arrays of a node.
#[derive(Debug, Clone, Copy)]
pub struct MatMulNBitsViews<'a> {
    /// Codes, `[N, G, block b/8]`.
    pub b: TensorView<'a, u8, 3>,
    /// Scales, `[N, G]` (the operator has them in one row).
    pub scales: ScaleView<'a>,
    /// Zeros, `[N, ceil(G b/8)]`.
    pub zero_points: Option<TensorView<'a, u8, 2>>,
}

/// The arrays of a node, to be written.
#[derive(Debug, Clone)]
pub struct MatMulNBitsArrays {
    /// Bits of a code.
    pub bits: u8,
    /// Columns of a block.
    pub block: usize,
    /// Codes, `[N, G, block b/8]`.
    pub b: Tensor<u8, 3>,
    /// Scales, `[N, G]`.
    pub scales: AnyTensor,
    /// Zeros, `[N, ceil(G b/8)]`; none if all are `2^(b-1)`.
    pub zero_points: Option<Tensor<u8, 2>>,
}

/// Weights of a `MatMulNBits` node.
#[derive(Debug, Clone)]
pub struct MatMulNBits<'a> {
    b: Cow<'a, [u8]>,
    row_bytes: usize,
    grid: Grid,
}

impl<'a> MatMulNBits<'a> {
    /// Checks the arrays of a node with `k` columns and codes of `bits` bits.
    ///
    /// # Errors
    /// `Argument` for bits that are not 2, 4 or 8; `Shape` for arrays that do not agree; `Empty` without rows or
    /// columns.
    pub fn read(views: MatMulNBitsViews<'a>, k: usize, bits: u8) -> Result<Self> {
        let [n, groups, block_bytes] = views.b.shape();
        if n == 0 || k == 0 || groups == 0 || block_bytes == 0 {
            return Err(Error::empty("b"));
        }
        if !WIDTHS.contains(&bits) {
            return Err(Error::argument("bits", "2, 4 or 8", bits));
        }
        // An array of bytes: its lengths times 8 fit.
        let block = block_bytes * 8 / usize::from(bits);
        if k.div_ceil(block) != groups {
            let expected =
                format!("[N, {}, {block_bytes}] for {k} columns of {bits} bits", k.div_ceil(block));
            return Err(Error::shape("b", expected, &views.b.shape()));
        }
        if views.scales.shape() != [n, groups] {
            return Err(Error::shape("scales", format!("[{n}, {groups}]"), &views.scales.shape()));
        }
        let zeros = match views.zero_points {
            None => Zeros::Constant(1 << (bits - 1)),
            Some(points) => {
                let width = (groups * usize::from(bits)).div_ceil(8);
                if points.shape() != [n, width] {
                    return Err(Error::shape("zero_points", format!("[{n}, {width}]"), &points.shape()));
                }
                let mut line = vec![0u8; groups];
                let mut zeros = Vec::with_capacity(n * groups);
                for row in dense(points).chunks_exact(width) {
                    unpack_bytes(row, bits, &mut line);
                    zeros.extend(line.iter().map(|&z| i32::from(z)));
                }
                Zeros::PerGroup(zeros)
            }
        };
        let columns = Columns::Runs(block.min(k));
        let grid = Grid { shape: [n, k], bits, columns, scales: views.scales.rows(), zeros };
        let bytes = views.b.as_slice().map_or_else(|| Cow::Owned(views.b.to_vec()), Cow::Borrowed);
        Ok(Self { b: bytes, row_bytes: groups * block_bytes, grid })
    }

    /// The number of bits with which `k` columns fill an array `b` of this shape, if just one fits.
    pub fn bits_of(shape: [usize; 3], k: usize) -> Option<u8> {
        let [_, groups, block_bytes] = shape;
        // Blocks are powers of two, from 16 columns on.
        let mut fitting = WIDTHS.into_iter().filter(|&b| {
            let block = block_bytes.saturating_mul(8) / usize::from(b);
            block >= 16 && block.is_power_of_two() && k.div_ceil(block) == groups
        });
        match (fitting.next(), fitting.next()) {
            (Some(bits), None) => Some(bits),
            _ => None,
        }
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.grid.shape
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.grid.bits
    }

    /// Columns of a block.
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

    /// Packs weights, in the narrowest of 2, 4 and 8 bits that holds codes and zeros.
    ///
    /// # Errors
    /// `Unsupported` for offsets instead of zeros, zeros outside of 0 to 255, scales that the type does not hold,
    /// columns in another order, or groups that are no power of two from 16 on.
    pub fn write(weights: &UniformGroups, scale_dtype: ScaleDtype) -> Result<MatMulNBitsArrays> {
        let [n, k] = weights.shape();
        let (group, groups) = (weights.group(), weights.groups());
        let zeros = whole_zeros(weights, FORMAT)?;
        let bits = width_for(weights, &zeros, 0, &WIDTHS, FORMAT)?;
        if weights.order().is_some() {
            return Err(cannot_hold(FORMAT, "it has no activation order"));
        }
        // A block that is the whole row may be longer than the row.
        let block = if groups <= 1 { group.next_power_of_two().max(16) } else { group };
        if block < 16 || !block.is_power_of_two() {
            return Err(cannot_hold(FORMAT, format!("its blocks are 16, 32, 64 ... columns, not {group}")));
        }
        let block_bytes = block * usize::from(bits) / 8;
        let mut b = Tensor::zeros([n, groups, block_bytes])?;
        let row_bytes = (groups * block_bytes).max(1);
        b.as_mut_slice().par_chunks_mut(row_bytes).enumerate().for_each(|(row, out)| {
            pack_bytes(&weights.codes()[row * k..][..k], bits, out);
        });
        let zero_points = if zeros.iter().all(|&z| z == 1 << (bits - 1)) {
            None
        } else {
            let width = (groups * usize::from(bits)).div_ceil(8);
            let mut out = Tensor::zeros([n, width])?;
            let rows = out.as_mut_slice().chunks_exact_mut(width.max(1));
            for (out, zeros) in rows.zip(zeros.chunks_exact(groups.max(1))) {
                let line: Vec<u8> = zeros.iter().map(|&z| z as u8).collect();
                pack_bytes(&line, bits, out);
            }
            Some(out)
        };
        let scales = exact_tensor(weights.scales(), [n, groups], scale_dtype, FORMAT)?;
        Ok(MatMulNBitsArrays { bits, block, b, scales, zero_points })
    }
}

/// Codes of 2, 4 or 8 bits from whole bytes, least significant bits first.
fn unpack_bytes(bytes: &[u8], bits: u8, codes: &mut [u8]) {
    with_bits!(bits, unpack_eights(bytes, codes));
}

/// Eight codes are `B` bytes.
fn unpack_eights<const B: usize>(bytes: &[u8], codes: &mut [u8]) {
    let (eights, rest) = codes.as_chunks_mut::<8>();
    let (full, _) = bytes.as_chunks::<B>();
    for (codes, bytes) in eights.iter_mut().zip(full) {
        let mut wide = [0; 8];
        wide[..B].copy_from_slice(bytes);
        *codes = spread::<B>(u64::from_le_bytes(wide)).to_le_bytes();
    }
    if !rest.is_empty() {
        let last = &bytes[eights.len() * B..];
        let (mut wide, len) = ([0; 8], last.len().min(B));
        wide[..len].copy_from_slice(&last[..len]);
        rest.copy_from_slice(&spread::<B>(u64::from_le_bytes(wide)).to_le_bytes()[..rest.len()]);
    }
}

/// The reverse of [`unpack_bytes`], into zeros.
fn pack_bytes(codes: &[u8], bits: u8, bytes: &mut [u8]) {
    let per_byte = 8 / usize::from(bits);
    for (byte, codes) in bytes.iter_mut().zip(codes.chunks(per_byte)) {
        for (i, code) in codes.iter().enumerate() {
            *byte |= code << (i * usize::from(bits));
        }
    }
}

impl CodeSource for MatMulNBits<'_> {
    const ROWS: usize = 1;
    const COLUMNS: usize = 2048;

    fn tile(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [u8], stride: usize) {
        let first = cols.start / 8 * usize::from(self.grid.bits);
        for (i, row) in rows.enumerate() {
            let bytes = &self.b[row * self.row_bytes..][..self.row_bytes][first..];
            unpack_bytes(bytes, self.grid.bits, &mut out[i * stride..][..cols.len()]);
        }
    }
}
