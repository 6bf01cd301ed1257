//! Whole networks, or runs of their layers, as one matrix of parameters.

use kc_core::{Error, Result, Tensor, TensorView};
use kc_gemm::gemm;

use super::layer::SnnkLayer;
use super::map::Map;
use crate::{FeatureMap, Scalar, each_tile, scratch};

/// Feature maps one after the other: `Phi_L(... Phi_1(x))`.
#[derive(Debug, Clone)]
pub struct Bundle<T: Scalar> {
    maps: Vec<Map<T>>,
}

impl<T: Scalar> Bundle<T> {
    /// Each map reads the features of the one before.
    ///
    /// # Errors
    /// `Empty`; `Shape` if the widths do not fit.
    pub fn new(maps: Vec<Map<T>>) -> Result<Self> {
        if maps.is_empty() {
            return Err(Error::empty("maps"));
        }
        for pair in maps.windows(2) {
            if pair[1].inputs() != pair[0].width() {
                return Err(Error::shape(
                    "maps",
                    format!("{} inputs, as many as the map before has features", pair[0].width()),
                    &[pair[1].inputs()],
                ));
            }
        }
        Ok(Self { maps })
    }

    /// The maps, first to last.
    pub fn maps(&self) -> &[Map<T>] {
        &self.maps
    }

    /// The last map.
    pub(crate) fn last(&self) -> &Map<T> {
        &self.maps[self.maps.len() - 1]
    }
}

impl<T: Scalar> FeatureMap<T> for Bundle<T> {
    fn inputs(&self) -> usize {
        self.maps[0].inputs()
    }

    fn width(&self) -> usize {
        self.last().width()
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        let Some((last, before)) = self.maps.split_last() else { return Ok(()) };
        chain(before, rows, first, |rows| last.fill(rows, first, out))
    }
}

/// `body` with the features of `maps`, one after the other.
fn chain<T: Scalar>(
    maps: &[Map<T>],
    rows: TensorView<'_, T, 2>,
    first: usize,
    body: impl FnOnce(TensorView<'_, T, 2>) -> Result<()>,
) -> Result<()> {
    let Some((map, rest)) = maps.split_first() else { return body(rows) };
    scratch::with(rows.rows() * map.width(), |phi: &mut [T]| {
        map.fill(rows, first, phi)?;
        chain(rest, TensorView::from_slice([rows.rows(), map.width()], phi)?, first, body)
    })
}

/// A network of one matrix: `y = Re(Phi_L(... Phi_1(x)) psi^T)`.
#[derive(Debug, Clone)]
pub struct Bundled<T: Scalar> {
    before: Vec<Map<T>>,
    layer: SnnkLayer<T>,
}

impl<T: Scalar> Bundled<T> {
    /// The features of `bundle` with the parameter `psi` `[out, width]`.
    ///
    /// # Errors
    /// Those of [`SnnkLayer::new`].
    pub fn new(bundle: &Bundle<T>, psi: Tensor<T, 2>) -> Result<Self> {
        let before = bundle.maps[..bundle.maps.len() - 1].to_vec();
        Ok(Self { before, layer: SnnkLayer::new(bundle.last().clone(), psi)? })
    }

    /// The parameter.
    pub fn psi(&self) -> TensorView<'_, T, 2> {
        self.layer.psi()
    }

    /// The last layer, which holds it.
    pub fn layer(&self) -> &SnnkLayer<T> {
        &self.layer
    }

    /// Trained numbers.
    pub fn n_params(&self) -> usize {
        self.layer.n_params()
    }

    /// `[n, out]` from `x` `[n, d]`.
    ///
    /// # Errors
    /// Those of [`SnnkLayer::forward`].
    pub fn forward(&self, x: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let first_map = self.before.first().unwrap_or(self.layer.map());
        crate::check_width("x", x.shape(), first_map.inputs())?;
        let mut out = Tensor::zeros([x.rows(), self.layer.outputs()])?;
        each_tile(x, self.layer.outputs(), out.view_mut(), |rows, first, out| {
            chain(&self.before, rows, first, |phi| self.layer.forward_tile(phi, first, out))
        })?;
        Ok(out)
    }
}

/// A layer to bundle: weights `[out, d]`, and biases `[out]`.
pub type Weights<'a, T> = (TensorView<'a, T, 2>, Option<&'a [T]>);

/// Bundles consecutive layers: `psi_l = Psi_l(W_l psi_{l-1})`, `psi_0 = I`. The maps are those of `bundle`, one for
/// each layer, each with directions of its own.
///
/// # Errors
/// `Shape` if there is not one layer for each map or sizes do not fit; those of the features.
pub fn bundle<T: Scalar>(layers: &[Weights<'_, T>], bundle: &Bundle<T>) -> Result<Bundled<T>> {
    if layers.len() != bundle.maps.len() {
        return Err(Error::shape(
            "layers",
            format!("{}, one for each map", bundle.maps.len()),
            &[layers.len()],
        ));
    }
    let mut psi: Option<Tensor<T, 2>> = None;
    for (i, ((w, b), map)) in layers.iter().zip(&bundle.maps).enumerate() {
        psi = Some(match &psi {
            None => map.weights(*w, *b)?,
            Some(psi) => {
                if w.cols() != psi.shape()[0] {
                    return Err(Error::shape(
                        format!("layers[{i}]"),
                        format!("[out, {}], as the layer before has outputs", psi.shape()[0]),
                        &w.shape(),
                    ));
                }
                let seen = gemm(*w, bundle.maps[i - 1].real_form(psi.view())?.view())?;
                map.weights(seen.view(), *b)?
            }
        });
    }
    match psi {
        Some(psi) => Bundled::new(bundle, psi),
        None => Err(Error::empty("layers")),
    }
}
