//! The nonlinearity of a layer: which features, for inputs and for weights.

use kc_core::math::Real;
use kc_core::{Error, Result, Tensor, TensorView};
use kc_gemm::{Lines, PackedB};

use crate::maclaurin::{Maclaurin, Series};
use crate::relu::Relu;
use crate::universal::{Side, Spectrum, Universal};
use crate::{
    Draw, FeatureMap, Projection, Scalar, check_finite, check_width, over_tiles, scratch, square_length,
};

/// Which features a layer is made of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Nonlinearity {
    /// [`Relu::arc_cosine`]: a nonlinearity of its own, not `relu(w . x)`.
    Relu {
        /// What is cut off below.
        threshold: f64,
    },
    /// [`Universal`]: `f(w . x + b)` by the spectrum of `f`.
    Universal {
        /// The spectrum of `f`.
        spectrum: Spectrum,
        /// Share of the exponent on the side of x, 0 to 1.
        split: f64,
        /// Tilt of the Gaussian, above -1/4.
        lam: f64,
        /// Frequencies in pairs `xi, -xi` that share a direction: the sum over features is then real.
        antithetic: bool,
    },
    /// [`Maclaurin`]: `f(w . x)` by the power series of `f`.
    Maclaurin {
        /// The coefficients.
        series: Series,
        /// The largest degree, at most 64.
        n_max: usize,
        /// Degrees 0 and 1 exactly, by `1 + d` more features.
        h01: bool,
    },
}

impl Default for Nonlinearity {
    fn default() -> Self {
        Nonlinearity::Relu { threshold: 0.0 }
    }
}

/// How a layer is drawn. The default is the adapters' setting: ReLU features, independent directions.
#[derive(Debug, Clone, PartialEq)]
pub struct SnnkConfig {
    /// Which features.
    pub map: Nonlinearity,
    /// `m`, the number of features (complex ones count once), at least 1.
    pub features: usize,
    /// How directions are drawn.
    pub draw: Draw,
    /// Of everything random.
    pub seed: u64,
    /// Scales every row of x and of w to this length first; rows of zeros stay.
    pub normalize: Option<f64>,
}

impl Default for SnnkConfig {
    fn default() -> Self {
        Self { map: Nonlinearity::default(), features: 64, draw: Draw::Independent, seed: 0, normalize: None }
    }
}

/// What the features are made with.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "one for each layer, beside megabytes of directions")]
pub enum Features<T: Scalar> {
    /// ReLU features.
    Relu(Relu<T>),
    /// Complex features, in halves.
    Universal(Universal<T>),
    /// Random Maclaurin features.
    Maclaurin(Maclaurin<T>),
}

/// The maps `Phi` of inputs and `Psi` of weights, which share everything random.
///
/// With a bias, ReLU and Maclaurin features are of `(x, 1)` and `(w, b)`; their directions then have `d + 1` columns.
#[derive(Debug, Clone)]
pub struct Map<T: Scalar> {
    features: Features<T>,
    normalize: Option<f64>,
    /// True if the directions have a column for the bias.
    column: bool,
}

/// Gradients by rows of x or w, and by the biases.
#[derive(Debug, Clone)]
pub struct RowGradients<T: Scalar> {
    /// `[n, d]`
    pub rows: Tensor<T, 2>,
    /// `[n]`; zeros where no bias enters.
    pub bias: Vec<T>,
}

impl<T: Scalar> Map<T> {
    /// A map for inputs of width `d`, with room for a bias or not.
    ///
    /// # Errors
    /// `Empty`, and those of the features.
    pub fn draw(config: &SnnkConfig, d: usize, bias: bool) -> Result<Self> {
        if d == 0 {
            return Err(Error::empty("x"));
        }
        let SnnkConfig { features: m, draw, seed, .. } = *config;
        let column = bias && !matches!(config.map, Nonlinearity::Universal { .. });
        let width = d + usize::from(column);
        let features = match &config.map {
            Nonlinearity::Relu { threshold } => {
                Features::Relu(Relu::arc_cosine(Projection::draw(draw, m, width, seed)?, *threshold)?)
            }
            Nonlinearity::Universal { spectrum, split, lam, antithetic } => {
                let (xi, c) = spectrum.draw(m, *antithetic, seed)?;
                let projection = if *antithetic {
                    let half = Projection::<T>::draw(draw, m.div_ceil(2), width, seed)?.to_matrix()?;
                    Projection::new(Tensor::from_fn([m, width], |[k, j]| half[[k / 2, j]])?)?
                } else {
                    Projection::draw(draw, m, width, seed)?
                };
                Features::Universal(Universal::new(projection, xi, c, *split, *lam)?)
            }
            Nonlinearity::Maclaurin { series, n_max, h01 } => {
                Features::Maclaurin(Maclaurin::draw(series, *n_max, *h01, m, width, seed)?)
            }
        };
        Self::new(features, config.normalize, column)
    }

    /// Given features. With `column`, the last column of their directions belongs to the bias.
    ///
    /// # Errors
    /// `Argument` for a length that is not positive, or a column where the features have their own bias; `Shape` if
    /// nothing but the column is left.
    pub fn new(features: Features<T>, normalize: Option<f64>, column: bool) -> Result<Self> {
        if let Some(length) = normalize
            && !(length > 0.0 && length.is_finite())
        {
            return Err(Error::argument("normalize", "a positive length", length));
        }
        if column && matches!(features, Features::Universal(_)) {
            return Err(Error::argument("column", "false: universal features have their own bias", column));
        }
        let map = Self { features, normalize, column };
        if map.directions() == usize::from(column) {
            return Err(Error::shape("g", "columns for x beside that of the bias", &[map.directions()]));
        }
        Ok(map)
    }

    /// What the features are made with.
    pub fn features(&self) -> &Features<T> {
        &self.features
    }

    /// The length to which rows are scaled.
    pub fn normalize(&self) -> Option<f64> {
        self.normalize
    }

    /// True if a bias enters through a column of the directions.
    pub fn column(&self) -> bool {
        self.column
    }

    /// True if features are complex: the width is then twice their number.
    pub fn is_complex(&self) -> bool {
        matches!(self.features, Features::Universal(_))
    }

    /// True if [`Side::W`] takes a bias.
    pub fn takes_bias(&self) -> bool {
        self.column || self.is_complex()
    }

    fn directions(&self) -> usize {
        match &self.features {
            Features::Relu(f) => f.inputs(),
            Features::Universal(f) => f.inputs(),
            Features::Maclaurin(f) => f.inputs(),
        }
    }

    /// The features of rows of weights `[o, d]` with biases `b` `[o]` (none: 0): `[o, width]`.
    ///
    /// # Errors
    /// `Shape`, `NotFinite`; `Argument` for exponents that overflow, or a bias for which there is no column.
    pub fn weights(&self, w: TensorView<'_, T, 2>, b: Option<&[T]>) -> Result<Tensor<T, 2>> {
        self.check_bias(w.rows(), b)?;
        check_finite("w", w, 0)?;
        let mut out = Tensor::zeros([w.rows(), self.width()])?;
        over_tiles(w, self.inputs(), self.width(), out.view_mut(), |rows, first, out| {
            let b = b.map(|b| &b[first..first + rows.rows()]);
            self.fill_side(Side::W, rows, b, first, out)
        })?;
        Ok(out)
    }

    fn check_bias(&self, rows: usize, b: Option<&[T]>) -> Result<()> {
        let Some(b) = b else { return Ok(()) };
        if b.len() != rows {
            return Err(Error::shape("b", format!("[{rows}], one for each row of w"), &[b.len()]));
        }
        if !self.takes_bias() {
            return Err(Error::argument("b", "no bias: the directions have no column for it", "one"));
        }
        check_finite("b", TensorView::from_slice([1, b.len()], b)?, 0)
    }

    fn fill_side(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        first: usize,
        out: &mut [T],
    ) -> Result<()> {
        let name = if side == Side::X { "x" } else { "w" };
        self.prepared(name, side, rows, b, first, |rows| match &self.features {
            Features::Relu(f) => f.fill(rows, first, out),
            Features::Universal(f) => f.fill_side(side, rows, b, first, out),
            Features::Maclaurin(f) => f.fill_side(side, rows, first, out),
        })
    }

    /// `body` with rows scaled and with their bias, where the map asks for it.
    fn prepared<R>(
        &self,
        name: &'static str,
        side: Side,
        rows: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        first: usize,
        body: impl FnOnce(TensorView<'_, T, 2>) -> Result<R>,
    ) -> Result<R> {
        let d = self.inputs();
        check_width(name, rows.shape(), d)?;
        if self.normalize.is_none() && !self.column {
            return body(rows);
        }
        check_finite(name, rows, first)?;
        let width = self.directions();
        scratch::with(rows.rows() * width, |copy: &mut [T]| {
            for (i, copy) in copy.chunks_exact_mut(width).enumerate() {
                self.scaled(rows.row(i), &mut copy[..d]);
                if self.column {
                    copy[d] = match side {
                        Side::X => <T as Real>::ONE,
                        Side::W => b.map_or(T::ZERO, |b| b[i]),
                    };
                }
            }
            body(TensorView::from_slice([rows.rows(), width], copy)?)
        })
    }

    /// A row of the wanted length, in f64, whose range the factors of tiny numbers need.
    fn scaled(&self, row: TensorView<'_, T, 1>, to: &mut [T]) {
        let pairs = to.iter_mut().zip(row.iter());
        let Some(length) = self.normalize else {
            pairs.for_each(|(to, x)| *to = x);
            return;
        };
        let square = square_length(row);
        if square.is_normal() {
            let factor = length / square.sqrt();
            pairs.for_each(|(to, x)| *to = T::from_f64(x.to_f64() * factor));
            return;
        }
        // Squares that f64 does not hold: in units of the largest number.
        let most = row.iter().fold(0.0, |most: f64, x| most.max(x.to_f64().abs()));
        let unit = if most > 0.0 { most } else { 1.0 };
        let square: f64 = row.iter().map(|x| (x.to_f64() / unit).powi(2)).sum();
        let factor = if most > 0.0 { length / square.sqrt() } else { 0.0 };
        pairs.for_each(|(to, x)| *to = T::from_f64(x.to_f64() / unit * factor));
    }

    /// From the gradient by the features of rows of one side, and these features, to that by the rows and biases.
    /// All in rows of `width` elements.
    ///
    /// # Errors
    /// `Shape`.
    pub fn backward(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        features: &Tensor<T, 2>,
        gradient: &Tensor<T, 2>,
    ) -> Result<RowGradients<T>> {
        let name = if side == Side::X { "x" } else { "w" };
        self.check_gradient(rows, features, gradient)?;
        let (n, d) = (rows.rows(), self.inputs());
        let mut bias = vec![T::ZERO; n];
        let whole = self.prepared(name, side, rows, b, 0, |rows| match &self.features {
            Features::Relu(f) => f.backward(features.view(), gradient.view()),
            Features::Maclaurin(f) => f.backward_side(side, rows, gradient.view()),
            Features::Universal(f) => {
                let mut dz = Tensor::zeros([n, f.projection().outputs()])?;
                let back = f.backward_side(side, features.as_slice(), gradient.as_slice(), dz.as_mut_slice());
                let mut dx = Tensor::zeros([n, d])?;
                f.projection().back_into(dz.view(), dx.view_mut())?;
                for (i, (dx, along)) in dx.as_mut_slice().chunks_exact_mut(d).zip(&back.along).enumerate() {
                    let along = T::from_f64(*along);
                    for (dx, x) in dx.iter_mut().zip(rows.row(i).iter()) {
                        *dx = *dx - along * x;
                    }
                }
                bias.copy_from_slice(&back.bias);
                Ok(dx)
            }
        })?;
        let mut out = if self.column {
            for (i, bias) in bias.iter_mut().enumerate() {
                *bias = whole[[i, d]];
            }
            whole.view().slice(1, 0..d)?.to_tensor()?
        } else {
            whole
        };
        if let Some(length) = self.normalize {
            for (i, g) in out.as_mut_slice().chunks_exact_mut(d).enumerate() {
                unscale(rows.row(i), length, g);
            }
        }
        Ok(RowGradients { rows: out, bias })
    }

    /// The gradient by the directions `G` `[m, d]` of what the features of `rows` of one side contribute.
    ///
    /// # Errors
    /// `Shape`; `Unsupported` for Maclaurin features, whose directions are signs, and for directions that are not
    /// stored.
    pub fn projection_gradient(
        &self,
        side: Side,
        rows: TensorView<'_, T, 2>,
        b: Option<&[T]>,
        features: &Tensor<T, 2>,
        gradient: &Tensor<T, 2>,
    ) -> Result<Tensor<T, 2>> {
        let name = if side == Side::X { "x" } else { "w" };
        self.check_gradient(rows, features, gradient)?;
        let stored = match &self.features {
            Features::Relu(f) => f.projection().matrix(),
            Features::Universal(f) => f.projection().matrix(),
            Features::Maclaurin(_) => None,
        };
        let Some(g) = stored else {
            return Err(Error::unsupported(
                "projection_gradient",
                "directions that are random signs are not trained",
            ));
        };
        self.prepared(name, side, rows, b, 0, |rows| match &self.features {
            Features::Universal(f) => {
                let mut dz = Tensor::zeros([rows.rows(), g.rows()])?;
                let back = f.backward_side(side, features.as_slice(), gradient.as_slice(), dz.as_mut_slice());
                let mut dg = kc_gemm::gemm(dz.view().transposed(), rows)?;
                if f.lam() != 0.0 {
                    for (k, dg) in dg.as_mut_slice().chunks_exact_mut(g.cols()).enumerate() {
                        let factor = T::from_f64(2.0 * f.lam() * back.real_sums[k]);
                        for (dg, g) in dg.iter_mut().zip(g.row(k).iter()) {
                            *dg = *dg - factor * g;
                        }
                    }
                }
                Ok(dg)
            }
            Features::Relu(f) => {
                let mut dz = gradient.clone();
                f.backward_projected(features.as_slice(), dz.as_mut_slice())?;
                kc_gemm::gemm(dz.view().transposed(), rows)
            }
            Features::Maclaurin(_) => unreachable!("has no stored directions"),
        })
    }

    fn check_gradient(
        &self,
        rows: TensorView<'_, T, 2>,
        features: &Tensor<T, 2>,
        gradient: &Tensor<T, 2>,
    ) -> Result<()> {
        let want = [rows.rows(), self.width()];
        for (name, got) in [("features", features.shape()), ("gradient", gradient.shape())] {
            if got != want {
                return Err(Error::shape(name, format!("{want:?}"), &got));
            }
        }
        Ok(())
    }

    /// `psi` `[o, width]` as it stands in a product of halves: imaginary parts with the other sign, since
    /// `Re(Phi Psi^T) = Re Phi Re Psi^T - Im Phi Im Psi^T`.
    pub(crate) fn real_form(&self, psi: TensorView<'_, T, 2>) -> Result<Tensor<T, 2>> {
        let mut out = psi.to_tensor()?;
        if self.is_complex() {
            let width = self.width();
            for row in out.as_mut_slice().chunks_exact_mut(width) {
                row[width / 2..].iter_mut().for_each(|x| *x = -*x);
            }
        }
        Ok(out)
    }

    pub(crate) fn pack(&self, psi: TensorView<'_, T, 2>) -> Result<PackedB<T>> {
        let isa = self.isa();
        if self.is_complex() {
            let signed = self.real_form(psi)?;
            return PackedB::from_source(isa, &Lines::columns(signed.view().transposed()));
        }
        PackedB::from_source(isa, &Lines::columns(psi.transposed()))
    }

    pub(crate) fn isa(&self) -> kc_core::Isa {
        match &self.features {
            Features::Relu(f) => f.projection().isa(),
            Features::Universal(f) => f.projection().isa(),
            Features::Maclaurin(f) => f.isa(),
        }
    }
}

/// From the gradient by `length x / |x|` to that by `x`, in place.
fn unscale<T: Scalar>(x: TensorView<'_, T, 1>, length: f64, g: &mut [T]) {
    let square = square_length(x);
    if square == 0.0 {
        g.fill(T::ZERO);
        return;
    }
    let along: f64 = g.iter().zip(x.iter()).map(|(g, x)| g.to_f64() * x.to_f64()).sum::<f64>() / square;
    let factor = length / square.sqrt();
    for (g, x) in g.iter_mut().zip(x.iter()) {
        *g = T::from_f64(factor * (g.to_f64() - along * x.to_f64()));
    }
}

impl<T: Scalar> FeatureMap<T> for Map<T> {
    fn inputs(&self) -> usize {
        self.directions() - usize::from(self.column)
    }

    fn width(&self) -> usize {
        match &self.features {
            Features::Relu(f) => f.width(),
            Features::Universal(f) => f.width(),
            Features::Maclaurin(f) => f.width(),
        }
    }

    fn fill(&self, rows: TensorView<'_, T, 2>, first: usize, out: &mut [T]) -> Result<()> {
        self.fill_side(Side::X, rows, None, first, out)
    }
}
