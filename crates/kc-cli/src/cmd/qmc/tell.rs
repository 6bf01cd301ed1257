//! `kc qmc tell`: the values at the points that `kc qmc ask` wrote.

use std::path::PathBuf;

use anyhow::Result;
use kc_core::{AnyTensor, Error};
use serde_json::json;

use super::dialogue::{Dialogue, store};
use crate::args::Ctx;
use crate::input;
use crate::report::Answer;

/// Give the values at the points of `kc qmc ask`, and update the state
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc qmc tell --state s.bin --values y.npy")]
pub(crate) struct Args {
    /// State that `kc qmc ask` wrote
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Values, (n,) or (outputs, n), real numbers
    #[arg(long, value_name = "FILE")]
    values: String,
}

pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    let (mut dialogue, bytes) = Dialogue::open(&args.state)?;
    let text = dialogue.text();
    let values = flat(&input::any("--values", &args.values)?)?;
    let mut run = dialogue.run(Some(&bytes), &args.state)?;
    run.tell(&values)?;
    store(&args.state, &text, &run)?;
    let mut answer = Answer::new();
    answer.set("values", values.len()).set("n_total", json!(run.estimate().n_total));
    Ok(answer)
}

/// The values in row-major order.
fn flat(tensor: &AnyTensor) -> Result<Vec<f64>> {
    let name = "--values";
    match tensor.shape().len() {
        1 => Ok(tensor.to_f64::<1>(name)?.as_slice().to_vec()),
        2 => Ok(tensor.to_f64::<2>(name)?.as_slice().to_vec()),
        _ => Err(Error::shape(name, "(n,) or (outputs, n)", tensor.shape()).into()),
    }
}
