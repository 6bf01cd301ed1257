//! Every row of the table of bad input.

use kc_core::{Bytes, Error, KcRng, Tensor, f16};
use kc_quant::formats::*;
use kc_testing::alloc::measure;
use kc_testing::golden;

use super::support::{Layer, Words};

fn tiny() -> Vec<u8> {
    std::fs::read(golden("quant_formats/tiny.gguf")).unwrap()
}

fn parse(bytes: &[u8]) -> Result<GgufFile, Error> {
    GgufFile::parse(Bytes::from_owner(bytes.to_vec()))
}

#[track_caller]
fn assert_bad(bytes: &[u8], message: &str) {
    match parse(bytes) {
        Err(Error::Parse { message: said, .. }) => {
            assert!(said.contains(message), "{said:?}, not {message:?}")
        }
        other => panic!("{message}: {other:?}"),
    }
}

/// A file with one tensor.
fn one(dims: &[u64], kind: u32, offset: u64, data: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend([1u64.to_le_bytes(), 0u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
    file.push(b'w');
    file.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
    file.extend(kind.to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.resize(file.len().next_multiple_of(32) + data, 1);
    file
}

#[test]
fn gguf_headers() {
    let file = tiny();
    for len in 0..file.len() {
        // The last tensor's padding is not part of it.
        assert!(parse(&file[..len]).is_err() || len >= file.len() - 32, "{len} bytes");
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    assert_bad(&with(0, b"GGML"), "magic");
    assert_bad(&with(4, &1u32.to_le_bytes()), "version 1");
    assert_bad(&with(4, &4u32.to_le_bytes()), "version 2 or 3");
    assert_bad(&with(4, &3u32.to_be_bytes()), "big-endian");
    assert_bad(&with(8, &u64::MAX.to_le_bytes()), "tensors");
    assert_bad(&with(16, &u64::MAX.to_le_bytes()), "metadata entries");
    assert_bad(&with(24, &(u64::MAX / 2).to_le_bytes()), "bytes of text");
    assert!(parse(&with(4, &2u32.to_le_bytes())).is_ok());
}

#[test]
fn gguf_tensors() {
    assert!(parse(&one(&[32, 2], 2, 0, 36)).is_ok());
    assert_bad(&one(&[32, 2], 2, 0, 35), "outside of the file");
    assert_bad(&one(&[32, 2], 2, 64, 36), "outside of the file");
    assert_bad(&one(&[32, 2], 2, u64::MAX - 31, 36), "outside of the file");
    assert_bad(&one(&[32, 2], 2, 16, 64), "no multiple of 32");
    assert_bad(&one(&[1 << 40, 1 << 40], 2, 0, 36), "address space");
    assert_bad(&one(&[u64::MAX, 2], 0, 0, 36), "address space");
    assert_bad(&one(&[32, u64::MAX / 32], 2, 0, 36), "");
    assert_bad(&one(&[0, 1 << 60], 0, 0, 36), "empty");
    assert_bad(&one(&[33], 2, 0, 36), "a multiple of 32");
    assert_bad(&one(&[128], 14, 0, 210), "a multiple of 256");
    assert_bad(&one(&[32; 5], 2, 0, 36), "1 to 4 dimensions");
    assert_bad(&one(&[], 2, 0, 36), "1 to 4 dimensions");
}

#[test]
fn an_unknown_type_hides_only_its_own_tensor() {
    let mut file = tiny();
    let at = file.windows(6).position(|w| w == b"b.q4_0").unwrap() + 6 + 4 + 16;
    file[at..at + 4].copy_from_slice(&23u32.to_le_bytes());
    let file = parse(&file).unwrap();
    let unknown = file.tensor("b.q4_0").unwrap();
    assert_eq!((unknown.kind(), unknown.shape()), (GgufType::Other(23), &[6, 512][..]));
    for error in [unknown.dequantize().unwrap_err(), unknown.to_uniform().unwrap_err()] {
        assert!(matches!(error, Error::Unsupported { .. }));
    }
    assert!(unknown.dequantize().unwrap_err().to_string().contains("23"));
    assert!(file.tensor("b.q8_0").unwrap().dequantize().is_ok());
    assert!(matches!(file.tensor("nothing"), Err(Error::Argument { .. })));
}

#[test]
fn names_are_told_apart() {
    let mut file = tiny();
    let at = file.windows(6).position(|w| w == b"b.q4_0").unwrap();
    file[at..at + 6].copy_from_slice(b"b.q8_0");
    assert_bad(&file, "twice");
    file[at] = 0xff;
    assert_bad(&file, "UTF-8");
}

/// Changed bytes give an error or a file whose tensors can all be read; memory stays in proportion.
#[test]
fn thousands_of_damaged_files() {
    let file = tiny();
    let header = 384;
    let mut rng = KcRng::new(20, 0);
    let mut readable = 0;
    for round in 0..6000 {
        let mut damaged = file.clone();
        for _ in 0..1 + round % 3 {
            let at = rng.next_u64() as usize % header;
            damaged[at] = match rng.next_u64() % 4 {
                0 => 0xff,
                1 => 0,
                2 => damaged[at] ^ 1 << (rng.next_u64() % 8),
                _ => rng.next_u64() as u8,
            };
        }
        if round % 5 == 0 {
            damaged.truncate(rng.next_u64() as usize % file.len());
        }
        let bytes = Bytes::from_owner(damaged);
        let (parsed, memory) = measure(|| GgufFile::parse(bytes));
        assert!(memory.peak <= 32 * file.len(), "round {round}: {} bytes", memory.peak);
        if let Ok(parsed) = parsed {
            for tensor in parsed.tensors() {
                let [n, k] = tensor.matrix();
                readable += usize::from(tensor.dequantize().is_ok_and(|w| w.shape() == [n, k]));
                let _ = tensor.to_uniform();
            }
        }
    }
    assert!(readable > 1000, "{readable}");
}

fn gptq(change: impl FnOnce(&mut Words), config: &GptqConfig) -> Result<(), Error> {
    let mut arrays = Words::of(&Layer::open("gptq_b4_g64"), true);
    change(&mut arrays);
    GptqTensor::read(arrays.gptq(), config).map(|_| ())
}

fn index(change: impl FnOnce(&mut [i32])) -> Option<kc_core::AnyTensor> {
    let mut index: Vec<i32> = (0..256).map(|k| k / 64).collect();
    change(&mut index);
    Some(Tensor::from_slice([index.len()], &index).unwrap().into_any())
}

#[test]
fn gptq_arrays() {
    let config = GptqConfig::default();
    let error = gptq(|x| x.g_idx = index(|i| i[7] = 4), &config).unwrap_err();
    assert_eq!(error, Error::index("g_idx", &[7], 4, 4));
    assert!(matches!(gptq(|x| x.g_idx = index(|i| i[7] = -1), &config), Err(Error::Argument { .. })));
    let short = Tensor::<i32, 1>::zeros([64]).unwrap().into_any();
    assert!(matches!(gptq(|x| x.g_idx = Some(short), &config), Err(Error::Shape { .. })));
    let zeros = |shape| Tensor::<i32, 2>::zeros(shape).unwrap().into_any();
    assert!(matches!(gptq(|x| x.qzeros = zeros([4, 3]), &config), Err(Error::Shape { .. })));
    assert!(matches!(gptq(|x| x.qzeros = zeros([3, 4]), &config), Err(Error::Shape { .. })));
    assert!(matches!(gptq(|x| x.qweight = zeros([31, 32]), &config), Err(Error::Shape { .. })));
    assert!(matches!(gptq(|x| x.qweight = zeros([0, 32]), &config), Err(Error::Empty { .. })));
    let scales = Tensor::<f16, 2>::zeros([4, 31]).unwrap().into_any();
    assert!(matches!(gptq(|x| x.scales = scales, &config), Err(Error::Shape { .. })));
    for bits in [0, 1, 5, 6, 9] {
        let mut config = config;
        config.bits = Some(bits);
        assert!(matches!(gptq(|_| {}, &config), Err(Error::Argument { .. })), "{bits}");
    }
    // Without g_idx, groups that do not divide K must be said.
    let mut config = config;
    config.group = Some(100);
    assert!(matches!(gptq(|x| x.g_idx = None, &config), Err(Error::Shape { .. })));
    config.group = Some(0);
    assert!(matches!(gptq(|x| x.g_idx = None, &config), Err(Error::Shape { .. })));
}

/// The stored 2^b - 1 of version 1 means 2^b, not 0.
#[test]
fn the_largest_stored_zero_is_one_more_than_the_largest_code() {
    let arrays = Words {
        qweight: Tensor::<i32, 2>::zeros([1, 8]).unwrap().into_any(),
        qzeros: Tensor::from_slice([1, 1], &[-1]).unwrap().into_any(),
        scales: Tensor::from_fn([1, 8], |_| f16::ONE).unwrap().into_any(),
        g_idx: None,
    };
    let of = |version| {
        let mut config = GptqConfig::default();
        (config.bits, config.version) = (Some(4), version);
        GptqTensor::read(arrays.gptq(), &config).unwrap().dequantize().unwrap()[[0, 0]]
    };
    assert_eq!((of(GptqVersion::V1), of(GptqVersion::V2)), (-16.0, -15.0));
}

#[test]
fn awq_arrays() {
    let read = |change: &dyn Fn(&mut Words)| {
        let mut arrays = Words::of(&Layer::open("awq_b4_g64"), false);
        change(&mut arrays);
        AwqTensor::read(arrays.awq()).map(|_| ())
    };
    let zeros = |shape| Tensor::<i32, 2>::zeros(shape).unwrap().into_any();
    let halves = |shape| Tensor::<f16, 2>::zeros(shape).unwrap().into_any();
    assert!(read(&|_| {}).is_ok());
    assert!(matches!(read(&|x| x.qzeros = zeros([4, 3])), Err(Error::Shape { .. })));
    assert!(matches!(read(&|x| x.scales = halves([4, 4])), Err(Error::Shape { .. })));
    assert!(matches!(read(&|x| x.qweight = zeros([0, 4])), Err(Error::Empty { .. })));
    let seven = |x: &mut Words| (x.qzeros, x.scales) = (zeros([7, 4]), halves([7, 32]));
    assert!(read(&seven).is_ok(), "256 columns in 7 groups: 37 each, the last shorter");
    let many = |x: &mut Words| (x.qzeros, x.scales) = (zeros([200, 4]), halves([200, 32]));
    assert!(matches!(read(&many), Err(Error::Shape { .. })));
}

#[test]
fn pack_quantized_arrays() {
    let (packed, scale) =
        (Tensor::<i32, 2>::zeros([6, 32]).unwrap(), Tensor::<f32, 2>::zeros([6, 2]).unwrap());
    let (zeros, short) = (Tensor::<i32, 2>::zeros([1, 2]).unwrap(), Tensor::<i32, 1>::zeros([3]).unwrap());
    let views = PackQuantizedViews {
        weight_packed: packed.view(),
        weight_scale: ScaleView::F32(scale.view()),
        weight_zero_point: None,
        weight_shape: [6, 256],
        weight_g_idx: None,
    };
    let read = |views, bits, group| PackQuantized::read(views, bits, group).map(|_| ());
    assert!(read(views, None, None).is_ok());
    assert!(matches!(read(views, Some(5), None), Err(Error::Shape { .. })));
    assert!(matches!(read(views, Some(9), None), Err(Error::Argument { .. })));
    assert!(matches!(read(views, None, Some(64)), Err(Error::Shape { .. })));
    let of = |weight_shape| PackQuantizedViews { weight_shape, ..views };
    assert!(matches!(read(of([5, 256]), None, None), Err(Error::Shape { .. })));
    assert!(matches!(read(of([6, usize::MAX]), None, None), Err(Error::Shape { .. })));
    assert!(matches!(read(of([6, 0]), None, None), Err(Error::Empty { .. })));
    let points = PackQuantizedViews { weight_zero_point: Some(ZeroPoints::Unsigned(zeros.view())), ..views };
    assert!(matches!(read(points, None, None), Err(Error::Shape { .. })));
    let index = PackQuantizedViews { weight_g_idx: Some(short.view()), ..views };
    assert!(matches!(read(index, None, None), Err(Error::Shape { .. })));
    // One word holds 5 codes of 6 bits, or of 5 or 4.
    let (word, scale) = (Tensor::<i32, 2>::zeros([1, 1]).unwrap(), Tensor::<f32, 2>::zeros([1, 1]).unwrap());
    let open = PackQuantizedViews {
        weight_packed: word.view(),
        weight_scale: ScaleView::F32(scale.view()),
        weight_shape: [1, 5],
        ..views
    };
    assert!(matches!(read(open, None, None), Err(Error::Argument { .. })));
    assert!(read(open, Some(6), None).is_ok());
}

#[test]
fn mat_mul_n_bits_arrays() {
    let (b, scales) = (Tensor::<u8, 3>::zeros([5, 3, 32]).unwrap(), Tensor::<f32, 2>::zeros([5, 3]).unwrap());
    let zp = Tensor::<u8, 2>::zeros([5, 1]).unwrap();
    let views = MatMulNBitsViews { b: b.view(), scales: ScaleView::F32(scales.view()), zero_points: None };
    let read = |views, k, bits| MatMulNBits::read(views, k, bits).map(|_| ());
    assert!(read(views, 192, 4).is_ok() && read(views, 130, 4).is_ok());
    assert!(matches!(read(views, 128, 4), Err(Error::Shape { .. })));
    assert!(matches!(read(views, 193, 4), Err(Error::Shape { .. })));
    assert!(matches!(read(views, 192, 3), Err(Error::Argument { .. })));
    assert!(matches!(read(views, 0, 4), Err(Error::Empty { .. })));
    let points = MatMulNBitsViews { zero_points: Some(zp.view()), ..views };
    assert!(matches!(read(points, 192, 4), Err(Error::Shape { .. })));
    assert_eq!(MatMulNBits::bits_of([5, 3, 32], 192), Some(4));
    assert_eq!(MatMulNBits::bits_of([5, 1, 32], 20), None);
}

#[test]
fn scales_that_are_not_finite_have_no_groups() {
    let scales = Tensor::from_fn([4, 32], |at| if at == [1, 2] { f16::INFINITY } else { f16::ONE }).unwrap();
    let mut arrays = Words::of(&Layer::open("gptq_b4_g64"), true);
    arrays.scales = scales.into_any();
    let gptq = GptqTensor::read(arrays.gptq(), &GptqConfig::default()).unwrap();
    assert!(gptq.dequantize().is_ok());
    assert!(matches!(gptq.to_uniform(), Err(Error::NotFinite { .. })));
}
