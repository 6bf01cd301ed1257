//! Several tasks against dense matrices of all of them.

use kc_core::{Error, Tensor};
use kc_kernel::derivative::{self, Term};
use kc_kernel::dsi::DsiKernel;
use kc_kernel::gp::DenseGp;
use kc_kernel::multitask::{MultiGp, MultiGram, Tasks};
use kc_kernel::si::SiKernel;
use kc_kernel::{Kernel, KernelConfig, Points, Smoothness};

use crate::support::{assert_near, lattice_points, net_points, points};

/// The kernel of two tasks.
fn value<K: Kernel>(kernel: &K, tasks: &Tasks, l: usize, m: usize, x: &[K::Point], z: &[K::Point]) -> f64 {
    match tasks {
        Tasks::Related { count, matrix } => {
            let one = [Term::value(x.len())];
            matrix[l * count + m] * derivative::eval(kernel, &one, &one, x, z).unwrap()
        }
        Tasks::Derivatives(all) => derivative::eval(kernel, &all[l], &all[m], x, z).unwrap(),
    }
}

fn dense<K: Kernel>(
    kernel: &K,
    tasks: &Tasks,
    sets: &[Points<K::Point>],
    others: &[Points<K::Point>],
) -> Tensor<f64, 2> {
    let rows = |sets: &[Points<K::Point>]| -> Vec<(usize, Vec<K::Point>)> {
        sets.iter().enumerate().flat_map(|(l, x)| (0..x.len()).map(move |i| (l, x.point(i)))).collect()
    };
    let (a, b) = (rows(sets), rows(others));
    Tensor::from_fn([a.len(), b.len()], |[i, j]| value(kernel, tasks, a[i].0, b[j].0, &a[i].1, &b[j].1))
        .unwrap()
}

fn check<K: Kernel>(kernel: &K, tasks: &Tasks, sets: &[Points<K::Point>], xs: &Points<K::Point>) {
    let noise = 1e-3;
    let y: Vec<Vec<f64>> = sets
        .iter()
        .enumerate()
        .map(|(l, x)| (0..x.len()).map(|i| ((i * 31 + l * 7) % 13) as f64 / 6.0 - 0.8).collect())
        .collect();
    let flat = y.concat();
    let k = dense(kernel, tasks, sets, sets);
    let gram = MultiGram::new(kernel, tasks, sets).unwrap();
    let n = flat.len();
    let times: Vec<f64> =
        k.as_slice().chunks(n).map(|row| row.iter().zip(&flat).map(|(k, y)| k * y).sum()).collect();
    assert_near(&gram.mul(&y).unwrap().concat(), &times, 1e-12, "product");

    let gp = MultiGp::new(kernel.clone(), tasks.clone(), sets.to_vec(), &y, noise).unwrap();
    let mut shifted = k.clone();
    let mut at = 0;
    for (l, x) in sets.iter().enumerate() {
        let ratio = value(kernel, tasks, l, l, &x.point(0), &x.point(0))
            / value(kernel, tasks, 0, 0, &sets[0].point(0), &sets[0].point(0));
        assert!((gp.noise()[l] - noise * ratio).abs() < 1e-12 * noise * ratio);
        for _ in 0..x.len() {
            shifted[[at, at]] += gp.noise()[l];
            at += 1;
        }
    }
    let want = DenseGp::new(shifted.view(), 0.0, &flat).unwrap();
    assert_near(&gp.coefficients().concat(), want.coefficients(), 1e-8, "coefficients");
    assert!((gp.mll() - want.mll()).abs() < 1e-8 * want.mll().abs(), "{} {}", gp.mll(), want.mll());
    for task in 0..tasks.count() {
        let mut at: Vec<Points<K::Point>> = vec![Points::new(kernel.dims()); tasks.count()];
        at[task] = xs.clone();
        let cross = dense(kernel, tasks, &at, sets);
        assert_near(&gp.mean(task, xs).unwrap(), &want.mean(cross.view()).unwrap(), 1e-8, "means");
        let diagonal: Vec<f64> =
            (0..xs.len()).map(|i| value(kernel, tasks, task, task, &xs.point(i), &xs.point(i))).collect();
        let variance = want.variance(cross.view(), &diagonal).unwrap();
        assert_near(&gp.variance(task, xs).unwrap(), &variance, 1e-7, "variances");
    }
}

fn si(orders: Vec<u8>) -> SiKernel {
    let mut config = KernelConfig::new(Smoothness::Orders(orders));
    config.scale = 1.4;
    SiKernel::new(config).unwrap()
}

fn lattices(sizes: &[usize]) -> Vec<Points<f64>> {
    let kernel = si(vec![2, 2]);
    sizes.iter().zip(10..).map(|(&n, seed)| points(&kernel, lattice_points(2, n, seed).view())).collect()
}

/// One matrix, several shifts: digits moved by one shift each.
fn nets(kernel: &DsiKernel, sizes: &[usize; 3]) -> Vec<Points<u64>> {
    let base = net_points(2, 64, 5);
    let moved = |(&n, shift): (&usize, u64)| {
        let x: Vec<u64> = base.as_slice()[..2 * n].iter().map(|x| x ^ shift).collect();
        points(kernel, Tensor::from_slice([n, 2], &x).unwrap().view())
    };
    sizes.iter().zip([0u64, 0x1234_5678_9abc, 0x0fed_cba9_8765_4321]).map(moved).collect()
}

#[test]
fn related_tasks_of_all_sizes() {
    let low = Tasks::low_rank(&[0.9, 0.1, -0.5, 0.7, 0.3, 0.2], &[0.4, 0.3, 0.5]).unwrap();
    let triangular = Tasks::triangular(&[1.2, 0.0, 0.0, 0.5, 0.8, 0.0, -0.3, 0.2, 0.6], 3).unwrap();
    for tasks in [low, triangular] {
        for sizes in [[16, 16, 16], [32, 8, 4], [4, 32, 1], [1, 2, 16], [8, 8, 32]] {
            let xs = points(&si(vec![2, 2]), lattice_points(2, 4, 77).view());
            check(&si(vec![1, 2]), &tasks, &lattices(&sizes), &xs);
            let kernel = DsiKernel::new(63, KernelConfig::new(Smoothness::Orders(vec![2, 3]))).unwrap();
            let sets = nets(&kernel, &sizes);
            check(&kernel, &tasks, &sets, &points(&kernel, net_points(2, 4, 6).view()));
        }
    }
}

#[test]
fn a_function_with_its_derivatives() {
    let tasks = Tasks::Derivatives(vec![
        vec![Term::value(2)],
        vec![Term::derivative(&[1, 0])],
        vec![Term { factor: 0.5, orders: vec![0, 1] }, Term { factor: -0.25, orders: vec![0, 0] }],
    ]);
    let xs = points(&si(vec![2, 2]), lattice_points(2, 4, 77).view());
    for sizes in [[16, 16, 16], [32, 8, 4], [4, 16, 8]] {
        check(&si(vec![3, 3]), &tasks, &lattices(&sizes), &xs);
    }
}

#[test]
fn derivatives_help() {
    // Values at 16 points with and without gradients.
    let f = |x: &[f64]| (std::f64::consts::TAU * x[0]).sin() * (std::f64::consts::TAU * x[1]).cos();
    let kernel = si(vec![3, 3]);
    let sets = lattices(&[16, 16, 16]);
    let h = 1e-6;
    let slope = |x: &[f64], j: usize| {
        let (mut a, mut b) = (x.to_vec(), x.to_vec());
        (a[j], b[j]) = (x[j] + h, x[j] - h);
        (f(&a) - f(&b)) / (2.0 * h)
    };
    let at =
        |l: usize, g: &dyn Fn(&[f64]) -> f64| -> Vec<f64> { (0..16).map(|i| g(&sets[l].point(i))).collect() };
    let y = [at(0, &f), at(1, &|x| slope(x, 0)), at(2, &|x| slope(x, 1))];
    let xs = points(&kernel, lattice_points(2, 64, 9).view());
    let error = |gp: &MultiGp<SiKernel>| -> f64 {
        let mean = gp.mean(0, &xs).unwrap();
        (0..64).map(|i| (mean[i] - f(&xs.point(i))).powi(2)).sum::<f64>().sqrt()
    };
    let all = Tasks::Derivatives(vec![
        vec![Term::value(2)],
        vec![Term::derivative(&[1, 0])],
        vec![Term::derivative(&[0, 1])],
    ]);
    let with = MultiGp::new(kernel.clone(), all, sets.clone(), &y, 1e-8).unwrap();
    let values = Tasks::Derivatives(vec![vec![Term::value(2)]]);
    let without = MultiGp::new(kernel, values, vec![sets[0].clone()], &y[..1], 1e-8).unwrap();
    assert!(error(&with) < 0.5 * error(&without), "{} {}", error(&with), error(&without));
    assert!(matches!(with.cubature(), Err(Error::Unsupported { .. })));
}

#[test]
fn integrals_of_related_tasks() {
    let tasks = Tasks::low_rank(&[0.9, 0.7], &[0.1, 0.1]).unwrap();
    let y = vec![vec![3.0; 64], vec![-1.0; 16]];
    let gp = MultiGp::new(si(vec![2, 2]), tasks, lattices(&[64, 16]), &y, 1e-8).unwrap();
    let first = gp.cubature_of(0).unwrap();
    assert!((first.mean[0] - 3.0).abs() < 0.03 && (gp.cubature_of(1).unwrap().mean[0] + 1.0).abs() < 0.1);
    assert!(first.variance >= 0.0 && first.variance < gp.cubature_of(1).unwrap().variance);
    assert!(matches!(gp.cubature_of(2), Err(Error::Index { .. })));
}

#[test]
fn bad_tasks_are_errors() {
    assert!(Tasks::low_rank(&[1.0, 2.0, 3.0], &[1.0, 1.0]).is_err());
    assert!(Tasks::low_rank(&[1.0, 2.0], &[1.0, 0.0]).is_err());
    assert!(Tasks::low_rank(&[], &[]).is_err());
    assert!(Tasks::triangular(&[1.0, 1.0, 1.0, 1.0], 2).is_err());
    assert!(Tasks::triangular(&[1.0; 3], 2).is_err());
    let kernel = si(vec![2, 2]);
    let good = Tasks::low_rank(&[1.0, 1.0], &[1.0, 1.0]).unwrap();
    let sets = lattices(&[8, 8]);
    assert!(matches!(MultiGram::new(&kernel, &good, &sets[..1]), Err(Error::Shape { .. })));
    let asymmetric = Tasks::Related { count: 2, matrix: vec![1.0, 0.5, 0.2, 1.0] };
    assert!(matches!(MultiGram::new(&kernel, &asymmetric, &sets), Err(Error::Argument { .. })));
    let indefinite = Tasks::Related { count: 2, matrix: vec![1.0, 2.0, 2.0, 1.0] };
    let gram = MultiGram::new(&kernel, &indefinite, &sets).unwrap();
    assert!(matches!(gram.factor(&[0.0, 0.0]), Err(Error::Singular { .. })));
    assert!(matches!(gram.factor(&[-1.0, 0.0]), Err(Error::Argument { .. })));
    let high = Tasks::Derivatives(vec![vec![Term::derivative(&[2, 0])]]);
    assert!(matches!(MultiGram::new(&kernel, &high, &sets[..1]), Err(Error::Argument { .. })));
    // Two lattices with different vectors.
    let other = Tensor::from_slice([4, 2], &[0.0, 0.0, 0.5, 0.0, 0.25, 0.0, 0.75, 0.0]).unwrap();
    let mixed = [sets[0].clone(), points(&kernel, other.view())];
    assert!(matches!(MultiGram::new(&kernel, &good, &mixed), Err(Error::Argument { .. })));
}

/// The log-likelihood of tasks with fixed noise.
fn likelihood<K: Kernel>(
    config: KernelConfig,
    kernel: &K,
    matrix: &[f64],
    sets: &[Points<K::Point>],
    y: &[Vec<f64>],
    noise: &[f64],
) -> f64 {
    let tasks = Tasks::Related { count: sets.len(), matrix: matrix.to_vec() };
    let gram = MultiGram::new(&kernel.with_config(config).unwrap(), &tasks, sets).unwrap();
    let factor = gram.factor(noise).unwrap();
    let n: usize = y.iter().map(Vec::len).sum();
    -0.5 * (factor.quadratic(y).unwrap() + factor.log_det() + n as f64 * std::f64::consts::TAU.ln())
}

fn check_gradient<K: Kernel>(kernel: &K, sets: Vec<Points<K::Point>>) {
    let count = sets.len();
    let (factor, diagonal) = ([0.9, 0.2, -0.4, 0.8, 0.3, 0.5], [0.3, 0.2, 0.4]);
    let tasks = Tasks::low_rank(&factor, &diagonal).unwrap();
    let Tasks::Related { matrix, .. } = &tasks else { panic!("related") };
    let y: Vec<Vec<f64>> = sets
        .iter()
        .enumerate()
        .map(|(l, x)| (0..x.len()).map(|i| ((i * 29 + l * 5) % 17) as f64 / 9.0 - 0.9).collect())
        .collect();
    let gp = MultiGp::new(kernel.clone(), tasks.clone(), sets.clone(), &y, 0.05).unwrap();
    let found = gp.gradient().unwrap();
    let config = kernel.config().clone();
    let value = |config: KernelConfig, matrix: &[f64], noise: &[f64]| {
        likelihood(config, kernel, matrix, &sets, &y, noise)
    };
    assert!((found.value / value(config.clone(), matrix, gp.noise()) - 1.0).abs() < 1e-12);
    let step = 1e-5;
    let near = |got: f64, f: &dyn Fn(f64) -> f64, what: &str| {
        let want = (f(step) - f(-step)) / (2.0 * step);
        assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{what}: {got} not {want}");
    };
    let scaled = |h: f64| {
        let mut config = config.clone();
        config.scale *= h.exp();
        value(config, matrix, gp.noise())
    };
    near(found.scale, &scaled, "scale");
    for j in 0..kernel.dims() {
        let weighted = |h: f64| {
            let mut config = config.clone();
            config.weights[j] *= h.exp();
            value(config, matrix, gp.noise())
        };
        near(found.weights[j], &weighted, "weight");
    }
    for l in 0..count {
        let noisy = |h: f64| {
            let mut noise = gp.noise().to_vec();
            noise[l] *= h.exp();
            value(config.clone(), matrix, &noise)
        };
        near(found.noise[l], &noisy, "noise");
    }
    let terms = found.smoothness.len();
    for at in 0..terms {
        let smoother = |h: f64| {
            let mut config = config.clone();
            let Smoothness::Adaptive(orders) = &mut config.smoothness else { panic!("orders have no terms") };
            orders[at] *= h.exp();
            value(config, matrix, gp.noise())
        };
        near(found.smoothness[at], &smoother, "smoothness");
    }
    let (by_factor, by_diagonal) = found.low_rank(&factor, &diagonal).unwrap();
    let of_tasks = |factor: &[f64], diagonal: &[f64]| match Tasks::low_rank(factor, diagonal).unwrap() {
        Tasks::Related { matrix, .. } => value(config.clone(), &matrix, gp.noise()),
        Tasks::Derivatives(_) => panic!("related"),
    };
    for (at, got) in by_factor.iter().enumerate() {
        let moved = |h: f64| {
            let mut factor = factor;
            factor[at] += h;
            of_tasks(&factor, &diagonal)
        };
        near(*got, &moved, "factor");
    }
    for (l, got) in by_diagonal.iter().enumerate() {
        let moved = |h: f64| {
            let mut diagonal = diagonal;
            diagonal[l] *= h.exp();
            of_tasks(&factor, &diagonal)
        };
        near(*got, &moved, "diagonal");
    }
}

#[test]
fn gradients_are_those_of_differences() {
    for sizes in [[16, 16, 16], [4, 32, 8], [64, 1, 16]] {
        check_gradient(&si(vec![1, 2]), lattices(&sizes));
        let adaptive = KernelConfig::new(Smoothness::Adaptive(vec![1.5, 2.5]));
        let kernel = DsiKernel::new(63, adaptive).unwrap();
        check_gradient(&kernel, nets(&kernel, &sizes));
    }
}

#[test]
fn gradients_of_derivative_tasks_are_refused() {
    let kernel = si(vec![3, 3]);
    let tasks = Tasks::Derivatives(vec![vec![Term::value(2)]]);
    let gp = MultiGp::new(kernel, tasks, lattices(&[4]), &[vec![0.0, 1.0, 0.5, -1.0]], 1e-3).unwrap();
    assert!(matches!(gp.gradient(), Err(Error::Unsupported { .. })));
}
