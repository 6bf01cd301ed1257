//! Storing: tensors and folders, written beside the target and renamed.

use std::path::Path;

use anyhow::{Context, Result};
use kc_core::{Element, Tensor};

/// Writes a tensor in the format of the extension.
pub(crate) fn tensor<T: Element, const N: usize>(path: &Path, tensor: Tensor<T, N>) -> Result<()> {
    kc_io::write(path, &tensor.into_any()).map_err(Into::into)
}

/// Makes sure that the folder of `--out-dir` is there.
pub(crate) fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())
}
