//! Transforms: lengths x levels, in values.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Complex, Isa, KcRng};
use kc_fft::{bitrev::fftbr_with, fwht::fwht_with};

fn transforms(c: &mut Criterion) {
    for log in [10, 16, 20] {
        let n = 1usize << log;
        let mut rng = KcRng::new(0, 0);
        let mut x: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mut z: Vec<Complex<f64>> = x.iter().map(|x| Complex::new(*x, 0.5)).collect();
        let mut group = c.benchmark_group(format!("fft/2^{log}"));
        group.throughput(Throughput::Elements(n as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new("fwht", isa), |b| {
                b.iter(|| fwht_with(isa, black_box(&mut x), n));
            });
            group.bench_function(BenchmarkId::new("fftbr", isa), |b| {
                b.iter(|| fftbr_with(isa, black_box(&mut z), n));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, transforms);
criterion_main!(benches);
