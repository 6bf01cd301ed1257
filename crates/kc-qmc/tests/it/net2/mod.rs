//! Digital nets in base 2.

mod golden;
mod input;
mod levels;
mod nested;
mod quality;
mod sequence;
mod slopes;
mod structure;

use kc_core::Result;
use kc_qmc::{DigitalNet, DigitalNetConfig, Dims, NusEngine, Randomize, Sequence};

/// Every way to randomise.
const RANDOMIZE: [Randomize; 7] = [
    Randomize::None,
    Randomize::Ds,
    Randomize::Lms,
    Randomize::LmsDs,
    Randomize::Nus(NusEngine::Trie),
    Randomize::Nus(NusEngine::Hash),
    Randomize::Nus(NusEngine::Auto),
];

/// A configuration with some settings changed.
fn config(dims: impl Into<Dims>, seed: u64, change: impl FnOnce(&mut DigitalNetConfig)) -> DigitalNetConfig {
    let mut config = DigitalNetConfig::new(dims, seed);
    change(&mut config);
    config
}

/// The net of a configuration that is right.
fn net(config: &DigitalNetConfig) -> DigitalNet {
    DigitalNet::new(config.clone()).unwrap()
}

/// The integers of some rows.
fn digits(net: &mut DigitalNet, rows: std::ops::Range<u64>) -> Vec<u64> {
    let mut out = vec![0; net.replications() * (rows.end - rows.start) as usize * net.dim()];
    assert_eq!(net.fill_digits(rows, &mut out).unwrap(), net.bits());
    out
}

/// The error of something that must fail.
fn error<T>(result: Result<T>) -> kc_core::Error {
    match result {
        Err(error) => error,
        Ok(_) => panic!("accepted"),
    }
}
