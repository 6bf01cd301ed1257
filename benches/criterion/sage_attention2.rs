//! Attention in 4 and 8 bits at every level, in operations.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_attention::Mask;
use kc_attention::sage::{PvMode, QkBits, SageConfig, sage_attention};
use kc_core::{Isa, KcRng, Tensor};

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("sage_attention2");
    group.sample_size(10);
    for (n, d) in [(1024, 64), (1024, 128), (4096, 64)] {
        let input = |seed| {
            let mut values = vec![0.0; 2 * n * d];
            KcRng::new(seed, 0).fill_normal(&mut values);
            Tensor::<f32, 4>::from_slice([1, 2, n, d], &values)
        };
        let (Ok(q), Ok(k), Ok(v)) = (input(1), input(2), input(3)) else { continue };
        group.throughput(Throughput::Elements((8 * n * n * d) as u64));
        for (name, bits, pv) in [
            ("8 bits, half", QkBits::Int8, PvMode::default()),
            ("8 bits, int8", QkBits::Int8, PvMode::Int8),
            ("4 bits, half", QkBits::Int4, PvMode::default()),
            ("4 bits, int8", QkBits::Int4, PvMode::Int8),
            ("8 bits, fp8", QkBits::Int8, PvMode::Fp8),
        ] {
            for isa in Isa::available() {
                let config = SageConfig { bits, pv, isa, ..SageConfig::default() };
                group.bench_function(BenchmarkId::new(format!("{n}x{d}/{name}"), isa), |b| {
                    b.iter(|| black_box(sage_attention(q.view(), k.view(), v.view(), &Mask::NONE, &config)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
