//! What the verbs of `kc attention` read alike.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use kc_attention::{Layout, Mask, Select};
use kc_core::{AnyTensor, Bytes, DType, Error, Tensor, TensorView};

use crate::input::{self, Loaded};
use crate::output;
use crate::report::Usage;

/// Queries, keys and values, who sees whom, and where the results go.
#[derive(Debug, clap::Args)]
pub(crate) struct Inputs {
    /// Queries, (batch, heads, tokens, channels), or (tokens, heads, channels) with --cu-q
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Keys: batch and channels as the queries, a number of heads that divides theirs
    #[arg(long, value_name = "FILE")]
    k: String,
    /// Values, of the shape of the keys
    #[arg(long, value_name = "FILE")]
    v: String,
    /// File for the output, float32, of the shape of the queries
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// File for ln sum exp of each query's scores, float32, (batch, heads, tokens)
    #[arg(long, value_name = "FILE")]
    pub(crate) lse: Option<PathBuf>,
    /// Query i sees keys up to i + keys - queries
    #[arg(long)]
    pub(crate) causal: bool,
    /// Keys that are seen (bool or uint8, not 0), or what is added to the scores (floating point); up to 4 axes, which
    /// broadcast to (batch, heads, queries, keys)
    #[arg(long, value_name = "FILE")]
    mask: Option<String>,
    /// Where each sequence's queries begin, and the end: integers from 0 to the number of tokens
    #[arg(long, value_name = "FILE")]
    cu_q: Option<String>,
    /// The same for keys
    #[arg(long, value_name = "FILE")]
    cu_k: Option<String>,
}

impl Inputs {
    fn files(&self) -> [(&'static str, &str); 3] {
        [("q", &self.q), ("k", &self.k), ("v", &self.v)]
    }

    /// Queries, keys and values of rank 4.
    pub(crate) fn whole(&self) -> Result<[Loaded<f32, 4>; 3]> {
        let [q, k, v] = self.files().map(|(name, file)| input::f32(name, file));
        Ok([q?, k?, v?])
    }

    /// The same as packed sequences.
    pub(crate) fn packed(&self, layout: Layout) -> Result<[Packed; 3]> {
        let [q, k, v] = self.files().map(|(name, file)| Packed::read(name, file, layout));
        Ok([q?, k?, v?])
    }

    /// The file of the mask.
    pub(crate) fn mask(&self) -> Result<Option<MaskFile>> {
        self.mask.as_deref().map(MaskFile::read).transpose()
    }

    /// Offsets of packed sequences, if both files were given.
    pub(crate) fn offsets(&self) -> Result<Option<[Vec<usize>; 2]>> {
        match (&self.cu_q, &self.cu_k) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if self.mask.is_some() => {
                Err(Usage("--mask: not with --cu-q; sequences are whole or causal".into()).into())
            }
            (Some(q), Some(k)) => Ok(Some([integers("--cu-q", q)?, integers("--cu-k", k)?])),
            _ => Err(Usage("--cu-q and --cu-k: expected both or none".into()).into()),
        }
    }
}

/// How scores are scaled, and how files are laid out.
#[derive(Debug, clap::Args)]
pub(crate) struct Shape {
    /// Factor of the scores [default: 1 / sqrt(channels)]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) scale: Option<f32>,
    /// The order of the axes
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = LayoutArg::Hnd)]
    pub(crate) layout: LayoutArg,
}

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

/// Sequences one after another, `(tokens, heads, channels)`.
#[derive(Debug)]
pub(crate) struct Packed {
    tokens: Tensor<f32, 3>,
    /// The order of a file with an axis of one batch entry.
    batched: Option<Layout>,
}

impl Packed {
    /// Reads tokens, with or without an axis of one batch entry.
    pub(crate) fn read(name: &'static str, location: &str, layout: Layout) -> Result<Self> {
        if input::any(name, location)?.rank() != 4 {
            let tokens = input::f32::<3>(name, location)?.view(name)?.to_tensor()?;
            return Ok(Packed { tokens, batched: None });
        }
        let x = input::f32::<4>(name, location)?;
        let x = x.view(name)?;
        if x.shape()[0] != 1 {
            return Err(Error::shape(name, "one batch entry with --cu-q", &x.shape()).into());
        }
        Ok(Packed { tokens: swapped(layout, x)?.outer(0).to_tensor()?, batched: Some(layout) })
    }

    /// The tokens.
    pub(crate) fn view(&self) -> TensorView<'_, f32, 3> {
        self.tokens.view()
    }

    /// Writes tokens as these were read.
    pub(crate) fn store(&self, path: &Path, tokens: Tensor<f32, 3>) -> Result<()> {
        match self.batched {
            None => output::tensor(path, tokens),
            Some(layout) => output::tensor(path, swapped(layout, tokens.view().unsqueezed())?.to_tensor()?),
        }
    }

    /// Writes a number for each head and token.
    pub(crate) fn store_lse(&self, path: &Path, lse: Tensor<f32, 2>) -> Result<()> {
        match self.batched {
            None => output::tensor(path, lse),
            Some(_) => output::tensor(path, lse.view().unsqueezed().to_tensor()?),
        }
    }
}

/// From the layout's order to tokens first, or back.
fn swapped(layout: Layout, x: TensorView<'_, f32, 4>) -> kc_core::Result<TensorView<'_, f32, 4>> {
    match layout {
        Layout::Hnd => x.permuted([0, 2, 1, 3]),
        Layout::Nhd => Ok(x),
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
