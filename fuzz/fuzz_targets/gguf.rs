//! Any bytes as a GGUF file, every tensor of it; what is read must be written to a file that reads back equal.
#![no_main]

use kc_core::Bytes;
use kc_quant::formats::gguf::{GgufFile, GgufType, write};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(file) = GgufFile::parse(Bytes::from_owner(file.to_vec())) {
        for tensor in file.tensors() {
            if let Ok(w) = tensor.dequantize() {
                assert_eq!(w.shape(), tensor.matrix());
            }
            if let Ok(codes) = tensor.to_uniform() {
                assert_eq!(codes.shape(), tensor.matrix());
            }
        }
        let known = file.tensors().iter().filter(|t| !matches!(t.kind(), GgufType::Other(_)));
        let known: Vec<_> = known.cloned().collect();
        let written = write(file.metadata(), &known).expect("what is read can be written");
        let back = GgufFile::parse(Bytes::from_owner(written)).expect("what is written can be read");
        assert_eq!(back.tensors().len(), known.len());
        assert!(back.tensors().iter().zip(&known).all(|(a, b)| a.data()[..] == b.data()[..]));
    }
});
