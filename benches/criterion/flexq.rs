//! Integer products of quantised weights and activations, at every level.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, Tensor, TensorView};
use kc_quant::flexq::{Activations, FlexLinear, KernelChoice, QuantMatrix, QuantSpec};
use kc_testing::normals;

fn products(c: &mut Criterion) {
    let (n, k) = (4096, 4096);
    let w = normals(n * k, 1);
    let w = TensorView::from_slice([n, k], &w).expect("a matrix");
    let mut group = c.benchmark_group("flexq");
    group.sample_size(10);
    for (wbits, abits) in [(6, 6), (6, 8), (4, 8), (8, 8)] {
        let spec = QuantSpec { bits: wbits, ..QuantSpec::default() };
        let q = QuantMatrix::quantize(w, &spec).expect("finite weights");
        for isa in Isa::available() {
            let layer = FlexLinear::new_with(isa, &q, None, KernelChoice::Auto).expect("a layer");
            for m in [1usize, 16, 256] {
                let x = normals(m * k, 2);
                let x = TensorView::from_slice([m, k], &x).expect("a matrix");
                let mut y = Tensor::<f32, 2>::zeros([m, n]).expect("memory");
                let mut codes = Activations::new();
                group.throughput(Throughput::Elements((m * n * k) as u64));
                group.bench_function(format!("W{wbits}A{abits}/{m} tokens/{isa}"), |b| {
                    b.iter(|| black_box(layer.forward_into(x, abits, y.view_mut(), &mut codes)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
