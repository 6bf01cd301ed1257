//! The flags that every verb shares, and what they set up.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use kc_core::{Isa, Level};
use kc_qmc::Seed;

use crate::cmd::Command;
use crate::report::Usage;

/// Kernel compute: fast, exact kernels on .npy, .npz, .safetensors, .mtx, .csv and .fasta files.
#[derive(Debug, Parser)]
#[command(
    name = "kc",
    version,
    subcommand_precedence_over_arg = true,
    max_term_width = 110,
    after_help = "Files are told apart by extension; FILE.safetensors:NAME and FILE.npz:KEY name one tensor.\n\
                  Exit codes: 0 done, 1 the job failed, 2 wrong usage.\n\n\
                  Examples:\n  kc list\n  kc info --json\n  kc smash gen --kind rmat --scale 10 --out a.npz\n  \
                  kc smash multiply --a a.npz --b a.npz --out c.npz"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Threads to use; 0 means all that the machine has. Results do not depend on it
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of everything random: an integer from 0 (beyond 2^64 - 1 for the qmc verbs only), or `random`
    #[arg(long, global = true, value_name = "N", default_value = "0", value_parser = seed)]
    pub(crate) seed: Seed,
    /// Highest instruction set to use: auto (the best there is), portable, avx2, avx512, avx512icl, avx512spr
    /// [default: auto]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) isa: Option<String>,
    /// Give the result as one JSON object: on standard output, or in FILE
    #[arg(long, global = true, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
    /// Write timings, memory, settings, versions and the result as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say what is done and how long it takes, on standard error
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Show no progress bar (there is none anyway unless standard error is a terminal)
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

fn seed(text: &str) -> kc_core::Result<Seed> {
    if text == "random" { Ok(Seed::from_entropy()) } else { text.parse() }
}

/// What a verb may ask of the program.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) global: Global,
}

impl Ctx {
    /// Sets up threads and level for the process. Errors are wrong usage.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        if let Some(name) = global.isa.as_ref().filter(|name| *name != "auto") {
            let names = || Level::ALL.map(Level::name).join(", ");
            let level = Level::from_name(name)
                .with_context(|| format!("--isa: expected one of {}, got {name}", names()))?;
            let Some(isa) = Isa::detect(level) else {
                bail!("--isa: this processor has no {name} (its best is {})", Isa::best());
            };
            Isa::set_best(isa);
        }
        if let Some(threads) = NonZeroUsize::new(global.threads) {
            const MOST: usize = 4096;
            if threads.get() > MOST {
                bail!("--threads: expected at most {MOST}, got {threads}");
            }
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build_global()
                .context("--threads: cannot start the threads")?;
        }
        Ok(Self { global: global.clone() })
    }

    /// The seed that the user gave, for systems that take 64 bits.
    pub(crate) fn seed(&self) -> Result<u64> {
        let seed = &self.global.seed;
        seed.as_u64().ok_or_else(|| {
            Usage(format!("--seed: expected 0 to 2^64 - 1 for this verb, got {}", seed.name())).into()
        })
    }

    /// The seed that the user gave, of any size.
    pub(crate) fn big_seed(&self) -> Seed {
        self.global.seed.clone()
    }

    /// A message for `--verbose`.
    pub(crate) fn say(&self, message: impl std::fmt::Display) {
        if self.global.verbose {
            crate::report::message(message);
        }
    }

    /// A warning, on standard error unless `--quiet`.
    pub(crate) fn warn(&self, message: impl std::fmt::Display) {
        if !self.global.quiet {
            crate::report::message(format_args!("warning: {message}"));
        }
    }
}
