//! Softmax-free attention: growth of time and memory with the tokens, its error, the inverse's gradient, and a classifier of
//! digits that learns with it.

mod digits;

use std::hint::black_box;

use anyhow::Context as _;
use kc_attention::compare;
use kc_attention::soft::{
    Grid, Inverse, Landmark, SoftConfig, SoftGrads, SoftWorkspace, newton_inverse, soft_attention,
    soft_attention_backward, soft_attention_backward_into, soft_attention_into, soft_exact,
};
use kc_core::{AnyTensor, Tensor};
use kc_gemm::gemm;
use kc_testing::alloc;
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Figure, Plot, PythonSide, Series, Table, Verdict, Work, slope};

const CHANNELS: usize = 32;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    growth(ctx)?;
    errors(ctx)?;
    inverse_gradient(ctx)?;
    learning(ctx)
}

fn normals<const N: usize>(ctx: &Ctx, stream: u64, shape: [usize; N]) -> anyhow::Result<Tensor<f32, N>> {
    let mut x = vec![0.0; shape.iter().product()];
    ctx.rng(stream).fill_normal(&mut x);
    Ok(Tensor::from_slice(shape, &x)?)
}

/// The peer that computes the same.
const TORCH: &str = "the same in torch operations";

/// One size: time beside the peers, and the memory.
struct Size {
    tokens: usize,
    forward: f64,
    both: f64,
    /// Torch's time over ours, forward and both, with peers.
    ratios: [Option<f64>; 2],
    bytes: usize,
}

/// (a) Time and memory against the number of tokens, with 49 landmarks.
fn growth(ctx: &mut Ctx) -> anyhow::Result<()> {
    let threads = 2;
    // Heads and side of the grid. The first is compared with peers alone, the others have two heads each.
    let sizes: &[(usize, usize)] =
        ctx.pick(&[(4, 28), (2, 28), (2, 56)], &[(4, 28), (2, 28), (2, 56), (2, 112), (2, 224)]);
    let (mut found, mut ratios) = (Vec::new(), Vec::new());
    for &(heads, side) in sizes {
        let size = one_size(ctx, threads, heads, side)?;
        ratios.push(size.ratios);
        if heads == 2 {
            found.push(size);
        }
    }
    let points = |of: fn(&Size) -> f64| found.iter().map(|s| (s.tokens as f64, of(s))).collect::<Vec<_>>();
    for (name, of) in
        [("forward", (|s: &Size| s.forward) as fn(&Size) -> f64), ("forward and backward", |s| s.both)]
    {
        let exponent = slope(&points(of));
        ctx.claim(Claim {
            statement: format!("time of {name} grows linearly with the tokens"),
            paper: 1.0.into(),
            here: exponent.into(),
            unit: "exponent",
            verdict: Verdict::at_most(exponent, 1.1, 1.3),
            setup: format!("slope of log time over log N, {} sizes up to N = {}, h = 2, d = 32, m = 49, {threads} threads; softmax: about 2",
                found.len(), found.last().map_or(0, |s| s.tokens)),
        });
    }
    for (at, name) in ["forward", "forward and backward"].into_iter().enumerate() {
        let least = ratios.iter().filter_map(|ratios| ratios[at]).reduce(f64::min);
        ctx.claim(Claim {
            statement: format!("{name}: 4 times as fast as {TORCH}"),
            paper: "no CPU code".into(),
            here: least.map_or_else(|| "-".into(), Figure::from),
            unit: "x",
            verdict: least.map_or_else(
                || Verdict::not_run("torch: --peers"),
                |least| Verdict::at_least(least, 4.0, 1.2),
            ),
            setup: format!("the smallest of {} ratios of medians, {threads} threads", ratios.len()),
        });
    }
    let largest = found.last().context("a size")?;
    let (limit, kernel) = (16 << 20, 2 * largest.tokens * 49 * 4);
    ctx.claim(Claim {
        statement: "memory beyond inputs and result stays below 16 MiB: the kernel of tokens and landmarks is not stored".into(),
        paper: "linear".into(),
        here: (largest.bytes as f64 / 1e6).into(),
        unit: "MB",
        verdict: Verdict::at_most(largest.bytes as f64, f64::from(limit), 2.0 * f64::from(limit)),
        setup: format!("peak of a forward pass at N = {}, less the result; the kernel would have {:.1} MB, all scores of softmax {:.0} MB",
            largest.tokens, kernel as f64 / 1e6, 8.0 * (largest.tokens as f64).powi(2) / 1e6),
    });
    ctx.plot(Plot {
        title: "Time of softmax-free attention, 49 landmarks".into(),
        x: Axis::log("tokens"),
        y: Axis::log("seconds"),
        series: vec![
            Series::line("forward", points(|s| s.forward)),
            Series::line("forward and backward", points(|s| s.both)),
        ],
    });
    Ok(())
}

fn one_size(ctx: &mut Ctx, threads: usize, heads: usize, side: usize) -> anyhow::Result<Size> {
    let (tokens, ratio) = (side * side, side / 7);
    let shape = [1, heads, tokens, CHANNELS];
    ctx.step(format!("{tokens} tokens, {heads} heads"));
    let [q, v, dx] = [normals(ctx, 1, shape)?, normals(ctx, 2, shape)?, normals(ctx, 3, shape)?];
    let mut w = normals(ctx, 4, [CHANNELS, CHANNELS, ratio, ratio])?;
    let scale = 1.0 / ((CHANNELS * ratio * ratio) as f32).sqrt();
    w.as_mut_slice().iter_mut().for_each(|w| *w *= scale);
    let (gamma, beta) = (vec![1.0f32; CHANNELS], vec![0.0; CHANNELS]);
    let landmark = Landmark::Conv { w: w.view(), gamma: &gamma, beta: &beta };
    let config = SoftConfig::new(Grid::Image { h: side, w: side }, ratio);
    let (want, cache) = soft_attention(q.view(), v.view(), &landmark, &config)?;
    let grads = soft_attention_backward(&cache, dx.view())?;
    let arrays: [(&str, AnyTensor); 4] = [
        ("q", q.clone().into_any()),
        ("v", v.clone().into_any()),
        ("dx", dx.clone().into_any()),
        ("w", w.clone().into_any()),
    ];
    let arrays: Vec<(&str, &AnyTensor)> = arrays.iter().map(|(name, x)| (*name, x)).collect();
    let params = |backward: bool| json!({ "side": side, "ratio": ratio, "backward": backward });
    // SDPA computes something else: only the same algorithm can be judged.
    let judge = |found: &crate::peers::Arrays, name: &str, want: &Tensor<f32, 4>| -> anyhow::Result<f64> {
        let Some(x) = found.get(name) else { return Ok(f64::NAN) };
        Ok(compare(x.view::<f32, 4>("x")?, want.view())?.rel_l1)
    };
    let flops = 8.0 * (heads * tokens * 49 * CHANNELS) as f64;
    let note = "sum |difference| over sum |ours|, for the same algorithm";
    // As in a loop: memory comes from the call before, on both sides.
    let workspace = SoftWorkspace::default();
    let looped = SoftConfig { workspace: Some(&workspace), ..config };
    let (mut out, mut room) = (Tensor::zeros(shape)?, SoftGrads::zeros(&cache)?);
    let forward = ctx.compare(Comparison {
        case: format!("forward, N = {tokens}, h = {heads}, m = 49"),
        threads,
        ours: &mut || {
            black_box(soft_attention_into(q.view(), v.view(), &landmark, &looped, out.view_mut())).ok();
        },
        our_error: Some(0.0),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &arrays,
            params: params(false),
            error: &|found| judge(found, "x", &want),
        }),
        work: Some(Work::Flops(flops)),
        note,
    })?;
    let of_forward = ctx.ratio_to(TORCH).filter(|_| ctx.peers());
    let both = ctx.compare(Comparison {
        case: format!("forward and backward, N = {tokens}, h = {heads}, m = 49"),
        threads,
        ours: &mut || {
            if let Ok(cache) = soft_attention_into(q.view(), v.view(), &landmark, &looped, out.view_mut()) {
                black_box(soft_attention_backward_into(&cache, dx.view(), &mut room)).ok();
            }
        },
        our_error: Some(0.0),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &arrays,
            params: params(true),
            error: &|found| judge(found, "dq", &grads.dq),
        }),
        work: Some(Work::Flops(3.0 * flops)),
        note,
    })?;
    let of_both = ctx.ratio_to(TORCH).filter(|_| ctx.peers());
    let (done, memory) =
        alloc::measure(|| soft_attention(q.view(), v.view(), &landmark, &config).map(|_| ()));
    done?;
    let bytes = memory.peak.saturating_sub(4 * want.len());
    Ok(Size { tokens, forward: forward.min, both: both.min, ratios: [of_forward, of_both], bytes })
}

/// (b) How far the approximation is from the whole kernel, on smooth tokens.
fn errors(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("errors on smooth tokens");
    let side = 56;
    let shape = [1, 1, side * side, CHANNELS];
    let [q, v] = [smooth(ctx, 5, side)?, smooth(ctx, 6, side)?];
    let [q, v] = [Tensor::from_slice(shape, &q)?, Tensor::from_slice(shape, &v)?];
    let exact = soft_exact(q.view(), v.view())?;
    let mut table = Table::new(
        "Relative error (Frobenius) against the whole kernel",
        &["landmarks", "paper's data", "here"],
    );
    let (mut held, mut all) = (0, Vec::new());
    for (ratio, told) in [(14, 0.393), (8, 0.074), (4, 0.0029)] {
        let config = SoftConfig::new(Grid::Image { h: side, w: side }, ratio);
        let (x, _) = soft_attention(q.view(), v.view(), &Landmark::AvgPool, &config)?;
        let error = kc_testing::relative_error(x.as_slice(), exact.as_slice());
        table.row([((side / ratio).pow(2) as f64).into(), told.into(), error.into()]);
        held += usize::from((0.5..2.0).contains(&(error / told)));
        all.push(format!("{error:.2e}"));
    }
    ctx.table(table);
    ctx.claim(Claim {
        statement: "few landmarks describe smooth tokens".into(),
        paper: "0.393, 0.074, 0.0029 (16, 49, 196 landmarks)".into(),
        here: all.join(", ").into(),
        unit: "",
        verdict: Verdict::of_cases(held, 3),
        setup: "Gaussian-filtered noise (sigma 6, unit variance), 56 x 56, d = 32, means, Newton; held: within a factor of 2, as the noise is another"
            .into(),
    });
    Ok(())
}

/// `[side side, CHANNELS]`: noise filtered by a Gaussian of 6 tokens, mirrored at the borders, of unit variance.
fn smooth(ctx: &Ctx, stream: u64, side: usize) -> anyhow::Result<Vec<f32>> {
    const SIGMA: f64 = 6.0;
    let reach = (4.0 * SIGMA) as isize;
    let tap = |i: isize| (-0.5 * (i as f64 / SIGMA).powi(2)).exp();
    let mirrored = |i: isize| {
        let i = if i < 0 { -1 - i } else { i } as usize;
        if i < side { i } else { 2 * side - 1 - i }
    };
    let mut rng = ctx.rng(stream);
    let mut out = vec![0.0f64; side * side * CHANNELS];
    for c in 0..CHANNELS {
        let mut plane: Vec<f64> = (0..side * side).map(|_| rng.normal()).collect();
        for _ in 0..2 {
            // Along the rows, then turned.
            let mut next = vec![0.0; side * side];
            for i in 0..side * side {
                let (y, x) = (i / side, i % side);
                next[x * side + y] =
                    (-reach..=reach).map(|t| tap(t) * plane[y * side + mirrored(x as isize + t)]).sum();
            }
            plane = next;
        }
        plane.iter().enumerate().for_each(|(i, x)| out[i * CHANNELS + c] = *x);
    }
    let n = out.len() as f64;
    let mean = out.iter().sum::<f64>() / n;
    let deviation = (out.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    Ok(out.iter().map(|x| (x / deviation) as f32).collect())
}

/// (c) The gradient of the inverse: one rule against twenty steps taken backwards.
fn inverse_gradient(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("gradient of the inverse");
    let (m, iters, ridge) = (49, 20, 0.01);
    let mut rng = ctx.rng(8);
    let points = Tensor::<f64, 2>::from_fn([m, 8], |_| rng.normal())?;
    let a = kc_attention::soft::gaussian_kernel(points.view(), points.view())?;
    let slope = Tensor::<f64, 2>::from_fn([m, m], |_| rng.normal())?;
    let (y, report) = newton_inverse(a.view(), &Inverse::Newton { iters, ridge })?;
    let rule = || -> anyhow::Result<Tensor<f64, 2>> {
        let t = y.view().transposed();
        let mut out = gemm(gemm(t, slope.view())?.view(), t)?;
        out.as_mut_slice().iter_mut().for_each(|x| *x = -*x);
        Ok(out)
    };
    let p = Tensor::from_fn([m, m], |[i, j]| a[[i, j]] + if i == j { ridge } else { 0.0 })?;
    let largest = (0..m).map(|i| (0..m).map(|j| a[[i, j]]).sum::<f64>()).fold(0.0, f64::max);
    let alpha = 1.8 / (largest * largest);
    let mut steps = vec![Tensor::from_fn([m, m], |at| alpha * p[at])?];
    for _ in 0..iters {
        let v = steps.last().context("a step")?;
        let vpv = gemm(gemm(v.view(), p.view())?.view(), v.view())?;
        steps.push(Tensor::from_fn([m, m], |at| 2.0 * v[at] - vpv[at])?);
    }
    // Backwards through V' = 2 V - V P V. What the first step's length depends on is left out: it fades.
    let unrolled = || -> anyhow::Result<Tensor<f64, 2>> {
        let mut g = slope.clone();
        let mut total = Tensor::<f64, 2>::zeros([m, m])?;
        for v in steps[..iters].iter().rev() {
            let (vt, pt) = (v.view().transposed(), p.view().transposed());
            let gv = gemm(g.view(), vt)?;
            let vg = gemm(vt, g.view())?;
            let by_p = gemm(vt, gv.view())?;
            let (left, right) = (gemm(gv.view(), pt)?, gemm(pt, vg.view())?);
            for i in 0..m * m {
                total.as_mut_slice()[i] -= by_p.as_slice()[i];
                g.as_mut_slice()[i] = 2.0 * g.as_slice()[i] - left.as_slice()[i] - right.as_slice()[i];
            }
        }
        total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += alpha * g);
        Ok(total)
    };
    let gap = kc_testing::relative_error(rule()?.as_slice(), unrolled()?.as_slice());
    ctx.claim(Claim {
        statement: "the analytic gradient of the inverse is that of the twenty steps".into(),
        paper: "equal when converged".into(),
        here: gap.into(),
        unit: "relative",
        verdict: Verdict::at_most(gap, 1e-6, 1e-3),
        setup: format!(
            "m = {m}, f64, points in 8 dimensions; residual of the inverse {:.1e}",
            report.residual
        ),
    });
    let one = ctx.time(1, || {
        black_box(rule()).ok();
    })?;
    let twenty = ctx.time(1, || {
        black_box(unrolled()).ok();
    })?;
    let ratio = twenty.min / one.min;
    ctx.claim(Claim {
        statement: "and costs one solve instead of twenty".into(),
        paper: 20.0.into(),
        here: ratio.into(),
        unit: "x",
        verdict: Verdict::at_least(ratio, 10.0, 3.0),
        setup: format!("m = {m}, one thread, products by kc-gemm on both sides, minima"),
    });
    Ok(())
}

/// (d) A classifier that is trained with it.
fn learning(ctx: &mut Ctx) -> anyhow::Result<()> {
    let steps = ctx.pick(120, 1200);
    let [soft, dense] = digits::accuracies(ctx, steps)?;
    ctx.claim(Claim {
        statement: "a block with softmax-free attention learns as well as with softmax".into(),
        paper: "79.3 to 83.3 % of ImageNet, ahead of softmax backbones of its size".into(),
        here: format!("{:.1} % of test digits, softmax {:.1} %", 100.0 * soft, 100.0 * dense).into(),
        unit: "",
        verdict: Verdict::at_least(soft - dense, -0.01, -0.03),
        setup: format!("one block, width 32, 2 heads, 64 single-pixel tokens, landmarks by convolution with r = 2; Adam, {steps} steps of 64 digits; \
                        at most 1 point less"),
    });
    ctx.claim(Claim {
        statement: "backbones of 13 to 87 million parameters classify ImageNet".into(),
        paper: "79.3 to 83.3 %".into(),
        here: "not run".into(),
        unit: "",
        verdict: Verdict::not_run("trained weights and ImageNet"),
        setup: "SoftVit loads the weights by their names".into(),
    });
    Ok(())
}
