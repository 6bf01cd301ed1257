//! Digital nets in base 2.

mod golden;

use kc_qmc::{DigitalNet, DigitalNetConfig, Sequence};

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
