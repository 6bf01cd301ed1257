//! Everything that a change must pass, with the time of each step.

use std::time::Instant;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{codegen, golden, manifest, run, tidy};

/// One step after the other, cheap ones first; stops at the first failure.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    let mut times: Vec<(&str, f64)> = Vec::new();
    let mut step = |name: &'static str, body: &dyn Fn(&Shell) -> Result<()>| -> Result<()> {
        println!("--- {name}");
        let start = Instant::now();
        body(sh).with_context(|| name.to_owned())?;
        times.push((name, start.elapsed().as_secs_f64()));
        Ok(())
    };
    step("fmt", &|sh| Ok(cmd!(sh, "cargo fmt --all --check").run()?))?;
    step("tidy", &tidy::run)?;
    step("codegen --check", &|sh| codegen::run(sh, true))?;
    step("golden --verify", &|sh| golden::run(sh, false))?;
    step("clippy", &|sh| {
        let lint = cmd!(sh, "cargo clippy --workspace --all-targets --all-features -- -D warnings");
        Ok(lint.run()?)
    })?;
    step("each feature alone", &features)?;
    step("doc", &|sh| {
        let _flags = sh.push_env("RUSTDOCFLAGS", "-D warnings");
        let out = ["--exclude", "kc-bench", "--exclude", "xtask"];
        Ok(cmd!(sh, "cargo doc --workspace --no-deps --all-features {out...}").run()?)
    })?;
    step("deny", &|sh| {
        if !run::has(sh, "deny") {
            println!("cargo-deny is not installed: advisories are not checked (licences are, by tidy)");
            return Ok(());
        }
        Ok(cmd!(sh, "cargo deny check").run()?)
    })?;
    step("test", &|sh| run::test(sh, None, None))?;
    println!("--- all passed");
    for (name, seconds) in times {
        println!("{seconds:8.1} s  {name}");
    }
    Ok(())
}

/// Each crate without features, and with each of them alone.
fn features(sh: &Shell) -> Result<()> {
    for member in manifest::members(sh)? {
        let features = member.features();
        if features.is_empty() {
            continue;
        }
        let name = &member.name;
        cmd!(sh, "cargo check --quiet --package {name} --no-default-features").run()?;
        for feature in features {
            cmd!(sh, "cargo check --quiet --package {name} --no-default-features --features {feature}")
                .run()?;
        }
    }
    Ok(())
}
