//! `kc quant bcq`: weights as sums of scaled sign matrices.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::{AnyTensor, Error, Tensor};
use kc_io::safetensors::SafeTensorsFile;
use kc_quant::lut_gemm::{Assign, BcqMatrix, BcqSpec, Init, Method, Offset, RtnSpec, rtn};
use kc_quant::{Group, ScaleDtype, UniformGroups, Zeros};
use serde_json::json;

use crate::report::Answer;
use crate::weights::{SourceArgs, WeightFile};
use crate::{input, output};

/// Weights of 1 to 8 bits as sums of scaled sign matrices (binary-coding quantisation).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant bcq quantize --weights w.npy --bits 3 --out q.safetensors\n  \
                  kc quant bcq quantize --weights w.npy --bits 2 --offset joint --init best --out q.safetensors\n  \
                  kc quant bcq rtn --weights w.npy --bits 4 --group 128 --out q.safetensors\n  \
                  kc quant bcq dequantize --packed q.safetensors --out w.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find scales and signs for weights
    #[command(after_help = "Example:\n  kc quant bcq quantize --weights w.npy --bits 3 --group 128 \
                            --out q.safetensors --report r.json")]
    Quantize(Quantize),
    /// Convert uniform codes, w = scale (code - zero), exactly
    #[command(
        after_help = "Example:\n  kc quant bcq from-uniform --codes q.npy --scales s.npy --zeros z.npy \
                            --bits 4 --group 128 --out q.safetensors"
    )]
    FromUniform(FromUniform),
    /// Round weights to the nearest of equal steps, and convert the codes
    #[command(
        after_help = "Example:\n  kc quant bcq rtn --weights w.npy --bits 4 --group 128 --out q.safetensors"
    )]
    Rtn(Rtn),
    /// Convert weights of any uniform format (GPTQ, AWQ, compressed-tensors, GGUF, MatMulNBits), exactly
    #[command(
        after_help = "Example:\n  kc quant bcq convert --in m.gguf --tensor blk.0.attn_q.weight --out q.safetensors"
    )]
    Convert {
        #[command(flatten)]
        source: Box<SourceArgs>,
        /// Tensor to convert; of a quantised layer what stands before .qweight or .weight_packed
        #[arg(long, value_name = "NAME")]
        tensor: Option<String>,
        /// File to write (.safetensors)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Compute what a quantised matrix stands for
    #[command(after_help = "Example:\n  kc quant bcq dequantize --packed q.safetensors --out w.npy")]
    Dequantize {
        /// The quantised matrix (.safetensors)
        #[arg(long, value_name = "FILE")]
        packed: PathBuf,
        /// File for the weights, (outputs, channels) float32
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum MethodArg {
    /// Rounds of least squares and assignment
    Alternating,
    /// The start alone
    Greedy,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum AssignArg {
    /// The nearest of all levels
    Nearest,
    /// The signs of successive residuals
    Greedy,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum OffsetArg {
    /// No offset
    None,
    /// The mean of the group
    Mean,
    /// Solved together with the scales
    Joint,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum InitArg {
    /// Each scale from what those before it left
    Greedy,
    /// Equal steps (needs --offset joint)
    Uniform,
    /// The better of both for each group (needs --offset joint)
    Best,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum DtypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, clap::Args)]
struct Quantize {
    /// Weights, (outputs, channels), real numbers
    #[arg(long, value_name = "FILE")]
    weights: String,
    /// Sign matrices, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 3)]
    bits: u8,
    /// Channels that share their scales, at least 1, or `row`
    #[arg(long, value_name = "N", default_value = "128", value_parser = group)]
    group: Group,
    /// The solver
    #[arg(long, value_enum, value_name = "HOW", default_value_t = MethodArg::Alternating)]
    method: MethodArg,
    /// Rounds of the alternating solver, at most 1000; 0 leaves the start
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: u32,
    /// How signs follow scales
    #[arg(long, value_enum, value_name = "HOW", default_value_t = AssignArg::Nearest)]
    assign: AssignArg,
    /// The offset of a group
    #[arg(long, value_enum, value_name = "HOW", default_value_t = OffsetArg::None)]
    offset: OffsetArg,
    /// Where the rounds start
    #[arg(long, value_enum, value_name = "HOW", default_value_t = InitArg::Greedy)]
    init: InitArg,
    /// Weights of the squared errors, at least 0: (channels,) or (outputs, channels)
    #[arg(long, value_name = "FILE")]
    importance: Option<String>,
    /// Squared errors weigh |w|^E too, E at least 0
    #[arg(long, value_name = "E", default_value_t = 0.0, allow_negative_numbers = true)]
    exponent: f64,
    /// Magnitudes from this quantile on weigh alike, above 0, at most 1
    #[arg(long, value_name = "Q", default_value_t = 1.0, allow_negative_numbers = true)]
    clipping: f64,
    /// Share of the smallest weights that count as zeros of no importance, at least 0, below 1
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pruning: f64,
    /// Type of stored scales and offsets
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = DtypeArg::F32)]
    scale_dtype: DtypeArg,
    /// File for the quantised matrix (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for bits.npy (uint8), alpha.npy and offset.npy (float32), made if it is not there
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct FromUniform {
    /// Codes, (outputs, channels), integers from 0 to 2^bits - 1
    #[arg(long, value_name = "FILE")]
    codes: String,
    /// Scales, (outputs, groups), real numbers
    #[arg(long, value_name = "FILE")]
    scales: String,
    /// Zeros, (outputs, groups): integers, or real numbers between codes
    #[arg(long, value_name = "FILE")]
    zeros: String,
    /// Bits of a code, 1 to 8
    #[arg(long, value_name = "N")]
    bits: u8,
    /// Channels that share a scale, at least 1, or `row`
    #[arg(long, value_name = "N", value_parser = group)]
    group: Group,
    /// File for the quantised matrix (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Rtn {
    /// Weights, (outputs, channels), real numbers
    #[arg(long, value_name = "FILE")]
    weights: String,
    /// Bits of a code, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 4)]
    bits: u8,
    /// Channels that share a scale, at least 1, or `row`
    #[arg(long, value_name = "N", default_value = "128", value_parser = group)]
    group: Group,
    /// A range that is symmetric around 0
    #[arg(long)]
    sym: bool,
    /// Try narrower ranges for the smallest sum |error|^2.4
    #[arg(long)]
    mse: bool,
    /// File for the quantised matrix (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A number of columns, or `row`.
fn group(text: &str) -> std::result::Result<Group, String> {
    match text.parse() {
        _ if text == "row" => Ok(Group::Row),
        Ok(size) if size > 0 => Ok(Group::Size(size)),
        _ => Err("expected a number of at least 1, or `row`".into()),
    }
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match &args.verb {
        Verb::Quantize(args) => quantize(args),
        Verb::FromUniform(args) => from_uniform(args),
        Verb::Rtn(args) => {
            let w = input::f32::<2>("--weights", &args.weights)?;
            let spec = RtnSpec { bits: args.bits, group: args.group, symmetric: args.sym, search: args.mse };
            let matrix = BcqMatrix::from_uniform(&rtn(w.view("--weights")?, &spec)?)?;
            let mut answer = stored(&args.out, &matrix)?;
            answer.set("rel_sq_error", matrix.rel_sq_error(w.view("--weights")?)?);
            Ok(answer)
        }
        Verb::Convert { source, tensor, out } => {
            let (name, weight) = WeightFile::open(source)?.get(tensor.as_deref())?;
            let Some(uniform) = weight.to_uniform()? else {
                let reason = "numbers have no codes; quantise them (kc quant bcq quantize, or rtn)";
                return Err(Error::unsupported(name, reason).into());
            };
            stored(out, &BcqMatrix::from_uniform(&uniform)?)
        }
        Verb::Dequantize { packed, out } => {
            let matrix = read(packed)?;
            output::tensor(out, matrix.dequantize()?)?;
            Ok(described(&matrix))
        }
    }
}

/// A quantised matrix from a file.
pub(super) fn read(path: &Path) -> Result<BcqMatrix> {
    let file = SafeTensorsFile::open(path)?;
    let mut tensors = Vec::new();
    for name in file.names() {
        tensors.push((name.clone(), file.get(name)?));
    }
    let get = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor.clone());
    Ok(BcqMatrix::from_tensors(&path.display().to_string(), get, file.metadata())?)
}

/// What every report says of a matrix.
fn described(matrix: &BcqMatrix) -> Answer {
    let mut answer = Answer::new();
    answer.set("shape", json!(matrix.shape())).set("bits", matrix.bits()).set("group", matrix.group());
    answer.set("bits_per_weight", matrix.bits_per_weight());
    answer
}

fn stored(out: &Path, matrix: &BcqMatrix) -> Result<Answer> {
    let (tensors, metadata) = matrix.to_tensors()?;
    kc_io::safetensors::write(out, &tensors, &metadata)?;
    Ok(described(matrix))
}

fn quantize(args: &Quantize) -> Result<Answer> {
    let w = input::f32::<2>("--weights", &args.weights)?;
    let importance = args.importance.as_ref().map(|file| importance(file)).transpose()?;
    let spec = BcqSpec {
        bits: args.bits,
        group: args.group,
        method: match args.method {
            MethodArg::Alternating => Method::Alternating,
            MethodArg::Greedy => Method::Greedy,
        },
        rounds: args.rounds,
        assign: match args.assign {
            AssignArg::Nearest => Assign::Nearest,
            AssignArg::Greedy => Assign::Greedy,
        },
        offset: match args.offset {
            OffsetArg::None => Offset::None,
            OffsetArg::Mean => Offset::Mean,
            OffsetArg::Joint => Offset::Joint,
        },
        init: match args.init {
            InitArg::Greedy => Init::Greedy,
            InitArg::Uniform => Init::Uniform,
            InitArg::Best => Init::Best,
        },
        scale_dtype: match args.scale_dtype {
            DtypeArg::F32 => ScaleDtype::F32,
            DtypeArg::F16 => ScaleDtype::F16,
            DtypeArg::Bf16 => ScaleDtype::Bf16,
        },
        exponent: args.exponent,
        clipping: args.clipping,
        pruning: args.pruning,
    };
    let fit = BcqMatrix::fit(w.view("--weights")?, &spec, importance.as_ref().map(Tensor::view))?;
    if let Some(dir) = &args.dump_dir {
        dump(dir, &fit.matrix)?;
    }
    let mut answer = stored(&args.out, &fit.matrix)?;
    answer.set("method", spec.method.name()).set("assign", spec.assign.name());
    answer.set("offset", spec.offset.name()).set("init", spec.init.name());
    answer.set("scale_dtype", spec.scale_dtype.name());
    answer.set("rel_sq_error", fit.rel_sq_error).set("round_errors", fit.round_errors);
    Ok(answer)
}

/// One row for all outputs, or a row for each.
fn importance(file: &str) -> Result<Tensor<f32, 2>> {
    let any = input::any("--importance", file)?;
    match *any.shape() {
        [k] => Ok(any.to_f32::<1>("--importance")?.reshape([1, k])?),
        _ => Ok(any.to_f32::<2>("--importance")?),
    }
}

fn dump(dir: &Path, matrix: &BcqMatrix) -> Result<()> {
    let ([n, k], q, groups) = (matrix.shape(), usize::from(matrix.bits()), matrix.groups());
    let zeros = vec![0.0; n * groups];
    output::folder(dir)?;
    output::tensor(&dir.join("bits.npy"), Tensor::from_slice([q, n, k.div_ceil(8)], matrix.planes())?)?;
    output::tensor(&dir.join("alpha.npy"), Tensor::from_slice([n, groups, q], matrix.scales())?)?;
    let offsets = matrix.offsets().unwrap_or(&zeros);
    output::tensor(&dir.join("offset.npy"), Tensor::from_slice([n, groups], offsets)?)
}

fn from_uniform(args: &FromUniform) -> Result<Answer> {
    let codes = input::any("--codes", &args.codes)?;
    let scales = input::f32::<2>("--scales", &args.scales)?;
    let zeros = input::any("--zeros", &args.zeros)?;
    let [n, k] = matrix_shape("--codes", &codes)?;
    let group = args.group.len(k)?;
    let groups = [n, k.div_ceil(group)];
    let scales = scales.view("--scales")?;
    for (name, shape) in [("--scales", &scales.shape()[..]), ("--zeros", zeros.shape())] {
        if shape != groups {
            return Err(Error::shape(name, format!("{groups:?}, one per row and group"), shape).into());
        }
    }
    let integer = |x: &f64| x.fract() == 0.0 && x.abs() <= f64::from(i32::MAX);
    let values = codes.to_f64::<2>("--codes")?.into_vec();
    if let Some(bad) = values.iter().find(|x| !(integer(x) && (0.0..256.0).contains(*x))) {
        return Err(Error::argument("--codes", "integers from 0 to 255", bad).into());
    }
    let codes = values.iter().map(|&x| x as u8).collect();
    let zeros = zeros.to_f64::<2>("--zeros")?.into_vec();
    let zeros = if zeros.iter().all(integer) {
        Zeros::PerGroup(zeros.iter().map(|&x| x as i32).collect())
    } else {
        Zeros::Offset(zeros.iter().zip(scales.iter()).map(|(z, s)| (-z * f64::from(s)) as f32).collect())
    };
    let uniform = UniformGroups::new([n, k], args.bits, group, codes, scales.to_vec(), zeros)?;
    stored(&args.out, &BcqMatrix::from_uniform(&uniform)?)
}

fn matrix_shape(name: &'static str, tensor: &AnyTensor) -> Result<[usize; 2]> {
    let shape = tensor.shape();
    <[usize; 2]>::try_from(shape).map_err(|_| Error::shape(name, "2 dimensions", shape).into())
}
