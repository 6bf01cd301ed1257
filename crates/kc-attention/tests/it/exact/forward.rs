//! Results against the definition, golden data and each other.

use kc_attention::exact::reference;
use kc_attention::{AttentionConfig, Layout, Mask, attention, attention_into};
use kc_core::{Tensor, bf16, f16};
use kc_testing::alloc::measure;
use kc_testing::{Tol, assert_close, each_isa, golden_tensor, same_on_any_pool};

use super::{CASES, Case, Masks, normal, spread, spread_view, tokens_first, with_lse};

#[test]
fn every_level_and_mask_follows_the_definition() {
    for (n, case) in CASES.into_iter().enumerate() {
        let [q, k, v] = case.inputs(10 * n as u64);
        let masks = Masks::new(case, 10 * n as u64 + 3);
        for mask in masks.all() {
            let scale = 1.0 / (case.2 as f64).sqrt();
            let (out, lse) = reference::attention(q.view(), k.view(), v.view(), &mask, scale).unwrap();
            each_isa(|isa| {
                let config = AttentionConfig { isa, ..with_lse() };
                let got = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
                assert_close(got.out.as_slice(), out.as_slice(), Tol::new(2e-6, 3e-6));
                assert_close(got.lse.unwrap().as_slice(), lse.as_slice(), Tol::new(1e-6, 2e-6));
            });
        }
    }
}

#[test]
fn doubles_are_exact_to_thirteen_digits() {
    for (n, case) in CASES.into_iter().enumerate() {
        let wide = |x: Tensor<f32, 4>| Tensor::from_fn(x.shape(), |i| f64::from(x[i])).unwrap();
        let [q, k, v] = case.inputs(10 * n as u64).map(wide);
        for mask in Masks::new(case, 10 * n as u64 + 3).all() {
            let scale = 1.0 / (case.2 as f64).sqrt();
            let (out, _) = reference::attention(q.view(), k.view(), v.view(), &mask, scale).unwrap();
            each_isa(|isa| {
                let config = AttentionConfig { isa, ..AttentionConfig::default() };
                let got = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
                assert_close(got.out.as_slice(), out.as_slice(), Tol::new(1e-13, 1e-14));
            });
        }
    }
}

#[test]
fn golden_cases() {
    for (case, causal) in [("causal_gqa_int8", true), ("cross_int4_fp8", false), ("decode_int4_int8", false)]
    {
        let read = |name: &str| golden_tensor::<f32, 4>(&format!("sage_attention2/{case}/{name}.npy"));
        let [q, k, v, want] = ["q", "k", "v", "o_exact"].map(read);
        let lse: Tensor<f32, 3> = golden_tensor(&format!("sage_attention2/{case}/lse_exact.npy"));
        each_isa(|isa| {
            let config = AttentionConfig { isa, ..with_lse() };
            let mask = Mask { causal, ..Mask::NONE };
            let got = attention(q.view(), k.view(), v.view(), &mask, &config).unwrap();
            assert_close(got.out.as_slice(), want.as_slice(), Tol::abs(5e-6));
            assert_close(got.lse.unwrap().as_slice(), lse.as_slice(), Tol::new(5e-7, 2e-6));
        });
    }
}

#[test]
fn layouts_strides_and_threads_do_not_change_a_bit() {
    for case in [CASES[2], CASES[4], CASES[8], Case([1, 8, 1], [2, 1500], 40)] {
        let [q, k, v] = case.inputs(7);
        for mask in Masks::new(case, 8).all() {
            let want =
                same_on_any_pool(|| attention(q.view(), k.view(), v.view(), &mask, &with_lse()).unwrap());
            let [qt, kt, vt] = [&q, &k, &v].map(tokens_first);
            let config = AttentionConfig { layout: Layout::Nhd, ..with_lse() };
            let got = attention(qt.view(), kt.view(), vt.view(), &mask, &config).unwrap();
            assert_eq!(tokens_first(&got.out), want.out);
            assert_eq!(got.lse, want.lse);
            let [sq, sk, sv] = [&q, &k, &v].map(spread);
            let views = (spread_view(&q, &sq), spread_view(&k, &sk), spread_view(&v, &sv));
            let got = attention(views.0, views.1, views.2, &mask, &with_lse()).unwrap();
            assert_eq!(got, want);
        }
    }
}

#[test]
fn results_go_where_the_view_says() {
    let case = Case([2, 2, 100], [1, 60], 12);
    let [q, k, v] = case.inputs(3);
    let want = attention(q.view(), k.view(), v.view(), &Mask::NONE, &with_lse()).unwrap();
    let mut wide = Tensor::<f32, 4>::zeros([2, 2, 100, 30]).unwrap();
    let mut lse = Tensor::<f32, 3>::zeros([2, 2, 101]).unwrap();
    let out = wide.view_mut().slice(3, 9..21).unwrap();
    let lse_part = lse.view_mut().slice(2, 1..101).unwrap();
    let config = AttentionConfig::default();
    attention_into(q.view(), k.view(), v.view(), &Mask::NONE, &config, out, Some(lse_part)).unwrap();
    assert_eq!(wide.view().slice(3, 9..21).unwrap().to_tensor().unwrap(), want.out);
    assert_eq!(lse.view().slice(2, 1..101).unwrap().to_tensor().unwrap(), want.lse.unwrap());
    assert!(wide.view().slice(3, 0..9).unwrap().iter().all(|x| x == 0.0));
}

#[test]
fn halves_are_widened_and_rounded_once() {
    for case in [CASES[4], Case([1, 4, 1], [2, 600], 24)] {
        let [q, k, v] = case.inputs(5);
        let narrow = |x: &Tensor<f32, 4>| Tensor::from_fn(x.shape(), |i| f16::from_f32(x[i])).unwrap();
        let wide = |x: &Tensor<f16, 4>| Tensor::from_fn(x.shape(), |i| x[i].to_f32()).unwrap();
        let [hq, hk, hv] = [&q, &k, &v].map(narrow);
        let [wq, wk, wv] = [&hq, &hk, &hv].map(wide);
        let config = AttentionConfig::default();
        let got = attention(hq.view(), hk.view(), hv.view(), &Mask::CAUSAL, &config).unwrap().out;
        let want = attention(wq.view(), wk.view(), wv.view(), &Mask::CAUSAL, &config).unwrap().out;
        assert_eq!(got, narrow(&want));

        let narrow = |x: &Tensor<f32, 4>| Tensor::from_fn(x.shape(), |i| bf16::from_f32(x[i])).unwrap();
        let wide = |x: &Tensor<bf16, 4>| Tensor::from_fn(x.shape(), |i| x[i].to_f32()).unwrap();
        let [hq, hk, hv] = [&q, &k, &v].map(narrow);
        let [wq, wk, wv] = [&hq, &hk, &hv].map(wide);
        let got = attention(hq.view(), hk.view(), hv.view(), &Mask::CAUSAL, &config).unwrap().out;
        let want = attention(wq.view(), wk.view(), wv.view(), &Mask::CAUSAL, &config).unwrap().out;
        assert_eq!(got, narrow(&want));
    }
}

#[test]
fn weights_sum_to_one_and_lse_shifts_with_the_keys() {
    let q = normal([1, 2, 50, 8], 1);
    let k = normal([1, 1, 333, 8], 2);
    let ones = Tensor::from_fn([1, 1, 333, 8], |_| 1.0f32).unwrap();
    let plain = attention(q.view(), k.view(), ones.view(), &Mask::NONE, &with_lse()).unwrap();
    assert_close(plain.out.as_slice(), vec![1.0f32; 800].as_slice(), Tol::abs(1e-6));
    let shift = normal([1, 1, 1, 8], 3);
    let moved = Tensor::from_fn(k.shape(), |[b, h, j, c]| k[[b, h, j, c]] + shift[[0, 0, 0, c]]).unwrap();
    let moved = attention(q.view(), moved.view(), ones.view(), &Mask::NONE, &with_lse()).unwrap();
    let (plain, moved) = (plain.lse.unwrap(), moved.lse.unwrap());
    let want = Tensor::from_fn(plain.shape(), |[b, h, i]| {
        let dot: f32 = (0..8).map(|c| q[[b, h, i, c]] * shift[[0, 0, 0, c]]).sum();
        plain[[b, h, i]] + dot / 8f32.sqrt()
    });
    assert_close(moved.as_slice(), want.unwrap().as_slice(), Tol::abs(4e-6));
}

#[test]
fn memory_grows_with_keys_and_not_with_scores() {
    let (n, d) = (4096, 16);
    let [q, k, v] = Case([1, 1, n], [1, n], d).inputs(1);
    let config = AttentionConfig::default();
    let run = || attention(q.view(), k.view(), v.view(), &Mask::NONE, &config).map(|x| x.out.len());
    let (_, memory) = measure(run);
    // Output, packed keys and values, and one thread's tiles.
    let allowed = 3 * n * d * 4 + (1 << 18);
    assert!(memory.peak < allowed, "{} bytes, {allowed} allowed", memory.peak);
    assert!(allowed < n * n * 4 / 50);
}
