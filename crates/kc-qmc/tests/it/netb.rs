//! Nets in general bases: golden data, every level against the definition, properties, bad input.

use kc_core::Error;
use kc_qmc::netb::{BaseMatrices, NetMatrices, reference};
use kc_qmc::sequence::NusEngine;
use kc_qmc::{
    Dims, Faure, FaureConfig, GeneralNet, GeneralNetConfig, Halton, HaltonConfig, Randomize, Sequence,
};
use kc_testing::each_isa;

use crate::cases::{bits, cases, check_tail};

const RANDOMIZATIONS: [Randomize; 6] = [
    Randomize::Lms,
    Randomize::Dp,
    Randomize::Ds,
    Randomize::LmsDp,
    Randomize::LmsDs,
    Randomize::Nus(NusEngine::Auto),
];

#[test]
fn the_points_are_the_golden_ones() {
    for case in cases("halton") {
        let mut config = HaltonConfig::new(case.dims(), case.number("seed"));
        config.randomize = case.randomize();
        config.replications = case.replications();
        case.check(&mut Halton::new(config).unwrap());
    }
    for case in cases("faure") {
        let mut config = FaureConfig::new(case.dims(), case.number("seed"));
        config.randomize = case.randomize();
        config.replications = case.replications();
        config.alpha = case.optional("alpha").unwrap_or(1) as usize;
        case.check(&mut Faure::new(config).unwrap());
    }
}

fn halton(dims: impl Into<Dims>, randomize: Randomize, replications: usize) -> HaltonConfig {
    let mut config = HaltonConfig::new(dims, 11u64);
    (config.randomize, config.replications) = (randomize, replications);
    config
}

fn faure(dims: usize, randomize: Randomize, alpha: usize) -> FaureConfig {
    let mut config = FaureConfig::new(dims, 11u64);
    (config.randomize, config.alpha, config.replications) = (randomize, alpha, 2);
    if randomize == Randomize::None {
        config.replications = 1;
    }
    config
}

/// Nets of every kind of matrix, narrow and wide bases, with and without a low part of each digit.
fn nets() -> Vec<GeneralNetConfig> {
    let mut nets: Vec<GeneralNetConfig> = Vec::new();
    for randomize in RANDOMIZATIONS.into_iter().chain([Randomize::None, Randomize::Qrng]) {
        let replications = if matches!(randomize, Randomize::None | Randomize::Qrng) { 1 } else { 2 };
        nets.push(halton(9, randomize, replications).into());
        nets.push(halton(vec_dims([60, 0, 30, 55]), randomize, replications).into());
        if randomize == Randomize::Qrng {
            continue;
        }
        nets.push(halton(vec_dims([54, 1]), randomize, replications).into());
        nets.push(faure(1, randomize, 1).into());
        nets.push(faure(6, randomize, 1).into());
        nets.push(faure(3, randomize, 2).into());
        nets.push(faure(2, randomize, 3).into());
        let mut custom = GeneralNetConfig::new(4, 3u64, NetMatrices::Custom(custom(1, vec![2, 9, 256, 300])));
        (custom.randomize, custom.replications) = (randomize, replications);
        nets.push(custom.clone());
        custom.digits = Some(13);
        nets.push(custom);
    }
    nets
}

fn vec_dims<const N: usize>(dims: [usize; N]) -> Dims {
    Dims::List(dims.to_vec())
}

/// Arbitrary matrices of 5 columns and 7 digits.
fn custom(sets: usize, bases: Vec<u32>) -> BaseMatrices {
    let mut state = 1u32;
    let values = bases.iter().flat_map(|&base| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % base
        };
        (0..35).map(|_| next()).collect::<Vec<_>>()
    });
    let values = values.collect();
    BaseMatrices::per_replication(sets, bases, 5, values).unwrap()
}

#[test]
fn every_level_follows_the_definition() {
    for config in nets() {
        let name = format!("{:?} {:?} {:?}", config.matrices, config.randomize, config.dims);
        let mut net = GeneralNet::new(config).unwrap();
        let most = net.limit().min(2500) as u64;
        for rows in [0..0, 0..1, 0..25, 3..4, 1..300, 1020..1031, most.saturating_sub(300)..most] {
            if u128::from(rows.end) > net.limit() {
                continue;
            }
            let len = net.replications() * (rows.end - rows.start) as usize * net.dim();
            let mut want = vec![0.0; len];
            net.fill(rows.clone(), &mut want).unwrap();
            let definition = (0..net.replications())
                .flat_map(|l| rows.clone().map(move |i| (l, i)))
                .flat_map(|(l, i)| reference::point(&net, l, i));
            for (at, (got, value)) in want.iter().zip(definition).enumerate() {
                assert_eq!(got.to_bits(), value.to_bits(), "{name:.200} {rows:?} value {at}: {got} {value}");
            }
            each_isa(|isa| {
                let mut out = vec![f64::NAN; len];
                net.fill_with(isa, rows.clone(), &mut out).unwrap();
                assert!(bits(&out) == bits(&want), "{name:.200} {rows:?} {isa}");
            });
        }
    }
}

#[test]
fn small_values_have_all_their_digits() {
    // Far out in the sequence, and where most digits of a coordinate are 0, sums need digits that tables leave out.
    for randomize in [Randomize::None, Randomize::Lms, Randomize::Ds] {
        let mut net = GeneralNet::new(halton(5, randomize, 1).into()).unwrap();
        let mut small = 0;
        for first in [1u64 << 11, 1 << 20, 3u64.pow(12), 5u64.pow(9), 7u64.pow(7), u64::from(u32::MAX) - 40] {
            let got = net.points(first..first + 30).unwrap();
            for (i, row) in (first..).zip(got.as_slice().chunks(5)) {
                assert_eq!(bits(row), bits(&reference::point(&net, 0, i)), "{randomize:?} {i}");
                small += row.iter().filter(|x| **x < 1e-4).count();
            }
        }
        assert!(randomize != Randomize::None || small >= 4, "{small}");
    }
}

#[test]
fn indices_go_beyond_32_bits() {
    let mut config = halton(6, Randomize::LmsDs, 1);
    config.limit = 1 << 40;
    let mut net = GeneralNet::new(config.into()).unwrap();
    let rows = (1u64 << 32) - 3..(1 << 32) + 3;
    let got = net.points(rows.clone()).unwrap();
    for (i, row) in rows.zip(got.as_slice().chunks(6)) {
        assert_eq!(bits(row), bits(&reference::point(&net, 0, i)), "{i}");
    }
    let other: Vec<f64> = net.points(0..3).unwrap().into_vec();
    assert_ne!(&got.as_slice()[18..], &other[..]);
}

#[test]
fn the_last_dimension_follows_the_definition() {
    let mut net = GeneralNet::new(halton(vec_dims([999]), Randomize::LmsDp, 1).into()).unwrap();
    let got = net.points(7900..7940).unwrap();
    for (i, x) in (7900..).zip(got.as_slice()) {
        assert_eq!(bits(&[*x]), bits(&reference::point(&net, 0, i)), "{i}");
    }
}

#[test]
fn a_tail_is_that_of_the_full_run() {
    for config in nets() {
        let end = GeneralNet::new(config.clone()).unwrap().limit().min(400) as u64;
        check_tail(|| Box::new(GeneralNet::new(config.clone()).unwrap()), end / 7, end);
    }
}

#[test]
fn elementary_intervals_hold_one_point_each() {
    // 2^3 * 3^2 points of Halton's sequence in bases 2 and 3, 3^4 of Faure's in base 3.
    for randomize in RANDOMIZATIONS {
        let points = Halton::new(halton(2, randomize, 3)).unwrap().points(0..72).unwrap();
        for set in points.as_slice().chunks(144) {
            check_boxes(set, [8, 9]);
        }
        let points = Faure::new(faure(2, randomize, 1)).unwrap().points(0..16).unwrap();
        for set in points.as_slice().chunks(32) {
            for a in 0..=4 {
                check_boxes(set, [1 << a, 1 << (4 - a)]);
            }
        }
    }
    let points = Halton::new(halton(2, Randomize::Qrng, 1)).unwrap().points(0..72).unwrap();
    check_boxes(points.as_slice(), [8, 9]);
}

fn check_boxes(points: &[f64], cuts: [usize; 2]) {
    let mut boxes = vec![0; cuts[0] * cuts[1]];
    for row in points.chunks(2) {
        // Points on a cut are there up to rounding of their digits' sum.
        let cell = |x: f64, cuts: usize| (x * cuts as f64 + 1e-12) as usize;
        boxes[cell(row[0], cuts[0]) * cuts[1] + cell(row[1], cuts[1])] += 1;
    }
    assert!(boxes.iter().all(|&count| count == 1), "{cuts:?}: {boxes:?}");
}

#[test]
fn replications_differ_and_share_the_table() {
    for randomize in RANDOMIZATIONS {
        let points = Halton::new(halton(3, randomize, 2)).unwrap().points(1..40).unwrap();
        let (first, second) = points.as_slice().split_at(39 * 3);
        let equal = first.iter().zip(second).filter(|(a, b)| a == b).count();
        assert!(equal < 10, "{randomize:?}: {equal}");
    }
}

#[test]
fn scrambled_digits_are_reduced() {
    // Sums of products of digits exceed the base long before they exceed the word; values must still stay below 1.
    for randomize in [Randomize::Lms, Randomize::LmsDs, Randomize::LmsDp] {
        let points = Faure::new(faure(40, randomize, 1)).unwrap().points(0..2000).unwrap();
        assert!(points.as_slice().iter().all(|x| (0.0..1.0).contains(x)), "{randomize:?}");
    }
}

#[test]
fn nested_permutations_are_independent_across_prefixes() {
    // With one permutation per digit, points with second digits 0 and 1 keep their order whatever the first digit is.
    let mut same = 0;
    for seed in 0..64u64 {
        let mut config = HaltonConfig::new(1, seed);
        config.randomize = Randomize::Nus(NusEngine::Trie);
        let x = Halton::new(config).unwrap().points(0..4).unwrap();
        let second = |at: usize| (x.as_slice()[at] * 4.0) as u32 % 2;
        same += u32::from((second(0) < second(2)) == (second(1) < second(3)));
    }
    assert!((16..=48).contains(&same), "{same} of 64");
}

#[test]
fn children_are_those_of_the_seed() {
    for randomize in [Randomize::LmsDp, Randomize::Nus(NusEngine::Trie)] {
        let mut config = halton(2, randomize, 2);
        let mut children = Halton::new(config.clone()).unwrap().spawn(&[3]).unwrap();
        // Nested scrambling has itself spawned a generator for each coordinate.
        let used = if randomize == Randomize::LmsDp { 0 } else { 4 };
        let seed = config.seed.spawn(used + 1).pop().unwrap();
        config.dims = Dims::First(3);
        config.seed = seed;
        let want = Halton::new(config).unwrap().points(0..9).unwrap();
        assert_eq!(children[0].points(0..9).unwrap().as_slice(), want.as_slice());
    }
}

#[test]
fn bad_input_is_refused() {
    let argument = |result: kc_core::Result<GeneralNet>, name: &str| match result {
        Err(Error::Argument { arg, .. }) => assert_eq!(arg, name),
        other => panic!("{name}: {:?}", other.map(|_| ())),
    };
    let with = |change: &dyn Fn(&mut GeneralNetConfig)| {
        let mut config = GeneralNetConfig::new(3, 1u64, NetMatrices::Halton);
        change(&mut config);
        GeneralNet::new(config)
    };
    argument(with(&|c| c.dims = Dims::First(0)), "dims");
    argument(with(&|c| c.dims = Dims::First(1001)), "dims");
    argument(with(&|c| c.dims = vec_dims([4, 4])), "dims");
    argument(with(&|c| c.replications = 0), "replications");
    argument(with(&|c| (c.replications, c.randomize) = (2, Randomize::None)), "replications");
    argument(with(&|c| (c.replications, c.randomize) = (2, Randomize::Qrng)), "replications");
    argument(with(&|c| (c.dims, c.randomize) = (Dims::First(361), Randomize::Qrng)), "dims");
    argument(with(&|c| c.alpha = 0), "alpha");
    argument(with(&|c| c.alpha = 2), "alpha");
    argument(with(&|c| c.digits = Some(31)), "digits");
    argument(with(&|c| c.digits = Some(65)), "digits");
    argument(with(&|c| c.limit = 0), "limit");
    argument(with(&|c| c.randomize = Randomize::Shift), "randomize");
    argument(with(&|c| (c.matrices, c.randomize) = (NetMatrices::Faure, Randomize::Qrng)), "randomize");
    argument(with(&|c| (c.matrices, c.dims) = (NetMatrices::Faure, vec_dims([1, 0]))), "dims");
    let listed = |c: &mut GeneralNetConfig| {
        (c.matrices, c.dims, c.alpha) = (NetMatrices::Custom(custom(1, vec![3; 8])), vec_dims([1, 0]), 2);
    };
    argument(with(&listed), "alpha");
    let mixed = |c: &mut GeneralNetConfig| {
        (c.matrices, c.dims, c.alpha) = (NetMatrices::Custom(custom(1, vec![3, 3, 5, 3])), Dims::First(2), 2);
    };
    argument(with(&mixed), "alpha");
    let hash = with(&|c| c.randomize = Randomize::Nus(NusEngine::Hash));
    assert!(matches!(hash, Err(Error::Unsupported { .. })));
    let huge = with(&|c| c.replications = 1 << 26);
    assert!(matches!(huge, Err(Error::TooLarge { .. })));
    let two = with(&|c| (c.matrices, c.replications) = (NetMatrices::Custom(custom(2, vec![2; 6])), 3));
    assert!(matches!(two, Err(Error::Shape { .. })));

    let mut net = with(&|_| ()).unwrap();
    assert!(matches!(net.points(0..(1 << 32) + 1), Err(Error::TooLarge { .. })));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = net.points(3..1);
    assert!(matches!(reversed, Err(Error::Argument { .. })));
    assert!(matches!(net.fill(0..2, &mut [0.0; 5]), Err(Error::Shape { .. })));
    let mut nested = with(&|c| c.randomize = Randomize::Nus(NusEngine::Trie)).unwrap();
    assert!(matches!(nested.fill((1 << 24)..(1 << 24) + 1, &mut [0.0; 3]), Err(Error::TooLarge { .. })));
    assert!(matches!(nested.fill_digits(0..1, &mut [0; 3]), Err(Error::Unsupported { .. })));
}

#[test]
fn bad_matrices_are_refused() {
    let new = BaseMatrices::new;
    assert!(matches!(new(vec![], 1, vec![]), Err(Error::Empty { .. })));
    assert!(matches!(new(vec![1], 1, vec![0]), Err(Error::Argument { .. })));
    assert!(matches!(new(vec![65537], 1, vec![0]), Err(Error::Argument { .. })));
    assert!(matches!(new(vec![2, 3], 1, vec![0, 3]), Err(Error::Argument { .. })));
    assert!(matches!(new(vec![2, 3], 2, vec![0; 6]), Err(Error::Shape { .. })));
    assert!(matches!(new(vec![2], 0, vec![0]), Err(Error::Shape { .. })));
    assert!(matches!(new(vec![2], 65, vec![0; 65]), Err(Error::Shape { .. })));
    assert!(matches!(new(vec![2], 1, vec![0; 65]), Err(Error::Argument { .. })));
    assert!(matches!(BaseMatrices::per_replication(2, vec![2; 3], 1, vec![0; 3]), Err(Error::Shape { .. })));
    assert!(new(vec![2, 65536], 2, vec![1, 0, 0, 1, 65535, 0, 0, 1]).is_ok());
}
