//! Laws of the features, levels, layouts, memory, bad input.

use kc_core::{Error, Tensor, TensorView};
use kc_features::maclaurin::{Maclaurin, Series};
use kc_features::relu::Relu;
use kc_features::snnk::{Features, Map, Nonlinearity, SnnkConfig, SnnkLayer, exact_layer};
use kc_features::universal::{Spectrum, Universal};
use kc_features::{Draw, FeatureMap, Projection, Scaling};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, each_isa, same_on_any_pool, strided};

use super::{C, convert, layer, tensor};

/// Mean over seeds of `y - exact`, in standard errors of the mean: must be below 4.
fn unbiased(config: &SnnkConfig, x: &Tensor<f64, 2>, w: &Tensor<f64, 2>, b: Option<&[f64]>, exact: &[f64]) {
    const SEEDS: usize = 400;
    let mut sums = vec![(0.0, 0.0); exact.len()];
    for seed in 0..SEEDS {
        let config = SnnkConfig { seed: seed as u64, ..config.clone() };
        let y = SnnkLayer::from_weights(w.view(), b, &config).unwrap().forward(x.view()).unwrap();
        for ((s, y), e) in sums.iter_mut().zip(y.as_slice()).zip(exact) {
            s.0 += y - e;
            s.1 += (y - e) * (y - e);
        }
    }
    for (i, (sum, squares)) in sums.into_iter().enumerate() {
        let mean = sum / SEEDS as f64;
        let error = ((squares / SEEDS as f64 - mean * mean) / SEEDS as f64).sqrt();
        assert!(mean.abs() < 4.0 * error, "{config:?} entry {i}: off by {mean:e} +- {error:e}");
        assert!(error < 0.2, "{config:?}: too noisy to tell ({error:e})");
    }
}

#[test]
fn unbiased_over_seeds() {
    // Lengths other than 1, with biases.
    let scale = |t: Tensor<f64, 2>, by: f64| Tensor::from_fn(t.shape(), |i| by * t[i]).unwrap();
    let (x, w) = (scale(tensor(2, 6, 1), 0.8), scale(tensor(2, 6, 2), 0.7));
    let b = [0.3, -0.4];
    let universal = |spectrum, split, lam, antithetic| SnnkConfig {
        map: Nonlinearity::Universal { spectrum, split, lam, antithetic },
        features: 64,
        ..SnnkConfig::default()
    };
    for (name, spectrum) in Spectrum::NAMED {
        // Infinite variance: checked on rows that are shorter still.
        let wild = name == "lorentz" || name == "sech";
        let by = if wild { 0.35 } else { 1.0 };
        let (x, w) = (scale(x.clone(), by), scale(w.clone(), by));
        let exact = exact_layer(|z| spectrum.value(z), x.view(), w.view(), Some(&b)).unwrap();
        unbiased(&universal(spectrum.clone(), 0.5, 0.0, false), &x, &w, Some(&b), exact.as_slice());
        if !wild {
            unbiased(&universal(spectrum.clone(), 0.8, 0.05, false), &x, &w, Some(&b), exact.as_slice());
            unbiased(&universal(spectrum, 0.5, -0.03, true), &x, &w, Some(&b), exact.as_slice());
        }
    }
    // A table of two frequencies: cos(z) + sin(2 z) / 2.
    let turn = 0.5 / std::f64::consts::PI;
    let table = Spectrum::Table {
        grid: vec![turn, -turn, 2.0 * turn, -2.0 * turn],
        tau: vec![C::new(0.5, 0.0), C::new(0.5, 0.0), C::new(0.0, -0.25), C::new(0.0, 0.25)],
    };
    let exact = exact_layer(|z| z.cos() + 0.5 * (2.0 * z).sin(), x.view(), w.view(), Some(&b)).unwrap();
    unbiased(&universal(table.clone(), 0.5, 0.0, false), &x, &w, Some(&b), exact.as_slice());
    unbiased(&universal(table, 0.5, 0.0, true), &x, &w, Some(&b), exact.as_slice());

    let limit = kc_features::arc_cosine::arccos_kernel(Default::default(), x.view(), w.view()).unwrap();
    for draw in [Draw::Independent, Draw::Orthogonal(Scaling::Chi)] {
        let config = SnnkConfig { draw, features: 64, ..SnnkConfig::default() };
        unbiased(&config, &x, &w, None, limit.as_slice());
    }
    for (series, n_max, h01) in [(Series::Exp, 8, false), (Series::Tanh, 9, true), (Series::Gelu, 8, true)] {
        let c = series.coefficients(n_max);
        let polynomial = |z: f64| c.iter().rev().fold(0.0, |sum, c| sum * z + c);
        let exact = exact_layer(polynomial, x.view(), w.view(), None).unwrap();
        let config = SnnkConfig {
            map: Nonlinearity::Maclaurin { series, n_max, h01 },
            features: 200,
            ..SnnkConfig::default()
        };
        unbiased(&config, &x, &w, None, exact.as_slice());
    }
}

#[test]
fn antithetic_pairs_leave_no_imaginary_part() {
    let (x, w) = (tensor(3, 5, 1), tensor(2, 5, 2));
    let config = SnnkConfig {
        map: Nonlinearity::Universal { spectrum: Spectrum::Sin, split: 0.5, lam: 0.0, antithetic: true },
        features: 10,
        ..SnnkConfig::default()
    };
    let map = Map::<f64>::draw(&config, 5, true).unwrap();
    let (phi, psi) = (map.apply(x.view()).unwrap(), map.weights(w.view(), Some(&[0.2, -0.1])).unwrap());
    for i in 0..3 {
        for o in 0..2 {
            let part = |f: &dyn Fn(usize) -> f64| (0..10).map(f).sum::<f64>();
            let imaginary = part(&|k| phi[[i, k]] * psi[[o, 10 + k]] + phi[[i, 10 + k]] * psi[[o, k]]);
            let size = part(&|k| (phi[[i, k]] * psi[[o, k]]).abs());
            assert!(imaginary.abs() < 1e-13 * size);
        }
    }
}

#[test]
fn series_are_those_of_the_functions() {
    assert_close(
        &Series::Tanh.coefficients(7),
        &[0.0, 1.0, 0.0, -1.0 / 3.0, 0.0, 2.0 / 15.0, 0.0, -17.0 / 315.0],
        Tol::abs(1e-15),
    );
    let root = 1.0 / (2.0 * std::f64::consts::PI).sqrt();
    assert_close(
        &Series::Gelu.coefficients(6),
        &[0.0, 0.5, root, 0.0, -root / 6.0, 0.0, root / 40.0],
        Tol::abs(1e-15),
    );
    assert_close(&Series::Exp.coefficients(4), &[1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0], Tol::abs(1e-15));
    assert_eq!(Series::Table(vec![1.0, 2.0]).coefficients(3), [1.0, 2.0, 0.0, 0.0]);
    let truncated =
        |series: &Series, n_max| Maclaurin::<f64>::draw(series, n_max, false, 3, 2, 1).unwrap().truncated();
    assert!(truncated(&Series::Exp, 8) && truncated(&Series::Table(vec![0.0, 0.0, 1.0]), 1));
    assert!(!truncated(&Series::Table(vec![0.0, 0.0, 1.0]), 2));
}

fn configs() -> Vec<SnnkConfig> {
    let of = |map, draw, normalize| SnnkConfig { map, draw, normalize, features: 37, seed: 1 };
    let gauss =
        Nonlinearity::Universal { spectrum: Spectrum::Gauss, split: 0.5, lam: 0.1, antithetic: false };
    let series = Nonlinearity::Maclaurin { series: Series::Exp, n_max: 6, h01: true };
    vec![
        of(Nonlinearity::default(), Draw::Independent, None),
        of(Nonlinearity::default(), Draw::Hadamard, Some(2.0)),
        of(gauss.clone(), Draw::Orthogonal(Scaling::Chi), None),
        of(gauss, Draw::Hadamard, Some(0.5)),
        of(series, Draw::Independent, None),
    ]
}

#[test]
fn any_layout_any_pool_any_size() {
    let (d, out) = (19, 23);
    let (w, b) = (tensor(out, d, 2), vec![0.1; out]);
    for config in configs() {
        let made = SnnkLayer::from_weights(w.view(), Some(&b), &config).unwrap();
        for n in [0, 1, 83, 84, 85, 200] {
            let x = tensor(n, d, 3);
            let want = same_on_any_pool(|| made.forward(x.view()).unwrap().into_vec());
            // Row by row it is the same: a tile is no part of the definition.
            for i in [0, n.saturating_sub(1)] {
                if i < n {
                    let alone = made.forward(x.view().slice(0, i..i + 1).unwrap()).unwrap();
                    assert_close(alone.as_slice(), &want[i * out..(i + 1) * out], Tol::abs(1e-12));
                }
            }
            for x in strided(n, d, x.as_slice(), f64::NAN) {
                assert_close(made.forward(x.view()).unwrap().as_slice(), &want, Tol::abs(1e-12));
            }
            let mut turned = Tensor::<f64, 2>::zeros([out, n]).unwrap();
            made.forward_into(x.view(), turned.view_mut().transposed()).unwrap();
            assert_close(&turned.view().transposed().to_vec(), &want, Tol::abs(1e-12));
        }
        // f32 is the same layer with fewer digits.
        let (x, single) = (tensor(90, d, 3), convert::<f32, _>(&w));
        let b: Vec<f32> = b.iter().map(|&b| b as f32).collect();
        let narrow = SnnkLayer::from_weights(single.view(), Some(&b), &config).unwrap();
        let (y, want) =
            (narrow.forward(convert::<f32, _>(&x).view()).unwrap(), made.forward(x.view()).unwrap());
        assert!(kc_testing::relative_error(y.as_slice(), want.as_slice()) < 1e-5);
    }
}

#[test]
fn every_level() {
    let (n, d, m, out) = (100, 33, 50, 70);
    let (x, w, g) = (tensor(n, d, 1), tensor(out, d, 2), tensor(m, d, 3));
    let (xi, c) = Spectrum::Gauss.draw(m, false, 1).unwrap();
    let phi = kc_features::snnk::reference::relu_features(g.view(), x.view(), 0.1).unwrap();
    let psi = kc_features::snnk::reference::relu_features(g.view(), w.view(), 0.1).unwrap();
    let want = kc_features::snnk::reference::product(phi.view(), psi.view()).unwrap();
    each_isa(|isa| {
        let projection = Projection::with_isa(isa, g.clone()).unwrap();
        let features = Features::Relu(Relu::arc_cosine(projection, 0.1).unwrap());
        let made = layer(&Map::new(features, None, false).unwrap(), w.view(), None);
        assert_close(made.forward(x.view()).unwrap().as_slice(), want.as_slice(), Tol::abs(1e-13));

        let single = Projection::with_isa(isa, convert::<f32, _>(&g)).unwrap();
        let double = Projection::with_isa(isa, g.clone()).unwrap();
        let narrow = Universal::new(single, xi.clone(), c.clone(), 0.5, 0.0).unwrap();
        let wide = Universal::new(double, xi.clone(), c.clone(), 0.5, 0.0).unwrap();
        let (a, b) = (narrow.apply(convert::<f32, _>(&x).view()).unwrap(), wide.apply(x.view()).unwrap());
        assert!(kc_testing::relative_error(a.as_slice(), b.as_slice()) < 2e-6);
    });
}

#[test]
fn features_are_never_stored_and_weights_not_kept() {
    let (n, d, m, out) = (4096, 64, 256, 8);
    let (x, w) = (convert::<f32, _>(&tensor(n, d, 1)), convert::<f32, _>(&tensor(out, d, 2)));
    let config = SnnkConfig { features: m, ..SnnkConfig::default() };
    let made = SnnkLayer::from_weights(w.view(), None, &config).unwrap();
    assert_eq!(made.n_params(), out * m);
    let mut y = Tensor::zeros([n, out]).unwrap();
    let (result, memory) = measure(|| made.forward_into(x.view(), y.view_mut()));
    result.unwrap();
    // All features would take 4 MiB.
    assert!(memory.peak < 700 << 10, "{} bytes", memory.peak);
}

#[test]
fn bad_input() {
    let (x, w) = (tensor(3, 4, 1), tensor(2, 4, 2));
    let config = |map, features| SnnkConfig { map, features, ..SnnkConfig::default() };
    let universal =
        |split, lam| Nonlinearity::Universal { spectrum: Spectrum::Cos, split, lam, antithetic: false };
    let make = |map, features| SnnkLayer::from_weights(w.view(), None, &config(map, features)).map(|_| ());
    assert!(matches!(make(Nonlinearity::default(), 0), Err(Error::Empty { .. })));
    assert!(matches!(make(universal(1.5, 0.0), 4), Err(Error::Argument { arg, .. }) if arg == "split"));
    assert!(matches!(make(universal(0.5, -0.25), 4), Err(Error::Argument { arg, .. }) if arg == "lam"));
    assert!(matches!(make(Nonlinearity::Relu { threshold: f64::NAN }, 4), Err(Error::Argument { .. })));
    let samples = Spectrum::Samples { xi: vec![0.1; 3], c: vec![C::new(1.0, 0.0); 3] };
    let given = Nonlinearity::Universal { spectrum: samples, split: 0.5, lam: 0.0, antithetic: false };
    assert!(matches!(make(given, 4), Err(Error::Shape { arg, .. }) if arg == "xi"));
    let degrees = Nonlinearity::Maclaurin { series: Series::Exp, n_max: 1, h01: true };
    assert!(matches!(make(degrees, 4), Err(Error::Argument { arg, .. }) if arg == "n_max"));
    let empty = Tensor::<f64, 2>::zeros([2, 0]).unwrap();
    assert!(matches!(
        SnnkLayer::from_weights(empty.view(), None, &SnnkConfig::default()),
        Err(Error::Empty { .. })
    ));
    let short = SnnkLayer::from_weights(w.view(), Some(&[1.0]), &SnnkConfig::default());
    assert!(matches!(short, Err(Error::Shape { arg, .. }) if arg == "b"));

    let made = SnnkLayer::from_weights(w.view(), None, &config(universal(0.5, 0.0), 8)).unwrap();
    assert!(matches!(made.forward(x.view().slice(1, 0..3).unwrap()), Err(Error::Shape { .. })));
    assert!(matches!(made.backward(x.view(), x.view()), Err(Error::Shape { arg, .. }) if arg == "dy"));
    let psi = tensor(2, 15, 1);
    assert!(matches!(SnnkLayer::new(made.map().clone(), psi), Err(Error::Shape { arg, .. }) if arg == "psi"));
    let mut far = tensor(200, 4, 1);
    far[[150, 2]] = f64::NAN;
    assert!(matches!(made.forward(far.view()), Err(Error::NotFinite { index, .. }) if index == [150, 2]));
    // Exponents that leave the range name the row, the first of several.
    let mut far = tensor(200, 4, 1);
    for i in [110, 180] {
        for j in 0..4 {
            far[[i, j]] = 1e4 * far[[i, j]];
        }
    }
    match made.forward(far.view()) {
        Err(Error::Argument { expected, got, .. }) => {
            assert!(expected.contains("normalise") && got.contains("row 110"), "{expected}; {got}");
        }
        other => panic!("{other:?}"),
    }
    let series = Nonlinearity::Maclaurin {
        series: Series::Table(vec![0.0; 9].into_iter().chain([1.0; 40]).collect()),
        n_max: 40,
        h01: false,
    };
    let wild = SnnkConfig { map: series, features: 4000, ..SnnkConfig::default() };
    let huge = Tensor::from_fn([1, 4], |_| 1e35f32).unwrap();
    let single = SnnkLayer::from_weights(convert::<f32, _>(&w).view(), None, &wild).unwrap();
    assert!(matches!(single.forward(huge.view()), Err(Error::Argument { .. })));
    let map = Map::<f64>::draw(&SnnkConfig::default(), 4, false).unwrap();
    assert!(
        matches!(map.weights(w.view(), Some(&[0.0, 1.0])), Err(Error::Argument { arg, .. }) if arg == "b")
    );
    let none = TensorView::from_slice([0, 4], &[]).unwrap();
    assert!(made.forward(none).unwrap().is_empty());
}
