//! Pieces, far indices, spawned nets.

use kc_qmc::net2::{BitOrder, GeneratingMatrices, NetTable, NetWarning, reference};
use kc_qmc::{Dims, Family, NusEngine, Order, Randomize, Sequence};

use super::{RANDOMIZE, config, digits, net};

#[test]
fn any_piece_is_a_part_of_the_whole() {
    for randomize in RANDOMIZE {
        for (order, alpha) in [(Order::Natural, 1), (Order::Gray, 1), (Order::Gray, 2)] {
            let config = config(3, 11, |c| {
                (c.randomize, c.order, c.alpha) = (randomize, order, alpha);
                c.replications = if randomize == Randomize::None { 1 } else { 2 };
            });
            let whole = net(&config).points(0..1024).unwrap();
            let part = |rows: std::ops::Range<u64>, got: &[f64]| {
                let len = 3 * (rows.end - rows.start) as usize;
                for (set, got) in got.chunks(len).enumerate() {
                    let start = 3 * (1024 * set + rows.start as usize);
                    assert_eq!(
                        got,
                        &whole.as_slice()[start..start + len],
                        "{randomize:?} {order:?} {rows:?}"
                    );
                }
            };
            // Fresh, and one net asked in any order.
            let mut used = net(&config);
            for rows in [512..1024, 37..101, 0..1, 1000..1024, 256..512, 1023..1024] {
                let mut got = vec![0.0; config.replications * (rows.end - rows.start) as usize * 3];
                net(&config).fill_block(rows.clone(), &mut got).unwrap();
                part(rows.clone(), &got);
                used.fill_block(rows.clone(), &mut got).unwrap();
                part(rows, &got);
            }
            assert!(used.points(512..512).unwrap().as_slice().is_empty());
        }
    }
}

#[test]
fn the_choice_of_the_engine_does_not_tear_a_net() {
    let with = |engine| config(2, 4, |c| c.randomize = Randomize::Nus(engine));
    let auto = digits(&mut net(&with(NusEngine::Auto)), 0..1 << 14);
    // The first 2^12 points are the trie's; the others continue them, from wherever one begins.
    assert_eq!(auto[..2 << 12], digits(&mut net(&with(NusEngine::Trie)), 0..1 << 12));
    assert_eq!(auto[2 << 13..], digits(&mut net(&with(NusEngine::Auto)), 1 << 13..1 << 14));
    let mut steps = net(&with(NusEngine::Auto));
    for log in [4, 11, 12, 13] {
        assert_eq!(digits(&mut steps, 1 << log..2 << log), auto[2 << log..4 << log]);
    }
    assert_ne!(auto, digits(&mut net(&with(NusEngine::Trie)), 0..1 << 14));
}

#[test]
fn far_points_are_the_definition() {
    let sobol = config(3, 0, |c| (c.randomize, c.order) = (Randomize::None, Order::Gray));
    let columns = NetTable::JoeKuo.matrices(&[0, 1, 2]).unwrap();
    let mut far = net(&sobol);
    assert_eq!(far.limit(), 1 << 32);
    for start in [(1u64 << 31) - 5, (1 << 32) - 9, (1 << 32) - 1] {
        let rows = start..(start + 9).min(1 << 32);
        for (i, row) in rows.clone().zip(digits(&mut far, rows).chunks(3)) {
            for (dim, &x) in row.iter().enumerate() {
                assert_eq!(x, reference::point(&columns.values()[32 * dim..32 * (dim + 1)], i, Order::Gray));
            }
        }
    }
    let last = far.points((1 << 32) - 1..1 << 32).unwrap();
    assert!(last.as_slice().iter().all(|x| (0.0..1.0).contains(x)));

    let seed = 9u64.into();
    let table = GeneratingMatrices::random(2, 64, 64, &seed).unwrap();
    for order in [Order::Natural, Order::Gray] {
        let config = config(2, 1, |c| {
            (c.table, c.randomize, c.bits, c.order) =
                (NetTable::Matrices(table.clone()), Randomize::None, 64, order);
        });
        let mut net = net(&config);
        assert_eq!(net.limit(), 1 << 64);
        for start in [1u64 << 32, (1 << 40) - 1, (1 << 63) - 3, u64::MAX - 4] {
            let mut out = vec![0.0; 8];
            net.fill_block(start..start + 4, &mut out).unwrap();
            for (i, row) in (start..start + 4).zip(out.chunks(2)) {
                for (columns, &x) in table.values().chunks(64).zip(row) {
                    assert_eq!(x, reference::point(columns, i, order) as f64 * 0.5f64.powi(64));
                }
            }
        }
    }
    // Hashes need no history.
    let hash = config(2, 1, |c| (c.randomize, c.order) = (Randomize::Nus(NusEngine::Hash), Order::Gray));
    let mut hash = net(&hash);
    let mut raw = net(&config(2, 1, |c| (c.randomize, c.order) = (Randomize::None, Order::Gray)));
    let seeds = kc_qmc::Seed::from(1u64).spawn(2);
    let rows = (1 << 31) - 2..(1 << 31) + 2;
    let want = digits(&mut raw, rows.clone());
    for (i, (x, want)) in digits(&mut hash, rows).into_iter().zip(want).enumerate() {
        assert_eq!(x, reference::nested_hash(&seeds[i % 2], 32, 63, want << 31));
    }
}

#[test]
fn users_matrices_are_the_built_in_ones() {
    let joe_kuo = NetTable::JoeKuo.matrices(&[0, 1, 2, 3, 4, 5]).unwrap();
    let reversed = joe_kuo.values().iter().map(|v| u64::from((*v as u32).reverse_bits())).collect();
    for (values, order) in [(joe_kuo.values().to_vec(), BitOrder::Msb), (reversed, BitOrder::Lsb)] {
        let table = GeneratingMatrices::new([1, 6, 32], values, order).unwrap();
        assert_eq!(table, joe_kuo);
        for randomize in RANDOMIZE {
            let built_in = config(3, 2, |c| (c.alpha, c.randomize) = (2, randomize));
            let mut users = built_in.clone();
            users.table = NetTable::Matrices(table.clone());
            assert_eq!(digits(&mut net(&built_in), 0..64), digits(&mut net(&users), 0..64));
        }
    }
}

#[test]
fn each_replication_can_have_its_own_matrices() {
    let seed = 3u64.into();
    let all = GeneratingMatrices::random(4, 8, 8, &seed).unwrap();
    let sets = GeneratingMatrices::with_bits([2, 2, 8], all.values().to_vec(), 8, BitOrder::Msb).unwrap();
    let with = |table, replications, dims: Dims, randomize| {
        config(dims, 6, |c| {
            (c.table, c.replications, c.randomize) = (NetTable::Matrices(table), replications, randomize)
        })
    };
    let both = digits(&mut net(&with(sets.clone(), 2, 2.into(), Randomize::None)), 0..256);
    for set in 0..2 {
        let dims = Dims::List(vec![2 * set, 2 * set + 1]);
        let one = digits(&mut net(&with(all.clone(), 1, dims, Randomize::None)), 0..256);
        assert_eq!(one, both[512 * set..512 * (set + 1)]);
    }
    for randomize in &RANDOMIZE[1..4] {
        let config = with(sets.clone(), 2, 2.into(), *randomize);
        let (bits, want) = reference::digits(&config, 0..256).unwrap();
        let mut net = net(&config);
        assert_eq!((net.bits(), digits(&mut net, 0..256)), (bits, want));
    }
}

#[test]
fn spawned_nets_are_new_and_the_same_again() {
    for randomize in RANDOMIZE {
        let config = config(2, 8, |c| (c.randomize, c.order) = (randomize, Order::Gray));
        let children = |net: &mut kc_qmc::DigitalNet| {
            let children = net.spawn(&[2, 3]).unwrap();
            assert_eq!(children.iter().map(|c| c.dim()).collect::<Vec<_>>(), [2, 3]);
            children
                .into_iter()
                .map(|mut c| (c.fingerprint(), c.points(0..9).unwrap().into_vec()))
                .collect::<Vec<_>>()
        };
        let mut parent = net(&config);
        let own = parent.points(0..9).unwrap().into_vec();
        let (first, second) = (children(&mut parent), children(&mut parent));
        assert_eq!(first, children(&mut net(&config)));
        assert_ne!(first[0].0, second[0].0);
        assert_eq!(randomize == Randomize::None, first[0].1 == own);
        assert_eq!(randomize == Randomize::None, first[0].1 == second[0].1);
        assert!(parent.spawn(&[0]).is_err() && parent.spawn(&[30_000]).is_err());
    }
}

#[test]
fn a_net_tells_what_it_is() {
    let mut one = net(&config(2, 8, |c| c.order = Order::Gray));
    assert_eq!(
        (one.family(), one.order(), one.randomize()),
        (Family::DigitalNet, Order::Gray, Randomize::LmsDs)
    );
    assert_eq!(one.warnings(), [NetWarning::GrayOrder]);
    assert_eq!(one.fingerprint(), net(&one.config().clone()).fingerprint());
    let others = [
        config(2, 9, |c| c.order = Order::Gray),
        config(2, 8, |_| ()),
        config(3, 8, |c| c.order = Order::Gray),
        config(2, 8, |c| (c.order, c.bits) = (Order::Gray, 62)),
        config(Dims::List(vec![1, 0]), 8, |c| c.order = Order::Gray),
    ];
    for other in others {
        assert_ne!(one.fingerprint(), net(&other).fingerprint());
    }
    let warnings = |change: fn(&mut kc_qmc::DigitalNetConfig)| net(&config(2, 0, change)).warnings().to_vec();
    assert_eq!(warnings(|c| c.randomize = Randomize::Lms), [NetWarning::OriginIsAPoint]);
    assert_eq!(warnings(|c| c.bits = 20), [NetWarning::Truncated { table: 32, bits: 20 }]);
    assert_eq!(warnings(|_| ()), []);
    let table = GeneratingMatrices::random(4, 8, 9, &0u64.into()).unwrap();
    let flat = config(2, 0, |c| (c.alpha, c.table) = (2, NetTable::Matrices(table)));
    assert_eq!(net(&flat).warnings(), [NetWarning::NotSquare { columns: 8, bits: 9 }]);
    assert!(one.warnings()[0].to_string().contains("powers of 2"));
    assert!(one.fill_digits(0..0, &mut []).is_ok());
}
