//! The project's commands: `cargo xtask --help`.
//!
//! This program starts other programs and reads text files; it computes nothing and has no dependencies
//! beyond the four in its manifest.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports on the terminal")]

mod ci;
mod codegen;
mod golden;
mod manifest;
mod register;
mod run;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use xshell::Shell;

mod flags {
    xflags::xflags! {
        /// The project's commands.
        cmd xtask {
            /// Runs unit, integration and doc tests (with nextest when it is installed).
            cmd test {
                /// Only this crate.
                optional -p, --package name: String
                /// "all": once for each instruction set of this processor.
                optional --isa which: String
            }
            /// Runs the experiments: papers' claims beside this machine's figures.
            cmd bench {
                /// Which experiments; all if none is named.
                repeated name: String
                /// Smaller sizes: a few minutes for everything.
                optional --quick
                /// Also time the Python libraries that people use (needs python3).
                optional --peers
                /// Also run the criterion groups.
                optional --criterion
                /// Where the report goes; target/bench if not given.
                optional --out dir: String
            }
            /// Checks what the compiler does not: complete rooms, floors, sizes, unsafe, licences.
            cmd tidy {}
            /// Writes the generated parts of README.md and kc-cli from systems.toml.
            cmd codegen {
                /// Only tell what is stale.
                optional --check
            }
            /// Checks the fixtures against their hashes (needs sha256sum or shasum).
            cmd golden {
                /// Compare (the default).
                optional --verify
                /// Write the hashes anew, after a deliberate change.
                optional --update
            }
            /// Everything that a change must pass.
            cmd ci {}
            /// Packages and verifies all crates in order; a dry run unless told otherwise.
            cmd publish {
                /// Really publish.
                optional --execute
            }
        }
    }
}

fn main() -> ExitCode {
    let flags = flags::Xtask::from_env_or_exit();
    match dispatch(&flags.subcommand) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &flags::XtaskCmd) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    match command {
        flags::XtaskCmd::Test(test) => run::test(&sh, test.package.as_deref(), test.isa.as_deref()),
        flags::XtaskCmd::Bench(bench) => run::bench(&sh, bench),
        flags::XtaskCmd::Tidy(_) => tidy::run(&sh),
        flags::XtaskCmd::Codegen(codegen) => codegen::run(&sh, codegen.check),
        flags::XtaskCmd::Golden(golden) => golden::run(&sh, golden.update),
        flags::XtaskCmd::Ci(_) => ci::run(&sh),
        flags::XtaskCmd::Publish(publish) => run::publish(&sh, publish.execute),
    }
}

/// The repository.
fn root() -> &'static std::path::Path {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
