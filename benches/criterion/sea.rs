//! SEA: the causal layer at every level, in tokens.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_attention::sea::{SeaConfig, SeaInputs, SeaLayer, SeaParams};
use kc_core::{Isa, KcRng, Tensor};

fn layer(c: &mut Criterion) {
    let mut group = c.benchmark_group("sea");
    group.sample_size(10);
    for tokens in [256, 1024] {
        let config = SeaConfig {
            heads: 12,
            t_m: 256,
            k: 64.0,
            nb_factor: 8.0,
            causal: true,
            max_len: tokens,
            ..SeaConfig::default()
        };
        let all: Vec<Tensor<f32, 4>> = (0..3)
            .filter_map(|stream| {
                let mut x = Tensor::zeros([1, 12, tokens, 64]).ok()?;
                KcRng::new(stream, 0).fill_normal(x.as_mut_slice());
                Some(x)
            })
            .collect();
        let [q, k, v] = &all[..] else { continue };
        group.throughput(Throughput::Elements(tokens as u64));
        for isa in Isa::available() {
            let Ok(params) = SeaParams::init(&config, 1) else { continue };
            let Ok(layer) = SeaLayer::new(config.clone(), params) else { continue };
            let layer = layer.at(isa);
            let x = SeaInputs::new(q.view(), k.view(), v.view());
            group.bench_function(BenchmarkId::new(format!("forward/{tokens}"), isa), |b| {
                b.iter(|| black_box(layer.forward(&x)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
