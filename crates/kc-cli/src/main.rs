//! The program `kc`: one door per system, over files.
//!
//! Every verb is a thin shell over a library call: parse, load, call, store. No mathematics lives here.

#![forbid(unsafe_code)]

mod args;
mod cmd;
mod input;
mod output;
mod report;
mod systems;
mod weights;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; everything else is wrong usage.
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    let ctx = match args::Ctx::new(&cli.global) {
        Ok(ctx) => ctx,
        Err(usage) => {
            report::print_error(&usage);
            return ExitCode::from(2);
        }
    };
    match report::run(&ctx, || cmd::run(&cli.command, &ctx)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::print_error(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}
