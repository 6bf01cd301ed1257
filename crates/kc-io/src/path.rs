//! What a user means by a file name: the format by its extension, and one tensor of a file that holds many.

use std::path::{Path, PathBuf};

use kc_core::{Error, Result};

/// A file format, known by the file's extension (in any case).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `.npy`: one tensor.
    Npy,
    /// `.npz`: a zip archive of `.npy` files.
    Npz,
    /// `.safetensors`: tensors by name.
    SafeTensors,
    /// `.safetensors.index.json`: tensors by name in several `.safetensors` files.
    SafeTensorsIndex,
    /// `.mtx`: a Matrix Market file.
    Mtx,
    /// `.csv`: a table of numbers.
    Csv,
    /// `.fasta`, `.fa`, `.faa`, `.fna`: sequences.
    Fasta,
    /// `.json`: one value.
    Json,
    /// `.jsonl`: one JSON value on each line.
    JsonLines,
}

const EXTENSIONS: [(&str, Format); 12] = [
    // The longer extension comes first.
    (".safetensors.index.json", Format::SafeTensorsIndex),
    (".safetensors", Format::SafeTensors),
    (".npy", Format::Npy),
    (".npz", Format::Npz),
    (".mtx", Format::Mtx),
    (".csv", Format::Csv),
    (".fasta", Format::Fasta),
    (".faa", Format::Fasta),
    (".fna", Format::Fasta),
    (".fa", Format::Fasta),
    (".jsonl", Format::JsonLines),
    (".json", Format::Json),
];

/// A file, and perhaps one tensor in it.
///
/// ```
/// use kc_io::{Format, Location};
///
/// let w = Location::parse("model/weights.safetensors:layers.0.q:proj")?;
/// assert_eq!(w.path, std::path::Path::new("model/weights.safetensors"));
/// assert_eq!(w.tensor.as_deref(), Some("layers.0.q:proj"));
/// assert_eq!(w.format, Format::SafeTensors);
/// assert_eq!(Location::parse("C:\\data\\x.NPY")?.tensor, None);
/// # Ok::<(), kc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// The name after the colon, if there is one.
    pub tensor: Option<String>,
    /// The format that the extension says.
    pub format: Format,
}

impl Location {
    /// Reads `FILE` or `FILE:TENSOR`. A colon separates only behind the extension of a format that holds
    /// several tensors, so that drive letters and names with colons work.
    pub fn parse(text: impl AsRef<Path>) -> Result<Self> {
        let path = text.as_ref();
        if let Some(text) = path.to_str()
            && let Some((file, tensor)) = split(text)
        {
            let format = format(Path::new(file))?;
            return Ok(Self { path: PathBuf::from(file), tensor: Some(tensor.to_owned()), format });
        }
        Ok(Self { path: path.to_path_buf(), tensor: None, format: format(path)? })
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let lower = text.to_ascii_lowercase();
    let (at, extension) = [".safetensors.index.json:", ".safetensors:", ".npz:"]
        .iter()
        .filter_map(|extension| lower.find(extension).map(|at| (at, extension)))
        .min()?;
    let colon = at + extension.len() - 1;
    Some((&text[..colon], &text[colon + 1..]))
}

/// The format that the extension of `path` says.
pub fn format(path: &Path) -> Result<Format> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    EXTENSIONS.iter().find(|(extension, _)| name.ends_with(extension)).map(|&(_, format)| format).ok_or_else(
        || {
            let known: Vec<&str> = EXTENSIONS.iter().map(|&(extension, _)| extension).collect();
            Error::argument("path", format!("a file name that ends in {}", known.join(", ")), path.display())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_format() {
        for (name, want) in [
            ("a/b.npy", Format::Npy),
            ("B.NPZ", Format::Npz),
            ("m.safetensors", Format::SafeTensors),
            ("m.safetensors.index.json", Format::SafeTensorsIndex),
            ("x.json", Format::Json),
            ("x.jsonl", Format::JsonLines),
            ("x.fa", Format::Fasta),
        ] {
            assert_eq!(Location::parse(name).unwrap().format, want, "{name}");
        }
        for name in ["", "x", "x.txt", "npy", "x.npy/"] {
            let got = Location::parse(name);
            assert!(got.is_err() || name == "x.npy/", "{name}: {got:?}");
        }
    }

    #[test]
    fn a_colon_names_a_tensor_only_behind_a_container() {
        let at = |text| Location::parse(text).unwrap();
        assert_eq!(at("d.npz:x/y").tensor.as_deref(), Some("x/y"));
        assert_eq!(at("d.npz:x").path, Path::new("d.npz"));
        assert_eq!(at("d.npz:").tensor.as_deref(), Some(""));
        assert_eq!(at("s.safetensors.index.json:w").format, Format::SafeTensorsIndex);
        assert_eq!(at("a:b.npy").tensor, None);
        assert_eq!(at("x.npz:y.safetensors:z").tensor.as_deref(), Some("y.safetensors:z"));
    }
}
