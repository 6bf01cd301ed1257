//! kc-fft: time of the transforms beside QMCPy's, SciPy's and rustfft's, and its growth with the length.

use std::hint::black_box;

use anyhow::Context as _;
use kc_core::{AnyTensor, Complex, Tensor, bytemuck};
use kc_fft::{fftbr, fwht, rfftbr};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Rival, Series, Verdict, Work, slope};

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    growth(ctx)?;
    let longest = ctx.pick(16, 20);
    for log in [12, 16, 20].into_iter().filter(|log| *log <= longest) {
        for kind in ["fwht", "fftbr", "rfftbr"] {
            ctx.step(format!("{kind} of 2^{log} values"));
            race(ctx, kind, 1 << log)?;
        }
    }
    Ok(())
}

fn numbers(ctx: &Ctx, len: usize) -> Vec<f64> {
    let mut rng = ctx.rng(len as u64);
    (0..len).map(|_| rng.normal()).collect()
}

fn growth(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("growth with the length");
    let mut series = Vec::new();
    for kind in ["fwht", "fftbr"] {
        let mut found = Vec::new();
        for log in ctx.pick(8..=16, 8..=20) {
            let n = 1usize << log;
            let mut x = numbers(ctx, 2 * n);
            let time = ctx.time(1, || {
                let _ = match kind {
                    "fwht" => fwht(black_box(&mut x[..n]), n),
                    _ => fftbr(black_box(bytemuck::cast_slice_mut::<f64, Complex<f64>>(&mut x)), n),
                };
            })?;
            found.push((n as f64, time.median));
        }
        let exponent = slope(&found);
        ctx.claim(Claim {
            statement: format!("{kind} of n values takes O(n log n)"),
            paper: 1.0.into(),
            here: exponent.into(),
            unit: "exponent",
            verdict: Verdict::at_most(exponent, 1.2, 1.35),
            setup: format!(
                "fitted slope of log time over log n, n = 2^8 .. 2^{}, one thread; n log n itself has 1.08",
                found.len() + 7
            ),
        });
        series.push(Series::line(kind, found));
    }
    ctx.plot(Plot {
        title: "Time of one transform, f64".into(),
        x: Axis::log("n"),
        y: Axis::log("seconds"),
        series,
    });
    Ok(())
}

fn race(ctx: &mut Ctx, kind: &str, n: usize) -> anyhow::Result<()> {
    let complex = kind == "fftbr";
    let x = numbers(ctx, if complex { 2 * n } else { n });
    let array: AnyTensor = Tensor::from_slice([x.len()], &x)?.into_any();
    let mut work = x.clone();
    let mut halves = vec![Complex::new(0.0, 0.0); n / 2 + 1];
    let want = match kind {
        "rfftbr" => {
            rfftbr(&x, n, &mut halves)?;
            bytemuck::cast_slice(&halves).to_vec()
        }
        _ => {
            let mut y = x.clone();
            transform(kind, &mut y, n)?;
            y
        }
    };
    // The energy is the same whatever the order of the values.
    let energy = |y: &[f64]| y.iter().map(|v| v * v).sum::<f64>();
    let plan = rustfft::FftPlanner::new().plan_fft_forward(n);
    let mut scratch = vec![Complex::default(); plan.get_inplace_scratch_len()];
    let mut theirs: Vec<Complex<f64>> = x.chunks_exact(2).map(|v| Complex::new(v[0], v[1])).collect();
    let mut rivals = Vec::new();
    if complex {
        rivals.push(Rival::new("rustfft (not reordered)", "6.4.1", || {
            plan.process_with_scratch(black_box(&mut theirs), &mut scratch);
        }));
    }
    let same_order = |arrays: &crate::peers::Arrays| -> anyhow::Result<f64> {
        let y = arrays.get("y").context("no transform")?;
        let y = y.to_f64::<1>("y")?;
        let y = y.as_slice();
        // SciPy's input is not reordered, so only the energy can be compared.
        let difference = y.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let all = energy(&want);
        Ok((difference / all).sqrt().min((energy(y) / all - 1.0).abs()))
    };
    ctx.compare(Comparison {
        case: format!("{kind}, n = 2^{}, f64", n.ilog2()),
        threads: 1,
        ours: &mut || {
            let _ = match kind {
                "rfftbr" => rfftbr(black_box(&x), n, &mut halves),
                _ => transform(kind, black_box(&mut work), n),
            };
        },
        our_error: Some(0.0),
        rivals,
        python: Some(PythonSide { arrays: &[("x", &array)], params: json!({ "kind": kind }), error: &same_order }),
        work: Some(Work::Bytes(8.0 * 2.0 * x.len() as f64)),
        note: "relative difference to ours (of the energy, where the order differs); one read and one write count",
    })?;
    Ok(())
}

fn transform(kind: &str, x: &mut [f64], n: usize) -> kc_core::Result<()> {
    if kind == "fwht" { fwht(x, n) } else { fftbr(bytemuck::cast_slice_mut::<f64, Complex<f64>>(x), n) }
}
