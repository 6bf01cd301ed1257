//! Exact attention by length, levels and direction, in elements of the score matrix.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_attention::{AttentionConfig, Mask, attention, attention_backward};
use kc_core::{Isa, KcRng, Result, Tensor};

const HEADS: usize = 2;
const CHANNELS: usize = 64;

fn normal(stream: u64, n: usize) -> Result<Tensor<f32, 4>> {
    let mut x = vec![0.0; HEADS * n * CHANNELS];
    KcRng::new(7, stream).fill_normal(&mut x);
    Tensor::from_slice([1, HEADS, n, CHANNELS], &x)
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention/forward");
    for (queries, keys) in [(1, 16384), (256, 256), (2048, 2048)] {
        let (Ok(q), Ok(k), Ok(v)) = (normal(1, queries), normal(2, keys), normal(3, keys)) else { continue };
        group.throughput(Throughput::Elements((HEADS * queries * keys) as u64));
        for isa in Isa::available() {
            let config = AttentionConfig { isa, ..AttentionConfig::default() };
            group.bench_function(BenchmarkId::new(isa.to_string(), format!("{queries}x{keys}")), |b| {
                b.iter(|| black_box(attention(q.view(), k.view(), v.view(), &Mask::NONE, &config)));
            });
        }
    }
    group.finish();
}

fn backward(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention/backward");
    for n in [256, 1024] {
        let (Ok(q), Ok(k), Ok(v)) = (normal(1, n), normal(2, n), normal(3, n)) else { continue };
        let config = AttentionConfig { lse: true, ..AttentionConfig::default() };
        let Ok(found) = attention(q.view(), k.view(), v.view(), &Mask::NONE, &config) else { continue };
        let Some(lse) = &found.lse else { continue };
        group.throughput(Throughput::Elements((HEADS * n * n) as u64));
        group.bench_function(BenchmarkId::new("best", n), |b| {
            b.iter(|| {
                let (q, k, v, o) = (q.view(), k.view(), v.view(), found.out.view());
                black_box(attention_backward(q, k, v, o, lse.view(), o, &Mask::NONE, &config))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward, backward);
criterion_main!(benches);
