//! Readers and writers for npy, npz, safetensors, Matrix Market, CSV, FASTA and JSON that survive hostile files.

pub mod atomic;
#[cfg(feature = "json")]
pub mod json;
pub mod map;
#[cfg(feature = "mtx")]
pub mod mtx;
pub mod npy;
#[cfg(feature = "npz")]
pub mod npz;
pub mod path;

use std::path::Path;

use kc_core::{AnyTensor, Error, Result};

pub use path::{Format, Location};

/// Reads the tensor of a file, by the file's extension.
pub fn read(path: impl AsRef<Path>) -> Result<AnyTensor> {
    let location = Location::parse(path)?;
    match location.format {
        Format::Npy => npy::read(&location.path),
        #[cfg(feature = "npz")]
        Format::Npz => {
            let file = npz::NpzFile::open(&location.path)?;
            let name = one_name(&location, file.names())?;
            file.get(&name)
        }
        #[cfg(feature = "mtx")]
        Format::Mtx => mtx::read(&location.path)?.to_dense(),
        other => Err(Error::unsupported(format!("reading a tensor from {other:?}"), "not offered")),
    }
}

/// Writes a tensor, by the file's extension.
pub fn write(path: impl AsRef<Path>, tensor: &AnyTensor) -> Result<()> {
    let location = Location::parse(path)?;
    match location.format {
        Format::Npy => npy::write(&location.path, tensor),
        other => Err(Error::unsupported(format!("writing a tensor to {other:?}"), "write .npy")),
    }
}

/// The tensor that a location means: the one named, or the only one.
#[cfg(any(feature = "npz", feature = "safetensors"))]
fn one_name(location: &Location, names: &[String]) -> Result<String> {
    match (&location.tensor, names) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            let file = location.path.display();
            Err(Error::argument("path", format!("{file}:NAME with a name of {}", list(names)), file))
        }
    }
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
