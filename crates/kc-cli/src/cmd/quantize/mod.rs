//! `kc quantize`: a whole model, tensor by tensor.

mod method;
mod spool;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use kc_core::{AnyTensor, Tensor};
use kc_io::{Format, Location, SafeTensorsFile};
use kc_quant::flexq::{LayerSample, QuantSpec, sensitivity};
use kc_quant::linear::Activations;
use kc_quant::lut_gemm::LutMode;
use kc_quant::metrics::relative_error;
use kc_quant::stored::{Method, StoredLayer, Texts};
use serde_json::{Map, Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::weights::LAYERS;
use method::{MethodArgs, Settings};
use spool::Spool;

/// Quantise a model: every linear layer, one at a time, with a report. A job that was stopped goes on where it was.
///
/// Memory is bounded by the largest tensor. Layers are the matrices whose name ends with .weight, but for embeddings,
/// norms and heads; --include and --exclude choose others. All other tensors are copied.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc quantize model.safetensors --method flexq -o q.safetensors\n  \
                  kc quantize model.safetensors.index.json --method bcq --bits 3 -o quantised\n  \
                  kc quantize model.safetensors --method crossquant --calibration acts -o q.safetensors\n  \
                  kc quantize model.safetensors --method flexq --plan plan.json --calibration acts -o q.safetensors\n\n\
                  Then: kc quant inspect --in q.safetensors; kc quant matmul --x x.npy --in q.safetensors --tensor LAYER --out y.npy")]
pub(crate) struct Args {
    /// Model: .safetensors, or .safetensors.index.json of a model in several files
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    method: MethodArgs,
    /// Quantise only matrices of such names; * stands for anything. May be given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave tensors of such names as they are. May be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Inputs of layers, for errors of their outputs and for what bcq and crossquant learn from them: a .safetensors
    /// file, or a folder of .npy files, by layer names
    #[arg(long, value_name = "PATH")]
    calibration: Option<PathBuf>,
    /// Begin anew, whatever an earlier job left
    #[arg(long)]
    restart: bool,
    /// Result: a .safetensors file, or a folder for files like those of the model with their index
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
}

/// The model's files.
struct Model {
    file: SafeTensorsFile,
    /// The file of each tensor, by name; only one for a model of one file.
    shards: BTreeMap<String, Vec<String>>,
    sources: Vec<PathBuf>,
}

impl Model {
    fn open(path: &Path) -> Result<Self> {
        let text = path.to_string_lossy();
        let location = Location::parse(text.as_ref())?;
        match location.format {
            Format::SafeTensors if location.tensor.is_none() => {
                let file = SafeTensorsFile::open(path)?;
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let shards = BTreeMap::from([(name, file.names().to_vec())]);
                Ok(Self { file, shards, sources: vec![path.to_path_buf()] })
            }
            Format::SafeTensorsIndex => {
                let file = SafeTensorsFile::open_index(path)?;
                let index = kc_io::json::read(path)?;
                let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for (name, shard) in index.get("weight_map").and_then(Value::as_object).into_iter().flatten()
                {
                    if let Some(shard) = shard.as_str() {
                        shards.entry(shard.to_owned()).or_default().push(name.clone());
                    }
                }
                let mut sources: Vec<PathBuf> = shards.keys().map(|s| path.with_file_name(s)).collect();
                sources.push(path.to_path_buf());
                Ok(Self { file, shards, sources })
            }
            _ => Err(Usage("MODEL: expected .safetensors or .safetensors.index.json".into()).into()),
        }
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let model = Model::open(&args.model)?;
    let single = args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
    let settings = Settings::new(&args.method)?;
    let calibration = args.calibration.as_deref().map(Calibration::open).transpose()?;
    if settings.needs_inputs() && calibration.is_none() {
        return Err(Usage("--method crossquant: needs --columns or --calibration".into()).into());
    }
    let layers: Vec<String> =
        model.shards.values().flatten().filter(|name| is_layer(&model.file, name, args)).cloned().collect();
    let job = job(args, &model)?;
    let mut spool = Spool::open(&args.out, &job, args.restart)?;
    let resumed = layers.iter().filter(|name| spool.get(layer_name(name)).is_some()).count();
    if resumed > 0 {
        ctx.say(format_args!("{resumed} of {} layers were done before", layers.len()));
    }
    let bar = progress(ctx, layers.len() as u64);
    for tensor in &layers {
        let name = layer_name(tensor);
        bar.set_message(name.to_owned());
        if spool.get(name).is_none() {
            let (tensors, texts, report) = quantize(&model.file, tensor, &settings, calibration.as_ref())
                .with_context(|| name.to_owned())?;
            spool.put(name, &tensors, texts, report)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let written = assemble(args, &model, &layers, &spool, single)?;
    let reports: Vec<Value> =
        layers.iter().filter_map(|name| Some(spool.get(layer_name(name))?.report.clone())).collect();
    spool.finish()?;
    Ok(answer(&args.method, reports, resumed, written))
}

/// A layer's name: its tensor's without `.weight`.
fn layer_name(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn is_layer(file: &SafeTensorsFile, name: &str, args: &Args) -> bool {
    let Ok(raw) = file.raw(name) else { return false };
    let matrix = raw.shape.len() == 2 && raw.shape.iter().all(|&d| d > 0);
    if !matrix || !["F16", "BF16", "F32", "F64"].contains(&raw.dtype.as_str()) {
        return false;
    }
    if args.exclude.iter().any(|pattern| matches(pattern, name)) {
        return false;
    }
    if !args.include.is_empty() {
        return args.include.iter().any(|pattern| matches(pattern, name));
    }
    let lower = name.to_ascii_lowercase();
    let left_out = ["embed", "norm", "lm_head", "wte", "wpe"];
    name.ends_with(".weight") && !left_out.iter().any(|part| lower.contains(part))
}

/// True if `name` is `pattern` with anything for each `*`; also with `.weight` left away.
fn matches(pattern: &str, name: &str) -> bool {
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
            Some((c, rest)) => name.first() == Some(c) && fits(rest, &name[1..]),
        }
    }
    fits(pattern.as_bytes(), name.as_bytes()) || fits(pattern.as_bytes(), layer_name(name).as_bytes())
}

/// What must be the same for a job to go on.
fn job(args: &Args, model: &Model) -> Result<Value> {
    let mut files = model.sources.clone();
    files.extend(args.calibration.clone());
    files.extend(args.method.files());
    let files = files.iter().map(|path| spool::fingerprint(path)).collect::<Result<Vec<_>>>()?;
    let settings = format!("{:?} {:?} {:?}", args.method, args.include, args.exclude);
    Ok(json!({"kc": env!("CARGO_PKG_VERSION"), "settings": settings, "files": files}))
}

fn progress(ctx: &Ctx, layers: u64) -> ProgressBar {
    if ctx.global.quiet || ctx.global.no_progress {
        return ProgressBar::hidden();
    }
    // Drawn only if standard error is a terminal.
    let bar = ProgressBar::new(layers);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// Inputs of layers.
enum Calibration {
    File(SafeTensorsFile),
    Folder(PathBuf),
}

impl Calibration {
    fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Calibration::Folder(path.to_path_buf()));
        }
        Ok(Calibration::File(SafeTensorsFile::open(path)?))
    }

    /// The inputs of a layer, `[T, K]`, if there are any.
    fn get(&self, layer: &str) -> Result<Option<Tensor<f32, 2>>> {
        let any = match self {
            Calibration::File(file) => {
                match [layer.to_owned(), format!("{layer}.weight")].iter().find(|name| file.contains(name)) {
                    Some(name) => file.get(name)?,
                    None => return Ok(None),
                }
            }
            Calibration::Folder(folder) => {
                let path = folder.join(format!("{layer}.npy"));
                if !path.is_file() {
                    return Ok(None);
                }
                kc_io::read(&path)?
            }
        };
        Ok(Some(any.to_f32::<2>(format!("inputs of {layer}"))?))
    }
}

/// A layer's tensors, texts and report.
type Quantized = (Vec<(String, AnyTensor)>, Texts, Value);

fn quantize(
    file: &SafeTensorsFile,
    tensor: &str,
    settings: &Settings,
    calibration: Option<&Calibration>,
) -> Result<Quantized> {
    let start = Instant::now();
    let name = layer_name(tensor);
    let source = file.get(tensor)?;
    let w = source.to_f32::<2>(tensor.to_owned())?;
    let x = calibration.map(|c| c.get(name)).transpose()?.flatten();
    let factors = settings.factors(name, x.as_ref())?;
    let method = settings.method(name, x.as_ref());
    let layer = StoredLayer::quantize(w.view(), &method, factors.as_deref())?;
    let (tensors, texts) = layer.to_tensors()?;
    let bytes: usize = tensors.iter().map(|(_, t)| t.bytes().len()).sum();
    let mut report = json!({
        "layer": name,
        "shape": w.shape(),
        "method": texts.get("kc.system"),
        "bytes_before": source.bytes().len(),
        "bytes": bytes,
        "bits_per_weight": 8.0 * bytes as f64 / w.len() as f64,
        "rel_error": relative_error(layer.dequantize()?.view(), w.view())?,
    });
    if let Some(x) = &x {
        let exact = kc_gemm::gemm(x.view(), w.view().transposed())?;
        let error = |activations| -> Result<f64> {
            let y = layer.linear(None, activations, LutMode::F32)?.forward(x.view())?;
            Ok(relative_error(y.view(), exact.view())?)
        };
        report["output_error"] = json!(error(Activations::F32)?);
        if let Method::Flexq(spec) = &method {
            report["output_error_a8"] = json!(error(Activations::Bits(8))?);
            report["output_error_a6"] = json!(error(Activations::Bits(6))?);
            let sample = LayerSample { name, w: w.view(), x: x.view() };
            let row = &sensitivity(&[sample], &QuantSpec { bits: spec.bits, ..*spec })?[0];
            report["sensitivity"] = json!({"e6": row.e6, "e8": row.e8, "e16": row.e16});
        }
    }
    report["seconds"] = json!(start.elapsed().as_secs_f64());
    Ok((tensors, texts, report))
}

/// Writes the result, and returns its bytes.
fn assemble(args: &Args, model: &Model, layers: &[String], spool: &Spool, single: bool) -> Result<usize> {
    let quantised: HashSet<&str> = layers.iter().map(String::as_str).collect();
    let data = spool.data()?;
    let mut total = 0;
    let mut weight_map = Map::new();
    let shards: Vec<(PathBuf, Vec<&String>)> = if single {
        vec![(args.out.clone(), model.shards.values().flatten().collect())]
    } else {
        std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
        model.shards.iter().map(|(shard, names)| (args.out.join(shard), names.iter().collect())).collect()
    };
    for (path, names) in &shards {
        let mut tensors: Vec<(String, AnyTensor)> = Vec::new();
        let mut texts = Map::new();
        for name in names {
            if !quantised.contains(name.as_str()) {
                tensors.push(((*name).clone(), model.file.get(name)?));
                continue;
            }
            let layer = layer_name(name);
            let parts = spool.tensors(layer, &data)?;
            tensors.extend(parts.into_iter().map(|(part, tensor)| (format!("{layer}.{part}"), tensor)));
            texts.extend(spool.get(layer).map(|done| (layer.to_owned(), json!(done.texts))));
        }
        let mut metadata = model.file.metadata().clone();
        metadata.insert(LAYERS.to_owned(), Value::Object(texts).to_string());
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        kc_io::safetensors::write(path, &tensors, &metadata)?;
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for (name, tensor) in &tensors {
            total += tensor.bytes().len();
            weight_map.insert(name.clone(), json!(file));
        }
    }
    if !single {
        let layers: Map<String, Value> = layers
            .iter()
            .filter_map(|name| Some((layer_name(name).to_owned(), json!(spool.get(layer_name(name))?.texts))))
            .collect();
        let metadata = json!({"total_size": total, LAYERS: Value::Object(layers).to_string()});
        let index = json!({"metadata": metadata, "weight_map": weight_map});
        kc_io::json::write(args.out.join("model.safetensors.index.json"), &index)?;
    }
    Ok(total)
}

fn answer(method: &MethodArgs, reports: Vec<Value>, resumed: usize, written: usize) -> Answer {
    let sum = |key: &str| reports.iter().filter_map(|r| r[key].as_u64()).sum::<u64>();
    let (before, after) = (sum("bytes_before"), sum("bytes"));
    let text = table(&reports, before, after);
    let mut answer = Answer::new();
    answer.set("method", method.name()).set("quantised", reports.len()).set("resumed", resumed);
    answer.set("bytes_before", before).set("bytes", after).set("bytes_written", written);
    answer.set("layers", reports).text(text);
    answer
}

fn table(reports: &[Value], before: u64, after: u64) -> String {
    let width = reports.iter().filter_map(|r| r["layer"].as_str()).map(str::len).max().unwrap_or(0).max(5);
    let mut lines = vec![format!("{:width$}  {:>14}  bits/w  error W  error Y", "layer", "shape")];
    for r in reports {
        let number = |key: &str| r[key].as_f64().map_or_else(|| "-".to_owned(), |v| format!("{v:.5}"));
        let (name, shape) = (r["layer"].as_str().unwrap_or_default(), r["shape"].to_string());
        let bits = r["bits_per_weight"].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "{name:width$}  {shape:>14}  {bits:6.3}  {:7}  {}",
            number("rel_error"),
            number("output_error")
        ));
    }
    let ratio = before as f64 / (after as f64).max(1.0);
    lines.push(format!("{} layers: {before} bytes became {after} ({ratio:.2} times less)", reports.len()));
    lines.join("\n")
}
