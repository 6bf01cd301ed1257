//! `kc attention sea`, `sea-init`, `sea-distill` and `sparse`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kc_attention::sea::{
    DistillConfig, Group, SeaConfig, SeaInputs, SeaLayer, SeaLoss, SeaParams, SeaTrace, Span, Teacher,
    distill, sparse_attention,
};
use kc_core::{AnyTensor, Bytes, DType, Error, Tensor, TensorView};
use kc_io::safetensors::SafeTensorsFile;
use kc_sparse::FlatCsr;
use serde_json::{Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

/// What every page of a layer says about its settings.
const SETTINGS: &str = "\
Settings (JSON): heads, head_dim, t_m (cells of an estimated row; a multiple of 4 if causal, else of 2), k (tokens kept \
per query and head), causal; and, if they differ from the defaults, nb_factor (1), group (\"causal_batch\", \"query\", \
\"head\", \"batch\"), max_span (\"k\", a number, or null for all columns of a cell), oversample (1), partial_scaler \
(true), scale (head_dim^-1/2), max_len (2048), mask_padding (false). H, d and T_M may stand for heads, head_dim and t_m; \
lengths may stand there too; N, T and teacher are ignored.

Parameters (.safetensors): proj, enc_w, enc_b, enc_ln_g, enc_ln_b, dec_w, dec_b, c1_w, c1_b, c2_w, c2_b, c3_w, c3_b, \
scale_w, scale_b; causal layers also pos, ln1_g, ln1_b, ln2_g, ln2_b.";

/// An example, and what a layer's files hold.
pub(super) fn with_settings(example: &str) -> String {
    format!("{example}\n\n{SETTINGS}")
}

/// Queries, keys and values.
#[derive(Debug, clap::Args)]
pub(crate) struct Qkv {
    /// Queries, (N, H, T, d), real numbers
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Keys, of the same shape
    #[arg(long, value_name = "FILE")]
    k: String,
    /// Values, of the same shape
    #[arg(long, value_name = "FILE")]
    v: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SeaArgs {
    /// Settings of the layer (JSON, see below)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Parameters of the layer (.safetensors)
    #[arg(long, value_name = "FILE")]
    params: PathBuf,
    #[command(flatten)]
    qkv: Qkv,
    /// Valid tokens of each batch entry, (N,) integers, 1 to T; bidirectional layers only [default: all]
    #[arg(long, value_name = "FILE")]
    lengths: Option<String>,
    /// File for the result, (N, H, T, d) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for what happens on the way: est_score, est_prob, scales, performer, enc, keep (bool), crow, cols (int64,
    /// batch entries one after the other), nnz, probs, sparse_ctx, avg
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
    /// The teacher's scores before softmax, (N, H, T, T): report the losses
    #[arg(long, value_name = "FILE")]
    teacher_scores: Option<String>,
    /// The teacher's result, (N, H, T, d)
    #[arg(long, value_name = "FILE", requires = "teacher_scores")]
    teacher_context: Option<String>,
    /// Gradient by the result, (N, H, T, d) [default with a teacher: 0]
    #[arg(long, value_name = "FILE", requires = "grad_dir")]
    grad: Option<String>,
    /// Folder for the gradients of sum(out * grad) + loss: d_q, d_k, d_v and d_NAME of each parameter
    #[arg(long, value_name = "DIR")]
    grad_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Settings of the layer (JSON, see below)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// File for fresh parameters (.safetensors); --seed chooses them
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DistillArgs {
    /// Settings of the layer (JSON, see below)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    qkv: Qkv,
    /// The teacher's scores before softmax, (N, H, T, T)
    #[arg(long, value_name = "FILE")]
    scores: String,
    /// The teacher's result, (N, H, T, d): compare the results too
    #[arg(long, value_name = "FILE")]
    context: Option<String>,
    /// Valid tokens of each batch entry, (N,) integers; bidirectional layers only [default: all]
    #[arg(long, value_name = "FILE")]
    lengths: Option<String>,
    /// Parameters to start from (.safetensors) [default: fresh ones of --seed]
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Steps of Adam
    #[arg(long, value_name = "N", default_value_t = 300)]
    steps: usize,
    /// Step length of Adam
    #[arg(long, value_name = "RATE", default_value_t = 3e-3)]
    lr: f64,
    /// Sequences per step, taken in turn
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// Steps between new directions of the random features; 0 for never
    #[arg(long, value_name = "N", default_value_t = 1000)]
    redraw: usize,
    /// Share of the steps of a causal layer in which the edges of cells jitter, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    jitter: f64,
    /// File for the parameters (.safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SparseArgs {
    #[command(flatten)]
    qkv: Qkv,
    /// Offsets of the rows, (N, T + 1) integers, each batch entry from 0
    #[arg(long, value_name = "FILE")]
    crow: String,
    /// Column ids head * T + key of all batch entries, rising within a row, integers
    #[arg(long, value_name = "FILE")]
    cols: String,
    /// Factor of the scores [default: d^-1/2]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// File for the result, (N, H, T, d) float32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The settings of a file, and the lengths if they stand there.
fn settings(path: &Path) -> Result<(SeaConfig, Option<Vec<usize>>)> {
    let value = kc_io::json::read(path)?;
    let fields = value.as_object().with_context(|| format!("{}: expected an object", path.display()))?;
    let mut config = SeaConfig::default();
    let (mut lengths, mut seen, mut max_len) = (None, Vec::new(), None);
    for (key, value) in fields {
        let bad = |expected: &str| Error::argument(key.clone(), expected.to_owned(), value);
        let size = || value.as_u64().map(|x| x as usize).ok_or_else(|| bad("an integer, 0 and more"));
        let number = || value.as_f64().ok_or_else(|| bad("a number"));
        let flag = || value.as_bool().ok_or_else(|| bad("true or false"));
        match key.as_str() {
            "heads" | "H" => config.heads = size()?,
            "head_dim" | "d" => config.head_dim = size()?,
            "t_m" | "T_M" => config.t_m = size()?,
            "k" => config.k = number()?,
            "nb_factor" => config.nb_factor = number()?,
            "causal" => config.causal = flag()?,
            "group" => {
                let name = value.as_str().and_then(Group::from_name);
                config.group = name.ok_or_else(|| bad("causal_batch, query, head or batch"))?;
            }
            "max_span" => {
                config.max_span = match value {
                    Value::Null => Span::All,
                    Value::String(name) if name == "none" => Span::All,
                    Value::String(name) if name.eq_ignore_ascii_case("k") => Span::K,
                    _ => Span::At(size().map_err(|_| bad("\"k\", an integer or null"))?),
                }
            }
            "oversample" => config.oversample = number()?,
            "partial_scaler" => config.partial_scaler = flag()?,
            "scale" if value.is_null() => config.scale = None,
            "scale" => config.scale = Some(number()?),
            "max_len" => max_len = Some(size()?),
            "mask_padding" => config.mask_padding = flag()?,
            "lengths" if value.is_null() => {}
            "lengths" => {
                let all = value.as_array().ok_or_else(|| bad("a list of integers"))?;
                let all = all.iter().map(|x| x.as_u64().map(|x| x as usize));
                lengths = Some(all.collect::<Option<Vec<_>>>().ok_or_else(|| bad("a list of integers"))?);
            }
            "T" => config.max_len = config.max_len.max(size()?),
            "N" | "teacher" => {}
            _ => return Err(bad("no such setting").into()),
        }
        seen.push(key.as_str());
    }
    for names in [["heads", "H"], ["head_dim", "d"], ["t_m", "T_M"], ["k", "k"], ["causal", "causal"]] {
        if !names.iter().any(|name| seen.contains(name)) {
            return Err(Error::argument(names[0], "a value in the settings", "none").into());
        }
    }
    config.max_len = max_len.unwrap_or(config.max_len);
    config.check()?;
    Ok((config, lengths))
}

/// Integers of any type.
fn integers(name: &str, file: &str) -> Result<Vec<i64>> {
    let tensor = input::any(name, file)?;
    if !tensor.dtype().is_integer() {
        return Err(Error::dtype(name.to_owned(), "integers", tensor.dtype()).into());
    }
    let bytes = Bytes::from_owner(tensor.bytes().to_vec());
    let flat = AnyTensor::new(tensor.dtype(), vec![tensor.len()], bytes)?;
    // Numbers that are not exact in f64 are out of range here anyway.
    Ok(flat.to_f64::<1>(name.to_owned())?.as_slice().iter().map(|&x| x as i64).collect())
}

fn lengths(file: Option<&str>, inline: Option<Vec<usize>>) -> Result<Option<Vec<usize>>> {
    let Some(file) = file else { return Ok(inline) };
    let found = integers("--lengths", file)?.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    Ok(Some(found.map_err(|_| Error::argument("lengths", "1 to T", "a negative number"))?))
}

fn layer(config: SeaConfig, file: &Path) -> Result<SeaLayer> {
    let file = SafeTensorsFile::open(file)?;
    let mut found = BTreeMap::new();
    for name in file.names() {
        found.insert(name.as_str(), file.get(name)?);
    }
    let params = SeaParams::from_tensors(&config, |name| found.get(name))?;
    Ok(SeaLayer::new(config, params)?)
}

fn losses(answer: &mut Answer, loss: &SeaLoss) {
    for (name, value) in [
        ("kl_est", loss.kl_est),
        ("mse_est", loss.mse_est),
        ("kl_score", loss.kl_score),
        ("mse_score", loss.mse_score),
        ("mse_ctx", loss.mse_ctx),
        ("loss", loss.total),
    ] {
        answer.set(name, value);
    }
}

pub(crate) fn run(args: &SeaArgs) -> Result<Answer> {
    let (config, inline) = settings(&args.config)?;
    let layer = layer(config, &args.params)?;
    let [q, k, v] = [("--q", &args.qkv.q), ("--k", &args.qkv.k), ("--v", &args.qkv.v)]
        .map(|(name, file)| input::f32::<4>(name, file));
    let (q, k, v) = (q?, k?, v?);
    let lengths = lengths(args.lengths.as_deref(), inline)?;
    let mut x = SeaInputs::new(q.view("--q")?, k.view("--k")?, v.view("--v")?);
    x.lengths = lengths.as_deref();
    let mut answer = Answer::new();
    answer.set("shape", json!(x.q.shape()));
    if args.dump_dir.is_none() && args.teacher_scores.is_none() && args.grad_dir.is_none() {
        let found = layer.forward(&x)?;
        entries(&mut answer, x.q.shape(), &found.nnz);
        output::tensor(&args.out, found.out)?;
        return Ok(answer);
    }
    if args.grad_dir.is_some() && args.grad.is_none() && args.teacher_scores.is_none() {
        return Err(Usage("--grad-dir: expected --grad or --teacher-scores with it".into()).into());
    }
    let read = |name, file: &Option<String>| file.as_ref().map(|f| input::f32::<4>(name, f)).transpose();
    let scores = read("--teacher-scores", &args.teacher_scores)?;
    let context = read("--teacher-context", &args.teacher_context)?;
    let teacher = match &scores {
        Some(scores) => {
            let context = context.as_ref().map(|c| c.view("--teacher-context")).transpose()?;
            Some(Teacher { scores: scores.view("--teacher-scores")?, context })
        }
        None => None,
    };
    let (trace, loss, cache) = layer.forward_train(&x, teacher.as_ref())?;
    entries(&mut answer, x.q.shape(), &trace.probs.nnz_per_batch());
    if teacher.is_some() {
        losses(&mut answer, &loss);
    }
    let mut grads = None;
    if let Some(dir) = &args.grad_dir {
        let dy = match read("--grad", &args.grad)? {
            Some(dy) => dy.view("--grad")?.to_tensor()?,
            None => Tensor::zeros(x.q.shape())?,
        };
        grads = Some((dir, layer.backward(&cache, dy.view())?));
    }
    if let Some((dir, grads)) = grads {
        output::folder(dir)?;
        for (name, x) in [("d_q", grads.q), ("d_k", grads.k), ("d_v", grads.v)] {
            output::tensor(&dir.join(format!("{name}.npy")), x)?;
        }
        for (name, x) in grads.params.to_tensors(layer.config())? {
            if name != "proj" {
                kc_io::write(dir.join(format!("d_{name}.npy")), &x)?;
            }
        }
    }
    if let Some(dir) = &args.dump_dir {
        dump(dir, &trace)?;
    }
    output::tensor(&args.out, trace.out)?;
    Ok(answer)
}

/// How many entries the sparse matrix has.
fn entries(answer: &mut Answer, [_, h, t, _]: [usize; 4], nnz: &[usize]) {
    let kept = nnz.iter().sum::<usize>() as f64 / (nnz.len() * h * t * t).max(1) as f64;
    answer.set("nnz", json!(nnz)).set("kept", kept);
}

fn dump(dir: &Path, trace: &SeaTrace<f32>) -> Result<()> {
    output::folder(dir)?;
    let write = |name: &str, x: &AnyTensor| kc_io::write(dir.join(format!("{name}.npy")), x);
    for (name, x) in [
        ("est_score", &trace.est_score),
        ("est_prob", &trace.est_prob),
        ("scales", &trace.scales),
        ("performer", &trace.performer),
        ("enc", &trace.enc),
        ("sparse_ctx", &trace.sparse_ctx),
        ("avg", &trace.avg),
    ] {
        write(name, &x.clone().into_any())?;
    }
    let flags: Vec<u8> = trace.kept.as_slice().iter().map(|&keep| u8::from(keep)).collect();
    write("keep", &AnyTensor::new(DType::Bool, trace.kept.shape().to_vec(), Bytes::from_owner(flags))?)?;
    let [n, _, rows, _] = trace.probs.shape();
    write("crow", &Tensor::from_slice([n, rows + 1], trace.probs.crow())?.into_any())?;
    let cols: Vec<i64> = trace.probs.cols().iter().map(|&c| i64::from(c)).collect();
    write("cols", &Tensor::from_slice([cols.len()], &cols)?.into_any())?;
    write("probs", &Tensor::from_slice([cols.len()], trace.probs.values())?.into_any())?;
    let nnz: Vec<i64> = trace.probs.nnz_per_batch().into_iter().map(|n| n as i64).collect();
    Ok(write("nnz", &Tensor::from_slice([nnz.len()], &nnz)?.into_any())?)
}

fn store(out: &Path, config: &SeaConfig, params: &SeaParams<f32>) -> Result<()> {
    Ok(kc_io::safetensors::write(out, &params.to_tensors(config)?, &BTreeMap::new())?)
}

pub(crate) fn run_init(args: &InitArgs, ctx: &Ctx) -> Result<Answer> {
    let (config, _) = settings(&args.config)?;
    let params = SeaParams::init(&config, ctx.seed()?)?;
    store(&args.out, &config, &params)?;
    let mut answer = Answer::new();
    answer.set("features", config.features()).set("bytes", params.bytes());
    Ok(answer)
}

pub(crate) fn run_distill(args: &DistillArgs, ctx: &Ctx) -> Result<Answer> {
    let (config, inline) = settings(&args.config)?;
    let mut layer = match &args.params {
        Some(file) => layer(config.clone(), file)?,
        None => SeaLayer::new(config.clone(), SeaParams::init(&config, ctx.seed()?)?)?,
    };
    let (q, k) = (input::f32::<4>("--q", &args.qkv.q)?, input::f32::<4>("--k", &args.qkv.k)?);
    let v = input::f32::<4>("--v", &args.qkv.v)?;
    let scores = input::f32::<4>("--scores", &args.scores)?;
    let context = args.context.as_ref().map(|c| input::f32::<4>("--context", c)).transpose()?;
    let lengths = lengths(args.lengths.as_deref(), inline)?;
    let mut x = SeaInputs::new(q.view("--q")?, k.view("--k")?, v.view("--v")?);
    x.lengths = lengths.as_deref();
    let context = context.as_ref().map(|c| c.view("--context")).transpose()?;
    let teacher = Teacher { scores: scores.view("--scores")?, context };
    let how = DistillConfig {
        steps: args.steps,
        batch: args.batch,
        rate: args.lr,
        redraw: args.redraw,
        jitter: args.jitter,
        seed: ctx.seed()?,
    };
    let found = distill(&mut layer, &x, &teacher, &how, |step, loss| {
        if step % 50 == 0 {
            ctx.say(format_args!("step {step}: loss {:.5}, kl_est {:.5}", loss.total, loss.kl_est));
        }
        true
    })?;
    store(&args.out, &config, layer.params())?;
    let mut answer = Answer::new();
    answer.set("steps", found.len());
    if let (Some(first), Some(last)) = (found.first(), found.last()) {
        answer.set("first_loss", first.total).set("first_kl_est", first.kl_est);
        losses(&mut answer, last);
    }
    Ok(answer)
}

pub(crate) fn run_sparse(args: &SparseArgs) -> Result<Answer> {
    let (q, k) = (input::f32::<4>("--q", &args.qkv.q)?, input::f32::<4>("--k", &args.qkv.k)?);
    let v = input::f32::<4>("--v", &args.qkv.v)?;
    let (q, k, v): (TensorView<'_, f32, 4>, _, _) = (q.view("--q")?, k.view("--k")?, v.view("--v")?);
    let [n, h, rows, d] = q.shape();
    let (crow, cols) = (integers("--crow", &args.crow)?, integers("--cols", &args.cols)?);
    let values = vec![1.0f32; cols.len()];
    let mask = FlatCsr::new([n, h, rows, k.shape()[2]], &crow, &cols, values)?;
    let scale = args.scale.unwrap_or_else(|| (d.max(1) as f64).powf(-0.5));
    let found = sparse_attention(q, k, v, &mask, scale)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(q.shape()));
    entries(&mut answer, q.shape(), &mask.nnz_per_batch());
    output::tensor(&args.out, found.out)?;
    Ok(answer)
}
