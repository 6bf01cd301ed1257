//! `kc man`

use std::path::PathBuf;

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::output;
use crate::report::Answer;

/// Flags of `kc man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc man > kc.1")]
pub(crate) struct Args {
    /// Write kc.1 and one page per verb (kc-smash-multiply.1, ...) into this folder instead
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

/// Prints the page of the program, or writes all pages.
pub(crate) fn run(args: &Args) -> Result<Answer> {
    let mut program = Cli::command();
    program.build();
    let mut answer = Answer::new();
    let Some(dir) = &args.out_dir else {
        let page = page(program)?;
        answer.set("page", page.as_str()).text(page.trim_end());
        return Ok(answer);
    };
    output::folder(dir)?;
    let mut written = Vec::new();
    write_all(program, "kc", dir, &mut written)?;
    answer.set("written", written);
    Ok(answer)
}

fn write_all(command: Command, name: &str, dir: &std::path::Path, written: &mut Vec<String>) -> Result<()> {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        write_all(verb.clone(), &format!("{name}-{}", verb.get_name()), dir, written)?;
    }
    let file = format!("{name}.1");
    let text = page(command.name(name.to_owned()))?;
    kc_io::atomic::write(dir.join(&file), |out| {
        out.write_all(text.as_bytes()).map_err(|error| kc_core::Error::io(dir.join(&file), &error))
    })?;
    written.push(file);
    Ok(())
}

fn page(command: Command) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}
