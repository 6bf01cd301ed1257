//! `kc quant fp8`: numbers to E4M3 codes and back.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use kc_core::{AnyTensor, Bytes, DType, Error, Tensor};
use kc_quant::fp8;
use serde_json::json;

use crate::args::Ctx;
use crate::input;
use crate::report::Answer;

/// Eight-bit floating point, E4M3: encode and decode.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant fp8 encode --x x.npy --out c.npy\n  \
                  kc quant fp8 decode --x c.npy --out back.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Codes (uint8) of the nearest numbers, saturating at 448; NaN becomes code 0x7f
    #[command(after_help = "Example:\n  kc quant fp8 encode --x x.npy --out c.npy")]
    Encode(Files),
    /// What codes (uint8) stand for, as float32; codes of NaN are refused
    #[command(after_help = "Example:\n  kc quant fp8 decode --x c.npy --out back.npy")]
    Decode(Files),
}

#[derive(Debug, clap::Args)]
struct Files {
    /// Numbers, or codes (uint8), of any shape
    #[arg(long, value_name = "FILE")]
    x: String,
    /// File for the result, of the same shape
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Encode(files) => encode(files, ctx),
        Verb::Decode(files) => decode(files),
    }
}

/// The same elements as one vector.
fn flat(tensor: &AnyTensor) -> Result<AnyTensor> {
    Ok(AnyTensor::new(tensor.dtype(), vec![tensor.len()], Bytes::from_owner(tensor.bytes().to_vec()))?)
}

fn store(out: &Path, shape: &[usize], dtype: DType, values: &AnyTensor) -> Result<()> {
    let shaped = AnyTensor::new(dtype, shape.to_vec(), Bytes::from_owner(values.bytes().to_vec()))?;
    Ok(kc_io::write(out, &shaped)?)
}

fn encode(files: &Files, ctx: &Ctx) -> Result<Answer> {
    let x = input::any("--x", &files.x)?;
    if !x.dtype().is_float() {
        return Err(Error::dtype("--x", "float16, bfloat16, float32 or float64", x.dtype()).into());
    }
    let values: Tensor<f32, 1> = flat(&x)?.to_f32("--x")?;
    let mut codes = Tensor::<u8, 1>::zeros(values.shape())?;
    let saturated = fp8::encode_slice_checked(values.as_slice(), codes.as_mut_slice())?;
    let nan = values.as_slice().iter().filter(|x| x.is_nan()).count();
    if saturated > 0 {
        ctx.warn(format_args!("{saturated} numbers lie beyond 448; they became 448 of their sign"));
    }
    store(&files.out, x.shape(), DType::U8, &codes.into_any())?;
    let mut answer = Answer::new();
    answer.set("shape", json!(x.shape())).set("saturated", saturated).set("nan", nan);
    Ok(answer)
}

fn decode(files: &Files) -> Result<Answer> {
    let x = input::any("--x", &files.x)?;
    let codes: Tensor<u8, 1> = flat(&x)?.to_tensor("--x")?;
    fp8::check("--x", codes.as_slice())?;
    let mut values = Tensor::<f32, 1>::zeros(codes.shape())?;
    fp8::decode_slice(codes.as_slice(), values.as_mut_slice())?;
    store(&files.out, x.shape(), DType::F32, &values.into_any())?;
    let mut answer = Answer::new();
    answer.set("shape", json!(x.shape()));
    Ok(answer)
}
