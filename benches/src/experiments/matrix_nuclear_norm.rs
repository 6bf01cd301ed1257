//! kc-linalg::mnn: the time of the score against that of the entropy it replaces, its growth with size, and
//! how it moves with the length of a text.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context as _;
use kc_core::{Tensor, TensorView};
use kc_linalg::mnn::{ExactMethod, MnnConfig, SpectrumConfig, mnn, reference, spectrum};
use kc_linalg::{Vectors, eigvalsh, svd};
use kc_testing::golden_tensor;
use serde_json::json;

use super::{
    Axis, Claim, Comparison, Ctx, Figure, Plot, PythonSide, Rival, Series, Table, Verdict, Work, slope,
};
use crate::minilm::{MiniLm, Texts};

/// Tokens of the random hidden states.
const TOKENS: usize = 512;

/// Published ratios of the time of matrix entropy to that of the score, by hidden size.
const PUBLISHED: [(usize, f64, &str); 7] = [
    (128, 2.4, "Pythia 14M"),
    (768, 8.6, "Cerebras-GPT 111M"),
    (1088, 10.9, "Cerebras-GPT 256M"),
    (1536, 16.0, "Cerebras-GPT 590M"),
    (2048, 17.8, "Cerebras-GPT 1.3B"),
    (2560, 16.5, "Cerebras-GPT 2.7B"),
    (4096, 24.3, "Cerebras-GPT 6.7B"),
];

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    entropy(ctx)?;
    growth_with_size(ctx)?;
    growth_with_length(ctx)?;
    needs_models(ctx)?;
    peers(ctx)
}

fn states(ctx: &Ctx, rows: usize, cols: usize) -> anyhow::Result<Tensor<f32, 2>> {
    let mut x = Tensor::zeros([rows, cols])?;
    ctx.rng((rows * 10_007 + cols) as u64).fill_normal(x.as_mut_slice());
    Ok(x)
}

/// Seconds of one run. For what takes seconds, one is enough.
fn once<R>(ctx: &Ctx, body: impl FnOnce() -> R + Send) -> anyhow::Result<f64> {
    ctx.on_threads(1, || {
        let start = Instant::now();
        black_box(body());
        start.elapsed().as_secs_f64()
    })
}

fn score_time(ctx: &Ctx, x: TensorView<'_, f32, 2>) -> anyhow::Result<f64> {
    let score = ctx.time(1, || {
        black_box(mnn(x, &MnnConfig::default()).ok());
    })?;
    Ok(score.median)
}

/// The published entropy decomposes the d x d covariance completely; a fair one needs the eigenvalues of the
/// smaller Gram matrix only. Both are timed.
fn entropy(ctx: &mut Ctx) -> anyhow::Result<()> {
    let widths = ctx.pick(vec![128, 256, 512, 768], vec![128, 256, 512, 768, 1088, 1536, 2048, 2560]);
    let mut table = Table::new(
        format!("Time of matrix entropy over time of the score, {TOKENS} random tokens, one thread"),
        &["d", "score, ms", "(a) published entropy / score", "(b) fair entropy / score", "paper"],
    );
    let (mut full, mut fair, mut won, mut cases) = (Vec::new(), Vec::new(), 0, 0);
    for d in widths {
        ctx.step(format!("entropy and score at d = {d}"));
        let x = states(ctx, TOKENS, d)?;
        let ours = score_time(ctx, x.view())?;
        let z = reference::normalised(x.view(), &MnnConfig::default())?;
        let sigma = covariance(&z)?;
        let complete = once(ctx, || svd(sigma.view(), Vectors::Thin).map(|s| s.values.len()))?;
        let mut exact = SpectrumConfig::default();
        exact.method = ExactMethod::Gram;
        let values_only = ctx.time(1, || {
            black_box(spectrum(x.view(), &MnnConfig::default(), &exact).ok());
        })?;
        let (a, b) = (complete / ours, values_only.median / ours);
        full.push((d as f64, a));
        fair.push((d as f64, b));
        let published = PUBLISHED.iter().find(|p| p.0 == d);
        let paper = published.map_or(Figure::from("-"), |p| p.1.into());
        table.row([(d as f64).into(), (ours * 1e3).into(), a.into(), b.into(), paper]);
        if let Some(&(_, ratio, model)) = published {
            cases += 1;
            won += usize::from(b >= ratio);
            ctx.claim(Claim {
                statement: format!("the score takes less time than matrix entropy at the width of {model}"),
                paper: ratio.into(),
                here: a.into(),
                unit: "x",
                verdict: Verdict::at_least(a, ratio, ratio / 2.0),
                setup: format!(
                    "{TOKENS} random tokens, d = {d}, one thread; the SVD of the d x d covariance, without the \
                     model's own time, which the paper includes; against the fair entropy {b:.1} x"
                ),
            });
        }
    }
    let least = fair.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    ctx.claim(Claim {
        statement: "the advantage is as large over an entropy from the smaller Gram matrix".into(),
        paper: "not compared".into(),
        here: format!("{least:.1} x at least; the published ratio is met at {won} of {cases} widths").into(),
        unit: "",
        verdict: Verdict::of_cases(won, cases),
        setup: "f64 Gram matrix of the smaller side and its eigenvalues, one thread".into(),
    });
    ctx.table(table);
    ctx.plot(Plot {
        title: "Time of matrix entropy over time of the score".into(),
        x: Axis::log("d"),
        y: Axis::log("ratio"),
        series: vec![
            Series::line("(a) SVD of the d x d covariance", full),
            Series::line("(b) eigenvalues of the smaller Gram matrix", fair),
            Series::points("paper", PUBLISHED.iter().map(|p| (p.0 as f64, p.1)).collect()),
        ],
    });
    Ok(())
}

/// Z^T Z / N in f32, as the published script forms it.
fn covariance(z: &Tensor<f64, 2>) -> anyhow::Result<Tensor<f32, 2>> {
    let [rows, dim] = z.shape();
    let mut sigma = vec![0.0f64; dim * dim];
    for z in z.as_slice().chunks_exact(dim) {
        for (row, zi) in sigma.chunks_exact_mut(dim).zip(z) {
            row.iter_mut().zip(z).for_each(|(s, zj)| *s += zi * zj);
        }
    }
    Ok(Tensor::from_fn([dim, dim], |[i, j]| (sigma[i * dim + j] / rows as f64) as f32)?)
}

fn growth_with_size(ctx: &mut Ctx) -> anyhow::Result<()> {
    let sizes = ctx.pick(vec![1024, 1448, 2048, 2896], vec![1024, 1448, 2048, 2896, 4096, 6144]);
    let mut ours = Vec::new();
    for &n in &sizes {
        ctx.step(format!("score of {n} x {n}"));
        let x = states(ctx, n, n)?;
        ours.push((n as f64, score_time(ctx, x.view())?));
    }
    let small = ctx.pick(vec![256, 512, 1024], vec![512, 1024, 2048]);
    let mut eigen = Vec::new();
    for &n in &small {
        ctx.step(format!("eigenvalues of {n} x {n}"));
        let x = states(ctx, n, n)?;
        let symmetric = Tensor::<f64, 2>::from_fn([n, n], |[i, j]| f64::from(x[[i, j]] + x[[j, i]]))?;
        eigen.push((n as f64, once(ctx, || eigvalsh(symmetric.view()).map(|v| v.len()))?));
    }
    let (two, three) = (slope(&ours), slope(&eigen));
    ctx.claim(Claim {
        statement: "the score takes quadratic time".into(),
        paper: 2.0.into(),
        here: two.into(),
        unit: "slope",
        verdict: Verdict::within(two, 2.0, 0.075, 0.15),
        setup: format!("log time over log n, n x n random matrices, n = {sizes:?}, one thread"),
    });
    ctx.claim(Claim {
        statement: "exact values take cubic time".into(),
        paper: 3.0.into(),
        here: three.into(),
        unit: "slope",
        verdict: Verdict::within(three, 3.0, 0.15, 0.3),
        setup: format!("eigenvalues of symmetric random matrices, n = {small:?}, one thread, one run each"),
    });
    ctx.plot(Plot {
        title: "Time by size, n x n, one thread".into(),
        x: Axis::log("n"),
        y: Axis::log("seconds"),
        series: vec![Series::line("score", ours), Series::line("eigenvalues", eigen)],
    });
    Ok(())
}

/// Token states of a small encoder: whole texts, and the first tokens of the longest.
fn growth_with_length(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("scores of encoder states");
    let mut table = Table::new("Token states of a MiniLM encoder (d = 384)", &["text", "tokens", "score"]);
    for name in ["minilm_0", "minilm_3", "minilm_2", "minilm_1", "minilm_4"] {
        let x = golden_tensor::<f32, 2>(&format!("matrix_nuclear_norm/{name}/x.npy"));
        let score = mnn(x.view(), &MnnConfig::default())?.score;
        table.row([name.into(), (x.shape()[0] as f64).into(), score.into()]);
    }
    ctx.table(table);
    let x = golden_tensor::<f32, 2>("matrix_nuclear_norm/minilm_4/x.npy");
    let lengths = [12, 20, 39, 60, 77];
    let mut scores = Vec::new();
    for length in lengths {
        let part = x.view().slice(0, 0..length)?;
        scores.push((length as f64, mnn(part, &MnnConfig::default())?.score));
    }
    let rising = scores.windows(2).filter(|w| w[1].1 > w[0].1).count();
    let shown: Vec<String> = scores.iter().map(|s| format!("{:.2}", s.1)).collect();
    ctx.claim(Claim {
        statement: "the score grows with the length of the text".into(),
        paper: "0.46, 0.53, 0.79, 0.91".into(),
        here: shown.join(", ").into(),
        unit: "",
        verdict: Verdict::of_cases(rising, lengths.len() - 1),
        setup: format!(
            "the first {lengths:?} token states of one text by a MiniLM encoder (paper: 64 to 1024 tokens by \
             Cerebras-GPT 111M)"
        ),
    });
    ctx.plot(Plot {
        title: "Score by number of tokens".into(),
        x: Axis::linear("tokens"),
        y: Axis::linear("score"),
        series: vec![Series::line("MiniLM", scores)],
    });
    Ok(())
}

/// What needs a language model: order of sentences by MiniLM, which has a package; sizes of models by none.
fn needs_models(ctx: &mut Ctx) -> anyhow::Result<()> {
    let claim = |statement: &str, paper: &str, here: Figure, verdict, setup: &str| Claim {
        statement: statement.into(),
        paper: paper.into(),
        here,
        unit: "",
        verdict,
        setup: setup.into(),
    };
    ctx.claim(claim(
        "the score falls as models grow (Dolly-15k, Cerebras-GPT)",
        "0.62 to 0.39 at 6.7B, 0.49 at 13B",
        "-".into(),
        Verdict::not_run("hidden states of the Cerebras-GPT models"),
        "no model here",
    ));
    const ORDER: &str = "shuffled or reversed sentences raise the score";
    if !ctx.peers() {
        let verdict = Verdict::not_run("the weights of MiniLM-L6, a Python package: --peers");
        ctx.claim(claim(ORDER, "raised", "-".into(), verdict, "-"));
        return Ok(());
    }
    ctx.step("order of sentences");
    let (model, sentences) = (MiniLm::load()?, Texts::sentences()?);
    let score = |order: &[Vec<usize>]| -> anyhow::Result<f64> {
        // One text: the marks of start and end stand around all sentences, not around each.
        let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(f64::NAN) };
        let inner = order.iter().flat_map(|s| &s[1..s.len() - 1]).copied();
        let text = first.iter().take(1).copied().chain(inner).chain(last.last().copied()).collect();
        let states = model.states(&Texts::new(&[text]), |i, x| model.plain(i, x))?;
        Ok(mnn(states.view(), &MnnConfig::default())?.score)
    };
    let mut table = Table::new(
        "Score of 12 sentences as one text, MiniLM-L6, by the order of the sentences",
        &["sentences", "as written", "shuffled", "reversed"],
    );
    let (mut raised, mut cases) = (0, 0);
    let mut rng = ctx.rng(7);
    for (p, paragraph) in sentences.chunks(12).enumerate() {
        let (mut shuffled, mut reversed) = (paragraph.to_vec(), paragraph.to_vec());
        rng.shuffle(&mut shuffled);
        reversed.reverse();
        let scores = [score(paragraph)?, score(&shuffled)?, score(&reversed)?];
        raised += scores[1..].iter().filter(|&&s| s > scores[0]).count();
        cases += 2;
        let label = format!("{} to {}", 12 * p + 1, 12 * p + paragraph.len());
        table.row([label.into(), scores[0].into(), scores[1].into(), scores[2].into()]);
    }
    ctx.table(table);
    ctx.claim(claim(
        ORDER,
        "raised",
        format!("in {raised} of {cases} cases").into(),
        Verdict::of_cases(raised, cases),
        "four texts of 12 sentences, shuffled and reversed, MiniLM-L6 (paper: language models)",
    ));
    Ok(())
}

fn peers(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (rows, cols) in ctx.pick(
        vec![(64, 768), (2048, 2048)],
        vec![(64, 768), (512, 4096), (1024, 1024), (2048, 2048), (4096, 4096), (6144, 6144)],
    ) {
        ctx.step(format!("peers at {rows} x {cols}"));
        let x = states(ctx, rows, cols)?;
        let want = reference::mnn(x.view(), &MnnConfig::default())?;
        let found = mnn(x.view(), &MnnConfig::default())?.raw;
        let mut copy = Tensor::<f32, 2>::zeros([rows, cols])?;
        let array = x.clone().into_any();
        let error = |arrays: &crate::peers::Arrays| -> anyhow::Result<f64> {
            let got = arrays.get("mnn").context("no score")?.to_f64::<1>("mnn")?;
            Ok((got[[0]] / want - 1.0).abs())
        };
        ctx.compare(Comparison {
            case: format!("{rows} x {cols} float32"),
            threads: 1,
            ours: &mut || {
                black_box(mnn(x.view(), &MnnConfig::default()).ok());
            },
            our_error: Some((found / want - 1.0).abs()),
            rivals: vec![Rival::new("copy of the matrix", "std", || {
                copy.as_mut_slice().copy_from_slice(black_box(x.as_slice()));
                black_box(&mut copy);
            })],
            python: Some(PythonSide { arrays: &[("x", &array)], params: json!({}), error: &error }),
            work: Some(Work::Bytes(2.0 * (rows * cols * 4) as f64)),
            note: "relative error of the sum against f64; both passes over the matrix count as reads",
        })?;
    }
    Ok(())
}
