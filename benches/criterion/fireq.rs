//! FireQ: FP8 conversion in bytes, products of packed codes at every level.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, KcRng, Tensor};
use kc_quant::WeightOnly;
use kc_quant::fireq::{FireqWeights, WeightSpec};
use kc_quant::fp8;

fn conversion(c: &mut Criterion) {
    let mut group = c.benchmark_group("fp8");
    let mut x = vec![0.0; 1 << 20];
    KcRng::new(0, 0).fill_normal(&mut x);
    let (mut codes, mut back) = (vec![0; x.len()], vec![0.0; x.len()]);
    group.throughput(Throughput::Bytes(5 * x.len() as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("encode", isa), |b| {
            b.iter(|| black_box(fp8::encode_slice_with(isa, &x, &mut codes)));
        });
        group.bench_function(BenchmarkId::new("decode", isa), |b| {
            b.iter(|| black_box(fp8::decode_slice_with(isa, &codes, &mut back)));
        });
    }
    group.finish();
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("weight_only");
    let k = 2048;
    let mut values = vec![0.0; k * k];
    KcRng::new(0, 1).fill_normal(&mut values);
    let Ok(w) = Tensor::<f32, 2>::from_slice([k, k], &values) else { return };
    let packed = FireqWeights::quantize(w.view(), &WeightSpec::default())
        .and_then(|w| w.to_uniform())
        .and_then(|w| WeightOnly::new(&w, None));
    let Ok(packed) = packed else { return };
    for m in [1, 4, 16, 256] {
        let (Ok(x), Ok(mut y)) =
            (Tensor::<f32, 2>::from_slice([m, k], &values[..m * k]), Tensor::<f32, 2>::zeros([m, k]))
        else {
            continue;
        };
        group.throughput(Throughput::Elements((m * k * k) as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(format!("{m}x{k}x{k}"), isa), |b| {
                b.iter(|| black_box(packed.forward_with(isa, x.view(), y.view_mut())));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, conversion, products);
criterion_main!(benches);
