//! Any bytes as a `.npy` file: what is read must be written to a file that reads back equal.
#![no_main]

use kc_core::Bytes;
use kc_io::npy;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let _ = npy::read_text(file, "fuzz");
    if let Ok(tensor) = npy::read_bytes(Bytes::from_owner(file.to_vec()), "fuzz") {
        let written = npy::to_bytes(&tensor).expect("what is read can be written");
        let back = npy::read_bytes(Bytes::from_owner(written), "back").expect("what is written can be read");
        assert_eq!((back.dtype(), back.shape()), (tensor.dtype(), tensor.shape()));
        assert!(back.bytes() == tensor.bytes());
    }
});
