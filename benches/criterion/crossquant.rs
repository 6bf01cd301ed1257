//! CrossQuant: codes at every level, in bytes moved.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Isa, KcRng, Tensor};
use kc_quant::crossquant::{Columns, CrossCodes, CrossSpec, RowFactor, quantize_with};

fn codes(c: &mut Criterion) {
    let mut group = c.benchmark_group("crossquant");
    for (tokens, channels) in [(16, 4096), (256, 4096), (2048, 2048)] {
        let mut values = vec![0.0; tokens * channels];
        KcRng::new(0, 0).fill_normal(&mut values);
        let Ok(x) = Tensor::<f32, 2>::from_slice([tokens, channels], &values) else { continue };
        let fixed = Columns::Static(vec![4.0; channels]);
        for (name, reads, columns) in [("dynamic", 2, Columns::Dynamic), ("static", 1, fixed)] {
            group.throughput(Throughput::Bytes(((4 * reads + 1) * tokens * channels) as u64));
            for row in [RowFactor::Absmax, RowFactor::Tight] {
                let spec = CrossSpec { row, columns: columns.clone(), ..CrossSpec::default() };
                for isa in Isa::available() {
                    let id = BenchmarkId::new(format!("{tokens}x{channels}/{name}/{row:?}"), isa);
                    let mut codes = CrossCodes::new();
                    group.bench_function(id, |b| {
                        b.iter(|| black_box(quantize_with(isa, x.view(), &spec, &mut codes)));
                    });
                }
            }
        }
    }
    group.finish();
}

criterion_group!(benches, codes);
criterion_main!(benches);
