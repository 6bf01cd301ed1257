//! Files that are either complete or untouched.
//!
//! A writer fills a temporary file beside the target, and only a complete one is renamed over it: readers
//! see the old file or the new one, never a part, and an error or a full disk leaves the old one. A reader
//! that has mapped the old file keeps it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kc_core::{Error, Result};

/// How much is promised when a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The file is complete for every program on this machine.
    #[default]
    Rename,
    /// The data have also reached the disk, so that they survive a loss of power (slower).
    Sync,
}

/// Writes `path` through `body`. On an error the target is as it was.
///
/// The new file has the permissions of the one it replaces, or the usual ones. A symbolic link is followed;
/// a device or a pipe is written directly.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("notes.txt");
/// kc_io::atomic::write(&path, |out| {
///     out.write_all(b"hello").map_err(|error| kc_core::Error::io(&path, &error))
/// })?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"hello");
/// # Ok::<(), kc_core::Error>(())
/// ```
pub fn write(path: impl AsRef<Path>, body: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    write_with(path, Durability::Rename, body)
}

/// As [`write()`], with a choice of [`Durability`].
pub fn write_with(
    path: impl AsRef<Path>,
    durability: Durability,
    body: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    with_file(path, durability, |file| {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        body(&mut out)?;
        out.flush().map_err(|error| Error::io(path, &error))
    })
}

/// As [`write_with`] for writers that seek.
pub(crate) fn with_file(
    path: &Path,
    durability: Durability,
    body: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| Error::io(path, &error);
    let existing = fs::metadata(path).ok();
    if existing.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if existing.as_ref().is_some_and(|meta| !meta.is_file()) {
        // Renaming over a device would replace the device.
        let mut file = File::options().write(true).open(path).map_err(failed)?;
        return body(&mut file);
    }
    let target = match existing {
        Some(_) => fs::canonicalize(path).map_err(failed)?,
        None => path.to_path_buf(),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kc-").suffix(".tmp");
    let usual = permissions();
    if let Some(permissions) = existing.map(|meta| meta.permissions()).or(usual) {
        builder.permissions(permissions);
    }
    let mut temporary = builder.tempfile_in(folder(&target)).map_err(failed)?;
    body(temporary.as_file_mut())?;
    if durability == Durability::Sync {
        temporary.as_file().sync_all().map_err(failed)?;
    }
    temporary.persist(&target).map_err(|error| failed(error.error))?;
    if durability == Durability::Sync {
        sync_folder(&folder(&target)).map_err(failed)?;
    }
    Ok(())
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// What a newly created file gets; the process's umask still applies.
#[cfg(unix)]
fn permissions() -> Option<fs::Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(fs::Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn permissions() -> Option<fs::Permissions> {
    None
}

/// A rename is on disk when its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
