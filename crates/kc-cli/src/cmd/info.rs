//! `kc info`

use std::fs::read_to_string;
use std::path::Path;

use anyhow::Result;
use kc_core::{Isa, par};
use serde_json::{Value, json};

use crate::report::Answer;

/// Flags of `kc info`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc info --json")]
pub(crate) struct Args {}

/// Prints what the machine has. What the system does not tell is null.
pub(crate) fn run(_: &Args) -> Result<Answer> {
    let mut answer = Answer::new();
    answer
        .set("version", env!("CARGO_PKG_VERSION"))
        .set("os", std::env::consts::OS)
        .set("arch", std::env::consts::ARCH)
        .set("processor", processor())
        .set("levels", Isa::available().map(|isa| isa.level().name()).collect::<Vec<_>>())
        .set("level", Isa::best().level().name())
        .set("cores", std::thread::available_parallelism().ok().map(usize::from))
        .set("threads", par::threads())
        .set("caches", caches())
        .set("memory_bytes", memory());
    Ok(answer)
}

fn processor() -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The caches of the first processor, as Linux lists them.
fn caches() -> Vec<Value> {
    let read = |dir: &Path, file: &str| read_to_string(dir.join(file)).ok().map(|s| s.trim().to_owned());
    let cache = |index: usize| {
        let dir = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let dir = Path::new(&dir);
        let level: u32 = read(dir, "level")?.parse().ok()?;
        Some(json!({ "level": level, "type": read(dir, "type"), "size": read(dir, "size") }))
    };
    (0..8).map_while(cache).collect()
}

fn memory() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
