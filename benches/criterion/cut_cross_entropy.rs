//! Losses of a large vocabulary with their gradients, at every level.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, TensorView};
use kc_testing::normals;
use kc_xent::{
    Filter, Need, Seeds, XentConfig, XentInput, linear_cross_entropy, linear_cross_entropy_backward,
    linear_cross_entropy_with_grad,
};

fn losses(c: &mut Criterion) {
    let (n, v, d) = (256, 16384, 512);
    let (e, w) = (normals(n * d, 1).iter().map(|x| x * 0.2).collect::<Vec<f32>>(), normals(v * d, 2));
    let targets: Vec<i64> = (0..n).map(|i| (i * 7919 % v) as i64).collect();
    let input = XentInput::new(
        TensorView::from_slice([n, d], &e).expect("a matrix"),
        TensorView::from_slice([v, d], &w).expect("a matrix"),
        TensorView::from_slice([n], &targets).expect("targets"),
    )
    .expect("an input");
    let mut group = c.benchmark_group("cut_cross_entropy");
    group.sample_size(10).throughput(Throughput::Elements((n * v) as u64));
    let (seeds, need) = (Seeds::default(), Need::default());
    for isa in Isa::available() {
        for (name, filter) in [("exact", Filter::None), ("filtered", Filter::Value(2f64.powi(-12)))] {
            let config = XentConfig { filter, isa, ..XentConfig::default() };
            group.bench_function(format!("both/{name}/{isa}"), |b| {
                b.iter(|| black_box(linear_cross_entropy_with_grad(&input, seeds, need, &config)));
            });
            let forward = linear_cross_entropy(&input, &config).expect("a loss");
            group.bench_function(format!("backward/{name}/{isa}"), |b| {
                b.iter(|| {
                    black_box(linear_cross_entropy_backward(&forward, &input, None, seeds, need, &config))
                });
            });
        }
        let config = XentConfig { filter: Filter::None, isa, ..XentConfig::default() };
        group.bench_function(format!("forward/{isa}"), |b| {
            b.iter(|| black_box(linear_cross_entropy(&input, &config)));
        });
    }
    group.finish();
}

criterion_group!(benches, losses);
criterion_main!(benches);
