//! `kc xent`: losses of a linear head with a large vocabulary, their gradients, largest logits, perplexity.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use kc_core::{AnyTensor, Bytes, DType, Element, Error, Float, Tensor, TensorView, bf16, bytemuck, f16};
use kc_xent::{
    Embedding, Filter, Loss, Need, Preset, Reduction, Seeds, Upstream, XentConfig, XentGrads, XentInput,
    linear_cross_entropy, linear_cross_entropy_backward, materialized, perplexity, top_k,
};
use serde_json::{Value, json};

use crate::report::{Answer, Usage, memory};
use crate::{input, output};

/// Cross-entropy of a linear head with a large vocabulary, without storing its logits
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kc xent loss --e e.npy --c c.npy --targets t.npy --out-loss l.npy\n  \
                  kc xent loss --e e.npy --c c.npy --targets t.npy --softcap 30 --shift 1 --out-de de.npy --out-dc dc.npy\n  \
                  kc xent topk --e e.npy --c c.npy --k 5 --out idx.npy\n  \
                  kc xent ppl --e e.npy --c c.npy --targets t.npy")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compute the loss and, where files are named for them, the gradients
    #[command(
        after_help = "Example:\n  kc xent loss --e e.npy --c c.npy --targets t.npy --preset full-c --out-de de.npy \
                      --out-dc dc.npy --report r.json"
    )]
    Loss(Box<LossArgs>),
    /// Find the words with the largest logits of every token
    #[command(after_help = "Example:\n  kc xent topk --e e.npy --c c.npy --k 5 --out idx.npy")]
    Topk {
        #[command(flatten)]
        head: Head,
        /// Words per token, 1 to V
        #[arg(long, value_name = "N", default_value_t = 5)]
        k: usize,
        /// File for the words, (..., k) int64, largest logit first
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the perplexity: exp of the mean negative log-likelihood of the targets
    #[command(after_help = "Example:\n  kc xent ppl --e e.npy --c c.npy --targets t.npy --shift 1")]
    Ppl {
        #[command(flatten)]
        head: Head,
        #[command(flatten)]
        aims: Aims,
    },
}

/// The head.
#[derive(Debug, clap::Args)]
struct Head {
    /// Embeddings, (..., tokens, D), float32, float16, bfloat16 or float64
    #[arg(long, value_name = "FILE")]
    e: String,
    /// Classifier, (V, D), of the same type
    #[arg(long, value_name = "FILE")]
    c: String,
    /// Bias, (V,)
    #[arg(long, value_name = "FILE")]
    bias: Option<String>,
    /// Bend logits to cap * tanh(z / cap), above 0 [default: none]
    #[arg(long, value_name = "CAP", allow_negative_numbers = true)]
    softcap: Option<f64>,
}

/// What is to be predicted.
#[derive(Debug, clap::Args)]
struct Aims {
    /// Words to predict, (..., tokens), integers from 0 to V - 1
    #[arg(long, value_name = "FILE")]
    targets: String,
    /// Token t predicts the target at t + N of its sequence; below the length of a sequence
    #[arg(long, value_name = "N", default_value_t = 0)]
    shift: usize,
    /// Targets of this value do not count
    #[arg(long, value_name = "N", default_value_t = -100, allow_negative_numbers = true)]
    ignore_index: i64,
}

#[derive(Debug, clap::Args)]
struct LossArgs {
    #[command(flatten)]
    head: Head,
    #[command(flatten)]
    aims: Aims,
    /// How the losses of the tokens become one
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Reduce::Mean)]
    reduction: Reduce,
    /// Share of the target that is spread over all words, 0 to 1
    #[arg(long, value_name = "A", default_value_t = 0.0, allow_negative_numbers = true)]
    label_smoothing: f64,
    /// Weight of each word, (V,), at least 0
    #[arg(long, value_name = "FILE")]
    class_weights: Option<String>,
    /// Factor of the squared log-sum-exp that is added to what is differentiated
    #[arg(long, value_name = "K", default_value_t = 0.0, allow_negative_numbers = true)]
    z_loss: f64,
    /// Leave out gradient blocks whose entries are all below this: auto (precision of the inputs / 32), none, or a
    /// number from 0 [default: auto, or as the preset says]
    #[arg(long, value_name = "EPS", value_parser = filter, allow_negative_numbers = true)]
    filter_eps: Option<FilterArg>,
    /// Form blocks of neighbouring words instead of words with similar mean logits
    #[arg(long)]
    no_sort: bool,
    /// What is filtered: both gradients, none, only that of E (full-c), only that of C (full-e); or store all logits
    #[arg(long, value_enum, value_name = "NAME", default_value_t = PresetArg::Cce)]
    preset: PresetArg,
    /// Gradient of what follows by the loss: one number, or one per target for `--reduction none` [default: 1]
    #[arg(long, value_name = "FILE")]
    grad_out: Option<String>,
    /// File for the loss: one float64, or (..., tokens - shift) float32 for `--reduction none`
    #[arg(long, value_name = "FILE")]
    out_loss: Option<PathBuf>,
    /// File for the log-sum-exps, (..., tokens - shift) float64, 0 at ignored places
    #[arg(long, value_name = "FILE")]
    out_lse: Option<PathBuf>,
    /// File for the gradient by E, of its shape
    #[arg(long, value_name = "FILE")]
    out_de: Option<PathBuf>,
    /// File for the gradient by C, of its shape
    #[arg(long, value_name = "FILE")]
    out_dc: Option<PathBuf>,
    /// File for the gradient by the bias, (V,)
    #[arg(long, value_name = "FILE", requires = "bias")]
    out_dbias: Option<PathBuf>,
    /// Type of the gradients; bf16 needs .safetensors files
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = GradType::F32)]
    grad_dtype: GradType,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Reduce {
    Mean,
    Sum,
    None,
}

impl From<Reduce> for Reduction {
    fn from(reduce: Reduce) -> Self {
        match reduce {
            Reduce::Mean => Reduction::Mean,
            Reduce::Sum => Reduction::Sum,
            Reduce::None => Reduction::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum PresetArg {
    /// Both gradients filtered
    Cce,
    /// Nothing filtered
    #[value(alias = "cce_exact", alias = "cce_kahan_full", alias = "cce_kahan_full_c_full_e")]
    CceExact,
    /// Only the gradient of E filtered: for pretraining
    #[value(alias = "cce_kahan_full_c")]
    FullC,
    /// Only the gradient of C filtered
    #[value(alias = "cce_kahan_full_e")]
    FullE,
    /// All logits stored, for comparison
    #[value(alias = "torch_compile")]
    Baseline,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum GradType {
    F32,
    F16,
    Bf16,
    F64,
}

/// A value of `--filter-eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FilterArg(Filter);

fn filter(text: &str) -> Result<FilterArg, String> {
    Ok(FilterArg(match text {
        "auto" => Filter::Auto,
        "none" => Filter::None,
        number => Filter::Value(number.parse().map_err(|_| "expected auto, none or a number".to_owned())?),
    }))
}

pub(crate) fn run(args: &Args) -> Result<Answer> {
    match &args.verb {
        Verb::Loss(args) => {
            let files = Files::read(&args.head, Some(&args.aims))?;
            files.of_type(Solve { args, files: &files })
        }
        Verb::Topk { head, k, out } => {
            let files = Files::read(head, None)?;
            files.of_type(Largest { files: &files, k: *k, out, softcap: head.softcap })
        }
        Verb::Ppl { head, aims } => {
            let files = Files::read(head, Some(aims))?;
            files.of_type(Surprise { files: &files, config: config(head, aims) })
        }
    }
}

fn config(head: &Head, aims: &Aims) -> XentConfig {
    XentConfig {
        softcap: head.softcap,
        shift: aims.shift,
        ignore_index: aims.ignore_index,
        ..XentConfig::default()
    }
}

/// What was read.
struct Files {
    e: AnyTensor,
    c: AnyTensor,
    bias: Option<Vec<f64>>,
    targets: Vec<i64>,
    /// Sequences, tokens of each, dimensions.
    shape: [usize; 3],
}

impl Files {
    fn read(head: &Head, aims: Option<&Aims>) -> Result<Self> {
        let (e, c) = (input::any("--e", &head.e)?, input::any("--c", &head.c)?);
        if !e.dtype().is_float() {
            return Err(Error::dtype("--e", "float16, bfloat16, float32 or float64", e.dtype()).into());
        }
        if c.dtype() != e.dtype() {
            return Err(Error::dtype("--c", format!("{} as --e", e.dtype()), c.dtype()).into());
        }
        let [lead @ .., t, d] = e.shape() else {
            return Err(Error::shape("--e", "(..., tokens, D)", e.shape()).into());
        };
        let shape = [lead.iter().product(), *t, *d];
        let targets = match aims {
            None => vec![-100; shape[0] * shape[1]],
            Some(aims) => {
                let targets = input::any("--targets", &aims.targets)?;
                let leading = &e.shape()[..e.rank() - 1];
                if targets.shape() != leading {
                    let expected = format!("{leading:?} to match --e");
                    return Err(Error::shape("--targets", expected, targets.shape()).into());
                }
                integers(&targets)?
            }
        };
        let bias =
            head.bias.as_ref().map(|bias| numbers("--bias", &input::any("--bias", bias)?)).transpose()?;
        Ok(Self { e, c, bias, targets, shape })
    }

    /// Runs `job` with the type of the embeddings.
    fn of_type(&self, job: impl Job) -> Result<Answer> {
        match self.e.dtype() {
            DType::F16 => job.run::<f16>(),
            DType::BF16 => job.run::<bf16>(),
            DType::F64 => job.run::<f64>(),
            _ => job.run::<f32>(),
        }
    }

    /// Calls `body` with the input.
    fn with<T: Embedding, R>(&self, body: impl FnOnce(&XentInput<'_, T>) -> Result<R>) -> Result<R> {
        let (e, c) = (values::<T>(&self.e)?, values::<T>(&self.c)?);
        let &[v, d] = self.c.shape() else {
            return Err(Error::shape("--c", format!("(V, {})", self.shape[2]), self.c.shape()).into());
        };
        let [b, t, _] = self.shape;
        let input = XentInput::batched(
            TensorView::from_slice(self.shape, &e)?,
            TensorView::from_slice([v, d], &c)?,
            TensorView::from_slice([b, t], &self.targets)?,
        )?;
        let bias: Option<Vec<T::Sum>> =
            self.bias.as_ref().map(|bias| bias.iter().map(|&b| T::Sum::from_f64(b)).collect());
        match &bias {
            Some(bias) => body(&input.bias(bias)?),
            None => body(&input),
        }
    }

    /// The shape of what is known per target.
    fn places(&self, shift: usize) -> Vec<usize> {
        let mut shape = self.e.shape()[..self.e.rank() - 1].to_vec();
        if let Some(last) = shape.last_mut() {
            *last -= shift;
        }
        shape
    }
}

/// Elements in place where the file aligns them.
fn values<T: Element>(tensor: &AnyTensor) -> Result<Cow<'_, [T]>> {
    Ok(match bytemuck::try_cast_slice(tensor.bytes()) {
        Ok(values) => Cow::Borrowed(values),
        // The bytes of a file need not be aligned for their type.
        Err(_) => tensor.bytes().chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect(),
    })
}

/// A vector with all of its precision.
fn numbers(name: &'static str, tensor: &AnyTensor) -> Result<Vec<f64>> {
    if !tensor.dtype().is_float() {
        return Err(Error::dtype(name, "float16, bfloat16, float32 or float64", tensor.dtype()).into());
    }
    Ok(tensor.to_f64::<1>(name)?.into_vec())
}

fn integers(tensor: &AnyTensor) -> Result<Vec<i64>> {
    macro_rules! widen {
        ($t:ty) => {
            values::<$t>(tensor)?.iter().map(|&x| i64::from(x)).collect()
        };
    }
    Ok(match tensor.dtype() {
        DType::I64 => values::<i64>(tensor)?.into_owned(),
        DType::I32 => widen!(i32),
        DType::I16 => widen!(i16),
        DType::I8 => widen!(i8),
        DType::U32 => widen!(u32),
        DType::U16 => widen!(u16),
        DType::U8 => widen!(u8),
        other => return Err(Error::dtype("--targets", "int64 or int32", other).into()),
    })
}

/// What is done once the type is known.
trait Job {
    fn run<T: Embedding>(self) -> Result<Answer>;
}

struct Largest<'a> {
    files: &'a Files,
    k: usize,
    out: &'a Path,
    softcap: Option<f64>,
}

impl Job for Largest<'_> {
    fn run<T: Embedding>(self) -> Result<Answer> {
        let config = XentConfig { softcap: self.softcap, ..XentConfig::default() };
        let (words, _) = self.files.with::<T, _>(|input| Ok(top_k(input, self.k, &config)?))?;
        let mut shape = self.files.places(0);
        shape.push(self.k);
        let mut answer = Answer::new();
        answer.set("shape", json!(shape));
        store(self.out, words.as_slice(), shape)?;
        Ok(answer)
    }
}

struct Surprise<'a> {
    files: &'a Files,
    config: XentConfig,
}

impl Job for Surprise<'_> {
    fn run<T: Embedding>(self) -> Result<Answer> {
        let (found, tokens) = self.files.with::<T, _>(|input| Ok(perplexity(input, &self.config)?))?;
        let mut answer = Answer::new();
        answer.set("perplexity", found).set("n_valid", tokens);
        Ok(answer)
    }
}

struct Solve<'a> {
    args: &'a LossArgs,
    files: &'a Files,
}

impl Solve<'_> {
    fn config(&self) -> Result<XentConfig> {
        let args = self.args;
        let preset = match args.preset {
            PresetArg::Cce => Preset::Cce,
            PresetArg::FullC => Preset::FullC,
            PresetArg::FullE => Preset::FullE,
            PresetArg::CceExact | PresetArg::Baseline => Preset::CceExact,
        };
        let weights = args.class_weights.as_ref();
        let mut config = XentConfig {
            reduction: args.reduction.into(),
            sort_vocab: !args.no_sort,
            label_smoothing: args.label_smoothing,
            class_weights: weights.map(|file| input::f32_vector("--class-weights", file)).transpose()?,
            z_loss: args.z_loss,
            ..config(&args.head, &args.aims)
        }
        .with_preset(preset);
        if let Some(FilterArg(filter)) = args.filter_eps {
            if args.preset == PresetArg::Baseline && filter != Filter::None {
                return Err(Usage("--filter-eps: the baseline filters nothing".into()).into());
            }
            config.filter = filter;
        }
        Ok(config)
    }
}

impl Job for Solve<'_> {
    fn run<T: Embedding>(self) -> Result<Answer> {
        let (args, files) = (self.args, self.files);
        let config = self.config()?;
        let places = files.places(args.aims.shift.min(files.shape[1]));
        let grad_out =
            args.grad_out.as_ref().map(|file| upstream(file, &places, config.reduction)).transpose()?;
        let loss = match &grad_out {
            None => Upstream::Scalar(1.0),
            Some(values) if config.reduction == Reduction::None => Upstream::PerToken(values),
            Some(values) => Upstream::Scalar(f64::from(values[0])),
        };
        let seeds = Seeds { loss, lse: None };
        let need =
            Need { e: args.out_de.is_some(), c: args.out_dc.is_some(), bias: args.out_dbias.is_some() };
        let wanted = need.e || need.c || need.bias;
        let mut answer = Answer::new();
        let (forward, grads, seconds, extra) = files.with::<T, _>(|input| {
            files.touch();
            let before = memory();
            let start = Instant::now();
            if args.preset == PresetArg::Baseline {
                let (forward, grads) = materialized(input, seeds, need, &config)?;
                let both = start.elapsed().as_secs_f64();
                return Ok((forward, wanted.then_some(grads), [both, 0.0], extra(before, need, input)));
            }
            let forward = linear_cross_entropy(input, &config)?;
            let first = start.elapsed().as_secs_f64();
            let backward = || linear_cross_entropy_backward(&forward, input, None, seeds, need, &config);
            let grads = if wanted { Some(backward()?) } else { None };
            let second = start.elapsed().as_secs_f64() - first;
            Ok((forward, grads, [first, second], extra(before, need, input)))
        })?;
        let total = forward.total();
        answer.set("loss", if total.is_nan() { Value::Null } else { json!(total) });
        answer.set("n_valid", forward.n_valid).set("z_loss", forward.z_loss);
        if let Some(grads) = &grads {
            answer.set("blocks_kept", grads.blocks_kept).set("blocks_total", grads.blocks_total);
            answer.set("kept", grads.blocks_kept as f64 / grads.blocks_total.max(1) as f64);
            answer.set("filter_eps", config.threshold(T::DTYPE));
        }
        answer.set("peak_extra_bytes", extra);
        answer.set("forward_seconds", seconds[0]).set("backward_seconds", seconds[1]);
        if let Some(out) = &args.out_loss {
            match &forward.loss {
                Loss::Scalar(loss) => store(out, &[*loss], Vec::new())?,
                Loss::PerToken(losses) => {
                    let narrow: Vec<f32> = losses.as_slice().iter().map(|&x| x as f32).collect();
                    store(out, &narrow, places.clone())?;
                }
            }
        }
        if let Some(out) = &args.out_lse {
            store(out, forward.lse.as_slice(), places)?;
        }
        if let Some(grads) = grads {
            match args.grad_dtype {
                GradType::F32 => self.gradients(grads.cast::<f32>()?)?,
                GradType::F16 => self.gradients(grads.cast::<f16>()?)?,
                GradType::Bf16 => self.gradients(grads.cast::<bf16>()?)?,
                GradType::F64 => self.gradients(grads.cast::<f64>()?)?,
            }
        }
        Ok(answer)
    }
}

impl Solve<'_> {
    fn gradients<S: Float>(&self, grads: XentGrads<S>) -> Result<()> {
        if let (Some(out), Some(de)) = (&self.args.out_de, grads.de) {
            store(out, de.as_slice(), self.files.e.shape().to_vec())?;
        }
        if let (Some(out), Some(dc)) = (&self.args.out_dc, grads.dc) {
            output::tensor(out, dc)?;
        }
        if let (Some(out), Some(dbias)) = (&self.args.out_dbias, grads.dbias) {
            output::tensor(out, dbias)?;
        }
        Ok(())
    }
}

impl Files {
    /// Brings mapped files into memory, so that they do not count as extra.
    fn touch(&self) {
        let pages = self.e.bytes().iter().step_by(4096).chain(self.c.bytes().iter().step_by(4096));
        std::hint::black_box(pages.fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }
}

/// The most memory since `before` beyond the gradients, where the system tells.
fn extra<T: Embedding>(before: Option<(u64, u64)>, need: Need, input: &XentInput<'_, T>) -> Option<u64> {
    let ((resident, _), (_, peak)) = (before?, memory()?);
    let ([b, t], v, d) = (input.tokens(), input.vocabulary(), input.dim());
    let elements =
        if need.e { b * t * d } else { 0 } + if need.c { v * d } else { 0 } + if need.bias { v } else { 0 };
    Some(peak.saturating_sub(resident).saturating_sub((elements * size_of::<T::Sum>()) as u64))
}

fn upstream(file: &str, places: &[usize], reduction: Reduction) -> Result<Vec<f32>> {
    let tensor = input::any("--grad-out", file)?;
    let flat =
        AnyTensor::new(tensor.dtype(), vec![tensor.len()], Bytes::from_owner(tensor.bytes().to_vec()))?;
    let values = flat.to_f32::<1>("--grad-out").context("--grad-out")?.into_vec();
    let single = reduction != Reduction::None;
    if (single && values.len() != 1) || (!single && tensor.shape() != places) {
        let expected = if single { "one number".to_owned() } else { format!("{places:?}, one per target") };
        return Err(Error::shape("--grad-out", expected, tensor.shape()).into());
    }
    Ok(values)
}

/// Writes values of any rank.
fn store<E: Element>(path: &Path, values: &[E], shape: Vec<usize>) -> Result<()> {
    let flat = Tensor::from_slice([values.len()], values)?.into_any();
    let tensor = AnyTensor::new(E::DTYPE, shape, Bytes::from_owner(flat.bytes().to_vec()))?;
    Ok(kc_io::write(path, &tensor)?)
}
