//! Fourier features against their kernels, and the exact arc-cosine kernels.

use kc_core::{Error, Tensor, TensorView};
use kc_features::arc_cosine::{Order, arccos_kernel};
use kc_features::fourier::{Fourier, Kernel};
use kc_features::projection::gaussian_projection;
use kc_features::snnk::reference;
use kc_features::{Draw, FeatureMap, Scaling};
use kc_testing::{Tol, assert_close, normals, same_on_any_pool, strided};

fn tensor(rows: usize, cols: usize, seed: u64) -> Tensor<f64, 2> {
    let values: Vec<f64> = normals(rows * cols, seed).into_iter().map(f64::from).collect();
    Tensor::from_slice([rows, cols], &values).unwrap()
}

fn matern(nu: f64, r: f64) -> f64 {
    let s = (2.0 * nu).sqrt() * r;
    match nu {
        0.5 => (-s).exp(),
        1.5 => (1.0 + s) * (-s).exp(),
        _ => (1.0 + s + s * s / 3.0) * (-s).exp(),
    }
}

#[test]
fn products_are_the_kernels_on_average() {
    let (n, d, length) = (6, 4, 1.7);
    let x = tensor(n, d, 1);
    let distance = |i: usize, j: usize, power: f64| {
        (0..d).map(|k| (x[[i, k]] - x[[j, k]]).abs().powf(power)).sum::<f64>().powf(1.0 / power) / length
    };
    type Exact<'a> = &'a dyn Fn(usize, usize) -> f64;
    let gauss: Exact<'_> = &|i, j| (-0.5 * distance(i, j, 2.0).powi(2)).exp();
    let laplace: Exact<'_> = &|i, j| (-distance(i, j, 1.0)).exp();
    let (half, three, five): (Exact<'_>, Exact<'_>, Exact<'_>) =
        (&|i, j| matern(0.5, distance(i, j, 2.0)), &|i, j| matern(1.5, distance(i, j, 2.0)), &|i, j| {
            matern(2.5, distance(i, j, 2.0))
        });
    let orthogonal = Draw::Orthogonal(Scaling::Chi);
    for (kernel, draw, exact) in [
        (Kernel::Gauss, Draw::Independent, gauss),
        (Kernel::Gauss, orthogonal, gauss),
        (Kernel::Laplace, Draw::Independent, laplace),
        (Kernel::Matern { nu: 0.5 }, Draw::Independent, half),
        (Kernel::Matern { nu: 1.5 }, orthogonal, three),
        (Kernel::Matern { nu: 2.5 }, orthogonal, five),
    ] {
        // As many as it takes for a chance deviation of a few hundred seeds to drown.
        const SEEDS: usize = 4000;
        let mut sums = vec![(0.0, 0.0); n * n];
        for seed in 0..SEEDS {
            let map = Fourier::draw(kernel, length, draw, 32, d, seed as u64).unwrap();
            let phi = map.apply(x.view()).unwrap();
            let gram = kc_gemm::gemm(phi.view(), phi.view().transposed()).unwrap();
            for (s, k) in sums.iter_mut().zip(gram.as_slice()) {
                *s = (s.0 + k, s.1 + k * k);
            }
        }
        for i in 0..n {
            for j in 0..n {
                let (sum, squares) = sums[i * n + j];
                let mean = sum / SEEDS as f64;
                let error = ((squares / SEEDS as f64 - mean * mean).max(0.0) / SEEDS as f64).sqrt();
                let off = (mean - exact(i, j)).abs();
                assert!(off <= 4.0 * error + 1e-12, "{kernel:?} {draw:?}: off by {off:e} +- {error:e}");
                assert!(error < 0.007);
                assert!(i != j || off < 1e-12, "the diagonal is exact");
            }
        }
    }
}

#[test]
fn frequencies_are_kept_and_layouts_do_not_matter() {
    let (n, d) = (90, 7);
    let x = tensor(n, d, 2);
    for draw in [Draw::Independent, Draw::Orthogonal(Scaling::SqrtDim), Draw::Hadamard] {
        let map = Fourier::<f64>::draw(Kernel::Matern { nu: 0.8 }, 2.0, draw, 11, d, 3).unwrap();
        let want = same_on_any_pool(|| map.apply(x.view()).unwrap().into_vec());
        let frequencies = map.frequencies().unwrap();
        let again = Fourier::new(frequencies.clone()).unwrap().apply(x.view()).unwrap();
        assert_close(again.as_slice(), &want, Tol::abs(1e-13));
        let z = kc_gemm::reference::gemm(x.view(), frequencies.view().transposed()).unwrap();
        for (row, z) in want.chunks(22).zip(z.as_slice().chunks(11)) {
            for k in 0..11 {
                let scale = 11f64.powf(-0.5);
                assert!((row[k] - scale * z[k].cos()).abs() < 1e-12);
                assert!((row[11 + k] - scale * z[k].sin()).abs() < 1e-12);
            }
        }
        for x in strided(n, d, x.as_slice(), f64::NAN) {
            assert_close(map.apply(x.view()).unwrap().as_slice(), &want, Tol::abs(1e-13));
        }
        let narrow = Fourier::<f32>::draw(Kernel::Matern { nu: 0.8 }, 2.0, draw, 11, d, 3).unwrap();
        let single: Vec<f32> = x.as_slice().iter().map(|&x| x as f32).collect();
        let got = narrow.apply(TensorView::from_slice([n, d], &single).unwrap()).unwrap();
        assert!(kc_testing::relative_error(got.as_slice(), &want) < 1e-5);
    }
}

#[test]
fn bad_kernels_are_errors() {
    let draw = |kernel, length, draw, m, d| Fourier::<f64>::draw(kernel, length, draw, m, d, 1).map(|_| ());
    let independent = Draw::Independent;
    assert!(matches!(draw(Kernel::Gauss, 0.0, independent, 2, 2), Err(Error::Argument { .. })));
    assert!(matches!(draw(Kernel::Gauss, f64::NAN, independent, 2, 2), Err(Error::Argument { .. })));
    assert!(matches!(draw(Kernel::Matern { nu: -1.0 }, 1.0, independent, 2, 2), Err(Error::Argument { .. })));
    assert!(matches!(draw(Kernel::Laplace, 1.0, Draw::Hadamard, 2, 2), Err(Error::Unsupported { .. })));
    for kernel in [Kernel::Gauss, Kernel::Laplace, Kernel::Matern { nu: 0.5 }] {
        assert!(matches!(draw(kernel, 1.0, independent, 0, 2), Err(Error::Empty { .. })));
        assert!(matches!(draw(kernel, 1.0, independent, 2, 0), Err(Error::Empty { .. })));
    }
}

#[test]
fn arc_cosine_kernels_of_all_orders() {
    let (x, w) = (tensor(4, 3, 1), tensor(3, 3, 2));
    let g = gaussian_projection::<f64>(200_000, 3, 3).unwrap();
    let product = |rows: &Tensor<f64, 2>| kc_gemm::gemm(rows.view(), g.view().transposed()).unwrap();
    let (zx, zw) = (product(&x), product(&w));
    for (order, f) in [
        (Order::Zero, (|z: f64| f64::from(u8::from(z > 0.0))) as fn(f64) -> f64),
        (Order::One, |z: f64| z.max(0.0)),
        (Order::Two, |z: f64| z.max(0.0) * z.max(0.0)),
    ] {
        let kernel = arccos_kernel(order, x.view(), w.view()).unwrap();
        let definition = reference::arccos_kernel(order, x.view(), w.view()).unwrap();
        assert_close(kernel.as_slice(), definition.as_slice(), Tol::new(1e-12, 1e-13));
        for i in 0..4 {
            for o in 0..3 {
                let m = g.shape()[0];
                let (mut sum, mut squares) = (0.0, 0.0);
                for k in 0..m {
                    let value = f(zx[[i, k]]) * f(zw[[o, k]]);
                    sum += value;
                    squares += value * value;
                }
                let mean = sum / m as f64;
                let error = ((squares / m as f64 - mean * mean) / m as f64).sqrt();
                assert!((kernel[[i, o]] - mean).abs() < 4.0 * error, "{order:?} {i} {o}");
            }
        }
    }
    // A row of zeros, and a row with itself.
    let zeros = Tensor::<f64, 2>::zeros([1, 3]).unwrap();
    assert_eq!(arccos_kernel(Order::One, zeros.view(), w.view()).unwrap().as_slice(), [0.0; 3]);
    let own = arccos_kernel(Order::One, x.view(), x.view()).unwrap();
    let square: f64 = (0..3).map(|j| x[[0, j]] * x[[0, j]]).sum();
    assert!((own[[0, 0]] - square / 2.0).abs() < 1e-8 * square);
    assert!(arccos_kernel(Order::One, x.view(), tensor(2, 4, 1).view()).is_err());
}
