//! Random bits, so that every code, zero and scale occurs, against the packings element by element.

use kc_core::{Bytes, KcRng, Tensor, TensorView, bf16, f16};
use kc_quant::UniformGroups;
use kc_quant::formats::*;
use kc_testing::same_on_any_pool;
use proptest::prelude::*;

use super::support::assert_same_bits;

/// Random words.
pub(crate) fn words<const N: usize>(shape: [usize; N], rng: &mut KcRng) -> Tensor<i32, N> {
    Tensor::from_fn(shape, |_| rng.next_u64() as i32).unwrap()
}

/// Halves of every size and sign, all finite.
pub(crate) fn halves(shape: [usize; 2], rng: &mut KcRng) -> Tensor<f16, 2> {
    let draw = |rng: &mut KcRng| loop {
        let half = f16::from_bits(rng.next_u64() as u16);
        if half.is_finite() {
            return half;
        }
    };
    Tensor::from_fn(shape, |_| draw(rng)).unwrap()
}

/// Both ways of reading give what `want` says of each element.
#[track_caller]
fn assert_elements(
    dequantized: &Tensor<f32, 2>,
    uniform: &UniformGroups,
    want: impl Fn([usize; 2]) -> f32,
    what: &str,
) {
    let want = Tensor::from_fn(dequantized.shape(), want).unwrap();
    assert_same_bits(dequantized.as_slice(), want.as_slice(), what);
    assert_same_bits(uniform.dequantize().unwrap().as_slice(), want.as_slice(), what);
}

/// Sizes around tiles of 32 rows and 256 columns; `unit` divides the columns.
fn lengths(unit: usize) -> Vec<usize> {
    [1, 2, 3, 7, 8, 9, 16, 17].iter().map(|i| i * unit).filter(|&k| k <= 576).collect()
}

#[test]
fn gptq_of_random_bits() {
    let mut rng = KcRng::new(1, 0);
    for (bits, unit) in [(2, 16), (3, 32), (4, 8), (8, 4)] {
        for k in lengths(unit).into_iter().chain([32 * 17, 32 * 9]) {
            for n in [32, 64, 96] {
                let groups = [1, 2, 3].into_iter().filter(|g| k / g * g == k).max().unwrap();
                let (group, b) = (k / groups, usize::from(bits));
                let qweight = words([k * b / 32, n], &mut rng);
                let qzeros = words([groups, n * b / 32], &mut rng);
                let scales = halves([groups, n], &mut rng);
                let index: Vec<i32> = (0..k).map(|_| (rng.next_u64() as usize % groups) as i32).collect();
                let index = Tensor::from_slice([k], &index).unwrap();
                for (version, index) in
                    [(GptqVersion::V1, None), (GptqVersion::V2, None), (GptqVersion::V1, Some(index.view()))]
                {
                    let views = GptqViews {
                        qweight: qweight.view(),
                        qzeros: qzeros.view(),
                        scales: ScaleView::F16(scales.view()),
                        g_idx: index,
                    };
                    let mut config = GptqConfig::default();
                    (config.bits, config.version) = (Some(bits), version);
                    let gptq = GptqTensor::read(views, &config).unwrap();
                    assert_elements(
                        &gptq.dequantize().unwrap(),
                        &gptq.to_uniform().unwrap(),
                        |at| reference::gptq(&views, bits, group, version, at),
                        &format!("{bits} bits, [{n}, {k}], {version:?}, order {}", index.is_some()),
                    );
                }
            }
        }
    }
}

#[test]
fn unequal_groups_are_cut_into_equal_ones() {
    let mut rng = KcRng::new(2, 0);
    // Groups of 6, 0, 24, 2 and 32 columns, in random order.
    let mut index: Vec<i32> = [(0, 6), (2, 24), (3, 2), (4, 32)]
        .into_iter()
        .flat_map(|(g, count)| std::iter::repeat_n(g, count))
        .collect();
    let sorted = index.clone();
    rng.shuffle(&mut index);
    let (qweight, qzeros) = (words([8, 32], &mut rng), words([5, 4], &mut rng));
    let scales = halves([5, 32], &mut rng);
    for (index, ordered) in [(index, true), (sorted, false)] {
        let index = Tensor::from_slice([64], &index).unwrap();
        let views = GptqViews {
            qweight: qweight.view(),
            qzeros: qzeros.view(),
            scales: ScaleView::F16(scales.view()),
            g_idx: Some(index.view()),
        };
        let gptq = GptqTensor::read(views, &GptqConfig::default()).unwrap();
        let uniform = gptq.to_uniform().unwrap();
        assert_eq!((uniform.group(), uniform.order().is_some()), (2, ordered));
        let element = |at| reference::gptq(&views, 4, 1, GptqVersion::V1, at);
        assert_elements(&gptq.dequantize().unwrap(), &uniform, element, "unequal groups");
    }
}

#[test]
fn awq_of_random_bits() {
    let mut rng = KcRng::new(3, 0);
    for k in [1, 5, 8, 9, 250, 256, 264, 513] {
        for n in [8, 32, 40, 104] {
            let groups = if k % 5 == 0 { 5 } else { 1 };
            let (qweight, qzeros) = (words([k, n / 8], &mut rng), words([groups, n / 8], &mut rng));
            let scales = halves([groups, n], &mut rng);
            let views = AwqViews {
                qweight: qweight.view(),
                qzeros: qzeros.view(),
                scales: ScaleView::F16(scales.view()),
            };
            let awq = AwqTensor::read(views).unwrap();
            assert_elements(
                &awq.dequantize().unwrap(),
                &awq.to_uniform().unwrap(),
                |at| reference::awq(&views, k / groups, at),
                &format!("[{n}, {k}]"),
            );
        }
    }
}

#[test]
fn pack_quantized_of_random_bits() {
    let mut rng = KcRng::new(4, 0);
    for bits in 1..=8u8 {
        for (n, k, group) in
            [(1, 1, 1), (3, 31, 7), (33, 33, 32), (2, 257, 128), (40, 300, 300), (5, 513, 100), (32, 256, 16)]
        {
            let groups = k / group + usize::from(k % group > 0);
            let width = kc_quant::int::stream_words(k, bits);
            let packed = words([n, width], &mut rng);
            let wide: Tensor<f32, 2> = Tensor::from_fn([n, groups], |_| rng.normal() as f32).unwrap();
            let narrow = Tensor::from_fn([n, groups], |at| bf16::from_f32(wide[at])).unwrap();
            let zeros = words([kc_quant::int::stream_words(n, bits), groups], &mut rng);
            let bytes = Tensor::from_fn([n, groups], |_| rng.next_u64() as i8).unwrap();
            let free = Tensor::from_fn([n, groups], |_| rng.next_u64() as i16 as i32).unwrap();
            let index: Vec<i32> = (0..k).map(|_| (rng.next_u64() as usize % groups) as i32).collect();
            let index = Tensor::from_slice([k], &index).unwrap();
            for (scale, points, index) in [
                (ScaleView::F32(wide.view()), None, None),
                (ScaleView::Bf16(narrow.view()), Some(ZeroPoints::Packed(zeros.view())), None),
                (ScaleView::F32(wide.view()), Some(ZeroPoints::Signed(bytes.view())), None),
                (ScaleView::F32(wide.view()), Some(ZeroPoints::Unsigned(free.view())), Some(index.view())),
            ] {
                let views = PackQuantizedViews {
                    weight_packed: packed.view(),
                    weight_scale: scale,
                    weight_zero_point: points,
                    weight_shape: [n, k],
                    weight_g_idx: index,
                };
                let ct = PackQuantized::read(views, Some(bits), Some(group)).unwrap();
                assert_elements(
                    &ct.dequantize().unwrap(),
                    &ct.to_uniform().unwrap(),
                    |at| reference::pack_quantized(&views, bits, group, at),
                    &format!("{bits} bits, [{n}, {k}], group {group}, {points:?}"),
                );
            }
        }
    }
}

#[test]
fn mat_mul_n_bits_of_random_bits() {
    let mut rng = KcRng::new(5, 0);
    for bits in [2u8, 4, 8] {
        for (n, k, block) in
            [(1, 1, 16), (3, 16, 16), (5, 100, 32), (33, 256, 256), (34, 300, 64), (2, 1030, 128)]
        {
            let groups = usize::div_ceil(k, block);
            let bytes = |shape: [usize; 2], rng: &mut KcRng| {
                Tensor::from_fn(shape, |_| rng.next_u64() as u8).unwrap()
            };
            let width = block * usize::from(bits) / 8;
            let b = bytes([n * groups, width], &mut rng).reshape([n, groups, width]).unwrap();
            let zp = bytes([n, (groups * usize::from(bits)).div_ceil(8)], &mut rng);
            let scales = halves([n, groups], &mut rng);
            for zero_points in [None, Some(zp.view())] {
                let views =
                    MatMulNBitsViews { b: b.view(), scales: ScaleView::F16(scales.view()), zero_points };
                let node = MatMulNBits::read(views, k, bits).unwrap();
                assert_elements(
                    &node.dequantize().unwrap(),
                    &node.to_uniform().unwrap(),
                    |at| reference::mat_mul_n_bits(&views, bits, at),
                    &format!("{bits} bits, [{n}, {k}], block {block}"),
                );
            }
        }
    }
}

/// Random rows of blocks. Scales are halves with any bits, or finite ones.
pub(crate) fn blocks(kind: GgufType, shape: [usize; 2], finite: bool, rng: &mut KcRng) -> Vec<u8> {
    let row = kind.row_bytes(shape[1]).unwrap();
    let mut bytes: Vec<u8> = (0..row * shape[0]).map(|_| rng.next_u64() as u8).collect();
    let (_, size) = kind.block().unwrap();
    let places: &[usize] = match kind {
        GgufType::Q4_1 | GgufType::Q5_1 | GgufType::Q4_K | GgufType::Q5_K => &[0, 2],
        GgufType::Q2_K => &[80, 82],
        GgufType::Q3_K => &[108],
        GgufType::Q6_K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(size).filter(|_| finite) {
        for at in places {
            // The largest exponent means infinity.
            if block[at + 1] & 0x7c == 0x7c {
                block[at + 1] ^= 0x40;
            }
        }
    }
    bytes
}

#[test]
fn gguf_of_random_bits() {
    let mut rng = KcRng::new(6, 0);
    for kind in GgufType::ALL {
        let (len, _) = kind.block().unwrap();
        for (n, k) in [(1, len), (3, 3 * len), (70, 2 * len)] {
            for finite in [true, false] {
                let bytes = blocks(kind, [n, k], finite, &mut rng);
                let row = bytes.len() / n;
                let tensor = GgufTensor::new("w", [n, k], kind, Bytes::from_owner(bytes.clone())).unwrap();
                let element = |[i, j]: [usize; 2]| reference::gguf(kind, &bytes[i * row..][..row], j);
                let what = format!("{kind:?} [{n}, {k}]");
                let dequantized = tensor.dequantize().unwrap();
                match tensor.to_uniform() {
                    Ok(uniform) => assert_elements(&dequantized, &uniform, element, &what),
                    Err(error) => {
                        let floats = len == 1 && matches!(error, kc_core::Error::Unsupported { .. });
                        let not_finite = !finite && matches!(error, kc_core::Error::NotFinite { .. });
                        assert!(floats || not_finite, "{what}: {error}");
                        let want = Tensor::from_fn([n, k], element).unwrap();
                        assert_same_bits(dequantized.as_slice(), want.as_slice(), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn strides_do_not_matter() {
    let mut rng = KcRng::new(7, 0);
    let (qweight, qzeros, scales) =
        (words([32, 64], &mut rng), words([2, 64], &mut rng), halves([2, 64], &mut rng));
    let every_other = |x: &Tensor<i32, 2>| x.view().step(1, 2).unwrap().to_tensor().unwrap();
    let dense = (every_other(&qweight), every_other(&qzeros));
    let of = |qweight: TensorView<'_, i32, 2>, qzeros: TensorView<'_, i32, 2>| {
        let scales = ScaleView::F16(scales.view().step(1, 2).unwrap());
        let views = GptqViews { qweight, qzeros: qzeros.slice(1, 0..4).unwrap(), scales, g_idx: None };
        GptqTensor::read(views, &GptqConfig::default()).unwrap().dequantize().unwrap()
    };
    let strided = of(qweight.view().step(1, 2).unwrap(), qzeros.view().step(1, 2).unwrap());
    assert_same_bits(strided.as_slice(), of(dense.0.view(), dense.1.view()).as_slice(), "strides");
}

#[test]
fn threads_change_nothing() {
    let mut rng = KcRng::new(8, 0);
    let bytes = blocks(GgufType::Q6_K, [300, 1024], true, &mut rng);
    let tensor = GgufTensor::new("w", [300, 1024], GgufType::Q6_K, Bytes::from_owner(bytes)).unwrap();
    let w = tensor.dequantize().unwrap();
    let mut small = w.view().slice(0, 0..20).unwrap().to_tensor().unwrap();
    small.as_mut_slice().iter_mut().for_each(|x| *x = x.clamp(-6e4, 6e4));
    same_on_any_pool(|| {
        let made = gguf::quantize::quantize(small.view(), GgufType::Q4_K).unwrap();
        (tensor.dequantize().unwrap().into_vec(), tensor.to_uniform().unwrap(), made)
    });
}

proptest! {
    /// Heavy tails or light ones, a block of a searched type is no worse than one with a plain scale. (One number
    /// that dwarfs all others is another matter: all types then have just the error of its scale.)
    #[test]
    fn searched_blocks_are_never_worse_than_plain_ones(seed in 0u64..1000, spread in 0.0f32..1.0) {
        let mut rng = KcRng::new(seed, 1);
        let w: Vec<f32> = (0..256).map(|_| rng.normal() as f32 * (spread * rng.normal() as f32).exp()).collect();
        let w = TensorView::from_slice([1, 256], &w).unwrap();
        let error = |kind| {
            let back = GgufTensor::quantize("w", w, kind).unwrap().dequantize().unwrap();
            kc_testing::relative_error(back.as_slice(), &w.to_vec())
        };
        prop_assert!(error(GgufType::Q4_K) <= 1.02 * error(GgufType::Q4_0));
        prop_assert!(error(GgufType::Q6_K) <= 0.5 * error(GgufType::Q4_0));
        prop_assert!(error(GgufType::Q8_0) <= 0.1);
    }
}
