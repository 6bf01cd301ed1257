//! What makes nets nets, and scrambling random.

use kc_qmc::net2::{GeneratingMatrices, Interval, NetTable};
use kc_qmc::{DigitalNetConfig, Order, Randomize, Sequence};

use super::{RANDOMIZE, config, digits, net};

/// Whether every box of `2^a x 2^(m-a)` cells holds one of the 2^m points.
fn fills_all_boxes(points: &[u64], bits: u32) -> bool {
    let log = (points.len() / 2).ilog2();
    let leading = |x: u64, digits: u32| x.checked_shr(bits - digits).unwrap_or(0);
    (0..=log).all(|a| {
        let mut seen = vec![false; 1 << log];
        for point in points.chunks(2) {
            seen[(leading(point[0], a) << (log - a) | leading(point[1], log - a)) as usize] = true;
        }
        seen.into_iter().all(|seen| seen)
    })
}

#[test]
fn scrambled_nets_fill_every_elementary_interval() {
    for randomize in RANDOMIZE {
        for order in [Order::Natural, Order::Gray] {
            let mut net = net(&config(2, 21, |c| {
                (c.randomize, c.order) = (randomize, order);
                c.replications = if randomize == Randomize::None { 1 } else { 4 };
            }));
            for rows in [0..16, 0..256, 256..512, 0..1 << 13] {
                let bits = net.bits();
                let count = 2 * (rows.end - rows.start) as usize;
                let sets = digits(&mut net, rows);
                for (set, points) in sets.chunks(count).enumerate() {
                    assert!(fills_all_boxes(points, bits), "{randomize:?} {order:?} {set}");
                }
                let mut sets: Vec<_> = sets.chunks(count).collect();
                sets.sort_unstable();
                sets.dedup();
                assert_eq!(sets.len(), net.replications());
            }
        }
    }
}

#[test]
fn scrambling_randomises_all_bits() {
    for randomize in &RANDOMIZE[1..] {
        let mut net = net(&config(3, 5, |c| (c.randomize, c.replications) = (*randomize, 2)));
        for chunk in digits(&mut net, 0..1 << 14).chunks(3 << 14) {
            for j in 0..3 {
                let all = || chunk.iter().skip(j).step_by(3);
                let (any, every) = (all().fold(0, |s, x| s | x), all().fold(u64::MAX, |s, x| s & x));
                match randomize {
                    // A shift alone fixes the bits that the points do not have: here all but 14.
                    Randomize::Ds => assert_eq!(any ^ every, 0x3FFF << 49),
                    _ => assert_eq!((any, every), (u64::MAX >> 1, 0), "{randomize:?}"),
                }
            }
        }
    }
}

#[test]
fn points_are_uniform_over_the_randomisations() {
    // The third point's mean over replications: 1/2 within 5 standard deviations.
    for randomize in RANDOMIZE.iter().filter(|r| !matches!(r, Randomize::None | Randomize::Lms)) {
        let count = 4000;
        let mut net = net(&config(2, 1, |c| (c.randomize, c.replications) = (*randomize, count)));
        let points = net.points(0..4).unwrap();
        let mean = |j: usize| points.as_slice().iter().skip(2 * 2 + j).step_by(8).sum::<f64>() / count as f64;
        for j in 0..2 {
            let bound = 5.0 * (1.0 / 12.0 / count as f64).sqrt();
            assert!((mean(j) - 0.5).abs() < bound, "{randomize:?} {}", mean(j));
        }
    }
}

#[test]
fn neither_end_occurs_in_the_open_interval() {
    let table = GeneratingMatrices::new([1, 1, 1], vec![u64::MAX], Default::default()).unwrap();
    let mut config = config(1, 0, |c| {
        (c.table, c.randomize, c.bits) = (NetTable::Matrices(table), Randomize::None, 64);
    });
    let points = |config: &DigitalNetConfig| {
        let mut single = [0.0; 2];
        net(config).fill_f32(0..2, &mut single).unwrap();
        (net(config).points(0..2).unwrap().into_vec(), single)
    };
    assert_eq!(points(&config), (vec![0.0, 1.0], [0.0, 1.0 - 0.5f32.powi(24)]));
    config.interval = Interval::Open;
    let (double, single) = points(&config);
    assert_eq!(double, [0.5f64.powi(54), 1.0 - 0.5f64.powi(53)]);
    assert_eq!(single, [0.5f32.powi(25), 1.0 - 0.5f32.powi(24)]);
}

#[test]
fn joe_and_kuos_table_is_all_there() {
    let dims: Vec<usize> = (0..21_201).collect();
    let table = NetTable::JoeKuo.matrices(&dims).unwrap();
    assert_eq!(table.shape(), [1, 21_201, 32]);
    for matrix in table.values().chunks(32) {
        // Upper triangular with a unit diagonal.
        for (k, column) in matrix.iter().enumerate() {
            assert_eq!(column.trailing_zeros(), 31 - k as u32);
            assert!(*column < 1 << 32);
        }
    }
    // All different, and the same in any company.
    let mut matrices: Vec<_> = table.values().chunks(32).collect();
    let some = NetTable::JoeKuo.matrices(&[21_200, 7, 0, 1023, 8]).unwrap();
    for (matrix, dim) in some.values().chunks(32).zip([21_200, 7, 0, 1023, 8]) {
        assert_eq!(matrix, matrices[dim]);
    }
    matrices.sort_unstable();
    matrices.dedup();
    assert_eq!(matrices.len(), 21_201);
}

#[test]
fn polynomial_lattices_are_expansions() {
    // 1 / (1 + z + z^3) = z^-3 + z^-5 + z^-6 + z^-7 + z^-10 + ...; the matrix is constant along antidiagonals.
    let table = GeneratingMatrices::polynomial_lattice(0b1011, &[1, 0b110], 5).unwrap();
    assert_eq!(table.shape(), [1, 2, 3]);
    assert_eq!(table.values()[..3], [0b00101, 0b01011, 0b10111]);
    // The points are a group: the sum of two is another.
    let config = config(2, 0, |c| {
        (c.table, c.randomize) = (NetTable::Matrices(table.clone()), Randomize::None);
    });
    let points = digits(&mut net(&config), 0..8);
    let mut rows: Vec<_> = points.chunks(2).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), 8);
    for a in points.chunks(2) {
        for b in points.chunks(2) {
            let sum = [a[0] ^ b[0], a[1] ^ b[1]];
            assert!(rows.binary_search(&&sum[..]).is_ok());
        }
    }
}

#[test]
fn random_nets_are_nets_in_each_coordinate() {
    let table = GeneratingMatrices::random(5, 10, 12, &4u64.into()).unwrap();
    let other = GeneratingMatrices::random(5, 10, 12, &5u64.into()).unwrap();
    assert_ne!(table, other);
    let config = config(5, 0, |c| c.table = NetTable::Matrices(table));
    let mut net = net(&config);
    let (bits, points) = (net.bits(), digits(&mut net, 0..1024));
    for j in 0..5 {
        let mut cells: Vec<u64> = points.iter().skip(j).step_by(5).map(|x| x >> (bits - 10)).collect();
        cells.sort_unstable();
        assert_eq!(cells, (0..1024).collect::<Vec<_>>());
    }
}
