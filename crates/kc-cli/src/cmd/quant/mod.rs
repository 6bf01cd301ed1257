//! `kc quant`: the systems of quantised products, one verb each.

mod convert;
mod crossquant;
mod fireq;
mod flexq;
mod fp8;
mod inspect;
mod lut_gemm;
mod matmul;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Ctx;
use crate::report::Answer;
use lut_gemm::{bcq, lut};

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
    Matmul(matmul::Args),
    Flexq(flexq::Args),
    /// Weights of 1 to 8 bits as sums of scaled sign matrices
    Bcq(bcq::Args),
    /// Activations whose step blends token and channel maxima, and the quantisation-kernel report
    Crossquant(crossquant::Args),
    /// Products with such weights by look-up of tabulated sums
    Lut(lut::Args),
    /// INT4 weights, FP8 activations, a four-bit key/value cache, scalings around rotary positions
    Fireq(fireq::Args),
    /// Eight-bit floating point, E4M3: encode and decode
    Fp8(fp8::Args),
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.system {
        System::Inspect(args) => inspect::run(args),
        System::Convert(args) => convert::run(args, ctx),
        System::Matmul(args) => matmul::run(args),
        System::Flexq(args) => flexq::run(args),
        System::Bcq(args) => bcq::run(args),
        System::Crossquant(args) => crossquant::run(args, ctx),
        System::Lut(args) => lut::run(args),
        System::Fireq(args) => fireq::run(args),
        System::Fp8(args) => fp8::run(args, ctx),
    }
}
