//! `kc attention`: exact attention and its cheaper forms.

mod compare;

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
}

/// Runs the verb.
pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Compare(args) => compare::run(args),
    }
}
