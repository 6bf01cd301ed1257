//! `kc gp`: Gaussian processes on lattices and digital nets.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use kc_core::{Error, Tensor};
use kc_kernel::Kernel;
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::{FastGp, FitConfig, GpConfig, Loss, Optimizer, Parameter};
use kc_kernel::si::SiKernel;
use kc_qmc::Seed;
use kc_qmc::lattice::{Lattice, LatticeConfig};
use kc_qmc::net2::{DigitalNet, DigitalNetConfig};
use serde_json::{Value, json};

use super::kernel::params::{FromFile, Kind, Params, brief, values};
use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

/// Gaussian processes on lattices and digital nets: fit and predict in O(n log n).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fit a process to values at the points that `kc qmc points` gives for the same sequence, dimensions and seed
    #[command(
        after_help = "Example:\n  kc gp fit --kind si --seq lattice --dim 2 --n 1024 --seed 7 --y y.npy --out model.json"
    )]
    Fit(Fit),
    /// Predict with a fitted process
    #[command(
        after_help = "Example:\n  kc gp predict --model model.json --x xs.npy --mean m.npy --var v.npy --cubature c.json"
    )]
    Predict(Predict),
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Points {
    /// Shifted rank-1 lattice, natural order (kinds si)
    Lattice,
    /// Digital net, matrix-scrambled and digitally shifted, natural order (kinds dsi)
    Net,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Criterion {
    /// Marginal log-likelihood
    Mll,
    /// Generalised cross-validation
    Gcv,
    /// Leave-one-out cross-validation
    Loo,
}

impl From<Criterion> for Loss {
    fn from(criterion: Criterion) -> Self {
        match criterion {
            Criterion::Mll => Loss::Mll,
            Criterion::Gcv => Loss::Gcv,
            Criterion::Loo => Loss::Loo,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Trained {
    Scale,
    Gamma,
    Noise,
    Alpha,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Method {
    Rprop,
    Adam,
    Lbfgs,
}

#[derive(Debug, clap::Args)]
struct Fit {
    /// The kernel
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Kind,
    /// The points: a lattice for si kinds, a net for dsi kinds
    #[arg(long, value_enum, value_name = "SEQ")]
    seq: Points,
    /// Dimensions, from 1
    #[arg(long, value_name = "D")]
    dim: usize,
    /// Points, a power of two
    #[arg(long, value_name = "N")]
    n: usize,
    /// Values at the points, (n,) or (n, outputs)
    #[arg(long, value_name = "FILE")]
    y: String,
    /// What is optimised
    #[arg(long, value_enum, value_name = "LOSS", default_value_t = Criterion::Mll)]
    loss: Criterion,
    /// Parameters to start from (JSON, see `kc kernel gram`) [default: alpha 2 (1 for dsi-aa and combined), gamma
    /// 2^(1/d) - 1, scale 1, noise 1e-8 on lattices and 1e-16 on nets]
    #[arg(long, value_name = "FILE")]
    params: Option<String>,
    /// What is fitted, separated by commas; alpha for dsi-aa and combined kinds
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',', default_value = "scale,gamma")]
    train: Vec<Trained>,
    /// How
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = Method::Rprop)]
    optimizer: Method,
    /// Most iterations; 0 keeps the parameters as they are
    #[arg(long, value_name = "N", default_value_t = 5000)]
    iterations: usize,
    /// File for the model (JSON)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Predict {
    /// A model that `kc gp fit` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Points, (m, d): float64 in [0, 1], or uint64 digits for dsi kinds
    #[arg(long, value_name = "FILE")]
    x: String,
    /// File for the means, (m,) or (m, outputs) float64
    #[arg(long, value_name = "FILE")]
    mean: Option<PathBuf>,
    /// File for the variances, (m,) float64
    #[arg(long, value_name = "FILE")]
    var: Option<PathBuf>,
    /// File for the covariances between the points, (m, m) float64
    #[arg(long, value_name = "FILE")]
    cov: Option<PathBuf>,
    /// File for the mean and the variance of the integral over the unit cube (JSON)
    #[arg(long, value_name = "FILE")]
    cubature: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Fit(args) => fit(args, ctx),
        Verb::Predict(args) => predict(args),
    }
}

/// Coordinates of all points: 8 GiB.
const MOST: u64 = 1 << 30;

/// What decides the points of a process, and its values.
struct Data {
    kind: Kind,
    dim: usize,
    n: usize,
    seed: Seed,
    /// Row by row.
    y: Vec<f64>,
    outputs: Option<usize>,
}

impl Data {
    fn check(&self) -> Result<()> {
        if !self.n.is_power_of_two() {
            return Err(Error::argument("n", "a power of two", self.n).into());
        }
        let coordinates = (self.n as u64).saturating_mul(self.dim as u64);
        if coordinates > MOST {
            return Err(Error::too_large("points", coordinates, MOST, "coordinates").into());
        }
        let want = self.n.checked_mul(self.outputs.unwrap_or(1));
        if want != Some(self.y.len()) {
            return Err(Error::shape("y", format!("{} rows, one per point", self.n), &[self.y.len()]).into());
        }
        Ok(())
    }

    fn lattice(&self, params: &Params) -> Result<FastGp<SiKernel>> {
        let lattice = Lattice::new(LatticeConfig::new(self.dim, self.seed.clone()))?;
        self.filled(FastGp::lattice(lattice, params.si()?, &config(params))?)
    }

    fn net(&self, params: &Params) -> Result<FastGp<DsiKernel>> {
        let net = DigitalNet::new(DigitalNetConfig::new(self.dim, self.seed.clone()))?;
        self.filled(FastGp::net(net, params.dsi()?, &config(params))?)
    }

    fn filled<K: Kernel>(&self, mut gp: FastGp<K>) -> Result<FastGp<K>> {
        gp.next_points(self.n)?;
        gp.add_values(&self.y)?;
        Ok(gp)
    }
}

fn config(params: &Params) -> GpConfig {
    let mut config = GpConfig::default();
    config.noise = params.noise;
    config
}

fn fit(args: &Fit, ctx: &Ctx) -> Result<Answer> {
    if args.kind.is_si() != (args.seq == Points::Lattice) {
        return Err(Usage("--seq: expected lattice for si kinds and net for dsi kinds".into()).into());
    }
    let (y, n, outputs) = values("--y", &args.y)?;
    if n != args.n {
        return Err(Error::shape("--y", format!("{} rows, one per point", args.n), &[n]).into());
    }
    let data = Data { kind: args.kind, dim: args.dim, n, seed: ctx.big_seed(), y, outputs };
    data.check()?;
    let params = Params::read(args.kind, args.params.as_deref(), args.dim)?;
    if args.kind.is_si() {
        trained(data.lattice(&params)?, &data, &params, args)
    } else {
        trained(data.net(&params)?, &data, &params, args)
    }
}

fn trained<K: Kernel>(mut gp: FastGp<K>, data: &Data, params: &Params, args: &Fit) -> Result<Answer> {
    let mut settings = FitConfig::default();
    settings.max_iterations = args.iterations;
    settings.parameters = args
        .train
        .iter()
        .map(|trained| match trained {
            Trained::Scale => Parameter::Scale,
            Trained::Gamma => Parameter::Weights,
            Trained::Noise => Parameter::Noise,
            Trained::Alpha => Parameter::Smoothness,
        })
        .collect();
    settings.optimizer = match args.optimizer {
        Method::Rprop => Optimizer::Rprop,
        Method::Adam => Optimizer::Adam { rate: 0.1 },
        Method::Lbfgs => Optimizer::Lbfgs,
    };
    let done = gp.fit(args.loss.into(), &settings)?;
    let loss = args.loss.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let parameters = Params::to_json(data.kind, gp.kernel().config(), gp.noise(), params.bits);
    let seed = data.seed.as_u64().map_or_else(|| json!(data.seed.name()), |seed| json!(seed));
    let y = match data.outputs {
        None => json!(data.y),
        Some(outputs) => json!(data.y.chunks(outputs).collect::<Vec<_>>()),
    };
    let model = json!({
        "format": FORMAT,
        "kind": data.kind.name(),
        "seq": if data.kind.is_si() { "lattice" } else { "net" },
        "seed": seed,
        "n": data.n,
        "dim": data.dim,
        "params": parameters,
        "loss": loss,
        "loss_value": done.best,
        "y": y,
    });
    kc_io::json::write(&args.out, &model)?;
    let mut answer = Answer::new();
    answer.set("kind", data.kind.name()).set("n", data.n).set("dim", data.dim).set("loss", loss);
    answer.set("initial", done.initial).set("best", done.best).set("iterations", done.iterations);
    answer.set("params", parameters);
    Ok(answer)
}

/// What a model file starts with.
const FORMAT: &str = "kc gp 1";

fn load(args: &Predict) -> Result<(Data, Params)> {
    let model = kc_io::json::read(&args.model).context("--model")?;
    parse(&model).context("--model")
}

fn parse(model: &Value) -> Result<(Data, Params)> {
    let wrong = |field: &'static str, expected: &str| Error::argument(field, expected, brief(&model[field]));
    if model["format"] != FORMAT {
        return Err(wrong("format", FORMAT).into());
    }
    let kind = model["kind"].as_str().and_then(|name| Kind::from_str(name, false).ok());
    let kind = kind.ok_or_else(|| wrong("kind", "the name of a kernel"))?;
    if model["seq"] != if kind.is_si() { "lattice" } else { "net" } {
        return Err(wrong("seq", "lattice for si kinds, net for dsi kinds").into());
    }
    let size = |field| model[field].as_u64().and_then(|n| usize::try_from(n).ok());
    let dim = size("dim").filter(|&dim| dim > 0).ok_or_else(|| wrong("dim", "a number from 1"))?;
    let n = size("n").ok_or_else(|| wrong("n", "a power of two"))?;
    // Their length bounds what is allocated for the dimensions.
    if model["params"]["gamma"].as_array().map(Vec::len) != Some(dim) {
        return Err(
            Error::argument("gamma", format!("{dim} numbers"), brief(&model["params"]["gamma"])).into()
        );
    }
    let seed = match &model["seed"] {
        Value::Number(seed) => seed.as_u64().map(Seed::from),
        Value::String(seed) => seed.parse().ok(),
        _ => None,
    };
    let seed = seed.ok_or_else(|| wrong("seed", "an integer from 0"))?;
    let (y, outputs) = values_of(&model["y"])?;
    let data = Data { kind, dim, n, seed, y, outputs };
    data.check()?;
    let params = Params::parse(kind, &model["params"], dim)?;
    if params.noise.is_none() {
        return Err(Error::argument("noise", "a number above 0", "none").into());
    }
    Ok((data, params))
}

/// Numbers, or rows of equally many.
fn values_of(y: &Value) -> Result<(Vec<f64>, Option<usize>)> {
    let wrong = |got: &Value| Error::argument("y", "numbers, or rows of equally many", brief(got));
    let rows = y.as_array().ok_or_else(|| wrong(y))?;
    let number = |v: &Value| v.as_f64().ok_or_else(|| wrong(v));
    let Some(outputs) = rows.first().and_then(Value::as_array).map(Vec::len) else {
        return Ok((rows.iter().map(number).collect::<kc_core::Result<_>>()?, None));
    };
    let mut all = Vec::new();
    for row in rows {
        match row.as_array() {
            Some(values) if values.len() == outputs && outputs > 0 => {
                for value in values {
                    all.push(number(value)?);
                }
            }
            _ => return Err(wrong(row).into()),
        }
    }
    Ok((all, Some(outputs)))
}

fn predict(args: &Predict) -> Result<Answer> {
    if args.mean.is_none() && args.var.is_none() && args.cov.is_none() && args.cubature.is_none() {
        return Err(Usage("expected at least one of --mean, --var, --cov and --cubature".into()).into());
    }
    let (data, params) = load(args)?;
    if data.kind.is_si() {
        predicted(&data.lattice(&params)?, &data, args)
    } else {
        predicted(&data.net(&params)?, &data, args)
    }
}

fn predicted<K: FromFile>(gp: &FastGp<K>, data: &Data, args: &Predict) -> Result<Answer> {
    let x = gp.kernel().points("--x", &input::any("--x", &args.x)?)?;
    let count = x.len() as u64;
    if args.cov.is_some() && count.saturating_mul(count) > MOST {
        return Err(Error::too_large("--cov", count.saturating_mul(count), MOST, "entries").into());
    }
    // Everything is computed before anything is written.
    let mean = args.mean.as_ref().map(|path| Ok::<_, Error>((path, gp.mean(&x)?))).transpose()?;
    let variance = args.var.as_ref().map(|path| Ok::<_, Error>((path, gp.variance(&x)?))).transpose()?;
    let covariance =
        args.cov.as_ref().map(|path| Ok::<_, Error>((path, gp.covariance(&x, &x)?))).transpose()?;
    let integral = gp.cubature()?;
    let mut answer = Answer::new();
    answer.set("kind", data.kind.name()).set("points", x.len());
    let of_integral = match data.outputs {
        None => json!(integral.mean[0]),
        Some(_) => json!(integral.mean),
    };
    answer.set("integral", of_integral.clone()).set("integral_variance", integral.variance);
    if let Some((path, mean)) = mean {
        match data.outputs {
            None => output::tensor(path, mean.reshape([x.len()])?)?,
            Some(_) => output::tensor(path, mean)?,
        }
    }
    if let Some((path, variance)) = variance {
        output::tensor(path, Tensor::from_slice([variance.len()], &variance)?)?;
    }
    if let Some((path, covariance)) = covariance {
        output::tensor(path, covariance)?;
    }
    if let Some(path) = &args.cubature {
        kc_io::json::write(path, &json!({ "mean": of_integral, "variance": integral.variance }))?;
    }
    Ok(answer)
}
