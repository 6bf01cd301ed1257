//! Fast algebra against dense matrices, and points that do not have the structure.

use kc_core::{Error, Tensor, TensorView};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::{DenseGp, FastGp, GpConfig, Loss};
use kc_kernel::si::SiKernel;
use kc_kernel::{Gram, Kernel, KernelConfig, Smoothness, gram};
use kc_qmc::lattice::{Lattice, LatticeConfig};
use kc_qmc::net2::{DigitalNet, DigitalNetConfig};
use kc_qmc::{NusEngine, Order, Randomize, Sequence};

use crate::support::{Visit, assert_near, every_kernel, lattice_points, net_points, points};

struct Dense;

impl Visit for Dense {
    fn visit<K: Kernel>(&mut self, kernel: &K, x: TensorView<'_, K::Point, 2>) {
        let n = x.rows();
        let y: Vec<f64> = (0..n).map(|i| ((i * 7919) % 1009) as f64 / 500.0 - 0.9).collect();
        let k = gram(kernel, x, x).unwrap();
        let times = |c: &[f64]| -> Vec<f64> {
            k.as_slice().chunks(n).map(|row| row.iter().zip(c).map(|(k, c)| k * c).sum()).collect()
        };
        let fast = Gram::new(kernel, x).unwrap();
        assert_near(&fast.mul(&y).unwrap(), &times(&y), 1e-12, "product");
        let trace: f64 = fast.eigenvalues().iter().sum();
        assert!((trace - n as f64 * k[[0, 0]]).abs() < 1e-11 * trace);
        // A smooth kernel's matrix is singular in f64 without noise: then the product of the solution is compared.
        let condition = fast.eigenvalues().iter().fold(f64::INFINITY, |least, v| least.min(*v)) / trace;
        for noise in [0.0, 1e-4] {
            if condition < 1e-9 && noise == 0.0 {
                continue;
            }
            let c = fast.solve(&y, noise).unwrap();
            let back: Vec<f64> = times(&c).iter().zip(&c).map(|(k, c)| k + noise * c).collect();
            assert_near(&back, &y, 1e-6, &format!("{kernel:?} solution, noise {noise}"));
        }
        let mut config = GpConfig::default();
        config.noise = Some(1e-4);
        let gp = FastGp::from_data(kernel.clone(), points(kernel, x), &y, &config).unwrap();
        let mll = gp.loss(Loss::Mll).unwrap();
        // The Cholesky factor of the dense matrix, once per kind: it is slow.
        if kernel.dims() == 4 {
            let dense = DenseGp::new(k.view(), 1e-4, &y).unwrap();
            assert!((mll - dense.mll()).abs() <= 1e-8 * mll.abs(), "{kernel:?}: {mll} {}", dense.mll());
        }
    }
}

#[test]
fn every_kind_order_and_dimension_agrees_with_dense_matrices() {
    every_kernel(1 << 10, &mut Dense);
}

/// 2^18 points: the dense matrix would take 512 GiB, this takes a few vectors.
#[test]
fn memory_and_work_are_not_quadratic() {
    let n = 1 << 18;
    let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(1, 3))).unwrap();
    let x = lattice_points(3, n, 4);
    let y: Vec<f64> = (0..n).map(|i| ((i * 31) % 257) as f64).collect();
    let (back, memory) = kc_testing::alloc::measure(|| {
        let gram = Gram::new(&kernel, x.view()).unwrap();
        gram.mul(&gram.solve(&y, 0.0).unwrap()).unwrap()
    });
    assert_near(&back, &y, 1e-7, "there and back");
    assert!(memory.peak < 24 * n * 8, "{memory:?}");
}

fn refused<K: Kernel>(kernel: &K, x: TensorView<'_, K::Point, 2>) {
    match Gram::new(kernel, x) {
        Err(Error::Argument { arg, expected, .. }) => {
            assert!(arg == "x" && expected.contains("natural order"), "{arg}: {expected}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn points_without_structure_are_refused() {
    let si = SiKernel::new(KernelConfig::new(Smoothness::order(2, 2))).unwrap();
    let dsi = DsiKernel::new(63, KernelConfig::new(Smoothness::order(2, 2))).unwrap();
    let lattice = |order| {
        let mut config = LatticeConfig::new(2, 5u64);
        config.order = order;
        Lattice::new(config).unwrap().points(0..64).unwrap().reshape([64, 2]).unwrap()
    };
    assert!(Gram::new(&si, lattice(Order::Natural).view()).is_ok());
    refused(&si, lattice(Order::Linear).view());
    refused(&si, lattice(Order::Gray).view());
    // Two shifts in one set.
    let (a, b) = (lattice_points(2, 32, 1), lattice_points(2, 64, 2));
    let mixed: Vec<f64> = a.as_slice().iter().chain(&b.as_slice()[64..]).copied().collect();
    refused(&si, Tensor::from_slice([64, 2], &mixed).unwrap().view());

    let net = |order, randomize| {
        let mut config = DigitalNetConfig::new(2, 5u64);
        (config.order, config.randomize) = (order, randomize);
        let mut digits = Tensor::<u64, 2>::zeros([64, 2]).unwrap();
        DigitalNet::new(config).unwrap().fill_digits(0..64, digits.as_mut_slice()).unwrap();
        digits
    };
    for randomize in [Randomize::None, Randomize::Ds, Randomize::Lms, Randomize::LmsDs] {
        assert!(Gram::new(&dsi, net(Order::Natural, randomize).view()).is_ok(), "{randomize:?}");
    }
    refused(&dsi, net(Order::Natural, Randomize::Nus(NusEngine::Trie)).view());
    // Gray order is a linear map of the index and keeps the structure; points that are only exchanged do not.
    let mut swapped = net_points(2, 64, 5).into_vec();
    swapped.swap(6, 10);
    refused(&dsi, Tensor::from_slice([64, 2], &swapped).unwrap().view());

    let config = GpConfig::default();
    for (order, randomize) in
        [(Order::Natural, Randomize::Nus(NusEngine::Trie)), (Order::Gray, Randomize::LmsDs)]
    {
        let mut net = DigitalNetConfig::new(2, 5u64);
        (net.order, net.randomize) = (order, randomize);
        let refused = FastGp::net(DigitalNet::new(net).unwrap(), dsi.clone(), &config);
        assert!(matches!(refused, Err(Error::Argument { .. })));
    }
    let mut gray = LatticeConfig::new(2, 5u64);
    gray.order = Order::Gray;
    assert!(FastGp::lattice(Lattice::new(gray).unwrap(), si.clone(), &config).is_err());
    let wrong = FastGp::lattice(DigitalNet::new(DigitalNetConfig::new(2, 5u64)).unwrap(), si, &config);
    assert!(wrong.is_err());
}

#[test]
fn bad_values_are_errors() {
    let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(1, 2))).unwrap();
    let x = lattice_points(2, 8, 1);
    let gram = Gram::new(&kernel, x.view()).unwrap();
    assert!(matches!(gram.mul(&[0.0; 7]), Err(Error::Shape { .. })));
    assert!(matches!(gram.solve(&[f64::NAN; 8], 0.0), Err(Error::NotFinite { .. })));
    for noise in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(gram.solve(&[1.0; 8], noise), Err(Error::Argument { .. })));
    }
    assert!(matches!(Gram::new(&kernel, x.view().slice(0, 0..7).unwrap()), Err(Error::Argument { .. })));
    assert!(matches!(Gram::new(&kernel, x.view().slice(0, 0..0).unwrap()), Err(Error::Argument { .. })));
    let one = Gram::new(&kernel, x.view().slice(0, 0..1).unwrap()).unwrap();
    assert_near(&one.eigenvalues(), &[kernel.diagonal()], 1e-14, "one point");
    assert_near(&one.solve(&[3.0], 0.0).unwrap(), &[3.0 / kernel.diagonal()], 1e-14, "one point");
}
