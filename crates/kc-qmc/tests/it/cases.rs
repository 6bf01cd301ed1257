//! The golden sequences, and properties that every sequence has.

use kc_core::Tensor;
use kc_qmc::{Randomize, Sequence, sequence::NusEngine};
use kc_testing::{golden_json, golden_tensor};
use serde_json::Value;

/// A golden sequence.
pub(crate) struct Case {
    json: Value,
}

impl Case {
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.json[key].as_u64().unwrap_or_else(|| panic!("no {key} in {}", self.json))
    }

    pub(crate) fn optional(&self, key: &str) -> Option<u64> {
        self.json[key].as_u64()
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or("")
    }

    pub(crate) fn dims(&self) -> usize {
        self.number("d") as usize
    }

    pub(crate) fn replications(&self) -> usize {
        self.number("replications") as usize
    }

    pub(crate) fn randomize(&self) -> Randomize {
        match self.text("randomize") {
            "FALSE" => Randomize::None,
            "SHIFT" => Randomize::Shift,
            "LMS" => Randomize::Lms,
            "DS" => Randomize::Ds,
            "LMS DS" => Randomize::LmsDs,
            "DP" => Randomize::Dp,
            "LMS DP" => Randomize::LmsDp,
            "NUS" => Randomize::Nus(NusEngine::Trie),
            "QRNG" => Randomize::Qrng,
            other => panic!("{other}"),
        }
    }

    /// That the sequence gives the fixture, bit for bit.
    pub(crate) fn check(&self, sequence: &mut dyn Sequence) {
        let want: Tensor<f64, 3> = golden_tensor(&format!("qmcpy/{}", self.text("file")));
        let got = sequence.points(self.number("n_min")..self.number("n")).unwrap();
        assert_eq!(got.shape(), want.shape(), "{}", self.json);
        for (at, (got, want)) in got.as_slice().iter().zip(want.as_slice()).enumerate() {
            assert_eq!(got.to_bits(), want.to_bits(), "{}: value {at}: {got} {want}", self.json);
        }
    }
}

/// The golden sequences of a generator.
pub(crate) fn cases(generator: &str) -> Vec<Case> {
    let all = golden_json("qmcpy/seq_cases.json");
    let ours = all.as_array().unwrap().iter().filter(|case| case["gen"] == generator);
    let cases: Vec<Case> = ours.map(|json| Case { json: json.clone() }).collect();
    assert!(!cases.is_empty(), "no case of {generator}");
    cases
}

/// The bits of all values.
pub(crate) fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// That a fresh sequence gives the tail `at..end` of its full run, and both in pieces and from other pools.
pub(crate) fn check_tail(make: impl Fn() -> Box<dyn Sequence> + Sync, at: u64, end: u64) {
    let full = make().points(0..end).unwrap();
    let [replications, n, dim] = full.shape();
    let rows = |from: u64, to: u64| -> Vec<u64> {
        let part = |l: usize| &full.as_slice()[(l * n + from as usize) * dim..(l * n + to as usize) * dim];
        (0..replications).flat_map(|l| bits(part(l))).collect()
    };
    let tail = make().points(at..end).unwrap();
    assert!(bits(tail.as_slice()) == rows(at, end), "the tail");
    let mut pieces = make();
    let (first, second) = (pieces.points(0..at).unwrap(), pieces.points(at..end).unwrap());
    assert!(bits(first.as_slice()) == rows(0, at), "the first piece");
    assert!(bits(second.as_slice()) == rows(at, end), "the second piece");
    let again = pieces.points(0..end).unwrap();
    assert!(bits(again.as_slice()) == rows(0, end), "again from the start");
    let pooled = kc_testing::same_on_any_pool(|| bits(make().points(0..end).unwrap().as_slice()));
    assert!(pooled == rows(0, end), "threads");
}
