//! [`StoredLayer`]: one layer as this crate's files hold it, of any method.
//!
//! A layer is a few named tensors and a few texts. A file of one layer has them as they are; a file of a model puts
//! the layer's name and a dot before each tensor, and keeps the texts of all layers together.
//!
//! | Method | Tensors | Texts |
//! |---|---|---|
//! | [`flexq`](crate::flexq) | `weight_packed`, `weight_scale`, `weight_zero_point`, `weight_shape`, as compressed-tensors has them | `bits`, `group`, `scheme`, `scale_dtype` |
//! | [`lut_gemm`](crate::lut_gemm) | `bits`, `alpha`, `offset` | `bits`, `group`, `shape` |
//! | [`fireq`] | `packed`, `scales` | `columns`, `group`, `scale_dtype`, `per_tensor` |
//!
//! All have the texts `kc.system` and `kc.version`. A layer whose columns were scaled before it was quantised, as
//! [`crossquant`](crate::crossquant) does, also has `column_factors` `[K]`.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, Error, Result, Tensor, TensorView};

use crate::crossquant::fold_columns;
use crate::fireq::{self, DequantMode, FireqWeights};
use crate::flexq::{QuantMatrix, QuantSpec, Scheme};
use crate::formats::{PackQuantized, PackQuantizedViews, ScaleView, ZeroPoints};
use crate::group::{Group, ScaleDtype};
use crate::linear::{Activations, QuantLinear};
use crate::lut_gemm::{BcqMatrix, BcqSpec, LutMode};
use crate::uniform::Zeros;

/// What a file says about a layer.
pub type Texts = BTreeMap<String, String>;

const VERSION: &str = "1";
const FACTORS: &str = "column_factors";

/// How to quantise a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Uniform codes of 1 to 8 bits in groups.
    Flexq(QuantSpec),
    /// Sums of scaled signs. Squared errors of a column weigh as much as its importance says, one number for each
    /// column of the weights as they are given, if there are any: the mean square of its inputs is a good one.
    Bcq(BcqSpec, Option<Vec<f32>>),
    /// INT4 codes with FP8 scales.
    Fireq(fireq::WeightSpec),
}

/// The weights of a layer.
#[derive(Debug, Clone)]
pub enum LayerWeights {
    /// Of [`Method::Flexq`].
    Flexq(QuantMatrix),
    /// Of [`Method::Bcq`].
    Bcq(BcqMatrix),
    /// Of [`Method::Fireq`].
    Fireq(FireqWeights),
}

/// A quantised layer, as it is stored.
///
/// ```
/// use kc_core::TensorView;
/// use kc_quant::flexq::QuantSpec;
/// use kc_quant::stored::{Method, StoredLayer};
///
/// let w = [0.5f32, -0.25, 1.0, 0.125, 0.75, -0.5];
/// let w = TensorView::from_slice([2, 3], &w)?;
/// let layer = StoredLayer::quantize(w, &Method::Flexq(QuantSpec::default()), None)?;
/// let (tensors, texts) = layer.to_tensors()?;
/// let find = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
/// let back = StoredLayer::from_tensors("layer", find, &texts)?;
/// assert_eq!(back.dequantize()?.as_slice(), layer.dequantize()?.as_slice());
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StoredLayer {
    weights: LayerWeights,
    factors: Option<Vec<f32>>,
}

impl StoredLayer {
    /// Quantises `w` `[N, K]`; columns are multiplied with `factors` `[K]` first, if there are any.
    ///
    /// # Errors
    /// Those of the method's quantiser; `Shape` for another number of factors or importances.
    pub fn quantize(w: TensorView<'_, f32, 2>, method: &Method, factors: Option<&[f32]>) -> Result<Self> {
        let folded = factors.map(|factors| fold_columns(w, factors)).transpose()?;
        let w = folded.as_ref().map_or(w, Tensor::view);
        let weights = match method {
            Method::Flexq(spec) => LayerWeights::Flexq(QuantMatrix::quantize(w, spec)?),
            Method::Bcq(spec, None) => LayerWeights::Bcq(BcqMatrix::quantize(w, spec, None)?),
            Method::Bcq(spec, Some(importance)) => {
                let mut h = importance.clone();
                // A column that was scaled has inputs that are divided.
                for (h, f) in h.iter_mut().zip(factors.unwrap_or_default()) {
                    *h = if *f == 0.0 { 0.0 } else { *h / (f * f) };
                }
                let h = TensorView::from_slice([1, h.len()], &h)?;
                LayerWeights::Bcq(BcqMatrix::quantize(w, spec, Some(h))?)
            }
            Method::Fireq(spec) => LayerWeights::Fireq(FireqWeights::quantize(w, spec)?),
        };
        Ok(Self { weights, factors: factors.map(<[f32]>::to_vec) })
    }

    /// A layer of weights that are quantised already.
    pub fn of(weights: LayerWeights) -> Self {
        Self { weights, factors: None }
    }

    /// The weights.
    pub fn weights(&self) -> &LayerWeights {
        &self.weights
    }

    /// What the columns were multiplied with.
    pub fn column_factors(&self) -> Option<&[f32]> {
        self.factors.as_deref()
    }

    /// `[N, K]`.
    pub fn shape(&self) -> [usize; 2] {
        match &self.weights {
            LayerWeights::Flexq(w) => w.uniform().shape(),
            LayerWeights::Bcq(w) => w.shape(),
            LayerWeights::Fireq(w) => w.shape(),
        }
    }

    /// What the layer's weights stand for, `[N, K]`, column factors taken off.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        let mut w = match &self.weights {
            LayerWeights::Flexq(w) => w.dequantize()?,
            LayerWeights::Bcq(w) => w.dequantize()?,
            LayerWeights::Fireq(w) => w.dequantize(DequantMode::Exact)?,
        };
        if let Some(factors) = &self.factors {
            for row in w.as_mut_slice().chunks_mut(factors.len().max(1)) {
                row.iter_mut().zip(factors).for_each(|(w, f)| *w = if *f == 0.0 { 0.0 } else { *w / f });
            }
        }
        Ok(w)
    }

    /// The layer, packed for products. `activations` is for uniform weights, `mode` for binary codes.
    ///
    /// # Errors
    /// Those of the product's type.
    pub fn linear(
        &self,
        bias: Option<&[f32]>,
        activations: Activations,
        mode: LutMode,
    ) -> Result<QuantLinear> {
        let linear = match &self.weights {
            LayerWeights::Flexq(w) => QuantLinear::from_uniform(w.uniform(), bias, activations)?,
            LayerWeights::Bcq(w) => QuantLinear::from_bcq(w, bias, mode)?,
            LayerWeights::Fireq(w) => QuantLinear::from_fireq(w, bias, &fireq::LinearConfig::default())?,
        };
        match &self.factors {
            Some(factors) => linear.with_column_factors(factors.clone()),
            None => Ok(linear),
        }
    }

    /// The tensors and texts of a file.
    pub fn to_tensors(&self) -> Result<(Vec<(String, AnyTensor)>, Texts)> {
        let (mut tensors, texts) = match &self.weights {
            LayerWeights::Flexq(w) => flexq_tensors(w)?,
            LayerWeights::Bcq(w) => w.to_tensors()?,
            LayerWeights::Fireq(w) => w.to_tensors()?,
        };
        if let Some(factors) = &self.factors {
            tensors.push((FACTORS.to_owned(), Tensor::from_slice([factors.len()], factors)?.into_any()));
        }
        Ok((tensors, texts))
    }

    /// The layer of tensors, which `tensor` finds by name, and texts. `source` names the file in errors.
    ///
    /// # Errors
    /// `Parse` for an unknown system or version, or tensors that are missing or do not agree.
    pub fn from_tensors(
        source: &str,
        tensor: impl Fn(&str) -> Option<AnyTensor>,
        texts: &Texts,
    ) -> Result<Self> {
        let needed = |name: &str| {
            tensor(name).ok_or_else(|| Error::parse(source, format!("there is no tensor `{name}`")))
        };
        let weights = match texts.get("kc.system").map(String::as_str) {
            Some("flexq") => LayerWeights::Flexq(read_flexq(source, &tensor, texts)?),
            Some("lut_gemm") => LayerWeights::Bcq(BcqMatrix::from_tensors(source, &tensor, texts)?),
            Some("fireq") => LayerWeights::Fireq(FireqWeights::from_tensors(needed, texts)?),
            other => {
                let got = other.unwrap_or("missing");
                let message = format!("kc.system is {got}, expected flexq, lut_gemm or fireq");
                return Err(Error::parse(source, message));
            }
        };
        let layer = Self { weights, factors: None };
        let Some(factors) = tensor(FACTORS) else { return Ok(layer) };
        let factors: Vec<f32> = factors.to_tensor::<f32, 1>(FACTORS)?.into_vec();
        let [_, k] = layer.shape();
        if factors.len() != k || factors.iter().any(|f| !f.is_finite() || *f < 0.0) {
            return Err(Error::parse(source, format!("`{FACTORS}` are not {k} numbers of at least 0")));
        }
        Ok(Self { factors: Some(factors), ..layer })
    }
}

fn flexq_tensors(w: &QuantMatrix) -> Result<(Vec<(String, AnyTensor)>, Texts)> {
    let (spec, uniform) = (w.spec(), w.uniform());
    let [n, k] = uniform.shape();
    // Zeros may lie outside of the codes, and are stored as they are.
    let zeros = match uniform.zeros() {
        Zeros::PerGroup(zeros) => Some(Tensor::from_slice([n, uniform.groups()], zeros)?.into_any()),
        Zeros::Constant(_) | Zeros::Offset(_) => None,
    };
    let half = Zeros::Constant(1 << (uniform.bits() - 1));
    let arrays = match zeros {
        None => PackQuantized::write(uniform, spec.scale_dtype)?,
        Some(_) => PackQuantized::write(&uniform.clone().with_zeros(half)?, spec.scale_dtype)?,
    };
    let mut tensors = vec![
        ("weight_packed".to_owned(), arrays.weight_packed.into_any()),
        ("weight_scale".to_owned(), arrays.weight_scale),
        ("weight_shape".to_owned(), arrays.weight_shape.into_any()),
    ];
    tensors.extend(zeros.map(|zeros| ("weight_zero_point".to_owned(), zeros)));
    let texts = [
        ("kc.system", "flexq".to_owned()),
        ("kc.version", VERSION.to_owned()),
        ("bits", uniform.bits().to_string()),
        ("group", if uniform.group() == k { "row".to_owned() } else { uniform.group().to_string() }),
        ("scheme", spec.scheme.name().to_owned()),
        ("scale_dtype", spec.scale_dtype.name().to_owned()),
    ];
    Ok((tensors, texts.map(|(key, value)| (key.to_owned(), value)).into()))
}

fn read_flexq(
    source: &str,
    tensor: &impl Fn(&str) -> Option<AnyTensor>,
    texts: &Texts,
) -> Result<QuantMatrix> {
    let bad = |message: String| Error::parse(source, message);
    let text = |key: &str| {
        texts.get(key).map(String::as_str).ok_or_else(|| bad(format!("`{key}` is missing in the metadata")))
    };
    let version = text("kc.version")?;
    if version != VERSION {
        return Err(bad(format!("kc.version is {version}, expected {VERSION}")));
    }
    let needed = |name: &str| tensor(name).ok_or_else(|| bad(format!("there is no tensor `{name}`")));
    let number = |key: &str| text(key)?.parse::<usize>().map_err(|_| bad(format!("`{key}` is no number")));
    let bits = u8::try_from(number("bits")?).map_err(|_| bad("`bits` is out of range".to_owned()))?;
    let group = if text("group")? == "row" { Group::Row } else { Group::Size(number("group")?) };
    let scheme = [Scheme::Sym, Scheme::Asym, Scheme::AsymFree]
        .into_iter()
        .find(|s| texts.get("scheme").is_some_and(|name| name == s.name()))
        .ok_or_else(|| bad("`scheme` is not sym, asym or asym_free".to_owned()))?;
    let packed = needed("weight_packed")?;
    let scale = needed("weight_scale")?;
    let shape = needed("weight_shape")?.to_f64::<1>("weight_shape")?;
    let [n, k] = *shape.as_slice() else { return Err(bad("`weight_shape` has not two lengths".to_owned())) };
    if !(n >= 1.0 && k >= 1.0 && n <= u32::MAX.into() && k <= u32::MAX.into()) {
        return Err(bad(format!("`weight_shape` is [{n}, {k}]")));
    }
    let shape = [n as usize, k as usize];
    let zeros = tensor("weight_zero_point");
    if zeros.is_some() == (scheme == Scheme::Sym) {
        let what = if zeros.is_some() { "not wanted" } else { "missing" };
        return Err(bad(format!("`weight_zero_point` is {what} for the scheme {}", scheme.name())));
    }
    let views = PackQuantizedViews {
        weight_packed: packed.view("weight_packed")?,
        weight_scale: ScaleView::of(&scale, "weight_scale")?,
        weight_zero_point: zeros
            .as_ref()
            .map(|z| z.view("weight_zero_point").map(ZeroPoints::Unsigned))
            .transpose()?,
        weight_shape: shape,
        weight_g_idx: None,
    };
    let columns = group.len(shape[1])?;
    let read = PackQuantized::read(views, Some(bits), Some(columns));
    let scale_dtype = views.weight_scale.dtype();
    let uniform = read.and_then(|read| read.to_uniform()).map_err(|error| bad(error.to_string()))?;
    if uniform.group() != columns {
        return Err(bad(format!("groups of {} columns, expected {columns}", uniform.group())));
    }
    let spec = QuantSpec { bits, group, scheme, scale_dtype, scale_floor: 0.0 };
    let same = texts.get("scale_dtype").and_then(|name| ScaleDtype::from_name(name)) == Some(scale_dtype);
    if texts.contains_key("scale_dtype") && !same {
        return Err(bad(format!("scales are {}, not what `scale_dtype` says", scale_dtype.name())));
    }
    QuantMatrix::from_uniform(uniform, &spec)
}
