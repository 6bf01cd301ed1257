//! `kc attention sage`, `sage-quantize`, `sage-plan`: attention in 4 and 8 bits.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{ArgAction, ValueEnum};
use kc_attention::sage::plan::{plan_by_budget, plan_by_score, plan_by_threshold};
use kc_attention::sage::{
    Granularity, PvMode, QkBits, Sage, SageConfig, quantize_k, quantize_q, sage_attention_varlen,
};
use kc_attention::{AttentionConfig, Metrics, attention, attention_varlen, compare};
use kc_core::{AnyTensor, Element, Error, Tensor, TensorView};
use serde_json::json;

use super::inputs::{Inputs, MaskFile, Packed, Shape};
use crate::report::Answer;
use crate::{input, output};

/// What both verbs that quantise take.
#[derive(Debug, clap::Args)]
struct Options {
    /// Bits of the codes of queries and keys
    #[arg(long, value_enum, value_name = "N", default_value_t = BitsArg::Eight)]
    bits: BitsArg,
    /// Which rows share a scale
    #[arg(long, value_enum, value_name = "HOW", default_value_t = GranArg::PerThread)]
    gran: GranArg,
    /// Number format of weights and values
    #[arg(long, value_enum, value_name = "MODE", default_value_t = PvArg::F16)]
    pv: PvArg,
    /// Take the mean off the keys before quantising
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    smooth_k: bool,
    /// Take the mean of each block off the queries before quantising; auto: for 4 bits only
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = AutoArg::Auto)]
    smooth_q: AutoArg,
    /// Take the mean off the values before quantising
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    smooth_v: bool,
    #[command(flatten)]
    shape: Shape,
    /// Queries of a block, a multiple of --warpq
    #[arg(long, value_name = "N", default_value_t = 128)]
    blkq: usize,
    /// Queries of a warp, a multiple of 8
    #[arg(long, value_name = "N", default_value_t = 32)]
    warpq: usize,
    /// Keys of a block, a multiple of --warpk
    #[arg(long, value_name = "N", default_value_t = 64)]
    blkk: usize,
    /// Keys of a warp, a multiple of 8
    #[arg(long, value_name = "N", default_value_t = 64)]
    warpk: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum BitsArg {
    #[value(name = "8")]
    Eight,
    #[value(name = "4")]
    Four,
}

#[expect(clippy::enum_variant_names, reason = "the names of the paper")]
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum GranArg {
    /// All rows of a head
    #[value(alias = "per_tensor")]
    PerTensor,
    /// A block of rows
    #[value(alias = "per_block")]
    PerBlock,
    /// A warp of rows
    #[value(alias = "per_warp")]
    PerWarp,
    /// Queries of a warp with the same place of 8, keys with the same pair of places
    #[value(alias = "per_thread")]
    PerThread,
    /// Each row its own
    #[value(alias = "per_token")]
    PerToken,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum PvArg {
    /// IEEE half, or at least as exact
    F16,
    /// As they are
    F32,
    /// Weights in 8 bits without sign, values in 8 with
    Int8,
    /// Both in E4M3
    Fp8,
    /// Both in E4M3, with a range of values that half can sum
    #[value(alias = "fp8_f16acc")]
    Fp8F16acc,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum AutoArg {
    Auto,
    True,
    False,
}

impl Options {
    fn config(&self) -> SageConfig {
        SageConfig {
            bits: match self.bits {
                BitsArg::Eight => QkBits::Int8,
                BitsArg::Four => QkBits::Int4,
            },
            granularity: match self.gran {
                GranArg::PerTensor => Granularity::PerTensor,
                GranArg::PerBlock => Granularity::PerBlock,
                GranArg::PerWarp => Granularity::PerWarp,
                GranArg::PerThread => Granularity::PerThread,
                GranArg::PerToken => Granularity::PerToken,
            },
            smooth_k: self.smooth_k,
            smooth_q: match self.smooth_q {
                AutoArg::Auto => None,
                AutoArg::True => Some(true),
                AutoArg::False => Some(false),
            },
            smooth_v: self.smooth_v,
            pv: match self.pv {
                PvArg::F16 => PvMode::F16 { f16_accum: false },
                PvArg::F32 => PvMode::F32,
                PvArg::Int8 => PvMode::Int8,
                PvArg::Fp8 => PvMode::Fp8,
                PvArg::Fp8F16acc => PvMode::Fp8F16Acc,
            },
            scale: self.shape.scale,
            layout: self.shape.layout.into(),
            blkq: self.blkq,
            warpq: self.warpq,
            blkk: self.blkk,
            warpk: self.warpk,
            ..SageConfig::default()
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: Options,
    /// Compare with exact attention: cos, rel_l1 and rmse
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    let config = SageConfig { lse: args.inputs.lse.is_some(), ..args.options.config() };
    let mut answer = Answer::new();
    match args.inputs.offsets()? {
        None => whole(args, &config, &mut answer)?,
        Some(offsets) => packed(args, &config, &offsets, &mut answer)?,
    }
    Ok(answer)
}

fn exact_config(config: &SageConfig) -> AttentionConfig {
    AttentionConfig { scale: config.scale, layout: config.layout, ..AttentionConfig::default() }
}

fn checked(answer: &mut Answer, found: Metrics) {
    answer.set("cos", found.cos).set("rel_l1", found.rel_l1).set("rmse", found.rmse);
}

fn whole(args: &Args, config: &SageConfig, answer: &mut Answer) -> Result<()> {
    let inputs = &args.inputs;
    let [q, k, v] = inputs.whole()?;
    let (q, k, v) = (q.view("q")?, k.view("k")?, v.view("v")?);
    let file = inputs.mask()?;
    let mask = MaskFile::mask(file.as_ref(), inputs.causal);
    let start = Instant::now();
    let packed = Sage::new(q, k, v, &mask, config)?;
    let quantised = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let found = packed.attend()?;
    answer.set("shape", json!(q.shape()));
    answer.set("quantise_seconds", quantised).set("attend_seconds", start.elapsed().as_secs_f64());
    answer.set("packed_bytes", packed.bytes());
    if args.check {
        let exact = attention(q, k, v, &mask, &exact_config(config))?;
        checked(answer, compare(found.out.view(), exact.out.view())?);
    }
    output::tensor(&inputs.out, found.out)?;
    if let (Some(path), Some(lse)) = (&inputs.lse, found.lse) {
        output::tensor(path, lse)?;
    }
    Ok(())
}

fn packed(
    args: &Args,
    config: &SageConfig,
    [cu_q, cu_k]: &[Vec<usize>; 2],
    answer: &mut Answer,
) -> Result<()> {
    let inputs = &args.inputs;
    let files = inputs.packed(config.layout)?;
    let [q, k, v] = files.each_ref().map(Packed::view);
    let start = Instant::now();
    let found = sage_attention_varlen(q, k, v, cu_q, cu_k, inputs.causal, config)?;
    answer.set("shape", json!(q.shape())).set("sequences", cu_q.len() - 1);
    answer.set("attend_seconds", start.elapsed().as_secs_f64());
    if args.check {
        let exact = attention_varlen(q, k, v, cu_q, cu_k, inputs.causal, &exact_config(config))?;
        checked(answer, compare(found.out.view(), exact.out.view())?);
    }
    let [q, ..] = &files;
    q.store(&inputs.out, found.out)?;
    if let (Some(path), Some(lse)) = (&inputs.lse, found.lse) {
        q.store_lse(path, lse)?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(crate) struct QuantizeArgs {
    /// Queries, (batch, heads, tokens, channels)
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Keys, (batch, heads, tokens, channels)
    #[arg(long, value_name = "FILE")]
    k: String,
    #[command(flatten)]
    options: Options,
    /// Folder for the results, made if it is not there
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

pub(crate) fn quantize(args: &QuantizeArgs) -> Result<Answer> {
    let config = args.options.config();
    let (q, k) = (input::f32::<4>("q", &args.q)?, input::f32::<4>("k", &args.k)?);
    let (q, k) = (q.view("q")?, k.view("k")?);
    let start = Instant::now();
    let (q, k) = (quantize_q(q, &config)?, quantize_k(k, &config)?);
    let mut answer = Answer::new();
    answer.set("quantise_seconds", start.elapsed().as_secs_f64());
    answer.set("q_shape", json!(q.codes.shape())).set("k_shape", json!(k.codes.shape()));
    answer.set("q_scales", q.scales.shape()[2]).set("k_scales", k.scales.shape()[2]);
    output::folder(&args.out_dir)?;
    fn store<T: Element, const N: usize>(args: &QuantizeArgs, name: &str, x: Tensor<T, N>) -> Result<()> {
        output::tensor(&args.out_dir.join(name), x)
    }
    store(args, "q_codes.npy", q.codes)?;
    store(args, "q_scale.npy", q.scales)?;
    store(args, "qm.npy", q.mean)?;
    store(args, "k_codes.npy", k.codes)?;
    store(args, "k_scale.npy", k.scales)?;
    let [b, h, _, d] = k.mean.shape();
    store(args, "km.npy", k.mean.reshape([b, h, d])?)?;
    Ok(answer)
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("rule").required(true).args(["eight", "target", "threshold"])))]
pub(crate) struct PlanArgs {
    /// Scores of the 4-bit kernel, cos * (1 - rel_l1), (steps, layers); with --target also (2, steps, layers): those of
    /// the 4-bit kernel, then of the 8-bit kernel. With --threshold cosines, (steps, layers) or (samples, steps, layers)
    #[arg(long, value_name = "FILE")]
    scores: String,
    /// Give 8 bits to the N lowest scores
    #[arg(long, value_name = "N")]
    eight: Option<usize>,
    /// Give 8 bits to as few as needed for a mean score of X; scores of the 8-bit kernel count as 1 unless given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    target: Option<f64>,
    /// Give 8 bits where the worst cosine is below X (0.998 in the first paper)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// File for the plan, uint8
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn plan(args: &PlanArgs) -> Result<Answer> {
    let file = input::any("scores", &args.scores)?;
    let plan = match (args.eight, args.target, args.threshold) {
        (Some(eight), _, _) => plan_by_score(scores::<2>(&file)?.view(), eight)?,
        (_, Some(target), _) => {
            if file.rank() == 3 {
                let both = scores::<3>(&file)?;
                if both.shape()[0] != 2 {
                    return Err(Error::shape("scores", "[2, steps, layers]", &both.shape()).into());
                }
                plan_by_budget(both.view().matrix(0), both.view().matrix(1), target)?
            } else {
                let four = scores::<2>(&file)?;
                let eight = Tensor::from_fn(four.shape(), |_| 1.0)?;
                plan_by_budget(four.view(), eight.view(), target)?
            }
        }
        (_, _, threshold) => {
            let threshold = threshold.unwrap_or(0.998);
            if file.rank() == 2 {
                let one = scores::<2>(&file)?;
                let one: TensorView<'_, f64, 3> = one.view().unsqueezed();
                plan_by_threshold(one, threshold)?
            } else {
                plan_by_threshold(scores::<3>(&file)?.view(), threshold)?
            }
        }
    };
    let layers = plan.shape()[1].max(1);
    let rows: Vec<&[u8]> = plan.as_slice().chunks(layers).collect();
    let eights = plan.as_slice().iter().filter(|bits| **bits == 8).count();
    let mut answer = Answer::new();
    answer.set("plan", json!(rows)).set("eight", eights).text(serde_json::to_string(&rows)?);
    if let Some(path) = &args.out {
        output::tensor(path, plan)?;
    }
    Ok(answer)
}

/// Scores in any floating-point type.
fn scores<const N: usize>(file: &AnyTensor) -> Result<Tensor<f64, N>> {
    Ok(file.to_f64("scores")?)
}
