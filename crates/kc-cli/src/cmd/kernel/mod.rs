//! `kc kernel`: fast transforms, kernel matrices, and their fast algebra.

pub(crate) mod params;
mod transform;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::{Error, Tensor};
use kc_kernel::Gram;
use serde_json::json;

use crate::args::Ctx;
use crate::report::{Answer, Usage};
use crate::{input, output};
use params::{FromFile, Kind, Params};

/// Structured kernels on lattices and digital nets: transforms, matrices, products and solutions in O(n log n).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Transform the last axis: Walsh-Hadamard, or Fourier in bit-reversed order; all unitary
    #[command(after_help = "Example:\n  kc kernel ft --kind fwht --in x.npy --out y.npy")]
    Ft(transform::Args),
    /// Write the matrix K(x_i, z_j)
    #[command(
        after_help = "Example:\n  kc kernel gram --kind si --x x.npy --params p.json --out k.npy\nwith p.json:\n  \
                      {\"alpha\": 2, \"gamma\": [1, 0.25], \"scale\": 1}"
    )]
    Gram(GramArgs),
    /// Multiply by, or solve with, the kernel matrix of structured points without making it
    #[command(
        after_help = "Example:\n  kc kernel fast --kind dsi --x x.npy --params p.json --op solve --in y.npy --out c.npy\n\
                      with p.json:\n  {\"alpha\": [1, 2], \"gamma\": 0.5, \"scale\": 10, \"noise\": 0.001, \"t\": 63}"
    )]
    Fast(FastArgs),
}

/// Which kernel.
#[derive(Debug, clap::Args)]
struct KernelArgs {
    /// The kernel
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Kind,
    /// Parameters (JSON): alpha (a number or one per dimension; 4 rows for combined kinds), gamma (the same), scale,
    /// noise, t (bits of digital points, 1 to 64) [default: alpha 2 (1 for dsi-aa and combined), gamma 2^(1/d) - 1,
    /// scale 1, no noise, t 63]
    #[arg(long, value_name = "FILE")]
    params: Option<String>,
}

#[derive(Debug, clap::Args)]
struct GramArgs {
    #[command(flatten)]
    kernel: KernelArgs,
    /// Points, (n, d): float64 in [0, 1] (si), uint64 digits or floats (dsi)
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Points of the columns, (m, d) [default: x]
    #[arg(long, value_name = "FILE")]
    z: Option<String>,
    /// File for the matrix, (n, m) float64
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Operation {
    /// K y
    Mul,
    /// (K + noise)^-1 y
    Solve,
    /// The eigenvalues of K, in the order of the transform
    Eig,
    /// log det (K + noise)
    Logdet,
}

#[derive(Debug, clap::Args)]
struct FastArgs {
    #[command(flatten)]
    kernel: KernelArgs,
    /// Points, (n, d), n a power of two: of a lattice (si) or digital net (dsi) in natural order with one shift
    #[arg(long, value_name = "FILE")]
    x: String,
    /// What to do; noise counts in solve and logdet
    #[arg(long, value_enum, value_name = "OP")]
    op: Operation,
    /// Values, (n,) or (n, columns), for mul and solve
    #[arg(long = "in", value_name = "FILE")]
    input: Option<String>,
    /// File for the result, float64: the shape of the input, (n,) for eig, (1,) for logdet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    match &args.verb {
        Verb::Ft(args) => transform::run(args),
        Verb::Gram(args) => {
            let x = input::any("--x", &args.x)?;
            let params =
                Params::read(args.kernel.kind, args.kernel.params.as_deref(), params::dims("--x", &x)?)?;
            if args.kernel.kind.is_si() { gram(&params.si()?, args) } else { gram(&params.dsi()?, args) }
        }
        Verb::Fast(args) => {
            let x = input::any("--x", &args.x)?;
            let params =
                Params::read(args.kernel.kind, args.kernel.params.as_deref(), params::dims("--x", &x)?)?;
            let noise = params.noise.unwrap_or(0.0);
            if args.kernel.kind.is_si() {
                fast(&params.si()?, noise, args)
            } else {
                fast(&params.dsi()?, noise, args)
            }
        }
    }
}

/// Entries of a matrix: 16 GiB.
const MOST: u64 = 1 << 31;

fn gram<K: FromFile>(kernel: &K, args: &GramArgs) -> Result<Answer> {
    let x = kernel.tensor("--x", &input::any("--x", &args.x)?)?;
    let z = args.z.as_ref().map(|z| kernel.tensor("--z", &input::any("--z", z)?)).transpose()?;
    let z = z.as_ref().unwrap_or(&x);
    let entries = (x.shape()[0] as u64).saturating_mul(z.shape()[0] as u64);
    if entries > MOST {
        return Err(Error::too_large("the matrix", entries, MOST, "entries").into());
    }
    let k = kc_kernel::gram(kernel, x.view(), z.view())?;
    let mut answer = Answer::new();
    answer.set("kind", args.kernel.kind.name()).set("shape", json!(k.shape()));
    output::tensor(&args.out, k)?;
    Ok(answer)
}

fn fast<K: FromFile>(kernel: &K, noise: f64, args: &FastArgs) -> Result<Answer> {
    let needs_values = matches!(args.op, Operation::Mul | Operation::Solve);
    if needs_values != args.input.is_some() {
        let text =
            if needs_values { "--in: expected for mul and solve" } else { "--in: only for mul and solve" };
        return Err(Usage(text.into()).into());
    }
    let gram = Gram::new(kernel, kernel.tensor("--x", &input::any("--x", &args.x)?)?.view())?;
    let mut answer = Answer::new();
    answer.set("kind", args.kernel.kind.name()).set("n", gram.len());
    if let Some(file) = &args.input {
        let (y, n, outputs) = params::values("--in", file)?;
        if n != gram.len() {
            return Err(Error::shape("--in", format!("{} rows, one per point", gram.len()), &[n]).into());
        }
        let one = |y: &[f64]| if args.op == Operation::Mul { gram.mul(y) } else { gram.solve(y, noise) };
        return store(&args.out, by_columns(&y, outputs, one)?, n, outputs, answer);
    }
    match args.op {
        Operation::Logdet => {
            let log_det = gram.log_det(noise)?;
            answer.set("logdet", log_det);
            output::tensor(&args.out, Tensor::from_slice([1], &[log_det])?)?;
        }
        _ => {
            let all = gram.eigenvalues();
            output::tensor(&args.out, Tensor::from_slice([all.len()], &all)?)?;
        }
    }
    Ok(answer)
}

/// Applies a function to each column.
fn by_columns(
    y: &[f64],
    outputs: Option<usize>,
    f: impl Fn(&[f64]) -> kc_core::Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    let outputs = outputs.unwrap_or(1);
    let mut out = vec![0.0; y.len()];
    for o in 0..outputs {
        let column: Vec<f64> = y.iter().skip(o).step_by(outputs).copied().collect();
        out.iter_mut().skip(o).step_by(outputs).zip(f(&column)?).for_each(|(out, v)| *out = v);
    }
    Ok(out)
}

/// Rows of values, in the shape that they came in.
fn store(path: &Path, rows: Vec<f64>, n: usize, outputs: Option<usize>, answer: Answer) -> Result<Answer> {
    match outputs {
        None => output::tensor(path, Tensor::from_slice([n], &rows)?)?,
        Some(outputs) => output::tensor(path, Tensor::from_slice([n, outputs], &rows)?)?,
    }
    Ok(answer)
}
