//! The simple sets: golden data, properties, bad input.

use kc_qmc::{Iid, IidConfig, Sequence};

use crate::cases::{cases, check_tail};

#[test]
fn independent_points_are_the_golden_ones() {
    for case in cases("iid") {
        let mut config = IidConfig::new(case.dims(), case.number("seed"));
        config.replications = case.replications();
        case.check(&mut Iid::new(config).unwrap());
    }
    check_tail(|| Box::new(Iid::new(IidConfig::new(3, 5u64)).unwrap()), 7, 31);
    let make = || {
        let mut config = IidConfig::new(2, 5u64);
        config.replications = 2;
        Iid::new(config).unwrap()
    };
    let (full, tail) = (make().points(0..9).unwrap(), make().points(4..9).unwrap());
    assert_eq!(tail.as_slice()[..10], full.as_slice()[8..18]);
    assert_eq!(tail.as_slice()[10..], full.as_slice()[26..]);
}
