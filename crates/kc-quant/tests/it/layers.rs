//! `QuantLinear` and `StoredLayer`: weights of any kind in one type, in memory and in files.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, Error, Tensor, TensorView};
use kc_quant::crossquant::{column_factors, fold_columns};
use kc_quant::fireq::{self, FireqWeights};
use kc_quant::flexq::{QuantSpec, Scheme};
use kc_quant::linear::{Activations, QuantLinear, Scratch};
use kc_quant::lut_gemm::{BcqMatrix, BcqSpec, LutMode};
use kc_quant::metrics::relative_error;
use kc_quant::stored::{LayerWeights, Method, StoredLayer};
use kc_quant::{Group, ScaleDtype, UniformGroups, Zeros};
use kc_testing::{golden_tensor, normals, same_on_any_pool};

fn matrix(shape: [usize; 2], seed: u64) -> Tensor<f32, 2> {
    Tensor::from_slice(shape, &normals(shape[0] * shape[1], seed)).unwrap()
}

fn product(x: &Tensor<f32, 2>, w: &Tensor<f32, 2>) -> Tensor<f32, 2> {
    kc_gemm::gemm(x.view(), w.view().transposed()).unwrap()
}

fn methods() -> Vec<Method> {
    let flexq = |scheme, bits, group, scale_dtype| {
        Method::Flexq(QuantSpec { bits, group, scheme, scale_dtype, ..QuantSpec::default() })
    };
    vec![
        flexq(Scheme::Sym, 6, Group::Size(32), ScaleDtype::F32),
        flexq(Scheme::Asym, 4, Group::Size(32), ScaleDtype::F16),
        flexq(Scheme::AsymFree, 3, Group::Row, ScaleDtype::Bf16),
        flexq(Scheme::Sym, 1, Group::Row, ScaleDtype::F32),
        Method::Bcq(BcqSpec { bits: 3, group: Group::Size(32), ..BcqSpec::default() }, None),
        Method::Fireq(fireq::WeightSpec { group: Group::Size(32), ..fireq::WeightSpec::default() }),
    ]
}

#[test]
fn every_method_multiplies_what_it_stands_for() {
    let (w, x) = (matrix([13, 70], 1), matrix([5, 70], 2));
    let bias = normals(13, 3);
    for method in methods() {
        let layer = StoredLayer::quantize(w.view(), &method, None).unwrap();
        let mut want = product(&x, &layer.dequantize().unwrap());
        want.as_mut_slice().chunks_mut(13).for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
        let linear = layer.linear(Some(&bias), Activations::F32, LutMode::F32).unwrap();
        assert_eq!(linear.shape(), [13, 70]);
        let y = linear.forward(x.view()).unwrap();
        // FireQ rounds activations to FP8; the others only differ in the order of sums.
        let most = if matches!(method, Method::Fireq(_)) { 0.05 } else { 1e-5 };
        let error = relative_error(y.view(), want.view()).unwrap();
        assert!(error < most, "{method:?}: {error}");
        let mut again = Tensor::zeros([5, 13]).unwrap();
        let mut scratch = Scratch::new();
        for _ in 0..2 {
            linear.forward_into(x.view(), again.view_mut(), &mut scratch).unwrap();
            assert_eq!(again.as_slice(), y.as_slice());
        }
        same_on_any_pool(|| linear.forward(x.view()).unwrap().into_vec());
    }
}

#[test]
fn every_method_comes_back_from_its_tensors() {
    let w = matrix([9, 50], 4);
    let factors: Vec<f32> = normals(50, 5).iter().map(|f| f.abs() + 0.1).collect();
    for method in methods() {
        for factors in [None, Some(factors.as_slice())] {
            let layer = StoredLayer::quantize(w.view(), &method, factors).unwrap();
            let (tensors, texts) = layer.to_tensors().unwrap();
            let find = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone());
            let back = StoredLayer::from_tensors("a file", find, &texts).unwrap();
            assert_eq!(back.column_factors(), factors);
            assert_eq!(back.dequantize().unwrap().as_slice(), layer.dequantize().unwrap().as_slice());
            if let (LayerWeights::Flexq(a), LayerWeights::Flexq(b)) = (layer.weights(), back.weights()) {
                assert_eq!(a.uniform(), b.uniform());
                assert_eq!(a.spec().scheme, b.spec().scheme);
            }
            // Each tensor and text is needed, or says the same as the others.
            for (name, _) in &tensors {
                let without = |n: &str| if n == name { None } else { find(n) };
                match StoredLayer::from_tensors("a file", without, &texts) {
                    Err(error) => assert!(matches!(error, Error::Parse { .. }), "{name}: {error}"),
                    Ok(other) => assert!(name == "column_factors" || name == "offset", "{name}: {other:?}"),
                }
            }
            for key in ["kc.system", "kc.version"] {
                let mut texts = texts.clone();
                texts.insert(key.into(), "9".into());
                assert!(StoredLayer::from_tensors("a file", find, &texts).is_err(), "{key}");
            }
        }
    }
}

#[test]
fn scaled_columns_serve_every_product() {
    // Three columns of x are far larger than the rest, as in real models.
    let mut x = matrix([16, 96], 6);
    for row in x.as_mut_slice().chunks_mut(96) {
        [7usize, 30, 90].iter().for_each(|&j| row[j] *= 40.0);
    }
    let w = matrix([24, 96], 7);
    let want = product(&x, &w);
    let maxima: Vec<f32> =
        (0..96).map(|j| (0..16).fold(0f32, |m, i| m.max(x.view().at([i, j]).abs()))).collect();
    let factors = column_factors(&maxima, 0.5).unwrap();
    let error = |factors: Option<&[f32]>, method: &Method, activations| {
        let layer = StoredLayer::quantize(w.view(), method, factors).unwrap();
        let y = layer.linear(None, activations, LutMode::F32).unwrap().forward(x.view()).unwrap();
        relative_error(y.view(), want.view()).unwrap()
    };
    let row = Method::Flexq(QuantSpec { bits: 8, group: Group::Row, ..QuantSpec::default() });
    let (plain, scaled) =
        (error(None, &row, Activations::Bits(8)), error(Some(&factors), &row, Activations::Bits(8)));
    assert!(scaled < 0.7 * plain, "{scaled} of {plain}");
    // With activations as they are, scaling costs weights and gains nothing; it must still be undone.
    for method in methods() {
        let scaled = error(Some(&factors), &method, Activations::F32);
        assert!(scaled.is_finite() && scaled < 1.0, "{method:?}: {scaled}");
    }
    // And folding alone changes nothing.
    let folded = fold_columns(w.view(), &factors).unwrap();
    let divided = Tensor::from_fn([16, 96], |[i, j]| x.view().at([i, j]) / factors[j]).unwrap();
    let same = relative_error(product(&divided, &folded).view(), want.view()).unwrap();
    assert!(same < 1e-6, "{same}");
}

#[test]
fn bad_layers_are_refused() {
    let w = matrix([3, 8], 8);
    let uniform = UniformGroups::new([3, 8], 4, 8, vec![5; 24], vec![1.0; 3], Zeros::Constant(8)).unwrap();
    for bits in [0, 9] {
        let error = QuantLinear::from_uniform(&uniform, None, Activations::Bits(bits)).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
    }
    let layer = || QuantLinear::from_uniform(&uniform, None, Activations::F32).unwrap();
    assert!(matches!(layer().with_column_factors(vec![1.0; 7]), Err(Error::Shape { .. })));
    assert!(matches!(layer().with_column_factors(vec![-1.0; 8]), Err(Error::Argument { .. })));
    assert!(matches!(layer().with_column_factors(vec![f32::NAN; 8]), Err(Error::NotFinite { .. })));
    let x = matrix([2, 7], 9);
    for layer in [layer(), layer().with_column_factors(vec![2.0; 8]).unwrap()] {
        assert!(matches!(layer.forward(x.view()), Err(Error::Shape { .. })));
    }
    // A column whose factor is 0 counts as 0.
    let mut factors = vec![1.0; 8];
    factors[2] = 0.0;
    let layer = layer().with_column_factors(factors).unwrap();
    let y = layer.forward(TensorView::from_slice([1, 8], &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap());
    assert_eq!(y.unwrap().as_slice(), [0.0; 3]);
    assert!(column_factors(&[1.0], 1.5).is_err());
    assert!(fold_columns(w.view(), &[1.0; 3]).is_err());
    let none = |_: &str| -> Option<AnyTensor> { None };
    assert!(matches!(StoredLayer::from_tensors("x", none, &BTreeMap::new()), Err(Error::Parse { .. })));
}

#[test]
fn real_layers_keep_their_accuracy() {
    // Relative output errors of a slice of a real model, by method.
    let x: Tensor<f32, 2> = golden_tensor("quant_minilm/l4_up_x.npy");
    let w: Tensor<f32, 2> = golden_tensor("quant_minilm/l4_up_w.npy");
    let want = product(&x, &w);
    let error =
        |linear: QuantLinear| relative_error(linear.forward(x.view()).unwrap().view(), want.view()).unwrap();
    let uniform = |bits, activations| {
        let spec = QuantSpec { bits, ..QuantSpec::default() };
        let layer = StoredLayer::quantize(w.view(), &Method::Flexq(spec), None).unwrap();
        error(layer.linear(None, activations, LutMode::F32).unwrap())
    };
    let (six, eight) = (uniform(6, Activations::F32), uniform(6, Activations::Bits(8)));
    assert!((six - 0.02767).abs() < 1e-4 && (eight - 0.03225).abs() < 1e-4, "{six} {eight}");
    let three = BcqMatrix::quantize(w.view(), &BcqSpec::default(), None).unwrap();
    let exact = error(QuantLinear::from_bcq(&three, None, LutMode::F32).unwrap());
    let tables = error(QuantLinear::from_bcq(&three, None, LutMode::I16).unwrap());
    assert!((exact - tables).abs() < 1e-3 && exact < 0.25, "{exact} {tables}");
    let four = FireqWeights::quantize(w.view(), &fireq::WeightSpec::default()).unwrap();
    let four = error(QuantLinear::from_fireq(&four, None, &fireq::LinearConfig::default()).unwrap());
    assert!(four > six && four < 0.15, "{four}");
}

#[test]
fn wide_layers_are_shared_by_threads_and_keep_their_bits() {
    // So many tokens that weights become panels, and so many rows that threads share them.
    let (m, n, k) = (130, 2100, 40);
    let (w, x, bias) = (matrix([n, k], 10), matrix([m, k], 11), normals(n, 12));
    for method in methods() {
        let layer = StoredLayer::quantize(w.view(), &method, None).unwrap();
        let linear = layer.linear(Some(&bias), Activations::F32, LutMode::F32).unwrap();
        let y = same_on_any_pool(|| linear.forward(x.view()).unwrap().into_vec());
        let mut want = product(&x, &layer.dequantize().unwrap());
        want.as_mut_slice().chunks_mut(n).for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
        let y = Tensor::from_slice([m, n], &y).unwrap();
        let most = if matches!(method, Method::Fireq(_)) { 0.05 } else { 1e-5 };
        let error = relative_error(y.view(), want.view()).unwrap();
        assert!(error < most, "{method:?}: {error}");
    }
}

#[test]
fn importance_serves_binary_codes_with_and_without_factors() {
    let x: Tensor<f32, 2> = golden_tensor("quant_minilm/l4_up_x.npy");
    let w: Tensor<f32, 2> = golden_tensor("quant_minilm/l4_up_w.npy");
    let (want, [t, k]) = (product(&x, &w), x.shape());
    let squares: Vec<f32> =
        (0..k).map(|j| (0..t).map(|i| x.view().at([i, j]).powi(2)).sum::<f32>() / t as f32).collect();
    let factors = column_factors(&squares.iter().map(|s| s.sqrt()).collect::<Vec<_>>(), 0.7).unwrap();
    let error = |importance: Option<&[f32]>, factors: Option<&[f32]>| {
        let method = Method::Bcq(BcqSpec::default(), importance.map(<[f32]>::to_vec));
        let layer = StoredLayer::quantize(w.view(), &method, factors).unwrap();
        let y = layer.linear(None, Activations::F32, LutMode::F32).unwrap().forward(x.view()).unwrap();
        relative_error(y.view(), want.view()).unwrap()
    };
    for factors in [None, Some(factors.as_slice())] {
        let (plain, weighed) = (error(None, factors), error(Some(&squares), factors));
        assert!(weighed < 0.9 * plain, "{weighed} of {plain}");
    }
    let short = Method::Bcq(BcqSpec::default(), Some(vec![1.0; 3]));
    assert!(matches!(StoredLayer::quantize(w.view(), &short, None), Err(Error::Shape { .. })));
}
