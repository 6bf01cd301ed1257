//! `kc quant`: the systems of quantised products, one verb each.

mod convert;
mod crossquant;
mod inspect;

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
    Inspect(inspect::Args),
    Convert(convert::Args),
    /// Activations whose step blends token and channel maxima, and the quantisation-kernel report
    Crossquant(crossquant::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.system {
        System::Inspect(args) => inspect::run(args),
        System::Convert(args) => convert::run(args, ctx),
        System::Crossquant(args) => crossquant::run(args, ctx),
    }
}
