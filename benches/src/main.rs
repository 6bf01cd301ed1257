//! `cargo xtask bench`: each system's published claims beside what this machine gives.
//!
//! ```text
//! kc-bench [NAME]... [--quick] [--peers] [--criterion] [--seed N] [--out DIR]
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program's answer is a table on the terminal"
)]

mod ceilings;
mod experiments;
mod low_bit;
mod machine;
mod minilm;
mod page;
mod peers;
mod plot;
mod record;
mod terminal;
mod timing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::experiments::{Ctx, EXPERIMENTS, Experiment, Settings};
use crate::machine::Machine;
use crate::record::Report;

/// Counts allocations where an experiment measures memory.
#[global_allocator]
static ALLOCATOR: kc_testing::alloc::Counting = kc_testing::alloc::Counting;

mod flags {
    use std::path::PathBuf;

    xflags::xflags! {
        /// Runs the experiments and writes report.html and report.json.
        cmd bench {
            /// Which experiments; all if none is named.
            repeated name: String
            /// Smaller sizes: a few minutes for everything.
            optional --quick
            /// Also time the Python libraries that people use (needs python3).
            optional --peers
            /// Also run the criterion groups (cargo bench).
            optional --criterion
            /// Seed of random data.
            optional --seed seed: u64
            /// Where the report goes; target/bench if not given.
            optional --out dir: PathBuf
        }
    }
}

fn main() -> ExitCode {
    let flags = flags::Bench::from_env_or_exit();
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if an experiment stopped with an error; the report is written all the same.
fn run(flags: &flags::Bench) -> Result<bool> {
    let chosen = choose(&flags.name)?;
    let settings = Settings { quick: flags.quick, peers: flags.peers, seed: flags.seed.unwrap_or(1) };
    let out = flags.out.clone().unwrap_or_else(|| target().join("bench"));
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;

    // indicatif draws on standard error, and only when that is a terminal.
    let bar = ProgressBar::new(chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {wide_msg}")?);
    bar.set_message("measuring the machine");
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let machine = Arc::new(Machine::look());
    let mut sections = Vec::new();
    for experiment in chosen {
        bar.set_message(experiment.name);
        sections.push(Ctx::observe(experiment, settings, Arc::clone(&machine), bar.clone()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let machine = Arc::into_inner(machine).context("an experiment kept the machine")?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let report = Report {
        format: "kc-bench 1",
        created,
        quick: settings.quick,
        seed: settings.seed,
        machine,
        sections,
    };

    print!("{}", terminal::render(&report));
    let (html, json) = (out.join("report.html"), out.join("report.json"));
    std::fs::write(&html, page::render(&report)?).with_context(|| html.display().to_string())?;
    std::fs::write(&json, serde_json::to_string_pretty(&report)?)
        .with_context(|| json.display().to_string())?;
    println!("{}", html.display());
    if flags.criterion {
        criterion(&choose(&flags.name)?, flags.quick)?;
    }
    Ok(report.sections.iter().all(|section| section.error.is_none()))
}

fn choose(names: &[String]) -> Result<Vec<&'static Experiment>> {
    if names.is_empty() {
        return Ok(EXPERIMENTS.iter().collect());
    }
    let find = |name: &String| match EXPERIMENTS.iter().find(|e| e.name == name) {
        Some(experiment) => Ok(experiment),
        None => {
            let known: Vec<&str> = EXPERIMENTS.iter().map(|e| e.name).collect();
            bail!("no experiment {name:?}; there are {}", known.join(", "))
        }
    };
    names.iter().map(find).collect()
}

/// Runs the criterion groups of these experiments.
fn criterion(chosen: &[&Experiment], quick: bool) -> Result<()> {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["bench", "--package", "kc-bench"]);
    for experiment in chosen {
        command.args(["--bench", experiment.name]);
    }
    if quick {
        // Criterion's own: stops as soon as the figures settle.
        command.args(["--", "--quick"]);
    }
    let status = command.status().context("cargo bench")?;
    if !status.success() {
        bail!("cargo bench failed");
    }
    Ok(())
}

/// Cargo's target folder, in which this program lies.
pub(crate) fn target() -> PathBuf {
    let built = std::env::current_exe().ok();
    let above = built.as_deref().and_then(|path| path.parent()?.parent()).map(Path::to_path_buf);
    above.unwrap_or_else(|| PathBuf::from("target"))
}
