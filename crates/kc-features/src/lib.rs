//! Random features of kernels: maps whose dot products are, on average, a kernel or a layer of a neural network.
//!
//! `k(x, y)` of n points costs `n^2` kernel values; `phi(x) . phi(y)` with m features costs two thin matrices and
//! errs by about `m^-1/2`.
//!
//! | Module | Features of |
//! |---|---|
//! | [`projection`] | the Gaussian directions that all maps share: independent, orthogonal, Hadamard |
//! | [`positive`] | `exp(q . k)`, positive (the softmax of attention) |
//! | [`relu`] | the arc-cosine kernel of order 1, and the ReLU features of linear attention |
//! | [`fourier`] | shift-invariant kernels: Gaussian, Laplace, Matern |
//! | [`universal`] | any `f(w . x + b)` with a known spectrum; complex |
//! | [`maclaurin`] | any `f(w . x)` with a known power series |
//! | [`arc_cosine`] | the arc-cosine kernels themselves, exactly |
//! | [`snnk`] | layers, adapters and bundled networks made of them |
//!
//! All maps are a [`FeatureMap`]: rows in, rows of features out. Everything random comes from a seed and is kept.
//!
//! ```
//! use kc_core::TensorView;
//! use kc_features::fourier::{Fourier, Kernel};
//! use kc_features::{Draw, FeatureMap};
//!
//! let x = TensorView::from_slice([2, 2], &[0.1f64, 0.4, -0.3, 0.2])?;
//! let map = Fourier::draw(Kernel::Gauss, 1.0, Draw::Orthogonal(Default::default()), 2000, 2, 1)?;
//! let phi = map.apply(x)?;
//! let kernel: f64 = (0..phi.shape()[1]).map(|k| phi[[0, k]] * phi[[1, k]]).sum();
//! assert!((kernel - (-0.1f64).exp()).abs() < 0.05);
//! # Ok::<(), kc_core::Error>(())
//! ```

#![forbid(unsafe_code)]

use kc_core::math::{self, Real};
use kc_core::{Complex, Element, Error, Result, Tensor, TensorView, TensorViewMut};
use kc_gemm::Operand;
use rayon::prelude::*;

pub mod arc_cosine;
pub mod fourier;
mod hadamard;
pub mod maclaurin;
pub mod positive;
pub mod projection;
pub mod relu;
mod scratch;
pub mod snnk;
pub mod universal;

pub use projection::{Draw, Projection, Scaling};

/// Rows that are handled together: whole tiles of the matrix product at every level, and few enough that their
/// features stay in the second cache.
pub(crate) const TILE: usize = 84;

/// The largest exponent of a feature that is an exponential.
pub(crate) const MOST_EXPONENT: f64 = 80.0;

/// f32 or f64.
pub trait Scalar: Real + kc_gemm::Real + Operand<Sum = Self> {
    /// The complex number of two of them.
    type Complex: Element;
    /// A complex number from its parts.
    fn complex(re: Self, im: Self) -> Self::Complex;
    /// The real and the imaginary part.
    fn parts(z: Self::Complex) -> (Self, Self);
}

macro_rules! scalar {
    ($($t:ident),*) => {$(
        impl Scalar for $t {
            type Complex = Complex<$t>;
            fn complex(re: $t, im: $t) -> Complex<$t> {
                Complex::new(re, im)
            }
            fn parts(z: Complex<$t>) -> ($t, $t) {
                (z.re, z.im)
            }
        }
    )*};
}

scalar!(f32, f64);

/// A map from rows of `inputs()` numbers to rows of `width()` features.
pub trait FeatureMap<T: Scalar>: Send + Sync {
    /// The width of x.
    fn inputs(&self) -> usize;

    /// The number of real features of a row. Complex ones are two halves: real parts, then imaginary parts.
    fn width(&self) -> usize;

    /// The features of some rows, row by row to `out`, on the calling thread. `first` is what the first of them is
    /// called in errors.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; `Argument` for exponents that would overflow.
    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()>;

    /// The features of every row of `x` `[n, inputs]`: `[n, width]`.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    fn apply(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut out = Tensor::zeros([x.rows(), self.width()])?;
        self.apply_into(x, out.view_mut())?;
        Ok(out)
    }

    /// [`apply`](Self::apply) into `out`.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    fn apply_into(&self, x: TensorView<'_, T, 2>, out: TensorViewMut<'_, T, 2>) -> Result<()> {
        over_tiles(x, self.inputs(), self.width(), out, |rows, first, out| self.fill(rows, first, out))
    }
}

/// Complex features from their two halves: `[n, 2 m]` gives `[n, m]`.
///
/// # Errors
/// `Shape` if the width is odd.
pub fn to_complex<T: Scalar>(halves: TensorView<'_, T, 2>) -> Result<Tensor<T::Complex, 2>> {
    let [n, width] = halves.shape();
    if !width.is_multiple_of(2) {
        return Err(Error::shape("halves", "an even number of columns", &[n, width]));
    }
    Tensor::from_fn([n, width / 2], |[i, k]| T::complex(halves.at([i, k]), halves.at([i, width / 2 + k])))
}

/// The halves `[n, 2 m]`, real then imaginary, of complex features `[n, m]`.
///
/// # Errors
/// If the memory cannot be had.
pub fn to_halves<T: Scalar>(complex: TensorView<'_, T::Complex, 2>) -> Result<Tensor<T, 2>> {
    let [n, m] = complex.shape();
    Tensor::from_fn([n, 2 * m], |[i, k]| {
        let (re, im) = T::parts(complex.at([i, k % m]));
        if k < m { re } else { im }
    })
}

/// Runs `body(rows, first, out)` on every tile of `x` `[n, inputs]`; `out` is `[n, width]`. Where several tiles fail,
/// the error is that of the first.
pub(crate) fn over_tiles<T: Scalar>(
    x: TensorView<'_, T, 2>,
    inputs: usize,
    width: usize,
    out: TensorViewMut<'_, T, 2>,
    body: impl Fn(TensorView<'_, T, 2>, usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    check_width("x", x.shape(), inputs)?;
    each_tile(x, width, out, |rows, first, mut out| match out.as_mut_slice() {
        Some(out) => body(rows, first, out),
        None => scratch::with(out.len(), |whole: &mut [T]| {
            body(rows, first, whole)?;
            out.copy_from(TensorView::from_slice(out.shape(), whole)?)
        }),
    })
}

/// [`over_tiles`] with views of the result.
pub(crate) fn each_tile<T: Scalar>(
    x: TensorView<'_, T, 2>,
    width: usize,
    out: TensorViewMut<'_, T, 2>,
    body: impl Fn(TensorView<'_, T, 2>, usize, TensorViewMut<'_, T, 2>) -> Result<()> + Sync,
) -> Result<()> {
    let n = x.rows();
    if out.shape() != [n, width] {
        return Err(Error::shape("out", format!("[{n}, {width}]"), &out.shape()));
    }
    if out.is_empty() {
        return Ok(());
    }
    let run = |(i, out): (usize, TensorViewMut<'_, T, 2>)| {
        let first = i * TILE;
        body(x.slice(0, first..n.min(first + TILE))?, first, out)
    };
    if n <= TILE {
        return run((0, out));
    }
    let tiles = out.chunks(0, TILE)?.into_par_iter().enumerate();
    tiles.map(run).collect::<Vec<Result<()>>>().into_iter().collect()
}

pub(crate) fn check_width(name: &'static str, got: [usize; 2], want: usize) -> Result<()> {
    if got[1] == want { Ok(()) } else { Err(Error::shape(name, format!("[n, {want}]"), &got)) }
}

/// The first NaN or infinity of some rows is an error; row 0 is called `first`.
pub(crate) fn check_finite<T: Scalar>(
    name: &'static str,
    rows: TensorView<'_, T, 2>,
    first: usize,
) -> Result<()> {
    let columns = rows.cols();
    if let Some(all) = rows.as_slice() {
        return match math::first_non_finite(all) {
            Some(at) => Err(Error::not_finite(name, &[first + at / columns, at % columns], all[at].to_f64())),
            None => Ok(()),
        };
    }
    for i in 0..rows.rows() {
        for j in 0..columns {
            let value = rows.at([i, j]).to_f64();
            if !value.is_finite() {
                return Err(Error::not_finite(name, &[first + i, j], value));
            }
        }
    }
    Ok(())
}

/// An exponent that is too large, of row `row`.
pub(crate) fn overflow(name: &'static str, row: usize, exponent: f64) -> Error {
    Error::argument(
        name,
        format!("exponents of features up to {MOST_EXPONENT} (normalise the rows)"),
        format!("{exponent:.1} in row {row}"),
    )
}

/// `|x|^2` of a row, summed in f64.
pub(crate) fn square_length<T: Scalar>(row: TensorView<'_, T, 1>) -> f64 {
    match row.as_slice() {
        Some(row) => math::dot_f64(row, row).unwrap_or(f64::NAN),
        None => row.iter().map(|x| x.to_f64() * x.to_f64()).sum(),
    }
}

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
