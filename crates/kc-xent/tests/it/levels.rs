//! Every level against the definition: odd sizes, strided views, element types, threads.

use kc_core::{Float, Isa, Tensor, bf16, f16};
use kc_testing::{Tol, assert_close, each_isa, relative_error, same_on_any_pool, strided};
use kc_xent::{
    Embedding, Filter, Loss, Need, Reduction, Seeds, Upstream, XentConfig, XentInput, linear_cross_entropy,
    linear_cross_entropy_backward, linear_cross_entropy_with_grad, materialized, reference,
};

use crate::support::{Case, input};

fn exact(isa: Isa) -> XentConfig {
    XentConfig { filter: Filter::None, isa, ..XentConfig::default() }
}

/// Both ways of computing gradients against the definition.
fn check<T: Embedding>(input: &XentInput<'_, T>, config: &XentConfig, tol: f64) {
    let want = reference::linear_cross_entropy(input, config, &[1.0], &[]).expect("a reference");
    let need = Need::default();
    let forward = linear_cross_entropy(input, config).expect("a loss");
    let apart = linear_cross_entropy_backward(&forward, input, None, Seeds::default(), need, config);
    let (again, together) =
        linear_cross_entropy_with_grad(input, Seeds::default(), need, config).expect("both");
    assert_eq!(forward, again);
    let loss = match &forward.loss {
        Loss::Scalar(loss) => *loss,
        Loss::PerToken(losses) => {
            assert_close(losses.as_slice(), want.losses.as_slice(), Tol::new(tol, tol));
            forward.total()
        }
    };
    assert_close(&[loss], &[want.loss], Tol::new(tol, tol));
    assert_close(forward.lse.as_slice(), want.lse.as_slice(), Tol::new(tol, tol));
    for grads in [apart.expect("gradients"), together] {
        let lost = |got: &[T::Sum], want: &[f64]| {
            let got: Vec<f64> = got.iter().map(|x| x.to_f64()).collect();
            relative_error(&got, want)
        };
        assert!(lost(grads.de.expect("de").as_slice(), want.de.as_slice()) < tol);
        assert!(lost(grads.dc.expect("dc").as_slice(), want.dc.as_slice()) < tol);
        if let Some(dbias) = &grads.dbias {
            assert!(lost(dbias.as_slice(), &want.dbias) < tol);
        }
    }
}

#[test]
fn odd_sizes() {
    for (n, v, d) in [
        (1, 1, 1),
        (1, 2, 3),
        (7, 5, 15),
        (8, 16, 16),
        (9, 17, 17),
        (33, 127, 31),
        (48, 128, 32),
        (49, 129, 33),
        (97, 257, 70),
        (130, 300, 9),
        (20, 1100, 259),
        (3, 140, 600),
    ] {
        let case = Case::new(n, v, d, (n * v) as u64);
        each_isa(|isa| check(&case.input(), &exact(isa), 1e-5));
    }
}

#[test]
fn every_option_at_once() {
    let case = Case::new(60, 150, 37, 5);
    let weights: Vec<f32> = (0..150).map(|j| (j % 4) as f32 * 0.5).collect();
    each_isa(|isa| {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let config = XentConfig {
                reduction,
                softcap: Some(8.0),
                shift: 3,
                label_smoothing: 0.2,
                class_weights: Some(weights.clone()),
                z_loss: 1e-3,
                ..exact(isa)
            };
            check(&case.input(), &config, 2e-5);
        }
    });
}

#[test]
fn any_strides() {
    let case = Case::new(11, 140, 20, 3);
    let want = linear_cross_entropy_with_grad(
        &case.input(),
        Seeds::default(),
        Need::default(),
        &XentConfig::default(),
    );
    let want = want.expect("both");
    for e in strided(11, 20, case.e.as_slice(), f32::NAN) {
        for c in strided(140, 20, case.c.as_slice(), f32::NAN) {
            let input = input(e.view(), c.view(), &case.targets).bias(&case.bias).expect("a bias");
            let config = XentConfig::default();
            let got = linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config);
            assert!(got.expect("both") == want);
        }
    }
}

#[test]
fn half_precision_matches_the_definition_on_the_same_inputs() {
    fn half<T: Embedding<Sum = f32>>(isa: Isa) {
        let case = Case::new(40, 200, 50, 8);
        let narrow = |from: &Tensor<f32, 2>| {
            let values: Vec<T> = from.as_slice().iter().map(|&x| T::from_f32(x)).collect();
            Tensor::from_slice(from.shape(), &values).expect("a tensor")
        };
        let (e, c) = (narrow(&case.e), narrow(&case.c));
        let input = input(e.view(), c.view(), &case.targets).bias(&case.bias).expect("a bias");
        check(&input, &exact(isa), 1e-5);
    }
    each_isa(half::<f16>);
    each_isa(half::<bf16>);
}

#[test]
fn gradients_come_in_the_type_of_the_inputs() {
    let case = Case::new(10, 30, 8, 1);
    let (_, grads) =
        linear_cross_entropy_with_grad(&case.input(), Seeds::default(), Need::default(), &exact(Isa::best()))
            .expect("both");
    let narrow = grads.cast::<bf16>().expect("a cast");
    let wide = grads.dc.expect("dc");
    let narrow = narrow.dc.expect("dc");
    for (n, w) in narrow.as_slice().iter().zip(wide.as_slice()) {
        assert_eq!(*n, bf16::from_f32(*w));
    }
}

#[test]
fn f64_is_f64() {
    let case = Case::new(30, 90, 24, 2);
    let wide = |from: &Tensor<f32, 2>| {
        let values: Vec<f64> = from.as_slice().iter().map(|&x| f64::from(x)).collect();
        Tensor::from_slice(from.shape(), &values).expect("a tensor")
    };
    let (e, c) = (wide(&case.e), wide(&case.c));
    let bias: Vec<f64> = case.bias.iter().map(|&b| f64::from(b)).collect();
    check(&input(e.view(), c.view(), &case.targets).bias(&bias).expect("a bias"), &exact(Isa::best()), 1e-12);
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case::new(150, 2500, 40, 4);
    let input = case.input();
    for filter in [Filter::None, Filter::Value(1e-3)] {
        let config = XentConfig { filter, ..XentConfig::default() };
        same_on_any_pool(|| {
            let forward = linear_cross_entropy(&input, &config).expect("a loss");
            let apart = linear_cross_entropy_backward(
                &forward,
                &input,
                None,
                Seeds::default(),
                Need::default(),
                &config,
            );
            let both = linear_cross_entropy_with_grad(&input, Seeds::default(), Need::default(), &config);
            let bits = |grads: kc_xent::XentGrads<f32>| {
                let all = [grads.de.expect("de").into_vec(), grads.dc.expect("dc").into_vec()];
                all.concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
            };
            let lse: Vec<u64> = forward.lse.as_slice().iter().map(|x| x.to_bits()).collect();
            let average: Vec<u32> = forward.logit_avg.iter().flatten().map(|x| x.to_bits()).collect();
            (lse, average, bits(apart.expect("gradients")), bits(both.expect("both").1))
        });
    }
}

#[test]
fn the_baseline_agrees() {
    let case = Case::new(50, 170, 24, 9);
    let config = XentConfig { softcap: Some(10.0), z_loss: 1e-3, shift: 1, ..exact(Isa::best()) };
    let per_token = kc_testing::uniforms(49, 0.5, 1.5, 1);
    let none = XentConfig { reduction: Reduction::None, ..config.clone() };
    for (config, loss) in [(&config, Upstream::Scalar(0.7)), (&none, Upstream::PerToken(&per_token))] {
        let lse = kc_testing::uniforms(49, -0.1, 0.1, 2);
        let seeds = Seeds { loss, lse: Some(&lse) };
        let (forward, grads) =
            linear_cross_entropy_with_grad(&case.input(), seeds, Need::default(), config).expect("ours");
        let (stored, plain) = materialized(&case.input(), seeds, Need::default(), config).expect("stored");
        assert_close(stored.lse.as_slice(), forward.lse.as_slice(), Tol::rel(1e-6));
        let pairs = [(&grads.de, &plain.de), (&grads.dc, &plain.dc)];
        for (ours, theirs) in pairs {
            let [ours, theirs] = [ours, theirs].map(|g| g.as_ref().expect("a gradient").as_slice().to_vec());
            assert!(relative_error(&ours, &theirs) < 1e-5);
        }
    }
}
