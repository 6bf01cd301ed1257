//! The header of a GGUF file: metadata and descriptions of tensors.

use kc_core::{Bytes, Error, Result};

use super::{GgufTensor, GgufType, SOURCE};

/// Most dimensions that a tensor may have.
const MAX_DIMS: u32 = 4;

/// Deepest nesting of arrays in metadata.
const MAX_DEPTH: u32 = 8;

/// The shortest description of a tensor: length of the name, dimensions, type, offset.
const MIN_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// The shortest entry of the metadata: length of the key, type, one byte.
const MIN_ENTRY: u64 = 8 + 4 + 1;

/// A value of the metadata.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// A list, as it stands in the file.
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A list of values of one type, in the bytes of the file: vocabularies are long.
#[derive(Debug, Clone)]
pub struct Array {
    pub(super) kind: u32,
    pub(super) len: u64,
    pub(super) bytes: Bytes,
}

impl Array {
    /// The number of values.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut cursor = Cursor { file: &self.bytes, at: 0 };
        // The bytes were walked when the file was read, so no value fails.
        (0..self.len).map_while(move |_| cursor.value(self.kind).ok())
    }
}

impl Value {
    /// The number of the value's type in files.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }
}

/// Everything in front of the data.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<GgufTensor>,
}

impl Header {
    /// Reads the header and places every tensor in `file`.
    pub(super) fn parse(file: &Bytes) -> Result<Self> {
        let mut cursor = Cursor { file, at: 0 };
        if cursor.take(4)? != b"GGUF" {
            return Err(Error::parse_byte(SOURCE, 0, "expected the magic `GGUF`"));
        }
        let version = cursor.u32()?;
        match version {
            2 | 3 => {}
            1 => {
                return Err(Error::parse_byte(
                    SOURCE,
                    4,
                    "version 1 is not read: convert the file to version 3",
                ));
            }
            v if v.swap_bytes() == 2 || v.swap_bytes() == 3 => {
                return Err(Error::parse_byte(SOURCE, 4, "big-endian files are not read"));
            }
            v => return Err(Error::parse_byte(SOURCE, 4, format!("expected version 2 or 3, got {v}"))),
        }
        let tensor_count = cursor.count(MIN_TENSOR, "tensors")?;
        let entry_count = cursor.count(MIN_ENTRY, "metadata entries")?;

        let mut metadata: Vec<(String, Value)> = Vec::new();
        for _ in 0..entry_count {
            let key = cursor.string()?;
            let at = cursor.at as u64;
            let kind = cursor.u32()?;
            let value = cursor.value(kind)?;
            if key == "general.alignment" && !matches!(value, Value::U32(a) if a.is_power_of_two()) {
                return Err(Error::parse_byte(
                    SOURCE,
                    at,
                    "general.alignment: expected a power of two (uint32)",
                ));
            }
            metadata.push((key, value));
        }
        let alignment = metadata.iter().find(|(key, _)| key == "general.alignment");
        let alignment = match alignment {
            Some((_, Value::U32(alignment))) => u64::from(*alignment),
            _ => super::ALIGNMENT,
        };

        let mut described = Vec::new();
        for _ in 0..tensor_count {
            described.push(cursor.tensor()?);
        }
        let start = (cursor.at as u64).next_multiple_of(alignment);
        let mut names = std::collections::HashSet::new();
        let mut tensors = Vec::with_capacity(described.len());
        for tensor in described {
            if !names.insert(tensor.name.clone()) {
                return Err(Error::parse(SOURCE, format!("tensor `{}` appears twice", tensor.name)));
            }
            tensors.push(tensor.place(file, start, alignment)?);
        }
        Ok(Header { version, alignment, metadata, tensors })
    }
}

/// A tensor before its data are found.
struct Described {
    name: String,
    /// First the length of a row.
    dims: Vec<u64>,
    kind: GgufType,
    offset: u64,
    /// Where its description ends.
    at: u64,
}

impl Described {
    fn place(self, file: &Bytes, start: u64, alignment: u64) -> Result<GgufTensor> {
        let bad =
            |what: String| Error::parse_byte(SOURCE, self.at, format!("tensor `{}`: {what}", self.name));
        let mut dims = Vec::with_capacity(self.dims.len());
        let mut count = 1usize;
        for &dim in &self.dims {
            let next = usize::try_from(dim).ok().filter(|&dim| dim > 0);
            let next = next.and_then(|dim| Some((dim, count.checked_mul(dim)?)));
            let Some((dim, product)) = next.filter(|(_, product)| *product <= isize::MAX as usize) else {
                return Err(bad(format!(
                    "dimensions {:?} are empty or do not fit the address space",
                    self.dims
                )));
            };
            dims.push(dim);
            count = product;
        }
        if !self.offset.is_multiple_of(alignment) {
            return Err(bad(format!("offset {} is no multiple of {alignment}", self.offset)));
        }
        let from = start.checked_add(self.offset).filter(|&from| from <= file.len() as u64);
        let Some(from) = from else {
            return Err(bad(format!("offset {} lies outside of the file", self.offset)));
        };
        // How long data of other types are is not known.
        let data = match self.kind.block() {
            None => Bytes::from_owner(Vec::new()),
            Some(_) => {
                let k = dims.first().copied().unwrap_or(1);
                let row = self.kind.row_bytes(k).map_err(|error| bad(error.to_string()))?;
                let found = (count / k).checked_mul(row).and_then(|len| {
                    let end = usize::try_from(from).ok()?.checked_add(len)?;
                    file.slice(from as usize..end)
                });
                found.ok_or_else(|| bad("its data lie outside of the file".to_owned()))?
            }
        };
        dims.reverse();
        Ok(GgufTensor { name: self.name, shape: dims, kind: self.kind, data })
    }
}

/// Reads little-endian values and never beyond the end.
struct Cursor<'a> {
    file: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let file: &'a [u8] = self.file;
        let end = self.at.checked_add(len).filter(|&end| end <= file.len());
        let Some(end) = end else {
            return Err(Error::parse_byte(SOURCE, self.at as u64, "the file ends inside of its header"));
        };
        let taken = &file[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array_of()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array_of()?))
    }

    /// A number of things of at least `least` bytes each, which the rest of the file must be able to hold.
    fn count(&mut self, least: u64, what: &str) -> Result<u64> {
        let count = self.u64()?;
        let rest = (self.file.len() - self.at) as u64;
        if count.checked_mul(least).is_none_or(|bytes| bytes > rest) {
            let message = format!("{count} {what} do not fit the {rest} bytes that are left");
            return Err(Error::parse_byte(SOURCE, self.at as u64, message));
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<String> {
        let len = self.count(1, "bytes of text")?;
        let at = self.at as u64;
        let text = std::str::from_utf8(self.take(len as usize)?);
        text.map(str::to_owned).map_err(|_| Error::parse_byte(SOURCE, at, "text that is not UTF-8"))
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(self.array_of::<1>()?[0]),
            1 => Value::I8(i8::from_le_bytes(self.array_of()?)),
            2 => Value::U16(u16::from_le_bytes(self.array_of()?)),
            3 => Value::I16(i16::from_le_bytes(self.array_of()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array_of()?)),
            6 => Value::F32(f32::from_le_bytes(self.array_of()?)),
            7 => Value::Bool(self.array_of::<1>()?[0] != 0),
            8 => Value::String(self.string()?),
            9 => {
                let kind = self.u32()?;
                let before = self.at;
                let len = self.u64()?;
                let start = std::mem::replace(&mut self.at, before);
                self.skip(kind, 0)?;
                let bytes = self.file.slice(start..self.at);
                let bytes = bytes.ok_or_else(|| Error::parse(SOURCE, "a list outside of the file"))?;
                Value::Array(Array { kind, len, bytes })
            }
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array_of()?)),
            12 => Value::F64(f64::from_le_bytes(self.array_of()?)),
            other => {
                let message = format!("metadata of unknown type {other}");
                return Err(Error::parse_byte(SOURCE, self.at as u64, message));
            }
        })
    }

    /// Passes over the values of a list, which begins with their number.
    fn skip(&mut self, kind: u32, depth: u32) -> Result<()> {
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 => {
                for _ in 0..self.count(8, "texts")? {
                    let len = self.count(1, "bytes of text")?;
                    self.take(len as usize)?;
                }
                return Ok(());
            }
            9 if depth < MAX_DEPTH => {
                for _ in 0..self.count(4 + 8, "lists")? {
                    let kind = self.u32()?;
                    self.skip(kind, depth + 1)?;
                }
                return Ok(());
            }
            10..=12 => 8,
            9 => {
                let message = format!("lists nested deeper than {MAX_DEPTH}");
                return Err(Error::parse_byte(SOURCE, self.at as u64, message));
            }
            other => {
                let message = format!("a list of unknown type {other}");
                return Err(Error::parse_byte(SOURCE, self.at as u64, message));
            }
        };
        let count = self.count(size, "values")?;
        self.take((count * size) as usize)?;
        Ok(())
    }

    fn tensor(&mut self) -> Result<Described> {
        let name = self.string()?;
        let count = self.u32()?;
        if !(1..=MAX_DIMS).contains(&count) {
            let message = format!("tensor `{name}`: expected 1 to {MAX_DIMS} dimensions, got {count}");
            return Err(Error::parse_byte(SOURCE, self.at as u64 - 4, message));
        }
        let mut dims = Vec::with_capacity(count as usize);
        for _ in 0..count {
            dims.push(self.u64()?);
        }
        let kind = GgufType::from_id(self.u32()?);
        let offset = self.u64()?;
        Ok(Described { name, dims, kind, offset, at: self.at as u64 })
    }
}
