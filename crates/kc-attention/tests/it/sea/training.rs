//! Gradients against differences in f64, and learning.

use kc_attention::sea::*;
use kc_core::{Tensor, TensorView};
use kc_testing::normals;

fn wide(shape: [usize; 4], seed: u64) -> Tensor<f64, 4> {
    let x: Vec<f64> = normals(shape.iter().product(), seed).into_iter().map(f64::from).collect();
    Tensor::from_slice(shape, &x).unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Slopes along random directions, of everything at once: the mask must be the same on both sides, which it is for
/// steps this small.
fn along(config: &SeaConfig, lengths: Option<&[usize]>, t: usize, tol: f64) {
    let (h, d) = (config.heads, config.head_dim);
    let shape = [2, h, t, d];
    let [q, k, v, dy, context] = [0, 1, 2, 3, 4].map(|i| wide(shape, i));
    let scores = wide([2, h, t, t], 5);
    let mut params = SeaParams::<f64>::init(config, 3).unwrap();
    // Fresh causal layers repeat each score four times; other normalisations leave no ties that a step could break.
    for (name, values) in params.entries_mut() {
        if name.starts_with("ln2") {
            values.iter_mut().zip(normals(32, 9)).for_each(|(x, y)| *x += 0.3 * f64::from(y));
        }
    }
    let params = params;
    let teacher = Teacher { scores: scores.view(), context: Some(context.view()) };
    let run = |params: &SeaParams<f64>, x: [TensorView<'_, f64, 4>; 3]| {
        let layer = SeaLayer::new(config.clone(), params.clone()).unwrap();
        let x = SeaInputs { lengths, ..SeaInputs::new(x[0], x[1], x[2]) };
        let (trace, loss, cache) = layer.forward_train(&x, Some(&teacher)).unwrap();
        (
            dot(trace.out.as_slice(), dy.as_slice()) + loss.total,
            layer.backward(&cache, dy.view()).unwrap(),
            trace.kept,
        )
    };
    let (_, grads, kept) = run(&params, [q.view(), k.view(), v.view()]);
    let step = 1e-6;
    let names: Vec<&str> =
        shapes(config).into_iter().map(|(name, _)| name).filter(|name| *name != "proj").collect();
    for (i, name) in names.iter().copied().chain(["q", "k", "v"]).enumerate() {
        let found = |sign: f64| {
            let (mut params, mut x) = (params.clone(), [q.clone(), k.clone(), v.clone()]);
            let mut all: Vec<(&str, &mut [f64])> =
                params.entries_mut().into_iter().map(|(n, x)| (n, &mut x[..])).collect();
            all.extend(["q", "k", "v"].into_iter().zip(x.iter_mut().map(Tensor::as_mut_slice)));
            let (_, values) = all.into_iter().find(|(n, _)| *n == name).unwrap();
            let direction = normals(values.len(), 100 + i as u64);
            values.iter_mut().zip(direction).for_each(|(x, d)| *x += sign * step * f64::from(d));
            let (value, _, now) = run(&params, [x[0].view(), x[1].view(), x[2].view()]);
            assert_eq!(now, kept, "the mask moved");
            value
        };
        let slope = (found(1.0) - found(-1.0)) / (2.0 * step);
        let own = [("q", grads.q.as_slice()), ("k", grads.k.as_slice()), ("v", grads.v.as_slice())];
        let all = grads.params.entries().into_iter().chain(own);
        let (_, gradient) = all.into_iter().find(|(n, _)| *n == name).unwrap();
        let direction: Vec<f64> =
            normals(gradient.len(), 100 + i as u64).into_iter().map(f64::from).collect();
        let want = dot(gradient, &direction);
        assert!((slope - want).abs() <= tol * (1.0 + want.abs()), "{name}: slope {slope}, gradient {want}");
    }
    assert!(grads.params.proj.iter().all(|x| *x == 0.0));
}

#[test]
fn gradients_are_slopes() {
    let base = SeaConfig { heads: 2, head_dim: 6, t_m: 8, k: 3.0, max_len: 21, ..SeaConfig::default() };
    along(&SeaConfig { causal: true, ..base.clone() }, None, 21, 2e-5);
    along(
        &SeaConfig { partial_scaler: false, max_span: Span::All, causal: true, ..base.clone() },
        None,
        18,
        2e-5,
    );
    // The maxima of softmax features are constants to the gradients, and matter where the floor of 1e-4 does.
    along(&base, Some(&[20, 13]), 20, 2e-3);
    along(&SeaConfig { group: Group::Head, ..base }, None, 17, 2e-3);
}

/// Runs of equal symbols with noise, which attention by content can tell apart.
fn sequences(n: usize, h: usize, t: usize, d: usize, seed: u64) -> [Tensor<f32, 4>; 4] {
    let mut rng = kc_core::KcRng::new(seed, 0);
    let symbols = normals(12 * h * d, 77);
    let [mut q, mut k, mut v] = [0, 1, 2].map(|_| Tensor::<f32, 4>::zeros([n, h, t, d]).unwrap());
    for i in 0..n {
        let mut at = 0;
        while at < t {
            let (symbol, run) = (rng.below(12) as usize, 3 + rng.below(6) as usize);
            for at in at..(at + run).min(t) {
                for (head, c) in (0..h).flat_map(|head| (0..d).map(move |c| (head, c))) {
                    for x in [&mut q, &mut k, &mut v] {
                        x[[i, head, at, c]] =
                            symbols[(symbol * h + head) * d + c] + 0.3 * rng.normal() as f32;
                    }
                }
            }
            at += run;
        }
    }
    let scores = Tensor::from_fn([n, h, t, t], |[n, h, i, j]| {
        let dot: f32 = (0..d).map(|c| q[[n, h, i, c]] * k[[n, h, j, c]]).sum();
        dot / (d as f32).sqrt()
    });
    [q, k, v, scores.unwrap()]
}

#[test]
fn a_layer_learns_where_its_teacher_looks() {
    for causal in [false, true] {
        let base = SeaConfig {
            heads: 2,
            head_dim: 16,
            t_m: 16,
            k: 6.0,
            causal,
            max_len: 64,
            ..SeaConfig::default()
        };
        let mut layer = SeaLayer::new(base.clone(), SeaParams::<f32>::init(&base, 1).unwrap()).unwrap();
        let [q, k, v, scores] = sequences(16, 2, 64, 16, 1);
        let x = SeaInputs::new(q.view(), k.view(), v.view());
        let teacher = Teacher { scores: scores.view(), context: None };
        let mass = |layer: &SeaLayer<f32>| {
            let trace = layer.trace(&x).unwrap();
            covered_mass(&trace.probs, scores.view(), &[64; 16], causal).unwrap()
        };
        let before = mass(&layer);
        let how = DistillConfig { steps: 60, jitter: 0.1, ..DistillConfig::default() };
        let losses = distill(&mut layer, &x, &teacher, &how, |_, _| true).unwrap();
        let (first, last) = (losses[0].kl_est, losses[59].kl_est);
        assert!(last < 0.75 * first && mass(&layer) > before + 0.02, "{causal}: {first} {last} {before}");
        let stopped = distill(&mut layer, &x, &teacher, &how, |step, _| step < 2);
        assert!(matches!(stopped, Err(kc_core::Error::Cancelled)));
    }
}

#[test]
fn bad_training_is_refused() {
    let base = SeaConfig { heads: 1, head_dim: 4, t_m: 4, k: 2.0, ..SeaConfig::default() };
    let [q, k, v, scores] = sequences(2, 1, 9, 4, 1);
    let x = SeaInputs::new(q.view(), k.view(), v.view());
    let teacher = Teacher { scores: scores.view(), context: None };
    let good = DistillConfig { steps: 2, ..DistillConfig::default() };
    let train = |how: DistillConfig| {
        let mut layer = SeaLayer::new(base.clone(), SeaParams::<f32>::init(&base, 1).unwrap()).unwrap();
        distill(&mut layer, &x, &teacher, &how, |_, _| true)
    };
    assert_eq!(train(good.clone()).unwrap().len(), 2);
    for (how, what) in [
        (DistillConfig { batch: 0, ..good.clone() }, "batch"),
        (DistillConfig { rate: f64::NAN, ..good.clone() }, "rate"),
        (DistillConfig { rate: f64::INFINITY, ..good.clone() }, "rate"),
        (DistillConfig { jitter: 1.5, ..good.clone() }, "jitter"),
    ] {
        let found = train(how).unwrap_err().to_string();
        assert!(found.starts_with(what) && found.len() < 80, "{found}");
    }
    // A step out of the finite numbers is an error, not a file of them.
    let found = train(DistillConfig { rate: 1e300, steps: 1, ..good });
    assert!(matches!(found, Err(kc_core::Error::NotFinite { .. })));
}
