//! Eigenvalues, singular values and Cholesky factors.
//!
//! Thin, checked doors to faer: shapes and finiteness are verified before anything is allocated, a failed
//! iteration is [`Error::NotConverged`], a matrix that is not positive definite is [`Error::Singular`] with
//! the pivot.
//!
//! | Function | Result | Operations (n x n, or m x n with m >= n) |
//! |---|---|---|
//! | [`eigvalsh`] | eigenvalues of a symmetric matrix | 4/3 n^3 |
//! | [`eigh`] | and eigenvectors | about 4/3 n^3 + 4 n^3 |
//! | [`singular_values`] | singular values | 4 m n^2 - 4/3 n^3, less for m much larger than n |
//! | [`svd`] | and singular vectors | about 14 m n^2 |
//! | [`cholesky`] | lower factor | n^3 / 3 |
//!
//! **Accuracy.** Eigenvalues and singular values are exact for a matrix that differs from the given one by
//! at most about `n * eps * norm` (mostly a tenth of that): all of them carry this absolute error, which for
//! the smallest ones of an ill-conditioned matrix may be all there is.
//!
//! **Threads.** Every factorisation runs on the calling thread: faer divides its inner sums by the number
//! of threads, so that a threaded run rounds differently on each machine, and no result here may depend on
//! the number of threads. Factor several matrices at once to use more cores; the products around them
//! ([`pairwise`](crate::pairwise)) are threaded.
//!
//! ```
//! use kc_core::Tensor;
//! use kc_linalg::{Vectors, cholesky, eigh, svd};
//!
//! let a = Tensor::<f64, 2>::from_slice([2, 2], &[2.0, 1.0, 1.0, 2.0])?;
//! let e = eigh(a.view())?;
//! assert!((e.values[0] - 1.0).abs() < 1e-14 && (e.values[1] - 3.0).abs() < 1e-14);
//! let s = svd(a.view(), Vectors::Thin)?;
//! assert!((s.values[0] - 3.0).abs() < 1e-14);
//! let l = cholesky(a.view())?;
//! assert!((l[[0, 0]] - 2f64.sqrt()).abs() < 1e-15 && l[[0, 1]] == 0.0);
//! # Ok::<(), kc_core::Error>(())
//! ```

use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::{evd, svd as faer_svd};
use faer::{ColMut, Par};
use kc_core::{Error, Result, Tensor, TensorView};

use crate::Real;
use crate::faer::{mat_mut, mat_ref};

/// An eigen-decomposition `A = V diag(values) V^T` of a symmetric matrix.
#[derive(Debug, Clone)]
pub struct Eigh<T: Real> {
    /// Eigenvalues, smallest first.
    pub values: Vec<T>,
    /// Eigenvectors as columns, in the order of the values: `[n, n]`, orthogonal.
    pub vectors: Tensor<T, 2>,
}

/// Which singular vectors are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vectors {
    /// The first `min(m, n)` on both sides.
    #[default]
    Thin,
    /// All `m` left and all `n` right ones: complete orthogonal bases.
    Full,
}

/// A singular value decomposition `A = U diag(values) V^T`.
#[derive(Debug, Clone)]
pub struct Svd<T: Real> {
    /// Left singular vectors as columns: `[m, k]`, or `[m, m]` if all were asked for.
    pub u: Tensor<T, 2>,
    /// The `k = min(m, n)` singular values, largest first.
    pub values: Vec<T>,
    /// Right singular vectors as columns: `[n, k]`, or `[n, n]` if all were asked for.
    pub v: Tensor<T, 2>,
}

/// The eigenvalues of a symmetric matrix, smallest first. Only its lower triangle (with the diagonal) is
/// read.
pub fn eigvalsh<T: Real>(a: TensorView<'_, T, 2>) -> Result<Vec<T>> {
    let n = checked_square(a)?;
    let mut values = vec![T::default(); n];
    run_eigh(a, &mut values, None)?;
    Ok(values)
}

/// Eigenvalues and eigenvectors of a symmetric matrix. Only its lower triangle (with the diagonal) is read.
pub fn eigh<T: Real>(a: TensorView<'_, T, 2>) -> Result<Eigh<T>> {
    let n = checked_square(a)?;
    let mut values = vec![T::default(); n];
    let mut vectors = Tensor::zeros([n, n])?;
    run_eigh(a, &mut values, Some(&mut vectors))?;
    Ok(Eigh { values, vectors: transposed(&vectors)? })
}

/// The singular values of a matrix, largest first.
pub fn singular_values<T: Real>(a: TensorView<'_, T, 2>) -> Result<Vec<T>> {
    let [m, n] = a.shape();
    check_finite(a, |_| n)?;
    let mut values = vec![T::default(); m.min(n)];
    run_svd(a, &mut values, None)?;
    Ok(values)
}

/// Singular values and vectors of a matrix.
pub fn svd<T: Real>(a: TensorView<'_, T, 2>, vectors: Vectors) -> Result<Svd<T>> {
    let [m, n] = a.shape();
    check_finite(a, |_| n)?;
    let k = m.min(n);
    let (left, right) = match vectors {
        Vectors::Thin => (k, k),
        Vectors::Full => (m, n),
    };
    let mut values = vec![T::default(); k];
    // Stored by columns, as faer prefers.
    let (mut u, mut v) = (Tensor::zeros([left, m])?, Tensor::zeros([right, n])?);
    run_svd(a, &mut values, Some((&mut u, &mut v)))?;
    Ok(Svd { u: transposed(&u)?, values, v: transposed(&v)? })
}

/// The lower Cholesky factor `L` with `A = L L^T` of a symmetric positive definite matrix (zeros above the
/// diagonal). Only the lower triangle of `a` is read.
///
/// Fails with [`Error::Singular`] and the index of the first pivot that is not positive.
pub fn cholesky<T: Real>(a: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
    let n = checked_square(a)?;
    let zero = T::default();
    let mut factor = Tensor::from_fn([n, n], |[i, j]| if j <= i { a.at([i, j]) } else { zero })?;
    if n == 0 {
        return Ok(factor);
    }
    let request = llt::cholesky_in_place_scratch::<T>(n, PAR, Default::default());
    let mut memory = scratch("cholesky", request)?;
    llt::cholesky_in_place(
        mat_mut(factor.view_mut()),
        Default::default(),
        PAR,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|llt::LltError::NonPositivePivot { index }| Error::Singular { arg: "a".into(), index })?;
    // The factorisation may leave sums above the diagonal.
    for (i, row) in factor.as_mut_slice().chunks_exact_mut(n).enumerate() {
        row[i + 1..].fill(zero);
    }
    Ok(factor)
}

/// See the page: threads would change the bits.
const PAR: Par = Par::Seq;

fn run_eigh<T: Real>(
    a: TensorView<'_, T, 2>,
    values: &mut [T],
    vectors: Option<&mut Tensor<T, 2>>,
) -> Result<()> {
    let n = a.rows();
    if n == 0 {
        return Ok(());
    }
    let wanted = if vectors.is_some() { evd::ComputeEigenvectors::Yes } else { evd::ComputeEigenvectors::No };
    let request = evd::self_adjoint_evd_scratch::<T>(n, wanted, PAR, Default::default());
    let mut memory = scratch("eigh", request)?;
    evd::self_adjoint_evd(
        mat_ref(a),
        ColMut::from_slice_mut(values).as_diagonal_mut(),
        vectors.map(|v| mat_mut(v.view_mut().transposed())),
        PAR,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|evd::EvdError::NoConvergence| not_converged("symmetric eigenvalues", n))
}

type Pair<'a, T> = (&'a mut Tensor<T, 2>, &'a mut Tensor<T, 2>);

fn run_svd<T: Real>(a: TensorView<'_, T, 2>, values: &mut [T], vectors: Option<Pair<'_, T>>) -> Result<()> {
    use faer_svd::ComputeSvdVectors::{Full, No, Thin};
    let [m, n] = a.shape();
    if m == 0 || n == 0 {
        if let Some((u, v)) = vectors {
            identity(u);
            identity(v);
        }
        return Ok(());
    }
    let side = |v: &Tensor<T, 2>| if v.shape()[0] == m.min(n) { Thin } else { Full };
    let (left, right) = vectors.as_ref().map_or((No, No), |(u, v)| (side(u), side(v)));
    let request = faer_svd::svd_scratch::<T>(m, n, left, right, PAR, Default::default());
    let mut memory = scratch("svd", request)?;
    let (u, v) = match vectors {
        Some((u, v)) => (Some(mat_mut(u.view_mut().transposed())), Some(mat_mut(v.view_mut().transposed()))),
        None => (None, None),
    };
    faer_svd::svd(
        mat_ref(a),
        ColMut::from_slice_mut(values).as_diagonal_mut(),
        u,
        v,
        PAR,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|faer_svd::SvdError::NoConvergence| not_converged("singular values", m.min(n)))
}

/// A complete basis beside an empty matrix is any orthogonal matrix: the identity.
fn identity<T: Real>(square: &mut Tensor<T, 2>) {
    let [rows, cols] = square.shape();
    for i in 0..rows.min(cols) {
        square[[i, i]] = T::from_f64(1.0);
    }
}

fn transposed<T: Real>(a: &Tensor<T, 2>) -> Result<Tensor<T, 2>> {
    a.view().transposed().to_tensor()
}

fn scratch(what: &'static str, request: StackReq) -> Result<MemBuffer> {
    MemBuffer::try_new(request)
        .map_err(|_| Error::too_large(what, request.size_bytes() as u64, 0, "bytes of work space"))
}

fn not_converged(what: &'static str, n: usize) -> Error {
    // faer gives up after 30 sweeps for each value.
    Error::NotConverged { what: what.into(), iterations: 30 * n, residual: f64::NAN }
}

fn checked_square<T: Real>(a: TensorView<'_, T, 2>) -> Result<usize> {
    let [rows, cols] = a.shape();
    if rows != cols {
        return Err(Error::shape("a", "a square matrix", &[rows, cols]));
    }
    // The upper triangle is never read, so it may hold anything.
    check_finite(a, |i| i + 1)?;
    Ok(rows)
}

/// All of the first `width(i)` elements of each row `i` are finite.
fn check_finite<T: Real>(a: TensorView<'_, T, 2>, width: impl Fn(usize) -> usize) -> Result<()> {
    for i in 0..a.rows() {
        let row = a.row(i).slice(0, 0..width(i))?;
        let bad = |x: T| !x.to_f64().is_finite();
        // A slice is looked through without branches first; the position matters only when there is one.
        if row.as_slice().is_some_and(|slice| !slice.iter().fold(false, |any, &x| any | bad(x))) {
            continue;
        }
        if let Some((j, x)) = row.iter().enumerate().find(|(_, x)| bad(*x)) {
            return Err(Error::not_finite("a", &[i, j], x.to_f64()));
        }
    }
    Ok(())
}
