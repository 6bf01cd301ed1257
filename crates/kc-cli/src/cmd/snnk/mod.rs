//! `kc snnk`: layers, adapters and bundled networks of random features.

mod load;
mod maps;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use kc_core::{AnyTensor, Tensor, TensorView};
use kc_features::arc_cosine::{Order, arccos_kernel};
use kc_features::snnk::{
    Adapter, Bundle, Bundled, LogisticConfig, Lookup, SnnkLayer, Weights, bundle, fit_closed_form,
    fit_logistic, fit_weighted,
};
use kc_features::{FeatureMap, Scalar, to_complex};
use kc_io::safetensors::SafeTensorsFile;
use serde_json::json;

use self::load::{is_wide, matrix, vector};
use self::maps::{ChainFlags, MapFlags};
use crate::args::Ctx;
use crate::output;
use crate::report::{Answer, Usage};

/// Scalable neural network kernels: layers as products of random features of inputs and of weights.
///
/// Results are float64 where --x is, else float32; universal features are complex128 or complex64.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kc snnk features --x x.npy --map relu --m 256 --side x --out phi.npy\n  \
                  kc snnk layer --x x.npy --w w.npy --map urf --spectrum cos --out y.npy\n  \
                  kc snnk bundle --weights w1.npy,w2.npy --m 64,64 --x x.npy --out y.npy --psi psi.npy\n  \
                  kc snnk fit --x x.npy --y y.npy --m 64 --ridge 0.1 --out psi.npy\n  \
                  kc snnk adapter --params a.safetensors --x x.npy --out y.npy\n  \
                  kc snnk arccos --x x.npy --w w.npy --out k.npy"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the random features of rows
    #[command(
        after_help = "Examples:\n  kc snnk features --x x.npy --map relu --m 256 --seed 0 --side x --out phi.npy\n  \
                      kc snnk features --x w.npy --map urf --spectrum gauss --b b.npy --side w --out psi.npy"
    )]
    Features(Features),
    /// Compute a layer, and its gradients
    #[command(
        after_help = "Example:\n  kc snnk layer --x x.npy --w w.npy --b b.npy --map urf --spectrum sin --out y.npy \
                      --dy dy.npy --grad-dir grads"
    )]
    Layer(Layer),
    /// Bundle a network of ReLU-feature layers into one matrix, and run it
    #[command(
        after_help = "Example:\n  kc snnk bundle --weights w1.npy,w2.npy --g g1.npy,g2.npy --x x.npy --out y.npy \
                      --psi psi.npy"
    )]
    Bundle(BundleVerb),
    /// Fit the matrix of a bundled network in closed form
    #[command(
        after_help = "Examples:\n  kc snnk fit --x x.npy --y y.npy --g g1.npy,g2.npy --ridge 0.5 --out psi.npy\n  \
                      kc snnk fit --x x.npy --y labels.npy --m 128 --logistic --ridge 1 --out psi.npy"
    )]
    Fit(Fit),
    /// Run an adapter: x + Up(layer(x))
    ///
    /// Tensors of the file: psi (r, features), g (features, d), and up_w (d, r) with up_b (d), or v (d). Optional:
    /// threshold; xi, c, split, lam (universal); omega, degrees, coefficients, h01 (Maclaurin); normalize;
    /// norm_before_gamma, norm_before_beta, norm_after_gamma, norm_after_beta (d).
    #[command(after_help = "Example:\n  kc snnk adapter --params a.safetensors --x x.npy --out y.npy")]
    Adapter {
        /// The adapter, .safetensors
        #[arg(long, value_name = "FILE")]
        params: String,
        /// Inputs, (n, d)
        #[arg(long, value_name = "FILE")]
        x: String,
        /// File for the result, (n, d)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Compute the arc-cosine kernel exactly: what products of ReLU features tend to
    #[command(after_help = "Example:\n  kc snnk arccos --x x.npy --w w.npy --out k.npy")]
    Arccos {
        /// Rows, (n, d)
        #[arg(long, value_name = "FILE")]
        x: String,
        /// Rows, (out, d)
        #[arg(long, value_name = "FILE")]
        w: String,
        /// Power of the rectified projections
        #[arg(long, value_enum, value_name = "N", default_value_t = Power::One)]
        order: Power,
        /// File for the kernel, (n, out)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Power {
    #[value(name = "0")]
    Zero,
    #[value(name = "1")]
    One,
    #[value(name = "2")]
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum SideFlag {
    X,
    W,
}

#[derive(Debug, clap::Args)]
struct Features {
    /// Rows, (n, d): inputs, or weights with --side w
    #[arg(long, value_name = "FILE")]
    x: String,
    #[command(flatten)]
    map: MapFlags,
    /// Features of inputs, or of weights
    #[arg(long, value_enum, value_name = "SIDE", default_value_t = SideFlag::X)]
    side: SideFlag,
    /// Biases of the weights, (n); with --side w
    #[arg(long, value_name = "FILE")]
    b: Option<String>,
    /// The layer has biases: ReLU and Maclaurin features are then of (x, 1) and (w, b). Follows from --b, and from a
    /// --g of d + 1 columns
    #[arg(long)]
    bias: bool,
    /// File for the features, (n, m); complex for universal ones
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Layer {
    /// Inputs, (n, d)
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Weights, (out, d)
    #[arg(long, value_name = "FILE")]
    w: String,
    /// Biases, (out)
    #[arg(long, value_name = "FILE")]
    b: Option<String>,
    #[command(flatten)]
    map: MapFlags,
    /// File for the result, (n, out)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Gradient by the result, (n, out)
    #[arg(long, value_name = "FILE", requires = "grad_dir")]
    dy: Option<String>,
    /// Folder for psi.npy, and with --dy for dx.npy and dpsi.npy; complex ones are d/dRe + i d/dIm
    #[arg(long, value_name = "DIR")]
    grad_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct BundleVerb {
    /// Weights of the layers, first to last, separated by commas: (out, d) each
    #[arg(long, value_name = "FILES", value_delimiter = ',', required = true)]
    weights: Vec<String>,
    #[command(flatten)]
    chain: ChainFlags,
    /// Inputs, (n, d)
    #[arg(long, value_name = "FILE")]
    x: String,
    /// File for the result, (n, out)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the one matrix, (out, features)
    #[arg(long, value_name = "FILE")]
    psi: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Fit {
    /// Inputs, (n, d)
    #[arg(long, value_name = "FILE")]
    x: String,
    /// Targets, (n, out) or (n); class labels (n), integers from 0, with --logistic
    #[arg(long, value_name = "FILE")]
    y: String,
    #[command(flatten)]
    chain: ChainFlags,
    /// Factor of the squared length of psi, at least 0; 0 gives the shortest of all solutions
    #[arg(long, value_name = "R", default_value_t = 0.0, allow_negative_numbers = true)]
    ridge: f64,
    /// Weights of the rows, (n), at least 0
    #[arg(long, value_name = "FILE", conflicts_with = "logistic")]
    row_weights: Option<String>,
    /// Fit a classifier by Newton's method instead of least squares
    #[arg(long)]
    logistic: bool,
    /// File for the matrix, (out, features)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    /// Calls the f64 or the f32 form, by the type of the inputs.
    macro_rules! by_type {
        ($file:expr, $function:ident ( $($arg:expr),* )) => {
            if is_wide("--x", $file)? { $function::<f64>($($arg),*) } else { $function::<f32>($($arg),*) }
        };
    }
    match &args.verb {
        Verb::Features(args) => by_type!(&args.x, features(args, ctx)),
        Verb::Layer(args) => by_type!(&args.x, layer(args, ctx)),
        Verb::Bundle(args) => by_type!(&args.x, run_bundle(args, ctx)),
        Verb::Fit(args) => by_type!(&args.x, fit(args, ctx)),
        Verb::Adapter { params, x, out } => by_type!(x, adapter(params, x, out)),
        Verb::Arccos { x, w, order, out } => {
            let order = match order {
                Power::Zero => Order::Zero,
                Power::One => Order::One,
                Power::Two => Order::Two,
            };
            by_type!(x, arccos(x, w, order, out))
        }
    }
}

/// Features or parameters, as complex numbers where they are.
fn store<T: Scalar>(path: &Path, values: TensorView<'_, T, 2>, complex: bool) -> Result<()> {
    if complex {
        return output::tensor(path, to_complex(values)?);
    }
    output::tensor(path, values.to_tensor()?)
}

fn features<T: Scalar>(args: &Features, ctx: &Ctx) -> Result<Answer> {
    if args.b.is_some() && args.side == SideFlag::X {
        return Err(Usage("--b: biases belong to weights: expected --side w".into()).into());
    }
    let x = matrix::<T>("--x", &args.x)?;
    let b = args.b.as_ref().map(|b| vector::<T>("--b", b)).transpose()?;
    let map = args.map.map::<T>(x.shape()[1], b.is_some() || args.bias, ctx)?;
    let phi = match args.side {
        SideFlag::X => map.apply(x.view())?,
        SideFlag::W => map.weights(x.view(), b.as_deref())?,
    };
    store(&args.out, phi.view(), map.is_complex())?;
    let mut answer = Answer::new();
    answer.set("rows", phi.shape()[0]).set("features", maps::count(&map)).set("complex", map.is_complex());
    Ok(answer)
}

fn layer<T: Scalar>(args: &Layer, ctx: &Ctx) -> Result<Answer> {
    let (x, w) = (matrix::<T>("--x", &args.x)?, matrix::<T>("--w", &args.w)?);
    let b = args.b.as_ref().map(|b| vector::<T>("--b", b)).transpose()?;
    let dy = args.dy.as_ref().map(|dy| matrix::<T>("--dy", dy)).transpose()?;
    let map = args.map.map::<T>(w.shape()[1], b.is_some(), ctx)?;
    let psi = map.weights(w.view(), b.as_deref())?;
    let layer = SnnkLayer::new(map, psi)?;
    let y = layer.forward(x.view())?;
    let gradients = dy.map(|dy| layer.backward(x.view(), dy.view())).transpose()?;
    let mut answer = Answer::new();
    answer.set("shape", json!(y.shape())).set("features", maps::count(layer.map()));
    answer.set("parameters", layer.n_params()).set("weights", w.len());
    if let Some(dir) = &args.grad_dir {
        output::folder(dir)?;
        let complex = layer.map().is_complex();
        store(&dir.join("psi.npy"), layer.psi(), complex)?;
        if let Some(gradients) = gradients {
            store(&dir.join("dpsi.npy"), gradients.dpsi.view(), complex)?;
            output::tensor(&dir.join("dx.npy"), gradients.dx)?;
        }
    }
    output::tensor(&args.out, y)?;
    Ok(answer)
}

fn run_bundle<T: Scalar>(args: &BundleVerb, ctx: &Ctx) -> Result<Answer> {
    let x = matrix::<T>("--x", &args.x)?;
    let weights = args.weights.iter().map(|w| matrix::<T>("--weights", w)).collect::<Result<Vec<_>>>()?;
    let features: Bundle<T> = args.chain.bundle(x.shape()[1], ctx)?;
    let layers: Vec<Weights<'_, T>> = weights.iter().map(|w| (w.view(), None)).collect();
    let network = bundle(&layers, &features)?;
    let y = network.forward(x.view())?;
    let mut answer = Answer::new();
    answer.set("shape", json!(y.shape())).set("layers", weights.len());
    answer.set("parameters", network.n_params());
    answer.set("weights", weights.iter().map(Tensor::len).sum::<usize>());
    if let Some(psi) = &args.psi {
        output::tensor(psi, network.psi().to_tensor()?)?;
    }
    output::tensor(&args.out, y)?;
    Ok(answer)
}

fn fit<T: Scalar>(args: &Fit, ctx: &Ctx) -> Result<Answer> {
    let x = matrix::<T>("--x", &args.x)?;
    let features: Bundle<T> = args.chain.bundle(x.shape()[1], ctx)?;
    let mut answer = Answer::new();
    let (network, key, value): (Bundled<T>, _, f64) = if args.logistic {
        let (labels, classes) = load::labels("--y", &args.y)?;
        let config = LogisticConfig { ridge: args.ridge, ..LogisticConfig::default() };
        let fitted = fit_logistic(&features, x.view(), &labels, classes, &config)?;
        answer.set("classes", classes).set("steps", fitted.steps).set("loss", fitted.loss);
        let y = fitted.network.forward(x.view())?;
        let right = y
            .as_slice()
            .chunks_exact(classes)
            .zip(&labels)
            .filter(|(row, label)| kc_core::math::arg_max(row) == Some(**label));
        let share = right.count() as f64 / labels.len() as f64;
        (fitted.network, "accuracy", share)
    } else {
        let y = load::columns::<T>("--y", &args.y)?;
        let weights = args.row_weights.as_ref().map(|w| vector::<f64>("--row-weights", w)).transpose()?;
        let network = match &weights {
            Some(weights) => fit_weighted(&features, x.view(), y.view(), Some(weights), args.ridge)?,
            None => fit_closed_form(&features, x.view(), y.view(), args.ridge)?,
        };
        let p = network.forward(x.view())?;
        let square = |(p, y): (&T, &T)| (p.to_f64() - y.to_f64()).powi(2);
        let mean = p.as_slice().iter().zip(y.as_slice()).map(square).sum::<f64>() / p.len() as f64;
        (network, "mean_squared_error", mean)
    };
    answer.set("ridge", args.ridge).set("shape", json!(network.psi().shape())).set(key, value);
    output::tensor(&args.out, network.psi().to_tensor()?)?;
    Ok(answer)
}

/// The tensors of a file.
struct File(SafeTensorsFile);

impl Lookup for File {
    fn tensor(&self, name: &str) -> kc_core::Result<Option<AnyTensor>> {
        if self.0.contains(name) { self.0.get(name).map(Some) } else { Ok(None) }
    }
}

fn adapter<T: Scalar>(params: &str, x: &str, out: &Path) -> Result<Answer> {
    let adapter = Adapter::<T>::from_tensors(&File(SafeTensorsFile::open(params)?))?;
    let y = adapter.forward(matrix::<T>("--x", x)?.view())?;
    let mut answer = Answer::new();
    answer.set("shape", json!(y.shape())).set("parameters", adapter.n_params());
    output::tensor(out, y)?;
    Ok(answer)
}

fn arccos<T: Scalar>(x: &str, w: &str, order: Order, out: &Path) -> Result<Answer> {
    let kernel = arccos_kernel(order, matrix::<T>("--x", x)?.view(), matrix::<T>("--w", w)?.view())?;
    let mut answer = Answer::new();
    answer.set("shape", json!(kernel.shape()));
    output::tensor(out, kernel)?;
    Ok(answer)
}
