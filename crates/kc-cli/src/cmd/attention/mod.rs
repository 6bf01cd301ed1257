//! `kc attention`: exact attention and its cheaper forms.

mod cache;
mod compare;
mod exact;
mod inputs;
mod sage;

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
    /// Softmax attention, and its gradients
    #[command(
        after_help = "Examples:\n  kc attention exact --q q.npy --k k.npy --v v.npy --out o.npy --causal\n  \
                            kc attention exact --q q.npy --k k.npy --v v.npy --out o.npy --grad-out do.npy --grad-dir g"
    )]
    Exact(exact::Args),
    /// Attention with queries and keys in 4 or 8 bits
    #[command(
        after_help = "Examples:\n  kc attention sage --q q.npy --k k.npy --v v.npy --out o.npy --causal\n  \
                            kc attention sage --q q.npy --k k.npy --v v.npy --out o.npy --bits 4 --pv int8 --check"
    )]
    Sage(Box<sage::Args>),
    /// Quantise queries and keys: codes, scales and means
    #[command(
        after_help = "Example:\n  kc attention sage-quantize --q q.npy --k k.npy --bits 4 --out-dir codes"
    )]
    SageQuantize(sage::QuantizeArgs),
    /// Choose 4 or 8 bits for each step and layer
    #[command(after_help = "Examples:\n  kc attention sage-plan --scores s.npy --eight 3\n  \
                            kc attention sage-plan --scores s.npy --target 0.95")]
    SagePlan(sage::PlanArgs),
    /// Store keys and values in few bits for decoding, or append to what is stored
    #[command(
        after_help = "Examples:\n  kc attention sage-cache --k k.npy --v v.npy --out c.safetensors\n  \
                            kc attention sage-cache --append c.safetensors --k k1.npy --v v1.npy --out c.safetensors"
    )]
    SageCache(cache::CacheArgs),
    /// Attention of the newest tokens over stored keys and values
    #[command(
        after_help = "Example:\n  kc attention sage-decode --cache c.safetensors --q q.npy --out o.npy --causal"
    )]
    SageDecode(cache::DecodeArgs),
    /// Print how far one result is from another: cosine, relative L1 difference, root mean square
    #[command(after_help = "Example:\n  kc attention compare --a out.npy --b exact.npy")]
    Compare(compare::Args),
}

/// Runs the verb.
pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Exact(args) => exact::run(args),
        Verb::Sage(args) => sage::run(args),
        Verb::SageQuantize(args) => sage::quantize(args),
        Verb::SagePlan(args) => sage::plan(args),
        Verb::SageCache(args) => cache::store(args),
        Verb::SageDecode(args) => cache::decode(args),
        Verb::Compare(args) => compare::run(args),
    }
}
