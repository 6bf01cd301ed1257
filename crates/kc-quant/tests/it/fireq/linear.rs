//! Products: modes, numbers, epilogues, variants, bad input.

use kc_core::{Error, Tensor, TensorView, bf16};
use kc_quant::fireq::*;
use kc_quant::fp8;
use kc_quant::metrics::relative_error;
use kc_testing::{each_isa, normals, same_on_any_pool, strided};

fn tensor(shape: [usize; 2], seed: u64) -> Tensor<f32, 2> {
    Tensor::from_slice(shape, &normals(shape[0] * shape[1], seed)).unwrap()
}

fn product(x: TensorView<'_, f32, 2>, w: TensorView<'_, f32, 2>) -> Tensor<f64, 2> {
    kc_gemm::reference::gemm(x, w.transposed()).unwrap()
}

#[test]
fn every_size_is_that_of_the_reference() {
    each_isa(|isa| {
        for (t, n, k) in [(1, 1, 1), (1, 17, 200), (3, 8, 130), (5, 33, 64), (70, 20, 260)] {
            let (x, w, bias) = (tensor([t, k], 1), tensor([n, k], 2), normals(n, 3));
            let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
            let codes = weights.codes().unwrap();
            let scales = Tensor::from_slice([n, k.div_ceil(weights.group())], weights.scales()).unwrap();
            for mode in [DequantMode::Exact, DequantMode::Fp8Product] {
                let config = LinearConfig { mode, numbers: Numbers::Fp8 };
                let layer = FireqLinear::new(&weights, Some(&bias), &config).unwrap();
                let mut y = Tensor::zeros([t, n]).unwrap();
                let mut codes_of_x = Activations::new();
                layer
                    .forward_with(isa, x.view(), Epilogue::None, None, y.view_mut(), &mut [], &mut codes_of_x)
                    .unwrap();
                let (sigma, rounded) = (weights.per_tensor(), mode == DequantMode::Fp8Product);
                let group = weights.group();
                let want =
                    reference::linear(x.view(), &codes, &scales, group, sigma, rounded, Some(&bias)).unwrap();
                let error = relative_error(y.view(), want.view()).unwrap();
                assert!(error < 2e-6, "{isa} {t} {n} {k} {mode:?}: {error:e}");
            }
        }
    });
}

#[test]
fn what_is_multiplied_is_what_is_dequantised() {
    let (x, w) = (tensor([6, 256], 4), tensor([24, 256], 5));
    for variant in Variant::ALL {
        let (spec, config) = variant.specs();
        let weights = FireqWeights::quantize(w.view(), &spec).unwrap();
        let y = FireqLinear::new(&weights, None, &config).unwrap();
        let y = y.forward(x.view(), Epilogue::None, None).unwrap().out;
        let codes = quantize_activations(x.view(), config.numbers).unwrap();
        let values = codes.values().unwrap();
        let seen = Tensor::from_fn(x.shape(), |[i, j]| values.at([i, j]) * codes.scales()[i]).unwrap();
        let dense = weights.dequantize(config.mode).unwrap();
        let error = relative_error(y.view(), product(seen.view(), dense.view()).view()).unwrap();
        assert!(error < 3e-6, "{variant:?}: {error:e}");
        let loss = relative_error(y.view(), product(x.view(), w.view()).view()).unwrap();
        assert!((0.05..0.25).contains(&loss), "{variant:?}: {loss}");
    }
}

#[test]
fn modes_are_not_each_other() {
    let (x, w) = (tensor([4, 256], 6), tensor([16, 256], 7));
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let y = |mode| {
        let config = LinearConfig { mode, numbers: Numbers::F32 };
        let layer = FireqLinear::new(&weights, None, &config).unwrap();
        layer.forward(x.view(), Epilogue::None, None).unwrap().out
    };
    let [exact, rounded, again] =
        [DequantMode::Exact, DequantMode::Fp8Product, DequantMode::Requantized].map(y);
    for other in [&rounded, &again] {
        let apart = relative_error(other.view(), exact.view()).unwrap();
        assert!((5e-3..0.05).contains(&apart), "{apart}");
    }
    assert!(relative_error(rounded.view(), again.view()).unwrap() > 5e-3);
    // The rounded product loses more of normal weights than the exact one.
    let loss = |mode| weights.relative_error(w.view(), mode).unwrap();
    let (exact, rounded) = (loss(DequantMode::Exact), loss(DequantMode::Fp8Product));
    assert!(rounded > exact && rounded < 1.03 * exact, "{exact} {rounded}");
}

#[test]
fn activations_round_to_the_nearest() {
    let x = Tensor::from_slice([3, 3], &[448.0f32, 1.0, 18.6, 0.0, 0.0, -0.0, -1.0, 0.5, 0.0]).unwrap();
    let codes = quantize_activations(x.view(), Numbers::Fp8).unwrap();
    assert_eq!(codes.scales(), [1.0, 1.0, 1.0 / 448.0]);
    let back: Vec<f32> = codes.codes().iter().map(|&c| fp8::decode(c)).collect();
    assert_eq!(back, [448.0, 1.0, 18.0, 0.0, 0.0, -0.0, -448.0, 224.0, 0.0]);
    let fixed = quantize_activations(x.view(), Numbers::Fp8Static(0.5)).unwrap();
    assert_eq!(fixed.scales(), [0.5; 3]);
    // Beyond the static range it saturates.
    assert_eq!(fp8::decode(fixed.codes()[0]), 448.0);
    let bytes = quantize_activations(x.view(), Numbers::Int8).unwrap();
    assert_eq!(bytes.codes()[6] as i8, -127);
    assert!(quantize_activations(x.view(), Numbers::F32).unwrap().codes().is_empty());
}

#[test]
fn a_bf16_scale_is_rounded_before_dividing() {
    let x = tensor([20, 300], 8);
    let (float, short) = (
        quantize_activations(x.view(), Numbers::Fp8).unwrap(),
        quantize_activations(x.view(), Numbers::Fp8Bf16).unwrap(),
    );
    for (i, (s, b)) in float.scales().iter().zip(short.scales()).enumerate() {
        assert_eq!(bf16::from_f32(*s).to_f32(), *b);
        for j in 0..300 {
            assert_eq!(short.codes()[i * 300 + j], fp8::encode(x[[i, j]] / b));
        }
    }
    assert_ne!(float.codes(), short.codes());
}

#[test]
fn epilogues_act_on_the_finished_sum() {
    let (x, w, aux) = (tensor([3, 64], 9), tensor([10, 64], 10), tensor([3, 10], 11));
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let bias = normals(10, 12);
    let layer = FireqLinear::new(&weights, Some(&bias), &LinearConfig::default()).unwrap();
    let plain = layer.forward(x.view(), Epilogue::None, None).unwrap();
    assert!(plain.square_sums.is_none());
    for epilogue in Epilogue::ALL {
        let aux = epilogue.needs_aux().then(|| aux.view());
        let got = layer.forward(x.view(), epilogue, aux).unwrap();
        for i in 0..3 {
            let mut sum = 0.0;
            for j in 0..10 {
                let (y, a) = (plain.out[[i, j]], aux.map_or(0.0, |a| a.at([i, j])));
                let want = match epilogue {
                    Epilogue::None => y,
                    Epilogue::Silu => y / (1.0 + (-y).exp()),
                    Epilogue::Mul => y * a,
                    Epilogue::Add | Epilogue::SquareDot => y + a,
                };
                assert!((got.out[[i, j]] - want).abs() <= 1e-6 * (1.0 + want.abs()), "{epilogue:?}");
                sum += f64::from(want) * f64::from(want);
            }
            if let Some(sums) = &got.square_sums {
                assert!((f64::from(sums[i]) / sum - 1.0).abs() < 1e-6);
            }
        }
        assert_eq!(got.square_sums.is_some(), epilogue == Epilogue::SquareDot);
        let (short, _) = layer.forward_bf16(x.view(), epilogue, aux).unwrap();
        assert!(short.as_slice().iter().zip(got.out.as_slice()).all(|(s, y)| *s == bf16::from_f32(*y)));
    }
}

#[test]
fn the_factor_of_the_tensor_is_undone_and_does_not_touch_the_bias() {
    let (x, w) = (tensor([2, 128], 13), tensor([4, 128], 14));
    let bias = [10.0, -20.0, 30.0, 0.0];
    let y = |per_tensor| {
        let spec = WeightSpec { per_tensor, scale_type: ScaleType::F32, ..WeightSpec::default() };
        let weights = FireqWeights::quantize(w.view(), &spec).unwrap();
        let layer = FireqLinear::new(&weights, Some(&bias), &LinearConfig::default()).unwrap();
        layer.forward(x.view(), Epilogue::None, None).unwrap().out.into_vec()
    };
    assert_eq!(y(PerTensor::Off), y(PerTensor::Fixed(64.0)));
}

#[test]
fn strides_threads_and_used_memory_change_nothing() {
    let (t, n, k) = (5, 300, 400);
    let (x, w) = (tensor([t, k], 15), tensor([n, k], 16));
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    for mode in [DequantMode::Exact, DequantMode::Fp8Product, DequantMode::Requantized] {
        let config = LinearConfig { mode, numbers: Numbers::Fp8 };
        let layer = FireqLinear::new(&weights, None, &config).unwrap();
        let want = layer.forward(x.view(), Epilogue::None, None).unwrap().out;
        for x in strided(t, k, x.as_slice(), f32::NAN) {
            assert_eq!(layer.forward(x.view(), Epilogue::None, None).unwrap().out, want);
        }
        same_on_any_pool(|| layer.forward(x.view(), Epilogue::None, None).unwrap().out.into_vec());
        let (mut y, mut used) = (Tensor::zeros([t, n]).unwrap(), Activations::new());
        for rows in [t, 2, t] {
            let x = x.view().slice(0, 0..rows).unwrap();
            let out = y.view_mut().slice(0, 0..rows).unwrap();
            layer.forward_into(x, Epilogue::None, None, out, &mut [], &mut used).unwrap();
        }
        assert_eq!(y, want);
    }
}

#[test]
fn results_may_lie_anywhere() {
    let (t, n, k) = (4, 33, 96);
    let (x, w, aux) = (tensor([t, k], 20), tensor([n, k], 21), tensor([t, n], 22));
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let bias = normals(n, 23);
    for mode in [DequantMode::Exact, DequantMode::Fp8Product, DequantMode::Requantized] {
        let config = LinearConfig { mode, numbers: Numbers::Fp8 };
        let layer = FireqLinear::new(&weights, Some(&bias), &config).unwrap();
        for epilogue in Epilogue::ALL {
            let aux = epilogue.needs_aux().then(|| aux.view());
            let want = layer.forward(x.view(), epilogue, aux).unwrap();
            let mut turned = Tensor::zeros([n, t]).unwrap();
            let mut sums = vec![0.0; want.square_sums.as_ref().map_or(0, Vec::len)];
            let out = turned.view_mut().transposed();
            layer.forward_into(x.view(), epilogue, aux, out, &mut sums, &mut Activations::new()).unwrap();
            assert_eq!(turned.view().transposed().to_vec(), want.out.as_slice());
            assert_eq!(sums, want.square_sums.unwrap_or_default());
        }
    }
}

#[test]
fn memory_is_an_eighth_of_f32() {
    let w = tensor([256, 1024], 17);
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let layer = FireqLinear::new(&weights, None, &LinearConfig::default()).unwrap();
    assert!(layer.bytes() * 7 < w.len() * 4 && weights.bytes() * 15 < w.len() * 4 * 2, "{}", layer.bytes());
    let config = LinearConfig { mode: DequantMode::Requantized, numbers: Numbers::Fp8 };
    assert_eq!(FireqLinear::new(&weights, None, &config).unwrap().bytes(), w.len() + 4 * 256);
}

#[test]
fn bad_input() {
    let (x, w) = (tensor([2, 8], 18), tensor([3, 8], 19));
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let config = LinearConfig::default();
    assert!(matches!(FireqLinear::new(&weights, Some(&[0.0; 2]), &config), Err(Error::Shape { .. })));
    let nan = [0.0, f32::NAN, 0.0];
    assert!(matches!(FireqLinear::new(&weights, Some(&nan), &config), Err(Error::NotFinite { .. })));
    let layer = FireqLinear::new(&weights, None, &config).unwrap();
    let call = |x: &Tensor<f32, 2>, e, aux: Option<&Tensor<f32, 2>>| {
        layer.forward(x.view(), e, aux.map(Tensor::view)).map(|_| ())
    };
    assert!(matches!(call(&tensor([2, 7], 1), Epilogue::None, None), Err(Error::Shape { .. })));
    for epilogue in [Epilogue::Mul, Epilogue::Add, Epilogue::SquareDot] {
        assert!(matches!(call(&x, epilogue, None), Err(Error::Shape { .. })));
        assert!(matches!(call(&x, epilogue, Some(&tensor([3, 2], 1))), Err(Error::Shape { .. })));
        let mut aux = tensor([2, 3], 1);
        aux[[1, 2]] = f32::NAN;
        match call(&x, epilogue, Some(&aux)) {
            Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 2]),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(call(&x, Epilogue::Silu, Some(&tensor([2, 3], 1))), Err(Error::Shape { .. })));
    let mut bad = x.clone();
    bad[[1, 0]] = f32::INFINITY;
    match call(&bad, Epilogue::None, None) {
        Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 0]),
        other => panic!("{other:?}"),
    }
    for scale in [0.0, -1.0, f32::NAN] {
        let got = quantize_activations(x.view(), Numbers::Fp8Static(scale));
        assert!(matches!(got, Err(Error::Argument { .. })));
    }
    let mut y = Tensor::zeros([2, 3]).unwrap();
    let mut used = Activations::new();
    let got = layer.forward_into(x.view(), Epilogue::None, None, y.view_mut(), &mut [0.0], &mut used);
    assert!(matches!(got, Err(Error::Shape { .. })));
}

#[test]
fn no_tokens_give_no_rows() {
    let weights = FireqWeights::quantize(tensor([3, 8], 1).view(), &WeightSpec::default()).unwrap();
    let layer = FireqLinear::new(&weights, None, &LinearConfig::default()).unwrap();
    let y = layer.forward(tensor([0, 8], 1).view(), Epilogue::None, None).unwrap();
    assert_eq!(y.out.shape(), [0, 3]);
}
