//! Adapters: gradients of all parts, merging, parameter counts, first values.

use kc_core::{Error, TensorView};
use kc_features::snnk::{
    Adapter, AdapterConfig, AdapterGradients, Init, Nonlinearity, Norm, SnnkConfig, SnnkLayer, Up,
};
use kc_features::universal::Spectrum;
use kc_testing::{Tol, assert_close, assert_gradient, normals};

use super::{dot, tensor};

const N: usize = 4;
const D: usize = 6;

fn adapters() -> Vec<Adapter<f64>> {
    let relu = SnnkConfig { features: 8, seed: 2, ..SnnkConfig::default() };
    let spectrum =
        Nonlinearity::Universal { spectrum: Spectrum::Sin, split: 0.5, lam: 0.0, antithetic: false };
    let universal = SnnkConfig { map: spectrum, ..relu.clone() };
    let mut out = Vec::new();
    for layer in [relu, universal] {
        for bottleneck in [Some(3), None] {
            for (norm_before, norm_after) in [(false, false), (true, false), (false, true), (true, true)] {
                let config = AdapterConfig {
                    layer: layer.clone(),
                    bottleneck,
                    init: Init::Bert,
                    norm_before,
                    norm_after,
                };
                let mut adapter = Adapter::init(D, &config).unwrap();
                // Away from the first values, so that every gradient counts.
                let mut seed = 10;
                adapter
                    .update(|_, values| {
                        seed += 1;
                        let more = normals(values.len(), seed);
                        values.iter_mut().zip(more).for_each(|(v, m)| *v += 0.3 * f64::from(m));
                        Ok(())
                    })
                    .unwrap();
                out.push(adapter);
            }
        }
    }
    out
}

#[test]
fn gradients_by_inputs_and_every_parameter() {
    let (x, dy) = (tensor(N, D, 1), tensor(N, D, 2));
    for adapter in adapters() {
        let AdapterGradients { dx, parameters } = adapter.backward(x.view(), dy.view()).unwrap();
        let loss = |a: &Adapter<f64>, x: TensorView<'_, f64, 2>| {
            dot(a.forward(x).unwrap().as_slice(), dy.as_slice())
        };
        let by_x = |x: &[f64]| loss(&adapter, TensorView::from_slice([N, D], x).unwrap());
        assert_gradient(by_x, x.as_slice(), dx.as_slice(), 1e-5, 1e-6);
        let names: Vec<&str> = adapter.parameters().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, parameters.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (at, (name, gradient)) in parameters.iter().enumerate() {
            let start = adapter.parameters()[at].1.to_vec();
            let by_parameter = |values: &[f64]| {
                let mut changed = adapter.clone();
                let set = |i: usize, old: &mut [f64]| {
                    if i == at {
                        old.copy_from_slice(values);
                    }
                    Ok(())
                };
                changed.update(set).unwrap();
                loss(&changed, x.view())
            };
            assert_eq!(gradient.len(), start.len(), "{name}");
            assert_gradient(by_parameter, &start, gradient, 1e-5, 1e-6);
        }
    }
}

#[test]
fn merging_and_storing_change_nothing() {
    let x = tensor(N, D, 1);
    for adapter in adapters() {
        let want = adapter.forward(x.view()).unwrap();
        let merged = adapter.merge().unwrap();
        assert!(matches!(merged.up(), Up::Shift { .. }));
        assert_close(merged.forward(x.view()).unwrap().as_slice(), want.as_slice(), Tol::abs(1e-12));
        for adapter in [adapter, merged] {
            let stored = adapter.to_tensors().unwrap();
            let back = Adapter::<f64>::from_tensors(&stored).unwrap();
            assert_eq!(back.forward(x.view()).unwrap(), adapter.forward(x.view()).unwrap());
            assert_eq!(back.n_params(), adapter.n_params());
        }
    }
}

#[test]
fn parameter_counts_of_the_paper() {
    // A bottleneck adapter of width 48 on 768 channels has 2 r d + r + d parameters.
    let (d, r) = (768, 48);
    assert_eq!(2 * r * d + r + d, 74_544);
    let config = AdapterConfig {
        layer: SnnkConfig { features: 16, ..SnnkConfig::default() },
        ..AdapterConfig::default()
    };
    let adapter = Adapter::<f32>::init(d, &config).unwrap();
    assert_eq!(adapter.n_params(), 13_056);
    let up = AdapterConfig { bottleneck: Some(16), ..config };
    assert_eq!(Adapter::<f32>::init(d, &up).unwrap().n_params(), 16 * 16 + 16 * d + d);
}

#[test]
fn the_first_values_are_the_identity_with_mam() {
    let x = tensor(N, D, 1);
    for bottleneck in [Some(2), None] {
        let config = AdapterConfig { bottleneck, ..AdapterConfig::default() };
        let adapter = Adapter::init(D, &config).unwrap();
        assert_eq!(adapter.forward(x.view()).unwrap().as_slice(), x.as_slice());
        let other = AdapterConfig { init: Init::Bert, ..config };
        assert_ne!(Adapter::init(D, &other).unwrap().forward(x.view()).unwrap().as_slice(), x.as_slice());
    }
}

#[test]
fn parts_that_do_not_fit_are_errors() {
    let config = SnnkConfig { features: 4, ..SnnkConfig::default() };
    let layer = SnnkLayer::from_weights(tensor(3, D, 1).view(), None, &config).unwrap();
    let shape = |up, before| {
        assert!(matches!(Adapter::new(layer.clone(), up, before, None), Err(Error::Shape { .. })));
    };
    shape(Up::Scale { v: vec![1.0; D] }, None);
    shape(Up::Linear { w: tensor(D, 2, 1), b: vec![0.0; D] }, None);
    shape(Up::Linear { w: tensor(D, 3, 1), b: vec![0.0; 2] }, None);
    shape(Up::Linear { w: tensor(D, 3, 1), b: vec![0.0; D] }, Some(Norm::unit(D + 1)));
    let nan = Up::Linear { w: tensor(D, 3, 1), b: vec![f64::NAN; D] };
    assert!(matches!(Adapter::new(layer.clone(), nan, None, None), Err(Error::NotFinite { .. })));
    assert!(matches!(Adapter::<f64>::init(0, &AdapterConfig::default()), Err(Error::Empty { .. })));
    let stored = layer.to_tensors().unwrap();
    assert!(matches!(Adapter::<f64>::from_tensors(&stored), Err(Error::Argument { .. })));
}
