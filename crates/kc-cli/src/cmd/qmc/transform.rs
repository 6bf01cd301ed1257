//! `kc qmc transform`: points of the unit cube to points of a measure.

use std::path::PathBuf;

use anyhow::Result;
use kc_core::{Error, Tensor};
use kc_qmc::measure::open_interval;

use super::measures::sampled;
use super::named::Named;
use crate::args::Ctx;
use crate::report::Answer;
use crate::{input, output};

/// Map points of the unit cube to a measure: t = psi(u), with densities or importance weights
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Measures and their parameters. A parameter in each coordinate is one value or a list; a matrix is a
list of lists. On the command line a;b;c is a list too.
  uniform           lower [0], upper [1]
  gaussian          mean [0], cov [1] (number, list, matrix), decomposition [pca] (cholesky)
  brownian          t_final [1], initial [0], drift [0], diffusion [1], monitoring_times,
                    decomposition [pca] (cholesky, bridge), bridge_order [vdc] (given),
                    output_order [increasing] (input)
  gbm               as brownian; initial [1]
  student_t         loc [0], shape (matrix), df
  matern_gp         points, length_scale [1], nu [1.5] (or inf), variance [1], mean [0],
                    nugget [1e-6], decomposition [pca] (cholesky)
  uniform_triangle  none
  product           blocks: list of objects {\"measure\": NAME, \"dim\": N, ..}
  marginals         marginals: list of texts like \"norm(0,1)\", \"expon(rate=0.5)\"
  gaussian_copula, student_copula, clayton_copula, gumbel_copula, frank_copula
                    marginals [uniform], correlation, df, theta
  lebesgue          none; needs a sampler
  norm, lognorm, expon, gamma, beta, t, chi2, weibull, cauchy, logistic, laplace, triangular,
  truncnorm, poisson, binomial, kumaraswamy, johnsons_su, bernoulli_cont, zero_inflated_exp
                    the parameters of the family, in each coordinate
Any of them may have a sampler: a NAME[:K=V,..], an object {\"measure\": NAME, ..}, or a list of
them in the order in which they are applied. The points are the sampler's then, and the weights are
densities times its Jacobian.

Examples:
  kc qmc transform --measure gaussian:mean=1,cov=4 --in u.npy --out t.npy
  kc qmc transform --measure brownian:decomposition=bridge --in u.npy --out t.npy --weights w.npy
  kc qmc transform --measure lebesgue:sampler=gaussian:cov=2 --in u.npy --out t.npy --weights w.npy
  kc qmc transform --measure gaussian_copula --params m.json --in u.npy --out t.npy")]
pub(crate) struct Args {
    /// The measure, NAME[:key=value,..]; names and parameters are listed below
    #[arg(long, value_name = "NAME[:K=V,..]")]
    measure: Named,
    /// Parameters as a JSON object; those of --measure count more
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// Uniform points, (points, coordinates) or (replications, points, coordinates), values from 0 to 1
    #[arg(long = "in", value_name = "FILE")]
    input: String,
    /// File for the points of the measure, float64, in the same shape
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the density at each point (with a sampler: the weight), float64, (points,) or (replications, points)
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Move 0 to 2^-53 and 1 to 1 - 2^-53, where a measure may be infinite
    #[arg(long)]
    open_interval: bool,
}

pub(crate) fn run(args: &Args, ctx: &Ctx) -> Result<Answer> {
    let named = args.measure.clone().with_file(args.params.as_deref())?;
    let points = input::any("in", &args.input)?;
    let shape = points.shape().to_vec();
    let (mut u, outer) = match shape.len() {
        2 => (points.to_f64::<2>("in")?.into_vec(), vec![shape[0]]),
        3 => (points.to_f64::<3>("in")?.into_vec(), vec![shape[0], shape[1]]),
        _ => return Err(Error::shape("in", "2 or 3 axes", &shape).into()),
    };
    let dim = shape[shape.len() - 1];
    if dim == 0 {
        return Err(Error::empty("in").into());
    }
    if args.open_interval {
        open_interval(&mut u);
    }
    let made = sampled(&named, dim)?;
    ctx.say(format_args!("{}", made.measure.fingerprint()));
    let count = u.len() / dim;
    let mut t = vec![0.0; u.len()];
    let mut weights = vec![1.0; count];
    match &made.sampler {
        Some(sampler) => sampler.sample(&u, &mut t, &mut weights)?,
        None => made.measure.transform(&u, &mut t)?,
    }
    if args.weights.is_some() {
        let mut density = vec![0.0; count];
        made.measure.density(&t, &mut density)?;
        weights.iter_mut().zip(&density).for_each(|(weight, density)| *weight *= density);
    }
    match *shape.as_slice() {
        [n, d] => output::tensor(&args.out, Tensor::from_slice([n, d], &t)?)?,
        [r, n, d] => output::tensor(&args.out, Tensor::from_slice([r, n, d], &t)?)?,
        _ => {}
    }
    if let Some(path) = &args.weights {
        match *outer.as_slice() {
            [r, n] => output::tensor(path, Tensor::from_slice([r, n], &weights)?)?,
            _ => output::tensor(path, Tensor::from_slice([count], &weights)?)?,
        }
    }
    let mut answer = Answer::new();
    answer.set("measure", named.name()).set("points", count).set("dim", dim);
    for (key, moments) in [("mean", made.measure.mean()), ("variance", made.measure.variance())] {
        if let Some(moments) = moments.filter(|moments| moments.len() <= 16) {
            answer.set(key, moments);
        }
    }
    Ok(answer)
}
