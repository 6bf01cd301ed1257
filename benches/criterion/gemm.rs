//! Dense products: element types x sizes x levels.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_core::{Float, Isa, KcRng, Result, Tensor, TensorView, bf16};
use kc_gemm::{Operand, PackedI8, gemm_into_with, gemm_u8i8_packed_into_with};

const SIZES: [usize; 3] = [64, 256, 1024];

fn normals<T: Operand>(stream: u64, n: usize) -> Result<Tensor<T, 2>> {
    let mut rng = KcRng::new(0, stream);
    let x: Vec<T> = (0..n * n).map(|_| T::from_f64(rng.normal())).collect();
    Tensor::from_slice([n, n], &x)
}

fn products<T: Operand>(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm/square");
    for n in SIZES {
        let (Ok(a), Ok(b)) = (normals::<T>(1, n), normals::<T>(2, n)) else { continue };
        let Ok(mut out) = Tensor::<T::Sum, 2>::zeros([n, n]) else { continue };
        let (one, zero) = (T::Sum::from_f64(1.0), T::Sum::from_f64(0.0));
        group.throughput(Throughput::Elements(2 * (n as u64).pow(3)));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(format!("{}/{n}", T::DTYPE), isa), |x| {
                x.iter(|| gemm_into_with(isa, one, black_box(a.view()), b.view(), zero, out.view_mut()));
            });
        }
    }
    group.finish();
}

fn bytes(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm/bytes");
    for n in SIZES {
        let mut rng = KcRng::new(0, 3);
        let a: Vec<u8> = (0..n * n).map(|_| rng.below(256) as u8).collect();
        let w: Vec<i8> = (0..n * n).map(|_| rng.below(256) as u8 as i8).collect();
        let (Ok(a), Ok(w)) = (TensorView::from_slice([n, n], &a), TensorView::from_slice([n, n], &w)) else {
            continue;
        };
        let (Ok(w), Ok(mut out)) = (PackedI8::pack(w, n), Tensor::<i32, 2>::zeros([n, n])) else { continue };
        group.throughput(Throughput::Elements(2 * (n as u64).pow(3)));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(format!("u8 x i8/{n}"), isa), |x| {
                x.iter(|| gemm_u8i8_packed_into_with(isa, black_box(a), &w, out.view_mut()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, products::<f32>, products::<f64>, products::<bf16>, bytes);
criterion_main!(benches);
