//! Rewrites of layers: nothing changes but the weights.

use kc_core::{Error, KcRng, Tensor};
use kc_quant::Group;
use kc_quant::fireq::*;
use kc_quant::metrics::relative_error;
use kc_testing::normals;

fn matrix(n: usize, k: usize, seed: u64) -> Tensor<f64, 2> {
    let mut rng = KcRng::new(seed, 0);
    Tensor::from_fn([n, k], |_| rng.normal()).unwrap()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn times(w: &Tensor<f64, 2>, x: &[f64]) -> Vec<f64> {
    (0..w.shape()[0]).map(|n| x.iter().enumerate().map(|(j, x)| w[[n, j]] * x).sum()).collect()
}

fn block(
    norm: &[f64],
    up: &Tensor<f64, 2>,
    gate: &Tensor<f64, 2>,
    down: &Tensor<f64, 2>,
    x: &[f64],
) -> Vec<f64> {
    let n: Vec<f64> = x.iter().zip(norm).map(|(x, n)| x * n).collect();
    let hidden: Vec<f64> = times(gate, &n).iter().zip(times(up, &n)).map(|(g, u)| silu(*g) * u).collect();
    times(down, &hidden)
}

fn apart(got: &[f64], want: &[f64]) -> f64 {
    let size = want.iter().fold(0.0f64, |m, y| m.max(y.abs()));
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max) / size
}

#[test]
fn a_gated_block_computes_the_same() {
    let (d, h) = (12, 20);
    let norm = Tensor::from_slice([d], &matrix(1, d, 1).into_vec()).unwrap();
    let (up, gate, mut down) = (matrix(h, d, 2), matrix(h, d, 3), matrix(d, h, 4));
    // A channel that nothing reads.
    (0..d).for_each(|n| down[[n, 5]] = 0.0);
    let x = matrix(1, d, 5).into_vec();
    let want = block(norm.as_slice(), &up, &gate, &down, &x);
    for kind in FactorKind::ALL {
        for (up_gate, constant) in [(0.0096, 0.015), (0.0, 0.015), (0.0096, 0.0), (3.0, 0.2)] {
            let config = MlpConfig { kind, up_gate, down: constant, block: Block::PreNormGated };
            let got = scale_mlp(norm.view(), up.view(), gate.view(), down.view(), &config).unwrap();
            let y = block(got.norm.as_slice(), &got.up, &got.gate, &got.down, &x);
            assert!(apart(&y, &want) < 1e-12, "{config:?}");
            if up_gate == 0.0 {
                assert_eq!((&got.norm, &got.gate), (&norm, &gate));
            } else {
                assert_ne!(got.gate, gate);
            }
            assert!(kind == FactorKind::Const || got.s2[5] == 1.0);
        }
    }
}

#[test]
fn grouped_heads_are_paired_with_what_they_read() {
    let (heads, kv_heads, hd, d) = (6, 2, 4, 10);
    let (v, o) = (matrix(kv_heads * hd, d, 6), matrix(7, heads * hd, 7));
    let x = matrix(1, d, 8).into_vec();
    let mix = |v: &Tensor<f64, 2>, o: &Tensor<f64, 2>| {
        let values = times(v, &x);
        // Each query head weighs the values of its own key/value head.
        let context: Vec<f64> = (0..heads * hd)
            .map(|c| (1.0 + (c / hd) as f64) * values[c / hd / (heads / kv_heads) * hd + c % hd])
            .collect();
        times(o, &context)
    };
    let want = mix(&v, &o);
    for kind in FactorKind::ALL {
        for (constant, v_mul) in [(0.0, 0.9), (0.02, 0.9), (0.5, 1.0)] {
            let config = VoConfig { kind, o: constant, v_mul };
            let (v2, o2, factors) = scale_vo(v.view(), o.view(), Heads { heads, kv_heads }, &config).unwrap();
            assert!(apart(&mix(&v2, &o2), &want) < 1e-12, "{config:?}");
            assert!((v2[[3, 2]] * factors[3] / v[[3, 2]] - 1.0).abs() < 1e-12);
            assert_ne!(v2, v);
        }
    }
}

#[test]
fn the_attention_norm_takes_the_factors_of_qkv() {
    let d = 9;
    let norm = Tensor::from_slice([d], &matrix(1, d, 1).into_vec()).unwrap();
    let qkv = [matrix(8, d, 2), matrix(4, d, 3), matrix(4, d, 4)];
    let views = || [qkv[0].view(), qkv[1].view(), qkv[2].view()];
    let config = QkvConfig { constant: 0.05, ..QkvConfig::default() };
    let (scaled, out, s) = scale_qkv(norm.view(), views(), &config).unwrap();
    for (w, w2) in qkv.iter().zip(&out) {
        let got: Vec<f64> = times(w2, scaled.as_slice());
        assert!(apart(&got, &times(w, norm.as_slice())) < 1e-12);
    }
    let mean = qkv.iter().flat_map(|w| (0..w.shape()[0]).map(|n| w[[n, 3]].abs())).sum::<f64>() / 16.0;
    assert!((s[3] - 0.05 / mean).abs() < 1e-15);
    let (same, ..) = scale_qkv(norm.view(), views(), &QkvConfig::default()).unwrap();
    assert_eq!(same, norm);
}

#[test]
fn factors_need_a_linear_predecessor() {
    let norm = Tensor::<f64, 1>::zeros([4]).unwrap();
    let (up, down) = (matrix(6, 4, 1), matrix(4, 6, 2));
    let mlp = |block, up_gate, constant| {
        let config = MlpConfig { block, up_gate, down: constant, ..MlpConfig::default() };
        scale_mlp(norm.view(), up.view(), up.view(), down.view(), &config).map(|_| ())
    };
    assert!(matches!(mlp(Block::PostNorm, 0.1, 0.0), Err(Error::Unsupported { .. })));
    assert!(matches!(mlp(Block::PostNorm, 0.0, 0.1), Err(Error::Unsupported { .. })));
    assert!(matches!(mlp(Block::PreNormGelu, 0.0, 0.1), Err(Error::Unsupported { .. })));
    assert!(mlp(Block::PreNormGelu, 0.1, 0.0).is_ok() && mlp(Block::PostNorm, 0.0, 0.0).is_ok());
    let qkv = |block| {
        let config = QkvConfig { block, constant: 0.1, ..QkvConfig::default() };
        scale_qkv(norm.view(), [up.view(), up.view(), up.view()], &config).map(|_| ())
    };
    assert!(matches!(qkv(Block::PostNorm), Err(Error::Unsupported { .. })));
    assert!(qkv(Block::PreNormGelu).is_ok());
}

#[test]
fn the_search_finds_the_least_error() {
    let (t, n, k) = (40, 24, 128);
    let mut x = Tensor::from_slice([t, k], &normals(t * k, 1)).unwrap();
    (0..t).for_each(|i| [3, 77].iter().for_each(|&j| x[[i, j]] *= 40.0));
    let w = Tensor::from_slice([n, k], &normals(n * k, 2)).unwrap();
    let choice = awq_search(w.view(), x.view(), &WeightSpec::default()).unwrap();
    let at = RATIOS.iter().position(|r| *r == choice.ratio).unwrap();
    assert!(choice.errors.iter().all(|e| *e >= choice.errors[at]) && choice.ratio > 0.0, "{choice:?}");
    assert!(choice.errors[at] < 0.7 * choice.errors[0]);
    let mean = (0..t).map(|i| f64::from(x[[i, 3]].abs())).sum::<f64>() / t as f64;
    assert!((choice.factors[3] - mean.powf(choice.ratio)).abs() < 1e-9);
}

#[test]
fn clipping_never_makes_outputs_worse_than_not_clipping() {
    let (t, n, k) = (30, 6, 64);
    let x = Tensor::from_slice([t, k], &normals(t * k, 1)).unwrap();
    let mut w = Tensor::from_slice([n, k], &normals(n * k, 2)).unwrap();
    w[[2, 40]] = 7.0;
    let spec = WeightSpec { group: Group::Size(32), scale_type: ScaleType::F32, per_tensor: PerTensor::Off };
    let (clipped, factors) = clip_weights(w.view(), x.view(), &spec).unwrap();
    let error = |w2: &Tensor<f32, 2>| {
        let back = FireqWeights::quantize(w2.view(), &spec).unwrap().dequantize(DequantMode::Exact).unwrap();
        (0..n * 2)
            .map(|at| {
                let (row, part) = (at / 2, at % 2 * 32..at % 2 * 32 + 32);
                let one = |i: usize| -> f64 {
                    part.clone()
                        .map(|j| f64::from(x[[i, j]]) * (f64::from(w[[row, j]]) - f64::from(back[[row, j]])))
                        .sum()
                };
                (0..t).map(one).map(|y| y * y).sum::<f64>()
            })
            .collect::<Vec<f64>>()
    };
    let (before, after) = (error(&w), error(&clipped));
    assert!(before.iter().zip(&after).all(|(b, a)| *a <= b * (1.0 + 1e-9)));
    assert!(after.iter().sum::<f64>() < 0.97 * before.iter().sum::<f64>());
    assert!(factors.as_slice().iter().all(|f| (0.77..=1.0).contains(f)) && factors.as_slice().contains(&1.0));
    let top = |w: &Tensor<f32, 2>| w.as_slice()[64..96].iter().fold(0.0f32, |m, w| m.max(w.abs()));
    assert_eq!(top(&clipped), factors[[1, 0]] * top(&w));
    assert!(relative_error(clipped.view(), w.view()).unwrap() < 0.2);
}

#[test]
fn bad_input() {
    let norm = Tensor::<f64, 1>::zeros([4]).unwrap();
    let (up, down) = (matrix(6, 4, 1), matrix(4, 6, 2));
    let config = MlpConfig::default();
    let mlp = |g: &Tensor<f64, 2>, d: &Tensor<f64, 2>, c: MlpConfig| {
        scale_mlp(norm.view(), up.view(), g.view(), d.view(), &c).map(|_| ())
    };
    assert!(matches!(mlp(&down, &down, config), Err(Error::Shape { .. })));
    assert!(matches!(mlp(&up, &up, config), Err(Error::Shape { .. })));
    assert!(matches!(mlp(&up, &down, MlpConfig { down: -1.0, ..config }), Err(Error::Argument { .. })));
    assert!(matches!(
        mlp(&up, &down, MlpConfig { up_gate: f64::NAN, ..config }),
        Err(Error::Argument { .. })
    ));
    let mut bad = up.clone();
    bad[[0, 0]] = f64::NAN;
    assert!(matches!(mlp(&bad, &down, config), Err(Error::NotFinite { .. })));
    let vo = |v: &Tensor<f64, 2>, o: &Tensor<f64, 2>, heads, kv_heads, c: VoConfig| {
        scale_vo(v.view(), o.view(), Heads { heads, kv_heads }, &c).map(|_| ())
    };
    let (v, o) = (matrix(4, 5, 1), matrix(3, 8, 2));
    let config = VoConfig::default();
    assert!(vo(&v, &o, 4, 2, config).is_ok());
    assert!(matches!(vo(&v, &o, 3, 2, config), Err(Error::Argument { .. })));
    assert!(matches!(vo(&v, &o, 4, 0, config), Err(Error::Argument { .. })));
    assert!(matches!(vo(&v, &o, 6, 3, config), Err(Error::Shape { .. })));
    assert!(matches!(vo(&v, &v, 4, 2, config), Err(Error::Shape { .. })));
    assert!(matches!(vo(&v, &o, 4, 2, VoConfig { v_mul: 0.0, ..config }), Err(Error::Argument { .. })));
    let (w, x) = (Tensor::<f32, 2>::zeros([2, 3]).unwrap(), Tensor::<f32, 2>::zeros([2, 4]).unwrap());
    let spec = WeightSpec::default();
    assert!(matches!(awq_search(w.view(), x.view(), &spec), Err(Error::Shape { .. })));
    assert!(matches!(clip_weights(w.view(), x.view(), &spec), Err(Error::Shape { .. })));
    let none = Tensor::<f32, 2>::zeros([0, 3]).unwrap();
    assert!(matches!(awq_search(w.view(), none.view(), &spec), Err(Error::Empty { .. })));
}
