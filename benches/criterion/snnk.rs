//! SNNK: layers and features at every level, in multiplications.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, KcRng, Tensor};
use kc_features::projection::gaussian_projection;
use kc_features::relu::Relu;
use kc_features::snnk::{Features, Map, SnnkLayer};
use kc_features::universal::{Spectrum, Universal};
use kc_features::{FeatureMap, Projection};

fn normals(rows: usize, columns: usize, seed: u64) -> kc_core::Result<Tensor<f32, 2>> {
    let mut out = Tensor::zeros([rows, columns])?;
    KcRng::new(seed, 0).fill_normal(out.as_mut_slice());
    let scale = (columns as f32).powf(-0.5);
    out.as_mut_slice().iter_mut().for_each(|x| *x *= scale);
    Ok(out)
}

fn run(c: &mut Criterion) -> kc_core::Result<()> {
    let mut group = c.benchmark_group("snnk");
    let (n, d, out) = (512, 768, 3072);
    let (x, w) = (normals(n, d, 1)?, normals(out, d, 2)?);
    for m in [32, 64, 128, 256] {
        for isa in Isa::available() {
            let projection = Projection::with_isa(isa, gaussian_projection(m, d, 3)?)?;
            let (xi, coefficients) = Spectrum::Gauss.draw(m, false, 4)?;
            let maps = [
                ("relu", 1, Features::Relu(Relu::arc_cosine(projection.clone(), 0.0)?)),
                ("urf", 2, Features::Universal(Universal::new(projection, xi, coefficients, 0.5, 0.0)?)),
            ];
            for (name, halves, features) in maps {
                let map = Map::new(features, None, false)?;
                let psi = map.weights(w.view(), None)?;
                let layer = SnnkLayer::new(map, psi)?;
                let mut y = Tensor::zeros([n, out])?;
                group.throughput(Throughput::Elements((n * m * (d + halves * out)) as u64));
                group.bench_function(BenchmarkId::new(format!("layer/{name}/{m}"), isa), |b| {
                    b.iter(|| black_box(layer.forward_into(x.view(), y.view_mut())));
                });
                let mut phi = Tensor::zeros([n, layer.map().width()])?;
                group.throughput(Throughput::Elements((n * m * d) as u64));
                group.bench_function(BenchmarkId::new(format!("features/{name}/{m}"), isa), |b| {
                    b.iter(|| black_box(layer.map().apply_into(x.view(), phi.view_mut())));
                });
            }
        }
    }
    group.finish();
    Ok(())
}

fn layers(c: &mut Criterion) {
    if let Err(error) = run(c) {
        panic!("{error}");
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
