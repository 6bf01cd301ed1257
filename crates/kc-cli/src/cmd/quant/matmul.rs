//! `kc quant matmul`: activations times weights of any format, straight from their codes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use kc_core::Tensor;
use kc_quant::linear::{Activations, Scratch};
use kc_quant::lut_gemm::LutMode;
use serde_json::json;

use crate::report::{Answer, Usage};
use crate::weights::{SourceArgs, WeightFile};
use crate::{input, output};

/// Multiply: Y = X W^T + bias with W from a file of any format, as it is stored: nothing is quantised again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kc quant matmul --x x.npy --in model.gguf --tensor blk.0.attn_q.weight --out y.npy\n  \
                  kc quant matmul --x x.npy --in gptq.safetensors --tensor model.layers.0.mlp.up_proj --a8 --out y.npy\n  \
                  kc quant matmul --x x.npy --b b.npy --scales s.npy --zp z.npy --k 4096 --out y.npy"
)]
pub(crate) struct Args {
    /// Activations, (tokens, columns of W), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Tensor to multiply with; of a quantised layer what stands before .qweight or .weight_packed
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Quantise activations to 8 bits, in the groups of the weights, and multiply integers
    #[arg(long, conflicts_with = "abits")]
    a8: bool,
    /// Quantise activations to so many bits, 1 to 8 [default: float32 activations]
    #[arg(long, value_name = "N")]
    abits: Option<u8>,
    /// Tables of binary codes: exact, or of 16 or 8 bits
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::F32)]
    mode: Mode,
    /// Bias, (rows of W,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// File for Y, (tokens, rows of W) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    F32,
    I16,
    I8,
}

impl From<Mode> for LutMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::F32 => LutMode::F32,
            Mode::I16 => LutMode::I16,
            Mode::I8 => LutMode::I8,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    let x = input::f32::<2>("--x", &args.x)?;
    let bias = args.bias.as_ref().map(|b| input::f32_vector("--bias", b)).transpose()?;
    let activations = match args.abits.or(args.a8.then_some(8)) {
        None => Activations::F32,
        Some(bits) if (1..=8).contains(&bits) => Activations::Bits(bits),
        Some(bits) => return Err(Usage(format!("--abits: expected 1 to 8, got {bits}")).into()),
    };
    let (name, stored) = WeightFile::open(&args.source)?.get(args.tensor.as_deref())?;
    let facts = stored.facts()?;
    let layer = stored.linear(bias.as_deref(), activations, args.mode.into())?;
    let x = x.view("--x")?;
    let mut y = Tensor::zeros([x.rows(), layer.shape()[0]])?;
    let start = Instant::now();
    layer.forward_into(x, y.view_mut(), &mut Scratch::new())?;
    let seconds = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("tensor", name).set("format", facts.format).set("shape", json!(y.shape()));
    answer.set("bits", facts.bits).set("group", facts.group);
    answer.set(
        "activations",
        match activations {
            Activations::F32 => json!("f32"),
            Activations::Bits(bits) => json!(bits),
        },
    );
    answer.set("product", layer.product()).set("seconds", seconds).set("weight_bytes", layer.bytes());
    output::tensor(&args.out, y)?;
    Ok(answer)
}
