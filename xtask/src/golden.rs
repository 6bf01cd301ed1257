//! Hashes of the fixtures.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::tidy::files;

const FOLDER: &str = "crates/kc-testing/golden";
const SUMS: &str = "SHA256SUMS";

/// Compares the fixtures with their hashes, or writes the hashes.
pub(crate) fn run(sh: &Shell, update: bool) -> Result<()> {
    let _folder = sh.push_dir(FOLDER);
    let found: BTreeSet<String> = files(&sh.current_dir())?.into_iter().filter(|name| name != SUMS).collect();
    let tool: &[&str] =
        if cmd!(sh, "sha256sum --version").quiet().ignore_stdout().ignore_stderr().run().is_ok() {
            &["sha256sum"]
        } else {
            &["shasum", "--algorithm", "256"]
        };
    let (program, options) = (tool[0], &tool[1..]);
    if update {
        let names = &found;
        let sums = cmd!(sh, "{program} {options...} {names...}").read()?;
        sh.write_file(SUMS, sums + "\n")?;
        println!("wrote {FOLDER}/{SUMS}: {} files", found.len());
        return Ok(());
    }
    let listed = names(&sh.read_file(SUMS)?);
    let (missing, unlisted) = (join(listed.difference(&found)), join(found.difference(&listed)));
    if !missing.is_empty() || !unlisted.is_empty() {
        bail!("{FOLDER}: missing: [{missing}], not in {SUMS}: [{unlisted}] (cargo xtask golden --update)");
    }
    cmd!(sh, "{program} {options...} --check {SUMS}").ignore_stdout().quiet().run()?;
    println!("{} fixtures are as they were made", found.len());
    Ok(())
}

fn names(sums: &str) -> BTreeSet<String> {
    let name =
        |line: &str| line.split_once(' ').map(|(_, name)| name.trim_start_matches([' ', '*']).to_owned());
    sums.lines().filter_map(name).collect()
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_forms_of_a_line_are_read() {
        let names = super::names("ab12  x/a.npy\ncd34 *x/b.npy\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["x/a.npy", "x/b.npy"]);
    }
}
