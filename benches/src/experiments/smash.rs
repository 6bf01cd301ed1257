//! SMASH: the paper's three versions on the cost model, and the library beside its own parts and its peers.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use kc_core::{AnyTensor, Tensor};
use kc_sparse::semiring::PlusTimes;
use kc_sparse::smash::generate::{self, GRAPH500, MILD, UNIFORM};
use kc_sparse::smash::model::{BlockConfig, Version, simulate};
use kc_sparse::{Accumulator, Csr, PlanConfig, SpgemmConfig, SpgemmPlan, spgemm, spgemm_stats};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Rival, Series, Table, Verdict, Work};

pub(crate) fn run(ctx: &mut Ctx) -> Result<()> {
    versions(ctx)?;
    parts(ctx)?;
    peers(ctx)
}

/// The model's three versions on three inputs. The paper's own input is not public, so no ratio here can
/// reproduce its figure; all are printed.
fn versions(ctx: &mut Ctx) -> Result<()> {
    let scale = ctx.pick(11, 14);
    let mut table = Table::new(
        "Three versions on the cost model (default constants), A*A; paper 1 : 2.3 : 9.4 on another input",
        &["input", "V1 cycles", "V2 cycles", "V3 cycles", "V1 / V2", "V1 / V3"],
    );
    for (name, quadrants) in [(".57 .19 .19 .05", GRAPH500), (".45 .22 .22 .11", MILD), ("uniform", UNIFORM)]
    {
        ctx.step(format!("cost model, {name}"));
        let a = generate::rmat(scale, 16, quadrants, 1)?;
        let run = |version| simulate(a.view(), a.view(), version, &BlockConfig::default());
        let [v1, v2, v3] = Version::ALL.map(run);
        let [v1, v2, v3] = [v1?, v2?, v3?].map(|r| r.cycles as f64);
        table.row([name.into(), v1.into(), v2.into(), v3.into(), (v1 / v2).into(), (v1 / v3).into()]);
        ctx.claim(Claim {
            statement: format!("the third version is 9.4 times faster than the first (model, {name})"),
            paper: 9.4.into(),
            here: (v1 / v3).into(),
            unit: "x",
            verdict: Verdict::not_run("the paper's machine and matrix; the figure is that of a cost model"),
            setup: format!("R-MAT of scale {scale}, edge factor 16, seed 1, default constants, never fitted"),
        });
    }
    ctx.table(table);
    Ok(())
}

fn multiply(a: &Csr<f64>, config: &SpgemmConfig<'_>) {
    // Both factors are the same matrix, so nothing can fail but memory; the result is only timed.
    let _ = black_box(spgemm(PlusTimes::new(), a.view(), a.view(), config));
}

/// These rows of a matrix.
fn rows(a: &Csr<f64>, rows: std::ops::Range<usize>) -> Result<Csr<f64>> {
    let offsets = &a.indptr()[rows.start..=rows.end];
    let (start, end) = (offsets[0] as usize, offsets[rows.len()] as usize);
    let indptr = offsets.iter().map(|p| p - offsets[0]).collect();
    let (indices, values) = (a.indices()[start..end].to_vec(), a.values()[start..end].to_vec());
    Ok(Csr::new(rows.len(), a.ncols(), indptr, indices, values)?)
}

/// The square of a matrix by the crate faer, which keeps columns: the transpose, whose square is the transposed
/// square.
fn faer_square(a: &Csr<f64>) -> Result<impl FnMut() + Send> {
    use faer::sparse::{SparseColMat, SymbolicSparseColMat, linalg::matmul::sparse_sparse_matmul};
    let indptr: Vec<u32> = a.indptr().iter().map(|&p| p as u32).collect();
    let pattern = SymbolicSparseColMat::new_checked(a.ncols(), a.nrows(), indptr, None, a.indices().to_vec());
    let a = SparseColMat::<u32, f64>::new(pattern, a.values().to_vec());
    Ok(move || {
        let _ = black_box(sparse_sparse_matmul(a.as_ref(), a.as_ref(), 1.0, faer::Par::Seq));
    })
}

/// The library beside one accumulator for all rows, a plan, two threads, and a diagonal.
fn parts(ctx: &mut Ctx) -> Result<()> {
    let scale = ctx.pick(12, 16);
    let a = generate::rmat(scale, 8, GRAPH500, 1)?;
    let one = SpgemmConfig { threads: 1, ..SpgemmConfig::default() };
    let mut table =
        Table::new(format!("A*A, R-MAT 2^{scale}, edge factor 8, f64, sorted"), &["how", "seconds"]);
    ctx.step("accumulators");
    let auto = ctx.time(1, || multiply(&a, &one))?.median;
    let hash = SpgemmConfig { accumulator: Accumulator::Hash, ..one.clone() };
    let hash = ctx.time(1, || multiply(&a, &hash))?.median;
    let two = SpgemmConfig { threads: 2, ..SpgemmConfig::default() };
    let both = ctx.time(2, || multiply(&a, &two))?.median;
    // The schedule of the paper's first version: as many rows for each thread, whatever they hold.
    let half = a.nrows() / 2;
    let halves = [rows(&a, 0..half)?, rows(&a, half..a.nrows())?];
    let fixed = ctx
        .time(2, || {
            let [top, bottom] = &halves;
            let multiply = |rows: &Csr<f64>| spgemm(PlusTimes::new(), rows.view(), a.view(), &one);
            if let (Ok(top), Ok(bottom)) = rayon::join(|| multiply(top), || multiply(bottom)) {
                // One matrix, as everywhere else.
                let columns = [top.indices(), bottom.indices()].concat();
                black_box((columns, [top.values(), bottom.values()].concat()));
            }
        })?
        .median;
    ctx.step("plan");
    let plan = SpgemmPlan::new(a.view(), a.view(), &PlanConfig { threads: 1, ..PlanConfig::default() })?;
    let mut c = vec![0.0; plan.nnz()];
    let planned = ctx
        .time(1, || {
            let _ = black_box(plan.execute(PlusTimes::new(), a.values(), a.values(), &mut c));
        })?
        .median;
    let diagonal: Csr<f64> = Csr::from_diagonal(&vec![1.5; 1_000_000])?;
    let diagonal = ctx.time(1, || multiply(&diagonal, &one))?.median;
    for (how, seconds) in [
        ("chosen per row, 1 thread", auto),
        ("hash table for all rows, 1 thread", hash),
        ("chosen per row, 2 threads", both),
        ("half of the rows for each of 2 threads", fixed),
        ("plan executed again, 1 thread", planned),
        ("diagonal of a million rows, 1 thread", diagonal),
    ] {
        table.row([how.into(), seconds.into()]);
    }
    ctx.table(table);
    let setup = format!("R-MAT of scale {scale}, edge factor 8, seed 1");
    ctx.claim(Claim {
        statement: "choosing the accumulator per row beats a hash table for all rows".into(),
        paper: "no figure".into(),
        here: (hash / auto).into(),
        unit: "x",
        verdict: Verdict::at_least(hash / auto, 1.0, 0.9),
        setup: setup.clone(),
    });
    ctx.claim(Claim {
        statement: "taking pieces of equal work beats half of the rows for each of two threads".into(),
        paper: "no figure".into(),
        here: (fixed / both).into(),
        unit: "x",
        verdict: Verdict::at_least(fixed / both, 1.0, 0.9),
        setup: setup.clone(),
    });
    ctx.claim(Claim {
        statement: "two threads take at most 1 / 1.7 of the time".into(),
        paper: 1.7.into(),
        here: (auto / both).into(),
        unit: "x",
        verdict: Verdict::at_least(auto / both, 1.7, 1.3),
        setup: setup.clone(),
    });
    ctx.claim(Claim {
        statement: "a plan takes at most half the time of a fresh product".into(),
        paper: 0.5.into(),
        here: (planned / auto).into(),
        unit: "of the time",
        verdict: Verdict::at_most(planned / auto, 0.5, 0.8),
        setup,
    });
    Ok(())
}

/// Beside other libraries, one thread, sorted results.
fn peers(ctx: &mut Ctx) -> Result<()> {
    let (scale, n, vertices) = (ctx.pick(11, 14), ctx.pick(1 << 12, 1 << 16), ctx.pick(2000, 23_748));
    let large = ctx.pick(12, 16);
    let cases = [
        (format!("R-MAT 2^{scale}, edge factor 8"), generate::rmat(scale, 8, GRAPH500, 1)?),
        (format!("R-MAT 2^{scale}, edge factor 16"), generate::rmat(scale, 16, GRAPH500, 1)?),
        (format!("R-MAT 2^{large}, edge factor 8"), generate::rmat(large, 8, GRAPH500, 1)?),
        (format!("uniform 2^{}, 8 per row", scale + 2), generate::er(scale + 2, 8, 1)?),
        (format!("band of 17, {n} rows"), generate::band(n, 8, 1)?),
        // As large and as skewed as the graph of the internet's autonomous systems.
        (
            format!("power law 2.1, {vertices} vertices"),
            generate::power_law(vertices, 5 * vertices / 2, 2.1, 1)?,
        ),
    ];
    for (case, a) in cases {
        ctx.step(format!("peers, {case}"));
        let config = SpgemmConfig { threads: 1, ..SpgemmConfig::default() };
        let theirs: sprs::CsMat<f64> = a.clone().into();
        let stats = spgemm_stats(a.view(), a.view())?;
        let arrays: [(&str, AnyTensor); 3] = [
            ("indptr", Tensor::from_slice([a.nrows() + 1], a.indptr())?.into_any()),
            ("indices", Tensor::from_slice([a.nnz()], a.indices())?.into_any()),
            ("data", Tensor::from_slice([a.nnz()], a.values())?.into_any()),
        ];
        let arrays: Vec<(&str, &AnyTensor)> = arrays.iter().map(|(name, x)| (*name, x)).collect();
        let want = spgemm(PlusTimes::new(), a.view(), a.view(), &config)?;
        let error = |out: &crate::peers::Arrays| -> Result<f64> {
            let data = out.get("data").context("the peer gave no data")?.to_tensor::<f64, 1>("data")?;
            let gap = |(x, y): (&f64, &f64)| (x - y).abs();
            Ok(data.as_slice().iter().zip(want.values()).map(gap).fold(0.0, f64::max))
        };
        ctx.compare(Comparison {
            case,
            threads: 1,
            ours: &mut || multiply(&a, &config),
            our_error: Some(0.0),
            rivals: vec![
                Rival::new("sprs", "0.11.6", || {
                    let _ = black_box(&theirs * &theirs);
                }),
                Rival::new("faer", "0.24.4", faer_square(&a)?),
            ],
            python: Some(PythonSide { arrays: &arrays, params: json!({}), error: &error }),
            work: Some(Work::Bytes(12.0 * (a.nnz() as f64 + 2.0 * stats.nnz_c as f64))),
            note: "largest difference between the sorted values",
        })?;
    }
    let rows = &ctx.section.peers;
    let mut cases: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    cases.dedup();
    let mut names: Vec<&str> = rows.iter().filter(|row| row.ratio.is_some()).map(|row| &*row.peer).collect();
    names.sort_unstable();
    names.dedup();
    let ratio = |case: &str, name: &str| {
        let row = rows.iter().find(|row| row.case == case && row.peer == name);
        row.and_then(|row| row.ratio).unwrap_or(f64::NAN)
    };
    let heights = |name: &str| cases.iter().map(|case| ratio(case, name)).collect::<Vec<f64>>();
    let series = names.iter().map(|name| Series::bars(*name, heights(name))).collect();
    let plot = Plot {
        title: "Sparse squares: time of others over ours, one thread".into(),
        x: Axis::names("matrix", cases.iter().copied()),
        y: Axis::linear("times ours"),
        series,
    };
    ctx.plot(plot);
    Ok(())
}
