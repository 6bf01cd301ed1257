//! `kc qmc`: quasi-Monte Carlo, one file per verb.

mod discrepancy;
mod points;
mod rng;
mod table;

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
    Rng(rng::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Points(args) => points::run(args, ctx),
        Verb::Discrepancy(args) => discrepancy::run(args, ctx),
        Verb::Table(args) => table::run(args, ctx),
        Verb::Rng(args) => rng::run(args, ctx),
    }
}
