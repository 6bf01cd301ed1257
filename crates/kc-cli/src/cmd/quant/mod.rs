//! `kc quant`: the systems of quantised products, one verb each.

mod crossquant;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Ctx;
use crate::report::Answer;

/// Quantised weights and activations.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Debug, Subcommand)]
enum System {
    /// Activations whose step blends token and channel maxima, and the quantisation-kernel report
    Crossquant(crossquant::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.system {
        System::Crossquant(args) => crossquant::run(args, ctx),
    }
}
