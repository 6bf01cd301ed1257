//! kc-kernel: the cost of a step of training by the number of points, the accuracy of interpolation by the smoothness
//! of the kernel, and both beside fastgps and an exact process.

use std::f64::consts::PI;
use std::hint::black_box;

use kc_core::{AnyTensor, Tensor};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::{DenseGp, FastGp, GpConfig, Loss};
use kc_kernel::si::SiKernel;
use kc_kernel::{Kernel, KernelConfig, Points, Smoothness, gram};
use kc_qmc::{DigitalNet, DigitalNetConfig, Lattice, LatticeConfig, Randomize};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Series, Table, Verdict, slope};

/// Dimensions of the timed processes.
const DIM: usize = 5;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    interpolation(ctx)?;
    growth(ctx)?;
    dense_value(ctx)?;
    races(ctx)
}

/// A smooth function of five variables.
fn sample(x: &[f64]) -> f64 {
    x.iter().enumerate().map(|(j, x)| 1.0 + (2.0 * PI * x).sin() / (j as f64 + 1.0).powi(2)).product()
}

fn weights(alpha: u8, dim: usize, weight: impl Fn(usize) -> f64) -> KernelConfig {
    let mut config = KernelConfig::new(Smoothness::order(alpha, dim));
    config.weights = (0..dim).map(weight).collect();
    config
}

/// A process on a lattice, with values.
fn on_lattice(n: usize) -> anyhow::Result<FastGp<SiKernel>> {
    let kernel = SiKernel::new(weights(2, DIM, |_| 1.0))?;
    let lattice = Lattice::new(LatticeConfig::new(DIM, 7u64))?;
    filled(FastGp::lattice(lattice, kernel, &GpConfig::default())?, n)
}

/// A process on a digitally shifted net, with values.
fn on_net(n: usize) -> anyhow::Result<FastGp<DsiKernel>> {
    let mut net = DigitalNetConfig::new(DIM, 7u64);
    (net.randomize, net.bits) = (Randomize::Ds, 53);
    let kernel = DsiKernel::new(net.bits, weights(2, DIM, |_| 1.0))?;
    let mut config = GpConfig::default();
    config.noise = Some(1e-8);
    filled(FastGp::net(DigitalNet::new(net)?, kernel, &config)?, n)
}

fn filled<K: Kernel>(mut gp: FastGp<K>, n: usize) -> anyhow::Result<FastGp<K>> {
    let x = gp.next_points(n)?;
    let y: Vec<f64> = x.as_slice().chunks_exact(x.shape()[1]).map(sample).collect();
    gp.add_values(&y)?;
    Ok(gp)
}

/// A step of training: new parameters, the likelihood and its gradient.
fn step<K: Kernel>(gp: &mut FastGp<K>, scale: f64) -> kc_core::Result<f64> {
    let mut config = gp.kernel().config().clone();
    config.scale = scale;
    gp.set_parameters(config, gp.noise())?;
    Ok(gp.gradient(Loss::Mll)?.value)
}

fn interpolation(ctx: &mut Ctx) -> anyhow::Result<()> {
    let tests = 200;
    let mut rng = ctx.rng(5);
    let mut xs = Tensor::zeros([tests, 3])?;
    xs.as_mut_slice().iter_mut().for_each(|x| *x = rng.uniform());
    let truth: Vec<f64> = xs.as_slice().chunks_exact(3).map(sample).collect();
    let norm = truth.iter().map(|v| v * v).sum::<f64>().sqrt();
    let mut table = Table::new(
        "Relative L2 error of interpolating prod (1 + sin(2 pi x_j) / j^2), d = 3, 200 random points",
        &["alpha", "n = 2^5", "n = 2^10", "n = 2^12", "slope"],
    );
    let mut series = Vec::new();
    for (alpha, bound, reference) in [(1, -1.3, 8.2e-5), (2, -2.4, 2.0e-8), (3, -3.5, 1.2e-11)] {
        ctx.step(format!("interpolation of order {alpha}"));
        let kernel = SiKernel::new(weights(alpha, 3, |j| (j as f64 + 1.0).powi(-2)))?;
        let mut config = GpConfig::default();
        config.noise = Some(1e-12);
        let mut gp = FastGp::lattice(Lattice::new(LatticeConfig::new(3, 5u64))?, kernel, &config)?;
        let mut found = Vec::new();
        for log in 5..=12 {
            let x = gp.next_points(1 << log)?;
            let y: Vec<f64> = x.as_slice().chunks_exact(3).map(sample).collect();
            gp.add_values(&y)?;
            let mean = gp.mean(&Points::from_rows(gp.kernel(), xs.view())?)?;
            let error: f64 = mean.as_slice().iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
            found.push((f64::from(1 << log), error.sqrt() / norm));
        }
        let rate = slope(&found);
        table.row([
            f64::from(alpha).into(),
            found[0].1.into(),
            found[5].1.into(),
            found[7].1.into(),
            rate.into(),
        ]);
        ctx.claim(Claim {
            statement: format!("kernels of order {alpha} interpolate a smooth periodic function to their order"),
            paper: bound.into(),
            here: rate.into(),
            unit: "slope",
            verdict: Verdict::at_most(rate, bound, bound + 0.5),
            setup: format!(
                "log relative L2 error over log n, n = 2^5 .. 2^12; {:.1e} at 2^12 (the reference has {reference:.1e})",
                found[7].1
            ),
        });
        series.push(Series::line(format!("alpha = {alpha}"), found));
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Interpolation on a lattice, d = 3".into(),
        x: Axis::log("n"),
        y: Axis::log("relative L2 error"),
        series,
    });
    Ok(())
}

/// Median seconds of a step.
fn step_time<K: Kernel>(ctx: &Ctx, gp: &mut FastGp<K>) -> anyhow::Result<f64> {
    let mut scale = 1.0;
    let time = ctx.time(1, || {
        // Other parameters each time, as in training.
        scale = if scale > 1.5 { 1.0 } else { scale * 1.01 };
        let _ = black_box(step(gp, scale));
    })?;
    Ok(time.median)
}

fn growth(ctx: &mut Ctx) -> anyhow::Result<()> {
    let last = ctx.pick(14, 20);
    let mut lines = vec![Vec::new(), Vec::new()];
    for log in (10..=last).step_by(2) {
        ctx.step(format!("steps on 2^{log} points"));
        let n = 1usize << log;
        lines[0].push((n as f64, step_time(ctx, &mut on_lattice(n)?)?));
        lines[1].push((n as f64, step_time(ctx, &mut on_net(n)?)?));
    }
    let mut table = Table::new(
        "Milliseconds of a step (likelihood and all gradients), d = 5, one thread",
        &["n", "lattice, shift-invariant", "net, digitally shift-invariant"],
    );
    for (a, b) in lines[0].iter().zip(&lines[1]) {
        table.row([a.0.into(), (a.1 * 1e3).into(), (b.1 * 1e3).into()]);
    }
    ctx.table(table);
    for (name, line) in ["lattice", "net"].into_iter().zip(&lines) {
        let exponent = slope(line);
        ctx.claim(Claim {
            statement: format!("a step of training on a {name} takes O(n log n) instead of O(n^3)"),
            paper: 1.0.into(),
            here: exponent.into(),
            unit: "exponent",
            verdict: Verdict::at_most(exponent, 1.15, 1.3),
            setup: format!("fitted slope of log time over log n, n = 2^10 .. 2^{last}, d = 5, one thread"),
        });
    }
    let [lattice, net] = [lines.remove(0), lines.remove(0)];
    for (name, line, paper) in
        [("shift-invariant", &lattice, 5e-4), ("digitally shift-invariant", &net, 7e-4)]
    {
        ctx.claim(Claim {
            statement: format!("seconds of a step for few points, {name} kernel"),
            paper: paper.into(),
            here: line[0].1.into(),
            unit: "s",
            verdict: Verdict::at_most(line[0].1, paper, 2.0 * paper),
            setup: "n = 2^10, d = 5, one thread (paper: small n on a GPU-capable library)".into(),
        });
    }
    ctx.plot(Plot {
        title: "Time of a step of training, d = 5".into(),
        x: Axis::log("n"),
        y: Axis::log("seconds"),
        series: vec![Series::line("lattice", lattice), Series::line("net", net)],
    });
    Ok(())
}

/// The likelihood in transform space against the one by Cholesky of the whole matrix.
fn dense_value(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("the dense likelihood");
    let mut gp = on_lattice(1 << 10)?;
    let fast = step(&mut gp, 1.3)?;
    let x = reals("si", gp.len())?;
    let y: Vec<f64> = x.as_slice().chunks_exact(DIM).map(sample).collect();
    let matrix = gram(gp.kernel(), x.view(), x.view())?;
    let dense = DenseGp::new(matrix.view(), gp.noise(), &y)?.mll();
    let difference = (fast / dense - 1.0).abs();
    ctx.claim(Claim {
        statement: "the fast likelihood is the dense one".into(),
        paper: "exact".into(),
        here: difference.into(),
        unit: "relative difference",
        verdict: Verdict::at_most(difference, 1e-8, 1e-6),
        setup: "n = 2^10, d = 5, alpha = 2, noise 1e-8, Cholesky of the Gram matrix".into(),
    });
    Ok(())
}

fn races(ctx: &mut Ctx) -> anyhow::Result<()> {
    for log in ctx.pick(vec![10, 12], vec![10, 12, 14]) {
        race(ctx, "si", on_lattice(1 << log)?, log, |_, x| Ok(x))?;
        race(ctx, "dsi", on_net(1 << log)?, log, |kernel: &DsiKernel, x| kernel.digits(x))?;
    }
    Ok(())
}

/// Ten steps, and means at 256 points.
fn race<K: Kernel>(
    ctx: &mut Ctx,
    kind: &str,
    mut gp: FastGp<K>,
    log: u32,
    coordinate: impl Fn(&K, f64) -> kc_core::Result<K::Point>,
) -> anyhow::Result<()> {
    ctx.step(format!("{kind} on 2^{log} points beside the peers"));
    let n = 1usize << log;
    let mut rng = ctx.rng(9);
    let mut xs = Tensor::zeros([256, DIM])?;
    xs.as_mut_slice().iter_mut().for_each(|x| *x = rng.uniform());
    let at: Vec<K::Point> =
        xs.as_slice().iter().map(|&x| coordinate(gp.kernel(), x)).collect::<kc_core::Result<_>>()?;
    let at = Points::from_rows(gp.kernel(), Tensor::from_slice([256, DIM], &at)?.view())?;

    let points = reals(kind, n)?;
    let y: Vec<f64> = points.as_slice().chunks_exact(DIM).map(sample).collect();
    let arrays: [(&str, AnyTensor); 3] = [
        ("x", points.into_any()),
        ("y", Tensor::from_slice([n], &y)?.into_any()),
        ("xs", xs.clone().into_any()),
    ];
    let arrays: Vec<(&str, &AnyTensor)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
    let params = |what: &str| json!({ "what": what, "kind": kind, "dim": DIM, "n": n, "dense_limit": 1024 });

    let first = -step(&mut gp, 1.0)?;
    let mut scale = 1.0;
    ctx.compare(Comparison {
        case: format!("{kind}, n = 2^{log}, d = {DIM}: 10 likelihoods with gradients"),
        threads: 1,
        ours: &mut || {
            for _ in 0..10 {
                scale = if scale > 1.5 { 1.0 } else { scale * 1.01 };
                let _ = black_box(step(&mut gp, scale));
            }
        },
        our_error: Some(0.0),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &arrays,
            params: params("step"),
            error: &|arrays| Ok((super::qmcpy::first(arrays, "loss")? / first - 1.0).abs()),
        }),
        work: None,
        note: "relative difference of the first loss to ours (another kernel and loss for GPyTorch)",
    })?;
    step(&mut gp, 1.0)?;
    let mean = gp.mean(&at)?;
    let want: Vec<f64> = mean.as_slice().to_vec();
    let truth: Vec<f64> = xs.as_slice().chunks_exact(DIM).map(sample).collect();
    let distance = |found: &[f64]| {
        let square: f64 = found.iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
        (square / truth.iter().map(|v| v * v).sum::<f64>()).sqrt()
    };
    ctx.compare(Comparison {
        case: format!("{kind}, n = 2^{log}, d = {DIM}: posterior mean at 256 points"),
        threads: 1,
        ours: &mut || {
            let _ = black_box(gp.mean(&at));
        },
        our_error: Some(distance(&want)),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &arrays,
            params: params("mean"),
            error: &|arrays| {
                let mean = anyhow::Context::context(arrays.get("mean"), "no mean")?.to_f64::<1>("mean")?;
                Ok(distance(mean.as_slice()))
            },
        }),
        work: None,
        note: "relative L2 error of the mean",
    })?;
    Ok(())
}

/// The points of the timed processes, as numbers.
fn reals(kind: &str, n: usize) -> anyhow::Result<Tensor<f64, 2>> {
    use kc_qmc::Sequence;
    let mut x = Tensor::zeros([n, DIM])?;
    if kind == "si" {
        Lattice::new(LatticeConfig::new(DIM, 7u64))?.fill(0..n as u64, x.as_mut_slice())?;
    } else {
        let mut net = DigitalNetConfig::new(DIM, 7u64);
        (net.randomize, net.bits) = (Randomize::Ds, 53);
        DigitalNet::new(net)?.fill(0..n as u64, x.as_mut_slice())?;
    }
    Ok(x)
}
