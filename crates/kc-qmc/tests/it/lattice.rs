//! Lattices: golden data, every level against the definition, bad input.

use kc_core::Error;
use kc_qmc::lattice::{UserVector, reference};
use kc_qmc::{Dims, Lattice, LatticeConfig, LatticeVector, Order, Randomize, Sequence};
use kc_testing::each_isa;

use crate::cases::{bits, cases, check_tail};

fn config(dims: usize, order: Order) -> LatticeConfig {
    let mut config = LatticeConfig::new(dims, 7u64);
    config.order = order;
    config
}

#[test]
fn the_points_are_the_golden_ones() {
    for case in cases("lattice") {
        let mut config = LatticeConfig::new(case.dims(), case.number("seed"));
        config.randomize = case.randomize();
        config.replications = case.replications();
        config.order = match case.text("order") {
            "natural" => Order::Natural,
            "gray" => Order::Gray,
            _ => Order::Linear,
        };
        if case.text("vector") == "random M=25" {
            config.vector = LatticeVector::Random(25);
        }
        case.check(&mut Lattice::new(config).unwrap());
    }
}

#[test]
fn every_level_follows_the_definition() {
    for order in [Order::Natural, Order::Gray, Order::Linear] {
        for dims in [1, 2, 3, 5, 8, 10, 31, 48, 95, 96, 97, 131] {
            let ranges = match order {
                Order::Natural => vec![0..0, 0..1, 1..1, 0..2, 4..64, 0..512, 256..512],
                Order::Gray => vec![0..0, 0..1, 3..3, 1..2, 5..70, 0..333, 131..257],
                Order::Linear => vec![0..0, 0..1, 0..64, 0..77],
            };
            let mut config = config(dims, order);
            config.replications = 2;
            let lattice = Lattice::new(config).unwrap();
            for rows in ranges {
                let want: Vec<f64> = (0..2)
                    .flat_map(|l| {
                        let shift = &lattice.shifts()[l * dims..][..dims];
                        rows.clone()
                            .flat_map(|i| reference::point(order, i, rows.end, lattice.vectors(), shift))
                            .collect::<Vec<_>>()
                    })
                    .collect();
                each_isa(|isa| {
                    let mut out = vec![f64::NAN; want.len()];
                    lattice.fill_with(isa, rows.clone(), &mut out).unwrap();
                    assert!(bits(&out) == bits(&want), "{order:?} {dims} {rows:?} {isa}");
                });
            }
        }
    }
}

#[test]
fn a_long_output_is_the_same_as_a_short_one() {
    // Long enough for stores that pass the caches, and of a width that puts rows anywhere in a line.
    let lattice = Lattice::new(config(7, Order::Natural)).unwrap();
    each_isa(|isa| {
        let mut long = vec![0.0; 7 << 18];
        lattice.fill_with(isa, 0..1 << 18, &mut long).unwrap();
        for start in [1u64, 1 << 10, 1 << 17] {
            let mut short = vec![0.0; 7 * start as usize];
            lattice.fill_with(isa, start..2 * start, &mut short).unwrap();
            assert!(short == long[7 * start as usize..][..short.len()], "{isa} {start}");
        }
    });
}

#[test]
fn a_tail_is_that_of_the_full_run() {
    let make = |order, vector: LatticeVector| {
        move || -> Box<dyn Sequence> {
            let mut config = config(11, order);
            config.replications = 3;
            config.vector = vector.clone();
            Box::new(Lattice::new(config).unwrap())
        }
    };
    check_tail(make(Order::Natural, LatticeVector::Kuo), 512, 2048);
    check_tail(make(Order::Natural, LatticeVector::Ckn), 16, 64);
    check_tail(make(Order::Natural, LatticeVector::Random(12)), 64, 4096);
    check_tail(make(Order::Gray, LatticeVector::Kuo), 13, 1111);
}

#[test]
fn listed_dimensions_are_those_of_the_table() {
    let mut all = LatticeConfig::new(10, 1u64);
    all.randomize = Randomize::None;
    let all = Lattice::new(all).unwrap().points(0..16).unwrap();
    let mut some = LatticeConfig::new(Dims::List(vec![9, 0, 4]), 1u64);
    some.randomize = Randomize::None;
    let some = Lattice::new(some).unwrap().points(0..16).unwrap();
    for (row, all) in some.as_slice().chunks(3).zip(all.as_slice().chunks(10)) {
        assert_eq!(row, [all[9], all[0], all[4]]);
    }
}

#[test]
fn every_projection_is_even_in_each_replication() {
    let mut config = config(4, Order::Natural);
    config.replications = 2;
    let points = Lattice::new(config).unwrap().points(0..256).unwrap();
    for set in points.as_slice().chunks(256 * 4) {
        for j in 0..4 {
            let mut cells = [0; 256];
            for row in set.chunks(4) {
                cells[(row[j] * 256.0) as usize] += 1;
            }
            assert!(cells.iter().all(|&count| count == 1));
        }
    }
    let (first, second) = points.as_slice().split_at(256 * 4);
    assert!(first.iter().zip(second).all(|(a, b)| a != b), "replications differ");
}

#[test]
fn user_vectors_and_given_shifts_are_used() {
    let mut config = LatticeConfig::new(2, 0u64);
    config.vector = LatticeVector::User(UserVector::per_replication(2, vec![1, 3, 1, 5], 3).unwrap());
    config.replications = 2;
    config.shifts = Some(vec![0.25, 0.5, 0.0, 0.75]);
    let mut lattice = Lattice::new(config).unwrap();
    assert_eq!(lattice.limit(), 8);
    let points = lattice.points(0..4).unwrap();
    let want = [0.25, 0.5, 0.75, 0.0, 0.5, 0.25, 0.0, 0.75, 0.0, 0.75, 0.5, 0.25, 0.25, 0.0, 0.75, 0.5];
    assert_eq!(points.as_slice(), want);
}

#[test]
fn children_are_those_of_the_seed() {
    let mut parent = Lattice::new(config(3, Order::Natural)).unwrap();
    let mut children = parent.spawn(&[2, 5]).unwrap();
    children.extend(parent.spawn(&[5]).unwrap());
    let seeds = kc_qmc::Seed::from(7u64).spawn(3);
    for ((child, seed), dims) in children.iter_mut().zip(seeds).zip([2, 5, 5]) {
        let mut want = Lattice::new(LatticeConfig::new(dims, seed)).unwrap();
        assert_eq!(child.points(0..8).unwrap().as_slice(), want.points(0..8).unwrap().as_slice());
        assert_eq!(child.fingerprint(), want.fingerprint());
    }
    assert_ne!(children[1].fingerprint(), children[2].fingerprint());
    assert!(parent.spawn(&[9126]).is_err());
}

#[test]
fn bad_input_is_refused() {
    let new = |change: &dyn Fn(&mut LatticeConfig)| {
        let mut config = LatticeConfig::new(3, 7u64);
        change(&mut config);
        Lattice::new(config).map(|_| ())
    };
    let argument = |result: kc_core::Result<()>, name: &str| match result {
        Err(Error::Argument { arg, .. }) => assert_eq!(arg, name),
        other => panic!("{name}: {other:?}"),
    };
    argument(new(&|c| c.dims = Dims::First(0)), "dims");
    argument(new(&|c| c.dims = Dims::First(9126)), "dims");
    argument(new(&|c| c.dims = Dims::List(vec![1, 2, 1])), "dims");
    assert!(matches!(new(&|c| c.dims = Dims::List(vec![9125])), Err(Error::Index { index: 9125, .. })));
    assert!(matches!(new(&|c| c.dims = Dims::List(vec![])), Err(Error::Empty { .. })));
    argument(new(&|c| c.replications = 0), "replications");
    assert!(matches!(new(&|c| c.replications = usize::MAX), Err(Error::TooLarge { .. })));
    argument(new(&|c| (c.replications, c.randomize) = (2, Randomize::None)), "replications");
    argument(new(&|c| c.randomize = Randomize::LmsDs), "randomize");
    argument(new(&|c| c.vector = LatticeVector::Random(1)), "vector");
    argument(new(&|c| c.vector = LatticeVector::Random(27)), "vector");
    argument(new(&|c| (c.vector, c.dims) = (LatticeVector::Random(9), Dims::List(vec![0, 2]))), "dims");
    let user = |sets| LatticeVector::User(UserVector::per_replication(sets, vec![1; 6], 4).unwrap());
    assert!(matches!(new(&|c| c.vector = user(2)), Err(Error::Shape { .. })));
    assert!(matches!(new(&|c| c.shifts = Some(vec![0.5])), Err(Error::Shape { .. })));
    argument(new(&|c| c.shifts = Some(vec![0.5, 1.0, 0.0])), "shifts");
    argument(new(&|c| c.shifts = Some(vec![0.5, f64::NAN, 0.0])), "shifts");
    argument(UserVector::new(vec![1, 1 << 51], 3).map(|_| ()), "vector");
    argument(UserVector::new(vec![1, 3], 53).map(|_| ()), "log2_limit");
    assert!(matches!(UserVector::new(vec![], 3), Err(Error::Empty { .. })));
    assert!(matches!(UserVector::per_replication(0, vec![1], 3), Err(Error::Shape { .. })));

    let mut lattice = Lattice::new(config(3, Order::Natural)).unwrap();
    argument(lattice.points(0..6).map(|_| ()), "rows");
    argument(lattice.points(3..4).map(|_| ()), "rows");
    #[allow(clippy::reversed_empty_ranges)]
    argument(lattice.points(8..4).map(|_| ()), "rows");
    assert!(matches!(lattice.points(0..1 << 21), Err(Error::TooLarge { limit: 1048576, .. })));
    assert!(matches!(lattice.fill(0..4, &mut [0.0; 11]), Err(Error::Shape { .. })));
    assert!(matches!(lattice.fill_digits(0..4, &mut [0; 12]), Err(Error::Unsupported { .. })));
    let mut linear = Lattice::new(config(3, Order::Linear)).unwrap();
    argument(linear.points(1..4).map(|_| ()), "rows");
}
