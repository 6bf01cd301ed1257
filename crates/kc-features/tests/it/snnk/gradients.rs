//! Gradients against central differences in f64.

use kc_core::{Tensor, TensorView};
use kc_features::maclaurin::Series;
use kc_features::snnk::{Bundle, Nonlinearity, SnnkConfig, SnnkLayer, bundle};
use kc_features::snnk::{Features, Map};
use kc_features::universal::{Side, Spectrum, Universal};
use kc_features::{Draw, Projection, Scaling};
use kc_testing::assert_gradient;

use super::{dot, layer, tensor};

const N: usize = 3;
const D: usize = 5;
const OUT: usize = 4;

fn view(shape: [usize; 2], x: &[f64]) -> TensorView<'_, f64, 2> {
    TensorView::from_slice(shape, x).unwrap()
}

fn configs() -> Vec<SnnkConfig> {
    let universal =
        |spectrum, split, lam| Nonlinearity::Universal { spectrum, split, lam, antithetic: false };
    let mut all = vec![
        Nonlinearity::Relu { threshold: 0.0 },
        Nonlinearity::Relu { threshold: -0.3 },
        Nonlinearity::Maclaurin { series: Series::Tanh, n_max: 8, h01: false },
        Nonlinearity::Maclaurin { series: Series::Gelu, n_max: 6, h01: true },
        universal(Spectrum::Gauss, 1.0, 0.2),
        universal(Spectrum::Cos, 0.0, -0.1),
        universal(Spectrum::Sinc, 0.3, 0.0),
    ];
    all.extend(Spectrum::NAMED.into_iter().map(|(_, spectrum)| universal(spectrum, 0.5, 0.0)));
    all.push(Nonlinearity::Universal { spectrum: Spectrum::Gauss, split: 0.5, lam: 0.0, antithetic: true });
    let mut out: Vec<SnnkConfig> = all
        .into_iter()
        .map(|map| SnnkConfig { map, features: 13, seed: 3, ..SnnkConfig::default() })
        .collect();
    let scaled: Vec<SnnkConfig> =
        out[..6].iter().cloned().map(|c| SnnkConfig { normalize: Some(0.8), ..c }).collect();
    out.extend(scaled);
    out
}

#[test]
fn every_map_by_inputs_parameter_weights_and_biases() {
    let (x, w, dy) = (tensor(N, D, 1), tensor(OUT, D, 2), tensor(N, OUT, 3));
    let b = [0.3, -0.2, 0.1, 0.05];
    for config in configs() {
        for b in [Some(&b[..]), None] {
            let made = SnnkLayer::from_weights(w.view(), b, &config).unwrap();
            let back = made.backward(x.view(), dy.view()).unwrap();
            let by_x = |x: &[f64]| dot(made.forward(view([N, D], x)).unwrap().as_slice(), dy.as_slice());
            assert_gradient(by_x, x.as_slice(), back.dx.as_slice(), 1e-5, 1e-6);
            let map = made.map();
            let by_psi = |psi: &[f64]| {
                let psi = view(made.psi().shape(), psi).to_tensor().unwrap();
                let changed = SnnkLayer::new(map.clone(), psi).unwrap();
                dot(changed.forward(x.view()).unwrap().as_slice(), dy.as_slice())
            };
            assert_gradient(by_psi, made.psi().as_slice().unwrap(), back.dpsi.as_slice(), 1e-5, 1e-6);

            // Training the weights behind psi.
            let through = made.weight_gradient(w.view(), b, &back.dpsi).unwrap();
            let by_w = |w: &[f64]| {
                let changed = layer(map, view([OUT, D], w), b);
                dot(changed.forward(x.view()).unwrap().as_slice(), dy.as_slice())
            };
            assert_gradient(by_w, w.as_slice(), through.rows.as_slice(), 1e-5, 1e-6);
            if let Some(b) = b {
                let by_b = |b: &[f64]| {
                    let changed = layer(map, w.view(), Some(b));
                    dot(changed.forward(x.view()).unwrap().as_slice(), dy.as_slice())
                };
                assert_gradient(by_b, b, &through.bias, 1e-5, 1e-6);
            } else if !map.is_complex() {
                assert!(through.bias.iter().all(|b| *b == 0.0));
            }
        }
    }
}

#[test]
fn directions_that_are_trained() {
    let (x, w, dy) = (tensor(N, D, 1), tensor(OUT, D, 2), tensor(N, OUT, 3));
    let g = Projection::<f64>::draw(Draw::Orthogonal(Scaling::Chi), 7, D, 4).unwrap().to_matrix().unwrap();
    let (xi, c) = Spectrum::Gauss.draw(7, false, 5).unwrap();
    let relu = |g: &[f64]| {
        let projection = Projection::new(view([7, D], g).to_tensor().unwrap()).unwrap();
        Features::Relu(kc_features::relu::Relu::arc_cosine(projection, 0.0).unwrap())
    };
    let universal = |g: &[f64]| {
        let projection = Projection::new(view([7, D], g).to_tensor().unwrap()).unwrap();
        Features::Universal(Universal::new(projection, xi.clone(), c.clone(), 0.5, 0.1).unwrap())
    };
    let makers: [&dyn Fn(&[f64]) -> Features<f64>; 2] = [&relu, &universal];
    for make in makers {
        let of = |g: &[f64]| {
            let map = Map::new(make(g), Some(0.9), false).unwrap();
            layer(&map, w.view(), None)
        };
        let made = of(g.as_slice());
        let inputs = made.projection_gradient(x.view(), dy.view()).unwrap();
        let dpsi = made.backward(x.view(), dy.view()).unwrap().dpsi;
        let psi = made.psi().to_tensor().unwrap();
        let weights = made.map().projection_gradient(Side::W, w.view(), None, &psi, &dpsi).unwrap();
        let both: Vec<f64> = inputs.as_slice().iter().zip(weights.as_slice()).map(|(a, b)| a + b).collect();
        let loss = |g: &[f64]| dot(of(g).forward(x.view()).unwrap().as_slice(), dy.as_slice());
        assert_gradient(loss, g.as_slice(), &both, 1e-6, 1e-6);
    }
    let series = Nonlinearity::Maclaurin { series: Series::Exp, n_max: 4, h01: false };
    let fixed =
        SnnkLayer::from_weights(w.view(), None, &SnnkConfig { map: series, ..Default::default() }).unwrap();
    assert!(fixed.projection_gradient(x.view(), dy.view()).is_err());
}

#[test]
fn rows_of_zeros_stay_where_rows_are_scaled() {
    let config = SnnkConfig { normalize: Some(1.0), features: 9, ..SnnkConfig::default() };
    let w = tensor(OUT, D, 2);
    let made = SnnkLayer::from_weights(w.view(), None, &config).unwrap();
    let x = Tensor::<f64, 2>::zeros([2, D]).unwrap();
    let dy = Tensor::from_fn([2, OUT], |_| 1.0).unwrap();
    assert!(made.forward(x.view()).unwrap().as_slice().iter().all(|y| *y == 0.0));
    assert!(made.backward(x.view(), dy.view()).unwrap().dx.as_slice().iter().all(|d| *d == 0.0));
    // Length does not matter otherwise.
    let (x, twice) =
        (tensor(2, D, 1), Tensor::from_fn([2, D], |[i, j]| 2.0 * tensor(2, D, 1)[[i, j]]).unwrap());
    let (a, b) = (made.forward(x.view()).unwrap(), made.forward(twice.view()).unwrap());
    kc_testing::assert_close(a.as_slice(), b.as_slice(), kc_testing::Tol::rel(1e-13));
}

#[test]
fn a_bundled_layer_of_complex_features() {
    // Complex features of the first layer are inputs of the second: the product is the network's.
    let (x, w1, w2) = (tensor(6, D, 1), tensor(7, D, 2), tensor(3, 7, 3));
    let spectrum = |seed| SnnkConfig {
        map: Nonlinearity::Universal { spectrum: Spectrum::Cos, split: 0.5, lam: 0.0, antithetic: false },
        features: 9,
        seed,
        ..SnnkConfig::default()
    };
    let first = Map::<f64>::draw(&spectrum(1), D, true).unwrap();
    let second = Map::draw(&SnnkConfig { features: 11, seed: 2, ..SnnkConfig::default() }, 18, true).unwrap();
    let b1 = [0.1; 7];
    let b2 = [0.2, -0.1, 0.3];
    let features = Bundle::new(vec![first.clone(), second.clone()]).unwrap();
    let network = bundle(&[(w1.view(), Some(&b1)), (w2.view(), Some(&b2))], &features).unwrap();
    // By hand: the second map on real halves of the first, with weights that give W2 times the first layer's outputs.
    let phi = kc_features::FeatureMap::apply(&first, x.view()).unwrap();
    let psi = first.weights(w1.view(), Some(&b1)).unwrap();
    let signed =
        Tensor::from_fn(psi.shape(), |[o, k]| if k < 9 { psi[[o, k]] } else { -psi[[o, k]] }).unwrap();
    let seen = kc_gemm::gemm(w2.view(), signed.view()).unwrap();
    let want = layer(&second, seen.view(), Some(&b2)).forward(phi.view()).unwrap();
    kc_testing::assert_close(
        network.forward(x.view()).unwrap().as_slice(),
        want.as_slice(),
        kc_testing::Tol::abs(1e-12),
    );
}
