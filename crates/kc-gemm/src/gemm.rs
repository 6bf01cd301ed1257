//! The five loops: columns, depth, rows, and inside of a block the panels of both operands.
//!
//! `B` is packed once per block of depth and columns and shared by all threads; each block of rows packs its part
//! of `A`. Threads take blocks of rows and, inside of one, ranges of columns, so they never share an element of
//! the result; the cut of the sum depends on K and the processor alone. One thread and many give the same bits.
//!
//! Sums run in the type of the result over at most about a thousand terms (one block of depth, with fused
//! multiply-add where the level has it), and the blocks are added in order: `|error| <= K eps |a| |b|` as for any
//! order of summation, in practice about `sqrt(K)`. f16 and bf16 widen exactly in the packer.
//!
//! NaN and infinity go through as in the definition; `beta = 0` never reads the result. A product with one row
//! or one column streams the matrix once without packing ([`gemv`]).

use std::cell::RefCell;
use std::ops::Range;

use kc_core::bytemuck;
use kc_core::{AlignedBuf, Error, Float, Isa, Result, Tensor, TensorView, TensorViewMut, bf16, f16};
use rayon::prelude::*;

use crate::Real;
use crate::blocking::{Blocking, Caches};
use crate::epilogue::{Epilogue, FinishedTile};
use crate::micro::float::{Kernel, block};
use crate::micro::vector;
use crate::packed::PackedB;
use crate::panel::{Lines, PanelSource};

/// Products with fewer multiplications stay on the calling thread.
const SERIAL: usize = 1 << 19;
/// A piece of work of one thread has at least this many columns.
const COLUMNS_PER_PIECE: usize = 256;

/// An element that can be multiplied: f32, f64, f16 or bf16.
pub trait Operand: Float {
    /// The type of the sums: f64 for f64, f32 for all others.
    type Sum: Real;

    #[doc(hidden)]
    fn as_sums(view: TensorView<'_, Self, 2>) -> Option<TensorView<'_, Self::Sum, 2>>;
    #[doc(hidden)]
    fn round(sums: Tensor<Self::Sum, 2>) -> Result<Tensor<Self, 2>>;
}

macro_rules! same_sums {
    ($($t:ident),*) => {$(
        impl Operand for $t {
            type Sum = $t;
            fn as_sums(view: TensorView<'_, Self, 2>) -> Option<TensorView<'_, Self, 2>> {
                Some(view)
            }
            fn round(sums: Tensor<Self, 2>) -> Result<Tensor<Self, 2>> {
                Ok(sums)
            }
        }
    )*};
}

macro_rules! wide_sums {
    ($($t:ident),*) => {$(
        impl Operand for $t {
            type Sum = f32;
            fn as_sums(_: TensorView<'_, Self, 2>) -> Option<TensorView<'_, f32, 2>> {
                None
            }
            fn round(sums: Tensor<f32, 2>) -> Result<Tensor<Self, 2>> {
                let mut out = Tensor::zeros(sums.shape())?;
                out.as_mut_slice().iter_mut().zip(sums.as_slice()).for_each(|(o, &s)| *o = Self::from_f32(s));
                Ok(out)
            }
        }
    )*};
}

same_sums!(f32, f64);
wide_sums!(f16, bf16);

/// `a [M, K] x b [K, N]`, any strides.
///
/// ```
/// use kc_core::TensorView;
/// let a = TensorView::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(kc_gemm::gemm(a, a.transposed())?.as_slice(), [5.0, 11.0, 11.0, 25.0]);
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn gemm<T: Operand>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
    check_depth(a.shape(), b.shape())?;
    let mut sums = Tensor::<T::Sum, 2>::zeros([a.rows(), b.cols()])?;
    gemm_into(T::Sum::ONE, a, b, T::Sum::default(), sums.view_mut())?;
    T::round(sums)
}

/// `out = alpha a b + beta out`, any strides. `beta = 0` does not read `out`.
pub fn gemm_into<T: Operand>(
    alpha: T::Sum,
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    beta: T::Sum,
    out: TensorViewMut<'_, T::Sum, 2>,
) -> Result<()> {
    gemm_into_with(Isa::best(), alpha, a, b, beta, out)
}

/// [`gemm_into`] at a given level.
pub fn gemm_into_with<T: Operand>(
    isa: Isa,
    alpha: T::Sum,
    a: TensorView<'_, T, 2>,
    b: TensorView<'_, T, 2>,
    beta: T::Sum,
    mut out: TensorViewMut<'_, T::Sum, 2>,
) -> Result<()> {
    check_depth(a.shape(), b.shape())?;
    check_out([a.rows(), b.cols()], out.shape())?;
    if let (Some(a), Some(b)) = (T::as_sums(a), T::as_sums(b)) {
        let vector = if b.cols() == 1 {
            Some((a, b.transposed()))
        } else if a.rows() == 1 {
            Some((b.transposed(), a))
        } else {
            None
        };
        if let Some((matrix, x)) = vector
            && streams(matrix)
        {
            let x = x.row(0).to_cow();
            let mut sums = Tensor::<T::Sum, 1>::zeros([matrix.rows()])?;
            stream(isa, matrix, &x, sums.as_mut_slice());
            return write(alpha, sums.as_slice(), beta, out);
        }
    }
    let strides = out.strides();
    if strides[1] == 1 || out.shape()[1] <= 1 {
        return product(isa, alpha, &Lines::rows(a), Right::Source(&Lines::columns(b)), beta, out);
    }
    if strides[0] == 1 {
        let (left, right) = (Lines::rows(b.transposed()), Lines::columns(a.transposed()));
        return product(isa, alpha, &left, Right::Source(&right), beta, out.transposed());
    }
    let mut whole = Tensor::zeros(out.shape())?;
    product(
        isa,
        T::Sum::ONE,
        &Lines::rows(a),
        Right::Source(&Lines::columns(b)),
        T::Sum::default(),
        whole.view_mut(),
    )?;
    write(alpha, whole.as_slice(), beta, out.reborrow())
}

/// `out = alpha sums + beta out`, `sums` in row-major order.
fn write<T: Real>(alpha: T, sums: &[T], beta: T, mut out: TensorViewMut<'_, T, 2>) -> Result<()> {
    let columns = out.shape()[1].max(1);
    for (at, &sum) in sums.iter().enumerate() {
        let index = [at / columns, at % columns];
        let old = if beta == T::default() { T::default() } else { beta * out.as_view().at(index) };
        out.set(index, alpha * sum + old);
    }
    Ok(())
}

/// `out = alpha a b + beta out` with a right operand packed before. The same bits as [`gemm_into`].
pub fn gemm_packed_into<T: Operand>(
    alpha: T::Sum,
    a: TensorView<'_, T, 2>,
    b: &PackedB<T::Sum>,
    beta: T::Sum,
    out: TensorViewMut<'_, T::Sum, 2>,
) -> Result<()> {
    let [_, n] = b.shape();
    check_depth(a.shape(), b.shape())?;
    check_out([a.rows(), n], out.shape())?;
    if n > 1 && out.strides()[1] != 1 {
        return Err(Error::unsupported("out", "a packed product needs adjacent columns in its result"));
    }
    product(b.isa(), alpha, &Lines::rows(a), Right::<Lines<'_, T>, _>::Packed(b), beta, out)
}

/// A product of generated operands whose finished tiles go to `epilogue`; the product is never stored as a whole.
///
/// `a.lines()` is M, `b.lines()` is N, both depths are K. See [`PanelSource`] and [`Epilogue`].
pub fn gemm_fused<T: Real, E: Epilogue<T>>(
    a: &impl PanelSource<T>,
    b: &impl PanelSource<T>,
    epilogue: E,
) -> Result<()> {
    gemm_fused_with(Isa::best(), a, b, epilogue)
}

/// [`gemm_fused`] at a given level.
pub fn gemm_fused_with<T: Real, E: Epilogue<T>>(
    isa: Isa,
    a: &impl PanelSource<T>,
    b: &impl PanelSource<T>,
    epilogue: E,
) -> Result<()> {
    let (m, n, k) = (a.lines(), b.lines(), a.depth());
    check_depth([m, k], [b.depth(), n])?;
    let kernel = T::kernel(isa);
    let Blocking { mc, kc, nc } =
        Blocking::of(Caches::here(), size_of::<T>(), [kernel.mr, kernel.nr], [m, k]);
    // All of K stays packed for the columns at hand, in the memory of one ordinary block.
    let nc = (nc * kc / k.max(1) / kernel.nr * kernel.nr).clamp(16 * kernel.nr, nc.max(16 * kernel.nr));
    let nc = nc.min(n.next_multiple_of(kernel.nr).max(kernel.nr));
    let mut parts = Vec::with_capacity(m.div_ceil(mc));
    let mut rest = epilogue;
    for first in (0..m).step_by(mc) {
        if first + mc >= m {
            parts.push((first, rest));
            break;
        }
        let (head, tail) = rest.split_rows(mc);
        parts.push((first, head));
        rest = tail;
    }
    let parallel = m.saturating_mul(n).saturating_mul(k) >= SERIAL;
    with_scratch(nc.saturating_mul(k), |packed: &mut [T]| {
        for first_column in (0..n).step_by(nc) {
            let columns = first_column..n.min(first_column + nc);
            let width = columns.len().next_multiple_of(kernel.nr);
            for start in (0..k).step_by(kc) {
                let depth = start..k.min(start + kc);
                let to = &mut packed[start * width..depth.end * width];
                pack(b, columns.clone(), depth, kernel.nr, parallel, to);
            }
            let packed = &*packed;
            each(&mut parts, parallel, |(first_row, part)| {
                let rows = *first_row..m.min(*first_row + mc);
                with_scratch(rows.len() * columns.len(), |sums: &mut [T]| {
                    sums.fill(T::default());
                    for start in (0..k).step_by(kc) {
                        let depth = start..k.min(start + kc);
                        let right = &packed[start * width..depth.end * width];
                        with_scratch(
                            rows.len().next_multiple_of(kernel.mr) * depth.len(),
                            |left: &mut [T]| {
                                pack(a, rows.clone(), depth.clone(), kernel.mr, false, left);
                                let mut out = TensorViewMut::from_slice([rows.len(), columns.len()], sums)?;
                                block(kernel, depth.len(), left, right, &mut out, T::ONE, start > 0);
                                Ok(())
                            },
                        )?;
                    }
                    part.finish(rows.start, FinishedTile { rows, columns: columns.clone(), values: sums });
                    Ok(())
                })
            })?;
        }
        Ok(())
    })
}

/// Runs `body` on every item, on several threads if `parallel`.
fn each<I: Send>(
    items: &mut [I],
    parallel: bool,
    body: impl Fn(&mut I) -> Result<()> + Send + Sync,
) -> Result<()> {
    if parallel && rayon::current_num_threads() > 1 {
        items.par_iter_mut().try_for_each(body)
    } else {
        items.iter_mut().try_for_each(body)
    }
}

/// The right operand of a product.
pub(crate) enum Right<'a, S, T: Real> {
    Source(&'a S),
    Packed(&'a PackedB<T>),
}

/// `out = alpha a b + beta out`; the columns of `out` are adjacent.
fn product<T: Real, S: PanelSource<T>>(
    isa: Isa,
    alpha: T,
    a: &impl PanelSource<T>,
    b: Right<'_, S, T>,
    beta: T,
    mut out: TensorViewMut<'_, T, 2>,
) -> Result<()> {
    let ([m, n], k) = (out.shape(), a.depth());
    if beta != T::ONE && (beta != T::default() || k == 0) {
        for i in 0..m {
            let mut row = out.row_mut(i);
            for slot in row.as_mut_slice().unwrap_or_default() {
                *slot = if beta == T::default() { beta } else { beta * *slot };
            }
        }
    }
    let kernel = T::kernel(isa);
    let Blocking { mc, kc, nc } =
        Blocking::of(Caches::here(), size_of::<T>(), [kernel.mr, kernel.nr], [m, k]);
    let parallel = m.saturating_mul(n).saturating_mul(k) >= SERIAL && rayon::current_num_threads() > 1;
    let widest = nc.min(n.next_multiple_of(kernel.nr));
    let packed_len = if matches!(b, Right::Packed(_)) { 0 } else { widest * kc };
    with_scratch(packed_len, |buffer: &mut [T]| {
        for first_column in (0..n).step_by(nc) {
            let columns = first_column..n.min(first_column + nc);
            let width = columns.len().next_multiple_of(kernel.nr);
            let mut stripe = out.reborrow().slice(1, columns.clone())?;
            for start in (0..k).step_by(kc) {
                let depth = start..k.min(start + kc);
                let right: &[T] = match &b {
                    Right::Packed(packed) => packed.block(columns.start, depth.clone()),
                    Right::Source(source) => {
                        let to = &mut buffer[..width * depth.len()];
                        pack(*source, columns.clone(), depth.clone(), kernel.nr, parallel, to);
                        to
                    }
                };
                let add = start > 0 || beta != T::default();
                let task = Task { kernel, depth: depth.len(), right, alpha, add };
                let mut blocks: Vec<_> = stripe.reborrow().chunks(0, mc)?.into_iter().enumerate().collect();
                each(&mut blocks, parallel, |(i, out)| {
                    let rows = *i * mc..m.min(*i * mc + mc);
                    with_scratch(rows.len().next_multiple_of(kernel.mr) * depth.len(), |left: &mut [T]| {
                        pack(a, rows, depth.clone(), kernel.mr, false, left);
                        task.run(left, 0, out.reborrow(), parallel)
                    })
                })?;
            }
        }
        Ok(())
    })
}

/// One block of rows with one block of columns.
struct Task<'a, T: Real> {
    kernel: Kernel<T>,
    depth: usize,
    right: &'a [T],
    alpha: T,
    add: bool,
}

impl<T: Real> Task<'_, T> {
    /// Halves the columns for idle threads, down to a few panels.
    fn run(&self, left: &[T], column: usize, mut out: TensorViewMut<'_, T, 2>, parallel: bool) -> Result<()> {
        let columns = out.shape()[1];
        if parallel && columns >= 2 * COLUMNS_PER_PIECE {
            let half = (columns / 2).next_multiple_of(self.kernel.nr);
            let (head, tail) = out.split_at(1, half)?;
            let (x, y) = rayon::join(
                || self.run(left, column, head, true),
                || self.run(left, column + half, tail, true),
            );
            return x.and(y);
        }
        let right = &self.right[column * self.depth..];
        block(self.kernel, self.depth, left, right, &mut out, self.alpha, self.add);
        Ok(())
    }
}

/// Packs `lines` in panels of `width`.
pub(crate) fn pack<T: Real>(
    source: &impl PanelSource<T>,
    lines: Range<usize>,
    depth: Range<usize>,
    width: usize,
    parallel: bool,
    out: &mut [T],
) {
    if depth.is_empty() {
        return;
    }
    let fill = |(i, panel): (usize, &mut [T])| {
        let first = lines.start + i * width;
        source.fill(first..lines.end.min(first + width), depth.clone(), width, panel);
    };
    if parallel && rayon::current_num_threads() > 1 {
        out.par_chunks_mut(width * depth.len()).with_min_len(4).enumerate().for_each(fill);
    } else {
        out.chunks_mut(width * depth.len()).enumerate().for_each(fill);
    }
}

/// `body` with a buffer of this thread that is kept for the next call. Its content is what was left there.
pub(crate) fn with_scratch<T: Real, R>(len: usize, body: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
    thread_local! {
        static KEPT: RefCell<Vec<AlignedBuf<u8>>> = const { RefCell::new(Vec::new()) };
    }
    let bytes = len.saturating_mul(size_of::<T>());
    // Taken out while in use: a thread that waits for a part of its work may start on another product.
    let kept = KEPT.with_borrow_mut(|kept| {
        kept.iter().position(|buffer| buffer.len() >= bytes).map(|at| kept.swap_remove(at))
    });
    let mut buffer = match kept {
        Some(buffer) => buffer,
        // Never empty, so that it is aligned for every type.
        None => AlignedBuf::zeroed(bytes.max(1).next_multiple_of(4096))?,
    };
    let result = body(&mut bytemuck::cast_slice_mut(&mut buffer[..bytes])[..len]);
    KEPT.with_borrow_mut(|kept| {
        if kept.len() == 4 {
            // Room for the newest, at the price of the smallest.
            if let Some(at) = (0..4).min_by_key(|&i| kept[i].len()) {
                kept.swap_remove(at);
            }
        }
        kept.push(buffer);
    });
    result
}

/// `a [M, K]` times the vector `x`.
///
/// Reads `a` once, without packing, if its rows or its columns are contiguous.
pub fn gemv<T: Real + Operand<Sum = T>>(a: TensorView<'_, T, 2>, x: &[T]) -> Result<Tensor<T, 1>> {
    let x = TensorView::from_slice([x.len(), 1], x)?;
    check_depth(a.shape(), x.shape())?;
    let mut out = Tensor::zeros([a.rows(), 1])?;
    gemm_into(T::ONE, a, x, T::default(), out.view_mut())?;
    let rows = out.len();
    out.reshape([rows])
}

/// The transpose of `a [K, N]` times the vector `x`: see [`gemv`].
pub fn gemv_t<T: Real + Operand<Sum = T>>(a: TensorView<'_, T, 2>, x: &[T]) -> Result<Tensor<T, 1>> {
    gemv(a.transposed(), x)
}

fn contiguous_rows<T: Float>(a: TensorView<'_, T, 2>) -> bool {
    a.strides()[1] == 1 || a.cols() <= 1
}

/// A matrix that a vector product can read as it lies.
fn streams<T: Float>(a: TensorView<'_, T, 2>) -> bool {
    contiguous_rows(a) || contiguous_rows(a.transposed())
}

/// `out = a x`.
fn stream<T: Real>(isa: Isa, a: TensorView<'_, T, 2>, x: &[T], out: &mut [T]) {
    let (m, k) = (a.rows(), a.cols());
    let by_rows = contiguous_rows(a);
    // A row is read whole; columns in pieces of the result that stay in the first cache.
    let chunk = if by_rows { 32 } else { 2048 };
    let body = |(i, out): (usize, &mut [T])| {
        let rows = i * chunk..i * chunk + out.len();
        let Ok(part) = a.slice(0, rows) else { return };
        if by_rows {
            vector::dots(isa, part, x, out);
        } else {
            vector::combine(isa, part.transposed(), x, out);
        }
    };
    if m.saturating_mul(k) >= SERIAL && rayon::current_num_threads() > 1 {
        out.par_chunks_mut(chunk).enumerate().for_each(body);
    } else {
        out.chunks_mut(chunk).enumerate().for_each(body);
    }
}

pub(crate) fn check_depth(a: [usize; 2], b: [usize; 2]) -> Result<()> {
    if a[1] == b[0] {
        return Ok(());
    }
    Err(Error::shape("b", format!("[{}, N] to match a {a:?}", a[1]), &b))
}

pub(crate) fn check_out(expected: [usize; 2], got: [usize; 2]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::shape("out", format!("{expected:?}"), &got))
}
