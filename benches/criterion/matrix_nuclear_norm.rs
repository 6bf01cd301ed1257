//! Matrix nuclear-norm: sizes x levels, in bytes read.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, KcRng, Tensor};
use kc_linalg::mnn::{MnnConfig, mnn_with};

fn score(c: &mut Criterion) {
    let mut group = c.benchmark_group("matrix_nuclear_norm");
    for (rows, cols) in [(64, 768), (512, 4096), (2048, 2048)] {
        let mut values = vec![0.0; rows * cols];
        KcRng::new(0, 0).fill_normal(&mut values);
        let Ok(x) = Tensor::<f32, 2>::from_slice([rows, cols], &values) else { continue };
        // Two passes.
        group.throughput(Throughput::Bytes(2 * 4 * (rows * cols) as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(format!("{rows}x{cols}"), isa), |b| {
                b.iter(|| black_box(mnn_with(isa, x.view(), &MnnConfig::default())));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, score);
criterion_main!(benches);
