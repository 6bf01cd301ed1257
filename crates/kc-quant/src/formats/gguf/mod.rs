//! GGUF: the container of ggml's programs, and its blocks.
//!
//! A file holds metadata (keys and values of a few types) and tensors: names, dimensions (the length of a row first),
//! a type, and data at a multiple of `general.alignment` (32 unless the metadata say otherwise). A row of `K` elements
//! is cut into blocks of 32 or 256, each with its own scales. With `d`, `m`, `dmin` in half precision, `q` the codes,
//! `sc` and `m6` small whole numbers:
//!
//! | Type | Bytes / elements | `w` | As groups |
//! |---|---|---|---|
//! | Q4_0, Q5_0, Q8_0 | 18, 22, 34 / 32 | `d (q - 8)`, `d (q - 16)`, `d q` | 32, zero 8, 16, 128 |
//! | Q4_1, Q5_1 | 20, 24 / 32 | `d q + m` | 32, offset m |
//! | Q2_K | 84 / 256 | `d sc q - dmin m` (4 bits each) | 16, offset |
//! | Q3_K | 110 / 256 | `d (sc - 32) (q - 4)` | 16, zero 4 |
//! | Q4_K, Q5_K | 144, 176 / 256 | `d sc q - dmin m6` | 32, offset |
//! | Q6_K | 210 / 256 | `d sc (q - 32)`, sc signed | 16, zero 32 |
//! | F32, F16, BF16 | 4, 2, 2 / 1 | | none |
//!
//! Versions 2 and 3 are read, version 3 is written. A tensor of another type is listed, and only its own data cannot be
//! had. [`quantize`] makes blocks of Q4_0 and Q8_0 as ggml does, bit by bit, and Q4_K and Q6_K by a search of its own.
//!
//! ```
//! use kc_core::{Bytes, TensorView};
//! use kc_quant::formats::gguf::{GgufFile, GgufTensor, GgufType, Value, write};
//!
//! let w: Vec<f32> = (0..64).map(|i| i as f32 - 32.0).collect();
//! let tensor = GgufTensor::quantize("w", TensorView::from_slice([2, 32], &w)?, GgufType::Q8_0)?;
//! let bytes = write(&[("general.architecture".into(), Value::String("none".into()))], &[tensor])?;
//!
//! let file = GgufFile::parse(Bytes::from_owner(bytes))?;
//! let back = file.tensor("w")?.dequantize()?;
//! assert_eq!(back.shape(), [2, 32]);
//! assert!((back.as_slice()[0] + 32.0).abs() < 0.2);
//! # Ok::<(), kc_core::Error>(())
//! ```

mod blocks;
mod header;
pub mod quantize;
mod search;
mod types;
mod write;

use kc_core::{Bytes, Error, Result, Tensor, TensorView};

use crate::UniformGroups;

pub use header::{Array, Value};
pub use types::GgufType;
pub use write::write;

/// What errors call a file.
const SOURCE: &str = "GGUF";

/// The alignment of data where the metadata do not say it.
const ALIGNMENT: u64 = 32;

/// An open file.
#[derive(Debug, Clone)]
pub struct GgufFile {
    version: u32,
    alignment: u64,
    metadata: Vec<(String, Value)>,
    tensors: Vec<GgufTensor>,
}

impl GgufFile {
    /// Reads the header; data are not touched. Memory is a small multiple of the header.
    ///
    /// # Errors
    /// `Parse`, with its place, for a file that ends early, another magic, version 1, text that is not UTF-8, a
    /// tensor that is misaligned, outside of the file, named twice, or whose dimensions overflow or are no multiple
    /// of the block.
    pub fn parse(file: Bytes) -> Result<Self> {
        let header::Header { version, alignment, metadata, tensors } = header::Header::parse(&file)?;
        Ok(Self { version, alignment, metadata, tensors })
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the data's places are multiples of, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Keys and values, in the order of the file.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// `Argument` if there is none.
    pub fn tensor(&self, name: &str) -> Result<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.tensors.iter().take(12).map(|t| t.name.as_str()).collect();
            Error::argument("tensor", format!("one of {}", known.join(", ")), name)
        })
    }
}

/// A tensor, its data in place.
#[derive(Debug, Clone)]
pub struct GgufTensor {
    name: String,
    /// The length of a row last.
    shape: Vec<usize>,
    kind: GgufType,
    data: Bytes,
}

impl GgufTensor {
    /// Blocks of a tensor of 1 to 4 dimensions, the length of a row last.
    ///
    /// # Errors
    /// `Shape` for another number of dimensions, a dimension of 0, rows that are no multiple of the block, or `data`
    /// of another length; `Unsupported` for types that are not read.
    pub fn new(
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
        kind: GgufType,
        data: Bytes,
    ) -> Result<Self> {
        let shape = shape.into();
        if !(1..=4).contains(&shape.len()) || shape.contains(&0) {
            return Err(Error::shape("shape", "1 to 4 dimensions of at least 1", &shape));
        }
        let count = kc_core::shape::checked_len("shape", &shape)?;
        let k = shape.last().copied().unwrap_or(1);
        let row = kind.row_bytes(k)?;
        if (count / k).checked_mul(row) != Some(data.len()) {
            return Err(Error::shape("data", format!("{} rows of {row} bytes", count / k), &[data.len()]));
        }
        Ok(Self { name: name.into(), shape, kind, data })
    }

    /// Rounds a matrix to blocks; see [`quantize`].
    ///
    /// # Errors
    /// As [`quantize::quantize`].
    pub fn quantize(name: impl Into<String>, w: TensorView<'_, f32, 2>, kind: GgufType) -> Result<Self> {
        let data = quantize::quantize(w, kind)?;
        Self::new(name, w.shape(), kind, Bytes::from_owner(data))
    }

    /// Blocks of Q4_0 or Q8_0 with the codes of `weights`, as they are.
    ///
    /// # Errors
    /// As [`quantize::pack_uniform`].
    pub fn from_uniform(name: impl Into<String>, weights: &UniformGroups, kind: GgufType) -> Result<Self> {
        let data = quantize::pack_uniform(weights, kind)?;
        Self::new(name, weights.shape(), kind, Bytes::from_owner(data))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lengths of the axes, the length of a row last (files have it first).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The shape as a matrix of rows.
    pub fn matrix(&self) -> [usize; 2] {
        let k = self.shape.last().copied().unwrap_or(1);
        // The product was checked when the file was read.
        [self.shape.iter().rev().skip(1).product(), k]
    }

    /// How elements are stored.
    pub fn kind(&self) -> GgufType {
        self.kind
    }

    /// The blocks; empty for types that are not read.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// What the blocks stand for, row by row.
    ///
    /// # Errors
    /// `Unsupported` for types that are not read.
    pub fn dequantize(&self) -> Result<Tensor<f32, 2>> {
        blocks::dequantize(self.kind, &self.data, self.matrix())
    }

    /// The same codes in this crate's form.
    ///
    /// # Errors
    /// `Unsupported` for floats and types that are not read, `NotFinite` for scales that are not.
    pub fn to_uniform(&self) -> Result<UniformGroups> {
        blocks::to_uniform(self.kind, &self.data, self.matrix())
    }
}
