//! Points of each family in values, one thread's block as cubature uses it and one that goes to memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::Isa;
use kc_qmc::{DigitalNet, DigitalNetConfig, Halton, HaltonConfig, Lattice, LatticeConfig, Sequence};

fn points(c: &mut Criterion) {
    for (dim, log) in [(10, 12), (10, 20), (100, 17)] {
        let n = 1u64 << log;
        let mut out = vec![0.0; dim << log];
        let mut group = c.benchmark_group(format!("qmcpy/{dim}x2^{log}"));
        group.throughput(Throughput::Elements(n * dim as u64));
        for isa in Isa::available() {
            let Ok(mut net) = DigitalNet::new_with(isa, DigitalNetConfig::new(dim, 7u64)) else { continue };
            group.bench_function(BenchmarkId::new("net", isa), |b| {
                b.iter(|| net.fill(0..n, black_box(&mut out)));
            });
            let Ok(lattice) = Lattice::new(LatticeConfig::new(dim, 7u64)) else { continue };
            group.bench_function(BenchmarkId::new("lattice", isa), |b| {
                b.iter(|| lattice.fill_with(isa, 0..n, black_box(&mut out)));
            });
        }
        let Ok(mut halton) = Halton::new(HaltonConfig::new(dim, 7u64)) else { continue };
        group.bench_function("halton", |b| b.iter(|| halton.fill(0..n, black_box(&mut out))));
        group.finish();
    }
}

criterion_group!(benches, points);
criterion_main!(benches);
