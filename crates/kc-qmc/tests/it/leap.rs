//! Some rows of a sequence.

use kc_core::Error;
use kc_qmc::leap::Leaped;
use kc_qmc::{DigitalNet, DigitalNetConfig, Family, Halton, HaltonConfig, Sequence};

#[test]
fn rows_are_those_of_the_whole() {
    let mut config = HaltonConfig::new(3, 7u64);
    config.replications = 2;
    let mut whole = Halton::new(config.clone()).unwrap();
    let whole = whole.points(0..4000).unwrap();
    for (skip, step, rows) in [(0, 1, 0..100), (1, 1, 5..50), (3, 409, 0..9), (7, 5, 100..700), (2, 3, 4..4)]
    {
        let mut leaped = Leaped::new(Halton::new(config.clone()).unwrap(), skip, step).unwrap();
        let found = leaped.points(rows.clone()).unwrap();
        for l in 0..2 {
            for (at, i) in rows.clone().enumerate() {
                for j in 0..3 {
                    let row = (skip + i * step) as usize;
                    assert_eq!(found[[l, at, j]], whole[[l, row, j]], "skip {skip} step {step} row {i}");
                }
            }
        }
    }
}

#[test]
fn a_leaped_net_is_no_net() {
    let net = DigitalNet::new(DigitalNetConfig::new(2, 7u64)).unwrap();
    let mut leaped = Leaped::new(net, 3, 7).unwrap();
    assert_eq!(leaped.family(), Family::Subsequence);
    assert_eq!(leaped.limit(), ((1u128 << 32) - 3).div_ceil(7));
    // Any rows: the balance is gone anyway.
    assert_eq!(leaped.points(5..8).unwrap().shape(), [1, 3, 2]);
    let children = leaped.spawn(&[1, 4]).unwrap();
    assert_eq!(children.iter().map(|child| child.dim()).collect::<Vec<_>>(), [1, 4]);
    assert!(children.iter().all(|child| child.family() == Family::Subsequence));
}

#[test]
fn bad_steps_are_refused() {
    let net = || DigitalNet::new(DigitalNetConfig::new(1, 7u64)).unwrap();
    assert!(matches!(Leaped::new(net(), 0, 0), Err(Error::Argument { arg, .. }) if arg == "step"));
    assert!(matches!(Leaped::new(net(), 1 << 32, 1), Err(Error::Argument { arg, .. }) if arg == "skip"));
    let mut last = Leaped::new(net(), (1 << 32) - 1, u64::MAX).unwrap();
    assert_eq!(last.points(0..1).unwrap().len(), 1);
    assert!(matches!(last.points(0..2), Err(Error::TooLarge { .. })));
}
