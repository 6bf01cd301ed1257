//! `kc qmc ask`: the next points of a cubature whose values come from somewhere else.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::dialogue::{Dialogue, split, store};
use super::integrate::read_state;
use super::settings::answer;
use crate::args::Ctx;
use crate::output;
use crate::report::Answer;

/// Exit code that means: evaluate the points, tell, and ask again.
const MORE: u8 = 10;

/// Write the next points of a cubature, or its result: for integrands in any language
///
/// The settings are a JSON object with the names of the flags of `kc qmc integrate`: algo and dim, and as wanted seed,
/// outputs, abs_tol, rel_tol, rmse_tol, error, n_init, n_limit, alpha, inflate, replications, sampler, ptransform,
/// order, errbd, check_cone, threshold, failure.
///
/// Exit code 10: the points are in --points, shape (n, dim), and their values are wanted by `kc qmc tell`. Exit code 0:
/// the cubature is done and this is its result. Asking twice gives the same points. If the state file is not there, a
/// new cubature begins; other tolerances in the settings go on with the same one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example (a loop that any shell runs):\n  \
                  echo '{\"algo\": \"net-g\", \"dim\": 2, \"seed\": 7, \"abs_tol\": 1e-4}' > c.json\n  \
                  while kc qmc ask --config c.json --state s.bin --points x.npy --out r.json; [ $? = 10 ]; do\n    \
                  python3 -c \"import numpy as np; np.save('y.npy', np.load('x.npy').prod(1))\"\n    \
                  kc qmc tell --state s.bin --values y.npy\n  done")]
pub(crate) struct Args {
    /// Settings (JSON)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// State of the cubature, made if it is not there
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// File for the points, (n, dim) float64
    #[arg(long, value_name = "FILE")]
    points: PathBuf,
    /// File for the result, once it is there (JSON)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let source = args.config.display().to_string();
    let mut dialogue = Dialogue::new(&kc_io::json::read(&args.config)?, &source)?;
    let state = match args.state.exists() {
        true => Some(split(&read_state(&args.state)?, &args.state)?.1),
        false => None,
    };
    let (text, settings) = (dialogue.text(), dialogue.settings.clone());
    let mut run = dialogue.run(state.as_deref(), &args.state)?;
    let Some(batch) = run.ask()? else {
        let estimate = run.estimate();
        settings.warn(&estimate, ctx);
        store(&args.state, &text, &run)?;
        let mut answer = answer(&estimate, &[estimate.solution.len()]);
        answer.also_to(args.out.as_deref());
        return Ok(answer);
    };
    let mut answer = Answer::new();
    answer.set("level", batch.level).set("points", json!(batch.points.shape())).set("active", batch.active);
    answer.exit_with(MORE);
    output::tensor(&args.points, batch.points)?;
    store(&args.state, &text, &run)?;
    Ok(answer)
}
