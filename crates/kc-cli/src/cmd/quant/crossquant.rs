//! `kc quant crossquant`: codes, the quantisation kernel, products, calibration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::{Tensor, TensorView};
use kc_io::safetensors::SafeTensorsFile;
use kc_quant::crossquant::{
    ColumnStats, Columns, CrossCodes, CrossLinear, CrossSpec, LinearConfig, Mode, RowFactor, SweepWeights,
    default_grid, kernel_report, quantize, remove_kernel, sweep,
};
use serde_json::{Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

/// Activations in 2 to 8 bits whose step blends the largest magnitude of the token and of the channel.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant crossquant calibrate --x a.npy --x b.npy --out c.npy\n  \
                  kc quant crossquant kernel --x x.npy --bits 8 --out kernel.json\n  \
                  kc quant crossquant sweep --x x.npy --w w.npy --mode folded --out sweep.json\n  \
                  kc quant crossquant matmul --x x.npy --weights w.npy --columns c.npy --out y.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Quantise activations: codes.npy (int8), row.npy, col.npy (float32) and report.json
    #[command(
        after_help = "Example:\n  kc quant crossquant codes --x x.npy --bits 8 --alpha 0.15 --out-dir codes"
    )]
    Codes {
        #[command(flatten)]
        spec: Spec,
        /// Folder for the results, made if it is not there
        #[arg(long, value_name = "DIR")]
        out_dir: PathBuf,
    },
    /// Report which share of the elements gets code 0, with the blend, per token and per channel
    #[command(after_help = "Example:\n  kc quant crossquant kernel --x x.npy --out kernel.json")]
    Kernel {
        #[command(flatten)]
        spec: Spec,
        /// File for the report (JSON)
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Try a grid of exponents: kernel, error of X, error of the product
    #[command(
        after_help = "Example:\n  kc quant crossquant sweep --x x.npy --w w.npy --grid 0,0.15,0.5,1 --out s.json"
    )]
    Sweep(Sweep),
    /// Set the elements that would get code 0 to zero and leave everything else as it is
    #[command(after_help = "Example:\n  kc quant crossquant remove-kernel --x x.npy --out bare.npy")]
    RemoveKernel {
        #[command(flatten)]
        spec: Spec,
        /// File for the result, (tokens, channels) float32
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Multiply quantised activations with quantised weights: Y = X W^T + bias
    #[command(
        after_help = "Example:\n  kc quant crossquant matmul --x x.npy --weights w.npy --columns c.npy --out y.npy"
    )]
    Matmul(Matmul),
    /// Collect channel maxima (or percentiles) over batches of activations
    #[command(after_help = "Examples:\n  kc quant crossquant calibrate --x a.npy --x b.npy --out c.npy\n  \
                      kc quant crossquant calibrate --x acts.safetensors --percentile 99.9 --out c.safetensors")]
    Calibrate(Calibrate),
}

/// How activations are quantised.
#[derive(Debug, clap::Args)]
struct Spec {
    /// Activations, (tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Bits of a code, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 8)]
    bits: u8,
    /// Weight of the token against the channel, 0 (per channel) to 1 (per token)
    #[arg(long, value_name = "A", default_value_t = 0.15, allow_negative_numbers = true)]
    alpha: f64,
    /// Row factors: from the token's largest magnitude, or the smallest that does not clip
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Row::Absmax)]
    row: Row,
    /// Channel maxima, (channels,), from calibration [default: the maxima of x itself]
    #[arg(long, value_name = "FILE")]
    columns: Option<String>,
}

impl Spec {
    fn spec(&self) -> Result<CrossSpec> {
        let columns = columns(self.columns.as_deref())?;
        Ok(CrossSpec { bits: self.bits, alpha: self.alpha, row: self.row.into(), columns })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Row {
    Absmax,
    Tight,
}

impl From<Row> for RowFactor {
    fn from(row: Row) -> Self {
        match row {
            Row::Absmax => RowFactor::Absmax,
            Row::Tight => RowFactor::Tight,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Product {
    /// Dequantise both, multiply in float32: a simulation
    Fake,
    /// Integers, column factors folded into the weights
    Folded,
    /// Integers, one step per token
    PerToken,
    /// Integers, SmoothQuant's column factors
    Smoothquant,
}

impl From<Product> for Mode {
    fn from(product: Product) -> Self {
        match product {
            Product::Fake => Mode::Fake,
            Product::Folded => Mode::Folded,
            Product::PerToken => Mode::PerToken,
            Product::Smoothquant => Mode::SmoothQuant,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Sweep {
    /// Activations, (tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Weights, (outputs, channels): measure the product too, and choose by it
    #[arg(long, value_name = "FILE", alias = "weights")]
    w: Option<String>,
    /// Bits of a code, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 8)]
    bits: u8,
    /// Bits of a weight, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 8)]
    wbits: u8,
    /// Columns that share a weight scale; 0 for whole rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    group: usize,
    /// Exponents to try, 0 to 1, separated by commas [default: 0,0.05,...,1]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    grid: Option<Vec<f64>>,
    /// Which product
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Product::Fake)]
    mode: Product,
    /// Row factors [default: absmax for fake, tight for integer products]
    #[arg(long, value_enum, value_name = "HOW")]
    row: Option<Row>,
    /// File for the table (JSON)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Matmul {
    /// Activations, (tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Weights, (outputs, channels), real numbers
    #[arg(long, value_name = "FILE", alias = "w")]
    weights: String,
    /// Which product
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Product::Folded)]
    mode: Product,
    /// Bits of an activation's code, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 8)]
    abits: u8,
    /// Bits of a weight, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 8)]
    wbits: u8,
    /// Columns that share a weight scale; 0 for whole rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    group: usize,
    /// Exponent, 0 to 1 [default: 0.15 for fake, 0.5 for folded and smoothquant]
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Cross-quantise the weights too, with this exponent (fake only)
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    weight_alpha: Option<f64>,
    /// Row factors [default: absmax for fake, tight for folded]
    #[arg(long, value_enum, value_name = "HOW")]
    row: Option<Row>,
    /// Channel maxima, (channels,), from calibration [default: the maxima of x itself]
    #[arg(long, value_name = "FILE")]
    columns: Option<String>,
    /// Bias, (outputs,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// File for Y, (tokens, outputs) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Calibrate {
    /// A batch of activations, (tokens, channels); may be given several times. A whole .safetensors file is one
    /// batch of each layer
    #[arg(long, value_name = "FILE", required = true)]
    x: Vec<String>,
    /// Percentile of the magnitudes of a channel, 0 to 100 (100 is the maximum)
    #[arg(long, value_name = "P", default_value_t = 100.0, allow_negative_numbers = true)]
    percentile: f64,
    /// Tokens kept for percentiles; up to so many they are exact
    #[arg(long, value_name = "N", default_value_t = ColumnStats::DEFAULT_CAPACITY)]
    sample: usize,
    /// File for the maxima, (channels,) float32; .safetensors for one tensor per layer
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Codes { spec, out_dir } => codes(spec, out_dir, ctx),
        Verb::Kernel { spec, out } => kernel(spec, out.as_deref(), ctx),
        Verb::Sweep(args) => run_sweep(args),
        Verb::RemoveKernel { spec, out } => {
            let x = input::f32::<2>("--x", &spec.x)?;
            let bare = remove_kernel(x.view("--x")?, &spec.spec()?)?;
            let zeros = bare.as_slice().iter().filter(|x| **x == 0.0).count();
            let mut answer = Answer::new();
            answer.set("shape", json!(bare.shape())).set("zeros", zeros);
            output::tensor(out, bare)?;
            Ok(answer)
        }
        Verb::Matmul(args) => matmul(args, ctx),
        Verb::Calibrate(args) => calibrate(args, ctx),
    }
}

fn columns(file: Option<&str>) -> Result<Columns> {
    Ok(match file {
        Some(file) => Columns::Static(input::f32_vector("--columns", file)?),
        None => Columns::Dynamic,
    })
}

fn row_name(row: RowFactor) -> &'static str {
    match row {
        RowFactor::Absmax => "absmax",
        RowFactor::Tight => "tight",
    }
}

/// What every report says about how activations were quantised.
fn describe(answer: &mut Answer, spec: &CrossSpec) {
    let columns = if spec.columns == Columns::Dynamic { "dynamic" } else { "static" };
    answer
        .set("bits", spec.bits)
        .set("alpha", spec.alpha)
        .set("row", row_name(spec.row))
        .set("columns", columns);
}

fn warn_of_loss(lost: usize, ctx: &Ctx) {
    if lost > 0 {
        ctx.warn(format_args!(
            "{lost} elements lie in channels whose maximum is 0 in --columns; they are lost"
        ));
    }
}

/// Counts of codes, under the names that all reports share.
fn counts(answer: &mut Answer, codes: &CrossCodes) {
    let kernel = codes.kernel();
    answer.set("clipped", codes.clipped()).set("lost", codes.lost());
    answer.set("kernel", kernel.share).set("kernel_nonzero", kernel.nonzero);
    answer.set("exact_zeros", codes.exact_zeros());
}

fn vector(values: &[f32]) -> Result<Tensor<f32, 1>> {
    Ok(Tensor::from_slice([values.len()], values)?)
}

fn codes(args: &Spec, dir: &Path, ctx: &Ctx) -> Result<Answer> {
    let (x, spec) = (input::f32::<2>("--x", &args.x)?, args.spec()?);
    let codes = quantize(x.view("--x")?, &spec)?;
    output::folder(dir)?;
    output::tensor(&dir.join("codes.npy"), codes.view()?.to_tensor()?)?;
    output::tensor(&dir.join("row.npy"), vector(codes.row())?)?;
    output::tensor(&dir.join("col.npy"), vector(codes.col())?)?;
    warn_of_loss(codes.lost(), ctx);
    let mut answer = Answer::new();
    answer.set("shape", json!(codes.shape()));
    describe(&mut answer, &spec);
    counts(&mut answer, &codes);
    answer.also_to(Some(&dir.join("report.json")));
    Ok(answer)
}

fn kernel(args: &Spec, out: Option<&Path>, ctx: &Ctx) -> Result<Answer> {
    let (x, spec) = (input::f32::<2>("--x", &args.x)?, args.spec()?);
    let report = kernel_report(x.view("--x")?, &spec)?;
    warn_of_loss(report.lost, ctx);
    let mut answer = Answer::new();
    describe(&mut answer, &spec);
    for (name, share) in [
        ("kernel", report.kernel),
        ("per_token_kernel", report.per_token),
        ("per_column_kernel", report.per_column),
    ] {
        answer.set(name, share.share).set(&format!("{name}_nonzero"), share.nonzero);
    }
    answer.set("exact_zeros", report.exact_zeros).set("columns_below_row", report.columns_below_row);
    answer.set("clipped", report.clipped).set("lost", report.lost);
    answer.also_to(out);
    Ok(answer)
}

fn run_sweep(args: &Sweep) -> Result<Answer> {
    let x = input::f32::<2>("--x", &args.x)?;
    let w = args.w.as_ref().map(|w| input::f32::<2>("--w", w)).transpose()?;
    let mode = Mode::from(args.mode);
    let row = args.row.map_or(LinearConfig::for_mode(mode).spec.row, RowFactor::from);
    let spec = CrossSpec { bits: args.bits, row, ..CrossSpec::default() };
    let weights = match &w {
        Some(w) => Some(SweepWeights { w: w.view("--w")?, bits: args.wbits, group: args.group, mode }),
        None => None,
    };
    let grid = args.grid.clone().unwrap_or_else(default_grid);
    let found = sweep(x.view("--x")?, weights.as_ref(), &spec, &grid)?;
    let point = |p: &kc_quant::crossquant::SweepPoint| {
        json!({
            "alpha": p.alpha,
            "kernel": p.kernel.share,
            "kernel_nonzero": p.kernel.nonzero,
            "clipped": p.clipped,
            "err_x": p.x_error,
            "err_y": p.y_error,
        })
    };
    let mut answer = Answer::new();
    answer.set("mode", mode.name()).set("bits", args.bits).set("row", row_name(row));
    if w.is_some() {
        answer.set("wbits", args.wbits).set("group", args.group);
    }
    answer.set("best_alpha", found.points[found.best].alpha);
    answer.set("points", found.points.iter().map(point).collect::<Vec<Value>>());
    answer.also_to(args.out.as_deref());
    Ok(answer)
}

fn matmul(args: &Matmul, ctx: &Ctx) -> Result<Answer> {
    let mode = Mode::from(args.mode);
    let mut config = LinearConfig::for_mode(mode);
    config.spec.bits = args.abits;
    config.spec.alpha = args.alpha.unwrap_or(config.spec.alpha);
    config.spec.row = args.row.map_or(config.spec.row, RowFactor::from);
    config.spec.columns = columns(args.columns.as_deref())?;
    config.weight_bits = args.wbits;
    config.group = args.group;
    config.weight_alpha = args.weight_alpha;
    let (x, w) = (input::f32::<2>("--x", &args.x)?, input::f32::<2>("--weights", &args.weights)?);
    let bias = args.bias.as_ref().map(|b| input::f32_vector("--bias", b)).transpose()?;
    let (x, w): (TensorView<'_, f32, 2>, _) = (x.view("--x")?, w.view("--weights")?);
    let layer = CrossLinear::new(w, bias.as_deref(), &config)?;
    let (mut y, mut codes) = (Tensor::zeros([x.rows(), w.rows()])?, CrossCodes::new());
    layer.forward_into(x, y.view_mut(), &mut codes)?;
    output::tensor(&args.out, y)?;
    warn_of_loss(codes.lost(), ctx);
    let mut answer = Answer::new();
    answer.set("mode", mode.name()).set("shape", json!([x.rows(), w.rows()]));
    answer.set("abits", args.abits).set("wbits", args.wbits).set("group", args.group);
    describe(&mut answer, &config.spec);
    answer.set("refolded", layer.refolds()).set("weight_bytes", layer.bytes());
    counts(&mut answer, &codes);
    Ok(answer)
}

fn calibrate(args: &Calibrate, ctx: &Ctx) -> Result<Answer> {
    let is_archive = |path: &Path| path.extension().is_some_and(|e| e == "safetensors");
    let layers = args.x.iter().all(|x| is_archive(Path::new(x)));
    if layers != is_archive(&args.out) {
        return Err(Usage(
            "--out: expected .safetensors for whole .safetensors files, else one vector".into(),
        )
        .into());
    }
    let mut answer = Answer::new();
    answer.set("percentile", args.percentile).set("batches", args.x.len());
    if !layers {
        let mut stats = None;
        for file in &args.x {
            observe(&mut stats, input::f32::<2>("--x", file)?.view("--x")?, args, ctx)?;
        }
        let stats = stats.ok_or_else(|| Usage("--x: expected at least one file".into()))?;
        output::tensor(&args.out, vector(&stats.percentile(args.percentile)?)?)?;
        answer.set("tokens", stats.rows()).set("channels", stats.maxima().len());
        return Ok(answer);
    }
    let mut all: Vec<(String, Option<ColumnStats>)> = Vec::new();
    for file in &args.x {
        for name in SafeTensorsFile::open(file)?.names() {
            let x = input::f32::<2>("--x", &format!("{file}:{name}"))?;
            let at = all.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                all.push((name.clone(), None));
                all.len() - 1
            });
            observe(&mut all[at].1, x.view(name)?, args, ctx)?;
        }
    }
    let mut out = Vec::with_capacity(all.len());
    for (name, stats) in &all {
        let maxima = stats.as_ref().map_or(Ok(Vec::new()), |s| s.percentile(args.percentile))?;
        out.push((name.clone(), vector(&maxima)?.into_any()));
    }
    answer.set("layers", out.len());
    kc_io::safetensors::write(&args.out, &out, &BTreeMap::new())?;
    Ok(answer)
}

/// Adds a batch, making the statistics with the first.
fn observe(
    stats: &mut Option<ColumnStats>,
    x: TensorView<'_, f32, 2>,
    args: &Calibrate,
    ctx: &Ctx,
) -> Result<()> {
    let stats = match stats {
        Some(stats) => stats,
        None if args.percentile == 100.0 => stats.insert(ColumnStats::new(x.cols())),
        None => stats.insert(ColumnStats::with_sample(x.cols(), args.sample, ctx.seed()?, 0)?),
    };
    Ok(stats.observe(x)?)
}
