//! What the loops over tiles are made of: a product of packed tiles, a step of the running softmax, and the
//! weights and slopes of the backward pass, each at every level.

#[cfg(target_arch = "x86_64")]
use kc_core::Level;
use kc_core::half::slice::HalfFloatSliceExt;
use kc_core::math::Real;
use kc_core::{DType, Float, Isa, bf16, bytemuck, f16};

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{pack, x86};

/// The type of scores and sums: f64 for f64, f32 for all others.
pub(crate) trait Scalar: Real + std::ops::AddAssign {
    /// `2^f = 1 + f (c_0 + c_1 f + ...)` for `|f| <= 1/2`: minimax fits, computed with 50 digits.
    const EXP2: &'static [Self];
    /// The lowest exponent whose power of two comes out as a number; `2^LOWEST` comes out as 0.
    const LOWEST: Self;
    /// Conversion of elements that are no less exact.
    fn widen<E: Float>(from: &[E], to: &mut [Self]);
    /// Rounds to nearest even.
    fn narrow<E: Float>(from: &[Self], to: &mut [E]);
    /// The operations of a level.
    fn kernels(isa: Isa) -> Kernels<Self>;
}

type Product<T> = fn(Isa, Left<'_, T>, Right<'_, T>, &mut [T], usize, Size, bool);
type Soften<T> = fn(Isa, &mut [T], usize, usize, &mut Running<'_, T>);
type Slopes<T> = fn(Isa, &mut [T], &mut [T], usize, usize, &[T], &[T]);

/// Keys that [`dots`](Kernels::dots) and [`blend`](Kernels::blend) take at a time.
pub(super) const BLOCK: usize = 8;

type Dots<T> = fn(Isa, &[T], usize, &[&[T]; BLOCK], &mut [T], usize);
type Turn<T> = fn(Isa, &[T], usize, usize, &mut [T]);
type Blend<T> = fn(Isa, &[T], usize, usize, &[&[T]; BLOCK], &mut [T]);

/// The operations of a level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels<T> {
    /// Rows of a tile in registers.
    pub(super) rows: usize,
    /// Columns of a tile in registers; panels are as wide, or half as wide.
    pub(super) columns: usize,
    /// See [`portable::product`].
    pub(super) product: Product<T>,
    /// See [`portable::soften`].
    pub(crate) soften: Soften<T>,
    /// See [`portable::slopes`].
    pub(super) slopes: Slopes<T>,
    /// See [`portable::turn`].
    pub(super) turn: Turn<T>,
    /// See [`portable::dots`].
    pub(super) dots: Dots<T>,
    /// See [`portable::blend`].
    pub(super) blend: Blend<T>,
}

/// A left factor: element `(r, k)` stands at `r * row + k * step`, one of which is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub(super) data: &'a [T],
    pub(super) row: usize,
    pub(super) step: usize,
}

impl<'a, T> Left<'a, T> {
    /// Row-major.
    pub(super) fn rows(data: &'a [T], stride: usize) -> Self {
        Left { data, row: stride, step: 1 }
    }

    /// The transpose of a row-major matrix.
    pub(super) fn columns(data: &'a [T], stride: usize) -> Self {
        Left { data, row: 1, step: stride }
    }
}

/// A right factor in panels of columns, `[depth][width]` each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right<'a, T> {
    pub(super) data: &'a [T],
    /// Depth of the panels as they are stored; at least that of the product.
    pub(super) depth: usize,
}

/// The size of a product. `rows` is a multiple of the tile's, `columns` of half of the tile's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
}

/// The state of a tile of rows: largest score so far, sum of weights, weighted values.
#[derive(Debug)]
pub(crate) struct Running<'a, T> {
    pub(crate) top: &'a mut [T],
    pub(crate) sum: &'a mut [T],
    pub(crate) out: &'a mut [T],
    pub(crate) stride: usize,
    pub(crate) channels: usize,
}

/// Picks the vector kernels of a type where there are any.
macro_rules! kernels {
    ($t:ident, $isa:expr, $lanes:literal, $wide:literal, $turn:ident) => {
        match $isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Kernels {
                rows: 6,
                columns: 2 * $lanes,
                product: x86::avx2::$t::product,
                soften: x86::avx2::$t::soften,
                slopes: x86::avx2::$t::slopes,
                turn: pack::x86::$turn,
                dots: x86::avx2::$t::dots,
                blend: x86::avx2::$t::blend,
            },
            #[cfg(target_arch = "x86_64")]
            level if level > Level::Avx2 => Kernels {
                rows: 12,
                columns: 2 * $wide,
                product: x86::avx512::$t::product,
                soften: x86::avx512::$t::soften,
                slopes: x86::avx512::$t::slopes,
                turn: pack::x86::$turn,
                dots: x86::avx512::$t::dots,
                blend: x86::avx512::$t::blend,
            },
            _ => Kernels {
                rows: portable::ROWS,
                columns: portable::COLUMNS,
                product: portable::product,
                soften: portable::soften,
                slopes: portable::slopes,
                turn: portable::turn,
                dots: portable::dots,
                blend: portable::blend,
            },
        }
    };
}

impl Scalar for f32 {
    #[expect(clippy::approx_constant, reason = "a coefficient of a fit, close to ln 2")]
    const EXP2: &'static [f32] = &[0.693_147, 0.240_222_42, 0.055_507_337, 0.009_671_513, 0.001_326_472_2];
    const LOWEST: f32 = -127.0;

    fn widen<E: Float>(from: &[E], to: &mut [f32]) {
        match E::DTYPE {
            DType::F32 => to.copy_from_slice(bytemuck::cast_slice(from)),
            DType::F16 => bytemuck::cast_slice::<E, f16>(from).convert_to_f32_slice(to),
            DType::BF16 => {
                let from: &[bf16] = bytemuck::cast_slice(from);
                to.iter_mut()
                    .zip(from)
                    .for_each(|(to, x)| *to = f32::from_bits(u32::from(x.to_bits()) << 16));
            }
            _ => to.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_f32()),
        }
    }

    fn narrow<E: Float>(from: &[f32], to: &mut [E]) {
        match E::DTYPE {
            DType::F32 => to.copy_from_slice(bytemuck::cast_slice(from)),
            DType::F16 => bytemuck::cast_slice_mut::<E, f16>(to).convert_from_f32_slice(from),
            _ => to.iter_mut().zip(from).for_each(|(to, x)| *to = E::from_f32(*x)),
        }
    }

    fn kernels(isa: Isa) -> Kernels<f32> {
        kernels!(f32, isa, 8, 16, turn_f32)
    }
}

impl Scalar for f64 {
    const EXP2: &'static [f64] = &[
        std::f64::consts::LN_2,
        0.240_226_506_959_101_3,
        0.055_504_108_664_820_083,
        0.009_618_129_107_594_119,
        0.001_333_355_814_677_463_1,
        0.000_154_035_304_571_126_41,
        1.525_273_349_311_843_8e-5,
        1.321_543_528_206_818_6e-6,
        1.017_819_957_530_679e-7,
        7.073_783_285_402_063e-9,
        4.434_770_810_377_501_5e-10,
    ];
    const LOWEST: f64 = -1023.0;

    fn widen<E: Float>(from: &[E], to: &mut [f64]) {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_f64());
    }

    fn narrow<E: Float>(from: &[f64], to: &mut [E]) {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = E::from_f64(*x));
    }

    fn kernels(isa: Isa) -> Kernels<f64> {
        kernels!(f64, isa, 4, 8, turn_f64)
    }
}
