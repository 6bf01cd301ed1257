//! The members' Cargo.toml files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use toml::{Table, Value};
use xshell::Shell;

/// A crate under crates/.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Table,
}

/// All crates under crates/, by name.
pub(crate) fn members(sh: &Shell) -> Result<Vec<Member>> {
    let mut all = Vec::new();
    for folder in sh.read_dir("crates")? {
        let path = folder.join("Cargo.toml");
        if path.exists() {
            let manifest = sh.read_file(&path)?.parse().with_context(|| path.display().to_string())?;
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.push(Member { name, folder, manifest });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

impl Member {
    /// Features by name, except `default`.
    pub(crate) fn features(&self) -> Vec<String> {
        let features = self.manifest.get("features").and_then(Value::as_table);
        features.into_iter().flat_map(Table::keys).filter(|name| *name != "default").cloned().collect()
    }

    /// Names of the normal dependencies, those of single targets included.
    pub(crate) fn dependencies(&self) -> Vec<String> {
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        let tables = std::iter::once(&self.manifest).chain(targets);
        let tables = tables.filter_map(|t| t.get("dependencies").and_then(Value::as_table));
        tables.flat_map(Table::keys).cloned().collect()
    }

    /// Entries of the development dependencies.
    pub(crate) fn dev_dependencies(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.manifest.get("dev-dependencies").and_then(Value::as_table).into_iter().flatten()
    }

    /// False if the manifest says `publish = false`.
    pub(crate) fn published(&self) -> bool {
        let package = self.manifest.get("package");
        package.and_then(|p| p.get("publish")).and_then(Value::as_bool).unwrap_or(true)
    }
}
