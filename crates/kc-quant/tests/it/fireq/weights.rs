//! Weights: factors of the tensor, types of scales, edges of the range, bad parts.

use kc_core::{Error, Tensor};
use kc_quant::Group;
use kc_quant::fireq::*;
use kc_testing::{normals, same_on_any_pool, strided};
use proptest::prelude::*;

fn tensor(shape: [usize; 2], std: f32, seed: u64) -> Tensor<f32, 2> {
    let mut values = normals(shape[0] * shape[1], seed);
    values.iter_mut().for_each(|x| *x *= std);
    Tensor::from_slice(shape, &values).unwrap()
}

fn spec(scale_type: ScaleType, per_tensor: PerTensor) -> WeightSpec {
    WeightSpec { group: Group::Size(128), scale_type, per_tensor }
}

fn error(w: &Tensor<f32, 2>, scale_type: ScaleType, per_tensor: PerTensor) -> f64 {
    let weights = FireqWeights::quantize(w.view(), &spec(scale_type, per_tensor)).unwrap();
    weights.relative_error(w.view(), DequantMode::Exact).unwrap()
}

const REFERENCE: PerTensor = PerTensor::Reference { rank: 1 };

#[test]
fn small_weights_need_the_factor() {
    // Standard deviation, and the errors without, with the published rule, and with that of least error.
    for (std, off, reference, least) in [(1e-3, 0.56, 0.133, 0.1164), (1e-5, 1.0, 0.115, 0.112)] {
        let w = tensor([256, 1024], std, 1);
        let got = [PerTensor::Off, REFERENCE, PerTensor::MinError].map(|p| error(&w, ScaleType::Fp8, p));
        for (got, want) in got.into_iter().zip([off, reference, least]) {
            assert!((got / want - 1.0).abs() < 0.06, "{std}: {got}, not {want}");
        }
        let float = error(&w, ScaleType::F32, PerTensor::Off);
        assert!(got[2] < 1.03 * float && got[2] <= got[1] && got[0] > 3.0 * got[2], "{got:?} {float}");
    }
    let w = tensor([64, 512], 1e-4, 2);
    assert!(error(&w, ScaleType::Fp8, PerTensor::Off) > 0.9);
    assert!(error(&w, ScaleType::Fp8, PerTensor::MinError) < 0.13);
}

#[test]
fn other_scales_need_no_factor() {
    let w = tensor([8, 256], 1e-5, 3);
    for scale_type in [ScaleType::Bf16, ScaleType::F32] {
        for per_tensor in [PerTensor::MinError, REFERENCE, PerTensor::Off] {
            let weights = FireqWeights::quantize(w.view(), &spec(scale_type, per_tensor)).unwrap();
            assert_eq!(weights.per_tensor(), 1.0);
        }
    }
}

#[test]
fn large_weights_leave_no_room() {
    let w = tensor([4, 128], 1000.0, 4);
    let sigma = |p| FireqWeights::quantize(w.view(), &spec(ScaleType::Fp8, p)).unwrap().per_tensor();
    // No power of two from 1 on keeps the groups below 448; those below 1 do.
    assert_eq!(sigma(REFERENCE), 1.0);
    assert!(sigma(PerTensor::MinError) < 1.0);
}

#[test]
fn ranks_walk_the_order_of_the_published_rule() {
    let w = tensor([16, 256], 1e-3, 5);
    let sigma = |rank| {
        let spec = spec(ScaleType::Fp8, PerTensor::Reference { rank });
        FireqWeights::quantize(w.view(), &spec).unwrap().per_tensor()
    };
    let found: Vec<f32> = (1..=15).map(sigma).collect();
    // Equal shortfalls (none at all): the smaller factor first.
    assert!(found[1] == 2.0 * found[0] && found[2] == 4.0 * found[0], "{found:?}");
    assert!(found.contains(&1.0));
}

#[test]
fn any_factor_may_be_fixed() {
    let w = tensor([4, 128], 1.0, 6);
    for sigma in [0.5, 3.0] {
        let weights =
            FireqWeights::quantize(w.view(), &spec(ScaleType::F32, PerTensor::Fixed(sigma))).unwrap();
        assert_eq!(weights.per_tensor(), sigma);
        assert!(weights.relative_error(w.view(), DequantMode::Exact).unwrap() < 0.13);
    }
}

#[test]
fn groups_of_zeros_have_scale_one() {
    let mut w = tensor([2, 256], 1.0, 7);
    w.as_mut_slice()[..128].fill(0.0);
    for scale_type in ScaleType::ALL {
        let weights = FireqWeights::quantize(w.view(), &spec(scale_type, PerTensor::Off)).unwrap();
        assert_eq!(weights.scales()[0], 1.0);
        assert!(weights.codes().unwrap().as_slice()[..128].iter().all(|&q| q == 0));
    }
}

#[test]
fn scales_are_rounded_before_codes_are_made() {
    // max / 7 = 1.4 becomes 1.375; 6.9 / 1.4 would be 4.93 and 6.9 / 1.375 is 5.02, and -9.8 / 1.375 = -7.13.
    let w = Tensor::from_slice([1, 3], &[-9.8f32, 6.9, 3.44]).unwrap();
    let weights = FireqWeights::quantize(w.view(), &spec(ScaleType::Fp8, PerTensor::Off)).unwrap();
    assert_eq!(weights.scales(), [1.375]);
    assert_eq!(weights.codes().unwrap().as_slice(), [-7, 5, 3]);
    // A scale rounded down lets the lowest code be used, and the highest clamps: 7.5 -> 7, -7.5 -> -8.
    let w = Tensor::from_slice([1, 2], &[7.4f32, -7.4]).unwrap();
    let spec = WeightSpec { per_tensor: PerTensor::Fixed(1.0), ..WeightSpec::default() };
    let weights = FireqWeights::quantize(w.view(), &spec).unwrap();
    assert_eq!(weights.scales(), [1.0]);
    assert_eq!(weights.codes().unwrap().as_slice(), [7, -7]);
}

#[test]
fn words_hold_eight_codes() {
    let w: Vec<f32> = (-7..=5).map(|x| x as f32 + 0.0).chain([7.0]).collect();
    let w = Tensor::from_slice([1, 14], &w).unwrap();
    let weights = FireqWeights::quantize(w.view(), &spec(ScaleType::F32, PerTensor::Off)).unwrap();
    assert_eq!(weights.packed(), [0x0fed_cba9, 0x0075_4321]);
    assert_eq!(weights.bytes(), 8 + 4);
}

#[test]
fn file_size_is_four_bits_and_a_little() {
    let w = tensor([64, 4096], 0.02, 8);
    let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    let bits = 8.0 * weights.bytes() as f64 / w.len() as f64;
    assert!((4.0..4.07).contains(&bits), "{bits}");
}

#[test]
fn strides_and_threads_change_nothing() {
    let (n, k) = (37, 300);
    let w = tensor([n, k], 0.01, 9);
    let want = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
    for view in strided(n, k, w.as_slice(), f32::NAN) {
        assert_eq!(FireqWeights::quantize(view.view(), &WeightSpec::default()).unwrap(), want);
    }
    same_on_any_pool(|| FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap());
}

proptest! {
    #[test]
    fn codes_are_those_of_the_reference(
        n in 0usize..6, k in 0usize..40, group in 1usize..20, kind in 0usize..3, exponent in -30i32..30, seed in 0u64..100,
    ) {
        let w = tensor([n, k], 2f32.powi(exponent), seed);
        let scale_type = ScaleType::ALL[kind];
        let spec = WeightSpec { group: Group::Size(group), scale_type, per_tensor: PerTensor::Off };
        let weights = FireqWeights::quantize(w.view(), &spec).unwrap();
        let (codes, scales) = reference::quantize(w.view(), group, scale_type, 1.0).unwrap();
        prop_assert_eq!(weights.scales(), scales.as_slice());
        prop_assert_eq!(weights.codes().unwrap(), codes);
    }
}

#[test]
fn bad_input() {
    let mut w = tensor([3, 8], 1.0, 1);
    let quantize = |w: &Tensor<f32, 2>, spec: WeightSpec| FireqWeights::quantize(w.view(), &spec).map(|_| ());
    let with = |per_tensor| WeightSpec { per_tensor, ..WeightSpec::default() };
    for spec in [
        WeightSpec { group: Group::Size(0), ..WeightSpec::default() },
        with(PerTensor::Fixed(0.0)),
        with(PerTensor::Fixed(-2.0)),
        with(PerTensor::Fixed(f32::NAN)),
        with(PerTensor::Fixed(f32::MAX)),
        with(PerTensor::Reference { rank: 0 }),
        with(PerTensor::Reference { rank: 16 }),
    ] {
        assert!(matches!(quantize(&w, spec), Err(Error::Argument { .. })), "{spec:?}");
    }
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        w[[1, 2]] = bad;
        match quantize(&w, WeightSpec::default()) {
            Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1, 2]),
            other => panic!("{other:?}"),
        }
    }
    let parts = |packed: &[u32], scales: &[f32], kind| {
        FireqWeights::from_parts([1, 4], 4, kind, 1.0, packed.to_vec(), scales.to_vec()).map(|_| ())
    };
    assert!(parts(&[0x4321], &[1.0], ScaleType::Fp8).is_ok());
    assert!(matches!(parts(&[0x54321], &[1.0], ScaleType::Fp8), Err(Error::Argument { .. })));
    assert!(matches!(parts(&[0x4321], &[1.01], ScaleType::Fp8), Err(Error::Argument { .. })));
    assert!(matches!(parts(&[0x4321], &[0.0], ScaleType::F32), Err(Error::Argument { .. })));
    assert!(matches!(parts(&[0x4321], &[f32::NAN], ScaleType::F32), Err(Error::NotFinite { .. })));
    assert!(matches!(parts(&[0x4321, 0], &[1.0], ScaleType::F32), Err(Error::Shape { .. })));
    assert!(matches!(parts(&[0x4321], &[1.0, 1.0], ScaleType::F32), Err(Error::Shape { .. })));
}

#[test]
fn empty_shapes() {
    for shape in [[0, 5], [5, 0], [0, 0]] {
        let w = Tensor::<f32, 2>::zeros(shape).unwrap();
        let weights = FireqWeights::quantize(w.view(), &WeightSpec::default()).unwrap();
        assert_eq!(weights.codes().unwrap().shape(), shape);
        assert_eq!(weights.dequantize(DequantMode::Requantized).unwrap().shape(), shape);
    }
}
