//! Gradients.

use kc_attention::exact::reference;
use kc_attention::{AttentionConfig, AttentionGrads, Layout, Mask, attention, attention_backward};
use kc_core::{Error, Result, Tensor};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, assert_gradient, each_isa, same_on_any_pool};

use super::{CASES, Case, Masks, normal, tokens_first, with_lse};

fn grads(
    [q, k, v]: [&Tensor<f32, 4>; 3],
    d_o: &Tensor<f32, 4>,
    mask: &Mask<'_>,
    config: &AttentionConfig,
) -> Result<AttentionGrads<f32>> {
    let found = attention(q.view(), k.view(), v.view(), mask, config)?;
    let lse = found.lse.unwrap();
    attention_backward(q.view(), k.view(), v.view(), found.out.view(), lse.view(), d_o.view(), mask, config)
}

#[test]
fn every_level_and_mask_follows_the_definition() {
    for (n, case) in CASES.into_iter().enumerate() {
        let [q, k, v] = case.inputs(10 * n as u64);
        let d_o = normal(q.shape(), 77);
        let masks = Masks::new(case, 10 * n as u64 + 3);
        for mask in masks.all() {
            let scale = 1.0 / (case.2 as f64).sqrt();
            let [dq, dk, dv] =
                reference::attention_backward(q.view(), k.view(), v.view(), d_o.view(), &mask, scale)
                    .unwrap();
            each_isa(|isa| {
                let config = AttentionConfig { isa, ..with_lse() };
                let got = grads([&q, &k, &v], &d_o, &mask, &config).unwrap();
                assert_close(got.dv.as_slice(), dv.as_slice(), Tol::new(5e-6, 2e-5));
                assert_close(got.dk.as_slice(), dk.as_slice(), Tol::new(5e-6, 2e-5));
                assert_close(got.dq.as_slice(), dq.as_slice(), Tol::new(5e-6, 2e-5));
            });
        }
    }
}

#[test]
fn doubles_agree_with_central_differences() {
    let case = Case([1, 2, 5], [1, 7], 3);
    let wide = |x: Tensor<f32, 4>| Tensor::from_fn(x.shape(), |i| f64::from(x[i])).unwrap();
    let [q, k, v] = case.inputs(1).map(wide);
    let d_o = wide(normal(q.shape(), 9));
    for mask in Masks::new(case, 3).all() {
        each_isa(|isa| {
            let config = AttentionConfig { isa, ..with_lse() };
            let found = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
            let lse = found.lse.unwrap();
            let got = attention_backward(
                q.view(),
                k.view(),
                v.view(),
                found.out.view(),
                lse.view(),
                d_o.view(),
                &mask,
                &config,
            )
            .unwrap();
            let value = |q: &[f64], k: &[f64], v: &[f64]| {
                let t = |shape, x: &[f64]| Tensor::from_slice(shape, x).unwrap();
                let (q, k, v) = (t([1, 2, 5, 3], q), t([1, 1, 7, 3], k), t([1, 1, 7, 3], v));
                let out = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap().out;
                out.as_slice().iter().zip(d_o.as_slice()).map(|(o, d)| o * d).sum::<f64>()
            };
            let (qs, ks, vs) = (q.as_slice(), k.as_slice(), v.as_slice());
            assert_gradient(|x| value(x, ks, vs), qs, got.dq.as_slice(), 1e-5, 1e-8);
            assert_gradient(|x| value(qs, x, vs), ks, got.dk.as_slice(), 1e-5, 1e-8);
            assert_gradient(|x| value(qs, ks, x), vs, got.dv.as_slice(), 1e-5, 1e-8);
        });
    }
}

#[test]
fn layouts_and_threads_do_not_change_a_bit() {
    for case in [CASES[2], CASES[4], Case([1, 8, 300], [2, 150], 40)] {
        let [q, k, v] = case.inputs(7);
        let d_o = normal(q.shape(), 4);
        for mask in Masks::new(case, 8).all() {
            let want = same_on_any_pool(|| grads([&q, &k, &v], &d_o, &mask, &with_lse()).unwrap());
            let [qt, kt, vt, dt] = [&q, &k, &v, &d_o].map(tokens_first);
            let config = AttentionConfig { layout: Layout::Nhd, ..with_lse() };
            let got = grads([&qt, &kt, &vt], &dt, &mask, &config).unwrap();
            assert_eq!(tokens_first(&got.dq), want.dq);
            assert_eq!(tokens_first(&got.dk), want.dk);
            assert_eq!(tokens_first(&got.dv), want.dv);
        }
    }
}

#[test]
fn memory_grows_with_keys_and_not_with_scores() {
    let (n, d) = (4096, 16);
    let case = Case([1, 1, n], [1, n], d);
    let [q, k, v] = case.inputs(1);
    let d_o = normal(q.shape(), 4);
    let found = attention(q.view(), k.view(), v.view(), &Mask::NONE, &with_lse()).unwrap();
    let lse = found.lse.unwrap();
    let (grads, memory) = measure(|| {
        let (o, lse, d_o) = (found.out.view(), lse.view(), d_o.view());
        attention_backward(q.view(), k.view(), v.view(), o, lse, d_o, &Mask::NONE, &with_lse()).unwrap()
    });
    assert_eq!(grads.dq.shape(), q.shape());
    // Three gradients, three packed copies, two sums for each of at most 16 pieces, and one thread's tiles.
    let allowed = (6 + 32 + 2) * n * d * 4 + (1 << 19);
    assert!(memory.peak < allowed, "{} bytes, {allowed} allowed", memory.peak);
    assert!(allowed < n * n * 4 / 5);
}

#[test]
fn wrong_input_is_told_by_name() {
    let [q, k, v] = Case([1, 2, 6], [1, 9], 4).inputs(1);
    let found = attention(q.view(), k.view(), v.view(), &Mask::NONE, &with_lse()).unwrap();
    let (o, lse) = (found.out, found.lse.unwrap());
    let run = |o: &Tensor<f32, 4>, lse: &Tensor<f32, 3>, d_o: &Tensor<f32, 4>| {
        let (o, lse, d_o) = (o.view(), lse.view(), d_o.view());
        attention_backward(q.view(), k.view(), v.view(), o, lse, d_o, &Mask::NONE, &with_lse())
    };
    run(&o, &lse, &o).unwrap();
    assert!(matches!(run(&k, &lse, &o), Err(Error::Shape { arg, .. }) if arg == "o"));
    assert!(matches!(run(&o, &lse, &k), Err(Error::Shape { arg, .. }) if arg == "d_o"));
    assert!(matches!(run(&o, &normal([1, 2, 5], 1), &o), Err(Error::Shape { arg, .. }) if arg == "lse"));
    let mut bad = o.clone();
    bad[[0, 1, 2, 3]] = f32::INFINITY;
    assert!(matches!(run(&o, &lse, &bad), Err(Error::NotFinite { arg, .. }) if arg == "d_o"));
    let mut bad = lse.clone();
    bad[[0, 1, 2]] = f32::NAN;
    assert!(matches!(run(&o, &bad, &o), Err(Error::NotFinite { arg, .. }) if arg == "lse"));
}
