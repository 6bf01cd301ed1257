//! Readers and writers for npy, npz, safetensors, Matrix Market, CSV, FASTA and JSON that survive hostile
//! files.
//!
//! [`read`] turns a file into an [`AnyTensor`], the door through which data enter every other crate;
//! [`write()`] stores one. Formats that hold more than one tensor, or something else, have a module of their
//! own. Large files are mapped: a tensor in its natural layout is viewed where it lies, and opening costs
//! nothing.
//!
//! | Module | Files | Feature |
//! |---|---|---|
//! | [`npy`] | `.npy`: one tensor | |
//! | [`npz`] | `.npz`: tensors by name | `npz` |
//! | [`safetensors`] | `.safetensors`, `.safetensors.index.json`: tensors by name | `safetensors` |
//! | [`mtx`] | `.mtx`: sparse and dense matrices | `mtx` |
//! | [`csv`] | `.csv`: tables of numbers | `csv` |
//! | [`fasta`] | `.fasta`: sequences | `fasta` |
//! | [`json`] | `.json`, `.jsonl`: results | `json` |
//! | [`path`] | file names: the format, and `FILE:TENSOR` | |
//! | [`atomic`] | writing beside the target and renaming | |
//! | [`map`] | memory maps | |
//!
//! All features are on by default. No input panics, hangs, or allocates more than a small multiple of its
//! length (an archive: of what it really inflates to, up to a limit). Every writer leaves the target
//! untouched when it fails.
//!
//! ```
//! use kc_core::Tensor;
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("x.npy");
//! let x = Tensor::from_fn([2, 3], |[i, j]| (10 * i + j) as f32)?;
//! kc_io::write(&path, &x.into_any())?;
//!
//! let file = kc_io::read(&path)?;
//! assert_eq!(file.view::<f32, 2>("x")?.at([1, 2]), 12.0);
//! let wrong = file.view::<f64, 2>("x").unwrap_err();
//! assert_eq!(wrong.to_string(), "x: expected float64, got float32");
//! # Ok::<(), kc_core::Error>(())
//! ```

pub mod atomic;
#[cfg(feature = "csv")]
pub mod csv;
#[cfg(feature = "fasta")]
pub mod fasta;
#[cfg(feature = "json")]
pub mod json;
mod layout;
pub mod map;
#[cfg(feature = "mtx")]
pub mod mtx;
pub mod npy;
#[cfg(feature = "npz")]
pub mod npz;
#[cfg(any(feature = "mtx", feature = "csv"))]
mod number;
pub mod path;
#[cfg(feature = "safetensors")]
pub mod safetensors;

use std::path::Path;

use kc_core::{AnyTensor, Error, Result};

#[cfg(feature = "fasta")]
pub use fasta::Fasta;
#[cfg(feature = "mtx")]
pub use mtx::Mtx;
#[cfg(feature = "npz")]
pub use npz::NpzFile;
pub use path::{Format, Location};
#[cfg(feature = "safetensors")]
pub use safetensors::SafeTensorsFile;

/// Reads a tensor, by the file's extension.
///
/// `.npy`, the only tensor of a `.npz`, `.safetensors` or `.safetensors.index.json`, or the one that
/// `FILE:NAME` names; `.csv` as a `float64` matrix; `.mtx` array files (`float64`, or `complex128`).
/// Coordinate files are sparse: read them with [`mtx::read`].
pub fn read(path: impl AsRef<Path>) -> Result<AnyTensor> {
    let location = Location::parse(path)?;
    match location.format {
        Format::Npy => npy::read(&location.path),
        #[cfg(feature = "npz")]
        Format::Npz => {
            let file = NpzFile::open(&location.path)?;
            file.get(one_name(&location, file.names())?)
        }
        #[cfg(feature = "safetensors")]
        Format::SafeTensors => {
            let file = SafeTensorsFile::open(&location.path)?;
            file.get(one_name(&location, file.names())?)
        }
        #[cfg(feature = "safetensors")]
        Format::SafeTensorsIndex => {
            let file = SafeTensorsFile::open_index(&location.path)?;
            file.get(one_name(&location, file.names())?)
        }
        #[cfg(feature = "mtx")]
        Format::Mtx => mtx::read(&location.path)?.to_dense(),
        #[cfg(feature = "csv")]
        Format::Csv => Ok(csv::read(&location.path)?.data.into_any()),
        other => Err(not_a_tensor(other)),
    }
}

/// Writes a tensor, by the file's extension: `.npy`, `.npz:NAME`, `.safetensors:NAME`, or `.csv` for at most
/// two dimensions. An archive is replaced, not extended.
pub fn write(path: impl AsRef<Path>, tensor: &AnyTensor) -> Result<()> {
    let location = Location::parse(path)?;
    match location.format {
        Format::Npy => npy::write(&location.path, tensor),
        #[cfg(feature = "npz")]
        Format::Npz => npz::write(&location.path, &[(new_name(&location), tensor.clone())]),
        #[cfg(feature = "safetensors")]
        Format::SafeTensors => safetensors::write(
            &location.path,
            &[(new_name(&location), tensor.clone())],
            &std::collections::BTreeMap::new(),
        ),
        #[cfg(feature = "csv")]
        Format::Csv => csv::write(&location.path, tensor, None),
        other => Err(not_a_tensor(other)),
    }
}

fn not_a_tensor(format: Format) -> Error {
    Error::unsupported(
        format!("a tensor in {format:?}"),
        "use .npy, .npz, .safetensors or .csv (a crate feature each), or the format's own module",
    )
}

/// The tensor that a location means: the one named, or the only one.
#[cfg(any(feature = "npz", feature = "safetensors"))]
fn one_name<'a>(location: &'a Location, names: &'a [String]) -> Result<&'a str> {
    match (&location.tensor, names) {
        (Some(name), _) => Ok(name),
        (None, [only]) => Ok(only),
        (None, _) => {
            let file = location.path.display();
            Err(Error::argument("path", format!("{file}:NAME with a name of {}", list(names)), file))
        }
    }
}

/// The name under which a single tensor is stored; NumPy's for an array without one.
#[cfg(any(feature = "npz", feature = "safetensors"))]
fn new_name(location: &Location) -> &str {
    location.tensor.as_deref().unwrap_or("arr_0")
}

/// The first names of a file, for messages.
#[cfg(any(feature = "npz", feature = "safetensors"))]
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let rest = names.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("[{}]{more}", shown.join(", "))
}

/// The examples of these pages run with the doc tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    pub struct Readme;
}
