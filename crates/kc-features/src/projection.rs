//! Random projections `z = x G^T`: independent Gaussian rows, orthogonal rows, and rows that are never stored.
//!
//! Every entry of `G [m, d]` is (or nearly is) N(0, 1). Orthogonal rows make errors of random features smaller at the
//! same `m`, because no direction is sampled twice; they come in blocks of `d`, since more cannot be orthogonal.
//!
//! | [`Draw`] | Rows | Memory | Cost of a row of x |
//! |---|---|---|---|
//! | `Independent` | i.i.d. N(0, 1) | `m d` | `m d` |
//! | `Orthogonal` | blocks of orthonormal rows, times a length | `m d` | `m d` |
//! | `Hadamard` | blocks `H D1 H D2 H D3` of random signs | `3 m` | `3 m log2 d` |
//!
//! ```
//! use kc_features::projection::{Scaling, orthogonal_projection};
//! let g = orthogonal_projection::<f64>(3, 4, 7, Scaling::SqrtDim)?;
//! let product = kc_gemm::gemm(g.view(), g.view().transposed())?;
//! assert!((product[[0, 0]] - 4.0).abs() < 1e-12 && product[[0, 1]].abs() < 1e-12);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: Choromanski, Rowland, Weller, "The Unreasonable Effectiveness of Structured Random Orthogonal Embeddings"
//! (2017).

use kc_core::math::{self, Real};
use kc_core::{Error, Isa, KcRng, Result, Tensor, TensorView, TensorViewMut, shape};
use kc_gemm::{PackedB, gemm_into, gemm_into_with, gemm_packed_into};

use crate::Scalar;
use crate::hadamard::Hadamard;

/// Rows that are made orthogonal to all earlier ones by matrix products, before they are to each other.
const PANEL: usize = 32;

/// The lengths of orthogonal rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// Independent lengths of Gaussian vectors (chi with `d` degrees of freedom): each row alone is N(0, I).
    #[default]
    Chi,
    /// `sqrt(d)` for all.
    SqrtDim,
}

/// How the rows of a projection are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Draw {
    /// Independent N(0, 1).
    #[default]
    Independent,
    /// Blocks of orthogonal rows.
    Orthogonal(Scaling),
    /// Blocks of orthogonal rows by Walsh-Hadamard transforms; worth it from about 256 inputs on.
    Hadamard,
}

/// `[m, d]` independent N(0, 1).
///
/// # Errors
/// `Empty` if `m` or `d` is 0; a size that does not fit.
pub fn gaussian_projection<T: Scalar>(m: usize, d: usize, seed: u64) -> Result<Tensor<T, 2>> {
    check_size(m, d)?;
    let mut rng = KcRng::new(seed, 0);
    Tensor::from_fn([m, d], |_| T::from_f64(rng.normal()))
}

/// `[m, d]` in blocks of `d` orthogonal rows (the last block may have fewer): the Q of a Gaussian matrix with positive
/// diagonal R, row by row times its length. The lengths are a stream of their own of `seed`.
///
/// Sums run in f64; rows of a block are orthogonal to 1e-14 before they are rounded to `T`. `O(m d min(m, d))`.
///
/// # Errors
/// As [`gaussian_projection`].
pub fn orthogonal_projection<T: Scalar>(
    m: usize,
    d: usize,
    seed: u64,
    scaling: Scaling,
) -> Result<Tensor<T, 2>> {
    check_size(m, d)?;
    let (mut directions, mut lengths) = (KcRng::new(seed, 0), KcRng::new(seed, 1));
    let mut out = Tensor::zeros([m, d])?;
    for block in out.as_mut_slice().chunks_mut(d * d) {
        let mut q = Tensor::<f64, 2>::zeros([block.len() / d, d])?;
        q.as_mut_slice().iter_mut().for_each(|x| *x = directions.normal());
        orthonormalize(&mut q)?;
        for (to, from) in block.chunks_exact_mut(d).zip(q.as_slice().chunks_exact(d)) {
            let length = match scaling {
                Scaling::Chi => (0..d).map(|_| lengths.normal().powi(2)).sum::<f64>().sqrt(),
                Scaling::SqrtDim => (d as f64).sqrt(),
            };
            for (to, from) in to.iter_mut().zip(from) {
                *to = T::from_f64(from * length);
            }
        }
    }
    Ok(out)
}

fn check_size(m: usize, d: usize) -> Result<()> {
    for (name, size) in [("m", m), ("d", d)] {
        if size == 0 {
            return Err(Error::empty(name));
        }
    }
    shape::checked_len("projection", &[m, d]).map(|_| ())
}

/// Gram-Schmidt, every step done twice so that rounding does not spoil what cancellation left.
fn orthonormalize(q: &mut Tensor<f64, 2>) -> Result<()> {
    let [rows, d] = q.shape();
    for first in (0..rows).step_by(PANEL) {
        let count = PANEL.min(rows - first);
        let (done, rest) = q.as_mut_slice().split_at_mut(first * d);
        let panel = &mut rest[..count * d];
        for _ in 0..2 {
            if first > 0 {
                let earlier = TensorView::from_slice([first, d], done)?;
                let along = kc_gemm::gemm(TensorView::from_slice([count, d], panel)?, earlier.transposed())?;
                let out = TensorViewMut::from_slice([count, d], panel)?;
                gemm_into(-1.0, along.view(), earlier, 1.0, out)?;
            }
            for i in 0..count {
                let (before, row) = panel.split_at_mut(i * d);
                let row = &mut row[..d];
                for other in before.chunks_exact(d) {
                    let along = math::dot(row, other)?;
                    row.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
                }
                let length = math::dot(row, row)?.sqrt();
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
    }
    Ok(())
}

/// A projection ready to be applied.
#[derive(Debug, Clone)]
pub struct Projection<T: Scalar> {
    kind: Kind<T>,
    inputs: usize,
    outputs: usize,
    isa: Isa,
}

#[derive(Debug, Clone)]
enum Kind<T: Scalar> {
    Dense { g: Tensor<T, 2>, packed: PackedB<T> },
    Hadamard(Hadamard<T>),
}

impl<T: Scalar> Projection<T> {
    /// The matrix `g` `[m, d]`, row by row a direction.
    ///
    /// # Errors
    /// `Empty` without rows or columns, `NotFinite`.
    pub fn new(g: Tensor<T, 2>) -> Result<Self> {
        Self::with_isa(Isa::best(), g)
    }

    /// [`new`](Self::new) at a given level.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_isa(isa: Isa, g: Tensor<T, 2>) -> Result<Self> {
        let [outputs, inputs] = g.shape();
        if g.is_empty() {
            return Err(Error::empty("g"));
        }
        crate::check_finite("g", g.view(), 0)?;
        let packed = PackedB::from_source(isa, &kc_gemm::Lines::columns(g.view().transposed()))?;
        Ok(Self { kind: Kind::Dense { g, packed }, inputs, outputs, isa })
    }

    /// `m` rows for `d` inputs, drawn from `seed`.
    ///
    /// # Errors
    /// `Empty` if `m` or `d` is 0; a size that does not fit.
    pub fn draw(draw: Draw, m: usize, d: usize, seed: u64) -> Result<Self> {
        match draw {
            Draw::Independent => Self::new(gaussian_projection(m, d, seed)?),
            Draw::Orthogonal(scaling) => Self::new(orthogonal_projection(m, d, seed, scaling)?),
            Draw::Hadamard => {
                check_size(m, d)?;
                shape::checked_len("projection", &[m.div_ceil(d), 4, d.next_power_of_two()])?;
                let kind = Kind::Hadamard(Hadamard::draw(m, d, seed));
                Ok(Self { kind, inputs: d, outputs: m, isa: Isa::best() })
            }
        }
    }

    /// `d`, the width of a row of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `m`, the number of directions.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The level of its products.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The matrix `[m, d]`, if it is stored.
    pub fn matrix(&self) -> Option<TensorView<'_, T, 2>> {
        match &self.kind {
            Kind::Dense { g, .. } => Some(g.view()),
            Kind::Hadamard(_) => None,
        }
    }

    /// The matrix `[m, d]`, made if it is not stored.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn to_matrix(&self) -> Result<Tensor<T, 2>> {
        if let Kind::Dense { g, .. } = &self.kind {
            return Ok(g.clone());
        }
        let unit =
            Tensor::from_fn(
                [self.inputs, self.inputs],
                |[i, j]| {
                    if i == j { <T as Real>::ONE } else { T::ZERO }
                },
            )?;
        let mut columns = Tensor::zeros([self.inputs, self.outputs])?;
        self.apply_into(unit.view(), columns.view_mut())?;
        columns.view().transposed().to_tensor()
    }

    /// `out [n, m] = x [n, d] G^T`.
    ///
    /// # Errors
    /// `Shape`.
    pub fn apply_into(&self, x: TensorView<'_, T, 2>, mut out: TensorViewMut<'_, T, 2>) -> Result<()> {
        self.check(x.shape(), out.shape())?;
        match &self.kind {
            Kind::Dense { packed, .. } if out.strides()[1] == 1 || self.outputs == 1 => {
                gemm_packed_into(<T as Real>::ONE, x, packed, T::ZERO, out)
            }
            Kind::Dense { g, .. } => {
                gemm_into_with(self.isa, <T as Real>::ONE, x, g.view().transposed(), T::ZERO, out)
            }
            Kind::Hadamard(h) => {
                through_slices(x, &mut out, |x, out| h.rows(x, self.inputs, out, self.outputs, false))
            }
        }
    }

    /// `dx [n, d] = dz [n, m] G`.
    ///
    /// # Errors
    /// `Shape`.
    pub fn back_into(&self, dz: TensorView<'_, T, 2>, mut dx: TensorViewMut<'_, T, 2>) -> Result<()> {
        self.check(dx.shape(), dz.shape())?;
        match &self.kind {
            Kind::Dense { g, .. } => gemm_into_with(self.isa, <T as Real>::ONE, dz, g.view(), T::ZERO, dx),
            Kind::Hadamard(h) => {
                through_slices(dz, &mut dx, |dz, dx| h.rows(dz, self.outputs, dx, self.inputs, true))
            }
        }
    }

    fn check(&self, x: [usize; 2], z: [usize; 2]) -> Result<()> {
        if x[1] != self.inputs {
            return Err(Error::shape("x", format!("[n, {}] as the projection has columns", self.inputs), &x));
        }
        if z != [x[0], self.outputs] {
            return Err(Error::shape("out", format!("[{}, {}]", x[0], self.outputs), &z));
        }
        Ok(())
    }
}

/// `body` on row-major copies where the views are not row-major.
fn through_slices<T: Scalar>(
    from: TensorView<'_, T, 2>,
    to: &mut TensorViewMut<'_, T, 2>,
    body: impl Fn(&[T], &mut [T]) -> Result<()>,
) -> Result<()> {
    let copy;
    let from = match from.as_slice() {
        Some(from) => from,
        None => {
            copy = from.to_tensor()?;
            copy.as_slice()
        }
    };
    if let Some(to) = to.as_mut_slice() {
        return body(from, to);
    }
    let mut whole = Tensor::zeros(to.shape())?;
    body(from, whole.as_mut_slice())?;
    to.copy_from(whole.view())
}
