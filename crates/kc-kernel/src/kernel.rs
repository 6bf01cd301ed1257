//! What structured kernels have in common.

use std::ops::Range;

use kc_core::{Element, Error, Isa, Result, Tensor};
use kc_qmc::Sequence;

use crate::config::KernelConfig;
use crate::derivative::Term;
use crate::ft::Transform;
use crate::points::Points;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::si::SiKernel {}
    impl Sealed for crate::dsi::DsiKernel {}
}

/// A product kernel `S prod_j (1 + gamma_j kappa_j)` that is a function of the difference of its arguments: modulo 1
/// ([`SiKernel`](crate::si::SiKernel)) or digit by digit ([`DsiKernel`](crate::dsi::DsiKernel)). Sealed.
pub trait Kernel: sealed::Sealed + Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static {
    /// A coordinate of a point.
    type Point: Element;

    /// The transform that makes matrices of this kernel on its points diagonal.
    const TRANSFORM: Transform;

    /// The parameters.
    fn config(&self) -> &KernelConfig;

    /// The same kernel with other parameters.
    ///
    /// # Errors
    /// As when it was made.
    fn with_config(&self, config: KernelConfig) -> Result<Self>;

    /// The value at equal arguments.
    fn diagonal(&self) -> f64;

    /// Checks a coordinate: `Argument` if it is outside of the kernel's domain.
    #[doc(hidden)]
    fn check_point(&self, x: Self::Point) -> Result<()>;

    /// Checks that the points are those of a lattice or net in natural order.
    #[doc(hidden)]
    fn check_structure(&self, points: &Points<Self::Point>) -> Result<()>;

    /// Checks that `other` are the first of `points`, shifted.
    #[doc(hidden)]
    fn check_shifted(&self, points: &Points<Self::Point>, other: &Points<Self::Point>) -> Result<()>;

    /// The points `rows` of a sequence, row by row, and their coordinates.
    #[doc(hidden)]
    fn draw(
        &self,
        sequence: &mut dyn Sequence,
        rows: Range<u64>,
    ) -> Result<(Vec<Self::Point>, Tensor<f64, 3>)>;

    /// `kappa_dim(x_i, z)` for each `x_i`.
    #[doc(hidden)]
    fn factor(&self, isa: Isa, dim: usize, x: &[Self::Point], z: Self::Point, out: &mut [f64]);

    /// The derivatives of [`factor`](Self::factor) by the logarithm of a parameter of the smoothness.
    #[doc(hidden)]
    fn slope(&self, isa: Isa, dim: usize, term: usize, x: &[Self::Point], z: Self::Point, out: &mut [f64]);

    /// `v = (1 + v) (1 + gamma_dim kappa_dim) - 1`, so that small products keep their digits.
    #[doc(hidden)]
    fn multiply(&self, isa: Isa, dim: usize, x: &[Self::Point], z: Self::Point, v: &mut [f64]);

    /// Checks that the derivatives of two terms exist.
    #[doc(hidden)]
    fn check_derivative(&self, left: &Term, right: &Term) -> Result<()>;

    /// The derivative of `left` in the first argument and `right` in the second.
    #[doc(hidden)]
    fn derivative(&self, left: &Term, right: &Term, x: &[Self::Point], z: &[Self::Point]) -> f64;

    /// Dimensions.
    fn dims(&self) -> usize {
        self.config().weights.len()
    }
}

/// The error of points that do not have the structure which fast algebra needs.
pub(crate) fn not_structured(expected: &str, got: impl std::fmt::Display) -> Error {
    Error::argument("x", format!("points of {expected} in natural order, with one shift"), got)
}
