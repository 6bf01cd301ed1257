//! Softmax-free attention at every level, in operations.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_attention::soft::{
    Grid, Landmark, SoftConfig, SoftGrads, SoftWorkspace, soft_attention, soft_attention_backward_into,
    soft_attention_into,
};
use kc_core::{Isa, KcRng, Tensor};

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("soft");
    for (side, heads) in [(28, 4), (56, 2), (112, 2)] {
        let shape = [1, heads, side * side, 32];
        let mut values = vec![0.0; shape.iter().product()];
        KcRng::new(0, 0).fill_normal(&mut values);
        let Ok(q) = Tensor::<f32, 4>::from_slice(shape, &values) else { continue };
        let Ok(mut out) = Tensor::zeros(shape) else { continue };
        let flops = 8 * heads * side * side * 49 * 32;
        for isa in Isa::available() {
            let workspace = SoftWorkspace::default();
            let config = SoftConfig {
                isa,
                workspace: Some(&workspace),
                ..SoftConfig::new(Grid::Image { h: side, w: side }, side / 7)
            };
            group.throughput(Throughput::Elements(flops as u64));
            group.bench_function(BenchmarkId::new(format!("forward/{side}x{side}"), isa), |b| {
                b.iter(|| {
                    let found =
                        soft_attention_into(q.view(), q.view(), &Landmark::AvgPool, &config, out.view_mut());
                    black_box(found).map(|_| ())
                });
            });
            let made = soft_attention(q.view(), q.view(), &Landmark::AvgPool, &config);
            let Ok(mut grads) = made.and_then(|(_, cache)| SoftGrads::zeros(&cache)) else { continue };
            group.throughput(Throughput::Elements(3 * flops as u64));
            group.bench_function(BenchmarkId::new(format!("both/{side}x{side}"), isa), |b| {
                b.iter(|| {
                    let cache =
                        soft_attention_into(q.view(), q.view(), &Landmark::AvgPool, &config, out.view_mut());
                    let done =
                        cache.and_then(|cache| soft_attention_backward_into(&cache, q.view(), &mut grads));
                    black_box(done)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, passes);
criterion_main!(benches);
