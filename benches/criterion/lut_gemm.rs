//! LUT-GEMM: products of one and of a few tokens, and the solver.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{KcRng, Tensor};
use kc_quant::lut_gemm::{BcqMatrix, BcqSpec, Init, KernelChoice, LutLinear, LutMode, LutScratch, Offset};

fn normals(shape: [usize; 2], stream: u64) -> kc_core::Result<Tensor<f32, 2>> {
    let mut out = Tensor::zeros(shape)?;
    KcRng::new(0, stream).fill_normal(out.as_mut_slice());
    Ok(out)
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("lut_gemm");
    let k = 4096;
    let Ok(w) = normals([k, k], 0) else { return };
    for bits in [2, 3, 4] {
        let spec = BcqSpec { bits, rounds: 0, ..BcqSpec::default() };
        let Ok(matrix) = BcqMatrix::quantize(w.view(), &spec, None) else { continue };
        for kernel in [KernelChoice::Portable, KernelChoice::Avx2, KernelChoice::Avx512] {
            for mode in [LutMode::F32, LutMode::I16, LutMode::I8] {
                let Ok(layer) = LutLinear::new(&matrix, None, mode, kernel) else { continue };
                for tokens in [1, 4] {
                    let (Ok(x), Ok(mut y)) = (normals([tokens, k], 1), Tensor::zeros([tokens, k])) else {
                        continue;
                    };
                    group.throughput(Throughput::Bytes(layer.bytes_read() as u64));
                    let name = format!("{bits} bits/{}/{tokens} tokens", mode.name());
                    let mut scratch = LutScratch::new();
                    group.bench_function(BenchmarkId::new(name, kernel.name()), |b| {
                        b.iter(|| black_box(layer.forward_into(x.view(), y.view_mut(), &mut scratch)));
                    });
                }
            }
        }
    }
    group.finish();
}

fn solver(c: &mut Criterion) {
    let mut group = c.benchmark_group("lut_gemm/solver");
    let Ok(w) = normals([64, 4096], 2) else { return };
    for (name, offset, init) in
        [("published", Offset::None, Init::Greedy), ("best", Offset::Joint, Init::Best)]
    {
        let spec = BcqSpec { offset, init, ..BcqSpec::default() };
        group.throughput(Throughput::Elements(w.len() as u64));
        group.bench_function(name, |b| b.iter(|| black_box(BcqMatrix::quantize(w.view(), &spec, None))));
    }
    group.finish();
}

criterion_group!(benches, products, solver);
criterion_main!(benches);
