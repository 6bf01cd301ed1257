//! Weight files: packed bytes to codes and to f32.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Bytes, KcRng, Tensor, f16};
use kc_quant::formats::{GgufTensor, GgufType, GptqConfig, GptqTensor, GptqViews, ScaleView, gguf};

const SHAPE: [usize; 2] = [2048, 4096];

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("quant_formats");
    let mut values = vec![0.0; SHAPE[0] * SHAPE[1]];
    KcRng::new(0, 0).fill_normal(&mut values);
    let Ok(w) = Tensor::<f32, 2>::from_slice(SHAPE, &values) else { return };
    for kind in [GgufType::Q4_0, GgufType::Q8_0, GgufType::Q4_K, GgufType::Q6_K] {
        let Ok(data) = gguf::quantize::quantize(w.view(), kind) else { continue };
        group.throughput(Throughput::Bytes(data.len() as u64));
        let Ok(tensor) = GgufTensor::new("w", SHAPE, kind, Bytes::from_owner(data)) else { continue };
        group.bench_function(BenchmarkId::new("codes", kind.name()), |b| {
            b.iter(|| black_box(tensor.to_uniform()));
        });
        group.bench_function(BenchmarkId::new("f32", kind.name()), |b| {
            b.iter(|| black_box(tensor.dequantize()));
        });
    }
    group.finish();
}

fn words(c: &mut Criterion) {
    let mut group = c.benchmark_group("quant_formats");
    let ([n, k], mut rng) = (SHAPE, KcRng::new(0, 1));
    for bits in [2usize, 3, 4, 8] {
        let mut words = |shape: [usize; 2]| Tensor::from_fn(shape, |_| rng.next_u64() as i32);
        let (Ok(qweight), Ok(qzeros), Ok(scales)) = (
            words([k * bits / 32, n]),
            words([k / 128, n * bits / 32]),
            Tensor::from_fn([k / 128, n], |_| f16::from_f32(0.01)),
        ) else {
            continue;
        };
        group.throughput(Throughput::Bytes(4 * qweight.len() as u64));
        let views = GptqViews {
            qweight: qweight.view(),
            qzeros: qzeros.view(),
            scales: ScaleView::F16(scales.view()),
            g_idx: None,
        };
        let read = || GptqTensor::read(views, &GptqConfig::default());
        group.bench_function(BenchmarkId::new("codes", format!("GPTQ {bits}")), |b| {
            b.iter(|| black_box(read().and_then(|gptq| gptq.to_uniform())));
        });
        group.bench_function(BenchmarkId::new("f32", format!("GPTQ {bits}")), |b| {
            b.iter(|| black_box(read().and_then(|gptq| gptq.dequantize())));
        });
    }
    group.finish();
}

criterion_group!(benches, blocks, words);
criterion_main!(benches);
