//! Any bytes as a Matrix Market file, its triplets and its dense form.
#![no_main]

use kc_io::mtx;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(matrix) = mtx::parse(file, "fuzz") {
        let _ = matrix.to_dense();
        let all = matrix.into_triplets();
        assert_eq!(all.row.len(), all.col.len());
        assert!(all.row.iter().all(|&i| (i as usize) < all.rows));
        assert!(all.col.iter().all(|&j| (j as usize) < all.cols));
        let _ = all.values_f64().map(|values| assert_eq!(values.len(), all.row.len()));
    }
});
