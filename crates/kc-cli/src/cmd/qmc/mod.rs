//! `kc qmc`: quasi-Monte Carlo, one file per verb.

mod evaluate;
pub(crate) mod integrands;
mod measures;
pub(crate) mod named;
mod rng;
mod transform;

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
    Evaluate(evaluate::Args),
    Rng(rng::Args),
    Transform(transform::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Evaluate(args) => evaluate::run(args, ctx),
        Verb::Rng(args) => rng::run(args, ctx),
        Verb::Transform(args) => transform::run(args, ctx),
    }
}
