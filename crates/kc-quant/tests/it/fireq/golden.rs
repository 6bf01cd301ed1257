//! The cases made by another program, and slices of a real model.

use kc_core::{Element, Tensor};
use kc_quant::Group;
use kc_quant::fireq::*;
use kc_quant::metrics::relative_error;
use kc_testing::{Tol, assert_close, each_isa, golden_json, golden_tensor};
use serde_json::Value;

pub(super) fn file<T: Element, const N: usize>(case: &Value, what: &str) -> Tensor<T, N> {
    golden_tensor(&format!("fireq/{}{what}.npy", case["case"].as_str().unwrap()))
}

pub(super) fn cases(prefix: &str) -> Vec<Value> {
    let all = golden_json("fireq/cases.json");
    let found: Vec<Value> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["case"].as_str().unwrap().starts_with(prefix))
        .cloned()
        .collect();
    assert!(!found.is_empty());
    found
}

fn spec(case: &Value) -> WeightSpec {
    WeightSpec {
        group: Group::Size(case["group"].as_u64().unwrap() as usize),
        scale_type: ScaleType::from_name(case["scale_dtype"].as_str().unwrap()).unwrap(),
        per_tensor: match case["per_tensor"].as_str().unwrap() {
            "reference" => PerTensor::Reference { rank: 1 },
            "min_error" => PerTensor::MinError,
            _ => PerTensor::Off,
        },
    }
}

fn config(case: &Value) -> LinearConfig {
    let mode = if case["mode"] == "exact" { DequantMode::Exact } else { DequantMode::Fp8Product };
    LinearConfig { mode, numbers: Numbers::Fp8 }
}

#[test]
fn codes_scales_and_words_are_exact() {
    for case in cases("lin") {
        let w: Tensor<f32, 2> = file(&case, "w");
        let weights = FireqWeights::quantize(w.view(), &spec(&case)).unwrap();
        assert_eq!(f64::from(weights.per_tensor()), case["per_tensor_scale"].as_f64().unwrap(), "{case}");
        assert_eq!(weights.codes().unwrap(), file::<i8, 2>(&case, "q"), "{case}");
        assert_eq!(weights.scales(), file::<f32, 2>(&case, "sw").as_slice(), "{case}");
        if case["k"].as_u64().unwrap() % 8 == 0 {
            let packed: Tensor<i32, 2> = file(&case, "packed");
            let words: Vec<i32> = weights.packed().iter().map(|&w| w as i32).collect();
            assert_eq!(words, packed.as_slice(), "{case}");
        }
        let error = weights.relative_error(w.view(), config(&case).mode).unwrap();
        let want = case["weight_rel_err"].as_f64().unwrap();
        assert!((error / want - 1.0).abs() < 1e-5, "{case}: {error}");

        let (plain, scales) = {
            let group = case["group"].as_u64().unwrap() as usize;
            reference::quantize(w.view(), group, weights.scale_type(), weights.per_tensor()).unwrap()
        };
        assert_eq!((plain, scales.as_slice()), (weights.codes().unwrap(), weights.scales()));
    }
}

#[test]
fn products_on_every_level() {
    for case in cases("lin") {
        let (x, w): (Tensor<f32, 2>, Tensor<f32, 2>) = (file(&case, "x"), file(&case, "w"));
        let epilogue = match case["epilogue"].as_str().unwrap() {
            "none" => Epilogue::None,
            "silu" => Epilogue::Silu,
            "mul" => Epilogue::Mul,
            "add" => Epilogue::Add,
            _ => Epilogue::SquareDot,
        };
        let bias = case["bias"].as_bool().unwrap().then(|| file::<f32, 1>(&case, "bias").into_vec());
        let aux: Option<Tensor<f32, 2>> = epilogue.needs_aux().then(|| file(&case, "aux"));
        let want: Tensor<f64, 2> = file(&case, "y");
        let weights = FireqWeights::quantize(w.view(), &spec(&case)).unwrap();
        let layer = FireqLinear::new(&weights, bias.as_deref(), &config(&case)).unwrap();
        let size = case["ymax"].as_f64().unwrap();
        each_isa(|isa| {
            let (mut y, mut codes) = (Tensor::zeros(want.shape()).unwrap(), Activations::new());
            let mut sums = vec![0.0; if epilogue == Epilogue::SquareDot { x.shape()[0] } else { 0 }];
            let aux = aux.as_ref().map(Tensor::view);
            layer.forward_with(isa, x.view(), epilogue, aux, y.view_mut(), &mut sums, &mut codes).unwrap();
            assert_eq!(codes.codes(), file::<u8, 2>(&case, "x8").as_slice());
            let sx: Tensor<f32, 1> = Tensor::from_slice([x.shape()[0]], codes.scales()).unwrap();
            assert_eq!(sx.as_slice(), any_shape(&case, "sx"));
            assert_close(y.as_slice(), want.as_slice(), Tol::abs(1e-5 * size));
            if epilogue == Epilogue::SquareDot {
                let want: Tensor<f64, 1> = file(&case, "sqsum");
                assert_close(&sums, want.as_slice(), Tol::rel(1e-5));
            }
        });
        // The other product is another one, by far more than the tolerance.
        if case["weight_rel_err"] != 1.0 && case["scale_dtype"] == "fp8" {
            let y = |mode| {
                let config = LinearConfig { mode, numbers: Numbers::Fp8 };
                let layer = FireqLinear::new(&weights, None, &config).unwrap();
                layer.forward(x.view(), Epilogue::None, None).unwrap().out
            };
            let (exact, product) = (y(DequantMode::Exact), y(DequantMode::Fp8Product));
            let apart = relative_error(product.view(), exact.view()).unwrap();
            assert!((5e-3..0.05).contains(&apart), "{case}: {apart}");
        }
    }
}

/// Scales of tokens, whether stored as a vector or as a column.
fn any_shape(case: &Value, what: &str) -> Vec<f32> {
    let path = kc_testing::golden(&format!("fireq/{}{what}.npy", case["case"].as_str().unwrap()));
    let any = kc_io::read(path).unwrap();
    any.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn attention_cases_with_their_factors() {
    for case in cases("att") {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let style = if case["style"] == "half" { PairStyle::Half } else { PairStyle::Interleaved };
        let config = RopeConfig { top_k: number("top_k"), style, ..RopeConfig::default() };
        let (kpre, kpost): (Tensor<f32, 3>, Tensor<f32, 3>) = (file(&case, "kpre"), file(&case, "kpost"));
        let scales = rope_scales(kpre.view(), kpost.view(), &config).unwrap();
        for (stage, name) in [(Stage::Pre, "pre_k"), (Stage::Post, "post_k")] {
            let want: Tensor<f64, 2> = file(&case, name);
            assert_close(&scales.keys(stage).to_vec(), want.as_slice(), Tol::rel(1e-7));
        }
        // Rotated after the first factors, multiplied by the second: the stored keys and queries.
        let base = number("tk") - number("tq");
        let mut k = kpre.clone();
        scales.apply_to_keys(Stage::Pre, k.view_mut()).unwrap();
        let mut k = super::rope::rotated(&k, style, 0);
        scales.apply_to_keys(Stage::Post, k.view_mut()).unwrap();
        let (k2, q2): (Tensor<f32, 3>, Tensor<f32, 3>) = (file(&case, "k2"), file(&case, "q2"));
        assert!(relative_error(k.view(), k2.view()).unwrap() < 1e-6);
        let mut q: Tensor<f32, 3> = file(&case, "qpre");
        scales.apply_to_queries(Stage::Pre, q.view_mut()).unwrap();
        let mut q = super::rope::rotated(&q, style, base);
        scales.apply_to_queries(Stage::Post, q.view_mut()).unwrap();
        assert!(relative_error(q.view(), q2.view()).unwrap() < 1e-6);

        let v: Tensor<f32, 3> = file(&case, "v");
        let [tk, kv_heads, hd] = v.shape();
        let mut cache = KvCache4::new(KvConfig::new(kv_heads, hd, tk)).unwrap();
        cache.append(k2.view(), v.view()).unwrap();
        let (codes, stored) = cache.codes(Side::Key).unwrap();
        assert_eq!(codes, file::<i8, 3>(&case, "k_codes"));
        assert_eq!(stored.as_slice(), any_shape(&case, "k_scales"));

        let config = AttentionConfig {
            causal: case["causal"].as_bool().unwrap(),
            p_fp8: case["p_fp8"].as_bool().unwrap_or(true),
            ..AttentionConfig::default()
        };
        let (want, exact): (Tensor<f64, 3>, Tensor<f64, 3>) = (file(&case, "y"), file(&case, "exact"));
        let size = want.as_slice().iter().fold(0.0f64, |m, y| m.max(y.abs()));
        each_isa(|isa| {
            let mut y = Tensor::zeros(want.shape()).unwrap();
            attention_into_with(isa, q2.view(), &cache, &config, y.view_mut()).unwrap();
            assert_close(y.as_slice(), want.as_slice(), Tol::abs(1e-5 * size));
            let error = relative_error(y.view(), exact.view()).unwrap();
            let published = case["err_scaled"].as_f64().unwrap();
            assert!((error / published - 1.0).abs() < 1e-4, "{case}: {error}");
        });
        let plain = AttentionConfig { q_fp8: false, p_fp8: false, ..config };
        let y = attention_float(q2.view(), k2.view(), v.view(), &plain).unwrap();
        assert!(relative_error(y.view(), exact.view()).unwrap() < 1e-5);
    }
}

#[test]
fn scaled_blocks() {
    let matrix = |name: &str| golden_tensor::<f64, 2>(&format!("fireq/{name}.npy"));
    let norm: Tensor<f64, 1> = golden_tensor("fireq/mlp_norm.npy");
    let (up, gate, down) = (matrix("mlp_up"), matrix("mlp_gate"), matrix("mlp_down"));
    for kind in FactorKind::ALL {
        let config = MlpConfig { kind, ..MlpConfig::default() };
        let got = scale_mlp(norm.view(), up.view(), gate.view(), down.view(), &config).unwrap();
        let name = |what: &str| format!("fireq/mlp_{}_{what}.npy", kind.name());
        let close = |got: &[f64], what: &str| {
            let any = kc_io::read(kc_testing::golden(&name(what))).unwrap();
            let want: Vec<f64> =
                any.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
            assert_close(got, &want, Tol::rel(1e-12));
        };
        close(got.norm.as_slice(), "norm");
        close(got.up.as_slice(), "up");
        close(got.gate.as_slice(), "gate");
        close(got.down.as_slice(), "down");
        close(&got.s1, "s1");
        close(&got.s2, "s2");
    }
    let heads = Heads { heads: 4, kv_heads: 2 };
    let config = VoConfig { o: 0.02, ..VoConfig::default() };
    let (v, o, _) = scale_vo(matrix("vo_v").view(), matrix("vo_o").view(), heads, &config).unwrap();
    assert_close(v.as_slice(), matrix("vo_v_scaled").as_slice(), Tol::rel(1e-12));
    assert_close(o.as_slice(), matrix("vo_o_scaled").as_slice(), Tol::rel(1e-12));
}

#[test]
fn layers_of_a_real_model() {
    let slices = golden_json("quant_minilm/slices.json");
    for (tag, slice) in slices.as_object().unwrap() {
        let x: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{tag}_x.npy"));
        let w: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{tag}_w.npy"));
        let exact = kc_gemm::reference::gemm(x.view(), w.view().transposed()).unwrap();
        for (name, scale_type, per_tensor, mode) in [
            ("fp8_reference_exact", ScaleType::Fp8, PerTensor::Reference { rank: 1 }, DequantMode::Exact),
            ("fp8_min_error_exact", ScaleType::Fp8, PerTensor::MinError, DequantMode::Exact),
            ("fp8_min_error_fp8_product", ScaleType::Fp8, PerTensor::MinError, DequantMode::Fp8Product),
            ("bf16_off_exact", ScaleType::Bf16, PerTensor::Off, DequantMode::Exact),
        ] {
            let spec = WeightSpec { group: Group::Size(128), scale_type, per_tensor };
            let weights = FireqWeights::quantize(w.view(), &spec).unwrap();
            let config = LinearConfig { mode, numbers: Numbers::Fp8 };
            let layer = FireqLinear::new(&weights, None, &config).unwrap();
            let y = layer.forward(x.view(), Epilogue::None, None).unwrap().out;
            let error = relative_error(y.view(), exact.view()).unwrap();
            let want = slice["rel_err"][format!("fireq_{name}")].as_f64().unwrap();
            assert!((error / want - 1.0).abs() < 1e-4, "{tag} {name}: {error}, not {want}");
        }
    }
}
