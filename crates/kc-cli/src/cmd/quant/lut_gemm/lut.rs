//! `kc quant lut`: products with weights of sums of signs, and the tables behind them.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::Tensor;
use kc_quant::lut_gemm::{KernelChoice, LutLinear, LutMode, LutScratch, table8};
use serde_json::json;

use super::bcq;
use crate::report::Answer;
use crate::{input, output};

/// Products by look-up of tabulated sums of activations.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant lut matmul --x x.npy --packed q.safetensors --out y.npy\n  \
                  kc quant lut matmul --x x.npy --packed q.safetensors --mode i16 --out y.npy --report r.json\n  \
                  kc quant lut table --x x.npy --out lut.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tabulate the 256 signed sums of each eight activations of a token
    #[command(after_help = "Example:\n  kc quant lut table --x x.npy --mu 8 --out lut.npy")]
    Table {
        /// Activations of one token, (channels,) or (1, channels), real numbers
        #[arg(long, value_name = "FILE")]
        x: String,
        /// Activations of a table: 8
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(8..=8))]
        mu: u8,
        /// File for the tables, (ceil(channels / 8), 256) float32
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Multiply activations with a quantised matrix: Y = X W^T + bias
    #[command(
        after_help = "Example:\n  kc quant lut matmul --x x.npy --packed q.safetensors --mode i16 --out y.npy"
    )]
    Matmul(Matmul),
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum ModeArg {
    /// Errors of float32
    F32,
    /// Tables of 13 bits, errors around 2e-4
    I16,
    /// Tables of 7 bits, errors around 2 %
    I8,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum KernelArg {
    /// The fastest of this processor
    Auto,
    /// Needs a processor with AVX-512
    Avx512,
    /// Needs a processor with AVX2
    Avx2,
    /// Any processor
    Portable,
    /// Tables of 256 entries, byte by byte, as published (mode f32 only)
    Literal,
}

#[derive(Debug, clap::Args)]
struct Matmul {
    /// Activations, (tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// The quantised matrix (.safetensors)
    #[arg(long, value_name = "FILE")]
    packed: PathBuf,
    /// The numbers in the tables
    #[arg(long, value_enum, value_name = "MODE", default_value_t = ModeArg::F32)]
    mode: ModeArg,
    /// The code that runs
    #[arg(long, value_enum, value_name = "NAME", default_value_t = KernelArg::Auto)]
    kernel: KernelArg,
    /// Bias, (outputs,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// File for Y, (tokens, outputs) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match &args.verb {
        Verb::Table { x, mu, out } => {
            let any = input::any("--x", x)?;
            let table = match any.rank() {
                2 if any.shape()[0] == 1 => {
                    table8(input::f32::<2>("--x", x)?.view("--x")?.row(0).to_cow().as_ref())?
                }
                _ => table8(&input::f32_vector("--x", x)?)?,
            };
            let mut answer = Answer::new();
            answer.set("mu", *mu).set("shape", json!(table.shape()));
            output::tensor(out, table)?;
            Ok(answer)
        }
        Verb::Matmul(args) => matmul(args),
    }
}

fn matmul(args: &Matmul) -> Result<Answer> {
    let mode = match args.mode {
        ModeArg::F32 => LutMode::F32,
        ModeArg::I16 => LutMode::I16,
        ModeArg::I8 => LutMode::I8,
    };
    let kernel = match args.kernel {
        KernelArg::Auto => KernelChoice::Auto,
        KernelArg::Avx512 => KernelChoice::Avx512,
        KernelArg::Avx2 => KernelChoice::Avx2,
        KernelArg::Portable => KernelChoice::Portable,
        KernelArg::Literal => KernelChoice::Literal,
    };
    let weights = bcq::read(&args.packed)?;
    let x = input::f32::<2>("--x", &args.x)?;
    let bias = args.bias.as_ref().map(|b| input::f32_vector("--bias", b)).transpose()?;
    let layer = LutLinear::new(&weights, bias.as_deref(), mode, kernel)?;
    let x = x.view("--x")?;
    let mut y = Tensor::zeros([x.rows(), weights.shape()[0]])?;
    let start = std::time::Instant::now();
    layer.forward_into(x, y.view_mut(), &mut LutScratch::new())?;
    let seconds = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("shape", json!(y.shape())).set("mode", mode.name()).set("kernel", layer.kernel().name());
    answer.set("bits", weights.bits()).set("group", weights.group());
    answer.set("bits_per_weight", weights.bits_per_weight());
    // Fewer tokens are multiplied by tables (or in registers), as many or more through weights in float32.
    answer.set("crossover", layer.crossover()).set("weight_bytes", layer.bytes_read());
    answer.set("memory_bytes", layer.bytes());
    answer.set("product_seconds", seconds);
    output::tensor(&args.out, y)?;
    Ok(answer)
}
