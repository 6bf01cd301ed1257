//! Vector mathematics on slices of f32 and f64: elementary functions, softmax, reductions, top-k.
//!
//! | Function | Error bound f32, f64 (ulp) | Notes |
//! |---|---|---|
//! | [`exp`] | 2, 2 | overflows to infinity, underflows through denormals to 0 |
//! | [`log`] | 2, 2 | 0 gives -infinity, negative numbers give NaN |
//! | [`tanh`], [`sigmoid`] | 4, 4 | monotone saturation |
//! | [`erf`] | 4, 4 | |
//! | [`sin_cos`] | 2, 2 | above 2^13 (f32) or 2^20 (f64) the standard library takes over |
//!
//! The bounds hold for every level and every finite input and are asserted by tests; docs/accuracy.md of the
//! repository has the measured figures. NaN gives NaN.
//!
//! All functions exist at every [`Level`]: one generic body of branch-free arithmetic over
//! blocks of [`BLOCK`](portable::BLOCK) elements, compiled once per instruction set, so that each element's
//! result depends on its value alone and not on its place. Levels with FMA round less often than the portable
//! one, so results may differ by the bounds above between levels. Every function has an `isa` form
//! ([`apply`], [`dot_with`] ...) that pins the level; the plain names use [`Isa::best`].
//!
//! Cost: one pass over the input (softmax: three). `exp` runs near the load bandwidth from about one
//! gigabyte per second and core up, `sum` and `dot` at it.
//!
//! Sources: argument reduction and the logarithm's `s = f / (2 + f)` form follow fdlibm (Sun, 1993); the
//! coefficients are our own weighted minimax fits, computed with 50 digits.
//!
//! ```
//! use kc_core::math;
//! let x = [0.0f32, 1.0, -2.0];
//! let mut y = [0.0; 3];
//! math::exp(&x, &mut y)?;
//! assert!((y[1] - 2.718_281_8).abs() < 1e-6);
//! math::softmax(&x, &mut y)?;
//! assert!((math::sum(&y) - 1.0).abs() < 1e-6);
//! # Ok::<(), kc_core::Error>(())
//! ```

mod coefficients;
mod finite;
pub mod portable;
pub mod reference;
mod topk;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use finite::first_non_finite;
pub use portable::Real;
pub use topk::{top_k, top_k_with};

use crate::{Error, Isa, Level, Result};

/// The element-wise functions, for [`apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// e^x
    Exp,
    /// The natural logarithm.
    Log,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.
    Erf,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// The sine, in radians.
    Sin,
    /// The cosine, in radians.
    Cos,
}

impl Function {
    /// All of them.
    pub const ALL: [Function; 7] = [
        Function::Exp,
        Function::Log,
        Function::Tanh,
        Function::Erf,
        Function::Sigmoid,
        Function::Sin,
        Function::Cos,
    ];
}

/// One arm per level; the portable one elsewhere.
macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($arg:expr),* )) => {
        match $isa.level() {
            Level::Portable => portable::$name::<_, portable::Plain>($($arg),*),
            #[cfg(target_arch = "x86_64")]
            _ => x86::$name($isa, $($arg),*),
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::$name::<_, portable::Plain>($($arg),*),
        }
    };
}
use dispatch;

/// `function` of every element of `x`, into `out`, at the level of `isa`.
pub fn apply<T: Real>(isa: Isa, function: Function, x: &[T], out: &mut [T]) -> Result<()> {
    same_length("out", x.len(), out.len())?;
    dispatch!(isa, map(function, x, out));
    Ok(())
}

/// `function` of every element, in place, at the level of `isa`.
pub fn apply_in_place<T: Real>(isa: Isa, function: Function, x: &mut [T]) {
    dispatch!(isa, map_in_place(function, x));
}

macro_rules! elementwise {
    ($($name:ident, $in_place:ident, $function:ident, $what:literal;)*) => {$(
        #[doc = concat!($what, " of every element of `x`, into `out` of the same length.")]
        pub fn $name<T: Real>(x: &[T], out: &mut [T]) -> Result<()> {
            apply(Isa::best(), Function::$function, x, out)
        }

        #[doc = concat!($what, " of every element, in place.")]
        pub fn $in_place<T: Real>(x: &mut [T]) {
            apply_in_place(Isa::best(), Function::$function, x);
        }
    )*};
}

elementwise! {
    exp, exp_in_place, Exp, "The exponential";
    log, log_in_place, Log, "The natural logarithm";
    tanh, tanh_in_place, Tanh, "The hyperbolic tangent";
    erf, erf_in_place, Erf, "The error function";
    sigmoid, sigmoid_in_place, Sigmoid, "The logistic function 1 / (1 + e^-x)";
}

/// The sine and the cosine of every element of `x` (radians).
pub fn sin_cos<T: Real>(x: &[T], sin: &mut [T], cos: &mut [T]) -> Result<()> {
    apply(Isa::best(), Function::Sin, x, sin)?;
    apply(Isa::best(), Function::Cos, x, cos)
}

/// `exp(x - max) / sum exp(x - max)`, into `out` of the same length. The sum runs in f64.
///
/// The relative error is at most `(4 + max - x_i) eps`. An element of -infinity gets 0; if all are, or one is NaN or +infinity, the result is NaN.
pub fn softmax<T: Real>(x: &[T], out: &mut [T]) -> Result<()> {
    softmax_with(Isa::best(), x, out)
}

/// [`softmax`] at the level of `isa`.
pub fn softmax_with<T: Real>(isa: Isa, x: &[T], out: &mut [T]) -> Result<()> {
    same_length("out", x.len(), out.len())?;
    let Some((_, max)) = min_max_with(isa, x) else { return Ok(()) };
    let sum: f64 = dispatch!(isa, exp_shifted(x, max, out));
    let scale = T::from_f64(1.0 / sum);
    dispatch!(isa, scale(scale, out));
    Ok(())
}

/// `ln(sum exp(x))` without overflow; -infinity for an empty slice. The sum runs in f64.
pub fn log_sum_exp<T: Real>(x: &[T]) -> T {
    log_sum_exp_with(Isa::best(), x)
}

/// [`log_sum_exp`] at the level of `isa`.
pub fn log_sum_exp_with<T: Real>(isa: Isa, x: &[T]) -> T {
    let Some((_, max)) = min_max_with(isa, x) else { return T::from_f64(f64::NEG_INFINITY) };
    if !max.to_f64().is_finite() {
        // All -infinity, or some +infinity or NaN: the largest element is the answer.
        return max;
    }
    let sum: f64 = dispatch!(isa, sum_exp_shifted(x, max));
    T::from_f64(max.to_f64() + sum.ln())
}

/// The inner product. Sums of `T` in 32 lanes and a fixed tree: the relative error is at most
/// `(n/32 + 6) eps sum|x_i y_i|`.
pub fn dot<T: Real>(x: &[T], y: &[T]) -> Result<T> {
    dot_with(Isa::best(), x, y)
}

/// [`dot`] at the level of `isa`.
pub fn dot_with<T: Real>(isa: Isa, x: &[T], y: &[T]) -> Result<T> {
    same_length("y", x.len(), y.len())?;
    Ok(dispatch!(isa, dot(x, y)))
}

/// The inner product with products and sums in f64: exact products of f32, error near 2^-53.
pub fn dot_f64<T: Real>(x: &[T], y: &[T]) -> Result<f64> {
    dot_f64_with(Isa::best(), x, y)
}

/// [`dot_f64`] at the level of `isa`.
pub fn dot_f64_with<T: Real>(isa: Isa, x: &[T], y: &[T]) -> Result<f64> {
    same_length("y", x.len(), y.len())?;
    Ok(dispatch!(isa, dot_f64(x, y)))
}

/// The sum, in 32 lanes and a fixed tree: the same bits at every level. Error at most
/// `(n/32 + 6) eps sum|x_i|`.
pub fn sum<T: Real>(x: &[T]) -> T {
    sum_with(Isa::best(), x)
}

/// [`sum`] at the level of `isa`.
pub fn sum_with<T: Real>(isa: Isa, x: &[T]) -> T {
    dispatch!(isa, sum(x))
}

/// The sum in f64, in 32 lanes and a fixed tree: the same bits at every level.
pub fn sum_f64<T: Real>(x: &[T]) -> f64 {
    sum_f64_with(Isa::best(), x)
}

/// [`sum_f64`] at the level of `isa`.
pub fn sum_f64_with<T: Real>(isa: Isa, x: &[T]) -> f64 {
    dispatch!(isa, sum_f64(x))
}

/// The smallest and the largest element; NaN for both if one is NaN; `None` for an empty slice.
pub fn min_max<T: Real>(x: &[T]) -> Option<(T, T)> {
    min_max_with(Isa::best(), x)
}

/// [`min_max`] at the level of `isa`.
pub fn min_max_with<T: Real>(isa: Isa, x: &[T]) -> Option<(T, T)> {
    let first = *x.first()?;
    Some(dispatch!(isa, min_max(x, first)))
}

/// The position of the largest element, the first of equals. A NaN counts as greater than every number, as in
/// NumPy. `None` for an empty slice.
pub fn arg_max<T: Real>(x: &[T]) -> Option<usize> {
    let (_, max) = min_max(x)?;
    x.iter().position(|&v| v == max || v.is_nan())
}

fn same_length(arg: &'static str, want: usize, got: usize) -> Result<()> {
    if want == got { Ok(()) } else { Err(Error::shape(arg, format!("{want} elements, as x"), &[got])) }
}
