//! Structured kernels: first columns by levels, and a step of training, in points.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kc_kernel::gp::{FastGp, GpConfig, Loss};
use kc_kernel::si::SiKernel;
use kc_kernel::{KernelConfig, Smoothness};
use kc_qmc::{Lattice, LatticeConfig};

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernel/step");
    for log in [10, 14] {
        let n = 1usize << log;
        let Ok(kernel) = SiKernel::new(KernelConfig::new(Smoothness::order(2, 5))) else { continue };
        let Ok(lattice) = Lattice::new(LatticeConfig::new(5, 7u64)) else { continue };
        let Ok(mut gp) = FastGp::lattice(lattice, kernel, &GpConfig::default()) else { continue };
        let Ok(x) = gp.next_points(n) else { continue };
        let y: Vec<f64> = x.as_slice().chunks_exact(5).map(|x| x.iter().product()).collect();
        if gp.add_values(&y).is_err() {
            continue;
        }
        let mut config = KernelConfig::new(Smoothness::order(2, 5));
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("lattice", n), |b| {
            b.iter(|| {
                config.scale = if config.scale > 1.5 { 1.0 } else { config.scale * 1.01 };
                let set = gp.set_parameters(config.clone(), 1e-8);
                black_box((set, gp.gradient(Loss::Mll)))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
