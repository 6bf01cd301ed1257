//! Where the fixtures are, and how to read them.

use std::path::{Path, PathBuf};

use kc_core::{Element, Tensor};

/// The folder with all fixtures.
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The path of a fixture, for instance `golden("crossquant/case00_x.npy")`.
///
/// # Panics
/// If there is no such fixture.
pub fn golden(name: &str) -> PathBuf {
    let path = golden_dir().join(name);
    assert!(path.exists(), "no fixture {}", path.display());
    path
}

/// A fixture tensor of known type and rank.
///
/// # Panics
/// If it cannot be read or has another type or rank.
pub fn golden_tensor<T: Element, const N: usize>(name: &str) -> Tensor<T, N> {
    kc_io::read(golden(name)).and_then(|any| any.to_tensor(name.to_owned())).unwrap_or_else(|e| panic!("{e}"))
}

/// A fixture in JSON.
///
/// # Panics
/// If it cannot be read.
pub fn golden_json(name: &str) -> serde_json::Value {
    let path = golden(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
