//! Fixtures: arrays made by the formats' own programs, and what they stand for.

use kc_core::{AnyTensor, Bytes, Tensor, TensorView};
use kc_quant::formats::gguf::Value;
use kc_quant::formats::*;
use kc_quant::{UniformGroups, Zeros};
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor};

use super::support::{Layer, Words, assert_same_bits};

fn fixture<T: kc_core::Element, const N: usize>(name: &str) -> Tensor<T, N> {
    golden_tensor(&format!("quant_formats/{name}.npy"))
}

/// Both ways of reading give the fixture's bits.
#[track_caller]
fn assert_both(dequantized: &Tensor<f32, 2>, uniform: &UniformGroups, name: &str) {
    let want: Tensor<f32, 2> = fixture(&format!("{name}_deq"));
    assert_eq!((dequantized.shape(), uniform.shape()), (want.shape(), want.shape()), "{name}");
    assert_same_bits(dequantized.as_slice(), want.as_slice(), name);
    assert_same_bits(uniform.dequantize().unwrap().as_slice(), want.as_slice(), name);
}

#[test]
fn gptq_of_every_width() {
    for bits in [2, 3, 4, 8] {
        let name = format!("gptq_b{bits}_g64");
        let arrays = Words::of(&Layer::open(&name), true);
        let gptq = GptqTensor::read(arrays.gptq(), &GptqConfig::default()).unwrap();
        assert_eq!((gptq.bits(), gptq.group(), gptq.shape()), (bits, Some(64), [32, 256]));
        let uniform = gptq.to_uniform().unwrap();
        assert_eq!((uniform.bits(), uniform.group(), uniform.order()), (bits, 64, None));
        assert_both(&gptq.dequantize().unwrap(), &uniform, &name);

        // Without g_idx the shapes tell the same.
        let bare = Words { g_idx: None, ..arrays };
        let bare = GptqTensor::read(bare.gptq(), &GptqConfig::default()).unwrap();
        assert_eq!((bare.bits(), bare.to_uniform().unwrap()), (bits, uniform));
    }
}

#[test]
fn gptq_in_activation_order() {
    let name = "gptq_b4_g64_actorder";
    let arrays = Words::of(&Layer::open(name), true);
    let gptq = GptqTensor::read(arrays.gptq(), &GptqConfig::default()).unwrap();
    assert_eq!(gptq.group(), None);
    let uniform = gptq.to_uniform().unwrap();
    assert!(uniform.order().is_some());
    assert_both(&gptq.dequantize().unwrap(), &uniform, name);
}

#[test]
fn version_two_has_zeros_as_they_are() {
    let arrays = Words::of(&Layer::open("gptq_b4_g64"), true);
    let of = |version| {
        let mut config = GptqConfig::default();
        config.version = version;
        GptqTensor::read(arrays.gptq(), &config).unwrap().to_uniform().unwrap()
    };
    let (one, two) = (of(GptqVersion::V1), of(GptqVersion::V2));
    let (Zeros::PerGroup(one), Zeros::PerGroup(two)) = (one.zeros(), two.zeros()) else { panic!() };
    assert!(one.iter().zip(two).all(|(one, two)| *one == two + 1));
}

#[test]
fn awq() {
    let arrays = Words::of(&Layer::open("awq_b4_g64"), false);
    let awq = AwqTensor::read(arrays.awq()).unwrap();
    assert_eq!(awq.group(), Some(64));
    assert_both(&awq.dequantize().unwrap(), &awq.to_uniform().unwrap(), "awq_b4_g64");
}

#[test]
fn pack_quantized() {
    for bits in [4, 6] {
        let name = format!("ct_w{bits}_g128");
        let layer = Layer::open(&name);
        let (packed, scale, shape) =
            (layer.get("weight_packed"), layer.get("weight_scale"), layer.get("weight_shape"));
        let shape: Tensor<i64, 1> = shape.to_tensor("weight_shape").unwrap();
        let views = PackQuantizedViews {
            weight_packed: packed.view("weight_packed").unwrap(),
            weight_scale: ScaleView::of(&scale, "weight_scale").unwrap(),
            weight_zero_point: None,
            weight_shape: [shape[[0]] as usize, shape[[1]] as usize],
            weight_g_idx: None,
        };
        let ct = PackQuantized::read(views, None, None).unwrap();
        assert_eq!((ct.bits(), ct.group()), (bits, Some(128)));
        let uniform = ct.to_uniform().unwrap();
        assert_eq!(uniform.zeros(), &Zeros::Constant(1 << (bits - 1)));
        assert_both(&ct.dequantize().unwrap(), &uniform, &name);
    }
}

#[test]
fn mat_mul_n_bits() {
    for bits in [2, 4, 8] {
        let name = format!("matmulnbits_{bits}");
        let (b, zp): (Tensor<u8, 3>, Tensor<u8, 2>) =
            (fixture(&format!("{name}_b")), fixture(&format!("{name}_zp")));
        let scales: Tensor<f32, 2> = fixture(&format!("{name}_scales"));
        let k = fixture::<f32, 2>(&format!("{name}_x")).shape()[1];
        assert_eq!(MatMulNBits::bits_of(b.shape(), k), Some(bits));
        let views = MatMulNBitsViews {
            b: b.view(),
            scales: ScaleView::F32(scales.view()),
            zero_points: Some(zp.view()),
        };
        let node = MatMulNBits::read(views, k, bits).unwrap();
        assert_eq!(node.group(), Some(64));
        assert_both(&node.dequantize().unwrap(), &node.to_uniform().unwrap(), &name);
        let product = product(&fixture(&format!("{name}_x")), &node.dequantize().unwrap());
        // The fixture's product has weights that are not rounded to f32.
        let want: Tensor<f64, 2> = fixture(&format!("{name}_y"));
        assert_close(&product, want.as_slice(), Tol::new(0.0, 1e-6));
    }
}

fn product(x: &Tensor<f32, 2>, w: &Tensor<f32, 2>) -> Vec<f64> {
    let (x, w) = (x.view(), w.view());
    let dot = |t, n| (0..x.cols()).map(|k| f64::from(x.at([t, k])) * f64::from(w.at([n, k]))).sum();
    (0..x.rows()).flat_map(|t| (0..w.rows()).map(move |n| (t, n))).map(|(t, n)| dot(t, n)).collect()
}

/// Names in gguf.json of types that have codes.
fn quantised() -> impl Iterator<Item = GgufType> {
    GgufType::ALL.into_iter().filter(|t| t.block().is_some_and(|(len, _)| len > 1))
}

#[test]
fn gguf_blocks() {
    let known = golden_json("quant_formats/gguf.json");
    assert_eq!(quantised().count(), known.as_object().unwrap().len());
    for kind in quantised() {
        let (len, bytes) = kind.block().unwrap();
        let name = kind.name().to_lowercase();
        assert_eq!(known[kind.name()]["block"], len);
        assert_eq!(known[kind.name()]["bytes_per_block"], bytes);
        let data: Tensor<u8, 2> = fixture(&format!("gguf_{name}_bytes"));
        let data = Bytes::from_owner(data.into_vec());
        let tensor = GgufTensor::new(&*name, [6, 512], kind, data).unwrap();
        let dequantized = tensor.dequantize().unwrap();
        assert_both(&dequantized, &tensor.to_uniform().unwrap(), &format!("gguf_{name}"));
        let want: Tensor<f64, 2> = fixture(&format!("gguf_{name}_y"));
        assert_close(&product(&fixture("gguf_x"), &dequantized), want.as_slice(), Tol::new(1e-12, 1e-12));
    }
}

#[test]
fn gguf_codes_have_the_groups_of_their_type() {
    for (kind, bits, group, zero) in [
        (GgufType::Q4_0, 4, 32, Some(8)),
        (GgufType::Q4_1, 4, 32, None),
        (GgufType::Q5_0, 5, 32, Some(16)),
        (GgufType::Q5_1, 5, 32, None),
        (GgufType::Q8_0, 8, 32, Some(128)),
        (GgufType::Q2_K, 2, 16, None),
        (GgufType::Q3_K, 3, 16, Some(4)),
        (GgufType::Q4_K, 4, 32, None),
        (GgufType::Q5_K, 5, 32, None),
        (GgufType::Q6_K, 6, 16, Some(32)),
    ] {
        let data: Tensor<u8, 2> = fixture(&format!("gguf_{}_bytes", kind.name().to_lowercase()));
        let tensor = GgufTensor::new("w", [6, 512], kind, Bytes::from_owner(data.into_vec())).unwrap();
        let uniform = tensor.to_uniform().unwrap();
        assert_eq!((uniform.bits(), uniform.group(), uniform.order()), (bits, group, None), "{kind:?}");
        assert_eq!((uniform.zero(5, 3), kind.codes()), (zero, Some((bits, group))), "{kind:?}");
    }
}

#[test]
fn gguf_file() {
    let bytes = std::fs::read(golden("quant_formats/tiny.gguf")).unwrap();
    let file = GgufFile::parse(Bytes::from_owner(bytes.clone())).unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    let keys: Vec<&str> = file.metadata().iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["general.architecture", "kc.note", "kc.answer"]);
    assert!(matches!(&file.metadata()[1].1, Value::String(note) if note == "fixture"));
    let names: Vec<&str> = file.tensors().iter().map(GgufTensor::name).collect();
    assert_eq!(names, ["a.weight", "b.q6_k", "b.q4_0", "b.q8_0", "b.q4_k"]);
    let plain = file.tensor("a.weight").unwrap();
    assert_eq!((plain.shape(), plain.kind()), (&[2, 256][..], GgufType::F32));
    let w: Tensor<f32, 2> = fixture("gguf_w");
    let corner = w.view().slice(0, 0..2).and_then(|w| w.slice(1, 0..256)).unwrap();
    assert_same_bits(plain.dequantize().unwrap().as_slice(), &corner.to_vec(), "a.weight");
    for tensor in &file.tensors()[1..] {
        assert_eq!((tensor.shape(), tensor.matrix()), (&[6, 512][..], [6, 512]));
        let name = tensor.name().strip_prefix("b.").unwrap();
        assert_both(&tensor.dequantize().unwrap(), &tensor.to_uniform().unwrap(), &format!("gguf_{name}"));
    }
    // What is written is the file that was read.
    assert!(gguf::write(file.metadata(), file.tensors()).unwrap() == bytes);
}

#[test]
fn quantisers_that_are_defined_give_the_bytes_of_ggml() {
    let w: Tensor<f32, 2> = fixture("gguf_w");
    for kind in [GgufType::Q4_0, GgufType::Q8_0] {
        let want: Tensor<u8, 2> = fixture(&format!("gguf_{}_bytes", kind.name().to_lowercase()));
        assert!(gguf::quantize::quantize(w.view(), kind).unwrap() == want.as_slice(), "{kind:?}");
    }
}

#[test]
fn searched_blocks_are_as_good_as_those_of_ggml() {
    let w: Tensor<f32, 2> = fixture("gguf_w");
    for kind in [GgufType::Q4_K, GgufType::Q6_K] {
        let theirs: Tensor<f32, 2> = fixture(&format!("gguf_{}_deq", kind.name().to_lowercase()));
        let ours = GgufTensor::quantize("w", w.view(), kind).unwrap().dequantize().unwrap();
        let error = |x: &Tensor<f32, 2>| kc_testing::relative_error(x.as_slice(), w.as_slice());
        let (ours, theirs) = (error(&ours), error(&theirs));
        // Not smaller than what the width allows either: the numbers were really rounded.
        assert!(ours <= 1.02 * theirs && ours > 0.8 * theirs, "{kind:?}: {ours}, not {theirs}");
    }
}

#[test]
fn arrays_of_files_are_typed() {
    let tensor = AnyTensor::from(Tensor::<i32, 2>::zeros([1, 1]).unwrap());
    assert!(ScaleView::of(&tensor, "scales").is_err());
    let view: TensorView<'_, i32, 2> = tensor.view("x").unwrap();
    assert_eq!(view.shape(), [1, 1]);
}
