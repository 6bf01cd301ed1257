//! [`StreamingFit`]: the closed form over chunks of data.

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};
use kc_gemm::gemm_into;

use super::bundle::{Bundle, Bundled};
use super::fit::{bundled, check_ridge, solve_ridge, wide};
use crate::{FeatureMap, Scalar, check_finite};

/// `F^T F` and `F^T Y` over chunks of X, for data that are never in memory at once.
#[derive(Debug, Clone)]
pub struct StreamingFit<T: Scalar> {
    bundle: Bundle<T>,
    gram: Tensor<f64, 2>,
    right: Tensor<f64, 2>,
    rows: u64,
}

impl<T: Scalar> StreamingFit<T> {
    /// No rows yet; `out` targets.
    ///
    /// # Errors
    /// `Empty` without targets; memory.
    pub fn new(bundle: &Bundle<T>, out: usize) -> Result<Self> {
        if out == 0 {
            return Err(Error::empty("y"));
        }
        let m = bundle.width();
        Ok(Self {
            bundle: bundle.clone(),
            gram: Tensor::zeros([m, m])?,
            right: Tensor::zeros([m, out])?,
            rows: 0,
        })
    }

    /// Adds rows. Sums run in f64, chunk by chunk in the order of the calls.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; the sums are then as before.
    pub fn observe(&mut self, x: TensorView<'_, T, 2>, y: TensorView<'_, T, 2>) -> Result<()> {
        if y.shape() != [x.rows(), self.right.shape()[1]] {
            return Err(Error::shape("y", format!("[{}, {}]", x.rows(), self.right.shape()[1]), &y.shape()));
        }
        check_finite("y", y, 0)?;
        let (f, y) = (wide(self.bundle.apply(x)?.view())?, wide(y)?);
        let turned = f.view().transposed();
        let add = |with: TensorView<'_, f64, 2>, to: TensorViewMut<'_, f64, 2>| {
            gemm_into(1.0, turned, with, 1.0, to)
        };
        add(f.view(), self.gram.view_mut())?;
        add(y.view(), self.right.view_mut())?;
        self.rows += x.rows() as u64;
        Ok(())
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The best parameter for all rows.
    ///
    /// # Errors
    /// `Argument` for a ridge that is negative; `Unsupported` for none, which needs the features themselves
    /// ([`fit_closed_form`]); `Empty` before the first row; `Singular` if the ridge is too small for rounding.
    pub fn solve(&self, ridge: f64) -> Result<Bundled<T>> {
        if check_ridge(ridge)? == 0.0 {
            return Err(Error::unsupported(
                "ridge",
                "sums of products hold no minimum-norm solution; use fit_closed_form",
            ));
        }
        if self.rows == 0 {
            return Err(Error::empty("x"));
        }
        bundled(&self.bundle, &solve_ridge(self.gram.clone(), self.right.clone(), ridge)?)
    }
}
