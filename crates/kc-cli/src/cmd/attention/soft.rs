//! `kc attention soft`, `soft-exact` and `newton-inverse`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use kc_attention::soft::{
    Grid, Inverse, Landmark, NewtonReport, SoftConfig, newton_inverse, soft_attention,
    soft_attention_backward, soft_exact,
};
use kc_core::{DType, Error, Tensor, TensorView};
use serde_json::json;

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Queries, which are the keys too, (batch, heads, tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Values, of the same shape
    #[arg(long, value_name = "FILE")]
    v: String,
    /// How the tokens lie: ROWSxCOLUMNS for an image, N for a sequence
    #[arg(long, value_name = "HxW", value_parser = grid)]
    grid: Grid,
    /// Side of the patch that gives one landmark, 1 to the shorter side of the grid
    #[arg(long, value_name = "R")]
    ratio: usize,
    /// Where the landmarks come from [default: conv]
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "landmarks")]
    landmark: Option<Kind>,
    /// Weights of the landmarks' convolution, (out, in, R, R); (out, in, 1, R) for a sequence
    #[arg(long, value_name = "FILE")]
    conv_w: Option<String>,
    /// Scale of the normalisation after it, (channels,) [default: ones]
    #[arg(long, value_name = "FILE", requires = "conv_w")]
    ln_g: Option<String>,
    /// Shift of the normalisation after it, (channels,) [default: zeros]
    #[arg(long, value_name = "FILE", requires = "conv_w")]
    ln_b: Option<String>,
    /// Given landmarks, (batch, heads, landmarks, channels), in units of q channels^(-1/4)
    #[arg(long, value_name = "FILE")]
    landmarks: Option<String>,
    #[command(flatten)]
    inverse: InverseArgs,
    /// Normalise the inverse symmetrically, for long sequences
    #[arg(long)]
    norm: bool,
    /// Kernels of the local branch, (heads, k, k) with k odd
    #[arg(long, value_name = "FILE")]
    local: Option<String>,
    /// Tokens that count, (batch, tokens), bool or uint8
    #[arg(long, value_name = "FILE")]
    mask: Option<String>,
    /// Most landmarks to allow; the inverse costs their cube
    #[arg(long, value_name = "N", default_value_t = 4096)]
    most_landmarks: usize,
    /// Gradient by the result, of its shape: compute all gradients
    #[arg(long, value_name = "FILE", requires = "grad_dir")]
    dx: Option<String>,
    /// Folder for the gradients: dq, dv, dconv_w, dln_g, dln_b, ddw, dlandmarks (.npy)
    #[arg(long, value_name = "DIR", requires = "dx")]
    grad_dir: Option<PathBuf>,
    /// File for the result, float32 of the shape of q
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder for landmarks.npy, a.npy (their kernel) and ainv.npy (its inverse), float32
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// A convolution of each patch, layer normalisation, GELU: the paper's
    Conv,
    /// The mean of each patch
    Avgpool,
    /// The largest value of each patch
    Maxpool,
    /// Tokens by chance (--seed)
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum How {
    /// Newton's iteration with a ridge: the paper's
    Newton,
    /// Newton's iteration whose first step is halved until it fits
    Backtrack,
    /// Cholesky's factors
    Exact,
    /// The pseudo-inverse
    Pinv,
}

/// How to invert.
#[derive(Debug, clap::Args)]
struct InverseArgs {
    /// How the landmarks' kernel is inverted
    #[arg(long, visible_alias = "mode", value_enum, value_name = "HOW", default_value_t = How::Newton)]
    inverse: How,
    /// Steps of Newton's iteration
    #[arg(long, value_name = "N", default_value_t = 20)]
    iters: usize,
    /// Added to the diagonal (newton and exact), at least 0
    #[arg(long, value_name = "X", default_value_t = 0.01, allow_negative_numbers = true)]
    ridge: f64,
    /// Eigenvalues below this part of the largest count as 0 (pinv)
    #[arg(long, value_name = "X", default_value_t = 1e-10, allow_negative_numbers = true)]
    rcond: f64,
}

impl InverseArgs {
    fn inverse(&self) -> Inverse {
        match self.inverse {
            How::Newton => Inverse::Newton { iters: self.iters, ridge: self.ridge },
            How::Backtrack => Inverse::NewtonBacktrack { iters: self.iters },
            How::Exact => Inverse::Exact { ridge: self.ridge },
            How::Pinv => Inverse::Pinv { rcond: self.rcond },
        }
    }
}

fn grid(text: &str) -> Result<Grid, String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|e| format!("{text:?}: {e}"));
    match text.split_once(['x', 'X']) {
        Some((h, w)) => Ok(Grid::Image { h: number(h)?, w: number(w)? }),
        None => Ok(Grid::Seq(number(text)?)),
    }
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let (q, v) = (input::f32::<4>("--q", &args.q)?, input::f32::<4>("--v", &args.v)?);
    let (q, v) = (q.view("--q")?, v.view("--v")?);
    let conv = args.conv_w.as_ref().map(|w| input::f32::<4>("--conv-w", w)).transpose()?;
    let vector = |name, file: &Option<String>, value| match file {
        Some(file) => input::f32_vector(name, file),
        None => Ok(vec![value; q.shape()[3]]),
    };
    let (gamma, beta) = (vector("--ln-g", &args.ln_g, 1.0)?, vector("--ln-b", &args.ln_b, 0.0)?);
    let given = args.landmarks.as_ref().map(|l| input::f32::<4>("--landmarks", l)).transpose()?;
    let local = args.local.as_ref().map(|l| input::f32::<3>("--local", l)).transpose()?;
    let mask = args.mask.as_ref().map(|m| input::any("--mask", m)).transpose()?;
    let landmark = match (&given, args.landmark.unwrap_or(Kind::Conv)) {
        (Some(given), _) => Landmark::Given(given.view("--landmarks")?),
        (None, Kind::Avgpool) => Landmark::AvgPool,
        (None, Kind::Maxpool) => Landmark::MaxPool,
        (None, Kind::Random) => Landmark::Random { seed: ctx.seed()? },
        (None, Kind::Conv) => match &conv {
            Some(w) => Landmark::Conv { w: w.view("--conv-w")?, gamma: &gamma, beta: &beta },
            None => return Err(Usage("--conv-w: expected for landmarks of a convolution".into()).into()),
        },
    };
    let config = SoftConfig {
        inverse: args.inverse.inverse(),
        norm: args.norm,
        local: local.as_ref().map(|l| l.view("--local")).transpose()?,
        mask: mask.as_ref().map(|m| m.view::<u8, 2>("--mask")).transpose()?,
        most_landmarks: args.most_landmarks,
        ..SoftConfig::new(args.grid, args.ratio)
    };
    let dx = args.dx.as_ref().map(|dx| input::f32::<4>("--dx", dx)).transpose()?;
    let start = Instant::now();
    let (x, cache) = soft_attention(q, v, &landmark, &config)?;
    let grads = match &dx {
        Some(dx) => Some(soft_attention_backward(&cache, dx.view("--dx")?)?),
        None => None,
    };
    let seconds = start.elapsed().as_secs_f64();
    let (landmarks, reports) = (cache.landmarks()?, cache.reports());
    if let Some(dir) = &args.dump_dir {
        output::folder(dir)?;
        output::tensor(&dir.join("landmarks.npy"), landmarks.clone())?;
        output::tensor(&dir.join("a.npy"), narrow(&cache.kernel()?)?)?;
        output::tensor(&dir.join("ainv.npy"), narrow(&cache.inverse()?)?)?;
    }
    if let (Some(dir), Some(grads)) = (&args.grad_dir, grads) {
        output::folder(dir)?;
        output::tensor(&dir.join("dq.npy"), grads.dq)?;
        output::tensor(&dir.join("dv.npy"), grads.dv)?;
        optional(dir, "dconv_w.npy", grads.d_conv_w)?;
        optional(dir, "ddw.npy", grads.d_local)?;
        optional(dir, "dlandmarks.npy", grads.d_landmarks)?;
        for (name, x) in [("dln_g.npy", grads.d_gamma), ("dln_b.npy", grads.d_beta)] {
            optional(dir, name, x.map(|x| Tensor::from_slice([x.len()], &x)).transpose()?)?;
        }
    }
    let mut answer = Answer::new();
    answer.set("shape", json!(x.shape())).set("landmarks", landmarks.shape()[2]);
    output::tensor(&args.out, x)?;
    describe(&mut answer, &reports);
    answer.set("seconds", seconds);
    Ok(answer)
}

/// The worst residual and the steps, over batch entries and heads.
fn describe(answer: &mut Answer, reports: &[NewtonReport]) {
    answer.set("residual", reports.iter().fold(0.0f64, |most, r| most.max(r.residual)));
    answer.set("residuals", reports.iter().map(|r| r.residual).collect::<Vec<f64>>());
    answer.set("iters", reports.iter().map(|r| r.iters).max().unwrap_or(0));
}

fn optional<const N: usize>(dir: &Path, name: &str, x: Option<Tensor<f32, N>>) -> Result<()> {
    x.map_or(Ok(()), |x| output::tensor(&dir.join(name), x))
}

fn narrow(x: &Tensor<f64, 4>) -> Result<Tensor<f32, 4>> {
    let values: Vec<f32> = x.as_slice().iter().map(|&x| x as f32).collect();
    Ok(Tensor::from_slice(x.shape(), &values)?)
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExactArgs {
    /// Queries, which are the keys too, (batch, heads, tokens, channels), real numbers
    #[arg(long, value_name = "FILE")]
    q: String,
    /// Values, of the same shape
    #[arg(long, value_name = "FILE")]
    v: String,
    /// File for the result, float32 of the shape of q
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run_exact(args: &ExactArgs) -> Result<Answer> {
    let (q, v) = (input::f32::<4>("--q", &args.q)?, input::f32::<4>("--v", &args.v)?);
    let x = soft_exact(q.view("--q")?, v.view("--v")?)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(x.shape()));
    output::tensor(&args.out, x)?;
    Ok(answer)
}

#[derive(Debug, clap::Args)]
pub(crate) struct InvertArgs {
    /// One matrix or many, (.., m, m), float32 or float64
    #[arg(long, value_name = "FILE")]
    a: String,
    #[command(flatten)]
    inverse: InverseArgs,
    /// File for the inverses, of the type and shape of a
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run_inverse(args: &InvertArgs) -> Result<Answer> {
    let a = input::any("--a", &args.a)?;
    if !matches!(a.dtype(), DType::F32 | DType::F64) {
        return Err(Error::dtype("--a", "float32 or float64", a.dtype()).into());
    }
    let shape = a.shape().to_vec();
    let [.., rows, columns] = shape[..] else {
        return Err(Error::shape("--a", "(.., m, m)", &shape).into());
    };
    if rows != columns || rows == 0 {
        return Err(Error::shape("--a", "(.., m, m) with m > 0", &shape).into());
    }
    let bytes = kc_core::Bytes::from_owner(a.bytes().to_vec());
    let flat = kc_core::AnyTensor::new(a.dtype(), vec![a.len()], bytes)?.to_f64::<1>("--a")?;
    let start = Instant::now();
    let (mut inverses, mut reports) = (Vec::with_capacity(a.len()), Vec::new());
    for (i, a) in flat.as_slice().chunks_exact(rows * columns).enumerate() {
        let view = TensorView::from_slice([rows, columns], a)?;
        let (y, report) = newton_inverse(view, &args.inverse.inverse()).map_err(|error| match error {
            Error::NotConverged { iterations, residual, .. } => {
                Error::NotConverged { what: format!("inverse of matrix {i}").into(), iterations, residual }
            }
            Error::NotFinite { index, value, .. } => {
                Error::not_finite("--a", &[&[i], &index[..]].concat(), value)
            }
            Error::Singular { index, .. } => {
                Error::Singular { arg: format!("--a: matrix {i}").into(), index }
            }
            other => other,
        })?;
        inverses.extend_from_slice(y.as_slice());
        reports.push(report);
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = if a.dtype() == DType::F32 {
        let narrow: Vec<f32> = inverses.iter().map(|&x| x as f32).collect();
        kc_core::bytemuck::cast_slice(&narrow).to_vec()
    } else {
        kc_core::bytemuck::cast_slice(&inverses).to_vec()
    };
    let out = kc_core::AnyTensor::new(a.dtype(), shape.clone(), kc_core::Bytes::from_owner(bytes))?;
    kc_io::write(&args.out, &out)?;
    let mut answer = Answer::new();
    answer.set("shape", json!(shape));
    describe(&mut answer, &reports);
    answer.set("seconds", seconds);
    Ok(answer)
}
