//! kc-attention, the exact part: forward, backward and decoding against torch and against the machine.

use std::hint::black_box;

use kc_attention::sage::{CacheConfig, CacheValues, QkBits, SageKvCache};
use kc_attention::{AttentionConfig, Mask, attention, attention_backward, attention_into};
use kc_core::{Float, Tensor, bf16};
use kc_testing::relative_error;
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Figure, Plot, PythonSide, Series, Table, Verdict, Work};

/// Heads of every case.
const HEADS: usize = 8;

/// Queries, the last of each head, whose exact results judge the errors.
const JUDGED: usize = 64;

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut ratios = Ratios::default();
    let forward = prefill::<f32>(ctx, "f32", &mut ratios)?;
    prefill::<bf16>(ctx, "bf16", &mut ratios)?;
    backward(ctx, &mut ratios)?;
    decode::<f32>(ctx, "f32", &mut ratios)?;
    decode::<bf16>(ctx, "bf16", &mut ratios)?;
    cache(ctx)?;
    ratios.claim(ctx);
    let peak = ctx.machine().ceilings.f32_flops;
    let best = forward.iter().map(|p| p.1).fold(0.0, f64::max);
    ctx.claim(Claim {
        statement: "the forward pass runs at 0.75 of the multiply-add limit or more".into(),
        paper: "-".into(),
        here: (best * 1e9 / peak).into(),
        unit: "",
        verdict: Verdict::at_least(best * 1e9 / peak, 0.75, 0.5),
        setup: "f32, no mask, one thread, the best of all lengths; packing, exponentials and checks included"
            .into(),
    });
    ctx.plot(Plot {
        title: "Exact attention, f32, one thread".into(),
        x: Axis::log("queries = keys"),
        y: Axis::linear("GFLOP/s"),
        series: vec![
            Series::line("forward, d = 128", forward.clone()),
            Series::line("multiply-add limit", forward.iter().map(|p| (p.0, peak / 1e9)).collect()),
        ],
    });
    memory(ctx)
}

/// Torch's time over ours, by kind.
#[derive(Default)]
struct Ratios(Vec<(&'static str, f64)>);

impl Ratios {
    fn add(&mut self, kind: &'static str, ctx: &Ctx) {
        if let Some(ratio) = ctx.last_ratio().filter(|_| ctx.peers()) {
            self.0.push((kind, ratio));
        }
    }

    fn claim(&self, ctx: &mut Ctx) {
        for (kind, what) in [
            ("forward f32", "forward, f32"),
            ("forward bf16", "forward, bf16"),
            ("backward f32", "backward, f32"),
            ("decode f32", "one query against many keys, f32"),
            ("decode bf16", "one query against many keys, bf16"),
        ] {
            let of: Vec<f64> = self.0.iter().filter(|r| r.0 == kind).map(|r| r.1).collect();
            let least = of.iter().copied().fold(f64::INFINITY, f64::min);
            let (here, verdict): (Figure, Verdict) = if of.is_empty() {
                ("-".into(), Verdict::not_run("torch: --peers"))
            } else {
                (least.into(), Verdict::at_least(least, 1.0, 0.8))
            };
            ctx.claim(Claim {
                statement: format!("{what}: as fast as torch's fused attention in every case"),
                paper: "-".into(),
                here,
                unit: "x",
                verdict,
                setup: format!("{} cases, 8 heads, equal threads; the smallest ratio of medians", of.len()),
            });
        }
    }
}

fn normal<const N: usize>(ctx: &Ctx, stream: u64, shape: [usize; N]) -> anyhow::Result<Tensor<f32, N>> {
    let mut x = vec![0.0; shape.iter().product()];
    ctx.rng(stream).fill_normal(&mut x);
    Ok(Tensor::from_slice(shape, &x)?)
}

/// Queries, keys and values that `E` holds exactly, and the same in f32.
fn inputs<E: Float>(
    ctx: &Ctx,
    queries: usize,
    keys: usize,
    d: usize,
) -> anyhow::Result<[(Tensor<E, 4>, Tensor<f32, 4>); 3]> {
    let one = |stream, n| {
        let x = normal(ctx, stream, [1, HEADS, n, d])?;
        let narrow = Tensor::from_fn(x.shape(), |i| E::from_f32(x[i]))?;
        let wide = Tensor::from_fn(x.shape(), |i| narrow[i].to_f32())?;
        anyhow::Ok((narrow, wide))
    };
    Ok([one(1, queries)?, one(2, keys)?, one(3, keys)?])
}

/// The last rows of each head.
fn last<E: Float>(x: &Tensor<E, 4>) -> anyhow::Result<Tensor<f64, 4>> {
    let n = x.shape()[2];
    let part = x.view().slice(2, n.saturating_sub(JUDGED)..n)?.to_tensor()?;
    Ok(Tensor::from_fn(part.shape(), |i| part[i].to_f64())?)
}

/// One race of the forward pass. Gives our GFLOP/s.
fn race<E: Float>(
    ctx: &mut Ctx,
    kind: &'static str,
    [queries, keys, d]: [usize; 3],
    causal: bool,
    threads: usize,
    ratios: &mut Ratios,
) -> anyhow::Result<f64> {
    let dtype = E::DTYPE.name();
    let [(q, wide_q), (k, wide_k), (v, wide_v)] = inputs::<E>(ctx, queries, keys, d)?;
    let (mask, config) = (Mask { causal, ..Mask::NONE }, AttentionConfig::default());
    let [few, all_k, all_v] = [
        last(&wide_q)?,
        Tensor::from_fn(k.shape(), |i| k[i].to_f64())?,
        Tensor::from_fn(v.shape(), |i| v[i].to_f64())?,
    ];
    let exact = attention(few.view(), all_k.view(), all_v.view(), &mask, &config)?.out;
    let error = |out: &Tensor<f64, 4>| relative_error(out.as_slice(), exact.as_slice());
    let mut out = Tensor::<E, 4>::zeros(q.shape())?;
    attention_into(q.view(), k.view(), v.view(), &mask, &config, out.view_mut(), None)?;
    let our_error = error(&last(&out)?);
    let judge = |found: &crate::peers::Arrays| {
        let o = found.get("o").ok_or_else(|| anyhow::anyhow!("no o"))?;
        Ok(error(&last(&o.to_tensor::<f32, 4>("o")?)?))
    };
    let (any_q, any_k, any_v) = (wide_q.into_any(), wide_k.into_any(), wide_v.into_any());
    let seen = if causal { 0.5 } else { 1.0 };
    let flops = 4.0 * (HEADS * queries * keys * d) as f64 * seen;
    let bytes = (2 * HEADS * keys * d * size_of::<E>()) as f64;
    let masked = if causal { ", causal" } else { "" };
    let ours = ctx.compare(Comparison {
        case: format!("{kind}, {queries} x {keys}, d = {d}{masked}"),
        threads,
        ours: &mut || {
            let done = attention_into(q.view(), k.view(), v.view(), &mask, &config, out.view_mut(), None);
            black_box(done).ok();
        },
        our_error: Some(our_error),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &[("q", &any_q), ("k", &any_k), ("v", &any_v)],
            params: json!({ "what": "forward", "causal": causal, "dtype": dtype }),
            error: &judge,
        }),
        work: Some(if queries == 1 { Work::Bytes(bytes) } else { Work::Flops(flops) }),
        note: "relative to sums in f64, the last 64 queries of each head",
    })?;
    ratios.add(kind, ctx);
    Ok(flops / ours.min / 1e9)
}

/// Queries = keys. Gives (length, GFLOP/s) of one thread without a mask at the wider heads.
fn prefill<E: Float>(
    ctx: &mut Ctx,
    dtype: &'static str,
    ratios: &mut Ratios,
) -> anyhow::Result<Vec<(f64, f64)>> {
    let lengths: &[usize] = if dtype == "f32" {
        ctx.pick(&[512][..], &[256, 1024, 2048, 4096])
    } else {
        ctx.pick(&[512][..], &[2048])
    };
    let kind = if dtype == "f32" { "forward f32" } else { "forward bf16" };
    let mut points = Vec::new();
    for &n in lengths {
        for d in [64, 128] {
            for causal in [false, true] {
                // The longer take seconds each.
                let threads: &[usize] = match n {
                    4096.. => &[2],
                    2048.. => &[1],
                    _ => &[1, 2],
                };
                for &threads in threads {
                    ctx.step(format!("{kind}, {n} tokens, {d} channels"));
                    let rate = race::<E>(ctx, kind, [n, n, d], causal, threads, ratios)?;
                    if d == 128 && !causal && threads == 1 {
                        points.push((n as f64, rate));
                    }
                }
            }
        }
    }
    Ok(points)
}

/// One query.
fn decode<E: Float>(ctx: &mut Ctx, dtype: &'static str, ratios: &mut Ratios) -> anyhow::Result<()> {
    let kind = if dtype == "f32" { "decode f32" } else { "decode bf16" };
    for &n in ctx.pick(&[2048][..], &[8192, 32768]) {
        for threads in [1, 2] {
            ctx.step(format!("{kind}, {n} keys"));
            race::<E>(ctx, kind, [1, n, 128], false, threads, ratios)?;
        }
    }
    Ok(())
}

/// One query over keys in few bits, beside torch on the same keys in f32.
fn cache(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, d) = (ctx.pick(2048, 32768), 128);
    let [(q, _), (k, _), (v, _)] = inputs::<f32>(ctx, 1, n, d)?;
    let exact = attention(q.view(), k.view(), v.view(), &Mask::NONE, &AttentionConfig::default())?.out;
    let [any_q, any_k, any_v] = [&q, &k, &v].map(|x| x.clone().into_any());
    let judge = |found: &crate::peers::Arrays| {
        let o = found.get("o").ok_or_else(|| anyhow::anyhow!("no o"))?.to_tensor::<f32, 4>("o")?;
        Ok(relative_error(o.as_slice(), exact.as_slice()))
    };
    for (bits, values) in [(QkBits::Int4, CacheValues::Fp8), (QkBits::Int8, CacheValues::F16)] {
        for threads in [1, 2] {
            ctx.step(format!("one query over a cache of {n} keys"));
            let config = CacheConfig { bits, values, ..CacheConfig::default() };
            let mut cache = SageKvCache::for_keys(k.view(), config)?;
            cache.append(k.view(), v.view())?;
            let out = cache.attend(q.view(), true)?.out;
            ctx.compare(Comparison {
                case: format!("cache {bits:?} + {}, 1 x {n}, d = {d}", cache.values_name()),
                threads,
                ours: &mut || {
                    black_box(cache.attend(q.view(), true)).ok();
                },
                our_error: Some(relative_error(out.as_slice(), exact.as_slice())),
                rivals: Vec::new(),
                python: Some(PythonSide {
                    arrays: &[("q", &any_q), ("k", &any_k), ("v", &any_v)],
                    params: json!({ "what": "forward", "causal": false, "dtype": "float32" }),
                    error: &judge,
                }),
                work: Some(Work::Bytes(cache.bytes() as f64)),
                note: "relative to exact attention; torch reads f32. Normal keys hold the most random weights",
            })?;
            let ratio = ctx.last_ratio().filter(|_| ctx.peers());
            if bits == QkBits::Int4 {
                ctx.claim(Claim {
                    statement: format!(
                        "4-bit keys and E4M3 values decode 3 times as fast as torch in f32, {threads} threads"
                    ),
                    paper: "not in the paper".into(),
                    here: ratio.map_or_else(|| "-".into(), Figure::from),
                    unit: "x",
                    verdict: ratio.map_or_else(
                        || Verdict::not_run("torch: --peers"),
                        |ratio| Verdict::at_least(ratio, 3.0, 1.5),
                    ),
                    setup: format!("1 query, {HEADS} heads, {n} keys, {d} channels, medians"),
                });
            }
        }
    }
    Ok(())
}

/// Gradients.
fn backward(ctx: &mut Ctx, ratios: &mut Ratios) -> anyhow::Result<()> {
    for &n in ctx.pick(&[512][..], &[1024, 2048]) {
        for (d, causal, threads) in
            [(64, false, 1), (64, true, 1), (128, false, 1), (128, true, 1), (64, false, 2), (128, true, 2)]
        {
            ctx.step(format!("gradients, {n} tokens, {d} channels"));
            let [(q, _), (k, _), (v, _)] = inputs::<f32>(ctx, n, n, d)?;
            let d_o = normal(ctx, 4, q.shape())?;
            let mask = Mask { causal, ..Mask::NONE };
            let config = AttentionConfig { lse: true, ..AttentionConfig::default() };
            let found = attention(q.view(), k.view(), v.view(), &mask, &config)?;
            let lse = found.lse.as_ref().ok_or_else(|| anyhow::anyhow!("no lse"))?;
            let run = || {
                let (o, lse, d_o) = (found.out.view(), lse.view(), d_o.view());
                attention_backward(q.view(), k.view(), v.view(), o, lse, d_o, &mask, &config)
            };
            let grads = run()?;
            let judge = |found: &crate::peers::Arrays| {
                let mut worst = 0.0f64;
                for (name, ours) in [("dq", &grads.dq), ("dk", &grads.dk), ("dv", &grads.dv)] {
                    let theirs = found.get(name).ok_or_else(|| anyhow::anyhow!("no {name}"))?;
                    let theirs = theirs.to_tensor::<f32, 4>(name)?;
                    worst = worst.max(relative_error(ours.as_slice(), theirs.as_slice()));
                }
                Ok(worst)
            };
            let any = [q.clone(), k.clone(), v.clone(), d_o.clone()].map(Tensor::into_any);
            let seen = if causal { 0.5 } else { 1.0 };
            let masked = if causal { ", causal" } else { "" };
            ctx.compare(Comparison {
                case: format!("backward f32, {n} x {n}, d = {d}{masked}"),
                threads,
                ours: &mut || {
                    black_box(run()).ok();
                },
                our_error: None,
                rivals: Vec::new(),
                python: Some(PythonSide {
                    arrays: &[("q", &any[0]), ("k", &any[1]), ("v", &any[2]), ("d_o", &any[3])],
                    params: json!({ "what": "backward", "causal": causal, "dtype": "float32" }),
                    error: &judge,
                }),
                work: Some(Work::Flops(10.0 * (HEADS * n * n * d) as f64 * seen)),
                note: "theirs: the largest relative difference to ours",
            })?;
            ratios.add("backward f32", ctx);
        }
    }
    Ok(())
}

/// What a matrix of scores would take.
fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut table = Table::new(
        "Memory beyond inputs and result, one head, d = 128, f32",
        &["tokens", "packed keys and values, MiB", "scores that are never stored, MiB", "ratio"],
    );
    for n in [1024usize, 8192, 65536] {
        let (packed, scores) = ((2 * n * 128 * 4) as f64, (n * n * 4) as f64);
        let mib = f64::from(1u32 << 20);
        table.row([
            (n as f64).into(),
            (packed / mib).into(),
            (scores / mib).into(),
            (scores / packed).into(),
        ]);
    }
    ctx.table(table);
    Ok(())
}
