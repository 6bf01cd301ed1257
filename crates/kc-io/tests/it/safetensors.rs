//! `.safetensors`: files of the Python package, round trips, indices, and headers that lie.

use std::collections::BTreeMap;

use kc_core::{AnyTensor, Bytes, DType, Error};
use kc_io::safetensors::{self, SafeTensorsFile};
use kc_testing::golden;

use crate::support::{DTYPES, assert_same, golden_tensor, lies_in};

fn open(bytes: Vec<u8>) -> kc_core::Result<SafeTensorsFile> {
    SafeTensorsFile::from_bytes(Bytes::from_owner(bytes), "x.safetensors")
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; data]);
    file
}

#[test]
fn files_of_the_python_package_are_read() {
    let file = SafeTensorsFile::open(golden("io/all.safetensors")).unwrap();
    assert_eq!(file.names().len(), 13);
    assert_eq!(file.metadata()["made_by"], "safetensors");
    let types = [
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
    ];
    for (name, dtype) in types {
        assert_same(&file.get(name).unwrap(), &golden_tensor(dtype, &[3, 4, 5]));
        let location = format!("{}:{name}", golden("io/all.safetensors").display());
        assert_same(&kc_io::read(location).unwrap(), &golden_tensor(dtype, &[3, 4, 5]));
    }
}

#[test]
fn bfloat16_scalars_and_types_without_a_name_here_are_read() {
    let file = SafeTensorsFile::open(golden("io/bf16.safetensors")).unwrap();
    assert_same(&file.get("bf16").unwrap(), &golden_tensor(DType::BF16, &[3, 4, 5]));
    assert_eq!(file.get("empty").unwrap().shape(), [0, 4]);
    assert_eq!(file.get("scalar").unwrap().view::<f32, 0>("x").unwrap().at([]), 2.5);
    assert!(matches!(file.get("fp8"), Err(Error::Unsupported { .. })));
    let raw = file.raw("fp8").unwrap();
    assert_eq!((raw.dtype.as_str(), raw.shape.as_slice(), raw.data.len()), ("F8_E4M3", &[6][..], 6));
    assert!(matches!(file.get("none"), Err(Error::Argument { .. })));
}

#[test]
fn shards_are_read_through_their_index() {
    let path = golden("io/model.safetensors.index.json");
    let file = SafeTensorsFile::open_index(&path).unwrap();
    assert_eq!(file.names(), ["x", "y", "z"]);
    assert_eq!(file.metadata()["total_size"], "840");
    assert_same(&file.get("x").unwrap(), &golden_tensor(DType::F32, &[3, 4, 5]));
    assert_same(&file.get("y").unwrap(), &golden_tensor(DType::F16, &[3, 4, 5]));
    let z = kc_io::read(format!("{}:z", path.display())).unwrap();
    assert_same(&z, &golden_tensor(DType::I64, &[3, 4, 5]));
}

#[test]
fn an_index_cannot_reach_outside_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let secret = [("x", golden_tensor(DType::F32, &[2]))];
    safetensors::write(dir.path().join("s.safetensors"), &secret, &BTreeMap::new()).unwrap();
    safetensors::write(inner.join("s.safetensors"), &secret, &BTreeMap::new()).unwrap();
    let absolute = dir.path().join("s.safetensors").display().to_string();
    let index = inner.join("m.safetensors.index.json");
    let read = |shard: &str| {
        let text = serde_json::json!({"weight_map": {"x": shard}}).to_string();
        std::fs::write(&index, text).unwrap();
        SafeTensorsFile::open_index(&index)
    };
    assert!(read("s.safetensors").is_ok());
    for shard in
        ["../s.safetensors", &absolute, "./s.safetensors", "a/../s.safetensors", "..", ".", "", "a\\b"]
    {
        assert!(matches!(read(shard), Err(Error::Parse { .. })), "{shard}");
    }
    assert!(matches!(read("none.safetensors"), Err(Error::Io { .. })));
    for text in ["{}", "{\"weight_map\": []}", "{\"weight_map\": {\"x\": 1}}", "[]"] {
        std::fs::write(&index, text).unwrap();
        assert!(matches!(SafeTensorsFile::open_index(&index), Err(Error::Parse { .. })), "{text}");
    }
    std::fs::write(&index, r#"{"weight_map": {"y": "s.safetensors"}}"#).unwrap();
    assert!(SafeTensorsFile::open_index(&index).is_err());
}

#[test]
fn what_is_written_reads_back_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let tensors: Vec<(String, AnyTensor)> = DTYPES
        .iter()
        .filter(|&&dtype| dtype != DType::C128)
        .flat_map(|&dtype| {
            [vec![], vec![0, 3], vec![3, 7]]
                .map(|shape| (format!("{dtype} {shape:?}"), golden_tensor(dtype, &shape)))
        })
        .collect();
    let metadata =
        BTreeMap::from([("b".to_owned(), "1".to_owned()), ("a \"quoted\"".to_owned(), "ü".to_owned())]);
    safetensors::write(&path, &tensors, &metadata).unwrap();
    let bytes = kc_io::map::map(&path).unwrap();
    let file = SafeTensorsFile::from_bytes(bytes.clone(), "x").unwrap();
    assert_eq!(file.metadata(), &metadata);
    assert_eq!(file.names().len(), tensors.len());
    for (name, want) in &tensors {
        let got = file.get(name).unwrap();
        assert_same(&got, want);
        assert!(got.is_empty() || lies_in(&got, &bytes), "{name}");
    }
    let first = std::fs::read(&path).unwrap();
    safetensors::write(&path, &tensors, &metadata).unwrap();
    assert!(std::fs::read(&path).unwrap() == first, "equal input gives equal bytes");
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let none = BTreeMap::new();
    let x = golden_tensor(DType::F32, &[2]);
    let write = |tensors: &[(&str, AnyTensor)]| safetensors::write(&path, tensors, &none);
    assert!(matches!(write(&[("x", golden_tensor(DType::C128, &[2]))]), Err(Error::Unsupported { .. })));
    assert!(matches!(write(&[("x", x.clone()), ("x", x.clone())]), Err(Error::Argument { .. })));
    assert!(matches!(write(&[("__metadata__", x)]), Err(Error::Argument { .. })));
    assert!(!path.exists());
}

#[test]
fn headers_that_lie_are_refused() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let good = entry("F32", "[2]", 0, 8);
    assert!(open(file(&format!("{{\"x\":{good}}}"), 8)).is_ok());
    let cases = [
        // Overlapping, with a gap, beyond the end, backwards.
        (format!("{{\"x\":{good},\"y\":{}}}", entry("F32", "[2]", 4, 12)), 12),
        (format!("{{\"x\":{good},\"y\":{good}}}"), 8),
        (format!("{{\"x\":{}}}", entry("F32", "[2]", 8, 16)), 16),
        (format!("{{\"x\":{good}}}"), 7),
        (format!("{{\"x\":{good}}}"), 9),
        (format!("{{\"x\":{}}}", entry("F32", "[2]", 8, 0)), 8),
        // Sizes that disagree or overflow.
        (format!("{{\"x\":{}}}", entry("F32", "[3]", 0, 8)), 8),
        (format!("{{\"x\":{}}}", entry("F32", "[4611686018427387904, 4]", 0, 0)), 0),
        (format!("{{\"x\":{}}}", entry("F32", "[-1]", 0, 8)), 8),
        (format!("{{\"x\":{}}}", entry("F32", "[18446744073709551615]", 0, 18_446_744_073_709_551_612)), 8),
        (format!("{{\"x\":{}}}", entry("F99", "[2]", 0, 8)), 8),
        // No JSON, not the right JSON, too deep.
        ("{".to_owned(), 0),
        ("[]".to_owned(), 0),
        ("{\"x\":1}".to_owned(), 0),
        ("[".repeat(10_000), 0),
        ("{\"__metadata__\":{\"a\":1}}".to_owned(), 0),
    ];
    for (header, data) in cases {
        let error = open(file(&header, data)).unwrap_err();
        assert!(matches!(error, Error::Parse { .. }), "{header}: {error}");
    }
    let mut long = file("{}", 0);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(long).is_err());
    assert!(open(Vec::new()).is_err());
}

#[test]
fn unaligned_data_are_copied() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
    let file = open(file(header, 5)).unwrap();
    assert!(file.get("b").unwrap().view::<f32, 1>("b").is_ok());
}
