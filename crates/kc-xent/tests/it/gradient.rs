//! Gradients against central differences, in f64.

use kc_core::{Tensor, TensorView};
use kc_testing::{assert_gradient, normals};
use kc_xent::{
    Filter, Need, Reduction, Seeds, Upstream, XentConfig, XentInput, linear_cross_entropy,
    linear_cross_entropy_with_grad,
};

/// What is differentiated: losses by their seeds, log-sum-exps by theirs, and the z-loss.
fn objective(x: &[f64], shape: [usize; 3], targets: &[i64], config: &XentConfig, lse: Option<&[f32]>) -> f64 {
    let [n, v, d] = shape;
    let (e, rest) = x.split_at(n * d);
    let (c, bias) = rest.split_at(v * d);
    let input = XentInput::new(
        TensorView::from_slice([n, d], e).expect("e"),
        TensorView::from_slice([v, d], c).expect("c"),
        TensorView::from_slice([n], targets).expect("targets"),
    );
    let input = input.and_then(|input| input.bias(bias)).expect("an input");
    let forward = linear_cross_entropy(&input, config).expect("a loss");
    let by_lse =
        lse.unwrap_or_default().iter().zip(forward.lse.as_slice()).map(|(g, lse)| f64::from(*g) * lse);
    forward.total() + forward.z_loss + by_lse.sum::<f64>()
}

#[test]
fn every_option() {
    let shape @ [n, v, d] = [7, 11, 5];
    let targets: Vec<i64> = vec![3, 10, -100, 0, 7, -100, 5];
    let x: Vec<f64> = normals(n * d + v * d + v, 3).iter().map(|&x| f64::from(x)).collect();
    let weights: Vec<f32> = (0..v).map(|j| 0.25 + 0.25 * (j % 3) as f32).collect();
    let lse = [0.3f32, -0.2, 0.0, 0.5, 0.1, 0.7];
    let base = || XentConfig { filter: Filter::None, ..XentConfig::default() };
    let configs = [
        base(),
        XentConfig { softcap: Some(2.0), ..base() },
        XentConfig { z_loss: 0.05, reduction: Reduction::Sum, ..base() },
        XentConfig { label_smoothing: 0.3, class_weights: Some(weights.clone()), ..base() },
        XentConfig { class_weights: Some(weights), reduction: Reduction::None, ..base() },
        XentConfig { shift: 1, softcap: Some(3.0), label_smoothing: 0.1, z_loss: 0.1, ..base() },
    ];
    for config in configs {
        let lse = (config.shift == 1).then_some(&lse[..]);
        let e = Tensor::from_slice([n, d], &x[..n * d]).expect("e");
        let c = Tensor::from_slice([v, d], &x[n * d..n * d + v * d]).expect("c");
        let bias = &x[n * d + v * d..];
        let words = TensorView::from_slice([n], &targets).expect("targets");
        let input =
            XentInput::new(e.view(), c.view(), words).and_then(|input| input.bias(bias)).expect("an input");
        let seeds = Seeds { loss: Upstream::Scalar(1.0), lse };
        let (_, grads) =
            linear_cross_entropy_with_grad(&input, seeds, Need::default(), &config).expect("both");
        let gradient = [
            grads.de.expect("de").into_vec(),
            grads.dc.expect("dc").into_vec(),
            grads.dbias.expect("dbias").into_vec(),
        ]
        .concat();
        assert_gradient(|x| objective(x, shape, &targets, &config, lse), &x, &gradient, 1e-5, 1e-7);
    }
}
