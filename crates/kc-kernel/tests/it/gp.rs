//! Processes: growth, gradients, fits, predictions against dense ones, and rates of convergence.

use kc_core::{Error, KcRng, Tensor};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::{DenseGp, FastGp, FitConfig, GpConfig, Loss, Nugget, Optimizer, Parameter};
use kc_kernel::si::SiKernel;
use kc_kernel::{Gram, Kernel, KernelConfig, Points, Smoothness, gram};
use kc_testing::{assert_gradient, same_on_any_pool};

use crate::support::{assert_near, lattice, lattice_points, net, points, values};

fn noisy(noise: f64) -> GpConfig {
    let mut config = GpConfig::default();
    config.noise = Some(noise);
    config
}

fn on_lattice(smoothness: Smoothness, seed: u64, config: &GpConfig) -> FastGp<SiKernel> {
    let dims = smoothness.dims();
    FastGp::lattice(lattice(dims, seed), SiKernel::new(KernelConfig::new(smoothness)).unwrap(), config)
        .unwrap()
}

fn on_net(smoothness: Smoothness, seed: u64, config: &GpConfig) -> FastGp<DsiKernel> {
    let dims = smoothness.dims();
    FastGp::net(net(dims, seed), DsiKernel::new(63, KernelConfig::new(smoothness)).unwrap(), config).unwrap()
}

fn fill<K: Kernel>(gp: &mut FastGp<K>, n: usize) {
    let x = gp.next_points(n).unwrap();
    let y = values(x.as_slice(), gp.kernel().dims());
    gp.add_values(&y).unwrap();
}

#[test]
fn growing_is_the_same_as_starting_whole() {
    fn check<K: Kernel>(mut grown: FastGp<K>, mut whole: FastGp<K>) {
        for n in [1, 2, 8, 128] {
            fill(&mut grown, n);
        }
        fill(&mut whole, 128);
        assert_eq!(grown.points(), whole.points());
        let (a, b) = (grown.gram().unwrap().eigenvalues(), whole.gram().unwrap().eigenvalues());
        assert_near(&a, &b, 1e-13, "eigenvalues");
        assert_near(
            &grown.coefficients().unwrap()[0],
            &whole.coefficients().unwrap()[0],
            1e-9,
            "coefficients",
        );
        for loss in [Loss::Mll, Loss::Gcv] {
            assert_near(&[grown.loss(loss).unwrap()], &[whole.loss(loss).unwrap()], 1e-9, "loss");
        }
    }
    let smoothness = Smoothness::order(2, 3);
    let config = noisy(1e-4);
    check(on_lattice(smoothness.clone(), 3, &config), on_lattice(smoothness.clone(), 3, &config));
    check(on_net(smoothness.clone(), 3, &config), on_net(smoothness, 3, &config));
}

#[test]
fn gradients_are_derivatives() {
    fn check<K: Kernel>(mut gp: FastGp<K>) {
        fill(&mut gp, 64);
        let (config, noise) = (gp.kernel().config().clone(), gp.noise());
        let d = config.weights.len();
        let pack = |scale: f64, weights: &[f64], noise: f64, terms: &[f64]| {
            [&[scale][..], weights, &[noise], terms].concat()
        };
        let terms = match &config.smoothness {
            Smoothness::Orders(_) => Vec::new(),
            Smoothness::Adaptive(all) => all.clone(),
            Smoothness::Combined(all) => all.as_flattened().to_vec(),
        };
        let x: Vec<f64> = pack(config.scale, &config.weights, noise, &terms).iter().map(|v| v.ln()).collect();
        for loss in [Loss::Mll, Loss::Gcv, Loss::Loo] {
            let g = gp.gradient(loss).unwrap();
            assert_eq!(g.value, gp.loss(loss).unwrap());
            let gradient = pack(g.scale, &g.weights, g.noise, &g.smoothness);
            let at = |x: &[f64]| {
                let v: Vec<f64> = x.iter().map(|v| v.exp()).collect();
                let mut config = config.clone();
                (config.scale, config.weights) = (v[0], v[1..=d].to_vec());
                match &mut config.smoothness {
                    Smoothness::Orders(_) => {}
                    Smoothness::Adaptive(all) => all.copy_from_slice(&v[d + 2..]),
                    Smoothness::Combined(all) => all.as_flattened_mut().copy_from_slice(&v[d + 2..]),
                }
                let kernel = gp.kernel().with_config(config).unwrap();
                let y = gp_values(&gp);
                let other = FastGp::from_data(kernel, gp.points().clone(), &y, &noisy(v[d + 1])).unwrap();
                other.loss(loss).unwrap()
            };
            assert_gradient(at, &x, &gradient, 1e-4, 1e-5);
        }
    }
    // The values again: K c + noise c.
    fn gp_values<K: Kernel>(gp: &FastGp<K>) -> Vec<f64> {
        let c = gp.coefficients().unwrap().remove(0);
        let k = gp.gram().unwrap().mul(&c).unwrap();
        k.iter().zip(&c).map(|(k, c)| k + gp.noise() * c).collect()
    }
    let config = noisy(0.05);
    check(on_lattice(Smoothness::Orders(vec![1, 2, 3]), 1, &config));
    check(on_lattice(Smoothness::Combined(vec![[0.5, 0.2, 0.7, 0.1]; 2]), 1, &config));
    check(on_net(Smoothness::Orders(vec![1, 2, 4]), 1, &config));
    check(on_net(Smoothness::Adaptive(vec![0.7, 1.0, 2.2]), 1, &config));
    check(on_net(Smoothness::Combined(vec![[0.5, 0.2, 0.7, 0.1]; 2]), 1, &config));
}

#[test]
fn predictions_are_those_of_dense_processes() {
    fn check<K: Kernel>(mut gp: FastGp<K>, xs: &Points<K::Point>, rows: &Tensor<K::Point, 2>) {
        fill(&mut gp, 128);
        let x: Vec<K::Point> = (0..128).flat_map(|i| gp.points().point(i)).collect();
        let x = Tensor::from_slice([128, gp.kernel().dims()], &x).unwrap();
        let k = gram(gp.kernel(), x.view(), x.view()).unwrap();
        let cross = gram(gp.kernel(), rows.view(), x.view()).unwrap();
        let y: Vec<f64> = {
            let c = gp.coefficients().unwrap().remove(0);
            k.as_slice()
                .chunks(128)
                .zip(&c)
                .map(|(row, own)| row.iter().zip(&c).map(|(k, c)| k * c).sum::<f64>() + gp.noise() * own)
                .collect()
        };
        let dense = DenseGp::new(k.view(), gp.noise(), &y).unwrap();
        assert_near(&gp.coefficients().unwrap()[0], dense.coefficients(), 1e-9, "coefficients");
        assert_near(gp.mean(xs).unwrap().as_slice(), &dense.mean(cross.view()).unwrap(), 1e-9, "means");
        let diagonal = vec![gp.kernel().diagonal(); xs.len()];
        let variance = gp.variance(xs).unwrap();
        assert_near(&variance, &dense.variance(cross.view(), &diagonal).unwrap(), 1e-9, "variances");
        let covariance = gp.covariance(xs, xs).unwrap();
        for i in 0..xs.len() {
            assert!((covariance[[i, i]] - variance[i]).abs() < 1e-11 * gp.kernel().diagonal());
            for j in 0..xs.len() {
                assert!((covariance[[i, j]] - covariance[[j, i]]).abs() < 1e-11 * gp.kernel().diagonal());
            }
        }
    }
    let mut rng = KcRng::new(1, 0);
    let floats = Tensor::<f64, 2>::from_fn([40, 3], |_| rng.uniform()).unwrap();
    let gp = on_lattice(Smoothness::order(2, 3), 2, &noisy(1e-3));
    check(
        gp,
        &points(&SiKernel::new(KernelConfig::new(Smoothness::order(2, 3))).unwrap(), floats.view()),
        &floats,
    );
    let kernel = DsiKernel::new(63, KernelConfig::new(Smoothness::order(3, 3))).unwrap();
    let digits: Vec<u64> = floats.as_slice().iter().map(|&x| kernel.digits(x).unwrap()).collect();
    let digits = Tensor::from_slice([40, 3], &digits).unwrap();
    check(on_net(Smoothness::order(3, 3), 2, &noisy(1e-3)), &points(&kernel, digits.view()), &digits);
}

#[test]
fn outputs_share_a_matrix() {
    let mut gp = on_lattice(Smoothness::order(2, 2), 6, &noisy(1e-3));
    let x = gp.next_points(64).unwrap();
    let one = values(x.as_slice(), 2);
    let both: Vec<f64> = one.iter().flat_map(|y| [*y, 1.0 - 2.0 * y]).collect();
    gp.add_values(&both).unwrap();
    assert_eq!(gp.outputs(), 2);
    let mut single = on_lattice(Smoothness::order(2, 2), 6, &noisy(1e-3));
    single.next_points(64).unwrap();
    single.add_values(&one).unwrap();
    assert_near(&gp.coefficients().unwrap()[0], &single.coefficients().unwrap()[0], 1e-14, "first output");
    let xs = points(gp.kernel(), lattice_points(2, 8, 9).view());
    let (mean, first) = (gp.mean(&xs).unwrap(), single.mean(&xs).unwrap());
    assert_eq!(mean.shape(), [8, 2]);
    for i in 0..8 {
        assert!((mean[[i, 0]] - first[[i, 0]]).abs() < 1e-13);
    }
    assert_eq!(gp.cubature().unwrap().mean.len(), 2);
    // A second lot must have as many outputs.
    gp.next_points(128).unwrap();
    assert!(matches!(gp.add_values(&[0.0; 64]), Err(Error::Shape { .. })));
    gp.add_values(&[0.5; 128]).unwrap();
}

#[test]
fn points_without_values_do_not_count() {
    let mut gp = on_lattice(Smoothness::order(2, 2), 6, &noisy(1e-3));
    assert!(matches!(gp.loss(Loss::Mll), Err(Error::Empty { .. })));
    assert!(gp.cubature().is_err() && gp.gram().is_err());
    fill(&mut gp, 32);
    let xs = points(gp.kernel(), lattice_points(2, 4, 1).view());
    let before = (gp.mean(&xs).unwrap(), gp.variance(&xs).unwrap(), gp.gradient(Loss::Mll).unwrap());
    gp.next_points(64).unwrap();
    assert_eq!((gp.mean(&xs).unwrap(), gp.variance(&xs).unwrap(), gp.gradient(Loss::Mll).unwrap()), before);
    assert!(matches!(gp.next_points(64), Err(Error::Argument { .. })));
    assert!(matches!(gp.next_points(96), Err(Error::Argument { .. })));
}

#[test]
fn fits_improve_and_keep_the_best() {
    for loss in [Loss::Mll, Loss::Gcv, Loss::Loo] {
        for optimizer in [Optimizer::Rprop, Optimizer::Adam { rate: 0.1 }, Optimizer::Lbfgs] {
            let mut gp = on_net(Smoothness::Adaptive(vec![1.0; 2]), 4, &noisy(1e-4));
            fill(&mut gp, 128);
            let mut config = FitConfig::default();
            config.optimizer = optimizer;
            config.max_iterations = 60;
            config.parameters =
                vec![Parameter::Scale, Parameter::Weights, Parameter::Noise, Parameter::Smoothness];
            let fit = gp.fit(loss, &config).unwrap();
            let better = if loss == Loss::Mll { fit.best > fit.initial } else { fit.best < fit.initial };
            assert!(better && fit.iterations > 1, "{loss:?} {optimizer:?}: {fit:?}");
            assert!(
                (gp.loss(loss).unwrap() - fit.best).abs() <= 1e-9 * fit.best.abs(),
                "{loss:?} {optimizer:?}"
            );
        }
    }
    let mut gp = on_lattice(Smoothness::order(1, 2), 4, &GpConfig::default());
    fill(&mut gp, 64);
    let before = gp.kernel().clone();
    let mut none = FitConfig::default();
    none.parameters = Vec::new();
    assert_eq!(gp.fit(Loss::Mll, &none).unwrap().iterations, 0);
    assert_eq!(*gp.kernel(), before);
    none.optimizer = Optimizer::Adam { rate: -1.0 };
    assert!(matches!(gp.fit(Loss::Mll, &none), Err(Error::Argument { .. })));
}

#[test]
fn noise_must_be_positive_and_may_adapt() {
    for bad in [0.0, -1e-8, f64::NAN] {
        let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(1, 2))).unwrap();
        assert!(matches!(FastGp::lattice(lattice(2, 1), kernel, &noisy(bad)), Err(Error::Argument { .. })));
    }
    let mut config = noisy(1e-300);
    config.nugget = Nugget::Adaptive;
    let mut gp = on_lattice(Smoothness::order(5, 1), 1, &config);
    fill(&mut gp, 1 << 12);
    assert!(gp.noise() >= 1e-300 && gp.coefficients().is_ok());
}

/// Where the variance of the integral is 1e-10 of the scale, its definition has no digits left; the formula without
/// cancellation has. In one dimension the exact value is known: with points in steps of 1/n only every n-th frequency
/// is left.
#[test]
fn a_tiny_variance_of_the_integral_keeps_its_digits() {
    let n = 1usize << 10;
    let mut kernel = KernelConfig::new(Smoothness::order(2, 1));
    kernel.weights = vec![0.5];
    let kernel = SiKernel::new(kernel).unwrap();
    let points = points(&kernel, lattice_points(1, n, 3).view());
    let noise = 1e-300;
    let gp = FastGp::from_data(kernel, points, &vec![1.0; n], &noisy(noise)).unwrap();
    // sum over h of gamma |n h|^-4 = 2 gamma zeta(4) / n^4
    let zeta = std::f64::consts::PI.powi(4) / 90.0;
    let share = 2.0 * 0.5 * zeta / (n as f64).powi(4);
    let want = share / (1.0 + share);
    let got = gp.cubature().unwrap();
    assert!(want < 1e-11 && (got.variance / want - 1.0).abs() < 1e-4, "{} {want}", got.variance);
    assert!((got.mean[0] - 1.0).abs() < 1e-11);
}

#[test]
fn projected_variances_are_those_with_more_points() {
    let mut gp = on_lattice(Smoothness::order(1, 2), 8, &noisy(1e-6));
    fill(&mut gp, 64);
    let xs = points(gp.kernel(), lattice_points(2, 8, 1).view());
    let (variance, integral) =
        (gp.projected_variance(&xs, 256).unwrap(), gp.projected_cubature_variance(256).unwrap());
    let earlier = gp.projected_cubature_variance(16).unwrap();
    assert!(earlier > gp.cubature().unwrap().variance && gp.cubature().unwrap().variance > integral);
    fill(&mut gp, 256);
    assert_near(&variance, &gp.variance(&xs).unwrap(), 1e-12, "variances");
    assert_near(&[integral], &[gp.cubature().unwrap().variance], 1e-9, "integral");
    assert!(gp.projected_cubature_variance(100).is_err());
}

#[test]
fn threads_do_not_matter() {
    same_on_any_pool(|| {
        let mut gp = on_net(Smoothness::order(2, 3), 5, &noisy(1e-6));
        fill(&mut gp, 1 << 14);
        let xs = points(gp.kernel(), crate::support::net_points(3, 8, 1).view());
        (gp.gradient(Loss::Mll).unwrap(), gp.mean(&xs).unwrap(), gp.variance(&xs).unwrap())
    });
}

/// The headline: errors of interpolation fall with the order of the kernel.
#[test]
fn interpolation_converges_at_the_rates_of_the_orders() {
    let f = |x: &[f64]| -> f64 {
        (1..).zip(x).map(|(j, x)| 1.0 + (std::f64::consts::TAU * x).sin() / f64::from(j * j)).product()
    };
    let mut rng = KcRng::new(7, 0);
    let xs = Tensor::<f64, 2>::from_fn([200, 3], |_| rng.uniform()).unwrap();
    let want: Vec<f64> = xs.as_slice().chunks(3).map(f).collect();
    let size: f64 = want.iter().map(|v| v * v).sum();
    for (alpha, slope, reference) in [
        (1, -1.3, [1.4e-1, 7.6e-4, 8.2e-5]),
        (2, -2.4, [2.6e-2, 4.2e-6, 2.0e-8]),
        (3, -3.5, [7.5e-3, 7.2e-8, 1.2e-11]),
    ] {
        let mut kernel = KernelConfig::new(Smoothness::order(alpha, 3));
        kernel.weights = vec![1.0, 1.0 / 4.0, 1.0 / 9.0];
        let kernel = SiKernel::new(kernel).unwrap();
        let mut gp = FastGp::lattice(lattice(3, 5), kernel, &noisy(1e-12)).unwrap();
        let mut error = |n: usize| {
            let x = gp.next_points(n).unwrap();
            gp.add_values(&x.as_slice().chunks(3).map(f).collect::<Vec<_>>()).unwrap();
            let got = gp.mean(&points(gp.kernel(), xs.view())).unwrap();
            let off: f64 = got.as_slice().iter().zip(&want).map(|(g, w)| (g - w) * (g - w)).sum();
            (off / size).sqrt()
        };
        let errors = [error(1 << 5), error(1 << 10), error(1 << 12)];
        let got = (errors[2] / errors[0]).log2() / 7.0;
        assert!(got <= slope, "alpha {alpha}: {errors:?}, slope {got}");
        for (error, reference) in errors.iter().zip(reference) {
            assert!(
                *error < 3.0 * reference && *error > reference / 3.0,
                "alpha {alpha}: {errors:?} {reference}"
            );
        }
    }
}

#[test]
fn a_matrix_that_is_not_positive_is_found() {
    let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(1, 1))).unwrap();
    let gram = Gram::new(&kernel, lattice_points(1, 8, 1).view()).unwrap();
    assert!(gram.log_det(0.0).is_ok());
    let not = Tensor::from_slice([2, 2], &[1.0, 2.0, 2.0, 1.0]).unwrap();
    assert!(matches!(DenseGp::new(not.view(), 0.0, &[0.0, 0.0]), Err(Error::Singular { .. })));
    assert!(DenseGp::new(not.view(), -1.0, &[0.0, 0.0]).is_err());
    assert!(DenseGp::new(not.view(), 1.5, &[0.0]).is_err());
}
