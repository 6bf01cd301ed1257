//! The register of verbs. To add a door:
//!
//! 1. `cmd/<door>.rs` with `#[derive(clap::Args)] pub(crate) struct Args` (or a `Subcommand` inside of it) and
//!    `pub(crate) fn run(args: &Args, ctx: &Ctx) -> anyhow::Result<Answer>`. Doc comments are the help text:
//!    each flag says meaning, unit, default and range; `after_help` holds an example that runs.
//! 2. One variant of [`Command`] and one arm of [`run`] below.
//! 3. `tests/it/<slug>.rs`: golden files through the program, its errors and exit codes.
//!
//! A verb loads with [`crate::input`], calls the library, stores with [`crate::output`] (never a partial file)
//! and returns an [`Answer`]: its keys become the lines, the `--json` object and the `--report` file.
//! Wrong usage that clap cannot see is a [`crate::report::Usage`] error (exit code 2); everything else that
//! fails is exit code 1. The global flags (`--threads --seed --isa --json --report -q -v`) are in `ctx`.

mod attention;
mod completions;
mod gp;
mod info;
mod kernel;
mod list;
mod man;
mod mnn;
mod qmc;
mod quant;
mod quantize;
mod smash;
mod snnk;
mod xent;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Ctx;
use crate::report::Answer;

/// What `kc` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print every system: door, crate, paper
    List(list::Args),
    /// Print the processor, its instruction sets, caches and memory
    Info(info::Args),
    Attention(attention::Args),
    /// Short for `kc attention sage`
    #[command(after_help = "Example:\n  kc sage --q q.npy --k k.npy --v v.npy --out o.npy --causal")]
    Sage(Box<attention::sage::Args>),
    /// Short for `kc attention sea`
    #[command(
        after_help = "Example:\n  kc sea --config c.json --params p.safetensors --q q.npy --k k.npy --v v.npy --out o.npy"
    )]
    Sea(attention::sea::SeaArgs),
    /// Short for `kc attention soft`
    #[command(
        after_help = "Example:\n  kc soft --q q.npy --v v.npy --grid 28x28 --ratio 4 --landmark avgpool --out x.npy"
    )]
    Soft(Box<attention::soft::Args>),
    /// Matrix nuclear-norm: score how compressed hidden states are
    Mnn(mnn::Args),
    Kernel(kernel::Args),
    Gp(gp::Args),
    /// Quasi-Monte Carlo: points, measures, cubature
    Qmc(qmc::Args),
    /// Quantised weights and activations
    Quant(quant::Args),
    Quantize(quantize::Args),
    /// Sparse matrices: products over semirings, masks, statistics, the SMASH cost model
    Smash(smash::Args),
    Snnk(snnk::Args),
    Xent(xent::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
    /// Print the manual page, or write the pages of all verbs to a folder
    Man(man::Args),
}

/// Runs the verb.
pub(crate) fn run(command: &Command, ctx: &Ctx) -> Result<Answer> {
    match command {
        Command::List(args) => list::run(args),
        Command::Info(args) => info::run(args),
        Command::Attention(args) => attention::run(args, ctx),
        Command::Sage(args) => attention::sage::run(args),
        Command::Sea(args) => attention::sea::run(args),
        Command::Soft(args) => attention::soft::run(args, ctx),
        Command::Mnn(args) => mnn::run(args, ctx),
        Command::Kernel(args) => kernel::run(args, ctx),
        Command::Gp(args) => gp::run(args, ctx),
        Command::Qmc(args) => qmc::run(args, ctx),
        Command::Quant(args) => quant::run(args, ctx),
        Command::Quantize(args) => quantize::run(args, ctx),
        Command::Smash(args) => smash::run(args, ctx),
        Command::Snnk(args) => snnk::run(args, ctx),
        Command::Xent(args) => xent::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
