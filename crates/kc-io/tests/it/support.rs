//! What several modules of tests need.

use kc_core::{AnyTensor, Bytes, DType, Element, bf16, f16};

/// Every element type.
pub(crate) const DTYPES: [DType; 15] = DType::ALL;

/// The fixtures' values, as golden/io/README.md defines them, in native bytes.
pub(crate) fn golden_values(dtype: DType, len: usize) -> Vec<u8> {
    fn bytes<T: Element>(values: impl Iterator<Item = T>) -> Vec<u8> {
        values.flat_map(|x| kc_core::bytemuck::bytes_of(&x).to_vec()).collect()
    }
    let s = (0..len as i64).map(|k| k * k % 23 - 11);
    match dtype {
        DType::Bool => bytes(s.map(|s| u8::from(s % 3 == 0))),
        DType::U8 => bytes(s.map(|s| (s + 11) as u8)),
        DType::I8 => bytes(s.map(|s| s as i8)),
        DType::U16 => bytes(s.map(|s| (s + 11) as u16)),
        DType::I16 => bytes(s.map(|s| s as i16)),
        DType::U32 => bytes(s.map(|s| (s + 11) as u32)),
        DType::I32 => bytes(s.map(|s| s as i32)),
        DType::U64 => bytes(s.map(|s| (s + 11) as u64)),
        DType::I64 => bytes(s),
        DType::F16 => bytes(s.map(|s| f16::from_f64(s as f64 * 0.5))),
        DType::BF16 => bytes(s.map(|s| bf16::from_f64(s as f64 * 0.5))),
        DType::F32 => bytes(s.map(|s| s as f32 * 0.5)),
        DType::F64 => bytes(s.map(|s| s as f64 * 0.5)),
        DType::C64 => bytes(s.flat_map(|s| [s as f32 * 0.5, (s + 1) as f32 * 0.25])),
        DType::C128 => bytes(s.flat_map(|s| [s as f64 * 0.5, (s + 1) as f64 * 0.25])),
        _ => panic!("{dtype}"),
    }
}

/// A fixture's tensor.
pub(crate) fn golden_tensor(dtype: DType, shape: &[usize]) -> AnyTensor {
    let values = golden_values(dtype, shape.iter().product());
    AnyTensor::new(dtype, shape.to_vec(), Bytes::from_owner(values)).unwrap()
}

#[track_caller]
pub(crate) fn assert_same(got: &AnyTensor, want: &AnyTensor) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()));
    assert!(got.bytes() == want.bytes(), "the elements differ");
}

/// True if the tensor's bytes lie inside of `file`.
pub(crate) fn lies_in(tensor: &AnyTensor, file: &[u8]) -> bool {
    file.as_ptr_range().contains(&tensor.bytes().as_ptr())
}
