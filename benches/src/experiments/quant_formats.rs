//! Weight files: are they read exactly, and how fast do they become codes and numbers.

use std::collections::BTreeMap;
use std::hint::black_box;

use anyhow::Context as _;
use kc_core::{AnyTensor, Bytes, KcRng, Tensor, f16};
use kc_io::safetensors::SafeTensorsFile;
use kc_quant::UniformGroups;
use kc_quant::formats::{
    AwqTensor, AwqViews, GgufFile, GgufTensor, GgufType, GptqConfig, GptqTensor, GptqViews, MatMulNBits,
    MatMulNBitsViews, PackQuantized, PackQuantizedViews, ScaleView, gguf,
};
use kc_testing::{golden, golden_json, golden_tensor};
use serde_json::json;

use super::{Axis, Claim, Comparison, Ctx, Plot, PythonSide, Series, Table, Verdict, Work};

pub(crate) fn run(ctx: &mut Ctx) -> anyhow::Result<()> {
    exactness(ctx)?;
    quantisers(ctx)?;
    loading(ctx)
}

/// The fixtures that a reader gives bit by bit, in both ways.
fn same(name: &str, numbers: &Tensor<f32, 2>, codes: &UniformGroups) -> anyhow::Result<bool> {
    let want: Tensor<f32, 2> = golden_tensor(&format!("quant_formats/{name}_deq.npy"));
    let equal = |x: &Tensor<f32, 2>| {
        x.shape() == want.shape()
            && x.as_slice().iter().zip(want.as_slice()).all(|(x, w)| x.to_bits() == w.to_bits())
    };
    Ok(equal(numbers) && equal(&codes.dequantize()?))
}

/// The arrays of a layer by the end of their names.
fn layer(name: &str) -> anyhow::Result<BTreeMap<String, AnyTensor>> {
    let file = SafeTensorsFile::open(golden(&format!("quant_formats/{name}.safetensors")))?;
    let end = |name: &String| name.trim_start_matches("layer.").to_owned();
    file.names().iter().map(|name| Ok((end(name), file.get(name)?))).collect()
}

fn exactness(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("fixtures of every format");
    let mut found: Vec<(&str, usize, usize)> = Vec::new();
    let mut count = |format: &'static str, ok: bool| match found.last_mut() {
        Some((last, good, all)) if *last == format => {
            *good += usize::from(ok);
            *all += 1;
        }
        _ => found.push((format, usize::from(ok), 1)),
    };
    for name in ["gptq_b2_g64", "gptq_b3_g64", "gptq_b4_g64", "gptq_b8_g64", "gptq_b4_g64_actorder"] {
        let x = layer(name)?;
        let at = |key: &str| x.get(key).with_context(|| key.to_owned());
        let views = GptqViews {
            qweight: at("qweight")?.view("qweight")?,
            qzeros: at("qzeros")?.view("qzeros")?,
            scales: ScaleView::of(at("scales")?, "scales")?,
            g_idx: Some(at("g_idx")?.view("g_idx")?),
        };
        let gptq = GptqTensor::read(views, &GptqConfig::default())?;
        count("GPTQ", same(name, &gptq.dequantize()?, &gptq.to_uniform()?)?);
    }
    let x = layer("awq_b4_g64")?;
    let at = |key: &str| x.get(key).with_context(|| key.to_owned());
    let awq = AwqTensor::read(AwqViews {
        qweight: at("qweight")?.view("qweight")?,
        qzeros: at("qzeros")?.view("qzeros")?,
        scales: ScaleView::of(at("scales")?, "scales")?,
    })?;
    count("AWQ", same("awq_b4_g64", &awq.dequantize()?, &awq.to_uniform()?)?);
    for name in ["ct_w4_g128", "ct_w6_g128"] {
        let x = layer(name)?;
        let at = |key: &str| x.get(key).with_context(|| key.to_owned());
        let views = PackQuantizedViews {
            weight_packed: at("weight_packed")?.view("weight_packed")?,
            weight_scale: ScaleView::of(at("weight_scale")?, "weight_scale")?,
            weight_zero_point: None,
            weight_shape: [6, 256],
            weight_g_idx: None,
        };
        let ct = PackQuantized::read(views, None, None)?;
        count("compressed-tensors", same(name, &ct.dequantize()?, &ct.to_uniform()?)?);
    }
    for bits in [2, 4, 8] {
        let name = format!("quant_formats/matmulnbits_{bits}");
        let (b, zp): (Tensor<u8, 3>, Tensor<u8, 2>) =
            (golden_tensor(&format!("{name}_b.npy")), golden_tensor(&format!("{name}_zp.npy")));
        let scales: Tensor<f32, 2> = golden_tensor(&format!("{name}_scales.npy"));
        let scales = ScaleView::F32(scales.view());
        let views = MatMulNBitsViews { b: b.view(), scales, zero_points: Some(zp.view()) };
        let node = MatMulNBits::read(views, 192, bits)?;
        let ok = same(&format!("matmulnbits_{bits}"), &node.dequantize()?, &node.to_uniform()?)?;
        count("MatMulNBits", ok);
    }
    for kind in GgufType::ALL.into_iter().filter(|kind| kind.codes().is_some()) {
        let name = format!("gguf_{}", kind.name().to_lowercase());
        let data: Tensor<u8, 2> = golden_tensor(&format!("quant_formats/{name}_bytes.npy"));
        let tensor = GgufTensor::new("w", [6, 512], kind, Bytes::from_owner(data.into_vec()))?;
        count("GGUF blocks", same(&name, &tensor.dequantize()?, &tensor.to_uniform()?)?);
    }
    let bytes = std::fs::read(golden("quant_formats/tiny.gguf"))?;
    let file = GgufFile::parse(Bytes::from_owner(bytes.clone()))?;
    count("GGUF file, written again", gguf::write(file.metadata(), file.tensors())? == bytes);

    let mut table = Table::new("Fixtures of the formats' own programs", &["format", "equal", "all"]);
    for (format, good, all) in &found {
        table.row([(*format).into(), (*good as f64).into(), (*all as f64).into()]);
    }
    ctx.table(table);
    let (good, all) = found.iter().fold((0, 0), |sum, (_, good, all)| (sum.0 + good, sum.1 + all));
    ctx.claim(Claim {
        statement: "weight files are read without quantising again: all numbers bit by bit".into(),
        paper: "exact".into(),
        here: format!("{good} of {all} fixtures").into(),
        unit: "",
        verdict: Verdict::of_cases(good, all),
        setup: "GPTQ 2 to 8 bits and activation order, AWQ, compressed-tensors, MatMulNBits, ten GGUF types"
            .into(),
    });
    Ok(())
}

/// Blocks that we make against those that ggml made of the same matrix.
fn quantisers(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.step("blocks made here against those of ggml");
    let w: Tensor<f32, 2> = golden_tensor("quant_formats/gguf_w.npy");
    let theirs = golden_json("quant_formats/gguf.json");
    let columns = ["type", "relative error", "ggml's", "bytes equal", "million weights/s, one thread"];
    let mut table = Table::new("Quantising to GGUF blocks", &columns);
    let (mut good, mut cases) = (0, 0);
    for kind in [GgufType::Q4_0, GgufType::Q8_0, GgufType::Q4_K, GgufType::Q6_K] {
        let made = GgufTensor::quantize("w", w.view(), kind)?;
        let ours = kc_testing::relative_error(made.dequantize()?.as_slice(), w.as_slice());
        let bytes: Tensor<u8, 2> =
            golden_tensor(&format!("quant_formats/gguf_{}_bytes.npy", kind.name().to_lowercase()));
        let equal = made.data()[..] == *bytes.as_slice();
        let reference = theirs[kind.name()]["rel_err"].as_f64().context("an error")?;
        let defined = matches!(kind, GgufType::Q4_0 | GgufType::Q8_0);
        good += usize::from(if defined { equal } else { ours <= 1.02 * reference });
        cases += 1;
        let time = ctx.time(1, || {
            black_box(gguf::quantize::quantize(w.view(), kind)).ok();
        })?;
        table.row([
            kind.name().into(),
            ours.into(),
            reference.into(),
            if equal { "yes" } else { "no" }.into(),
            (w.len() as f64 / time.min / 1e6).into(),
        ]);
    }
    ctx.table(table);
    ctx.claim(Claim {
        statement: "Q4_0 and Q8_0 blocks are ggml's bytes, Q4_K and Q6_K at most 2 % less accurate".into(),
        paper: "ggml".into(),
        here: format!("{good} of {cases} types").into(),
        unit: "",
        verdict: Verdict::of_cases(good, cases),
        setup: "a 6 x 512 matrix quantised by ggml itself".into(),
    });
    Ok(())
}

/// A matrix in one format.
struct Packed {
    name: &'static str,
    bytes: usize,
    codes: Box<dyn Fn() -> kc_core::Result<UniformGroups> + Send + Sync>,
    numbers: Box<dyn Fn() -> kc_core::Result<Tensor<f32, 2>> + Send + Sync>,
    /// The type and blocks, for peers that read GGUF.
    gguf: Option<GgufTensor>,
}

/// Random bits in every format; scales are 2^-7.
fn packed(n: usize, k: usize, rng: &mut KcRng) -> anyhow::Result<Vec<Packed>> {
    let mut words = |shape: [usize; 2]| Tensor::from_fn(shape, |_| rng.next_u64() as i32);
    let groups = k / 128;
    let scale = |shape: [usize; 2]| Tensor::from_fn(shape, |_| f16::from_f32(0.0078125));
    let mut all = Vec::new();
    for (bits, name) in [(2, "GPTQ 2"), (3, "GPTQ 3"), (4, "GPTQ 4"), (8, "GPTQ 8"), (4, "GPTQ 4, order")] {
        let qweight = words([k * bits / 32, n])?;
        let arrays = std::sync::Arc::new((
            words([groups, n * bits / 32])?,
            scale([groups, n])?,
            Tensor::from_fn([k], |[i]| (i % groups) as i32)?,
            qweight,
        ));
        let bytes = 4 * (arrays.3.len() + arrays.0.len()) + 2 * arrays.1.len();
        let order = name.ends_with("order");
        let mut config = GptqConfig::default();
        config.bits = Some(bits as u8);
        let read = move |x: &(Tensor<i32, 2>, Tensor<f16, 2>, Tensor<i32, 1>, Tensor<i32, 2>),
                         codes: bool| {
            let views = GptqViews {
                qweight: x.3.view(),
                qzeros: x.0.view(),
                scales: ScaleView::F16(x.1.view()),
                g_idx: order.then(|| x.2.view()),
            };
            let gptq = GptqTensor::read(views, &config)?;
            if codes { Ok((Some(gptq.to_uniform()?), None)) } else { Ok((None, Some(gptq.dequantize()?))) }
        };
        all.push(both(name, bytes, arrays, read));
    }
    let arrays = std::sync::Arc::new((words([k, n / 8])?, words([groups, n / 8])?, scale([groups, n])?));
    let bytes = 4 * (arrays.0.len() + arrays.1.len()) + 2 * arrays.2.len();
    all.push(both("AWQ 4", bytes, arrays, |x: &(Tensor<i32, 2>, Tensor<i32, 2>, Tensor<f16, 2>), codes| {
        let views = AwqViews { qweight: x.0.view(), qzeros: x.1.view(), scales: ScaleView::F16(x.2.view()) };
        let awq = AwqTensor::read(views)?;
        if codes { Ok((Some(awq.to_uniform()?), None)) } else { Ok((None, Some(awq.dequantize()?))) }
    }));
    for (bits, name) in [(4, "pack-quantized 4"), (6, "pack-quantized 6")] {
        let arrays = std::sync::Arc::new((words([n, k * bits / 32])?, scale([n, groups])?));
        let bytes = 4 * arrays.0.len() + 2 * arrays.1.len();
        all.push(both(name, bytes, arrays, move |x: &(Tensor<i32, 2>, Tensor<f16, 2>), codes| {
            let views = PackQuantizedViews {
                weight_packed: x.0.view(),
                weight_scale: ScaleView::F16(x.1.view()),
                weight_zero_point: None,
                weight_shape: [n, k],
                weight_g_idx: None,
            };
            let ct = PackQuantized::read(views, Some(bits as u8), None)?;
            if codes { Ok((Some(ct.to_uniform()?), None)) } else { Ok((None, Some(ct.dequantize()?))) }
        }));
    }
    let b = Tensor::from_fn([n, k / 32, 16], |_| rng.next_u64() as u8)?;
    let arrays = std::sync::Arc::new((b, scale([n, k / 32])?));
    let bytes = arrays.0.len() + 2 * arrays.1.len();
    all.push(both("MatMulNBits 4", bytes, arrays, move |x: &(Tensor<u8, 3>, Tensor<f16, 2>), codes| {
        let scales = ScaleView::F16(x.1.view());
        let node = MatMulNBits::read(MatMulNBitsViews { b: x.0.view(), scales, zero_points: None }, k, 4)?;
        if codes { Ok((Some(node.to_uniform()?), None)) } else { Ok((None, Some(node.dequantize()?))) }
    }));
    for kind in GgufType::ALL.into_iter().filter(|kind| kind.codes().is_some()) {
        let bytes = kind.row_bytes(k)? * n;
        let mut blocks: Vec<u8> = (0..bytes).map(|_| rng.next_u64() as u8).collect();
        let (_, size) = kind.block().context("a type with blocks")?;
        for block in blocks.chunks_exact_mut(size) {
            // Where any type has a scale in half precision, its exponent is that of small numbers.
            for at in [1, 3, size - 1, size - 3] {
                block[at] = 0x20;
            }
        }
        let tensor = GgufTensor::new("w", [n, k], kind, Bytes::from_owner(blocks))?;
        let arrays = std::sync::Arc::new(tensor.clone());
        let made = both(kind.name(), bytes, arrays, |x: &GgufTensor, codes| {
            if codes { Ok((Some(x.to_uniform()?), None)) } else { Ok((None, Some(x.dequantize()?))) }
        });
        all.push(Packed { gguf: Some(tensor), ..made });
    }
    Ok(all)
}

/// Codes or numbers.
type Answer = (Option<UniformGroups>, Option<Tensor<f32, 2>>);

/// Both ways of reading the same arrays.
fn both<T: Send + Sync + 'static>(
    name: &'static str,
    bytes: usize,
    arrays: std::sync::Arc<T>,
    read: impl Fn(&T, bool) -> kc_core::Result<Answer> + Copy + Send + Sync + 'static,
) -> Packed {
    let shared = std::sync::Arc::clone(&arrays);
    let none = move || kc_core::Error::empty(name);
    Packed {
        name,
        bytes,
        codes: Box::new(move || read(&shared, true)?.0.ok_or_else(none)),
        numbers: Box::new(move || read(&arrays, false)?.1.ok_or_else(none)),
        gguf: None,
    }
}

/// Bytes per second of each format, on two threads; GGUF beside its own package.
fn loading(ctx: &mut Ctx) -> anyhow::Result<()> {
    let [n, k] = ctx.pick([1024, 4096], [4096, 4096]);
    let mut rng = ctx.rng(1);
    let all = packed(n, k, &mut rng)?;
    let columns = ["format", "MiB", "to codes, GB/s", "to f32, GB/s", "s for 1 GiB to codes"];
    let mut table = Table::new(format!("Loading a {n} x {k} matrix on two threads, packed bytes"), &columns);
    let (mut fast, mut slowest) = (0, (0.0f64, ""));
    let mut bars = Vec::new();
    for format in &all {
        ctx.step(format!("loading {}", format.name));
        let codes = ctx.time(2, || {
            black_box((format.codes)()).ok();
        })?;
        let numbers = ctx.time(2, || {
            black_box((format.numbers)()).ok();
        })?;
        let [to_codes, to_numbers] = [codes, numbers].map(|t| format.bytes as f64 / t.min / 1e9);
        let seconds = (1u64 << 30) as f64 / 1e9 / to_codes;
        fast += usize::from(seconds <= 4.0);
        if seconds > slowest.0 {
            slowest = (seconds, format.name);
        }
        bars.push((to_codes, to_numbers));
        table.row([
            format.name.into(),
            (format.bytes as f64 / f64::from(1 << 20)).into(),
            to_codes.into(),
            to_numbers.into(),
            seconds.into(),
        ]);
    }
    ctx.table(table);
    ctx.plot(Plot {
        title: "Loading on two threads".into(),
        x: Axis::names("format", all.iter().map(|format| format.name)),
        y: Axis::linear("packed GB/s"),
        series: vec![
            Series::bars("to codes", bars.iter().map(|b| b.0)),
            Series::bars("to f32", bars.iter().map(|b| b.1)),
        ],
    });
    ctx.claim(Claim {
        statement: "1 GiB of any format becomes codes in at most 4 s on two cores".into(),
        paper: "not in a paper".into(),
        here: format!("{fast} of {} formats; {} takes {:.1} s", all.len(), slowest.1, slowest.0).into(),
        unit: "",
        verdict: Verdict::of_cases(fast, all.len()),
        setup: format!("{n} x {k} of random bits, minima"),
    });
    for format in &all {
        let Some(tensor) = &format.gguf else { continue };
        ctx.step(format!("dequantising {} beside the gguf package", format.name));
        let want = tensor.dequantize()?;
        let blocks = Tensor::from_slice([n, tensor.data().len() / n], tensor.data())?.into_any();
        let judge = |found: &crate::peers::Arrays| {
            let y: Tensor<f32, 2> = found.get("w").context("no w")?.to_tensor("w")?;
            Ok(kc_testing::relative_error(y.as_slice(), want.as_slice()))
        };
        ctx.compare(Comparison {
            case: format!("{} to f32, {n} x {k}", format.name),
            threads: 1,
            ours: &mut || {
                black_box(tensor.dequantize()).ok();
            },
            our_error: Some(0.0),
            rivals: Vec::new(),
            python: Some(PythonSide {
                arrays: &[("blocks", &blocks)],
                params: json!({ "type": format.name }),
                error: &judge,
            }),
            work: Some(Work::Bytes((format.bytes + 4 * n * k) as f64)),
            note: "difference to ours",
        })?;
    }
    Ok(())
}
