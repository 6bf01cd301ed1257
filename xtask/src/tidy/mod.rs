//! What the compiler does not check. Each finding names the place, the rule and the way out.

mod floors;
mod licences;
mod rooms;
mod source;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use xshell::Shell;

use crate::{manifest, register};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A file, or file:line.
    place: String,
    rule: String,
    fix: String,
}

impl Finding {
    fn new(place: impl Into<String>, rule: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { place: place.into(), rule: rule.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.rule, self.fix)
    }
}

/// Runs every check on the tree.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    let root = sh.current_dir();
    let register = register::read(sh)?;
    let members = manifest::members(sh)?;
    let workspace = sh.read_file("Cargo.toml")?.parse()?;

    let mut findings = rooms::check(&register, |path| root.join(path).exists());
    findings.extend(rooms::sizes(&root.join("crates/kc-testing/golden"))?);
    findings.extend(floors::check(&members, &workspace));
    findings.extend(licences::copies(sh, &members)?);
    findings.extend(licences::dependencies(sh)?);
    for folder in ["crates", "benches", "xtask", "fuzz"] {
        if !root.join(folder).exists() {
            continue;
        }
        for name in files(&root.join(folder))? {
            let path = format!("{folder}/{name}");
            if path.ends_with(".rs") && !path.contains("/target/") {
                findings.extend(source::check(&path, &sh.read_file(&path)?));
            }
        }
    }
    for member in &members {
        findings.extend(source::forbids(sh, member)?);
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy");
            Ok(())
        }
        n => bail!("{n} findings"),
    }
}

/// All files below `folder`, relative to it, with slashes, sorted.
pub(crate) fn files(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, into: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.ends_with("__pycache__") {
                    walk(&entry.path(), &format!("{name}/"), into)?;
                }
            } else {
                into.push(name);
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    walk(folder, "", &mut all)?;
    all.sort();
    Ok(all)
}
