//! Point sets: the same bits as the reference, the orders of convergence, the rate of generation.

use std::hint::black_box;

use anyhow::Context as _;
use kc_core::{AnyTensor, Tensor};
use kc_qmc::discrepancy::{Kind, discrepancy};
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Halton, HaltonConfig, Iid, IidConfig, Lattice, LatticeConfig, NusEngine,
    Randomize, Sequence,
};
use serde_json::json;

use crate::experiments::{
    Axis, Claim, Comparison, Ctx, Plot, PythonSide, Rival, Series, Table, Verdict, Work, slope,
};

/// Seed of the experiments of convergence, as in the figures that they are compared with.
const SEED: u64 = 3;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    convergence(ctx)?;
    generation(ctx)?;
    construction(ctx)?;
    discrepancies(ctx)
}

/// A randomised family with what its points are put through.
struct Line {
    name: &'static str,
    /// Slope of log2 RMSE over log2 n that QMCPy shows for [`smooth`].
    reference: f64,
    /// The order that theory promises a smooth function, where the claim rests on it.
    theory: Option<(&'static str, f64)>,
    make: fn(usize) -> kc_core::Result<Box<dyn Sequence>>,
    baker: bool,
    /// Largest log2 n.
    last: u32,
    replications: usize,
}

fn net(randomize: Randomize, alpha: usize, replications: usize) -> kc_core::Result<Box<dyn Sequence>> {
    let mut config = DigitalNetConfig::new(2, SEED);
    (config.randomize, config.alpha, config.replications) = (randomize, alpha, replications);
    Ok(Box::new(DigitalNet::new(config)?))
}

fn lattice(replications: usize) -> kc_core::Result<Box<dyn Sequence>> {
    let mut config = LatticeConfig::new(2, SEED);
    config.replications = replications;
    Ok(Box::new(Lattice::new(config)?))
}

fn halton(replications: usize) -> kc_core::Result<Box<dyn Sequence>> {
    let mut config = HaltonConfig::new(2, SEED);
    config.replications = replications;
    Ok(Box::new(Halton::new(config)?))
}

fn iid(replications: usize) -> kc_core::Result<Box<dyn Sequence>> {
    let mut config = IidConfig::new(2, SEED);
    config.replications = replications;
    Ok(Box::new(Iid::new(config)?))
}

const LINES: [Line; 9] = [
    Line { name: "IID", reference: -0.53, theory: Some(("plain Monte Carlo", -0.5)), make: iid, ..LINE },
    Line {
        name: "lattice, shifted",
        reference: -0.94,
        theory: Some(("n^-1 (QMC)", -1.0)),
        make: lattice,
        ..LINE
    },
    Line {
        name: "lattice, shifted, baker",
        reference: -1.86,
        theory: None,
        make: lattice,
        baker: true,
        ..LINE
    },
    Line { name: "Halton, LMS and permutations", reference: -1.01, theory: None, make: halton, ..LINE },
    Line {
        name: "net, digital shift",
        reference: -1.01,
        theory: Some(("n^-1 (QMC)", -1.0)),
        make: |r| net(Randomize::Ds, 1, r),
        ..LINE
    },
    Line {
        name: "net, LMS and shift",
        reference: -1.57,
        theory: Some(("n^-3/2 (scrambled nets)", -1.5)),
        make: |r| net(Randomize::LmsDs, 1, r),
        ..LINE
    },
    Line {
        name: "net, nested uniform scrambling",
        reference: -1.41,
        theory: Some(("n^-3/2 (scrambled nets)", -1.5)),
        make: |r| net(Randomize::Nus(NusEngine::Trie), 1, r),
        last: 10,
        replications: 16,
        ..LINE
    },
    Line {
        name: "net of order 2",
        reference: -2.09,
        theory: Some(("n^-2 (higher-order nets)", -2.0)),
        make: |r| net(Randomize::LmsDs, 2, r),
        ..LINE
    },
    Line {
        name: "net of order 3",
        reference: -2.10,
        theory: None,
        make: |r| net(Randomize::LmsDs, 3, r),
        ..LINE
    },
];

const LINE: Line =
    Line { name: "", reference: 0.0, theory: None, make: iid, baker: false, last: 14, replications: 64 };

/// `x2 exp(x1 x2) / (e - 2) - 1`, whose integral is 0.
fn smooth(x: &[f64]) -> f64 {
    x[1] * (x[0] * x[1]).exp() / (std::f64::consts::E - 2.0) - 1.0
}

/// `prod (1/2 + x_j) - 1`, whose integral is 0.
fn product(x: &[f64]) -> f64 {
    x.iter().map(|x| 0.5 + x).product::<f64>() - 1.0
}

/// Root mean square error over the replications at n = 2^4 .. 2^last.
fn errors(line: &Line, last: u32, f: fn(&[f64]) -> f64) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut sequence = (line.make)(line.replications)?;
    let points = sequence.points(0..1 << last)?;
    let n = 1 << last;
    let mut squares = vec![0.0; last as usize + 1];
    for replicate in points.as_slice().chunks_exact(2 * n) {
        let mut sum = 0.0;
        for (i, x) in replicate.chunks_exact(2).enumerate() {
            let folded = [1.0 - (2.0 * x[0] - 1.0).abs(), 1.0 - (2.0 * x[1] - 1.0).abs()];
            sum += f(if line.baker { &folded } else { x });
            if (i + 1).is_power_of_two() {
                squares[(i + 1).ilog2() as usize] += (sum / (i + 1) as f64).powi(2);
            }
        }
    }
    let rmse = |m: u32| (squares[m as usize] / line.replications as f64).sqrt();
    Ok((4..=last).map(|m| ((1u64 << m) as f64, rmse(m))).collect())
}

fn convergence(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut table = Table::new(
        "Slopes of log2 RMSE over log2 n, x2 exp(x1 x2)/(e - 2) - 1, n = 2^4 .. 2^14, 64 replications",
        &["points", "slope here", "slope of QMCPy"],
    );
    let mut series = Vec::new();
    for line in &LINES {
        ctx.step(format!("convergence of {}", line.name));
        let found = errors(line, line.last, smooth)?;
        let slope = slope(&found);
        table.row([line.name.into(), slope.into(), line.reference.into()]);
        if let Some((order, theory)) = line.theory {
            ctx.claim(Claim {
                statement: format!("{order}: {}", line.name),
                paper: theory.into(),
                here: slope.into(),
                unit: "slope",
                verdict: Verdict::at_most(slope, theory + 0.15, theory + 0.3),
                setup: format!(
                    "fitted slope of log2 RMSE, d = 2, n = 2^4 .. 2^{}, {} replications; QMCPy gives {}",
                    line.last, line.replications, line.reference
                ),
            });
        }
        series.push(Series::line(line.name, found));
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Root mean square error, x2 exp(x1 x2)/(e - 2) - 1".into(),
        x: Axis::log("n"),
        y: Axis::log("RMSE"),
        series,
    });
    let mut table =
        Table::new("The same for (1/2 + x1)(1/2 + x2) - 1", &["points", "slope here", "slope of QMCPy"]);
    for (at, reference) in [(5, -2.56), (7, -2.83), (8, -3.95)] {
        let line = &LINES[at];
        let slope = slope(&errors(line, line.last, product)?);
        table.row([line.name.into(), slope.into(), reference.into()]);
        ctx.claim(Claim {
            statement: format!("as fast as QMCPy's on a product of linear factors: {}", line.name),
            paper: reference.into(),
            here: slope.into(),
            unit: "slope",
            verdict: Verdict::at_most(slope, reference + 0.3, reference + 0.6),
            setup: "fitted slope of log2 RMSE, d = 2, n = 2^4 .. 2^14, 64 replications".into(),
        });
    }
    ctx.table(table);
    Ok(())
}

/// One case of generation: what the peers call it, its size, and our sequence.
type Generator<'a> = (&'a str, usize, u32, Box<dyn Sequence>);

fn generation(ctx: &mut Ctx) -> anyhow::Result<()> {
    let big = ctx.pick(16, 20);
    let net = |dim, randomize| -> kc_core::Result<Box<dyn Sequence>> {
        let mut config = DigitalNetConfig::new(dim, 7u64);
        config.randomize = randomize;
        Ok(Box::new(DigitalNet::new(config)?))
    };
    let halton = |dim, randomize| -> kc_core::Result<Box<dyn Sequence>> {
        let mut config = HaltonConfig::new(dim, 7u64);
        config.randomize = randomize;
        Ok(Box::new(Halton::new(config)?))
    };
    let mut cases: Vec<Generator<'_>> = vec![
        ("net", 10, big, net(10, Randomize::LmsDs)?),
        ("net", 100, big - 3, net(100, Randomize::LmsDs)?),
        ("net", 1000, big - 7, net(1000, Randomize::LmsDs)?),
        ("lattice", 10, big, Box::new(Lattice::new(LatticeConfig::new(10, 7u64))?)),
        ("halton", 10, 16, halton(10, Randomize::LmsDp)?),
        ("halton_plain", 10, 16, halton(10, Randomize::None)?),
    ];
    for (what, dim, log, sequence) in &mut cases {
        ctx.step(format!("{what} in {dim} dimensions"));
        let n = 1usize << *log;
        let mut out = vec![0.0; n * *dim];
        sequence.fill(0..n as u64, &mut out)?;
        let ours = mean(&out, *dim);
        let case = format!("{what}, d = {dim}, n = 2^{log}, f64");
        race(ctx, &case, what, *dim, n, ours, || {
            let _ = black_box(sequence.fill(0..n as u64, &mut out));
        })?;
    }
    // Nested scrambling: the tree is grown anew each time, as the peers do; the hash has no peer but itself.
    for (what, dim, log, engine) in [
        ("net_nus", 5, 13, Some(NusEngine::Trie)),
        ("halton_nus", 3, 9, None),
        ("net_nus_hash", 10, big, Some(NusEngine::Hash)),
    ] {
        ctx.step(format!("{what} in {dim} dimensions"));
        let n = 1usize << log;
        let mut out = vec![0.0; n * dim];
        let make = || match engine {
            Some(engine) => net(dim, Randomize::Nus(engine)),
            None => halton(dim, Randomize::Nus(NusEngine::Trie)),
        };
        make()?.fill(0..n as u64, &mut out)?;
        let ours = mean(&out, dim);
        let case = format!("{what}, d = {dim}, n = 2^{log}, f64, made anew");
        race(ctx, &case, what, dim, n, ours, || {
            if let Ok(mut sequence) = make() {
                let _ = black_box(sequence.fill(0..n as u64, &mut out));
            }
        })?;
    }
    Ok(())
}

/// The mean over the points of `prod_j (1 + (x_j - 1/2) / (j + 1)^2)`, whose integral is 1.
fn mean(points: &[f64], dim: usize) -> f64 {
    let value = |x: &[f64]| {
        x.iter().enumerate().map(|(j, x)| 1.0 + (x - 0.5) / (j as f64 + 2.0).powi(2)).product::<f64>()
    };
    points.chunks_exact(dim).map(value).sum::<f64>() / (points.len() / dim) as f64
}

fn race(
    ctx: &mut Ctx,
    case: &str,
    what: &str,
    dim: usize,
    n: usize,
    ours: f64,
    mut body: impl FnMut() + Send,
) -> anyhow::Result<()> {
    let values = (n * dim) as f64;
    let mut plain = vec![0.0f64; n * dim];
    ctx.compare(Comparison {
        case: case.into(),
        threads: 1,
        ours: &mut body,
        our_error: Some((ours - 1.0).abs()),
        rivals: vec![Rival::new("fill of the array", "std", || {
            plain.fill(black_box(0.5));
            black_box(&mut plain);
        })],
        python: Some(PythonSide {
            arrays: &[],
            params: json!({ "what": what, "dim": dim, "n": n }),
            error: &|arrays| Ok((first(arrays, "mean")? - 1.0).abs()),
        }),
        work: Some(Work::Stores(8.0 * values)),
        note: "error of the mean of prod_j (1 + (x_j - 1/2)/(j + 1)^2)",
    })?;
    Ok(())
}

/// The first number of an answer's array.
pub(crate) fn first(arrays: &crate::peers::Arrays, name: &'static str) -> anyhow::Result<f64> {
    let array = arrays.get(name).context("no such array")?.to_f64::<1>(name)?;
    array.as_slice().first().copied().context("an empty array")
}

fn construction(ctx: &mut Ctx) -> anyhow::Result<()> {
    for dim in [1000, 21201] {
        ctx.step(format!("construction of {dim} dimensions"));
        let make = || DigitalNet::new(DigitalNetConfig::new(dim, 7u64));
        let ours = mean(make()?.points(0..1024)?.as_slice(), dim);
        ctx.compare(Comparison {
            case: format!("table, linear scrambling and shifts of {dim} dimensions"),
            threads: 1,
            ours: &mut || {
                let _ = black_box(make());
            },
            our_error: Some((ours - 1.0).abs()),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[],
                params: json!({ "what": "construct", "dim": dim }),
                error: &|arrays| Ok((first(arrays, "mean")? - 1.0).abs()),
            }),
            work: None,
            note: "error of a mean over 1024 points",
        })?;
    }
    Ok(())
}

fn discrepancies(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, dim) = (ctx.pick(1024, 4096), 10);
    let mut points = Tensor::zeros([n, dim])?;
    Iid::new(IidConfig::new(dim, 11u64))?.fill(0..n as u64, points.as_mut_slice())?;
    let array: AnyTensor = points.clone().into_any();
    for (kind, scipy) in
        [(Kind::Centered, "CD"), (Kind::WrapAround, "WD"), (Kind::Mixture, "MD"), (Kind::L2Star, "L2-star")]
    {
        ctx.step(format!("discrepancy {scipy}"));
        let ours = discrepancy(points.view(), kind)?;
        ctx.compare(Comparison {
            case: format!("discrepancy {scipy}, n = {n}, d = {dim}"),
            threads: 1,
            ours: &mut || {
                let _ = black_box(discrepancy(points.view(), kind));
            },
            our_error: Some(0.0),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[("x", &array)],
                params: json!({ "what": "discrepancy", "kind": scipy }),
                error: &|arrays| Ok((first(arrays, "value")? / ours - 1.0).abs()),
            }),
            work: None,
            note: "relative difference to ours",
        })?;
    }
    Ok(())
}
