//! The inner loops, in safe code over `f32` and `f64`. `x86.rs` compiles them once per instruction set, and has products
//! of its own.
//!
//! Widths of rows are multiples of [`LANES`]; what pads them is chosen so that it adds nothing.

use kc_core::math::Real;
use kc_core::math::portable::{Arith, Plain};
use kc_core::{Isa, Level};
use kc_gemm::Operand;

/// Rows are padded to multiples of this.
pub(super) const LANES: usize = 8;

/// Rows and columns of a register tile of a product.
const ROWS: usize = 4;
const COLUMNS: usize = 2 * LANES;

/// `c [rows, columns] (+)= a b` with `a[r, k]` at `r row_step + k depth_step`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a, T> {
    pub(super) a: &'a [T],
    pub(super) row_step: usize,
    pub(super) depth_step: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    /// Rows of `columns` or more.
    pub(super) b: &'a [T],
    pub(super) b_step: usize,
    /// A multiple of [`LANES`].
    pub(super) columns: usize,
    pub(super) c_step: usize,
    /// Adds to `c` instead of replacing it.
    pub(super) add: bool,
}

impl<T> Product<'_, T> {
    /// Every element that is read or written lies inside of the slices.
    pub(super) fn fits(&self, c: &[T]) -> bool {
        if self.rows == 0 || self.columns == 0 {
            return true;
        }
        let (last, deepest) = (self.rows - 1, self.depth.saturating_sub(1));
        self.columns.is_multiple_of(LANES)
            && (self.depth == 0
                || (last * self.row_step + deepest * self.depth_step < self.a.len()
                    && deepest * self.b_step + self.columns <= self.b.len()))
            && last * self.c_step + self.columns <= c.len()
    }
}

/// f32, or f64 for gradient checks. Sealed through `Real`.
pub trait Scalar: Real + Operand<Sum = Self> {
    #[doc(hidden)]
    fn product(isa: Isa, product: Product<'_, Self>, c: &mut [Self]);
}

macro_rules! scalars {
    ($($real:ty, $name:ident;)*) => {$(
        impl Scalar for $real {
            fn product(isa: Isa, p: Product<'_, $real>, c: &mut [$real]) {
                match isa.level() {
                    Level::Portable => product::<$real, Plain>(p, c),
                    #[cfg(target_arch = "x86_64")]
                    _ => super::x86::$name(isa, p, c),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => product::<$real, Plain>(p, c),
                }
            }
        }
    )*};
}

scalars! {
    f32, product_f32;
    f64, product_f64;
}

/// A body of this file, compiled for the level.
macro_rules! at_level {
    ($isa:expr, $name:ident ( $($arg:expr),* )) => {
        match $isa.level() {
            kc_core::Level::Portable => {
                $crate::soft::portable::$name::<_, kc_core::math::portable::Plain>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            _ => $crate::soft::x86::$name($isa, $($arg),*),
            #[cfg(not(target_arch = "x86_64"))]
            _ => $crate::soft::portable::$name::<_, kc_core::math::portable::Plain>($($arg),*),
        }
    };
}
pub(super) use at_level;

/// [`Scalar::product`].
#[inline(always)]
pub(super) fn product<T: Real, A: Arith>(p: Product<'_, T>, c: &mut [T]) {
    assert!(p.fits(c), "a product inside of its slices");
    let mut column = 0;
    while column < p.columns {
        let wide = p.columns - column >= COLUMNS;
        let mut row = 0;
        while row < p.rows {
            let tall = p.rows - row >= ROWS;
            match (tall, wide) {
                (true, true) => tile::<T, A, ROWS, COLUMNS>(&p, row, column, c),
                (true, false) => tile::<T, A, ROWS, LANES>(&p, row, column, c),
                (false, true) => tile::<T, A, 1, COLUMNS>(&p, row, column, c),
                (false, false) => tile::<T, A, 1, LANES>(&p, row, column, c),
            }
            row += if tall { ROWS } else { 1 };
        }
        column += if wide { COLUMNS } else { LANES };
    }
}

#[inline(always)]
fn tile<T: Real, A: Arith, const R: usize, const W: usize>(
    p: &Product<'_, T>,
    row: usize,
    column: usize,
    c: &mut [T],
) {
    let mut sums = [[T::ZERO; W]; R];
    for k in 0..p.depth {
        let (mut b, from) = ([T::ZERO; W], k * p.b_step + column);
        b.copy_from_slice(&p.b[from..from + W]);
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = p.a[(row + r) * p.row_step + k * p.depth_step];
            for w in 0..W {
                sums[w] = T::fma::<A>(a, b[w], sums[w]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let from = (row + r) * p.c_step + column;
        let c = &mut c[from..from + W];
        for w in 0..W {
            c[w] = if p.add { c[w] + sums[w] } else { sums[w] };
        }
    }
}

/// `rows = scale * from - centre`; `bias` minus half their squares, or minus infinity where `bias` was that before.
#[inline(always)]
pub(super) fn centre<T: Real, A: Arith>(from: &[T], rows: &mut [T], scale: T, centre: &[T], bias: &mut [T]) {
    let pairs = from.chunks_exact(centre.len()).zip(rows.chunks_exact_mut(centre.len()));
    for ((from, row), bias) in pairs.zip(bias) {
        let mut squares = [T::ZERO; LANES];
        let lanes = row.as_chunks_mut::<LANES>().0.iter_mut().zip(from.as_chunks::<LANES>().0);
        for ((x, from), c) in lanes.zip(centre.as_chunks::<LANES>().0) {
            for l in 0..LANES {
                x[l] = T::fma::<A>(from[l], scale, -c[l]);
                squares[l] = T::fma::<A>(x[l], x[l], squares[l]);
            }
        }
        if *bias == T::ZERO {
            *bias = -(T::HALF * total(squares));
        }
    }
}

/// The lanes' sum, in a tree.
#[inline(always)]
fn total<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] = lanes[l] + lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `exp(min(0, k + row bias + column bias))`; 0 below the smallest normal number.
#[inline(always)]
pub(super) fn gaussian<T: Real, A: Arith>(k: &mut [T], row_bias: &[T], column_bias: &[T]) {
    for (row, &bias) in k.chunks_exact_mut(column_bias.len()).zip(row_bias) {
        for (k, b) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(column_bias.as_chunks::<LANES>().0) {
            for l in 0..LANES {
                k[l] = exp_below_zero::<T, A>(k[l] + (bias + b[l]));
            }
        }
    }
}

/// `e^min(0, x)`: with nothing to do about overflow and denormal numbers, half the work of the general function.
#[inline(always)]
fn exp_below_zero<T: Real, A: Arith>(x: T) -> T {
    let low = T::from_f64(if size_of::<T>() == 4 { -87.0 } else { -708.0 });
    let tiny = x < low;
    let x = if x > T::ZERO { T::ZERO } else { x };
    let x = if tiny { low } else { x };
    let t = T::fma::<A>(x, T::LOG2_E, T::ROUND);
    let n = t - T::ROUND;
    let r = T::fma::<A>(n, -T::LN2[0], x);
    let r = T::fma::<A>(n, -T::LN2[1], r);
    let mut p = T::ZERO;
    for &c in T::EXP.iter().rev() {
        p = T::fma::<A>(p, r, c);
    }
    let power = T::power_of_two(t);
    let y = T::fma::<A>(T::fma::<A>(r * r, p, r), power, power);
    if tiny { T::ZERO } else { y }
}

/// `dk` becomes `dk k`; its sums by row (written) and by column (added).
#[inline(always)]
pub(super) fn gate<T: Real, A: Arith>(k: &[T], dk: &mut [T], row_sums: &mut [T], column_sums: &mut [T]) {
    let width = column_sums.len();
    for ((k, dk), sum) in k.chunks_exact(width).zip(dk.chunks_exact_mut(width)).zip(row_sums) {
        let mut sums = [T::ZERO; LANES];
        let columns = column_sums.as_chunks_mut::<LANES>().0.iter_mut();
        let pairs = k.as_chunks::<LANES>().0.iter().zip(dk.as_chunks_mut::<LANES>().0);
        for ((k, dk), columns) in pairs.zip(columns) {
            for l in 0..LANES {
                sums[l] = T::fma::<A>(dk[l], k[l], sums[l]);
                columns[l] = T::fma::<A>(dk[l], k[l], columns[l]);
                dk[l] = dk[l] * k[l];
            }
        }
        *sum = total(sums);
    }
}

/// Rows become `products - sums * rows`, the gradient by the point of a Gaussian kernel.
#[inline(always)]
pub(super) fn pull<T: Real, A: Arith>(products: &mut [T], sums: &[T], rows: &[T], width: usize) {
    for ((to, row), &sum) in products.chunks_exact_mut(width).zip(rows.chunks_exact(width)).zip(sums) {
        for (to, x) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0) {
            for l in 0..LANES {
                to[l] = T::fma::<A>(-sum, x[l], to[l]);
            }
        }
    }
}

/// `out[j] = -|point - rows[j]|^2 / 2`
#[inline(always)]
pub(super) fn apart<T: Real, A: Arith>(point: &[T], rows: &[T], out: &mut [T]) {
    let (blocks, rest) = point.as_chunks::<LANES>();
    for (row, out) in rows.chunks_exact(point.len()).zip(out) {
        let (row, row_rest) = row.as_chunks::<LANES>();
        let mut sums = [T::ZERO; LANES];
        for (x, y) in blocks.iter().zip(row) {
            for l in 0..LANES {
                let gap = x[l] - y[l];
                sums[l] = T::fma::<A>(gap, gap, sums[l]);
            }
        }
        for ((x, y), sum) in rest.iter().zip(row_rest).zip(&mut sums) {
            let gap = *x - *y;
            *sum = T::fma::<A>(gap, gap, *sum);
        }
        *out = -(T::HALF * total(sums));
    }
}

/// The largest size in every lane of `x`, not below `most`; NaN if there is one.
#[expect(clippy::extra_unused_type_parameters, reason = "levels name an arithmetic for every body")]
#[inline(always)]
pub(super) fn largest<T: Real, A: Arith>(x: &[T], most: &mut [T; LANES]) {
    for x in x.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            let size = x[l].abs();
            most[l] = if size > most[l] || size.is_nan() { size } else { most[l] };
        }
    }
}

/// Elements of a row of the local branch that are kept in registers.
const STRETCH: usize = 4 * LANES;

/// `out[i] += sum_t taps[t] x[i + t step]`; `x` has `(taps - 1) step` elements more than `out`.
#[inline(always)]
pub(super) fn slide<T: Real, A: Arith>(x: &[T], taps: &[T], step: usize, out: &mut [T]) {
    let (blocks, rest) = out.as_chunks_mut::<STRETCH>();
    let done = blocks.len() * STRETCH;
    for (b, out) in blocks.iter_mut().enumerate() {
        let mut sums = *out;
        for (t, &tap) in taps.iter().enumerate() {
            let from = b * STRETCH + t * step;
            let mut x_block = [T::ZERO; STRETCH];
            x_block.copy_from_slice(&x[from..from + STRETCH]);
            for l in 0..STRETCH {
                sums[l] = T::fma::<A>(tap, x_block[l], sums[l]);
            }
        }
        *out = sums;
    }
    for (i, out) in rest.iter_mut().enumerate() {
        for (t, &tap) in taps.iter().enumerate() {
            *out = T::fma::<A>(tap, x[done + i + t * step], *out);
        }
    }
}
