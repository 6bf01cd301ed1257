//! `kc attention exact`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use kc_attention::{
    AttentionConfig, attention, attention_backward, attention_varlen, attention_varlen_backward,
};
use kc_core::{Element, Tensor};
use serde_json::json;

use super::inputs::{LayoutArg, MaskFile, offsets};
use crate::report::{Answer, Usage};
use crate::{input, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Queries, (batch, heads, tokens, channels), or (tokens, heads, channels) with --cu-q
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Keys: batch and channels as the queries, a number of heads that divides theirs
    #[arg(long, value_name = "FILE")]
    k: String,
    /// Values, of the shape of the keys
    #[arg(long, value_name = "FILE")]
    v: String,
    /// File for the output, float32, of the shape of the queries
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for ln sum exp of each query's scores, float32, (batch, heads, tokens)
    #[arg(long, value_name = "FILE")]
    lse: Option<PathBuf>,
    /// Query i sees keys up to i + keys - queries
    #[arg(long)]
    causal: bool,
    /// Keys that are seen (bool or uint8, not 0), or what is added to the scores (floating point); up to 4 axes, which
    /// broadcast to (batch, heads, queries, keys)
    #[arg(long, value_name = "FILE")]
    mask: Option<String>,
    /// Factor of the scores [default: 1 / sqrt(channels)]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    scale: Option<f32>,
    /// The order of the axes
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = LayoutArg::Hnd)]
    layout: LayoutArg,
    /// Where each sequence's queries begin, and the end: integers from 0 to the number of tokens
    #[arg(long, value_name = "FILE")]
    cu_q: Option<String>,
    /// The same for keys
    #[arg(long, value_name = "FILE")]
    cu_k: Option<String>,
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
            scale: self.scale,
            layout: self.layout.into(),
            lse: self.lse.is_some() || self.grad_out.is_some(),
            ..AttentionConfig::default()
        }
    }

    /// Stores the gradients, if they were asked for.
    fn store<T: Element, const N: usize>(&self, grads: Option<[Tensor<T, N>; 3]>) -> Result<()> {
        let (Some(dir), Some(grads)) = (&self.grad_dir, grads) else { return Ok(()) };
        output::folder(dir)?;
        for (name, grad) in ["dq.npy", "dk.npy", "dv.npy"].into_iter().zip(grads) {
            output::tensor(&dir.join(name), grad)?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match offsets(args.cu_q.as_deref(), args.cu_k.as_deref())? {
        Some(offsets) => packed(args, &offsets),
        None => whole(args),
    }
}

fn whole(args: &Args) -> Result<Answer> {
    let [q, k, v] = [("q", &args.q), ("k", &args.k), ("v", &args.v)].map(|(n, f)| input::f32::<4>(n, f));
    let (q, k, v) = (q?, k?, v?);
    let (q, k, v) = (q.view("q")?, k.view("k")?, v.view("v")?);
    let file = args.mask.as_deref().map(MaskFile::read).transpose()?;
    let (mask, config) = (MaskFile::mask(file.as_ref(), args.causal), args.config());
    let start = Instant::now();
    let found = attention(q, k, v, &mask, &config)?;
    let forward = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("attend_seconds", forward);
    let mut grads = None;
    if let (Some(file), Some(lse)) = (&args.grad_out, &found.lse) {
        let d_o = input::f32::<4>("grad_out", file)?;
        let d_o = d_o.view("grad_out")?;
        let start = Instant::now();
        let all = attention_backward(q, k, v, found.out.view(), lse.view(), d_o, &mask, &config)?;
        answer.set("backward_seconds", start.elapsed().as_secs_f64());
        grads = Some([all.dq, all.dk, all.dv]);
    }
    output::tensor(&args.out, found.out)?;
    if let (Some(path), Some(lse)) = (&args.lse, found.lse) {
        output::tensor(path, lse)?;
    }
    args.store(grads)?;
    Ok(answer)
}

fn packed(args: &Args, [cu_q, cu_k]: &[Vec<usize>; 2]) -> Result<Answer> {
    if args.mask.is_some() {
        return Err(Usage("--mask: not with --cu-q; sequences are whole or causal".into()).into());
    }
    let [q, k, v] = [("q", &args.q), ("k", &args.k), ("v", &args.v)].map(|(n, f)| input::f32::<3>(n, f));
    let (q, k, v) = (q?, k?, v?);
    let (q, k, v) = (q.view("q")?, k.view("k")?, v.view("v")?);
    let config = args.config();
    let start = Instant::now();
    let found = attention_varlen(q, k, v, cu_q, cu_k, args.causal, &config)?;
    let forward = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("sequences", cu_q.len() - 1).set("attend_seconds", forward);
    let mut grads = None;
    if let (Some(file), Some(_)) = (&args.grad_out, &found.lse) {
        let d_o = input::f32::<3>("grad_out", file)?;
        let d_o = d_o.view("grad_out")?;
        let start = Instant::now();
        let all = attention_varlen_backward(q, k, v, &found, d_o, [cu_q, cu_k], args.causal, &config)?;
        answer.set("backward_seconds", start.elapsed().as_secs_f64());
        grads = Some(all);
    }
    output::tensor(&args.out, found.out)?;
    if let (Some(path), Some(lse)) = (&args.lse, found.lse) {
        output::tensor(path, lse)?;
    }
    args.store(grads)?;
    Ok(answer)
}
