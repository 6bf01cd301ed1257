//! `kc quant`: the systems of quantised products, one verb each.

mod crossquant;
mod fireq;
mod fp8;

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
    /// INT4 weights, FP8 activations, a four-bit key/value cache, scalings around rotary positions
    Fireq(fireq::Args),
    /// Eight-bit floating point, E4M3: encode and decode
    Fp8(fp8::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.system {
        System::Crossquant(args) => crossquant::run(args, ctx),
        System::Fireq(args) => fireq::run(args),
        System::Fp8(args) => fp8::run(args, ctx),
    }
}
