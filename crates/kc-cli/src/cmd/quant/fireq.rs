//! `kc quant fireq`: INT4 weights, FP8 activations, the four-bit cache, scalings.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::{AnyTensor, DType, Error, Tensor};
use kc_io::safetensors::SafeTensorsFile;
use kc_quant::Group;
use kc_quant::fireq::{
    Activations, AttentionConfig, DequantMode, Epilogue, FactorKind, FireqLinear, FireqWeights, Heads,
    KvCache4, KvConfig, LinearConfig, MlpConfig, Numbers, PairStyle, PerTensor, RopeConfig, ScaleType, Side,
    Stage, VoConfig, WeightSpec, attention, attention_float, rope_scales, scale_mlp, scale_vo,
};
use serde_json::json;

use crate::report::{Answer, Usage};
use crate::{input, output};

/// INT4 weights, FP8 activations, a four-bit key/value cache, and scalings around rotary positions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant fireq quantize --weights w.npy --out q.safetensors\n  \
                  kc quant fireq matmul --x x.npy --packed q.safetensors --out y.npy\n  \
                  kc quant fireq attention --q q.npy --k k.npy --v v.npy --causal --out o.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Quantise weights to four bits and pack them
    #[command(after_help = "Examples:\n  kc quant fireq quantize --weights w.npy --out q.safetensors\n  \
                      kc quant fireq quantize --weights w.npy --per-tensor reference --out q.safetensors --dump-dir d")]
    Quantize(Quantize),
    /// Multiply FP8 activations with four-bit weights: Y = X W^T + bias, then an epilogue
    #[command(
        after_help = "Example:\n  kc quant fireq matmul --x x.npy --weights w.npy --epilogue silu --out y.npy"
    )]
    Matmul(Matmul),
    /// Scale the channels of a gated block (norm, up, gate, down) without changing what it computes
    #[command(
        after_help = "Example:\n  kc quant fireq scale-mlp --norm n.npy --up u.npy --gate g.npy --down d.npy --out-dir s"
    )]
    ScaleMlp(ScaleMlp),
    /// Scale value and output projections without changing what they compute
    #[command(
        after_help = "Example:\n  kc quant fireq scale-vo --v v.npy --o o.npy --heads 32 --kv-heads 8 --out-dir s"
    )]
    ScaleVo(ScaleVo),
    /// Factors of keys and queries before and behind rotary positions, from calibration keys
    #[command(
        after_help = "Example:\n  kc quant fireq rope-scales --k-pre k0.npy --k-post k1.npy --group 4 --out-dir f"
    )]
    RopeScales(Rope),
    /// Quantise keys or values to four bits per token, head and group of channels
    #[command(after_help = "Example:\n  kc quant fireq kv --x k.npy --out-dir d")]
    Kv(Kv),
    /// Attention with FP8 queries and weights over a four-bit cache
    #[command(
        after_help = "Example:\n  kc quant fireq attention --q q.npy --k k.npy --v v.npy --causal --out o.npy"
    )]
    Attention(Attention),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scale {
    /// E4M3
    Fp8,
    /// bfloat16
    Bf16,
    /// 32 bits
    F32,
}

impl From<Scale> for ScaleType {
    fn from(scale: Scale) -> Self {
        match scale {
            Scale::Fp8 => ScaleType::Fp8,
            Scale::Bf16 => ScaleType::Bf16,
            Scale::F32 => ScaleType::F32,
        }
    }
}

/// `min-error`, `reference`, `off` or a number.
fn per_tensor(text: &str) -> Result<PerTensor, String> {
    match text {
        "min-error" => Ok(PerTensor::MinError),
        "reference" => Ok(PerTensor::Reference { rank: 1 }),
        "off" => Ok(PerTensor::Off),
        value => value
            .parse()
            .map(PerTensor::Fixed)
            .map_err(|_| "expected min-error, reference, off or a number".to_owned()),
    }
}

/// How weights are quantised.
#[derive(Debug, clap::Args)]
struct Spec {
    /// Columns that share a scale
    #[arg(long, value_name = "N", default_value_t = 128)]
    group: usize,
    /// Type of the scales
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Scale::Fp8)]
    scale_dtype: Scale,
    /// Factor of the whole tensor: the power of two of least error, by the published rule, none, or a number
    #[arg(long, value_name = "HOW", default_value = "min-error", value_parser = per_tensor, allow_negative_numbers = true)]
    per_tensor: PerTensor,
}

impl Spec {
    fn spec(&self) -> WeightSpec {
        WeightSpec {
            group: Group::Size(self.group),
            scale_type: self.scale_dtype.into(),
            per_tensor: self.per_tensor,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Quantize {
    /// Weights, (outputs, channels), real numbers
    #[arg(long, value_name = "FILE")]
    weights: String,
    #[command(flatten)]
    spec: Spec,
    /// File for the packed weights (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for q.npy (int8), scales.npy (float32), packed.npy (int32) and report.json
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Code times scale
    Exact,
    /// Code times scale, rounded to FP8
    Fp8Product,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum After {
    /// Nothing
    None,
    /// y / (1 + exp(-y))
    Silu,
    /// y times aux
    Mul,
    /// y plus aux
    Add,
    /// y plus aux, and the sum of squares of each row
    SquareDot,
}

impl From<After> for Epilogue {
    fn from(after: After) -> Self {
        match after {
            After::None => Epilogue::None,
            After::Silu => Epilogue::Silu,
            After::Mul => Epilogue::Mul,
            After::Add => Epilogue::Add,
            After::SquareDot => Epilogue::SquareDot,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Matmul {
    /// Activations, (tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Weights, (outputs, channels), to be quantised first
    #[arg(long, value_name = "FILE", required_unless_present = "packed", conflicts_with = "packed")]
    weights: Option<String>,
    /// Packed weights from `quantize`
    #[arg(long, value_name = "FILE")]
    packed: Option<PathBuf>,
    #[command(flatten)]
    spec: Spec,
    /// What is multiplied
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Exact)]
    mode: Mode,
    /// What happens to the sums
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = After::None)]
    epilogue: After,
    /// Second operand of mul, add and square-dot, (tokens, outputs)
    #[arg(long, value_name = "FILE")]
    aux: Option<String>,
    /// Bias, (outputs,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// File for the codes of X, (tokens, channels) uint8
    #[arg(long, value_name = "FILE")]
    x_codes_out: Option<PathBuf>,
    /// File for the scales of X, (tokens,) float32
    #[arg(long, value_name = "FILE")]
    x_scales_out: Option<PathBuf>,
    /// File for Y, (tokens, outputs) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the sums of squares of square-dot, (tokens,) float32
    #[arg(long, value_name = "FILE")]
    square_sum_out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The constant itself
    Const,
    /// The constant over the largest magnitude of the channel
    Absmax,
    /// The constant over the mean magnitude of the channel
    Absmean,
}

impl From<Kind> for FactorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Const => FactorKind::Const,
            Kind::Absmax => FactorKind::AbsMax,
            Kind::Absmean => FactorKind::AbsMean,
        }
    }
}

#[derive(Debug, clap::Args)]
struct ScaleMlp {
    /// Weight of the norm, (channels,)
    #[arg(long, value_name = "FILE")]
    norm: String,
    /// Up projection, (hidden, channels)
    #[arg(long, value_name = "FILE")]
    up: String,
    /// Gate projection, (hidden, channels)
    #[arg(long, value_name = "FILE")]
    gate: String,
    /// Down projection, (channels, hidden)
    #[arg(long, value_name = "FILE")]
    down: String,
    /// Constant of the inputs of up and gate; 0 leaves them
    #[arg(long, value_name = "C", default_value_t = 0.0096, allow_negative_numbers = true)]
    ug: f64,
    /// Constant of the inputs of down; 0 leaves them
    #[arg(long, value_name = "C", default_value_t = 0.015, allow_negative_numbers = true)]
    down_const: f64,
    /// Where factors come from
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Kind::Absmean)]
    kind: Kind,
    /// Folder for norm, up, gate, down (types of the inputs) and s1, s2 (float64), .npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ScaleVo {
    /// Value projection, (kv heads x head size, channels)
    #[arg(long, value_name = "FILE")]
    v: String,
    /// Output projection, (channels, heads x head size)
    #[arg(long, value_name = "FILE")]
    o: String,
    /// Query heads
    #[arg(long, value_name = "N")]
    heads: usize,
    /// Key/value heads, a divisor of the query heads
    #[arg(long, value_name = "N")]
    kv_heads: usize,
    /// Constant of the inputs of o; 0 leaves them
    #[arg(long = "const", value_name = "C", default_value_t = 0.0, allow_negative_numbers = true)]
    constant: f64,
    /// Multiplies v and divides o
    #[arg(long, value_name = "F", default_value_t = 0.9, allow_negative_numbers = true)]
    v_mul: f64,
    /// Where factors come from
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Kind::Absmean)]
    kind: Kind,
    /// Folder for v, o (types of the inputs) and factors (float64), .npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Style {
    /// Channels i and i + half are rotated together (Llama)
    Half,
    /// Channels 2i and 2i + 1 are rotated together (GPT-J)
    Interleaved,
}

#[derive(Debug, clap::Args)]
struct Rope {
    /// Keys before the rotation, (tokens, kv heads, head size)
    #[arg(long, value_name = "FILE")]
    k_pre: String,
    /// Keys behind the rotation, (tokens, kv heads, head size)
    #[arg(long, value_name = "FILE")]
    k_post: String,
    /// Query heads of a key/value head
    #[arg(long, value_name = "N")]
    group: usize,
    /// The largest norm of a pair before the rotation becomes this
    #[arg(long, value_name = "A", default_value_t = 8.0, allow_negative_numbers = true)]
    alpha: f64,
    /// The largest magnitude of the chosen channels behind the rotation becomes this
    #[arg(long, value_name = "B", default_value_t = 8.0, allow_negative_numbers = true)]
    beta: f64,
    /// Channels of a head chosen behind the rotation, at most half of them
    #[arg(long, value_name = "N", default_value_t = 8)]
    top_k: usize,
    /// Which channels are rotated together
    #[arg(long, value_enum, value_name = "STYLE", default_value_t = Style::Half)]
    style: Style,
    /// Folder for pre_k, post_k (kv heads, head size) and pre_q, post_q (heads, head size), float64 .npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Kv {
    /// Keys or values, (tokens, kv heads, head size)
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Channels that share a scale, at most a head
    #[arg(long, value_name = "N", default_value_t = 128)]
    group: usize,
    /// Type of the scales
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Scale::Bf16)]
    scale_dtype: Scale,
    /// Folder for codes.npy (int8) and scales.npy (float32)
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Attention {
    /// Queries, (queries, heads, head size)
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Keys, (tokens, kv heads, head size)
    #[arg(long, value_name = "FILE")]
    k: String,
    /// Values, (tokens, kv heads, head size)
    #[arg(long, value_name = "FILE")]
    v: String,
    /// Hide the keys behind each query's position
    #[arg(long)]
    causal: bool,
    /// With --causal: query i sees keys up to i + N [default: keys minus queries]
    #[arg(long, value_name = "N", requires = "causal", allow_negative_numbers = true)]
    offset: Option<i64>,
    /// Bits of keys and values; 16 leaves them as they are
    #[arg(long, value_name = "BITS", default_value = "4", value_parser = ["4", "16"])]
    kv_bits: String,
    /// Leave queries as they are
    #[arg(long)]
    no_q_fp8: bool,
    /// Leave the weights of the values as they are
    #[arg(long)]
    no_p_fp8: bool,
    /// Type of the scales of the cache
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Scale::Bf16)]
    scale_dtype: Scale,
    /// File for the result, (queries, heads, head size) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match &args.verb {
        Verb::Quantize(args) => quantize(args),
        Verb::Matmul(args) => matmul(args),
        Verb::ScaleMlp(args) => mlp(args),
        Verb::ScaleVo(args) => vo(args),
        Verb::RopeScales(args) => rope(args),
        Verb::Kv(args) => kv(args),
        Verb::Attention(args) => attend(args),
    }
}

/// What every report says about weights.
fn describe(answer: &mut Answer, weights: &FireqWeights) {
    answer
        .set("shape", json!(weights.shape()))
        .set("group", weights.group())
        .set("scale_dtype", weights.scale_type().name())
        .set("per_tensor", weights.per_tensor())
        .set("packed_bytes", weights.bytes());
}

fn quantize(args: &Quantize) -> Result<Answer> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return Err(Usage("--out: expected a .safetensors file".into()).into());
    }
    let w = input::f32::<2>("--weights", &args.weights)?;
    let weights = FireqWeights::quantize(w.view("--weights")?, &args.spec.spec())?;
    let (tensors, texts) = weights.to_tensors()?;
    kc_io::safetensors::write(&args.out, &tensors, &texts)?;
    let mut answer = Answer::new();
    describe(&mut answer, &weights);
    for mode in [DequantMode::Exact, DequantMode::Fp8Product] {
        let error = weights.relative_error(w.view("--weights")?, mode)?;
        answer.set(&format!("weight_error_{}", mode.name().replace('-', "_")), error);
    }
    if let Some(dir) = &args.dump_dir {
        let [n, k] = weights.shape();
        output::folder(dir)?;
        output::tensor(&dir.join("q.npy"), weights.codes()?)?;
        let groups = k.div_ceil(weights.group());
        output::tensor(&dir.join("scales.npy"), Tensor::from_slice([n, groups], weights.scales())?)?;
        for (name, tensor) in &tensors {
            if name == "packed" {
                kc_io::write(dir.join("packed.npy"), tensor)?;
            }
        }
        answer.also_to(Some(&dir.join("report.json")));
    }
    Ok(answer)
}

fn matmul(args: &Matmul) -> Result<Answer> {
    let epilogue = Epilogue::from(args.epilogue);
    if args.square_sum_out.is_some() && epilogue != Epilogue::SquareDot {
        return Err(Usage("--square-sum-out: only with --epilogue square-dot".into()).into());
    }
    let x = input::f32::<2>("--x", &args.x)?;
    let weights = match (&args.weights, &args.packed) {
        (Some(w), _) => {
            FireqWeights::quantize(input::f32::<2>("--weights", w)?.view("--weights")?, &args.spec.spec())?
        }
        (None, Some(packed)) => {
            let file = SafeTensorsFile::open(packed)?;
            FireqWeights::from_tensors(|name| file.get(name), file.metadata())?
        }
        (None, None) => return Err(Usage("expected --weights or --packed".into()).into()),
    };
    let bias = args.bias.as_ref().map(|b| input::f32_vector("--bias", b)).transpose()?;
    let aux = args.aux.as_ref().map(|aux| input::f32::<2>("--aux", aux)).transpose()?;
    let mode = match args.mode {
        Mode::Exact => DequantMode::Exact,
        Mode::Fp8Product => DequantMode::Fp8Product,
    };
    let layer = FireqLinear::new(&weights, bias.as_deref(), &LinearConfig { mode, numbers: Numbers::Fp8 })?;
    let x = x.view("--x")?;
    let (mut y, mut codes) = (Tensor::zeros([x.rows(), weights.shape()[0]])?, Activations::new());
    let mut sums = vec![0.0; if epilogue == Epilogue::SquareDot { x.rows() } else { 0 }];
    let aux = aux.as_ref().map(|aux| aux.view("--aux")).transpose()?;
    layer.forward_into(x, epilogue, aux, y.view_mut(), &mut sums, &mut codes)?;
    output::tensor(&args.out, y)?;
    if let Some(path) = &args.x_codes_out {
        output::tensor(path, Tensor::from_slice(codes.shape(), codes.codes())?)?;
    }
    if let Some(path) = &args.x_scales_out {
        output::tensor(path, Tensor::from_slice([codes.scales().len()], codes.scales())?)?;
    }
    if let Some(path) = &args.square_sum_out {
        output::tensor(path, Tensor::from_slice([sums.len()], &sums)?)?;
    }
    let mut answer = Answer::new();
    answer.set("tokens", x.rows()).set("mode", mode.name()).set("epilogue", epilogue.name());
    describe(&mut answer, &weights);
    Ok(answer)
}

/// Real numbers as f64, and whether the file's were.
fn doubles<const N: usize>(name: &'static str, location: &str) -> Result<(Tensor<f64, N>, bool)> {
    let any = input::any(name, location)?;
    if !any.dtype().is_float() {
        return Err(Error::dtype(name, "float16, bfloat16, float32 or float64", any.dtype()).into());
    }
    Ok((any.to_f64(name)?, any.dtype() == DType::F64))
}

/// Writes f64, or f32 where the input was no more than that.
fn store<const N: usize>(dir: &Path, name: &str, x: Tensor<f64, N>, double: bool) -> Result<()> {
    let any: AnyTensor = x.into_any();
    let any = if double { any } else { any.to_f32::<N>(name.to_owned())?.into_any() };
    Ok(kc_io::write(dir.join(format!("{name}.npy")), &any)?)
}

fn factors(dir: &Path, name: &str, values: &[f64]) -> Result<()> {
    store(dir, name, Tensor::from_slice([values.len()], values)?, true)
}

fn mlp(args: &ScaleMlp) -> Result<Answer> {
    let (norm, norm_double) = doubles::<1>("--norm", &args.norm)?;
    let (up, up_double) = doubles::<2>("--up", &args.up)?;
    let (gate, gate_double) = doubles::<2>("--gate", &args.gate)?;
    let (down, down_double) = doubles::<2>("--down", &args.down)?;
    let config =
        MlpConfig { kind: args.kind.into(), up_gate: args.ug, down: args.down_const, ..MlpConfig::default() };
    let scaled = scale_mlp(norm.view(), up.view(), gate.view(), down.view(), &config)?;
    let dir = &args.out_dir;
    output::folder(dir)?;
    store(dir, "norm", scaled.norm, norm_double)?;
    store(dir, "up", scaled.up, up_double)?;
    store(dir, "gate", scaled.gate, gate_double)?;
    store(dir, "down", scaled.down, down_double)?;
    factors(dir, "s1", &scaled.s1)?;
    factors(dir, "s2", &scaled.s2)?;
    let mut answer = Answer::new();
    answer.set("kind", config.kind.name()).set("ug", args.ug).set("down_const", args.down_const);
    answer.set("channels", scaled.s1.len()).set("hidden", scaled.s2.len());
    Ok(answer)
}

fn vo(args: &ScaleVo) -> Result<Answer> {
    let (v, v_double) = doubles::<2>("--v", &args.v)?;
    let (o, o_double) = doubles::<2>("--o", &args.o)?;
    let config = VoConfig { kind: args.kind.into(), o: args.constant, v_mul: args.v_mul };
    let heads = Heads { heads: args.heads, kv_heads: args.kv_heads };
    let (v, o, divisors) = scale_vo(v.view(), o.view(), heads, &config)?;
    let dir = &args.out_dir;
    output::folder(dir)?;
    store(dir, "v", v, v_double)?;
    store(dir, "o", o, o_double)?;
    factors(dir, "factors", &divisors)?;
    let mut answer = Answer::new();
    answer.set("kind", config.kind.name()).set("const", args.constant).set("v_mul", args.v_mul);
    answer.set("heads", args.heads).set("kv_heads", args.kv_heads);
    Ok(answer)
}

fn rope(args: &Rope) -> Result<Answer> {
    let pre = input::f32::<3>("--k-pre", &args.k_pre)?;
    let post = input::f32::<3>("--k-post", &args.k_post)?;
    let style = match args.style {
        Style::Half => PairStyle::Half,
        Style::Interleaved => PairStyle::Interleaved,
    };
    let config = RopeConfig { alpha: args.alpha, beta: args.beta, top_k: args.top_k, style };
    let scales = rope_scales(pre.view("--k-pre")?, post.view("--k-post")?, &config)?;
    let queries = [scales.queries(Stage::Pre, args.group)?, scales.queries(Stage::Post, args.group)?];
    let dir = &args.out_dir;
    output::folder(dir)?;
    let stages = [(Stage::Pre, "pre"), (Stage::Post, "post")];
    for ((stage, name), queries) in stages.into_iter().zip(queries) {
        store(dir, &format!("{name}_k"), scales.keys(stage).to_tensor()?, true)?;
        store(dir, &format!("{name}_q"), queries, true)?;
    }
    let mut answer = Answer::new();
    answer.set("style", style.name()).set("alpha", args.alpha).set("beta", args.beta);
    answer.set("top_k", args.top_k).set("group", args.group);
    let chosen = scales.keys(Stage::Post).iter().filter(|&f| f != 1.0).count();
    answer.set("kv_heads", scales.keys(Stage::Pre).rows()).set("channels_scaled_behind", chosen);
    Ok(answer)
}

/// A cache that holds these keys and values.
fn cache(
    k: kc_core::TensorView<'_, f32, 3>,
    v: kc_core::TensorView<'_, f32, 3>,
    group: usize,
    scale_type: ScaleType,
) -> Result<KvCache4> {
    let [tokens, heads, hd] = k.shape();
    let config = KvConfig { group, scale_type, ..KvConfig::new(heads, hd, tokens.max(1)) };
    let mut cache = KvCache4::new(config)?;
    cache.append(k, v)?;
    Ok(cache)
}

fn kv(args: &Kv) -> Result<Answer> {
    let x = input::f32::<3>("--x", &args.x)?;
    let x = x.view("--x")?;
    let cache = cache(x, x, args.group, args.scale_dtype.into())?;
    let (codes, scales) = cache.codes(Side::Key)?;
    output::folder(&args.out_dir)?;
    output::tensor(&args.out_dir.join("codes.npy"), codes)?;
    output::tensor(&args.out_dir.join("scales.npy"), scales)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(x.shape())).set("group", args.group.min(x.shape()[2]));
    answer.set("scale_dtype", ScaleType::from(args.scale_dtype).name());
    let back = cache.dequantize(Side::Key)?;
    answer.set("error", kc_quant::metrics::relative_error(back.view(), x)?);
    Ok(answer)
}

fn attend(args: &Attention) -> Result<Answer> {
    let q = input::f32::<3>("--q", &args.q)?;
    let (k, v) = (input::f32::<3>("--k", &args.k)?, input::f32::<3>("--v", &args.v)?);
    let (q, k, v) = (q.view("--q")?, k.view("--k")?, v.view("--v")?);
    let config = AttentionConfig {
        causal: args.causal,
        offset: args.offset,
        q_fp8: !args.no_q_fp8,
        p_fp8: !args.no_p_fp8,
        ..AttentionConfig::default()
    };
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape())).set("keys", k.shape()[0]).set("kv_bits", args.kv_bits.as_str());
    let out = if args.kv_bits == "4" {
        let cache = cache(k, v, KvConfig::new(1, 1, 1).group, args.scale_dtype.into())?;
        answer.set("cache_bytes", cache.bytes());
        attention(q, &cache, &config)?
    } else {
        attention_float(q, k, v, &config)?
    };
    output::tensor(&args.out, out)?;
    Ok(answer)
}
