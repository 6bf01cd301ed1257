//! The cost model against the counters of an independent implementation.

use kc_core::Error;
use kc_sparse::Csr;
use kc_sparse::smash::generate::{GRAPH500, rmat};
use kc_sparse::smash::model::{BlockConfig, Version, simulate};
use kc_testing::golden_json;

use crate::support::npz;

#[test]
fn counters_match_the_fixtures_exactly() {
    let expected = golden_json("smash/expected.json");
    let cases = expected["model"].as_array().expect("a list");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let a = npz(case["matrix"].as_str().expect("a name"));
        let mut config = BlockConfig::default();
        if let Some(bytes) = case["config"]["spad_bytes"].as_u64() {
            config.spad_bytes = bytes;
        }
        if let Some(products) = case["config"]["token_products"].as_u64() {
            config.token_products = products;
        }
        let want = &case["result"];
        let version = Version::ALL[want["version"].as_u64().expect("a version") as usize - 1];
        let got = simulate(a.view(), a.view(), version, &config).expect("fits");
        let integers = [
            ("slots", got.slots),
            ("windows", got.windows),
            ("cycles", got.cycles),
            ("cycles_distribution", got.cycles_distribution),
            ("cycles_clear", got.cycles_clear),
            ("cycles_hash", got.cycles_hash),
            ("cycles_writeback", got.cycles_writeback),
            ("products", got.products),
            ("probes", got.probes),
            ("tokens", got.tokens),
            ("nnz_c", got.nnz_c),
            ("dram_bytes", got.dram_bytes),
            ("words", got.words),
            ("lines", got.lines),
            ("instr", got.instr),
        ];
        for (key, value) in integers {
            assert_eq!(Some(value), want[key].as_u64(), "{key} of V{} on {}", got.version, case["matrix"]);
        }
        let ratios = [
            ("milliseconds", got.milliseconds),
            ("dram_utilisation", got.dram_utilisation),
            ("l1_hit_rate", got.l1_hit_rate),
            ("ipc", got.ipc),
            ("imbalance", got.imbalance),
            ("mean_probes", got.mean_probes),
        ];
        for (key, value) in ratios {
            let want = want[key].as_f64().expect("a number");
            assert!((value - want).abs() <= 1e-15 * want.abs(), "{key}: {value} {want}");
        }
    }
}

#[test]
fn memory_is_never_used_beyond_its_rate() {
    let a = rmat(9, 8, GRAPH500, 3).expect("small");
    for version in Version::ALL {
        for spad_bytes in [1 << 16, 1 << 18, 1 << 22] {
            let config = BlockConfig { spad_bytes, ..BlockConfig::default() };
            match simulate(a.view(), a.view(), version, &config) {
                Ok(report) => assert!(report.dram_utilisation <= 1.0, "{report:?}"),
                Err(error) => assert!(matches!(error, Error::TooLarge { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn a_row_larger_than_the_scratchpad_is_refused() {
    let a: Csr<f64> = Csr::new(1, 64, vec![0, 64], (0..64).collect(), vec![1.0; 64]).expect("valid");
    let b: Csr<f64> = Csr::from_diagonal(&[1.0; 64]).expect("valid");
    let config = BlockConfig { spad_bytes: 1024, ..BlockConfig::default() };
    let error = simulate(a.view(), b.view(), Version::V1, &config).expect_err("64 slots hold 32 entries");
    assert!(matches!(error, Error::TooLarge { need: 64, limit: 32, unit: "slots", .. }), "{error}");
    let zero = BlockConfig { cores: 0, ..BlockConfig::default() };
    assert!(matches!(simulate(a.view(), b.view(), Version::V1, &zero), Err(Error::Argument { .. })));
}

#[test]
fn empty_inputs_cost_nothing_but_the_scan() {
    let empty: Csr<f64> = Csr::empty(3, 3).expect("valid");
    for version in Version::ALL {
        let report = simulate(empty.view(), empty.view(), version, &BlockConfig::default()).expect("fits");
        assert_eq!((report.products, report.nnz_c, report.tokens), (0, 0, 0));
    }
}
