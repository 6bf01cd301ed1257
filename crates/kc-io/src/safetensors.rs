//! Safetensors: named tensors in one file, or in several with an index.
//!
//! Tensors are viewed in place in the memory map when they are aligned for their type, else copied once.
//! The header is checked completely when a file is opened: offsets must cover the data without gaps or
//! overlaps and agree with types and shapes. Memory for it is at most about 30 times its length.
//!
//! | safetensors | here |
//! |---|---|
//! | BOOL, U8 ... U64, I8 ... I64, F16, BF16, F32, F64, C64 | the same |
//! | F8 and smaller | [`SafeTensorsFile::raw`] only |
//! | none | complex128 is not written |
//!
//! ```
//! use std::collections::BTreeMap;
//! use kc_core::Tensor;
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("model.safetensors");
//! let w = Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0])?.into_any();
//! kc_io::safetensors::write(&path, &[("layer.w", w)], &BTreeMap::new())?;
//! let file = kc_io::safetensors::SafeTensorsFile::open(&path)?;
//! assert_eq!(file.get("layer.w")?.view::<f32, 2>("w")?.at([1, 1]), 4.0);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: the format's description at <https://github.com/huggingface/safetensors>.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path};

use kc_core::{AnyTensor, Bytes, DType, Error, Result};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use serde_json::{Map, Value};

use crate::{atomic, json, layout, map};

/// Where the data begin in the files that are written. Readers only need 8.
const ALIGN: usize = 64;

/// The length of the header stands in front of it.
const LENGTH_BYTES: usize = 8;

/// An open file, or several with their index.
#[derive(Debug, Clone)]
pub struct SafeTensorsFile {
    names: Vec<String>,
    tensors: HashMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    source: String,
}

#[derive(Debug, Clone)]
struct Entry {
    info: TensorInfo,
    data: Bytes,
    /// Where the data begin in their file.
    start: u64,
}

/// A tensor as the file holds it: little-endian bytes and the file's name of their type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RawTensor {
    /// The type, for instance `F8_E4M3`.
    pub dtype: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// The bytes, row-major.
    pub data: Bytes,
}

impl SafeTensorsFile {
    /// Opens a file and reads its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(map::map(path)?, &path.display().to_string())
    }

    /// Reads the header of a file in memory. `source` names it in errors.
    pub fn from_bytes(bytes: Bytes, source: &str) -> Result<Self> {
        let (header, info) =
            SafeTensors::read_metadata(&bytes).map_err(|error| format_error(&error, source))?;
        let data_start = LENGTH_BYTES + header;
        let mut names = info.offset_keys();
        let mut tensors = HashMap::with_capacity(names.len());
        for name in &names {
            let Some(info) = info.info(name) else { continue };
            let (from, to) = info.data_offsets;
            let Some(data) = bytes.slice(data_start + from..data_start + to) else {
                return Err(Error::parse(source, format!("tensor `{name}` lies outside of the file")));
            };
            let start = (data_start + from) as u64;
            tensors.insert(name.clone(), Entry { info: info.clone(), data, start });
        }
        names.sort_by(|a, b| tensors[a].start.cmp(&tensors[b].start).then_with(|| a.cmp(b)));
        let metadata = info.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { names, tensors, metadata, source: source.to_owned() })
    }

    /// Opens `*.safetensors.index.json` and the files that it names, which must lie beside it. A tensor that
    /// the index places in one file and another file holds as well is taken from where the index says.
    pub fn open_index(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = path.display().to_string();
        let index = json::read(path)?;
        let Some(weights) = index.get("weight_map").and_then(Value::as_object) else {
            return Err(Error::parse(source, "expected an object `weight_map`"));
        };
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut shards: BTreeMap<&str, Self> = BTreeMap::new();
        let mut names = Vec::with_capacity(weights.len());
        let mut tensors = HashMap::with_capacity(weights.len());
        for (name, shard) in weights {
            let Some(shard) = shard.as_str() else {
                return Err(Error::parse(&source, format!("expected the file of `{name}`, got {shard}")));
            };
            if !shards.contains_key(shard) {
                if !is_plain_name(shard) {
                    let message = format!("expected a file beside the index, got `{shard}`");
                    return Err(Error::parse(&source, message));
                }
                shards.insert(shard, Self::open(folder.join(shard))?);
            }
            let Some(entry) = shards[shard].tensors.get(name) else {
                return Err(Error::parse(&source, format!("`{shard}` has no tensor `{name}`")));
            };
            names.push(name.clone());
            tensors.insert(name.clone(), entry.clone());
        }
        let metadata = match index.get("metadata").and_then(Value::as_object) {
            Some(all) => all.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            None => BTreeMap::new(),
        };
        Ok(Self { names, tensors, metadata, source })
    }

    /// The names of the tensors, in the order of their data (of an index: in its own order).
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// True if there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The texts that the file says about itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Result<AnyTensor> {
        let entry = self.entry(name)?;
        let source = format!("{}:{name}", self.source);
        let Some(dtype) = dtype(entry.info.dtype) else {
            let what = format!("{source}: type {}", entry.info.dtype);
            return Err(Error::unsupported(what, "read its bytes with `raw`"));
        };
        let swapped = cfg!(target_endian = "big");
        layout::native(dtype, entry.info.shape.clone(), entry.data.clone(), swapped, &source, entry.start)
    }

    /// The bytes of a tensor of any type, without a copy.
    pub fn raw(&self, name: &str) -> Result<RawTensor> {
        let entry = self.entry(name)?;
        Ok(RawTensor {
            dtype: entry.info.dtype.to_string(),
            shape: entry.info.shape.clone(),
            data: entry.data.clone(),
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| {
            let expected = format!("one of {}", crate::list(&self.names));
            Error::argument(format!("{}: tensor", self.source), expected, format!("`{name}`"))
        })
    }
}

/// Writes a file. Tensors are placed by falling size of their elements, then by name, so that every one is
/// aligned; equal input gives equal bytes. The data are not joined in memory.
pub fn write<S: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: &[(S, AnyTensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    if cfg!(target_endian = "big") {
        return Err(Error::unsupported("writing .safetensors", "the format is little-endian"));
    }
    let mut placed = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        placed.push((file_type(tensor.dtype())?, name.as_ref(), tensor));
    }
    // The format's types are ordered by their alignment.
    placed.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));

    let mut header = Map::new();
    if !metadata.is_empty() {
        let all = metadata.iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
        header.insert("__metadata__".to_owned(), Value::Object(all.collect()));
    }
    let mut offset = 0usize;
    for (dtype, name, tensor) in &placed {
        let end = offset + tensor.bytes().len();
        let info = serde_json::json!({
            "dtype": dtype.to_string(),
            "shape": tensor.shape(),
            "data_offsets": [offset, end],
        });
        if *name == "__metadata__" || header.insert((*name).to_owned(), info).is_some() {
            return Err(Error::argument("tensors", "each name once, and none `__metadata__`", *name));
        }
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize((LENGTH_BYTES + header.len()).next_multiple_of(ALIGN) - LENGTH_BYTES, b' ');
    atomic::write(path, |out| {
        let failed = |error| Error::io(path, &error);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        out.write_all(&header).map_err(failed)?;
        placed.iter().try_for_each(|(_, _, tensor)| out.write_all(tensor.bytes()).map_err(failed))
    })
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::C64 => DType::C64,
        _ => return None,
    })
}

fn file_type(dtype: DType) -> Result<Dtype> {
    Ok(match dtype {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::U16 => Dtype::U16,
        DType::I16 => Dtype::I16,
        DType::U32 => Dtype::U32,
        DType::I32 => Dtype::I32,
        DType::U64 => Dtype::U64,
        DType::I64 => Dtype::I64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::C64 => Dtype::C64,
        other => {
            let what = format!("{other} in .safetensors");
            return Err(Error::unsupported(what, "the format has no such type; write .npy"));
        }
    })
}

/// True for a name without folders: an index must not reach outside of its own.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['/', '\\', ':', '\0'])
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn format_error(error: &SafeTensorError, source: &str) -> Error {
    Error::parse(source, error)
}
