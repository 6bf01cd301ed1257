//! `.npz`: NumPy's and SciPy's archives, round trips, and archives that lie.

use kc_core::{AnyTensor, Bytes, DType, Error, Tensor};
use kc_io::npz::{self, Compression, NpzFile, ReadLimits};
use kc_testing::alloc::measure;
use kc_testing::golden;

use crate::support::{DTYPES, assert_same, golden_tensor, lies_in};

fn open(bytes: Vec<u8>) -> kc_core::Result<NpzFile> {
    NpzFile::from_bytes(Bytes::from_owner(bytes), "x.npz", ReadLimits::default())
}

fn written(tensors: &[(&str, AnyTensor)], compression: Compression) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    npz::write_with(&path, tensors, &[], compression).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn archives_of_numpy_are_read() {
    for name in ["stored", "compressed"] {
        let path = golden(&format!("io/{name}.npz"));
        let file = NpzFile::open(&path).unwrap();
        assert_eq!(file.names()[..4], ["a", "b", "c", "d"]);
        assert_same(&file.get("a").unwrap(), &golden_tensor(DType::F32, &[3, 4, 5]));
        assert_same(&file.get("b").unwrap(), &golden_tensor(DType::I64, &[7]));
        assert_same(&file.get("c").unwrap(), &golden_tensor(DType::F64, &[3, 4]));
        assert_eq!(file.get("d").unwrap().view::<f64, 0>("d").unwrap().at([]), 2.5);
        let named = kc_io::read(format!("{}:b", path.display())).unwrap();
        assert_same(&named, &golden_tensor(DType::I64, &[7]));
        // Several tensors, and none is named.
        let error = kc_io::read(&path).unwrap_err().to_string();
        assert!(error.contains("`a`, `b`, `c`, `d`"), "{error}");
        assert!(matches!(file.get("e"), Err(Error::Argument { .. })));
    }
    let zeros = NpzFile::open(golden("io/compressed.npz")).unwrap().get("zeros").unwrap();
    assert_eq!(zeros.shape(), [100_000]);
    assert!(zeros.bytes().iter().all(|&b| b == 0));
}

#[test]
fn a_sparse_matrix_of_scipy_is_read() {
    let dense: Tensor<f64, 2> = kc_testing::golden_tensor("io/csr_dense.npy");
    for name in ["csr_stored", "csr_compressed"] {
        let file = NpzFile::open(golden(&format!("io/{name}.npz"))).unwrap();
        assert_eq!(file.text("format").unwrap(), "csr");
        let shape: Tensor<i64, 1> = file.get("shape").unwrap().to_tensor("shape").unwrap();
        let indptr: Tensor<i32, 1> = file.get("indptr").unwrap().to_tensor("indptr").unwrap();
        let indices: Tensor<i32, 1> = file.get("indices").unwrap().to_tensor("indices").unwrap();
        let data: Tensor<f64, 1> = file.get("data").unwrap().to_tensor("data").unwrap();
        assert_eq!(shape.as_slice(), [20, 30]);
        let mut got = Tensor::<f64, 2>::zeros([20, 30]).unwrap();
        for i in 0..20 {
            for e in indptr[[i]] as usize..indptr[[i + 1]] as usize {
                got[[i, indices[[e]] as usize]] = data[[e]];
            }
        }
        assert_eq!(got, dense);
    }
}

#[test]
fn what_is_written_reads_back() {
    let all: Vec<(String, AnyTensor)> = DTYPES
        .iter()
        .filter(|&&dtype| dtype != DType::BF16)
        .map(|&dtype| (dtype.to_string(), golden_tensor(dtype, &[3, 7])))
        .collect();
    let tensors: Vec<(&str, AnyTensor)> = all.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    for compression in [Compression::Stored, Compression::Deflated] {
        let file = open(written(&tensors, compression)).unwrap();
        assert_eq!(file.names().len(), tensors.len());
        for (name, tensor) in &tensors {
            assert_same(&file.get(name).unwrap(), tensor);
        }
        // No times, no random names: equal input gives equal bytes.
        assert!(written(&tensors, compression) == written(&tensors, compression));
    }
    assert!(open(written(&[], Compression::Stored)).unwrap().names().is_empty());
}

#[test]
fn strings_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let x = golden_tensor(DType::F32, &[2]);
    npz::write_with(&path, &[("x", x)], &[("format", "csr"), ("empty", "")], Compression::Stored).unwrap();
    let file = NpzFile::open(&path).unwrap();
    assert_eq!(file.names(), ["x", "format", "empty"]);
    assert_eq!((file.text("format").unwrap().as_str(), file.text("empty").unwrap().as_str()), ("csr", ""));
}

#[test]
fn stored_tensors_are_viewed_in_place() {
    let tensors =
        [("a", golden_tensor(DType::F32, &[33])), ("long name", golden_tensor(DType::C128, &[5, 5]))];
    let bytes = Bytes::from_owner(written(&tensors, Compression::Stored));
    let file = NpzFile::from_bytes(bytes.clone(), "x.npz", ReadLimits::default()).unwrap();
    for (name, _) in &tensors {
        assert!(lies_in(&file.get(name).unwrap(), &bytes), "{name}");
    }
}

#[test]
fn names_must_be_unique() {
    let x = golden_tensor(DType::F32, &[2]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    assert!(npz::write(&path, &[("a", x.clone()), ("a", x.clone())]).is_err());
    assert!(!path.exists());
    // The same length, so that the archive stays consistent.
    let twice = written(&[("aa", x.clone()), ("ab", x)], Compression::Stored);
    let twice = replace(&twice, b"ab.npy", b"aa.npy");
    assert!(matches!(open(twice), Err(Error::Parse { .. })));
}

fn replace(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    for at in 0..=file.len() - from.len() {
        if file[at..].starts_with(from) {
            file[at..at + to.len()].copy_from_slice(to);
        }
    }
    file
}

#[test]
fn a_changed_byte_is_found_by_the_checksum() {
    let x = golden_tensor(DType::F64, &[64]);
    for compression in [Compression::Stored, Compression::Deflated] {
        let mut file = written(&[("x", x.clone())], compression);
        // Inside of the array's data, or of the deflated stream.
        file[if compression == Compression::Stored { 200 } else { 100 }] ^= 1;
        let error = open(file).unwrap().get("x").unwrap_err();
        assert!(matches!(error, Error::Parse { .. }), "{error}");
    }
}

/// A file with this declared size, in the local and in the central header.
fn declare(mut file: Vec<u8>, size: u32) -> Vec<u8> {
    for (signature, field) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let at = file.windows(4).rposition(|w| w == signature).unwrap();
        file[at + field..at + field + 4].copy_from_slice(&size.to_le_bytes());
    }
    file
}

#[test]
fn a_declared_size_is_not_believed() {
    let zeros = Tensor::<f64, 1>::zeros([1 << 17]).unwrap().into_any();
    let file = written(&[("x", zeros)], Compression::Deflated);
    let honest = (1 << 20) + 128;
    assert!(file.len() < 4096);
    for size in [0, 100, honest - 1, honest + 1, 1 << 30, u32::MAX - 1] {
        let lying = declare(file.clone(), size);
        let length = lying.len();
        let (result, memory) = measure(move || open(lying).and_then(|file| file.get("x")));
        assert!(result.is_err(), "{size}");
        // What really comes out may be held (and doubled while growing), nothing that is only declared.
        assert!(memory.peak < 5 * (1 << 20) + 64 * length, "{size}: {memory:?}");
    }
    assert!(open(declare(file, honest)).unwrap().get("x").is_ok());
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = Tensor::<f64, 1>::zeros([1 << 20]).unwrap().into_any();
    let bomb = written(&[("x", zeros)], Compression::Deflated);
    let mut limits = ReadLimits::default();
    limits.max_bytes = 1 << 20;
    let (result, memory) = measure(move || {
        NpzFile::from_bytes(Bytes::from_owner(bomb), "x.npz", limits).and_then(|file| file.get("x"))
    });
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    assert!(memory.peak < 1 << 18, "{memory:?}");
}

#[test]
fn other_compressions_and_encryption_are_unsupported() {
    let file = written(&[("x", golden_tensor(DType::F32, &[64]))], Compression::Deflated);
    for (local, central, value) in [(8, 10, 12u16), (6, 8, 1)] {
        let mut file = file.clone();
        for (signature, field) in [(b"PK\x03\x04", local), (b"PK\x01\x02", central)] {
            let at = file.windows(4).rposition(|w| w == signature).unwrap();
            file[at + field..at + field + 2].copy_from_slice(&value.to_le_bytes());
        }
        let error = open(file).and_then(|file| file.get("x")).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
