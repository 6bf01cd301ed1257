//! Products of 8-bit integers with exact 32-bit sums.
//!
//! Weights are packed once ([`PackedI8`]) and multiplied often. Two kinds of product use them:
//!
//! - [`gemm_i8_scaled`]: `out[i,n] = row_scale[i] * sum_g w_scale[n,g] * S[i,n,g] (+ bias[n])` with
//!   `S[i,n,g] = sum_{k in g} a[i,k] * w[n,k]`, the product of a quantised activation with weights that carry
//!   one scale per group of columns;
//! - [`gemm_u8i8`], [`gemm_i8`] and the `_packed` forms: the plain sums as `i32`, and
//!   [`gemm_u8i8_dequant`]: `out[i,n] = a_scale * w_scale[n] * (S[i,n] - a_zero * sum_k w[n,k]) (+ bias[n])`.
//!
//! # Layout
//! Panels of 32 rows of `w` (output columns), four consecutive `k` of one row side by side:
//! `panel[quad][n][4]`, stored as `w + 128` in a byte. A group whose length is not a multiple of four is padded
//! with zeros. This is what `vpdpbusd` reads (unsigned weights, signed activations); the surplus
//! `128 * sum_{k in g} a[i,k]` is taken off at the end of a group. Without VNNI the even and the odd bytes of a
//! quad are widened to 16 bits and go through `vpmaddwd`, which never saturates: a product is below `2^16`, a sum
//! of two below `2^17`. (`vpmaddubsw` would: `2 * 255 * 127 > 2^15`.)
//!
//! # Exactness
//! Sums are exact modulo `2^32`, so they are exact whenever the true sum fits an `i32`. `|a w| <= 2^14` for two
//! signed bytes: a group of at most 131 071 columns; `|a w| <= 255 * 128` for the unsigned product: at most
//! 65 793. Longer groups are refused.
//!
//! # Cost
//! `2 M N K` operations. One row (`M = 1`) reads the packed weights once, `N K` bytes, and is bound by memory.

use std::ops::Range;

use kc_core::{AlignedBuf, Element, Error, Isa, Result, Tensor, TensorView, TensorViewMut, shape};
use rayon::prelude::*;

use crate::micro::int8::{self, MAX_ROWS, NR, Quads, Rows};

/// Longest group for which a sum of products of two signed bytes always fits an `i32`.
pub const MAX_GROUP_I8: usize = 131_071;
/// Longest sum of products of an unsigned and a signed byte that always fits an `i32`.
pub const MAX_DEPTH_U8I8: usize = 65_793;

/// Bytes of packed activations that are multiplied with all weights before the next rows are packed.
const A_BLOCK_BYTES: usize = 256 << 10;
/// Panels of weights of one parallel piece of work.
const PANELS_PER_TASK: usize = 4;
/// Products with fewer multiplications stay on the calling thread.
const SERIAL: usize = 1 << 19;

/// Weights i8 `[N, K]` packed for integer products; sums are taken per group of `group` columns (0 = one group
/// of K).
///
/// ```
/// use kc_core::TensorView;
/// use kc_gemm::{PackedI8, gemm_i8_packed};
///
/// let w = PackedI8::pack(TensorView::from_slice([2, 3], &[1, 2, 3, -4, -5, -128])?, 0)?;
/// let a = TensorView::from_slice([1, 3], &[1i8, 1, -128])?;
/// assert_eq!(gemm_i8_packed(a, &w)?.as_slice(), [1 + 2 - 384, -4 - 5 + 16384]);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedI8 {
    data: AlignedBuf<u8>,
    /// Sum of every row, for zero points of the other operand.
    sums: Vec<i32>,
    shape: [usize; 2],
    group: usize,
}

impl PackedI8 {
    /// Packs `w`. `group` is the number of columns that share a scale; the last group may be shorter.
    pub fn pack(w: TensorView<'_, i8, 2>, group: usize) -> Result<Self> {
        let [n, k] = w.shape();
        let group = if group == 0 { k.max(1) } else { group.min(k.max(1)) };
        if group > MAX_GROUP_I8 {
            let expected = format!("groups of at most {MAX_GROUP_I8} columns, whose sums fit an i32");
            return Err(Error::argument("group", expected, group));
        }
        let mut packed = Self { data: AlignedBuf::zeroed(0)?, sums: vec![0; n], shape: [n, k], group };
        let panel = shape::checked_len("w", &[packed.quads(), NR, 4])?;
        packed.data = AlignedBuf::zeroed(shape::checked_len("w", &[n.div_ceil(NR), panel])?)?;
        // Zero is stored as 128; this also fills the padding.
        packed.data.fill(128);
        let quads_of_group = group.div_ceil(4);
        let mut gathered = Vec::new();
        for row in 0..n {
            let values = row_of(w, row, &mut gathered);
            let base = row / NR * panel + row % NR * 4;
            for (g, codes) in values.chunks(group).enumerate() {
                for (q, four) in codes.chunks(4).enumerate() {
                    let at = base + (g * quads_of_group + q) * NR * 4;
                    for (slot, &code) in packed.data[at..].iter_mut().zip(four) {
                        *slot = (code as u8) ^ 0x80;
                    }
                }
            }
            packed.sums[row] = values.iter().fold(0i32, |s, &v| s.wrapping_add(i32::from(v)));
        }
        Ok(packed)
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.data.len() + size_of_val(self.sums.as_slice())
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The number of groups of columns.
    pub fn groups(&self) -> usize {
        self.shape[1].div_ceil(self.group)
    }

    /// The number of columns of a group (of the last one, at most).
    pub fn group(&self) -> usize {
        self.group
    }

    fn quads(&self) -> usize {
        let [_, k] = self.shape;
        k / self.group * self.group.div_ceil(4) + (k % self.group).div_ceil(4)
    }

    /// The packed bytes of 32 columns of the result.
    fn panel(&self, index: usize) -> &[u8] {
        let len = self.quads() * NR * 4;
        &self.data[index * len..][..len]
    }
}

/// `row` as a slice, gathered into `scratch` if it is strided.
fn row_of<'a, T: Element>(a: TensorView<'a, T, 2>, row: usize, scratch: &'a mut Vec<T>) -> &'a [T] {
    match a.row_slice(row) {
        Some(slice) => slice,
        None => {
            scratch.clear();
            scratch.extend(a.row(row).iter());
            scratch
        }
    }
}

/// An 8-bit activation.
trait Code: Element {
    const SIGNED: bool;
    fn widen(self) -> i16;
}

impl Code for i8 {
    const SIGNED: bool = true;
    fn widen(self) -> i16 {
        i16::from(self)
    }
}

impl Code for u8 {
    const SIGNED: bool = false;
    fn widen(self) -> i16 {
        i16::from(self)
    }
}

/// A block of rows of activations in the order in which the tiles read them: blocks of `tile_rows` rows, in each
/// `[quad][row][words]`; and the sum of every group of every row.
struct PackedRows {
    words: Vec<i32>,
    /// `[block][group][row]`
    sums: Vec<i32>,
}

impl PackedRows {
    fn fill<T: Code>(&mut self, a: TensorView<'_, T, 2>, rows: Range<usize>, w: &PackedI8, form: Quads) {
        let (quads, groups, group) = (w.quads(), w.groups(), w.group);
        let (tile, words) = (form.tile_rows(), form.words());
        self.words.clear();
        self.words.resize(rows.len() * quads * words, 0);
        self.sums.clear();
        self.sums.resize(rows.len() * groups, 0);
        let mut gathered = Vec::new();
        for (i, row) in rows.clone().enumerate() {
            // The last block may have fewer rows; its stride is their number.
            let (block, r) = (i / tile, i % tile);
            let height = tile.min(rows.len() - block * tile);
            let out = &mut self.words[block * tile * quads * words..];
            let mut q = 0;
            for (g, codes) in row_of(a, row, &mut gathered).chunks(group).enumerate() {
                let mut sum = 0i32;
                for four in codes.chunks(4) {
                    let mut v = [0i16; 4];
                    for (slot, &code) in v.iter_mut().zip(four) {
                        *slot = code.widen();
                    }
                    sum += form.encode(v, &mut out[(q * height + r) * words..][..words]);
                    q += 1;
                }
                self.sums[block * tile * groups + g * height + r] = sum;
            }
        }
    }

    /// The block of rows `range`, counted from the first packed one.
    fn block(&self, range: Range<usize>, w: &PackedI8, form: Quads) -> Rows<'_> {
        let (words, groups) = (w.quads() * form.words(), w.groups());
        Rows {
            count: range.len(),
            words: &self.words[range.start * words..range.end * words],
            sums: &self.sums[range.start * groups..range.end * groups],
            quads: w.quads(),
            group_quads: w.group.div_ceil(4),
        }
    }
}

/// The loops over rows and panels that all products share. `prepare(columns)` makes what a panel needs,
/// `tile(what, first_row, rows, panel, result)` computes one tile.
fn blocked<T: Code, O: Element, P>(
    isa: Isa,
    a: TensorView<'_, T, 2>,
    w: &PackedI8,
    out: TensorViewMut<'_, O, 2>,
    prepare: impl Fn(Range<usize>) -> P + Sync,
    tile: impl Fn(&P, usize, Rows<'_>, &[u8], &mut [[O; NR]; MAX_ROWS]) + Sync,
) -> Result<()> {
    let ([m, k], n) = (a.shape(), w.shape[0]);
    let form = Quads::of(isa, T::SIGNED);
    let height = form.tile_rows();
    let row_bytes = (w.quads() * form.words() * size_of::<i32>()).max(1);
    let block_rows = (A_BLOCK_BYTES / row_bytes).next_multiple_of(height).max(4 * height);
    let mut packed = PackedRows { words: Vec::new(), sums: Vec::new() };
    for (b, out) in out.chunks(0, block_rows)?.into_iter().enumerate() {
        let first_row = b * block_rows;
        let rows = out.shape()[0];
        packed.fill(a, first_row..first_row + rows, w, form);
        let piece = |(piece, mut out): (usize, TensorViewMut<'_, O, 2>)| {
            let mut result = [[O::default(); NR]; MAX_ROWS];
            for p in 0..out.shape()[1].div_ceil(NR) {
                let local = p * NR..out.shape()[1].min(p * NR + NR);
                let panel = piece * PANELS_PER_TASK + p;
                let what = prepare(panel * NR..panel * NR + local.len());
                for start in (0..rows).step_by(height) {
                    let end = rows.min(start + height);
                    let block = packed.block(start..end, w, form);
                    tile(&what, first_row + start, block, w.panel(panel), &mut result);
                    store(&result[..end - start], start, local.clone(), &mut out);
                }
            }
        };
        let pieces = out.chunks(1, NR * PANELS_PER_TASK)?;
        if rows.saturating_mul(n).saturating_mul(k) < SERIAL {
            pieces.into_iter().enumerate().for_each(piece);
        } else {
            pieces.into_par_iter().enumerate().for_each(piece);
        }
    }
    debug_assert_eq!(m, a.shape()[0]);
    Ok(())
}

fn store<O: Element>(tile: &[[O; NR]], row: usize, columns: Range<usize>, out: &mut TensorViewMut<'_, O, 2>) {
    for (i, values) in tile.iter().enumerate() {
        let values = &values[..columns.len()];
        let mut to = out.row_mut(row + i);
        if let Some(slice) = to.as_mut_slice() {
            slice[columns.clone()].copy_from_slice(values);
        } else {
            for (j, &value) in columns.clone().zip(values) {
                to.set([j], value);
            }
        }
    }
}

fn check(m: usize, depth: usize, w: &PackedI8, out: [usize; 2]) -> Result<()> {
    let [n, k] = w.shape;
    if depth != k {
        return Err(Error::shape("a", format!("[M, {k}] to match w {:?}", w.shape), &[m, depth]));
    }
    if out != [m, n] {
        return Err(Error::shape("out", format!("[{m}, {n}]"), &out));
    }
    Ok(())
}

fn check_columns(name: &'static str, len: usize, w: &PackedI8) -> Result<()> {
    if len == w.shape[0] {
        return Ok(());
    }
    Err(Error::shape(name, format!("{} entries, one per row of w {:?}", w.shape[0], w.shape), &[len]))
}

/// `out[i,n] = row_scale[i] * sum_g w_scale[n,g] * (sum_{k in g} a[i,k] * w[n,k]) (+ bias[n])`.
///
/// `a` is `[M, K]`, `row_scale` has M entries, `w_scale` is `[N, groups]`, `bias` has N entries and `out` is
/// `[M, N]`. The integer sum is exact inside a group. Then, in f32: the sum is rounded, multiplied with the
/// group's scale and added, in the order of the groups and without fused operations; the total is multiplied with
/// `row_scale[i]`; the bias comes last. All levels therefore give the same bits.
pub fn gemm_i8_scaled(
    a: TensorView<'_, i8, 2>,
    w: &PackedI8,
    row_scale: &[f32],
    w_scale: TensorView<'_, f32, 2>,
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
) -> Result<()> {
    gemm_i8_scaled_with(Isa::best(), a, w, row_scale, w_scale, bias, out)
}

/// [`gemm_i8_scaled`] at a given level.
pub fn gemm_i8_scaled_with(
    isa: Isa,
    a: TensorView<'_, i8, 2>,
    w: &PackedI8,
    row_scale: &[f32],
    w_scale: TensorView<'_, f32, 2>,
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
) -> Result<()> {
    let ([m, k], groups) = (a.shape(), w.groups());
    check(m, k, w, out.shape())?;
    if row_scale.len() != m {
        return Err(Error::shape("row_scale", format!("{m} entries, one per row of a"), &[row_scale.len()]));
    }
    if w_scale.shape() != [w.shape[0], groups] {
        let expected = format!("[{}, {groups}], one per row of w and group of {}", w.shape[0], w.group);
        return Err(Error::shape("w_scale", expected, &w_scale.shape()));
    }
    if let Some(bias) = bias {
        check_columns("bias", bias.len(), w)?;
    }
    let prepare = |columns: Range<usize>| {
        let mut scales = vec![0f32; groups * NR];
        for (c, n) in columns.clone().enumerate() {
            for g in 0..groups {
                scales[g * NR + c] = w_scale.at([n, g]);
            }
        }
        let mut shift = [0f32; NR];
        if let Some(bias) = bias {
            shift[..columns.len()].copy_from_slice(&bias[columns]);
        }
        (scales, shift)
    };
    blocked(isa, a, w, out, prepare, |(scales, shift), first_row, rows, panel, result| {
        let count = rows.count;
        int8::scaled(isa, rows, panel, scales, result);
        for (values, &by) in result.iter_mut().zip(&row_scale[first_row..first_row + count]) {
            match bias {
                Some(_) => values.iter_mut().zip(shift).for_each(|(v, s)| *v = *v * by + s),
                None => values.iter_mut().for_each(|v| *v *= by),
            }
        }
    })
}

/// `out[i,n] = sum_k a[i,k] * w[n,k]`, exact.
fn sums<T: Code>(
    isa: Isa,
    a: TensorView<'_, T, 2>,
    w: &PackedI8,
    out: TensorViewMut<'_, i32, 2>,
) -> Result<()> {
    let [m, k] = a.shape();
    check(m, k, w, out.shape())?;
    check_whole::<T>(w)?;
    blocked(
        isa,
        a,
        w,
        out,
        |columns| missing::<T>(isa, w, columns),
        |missing, _, rows, panel, result| {
            int8::sums(isa, rows, panel, result);
            if let Some(missing) = missing {
                for values in result {
                    values.iter_mut().zip(missing).for_each(|(v, &m)| *v = v.wrapping_add(m));
                }
            }
        },
    )
}

/// What the sums of shifted activations lack: the shift times the sums of the weights.
fn missing<T: Code>(isa: Isa, w: &PackedI8, columns: Range<usize>) -> Option<[i32; NR]> {
    let shift = i32::from(Quads::of(isa, T::SIGNED).shift());
    let mut missing = [0; NR];
    missing.iter_mut().zip(&w.sums[columns]).for_each(|(m, &sum)| *m = shift.wrapping_mul(sum));
    (shift != 0).then_some(missing)
}

/// The plain products need one group, short enough for an i32.
fn check_whole<T: Code>(w: &PackedI8) -> Result<()> {
    let limit = if T::SIGNED { MAX_GROUP_I8 } else { MAX_DEPTH_U8I8 };
    if w.groups() > 1 {
        return Err(Error::argument("w", "weights packed as one group", format!("{} groups", w.groups())));
    }
    if w.shape[1] > limit {
        let expected = format!("at most {limit} columns, whose sums fit an i32");
        return Err(Error::argument("w", expected, w.shape[1]));
    }
    Ok(())
}

fn multiply<T: Code>(a: TensorView<'_, T, 2>, w: &PackedI8) -> Result<Tensor<i32, 2>> {
    let mut out = Tensor::zeros([a.rows(), w.shape[0]])?;
    sums(Isa::best(), a, w, out.view_mut())?;
    Ok(out)
}

fn pack_columns<T: Code>(a: TensorView<'_, T, 2>, b: TensorView<'_, i8, 2>) -> Result<PackedI8> {
    if a.cols() != b.rows() {
        return Err(Error::shape("b", format!("[{}, N] to match a {:?}", a.cols(), a.shape()), &b.shape()));
    }
    PackedI8::pack(b.transposed(), 0)
}

/// `a [M, K] x b [K, N] -> i32 [M, N]` of signed bytes, exact. K is at most [`MAX_GROUP_I8`].
///
/// ```
/// # use kc_core::TensorView;
/// let a = TensorView::from_slice([1, 2], &[-128i8, 127])?;
/// let b = TensorView::from_slice([2, 1], &[-128i8, 127])?;
/// assert_eq!(kc_gemm::gemm_i8(a, b)?.as_slice(), [128 * 128 + 127 * 127]);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn gemm_i8(a: TensorView<'_, i8, 2>, b: TensorView<'_, i8, 2>) -> Result<Tensor<i32, 2>> {
    multiply(a, &pack_columns(a, b)?)
}

/// `a [M, K] x b [K, N] -> i32 [M, N]` of unsigned and signed bytes, exact. K is at most [`MAX_DEPTH_U8I8`].
pub fn gemm_u8i8(a: TensorView<'_, u8, 2>, b: TensorView<'_, i8, 2>) -> Result<Tensor<i32, 2>> {
    multiply(a, &pack_columns(a, b)?)
}

/// [`gemm_i8`] with weights `[N, K]` packed before, as one group.
pub fn gemm_i8_packed(a: TensorView<'_, i8, 2>, w: &PackedI8) -> Result<Tensor<i32, 2>> {
    multiply(a, w)
}

/// [`gemm_u8i8`] with weights `[N, K]` packed before, as one group.
pub fn gemm_u8i8_packed(a: TensorView<'_, u8, 2>, w: &PackedI8) -> Result<Tensor<i32, 2>> {
    multiply(a, w)
}

/// [`gemm_i8_packed`] into `out`, at a given level.
pub fn gemm_i8_packed_into_with(
    isa: Isa,
    a: TensorView<'_, i8, 2>,
    w: &PackedI8,
    out: TensorViewMut<'_, i32, 2>,
) -> Result<()> {
    sums(isa, a, w, out)
}

/// [`gemm_u8i8_packed`] into `out`, at a given level.
pub fn gemm_u8i8_packed_into_with(
    isa: Isa,
    a: TensorView<'_, u8, 2>,
    w: &PackedI8,
    out: TensorViewMut<'_, i32, 2>,
) -> Result<()> {
    sums(isa, a, w, out)
}

/// How an unsigned 8-bit activation stands for a real number: `scale * (code - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The step.
    pub scale: f32,
    /// The code of zero.
    pub zero: u8,
}

/// `out[i,n] = a.scale * w_scale[n] * (sum_k a[i,k] w[n,k] - a.zero * sum_k w[n,k]) (+ bias[n])`.
///
/// The difference is exact modulo `2^32`; it is rounded to f32, multiplied with `a.scale * w_scale[n]`, and the
/// bias comes last.
pub fn gemm_u8i8_dequant(
    a: TensorView<'_, u8, 2>,
    affine: Affine,
    w: &PackedI8,
    w_scale: &[f32],
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
) -> Result<()> {
    gemm_u8i8_dequant_with(Isa::best(), a, affine, w, w_scale, bias, out)
}

/// [`gemm_u8i8_dequant`] at a given level.
pub fn gemm_u8i8_dequant_with(
    isa: Isa,
    a: TensorView<'_, u8, 2>,
    affine: Affine,
    w: &PackedI8,
    w_scale: &[f32],
    bias: Option<&[f32]>,
    out: TensorViewMut<'_, f32, 2>,
) -> Result<()> {
    let [m, k] = a.shape();
    check(m, k, w, out.shape())?;
    check_whole::<u8>(w)?;
    check_columns("w_scale", w_scale.len(), w)?;
    if let Some(bias) = bias {
        check_columns("bias", bias.len(), w)?;
    }
    let zero = i32::from(affine.zero) - i32::from(Quads::of(isa, false).shift());
    blocked(
        isa,
        a,
        w,
        out,
        |columns| columns,
        |columns, _, rows, panel, result| {
            let mut sums = [[0i32; NR]; MAX_ROWS];
            let count = rows.count;
            int8::sums(isa, rows, panel, &mut sums);
            for (values, sums) in result[..count].iter_mut().zip(&sums) {
                for ((value, &sum), n) in values.iter_mut().zip(sums).zip(columns.clone()) {
                    let centred = sum.wrapping_sub(zero.wrapping_mul(w.sums[n]));
                    *value = centred as f32 * (affine.scale * w_scale[n]) + bias.map_or(0.0, |b| b[n]);
                }
            }
        },
    )
}
