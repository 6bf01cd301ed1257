//! NumPy's `.npz`: a zip archive of `.npy` files.
//!
//! Entries that are stored (`numpy.savez`, and this module's [`write()`]) are viewed in the memory map after
//! their checksum has been verified; where NumPy's archives leave the data unaligned they are copied once.
//! Deflated entries (`numpy.savez_compressed`) are inflated. This module aligns what it writes to 64 bytes,
//! so that it is always read in place.
//!
//! Limits against hostile archives: memory grows with the data that really come out of an entry and never
//! beyond [`ReadLimits::max_bytes`]; an entry that declares more than its compressed bytes can hold is
//! refused before it is touched, and so are a wrong checksum, names that occur twice and encryption.
//!
//! ```
//! use kc_core::Tensor;
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("xy.npz");
//! let x = Tensor::from_slice([3], &[1.0f64, 2.0, 3.0])?.into_any();
//! kc_io::npz::write(&path, &[("x", x)])?;
//! let file = kc_io::npz::NpzFile::open(&path)?;
//! assert_eq!(file.names(), ["x"]);
//! assert_eq!(file.get("x")?.view::<f64, 1>("x")?.at([2]), 3.0);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::io::{BufWriter, Cursor, Read, Write};
use std::path::Path;

use kc_core::{AnyTensor, Bytes, Error, Position, Result};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::{atomic, map, npy};

/// No deflate stream is longer than this many times its compressed bytes.
const DEFLATE_RATIO: u64 = 1032;

/// Where the data of entries begin in the files that are written.
const ALIGN: u16 = 64;

/// How much an archive may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLimits {
    /// The most bytes that one entry may inflate to. Default: 16 GiB.
    pub max_bytes: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_bytes: 16 << 30 }
    }
}

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// As they are, aligned: fast, and read in place.
    #[default]
    Stored,
    /// Deflated: smaller for repetitive data, and inflated at every read.
    Deflated,
}

/// An open archive.
#[derive(Clone)]
pub struct NpzFile {
    archive: ZipArchive<Cursor<Bytes>>,
    bytes: Bytes,
    names: Vec<String>,
    source: String,
    limits: ReadLimits,
}

impl NpzFile {
    /// Opens an archive and reads its directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, ReadLimits::default())
    }

    /// As [`open`](Self::open), with limits.
    pub fn open_with(path: impl AsRef<Path>, limits: ReadLimits) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(map::map(path)?, &path.display().to_string(), limits)
    }

    /// Reads the directory of an archive in memory. `source` names it in errors.
    pub fn from_bytes(bytes: Bytes, source: &str, limits: ReadLimits) -> Result<Self> {
        let archive =
            ZipArchive::new(Cursor::new(bytes.clone())).map_err(|error| zip_error(error, source))?;
        if archive.has_duplicate_names() {
            return Err(Error::parse(source, "expected each name once in the archive"));
        }
        let mut names = Vec::with_capacity(archive.len());
        for name in archive.file_names() {
            let name = name.map_err(|error| zip_error(error, source))?;
            names.push(name.strip_suffix(".npy").unwrap_or(&name).to_owned());
        }
        Ok(Self { archive, bytes, names, source: source.to_owned(), limits })
    }

    /// The names of the tensors, without `.npy`, in the order of the archive.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// True if there is an entry of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|have| have == name)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Result<AnyTensor> {
        npy::read_bytes(self.entry(name)?, &format!("{}:{name}", self.source))
    }

    /// The string of this name (see [`npy::read_text`]).
    pub fn text(&self, name: &str) -> Result<String> {
        npy::read_text(&self.entry(name)?, &format!("{}:{name}", self.source))
    }

    /// The verified bytes of an entry.
    fn entry(&self, name: &str) -> Result<Bytes> {
        let Some(index) = self.names.iter().position(|have| have == name) else {
            let expected = format!("one of {}", crate::list(&self.names));
            return Err(Error::argument(format!("{}: tensor", self.source), expected, format!("`{name}`")));
        };
        let source = format!("{}:{name}", self.source);
        // The archive's directory is shared; a clone is a cursor of its own.
        let mut archive = self.archive.clone();
        let mut entry = archive.by_index(index).map_err(|error| zip_error(error, &source))?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        let start = entry.data_start();
        match entry.compression() {
            CompressionMethod::Stored => {
                let range = start.zip(start.and_then(|start| start.checked_add(size)));
                let view = range.and_then(|(start, end)| {
                    self.bytes.slice(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
                });
                let view = view.filter(|_| size == packed);
                let view = view.ok_or_else(|| Error::parse(&source, "the entry lies outside of the file"))?;
                std::io::copy(&mut entry, &mut std::io::sink()).map_err(|e| read_error(&e, &source))?;
                Ok(view)
            }
            CompressionMethod::Deflated => {
                if size > self.limits.max_bytes {
                    return Err(Error::too_large(source, size, self.limits.max_bytes, "bytes"));
                }
                if size > packed.saturating_add(1).saturating_mul(DEFLATE_RATIO) {
                    let message = format!("{packed} compressed bytes cannot hold the declared {size}");
                    return Err(Error::parse(source, message));
                }
                let data = read_growing(&mut entry, size, &source)?;
                if data.len() as u64 != size {
                    let message = format!("expected {size} bytes, as declared, got {}", data.len());
                    return Err(Error::parse(source, message));
                }
                Ok(Bytes::from_owner(data))
            }
            other => {
                Err(Error::unsupported(format!("{source}: compression {other}"), "use stored or deflated"))
            }
        }
    }
}

impl std::fmt::Debug for NpzFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NpzFile").field("source", &self.source).field("names", &self.names).finish()
    }
}

/// Writes an archive, stored and aligned.
pub fn write(path: impl AsRef<Path>, tensors: &[(&str, AnyTensor)]) -> Result<()> {
    write_with(path, tensors, &[], Compression::Stored)
}

/// Writes an archive of tensors and strings (as SciPy keeps the name of a format). Equal input gives equal
/// bytes: no times are stored.
pub fn write_with(
    path: impl AsRef<Path>,
    tensors: &[(&str, AnyTensor)],
    texts: &[(&str, &str)],
    compression: Compression,
) -> Result<()> {
    let path = path.as_ref();
    let source = path.display().to_string();
    let options = SimpleFileOptions::default();
    let options = match compression {
        Compression::Stored => options.compression_method(CompressionMethod::Stored).with_alignment(ALIGN),
        Compression::Deflated => options.compression_method(CompressionMethod::Deflated),
    };
    atomic::with_file(path, atomic::Durability::Rename, |file| {
        let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 16, file));
        for (name, tensor) in tensors {
            let large = tensor.bytes().len() as u64 >= u64::from(u32::MAX) - (1 << 16);
            zip.start_file(format!("{name}.npy"), options.large_file(large))
                .map_err(|error| zip_error(error, &source))?;
            npy::write_to(&mut zip, tensor, path)?;
        }
        for (name, text) in texts {
            zip.start_file(format!("{name}.npy"), options).map_err(|error| zip_error(error, &source))?;
            npy::write_text_to(&mut zip, text, path)?;
        }
        let mut out = zip.finish().map_err(|error| zip_error(error, &source))?;
        out.flush().map_err(|error| Error::io(path, &error))
    })
}

/// Reads up to one byte more than `declared`, growing with what comes.
fn read_growing(from: &mut impl Read, declared: u64, source: &str) -> Result<Vec<u8>> {
    const FIRST: usize = 1 << 16;
    let limit = usize::try_from(declared.saturating_add(1))
        .map_err(|_| Error::too_large(source.to_owned(), declared, usize::MAX as u64, "bytes"))?;
    let mut data = Vec::new();
    let mut filled = 0;
    loop {
        if filled == data.len() {
            if filled == limit {
                return Ok(data);
            }
            let more = filled.max(FIRST).min(limit - filled);
            data.try_reserve_exact(more)
                .map_err(|_| Error::too_large(source.to_owned(), declared, data.len() as u64, "bytes"))?;
            data.resize(filled + more, 0);
        }
        match from.read(&mut data[filled..]) {
            Ok(0) => {
                data.truncate(filled);
                return Ok(data);
            }
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(&error, source)),
        }
    }
}

/// The archive is in memory, so a failed read means malformed data.
fn read_error(error: &std::io::Error, source: &str) -> Error {
    Error::parse(source, error)
}

fn zip_error(error: ZipError, source: &str) -> Error {
    match error {
        ZipError::UnsupportedArchive(what) => Error::unsupported(source.to_owned(), what),
        ZipError::CompressionMethodNotSupported(id) => {
            Error::unsupported(format!("{source}: compression {id}"), "use stored or deflated")
        }
        other => Error::Parse { source: source.to_owned(), at: Position::Whole, message: other.to_string() },
    }
}
