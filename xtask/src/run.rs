//! test, bench and publish.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

/// True if cargo has this subcommand.
pub(crate) fn has(sh: &Shell, subcommand: &str) -> bool {
    cmd!(sh, "cargo {subcommand} --version").quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

/// Optional conversions of ours that are tested too. (kc-linalg's `avx512` is not: it builds faer once more.)
const FEATURES: &str = "kc-core/ndarray,kc-linalg/faer";

/// Unit, integration and doc tests, of one crate or all.
pub(crate) fn test(sh: &Shell, package: Option<&str>, isa: Option<&str>) -> Result<()> {
    let which: &[&str] = &match package {
        Some(name) => vec!["--package", name],
        None => vec!["--workspace", "--features", FEATURES],
    };
    let levels = match isa {
        None => Vec::new(),
        Some("all") => levels(sh)?,
        Some(other) => bail!("--isa: expected all, got {other} (one level: KC_ISA={other} cargo xtask test)"),
    };
    // Programs have no doc tests, and cargo refuses to look for them when only programs are named.
    if package.is_none_or(|name| sh.path_exists(format!("crates/{name}/src/lib.rs"))) {
        cmd!(sh, "cargo test --doc {which...}").run()?;
    }
    if levels.is_empty() {
        return once(sh, which);
    }
    for level in levels {
        println!("KC_ISA={level}");
        let _level = sh.push_env("KC_ISA", &level);
        once(sh, which)?;
    }
    Ok(())
}

fn once(sh: &Shell, which: &[&str]) -> Result<()> {
    if has(sh, "nextest") {
        cmd!(sh, "cargo nextest run --no-tests pass {which...}").run()?;
    } else {
        cmd!(sh, "cargo test --lib --bins --tests {which...}").run()?;
    }
    Ok(())
}

/// The levels of this processor, as `kc info` lists them.
fn levels(sh: &Shell) -> Result<Vec<String>> {
    let info = cmd!(sh, "cargo run --quiet --package kc-cli -- info --json").read()?;
    let levels = names_after(&info, "\"levels\"");
    if levels.is_empty() {
        bail!("kc info names no levels");
    }
    Ok(levels)
}

/// The strings of the JSON list that follows `key`.
fn names_after(json: &str, key: &str) -> Vec<String> {
    let list = json.split_once(key).and_then(|(_, rest)| rest.split_once('[')?.1.split_once(']'));
    let list = list.map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The experiments, optimised like a release.
pub(crate) fn bench(sh: &Shell, flags: &crate::flags::Bench) -> Result<()> {
    let mut arguments: Vec<&str> = flags.name.iter().map(String::as_str).collect();
    let switches = [("--quick", flags.quick), ("--peers", flags.peers), ("--criterion", flags.criterion)];
    arguments.extend(switches.iter().filter(|(_, on)| *on).map(|(switch, _)| *switch));
    if let Some(dir) = &flags.out {
        arguments.extend(["--out", dir]);
    }
    cmd!(sh, "cargo run --profile bench --package kc-bench -- {arguments...}").run()?;
    Ok(())
}

/// All published crates, in dependency order.
pub(crate) fn publish(sh: &Shell, execute: bool) -> Result<()> {
    if has(sh, "semver-checks") {
        cmd!(sh, "cargo semver-checks check-release --workspace").run()?;
    } else {
        println!("cargo-semver-checks is not installed: interfaces are not compared with the last release");
    }
    let dry: &[&str] = if execute { &[] } else { &["--dry-run"] };
    cmd!(sh, "cargo publish --workspace {dry...}").run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::names_after;

    #[test]
    fn levels_are_read_from_json() {
        let json = r#"{"os": "linux", "levels": ["portable", "avx2"], "caches": ["x"]}"#;
        assert_eq!(names_after(json, "\"levels\""), ["portable", "avx2"]);
        assert!(names_after("{}", "\"levels\"").is_empty());
    }
}
