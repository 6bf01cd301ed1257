//! Our licence texts are everywhere the same, and all dependencies are permissive.

use anyhow::Result;
use xshell::{Shell, cmd};

use super::Finding;
use crate::manifest::Member;

const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Each published crate carries both texts.
pub(crate) fn copies(sh: &Shell, members: &[Member]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let text = sh.read_file(name)?;
        for member in members.iter().filter(|m| m.published()) {
            if sh.read_file(member.folder.join(name)).ok().as_deref() != Some(&text) {
                let place = format!("crates/{}/{name}", member.name);
                findings.push(Finding::new(
                    place,
                    "not the repository's licence text",
                    format!("copy {name}"),
                ));
            }
        }
    }
    Ok(findings)
}

/// Every dependency may be used under a permissive licence.
pub(crate) fn dependencies(sh: &Shell) -> Result<Vec<Finding>> {
    let format = "{p}|{l}";
    let tree =
        cmd!(sh, "cargo tree --workspace --all-features --prefix none --format {format}").quiet().read()?;
    let mut findings: Vec<Finding> = tree.lines().filter_map(judge).collect();
    findings.sort_by(|a, b| a.place.cmp(&b.place));
    findings.dedup();
    Ok(findings)
}

fn judge(line: &str) -> Option<Finding> {
    let (package, licence) = line.trim().trim_end_matches(" (*)").split_once('|')?;
    let fix = "replace it, or add its licence to the list in xtask/src/tidy/licences.rs if it is permissive";
    (!permissive(licence)).then(|| Finding::new(package, format!("licence {licence:?}"), fix))
}

/// True if one side of an OR is permissive in all of its parts.
fn permissive(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // Parentheses in licence expressions group alternatives, so AND binds the groups.
    if expression.contains('(') {
        return expression.split(" AND ").all(|part| permissive(part.trim().trim_matches(['(', ')'])));
    }
    flat.split(" OR ").any(|side| side.split(" AND ").all(|part| PERMISSIVE.contains(&part.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        assert!(permissive("MIT OR Apache-2.0"));
        assert!(permissive("MIT/GPL-3.0"));
        assert!(permissive("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!permissive("(MIT OR Apache-2.0) AND GPL-3.0"));
        assert!(!permissive("GPL-3.0-only"));
        assert!(!permissive(""));
    }

    #[test]
    fn a_copyleft_dependency_is_found() {
        assert_eq!(judge("good v1.0.0|MIT (*)"), None);
        let finding = judge("bad v1.0.0|GPL-3.0").unwrap();
        assert_eq!(finding.place, "bad v1.0.0");
    }
}
