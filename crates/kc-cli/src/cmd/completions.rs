//! `kc completions`

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::report::Answer;

/// Flags of `kc completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc completions bash > kc.bash")]
pub(crate) struct Args {
    /// The shell: bash, elvish, fish, powershell or zsh
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Args) -> Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kc", &mut script);
    let script = String::from_utf8(script)?;
    let mut answer = Answer::new();
    answer.set("shell", args.shell.to_string()).set("script", script.as_str()).text(script.trim_end());
    Ok(answer)
}
