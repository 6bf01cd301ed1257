//! `kc qmc discrepancy`: how uneven points are.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use kc_core::{Error, TensorView};
use kc_qmc::discrepancy::{Kind, discrepancy, weighted_discrepancy};

use crate::args::Ctx;
use crate::input;
use crate::report::Answer;

/// Measure how unevenly points fill the unit cube
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kc qmc discrepancy --in x.npy --kind cd --json")]
pub(crate) struct Args {
    /// Points in [0, 1], (n, dims) or (replications, n, dims)
    #[arg(long = "in", value_name = "FILE")]
    input: String,
    /// Which discrepancy; all are squared except l2-star
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Name,
    /// Weight of each coordinate, from 0, separated by commas [default: all 1, and whole boxes only for l2-star]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Option<Vec<f64>>,
    /// File for the JSON object {"kind", "n", "dims", "value"}; with replications "value" is a list
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Name {
    /// L2 star
    L2Star,
    /// Centred
    Cd,
    /// Wrap-around
    Wd,
    /// Mixture
    Md,
}

pub(crate) fn run(args: &Args, _ctx: &Ctx) -> Result<Answer> {
    let kind = match args.kind {
        Name::L2Star => Kind::L2Star,
        Name::Cd => Kind::Centered,
        Name::Wd => Kind::WrapAround,
        Name::Md => Kind::Mixture,
    };
    let any = input::any("--in", &args.input)?;
    let one = |points: TensorView<'_, f64, 2>| match &args.weights {
        None => discrepancy(points, kind),
        Some(weights) => weighted_discrepancy(points, kind, weights),
    };
    let mut answer = Answer::new();
    answer.set(
        "kind",
        args.kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
    );
    let (shape, values) = match any.rank() {
        2 => {
            let points = any.to_f64::<2>("--in")?;
            (points.shape(), vec![one(points.view())?])
        }
        3 => {
            let points = any.to_f64::<3>("--in")?;
            let [sets, n, dims] = points.shape();
            let set =
                |l| one(TensorView::from_slice([n, dims], &points.as_slice()[l * n * dims..][..n * dims])?);
            ([n, dims], (0..sets).map(set).collect::<Result<Vec<f64>, Error>>()?)
        }
        _ => return Err(Error::shape("--in", "(n, dims) or (replications, n, dims)", any.shape()).into()),
    };
    answer.set("n", shape[0]).set("dims", shape[1]);
    match (any.rank(), &values[..]) {
        (2, [value]) => answer.set("value", *value),
        _ => answer.set("value", values),
    };
    answer.also_to(args.out.as_deref());
    Ok(answer)
}
