//! Any bytes as a `.npz` archive, every entry of it, with a limit on what they may inflate to.
#![no_main]

use kc_core::Bytes;
use kc_io::npz::{NpzFile, ReadLimits};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let mut limits = ReadLimits::default();
    limits.max_bytes = 1 << 24;
    if let Ok(file) = NpzFile::from_bytes(Bytes::from_owner(file.to_vec()), "fuzz", limits) {
        for name in file.names() {
            let _ = file.get(name);
            let _ = file.text(name);
        }
    }
});
