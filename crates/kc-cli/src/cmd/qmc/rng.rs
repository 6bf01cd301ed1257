//! `kc qmc rng`: numbers of NumPy's SFC64 generator.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use kc_core::Error;
use serde_json::{Value, json};

use crate::args::Ctx;
use crate::report::Answer;

/// Draw from NumPy's `Generator(SFC64(SeedSequence(seed)))`, bit for bit
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc qmc rng --seed 7 --draw below:10 --n 5 --json")]
pub(crate) struct Args {
    /// What to draw: raw (64-bit integers), uniform (in [0, 1)), below:K (integers under K, 1 to 2^64) or perm:K
    /// (permutations of 0..K, up to 2^24)
    #[arg(long, value_name = "KIND")]
    draw: Draw,
    /// How many, up to 2^24 values in all
    #[arg(long, value_name = "N", default_value_t = 1)]
    n: usize,
    /// File for the JSON object {"seed", "draw", "values"}; 64-bit integers are strings
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Draw {
    Raw,
    Uniform,
    Below(u128),
    Permutation(usize),
}

const MOST: usize = 1 << 24;

impl FromStr for Draw {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::argument("draw", "raw, uniform, below:K or perm:K", text);
        match text.split_once(':') {
            None if text == "raw" => Ok(Draw::Raw),
            None if text == "uniform" => Ok(Draw::Uniform),
            Some(("below", k)) => match k.parse() {
                Ok(k) if (1..=1 << 64).contains(&k) => Ok(Draw::Below(k)),
                _ => Err(refused()),
            },
            Some(("perm", k)) => match k.parse() {
                Ok(k) if (1..=MOST).contains(&k) => Ok(Draw::Permutation(k)),
                _ => Err(refused()),
            },
            _ => Err(refused()),
        }
    }
}

impl std::fmt::Display for Draw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Draw::Raw => f.write_str("raw"),
            Draw::Uniform => f.write_str("uniform"),
            Draw::Below(k) => write!(f, "below:{k}"),
            Draw::Permutation(k) => write!(f, "perm:{k}"),
        }
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let size = if let Draw::Permutation(k) = args.draw { k } else { 1 };
    let total = args.n.saturating_mul(size);
    if total > MOST {
        return Err(Error::too_large("n", total as u64, MOST as u64, "values").into());
    }
    let seed = ctx.big_seed();
    let mut rng = seed.rng();
    let values: Vec<Value> = (0..args.n)
        .map(|_| match args.draw {
            Draw::Raw => json!(rng.next_u64().to_string()),
            Draw::Uniform => json!(rng.uniform()),
            Draw::Below(k) => json!(rng.below(k).to_string()),
            Draw::Permutation(k) => json!(rng.permutation(k)),
        })
        .collect();
    let mut answer = Answer::new();
    answer.set("seed", seed.name()).set("draw", args.draw.to_string()).set("values", values);
    answer.also_to(args.out.as_deref());
    Ok(answer)
}
