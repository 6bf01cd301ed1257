//! Any bytes as a FASTA file.
#![no_main]

use kc_io::fasta::{self, Alphabet};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    for alphabet in [Alphabet::Protein, Alphabet::Nucleotide] {
        if let Ok(sequences) = fasta::parse(file, "fuzz", alphabet) {
            let letters = |record: &fasta::Record| record.sequence.iter().all(|&b| alphabet.contains(b));
            assert!(sequences.records.iter().all(letters));
            let _ = sequences.aligned_len();
        }
    }
});
