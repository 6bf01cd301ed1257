//! The fixtures: masks exactly, results to 1e-4, gradients to 1e-3.

use kc_attention::sea::*;
use kc_core::{Float, Tensor};
use kc_testing::{Tol, assert_close, each_isa};

use super::support::{Case, inputs};

fn close<A: Float>(case: &Case, what: &str, got: &[A], tol: f64) {
    let want = case.flat(what);
    let size = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert_eq!(got.len(), want.len(), "{} {what}", case.name);
    assert_close(got, &want, Tol::abs(tol * size.max(1e-3)));
}

fn mask_is_that_of_the_case<T: kc_core::math::Real>(case: &Case, trace: &SeaTrace<T>) {
    let keep: Vec<bool> = {
        let any = kc_io::read(kc_testing::golden(&format!("sea/{}/keep.npy", case.name))).unwrap();
        any.bytes().iter().map(|&b| b != 0).collect()
    };
    assert_eq!(trace.kept.as_slice(), keep, "{}", case.name);
    assert_eq!(trace.probs.crow(), case.ids("crow"), "{}", case.name);
    let cols: Vec<i64> = trace.probs.cols().iter().map(|&c| i64::from(c)).collect();
    assert_eq!(cols, case.ids("cols"), "{}", case.name);
    let nnz: Vec<i64> = trace.probs.nnz_per_batch().into_iter().map(|n| n as i64).collect();
    assert_eq!(nnz, case.ids("nnz"), "{}", case.name);
}

#[test]
fn results_and_masks_are_those_of_the_fixtures() {
    for case in Case::all() {
        let [q, k, v] = ["q", "k", "v"].map(|x| case.read::<4>(x));
        each_isa(|isa| {
            let layer = case.layer(isa);
            let x = inputs([q.view(), k.view(), v.view()], case.lengths.as_deref());
            let trace = layer.trace(&x).unwrap();
            close(&case, "performer", trace.performer.as_slice(), 1e-5);
            close(&case, "enc", trace.enc.as_slice(), 1e-5);
            close(&case, "scales", trace.scales.as_slice(), 1e-5);
            close(&case, "est_score", trace.est_score.as_slice(), 1e-4);
            close(&case, "est_prob", trace.est_prob.as_slice(), 1e-4);
            mask_is_that_of_the_case(&case, &trace);
            close(&case, "avg", trace.avg.as_slice(), 1e-4);
            close(&case, "sparse_ctx", trace.sparse_ctx.as_slice(), 1e-4);
            close(&case, "out", trace.out.as_slice(), 1e-4);
            let out = layer.forward(&x).unwrap();
            close(&case, "out", out.out.as_slice(), 1e-4);
            assert_eq!(out.nnz, trace.probs.nnz_per_batch());
        });
    }
}

fn gradients<T: kc_core::math::Real>(case: &Case, read: impl Fn(&str) -> Tensor<T, 4>, tol: f64) {
    let layer = SeaLayer::new(case.config.clone(), case.params().cast::<T>()).unwrap();
    let [q, k, v, dy] = ["q", "k", "v", "dy"].map(&read);
    let teacher = case.teacher.then(|| ["teacher_scores", "teacher_context"].map(&read));
    let teacher = teacher.as_ref().map(|[s, c]| Teacher { scores: s.view(), context: Some(c.view()) });
    let x = inputs([q.view(), k.view(), v.view()], case.lengths.as_deref());
    let (trace, loss, cache) = layer.forward_train(&x, teacher.as_ref()).unwrap();
    mask_is_that_of_the_case(case, &trace);
    if case.teacher {
        for (what, got) in [
            ("kl_est", loss.kl_est),
            ("mse_est", loss.mse_est),
            ("kl_score", loss.kl_score),
            ("mse_score", loss.mse_score),
            ("mse_ctx", loss.mse_ctx),
            ("loss", loss.total),
        ] {
            let want = case.flat(what)[0];
            assert!((got - want).abs() <= tol * want.abs(), "{} {what}: {got} {want}", case.name);
        }
    }
    let grads = layer.backward(&cache, dy.view()).unwrap();
    close(case, "d_q", grads.q.as_slice(), tol);
    close(case, "d_k", grads.k.as_slice(), tol);
    close(case, "d_v", grads.v.as_slice(), tol);
    let mut checked = 0;
    for (name, values) in grads.params.entries() {
        let file = format!("d_{name}");
        if kc_testing::golden_dir().join(format!("sea/{}/{file}.npy", case.name)).exists() {
            close(case, &file, values, tol);
            checked += 1;
        }
    }
    assert!(checked >= 7, "{checked}");
}

#[test]
fn losses_and_gradients_are_those_of_the_fixtures() {
    for case in Case::all() {
        gradients::<f64>(&case, |x| case.wide(x), 1e-5);
        gradients::<f32>(&case, |x| case.read(x), 1e-3);
    }
}
