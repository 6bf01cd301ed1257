//! `kc list`

use anyhow::Result;
use serde_json::{Value, json};

use crate::report::Answer;
use crate::systems::{SYSTEMS, System};

/// Flags of `kc list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc list\n  kc list --planned --json")]
pub(crate) struct Args {
    /// List the systems that do not live here yet, too
    #[arg(long)]
    planned: bool,
}

/// Prints the register.
pub(crate) fn run(args: &Args) -> Result<Answer> {
    let shown: Vec<&System> = SYSTEMS.iter().filter(|system| system.here || args.planned).collect();
    let width = |column: fn(&System) -> &str| shown.iter().map(|s| column(s).len()).max().unwrap_or(0);
    let (door, krate) = (width(|s| s.door), width(|s| s.krate));
    let line = |s: &&System| {
        let state = if s.here { "" } else { " (planned)" };
        format!("kc {:door$}  {:krate$}  {}{state}", s.door, s.krate, s.title)
    };
    let object = |s: &&System| {
        json!({
            "system": s.slug, "title": s.title, "paper": s.paper, "crate": s.krate, "module": s.module,
            "door": s.door, "here": s.here,
        })
    };
    let mut answer = Answer::new();
    answer
        .set("systems", shown.iter().map(object).collect::<Vec<Value>>())
        .text(shown.iter().map(line).collect::<Vec<_>>().join("\n"));
    Ok(answer)
}
