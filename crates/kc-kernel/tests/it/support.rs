//! The golden cases, and points of lattices and nets.

use kc_core::{Tensor, TensorView};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::si::SiKernel;
use kc_kernel::{Kernel, KernelConfig, Points, Smoothness};
use kc_qmc::Sequence;
use kc_qmc::lattice::{Lattice, LatticeConfig};
use kc_qmc::net2::{DigitalNet, DigitalNetConfig};
use kc_testing::{golden_json, golden_tensor};
use serde_json::Value;

pub(crate) const KINDS: [&str; 5] = ["si", "dsi", "dsi_aa", "si_combined", "dsi_combined"];

pub(crate) fn vector(kind: &str, what: &str) -> Vec<f64> {
    golden_tensor::<f64, 1>(&format!("qmcpy/kern_{kind}_{what}.npy")).into_vec()
}

pub(crate) fn case(kind: &str) -> Value {
    let all = golden_json("qmcpy/kern_cases.json");
    all.as_array().unwrap().iter().find(|case| case["kind"] == kind).unwrap().clone()
}

pub(crate) fn config(kind: &str) -> KernelConfig {
    let file = format!("qmcpy/kern_{kind}_alpha.npy");
    let smoothness = match kind {
        "si" | "dsi" => {
            let orders = golden_tensor::<i64, 1>(&file);
            Smoothness::Orders(orders.as_slice().iter().map(|&a| a as u8).collect())
        }
        "dsi_aa" => Smoothness::Adaptive(golden_tensor::<f64, 1>(&file).into_vec()),
        _ => {
            let factors = golden_tensor::<f64, 2>(&file);
            Smoothness::Combined((0..4).map(|j| [0, 1, 2, 3].map(|p| factors[[p, j]])).collect())
        }
    };
    let case = case(kind);
    let mut config = KernelConfig::new(smoothness);
    config.weights = case["gamma"].as_array().unwrap().iter().map(|g| g.as_f64().unwrap()).collect();
    config.scale = case["scale"].as_f64().unwrap();
    config
}

pub(crate) fn assert_near(got: &[f64], want: &[f64], tol: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tol * scale, "{what} at {i}: got {got}, want {want} (of {scale})");
    }
}

/// A smooth function with a mean.
pub(crate) fn values(x: &[f64], dims: usize) -> Vec<f64> {
    let f = |x: &[f64]| x.iter().enumerate().map(|(j, x)| (6.0 * x + j as f64).sin()).sum::<f64>() + 0.7;
    x.chunks(dims).map(f).collect()
}

pub(crate) fn lattice(dims: usize, seed: u64) -> Lattice {
    Lattice::new(LatticeConfig::new(dims, seed)).unwrap()
}

pub(crate) fn net(dims: usize, seed: u64) -> DigitalNet {
    DigitalNet::new(DigitalNetConfig::new(dims, seed)).unwrap()
}

pub(crate) fn lattice_points(dims: usize, n: usize, seed: u64) -> Tensor<f64, 2> {
    lattice(dims, seed).points(0..n as u64).unwrap().reshape([n, dims]).unwrap()
}

pub(crate) fn net_points(dims: usize, n: usize, seed: u64) -> Tensor<u64, 2> {
    let mut digits = Tensor::zeros([n, dims]).unwrap();
    assert_eq!(net(dims, seed).fill_digits(0..n as u64, digits.as_mut_slice()).unwrap(), 63);
    digits
}

/// Something to do with a kernel and structured points of its kind.
pub(crate) trait Visit {
    fn visit<K: Kernel>(&mut self, kernel: &K, x: TensorView<'_, K::Point, 2>);
}

pub(crate) fn points<K: Kernel>(kernel: &K, x: TensorView<'_, K::Point, 2>) -> Points<K::Point> {
    Points::from_rows(kernel, x).unwrap()
}

/// Every kind, order and number of dimensions, on `n` points.
pub(crate) fn every_kernel(n: usize, visit: &mut impl Visit) {
    for dims in [1, 4, 7] {
        let (si, dsi) = (lattice_points(dims, n, 11), net_points(dims, n, 12));
        let mut all: Vec<Smoothness> = (1..=5).map(|alpha| Smoothness::order(alpha, dims)).collect();
        all.push(Smoothness::Combined(vec![[0.3, 0.2, 0.1, 0.5]; dims]));
        for smoothness in all.clone() {
            visit.visit(&SiKernel::new(scaled(smoothness)).unwrap(), si.view());
        }
        all[4] = Smoothness::Adaptive((0..dims).map(|j| 0.4 + 0.6 * j as f64).collect());
        for smoothness in all {
            visit.visit(&DsiKernel::new(63, scaled(smoothness)).unwrap(), dsi.view());
        }
    }
}

fn scaled(smoothness: Smoothness) -> KernelConfig {
    let mut config = KernelConfig::new(smoothness);
    config.scale = 1.7;
    config
}
