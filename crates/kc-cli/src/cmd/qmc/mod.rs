//! `kc qmc`: quasi-Monte Carlo, one file per verb.

mod ask;
mod dialogue;
mod integrate;
mod problems;
mod program;
mod rng;
mod settings;
mod tell;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Ctx;
use crate::report::Answer;

/// Quasi-Monte Carlo: points, measures, cubature.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Ask(ask::Args),
    Integrate(Box<integrate::Args>),
    Rng(rng::Args),
    Tell(tell::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Ask(args) => ask::run(args, ctx),
        Verb::Integrate(args) => integrate::run(args, ctx),
        Verb::Rng(args) => rng::run(args, ctx),
        Verb::Tell(args) => tell::run(args, ctx),
    }
}
