//! SageAttention2: speed against torch's fused attention, errors of every setting, and memory.

use std::hint::black_box;

use kc_attention::sage::{
    CacheConfig, Granularity, PvMode, QkBits, Sage, SageConfig, SageKvCache, sage_attention,
};
use kc_attention::{AttentionConfig, Mask, attention, compare};
use kc_core::Tensor;
use kc_testing::{golden_json, golden_tensor};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Figure, Plot, PythonSide, Series, Table, Verdict, Work};

/// What the rival in f32 calls itself.
const TORCH_F32: &str = "torch scaled_dot_product_attention float32";

/// Heads of the timed cases.
const HEADS: usize = 8;

const GRANULARITIES: [(Granularity, &str); 5] = [
    (Granularity::PerTensor, "per_tensor"),
    (Granularity::PerBlock, "per_block"),
    (Granularity::PerWarp, "per_warp"),
    (Granularity::PerThread, "per_thread"),
    (Granularity::PerToken, "per_token"),
];

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    accuracy(ctx)?;
    memory(ctx)?;
    speed(ctx)?;
    decode(ctx)?;
    for statement in [
        "3 times the operations per second of FlashAttention2, 5 times those of xformers (RTX 4090)",
        "2++: 3.9 times FlashAttention2 (RTX 4090)",
        "as fast as FlashAttention3-FP8 and more accurate (Hopper)",
    ] {
        ctx.claim(Claim {
            statement: statement.into(),
            paper: "-".into(),
            here: "-".into(),
            unit: "",
            verdict: Verdict::not_run("a CUDA GPU"),
            setup: "a claim about GPU kernels".into(),
        });
    }
    Ok(())
}

/// Errors on the structured input of the fixtures.
fn accuracy(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("errors of every setting");
    let [q, k, v, exact] = ["q", "k", "v", "o_exact"]
        .map(|name| golden_tensor::<f32, 4>(&format!("sage_attention2/smoothing/{name}.npy")));
    let error = |config: &SageConfig| {
        let found = sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, config)?;
        compare(found.out.view(), exact.view())
    };
    let simulated = golden_json("sage_attention2/smoothing/case.json");
    let simulated = |bits: u8, gran: &str, on: [bool; 2]| {
        let rows = simulated["table"].as_array().into_iter().flatten();
        let mut rows = rows.filter(|row| {
            row["bits"] == bits
                && row["gran"] == gran
                && row["pv"] == "f32"
                && [&row["smooth_k"], &row["smooth_q"]] == [&json!(on[0]), &json!(on[1])]
        });
        rows.next().and_then(|row| row["rel_l1"].as_f64()).unwrap_or(f64::NAN)
    };
    let mut table = Table::new(
        "Relative L1 error of the output on channels with a bias; f32 values",
        &["granularity", "bits", "plain", "smooth K", "smooth Q and K", "simulated, smooth Q and K"],
    );
    let mut series = Vec::new();
    let mut ordered = (0, 0);
    for bits in [8u8, 4] {
        let mut points = Vec::new();
        for (granularity, name) in GRANULARITIES {
            let with = |on: [bool; 2]| SageConfig {
                bits: if bits == 8 { QkBits::Int8 } else { QkBits::Int4 },
                granularity,
                smooth_k: on[0],
                smooth_q: Some(on[1]),
                pv: PvMode::F32,
                ..SageConfig::default()
            };
            let of = |on| anyhow::Ok(error(&with(on))?.rel_l1);
            let [plain, keys, both] = [of([false, false])?, of([true, false])?, of([true, true])?];
            let figures: [Figure; 6] = [
                name.into(),
                f64::from(bits).into(),
                plain.into(),
                keys.into(),
                both.into(),
                simulated(bits, name, [true, true]).into(),
            ];
            table.row(figures);
            points.push(both);
        }
        ordered.0 += points.windows(2).filter(|e| e[0] > e[1]).count();
        ordered.1 += points.len() - 1;
        series.push(Series::bars(format!("{bits} bits"), points));
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Error against who shares a scale, queries and keys smoothed".into(),
        x: Axis::names("scale", GRANULARITIES.map(|(_, name)| name)),
        y: Axis::log("relative L1 error"),
        series,
    });
    ctx.claim(Claim {
        statement: "the finer the scales, the smaller the error: tensor, block, warp, thread, token".into(),
        paper: "in this order".into(),
        here: format!("{} of {} steps", ordered.0, ordered.1).into(),
        unit: "",
        verdict: Verdict::of_cases(ordered.0, ordered.1),
        setup: "4 and 8 bits, queries and keys smoothed, structured input".into(),
    });
    let four = |granularity, on: bool| SageConfig {
        bits: QkBits::Int4,
        granularity,
        smooth_k: on,
        smooth_q: Some(on),
        pv: PvMode::F32,
        ..SageConfig::default()
    };
    let best = error(&four(Granularity::PerThread, true))?.cos;
    let plain = error(&four(Granularity::PerThread, false))?.cos;
    let tensor = error(&four(Granularity::PerTensor, false))?.cos;
    ctx.claim(Claim {
        statement: "4 bits: cosine with scales per thread and both smoothed, without smoothing, per tensor"
            .into(),
        paper: "0.960, 0.829, 0.768 (simulated)".into(),
        here: format!("{best:.3}, {plain:.3}, {tensor:.3}").into(),
        unit: "",
        verdict: Verdict::at_least(
            f64::from(u8::from(best > plain && plain > tensor)) * (best / 0.96),
            0.99,
            0.95,
        ),
        setup: "structured input of the fixtures".into(),
    });
    let eight = error(&SageConfig::default())?;
    ctx.claim(Claim {
        statement: "8 bits, scales per thread, smoothed keys, half: negligible loss".into(),
        paper: "cosine 0.9997 (simulated)".into(),
        here: eight.cos.into(),
        unit: "",
        verdict: Verdict::at_least(eight.cos, 0.9997, 0.999),
        setup: "structured input of the fixtures".into(),
    });
    Ok(())
}

fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("bytes of packed keys and values");
    let (n, d) = (2048, 128);
    let [q, k, v] = inputs(ctx, 1, n, d)?;
    let mut table = Table::new(
        "Bytes for each channel of a key and its value (8 in f32)",
        &["bits of keys", "values", "bytes"],
    );
    for (bits, name) in [(QkBits::Int8, "8"), (QkBits::Int4, "4")] {
        for (pv, mode) in [(PvMode::default(), "f16"), (PvMode::Int8, "int8"), (PvMode::F32, "f32")] {
            let config = SageConfig { bits, pv, ..SageConfig::default() };
            let bytes = Sage::new(q.view(), k.view(), v.view(), &Mask::NONE, &config)?.bytes();
            table.row([name.into(), mode.into(), (bytes as f64 / (n * d) as f64).into()]);
        }
    }
    ctx.table(table);
    Ok(())
}

fn inputs(ctx: &Ctx, heads: usize, n: usize, d: usize) -> anyhow::Result<[Tensor<f32, 4>; 3]> {
    let one = |stream| {
        let mut x = vec![0.0f32; heads * n * d];
        ctx.rng(stream).fill_normal(&mut x);
        anyhow::Ok(Tensor::from_slice([1, heads, n, d], &x)?)
    };
    Ok([one(1)?, one(2)?, one(3)?])
}

/// Times against torch, quantising included.
fn speed(ctx: &mut Ctx) -> anyhow::Result<()> {
    let threads = 2;
    let settings = [
        ("8 bits, half", QkBits::Int8, PvMode::default()),
        ("8 bits, int8", QkBits::Int8, PvMode::Int8),
        ("4 bits, int8", QkBits::Int4, PvMode::Int8),
    ];
    let mut found: Vec<(usize, &str, usize, f64)> = Vec::new();
    for d in [64, 128] {
        for n in ctx.pick(vec![512], vec![1024, 2048]) {
            let [q, k, v] = inputs(ctx, HEADS, n, d)?;
            let any = [&q, &k, &v].map(|x| x.clone().into_any());
            for causal in [false, true] {
                ctx.step(format!("{n} keys, {d} channels, causal: {causal}"));
                let mask = Mask { causal, ..Mask::NONE };
                let exact = attention(q.view(), k.view(), v.view(), &mask, &AttentionConfig::default())?.out;
                let judge = |found: &crate::peers::Arrays| {
                    let o = found.get("o").ok_or_else(|| anyhow::anyhow!("no o"))?;
                    Ok(compare(o.view::<f32, 4>("o")?, exact.view())?.rel_l1)
                };
                for (name, bits, pv) in settings {
                    let config = SageConfig { bits, pv, ..SageConfig::default() };
                    let run = || sage_attention(q.view(), k.view(), v.view(), &mask, &config);
                    let our_error = compare(run()?.out.view(), exact.view())?.rel_l1;
                    let share = if causal { 0.5 } else { 1.0 };
                    ctx.compare(Comparison {
                        case: format!("{name}, N {n}, d {d}{}", if causal { ", causal" } else { "" }),
                        threads,
                        ours: &mut || {
                            black_box(run()).ok();
                        },
                        our_error: Some(our_error),
                        rivals: Vec::new(),
                        python: Some(PythonSide {
                            arrays: &[("q", &any[0]), ("k", &any[1]), ("v", &any[2])],
                            params: json!({ "causal": causal }),
                            error: &judge,
                        }),
                        work: Some(Work::ByteOps(4.0 * (HEADS * n * n * d) as f64 * share)),
                        note: "relative L1 error to exact; quantising and packing in the time",
                    })?;
                    if let Some(ratio) = ctx.ratio_to(TORCH_F32).filter(|_| ctx.peers()) {
                        found.push((d, name, n, ratio));
                    }
                }
            }
        }
    }
    for (d, target) in [(64, 2.5), (128, 3.0)] {
        for (name, ..) in settings {
            let long = found.iter().filter(|f| f.0 == d && f.1 == name && f.2 >= 2048).map(|f| f.3);
            let least = long.fold(f64::INFINITY, f64::min);
            let (here, verdict): (Figure, Verdict) = match least.is_finite() {
                true => (least.into(), Verdict::at_least(least, target, 1.0)),
                false => ("-".into(), Verdict::not_run("torch at full sizes: --peers, without --quick")),
            };
            ctx.claim(Claim {
                statement: format!("{name}: {target} times as fast as torch's f32 attention, d = {d}"),
                paper: "3 (FlashAttention2, RTX 4090)".into(),
                here,
                unit: "x",
                verdict,
                setup: "8 heads, 2048 keys, causal and not, 2 threads; the smaller ratio of medians".into(),
            });
        }
    }
    Ok(())
}

/// One query over a cache in few bits, beside torch on the same keys in f32.
fn decode(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (n, d, threads) = (ctx.pick(2048, 32768), 128, 2);
    ctx.step(format!("one query over a cache of {n} keys"));
    let [_, k, v] = inputs(ctx, HEADS, n, d)?;
    let [q, ..] = inputs(ctx, HEADS, 1, d)?;
    let exact = attention(q.view(), k.view(), v.view(), &Mask::NONE, &AttentionConfig::default())?.out;
    let any = [&q, &k, &v].map(|x| x.clone().into_any());
    let judge = |found: &crate::peers::Arrays| {
        let o = found.get("o").ok_or_else(|| anyhow::anyhow!("no o"))?;
        Ok(compare(o.view::<f32, 4>("o")?, exact.view())?.rel_l1)
    };
    let mut cache = SageKvCache::for_keys(k.view(), CacheConfig::default())?;
    cache.append(k.view(), v.view())?;
    let out = cache.attend(q.view(), true)?.out;
    ctx.compare(Comparison {
        case: format!("decode, 4 bits and {}, N {n}, d {d}", cache.values_name()),
        threads,
        ours: &mut || {
            black_box(cache.attend(q.view(), true)).ok();
        },
        our_error: Some(compare(out.view(), exact.view())?.rel_l1),
        rivals: Vec::new(),
        python: Some(PythonSide {
            arrays: &[("q", &any[0]), ("k", &any[1]), ("v", &any[2])],
            params: json!({ "causal": false }),
            error: &judge,
        }),
        work: Some(Work::Bytes(cache.bytes() as f64)),
        note: "relative L1 error to exact; normal keys hold the most random weights",
    })?;
    let ratio = ctx.ratio_to(TORCH_F32).filter(|_| ctx.peers());
    ctx.claim(Claim {
        statement: "one query over 4-bit keys and E4M3 values: 3 times as fast as torch in f32".into(),
        paper: "-".into(),
        here: ratio.map_or_else(|| "-".into(), Figure::from),
        unit: "x",
        verdict: ratio
            .map_or_else(|| Verdict::not_run("torch: --peers"), |ratio| Verdict::at_least(ratio, 3.0, 1.5)),
        setup: format!("{HEADS} heads, {n} keys, d = {d}, {threads} threads, medians"),
    });
    let bytes = cache.bytes() as f64 / (HEADS * n * d) as f64;
    ctx.claim(Claim {
        statement: "bytes read for each channel of a key and its value, 8 in f32".into(),
        paper: "1.5".into(),
        here: bytes.into(),
        unit: "bytes",
        verdict: Verdict::at_most(bytes, 1.65, 2.0),
        setup: "codes with their scales, 4-bit keys and E4M3 values, pages of 64".into(),
    });
    Ok(())
}
