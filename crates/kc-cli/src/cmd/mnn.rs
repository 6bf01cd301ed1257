//! `kc mnn`: scores of hidden states.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use kc_core::{AnyTensor, DType, Error, Float, Tensor, TensorView, bf16, f16};
use kc_linalg::mnn::{
    EstimateConfig, ExactMethod, LogBase, MnnConfig, SpectrumConfig, ZeroRows, column_norms,
    estimate_nuclear, mnn, spectrum,
};
use serde_json::{Map, Value, json};

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

/// Matrix nuclear-norm: score how compressed hidden states are.
///
/// The score is the sum of the largest column norms of the centred, row-normalised states, over the number of
/// tokens. It stands in for the nuclear norm, which --exact gives. One matrix gives one set of keys; several
/// (files, tensors, a batch) give `records` with `mean_score`, `n_nan` and `n_empty`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  kc mnn --hidden x.npy\n  kc mnn --hidden x.npy --exact --json out.json\n  \
                  kc mnn --hidden batch.npy --lengths lengths.npy\n  \
                  kc mnn --hidden states.safetensors --tensor layer.0 layer.1\n  \
                  kc mnn --hidden-dir states --json scores.json\n  kc mnn diff-erank --a after.npy --b before.npy"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    score: Score,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Difference of the effective ranks of two matrices (Diff-eRank): erank(A) - erank(B)
    #[command(after_help = "Example:\n  kc mnn diff-erank --a after.npy --b before.npy")]
    DiffErank {
        /// Hidden states of the first model, (tokens, dim)
        #[arg(long, value_name = "FILE")]
        a: String,
        /// Hidden states of the second model, (tokens, dim)
        #[arg(long, value_name = "FILE")]
        b: String,
        #[command(flatten)]
        shared: Shared,
    },
}

/// What scores and ranks share.
#[derive(Debug, clap::Args)]
struct Shared {
    /// Rows that are zero after centring: the result is null, they add nothing, or they are an error
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Zero::Nan)]
    zero_rows: Zero,
    /// How exact singular values are found: from the Gram matrix, by an SVD, or by the Gram matrix where its
    /// error is below 1e-6
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = Method::Auto)]
    exact_method: Method,
}

#[derive(Debug, clap::Args)]
struct Score {
    /// Hidden states: (tokens, dim), or (batch, tokens, dim), of float16, bfloat16, float32 or float64
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "hidden_dir")]
    hidden: Vec<String>,
    /// Score every .npy, .npz and .safetensors file of a folder, in the order of their names
    #[arg(long, value_name = "DIR", conflicts_with = "hidden")]
    hidden_dir: Option<PathBuf>,
    /// Tensors to score of each .safetensors or .npz file; one record for each
    #[arg(long, value_name = "NAME", num_args = 1..)]
    tensor: Vec<String>,
    /// Tokens of each matrix of a batch, (batch) integers; rows beyond are ignored
    #[arg(long, value_name = "FILE")]
    lengths: Option<String>,
    /// How many of the largest column norms are summed, 1 to dim [default: the smaller of tokens and dim]
    #[arg(long, value_name = "D")]
    top: Option<usize>,
    /// What the sum is divided by, at least 1 [default: the number of tokens]
    #[arg(long, value_name = "L")]
    length: Option<usize>,
    /// Also give the exact nuclear norm, matrix entropy and ranks, by a decomposition
    #[arg(long)]
    exact: bool,
    /// Divide the matrix entropy by the logarithm of the smaller of tokens and dim, not of dim
    #[arg(long)]
    log_base_min: bool,
    /// Also estimate the nuclear norm without a decomposition: a number of probe vectors, at least 4, or the
    /// word `probes` for 32
    #[arg(long, value_name = "PROBES", value_parser = probes)]
    estimate: Option<usize>,
    /// Score matrices without tokens as -1 and count them in the mean, as the published script does
    #[arg(long)]
    reference_empty: bool,
    /// Write the norms of all columns, (dim) float64; for one matrix only
    #[arg(long, value_name = "FILE")]
    out_column_norms: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Zero {
    Nan,
    Drop,
    Error,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    Auto,
    Gram,
    Svd,
}

/// A number of probes, or the word for the default.
fn probes(text: &str) -> Result<usize, String> {
    if text == "probes" {
        return Ok(EstimateConfig::default().probes);
    }
    match text.parse() {
        Ok(count) if count >= 4 => Ok(count),
        _ => Err("expected a number from 4 on, or `probes`".into()),
    }
}

impl Shared {
    fn config(&self) -> MnnConfig {
        let mut config = MnnConfig::default();
        config.zero_rows = match self.zero_rows {
            Zero::Nan => ZeroRows::Nan,
            Zero::Drop => ZeroRows::Drop,
            Zero::Error => ZeroRows::Error,
        };
        config
    }

    fn spectrum(&self) -> SpectrumConfig {
        let mut spectrum = SpectrumConfig::default();
        spectrum.method = match self.exact_method {
            Method::Auto => ExactMethod::Auto,
            Method::Gram => ExactMethod::Gram,
            Method::Svd => ExactMethod::Svd,
        };
        spectrum
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Some(Verb::DiffErank { a, b, shared }) => diff_erank(a, b, shared),
        None => score(&args.score, ctx),
    }
}

fn diff_erank(a: &str, b: &str, shared: &Shared) -> Result<Answer> {
    let start = Instant::now();
    let mut found = Vec::new();
    for (flag, file) in [("--a", a), ("--b", b)] {
        let tensor = input::any(flag, file)?;
        let stats = for_each_matrix(flag, &tensor, None, &mut |matrix| {
            matrix.spectrum(&shared.config(), &shared.spectrum())
        })
        .with_context(|| file.to_owned())?;
        let [stats] = stats.as_slice() else {
            return Err(Error::shape(flag, "one matrix", tensor.shape()).into());
        };
        found.push(stats.erank);
    }
    let mut answer = Answer::new();
    answer.set("diff_erank", found[0] - found[1]);
    answer.set("erank_a", found[0]).set("erank_b", found[1]);
    if found.iter().any(|e| e.is_nan()) {
        answer.set("reason", ZERO_ROWS);
    }
    answer.set("seconds", start.elapsed().as_secs_f64());
    Ok(answer)
}

const ZERO_ROWS: &str = "rows that are zero after centring have no direction (see --zero-rows)";

/// One matrix of the input: where it comes from, and what was found.
type Record = Map<String, Value>;

fn score(args: &Score, ctx: &Ctx) -> Result<Answer> {
    let files = files(args)?;
    let lengths = args.lengths.as_deref().map(lengths).transpose()?;
    if args.out_column_norms.is_some() && files.len() > 1 {
        return Err(Usage("--out-column-norms: only for one matrix".into()).into());
    }
    let mut records = Vec::new();
    for file in &files {
        let tensor = input::any("--hidden", file)?;
        if args.out_column_norms.is_some() && tensor.rank() == 3 && tensor.shape()[0] > 1 {
            return Err(Usage("--out-column-norms: only for one matrix".into()).into());
        }
        let found =
            for_each_matrix("--hidden", &tensor, lengths.as_deref(), &mut |matrix| matrix.record(args, ctx));
        for (index, found) in found.with_context(|| file.to_owned())?.into_iter().enumerate() {
            let mut record = Record::new();
            record.insert("file".into(), file.as_str().into());
            if tensor.rank() == 3 {
                record.insert("index".into(), index.into());
            }
            record.extend(found);
            records.push(record);
        }
    }
    // One matrix is answered plainly; if it is empty, there is no answer.
    if args.hidden_dir.is_none() && records.len() == 1 {
        let mut record = records.remove(0);
        if record["n_tokens"] == 0 && !args.reference_empty {
            return Err(anyhow::Error::from(Error::empty("--hidden")).context(files[0].clone()));
        }
        record.remove("file");
        record.remove("index");
        return Ok(Answer::from_map(record));
    }
    Ok(summary(records, args.reference_empty))
}

fn summary(records: Vec<Record>, reference_empty: bool) -> Answer {
    let empty = |r: &&Record| r["n_tokens"] == 0;
    let n_empty = records.iter().filter(empty).count();
    let scores: Vec<f64> = records.iter().filter_map(|r| r["mnn_score"].as_f64()).collect();
    let kept_empty = if reference_empty { n_empty } else { 0 };
    let n_nan = records.len() - n_empty - (scores.len() - kept_empty);
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let mut answer = Answer::new();
    answer.set("mean_score", mean).set("n_nan", n_nan).set("n_empty", n_empty);
    answer.text(table(&records, mean, n_nan, n_empty));
    answer.set("records", Value::Array(records.into_iter().map(Value::Object).collect()));
    answer
}

fn table(records: &[Record], mean: f64, n_nan: usize, n_empty: usize) -> String {
    let name = |r: &Record| match (r["file"].as_str(), r.get("index")) {
        (Some(file), Some(index)) => format!("{file}[{index}]"),
        (file, _) => file.unwrap_or_default().to_owned(),
    };
    let width = records.iter().map(|r| name(r).len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:>8}  {:>6}  mnn_score\n", "file", "n_tokens", "dim");
    for r in records {
        // Writing to a string cannot fail.
        let score = r["mnn_score"].as_f64().map_or("-".into(), |s| format!("{s:.6}"));
        let _ = writeln!(text, "{:width$}  {:>8}  {:>6}  {score}", name(r), r["n_tokens"], r["dim"]);
    }
    let _ = write!(text, "mean_score {mean:.6}, n_nan {n_nan}, n_empty {n_empty}");
    text
}

/// The files (or `FILE:TENSOR`) to score.
fn files(args: &Score) -> Result<Vec<String>> {
    let mut files = args.hidden.clone();
    if let Some(dir) = &args.hidden_dir {
        let shown = dir.display();
        for entry in std::fs::read_dir(dir).with_context(|| format!("--hidden-dir: {shown}"))? {
            let path = entry.with_context(|| format!("--hidden-dir: {shown}"))?.path();
            let wanted = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
            if matches!(wanted.as_deref(), Some("npy" | "npz" | "safetensors")) {
                let Some(path) = path.to_str() else {
                    anyhow::bail!("--hidden-dir: {}: a name that is not Unicode", path.display());
                };
                files.push(path.to_owned());
            }
        }
        files.sort_unstable();
        if files.is_empty() {
            anyhow::bail!("--hidden-dir: {shown}: no .npy, .npz or .safetensors file");
        }
    }
    if args.tensor.is_empty() {
        return Ok(files);
    }
    Ok(files.iter().flat_map(|file| args.tensor.iter().map(move |name| format!("{file}:{name}"))).collect())
}

/// The lengths of a batch, as the integers of a file.
fn lengths(file: &str) -> Result<Vec<usize>> {
    let tensor = input::any("--lengths", file)?;
    let name = "--lengths";
    let refuse = |value: &dyn std::fmt::Display| Error::argument(name, "lengths of at least 0", value);
    macro_rules! integers {
        ($($dtype:ident => $t:ty),*) => {
            match tensor.dtype() {
                $(DType::$dtype => tensor
                    .to_tensor::<$t, 1>(name)?
                    .as_slice()
                    .iter()
                    .map(|&l| usize::try_from(l).map_err(|_| refuse(&l)))
                    .collect::<Result<Vec<usize>, Error>>()?,)*
                other => return Err(Error::dtype(name, "integers", other).into()),
            }
        };
    }
    Ok(integers!(I32 => i32, I64 => i64, U32 => u32, U64 => u64, U8 => u8, I8 => i8, I16 => i16))
}

/// One matrix of whatever float type the file has.
enum Matrix<'a> {
    F16(TensorView<'a, f16, 2>),
    Bf16(TensorView<'a, bf16, 2>),
    F32(TensorView<'a, f32, 2>),
    F64(TensorView<'a, f64, 2>),
}

/// A float type as a case of [`Matrix`].
trait Case: Float {
    fn matrix(view: TensorView<'_, Self, 2>) -> Matrix<'_>;
}

macro_rules! cases {
    ($($t:ty => $case:ident),*) => {$(
        impl Case for $t {
            fn matrix(view: TensorView<'_, Self, 2>) -> Matrix<'_> {
                Matrix::$case(view)
            }
        }
    )*};
}

cases!(f16 => F16, bf16 => Bf16, f32 => F32, f64 => F64);

macro_rules! each_type {
    ($matrix:expr, |$x:ident| $body:expr) => {
        match $matrix {
            Matrix::F16($x) => $body,
            Matrix::Bf16($x) => $body,
            Matrix::F32($x) => $body,
            Matrix::F64($x) => $body,
        }
    };
}

type Visit<'v, R> = &'v mut dyn FnMut(Matrix<'_>) -> Result<R>;

/// Calls `visit` with the matrix of a rank-2 tensor, or with each of a rank-3 tensor, cut to its length.
fn for_each_matrix<R>(
    name: &'static str,
    tensor: &AnyTensor,
    lengths: Option<&[usize]>,
    visit: Visit<'_, R>,
) -> Result<Vec<R>> {
    match tensor.dtype() {
        DType::F16 => typed::<f16, R>(name, tensor, lengths, visit),
        DType::BF16 => typed::<bf16, R>(name, tensor, lengths, visit),
        DType::F32 => typed::<f32, R>(name, tensor, lengths, visit),
        DType::F64 => typed::<f64, R>(name, tensor, lengths, visit),
        other => Err(Error::dtype(name, "float16, bfloat16, float32 or float64", other).into()),
    }
}

fn typed<T: Case, R>(
    name: &'static str,
    tensor: &AnyTensor,
    lengths: Option<&[usize]>,
    visit: Visit<'_, R>,
) -> Result<Vec<R>> {
    match *tensor.shape() {
        [_, _] if lengths.is_some() => {
            Err(Error::shape(name, "(batch, tokens, dim) for --lengths", tensor.shape()).into())
        }
        [_, _] => {
            let copy: Tensor<T, 2>;
            let view = match tensor.view::<T, 2>(name) {
                Err(Error::Unsupported { .. }) => {
                    copy = tensor.to_tensor(name)?;
                    copy.view()
                }
                other => other?,
            };
            Ok(vec![visit(T::matrix(view))?])
        }
        [batch, tokens, _] => {
            let copy: Tensor<T, 3>;
            let view = match tensor.view::<T, 3>(name) {
                Err(Error::Unsupported { .. }) => {
                    copy = tensor.to_tensor(name)?;
                    copy.view()
                }
                other => other?,
            };
            if let Some(lengths) = lengths {
                check_lengths(lengths, batch, tokens)?;
            }
            let one = |b: usize| {
                let rows = lengths.map_or(tokens, |lengths| lengths[b]);
                let matrix = view.matrix(b).slice(0, 0..rows)?;
                visit(T::matrix(matrix)).with_context(|| format!("matrix {b}"))
            };
            (0..batch).map(one).collect()
        }
        _ => Err(Error::shape(name, "2 or 3 dimensions", tensor.shape()).into()),
    }
}

fn check_lengths(lengths: &[usize], batch: usize, tokens: usize) -> Result<()> {
    if lengths.len() != batch {
        return Err(
            Error::shape("--lengths", format!("({batch},), one for each matrix"), &[lengths.len()]).into()
        );
    }
    if let Some((b, length)) = lengths.iter().enumerate().find(|(_, length)| **length > tokens) {
        let expected = format!("at most the {tokens} rows of matrix {b}");
        return Err(Error::argument("--lengths", expected, length).into());
    }
    Ok(())
}

impl Matrix<'_> {
    fn spectrum(
        &self,
        config: &MnnConfig,
        settings: &SpectrumConfig,
    ) -> Result<kc_linalg::mnn::SpectrumStats> {
        Ok(each_type!(self, |x| spectrum(*x, config, settings))?)
    }

    /// All that was asked for, of one matrix.
    fn record(&self, args: &Score, ctx: &Ctx) -> Result<Record> {
        let start = Instant::now();
        let mut config = args.shared.config();
        (config.top, config.length) = (args.top, args.length);
        let [n_tokens, dim] = each_type!(self, |x| x.shape());
        let mut record = Record::new();
        if n_tokens == 0 {
            let score = if args.reference_empty { json!(-1.0) } else { Value::Null };
            record.insert("mnn".into(), Value::Null);
            record.insert("mnn_score".into(), score);
            record.insert("n_tokens".into(), 0.into());
            record.insert("dim".into(), dim.into());
            record.insert("reason".into(), "no tokens".into());
            return Ok(record);
        }
        let score = each_type!(self, |x| mnn(*x, &config))?;
        record.insert("mnn".into(), score.raw.into());
        record.insert("mnn_score".into(), score.score.into());
        record.insert("n_tokens".into(), score.n_tokens.into());
        record.insert("dim".into(), score.dim.into());
        record.insert("top".into(), score.top.into());
        record.insert("zero_rows".into(), score.zero_rows.into());
        if score.raw.is_nan() {
            record.insert("reason".into(), ZERO_ROWS.into());
        }
        if args.exact {
            let mut settings = args.shared.spectrum();
            settings.log_base = if args.log_base_min { LogBase::MinSide } else { LogBase::Dim };
            let exact = self.spectrum(&config, &settings)?;
            record.insert("nuclear".into(), exact.nuclear.into());
            record.insert("surrogate_ratio".into(), (score.raw / exact.nuclear).into());
            record.insert("matrix_entropy".into(), exact.matrix_entropy.into());
            record.insert("rankme".into(), exact.rankme.into());
            record.insert("erank".into(), exact.erank.into());
            record.insert("stable_rank".into(), exact.stable_rank.into());
            record.insert("frobenius".into(), exact.frobenius.into());
            record.insert("spectral".into(), exact.spectral.into());
            record.insert("schatten4".into(), exact.schatten4.into());
            let method = if exact.method == ExactMethod::Svd { "svd" } else { "gram" };
            record.insert("exact_method".into(), method.into());
        }
        if let Some(probes) = args.estimate {
            let mut estimate = EstimateConfig::default();
            (estimate.probes, estimate.seed) = (probes, ctx.seed()?);
            let found = each_type!(self, |x| estimate_nuclear(*x, &config, &estimate))?;
            record.insert("nuclear_estimate".into(), found.nuclear.into());
            record.insert("nuclear_std_error".into(), found.std_error.into());
            record.insert("nuclear_quadrature_error".into(), found.quadrature_error.into());
        }
        if let Some(path) = &args.out_column_norms {
            let norms = each_type!(self, |x| column_norms(*x, &config))?;
            output::tensor(path, Tensor::from_slice([dim], &norms)?)?;
        }
        record.insert("seconds".into(), start.elapsed().as_secs_f64().into());
        Ok(record)
    }
}
