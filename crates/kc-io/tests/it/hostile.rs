//! Files that are cut, changed or lie: always an answer or an error, and little memory.

use kc_core::Bytes;
use kc_io::fasta::Alphabet;
use kc_io::npz::{NpzFile, ReadLimits};
use kc_io::safetensors::SafeTensorsFile;
use kc_io::{csv, fasta, json, mtx, npy};
use kc_testing::alloc::measure;
use kc_testing::{golden, golden_dir};

/// Reads everything that a file of this name holds. True if all of it could be read.
pub(crate) fn read_all(name: &str, file: &[u8]) -> bool {
    let bytes = Bytes::from_owner(file.to_vec());
    match name.rsplit('.').next().unwrap_or_default() {
        "npy" => npy::read_bytes(bytes, name).is_ok(),
        "npz" => NpzFile::from_bytes(bytes, name, ReadLimits::default())
            .is_ok_and(|file| file.names().iter().all(|name| file.get(name).is_ok())),
        "safetensors" => SafeTensorsFile::from_bytes(bytes, name)
            .is_ok_and(|file| file.names().iter().all(|name| file.get(name).is_ok())),
        "mtx" => mtx::parse(file, name).is_ok_and(|m| m.triplets().row.len() < usize::MAX),
        "csv" => csv::parse(file, name).is_ok(),
        "fasta" => fasta::parse(file, name, Alphabet::Protein).is_ok(),
        "json" => json::parse(file, name).is_ok(),
        other => panic!("{other}"),
    }
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(golden_dir().join("io"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| ["npy", "npz", "safetensors", "mtx", "json"].iter().any(|x| e == *x))
        })
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .filter(|(_, file)| file.len() < 3000)
        .collect();
    all.push(("x.csv".to_owned(), b"a,b\n1,2.5\n3,\"4\"\n".to_vec()));
    all.push(("x.fasta".to_owned(), b">a b\nACD\nEF-\n>c\nACDEFG\n".to_vec()));
    assert!(all.len() > 80);
    all
}

#[test]
fn every_beginning_of_a_file_is_an_error_or_a_file() {
    for (name, file) in fixtures() {
        let binary = ["npy", "npz", "safetensors"].iter().any(|e| name.ends_with(e));
        for length in 0..file.len() {
            let read = read_all(&name, &file[..length]);
            assert!(!(read && binary), "{name} cut to {length} bytes was read");
        }
    }
}

#[test]
fn changed_bytes_neither_panic_nor_cost_memory() {
    for (name, file) in fixtures() {
        // An archive may really inflate to more than its length: 100000 zeros are in one fixture.
        let inflated = if name == "compressed.npz" { 3_200_000 } else { 0 };
        for step in 0..file.len().min(400) {
            let at = step * file.len() / file.len().min(400);
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= change;
                let length = file.len();
                let name = name.clone();
                if step % 8 == 0 {
                    let ((), memory) = measure(|| {
                        read_all(&name, &file);
                    });
                    let limit = 64 * length + inflated + (1 << 18);
                    assert!(memory.peak <= limit, "{name}, byte {at} ^ {change:#x}: {memory:?} of {length}");
                } else {
                    read_all(&name, &file);
                }
            }
        }
    }
}

#[test]
fn a_matrix_of_claims_costs_no_memory() {
    for text in [
        "%%MatrixMarket matrix coordinate real general\n4294967295 4294967295 18446744073709551615\n1 1 1\n",
        "%%MatrixMarket matrix array real general\n4294967296 4294967295\n1\n",
        "%%MatrixMarket matrix array real general\n18446744073709551615 18446744073709551615\n1\n",
        "%%MatrixMarket matrix array complex hermitian\n4000000000 4000000000\n1 0\n",
        "%%MatrixMarket matrix coordinate pattern general\n99999999999 1 1\n1 1\n",
        "%%MatrixMarket matrix coordinate real general\n3 3 99999999999999999999999999\n",
    ] {
        let (result, memory) = measure(|| mtx::parse(text.as_bytes(), "x.mtx"));
        assert!(result.is_err(), "{text}");
        assert!(memory.peak < 4096, "{text}: {memory:?}");
    }
}

#[test]
fn reading_a_mapped_file_allocates_next_to_nothing() {
    let (tensor, memory) = measure(|| npy::read(golden("io/le_f8.npy")).unwrap());
    assert_eq!(tensor.len(), 60);
    assert!(memory.peak < 1024, "{memory:?}");
}
