//! The machine and the versions that a report was made with.

use std::fs::read_to_string;
use std::process::Command;

use kc_core::Isa;
use serde::Serialize;

use crate::ceilings::{self, Ceilings};

/// What a figure depends on. What the system does not tell is None.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: Option<String>,
    /// Levels that this processor has, lowest first.
    pub(crate) levels: Vec<&'static str>,
    /// The level that the kernels use.
    pub(crate) level: &'static str,
    pub(crate) cores: usize,
    /// Caches of the first processor, for instance `L2 Unified 512K`.
    pub(crate) caches: Vec<String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) os: String,
    pub(crate) rustc: Option<String>,
    /// The commit, with a mark if the tree differs from it.
    pub(crate) revision: Option<String>,
    pub(crate) ceilings: Ceilings,
}

impl Machine {
    /// Asks the system, and measures the ceilings.
    pub(crate) fn look() -> Self {
        Machine {
            processor: cpuinfo("model name"),
            levels: Isa::available().map(|isa| isa.level().name()).collect(),
            level: Isa::best().level().name(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            caches: (0..8).map_while(cache).collect(),
            memory_bytes: memory(),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            rustc: answer("rustc", &["--version"]),
            revision: answer("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            ceilings: ceilings::measure(Isa::best()),
        }
    }
}

fn cpuinfo(key: &str) -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn cache(index: usize) -> Option<String> {
    let read = |file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    Some(format!("L{} {} {}", read("level")?, read("type")?, read("size")?))
}

fn memory() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(program).args(arguments).current_dir(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
