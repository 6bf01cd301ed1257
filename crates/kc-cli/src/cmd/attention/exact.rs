//! `kc attention exact`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use kc_attention::{
    AttentionConfig, attention, attention_backward, attention_varlen, attention_varlen_backward,
};
use serde_json::json;

use super::inputs::{Inputs, MaskFile, Packed, Shape};
use crate::report::Answer;
use crate::{input, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    shape: Shape,
    /// Gradient of the output, of its shape: differentiate too
    #[arg(long, value_name = "FILE", requires = "grad_dir")]
    grad_out: Option<String>,
    /// Folder for dq.npy, dk.npy and dv.npy (float32)
    #[arg(long, value_name = "DIR", requires = "grad_out")]
    grad_dir: Option<PathBuf>,
}

impl Args {
    fn config(&self) -> AttentionConfig {
        AttentionConfig {
            scale: self.shape.scale,
            layout: self.shape.layout.into(),
            lse: self.inputs.lse.is_some() || self.grad_out.is_some(),
            ..AttentionConfig::default()
        }
    }
}

/// The files of the gradients.
const GRADS: [&str; 3] = ["dq.npy", "dk.npy", "dv.npy"];

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match args.inputs.offsets()? {
        Some(offsets) => packed(args, &offsets),
        None => whole(args),
    }
}

fn whole(args: &Args) -> Result<Answer> {
    let inputs = &args.inputs;
    let [q, k, v] = inputs.whole()?;
    let (q, k, v) = (q.view("q")?, k.view("k")?, v.view("v")?);
    let file = inputs.mask()?;
    let (mask, config) = (MaskFile::mask(file.as_ref(), inputs.causal), args.config());
    let start = Instant::now();
    let found = attention(q, k, v, &mask, &config)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("attend_seconds", start.elapsed().as_secs_f64());
    if let (Some(file), Some(dir), Some(lse)) = (&args.grad_out, &args.grad_dir, &found.lse) {
        let d_o = input::f32::<4>("grad_out", file)?;
        let d_o = d_o.view("grad_out")?;
        let start = Instant::now();
        let all = attention_backward(q, k, v, found.out.view(), lse.view(), d_o, &mask, &config)?;
        answer.set("backward_seconds", start.elapsed().as_secs_f64());
        output::folder(dir)?;
        for (name, grad) in GRADS.into_iter().zip([all.dq, all.dk, all.dv]) {
            output::tensor(&dir.join(name), grad)?;
        }
    }
    output::tensor(&inputs.out, found.out)?;
    if let (Some(path), Some(lse)) = (&inputs.lse, found.lse) {
        output::tensor(path, lse)?;
    }
    Ok(answer)
}

fn packed(args: &Args, [cu_q, cu_k]: &[Vec<usize>; 2]) -> Result<Answer> {
    let (inputs, config) = (&args.inputs, args.config());
    let files = inputs.packed(config.layout)?;
    let [q, k, v] = files.each_ref().map(Packed::view);
    let start = Instant::now();
    let found = attention_varlen(q, k, v, cu_q, cu_k, inputs.causal, &config)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("sequences", cu_q.len() - 1);
    answer.set("attend_seconds", start.elapsed().as_secs_f64());
    if let (Some(file), Some(dir)) = (&args.grad_out, &args.grad_dir) {
        let d_o = Packed::read("grad_out", file, config.layout)?;
        let start = Instant::now();
        let offsets = [&cu_q[..], cu_k];
        let all = attention_varlen_backward(q, k, v, &found, d_o.view(), offsets, inputs.causal, &config)?;
        answer.set("backward_seconds", start.elapsed().as_secs_f64());
        output::folder(dir)?;
        for ((name, file), grad) in GRADS.into_iter().zip(&files).zip(all) {
            file.store(&dir.join(name), grad)?;
        }
    }
    let [q, ..] = &files;
    q.store(&inputs.out, found.out)?;
    if let (Some(path), Some(lse)) = (&inputs.lse, found.lse) {
        q.store_lse(path, lse)?;
    }
    Ok(answer)
}
