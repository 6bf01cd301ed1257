//! Attention against the definition.

use kc_core::{Error, Tensor};
use kc_quant::fireq::*;
use kc_quant::metrics::relative_error;
use kc_testing::{each_isa, normals, same_on_any_pool};

fn tokens(t: usize, heads: usize, hd: usize, seed: u64) -> Tensor<f32, 3> {
    Tensor::from_slice([t, heads, hd], &normals(t * heads * hd, seed)).unwrap()
}

fn cache(tk: usize, kv_heads: usize, hd: usize) -> KvCache4 {
    let mut cache = KvCache4::new(KvConfig::new(kv_heads, hd, tk.max(1))).unwrap();
    cache.append(tokens(tk, kv_heads, hd, 2).view(), tokens(tk, kv_heads, hd, 3).view()).unwrap();
    cache
}

fn expected(q: &Tensor<f32, 3>, cache: &KvCache4, config: &AttentionConfig) -> Tensor<f64, 3> {
    let (k, v) = (cache.dequantize(Side::Key).unwrap(), cache.dequantize(Side::Value).unwrap());
    let offset = config.offset.unwrap_or(cache.len() as i64 - q.shape()[0] as i64);
    let offset = config.causal.then_some(offset);
    reference::attention(q.view(), k.view(), v.view(), offset, config.q_fp8, config.p_fp8).unwrap()
}

/// Shapes: queries, keys, heads, key/value heads, channels.
const SHAPES: [[usize; 5]; 7] = [
    [1, 1, 1, 1, 8],
    [1, 300, 4, 2, 64],
    [5, 5, 3, 3, 16],
    [40, 130, 4, 1, 33],
    [7, 129, 8, 2, 128],
    [70, 70, 2, 2, 20],
    [3, 2100, 2, 1, 32],
];

#[test]
fn every_option_is_that_of_the_definition() {
    each_isa(|isa| {
        for [tq, tk, heads, kv_heads, hd] in SHAPES {
            let (q, cache) = (tokens(tq, heads, hd, 1), cache(tk, kv_heads, hd));
            for (causal, q_fp8, p_fp8) in [(true, true, true), (false, true, false), (true, false, false)] {
                let config = AttentionConfig { causal, q_fp8, p_fp8, ..AttentionConfig::default() };
                let want = expected(&q, &cache, &config);
                let mut y = Tensor::zeros(q.shape()).unwrap();
                attention_into_with(isa, q.view(), &cache, &config, y.view_mut()).unwrap();
                // A weight near the middle of two FP8 numbers may fall to the other one.
                let allowed = if p_fp8 { 2e-3 } else { 3e-6 };
                let error = relative_error(y.view(), want.view()).unwrap();
                assert!(error < allowed, "{isa} {tq} {tk} {heads} {hd} {config:?}: {error:e}");
            }
        }
    });
}

#[test]
fn tiles_differ_by_at_most_a_rounding() {
    for [tq, tk, heads, kv_heads, hd] in SHAPES {
        let (q, cache) = (tokens(tq, heads, hd, 1), cache(tk, kv_heads, hd));
        for p_fp8 in [true, false] {
            let two = AttentionConfig { p_fp8, ..AttentionConfig::default() };
            let want = attention(q.view(), &cache, &two).unwrap();
            for tile in [1, 7, 128, 5000] {
                let config = AttentionConfig { softmax: Softmax::Online { tile }, ..two };
                let y = attention(q.view(), &cache, &config).unwrap();
                let error = relative_error(y.view(), want.view()).unwrap();
                let allowed = if p_fp8 { 0.05 } else { 2e-6 };
                assert!(error < allowed, "{tile}: {error:e}");
            }
        }
    }
}

#[test]
fn the_sum_is_of_what_is_not_rounded() {
    // One key far above the rest: its weight is 1, the others round; values of 1 show what is lost.
    let (tk, hd) = (64, 8);
    let mut k = tokens(tk, 1, hd, 4);
    k.as_mut_slice().iter_mut().for_each(|x| *x *= 0.3);
    let ones = Tensor::from_slice([tk, 1, hd], &vec![1.0f32; tk * hd]).unwrap();
    let q = tokens(1, 1, hd, 5);
    let config = AttentionConfig { causal: false, ..AttentionConfig::default() };
    let y = attention_float(q.view(), k.view(), ones.view(), &config).unwrap();
    let want = reference::attention(q.view(), k.view(), ones.view(), None, true, true).unwrap();
    assert!((f64::from(y.as_slice()[0]) - want.as_slice()[0]).abs() < 1e-6);
    // With a sum of rounded weights it would be 1.
    assert!((want.as_slice()[0] - 1.0).abs() > 1e-4, "{}", want.as_slice()[0]);
}

#[test]
fn offsets_and_masked_rows() {
    let (q, cache) = (tokens(6, 2, 16, 1), cache(10, 1, 16));
    for offset in [-3, -6, 0, 4, 100, i64::MAX, i64::MIN] {
        let config = AttentionConfig { offset: Some(offset), p_fp8: false, ..AttentionConfig::default() };
        let y = attention(q.view(), &cache, &config).unwrap();
        let clamped = AttentionConfig { offset: Some(offset.clamp(-100, 100)), ..config };
        let want = expected(&q, &cache, &clamped);
        for (y, w) in y.as_slice().iter().zip(want.as_slice()) {
            assert!((f64::from(*y) - w).abs() < 1e-5);
        }
        if offset < 0 {
            assert!(y.as_slice()[..32].iter().all(|&y| y == 0.0), "the first query sees nothing");
        }
    }
    let empty = KvCache4::new(KvConfig::new(1, 16, 4)).unwrap();
    let y = attention(q.view(), &empty, &AttentionConfig::default()).unwrap();
    assert!(y.as_slice().iter().all(|&y| y == 0.0));
    let none = attention(tokens(0, 2, 16, 1).view(), &cache, &AttentionConfig::default()).unwrap();
    assert_eq!(none.shape(), [0, 2, 16]);
}

#[test]
fn a_token_at_a_time_is_all_at_once() {
    let (t, heads, kv_heads, hd) = (30, 4, 2, 32);
    let (q, k, v) = (tokens(t, heads, hd, 1), tokens(t, kv_heads, hd, 2), tokens(t, kv_heads, hd, 3));
    let whole = attention(q.view(), &cache(t, kv_heads, hd), &AttentionConfig::default()).unwrap();
    let mut growing = KvCache4::new(KvConfig::new(kv_heads, hd, t)).unwrap();
    for i in 0..t {
        let one = |x: &Tensor<f32, 3>| x.view().slice(0, i..i + 1).unwrap().to_tensor().unwrap();
        growing.append(one(&k).view(), one(&v).view()).unwrap();
        let y = attention(one(&q).view(), &growing, &AttentionConfig::default()).unwrap();
        let want = whole.view().slice(0, i..i + 1).unwrap();
        assert!(relative_error(y.view(), want).unwrap() < 1e-2);
    }
}

#[test]
fn a_ring_that_has_turned_is_read_in_order() {
    let (t, kv_heads, hd) = (150, 2, 64);
    let (k, v) = (tokens(t, kv_heads, hd, 2), tokens(t, kv_heads, hd, 3));
    let last = |x: &Tensor<f32, 3>| x.view().slice(0, t - 100..t).unwrap().to_tensor().unwrap();
    let mut ring = KvCache4::new(KvConfig { sliding: true, ..KvConfig::new(kv_heads, hd, 100) }).unwrap();
    ring.append(k.view(), v.view()).unwrap();
    for i in 0..30 {
        let one =
            |x: &Tensor<f32, 3>| x.view().slice(0, t - 30 + i..t - 29 + i).unwrap().to_tensor().unwrap();
        if i == 0 {
            ring.reset();
            let part = |x: &Tensor<f32, 3>| x.view().slice(0, 0..t - 30).unwrap().to_tensor().unwrap();
            ring.append(part(&k).view(), part(&v).view()).unwrap();
        }
        ring.append(one(&k).view(), one(&v).view()).unwrap();
    }
    let mut straight = KvCache4::new(KvConfig::new(kv_heads, hd, 100)).unwrap();
    straight.append(last(&k).view(), last(&v).view()).unwrap();
    let config = AttentionConfig { p_fp8: false, ..AttentionConfig::default() };
    for (tq, heads) in [(1, 2), (1, 6), (3, 4), (40, 4)] {
        let q = tokens(tq, heads, hd, 1);
        let (got, want) = (attention(q.view(), &ring, &config), attention(q.view(), &straight, &config));
        assert!(relative_error(got.unwrap().view(), want.unwrap().view()).unwrap() < 1e-6);
    }
}

#[test]
fn threads_change_nothing() {
    for ([tq, tk], softmax) in [
        ([1, 5000], Softmax::TwoPass),
        ([100, 300], Softmax::TwoPass),
        ([50, 300], Softmax::Online { tile: 64 }),
    ] {
        let (q, cache) = (tokens(tq, 4, 64, 1), cache(tk, 2, 64));
        let config = AttentionConfig { softmax, ..AttentionConfig::default() };
        same_on_any_pool(|| attention(q.view(), &cache, &config).unwrap().into_vec());
    }
}

#[test]
fn never_all_scores_at_once() {
    let (t, hd) = (2048, 32);
    let (q, cache) = (tokens(t, 1, hd, 1), cache(t, 1, hd));
    let (_, memory) =
        kc_testing::alloc::measure(|| attention(q.view(), &cache, &AttentionConfig::default()).unwrap());
    assert!(memory.peak < t * t * 4 / 8, "{}", memory.peak);
}

#[test]
fn bad_input() {
    let cache = cache(4, 2, 8);
    let call = |q: &Tensor<f32, 3>, config: AttentionConfig| attention(q.view(), &cache, &config).map(|_| ());
    let config = AttentionConfig::default();
    assert!(matches!(call(&tokens(1, 3, 8, 1), config), Err(Error::Argument { .. })));
    assert!(matches!(call(&tokens(1, 2, 9, 1), config), Err(Error::Shape { .. })));
    let tile = AttentionConfig { softmax: Softmax::Online { tile: 0 }, ..config };
    assert!(matches!(call(&tokens(1, 2, 8, 1), tile), Err(Error::Argument { .. })));
    let mut q = tokens(2, 2, 8, 1);
    q[[1, 0, 3]] = f32::INFINITY;
    match call(&q, config) {
        Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 0, 3]),
        other => panic!("{other:?}"),
    }
    let mut out = Tensor::zeros([1, 2, 9]).unwrap();
    let got = attention_into(tokens(1, 2, 8, 1).view(), &cache, &config, out.view_mut());
    assert!(matches!(got, Err(Error::Shape { .. })));
    let (k, v) = (tokens(4, 2, 8, 1), tokens(3, 2, 8, 2));
    assert!(matches!(attention_float(k.view(), k.view(), v.view(), &config), Err(Error::Shape { .. })));
}
