//! What is written is read back identical, and what cannot be held is refused.

use kc_core::{Bytes, Error, KcRng, Tensor};
use kc_quant::formats::gguf::{Value, write};
use kc_quant::formats::*;
use kc_quant::{ScaleDtype, UniformGroups, Zeros};

use super::properties::blocks;
use super::support::{Layer, Words};

/// Random codes with scales in half precision.
fn weights(shape: [usize; 2], bits: u8, group: usize, zeros: Zeros, seed: u64) -> UniformGroups {
    let mut rng = KcRng::new(seed, 0);
    let [n, k] = shape;
    let codes = (0..n * k).map(|_| rng.next_u64() as u8 >> (8 - bits)).collect();
    let scales =
        (0..n * k.div_ceil(group)).map(|_| kc_core::f16::from_f32(rng.normal() as f32).to_f32()).collect();
    UniformGroups::new(shape, bits, group, codes, scales, zeros).unwrap()
}

/// Random zeros of `low` to `high`.
fn zeros(count: usize, low: i32, high: i32) -> Zeros {
    let mut rng = KcRng::new(99, 0);
    Zeros::PerGroup((0..count).map(|_| low + (rng.next_u64() as i32 & 0xffff) % (high - low + 1)).collect())
}

fn shuffled(weights: UniformGroups) -> UniformGroups {
    let (k, mut rng) = (weights.shape()[1], KcRng::new(5, 0));
    let mut order: Vec<u32> = (0..k as u32).collect();
    rng.shuffle(&mut order);
    weights.with_order(order).unwrap()
}

/// The same matrix, in whatever form.
#[track_caller]
fn assert_same(got: &UniformGroups, want: &UniformGroups) {
    assert_eq!(got.shape(), want.shape());
    let (got, want) = (got.dequantize().unwrap(), want.dequantize().unwrap());
    assert!(got.as_slice().iter().zip(want.as_slice()).all(|(g, w)| g.to_bits() == w.to_bits()));
}

fn gptq_back(arrays: &GptqArrays, version: GptqVersion) -> UniformGroups {
    let views = GptqViews {
        qweight: arrays.qweight.view(),
        qzeros: arrays.qzeros.view(),
        scales: ScaleView::F16(arrays.scales.view()),
        g_idx: Some(arrays.g_idx.view()),
    };
    let mut config = GptqConfig::default();
    config.version = version;
    GptqTensor::read(views, &config).unwrap().to_uniform().unwrap()
}

#[test]
fn gptq() {
    for (bits, k) in [(2, 48), (3, 96), (4, 104), (8, 260)] {
        let count = 32 * usize::div_ceil(k, 24);
        for (version, low) in [(GptqVersion::V1, 1), (GptqVersion::V2, 0)] {
            let zeros = zeros(count, low, low + (1 << bits) - 1);
            let plain = weights([32, k], bits, 24, zeros, u64::from(bits));
            let arrays = GptqTensor::write(&plain, version).unwrap();
            assert_eq!((arrays.bits, arrays.group), (bits, 24));
            let back = gptq_back(&arrays, version);
            if k % 24 == 0 {
                assert_eq!(back, plain);
            }
            assert_same(&back, &plain);
            let sorted = shuffled(plain);
            assert_same(&gptq_back(&GptqTensor::write(&sorted, version).unwrap(), version), &sorted);
        }
    }
}

#[test]
fn codes_are_widened_where_the_packing_has_no_such_width() {
    let six = weights([32, 64], 6, 32, Zeros::Constant(32), 1);
    let arrays = GptqTensor::write(&six, GptqVersion::V1).unwrap();
    assert_eq!(arrays.bits, 8);
    assert_same(&gptq_back(&arrays, GptqVersion::V1), &six);
    let node = MatMulNBits::write(&six, ScaleDtype::F16).unwrap();
    // 2^(b-1) is 128 now, so the zeros must be stored.
    assert!(node.bits == 8 && node.zero_points.is_some());
}

/// Files of the formats' own programs, read and written, are the same words.
#[test]
fn the_files_of_others_come_back_word_by_word() {
    for name in ["gptq_b2_g64", "gptq_b3_g64", "gptq_b4_g64", "gptq_b8_g64", "gptq_b4_g64_actorder"] {
        let arrays = Words::of(&Layer::open(name), true);
        let gptq = GptqTensor::read(arrays.gptq(), &GptqConfig::default()).unwrap();
        let written = GptqTensor::write(&gptq.to_uniform().unwrap(), GptqVersion::V1).unwrap();
        assert_eq!(written.qweight.into_any().bytes(), arrays.qweight.bytes(), "{name}");
        assert_eq!(written.qzeros.into_any().bytes(), arrays.qzeros.bytes(), "{name}");
        assert_eq!(written.scales.into_any().bytes(), arrays.scales.bytes(), "{name}");
        assert_eq!(written.g_idx.into_any().bytes(), arrays.g_idx.unwrap().bytes(), "{name}");
    }
    let arrays = Words::of(&Layer::open("awq_b4_g64"), false);
    let awq = AwqTensor::read(arrays.awq()).unwrap();
    let written = AwqTensor::write(&awq.to_uniform().unwrap()).unwrap();
    assert_eq!(written.qweight.into_any().bytes(), arrays.qweight.bytes());
    assert_eq!(written.qzeros.into_any().bytes(), arrays.qzeros.bytes());
    assert_eq!(written.scales.into_any().bytes(), arrays.scales.bytes());
    for name in ["ct_w4_g128", "ct_w6_g128"] {
        let layer = Layer::open(name);
        let (packed, scale) = (layer.get("weight_packed"), layer.get("weight_scale"));
        let views = PackQuantizedViews {
            weight_packed: packed.view("weight_packed").unwrap(),
            weight_scale: ScaleView::of(&scale, "weight_scale").unwrap(),
            weight_zero_point: None,
            weight_shape: [6, 256],
            weight_g_idx: None,
        };
        let uniform = PackQuantized::read(views, None, None).unwrap().to_uniform().unwrap();
        let written = PackQuantized::write(&uniform, ScaleDtype::F16).unwrap();
        assert_eq!(written.weight_packed.into_any().bytes(), packed.bytes(), "{name}");
        assert_eq!(written.weight_scale.bytes(), scale.bytes(), "{name}");
        let shape = layer.get("weight_shape");
        assert_eq!(written.weight_shape.into_any().bytes(), shape.bytes(), "{name}");
    }
}

#[test]
fn awq() {
    let plain = weights([40, 96], 4, 32, zeros(120, 0, 15), 2);
    let arrays = AwqTensor::write(&plain).unwrap();
    let views = AwqViews {
        qweight: arrays.qweight.view(),
        qzeros: arrays.qzeros.view(),
        scales: ScaleView::F16(arrays.scales.view()),
    };
    assert_eq!(AwqTensor::read(views).unwrap().to_uniform().unwrap(), plain);
}

#[test]
fn pack_quantized() {
    for bits in 1..=8u8 {
        for (n, k, group) in [(3, 70, 32), (33, 129, 129), (40, 128, 64)] {
            let count = n * usize::div_ceil(k, group);
            for zeros in [Zeros::Constant(1 << (bits - 1)), zeros(count, 0, (1 << bits) - 1)] {
                let symmetric = zeros == Zeros::Constant(1 << (bits - 1));
                let plain = weights([n, k], bits, group, zeros, 3);
                for (weights, dtype) in [
                    (plain.clone(), ScaleDtype::F16),
                    (plain.clone(), ScaleDtype::F32),
                    (shuffled(plain.clone()), ScaleDtype::F32),
                ] {
                    let arrays = PackQuantized::write(&weights, dtype).unwrap();
                    let points = arrays.weight_zero_point.as_ref().map(|x| ZeroPoints::Packed(x.view()));
                    let views = PackQuantizedViews {
                        weight_packed: arrays.weight_packed.view(),
                        weight_scale: ScaleView::of(&arrays.weight_scale, "scale").unwrap(),
                        weight_zero_point: points,
                        weight_shape: [n, k],
                        weight_g_idx: arrays.weight_g_idx.as_ref().map(|x| x.view()),
                    };
                    assert_eq!(arrays.weight_shape.as_slice(), [n as i64, k as i64]);
                    assert_eq!((arrays.bits, points.is_none()), (bits, symmetric));
                    let back =
                        PackQuantized::read(views, Some(bits), Some(group)).unwrap().to_uniform().unwrap();
                    assert_same(&back, &weights);
                    if weights.order().is_none() {
                        assert_eq!(back, plain);
                    }
                }
            }
        }
    }
}

#[test]
fn the_file_of_six_bits_is_as_small_as_promised() {
    let plain = weights([64, 1024], 6, 128, Zeros::Constant(32), 4);
    let arrays = PackQuantized::write(&plain, ScaleDtype::F32).unwrap();
    let bytes = arrays.weight_packed.len() * 4 + arrays.weight_scale.bytes().len();
    assert_eq!(8 * bytes, 64 * 1024 * 25 / 4);
}

#[test]
fn mat_mul_n_bits() {
    for bits in [2u8, 4, 8] {
        for (n, k, group) in [(3, 70, 32), (2, 20, 20), (5, 256, 64)] {
            let count = n * usize::div_ceil(k, group);
            for zeros in [Zeros::Constant(1 << (bits - 1)), zeros(count, 0, (1 << bits) - 1)] {
                let plain = weights([n, k], bits, group, zeros, 6);
                let node = MatMulNBits::write(&plain, ScaleDtype::F32).unwrap();
                let views = MatMulNBitsViews {
                    b: node.b.view(),
                    scales: ScaleView::of(&node.scales, "scales").unwrap(),
                    zero_points: node.zero_points.as_ref().map(|x| x.view()),
                };
                assert_eq!(MatMulNBits::read(views, k, bits).unwrap().to_uniform().unwrap(), plain);
            }
        }
    }
}

#[test]
fn gguf_codes_as_they_are() {
    for (kind, bits, zero) in [(GgufType::Q4_0, 4, 8), (GgufType::Q8_0, 8, 128), (GgufType::Q8_0, 6, 32)] {
        for group in [32, 64, 96] {
            let plain = weights([5, 96], bits, group, Zeros::Constant(zero), 7);
            let tensor = GgufTensor::from_uniform("w", &plain, kind).unwrap();
            assert_same(&tensor.to_uniform().unwrap(), &plain);
        }
    }
}

#[test]
fn gguf_files_with_every_type_of_value() {
    let mut rng = KcRng::new(8, 0);
    let tensors: Vec<GgufTensor> = GgufType::ALL
        .into_iter()
        .map(|kind| {
            let bytes = blocks(kind, [6, 256], false, &mut rng);
            GgufTensor::new(kind.name(), [3, 2, 256], kind, Bytes::from_owner(bytes)).unwrap()
        })
        .collect();
    let list = {
        // Lists cannot be made, but they are kept: this one holds a text, and a list of two bytes.
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([0u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        for (key, body) in [
            ("a", [&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &2u64.to_le_bytes(), b"hi"].concat()),
            (
                "b",
                [
                    &9u32.to_le_bytes()[..],
                    &1u64.to_le_bytes(),
                    &0u32.to_le_bytes(),
                    &2u64.to_le_bytes(),
                    &[7, 9],
                ]
                .concat(),
            ),
        ] {
            file.extend(1u64.to_le_bytes());
            file.extend(key.as_bytes());
            file.extend(9u32.to_le_bytes());
            file.extend(body);
        }
        GgufFile::parse(Bytes::from_owner(file)).unwrap()
    };
    let mut metadata = list.metadata().to_vec();
    metadata.extend(
        [
            ("u8", Value::U8(1)),
            ("i8", Value::I8(-2)),
            ("u16", Value::U16(3)),
            ("i16", Value::I16(-4)),
            ("u32", Value::U32(5)),
            ("i32", Value::I32(-6)),
            ("f32", Value::F32(0.5)),
            ("bool", Value::Bool(true)),
            ("text", Value::String("größer".into())),
            ("u64", Value::U64(u64::MAX)),
            ("i64", Value::I64(i64::MIN)),
            ("f64", Value::F64(-0.25)),
            ("general.alignment", Value::U32(128)),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let bytes = write(&metadata, &tensors).unwrap();
    let back = GgufFile::parse(Bytes::from_owner(bytes.clone())).unwrap();
    assert_eq!((back.alignment(), back.tensors().len()), (128, 13));
    assert_eq!(format!("{:?}", back.metadata()), format!("{metadata:?}"));
    let Value::Array(inner) = &back.metadata()[1].1 else { panic!("a list") };
    let Some(Value::Array(bytes_in_list)) = inner.iter().next() else { panic!("a list in a list") };
    assert!(matches!(bytes_in_list.iter().collect::<Vec<_>>()[..], [Value::U8(7), Value::U8(9)]));
    for (got, want) in back.tensors().iter().zip(&tensors) {
        assert_eq!((got.name(), got.shape(), got.kind()), (want.name(), want.shape(), want.kind()));
        assert!(got.data()[..] == want.data()[..]);
    }
    assert!(write(back.metadata(), back.tensors()).unwrap() == bytes);
}

#[test]
fn what_cannot_be_held_is_refused() {
    let unsupported = |error: Error| match error {
        Error::Unsupported { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let count = 32 * 2;
    let offsets = weights([32, 64], 4, 32, Zeros::Offset(vec![0.5; count]), 9);
    let far = weights([32, 64], 4, 32, Zeros::Constant(300), 9);
    let free =
        UniformGroups::new([32, 64], 4, 32, vec![1; 2048], vec![0.1; count], Zeros::Constant(8)).unwrap();
    let order = shuffled(weights([32, 64], 4, 32, Zeros::Constant(8), 9));
    let zero = weights([32, 64], 4, 32, Zeros::Constant(0), 9);
    for reason in [
        unsupported(GptqTensor::write(&offsets, GptqVersion::V1).unwrap_err()),
        unsupported(GptqTensor::write(&far, GptqVersion::V1).unwrap_err()),
        unsupported(GptqTensor::write(&free, GptqVersion::V1).unwrap_err()),
        unsupported(GptqTensor::write(&zero, GptqVersion::V1).unwrap_err()),
        unsupported(AwqTensor::write(&order).unwrap_err()),
        unsupported(AwqTensor::write(&weights([32, 64], 5, 32, Zeros::Constant(8), 9)).unwrap_err()),
        unsupported(AwqTensor::write(&weights([12, 64], 4, 32, Zeros::Constant(8), 9)).unwrap_err()),
        unsupported(PackQuantized::write(&free, ScaleDtype::F16).unwrap_err()),
        unsupported(PackQuantized::write(&far, ScaleDtype::F32).unwrap_err()),
        unsupported(MatMulNBits::write(&order, ScaleDtype::F32).unwrap_err()),
        unsupported(
            MatMulNBits::write(&weights([4, 64], 4, 24, Zeros::Constant(8), 9), ScaleDtype::F32).unwrap_err(),
        ),
        unsupported(GgufTensor::from_uniform("w", &order, GgufType::Q4_0).unwrap_err()),
        unsupported(GgufTensor::from_uniform("w", &zero, GgufType::Q4_0).unwrap_err()),
        unsupported(GgufTensor::from_uniform("w", &free, GgufType::Q8_0).unwrap_err()),
    ] {
        assert!(reason.contains("requantise"), "{reason}");
    }
    // A zero of 0 is what version 2 is for.
    assert!(GptqTensor::write(&zero, GptqVersion::V2).is_ok());
}

#[test]
fn quantisers_take_odd_numbers() {
    for kind in [GgufType::Q4_0, GgufType::Q8_0, GgufType::Q4_K, GgufType::Q6_K] {
        for fill in [0.0f32, -0.0, 1e-30, -3.5, 6e4, 1e-7] {
            let mut w: Tensor<f32, 2> = Tensor::zeros([2, 256]).unwrap();
            w.as_mut_slice()[..256].fill(fill);
            w.as_mut_slice()[300] = fill;
            let back = GgufTensor::quantize("w", w.view(), kind).unwrap().dequantize().unwrap();
            let near = |x: f32| (x - fill).abs() <= 0.02 * fill.abs() + 1e-6;
            assert!(
                back.as_slice()[..256].iter().all(|&x| near(x)),
                "{kind:?} {fill}: {}",
                back.as_slice()[0]
            );
            assert!(
                back.as_slice()[301..].iter().all(|&x| x.abs() <= 0.02 * fill.abs() + 1e-6),
                "{kind:?} {fill}"
            );
        }
        let mut w: Tensor<f32, 2> = Tensor::zeros([1, 256]).unwrap();
        w[[0, 7]] = f32::NAN;
        assert!(
            matches!(gguf::quantize::quantize(w.view(), kind), Err(Error::NotFinite { index, .. }) if index == [0, 7])
        );
    }
    let w: Tensor<f32, 2> = Tensor::zeros([1, 96]).unwrap();
    assert!(matches!(gguf::quantize::quantize(w.view(), GgufType::Q4_K), Err(Error::Shape { .. })));
    assert!(matches!(gguf::quantize::quantize(w.view(), GgufType::Q5_1), Err(Error::Unsupported { .. })));
}
