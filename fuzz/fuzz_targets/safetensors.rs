//! Any bytes as a `.safetensors` file, every tensor of it.
#![no_main]

use kc_core::Bytes;
use kc_io::safetensors::SafeTensorsFile;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(file) = SafeTensorsFile::from_bytes(Bytes::from_owner(file.to_vec()), "fuzz") {
        for name in file.names() {
            let raw = file.raw(name).expect("every name has its bytes");
            if let Ok(tensor) = file.get(name) {
                assert_eq!(tensor.bytes().len(), raw.data.len());
            }
        }
    }
});
