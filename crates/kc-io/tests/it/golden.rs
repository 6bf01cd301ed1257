//! Every fixture of the workspace is read.

use std::path::{Path, PathBuf};

use kc_testing::{golden, golden_dir};

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("io") {
            // Has tests of its own, and files that must be refused.
        } else if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn all(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&golden_dir(), extension, &mut found);
    assert!(!found.is_empty());
    found
}

#[test]
fn every_npy_fixture_is_read() {
    for path in all("npy") {
        let tensor = kc_io::read(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(tensor.rank() <= 5, "{}", path.display());
    }
}

#[test]
fn every_npz_fixture_is_read() {
    for path in all("npz") {
        let file = kc_io::npz::NpzFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        for name in file.names() {
            file.get(name).map(drop).or_else(|_| file.text(name).map(drop)).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn a_product_of_sparse_matrices_is_read() {
    let file = kc_io::npz::NpzFile::open(golden("smash/west0067_AA.npz")).unwrap();
    let shape = file.get("shape").unwrap();
    let indptr = file.get("indptr").unwrap();
    assert_eq!(shape.to_tensor::<i64, 1>("shape").unwrap().as_slice(), [67, 67]);
    let indptr = indptr.to_tensor::<i64, 1>("indptr").unwrap();
    assert_eq!(indptr.as_slice().last(), Some(&1061));
    assert_eq!(file.get("data").unwrap().shape(), [1061]);
    let path = golden("smash/west0067_AA.npz");
    let named = kc_io::read(format!("{}:indptr", path.display())).unwrap();
    assert_eq!(named.bytes(), file.get("indptr").unwrap().bytes());
}
