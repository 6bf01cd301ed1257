//! Parameters of structured kernels as JSON, and points as files: what `kc kernel` and `kc gp` share.

use anyhow::{Context, Result};
use clap::ValueEnum;
use kc_core::{AnyTensor, DType, Error, Tensor};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::si::SiKernel;
use kc_kernel::{Kernel, KernelConfig, Points, Smoothness};
use serde_json::{Map, Value, json};

use crate::input;

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Shift-invariant, orders 1 to 5: lattices
    Si,
    /// Digitally shift-invariant, orders 1 to 4: digital nets
    Dsi,
    /// Digitally shift-invariant with a real order for each dimension
    DsiAa,
    /// Sums of the shift-invariant kernels of orders 1 to 4
    SiCombined,
    /// Sums of the digitally shift-invariant kernels of orders 1 to 4
    DsiCombined,
}

impl Kind {
    /// The name on the command line and in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Si => "si",
            Kind::Dsi => "dsi",
            Kind::DsiAa => "dsi-aa",
            Kind::SiCombined => "si-combined",
            Kind::DsiCombined => "dsi-combined",
        }
    }

    /// For points of lattices.
    pub(crate) fn is_si(self) -> bool {
        matches!(self, Kind::Si | Kind::SiCombined)
    }
}

/// What a parameter file says.
#[derive(Debug, Clone)]
pub(crate) struct Params {
    pub(crate) config: KernelConfig,
    pub(crate) noise: Option<f64>,
    pub(crate) bits: u32,
}

impl Params {
    /// A file, or the defaults without one.
    pub(crate) fn read(kind: Kind, file: Option<&str>, dims: usize) -> Result<Self> {
        let value = match file {
            Some(file) => kc_io::json::read(file).context("--params")?,
            None => json!({}),
        };
        Self::parse(kind, &value, dims).context("--params")
    }

    /// A JSON object; whatever it does not say has its default.
    pub(crate) fn parse(kind: Kind, value: &Value, dims: usize) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(Error::argument("parameters", "a JSON object", brief(value)).into());
        };
        const KNOWN: [&str; 5] = ["alpha", "gamma", "scale", "noise", "t"];
        if let Some(other) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::argument("parameters", format!("keys of {KNOWN:?}"), other).into());
        }
        let mut config = KernelConfig::new(smoothness(kind, fields.get("alpha"), dims)?);
        if let Some(gamma) = fields.get("gamma") {
            config.weights = numbers("gamma", gamma, dims)?;
        }
        if let Some(scale) = fields.get("scale") {
            config.scale = number("scale", scale)?;
        }
        let noise = fields.get("noise").map(|noise| number("noise", noise)).transpose()?;
        if let Some(noise) = noise
            && noise <= 0.0
        {
            return Err(Error::argument("noise", "a number above 0", noise).into());
        }
        let bits = match fields.get("t") {
            None => 63,
            Some(t) => t
                .as_u64()
                .and_then(|t| u32::try_from(t).ok())
                .ok_or_else(|| Error::argument("t", "1 to 64 bits", brief(t)))?,
        };
        Ok(Self { config, noise, bits })
    }

    /// All of it as JSON, which [`parse`](Self::parse) reads.
    pub(crate) fn to_json(kind: Kind, config: &KernelConfig, noise: f64, bits: u32) -> Value {
        let alpha = match &config.smoothness {
            Smoothness::Orders(all) => json!(all),
            Smoothness::Adaptive(all) => json!(all),
            Smoothness::Combined(all) => {
                json!([0, 1, 2, 3].map(|p| all.iter().map(|factors| factors[p]).collect::<Vec<_>>()))
            }
        };
        let mut fields = Map::new();
        fields.insert("alpha".into(), alpha);
        fields.insert("gamma".into(), json!(config.weights));
        fields.insert("scale".into(), json!(config.scale));
        fields.insert("noise".into(), json!(noise));
        if !kind.is_si() {
            fields.insert("t".into(), json!(bits));
        }
        Value::Object(fields)
    }

    pub(crate) fn si(&self) -> Result<SiKernel> {
        Ok(SiKernel::new(self.config.clone())?)
    }

    pub(crate) fn dsi(&self) -> Result<DsiKernel> {
        Ok(DsiKernel::new(self.bits, self.config.clone())?)
    }
}

fn smoothness(kind: Kind, alpha: Option<&Value>, dims: usize) -> Result<Smoothness> {
    match (kind, alpha) {
        (Kind::Si | Kind::Dsi, None) => Ok(Smoothness::order(2, dims)),
        (Kind::DsiAa, None) => Ok(Smoothness::Adaptive(vec![1.0; dims])),
        (Kind::SiCombined | Kind::DsiCombined, None) => Ok(Smoothness::Combined(vec![[1.0; 4]; dims])),
        (Kind::Si | Kind::Dsi, Some(alpha)) => {
            let order = |&alpha: &f64| {
                if (0.0..256.0).contains(&alpha) && alpha.fract() == 0.0 {
                    Ok(alpha as u8)
                } else {
                    Err(Error::argument("alpha", "whole numbers from 1", alpha))
                }
            };
            let all = numbers("alpha", alpha, dims)?;
            Ok(Smoothness::Orders(all.iter().map(order).collect::<kc_core::Result<_>>()?))
        }
        (Kind::DsiAa, Some(alpha)) => Ok(Smoothness::Adaptive(numbers("alpha", alpha, dims)?)),
        (Kind::SiCombined | Kind::DsiCombined, Some(alpha)) => {
            // A row for each order; a row may be one number for all dimensions.
            let rows = match alpha {
                Value::Array(rows) if rows.len() == 4 => rows.iter().collect(),
                Value::Number(_) => vec![alpha; 4],
                other => {
                    let expected = format!("4 rows of {dims} numbers: the factors of orders 1 to 4");
                    return Err(Error::argument("alpha", expected, brief(other)).into());
                }
            };
            let mut all = vec![[0.0; 4]; dims];
            for (p, row) in rows.into_iter().enumerate() {
                for (factors, factor) in all.iter_mut().zip(numbers("alpha", row, dims)?) {
                    factors[p] = factor;
                }
            }
            Ok(Smoothness::Combined(all))
        }
    }
}

/// One number for all dimensions, or one for each.
fn numbers(arg: &'static str, value: &Value, dims: usize) -> Result<Vec<f64>> {
    match value {
        Value::Array(all) if all.len() == dims => all.iter().map(|v| number(arg, v)).collect(),
        Value::Array(all) => {
            Err(Error::shape(arg, format!("[{dims}], one per dimension"), &[all.len()]).into())
        }
        other => Ok(vec![number(arg, other)?; dims]),
    }
}

fn number(arg: &'static str, value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(number) if number.is_finite() => Ok(number),
        _ => Err(Error::argument(arg, "a number", brief(value)).into()),
    }
}

/// A value for a message.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// A kernel whose points come from files.
pub(crate) trait FromFile: Kernel {
    /// `(n, d)` in the kernel's own type.
    fn tensor(&self, flag: &str, file: &AnyTensor) -> Result<Tensor<Self::Point, 2>>;

    /// The points of a file, checked.
    fn points(&self, flag: &str, file: &AnyTensor) -> Result<Points<Self::Point>> {
        Points::from_rows(self, self.tensor(flag, file)?.view()).context(flag.to_owned())
    }
}

impl FromFile for SiKernel {
    fn tensor(&self, flag: &str, file: &AnyTensor) -> Result<Tensor<f64, 2>> {
        if !file.dtype().is_float() {
            return Err(Error::dtype(flag.to_owned(), "floating-point coordinates", file.dtype()).into());
        }
        Ok(file.to_f64(flag.to_owned())?)
    }
}

impl FromFile for DsiKernel {
    fn tensor(&self, flag: &str, file: &AnyTensor) -> Result<Tensor<u64, 2>> {
        if file.dtype() == DType::U64 {
            return Ok(file.to_tensor(flag.to_owned())?);
        }
        if !file.dtype().is_float() {
            return Err(Error::dtype(
                flag.to_owned(),
                "uint64 digits or floating-point coordinates",
                file.dtype(),
            )
            .into());
        }
        let coordinates: Tensor<f64, 2> = file.to_f64(flag.to_owned())?;
        let digits: Vec<u64> =
            coordinates.as_slice().iter().map(|&x| self.digits(x)).collect::<kc_core::Result<_>>()?;
        Ok(Tensor::from_slice(coordinates.shape(), &digits)?)
    }
}

/// The columns of a file of points, which must have two dimensions.
pub(crate) fn dims(flag: &str, file: &AnyTensor) -> Result<usize> {
    match file.shape() {
        [_, dims] if *dims > 0 => Ok(*dims),
        shape => Err(Error::shape(flag.to_owned(), "(points, dimensions)", shape).into()),
    }
}

/// Values `(n,)` or `(n, outputs)` as rows, and the number of outputs of the latter.
pub(crate) fn values(flag: &str, file: &str) -> Result<(Vec<f64>, usize, Option<usize>)> {
    let any = input::any(flag, file)?;
    if !any.dtype().is_float() && !any.dtype().is_integer() {
        return Err(Error::dtype(flag.to_owned(), "real numbers", any.dtype()).into());
    }
    match *any.shape() {
        [n] => Ok((any.to_f64::<1>(flag.to_owned())?.into_vec(), n, None)),
        [n, outputs] if outputs > 0 => Ok((any.to_f64::<2>(flag.to_owned())?.into_vec(), n, Some(outputs))),
        _ => Err(Error::shape(flag.to_owned(), "(n,) or (n, outputs)", any.shape()).into()),
    }
}
