//! `kc attention`: exact attention and its cheaper forms.

mod cache;
mod compare;
mod exact;
mod inputs;
pub(crate) mod sage;
pub(crate) mod sea;
pub(crate) mod soft;

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
    /// Attend without softmax, through landmarks of a Gaussian kernel: linear in the number of tokens
    #[command(
        after_help = "Examples:\n  kc attention soft --q q.npy --v v.npy --grid 28x28 --ratio 4 \\\n    \
                      --landmark conv --conv-w w.npy --ln-g g.npy --ln-b b.npy --out x.npy\n  \
                      kc attention soft --q q.npy --v v.npy --grid 28x28 --ratio 4 --landmark avgpool \\\n    \
                      --dx dx.npy --grad-dir grads --out x.npy --report r.json"
    )]
    Soft(Box<soft::Args>),
    /// Attend through the whole Gaussian kernel, which soft approximates: quadratic in the number of tokens
    #[command(after_help = "Example:\n  kc attention soft-exact --q q.npy --v v.npy --out x.npy")]
    SoftExact(soft::ExactArgs),
    /// Invert kernel matrices by Newton's iteration, step for step as soft does, or otherwise
    #[command(after_help = "Example:\n  kc attention newton-inverse --a a.npy --iters 20 --out y.npy")]
    NewtonInverse(soft::InvertArgs),
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
        Verb::Exact(args) => exact::run(args),
        Verb::Sage(args) => sage::run(args),
        Verb::SageQuantize(args) => sage::quantize(args),
        Verb::SagePlan(args) => sage::plan(args),
        Verb::SageCache(args) => cache::store(args),
        Verb::SageDecode(args) => cache::decode(args),
        Verb::Compare(args) => compare::run(args),
        Verb::Soft(args) => soft::run(args, ctx),
        Verb::SoftExact(args) => soft::run_exact(args),
        Verb::NewtonInverse(args) => soft::run_inverse(args),
        Verb::Sea(args) => sea::run(args),
        Verb::SeaInit(args) => sea::run_init(args, ctx),
        Verb::SeaDistill(args) => sea::run_distill(args, ctx),
        Verb::Sparse(args) => sea::run_sparse(args),
    }
}
