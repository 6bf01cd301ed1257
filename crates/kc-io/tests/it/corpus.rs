//! The seeds of the fuzz targets, and what fuzzing has found, as a plain test.

use std::path::Path;

use crate::hostile::read_all;

#[test]
fn every_seed_is_an_error_or_a_file() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut seen = 0;
    for target in ["npy", "npz", "safetensors", "mtx", "fasta", "csv"] {
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let file = std::fs::read(&path).unwrap();
            // Names keep the reason: a seed called `bad_...` must be refused.
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let read = read_all(&format!("x.{target}"), &file);
            assert!(!(read && name.starts_with("bad_")), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} seeds");
}
