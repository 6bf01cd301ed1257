//! What a verb answers with, and how it reaches the user: a few lines, JSON, a report file, exit codes.

#![expect(clippy::print_stderr, reason = "the one place where the program speaks")]

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::args::Ctx;

/// A mistake in how a verb was called that clap cannot see (exit code 2).
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The answer of a verb: keys and values in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    values: Map<String, Value>,
    text: Option<String>,
    json_file: Option<PathBuf>,
    exit: u8,
}

impl Answer {
    /// No values yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An answer that is a ready JSON object.
    pub(crate) fn from_map(values: Map<String, Value>) -> Self {
        Self { values, ..Self::default() }
    }

    /// Adds a value. NaN and infinities become null, as JSON has none.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// What a person reads instead of `key: value` lines.
    pub(crate) fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.text = Some(text.into());
        self
    }

    /// The exit code of an answer that is not the last word (the default is 0, done).
    pub(crate) fn exit_with(&mut self, code: u8) -> &mut Self {
        self.exit = code;
        self
    }

    /// The verb's own `--out FILE.json`: the JSON object goes there, as with `--json FILE`.
    pub(crate) fn also_to(&mut self, path: Option<&Path>) -> &mut Self {
        self.json_file = path.map(Path::to_path_buf);
        self
    }
}

/// Runs a verb, then prints or stores its answer as the global flags ask. Gives the exit code.
pub(crate) fn run(ctx: &Ctx, verb: impl FnOnce() -> Result<Answer>) -> Result<u8> {
    let start = Instant::now();
    let answer = verb()?;
    let seconds = start.elapsed().as_secs_f64();
    ctx.say(format_args!("done in {seconds:.3} s"));

    let result = Value::Object(answer.values);
    if let Some(path) = &answer.json_file {
        kc_io::json::write(path, &result)?;
    }
    if let Some(path) = &ctx.global.report {
        kc_io::json::write(path, &report(ctx, seconds, &result))?;
    }
    match &ctx.global.json {
        Some(path) if path.as_os_str() == "-" => print(&serde_json::to_string(&result)?)?,
        Some(path) => kc_io::json::write(path, &result)?,
        None if ctx.global.quiet => {}
        None => print(&answer.text.unwrap_or_else(|| lines(&result)))?,
    }
    Ok(answer.exit)
}

fn report(ctx: &Ctx, seconds: f64, result: &Value) -> Value {
    // The result's own keys stand at the top level, beside what the program knows.
    let mut all = result.as_object().cloned().unwrap_or_default();
    let run = json!({
        "program": concat!("kc ", env!("CARGO_PKG_VERSION")),
        "command": std::env::args().skip(1).collect::<Vec<_>>(),
        "seconds": seconds,
        "threads": kc_core::par::threads(),
        "isa": kc_core::Isa::best().level().name(),
        "seed": ctx.seed().map_or_else(|_| json!(ctx.big_seed().name()), |seed| json!(seed)),
        "peak_memory_bytes": peak_memory(),
    });
    all.insert("run".to_owned(), run);
    Value::Object(all)
}

/// The most memory that this process has held, where the system tells (Linux).
fn peak_memory() -> Option<u64> {
    Some(memory()?.1)
}

/// The memory that this process holds, and the most that it has held, in bytes, where the system tells (Linux).
pub(crate) fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

fn lines(result: &Value) -> String {
    let Value::Object(values) = result else { return result.to_string() };
    let width = values.keys().map(String::len).max().unwrap_or(0);
    let row = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key:width$}  {text}"),
        other => format!("{key:width$}  {other}"),
    };
    values.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Prints to standard output; a closed pipe is the reader's choice, not an error.
fn print(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

/// A line on standard error.
pub(crate) fn message(message: impl Display) {
    eprintln!("{message}");
}

/// One line, `error: ...`.
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
}

/// 2 for wrong usage, 1 for a failed job.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Usage>().is_some() { 2 } else { 1 }
}
