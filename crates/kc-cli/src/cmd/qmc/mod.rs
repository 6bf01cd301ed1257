//! `kc qmc`: quasi-Monte Carlo, one file per verb.

mod ask;
mod dialogue;
mod discrepancy;
mod evaluate;
pub(crate) mod integrands;
mod integrate;
mod measures;
pub(crate) mod named;
mod points;
mod problems;
mod program;
mod rng;
mod settings;
mod table;
mod tell;
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
    Points(points::Args),
    Discrepancy(discrepancy::Args),
    Table(table::Args),
    Ask(ask::Args),
    Integrate(Box<integrate::Args>),
    Rng(rng::Args),
    Tell(tell::Args),
    Evaluate(evaluate::Args),
    Transform(transform::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Points(args) => points::run(args, ctx),
        Verb::Discrepancy(args) => discrepancy::run(args, ctx),
        Verb::Table(args) => table::run(args, ctx),
        Verb::Ask(args) => ask::run(args, ctx),
        Verb::Integrate(args) => integrate::run(args, ctx),
        Verb::Rng(args) => rng::run(args, ctx),
        Verb::Tell(args) => tell::run(args, ctx),
        Verb::Evaluate(args) => evaluate::run(args, ctx),
        Verb::Transform(args) => transform::run(args, ctx),
    }
}
