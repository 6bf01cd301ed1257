//! Closed forms and classifiers.

use kc_core::{Error, Tensor};
use kc_features::relu::Relu;
use kc_features::snnk::{
    Bundle, Features, LogisticConfig, Map, Nonlinearity, SnnkConfig, StreamingFit, fit_closed_form,
    fit_logistic, fit_weighted,
};
use kc_features::universal::Spectrum;
use kc_features::{FeatureMap, Projection};
use kc_gemm::gemm;
use kc_testing::{Tol, assert_close};

use super::tensor;

fn relu(m: usize, d: usize) -> Bundle<f64> {
    let config = SnnkConfig { features: m, seed: 4, ..SnnkConfig::default() };
    Bundle::new(vec![Map::draw(&config, d, false).unwrap()]).unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// `F^T (F c - y) + ridge c`, relative to `F^T y`; `c` `[out, m]`.
fn normal_residual(f: &Tensor<f64, 2>, y: &Tensor<f64, 2>, psi: &Tensor<f64, 2>, ridge: f64) -> f64 {
    let mut error = gemm(f.view(), psi.view().transposed()).unwrap();
    error.as_mut_slice().iter_mut().zip(y.as_slice()).for_each(|(e, y)| *e -= y);
    let mut left = gemm(error.view().transposed(), f.view()).unwrap();
    left.as_mut_slice().iter_mut().zip(psi.as_slice()).for_each(|(l, p)| *l += ridge * p);
    norm(left.as_slice()) / norm(gemm(y.view().transposed(), f.view()).unwrap().as_slice())
}

#[test]
fn normal_equations_hold() {
    for (n, m, out) in [(1, 1, 1), (40, 12, 3), (300, 130, 2), (9, 20, 2)] {
        let (x, y) = (tensor(n, 5, 1), tensor(n, out, 2));
        let bundle = relu(m, 5);
        let f = bundle.apply(x.view()).unwrap();
        if norm(f.as_slice()) == 0.0 {
            continue;
        }
        for ridge in [0.0, 1e-3, 2.0] {
            let fitted = fit_closed_form(&bundle, x.view(), y.view(), ridge).unwrap();
            let psi = fitted.psi().to_tensor().unwrap();
            let residual = normal_residual(&f, &y, &psi, ridge);
            assert!(residual < 1e-8, "{n} x {m}, ridge {ridge}: {residual:e}");
        }
    }
}

#[test]
fn without_ridge_the_shortest_solution() {
    // Fewer rows than features; rows that repeat; directions that repeat.
    for (n, m, copies, repeats) in [(9, 20, 1, 1), (8, 12, 1, 3), (60, 14, 2, 1), (10, 9, 4, 2)] {
        let x = tensor(n, 6, 1);
        let x = Tensor::from_fn([n * repeats, 6], |[i, j]| x[[i % n, j]]).unwrap();
        let y = tensor(n * repeats, 2, 3);
        let g = tensor(m, 6, 4);
        let g = Tensor::from_fn([m * copies, 6], |[k, j]| g[[k % m, j]]).unwrap();
        let relu = Relu::arc_cosine(Projection::new(g).unwrap(), 0.0).unwrap();
        let bundle = Bundle::new(vec![Map::new(Features::Relu(relu), None, false).unwrap()]).unwrap();
        let f = bundle.apply(x.view()).unwrap();
        let psi = fit_closed_form(&bundle, x.view(), y.view(), 0.0).unwrap().psi().to_tensor().unwrap();
        // A solution, and in the span of the rows of F: that is the shortest one.
        assert!(normal_residual(&f, &y, &psi, 0.0) < 1e-8);
        let beside = outside_of_row_space(&f, &psi);
        assert!(beside < 1e-8, "{beside:e}");
        for k in m..m * copies {
            assert!(
                (psi[[0, k]] - psi[[0, k % m]]).abs() < 1e-8 * norm(psi.as_slice()),
                "copies share equally"
            );
        }
    }
}

/// How far the rows of `psi` are from the span of the rows of `f`, relative.
fn outside_of_row_space(f: &Tensor<f64, 2>, psi: &Tensor<f64, 2>) -> f64 {
    // Gram-Schmidt, twice, with small rows dropped.
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let reduce = |row: &mut Vec<f64>, basis: &[Vec<f64>]| {
        for _ in 0..2 {
            for b in basis {
                let along: f64 = row.iter().zip(b).map(|(r, b)| r * b).sum();
                row.iter_mut().zip(b).for_each(|(r, b)| *r -= along * b);
            }
        }
    };
    let m = f.shape()[1];
    for row in f.as_slice().chunks(m) {
        let (mut rest, size) = (row.to_vec(), norm(row));
        reduce(&mut rest, &basis);
        let left = norm(&rest);
        if left > 1e-10 * size {
            rest.iter_mut().for_each(|x| *x /= left);
            basis.push(rest);
        }
    }
    let mut worst: f64 = 0.0;
    for row in psi.as_slice().chunks(m) {
        let mut rest = row.to_vec();
        reduce(&mut rest, &basis);
        worst = worst.max(norm(&rest) / norm(row));
    }
    worst
}

#[test]
fn chunks_give_what_all_rows_give() {
    let (x, y) = (tensor(200, 6, 1), tensor(200, 3, 2));
    let complex = SnnkConfig {
        map: Nonlinearity::Universal { spectrum: Spectrum::Cos, split: 0.5, lam: 0.0, antithetic: false },
        features: 10,
        ..SnnkConfig::default()
    };
    for bundle in [relu(30, 6), Bundle::new(vec![Map::draw(&complex, 6, false).unwrap()]).unwrap()] {
        let want = fit_closed_form(&bundle, x.view(), y.view(), 0.1).unwrap();
        let mut stream = StreamingFit::new(&bundle, 3).unwrap();
        assert!(matches!(stream.solve(0.1), Err(Error::Empty { .. })));
        for start in (0..200).step_by(64) {
            let rows = start..200.min(start + 64);
            stream
                .observe(x.view().slice(0, rows.clone()).unwrap(), y.view().slice(0, rows).unwrap())
                .unwrap();
        }
        assert_eq!(stream.rows(), 200);
        let got = stream.solve(0.1).unwrap();
        assert_close(&got.psi().to_vec(), &want.psi().to_vec(), Tol::new(1e-8, 1e-9));
        assert!(matches!(stream.solve(0.0), Err(Error::Unsupported { .. })));
        // A prediction is better than none.
        let error = |psi: &kc_features::snnk::Bundled<f64>| {
            let p = psi.forward(x.view()).unwrap();
            p.as_slice().iter().zip(y.as_slice()).map(|(p, y)| (p - y).powi(2)).sum::<f64>()
        };
        assert!(error(&want) < 0.9 * norm(y.as_slice()).powi(2));
    }
}

#[test]
fn weights_of_rows_count_as_repetitions() {
    let (x, y) = (tensor(20, 4, 1), tensor(20, 2, 2));
    let bundle = relu(8, 4);
    let weights: Vec<f64> = (0..20).map(|i| f64::from(i % 3)).collect();
    let rows: Vec<usize> = (0..20).flat_map(|i| std::iter::repeat_n(i, i % 3)).collect();
    let repeat =
        |t: &Tensor<f64, 2>| Tensor::from_fn([rows.len(), t.shape()[1]], |[i, j]| t[[rows[i], j]]).unwrap();
    for ridge in [0.0, 0.3] {
        let got = fit_weighted(&bundle, x.view(), y.view(), Some(&weights), ridge).unwrap();
        let want = fit_closed_form(&bundle, repeat(&x).view(), repeat(&y).view(), ridge).unwrap();
        assert_close(&got.psi().to_vec(), &want.psi().to_vec(), Tol::abs(1e-9));
    }
}

#[test]
fn logistic_regression_reaches_the_optimum() {
    let n = 150;
    let x = tensor(n, 4, 1);
    let labels: Vec<usize> =
        (0..n).map(|i| usize::from(x[[i, 0]] > 0.0) + usize::from(x[[i, 0]].min(x[[i, 1]]) > 0.0)).collect();
    let bundle = relu(24, 4);
    let config = LogisticConfig { ridge: 0.05, ..LogisticConfig::default() };
    let fitted = fit_logistic(&bundle, x.view(), &labels, 3, &config).unwrap();
    assert!(fitted.steps < 15, "{}", fitted.steps);
    let f = bundle.apply(x.view()).unwrap();
    let loss = |psi: &[f64]| -> f64 {
        let mut sum = 0.5 * config.ridge * psi.iter().map(|p| p * p).sum::<f64>();
        for (i, &label) in labels.iter().enumerate() {
            let z: Vec<f64> = psi
                .chunks(24)
                .map(|p| p.iter().zip(&f.as_slice()[i * 24..]).map(|(p, f)| p * f).sum())
                .collect();
            sum += z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label];
        }
        sum
    };
    let psi = fitted.network.psi().to_vec();
    assert!((loss(&psi) - fitted.loss).abs() < 1e-9 * fitted.loss);
    // At the optimum the gradient vanishes, against its size elsewhere.
    let flat = vec![0.0; psi.len()];
    let step = 1e-5;
    let slope = |psi: &[f64], i: usize| {
        let (mut up, mut down) = (psi.to_vec(), psi.to_vec());
        (up[i], down[i]) = (psi[i] + step, psi[i] - step);
        (loss(&up) - loss(&down)) / (2.0 * step)
    };
    let start = (0..psi.len()).map(|i| slope(&flat, i).abs()).fold(0.0, f64::max);
    for i in 0..psi.len() {
        assert!(slope(&psi, i).abs() < 1e-6 * start);
    }
    let y = fitted.network.forward(x.view()).unwrap();
    let right = (0..n)
        .filter(|&i| kc_core::math::arg_max(&y.as_slice()[3 * i..3 * i + 3]) == Some(labels[i]))
        .count();
    assert!(right * 10 > n * 8, "{right} of {n}");
}

#[test]
fn bad_fits_are_errors() {
    let (x, y, bundle) = (tensor(8, 4, 1), tensor(8, 2, 2), relu(5, 4));
    let fit = |ridge| fit_closed_form(&bundle, x.view(), y.view(), ridge).map(|_| ());
    assert!(matches!(fit(-1.0), Err(Error::Argument { .. })));
    assert!(matches!(fit(f64::NAN), Err(Error::Argument { .. })));
    let short = y.view().slice(0, 0..7).unwrap();
    assert!(matches!(fit_closed_form(&bundle, x.view(), short, 0.1), Err(Error::Shape { .. })));
    assert!(matches!(
        fit_weighted(&bundle, x.view(), y.view(), Some(&[-1.0; 8]), 0.1),
        Err(Error::Argument { .. })
    ));
    let none = x.view().slice(0, 0..0).unwrap();
    assert!(matches!(
        fit_closed_form(&bundle, none, y.view().slice(0, 0..0).unwrap(), 0.1),
        Err(Error::Empty { .. })
    ));
    let labels = [0, 1, 2, 0, 1, 2, 0, 3];
    let config = LogisticConfig::default();
    assert!(matches!(
        fit_logistic(&bundle, x.view(), &labels, 3, &config),
        Err(Error::Index { index: 3, .. })
    ));
    let flat = LogisticConfig { ridge: 0.0, ..config };
    assert!(matches!(fit_logistic(&bundle, x.view(), &labels, 4, &flat), Err(Error::Argument { .. })));
    assert!(matches!(
        fit_logistic(&bundle, x.view(), &labels, 4000, &LogisticConfig::default()),
        Err(Error::TooLarge { .. })
    ));
}
