//! Positive features, and the ReLU features of linear attention.

use kc_core::{Error, Tensor, TensorView};
use kc_features::positive::Softmax;
use kc_features::projection::gaussian_projection;
use kc_features::relu::Relu;
use kc_features::{Draw, FeatureMap, Projection, Scaling};
use kc_testing::{Tol, assert_close, assert_gradient, each_isa, normals, strided};

fn tensor(rows: usize, cols: usize, seed: u64) -> Tensor<f64, 2> {
    let values: Vec<f64> = normals(rows * cols, seed).into_iter().map(f64::from).collect();
    Tensor::from_slice([rows, cols], &values).unwrap()
}

fn dot(a: TensorView<'_, f64, 1>, b: TensorView<'_, f64, 1>) -> f64 {
    a.iter().zip(b.iter()).map(|(a, b)| a * b).sum()
}

#[test]
fn formulas_of_linear_attention() {
    let (n, d, m) = (100, 6, 11);
    let (x, g) = (tensor(n, d, 1), gaussian_projection::<f64>(m, d, 2).unwrap());
    let root = (d as f64).powf(-0.25);
    let z = Tensor::<f64, 2>::from_fn([n, m], |[i, k]| dot(x.view().row(i), g.view().row(k)) * root).unwrap();
    let most = z.as_slice().iter().copied().fold(f64::MIN, f64::max);
    let exponent = |i: usize, k: usize, most: f64| {
        let square = dot(x.view().row(i), x.view().row(i));
        ((z[[i, k]] - square / (2.0 * (d as f64).sqrt()) - most).exp() + 1e-4) / (m as f64).sqrt()
    };
    let row_most = |i: usize| (0..m).map(|k| z[[i, k]]).fold(f64::MIN, f64::max);
    let queries = Tensor::from_fn([n, m], |[i, k]| exponent(i, k, row_most(i))).unwrap();
    let keys = Tensor::from_fn([n, m], |[i, k]| exponent(i, k, most)).unwrap();
    let relu = Tensor::from_fn([n, m], |[i, k]| z[[i, k]].max(0.0) + 1e-3).unwrap();
    each_isa(|isa| {
        let projection = Projection::with_isa(isa, g.clone()).unwrap();
        let (softmax, favor) = (Softmax::new(projection.clone()), Relu::favor(projection));
        for x in strided(n, d, x.as_slice(), f64::NAN) {
            let tol = Tol::new(1e-12, 1e-15);
            assert_close(softmax.queries(x.view()).unwrap().as_slice(), queries.as_slice(), tol);
            assert_close(softmax.keys(x.view()).unwrap().as_slice(), keys.as_slice(), tol);
            assert_close(favor.apply(x.view()).unwrap().as_slice(), relu.as_slice(), Tol::abs(1e-13));
        }
        let mut turned = Tensor::zeros([m, n]).unwrap();
        softmax.keys_into(x.view(), turned.view_mut().transposed()).unwrap();
        assert_close(&turned.view().transposed().to_vec(), keys.as_slice(), Tol::new(1e-12, 1e-15));
    });
}

#[test]
fn unbiased_for_the_exponential_kernel() {
    let (d, m, seeds) = (5, 16, 400u32);
    let x =
        TensorView::from_slice([2, d], &[0.4f64, -0.2, 0.9, 0.1, -0.5, 0.3, 0.8, 0.2, -0.7, 0.1]).unwrap();
    let want = (dot(x.row(0), x.row(1)) / (d as f64).sqrt()).exp();
    for draw in [Draw::Independent, Draw::Orthogonal(Scaling::Chi)] {
        let values: Vec<f64> = (0..seeds)
            .map(|seed| {
                let map = Softmax::new(Projection::draw(draw, m, d, u64::from(seed)).unwrap());
                let phi = map.apply(x).unwrap();
                dot(phi.view().row(0), phi.view().row(1))
            })
            .collect();
        let mean = values.iter().sum::<f64>() / f64::from(seeds);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(seeds);
        let error = (variance / f64::from(seeds)).sqrt();
        assert!((mean - want).abs() < 4.0 * error && error < 0.1 * want, "{mean} {want} +- {error}");
    }
}

#[test]
fn gradients_are_the_slopes() {
    let (n, d, m) = (3, 4, 9);
    let (x, dy) = (tensor(n, d, 3), tensor(n, m, 4));
    let projection = Projection::draw(Draw::Independent, m, d, 5).unwrap();
    let (softmax, favor) = (Softmax::new(projection.clone()), Relu::favor(projection));
    let loss = |map: &dyn FeatureMap<f64>, x: &[f64]| {
        let phi = map.apply(TensorView::from_slice([n, d], x).unwrap()).unwrap();
        phi.as_slice().iter().zip(dy.as_slice()).map(|(a, b)| a * b).sum::<f64>()
    };
    let phi = softmax.apply(x.view()).unwrap();
    let dx = softmax.backward(x.view(), phi.view(), dy.view(), 0.0).unwrap();
    assert_gradient(|x| loss(&softmax, x), x.as_slice(), dx.as_slice(), 1e-5, 1e-6);
    let phi = favor.apply(x.view()).unwrap();
    let dx = favor.backward(phi.view(), dy.view()).unwrap();
    assert_gradient(|x| loss(&favor, x), x.as_slice(), dx.as_slice(), 1e-6, 1e-6);

    // With the maximum held fixed, the stabilised features are a multiple of the plain ones, plus epsilon.
    let queries = softmax.queries(x.view()).unwrap();
    let dx = softmax.backward(x.view(), queries.view(), dy.view(), softmax.epsilon).unwrap();
    let plain = softmax.apply(x.view()).unwrap();
    let factor = Tensor::from_fn([n, m], |[i, k]| {
        let added = softmax.epsilon / (m as f64).sqrt();
        dy[[i, k]] * (queries[[i, k]] - added) / plain[[i, k]]
    })
    .unwrap();
    let want = softmax.backward(x.view(), plain.view(), factor.view(), 0.0).unwrap();
    assert_close(dx.as_slice(), want.as_slice(), Tol::abs(1e-12));
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let map = Softmax::new(Projection::new(Tensor::from_slice([1, 1], &[1.0f64]).unwrap()).unwrap());
    let mut x = vec![0.0; 200];
    (x[150], x[170]) = (50.0, 60.0);
    let x = TensorView::from_slice([200, 1], &x).unwrap();
    // The kernel itself is bounded by the square; scale and direction can still leave the range.
    let far = Projection::new(Tensor::from_slice([1, 1], &[200.0]).unwrap()).unwrap();
    let mut wild = Softmax::new(far);
    wild.scale = 2.0;
    assert!(matches!(wild.apply(x), Err(Error::Argument { got, .. }) if got.contains("row 150")));
    assert!(map.apply(x).is_ok() && wild.queries(x).is_ok() && wild.keys(x).is_ok());
    let nan = TensorView::from_slice([2, 1], &[1.0, f64::NAN]).unwrap();
    assert!(matches!(map.queries(nan), Err(Error::NotFinite { index, .. }) if index == [1, 0]));
    assert!(matches!(Relu::favor(map.projection().clone()).apply(nan), Err(Error::NotFinite { .. })));
    let none = TensorView::from_slice([0, 1], &[]).unwrap();
    assert!(map.keys(none).unwrap().is_empty() && map.queries(none).unwrap().is_empty());
    assert!(matches!(
        map.keys(TensorView::from_slice([1, 2], &[1.0, 2.0]).unwrap()),
        Err(Error::Shape { .. })
    ));
}
