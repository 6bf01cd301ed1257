//! Adaptive cubature: does the tolerance hold, what does it cost beside plain Monte Carlo, and how fast is it.

use std::hint::black_box;

use kc_core::par;
use kc_qmc::cubature::{
    CltConfig, Cubature, Estimate, GuaranteedConfig, MeanGuaranteedConfig, ReplicatedConfig,
};
use kc_qmc::integrand::{Coefficients, FinancialOption, Genz, GenzFamily, Keister, OptionConfig, OptionKind};
use kc_qmc::{DigitalNet, DigitalNetConfig, Iid, IidConfig, Integrand, Lattice, LatticeConfig, Sequence};
use serde_json::json;

use super::points::first;
use crate::experiments::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Series, Table, Verdict, slope};

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    reliability(ctx)?;
    against_monte_carlo(ctx)?;
    races(ctx)
}

/// A function with its name and its integral.
struct Problem {
    name: String,
    integrand: Box<dyn Integrand>,
    exact: f64,
}

fn keister(dim: usize) -> anyhow::Result<Problem> {
    Ok(Problem {
        name: format!("Keister, d = {dim}"),
        integrand: Box::new(Keister::on_cube(dim)?),
        exact: Keister::exact(dim),
    })
}

fn genz() -> anyhow::Result<Problem> {
    let genz = Genz::new(3, GenzFamily::Oscillatory, Coefficients::Quadratic)?;
    Ok(Problem { name: "Genz oscillatory, d = 3".into(), exact: genz.exact(), integrand: Box::new(genz) })
}

fn european() -> anyhow::Result<Problem> {
    let mut config = OptionConfig::default();
    config.kind = OptionKind::European;
    let exact = FinancialOption::new(3, &config)?.exact().unwrap_or(f64::NAN);
    let integrand = Box::new(FinancialOption::on_cube(3, &config)?);
    Ok(Problem { name: "European call, d = 3".into(), integrand, exact })
}

/// The arithmetic Asian call has no closed form: its value is the mean of eight independent answers to 1e-5.
fn asian(dim: usize) -> anyhow::Result<Problem> {
    let integrand = FinancialOption::on_cube(dim, &OptionConfig::default())?;
    let mut sum = 0.0;
    for seed in 1000..1008u64 {
        sum += net_g(&integrand, dim, seed, 1e-4)?.solution[0];
    }
    Ok(Problem { name: format!("Asian call, d = {dim}"), integrand: Box::new(integrand), exact: sum / 8.0 })
}

fn net(dim: usize, seed: u64) -> kc_core::Result<DigitalNet> {
    DigitalNet::new(DigitalNetConfig::new(dim, seed))
}

fn net_g(integrand: &dyn Integrand, dim: usize, seed: u64, abs_tol: f64) -> kc_core::Result<Estimate> {
    let mut config = GuaranteedConfig::default();
    config.abs_tol = abs_tol;
    config.integrate(&mut net(dim, seed)?, integrand)
}

fn lattice_g(integrand: &dyn Integrand, dim: usize, seed: u64, abs_tol: f64) -> kc_core::Result<Estimate> {
    let mut config = GuaranteedConfig::default();
    config.abs_tol = abs_tol;
    config.integrate(&mut Lattice::new(LatticeConfig::new(dim, seed))?, integrand)
}

/// Points that plain Monte Carlo needs by the central limit theorem at 99 %, inflated as mc-clt does.
fn monte_carlo_points(integrand: &dyn Integrand, abs_tol: f64) -> anyhow::Result<f64> {
    let (n, dim) = (1usize << 14, integrand.dim());
    let points = Iid::new(IidConfig::new(dim, 99u64))?.points(0..n as u64)?;
    let mut values = vec![0.0; n];
    integrand.evaluate(points.as_slice(), &[true], &mut values)?;
    let mean = values.iter().sum::<f64>() / n as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
    Ok(variance * (2.5758 * 1.2 / abs_tol).powi(2))
}

fn reliability(ctx: &mut Ctx) -> anyhow::Result<()> {
    let seeds = ctx.pick(20, 200);
    let tolerances = ctx.pick(vec![1e-2, 1e-3], vec![1e-2, 1e-3, 1e-4]);
    let mut table = Table::new(
        format!("Answers within the tolerance, of {seeds} seeds"),
        &["integrand", "algorithm", "tolerance", "within", "mean points", "plain Monte Carlo / points"],
    );
    let (mut held, mut cases, mut fewest) = (0usize, 0usize, f64::INFINITY);
    for problem in [keister(3)?, genz()?, european()?, asian(52)?] {
        let dim = problem.integrand.dim();
        for &tolerance in &tolerances {
            let plain = monte_carlo_points(&*problem.integrand, tolerance)?;
            for (name, solve) in
                [("net-g", net_g as fn(&dyn Integrand, _, _, _) -> _), ("lattice-g", lattice_g)]
            {
                ctx.step(format!("{name} on {} to {tolerance}", problem.name));
                let runs = par::map_chunks(seeds, 1, |seed| {
                    solve(&*problem.integrand, dim, seed.start as u64, tolerance)
                });
                let (mut within, mut points) = (0, 0.0);
                for run in runs {
                    let run: Estimate = run?;
                    within += usize::from((run.solution[0] - problem.exact).abs() <= tolerance);
                    points += run.n_total as f64 / seeds as f64;
                }
                held += within;
                cases += seeds;
                fewest = fewest.min(plain / points);
                table.row([
                    problem.name.as_str().into(),
                    name.into(),
                    tolerance.into(),
                    format!("{within} of {seeds}").into(),
                    points.into(),
                    (plain / points).into(),
                ]);
            }
        }
    }
    ctx.table(table);
    let share = held as f64 / cases as f64;
    ctx.claim(Claim {
        statement: "adaptive cubature meets the tolerance it is given".into(),
        paper: "guaranteed for functions in a cone; 0.99 asked here".into(),
        here: share.into(),
        unit: "",
        verdict: Verdict::at_least(share, 0.99, 0.95),
        setup: format!(
            "share of {cases} runs with |error| <= tolerance: Keister, Genz, European and Asian options; net-g and \
             lattice-g; tolerances {tolerances:?}; plain Monte Carlo would need {fewest:.1} times the points at \
             least"
        ),
    });
    Ok(())
}

/// Root mean square error by number of points: independent points against a scrambled net.
fn against_monte_carlo(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (replications, last) = ctx.pick((16, 12), (32, 16));
    for problem in [keister(5)?, asian(52)?] {
        ctx.step(format!("errors on {}", problem.name));
        let dim = problem.integrand.dim();
        let mut plain = IidConfig::new(dim, 5u64);
        plain.replications = 1;
        let mut series = Vec::new();
        let mut slopes = Vec::new();
        for (name, scrambled) in [("independent points", false), ("net, LMS and shift", true)] {
            let mut squares = vec![0.0; last + 1];
            for replicate in 0..replications as u64 {
                let mut sequence: Box<dyn Sequence> = if scrambled {
                    Box::new(net(dim, 100 + replicate)?)
                } else {
                    Box::new(Iid::new(IidConfig::new(dim, 100 + replicate))?)
                };
                let n = 1usize << last;
                let points = sequence.points(0..n as u64)?;
                let mut values = vec![0.0; n];
                problem.integrand.evaluate(points.as_slice(), &[true], &mut values)?;
                let mut sum = 0.0;
                for (i, value) in values.iter().enumerate() {
                    sum += value;
                    if (i + 1).is_power_of_two() {
                        squares[(i + 1).ilog2() as usize] += (sum / (i + 1) as f64 - problem.exact).powi(2);
                    }
                }
            }
            let found: Vec<(f64, f64)> = (4..=last)
                .map(|m| ((1u64 << m) as f64, (squares[m] / f64::from(replications as u32)).sqrt()))
                .collect();
            slopes.push((slope(&found), found.last().map_or(f64::NAN, |p| p.1)));
            series.push(Series::line(name, found));
        }
        let gain = slopes[0].1 / slopes[1].1;
        ctx.claim(Claim {
            statement: format!(
                "scrambled nets are more accurate than Monte Carlo for the same cost: {}",
                problem.name
            ),
            paper: "better than n^-1/2".into(),
            here: format!("{gain:.0} x at n = 2^{last}; slopes {:.2} and {:.2}", slopes[1].0, slopes[0].0)
                .into(),
            unit: "",
            verdict: Verdict::at_least(gain, 5.0, 2.0),
            setup: format!(
                "RMSE of {replications} replications; points of Monte Carlo for that error: {gain:.0}^2"
            ),
        });
        ctx.plot(Plot {
            title: format!("Root mean square error, {}", problem.name),
            x: Axis::log("n"),
            y: Axis::log("RMSE"),
            series,
        });
    }
    points_for_one_tolerance(ctx)
}

fn points_for_one_tolerance(ctx: &mut Ctx) -> anyhow::Result<()> {
    const TOLERANCE: f64 = 1e-2;
    let (paper, statement) =
        (1_831_281.0 / 4096.0, "quasi-Monte Carlo needs far fewer points than Monte Carlo for one tolerance");
    if ctx.pick(true, false) {
        ctx.claim(Claim {
            statement: statement.into(),
            paper: paper.into(),
            here: "-".into(),
            unit: "x",
            verdict: Verdict::not_run("2 million paths: without --quick"),
            setup: "-".into(),
        });
        return Ok(());
    }
    ctx.step("mc-clt on the Asian option");
    let problem = asian(52)?;
    let mut config = CltConfig::default();
    config.abs_tol = TOLERANCE;
    let plain = config.integrate(&mut Iid::new(IidConfig::new(52, 7u64))?, &*problem.integrand)?;
    let few = net_g(&*problem.integrand, 52, 7, TOLERANCE)?;
    let ratio = plain.n_total as f64 / few.n_total as f64;
    ctx.claim(Claim {
        statement: statement.into(),
        paper: paper.into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::within(ratio, paper, 0.1, 0.5),
        setup: format!(
            "Asian call, d = 52, tolerance {TOLERANCE}, seed 7: {} points of net-g, {} of mc-clt (the figure beside \
             it is QMCPy's)",
            few.n_total, plain.n_total
        ),
    });
    Ok(())
}

/// One race: algorithm, integrand, dimensions, tolerance.
type Race = (&'static str, &'static str, usize, f64);

fn races(ctx: &mut Ctx) -> anyhow::Result<()> {
    let cases: Vec<Race> = ctx.pick(
        vec![("net-g", "keister", 5, 1e-3), ("net-g", "asian", 52, 1e-2)],
        vec![
            ("net-g", "keister", 5, 1e-3),
            ("net-g", "keister", 5, 1e-4),
            ("net-g", "keister", 5, 1e-5),
            ("lattice-g", "keister", 5, 1e-3),
            ("lattice-g", "keister", 5, 1e-4),
            ("net-g", "asian", 52, 1e-2),
            ("net-g", "asian", 52, 1e-3),
            ("rep-t", "asian", 52, 1e-3),
            ("mc-g", "asian", 52, 5e-2),
        ],
    );
    for (algo, name, dim, abs_tol) in cases {
        ctx.step(format!("{algo} on {name} to {abs_tol}"));
        let problem = if name == "keister" { keister(dim)? } else { asian(dim)? };
        let integrand = &*problem.integrand;
        let solve = || -> kc_core::Result<Estimate> {
            match algo {
                "net-g" => net_g(integrand, dim, 7, abs_tol),
                "lattice-g" => lattice_g(integrand, dim, 7, abs_tol),
                "rep-t" => {
                    let mut points = DigitalNetConfig::new(dim, 7u64);
                    points.replications = 15;
                    let mut config = ReplicatedConfig::default();
                    config.abs_tol = abs_tol;
                    config.integrate(&mut DigitalNet::new(points)?, integrand)
                }
                _ => {
                    let mut config = MeanGuaranteedConfig::default();
                    config.abs_tol = abs_tol;
                    config.integrate(&mut Iid::new(IidConfig::new(dim, 7u64))?, integrand)
                }
            }
        };
        let found = solve()?;
        let error = |value: f64| (value - problem.exact).abs();
        let case = format!("{algo}, {}, tolerance {abs_tol}: {} points", problem.name, found.n_total);
        ctx.compare(Comparison {
            case,
            threads: 1,
            ours: &mut || {
                let _ = black_box(solve());
            },
            our_error: Some(error(found.solution[0])),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[],
                params: json!({
                    "what": "cubature", "algo": algo, "integrand": name, "dim": dim, "abs_tol": abs_tol,
                    "n_total": found.n_total
                }),
                error: &|arrays| Ok(error(first(arrays, "value")?)),
            }),
            work: None,
            note: "error of the integral; tables and random numbers are made anew in each run",
        })?;
    }
    Ok(())
}
