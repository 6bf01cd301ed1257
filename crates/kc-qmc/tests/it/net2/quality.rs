//! Figures of merit.

use kc_core::Error;
use kc_qmc::net2::{GeneratingMatrices, NetTable, t_value, walsh_figure_of_merit};
use kc_qmc::{Randomize, Seed};

use super::{config, digits, error, net};

/// The least t such that every elementary interval of volume 2^(t-m) holds 2^t points, by counting.
fn counted(points: &[u64], dim: usize, bits: u32, m: u32) -> u32 {
    fn even(points: &[u64], dim: usize, bits: u32, m: u32, digits: &mut Vec<u32>, left: u32) -> bool {
        if digits.len() + 1 < dim {
            return (0..=left).all(|k| {
                digits.push(k);
                let even = even(points, dim, bits, m, digits, left - k);
                digits.pop();
                even
            });
        }
        let cut: Vec<u32> = digits.iter().copied().chain([left]).collect();
        let volume: u32 = cut.iter().sum();
        let mut cells = vec![0u32; 1 << volume];
        for point in points.chunks(dim) {
            let cell = point.iter().zip(&cut).fold(0u64, |cell, (&x, &k)| {
                let leading = if k > bits { x << (k - bits) } else { x.checked_shr(bits - k).unwrap_or(0) };
                cell << k | leading
            });
            cells[cell as usize] += 1;
        }
        cells.into_iter().all(|n| n == 1 << (m - volume))
    }
    (0..=m).find(|t| even(points, dim, bits, m, &mut Vec::new(), m - t)).unwrap()
}

#[test]
fn t_is_what_counting_gives() {
    let seed = Seed::from(8u64);
    let tables = [
        NetTable::JoeKuo.matrices(&[0, 1, 2, 3]).unwrap(),
        NetTable::JoeKuo.matrices(&[5, 9]).unwrap(),
        NetTable::NiederreiterXing { alpha: 2 }.matrices(&[0, 1, 2]).unwrap(),
        GeneratingMatrices::random(3, 9, 12, &seed).unwrap(),
        GeneratingMatrices::random(1, 9, 5, &seed).unwrap(),
        GeneratingMatrices::polynomial_lattice(0b1_0000_0010_0001_1011, &[1, 12345, 777], 16).unwrap(),
    ];
    for table in tables {
        let (dim, bits) = (table.shape()[1], table.bits());
        let mut net = net(&config(dim, 0, |c| {
            (c.table, c.randomize) = (NetTable::Matrices(table.clone()), Randomize::None);
        }));
        for m in 1..=8 {
            let points = digits(&mut net, 0..1 << m);
            assert_eq!(
                t_value(&table, m).unwrap(),
                counted(&points, dim, bits, m),
                "{dim} dimensions, 2^{m} points"
            );
        }
    }
    let table = NetTable::JoeKuo.matrices(&(0..40).collect::<Vec<_>>()).unwrap();
    assert!(matches!(error(t_value(&table, 0)), Error::Argument { .. }));
    assert!(matches!(error(t_value(&table, 33)), Error::Argument { .. }));
}

#[test]
fn the_walsh_figure_of_merit_is_the_sum() {
    // One coordinate, two digits, the points 0 and 3/4: (1 + 1/2)(1 + 1/4) and (1 - 1/2)(1 - 1/4).
    let merit = walsh_figure_of_merit(&[0b00, 0b11], 1, 2).unwrap();
    assert_eq!(merit, (1.5 * 1.25 + 0.5 * 0.75) / 2.0 - 1.0);
    // All points: every Walsh function but the first has mean 0.
    assert_eq!(walsh_figure_of_merit(&[0, 1, 2, 3], 1, 2).unwrap(), 0.0);
    // More points are better, and a net is better than as many random points.
    let merit = |m: u32| {
        let mut net = net(&config(4, 0, |c| c.randomize = Randomize::None));
        walsh_figure_of_merit(&digits(&mut net, 0..1 << m), 4, 32).unwrap()
    };
    assert!(merit(12) > 0.0 && merit(12) < merit(8) / 8.0);
    let mut rng = Seed::from(1u64).rng();
    let random: Vec<u64> = (0..4 << 12).map(|_| rng.bits(32)).collect();
    let random = walsh_figure_of_merit(&random, 4, 32).unwrap();
    assert!(random.abs() > 5.0 * merit(12), "{random} {}", merit(12));

    assert!(matches!(error(walsh_figure_of_merit(&[], 1, 2)), Error::Shape { .. }));
    assert!(matches!(error(walsh_figure_of_merit(&[1], 0, 2)), Error::Shape { .. }));
    assert!(matches!(error(walsh_figure_of_merit(&[1, 2, 3], 2, 2)), Error::Shape { .. }));
    assert!(matches!(error(walsh_figure_of_merit(&[1], 1, 65)), Error::Argument { .. }));
}
