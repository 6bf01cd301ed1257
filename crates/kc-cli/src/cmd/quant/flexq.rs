//! `kc quant flexq`: 6-bit weights, 6- or 8-bit activations.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use kc_core::{Error, Tensor};
use kc_quant::flexq::{
    self, Activations, FlexLinear, KernelChoice, LayerSample, Plan, Policy, QuantMatrix, QuantSpec, Scheme,
    to_planes,
};
use kc_quant::metrics::relative_error;
use kc_quant::stored::{LayerWeights, StoredLayer};
use kc_quant::{Group, ScaleDtype};
use serde_json::{Map, Value, json};

use crate::report::{Answer, Usage};
use crate::weights::{self, WeightFile};
use crate::{input, output};

/// Weights of 6 bits (or 1 to 8) in groups, multiplied as integers with activations of 6 or 8 bits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quant flexq pack --weights w.npy --out q.safetensors\n  \
                  kc quant flexq matmul --x x.npy --packed q.safetensors --abits 6 --out y.npy\n  \
                  kc quant flexq sensitivity --layers layers.json --policy budget:0.34 --out plan.json\n  \
                  kc quant flexq unpack --packed q.safetensors --out w.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Quantise a matrix and store it as compressed-tensors does
    #[command(
        after_help = "Example:\n  kc quant flexq pack --weights model.safetensors --tensor layer.weight --out q.safetensors"
    )]
    Pack(Pack),
    /// Multiply: Y = X W^T + bias, as integers
    #[command(
        after_help = "Examples:\n  kc quant flexq matmul --x x.npy --weights w.npy --abits 8 --out y.npy\n  \
                      kc quant flexq matmul --x x.npy --planes planes.npy --scales s.npy --kernel popcount --out y.npy"
    )]
    Matmul(Matmul),
    /// Measure the error of each layer with 6, 8 and 16-bit activations, and choose which get 8
    #[command(
        after_help = "Example:\n  kc quant flexq sensitivity --layers layers.json --policy threshold:2.0 --out plan.json\n\n\
                      layers.json: [{\"name\": \"up\", \"weights\": \"w.npy\", \"x\": \"x.npy\"}, ...]"
    )]
    Sensitivity(Sensitivity),
    /// Write what packed codes stand for
    #[command(after_help = "Example:\n  kc quant flexq unpack --packed q.safetensors --out w.npy")]
    Unpack {
        /// Packed weights (.safetensors)
        #[arg(long, value_name = "FILE")]
        packed: String,
        /// File for W, (rows, columns) float32
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// A group: a number of columns, or `row`.
#[derive(Debug, Clone, Copy)]
struct GroupArg(Group);

impl FromStr for GroupArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "row" {
            return Ok(Self(Group::Row));
        }
        match text.parse() {
            Ok(size) => Ok(Self(Group::Size(size))),
            Err(_) => Err("expected a number of columns, or row".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemeArg {
    /// Signed codes around 0
    Sym,
    /// Unsigned codes for a range that contains 0
    Asym,
    /// Unsigned codes for the range of the data
    #[value(name = "asym_free", alias = "asym-free")]
    AsymFree,
}

impl From<SchemeArg> for Scheme {
    fn from(scheme: SchemeArg) -> Self {
        match scheme {
            SchemeArg::Sym => Scheme::Sym,
            SchemeArg::Asym => Scheme::Asym,
            SchemeArg::AsymFree => Scheme::AsymFree,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScaleArg {
    F32,
    F16,
    Bf16,
}

impl From<ScaleArg> for ScaleDtype {
    fn from(dtype: ScaleArg) -> Self {
        match dtype {
            ScaleArg::F32 => ScaleDtype::F32,
            ScaleArg::F16 => ScaleDtype::F16,
            ScaleArg::Bf16 => ScaleDtype::Bf16,
        }
    }
}

/// How weights are quantised, but for their bits.
#[derive(Debug, clap::Args)]
struct Spec {
    /// Columns that share a scale, at least 1, or `row`
    #[arg(long, value_name = "N|row", default_value = "128", allow_negative_numbers = true)]
    group: GroupArg,
    /// What codes range over
    #[arg(long, value_enum, value_name = "SCHEME", default_value_t = SchemeArg::Sym)]
    scheme: SchemeArg,
    /// Type that stores scales
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = ScaleArg::F32)]
    scale_dtype: ScaleArg,
    /// Smallest scale, at least 0
    #[arg(long, value_name = "S", default_value_t = 0.0, allow_negative_numbers = true)]
    scale_floor: f32,
}

impl Spec {
    fn spec(&self, bits: u8) -> QuantSpec {
        QuantSpec {
            bits,
            group: self.group.0,
            scheme: self.scheme.into(),
            scale_dtype: self.scale_dtype.into(),
            scale_floor: self.scale_floor,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Pack {
    /// Weights, (rows, columns), real numbers; or a model with --tensor
    #[arg(long, value_name = "FILE")]
    weights: String,
    /// Tensor of the model
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Bits of a code, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 6)]
    bits: u8,
    #[command(flatten)]
    spec: Spec,
    /// File to write (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for codes.npy, scales.npy, zeros.npy and (if 128 divides the columns) planes.npy
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KernelArg {
    /// The fastest of this processor
    Auto,
    /// AVX-512 VNNI
    Vnni,
    /// Bit planes, AND and population count
    Popcount,
    /// AVX2
    Avx2,
    /// Any processor
    Portable,
    /// The definition in plain loops
    Reference,
}

impl From<KernelArg> for KernelChoice {
    fn from(kernel: KernelArg) -> Self {
        match kernel {
            KernelArg::Auto => KernelChoice::Auto,
            KernelArg::Vnni => KernelChoice::Vnni,
            KernelArg::Popcount => KernelChoice::Popcount,
            KernelArg::Avx2 => KernelChoice::Avx2,
            KernelArg::Portable => KernelChoice::Portable,
            KernelArg::Reference => KernelChoice::Reference,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Matmul {
    /// Activations, (tokens, columns of W), real numbers
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Weights, (rows, columns), real numbers, quantised first
    #[arg(long, value_name = "FILE", required_unless_present_any = ["packed", "planes"])]
    weights: Option<String>,
    /// Packed weights (.safetensors)
    #[arg(long, value_name = "FILE", conflicts_with = "weights")]
    packed: Option<String>,
    /// Bit planes, (K/128, tiles, bits, rows of a tile, 4) uint32, symmetric codes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weights", "packed"], requires = "scales")]
    planes: Option<String>,
    /// Scales of the planes, (rows, groups)
    #[arg(long, value_name = "FILE", requires = "planes")]
    scales: Option<String>,
    /// Bits of activations, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 6)]
    abits: u8,
    /// Bits of weights, 1 to 8 (with --weights)
    #[arg(long, value_name = "N", default_value_t = 6)]
    wbits: u8,
    #[command(flatten)]
    spec: Spec,
    /// Bias, (rows of W,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// Kernel; all give the same bits
    #[arg(long, value_enum, value_name = "KERNEL", default_value_t = KernelArg::Auto)]
    kernel: KernelArg,
    /// File for Y, (tokens, rows of W) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for what activations became: codes.npy, scales.npy, zeros.npy
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Sensitivity {
    /// Layers (JSON): [{"name", "weights", "x"}, ...], files relative to it
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    layers: Option<PathBuf>,
    /// Model with the weights (.safetensors), instead of --layers
    #[arg(long, value_name = "FILE", requires = "activations", conflicts_with = "layers")]
    model: Option<String>,
    /// Folder with the inputs of each layer as NAME.npy
    #[arg(long, value_name = "DIR", requires = "model")]
    activations: Option<PathBuf>,
    /// Which layers get 8-bit activations: threshold:T (e6 > T e16), budget:B (share of multiplications, 0 to 1) or
    /// names:SUFFIX,... (without suffixes: the published ones)
    #[arg(long, value_name = "POLICY", default_value = "threshold:2.0")]
    policy: PolicyArg,
    /// Bits of weights, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 6)]
    wbits: u8,
    #[command(flatten)]
    spec: Spec,
    /// Choose 4, 6 or 8 bits for the weights of each layer too
    #[arg(long)]
    all_w_bits: bool,
    /// File for the plan (JSON)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct PolicyArg(Policy);

impl FromStr for PolicyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        let number = || value.parse::<f64>().map_err(|_| format!("expected a number after {kind}:"));
        Ok(Self(match kind {
            "threshold" => Policy::Threshold(number()?),
            "budget" => Policy::Budget(number()?),
            "names" if value.is_empty() => Policy::published_names(),
            "names" => Policy::Names(value.split(',').map(str::to_owned).collect()),
            _ => return Err("expected threshold:T, budget:B or names:SUFFIX,...".into()),
        }))
    }
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match &args.verb {
        Verb::Pack(args) => pack(args),
        Verb::Matmul(args) => matmul(args),
        Verb::Sensitivity(args) => sensitivity(args),
        Verb::Unpack { packed, out } => {
            let w = load(packed)?.dequantize()?;
            let mut answer = Answer::new();
            answer.set("shape", json!(w.shape()));
            output::tensor(out, w)?;
            Ok(answer)
        }
    }
}

fn pack(args: &Pack) -> Result<Answer> {
    let location = match &args.tensor {
        Some(tensor) => format!("{}:{tensor}", args.weights),
        None => args.weights.clone(),
    };
    let w = input::f32::<2>("--weights", &location)?;
    let q = QuantMatrix::quantize(w.view("--weights")?, &args.spec.spec(args.bits))?;
    let error = relative_error(q.dequantize()?.view(), w.view("--weights")?)?;
    if let Some(dir) = &args.dump_dir {
        output::folder(dir)?;
        let codes = q.codes()?;
        output::tensor(&dir.join("scales.npy"), q.scales()?)?;
        output::tensor(&dir.join("zeros.npy"), q.zeros()?)?;
        if codes.shape()[1].is_multiple_of(128) {
            output::tensor(&dir.join("planes.npy"), to_planes(codes.view(), args.bits)?)?;
        }
        output::tensor(&dir.join("codes.npy"), codes)?;
    }
    let bits_per_weight = q.bits_per_weight();
    let shape = q.uniform().shape();
    let (tensors, texts) = StoredLayer::of(LayerWeights::Flexq(q)).to_tensors()?;
    kc_io::safetensors::write(&args.out, &tensors, &texts)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(shape)).set("bits", args.bits);
    answer.set("bits_per_weight", bits_per_weight).set("rel_error", error);
    answer.set("bytes", tensors.iter().map(|(_, t)| t.bytes().len()).sum::<usize>());
    Ok(answer)
}

/// The only layer of a packed file.
fn load(path: &str) -> Result<QuantMatrix> {
    let (_, stored) = WeightFile::open_path(path)?.get(None)?;
    if let weights::Stored::Native(layer) = &stored
        && let (LayerWeights::Flexq(q), None) = (layer.weights(), layer.column_factors())
    {
        return Ok(q.clone());
    }
    // Files of other programs have codes, but not how activations are to be quantised.
    let uniform = stored.to_uniform()?.ok_or_else(|| Error::parse(path, "there are no packed weights"))?;
    Ok(QuantMatrix::from_uniform(uniform, &QuantSpec::default())?)
}

fn matmul(args: &Matmul) -> Result<Answer> {
    let x = input::f32::<2>("--x", &args.x)?;
    let x = x.view("--x")?;
    let bias = args.bias.as_ref().map(|b| input::f32_vector("--bias", b)).transpose()?;
    let w = args.weights.as_ref().map(|w| input::f32::<2>("--weights", w)).transpose()?;
    let choice = KernelChoice::from(args.kernel);
    let layer = if let (Some(planes), Some(scales)) = (&args.planes, &args.scales) {
        if !matches!(choice, KernelChoice::Auto | KernelChoice::Popcount) {
            return Err(Usage("--kernel: planes are multiplied by popcount".into()).into());
        }
        let (planes, scales) = (input::any("--planes", planes)?, input::f32::<2>("--scales", scales)?);
        let columns = planes.shape().first().map_or(0, |chunks| chunks * 128);
        let group = args.spec.group.0.len(columns)?;
        FlexLinear::from_planes(planes.view("--planes")?, scales.view("--scales")?, group, bias.as_deref())?
    } else {
        let q = match (&args.packed, &w) {
            (Some(packed), _) => load(packed)?,
            (None, Some(w)) => QuantMatrix::quantize(w.view("--weights")?, &args.spec.spec(args.wbits))?,
            (None, None) => return Err(Usage("--weights, --packed or --planes is needed".into()).into()),
        };
        FlexLinear::new(&q, bias.as_deref(), choice)?
    };
    let mut y = Tensor::<f32, 2>::zeros([x.rows(), layer.shape()[0]])?;
    let mut codes = Activations::new();
    let start = Instant::now();
    layer.forward_into(x, args.abits, y.view_mut(), &mut codes)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut answer = Answer::new();
    answer.set("kernel", layer.kernel().name()).set("shape", json!(y.shape()));
    answer.set("abits", args.abits).set("seconds", seconds).set("bytes", layer.bytes());
    if let Some(w) = &w {
        let mut exact = kc_gemm::gemm(x, w.view("--weights")?.transposed())?;
        if let Some(bias) = &bias {
            for row in exact.as_mut_slice().chunks_mut(bias.len().max(1)) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        answer.set("rel_error", relative_error(y.view(), exact.view())?);
    }
    if let Some(dir) = &args.dump_dir {
        dump(dir, &codes)?;
    }
    output::tensor(&args.out, y)?;
    Ok(answer)
}

fn dump(dir: &Path, codes: &Activations) -> Result<()> {
    output::folder(dir)?;
    let [m, k] = codes.shape();
    let groups = codes.scales().len().checked_div(m).unwrap_or(0);
    output::tensor(&dir.join("codes.npy"), Tensor::from_slice([m, k], &codes.codes())?)?;
    output::tensor(&dir.join("scales.npy"), Tensor::from_slice([m, groups], &codes.scales())?)?;
    output::tensor(&dir.join("zeros.npy"), Tensor::from_slice([m, groups], &codes.zeros())?)
}

/// Weights and inputs of a layer, loaded.
type Sample = (String, input::Loaded<f32, 2>, input::Loaded<f32, 2>);

fn sensitivity(args: &Sensitivity) -> Result<Answer> {
    let samples = samples(args)?;
    let layers = samples
        .iter()
        .map(|(name, w, x)| Ok(LayerSample { name, w: w.view("weights")?, x: x.view("x")? }))
        .collect::<Result<Vec<_>>>()?;
    let rows = flexq::sensitivity(&layers, &args.spec.spec(args.wbits))?;
    let mut plan = flexq::plan(&rows, args.wbits, &args.policy.0)?;
    if args.all_w_bits {
        let threshold = if let Policy::Threshold(t) = args.policy.0 { t } else { 2.0 };
        plan.choose_weight_bits(&rows, threshold);
    }
    let mut answer = Answer::from_map(plan_json(&plan));
    answer.text(table(&plan)).also_to(args.out.as_deref());
    Ok(answer)
}

fn samples(args: &Sensitivity) -> Result<Vec<Sample>> {
    if let (Some(model), Some(dir)) = (&args.model, &args.activations) {
        let file = kc_io::SafeTensorsFile::open(model)?;
        let load = |name: &String| -> Result<Option<Sample>> {
            let x = dir.join(format!("{name}.npy"));
            let short = name.strip_suffix(".weight").unwrap_or(name);
            let x = if x.is_file() { x } else { dir.join(format!("{short}.npy")) };
            if !x.is_file() {
                return Ok(None);
            }
            let w = input::f32("--model", &format!("{model}:{name}"))?;
            Ok(Some((short.to_owned(), w, input::f32("--activations", &x.to_string_lossy())?)))
        };
        let found =
            file.names().iter().filter_map(|name| load(name).transpose()).collect::<Result<Vec<_>>>()?;
        if found.is_empty() {
            return Err(Error::argument("--activations", "a .npy for a tensor of the model", "none").into());
        }
        return Ok(found);
    }
    let path = args.layers.as_deref().context("--layers is needed")?;
    let list = kc_io::json::read(path)?;
    let bad = |what: &str| Error::parse(path.display().to_string(), what);
    let entries = list.as_array().ok_or_else(|| bad("expected a list of layers"))?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let load = |entry: &Value| -> Result<Sample> {
        let text = |key: &str| {
            entry.get(key).and_then(Value::as_str).ok_or_else(|| bad(&format!("a layer has no text `{key}`")))
        };
        // Relative to the list, or else to where the program runs.
        let file = |key: &str| -> Result<String> {
            let name = text(key)?;
            let beside = folder.join(name);
            let known = beside.exists() || beside.to_string_lossy().contains(".safetensors:");
            Ok(if known { beside.to_string_lossy().into_owned() } else { name.to_owned() })
        };
        let (w, x) = (input::f32("weights", &file("weights")?)?, input::f32("x", &file("x")?)?);
        Ok((text("name")?.to_owned(), w, x))
    };
    entries.iter().map(load).collect()
}

/// A plan as it is stored: bits and errors of each layer by name.
fn plan_json(plan: &Plan) -> Map<String, Value> {
    let layer = |(name, l): (&String, &flexq::PlannedLayer)| {
        let value = json!({
            "abits": l.abits, "wbits": l.wbits, "e6": l.e6, "e8": l.e8, "e16": l.e16, "macs": l.macs,
        });
        (name.clone(), value)
    };
    plan.layers.iter().map(layer).collect()
}

fn table(plan: &Plan) -> String {
    let width = plan.layers.keys().map(String::len).max().unwrap_or(0).max(5);
    let mut lines = vec![format!("{:width$}  W  A  e6      e8      e16     e6/e16", "layer")];
    for (name, l) in &plan.layers {
        let ratio = l.e6 / l.e16;
        let (w, a) = (l.wbits, l.abits);
        lines.push(format!("{name:width$}  {w}  {a}  {:.4}  {:.4}  {:.4}  {ratio:.2}", l.e6, l.e8, l.e16));
    }
    lines.push(format!("8-bit activations: {:.1} % of the multiplications", 100.0 * plan.share_of_8_bits()));
    lines.join("\n")
}
