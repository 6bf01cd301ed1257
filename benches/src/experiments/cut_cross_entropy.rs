//! Cut cross-entropy: memory and time against stored logits, what the filter saves and loses, training.

use std::hint::black_box;

use anyhow::Context as _;
use kc_core::math::Real as _;
use kc_core::optim::Adam;
use kc_core::{AnyTensor, KcRng, Tensor, TensorView};
use kc_gemm::{gemm, gemm_into};
use kc_testing::relative_error;
use kc_xent::{
    Filter, Need, Preset, Seeds, XentConfig, XentGrads, XentInput, linear_cross_entropy,
    linear_cross_entropy_backward, linear_cross_entropy_with_grad,
};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Series, Table, Verdict, Work};

/// The threshold of the paper's bfloat16.
const EPS: f64 = 1.0 / 4096.0;

/// A head with its tokens.
struct Head {
    e: Tensor<f32, 2>,
    c: Tensor<f32, 2>,
    bias: Vec<f32>,
    targets: Vec<i64>,
}

impl Head {
    /// Normal embeddings and classifier, uniform targets.
    fn flat(rng: &mut KcRng, n: usize, v: usize, d: usize) -> anyhow::Result<Self> {
        let scale = 4.0 / (d as f32).sqrt();
        let e = Tensor::from_fn([n, d], |_| rng.normal() as f32 * scale)?;
        let c = Tensor::from_fn([v, d], |_| rng.normal() as f32)?;
        let targets = (0..n).map(|_| rng.below(v as u64) as i64).collect();
        Ok(Self { e, c, bias: vec![0.0; v], targets })
    }

    /// What a trained model looks like: Zipf(1.1) frequencies of shuffled words in the bias, embeddings that point at
    /// their target.
    fn zipf(rng: &mut KcRng, n: usize, v: usize, d: usize) -> anyhow::Result<Self> {
        let mut head = Self::flat(rng, n, v, d)?;
        let words = Zipf::new(rng, v);
        for (word, share) in words.place.iter().zip(&words.share) {
            head.bias[*word] = share.ln() as f32;
        }
        for (i, target) in head.targets.iter_mut().enumerate() {
            let word = words.draw(rng);
            *target = word as i64;
            let (e, c) = (
                &mut head.e.as_mut_slice()[i * d..(i + 1) * d],
                &head.c.as_slice()[word * d..(word + 1) * d],
            );
            for (e, c) in e.iter_mut().zip(c) {
                *e = 8.0 / d as f32 * c + *e / 4.0;
            }
        }
        Ok(head)
    }

    fn input(&self) -> anyhow::Result<XentInput<'_, f32>> {
        let targets = TensorView::from_slice([self.targets.len()], &self.targets)?;
        Ok(XentInput::new(self.e.view(), self.c.view(), targets)?.bias(&self.bias)?)
    }
}

/// Words by falling frequency.
struct Zipf {
    place: Vec<usize>,
    share: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(rng: &mut KcRng, v: usize) -> Self {
        let place = rng.permutation(v);
        let total: f64 = (1..=v).map(|k| (k as f64).powf(-1.1)).sum();
        let share: Vec<f64> = (1..=v).map(|k| (k as f64).powf(-1.1) / total).collect();
        let cumulative = share
            .iter()
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        Self { place, share, cumulative }
    }

    fn draw(&self, rng: &mut KcRng) -> usize {
        let u = rng.uniform();
        self.place[self.cumulative.partition_point(|c| *c < u).min(self.place.len() - 1)]
    }
}

fn exact() -> XentConfig {
    XentConfig::preset(Preset::CceExact)
}

fn filtered() -> XentConfig {
    XentConfig { filter: Filter::Value(EPS), ..XentConfig::default() }
}

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    memory(ctx)?;
    times(ctx)?;
    saving(ctx)?;
    blocks(ctx)?;
    training(ctx)
}

/// The most memory beyond what was held before, if the system can be asked (Linux).
fn extra(body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Option<f64>> {
    let field = |name: &str| {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    // 5 resets the peak.
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = field("VmRSS:");
    body()?;
    Ok(match (before, field("VmHWM:")) {
        (Some(before), Some(peak)) if reset => Some((peak - before).max(0.0)),
        _ => None,
    })
}

/// (a) Peak memory.
fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let cases: &[(usize, usize, usize)] = ctx.pick(
        &[(512, 32768, 128)],
        &[(2048, 32768, 1024), (8192, 32768, 256), (4096, 65536, 256), (2048, 131_072, 256)],
    );
    let mut table = Table::new(
        "Most memory beyond inputs, MiB",
        &[
            "tokens, words, D",
            "logits alone",
            "forward",
            "both",
            "of that gradients",
            "both without gradients",
        ],
    );
    let (mut small, mut asked, mut largest) = (0, 0, 0.0f64);
    for &(n, v, d) in cases {
        ctx.step(format!("memory of {n} tokens, {v} words"));
        let head = Head::flat(&mut ctx.rng(1), n, v, d)?;
        let input = head.input()?;
        let config = exact();
        let once = extra(|| {
            black_box(linear_cross_entropy(&input, &config)?);
            Ok(())
        })?;
        let both = extra(|| {
            black_box(linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config)?);
            Ok(())
        })?;
        let mib = |floats: usize| floats as f64 * 4.0 / (1 << 20) as f64;
        let gradients = mib(n * d + v * d + v);
        let (Some(once), Some(both)) = (once, both) else { continue };
        let beyond = both - gradients;
        table.row([
            format!("{n}, {v}, {d}").into(),
            mib(n * v).into(),
            once.into(),
            both.into(),
            gradients.into(),
            beyond.into(),
        ]);
        asked += 1;
        small += usize::from(once < 8.0 && beyond < 8.0);
        largest = largest.max(once).max(beyond);
    }
    ctx.table(table);
    let known = asked > 0;
    ctx.claim(Claim {
        statement: "memory beyond inputs and gradients stays below 8 MiB".into(),
        paper: "24 GB to 1 MB (Gemma 2 2B, 8192 tokens, 256k words)".into(),
        here: if known {
            format!("{largest:.1} MiB at most, {small} of {asked} cases").into()
        } else {
            "-".into()
        },
        unit: "",
        verdict: if known { Verdict::of_cases(small, asked) } else { Verdict::not_run("Linux's /proc") },
        setup: "f32, forward and both passes, resident memory of the process".into(),
    });
    Ok(())
}

/// (b) Time of both passes.
fn times(ctx: &mut Ctx) -> anyhow::Result<()> {
    let d = ctx.pick(256, 1024);
    // Tokens, words, whether of a trained model.
    let cases: &[(usize, usize, bool)] = ctx.pick(
        &[(256, 16384, false), (256, 16384, true)],
        &[(2048, 32768, false), (1024, 32768, true), (256, 131_072, false)],
    );
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
    for &(n, v, trained) in cases {
        let kind = if trained { "filtered" } else { "exact" };
        ctx.step(format!("{kind} passes of {n} tokens, {v} words"));
        let head = if trained {
            Head::zipf(&mut ctx.rng(2), n, v, d)?
        } else {
            Head::flat(&mut ctx.rng(2), n, v, d)?
        };
        let input = head.input()?;
        let config = if trained { filtered() } else { exact() };
        let run = |config: &XentConfig| -> anyhow::Result<XentGrads<f32>> {
            Ok(linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), config)?.1)
        };
        let want = run(&exact())?.de.context("a gradient")?;
        let error = relative_error(run(&config)?.de.context("a gradient")?.as_slice(), want.as_slice());
        let targets = Tensor::from_slice([n], &head.targets)?.into_any();
        let bias = Tensor::from_slice([v], &head.bias)?.into_any();
        let (e, c): (AnyTensor, AnyTensor) = (head.e.clone().into_any(), head.c.clone().into_any());
        let judge = |found: &crate::peers::Arrays| {
            let de = found.get("de").context("no de")?;
            Ok(relative_error(de.view::<f32, 2>("de")?.to_vec().as_slice(), want.as_slice()))
        };
        let ours = ctx.compare(Comparison {
            case: format!("{kind}, {n} tokens, {v} words, D = {d}"),
            threads,
            ours: &mut || {
                black_box(run(&config)).ok();
            },
            our_error: Some(error),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[("e", &e), ("c", &c), ("targets", &targets), ("bias", &bias)],
                params: json!({"tokens": n, "words": v}),
                error: &judge,
            }),
            work: (!trained).then_some(Work::Flops(6.0 * (n * v * d) as f64)),
            note: "gradient of E relative to our exact one; torch has no filter",
        })?;
        let ratio = ctx.last_ratio().filter(|_| ctx.peers());
        let goal = if trained { 1.4 } else { 1.2 };
        ctx.claim(Claim {
            statement: format!("both passes, {kind}, take 1/{goal} of the time with stored logits"),
            paper: "1.55 x (A100, 208.8 to 134.8 ms)".into(),
            here: ratio.map_or_else(|| format!("{:.3} s, no peer", ours.min).into(), Into::into),
            unit: "x",
            verdict: match ratio {
                Some(ratio) => Verdict::at_least(ratio, goal, 1.0),
                None => Verdict::not_run("torch: --peers"),
            },
            setup: format!(
                "f32, {n} tokens, {v} words, D = {d}, {threads} threads, against torch's cross_entropy"
            ),
        });
    }
    Ok(())
}

/// (b) The filter's own saving.
fn saving(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, v, d) = ctx.pick((256, 16384, 128), (256, 65536, 512));
    ctx.step("what the filter saves");
    let head = Head::zipf(&mut ctx.rng(3), n, v, d)?;
    let input = head.input()?;
    let forward = linear_cross_entropy(&input, &filtered())?;
    let mut figures = Vec::new();
    let mut table = Table::new(
        format!("{n} tokens, {v} words in Zipf frequencies, D = {d}, one thread"),
        &["gradients", "backward pass, s", "blocks kept", "both passes in one call, s"],
    );
    for (name, config) in [("exact", exact()), ("filtered", filtered())] {
        let mut kept = 0.0;
        let apart = ctx.time(1, || {
            let found = linear_cross_entropy_backward(
                &forward,
                &input,
                None,
                Seeds::default(),
                Need::default(),
                &config,
            );
            if let Ok(found) = black_box(found) {
                kept = found.blocks_kept as f64 / found.blocks_total as f64;
            }
        })?;
        let both = ctx.time(1, || {
            black_box(linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config))
                .ok();
        })?;
        table.row([name.into(), apart.min.into(), kept.into(), both.min.into()]);
        figures.push(apart.min);
    }
    ctx.table(table);
    let ratio = figures[1] / figures[0];
    ctx.claim(Claim {
        statement: "the filtered backward pass takes less than 0.75 of the exact one's time".into(),
        paper: "3.5 x faster by filtering and sorting".into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_most(ratio, 0.75, 0.95),
        setup: format!(
            "{n} tokens, {v} words in Zipf frequencies, eps 2^-12, blocks of 128 x 128, one thread, minima"
        ),
    });
    Ok(())
}

/// (c) Blocks kept, with and without sorting, and what leaving out loses.
fn blocks(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, v, d) = (640, 16384, 64);
    ctx.step("blocks kept");
    let head = Head::zipf(&mut ctx.rng(4), n, v, d)?;
    let input = head.input()?;
    let run = |config: &XentConfig| -> anyhow::Result<XentGrads<f32>> {
        let forward = linear_cross_entropy(&input, config)?;
        Ok(linear_cross_entropy_backward(&forward, &input, None, Seeds::default(), Need::default(), config)?)
    };
    let share = |grads: &XentGrads<f32>| grads.blocks_kept as f64 / grads.blocks_total as f64;
    let dc = |grads: XentGrads<f32>| grads.dc.map(Tensor::into_vec).context("a gradient");
    let (sorted, unsorted) = (run(&filtered())?, run(&XentConfig { sort_vocab: false, ..filtered() })?);
    let (kept, all) = (share(&sorted), share(&unsorted));
    let whole = dc(run(&exact())?)?;
    let error = relative_error(&dc(sorted)?, &whole);
    let (_, words) = linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &filtered())?;
    let single = share(&words);
    let single_error = relative_error(&dc(words)?, &whole);
    let mut table = Table::new(
        format!("{n} tokens, {v} words in Zipf frequencies, eps 2^-12"),
        &["blocks", "kept", "relative error of dC"],
    );
    table.row(["128 x 128, sorted".into(), kept.into(), error.into()]);
    table.row(["128 x 128, as they stand".into(), all.into(), "-".into()]);
    table.row(["one word with the tokens of a panel (one call)".into(), single.into(), single_error.into()]);
    ctx.table(table);
    ctx.claim(Claim {
        statement: "sorting by mean logit lets the filter leave out most blocks".into(),
        paper: "0.28 sorted, 1.00 unsorted (another draw of these words)".into(),
        here: format!("{kept:.2} sorted, {all:.2} unsorted").into(),
        unit: "",
        verdict: Verdict::at_most(kept, 0.5 * all, 0.9 * all),
        setup: format!("{n} tokens, {v} words, blocks of 128 x 128"),
    });
    ctx.claim(Claim {
        statement: "what the filter leaves out changes dC by at most 0.2 %".into(),
        paper: "no visible change of training".into(),
        here: error.into(),
        unit: "",
        verdict: Verdict::at_most(error, 2e-3, 2e-2),
        setup: "the same blocks, Frobenius norm".into(),
    });
    Ok(())
}

/// A language model of one hidden layer: the mean of the last two words' embeddings, tanh, and the head.
struct Model {
    words: Vec<f32>,
    hidden: Vec<f32>,
    head: Vec<f32>,
    optimisers: [Adam; 3],
    d: usize,
}

impl Model {
    fn new(rng: &mut KcRng, v: usize, d: usize) -> Self {
        let mut draw = |len: usize, scale: f32| {
            let mut out = vec![0.0; len];
            rng.fill_normal(&mut out);
            out.iter_mut().for_each(|x| *x *= scale);
            out
        };
        let (words, hidden, head) =
            (draw(v * d, 0.5), draw(d * d, 1.0 / (d as f32).sqrt()), draw(v * d, 0.1));
        let optimisers = [v * d, d * d, v * d].map(|len| Adam::new(len, 0.01));
        Self { words, hidden, head, optimisers, d }
    }

    /// One step on words `text`; the loss before it.
    fn step(&mut self, text: &[usize], config: &XentConfig) -> anyhow::Result<f64> {
        let (d, n, v) = (self.d, text.len() - 2, self.words.len() / self.d);
        let word = |words: &[f32], w: usize, k: usize| words[w * d + k];
        let x = Tensor::<f32, 2>::from_fn([n, d], |[i, k]| {
            0.5 * (word(&self.words, text[i], k) + word(&self.words, text[i + 1], k))
        })?;
        let hidden = TensorView::from_slice([d, d], &self.hidden)?;
        let mut e = gemm(x.view(), hidden)?;
        kc_core::math::tanh_in_place(e.as_mut_slice());
        let targets: Vec<i64> = text[2..].iter().map(|&w| w as i64).collect();
        let head = TensorView::from_slice([v, d], &self.head)?;
        let input = XentInput::new(e.view(), head, TensorView::from_slice([n], &targets)?)?;
        let (forward, grads) =
            linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), config)?;
        let (de, dc) = (grads.de.context("a gradient")?, grads.dc.context("a gradient")?);
        let mut pre = de;
        for (g, y) in pre.as_mut_slice().iter_mut().zip(e.as_slice()) {
            *g *= 1.0 - y * y;
        }
        let mut dw = Tensor::<f32, 2>::zeros([d, d])?;
        gemm_into(1.0, x.view().transposed(), pre.view(), f32::ZERO, dw.view_mut())?;
        let dx = gemm(pre.view(), hidden.transposed())?;
        let mut by_word = vec![0.0f32; v * d];
        for (i, row) in dx.as_slice().chunks(d).enumerate() {
            for (k, g) in row.iter().enumerate() {
                by_word[text[i] * d + k] += 0.5 * g;
                by_word[text[i + 1] * d + k] += 0.5 * g;
            }
        }
        self.optimisers[0].step(&mut self.words, &by_word)?;
        self.optimisers[1].step(&mut self.hidden, dw.as_slice())?;
        self.optimisers[2].step(&mut self.head, dc.as_slice())?;
        Ok(forward.total())
    }
}

/// (d) Training with exact and with filtered gradients.
fn training(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (v, d, batch, steps) = ctx.pick((1024, 32, 256, 60), (8192, 64, 512, 200));
    ctx.step(format!("training a language model of {v} words for {steps} steps"));
    let mut rng = ctx.rng(5);
    let words = Zipf::new(&mut rng, v);
    let after = rng.permutation(v);
    // Half of the words follow from the one before, the others come by their frequency.
    let mut text = vec![words.draw(&mut rng)];
    for i in 0..steps * batch + 2 {
        let next = if rng.uniform() < 0.5 { after[text[i]] } else { words.draw(&mut rng) };
        text.push(next);
    }
    let mut series = Vec::new();
    let mut ends = Vec::new();
    let full_c = XentConfig::preset(Preset::FullC);
    let coarse = XentConfig { filter: Filter::Value(EPS), ..full_c.clone() };
    for (name, config) in
        [("exact", exact()), ("filtered at 2^-28, dC whole", full_c), ("filtered at 2^-12, dC whole", coarse)]
    {
        let mut model = Model::new(&mut ctx.rng(6), v, d);
        let mut losses = Vec::new();
        for step in 0..steps {
            losses.push(model.step(&text[step * batch..(step + 1) * batch + 2], &config)?);
        }
        // The mean of the last tenth: single batches differ by more than the runs.
        let last = &losses[steps - steps / 10..];
        ends.push((losses[0], last.iter().sum::<f64>() / last.len() as f64));
        series.push(Series::line(name, losses.iter().enumerate().map(|(i, l)| (i as f64, *l)).collect()));
    }
    ctx.plot(Plot {
        title: "Training with exact and filtered gradients".into(),
        x: Axis::linear("step"),
        y: Axis::linear("loss"),
        series,
    });
    let (first, exact) = ends[0];
    for ((_, filtered), kind) in ends[1..].iter().zip(["f32, 2^-28", "bf16, 2^-12"]) {
        let apart = (filtered / exact - 1.0).abs();
        let learnt = exact < 0.9 * first;
        ctx.claim(Claim {
            statement: format!(
                "a language model ends within 0.5 % of the same loss with the filter (full_c) of {kind}"
            ),
            paper: "the same convergence".into(),
            here: format!("{exact:.4} exact, {filtered:.4} filtered, {first:.2} at first").into(),
            unit: "",
            verdict: Verdict::at_most(if learnt { apart } else { f64::INFINITY }, 5e-3, 2e-2),
            setup: format!(
                "{v} words in Zipf frequencies, D = {d}, {steps} steps of {batch} tokens, mean of the last {}",
                steps / 10
            ),
        });
    }
    Ok(())
}
