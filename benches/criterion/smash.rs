//! Sparse products of the three kinds of matrices, every accumulator.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kc_sparse::semiring::PlusTimes;
use kc_sparse::smash::generate::{GRAPH500, band, er, rmat};
use kc_sparse::{Accumulator, SpgemmConfig, spgemm, spgemm_stats};

fn products(criterion: &mut Criterion) {
    let cases = [("rmat", rmat(12, 8, GRAPH500, 1)), ("er", er(13, 8, 1)), ("band", band(1 << 13, 8, 1))];
    for (name, a) in cases {
        let a = a.expect("a small matrix");
        let stats = spgemm_stats(a.view(), a.view()).expect("a square");
        let mut group = criterion.benchmark_group(format!("smash/{name}"));
        group.throughput(Throughput::Elements(stats.products)).sample_size(20);
        for accumulator in Accumulator::ALL {
            let config = SpgemmConfig { accumulator, threads: 1, ..SpgemmConfig::default() };
            group.bench_function(format!("{accumulator:?}"), |b| {
                b.iter(|| spgemm(PlusTimes::new(), a.view(), a.view(), &config).expect("a square"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
