//! `kc qmc evaluate`: values of an integrand.

use std::path::PathBuf;

use anyhow::Result;
use kc_core::{Error, Tensor};
use kc_qmc::Integrand;
use kc_qmc::periodize::{Periodization, Periodized};

use super::integrands::integrand;
use super::named::Named;
use crate::args::Ctx;
use crate::report::Answer;
use crate::{input, output};

/// Evaluate a named integrand at points of the unit cube
#[derive(Debug, clap::Args)]
#[command(after_help = "Integrands:\n  \
    keister; genz-oscillatory-1 (families oscillatory, corner, product, gaussian, continuous, discontinuous; kinds 1 to \
    3);\n  ishigami:a=7,b=0.1; box:s=[..]; linear0; sin1d:k=1; multimodal2d; fourbranch2d; hartmann6; neg-exp; cubic3;\n  \
    asian, european, barrier, lookback, digital (or option with kind) with side [call], volatility [0.5], start [30], strike\n  \
    [35], rate [0], t_final [1], decomposition [pca], mean [arithmetic], rule [trapezoidal], barrier [in],\n  \
    barrier_price [38], payout [10]; bayesian-lr with features, labels, prior_mean [0], prior_covariance [10];\n  \
    sensitivity(NAME) with indices [singletons] (or all), at points of twice the coordinates\n\n\
    Examples:\n  kc qmc evaluate --integrand keister --in u.npy --out y.npy\n  \
    kc qmc evaluate --integrand option:kind=european,side=put,rate=0.05 --in u.npy --out y.npy")]
pub(crate) struct Args {
    /// The integrand, NAME[:key=value,..]; names and parameters are listed below
    #[arg(long, value_name = "NAME[:K=V,..]")]
    integrand: Named,
    /// Parameters as a JSON object; those of --integrand count more
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Points, (points, coordinates), values from 0 to 1
    #[arg(long = "in", value_name = "FILE")]
    input: String,
    /// File for the values, (points,) or, for several outputs, (outputs, points), float64
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Periodising transform: none, baker, c0, c1, c1sin, c2sin or c3sin
    #[arg(long, value_name = "NAME", default_value = "none")]
    ptransform: Periodization,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let named = args.integrand.clone().with_file(args.params.as_deref())?;
    let points = input::any("in", &args.input)?.to_f64::<2>("in")?;
    let [count, dim] = points.shape();
    let of_function = if named.name().starts_with("sensitivity(") { dim / 2 } else { dim };
    let function = Periodized::new(integrand(&named, of_function)?, args.ptransform);
    if function.dim() != dim {
        return Err(Error::shape("in", format!("{} coordinates", function.dim()), &[count, dim]).into());
    }
    let outputs = function.outputs();
    let size = outputs.checked_mul(count).unwrap_or(usize::MAX);
    let mut values = Tensor::<f64, 1>::zeros([size])?;
    function.evaluate(points.as_slice(), &vec![true; outputs], values.as_mut_slice())?;
    ctx.say(format_args!("{} values", values.len()));
    let means: Vec<f64> =
        values.as_slice().chunks(count.max(1)).map(|y| y.iter().sum::<f64>() / count as f64).collect();
    if outputs == 1 {
        output::tensor(&args.out, values)?;
    } else {
        output::tensor(&args.out, values.reshape([outputs, count])?)?;
    }
    let mut answer = Answer::new();
    answer.set("integrand", named.name()).set("points", count).set("outputs", outputs).set("mean", means);
    Ok(answer)
}
