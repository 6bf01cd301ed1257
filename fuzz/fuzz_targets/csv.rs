//! Any bytes as a CSV table.
#![no_main]

use kc_io::csv;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(table) = csv::parse(file, "fuzz") {
        let [_, columns] = table.data.shape();
        assert!(table.names.is_none_or(|names| names.len() == columns));
    }
});
