//! Kernels against their definitions, on every level.

use kc_core::{Error, Isa, TensorView};
use kc_kernel::derivative::{self, Term};
use kc_kernel::dsi::{self, DsiKernel};
use kc_kernel::functions::{Radial, RadialKernel};
use kc_kernel::si::{self, SiKernel};
use kc_kernel::{Kernel, KernelConfig, Points, Smoothness, gram};
use kc_testing::{each_isa, same_on_any_pool};
use proptest::prelude::*;

use crate::support::{Visit, every_kernel, lattice_points};

/// `factor`, `multiply` and `slope` on each level, with sizes around those of vectors.
fn check_levels<K: Kernel>(
    kernel: &K,
    x: &[K::Point],
    z: K::Point,
    want: impl Fn(K::Point) -> f64,
    tol: f64,
) {
    for n in [0, 1, 3, 4, 5, 8, 9, 31, x.len()] {
        let x = &x[..n.min(x.len())];
        each_isa(|isa| {
            let mut got = vec![0.0; x.len()];
            kernel.factor(isa, 0, x, z, &mut got);
            for (got, &x) in got.iter().zip(x) {
                let want = want(x);
                assert!((got - want).abs() <= tol, "{x:?} {z:?} on {isa}: {got} {want}");
            }
            let mut v = vec![0.5; x.len()];
            kernel.multiply(isa, 0, x, z, &mut v);
            for (v, kappa) in v.iter().zip(&got) {
                let want = 1.5 * (1.0 + kernel.config().weights[0] * kappa) - 1.0;
                assert!((v - want).abs() <= 1e-13 * want.abs().max(1.0));
            }
        });
    }
}

#[test]
fn shift_invariant_factors() {
    let mut x: Vec<f64> = (0..60).map(|i| f64::from(i) / 59.0).collect();
    x.extend([0.0, 1.0, f64::MIN_POSITIVE, 1.0 - f64::EPSILON / 2.0, 0.5]);
    for alpha in 1..=5 {
        let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(alpha, 1))).unwrap();
        for z in [0.0, 0.3, 1.0] {
            check_levels(&kernel, &x, z, |x| si::reference::kappa(alpha, (x - z).rem_euclid(1.0)), 2e-12);
        }
    }
}

#[test]
fn digital_factors_at_powers_of_two_and_next_to_them() {
    for bits in [1, 7, 24, 32, 52, 53, 63, 64] {
        let most = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let mut x: Vec<u64> = vec![0, 1, most, most - 1, most / 2, most / 3];
        for p in 0..bits {
            x.extend([1u64 << p, (1u64 << p).wrapping_add(1) & most, (1u64 << p).wrapping_sub(1)]);
        }
        for alpha in 1..=4 {
            let kernel = DsiKernel::new(bits, KernelConfig::new(Smoothness::order(alpha, 1))).unwrap();
            for z in [0, most, most / 5] {
                check_levels(&kernel, &x, z, |x| dsi::reference::kappa(alpha, x ^ z, bits), 4e-15);
            }
        }
        for alpha in [0.3, 1.0, 2.5] {
            let kernel = DsiKernel::new(bits, KernelConfig::new(Smoothness::Adaptive(vec![alpha]))).unwrap();
            check_levels(
                &kernel,
                &x,
                most / 5,
                |x| dsi::reference::adaptive(alpha, x ^ (most / 5), bits),
                1e-13,
            );
        }
    }
}

/// They are the Walsh series that they stand for.
#[test]
fn digital_kernels_are_their_walsh_series() {
    let bits = 12;
    // The sum of the alpha highest positions of digits.
    let mu = |k: u64, alpha: usize| -> f64 {
        (0..64).rev().filter(|p| k >> p & 1 == 1).take(alpha).map(|p| f64::from(p + 1)).sum()
    };
    let walsh = |k: u64, x: u64| {
        let digits = (0..bits).filter(|p| k >> p & 1 == 1 && x >> (bits - 1 - p) & 1 == 1).count();
        if digits % 2 == 0 { 1.0 } else { -1.0 }
    };
    for alpha in 2..=4 {
        for x in [0u64, 1, 5, 1000, 2048, 4095] {
            let sum: f64 = (1..1u64 << bits).map(|k| walsh(k, x) * (-mu(k, alpha)).exp2()).sum();
            let value = dsi::reference::kappa(alpha as u8, x, bits);
            // The rest of the series is of the order of bits 2^-bits.
            assert!(
                (sum - value).abs() < f64::from(bits) * (-f64::from(bits)).exp2(),
                "{alpha} {x}: {sum} {value}"
            );
        }
    }
}

struct Symmetric;

impl Visit for Symmetric {
    fn visit<K: Kernel>(&mut self, kernel: &K, x: TensorView<'_, K::Point, 2>) {
        let k = gram(kernel, x, x).unwrap();
        let n = x.rows();
        for i in 0..n {
            assert_eq!(k[[i, i]], k[[0, 0]]);
            for j in 0..n {
                assert_eq!(k[[i, j]], k[[j, i]]);
            }
        }
        assert!((k[[0, 0]] - kernel.diagonal()).abs() <= 1e-13 * k[[0, 0]]);
        let least = kc_linalg::eigvalsh(k.view()).unwrap()[0];
        assert!(least > -1e-13 * k[[0, 0]] * n as f64, "{kernel:?}: {least}");
    }
}

#[test]
fn matrices_are_symmetric_and_positive() {
    every_kernel(32, &mut Symmetric);
}

/// Small weights and high orders: `K - S` keeps its digits, since products are built around 1.
#[test]
fn what_differs_from_the_scale_keeps_its_digits() {
    let mut config = KernelConfig::new(Smoothness::order(2, 3));
    config.weights = vec![1e-14; 3];
    let kernel = SiKernel::new(config).unwrap();
    let x = lattice_points(3, 64, 1);
    let points = Points::from_rows(&kernel, x.view()).unwrap();
    let z = points.point(0);
    let mut v = vec![0.0; 64];
    for (j, &z) in z.iter().enumerate() {
        kernel.multiply(Isa::best(), j, points.column(j), z, &mut v);
    }
    for (i, v) in v.iter().enumerate() {
        let want: f64 = (0..3)
            .map(|j| 1e-14 * si::reference::kappa(2, (points.column(j)[i] - z[j]).rem_euclid(1.0)))
            .sum();
        assert!((v - want).abs() <= 1e-12 * 3e-14, "{i}");
    }
}

#[test]
fn derivatives_are_limits_of_differences() {
    let mut config = KernelConfig::new(Smoothness::Orders(vec![3, 4]));
    config.weights = vec![0.4, 0.7];
    config.scale = 1.3;
    let kernel = SiKernel::new(config).unwrap();
    let value = |x: [f64; 2], z: [f64; 2]| kernel.eval(&x, &z).unwrap();
    let (x, z, h) = ([0.3, 0.8], [0.65, 0.1], 1e-4);
    let by_x = (value([0.3 + h, 0.8], z) - value([0.3 - h, 0.8], z)) / (2.0 * h);
    let by_z = (value(x, [0.65, 0.1 + h]) - value(x, [0.65, 0.1 - h])) / (2.0 * h);
    let eval = |left: &[u8], right: &[u8]| {
        derivative::eval(&kernel, &[Term::derivative(left)], &[Term::derivative(right)], &x, &z).unwrap()
    };
    assert!((eval(&[0, 0], &[0, 0]) - value(x, z)).abs() < 1e-12 * value(x, z).abs());
    assert!((eval(&[1, 0], &[0, 0]) - by_x).abs() < 1e-5 * by_x.abs());
    assert!((eval(&[0, 0], &[0, 1]) - by_z).abs() < 1e-5 * by_z.abs());
    let sum = [Term::value(2), Term { factor: -2.0, orders: vec![1, 0] }];
    let got = derivative::eval(&kernel, &sum, &[Term::value(2)], &x, &z).unwrap();
    assert!((got - (value(x, z) - 2.0 * by_x)).abs() < 1e-4 * got.abs().max(1.0));
    let high = Term::derivative(&[3, 0]);
    let err = derivative::eval(&kernel, std::slice::from_ref(&high), std::slice::from_ref(&high), &x, &z);
    assert!(matches!(err, Err(Error::Argument { .. })));
    assert!(derivative::eval(&kernel, &[], &[Term::value(2)], &x, &z).is_err());
    assert!(derivative::eval(&kernel, &[Term::value(3)], &[Term::value(2)], &x, &z).is_err());

    let digital = DsiKernel::new(32, KernelConfig::new(Smoothness::order(4, 1))).unwrap();
    let got =
        derivative::eval(&digital, &[Term::derivative(&[1])], &[Term::derivative(&[1])], &[5], &[9]).unwrap();
    let want = 4.0 * (1.0 + dsi::reference::kappa(2, 5 ^ 9, 32));
    assert!((got - want).abs() < 1e-14, "{got} {want}");
    assert!(
        derivative::eval(&digital, &[Term::derivative(&[2])], &[Term::derivative(&[1])], &[5], &[9]).is_err()
    );
}

#[test]
fn bad_parameters_are_named() {
    let orders = |alpha| KernelConfig::new(Smoothness::order(alpha, 2));
    let is_argument = |error: Error, name: &str| match error {
        Error::Argument { arg, .. } => assert_eq!(arg, name),
        other => panic!("{other:?}"),
    };
    is_argument(SiKernel::new(orders(0)).unwrap_err(), "alpha");
    is_argument(SiKernel::new(orders(6)).unwrap_err(), "alpha");
    is_argument(DsiKernel::new(63, orders(5)).unwrap_err(), "alpha");
    is_argument(DsiKernel::new(65, orders(1)).unwrap_err(), "t");
    is_argument(DsiKernel::new(0, orders(1)).unwrap_err(), "t");
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut config = orders(1);
        config.weights[1] = bad;
        is_argument(SiKernel::new(config).unwrap_err(), "gamma");
        let mut config = orders(1);
        config.scale = bad;
        is_argument(SiKernel::new(config).unwrap_err(), "scale");
        let adaptive = KernelConfig::new(Smoothness::Adaptive(vec![bad, 1.0]));
        is_argument(DsiKernel::new(63, adaptive).unwrap_err(), "alpha");
        let combined = KernelConfig::new(Smoothness::Combined(vec![[1.0, 1.0, bad, 1.0]]));
        is_argument(SiKernel::new(combined).unwrap_err(), "alpha");
    }
    let adaptive = KernelConfig::new(Smoothness::Adaptive(vec![1.0]));
    assert!(matches!(SiKernel::new(adaptive), Err(Error::Unsupported { .. })));
    assert!(matches!(SiKernel::new(KernelConfig::new(Smoothness::order(1, 0))), Err(Error::Empty { .. })));
    let si = SiKernel::new(orders(1)).unwrap();
    for bad in [-0.1, 1.5, f64::NAN] {
        is_argument(si.eval(&[0.5, bad], &[0.0, 0.0]).unwrap_err(), "x");
    }
    assert!(matches!(si.eval(&[0.5], &[0.0, 0.0]), Err(Error::Shape { .. })));
    let dsi = DsiKernel::new(8, orders(1)).unwrap();
    is_argument(dsi.eval(&[256, 0], &[0, 0]).unwrap_err(), "x");
    assert!(matches!(dsi.digits(f64::NAN), Err(Error::NotFinite { .. })));
    assert_eq!(
        [0.0, 0.5, -0.25, 3.75, 0.999_999, -1e-300].map(|x| dsi.digits(x).unwrap()),
        [0, 128, 192, 192, 255, 255]
    );
}

#[test]
fn radial_kernels() {
    let at = |radial| RadialKernel::new(radial, &[0.5, 2.0], 3.0).unwrap();
    let (x, z) = ([0.1, 0.9], [0.7, 0.4]);
    let r2: f64 = (0.6f64 / 0.5).powi(2) / 2.0 + (0.5f64 / 2.0).powi(2) / 2.0;
    let r = r2.sqrt();
    for (radial, want) in [
        (Radial::Gaussian, (-r2).exp()),
        (Radial::RationalQuadratic { alpha: 1.5 }, (1.0 + r2 / 1.5).powf(-1.5)),
        (Radial::Matern12, (-r).exp()),
        (Radial::Matern32, (1.0 + 3f64.sqrt() * r) * (-3f64.sqrt() * r).exp()),
        (Radial::Matern52, (1.0 + 5f64.sqrt() * r + 5.0 * r2 / 3.0) * (-5f64.sqrt() * r).exp()),
    ] {
        assert!((at(radial).eval(&x, &z).unwrap() - 3.0 * want).abs() < 1e-14, "{radial:?}");
    }
    // Integrals by the midpoint rule.
    let kernel = RadialKernel::new(Radial::Gaussian, &[0.3], 1.5).unwrap();
    let m = 400;
    let mid = |i: i32| (f64::from(i) + 0.5) / f64::from(m);
    let single: f64 = (0..m).map(|i| kernel.eval(&[0.2], &[mid(i)]).unwrap()).sum::<f64>() / f64::from(m);
    assert!((kernel.integral(&[0.2]).unwrap() - single).abs() < 1e-5);
    let double: f64 = (0..m).map(|i| kernel.integral(&[mid(i)]).unwrap()).sum::<f64>() / f64::from(m);
    assert!((kernel.double_integral().unwrap() - double).abs() < 1e-5);
    assert!(at(Radial::Matern12).double_integral().is_err());
    assert!(RadialKernel::new(Radial::Gaussian, &[0.0], 1.0).is_err());
    assert!(RadialKernel::new(Radial::RationalQuadratic { alpha: -1.0 }, &[1.0], 1.0).is_err());
}

#[test]
fn threads_do_not_matter() {
    let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(2, 3))).unwrap();
    let x = lattice_points(3, 1 << 14, 3);
    same_on_any_pool(|| kc_kernel::Gram::new(&kernel, x.view()).unwrap().eigenvalues());
}

proptest! {
    #[test]
    fn products_follow_the_definition(
        seed in 0u64..1000,
        orders in prop::collection::vec(1u8..=4, 1..5),
        scale in 0.1..10.0f64,
    ) {
        let d = orders.len();
        let mut config = KernelConfig::new(Smoothness::Orders(orders));
        config.scale = scale;
        let mut rng = kc_core::KcRng::new(seed, 0);
        let mut uniform = || rng.uniform();
        config.weights.iter_mut().for_each(|w| *w = 0.1 + uniform());
        let (x, z): (Vec<f64>, Vec<f64>) = (0..d).map(|_| (uniform(), uniform())).unzip();
        let si = SiKernel::new(config.clone()).unwrap();
        let (got, want) = (si.eval(&x, &z).unwrap(), si::reference::kernel(&config, &x, &z));
        prop_assert!((got - want).abs() <= 1e-11 * si.diagonal(), "{} {}", got, want);
        let dsi = DsiKernel::new(63, config.clone()).unwrap();
        let digits = |x: &[f64]| x.iter().map(|&x| dsi.digits(x).unwrap()).collect::<Vec<_>>();
        let (x, z) = (digits(&x), digits(&z));
        let (got, want) = (dsi.eval(&x, &z).unwrap(), dsi::reference::kernel(&config, 63, &x, &z));
        prop_assert!((got - want).abs() <= 1e-12 * dsi.diagonal(), "{} {}", got, want);
    }
}
