//! `kc attention`: exact attention and its cheaper forms.

mod compare;
mod sea;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Ctx;
use crate::report::Answer;

/// Attention: exact, in 4 and 8 bits, sparse by estimate, softmax-free
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print how far one result is from another: cosine, relative L1 difference, root mean square
    #[command(after_help = "Example:\n  kc attention compare --a out.npy --b exact.npy")]
    Compare(compare::Args),
    /// Run a layer of sparse linear attention with an estimated mask (SEA)
    #[command(after_help = sea::with_settings(
        "Examples:\n  kc attention sea --config c.json --params p.safetensors --q q.npy --k k.npy --v v.npy --out o.npy\n  \
         kc attention sea --config c.json --params p.safetensors --q q.npy --k k.npy --v v.npy --out o.npy --dump-dir d \
         --teacher-scores z.npy --teacher-context y.npy --grad dy.npy --grad-dir g"
    ))]
    Sea(sea::SeaArgs),
    /// Write fresh parameters of a SEA layer
    #[command(after_help = sea::with_settings(
        "Example:\n  kc attention sea-init --config c.json --seed 1 --out p.safetensors"
    ))]
    SeaInit(sea::InitArgs),
    /// Train a SEA layer on a teacher's scores (Adam)
    #[command(after_help = sea::with_settings(
        "Example:\n  kc attention sea-distill --config c.json --q q.npy --k k.npy --v v.npy --scores z.npy --steps 300 \
         --lr 3e-3 --out p.safetensors"
    ))]
    SeaDistill(sea::DistillArgs),
    /// Exact attention on the entries of a sparse mask
    #[command(
        after_help = "Example:\n  kc attention sparse --q q.npy --k k.npy --v v.npy --crow crow.npy --cols cols.npy \
                            --out o.npy"
    )]
    Sparse(sea::SparseArgs),
}

/// Runs the verb.
pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Compare(args) => compare::run(args),
        Verb::Sea(args) => sea::run(args),
        Verb::SeaInit(args) => sea::run_init(args, ctx),
        Verb::SeaDistill(args) => sea::run_distill(args, ctx),
        Verb::Sparse(args) => sea::run_sparse(args),
    }
}
