//! SEA: time and memory against dense attention, distillation of one layer, how sparse the matrix is.

use std::hint::black_box;

use anyhow::Context as _;
use kc_attention::sea::{
    DistillConfig, SeaConfig, SeaInputs, SeaLayer, SeaParams, Teacher, covered_mass, distill,
};
use kc_core::{AnyTensor, Tensor};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Series, Table, Verdict, Work, slope};

/// Heads and channels of the timings: those of a small language model.
const HEADS: usize = 12;
const CHANNELS: usize = 64;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    times(ctx)?;
    memory(ctx)?;
    learning(ctx)
}

fn language_model(tokens: usize) -> anyhow::Result<SeaLayer> {
    let config = SeaConfig {
        heads: HEADS,
        head_dim: CHANNELS,
        t_m: 256,
        k: 64.0,
        nb_factor: 8.0,
        causal: true,
        max_len: tokens,
        ..SeaConfig::default()
    };
    Ok(SeaLayer::new(config.clone(), SeaParams::init(&config, 1)?)?)
}

fn normals(ctx: &Ctx, stream: u64, shape: [usize; 4]) -> anyhow::Result<Tensor<f32, 4>> {
    let mut x = Tensor::zeros(shape)?;
    ctx.rng(stream).fill_normal(x.as_mut_slice());
    Ok(x)
}

/// Multiply-adds of a token, whatever the length: linear attention, encoder, convolutions, sparse attention.
fn products(layer: &SeaLayer, entries_per_token: f64) -> f64 {
    let config = layer.config();
    let (h, d, m) = (config.heads as f64, config.head_dim as f64, config.features() as f64);
    let (w, c) = (config.width() as f64, config.channels() as f64);
    let linear = h * (2.0 * m * d + 2.0 * m * (2.0 * d + 1.0));
    let encoder = h * (6.0 * d * d + 4.0 * w * d);
    let convolutions = 18.0 * w * c * c + w * c * h;
    linear + encoder + convolutions + 2.0 * d * entries_per_token
}

fn times(ctx: &mut Ctx) -> anyhow::Result<()> {
    let sizes = ctx.pick(vec![512, 1024, 2048], vec![2048, 4096, 8192, 16384]);
    let mut table = Table::new(
        format!("Causal layer, {HEADS} heads of {CHANNELS}, 256 cells, k = 64, two threads"),
        &["tokens", "ms", "us per token", "entries kept, %", "torch SDPA / ours"],
    );
    let (mut points, mut ratios, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for &t in &sizes {
        ctx.step(format!("{t} tokens against dense attention"));
        let layer = language_model(t)?;
        let [q, k, v] = [
            normals(ctx, 1, [1, HEADS, t, CHANNELS])?,
            normals(ctx, 2, [1, HEADS, t, CHANNELS])?,
            normals(ctx, 3, [1, HEADS, t, CHANNELS])?,
        ];
        let x = SeaInputs::new(q.view(), k.view(), v.view());
        let entries = layer.forward(&x)?.nnz.iter().sum::<usize>() as f64;
        let share = entries / (HEADS as f64 * t as f64 * (t as f64 + 1.0) / 2.0);
        let arrays = [&q, &k, &v].map(|x| x.clone().into_any());
        let named: Vec<(&str, &AnyTensor)> = ["q", "k", "v"].into_iter().zip(&arrays).collect();
        // Their answers are those of dense attention: another function, so there is no error to compare.
        let judge = |_: &crate::peers::Arrays| Ok(0.0);
        let ours = ctx.compare(Comparison {
            case: format!("causal, {t} tokens"),
            threads: 2,
            ours: &mut || {
                black_box(layer.forward(&x)).ok();
            },
            our_error: Some(0.0),
            rivals: Vec::new(),
            python: Some(PythonSide { arrays: &named, params: json!({}), error: &judge }),
            work: Some(Work::Flops(2.0 * t as f64 * products(&layer, entries / t as f64))),
            note: "peers compute dense attention (performer-pytorch: another linear one), so errors are not comparable",
        })?;
        let ratio = if ctx.peers() { ctx.ratio_to("torch SDPA causal") } else { None };
        table.row([
            (t as f64).into(),
            (1e3 * ours.min).into(),
            (1e6 * ours.min / t as f64).into(),
            (100.0 * share).into(),
            ratio.map_or_else(|| "-".into(), Into::into),
        ]);
        points.push((t as f64, ours.min));
        kept.push((t as f64, 100.0 * share));
        ratios.extend(ratio.map(|ratio| (t, ratio)));
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Time of a causal layer".into(),
        x: Axis::log("tokens"),
        y: Axis::log("seconds"),
        series: vec![Series::line("SEA", points.clone())],
    });
    let exponent = slope(&points);
    ctx.claim(Claim {
        statement: "time is linear in the number of tokens".into(),
        paper: "linear".into(),
        here: exponent.into(),
        unit: "exponent",
        verdict: Verdict::at_most(exponent, 1.15, 1.3),
        setup: format!("{} to {} tokens, two threads", sizes[0], sizes[sizes.len() - 1]),
    });
    for (t, least) in [(4096, 1.0), (16384, 4.0)] {
        let found = ratios.iter().find(|(size, _)| *size == t).map(|(_, ratio)| *ratio);
        let statement =
            format!("faster than dense causal attention of torch at {t} tokens, by at least {least}");
        ctx.claim(Claim {
            statement,
            paper: "2 to 8 times at long contexts".into(),
            here: found.map_or_else(|| "-".into(), Into::into),
            unit: "x",
            verdict: match found {
                Some(ratio) => Verdict::at_least(ratio, least, 0.75 * least),
                None => Verdict::not_run("torch and full sizes: --peers without --quick"),
            },
            setup: "scaled_dot_product_attention f32, two threads each, medians".into(),
        });
    }
    let (longest, share) = *kept.last().context("a size")?;
    ctx.claim(Claim {
        statement: format!("share of the causal entries that are kept at {longest} tokens"),
        paper: "k of T per query".into(),
        here: share.into(),
        unit: "%",
        verdict: Verdict::within(share, 100.0 * 64.0 / (longest / 2.0), 0.1, 0.3),
        setup: "k = 64 per query and head, against the lower triangle".into(),
    });
    Ok(())
}

/// Most bytes resident while `body` runs, beyond those before.
fn resident(body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let read = |key: &str| -> anyhow::Result<f64> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line =
            status.lines().find(|line| line.starts_with(key)).context("a line of /proc/self/status")?;
        let kib: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(1024.0 * kib)
    };
    // Forgets the highest mark so far.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = read("VmRSS:")?;
    body()?;
    Ok((read("VmHWM:")? - before).max(1.0))
}

fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("memory");
    let t = ctx.pick(2048, 4096);
    let layer = language_model(t)?;
    let shape = [1, HEADS, t, CHANNELS];
    let [q, k, v] = [normals(ctx, 1, shape)?, normals(ctx, 2, shape)?, normals(ctx, 3, shape)?];
    let x = SeaInputs::new(q.view(), k.view(), v.view());
    let statement = format!("memory beyond the inputs, against a stored matrix of scores, at {t} tokens");
    let setup = "resident set, result included; the matrix alone is 4 H T^2 bytes".to_owned();
    let paper = "about half of the model's memory".into();
    let dense = 4.0 * (HEADS * t * t) as f64;
    let claim = |here, verdict| Claim { statement, paper, here, unit: "x less", verdict, setup };
    let found = resident(|| {
        black_box(layer.forward(&x)?);
        Ok(())
    });
    ctx.claim(match found {
        Ok(bytes) => claim((dense / bytes).into(), Verdict::at_least(dense / bytes, 4.0, 2.0)),
        Err(_) => claim("-".into(), Verdict::not_run("/proc")),
    });
    Ok(())
}

/// Sequences of symbols in runs, and their scores. Queries, keys and values are the tokens: a symbol and its noise.
fn sequences(ctx: &Ctx, draw: u64, stream: u64, n: usize) -> anyhow::Result<[Tensor<f32, 4>; 2]> {
    const T: usize = 128;
    const H: usize = 2;
    const D: usize = 32;
    let (mut rng, mut symbols) = (ctx.rng(100 * draw + stream), vec![0.0f32; 12 * H * D]);
    ctx.rng(100 * draw + 50).fill_normal(&mut symbols);
    let mut tokens = Tensor::zeros([n, H, T, D])?;
    for i in 0..n {
        let mut at = 0;
        while at < T {
            let (symbol, run) = (rng.below(12) as usize, 3 + rng.below(6) as usize);
            for t in at..(at + run).min(T) {
                for (head, c) in (0..H).flat_map(|head| (0..D).map(move |c| (head, c))) {
                    // This size makes the best possible choice cover what it covers in the published figures.
                    let clean = 0.88 * symbols[(symbol * H + head) * D + c];
                    tokens[[i, head, t, c]] = clean + 0.3 * rng.normal() as f32;
                }
            }
            at += run;
        }
    }
    let scores = Tensor::from_fn([n, H, T, T], |[n, h, i, j]| {
        let dot: f32 = (0..D).map(|c| tokens[[n, h, i, c]] * tokens[[n, h, j, c]]).sum();
        dot / (D as f32).sqrt()
    })?;
    Ok([tokens, scores])
}

/// The shares of the teacher's attention in the best `k` keys of each query, and in the `k` keys around it.
fn possible_masses(scores: &Tensor<f32, 4>, k: usize) -> [f64; 2] {
    let t = scores.shape()[3];
    let (mut best, mut near) = (0.0, 0.0);
    for (i, row) in scores.as_slice().chunks_exact(t).enumerate() {
        let most = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
        let mut p: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
        let sum: f64 = p.iter().sum();
        let first = (i % t).saturating_sub(k / 2).min(t - k);
        near += p[first..first + k].iter().sum::<f64>() / sum;
        p.sort_by(|a, b| b.total_cmp(a));
        best += p[..k].iter().sum::<f64>() / sum;
    }
    [best, near].map(|mass| mass / (scores.len() / t) as f64)
}

/// What distilling a layer on one draw of symbols, parameters and sequences gives.
struct Learnt {
    /// Divergence of the estimate per head and token, and the teacher's attention on the mask: before and after.
    before: [f64; 2],
    after: [f64; 2],
    /// What the best keys and the nearest ones cover.
    possible: [f64; 2],
    losses: Vec<f64>,
}

fn learn(ctx: &Ctx, draw: u64, steps: usize) -> anyhow::Result<Learnt> {
    let config = SeaConfig { heads: 2, head_dim: 32, t_m: 32, k: 8.0, ..SeaConfig::default() };
    let mut layer = SeaLayer::new(config.clone(), SeaParams::init(&config, draw)?)?;
    let [x, scores] = sequences(ctx, draw, 51, 4 * steps.min(100))?;
    let [other, other_scores] = sequences(ctx, draw, 52, 16)?;
    let inputs = |x| SeaInputs::new(x, x, x);
    // The loss of a bidirectional layer sums over heads and divides by tokens.
    let heads = config.heads as f64;
    let measure = |layer: &SeaLayer| -> anyhow::Result<[f64; 2]> {
        let teacher = Teacher { scores: other_scores.view(), context: None };
        let (trace, loss, _) = layer.forward_train(&inputs(other.view()), Some(&teacher))?;
        Ok([loss.kl_est / heads, covered_mass(&trace.probs, other_scores.view(), &[128; 16], false)?])
    };
    let before = measure(&layer)?;
    let how = DistillConfig { steps, ..DistillConfig::default() };
    let teacher = Teacher { scores: scores.view(), context: None };
    let losses =
        ctx.on_threads(2, || distill(&mut layer, &inputs(x.view()), &teacher, &how, |_, _| true))??;
    Ok(Learnt {
        before,
        after: measure(&layer)?,
        possible: possible_masses(&other_scores, 8),
        losses: losses.iter().map(|loss| loss.kl_est / heads).collect(),
    })
}

fn learning(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (steps, draws) = ctx.pick((60, 1), (300, 3));
    let mut all = Vec::new();
    for draw in 1..=draws {
        ctx.step(format!("distilling a layer, {steps} steps, draw {draw} of {draws}"));
        all.push(learn(ctx, draw, steps)?);
    }
    let mut table = Table::new(
        format!("Distilling one layer, {steps} steps: 16 sequences that it has not seen"),
        &[
            "draw",
            "divergence before",
            "after",
            "covered before",
            "after",
            "by the best keys",
            "by the nearest keys",
        ],
    );
    for (draw, found) in all.iter().enumerate() {
        let Learnt { before, after, possible, .. } = found;
        let [best, near] = *possible;
        table.row([
            (draw as f64 + 1.0).into(),
            before[0].into(),
            after[0].into(),
            before[1].into(),
            after[1].into(),
            best.into(),
            near.into(),
        ]);
    }
    ctx.table(table);
    let curve = |(draw, found): (usize, &Learnt)| {
        let points = found.losses.iter().enumerate().map(|(i, loss)| (i as f64, *loss)).collect();
        Series::line(format!("draw {}", draw + 1), points)
    };
    ctx.plot(Plot {
        title: "Distilling one layer: divergence of the estimate on training batches".into(),
        x: Axis::linear("step"),
        y: Axis::linear("divergence per head and token"),
        series: all.iter().enumerate().map(curve).collect(),
    });
    let mean = |of: fn(&Learnt) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let (kl, mass) = (mean(|found| found.after[0]), mean(|found| found.after[1]));
    let (best, near) = (mean(|found| found.possible[0]), mean(|found| found.possible[1]));
    let setup = format!(
        "128 tokens in runs of 12 symbols, 2 heads of 32, 32 cells, k = 8, Adam 3e-3, batches of 4, {steps} steps; \
         16 other sequences; mean of {draws} draws, which differ in how long the loss stays level before it falls"
    );
    ctx.claim(Claim {
        statement: "distillation brings the estimate near the teacher: divergence per head and token".into(),
        paper: "1.58 to 0.68".into(),
        here: format!("{:.2} to {kl:.2}", mean(|found| found.before[0])).into(),
        unit: "nats",
        verdict: Verdict::at_most(kl, 0.75, 1.0),
        setup: setup.clone(),
    });
    ctx.claim(Claim {
        statement:
            "the mask then covers most of what a mask of its size can: the teacher's attention on it, of the \
                    best keys (and of the nearest ones)"
                .into(),
        paper: "0.076 to 0.381 of 0.543 (0.379)".into(),
        here: format!("{:.3} to {mass:.3} of {best:.3} ({near:.3})", mean(|found| found.before[1])).into(),
        unit: "",
        verdict: Verdict::at_least(mass, 0.35, 0.25),
        setup,
    });
    ctx.claim(Claim {
        statement: "perplexity of whole language models (Wikitext2, OPT-1.3B, Llama-13B)".into(),
        paper: "better than OPT-1.3B; Llama-13B 4.682, SEA 5.446".into(),
        here: "-".into(),
        unit: "",
        verdict: Verdict::not_run("models of 1.3 to 13 billion parameters and a GPU"),
        setup: "-".into(),
    });
    Ok(())
}
