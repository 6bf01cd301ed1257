//! Semirings: which multiplication and which addition a sparse product uses.
//!
//! A product needs no zero element: an entry exists if and only if at least one product does, and its first
//! product is stored, never added to anything. So `min_plus` may hold zeros, and `max_plus` negative numbers only.
//!
//! | Semiring | multiply | add | typical use |
//! |---|---|---|---|
//! | [`PlusTimes`] | `a * b` | `x + y` | numbers |
//! | [`MinPlus`] | `a + b` | `min` | shortest paths |
//! | [`MaxPlus`] | `a + b` | `max` | critical paths |
//! | [`MaxMin`] | `min` | `max` | widest paths |
//! | [`MinMax`] | `max` | `min` | bottleneck paths |
//! | [`MaxTimes`] | `a * b` | `max` | most likely paths |
//! | [`OrAnd`] | both non-zero | either non-zero | reachability (0 or 1 in the type of the entries) |
//! | [`PlusPair`] | 1 | `x + y` | counting common neighbours |
//! | [`PlusFirst`] | `a` | `x + y` | sums over neighbours |
//! | [`PlusSecond`] | `b` | `x + y` | sums over neighbours |
//! | [`AnyPair`] | 1 | keeps the first | structure only; stops at the first product |
//!
//! Integers wrap around on overflow. `min` and `max` keep the earlier operand when the two are equal or
//! unordered (NaN). Floating-point multiply and add stay separate operations: no fused multiply-add anywhere.
//!
//! ```
//! use kc_sparse::semiring::{MinPlus, Semiring};
//! let s = MinPlus::<f64>::new();
//! assert_eq!(s.add(s.multiply(1.0, 2.0), s.multiply(0.0, 0.0)), 0.0);
//! ```

use std::marker::PhantomData;

use kc_core::Complex;

use crate::csr::Value;

/// A multiplication and an addition.
///
/// Implement it for an algebra of your own; it need not be associative, because every product adds in the
/// stored order of the left row.
pub trait Semiring: Copy + Send + Sync {
    /// Type of the left entries.
    type Left: Value;
    /// Type of the right entries.
    type Right: Value;
    /// Type of the results.
    type Out: Value;

    /// True if `add` always keeps its first operand, so that a product may stop early.
    const ANY: bool = false;

    /// True if `add` is cheap and total, so that a kernel may call it on stale numbers and drop the result
    /// instead of branching.
    const SPECULATE: bool = false;

    /// True if `add` of [`Value::NEUTRAL`] and any product is that product, bit by bit, so that a kernel may add
    /// every product without asking whether it is the first.
    const NEUTRAL: bool = false;

    /// One product.
    fn multiply(&self, a: Self::Left, b: Self::Right) -> Self::Out;

    /// The sum so far, and the next product.
    fn add(&self, x: Self::Out, y: Self::Out) -> Self::Out;
}

/// Numbers with zero and one.
pub trait Number: Value {
    /// The neutral element of `plus`.
    const ZERO: Self;
    /// The neutral element of `times`.
    const ONE: Self;
    /// Sum; integers wrap around, bool is "or".
    fn plus(self, other: Self) -> Self;
    /// Product; integers wrap around, bool is "and".
    fn times(self, other: Self) -> Self;
}

/// Numbers with an order.
pub trait Ordered: Number {
    /// The smaller; the first if equal or unordered.
    fn min(self, other: Self) -> Self;
    /// The larger; the first if equal or unordered.
    fn max(self, other: Self) -> Self;
}

macro_rules! numbers {
    ($($t:ty: $zero:expr, $one:expr, $plus:expr, $times:expr;)*) => {$(
        impl Number for $t {
            const ZERO: Self = $zero;
            const ONE: Self = $one;
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                $times(self, other)
            }
        }
    )*};
}

numbers! {
    f32: 0.0, 1.0, |x, y| x + y, |x, y| x * y;
    f64: 0.0, 1.0, |x, y| x + y, |x, y| x * y;
    Complex<f32>: Complex::new(0.0, 0.0), Complex::new(1.0, 0.0), |x, y| x + y, |x, y| x * y;
    Complex<f64>: Complex::new(0.0, 0.0), Complex::new(1.0, 0.0), |x, y| x + y, |x, y| x * y;
    i32: 0, 1, i32::wrapping_add, i32::wrapping_mul;
    i64: 0, 1, i64::wrapping_add, i64::wrapping_mul;
    u32: 0, 1, u32::wrapping_add, u32::wrapping_mul;
    u64: 0, 1, u64::wrapping_add, u64::wrapping_mul;
    bool: false, true, |x, y| x | y, |x, y| x & y;
}

macro_rules! ordered {
    ($($t:ty),*) => {$(
        impl Ordered for $t {
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if other < self { other } else { self }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if other > self { other } else { self }
            }
        }
    )*};
}

ordered!(f32, f64, i32, i64, u32, u64, bool);

macro_rules! semirings {
    ($($(#[$doc:meta])* $name:ident<$bound:ident>, any = $any:expr, neutral = $neutral:expr, $multiply:expr, $add:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<T>(PhantomData<fn() -> T>);

        impl<T> $name<T> {
            /// The semiring.
            pub const fn new() -> Self {
                Self(PhantomData)
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T: $bound> Semiring for $name<T> {
            type Left = T;
            type Right = T;
            type Out = T;
            const ANY: bool = $any;
            const SPECULATE: bool = true;
            const NEUTRAL: bool = $neutral;
            #[inline(always)]
            fn multiply(&self, a: T, b: T) -> T {
                $multiply(a, b)
            }
            #[inline(always)]
            fn add(&self, x: T, y: T) -> T {
                $add(x, y)
            }
        }
    )*};
}

#[inline(always)]
fn truth<T: Number>(x: bool) -> T {
    if x { T::ONE } else { T::ZERO }
}

semirings! {
    /// `a * b`, added.
    PlusTimes<Number>, any = false, neutral = true, T::times, T::plus;
    /// `a + b`, the least.
    MinPlus<Ordered>, any = false, neutral = false, T::plus, T::min;
    /// `a + b`, the largest.
    MaxPlus<Ordered>, any = false, neutral = false, T::plus, T::max;
    /// The smaller of two, the largest of those.
    MaxMin<Ordered>, any = false, neutral = false, T::min, T::max;
    /// The larger of two, the least of those.
    MinMax<Ordered>, any = false, neutral = false, T::max, T::min;
    /// `a * b`, the largest.
    MaxTimes<Ordered>, any = false, neutral = false, T::times, T::max;
    /// 1 where both are non-zero for some pair, else 0.
    OrAnd<Number>, any = false, neutral = true,
        |a, b| truth(a != T::ZERO && b != T::ZERO),
        |x: T, y| truth(x != T::ZERO || y != T::ZERO);
    /// 1 for every pair, added.
    PlusPair<Number>, any = false, neutral = true, |_, _| T::ONE, T::plus;
    /// The left factor, added.
    PlusFirst<Number>, any = false, neutral = false, |a, _| a, T::plus;
    /// The right factor, added.
    PlusSecond<Number>, any = false, neutral = false, |_, b| b, T::plus;
    /// 1 where there is any pair.
    AnyPair<Number>, any = true, neutral = false, |_, _| T::ONE, |x, _| x;
}

/// The pattern of another semiring's product: no values at all. What the symbolic phase runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Structure;

impl Semiring for Structure {
    type Left = ();
    type Right = ();
    type Out = ();
    const ANY: bool = true;
    const SPECULATE: bool = true;
    const NEUTRAL: bool = true;
    #[inline(always)]
    fn multiply(&self, (): (), (): ()) {}
    #[inline(always)]
    fn add(&self, (): (), (): ()) {}
}
