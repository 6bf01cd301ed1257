//! `.npy`: NumPy's own files, round trips, what is viewed in place, and faults.

use kc_core::{AnyTensor, Bytes, DType, Error, Position};
use kc_io::npy;
use kc_testing::golden;
use proptest::prelude::*;

use crate::support::{DTYPES, assert_same, golden_tensor, lies_in};

const NAMES: [(&str, DType); 14] = [
    ("b1", DType::Bool),
    ("u1", DType::U8),
    ("i1", DType::I8),
    ("u2", DType::U16),
    ("i2", DType::I16),
    ("u4", DType::U32),
    ("i4", DType::I32),
    ("u8", DType::U64),
    ("i8", DType::I64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

fn read(name: &str) -> AnyTensor {
    kc_io::read(golden(&format!("io/{name}.npy"))).unwrap_or_else(|e| panic!("{e}"))
}

fn parse(file: Vec<u8>) -> kc_core::Result<AnyTensor> {
    npy::read_bytes(Bytes::from_owner(file), "x.npy")
}

/// A file of version 1.0 with this dictionary.
fn file(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((dictionary.len() as u16).to_le_bytes());
    file.extend(dictionary.as_bytes());
    file.extend(data);
    file
}

#[test]
fn every_type_order_and_endianness_of_numpy_is_read() {
    for (name, dtype) in NAMES {
        let want = golden_tensor(dtype, &[3, 4, 5]);
        for order in ["le", "be", "fortran"] {
            assert_same(&read(&format!("{order}_{name}")), &want);
        }
    }
    assert_same(&read("fortran_be_f4"), &golden_tensor(DType::F32, &[3, 4, 5]));
    assert_same(&read("fortran_2d"), &golden_tensor(DType::F64, &[65, 70]));
    assert_same(&read("fortran_row"), &golden_tensor(DType::F64, &[1, 9]));
}

#[test]
fn every_version_and_rank_of_numpy_is_read() {
    for version in ["v2", "v3"] {
        assert_same(&read(version), &golden_tensor(DType::F32, &[3, 4, 5]));
    }
    assert_eq!(read("scalar").view::<f64, 0>("x").unwrap().at([]), 2.5);
    assert_same(&read("vector"), &golden_tensor(DType::F32, &[7]));
    assert_eq!(read("empty").shape(), [3, 0, 4]);
    assert_eq!(read("empty_fortran").shape(), [3, 0, 4]);
    let mut shape = vec![1; 32];
    shape[..2].copy_from_slice(&[2, 3]);
    assert_same(&read("rank32"), &golden_tensor(DType::I16, &shape));
}

#[test]
fn files_are_written_as_numpy_writes_them() {
    for name in NAMES.map(|(name, _)| format!("le_{name}")).iter().map(String::as_str) {
        let file = std::fs::read(golden(&format!("io/{name}.npy"))).unwrap();
        assert!(npy::to_bytes(&read(name)).unwrap() == file, "{name}");
    }
    for name in ["scalar", "vector", "empty", "rank32"] {
        let file = std::fs::read(golden(&format!("io/{name}.npy"))).unwrap();
        assert!(npy::to_bytes(&read(name)).unwrap() == file, "{name}");
    }
}

#[test]
fn data_in_natural_layout_are_viewed_in_place() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _) in NAMES {
        let bytes = kc_io::map::map(golden(&format!("io/le_{name}.npy"))).unwrap();
        let tensor = npy::read_bytes(bytes.clone(), name).unwrap();
        assert!(lies_in(&tensor, &bytes), "{name}");
        assert!(tensor.bytes().as_ptr().addr().is_multiple_of(64));
    }
    for name in ["be_f8", "fortran_f8"] {
        let bytes = kc_io::map::map(golden(&format!("io/{name}.npy"))).unwrap();
        assert!(!lies_in(&npy::read_bytes(bytes.clone(), name).unwrap(), &bytes), "{name}");
    }
    // A view outlives the file.
    let path = dir.path().join("x.npy");
    kc_io::write(&path, &golden_tensor(DType::F32, &[5])).unwrap();
    let tensor = kc_io::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_same(&tensor, &golden_tensor(DType::F32, &[5]));
}

#[test]
fn unaligned_data_are_copied() {
    // Old files align to 16 bytes only, and a hand-made header to nothing.
    for spaces in 0..16 {
        let dictionary =
            format!("{{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }}{}\n", " ".repeat(spaces));
        let tensor = parse(file(&dictionary, &[0; 24])).unwrap();
        assert!(tensor.view::<f64, 1>("x").is_ok());
    }
}

#[test]
fn dictionaries_as_python_may_write_them_are_read() {
    for dictionary in [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
        "{\"shape\":(2,3),\"descr\":\"<f4\",\"fortran_order\":False}  \n",
        "  {'fortran_order' : False ,\n 'shape' : ( 2 , 3 , ) , 'descr' : '=f4' , }",
        "{'descr': 'f4', 'fortran_order': False, 'shape': (2, 3)}",
    ] {
        let tensor = parse(file(dictionary, &[0; 24])).unwrap_or_else(|e| panic!("{dictionary}: {e}"));
        assert_eq!((tensor.dtype(), tensor.shape()), (DType::F32, &[2, 3][..]));
    }
}

#[test]
fn other_dictionaries_are_refused() {
    for dictionary in [
        "",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 6}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, , 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 0)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)",
        "{'descr': '<f4, 'fortran_order': False, 'shape': (6,)}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (6,)}",
        "{'descr': [('a', '<f4')",
    ] {
        let error = parse(file(dictionary, &[0; 24])).unwrap_err();
        assert!(matches!(error, Error::Parse { at: Position::Byte(_), .. }), "{dictionary}: {error}");
    }
    let many = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({})}}", "1, ".repeat(33));
    assert!(parse(file(&many, &[0; 4])).is_err());
}

#[test]
fn sizes_that_do_not_match_are_refused_before_anything_is_allocated() {
    let of = |shape: &str, bytes| {
        let dictionary = format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {shape}, }}");
        parse(file(&dictionary, &vec![0; bytes]))
    };
    assert!(of("(2, 3)", 24).is_ok());
    for (shape, bytes) in [
        ("(2, 3)", 23),
        ("(2, 3)", 25),
        ("(2, 0)", 1),
        ("()", 0),
        ("(1000000000000, 1000000)", 24),
        ("(9223372036854775807, 9223372036854775807)", 24),
        ("(4611686018427387904, 4)", 0),
    ] {
        let error = of(shape, bytes).unwrap_err();
        assert!(matches!(error, Error::Parse { .. }), "{shape} with {bytes} bytes: {error}");
    }
    let error = of("(2, 3)", 20).unwrap_err().to_string();
    assert!(error.contains("expected 24 bytes of data for [2, 3] of float32, got 20"), "{error}");
    // A length of zero makes every other length meaningless, but harmless.
    assert!(of("(0, 9223372036854775807, 9223372036854775807)", 0).is_ok());
}

#[test]
fn a_long_header_is_refused() {
    let mut file = b"\x93NUMPY\x02\x00".to_vec();
    file.extend(u32::MAX.to_le_bytes());
    assert!(matches!(parse(file), Err(Error::TooLarge { .. })));
}

#[test]
fn other_versions_and_types_are_unsupported() {
    let mut file = file("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", &[0; 4]);
    file[6] = 4;
    assert!(matches!(parse(file), Err(Error::Unsupported { .. })));
    for name in ["object", "struct", "longdouble", "datetime", "bfloat16"] {
        let error = kc_io::read(golden(&format!("io/bad_{name}.npy"))).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error}");
    }
    assert!(matches!(kc_io::read(golden("io/string.npy")), Err(Error::Unsupported { .. })));
}

#[test]
fn strings_of_rank_zero_are_read_as_text() {
    for (name, want) in [("string", "csr"), ("unicode", "grün")] {
        let file = std::fs::read(golden(&format!("io/{name}.npy"))).unwrap();
        assert_eq!(npy::read_text(&file, name).unwrap(), want);
        assert!(npy::read_text(&file[..file.len() - 1], name).is_err());
    }
    let number = std::fs::read(golden("io/scalar.npy")).unwrap();
    assert!(npy::read_text(&number, "scalar").is_err());
}

#[test]
fn booleans_are_zero_or_one() {
    let dictionary = "{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }";
    assert!(parse(file(dictionary, &[0, 1, 1])).is_ok());
    let error = parse(file(dictionary, &[0, 1, 2])).unwrap_err();
    let want = 10 + dictionary.len() as u64 + 2;
    assert!(matches!(error, Error::Parse { at: Position::Byte(at), .. } if at == want), "{error}");
}

#[test]
fn bfloat16_and_rank_33_are_not_written() {
    assert!(matches!(npy::to_bytes(&golden_tensor(DType::BF16, &[2])), Err(Error::Unsupported { .. })));
    assert!(matches!(npy::to_bytes(&golden_tensor(DType::F32, &[1; 33])), Err(Error::Shape { .. })));
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(0usize..6, 0..6),
        prop::collection::vec(1usize..3, 0..10),
        prop::collection::vec(30usize..40, 0..3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_reads_back(shape in shapes(), which in 0..DTYPES.len()) {
        let dtype = DTYPES[which];
        prop_assume!(dtype != DType::BF16);
        let tensor = golden_tensor(dtype, &shape);
        let file = npy::to_bytes(&tensor).unwrap();
        prop_assert!(file.len() - tensor.bytes().len() <= 256 + 8 * shape.len());
        assert_same(&parse(file).unwrap(), &tensor);
    }

    /// Fortran order and swapped bytes, against one element at a time.
    #[test]
    fn other_orders_are_undone(shape in shapes(), fortran: bool, swapped: bool, which in 0..NAMES.len()) {
        let (name, dtype) = NAMES[which];
        let size = dtype.size();
        let unit = if name.starts_with('c') { size / 2 } else { size };
        let tensor = golden_tensor(dtype, &shape);
        let mut data = tensor.bytes().to_vec();
        if fortran {
            let mut stride = 1;
            let strides: Vec<usize> = shape.iter().map(|&d| { stride *= d; stride / d.max(1) }).collect();
            for (k, element) in tensor.bytes().chunks(size).enumerate() {
                let mut rest = k;
                let mut at = 0;
                for (&d, &stride) in shape.iter().zip(&strides).rev() {
                    at += rest % d * stride;
                    rest /= d;
                }
                data[at * size..(at + 1) * size].copy_from_slice(element);
            }
        }
        if swapped {
            data.chunks_mut(unit).for_each(<[u8]>::reverse);
        }
        let order = if swapped { '>' } else { '<' };
        let text: String = shape.iter().map(|d| format!("{d},")).collect();
        let fortran = if fortran { "True" } else { "False" };
        let dictionary =
            format!("{{'descr': '{order}{name}', 'fortran_order': {fortran}, 'shape': ({text}), }}");
        assert_same(&parse(file(&dictionary, &data)).unwrap(), &tensor);
    }
}
