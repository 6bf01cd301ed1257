//! What the verbs of `kc attention` read alike.

use anyhow::Result;
use clap::ValueEnum;
use kc_attention::{Layout, Mask, Select};
use kc_core::{AnyTensor, Bytes, DType, Error, Tensor};

use crate::input;
use crate::report::Usage;

/// The order of the axes in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArg {
    /// (batch, heads, tokens, channels)
    Hnd,
    /// (batch, tokens, heads, channels)
    Nhd,
}

impl From<LayoutArg> for Layout {
    fn from(layout: LayoutArg) -> Self {
        match layout {
            LayoutArg::Hnd => Layout::Hnd,
            LayoutArg::Nhd => Layout::Nhd,
        }
    }
}

/// A choice of keys from a file.
#[derive(Debug)]
pub(crate) enum MaskFile {
    /// Keep where not 0.
    Keep(Tensor<u8, 4>),
    /// Added to the scores.
    Add(Tensor<f32, 4>),
}

impl MaskFile {
    /// Reads a mask of up to 4 axes, which are matched from the last on.
    pub(crate) fn read(location: &str) -> Result<Self> {
        let name = "--mask";
        let file = input::any(name, location)?;
        if file.rank() > 4 {
            return Err(Error::shape(name, "at most 4 axes", file.shape()).into());
        }
        let shape = [vec![1; 4 - file.rank()], file.shape().to_vec()].concat();
        let file = AnyTensor::new(file.dtype(), shape, Bytes::from_owner(file.bytes().to_vec()))?;
        match file.dtype() {
            DType::Bool | DType::U8 => Ok(MaskFile::Keep(file.to_tensor(name)?)),
            dtype if dtype.is_float() => Ok(MaskFile::Add(file.to_f32(name)?)),
            dtype => Err(Error::dtype(name, "bool, uint8 or floating-point numbers", dtype).into()),
        }
    }

    /// The mask, with or without causality.
    pub(crate) fn mask(file: Option<&MaskFile>, causal: bool) -> Mask<'_> {
        let select = match file {
            None => Select::All,
            Some(MaskFile::Keep(keep)) => Select::Keep(keep.view()),
            Some(MaskFile::Add(add)) => Select::Add(add.view()),
        };
        Mask { causal, select }
    }
}

/// Offsets of packed sequences, if both files were given.
pub(crate) fn offsets(cu_q: Option<&str>, cu_k: Option<&str>) -> Result<Option<[Vec<usize>; 2]>> {
    match (cu_q, cu_k) {
        (None, None) => Ok(None),
        (Some(q), Some(k)) => Ok(Some([integers("--cu-q", q)?, integers("--cu-k", k)?])),
        _ => Err(Usage("--cu-q and --cu-k: expected both or none".into()).into()),
    }
}

fn integers(name: &'static str, location: &str) -> Result<Vec<usize>> {
    let file = input::any(name, location)?;
    if !file.dtype().is_integer() {
        return Err(Error::dtype(name, "integers", file.dtype()).into());
    }
    let numbers: Tensor<f64, 1> = file.to_f64(name)?;
    let index = |x: &f64| {
        let exact = *x >= 0.0 && *x <= 2f64.powi(53);
        exact.then_some(*x as usize).ok_or_else(|| Error::argument(name, "offsets from 0", x))
    };
    Ok(numbers.as_slice().iter().map(index).collect::<Result<_, _>>()?)
}
