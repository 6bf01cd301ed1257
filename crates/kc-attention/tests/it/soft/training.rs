//! Gradients of attention, layer and block against central differences, in f64.

use kc_attention::soft::{
    BlockWeights, Grid, Inverse, Landmark, SoftAttention, SoftBlock, SoftConfig, SoftWeights, soft_attention,
    soft_attention_backward,
};
use kc_core::{KcRng, Tensor};
use kc_testing::assert_gradient;

fn tensor<const N: usize>(shape: [usize; N], scale: f64, rng: &mut KcRng) -> Tensor<f64, N> {
    Tensor::from_fn(shape, |_| scale * rng.normal()).unwrap()
}

fn vector(len: usize, rng: &mut KcRng) -> Vec<f64> {
    (0..len).map(|_| 1.0 + 0.3 * rng.normal()).collect()
}

fn dot<const N: usize>(x: &Tensor<f64, N>, y: &Tensor<f64, N>) -> f64 {
    x.as_slice().iter().zip(y.as_slice()).map(|(x, y)| x * y).sum()
}

#[test]
fn attention() {
    let rng = &mut KcRng::new(3, 0);
    let shape = [1, 2, 12, 3];
    let [q, v, dx] = [1.0, 1.0, 1.0].map(|s| tensor(shape, s, rng));
    let (w, gamma, beta) = (tensor([3, 3, 2, 2], 0.4, rng), vector(3, rng), vector(3, rng));
    let local = tensor([2, 3, 3], 0.3, rng);
    let given = tensor([1, 2, 4, 3], 1.0, rng);
    let shaped = |x: &[f64]| Tensor::<f64, 4>::from_slice(shape, x).unwrap();
    for (norm, which) in [(false, 0), (true, 0), (false, 1), (true, 2), (false, 3)] {
        let loss = |q: &Tensor<f64, 4>,
                    v: &Tensor<f64, 4>,
                    w: &Tensor<f64, 4>,
                    gamma: &[f64],
                    beta: &[f64],
                    local: &Tensor<f64, 3>,
                    given: &Tensor<f64, 4>| {
            let landmark = match which {
                0 => Landmark::Conv { w: w.view(), gamma, beta },
                1 => Landmark::AvgPool,
                2 => Landmark::MaxPool,
                _ => Landmark::Given(given.view()),
            };
            let mut config = SoftConfig::new(Grid::Image { h: 4, w: 3 }, if which == 0 { 2 } else { 1 });
            config.norm = norm;
            config.local = Some(local.view());
            config.inverse = Inverse::Exact { ridge: 0.05 };
            let (x, cache) = soft_attention(q.view(), v.view(), &landmark, &config).unwrap();
            (dot(&x, &dx), soft_attention_backward(&cache, dx.view()).unwrap())
        };
        let (_, grads) = loss(&q, &v, &w, &gamma, &beta, &local, &given);
        let (step, tol) = (1e-5, 1e-6);
        let by_q = |x: &[f64]| loss(&shaped(x), &v, &w, &gamma, &beta, &local, &given).0;
        assert_gradient(by_q, q.as_slice(), grads.dq.as_slice(), step, tol);
        let by_v = |x: &[f64]| loss(&q, &shaped(x), &w, &gamma, &beta, &local, &given).0;
        assert_gradient(by_v, v.as_slice(), grads.dv.as_slice(), step, tol);
        let by_local = |x: &[f64]| {
            let local = Tensor::from_slice([2, 3, 3], x).unwrap();
            loss(&q, &v, &w, &gamma, &beta, &local, &given).0
        };
        assert_gradient(by_local, local.as_slice(), grads.d_local.unwrap().as_slice(), step, tol);
        if which == 0 {
            let by_w = |x: &[f64]| {
                let w = Tensor::from_slice([3, 3, 2, 2], x).unwrap();
                loss(&q, &v, &w, &gamma, &beta, &local, &given).0
            };
            assert_gradient(by_w, w.as_slice(), grads.d_conv_w.unwrap().as_slice(), step, tol);
            let by_gamma = |x: &[f64]| loss(&q, &v, &w, x, &beta, &local, &given).0;
            assert_gradient(by_gamma, &gamma, &grads.d_gamma.unwrap(), step, tol);
            let by_beta = |x: &[f64]| loss(&q, &v, &w, &gamma, x, &local, &given).0;
            assert_gradient(by_beta, &beta, &grads.d_beta.unwrap(), step, tol);
        }
        if which == 3 {
            let by_given = |x: &[f64]| {
                let given = Tensor::from_slice([1, 2, 4, 3], x).unwrap();
                loss(&q, &v, &w, &gamma, &beta, &local, &given).0
            };
            assert_gradient(by_given, given.as_slice(), grads.d_landmarks.unwrap().as_slice(), step, tol);
        }
    }
}

fn layer(heads: usize, c: usize, rng: &mut KcRng) -> SoftAttention<f64> {
    let d = c / heads;
    let mut square = || (tensor([c, c], 0.4, rng), vector(c, rng));
    let [q, v, out] = [square(), square(), square()];
    let weights = SoftWeights {
        q,
        v,
        out,
        conv_w: tensor([d, d, 2, 2], 0.4, rng),
        norm: (vector(d, rng), vector(d, rng)),
        local: Some(tensor([heads, 3, 3], 0.3, rng)),
    };
    let mut layer = SoftAttention::new(heads, weights).unwrap();
    layer.inverse = Inverse::Exact { ridge: 0.05 };
    layer
}

const GRID: Grid = Grid::Image { h: 4, w: 5 };

#[test]
fn layer_by_every_parameter() {
    let rng = &mut KcRng::new(5, 0);
    let layer = layer(2, 6, rng);
    let (x, dy) = (tensor([2, 20, 6], 1.0, rng), tensor([2, 20, 6], 1.0, rng));
    let (_, cache) = layer.forward(x.view(), GRID).unwrap();
    let (dx, grads) = layer.backward(&cache, dy.view()).unwrap();
    let by_x = |at: &[f64]| {
        let x = Tensor::from_slice([2, 20, 6], at).unwrap();
        dot(&layer.forward(x.view(), GRID).unwrap().0, &dy)
    };
    assert_gradient(by_x, x.as_slice(), dx.as_slice(), 1e-5, 1e-6);
    let slices = grads.slices();
    assert_eq!(slices.len(), layer.clone().parameters_mut().len());
    for (i, gradient) in slices.into_iter().enumerate() {
        let start = layer.clone().parameters_mut()[i].to_vec();
        let by = |at: &[f64]| {
            let mut layer = layer.clone();
            layer.parameters_mut()[i].copy_from_slice(at);
            dot(&layer.forward(x.view(), GRID).unwrap().0, &dy)
        };
        assert_gradient(by, &start, gradient, 1e-5, 1e-6);
    }
}

#[test]
fn block_by_every_parameter() {
    let rng = &mut KcRng::new(6, 0);
    let attention = layer(2, 4, rng);
    let weights = BlockWeights {
        first: (vector(4, rng), vector(4, rng)),
        up: (tensor([16, 4], 0.5, rng), vector(16, rng)),
        down: (tensor([4, 16], 0.3, rng), vector(4, rng)),
        second: (vector(4, rng), vector(4, rng)),
    };
    let block = SoftBlock::new(attention, weights).unwrap();
    let (x, dz) = (tensor([1, 20, 4], 1.0, rng), tensor([1, 20, 4], 1.0, rng));
    let (z, cache) = block.forward(x.view(), GRID).unwrap();
    assert_eq!(z.shape(), [1, 20, 4]);
    let (dx, grads) = block.backward(&cache, dz.view()).unwrap();
    let by_x = |at: &[f64]| {
        let x = Tensor::from_slice([1, 20, 4], at).unwrap();
        dot(&block.forward(x.view(), GRID).unwrap().0, &dz)
    };
    assert_gradient(by_x, x.as_slice(), dx.as_slice(), 1e-5, 1e-6);
    for (i, gradient) in grads.slices().into_iter().enumerate() {
        let start = block.clone().parameters_mut()[i].to_vec();
        let by = |at: &[f64]| {
            let mut block = block.clone();
            block.parameters_mut()[i].copy_from_slice(at);
            dot(&block.forward(x.view(), GRID).unwrap().0, &dz)
        };
        assert_gradient(by, &start, gradient, 1e-5, 2e-6);
    }
}

#[test]
fn layers_refuse_what_does_not_fit() {
    let rng = &mut KcRng::new(7, 0);
    let layer = layer(2, 6, rng);
    let x = tensor([1, 20, 5], 1.0, rng);
    assert!(layer.forward(x.view(), GRID).is_err());
    let x = tensor([1, 21, 6], 1.0, rng);
    assert!(layer.forward(x.view(), GRID).is_err());
    let x = tensor([1, 20, 6], 1.0, rng);
    let (_, cache) = layer.forward(x.view(), GRID).unwrap();
    assert!(layer.backward(&cache, tensor([2, 20, 6], 1.0, rng).view()).is_err());
}
