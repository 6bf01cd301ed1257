//! Random shapes, layouts and sizes of numbers, against the definitions.

use kc_core::{Complex, Error, Isa, Tensor};
use kc_features::maclaurin::{Maclaurin, Series};
use kc_features::projection::orthogonal_projection;
use kc_features::relu::Relu;
use kc_features::snnk::reference::{self, UniversalTerms};
use kc_features::snnk::{Map, Nonlinearity, SnnkConfig, SnnkLayer};
use kc_features::universal::{Side, Spectrum, Universal};
use kc_features::{Draw, FeatureMap, Projection, Scalar, Scaling, to_complex};
use kc_testing::{Tol, assert_close, normals, strided};
use proptest::prelude::*;

fn tensor<T: Scalar>(rows: usize, cols: usize, size: f64, seed: u64) -> Tensor<T, 2> {
    let values: Vec<T> =
        normals(rows * cols, seed).into_iter().map(|x| T::from_f64(f64::from(x) * size)).collect();
    Tensor::from_slice([rows, cols], &values).unwrap()
}

/// Rows, inputs, features, a seed.
fn sizes() -> impl Strategy<Value = (usize, usize, usize, u64)> {
    (1usize..=150, 1usize..=40, 1usize..=40, 0u64..1000)
}

fn isa() -> impl Strategy<Value = Isa> {
    proptest::sample::select(Isa::available().collect::<Vec<_>>())
}

fn spectrum() -> impl Strategy<Value = Spectrum> {
    proptest::sample::select(Spectrum::NAMED.map(|(_, spectrum)| spectrum).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn relu_features_follow_the_definition(
        (n, d, m, seed) in sizes(), isa in isa(), threshold in -1.0f64..1.0, layout in 0usize..5,
    ) {
        let (x, g) = (tensor::<f64>(n, d, 1.0, seed), tensor::<f64>(m, d, 1.0, seed + 1));
        let want = reference::relu_features(g.view(), x.view(), threshold).unwrap();
        let map = Relu::arc_cosine(Projection::with_isa(isa, g).unwrap(), threshold).unwrap();
        let views = strided(n, d, x.as_slice(), f64::NAN);
        let found = map.apply(views[layout % views.len()].view()).unwrap();
        assert_close(found.as_slice(), want.as_slice(), Tol::new(1e-13, 1e-13));
    }

    #[test]
    fn universal_features_follow_the_definition(
        (n, d, m, seed) in sizes(), isa in isa(), spectrum in spectrum(), split in 0.0f64..=1.0,
        lam in -0.1f64..0.1, layout in 0usize..5, weights in any::<bool>(),
    ) {
        let rows = tensor::<f64>(n, d, 0.3 / (d as f64).sqrt(), seed);
        let g = tensor::<f64>(m, d, 1.0, seed + 1);
        let b: Vec<f64> = normals(n, seed + 2).into_iter().map(f64::from).collect();
        let (xi, c) = spectrum.draw(m, false, seed).unwrap();
        let side = if weights { Side::W } else { Side::X };
        let b = weights.then_some(&b[..]);
        let terms = UniversalTerms { xi: &xi, c: &c, split, lam };
        let want = reference::universal_features(terms, g.view(), side, rows.view(), b).unwrap();
        let map = Universal::new(Projection::with_isa(isa, g).unwrap(), xi.clone(), c.clone(), split, lam).unwrap();
        let views = strided(n, d, rows.as_slice(), f64::NAN);
        let mut halves = Tensor::<f64, 2>::zeros([n, 2 * m]).unwrap();
        map.fill_side(side, views[layout % views.len()].view(), b, 0, halves.as_mut_slice()).unwrap();
        let found = to_complex(halves.view()).unwrap();
        let parts = |x: &Tensor<Complex<f64>, 2>| -> Vec<f64> {
            x.as_slice().iter().flat_map(|z| [z.re, z.im]).collect()
        };
        let (found, want) = (parts(&found), parts(&want));
        let size = want.iter().fold(0.0f64, |size, x| size.max(x.abs()));
        assert_close(&found, &want, Tol::abs(1e-12 * size));
    }

    #[test]
    fn maclaurin_features_follow_the_definition(
        (n, d, m, seed) in sizes(), n_max in 0usize..=9, h01 in any::<bool>(), weights in any::<bool>(),
        series in proptest::sample::select(vec![Series::Exp, Series::Tanh, Series::Gelu, Series::Table(vec![0.5, -1.0, 2.0])]),
    ) {
        let n_max = if h01 { n_max.max(2) } else { n_max };
        let rows = tensor::<f64>(n, d, 1.0 / (d as f64).sqrt(), seed);
        let map = Maclaurin::<f64>::draw(&series, n_max, h01, m, d, seed).unwrap();
        let side = if weights { Side::W } else { Side::X };
        let width = FeatureMap::<f64>::width(&map);
        let mut found = Tensor::<f64, 2>::zeros([n, width]).unwrap();
        map.fill_side(side, rows.view(), 0, found.as_mut_slice()).unwrap();
        let none = Tensor::zeros([0, d]).unwrap();
        let omega = map.omega().map_or(none.view(), |omega| omega);
        let c = map.coefficients();
        let want = reference::maclaurin_features(c, map.degrees(), omega, side, rows.view()).unwrap();
        // With degrees 0 and 1 exact, those that are drawn are the more likely.
        let total = |from: i32| (from..=n_max as i32).map(|n| 0.5f64.powi(n + 1)).sum::<f64>();
        let factor = if h01 { (total(2) / total(0)).sqrt() } else { 1.0 };
        for i in 0..n {
            let want: Vec<f64> = want.view().row(i).iter().map(|x| x * factor).collect();
            let row = found.view().row(i).to_vec();
            assert_close(&row[..m], &want, Tol::new(1e-12, 1e-13));
            if h01 {
                let sign = |n: usize| if weights && c[n] < 0.0 { -1.0 } else { 1.0 };
                prop_assert!((row[m] - sign(0) * c[0].abs().sqrt()).abs() < 1e-14);
                for (j, x) in rows.view().row(i).iter().enumerate() {
                    prop_assert!((row[m + 1 + j] - sign(1) * c[1].abs().sqrt() * x).abs() < 1e-14);
                }
            }
        }
    }

    #[test]
    fn blocks_of_directions_are_orthogonal((_, d, m, seed) in sizes(), chi in any::<bool>()) {
        let scaling = if chi { Scaling::Chi } else { Scaling::SqrtDim };
        let g = orthogonal_projection::<f64>(m, d, seed, scaling).unwrap();
        let gram = kc_gemm::reference::gemm(g.view(), g.view().transposed()).unwrap();
        for i in 0..m {
            prop_assert!(chi || (gram[[i, i]] - d as f64).abs() < 1e-10);
            for j in (i / d * d)..i {
                prop_assert!(gram[[i, j]].abs() < 1e-10 * d as f64, "rows {} and {}", i, j);
            }
        }
    }

    #[test]
    fn a_transform_and_its_matrix_agree((n, d, m, seed) in sizes()) {
        let fast = Projection::<f64>::draw(Draw::Hadamard, m, d, seed).unwrap();
        let (g, x) = (fast.to_matrix().unwrap(), tensor::<f64>(n, d, 1.0, seed));
        let want = kc_gemm::reference::gemm(x.view(), g.view().transposed()).unwrap();
        let mut found = Tensor::<f64, 2>::zeros([n, m]).unwrap();
        fast.apply_into(x.view(), found.view_mut()).unwrap();
        assert_close(found.as_slice(), want.as_slice(), Tol::new(1e-12, 1e-12));
        // <G x, z> = <x, G^T z>
        let z = tensor::<f64>(n, m, 1.0, seed + 1);
        let mut back = Tensor::<f64, 2>::zeros([n, d]).unwrap();
        fast.back_into(z.view(), back.view_mut()).unwrap();
        let dot = |a: &Tensor<f64, 2>, b: &Tensor<f64, 2>| -> f64 {
            a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| a * b).sum()
        };
        prop_assert!((dot(&found, &z) - dot(&x, &back)).abs() < 1e-9);
    }

    #[test]
    fn features_of_huge_and_tiny_rows_are_numbers_or_an_error(
        (n, d, m, seed) in sizes(), power in -44i32..39, spectrum in spectrum(), which in 0usize..4,
        normalize in any::<bool>(),
    ) {
        let size = 10f64.powi(power);
        let finite = |x: f32| if x.is_finite() { x } else { f32::MAX.copysign(x) };
        let x = tensor::<f64>(n, d, size, seed);
        let x = Tensor::from_fn([n, d], |i| finite(x[i] as f32)).unwrap();
        let map = match which {
            0 => Nonlinearity::Relu { threshold: 0.0 },
            1 => Nonlinearity::Maclaurin { series: Series::Exp, n_max: 8, h01: false },
            _ => Nonlinearity::Universal { spectrum, split: 0.5, lam: 0.0, antithetic: which == 3 },
        };
        let normalize = normalize.then_some(1.0);
        let config = SnnkConfig { map, features: m, seed, normalize, ..SnnkConfig::default() };
        let map = Map::<f32>::draw(&config, d, false).unwrap();
        match (map.apply(x.view()), map.weights(x.view(), None)) {
            (Ok(phi), Ok(psi)) => {
                prop_assert!(phi.as_slice().iter().chain(psi.as_slice()).all(|x| x.is_finite()));
            }
            (phi, psi) => {
                for side in [phi, psi] {
                    let told = matches!(side, Ok(_) | Err(Error::Argument { .. }));
                    prop_assert!(told);
                }
                prop_assert!(power > -2, "numbers as small as 1e{power} fit");
            }
        }
    }

    #[test]
    fn layers_do_not_depend_on_layouts_or_types((n, d, m, seed) in sizes(), out in 1usize..20, layout in 0usize..5) {
        let config = SnnkConfig { features: m, seed, ..SnnkConfig::default() };
        let (x, w) = (tensor::<f32>(n, d, 0.5, seed), tensor::<f32>(out, d, 0.5, seed + 1));
        let layer = SnnkLayer::from_weights(w.view(), None, &config).unwrap();
        let y = layer.forward(x.view()).unwrap();
        let views = strided(n, d, x.as_slice(), f32::NAN);
        prop_assert_eq!(&layer.forward(views[layout % views.len()].view()).unwrap(), &y);
        let wide = |x: &Tensor<f32, 2>| Tensor::from_fn(x.shape(), |i| f64::from(x[i])).unwrap();
        let double = SnnkLayer::from_weights(wide(&w).view(), None, &config).unwrap();
        let exact = double.forward(wide(&x).view()).unwrap();
        assert_close(y.as_slice(), exact.as_slice(), Tol::new(2e-5, 2e-5));
    }
}

#[test]
fn an_exact_layer_checks_its_shapes() {
    let (x, w) = (tensor::<f64>(3, 4, 1.0, 1), tensor::<f64>(2, 4, 1.0, 2));
    let layer =
        |w: &Tensor<f64, 2>, b: Option<&[f64]>| reference::exact_layer(f64::cos, x.view(), w.view(), b);
    assert!(layer(&w, Some(&[0.0; 2])).is_ok());
    assert!(matches!(layer(&w, Some(&[0.0; 1])), Err(Error::Shape { arg, .. }) if arg == "b"));
    assert!(matches!(layer(&tensor(2, 3, 1.0, 2), None), Err(Error::Shape { arg, .. }) if arg == "w"));
}

#[test]
fn rows_of_any_size_are_scaled_to_one_length() {
    let config = SnnkConfig { features: 9, normalize: Some(2.0), ..SnnkConfig::default() };
    let map = Map::<f64>::draw(&config, 3, false).unwrap();
    let of = |size: f64| {
        let x = Tensor::from_fn([1, 3], |[_, j]| [3.0, -1.0, 2.0][j] * size).unwrap();
        map.apply(x.view()).unwrap().into_vec()
    };
    let want = of(1.0);
    for size in [1e-310, 1e-200, 1e-30, 1e30, 1e200, 5e307] {
        assert_close(&of(size), &want, Tol::abs(1e-14));
    }
    assert!(of(0.0).iter().all(|x| *x == 0.0));
}
