//! Every level against the definition.

use kc_core::AlignedBuf;
use kc_qmc::net2::{BitOrder, GeneratingMatrices, Interval, NetTable, reference};
use kc_qmc::{DigitalNet, Order, Randomize, Sequence};
use kc_testing::{each_isa, same_on_any_pool};
use proptest::prelude::*;

use super::{RANDOMIZE, config, digits, net};

/// `x 2^-t`, by the compiler's own conversion.
fn to_double(x: u64, bits: u32) -> f64 {
    x as f64 * 0.5f64.powi(bits as i32)
}

/// A number inside of the open interval.
fn to_open(x: u64, bits: u32) -> f64 {
    let kept = if bits > 53 { x >> (bits - 53) << (bits - 53) } else { x };
    (to_double(kept, bits) + 0.5f64.powi(54)).min(1.0 - 0.5f64.powi(53))
}

fn to_single(x: u64, bits: u32, interval: Interval) -> f32 {
    let kept = if bits > 24 { x >> (bits - 24) << (bits - 24) } else { x };
    let inside = if interval == Interval::Open { 0.5f32.powi(25) } else { 0.0 };
    (to_double(kept, bits) as f32 + inside).min(1.0 - 0.5f32.powi(24))
}

fn check(net: &mut DigitalNet, rows: std::ops::Range<u64>, want: &[u64]) {
    let (bits, interval) = (net.bits(), net.config().interval);
    assert_eq!(digits(net, rows.clone()), want);
    // One value off the allocation's alignment, too.
    for skip in [0, 1, 2] {
        let mut out = AlignedBuf::<f64>::zeroed(want.len() + skip).unwrap();
        net.fill(rows.clone(), &mut out[skip..]).unwrap();
        for (x, &want) in out[skip..].iter().zip(want) {
            let want = if interval == Interval::Open { to_open(want, bits) } else { to_double(want, bits) };
            assert_eq!(x.to_bits(), want.to_bits());
        }
    }
    let mut out = vec![0.0; want.len()];
    net.fill_f32(rows, &mut out).unwrap();
    assert!(out.iter().zip(want).all(|(x, &want)| *x == to_single(want, bits, interval)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]
    #[test]
    fn every_level_is_the_definition(
        dims in prop::sample::select(vec![1usize, 2, 3, 4, 5, 7, 8, 9, 13, 31, 64, 65, 100, 257, 300]),
        randomize in 0..4usize,
        gray in any::<bool>(),
        open in any::<bool>(),
        alpha in 1usize..5,
        bits in prop::sample::select(vec![1u32, 7, 24, 31, 32, 33, 52, 53, 54, 63, 64]),
        replications in 1usize..3,
        start in 0u64..300,
        count in 0u64..200,
        seed in any::<u64>(),
    ) {
        let dims = if alpha > 1 { dims.min(20) } else { dims };
        let config = config(dims, seed, |c| {
            c.randomize = RANDOMIZE[randomize];
            c.replications = if c.randomize == Randomize::None { 1 } else { replications };
            c.order = if gray { Order::Gray } else { Order::Natural };
            c.interval = if open { Interval::Open } else { Interval::HalfOpen };
            (c.alpha, c.bits) = (alpha, bits);
        });
        let rows = if gray { start..start + count } else { 64..128 };
        let (bits, want) = reference::digits(&config, rows.clone()).unwrap();
        each_isa(|isa| {
            let mut net = DigitalNet::new_with(isa, config.clone()).unwrap();
            assert_eq!(net.bits(), bits);
            check(&mut net, rows.clone(), &want);
        });
    }
}

#[test]
fn large_outputs_are_the_small_ones() {
    // Beyond 8 MiB, where stores go past the caches; rows that are whole vectors together, and rows that are not
    // even so.
    for (dims, log) in [(1, 21u32), (13, 17), (101, 14), (2501, 9)] {
        for interval in [Interval::HalfOpen, Interval::Open] {
            each_isa(|isa| {
                let config = config(dims, 5, |c| c.interval = interval);
                let mut net = DigitalNet::new_with(isa, config).unwrap();
                let count = dims << log;
                assert!(8 * count >= 8 << 20);
                let mut small = vec![0.0; count];
                for at in 0..16u64 {
                    let piece = &mut small[at as usize * count / 16..(at as usize + 1) * count / 16];
                    net.fill_block((at << log) / 16..((at + 1) << log) / 16, piece).unwrap();
                }
                for skip in [0, 1, 2] {
                    let mut out = AlignedBuf::<f64>::zeroed(count + skip).unwrap();
                    net.fill(0..1 << log, &mut out[skip..]).unwrap();
                    assert!(out[skip..] == small[..], "{dims} dimensions, {skip} off");
                }
            });
        }
    }
}

#[test]
fn integers_round_to_nearest() {
    let mut values = vec![0, 1, 2, 3];
    for shift in 0..64 {
        let one = 1u64 << shift;
        values.extend([
            one - 1,
            one,
            one + 1,
            !one,
            one | 1 << 63,
            one.wrapping_mul(3),
            (1 << 63) | (one - 1),
        ]);
    }
    values.extend((0..64).map(|shift| u64::MAX >> shift));
    values.extend((0..64).map(|shift| u64::MAX << shift));
    // Halfway between neighbours of 53 bits, below even and odd ones, and just beside.
    for shift in 1..=11 {
        for last in [0, 1] {
            let tie = (1u64 << 52 | last) << shift | 1 << (shift - 1);
            values.extend([tie - 1, tie, tie + 1]);
        }
    }
    for bits in [64, 63] {
        let values: Vec<u64> = values.iter().map(|v| v >> (64 - bits)).collect();
        let table = GeneratingMatrices::with_bits([1, values.len(), 1], values.clone(), bits, BitOrder::Msb);
        let table = NetTable::Matrices(table.unwrap());
        for interval in [Interval::HalfOpen, Interval::Open] {
            let config = config(values.len(), 0, |c| {
                (c.table, c.randomize, c.bits, c.interval) = (table.clone(), Randomize::None, bits, interval);
            });
            let want: Vec<u64> = vec![0; values.len()].into_iter().chain(values.iter().copied()).collect();
            each_isa(|isa| check(&mut DigitalNet::new_with(isa, config.clone()).unwrap(), 0..2, &want));
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for randomize in RANDOMIZE {
        let config = config(5, 3, |c| {
            c.randomize = randomize;
            c.replications = if randomize == Randomize::None { 1 } else { 2 };
        });
        same_on_any_pool(|| {
            let mut net = net(&config);
            (net.points(0..1 << 15).unwrap().into_vec(), digits(&mut net, 0..1 << 15))
        });
    }
}
