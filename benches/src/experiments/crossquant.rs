//! CrossQuant: the quantisation kernel, errors of each product, and the speed of codes and integers.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Context as _;
use kc_core::{AnyTensor, Tensor};
use kc_gemm::gemm;
use kc_quant::crossquant::{
    ColumnStats, Columns, CrossCodes, CrossLinear, CrossSpec, LinearConfig, Mode, RowFactor, default_grid,
    kernel_report, quantize_into, remove_kernel, sweep,
};
use kc_quant::metrics::relative_error;
use kc_testing::{golden_json, golden_tensor};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Figure, Plot, PythonSide, Series, Table, Verdict, Work};
use crate::minilm::{MiniLm, RECORDED, Recorded, Texts};

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    let layers = Recorded::all()?;
    kernel(ctx, &layers)?;
    errors(ctx, &layers)?;
    whole_model(ctx)?;
    encoding(ctx)?;
    products(ctx)
}

/// Relative error of a product in codes.
fn error(layer: &Recorded, config: &LinearConfig) -> anyhow::Result<f64> {
    let y = CrossLinear::new(layer.w.view(), None, config)?.forward(layer.x.view())?;
    Ok(relative_error(y.view(), layer.exact.view())?)
}

/// Shares of zero codes against alpha, and what they explain.
fn kernel(ctx: &mut Ctx, layers: &[Recorded]) -> anyhow::Result<()> {
    ctx.step("quantisation kernels of three layers");
    let mut series = Vec::new();
    let mut table = Table::new(
        "Quantisation kernel of real activations, % of elements",
        &["layer", "bits", "per token", "alpha 0.5", "alpha 0.15", "per channel"],
    );
    let (mut smaller, mut cases) = (0, 0);
    for layer in layers {
        for bits in [8, 4] {
            let share = |alpha| {
                let spec = CrossSpec { bits, alpha, ..CrossSpec::default() };
                kernel_report(layer.x.view(), &spec).map(|r| 100.0 * r.kernel.share)
            };
            let [token, half, low, channel] = [share(1.0)?, share(0.5)?, share(0.15)?, share(0.0)?];
            table.row([
                layer.name.into(),
                f64::from(bits).into(),
                token.into(),
                half.into(),
                low.into(),
                channel.into(),
            ]);
            smaller += usize::from(low < 0.7 * token);
            cases += 1;
        }
        let found = sweep(layer.x.view(), None, &CrossSpec::default(), &default_grid())?;
        let points = found.points.iter().map(|p| (p.alpha, 100.0 * p.kernel.share)).collect();
        series.push(Series::line(layer.name, points));
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Quantisation kernel at 8 bits".into(),
        x: Axis::linear("alpha (1 = per token)"),
        y: Axis::linear("zero codes, %"),
        series,
    });
    ctx.claim(Claim {
        statement: "blending token and channel maxima shrinks the quantisation kernel".into(),
        paper: "OPT to 16 %, LLaMA below 0.1 %".into(),
        here: format!("at least 30 % smaller in {smaller} of {cases} cases").into(),
        unit: "",
        verdict: Verdict::of_cases(smaller, cases),
        setup: "slices of three MiniLM-L6 layers, A8 and A4, alpha 0.15 against per-token; the paper's thresholds \
                are those of its models"
            .into(),
    });

    let mut table = Table::new(
        "What zeroing only the kernel costs: relative error of X W^T, weights exact",
        &["layer", "bits", "alpha", "kernel removed", "codes"],
    );
    let (mut most, mut cases) = (0, 0);
    for layer in layers {
        for (bits, alpha) in [(8, 1.0), (4, 1.0), (8, 0.15), (4, 0.15)] {
            let spec = CrossSpec { bits, alpha, ..CrossSpec::default() };
            let bare = gemm(remove_kernel(layer.x.view(), &spec)?.view(), layer.w.view().transposed())?;
            let mut codes = CrossCodes::new();
            quantize_into(layer.x.view(), &spec, &mut codes)?;
            let coded = gemm(codes.dequantize()?.view(), layer.w.view().transposed())?;
            let bare = relative_error(bare.view(), layer.exact.view())?;
            let coded = relative_error(coded.view(), layer.exact.view())?;
            table.row([layer.name.into(), f64::from(bits).into(), alpha.into(), bare.into(), coded.into()]);
            if alpha == 1.0 && bits == 4 {
                most += usize::from(bare * bare > 0.5 * coded * coded);
                cases += 1;
            }
        }
    }
    ctx.table(table);
    ctx.claim(Claim {
        statement: "the kernel explains most of the loss of per-token quantisation".into(),
        paper: "most of it".into(),
        here: format!("more than half of the squared error in {most} of {cases} layers").into(),
        unit: "",
        verdict: Verdict::of_cases(most, cases),
        setup: "A4 per token: elements of the kernel set to 0 and nothing else, against all codes".into(),
    });
    Ok(())
}

/// Errors of each product with each alpha.
fn errors(ctx: &mut Ctx, layers: &[Recorded]) -> anyhow::Result<()> {
    ctx.step("errors of simulated and integer products");
    let of = |mode, alpha, row, [weight_bits, bits]: [u8; 2], group| LinearConfig {
        mode,
        spec: CrossSpec { bits, alpha, row, columns: Columns::Dynamic },
        weight_bits,
        group,
        weight_alpha: None,
    };
    let methods = [
        ("per token", Mode::PerToken, 1.0, RowFactor::Absmax),
        ("fake 0.5", Mode::Fake, 0.5, RowFactor::Absmax),
        ("fake 0.15", Mode::Fake, 0.15, RowFactor::Absmax),
        ("fake 0.15 tight", Mode::Fake, 0.15, RowFactor::Tight),
        ("folded 0.15 absmax", Mode::Folded, 0.15, RowFactor::Absmax),
        ("folded 0.15 tight", Mode::Folded, 0.15, RowFactor::Tight),
        ("folded 0.5 tight", Mode::Folded, 0.5, RowFactor::Tight),
        ("SmoothQuant", Mode::SmoothQuant, 0.5, RowFactor::Tight),
    ];
    for (setting, bits, group) in
        [("W8A8", [8, 8], 0), ("W4A8-g128", [4, 8], 128), ("W4A4-g128", [4, 4], 128)]
    {
        let columns: Vec<&str> = ["method"].into_iter().chain(RECORDED).collect();
        let mut table = Table::new(format!("{setting}: relative error of X W^T"), &columns);
        let mut rows = Vec::new();
        for (name, mode, alpha, row) in methods {
            let config = of(mode, alpha, row, bits, group);
            let found =
                layers.iter().map(|layer| error(layer, &config)).collect::<anyhow::Result<Vec<f64>>>()?;
            table.row([name.into()].into_iter().chain(found.iter().map(|e| (*e).into())));
            rows.push(found);
        }
        ctx.table(table);
        let bars = |(i, layer): (usize, &Recorded)| {
            Series::bars(layer.name, rows.iter().map(move |errors| 100.0 * errors[i]))
        };
        ctx.plot(Plot {
            title: format!("{setting}: error of each product"),
            x: Axis::names("method", methods.map(|(name, ..)| name)),
            y: Axis::linear("relative error, %"),
            series: layers.iter().enumerate().map(bars).collect(),
        });
        let better = |i: usize| rows[i].iter().zip(&rows[0]).filter(|(e, token)| e < token).count();
        for (method, statement) in [
            (2, "simulated CrossQuant (alpha 0.15) is more accurate than per-token"),
            (6, "its integer form (folded, alpha 0.5, tight rows) is more accurate than per-token"),
        ] {
            ctx.claim(Claim {
                statement: format!("{setting}: {statement}"),
                paper: if method == 2 { "as good as f16 at W8A8" } else { "not in the paper" }.into(),
                here: format!("{} of {} layers", better(method), layers.len()).into(),
                unit: "",
                verdict: Verdict::of_cases(better(method), layers.len()),
                setup: "slices of three MiniLM-L6 layers, columns from the same tokens".into(),
            });
        }
    }
    Ok(())
}

/// The whole of MiniLM-L6 with quantised linear layers: 36 of them, 48 sentences.
fn whole_model(ctx: &mut Ctx) -> anyhow::Result<()> {
    const KERNEL: &str = "kernel, mean over the 36 linear layers of MiniLM-L6, A8";
    const W8A8: &str = "1 - mean cosine of the embeddings of MiniLM-L6, W8A8 (alpha 0.15, simulated)";
    const W4: &str =
        "1 - mean cosine of the embeddings of MiniLM-L6 is below per-token, W4A8-g128 and W4A4-g128";
    let claim = |statement: &str, paper: Figure, here: Figure, verdict| Claim {
        statement: statement.into(),
        paper,
        here,
        unit: "",
        verdict,
        setup: "48 sentences, 672 tokens; static columns from the first 24".into(),
    };
    if !ctx.peers() {
        for statement in [KERNEL, W8A8, W4] {
            let verdict = Verdict::not_run("the weights of MiniLM-L6, a Python package: --peers");
            ctx.claim(claim(statement, "-".into(), "-".into(), verdict));
        }
        return Ok(());
    }
    ctx.step("the whole of MiniLM-L6");
    let (model, texts) = (MiniLm::load()?, Texts::new(&Texts::sentences()?));
    let want: Tensor<f32, 2> = golden_tensor("quant_minilm/embeddings.npy");
    let published = golden_json("quant_minilm/results.json");
    let mut columns: Vec<Vec<f32>> = Vec::new();
    let plain = model.embed(&texts, |i, x| {
        let mut stats = ColumnStats::new(x.cols());
        stats.observe(x.slice(0, 0..texts.tokens(24))?)?;
        columns.push(stats.maxima().to_vec());
        model.plain(i, x)
    })?;
    // The codes of a linear layer see what the quantised layers before it make, as in the fixtures.
    let run = |config: &dyn Fn(usize) -> LinearConfig| -> anyhow::Result<(f64, f64)> {
        let (mut codes, mut kernel) = (CrossCodes::new(), 0.0);
        let embeddings = model.embed(&texts, |i, x| {
            let layer = model.linear().nth(i).context("one of 36 layers")?;
            let quantised = CrossLinear::new(layer.weight.view(), Some(&layer.bias), &config(i))?;
            let mut y = Tensor::zeros([x.rows(), layer.bias.len()])?;
            quantised.forward_into(x, y.view_mut(), &mut codes)?;
            kernel += codes.codes().iter().filter(|&&c| c == 0).count() as f64 / codes.codes().len() as f64;
            Ok(y)
        })?;
        Ok((distance(&embeddings, &want), kernel / 36.0))
    };
    let mut table = Table::new(
        "MiniLM-L6 with 36 quantised linear layers, against f64; the fixture's figures from a program in NumPy",
        &["method", "1 - mean cosine", "fixture", "kernel", "fixture"],
    );
    table.row(["f32".into(), distance(&plain, &want).into(), "-".into(), "-".into(), "-".into()]);
    let mut found = BTreeMap::new();
    for (label, weight_bits, bits, group) in
        [("W8A8 gNone", 8, 8, 0), ("W4A8 g128", 4, 8, 128), ("W4A4 g128", 4, 4, 128)]
    {
        let simulated = [1.0, 0.5, 0.15, 0.0].map(|alpha| (Mode::Fake, alpha, RowFactor::Absmax));
        let folded = [(0.15, RowFactor::Absmax), (0.15, RowFactor::Tight), (0.5, RowFactor::Tight)]
            .map(|(alpha, row)| (Mode::Folded, alpha, row));
        for (mode, alpha, row) in simulated.into_iter().chain(folded) {
            let config = |i: usize| {
                let mut config = LinearConfig { weight_bits, group, ..LinearConfig::for_mode(mode) };
                config.spec = CrossSpec { bits, alpha, row, ..CrossSpec::default() };
                if mode == Mode::Folded {
                    config.spec.columns = Columns::Static(columns[i].clone());
                }
                config
            };
            let (loss, kernel) = run(&config)?;
            let name = match (mode, row) {
                (Mode::Fake, _) => format!("crossquant {label} alpha={alpha:?} (fake)"),
                (_, RowFactor::Absmax) => format!("crossquant {label} alpha={alpha:?} absmax folded static"),
                _ => format!("crossquant {label} alpha={alpha:?} tight folded static"),
            };
            let fixture = |key: &str, f: fn(f64) -> f64| -> Figure {
                published[&name][key].as_f64().map_or_else(|| "-".into(), |x| f(x).into())
            };
            let share: Figure = if mode == Mode::Fake { kernel.into() } else { "-".into() };
            table.row([
                name.trim_start_matches("crossquant ").into(),
                loss.into(),
                fixture("mean_cos", |x| 1.0 - x),
                share,
                fixture("kernel", |x| x),
            ]);
            if mode == Mode::Fake {
                found.insert((label, (100.0 * alpha) as u32), (loss, kernel));
            }
        }
    }
    ctx.table(table);
    let at = |label, alpha| found.get(&(label, alpha)).copied().unwrap_or((f64::NAN, f64::NAN));
    let ((token_loss, token_kernel), (loss, kernel)) = (at("W8A8 gNone", 100), at("W8A8 gNone", 15));
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    ctx.claim(claim(
        KERNEL,
        "OPT to 16 %, LLaMA below 0.1 %".into(),
        format!("{} to {}", percent(token_kernel), percent(kernel)).into(),
        Verdict::at_most(kernel / token_kernel, 0.5, 1.0),
    ));
    ctx.claim(claim(
        W8A8,
        "as good as f16".into(),
        format!("{token_loss:.2e} per token, {loss:.2e}").into(),
        // No visible loss: the similarity of a sentence with itself stays at 1 to three digits.
        Verdict::at_most(loss, 1e-3, token_loss),
    ));
    let better =
        ["W4A8 g128", "W4A4 g128"].iter().filter(|&&label| at(label, 15).0 < at(label, 100).0).count();
    ctx.claim(claim(
        W4,
        "above per-token".into(),
        format!("{better} of 2 widths").into(),
        Verdict::of_cases(better, 2),
    ));
    Ok(())
}

/// 1 - the mean cosine of rows of length 1.
fn distance(x: &Tensor<f32, 2>, want: &Tensor<f32, 2>) -> f64 {
    let product = |(x, y): (&f32, &f32)| f64::from(*x) * f64::from(*y);
    1.0 - x.as_slice().iter().zip(want.as_slice()).map(product).sum::<f64>() / x.shape()[0] as f64
}

/// Codes against copying the same bytes.
fn encoding(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("codes against a copy of the same bytes");
    let n = ctx.pick(2048, 4096);
    let mut x = vec![0.0f32; n * n];
    ctx.rng(1).fill_normal(&mut x);
    let x = Tensor::from_slice([n, n], &x)?;
    let mut codes = CrossCodes::new();
    quantize_into(x.view(), &CrossSpec { alpha: 0.0, ..CrossSpec::default() }, &mut codes)?;
    let maxima = Columns::Static(codes.col().to_vec());
    let mut table = Table::new(
        format!("Codes of {n} x {n} f32, one thread"),
        &["columns", "rows", "ms", "copy of the same bytes, ms", "copy / codes"],
    );
    for (name, columns, reads) in [("dynamic", Columns::Dynamic, 2), ("static", maxima, 1)] {
        for row in [RowFactor::Absmax, RowFactor::Tight] {
            let spec = CrossSpec { row, columns: columns.clone(), ..CrossSpec::default() };
            // Reads of X and the write of the codes; a copy reads one half and writes the other.
            let bytes = n * n * (4 * reads + 1);
            let source = vec![1u8; bytes / 2];
            let mut target = vec![0u8; bytes / 2];
            let ours = ctx.time(1, || {
                black_box(quantize_into(x.view(), &spec, &mut codes)).ok();
            })?;
            let copy = ctx.time(1, || {
                target.copy_from_slice(&source);
                black_box(&target);
            })?;
            let ratio = copy.min / ours.min;
            let row_name = if row == RowFactor::Absmax { "absmax" } else { "tight" };
            table.row([
                name.into(),
                row_name.into(),
                (ours.min * 1e3).into(),
                (copy.min * 1e3).into(),
                ratio.into(),
            ]);
            if row == RowFactor::Absmax {
                ctx.claim(Claim {
                    statement: format!(
                        "encoding with {name} columns moves at least 0.8 of a copy's bytes per second"
                    ),
                    paper: "not in the paper".into(),
                    here: ratio.into(),
                    unit: "x",
                    verdict: Verdict::at_least(ratio, 0.8, 0.5),
                    setup: format!(
                        "{n} x {n}, one thread; {reads} reads of X and one write of codes, minima"
                    ),
                });
            }
        }
    }
    ctx.table(table);
    Ok(())
}

/// The integer product against f32 and against other programs.
fn products(ctx: &mut Ctx) -> anyhow::Result<()> {
    let k = ctx.pick(1024, 4096);
    let mut w = vec![0.0f32; k * k];
    ctx.rng(2).fill_normal(&mut w);
    let w = Tensor::from_slice([k, k], &w)?;
    for m in [1, 16, 256] {
        ctx.step(format!("integer products of {m} tokens"));
        let mut x = vec![0.0f32; m * k];
        ctx.rng(3 + m as u64).fill_normal(&mut x);
        let x = Tensor::from_slice([m, k], &x)?;
        let mut config = LinearConfig::for_mode(Mode::Folded);
        config.spec.columns = Columns::Static(vec![4.0; k]);
        let layer = CrossLinear::new(w.view(), None, &config)?;
        let exact = gemm(x.view(), w.view().transposed())?;
        let our_error = relative_error(layer.forward(x.view())?.view(), exact.view())?;
        let (mut y, mut codes) = (Tensor::<f32, 2>::zeros([m, k])?, CrossCodes::new());
        let float = ctx.time(1, || {
            black_box(gemm(x.view(), w.view().transposed())).ok();
        })?;
        let (x_any, w_any): (AnyTensor, AnyTensor) = (x.clone().into_any(), w.clone().into_any());
        let judge = |found: &crate::peers::Arrays| {
            let y = found.get("y").ok_or_else(|| anyhow::anyhow!("no y"))?;
            Ok(relative_error(y.view::<f32, 2>("y")?, exact.view())?)
        };
        let ours = ctx.compare(Comparison {
            case: format!("W8A8, {m} tokens, {k} x {k}"),
            threads: 1,
            ours: &mut || {
                black_box(layer.forward_into(x.view(), y.view_mut(), &mut codes)).ok();
            },
            our_error: Some(our_error),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[("x", &x_any), ("w", &w_any)],
                params: json!({}),
                error: &judge,
            }),
            work: Some(if m == 1 {
                Work::Bytes((k * k) as f64)
            } else {
                Work::ByteOps(2.0 * (m * k * k) as f64)
            }),
            note: "relative to the f32 product; peers use one step for all of X",
        })?;
        let ratio = ours.min / float.min;
        ctx.claim(Claim {
            statement: format!("folded W8A8 takes less than half of the f32 product's time at {m} tokens"),
            paper: "not in the paper".into(),
            here: ratio.into(),
            unit: "x",
            verdict: Verdict::at_most(ratio, 0.5, 1.0),
            setup: format!("{k} x {k} weights, one thread, codes included, minima"),
        });
    }
    Ok(())
}
