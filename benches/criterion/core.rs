//! Vector mathematics: functions x sizes x levels, in bytes read and written.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::math::{self, Function, Real};
use kc_core::{Isa, KcRng};

const SIZES: [usize; 3] = [1 << 10, 1 << 14, 1 << 20];

fn normals<T: Real>(n: usize) -> Vec<T> {
    let mut rng = KcRng::new(0, 0);
    (0..n).map(|_| T::from_f64(rng.normal())).collect()
}

fn functions<T: Real>(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/functions");
    for n in SIZES {
        let (x, mut out) = (normals::<T>(n), vec![T::ZERO; n]);
        group.throughput(Throughput::Bytes((2 * size_of::<T>() * n) as u64));
        for function in Function::ALL {
            for isa in Isa::available() {
                let id = BenchmarkId::new(format!("{function:?}/{}/{n}", T::DTYPE), isa);
                group.bench_function(id, |b| b.iter(|| math::apply(isa, function, black_box(&x), &mut out)));
            }
        }
    }
    group.finish();
}

fn reductions(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/reductions");
    for n in SIZES {
        let x = normals::<f32>(n);
        for isa in Isa::available() {
            let id = |name: &str| BenchmarkId::new(format!("{name}/float32/{n}"), isa);
            group.throughput(Throughput::Bytes(4 * n as u64));
            group.bench_function(id("sum"), |b| b.iter(|| math::sum_with(isa, black_box(&x))));
            group.bench_function(id("min_max"), |b| b.iter(|| math::min_max_with(isa, black_box(&x))));
            group.bench_function(id("top_k 64"), |b| b.iter(|| math::top_k_with(isa, black_box(&x), 64)));
            group.throughput(Throughput::Bytes(8 * n as u64));
            group.bench_function(id("dot"), |b| b.iter(|| math::dot_with(isa, black_box(&x), black_box(&x))));
            let mut out = vec![0.0; n];
            group.bench_function(id("softmax"), |b| {
                b.iter(|| math::softmax_with(isa, black_box(&x), &mut out));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, functions::<f32>, functions::<f64>, reductions);
criterion_main!(benches);
