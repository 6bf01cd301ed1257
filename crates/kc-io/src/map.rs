//! Memory maps: a file's bytes without reading them.
//!
//! The system brings pages in as they are touched, so opening is instant and a tensor that is used once
//! costs one pass over the disk. The price is a rule for the user, as with NumPy's `mmap_mode` and with
//! every reader of safetensors: **while a file is mapped, nobody may change or shorten it.** A changed file
//! changes the tensor under the reader, and reading beyond the end of a shortened file ends the process
//! (SIGBUS). The writers of this crate never do either: they write beside the target and rename, so that a
//! reader keeps the old file (see [`atomic`](crate::atomic)).

#![expect(unsafe_code, reason = "mapping a file is unsafe: others may change it")]

use std::fs::File;
use std::path::Path;

use kc_core::{Bytes, Error, Result};

/// The bytes of a regular file. They are shared, and stay valid after the file is renamed or removed.
///
/// Pipes, sockets and devices are refused, because they have no length to check against.
pub fn map(path: impl AsRef<Path>) -> Result<Bytes> {
    let path = path.as_ref();
    let failed = |error| Error::io(path, &error);
    // Asked before opening: opening a pipe would wait for its writer.
    let before = std::fs::metadata(path).map_err(failed)?;
    if before.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if !before.is_file() {
        return Err(Error::unsupported(path.display().to_string(), "only regular files can be mapped"));
    }
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        // Not every system can map nothing.
        return Ok(Bytes::from_owner(Vec::new()));
    }
    // SAFETY: the map is read-only and private to this process; that no other process changes the file
    // meanwhile is the documented condition of this module, which no program can check.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::from_owner(map))
}
