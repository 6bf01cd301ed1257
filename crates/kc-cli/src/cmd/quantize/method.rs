//! How layers are quantised: flags, and what they mean for each layer.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kc_core::{Error, Tensor};
use kc_io::SafeTensorsFile;
use kc_quant::crossquant::{ColumnStats, column_factors};
use kc_quant::fireq::{ScaleType, WeightSpec};
use kc_quant::flexq::{QuantSpec, Scheme};
use kc_quant::lut_gemm::{BcqSpec, Init, Offset};
use kc_quant::stored::Method;
use kc_quant::{Group, ScaleDtype};
use serde_json::Value;

use crate::report::Usage;

/// What to do with each layer.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MethodArgs {
    /// How layers are quantised
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = MethodName::Flexq)]
    method: MethodName,
    /// Bits of a weight, 1 to 8 [default: 6 for flexq, 3 for bcq, 8 for crossquant; fireq has 4]
    #[arg(long, value_name = "N")]
    bits: Option<u8>,
    /// Columns that share a scale, or `row` [default: 128; row for crossquant]
    #[arg(long, value_name = "N|row")]
    group: Option<String>,
    /// What codes range over (flexq and crossquant)
    #[arg(long, value_enum, value_name = "SCHEME", default_value_t = SchemeName::Sym)]
    scheme: SchemeName,
    /// Type of scales: f32, f16 or bf16; fp8, bf16 or f32 for fireq [default: f32; fp8 for fireq]
    #[arg(long, value_name = "TYPE")]
    scale_dtype: Option<String>,
    /// Bits of weights by layer, as `kc quant flexq sensitivity` writes them (flexq)
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Channel maxima of the inputs of each layer (.safetensors), as `kc quant crossquant calibrate` writes them: columns
    /// are scaled by them before any method quantises
    #[arg(long, value_name = "FILE")]
    columns: Option<PathBuf>,
    /// Exponent of the scaling of columns, 0 to 1 (1 leaves them as they are)
    #[arg(long, value_name = "A", default_value_t = 0.5, allow_negative_numbers = true)]
    alpha: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    /// Uniform codes in groups
    Flexq,
    /// Sums of scaled signs
    Bcq,
    /// INT4 codes with FP8 scales
    Fireq,
    /// Columns scaled by calibration, then 8 bits per row
    Crossquant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemeName {
    Sym,
    Asym,
    #[value(name = "asym_free", alias = "asym-free")]
    AsymFree,
}

impl MethodArgs {
    pub(crate) fn name(&self) -> &'static str {
        match self.method {
            MethodName::Flexq => "flexq",
            MethodName::Bcq => "bcq",
            MethodName::Fireq => "fireq",
            MethodName::Crossquant => "crossquant",
        }
    }

    /// The files that the flags name.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.plan, &self.columns].into_iter().flatten().cloned()
    }
}

/// The flags, checked and with their files read.
pub(crate) struct Settings {
    method: Method,
    plan: Option<Value>,
    columns: Option<SafeTensorsFile>,
    alpha: f64,
    folds: bool,
}

impl Settings {
    pub(crate) fn new(args: &MethodArgs) -> Result<Self> {
        let group = match args.group.as_deref() {
            None if args.method == MethodName::Crossquant => Group::Row,
            None => Group::default(),
            Some("row") => Group::Row,
            Some(n) => match n.parse() {
                Ok(0) | Err(_) => return Err(Usage("--group: expected at least 1, or row".into()).into()),
                Ok(n) => Group::Size(n),
            },
        };
        let bits = |default: u8| match args.bits.unwrap_or(default) {
            bits @ 1..=8 => Ok(bits),
            bits => Err(Usage(format!("--bits: expected 1 to 8, got {bits}"))),
        };
        let scale_dtype = |default| match args.scale_dtype.as_deref() {
            None => Ok(default),
            Some(name) => ScaleDtype::from_name(name)
                .ok_or_else(|| Usage(format!("--scale-dtype: expected f32, f16 or bf16, got {name}"))),
        };
        let scheme = match args.scheme {
            SchemeName::Sym => Scheme::Sym,
            SchemeName::Asym => Scheme::Asym,
            SchemeName::AsymFree => Scheme::AsymFree,
        };
        let uniform = |default| -> Result<Method> {
            let scale_dtype = scale_dtype(ScaleDtype::F32)?;
            Ok(Method::Flexq(QuantSpec {
                bits: bits(default)?,
                group,
                scheme,
                scale_dtype,
                scale_floor: 0.0,
            }))
        };
        let method = match args.method {
            MethodName::Flexq => uniform(6)?,
            MethodName::Crossquant => uniform(8)?,
            MethodName::Bcq => {
                let spec = BcqSpec {
                    bits: bits(3)?,
                    group,
                    offset: Offset::Joint,
                    init: Init::Best,
                    scale_dtype: scale_dtype(ScaleDtype::F32)?,
                    ..BcqSpec::default()
                };
                Method::Bcq(spec, None)
            }
            MethodName::Fireq => {
                if bits(4)? != 4 {
                    return Err(Usage("--bits: fireq has 4".into()).into());
                }
                let name = args.scale_dtype.as_deref().unwrap_or("fp8");
                let scale_type = ScaleType::from_name(name)
                    .ok_or_else(|| Usage(format!("--scale-dtype: expected fp8, bf16 or f32, got {name}")))?;
                Method::Fireq(WeightSpec { group, scale_type, ..WeightSpec::default() })
            }
        };
        // A number out of range is a mistake of the call, not of a layer.
        column_factors(&[], args.alpha)?;
        Ok(Self {
            method,
            plan: args.plan.as_ref().map(kc_io::json::read).transpose()?,
            columns: args.columns.as_ref().map(SafeTensorsFile::open).transpose()?,
            alpha: args.alpha,
            folds: args.method == MethodName::Crossquant,
        })
    }

    /// True if columns can only be scaled by inputs.
    pub(crate) fn needs_inputs(&self) -> bool {
        self.folds && self.columns.is_none()
    }

    /// The method for a layer. Inputs tell binary codes which columns matter.
    pub(crate) fn method(&self, layer: &str, x: Option<&Tensor<f32, 2>>) -> Method {
        let planned = self.plan.as_ref().and_then(|plan| plan.get(layer)?.get("wbits")?.as_u64());
        match (&self.method, planned.and_then(|bits| u8::try_from(bits).ok())) {
            (Method::Bcq(spec, _), _) => Method::Bcq(spec.clone(), x.map(mean_squares)),
            (Method::Flexq(spec), Some(bits)) => Method::Flexq(QuantSpec { bits, ..*spec }),
            (method, _) => method.clone(),
        }
    }

    /// What the columns of a layer are multiplied with, from its maxima or its inputs.
    pub(crate) fn factors(&self, layer: &str, x: Option<&Tensor<f32, 2>>) -> Result<Option<Vec<f32>>> {
        if let Some(columns) = &self.columns {
            let name =
                [layer.to_owned(), format!("{layer}.weight")].into_iter().find(|n| columns.contains(n));
            let name = name.with_context(|| format!("--columns: there are no maxima of `{layer}`"))?;
            let maxima = columns.get(&name)?.to_f32::<1>(name)?;
            return Ok(Some(factors(maxima.as_slice(), self.alpha)?));
        }
        if !self.folds {
            return Ok(None);
        }
        let x = x.with_context(|| format!("--calibration: there are no inputs of `{layer}`"))?;
        let mut stats = ColumnStats::new(x.shape()[1]);
        stats.observe(x.view())?;
        Ok(Some(factors(stats.maxima(), self.alpha)?))
    }
}

/// The mean square of each column.
fn mean_squares(x: &Tensor<f32, 2>) -> Vec<f32> {
    let [t, k] = x.shape();
    let mut sums = vec![0f64; k];
    for row in x.as_slice().chunks_exact(k.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
    }
    sums.iter().map(|sum| (sum / t.max(1) as f64) as f32).collect()
}

/// Factors of columns. A column that was never seen keeps the factor 1, so that it is not lost.
fn factors(maxima: &[f32], alpha: f64) -> Result<Vec<f32>> {
    if let Some(j) = maxima.iter().position(|c| !(c.is_finite() && *c >= 0.0)) {
        let got = format!("{} at {j}", maxima[j]);
        return Err(Error::argument("columns", "numbers of at least 0", got).into());
    }
    let mut factors = column_factors(maxima, alpha)?;
    factors.iter_mut().filter(|f| **f == 0.0).for_each(|f| *f = 1.0);
    Ok(factors)
}
