//! [`SnnkLayer`]: a feed-forward layer that keeps features of its weights instead of the weights.

use kc_core::{Error, Result, Tensor, TensorView, TensorViewMut};
use kc_gemm::{PackedB, gemm, gemm_packed_into};

use super::map::{Map, RowGradients, SnnkConfig};
use crate::universal::Side;
use crate::{FeatureMap, Scalar, check_finite, check_width, each_tile, scratch};

/// `y = Re(Phi(x) psi^T)`, with `psi` `[out, width]` the only trained parameter.
#[derive(Debug, Clone)]
pub struct SnnkLayer<T: Scalar> {
    map: Map<T>,
    psi: Tensor<T, 2>,
    packed: PackedB<T>,
}

/// Gradients of a layer.
#[derive(Debug, Clone)]
pub struct LayerGradients<T: Scalar> {
    /// By the inputs, `[n, d]`.
    pub dx: Tensor<T, 2>,
    /// By the parameter, `[out, width]`; for complex features in halves, by the real and by the imaginary parts.
    pub dpsi: Tensor<T, 2>,
}

impl<T: Scalar> SnnkLayer<T> {
    /// The layer of weights `w` `[out, d]` and biases `b` `[out]`, which are not kept.
    ///
    /// # Errors
    /// `Shape`, `Empty`, `NotFinite`, and those of the map.
    pub fn from_weights(w: TensorView<'_, T, 2>, b: Option<&[T]>, config: &SnnkConfig) -> Result<Self> {
        let map = Map::draw(config, w.cols(), b.is_some())?;
        let psi = map.weights(w, b)?;
        Self::new(map, psi)
    }

    /// A layer with a given parameter, for instance one that was trained, fitted or bundled.
    ///
    /// # Errors
    /// `Shape` if `psi` is not `[out, width]`; `NotFinite`; `Empty` without outputs.
    pub fn new(map: Map<T>, psi: Tensor<T, 2>) -> Result<Self> {
        check_width("psi", psi.shape(), map.width())?;
        if psi.is_empty() {
            return Err(Error::empty("psi"));
        }
        check_finite("psi", psi.view(), 0)?;
        let packed = map.pack(psi.view())?;
        Ok(Self { map, psi, packed })
    }

    /// The features.
    pub fn map(&self) -> &Map<T> {
        &self.map
    }

    /// The parameter, `[out, width]`.
    pub fn psi(&self) -> TensorView<'_, T, 2> {
        self.psi.view()
    }

    /// The parameter as it stands in a product of halves: what later layers see as weights.
    pub(crate) fn real_psi(&self) -> Result<Tensor<T, 2>> {
        self.map.real_form(self.psi.view())
    }

    /// Changes the parameter, then packs it again.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn update(&mut self, change: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
        change(self.psi.as_mut_slice())?;
        self.packed = self.map.pack(self.psi.view())?;
        Ok(())
    }

    /// The width of an input.
    pub fn inputs(&self) -> usize {
        self.map.inputs()
    }

    /// The width of an output.
    pub fn outputs(&self) -> usize {
        self.psi.shape()[0]
    }

    /// Trained numbers: `out m`, twice that for complex features.
    pub fn n_params(&self) -> usize {
        self.psi.len()
    }

    /// Bytes held by the parameter, plain and packed; the directions, which layers may share, not counted.
    pub fn bytes(&self) -> usize {
        self.psi.len() * size_of::<T>() + self.packed.bytes()
    }

    /// `y` `[n, out]` of `x` `[n, d]`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; `Argument` for exponents above 80.
    pub fn forward(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut out = Tensor::zeros([x.rows(), self.outputs()])?;
        self.forward_into(x, out.view_mut())?;
        Ok(out)
    }

    /// [`forward`](Self::forward) into `out`. The features of a few rows at a time stay in the cache; none are stored.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(&self, x: TensorView<'_, T, 2>, out: TensorViewMut<'_, T, 2>) -> Result<()> {
        check_width("x", x.shape(), self.inputs())?;
        each_tile(x, self.outputs(), out, |rows, first, out| self.forward_tile(rows, first, out))
    }

    /// Some rows, on features that stay in the cache. `first` is what errors call the first of them.
    pub(crate) fn forward_tile(
        &self,
        rows: TensorView<'_, T, 2>,
        first: usize,
        mut out: TensorViewMut<'_, T, 2>,
    ) -> Result<()> {
        let [n, width] = [rows.rows(), self.map.width()];
        scratch::with(n * width, |phi: &mut [T]| {
            self.map.fill(rows, first, phi)?;
            let phi = TensorView::from_slice([n, width], phi)?;
            if out.strides()[1] == 1 || out.shape()[1] == 1 {
                return gemm_packed_into(one(), phi, &self.packed, T::ZERO, out);
            }
            scratch::with(out.len(), |whole: &mut [T]| {
                let shape = out.shape();
                let to = TensorViewMut::from_slice(shape, whole)?;
                gemm_packed_into(one(), phi, &self.packed, T::ZERO, to)?;
                out.copy_from(TensorView::from_slice(shape, whole)?)
            })
        })
    }

    /// Gradients by `x` and by `psi` from that by `y`: exact for the features that were drawn.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and `Shape` for `dy`.
    pub fn backward(&self, x: TensorView<'_, T, 2>, dy: TensorView<'_, T, 2>) -> Result<LayerGradients<T>> {
        let (phi, dphi) = self.feature_gradient(x, dy)?;
        let mut dpsi = gemm(dy.transposed(), phi.view())?;
        dpsi = self.map.real_form(dpsi.view())?;
        let RowGradients { rows: dx, .. } = self.map.backward(Side::X, x, None, &phi, &dphi)?;
        Ok(LayerGradients { dx, dpsi })
    }

    /// The gradient by the directions `G`, where these are trained too: the part that comes through the inputs. (That
    /// through the weights is [`Map::projection_gradient`] of [`Side::W`] with `dpsi`.)
    ///
    /// # Errors
    /// As [`backward`](Self::backward); `Unsupported` if the directions cannot be trained.
    pub fn projection_gradient(
        &self,
        x: TensorView<'_, T, 2>,
        dy: TensorView<'_, T, 2>,
    ) -> Result<Tensor<T, 2>> {
        let (phi, dphi) = self.feature_gradient(x, dy)?;
        self.map.projection_gradient(Side::X, x, None, &phi, &dphi)
    }

    /// Gradients by weights and biases from that by `psi`, for training `w` through `psi = Psi(w, b)`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`.
    pub fn weight_gradient(
        &self,
        w: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        dpsi: &Tensor<T, 2>,
    ) -> Result<RowGradients<T>> {
        let psi = self.map.weights(w, b)?;
        self.map.backward(Side::W, w, b, &psi, dpsi)
    }

    /// Features of `x`, and the gradient by them.
    fn feature_gradient(
        &self,
        x: TensorView<'_, T, 2>,
        dy: TensorView<'_, T, 2>,
    ) -> Result<(Tensor<T, 2>, Tensor<T, 2>)> {
        if dy.shape() != [x.rows(), self.outputs()] {
            return Err(Error::shape("dy", format!("[{}, {}]", x.rows(), self.outputs()), &dy.shape()));
        }
        check_finite("dy", dy, 0)?;
        let phi = self.map.apply(x)?;
        let dphi = gemm(dy, self.real_psi()?.view())?;
        Ok((phi, dphi))
    }
}

pub(crate) fn one<T: Scalar>() -> T {
    <T as kc_core::math::Real>::ONE
}
