//! The reference's kernels, Gram algebra and processes.

use kc_core::TensorView;
use kc_kernel::derivative::{self, Term};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::{FastGp, GpConfig, Loss};
use kc_kernel::si::SiKernel;
use kc_kernel::{Gram, Kernel, KernelConfig, Smoothness, gram};
use kc_testing::golden_tensor;

use crate::support::{KINDS, assert_near, case, config, points, vector};

fn check<K: Kernel>(kind: &str, kernel: &K, x: TensorView<'_, K::Point, 2>, xs: TensorView<'_, K::Point, 2>) {
    let case = case(kind);
    let number = |name: &str| case[name].as_f64().unwrap();
    let y = vector(kind, "y");
    // The fixtures' Bernoulli polynomials of degree 8 are good to 1e-11 only (by exact rational arithmetic).
    let column = gram(kernel, x, x.slice(0, 0..1).unwrap()).unwrap();
    assert_near(column.as_slice(), &vector(kind, "k0"), 3e-11, "column");
    let matrix = Gram::new(kernel, x).unwrap();
    assert_near(&matrix.eigenvalues(), &vector(kind, "eig"), 3e-11, "eigenvalues");
    assert_near(&matrix.mul(&y).unwrap(), &vector(kind, "gram_times_y"), 3e-11, "product");
    let noise = number("noise");
    assert_near(&matrix.solve(&y, noise).unwrap(), &vector(kind, "coeffs"), 1e-10, "solution");

    let mut settings = GpConfig::default();
    settings.noise = Some(noise);
    let gp = FastGp::from_data(kernel.clone(), points(kernel, x), &y, &settings).unwrap();
    assert_near(&gp.coefficients().unwrap()[0], &vector(kind, "coeffs"), 1e-10, "coefficients");
    let xs = points(kernel, xs);
    assert_near(gp.mean(&xs).unwrap().as_slice(), &vector(kind, "mean"), 1e-10, "mean");
    assert_near(&gp.variance(&xs).unwrap(), &vector(kind, "var"), 1e-10, "variance");
    let integral = gp.cubature().unwrap();
    assert_near(&integral.mean, &[number("cub_mean")], 1e-9, "integral");
    assert_near(&[integral.variance], &[number("cub_var")], 1e-9, "variance of the integral");
    for (loss, name) in [(Loss::Mll, "mll"), (Loss::Gcv, "gcv"), (Loss::Loo, "loo")] {
        assert_near(&[gp.loss(loss).unwrap()], &[number(name)], 1e-10, name);
    }
    // Central differences: some six digits.
    let gradient = gp.gradient(Loss::Mll).unwrap();
    let mut got = vec![gradient.scale];
    got.extend(gradient.weights);
    got.push(gradient.noise);
    assert_near(&got, &vector(kind, "grad"), 1e-6, "gradient");
}

#[test]
fn all_kinds() {
    for kind in KINDS {
        let (x, xs) = (format!("qmcpy/kern_{kind}_x.npy"), format!("qmcpy/kern_{kind}_xs.npy"));
        if kind.starts_with("si") {
            let kernel = SiKernel::new(config(kind)).unwrap();
            check(kind, &kernel, golden_tensor::<f64, 2>(&x).view(), golden_tensor::<f64, 2>(&xs).view());
        } else {
            let kernel = DsiKernel::new(63, config(kind)).unwrap();
            check(kind, &kernel, golden_tensor::<u64, 2>(&x).view(), golden_tensor::<u64, 2>(&xs).view());
        }
    }
}

#[test]
fn derivatives() {
    let mut config = KernelConfig::new(Smoothness::order(3, 3));
    config.weights = vec![0.3, 0.8, 0.1];
    config.scale = 1.5;
    let kernel = SiKernel::new(config).unwrap();
    let (x, z) = (
        golden_tensor::<f64, 2>("qmcpy/kern_deriv_x.npy"),
        golden_tensor::<f64, 2>("qmcpy/kern_deriv_z.npy"),
    );
    let (left, right) = ([Term::derivative(&[1, 0, 0])], [Term::derivative(&[0, 0, 2])]);
    let pairs = x.as_slice().chunks(3).zip(z.as_slice().chunks(3));
    let got: Vec<f64> = pairs.map(|(x, z)| derivative::eval(&kernel, &left, &right, x, z).unwrap()).collect();
    let want = golden_tensor::<f64, 1>("qmcpy/kern_deriv_si_b0_100_b1_002.npy");
    assert_near(&got, want.as_slice(), 1e-12, "derivatives");
}
