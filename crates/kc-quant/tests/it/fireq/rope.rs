//! Factors around rotary positions.

use kc_core::{Error, Tensor};
use kc_quant::fireq::*;
use kc_quant::metrics::relative_error;
use kc_testing::normals;

/// Keys or queries `[T, H, hd]` turned by their positions, base 10000, the first at `base`.
pub(super) fn rotated(x: &Tensor<f32, 3>, style: PairStyle, base: usize) -> Tensor<f32, 3> {
    let [_, _, hd] = x.shape();
    Tensor::from_fn(x.shape(), |[t, h, c]| {
        let partner = style.partner(c, hd);
        let (index, first) = match style {
            PairStyle::Half => (c % (hd / 2), c < hd / 2),
            PairStyle::Interleaved => (c / 2, c % 2 == 0),
        };
        let angle = (t + base) as f64 * 10000f64.powf(-2.0 * index as f64 / hd as f64);
        let (this, other) = (f64::from(x[[t, h, c]]), f64::from(x[[t, h, partner]]));
        let sign = if first { -1.0 } else { 1.0 };
        (this * angle.cos() + sign * other * angle.sin()) as f32
    })
    .unwrap()
}

fn keys(t: usize, heads: usize, hd: usize, seed: u64) -> Tensor<f32, 3> {
    let mut k = Tensor::from_slice([t, heads, hd], &normals(t * heads * hd, seed)).unwrap();
    for i in 0..t {
        for h in 0..heads {
            k[[i, h, 3]] *= 12.0;
            k[[i, h, 5]] += 9.0;
        }
    }
    k
}

#[test]
fn scores_do_not_change() {
    for style in [PairStyle::Half, PairStyle::Interleaved] {
        let (t, kv_heads, group, hd) = (7, 2, 3, 16);
        let (k, q) = (keys(t, kv_heads, hd, 1), keys(t, kv_heads * group, hd, 2));
        let config = RopeConfig { top_k: 2, style, ..RopeConfig::default() };
        let scales = rope_scales(k.view(), rotated(&k, style, 0).view(), &config).unwrap();
        let through = |x: &Tensor<f32, 3>, key: bool| {
            let mut x = x.clone();
            for stage in [Stage::Pre, Stage::Post] {
                if key {
                    scales.apply_to_keys(stage, x.view_mut()).unwrap();
                } else {
                    scales.apply_to_queries(stage, x.view_mut()).unwrap();
                }
                if stage == Stage::Pre {
                    x = rotated(&x, style, 0);
                }
            }
            x
        };
        let scores = |q: &Tensor<f32, 3>, k: &Tensor<f32, 3>| {
            Tensor::from_fn([t, kv_heads * group, t], |[i, h, j]| {
                (0..hd).map(|c| f64::from(q[[i, h, c]]) * f64::from(k[[j, h / group, c]])).sum::<f64>()
            })
            .unwrap()
        };
        let want = scores(&rotated(&q, style, 0), &rotated(&k, style, 0));
        let got = scores(&through(&q, false), &through(&k, true));
        assert!(relative_error(got.view(), want.view()).unwrap() < 1e-6, "{style:?}");
    }
}

#[test]
fn pairs_have_one_factor_before_and_partners_come_along() {
    let (kv_heads, hd) = (2, 16);
    let k = keys(20, kv_heads, hd, 3);
    for style in [PairStyle::Half, PairStyle::Interleaved] {
        let post = rotated(&k, style, 0);
        let config = RopeConfig { top_k: 2, style, alpha: 3.0, beta: 5.0 };
        let scales = rope_scales(k.view(), post.view(), &config).unwrap();
        let (pre_k, post_k) = (scales.keys(Stage::Pre), scales.keys(Stage::Post));
        for h in 0..kv_heads {
            let mut chosen = 0;
            for c in 0..hd {
                let partner = style.partner(c, hd);
                assert_eq!(pre_k.at([h, c]), pre_k.at([h, partner]));
                let top = (0..20).map(|i| f64::from(post[[i, h, c]]).abs()).fold(0.0, f64::max);
                if post_k.at([h, c]) == 1.0 {
                    assert_eq!(post_k.at([h, partner]), 1.0);
                    let norm = |i| f64::from(k[[i, h, c]]).hypot(f64::from(k[[i, h, partner]]));
                    let largest = (0..20).map(norm).fold(0.0, f64::max);
                    assert!((pre_k.at([h, c]) * largest - 3.0).abs() < 1e-12);
                } else {
                    chosen += 1;
                    assert_eq!(pre_k.at([h, c]), 1.0);
                    assert!((post_k.at([h, c]) * top - 5.0).abs() < 1e-12);
                }
            }
            assert!((2..=4).contains(&chosen), "{chosen}");
        }
        let q = scales.queries(Stage::Post, 3).unwrap();
        assert_eq!(q[[5, 2]], 1.0 / post_k.at([1, 2]));
    }
}

#[test]
fn channels_of_zeros_and_ties() {
    let zeros = Tensor::<f32, 3>::zeros([4, 1, 8]).unwrap();
    let config = RopeConfig { top_k: 1, ..RopeConfig::default() };
    let scales = rope_scales(zeros.view(), zeros.view(), &config).unwrap();
    assert!(scales.keys(Stage::Pre).iter().chain(scales.keys(Stage::Post).iter()).all(|f| f == 1.0));
    // All equal: the smallest index and its partner.
    let ones = Tensor::from_slice([1, 1, 8], &[2.0f32; 8]).unwrap();
    let scales = rope_scales(ones.view(), ones.view(), &config).unwrap();
    let post = scales.keys(Stage::Post).to_vec();
    assert_eq!(post, [4.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0]);
}

#[test]
fn folding_is_scaling_behind_the_projection() {
    let (kv_heads, group, hd, d) = (2, 2, 4, 3);
    let k = keys(5, kv_heads, 8, 1).view().slice(2, 2..6).unwrap().to_tensor().unwrap();
    let config = RopeConfig { top_k: 1, ..RopeConfig::default() };
    let scales = rope_scales(k.view(), k.view(), &config).unwrap();
    let w = |rows: usize| Tensor::from_fn([rows, d], |[n, j]| (n * d + j) as f64 + 0.5).unwrap();
    let bias: Vec<f64> = (0..kv_heads * group * hd).map(|i| i as f64).collect();
    let (keys_w, none) = scales.fold_keys(w(kv_heads * hd).view(), None).unwrap();
    let (queries_w, b) = scales.fold_queries(w(kv_heads * group * hd).view(), Some(&bias)).unwrap();
    let (pre_k, pre_q) = (scales.keys(Stage::Pre), scales.queries(Stage::Pre, group).unwrap());
    assert!(none.is_none());
    assert_eq!(keys_w[[5, 1]], w(8)[[5, 1]] * pre_k.at([1, 1]));
    assert_eq!(queries_w[[13, 2]], w(16)[[13, 2]] * pre_q[[3, 1]]);
    assert_eq!(b.unwrap()[13], 13.0 * pre_q[[3, 1]]);
    assert!(matches!(scales.fold_keys(w(7).view(), None), Err(Error::Shape { .. })));
    assert!(matches!(scales.fold_keys(w(8).view(), Some(&bias)), Err(Error::Shape { .. })));
}

#[test]
fn bad_input() {
    let k = keys(4, 2, 8, 1);
    let call = |config: RopeConfig| rope_scales(k.view(), k.view(), &config).map(|_| ());
    let base = RopeConfig { top_k: 2, ..RopeConfig::default() };
    assert!(call(base).is_ok());
    for config in [
        RopeConfig { top_k: 5, ..base },
        RopeConfig { alpha: 0.0, ..base },
        RopeConfig { beta: -1.0, ..base },
        RopeConfig { alpha: f64::NAN, ..base },
    ] {
        assert!(matches!(call(config), Err(Error::Argument { .. })), "{config:?}");
    }
    let odd = k.view().slice(2, 0..7).unwrap();
    assert!(matches!(rope_scales(odd, odd, &base), Err(Error::Argument { .. })));
    let short = k.view().slice(0, 0..3).unwrap();
    assert!(matches!(rope_scales(k.view(), short, &base), Err(Error::Shape { .. })));
    let mut bad = k.clone();
    bad[[1, 1, 2]] = f32::NAN;
    match rope_scales(k.view(), bad.view(), &base) {
        Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 1, 2]),
        other => panic!("{other:?}"),
    }
    let scales = rope_scales(k.view(), k.view(), &base).unwrap();
    let mut q = keys(2, 3, 8, 1);
    assert!(matches!(scales.apply_to_queries(Stage::Pre, q.view_mut()), Err(Error::Argument { .. })));
    assert!(matches!(scales.apply_to_keys(Stage::Pre, q.view_mut()), Err(Error::Shape { .. })));
    assert!(matches!(scales.queries(Stage::Pre, 0), Err(Error::Argument { .. })));
}
