//! The simple sets: golden data, properties, bad input.

use kc_core::Error;
use kc_qmc::simple::{KorobovParameter, KroneckerVector, search_korobov};
use kc_qmc::{
    Dims, Hammersley, HammersleyConfig, Iid, IidConfig, Korobov, KorobovConfig, Kronecker, KroneckerConfig,
    LatinHypercube, LatinHypercubeConfig, Randomize, Sequence,
};
use kc_testing::{golden_tensor, same_on_any_pool};

use crate::cases::{bits, cases, check_tail};

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

#[test]
fn kronecker_points_are_the_golden_ones() {
    for case in cases("kronecker") {
        let mut config = KroneckerConfig::new(case.dims(), case.number("seed"));
        config.replications = case.replications();
        config.vector = match case.text("vector") {
            "CBC" => KroneckerVector::Cbc,
            "RICHTMYER" => KroneckerVector::Richtmyer,
            _ => KroneckerVector::Suzuki,
        };
        case.check(&mut Kronecker::new(config.clone()).unwrap());
        check_tail(|| Box::new(Kronecker::new(config.clone()).unwrap()), 100, 5000);
    }
}

#[test]
fn closed_sets_are_the_golden_ones() {
    for case in cases("hammersley") {
        case.check(&mut Hammersley::new(HammersleyConfig::new(case.dims())).unwrap());
    }
    for case in cases("korobov") {
        let mut config = KorobovConfig::new(case.dims(), case.number("seed"));
        config.replications = case.replications();
        case.check(&mut Korobov::new(config).unwrap());
    }
    for case in cases("latin_hypercube") {
        let mut config = LatinHypercubeConfig::new(case.dims(), case.number("seed"));
        config.replications = case.replications();
        case.check(&mut LatinHypercube::new(config).unwrap());
    }
}

#[test]
fn threads_change_nothing() {
    let sets: [fn() -> Box<dyn Sequence>; 4] = [
        || Box::new(Hammersley::new(HammersleyConfig::new(40)).unwrap()),
        || Box::new(Korobov::new(KorobovConfig::new(40, 3u64)).unwrap()),
        || Box::new(LatinHypercube::new(LatinHypercubeConfig::new(40, 3u64)).unwrap()),
        || Box::new(Kronecker::new(KroneckerConfig::new(40, 3u64)).unwrap()),
    ];
    for set in sets {
        same_on_any_pool(|| bits(set().points(0..1024).unwrap().as_slice()));
        assert_eq!(set().points(0..0).unwrap().as_slice(), [0.0; 0]);
        let one = set().points(0..1).unwrap();
        assert!(one.as_slice().iter().all(|x| (0.0..1.0).contains(x)));
    }
}

#[test]
fn a_latin_hypercube_has_one_point_in_each_slice() {
    for randomize in [Randomize::Iid, Randomize::None] {
        let mut config = LatinHypercubeConfig::new(3, 9u64);
        (config.replications, config.randomize) = (2, randomize);
        let points = LatinHypercube::new(config).unwrap().points(0..50).unwrap();
        for set in points.as_slice().chunks(150) {
            for j in 0..3 {
                let mut slices = [0; 50];
                for row in set.chunks(3) {
                    slices[(row[j] * 50.0) as usize] += 1;
                    let centre = (row[j] * 50.0).fract();
                    assert!(randomize != Randomize::None || (centre - 0.5).abs() < 1e-12);
                }
                assert_eq!(slices, [1; 50]);
            }
        }
        assert_ne!(points.as_slice()[..150], points.as_slice()[150..]);
    }
}

/// P2 with weights 1 / j^2, by its definition.
fn p2(n: u64, a: u64, dims: usize) -> f64 {
    let term = |k: u64| {
        let mut z = 1;
        let mut product = 1.0;
        for j in 1..=dims {
            let x = (k * z % n) as f64 / n as f64;
            let kernel = 2.0 * std::f64::consts::PI.powi(2) * (x * x - x + 1.0 / 6.0);
            product *= 1.0 + kernel / (j * j) as f64;
            z = z * a % n;
        }
        product
    };
    (0..n).map(term).sum::<f64>() / n as f64 - 1.0
}

#[test]
fn the_korobov_search_is_as_good_as_the_table() {
    let sizes = golden_tensor::<u32, 1>("qmcpy/data_korobov_n.npy");
    let table = golden_tensor::<u32, 2>("qmcpy/data_korobov_a_43x250.npy");
    for (row, &n) in sizes.as_slice().iter().enumerate().filter(|(_, n)| **n <= 512) {
        let n = u64::from(n);
        for dims in [1, 2, 3, 5, 8] {
            let want = u64::from(table.as_slice()[row * 250 + dims - 1]);
            let found = search_korobov(n, dims).unwrap();
            // Several parameters can be equally good; the table then has any of them, the search the smallest.
            let (got, best) = (p2(n, found, dims), p2(n, want, dims));
            assert!((got - best).abs() <= 1e-12 * best.max(1.0), "n {n}, {dims} dimensions: {found} {want}");
            assert!(found <= want.max(1), "n {n}, {dims} dimensions: {found} {want}");
        }
    }
}

#[test]
fn other_sizes_are_searched_unless_that_is_ruled_out() {
    let mut config = KorobovConfig::new(3, 1u64);
    let mut best = Korobov::new(config.clone()).unwrap();
    assert_eq!(best.parameter(100).unwrap(), search_korobov(100, 3).unwrap());
    best.points(0..100).unwrap();
    config.parameter = KorobovParameter::Table;
    let mut table = Korobov::new(config.clone()).unwrap();
    match table.points(0..100) {
        Err(Error::Argument { arg, expected, .. }) => assert!(arg == "rows" && expected.contains("101")),
        other => panic!("{other:?}"),
    }
    assert!(table.points(0..101).is_ok());
    config.parameter = KorobovParameter::Given(10);
    let mut given = Korobov::new(config).unwrap();
    assert!(matches!(given.points(0..100), Err(Error::Argument { .. })));
    assert_eq!(given.parameter(101).unwrap(), 10);
    let slow = Korobov::new(KorobovConfig::new(250, 1u64)).unwrap().points(0..(1 << 20) + 1);
    assert!(matches!(slow, Err(Error::TooLarge { .. })));
}

#[test]
fn kronecker_vectors_are_what_their_names_say() {
    let with = |dims: Dims, vector| {
        let mut config = KroneckerConfig::new(dims, 0u64);
        (config.vector, config.randomize) = (vector, Randomize::None);
        Kronecker::new(config)
    };
    let beyond = with(Dims::First(14), KroneckerVector::Cbc).unwrap();
    let richtmyer = with(Dims::First(14), KroneckerVector::Richtmyer).unwrap();
    assert_eq!(beyond.vector(), richtmyer.vector());
    let some = with(Dims::List(vec![0, 2]), KroneckerVector::Suzuki).unwrap();
    assert_eq!(some.vector(), [2f64.powf(0.25), 2f64.powf(0.75)]);
    let mut user = with(Dims::First(2), KroneckerVector::User(vec![0.25, -0.25])).unwrap();
    assert_eq!(user.points(0..3).unwrap().as_slice(), [0.0, 0.0, 0.25, 0.75, 0.5, 0.5]);
    assert!(matches!(
        with(Dims::First(2), KroneckerVector::User(vec![0.5, f64::INFINITY])),
        Err(Error::NotFinite { .. })
    ));
    assert!(with(Dims::First(3), KroneckerVector::User(vec![0.5, 0.25])).is_err());
    let mut tiny = with(Dims::First(1), KroneckerVector::User(vec![-1e-30])).unwrap();
    assert_eq!(tiny.points(0..2).unwrap().as_slice(), [0.0, 0.0]);
}

#[test]
fn children_are_those_of_the_seed() {
    let seed = kc_qmc::Seed::from(4u64).spawn(1).pop().unwrap();
    let first = |mut parent: Box<dyn Sequence>| parent.spawn(&[2]).unwrap().remove(0).points(0..7).unwrap();
    let got = first(Box::new(Kronecker::new(KroneckerConfig::new(5, 4u64)).unwrap()));
    let want = Kronecker::new(KroneckerConfig::new(2, seed.clone())).unwrap().points(0..7).unwrap();
    assert_eq!(got.as_slice(), want.as_slice());
    let got = first(Box::new(Korobov::new(KorobovConfig::new(5, 4u64)).unwrap()));
    let want = Korobov::new(KorobovConfig::new(2, seed.clone())).unwrap().points(0..7).unwrap();
    assert_eq!(got.as_slice(), want.as_slice());
    let got = first(Box::new(LatinHypercube::new(LatinHypercubeConfig::new(5, 4u64)).unwrap()));
    let want = LatinHypercube::new(LatinHypercubeConfig::new(2, seed.clone())).unwrap().points(0..7).unwrap();
    assert_eq!(got.as_slice(), want.as_slice());
    let got = first(Box::new(Iid::new(IidConfig::new(5, 4u64)).unwrap()));
    let want = Iid::new(IidConfig::new(2, seed)).unwrap().points(0..7).unwrap();
    assert_eq!(got.as_slice(), want.as_slice());
    let got = first(Box::new(Hammersley::new(HammersleyConfig::new(5)).unwrap()));
    let want = Hammersley::new(HammersleyConfig::new(2)).unwrap().points(0..7).unwrap();
    assert_eq!(got.as_slice(), want.as_slice());
}

#[test]
fn bad_input_is_refused() {
    let refused = |result: kc_core::Result<()>, name: &str| match result {
        Err(Error::Argument { arg, .. }) => assert_eq!(arg, name),
        other => panic!("{name}: {other:?}"),
    };
    refused(Iid::new(IidConfig::new(0, 1u64)).map(drop), "dims");
    refused(Hammersley::new(HammersleyConfig::new(1002)).map(drop), "dims");
    refused(Hammersley::new(HammersleyConfig::new(Dims::List(vec![1, 0]))).map(drop), "dims");
    refused(Korobov::new(KorobovConfig::new(251, 1u64)).map(drop), "dims");
    refused(LatinHypercube::new(LatinHypercubeConfig::new(0, 1u64)).map(drop), "dims");
    refused(Kronecker::new(KroneckerConfig::new(0, 1u64)).map(drop), "dims");

    let korobov = |change: &dyn Fn(&mut KorobovConfig)| {
        let mut config = KorobovConfig::new(2, 1u64);
        change(&mut config);
        Korobov::new(config).map(drop)
    };
    refused(korobov(&|c| c.replications = 0), "replications");
    refused(korobov(&|c| (c.replications, c.randomize) = (2, Randomize::None)), "replications");
    refused(korobov(&|c| c.randomize = Randomize::LmsDs), "randomize");
    let mut config = LatinHypercubeConfig::new(2, 1u64);
    config.randomize = Randomize::Shift;
    refused(LatinHypercube::new(config).map(drop), "randomize");

    let closed: [Box<dyn Sequence>; 3] = [
        Box::new(Hammersley::new(HammersleyConfig::new(2)).unwrap()),
        Box::new(Korobov::new(KorobovConfig::new(2, 1u64)).unwrap()),
        Box::new(LatinHypercube::new(LatinHypercubeConfig::new(2, 1u64)).unwrap()),
    ];
    for mut set in closed {
        refused(set.points(1..8).map(drop), "rows");
        assert!(matches!(set.fill(0..8, &mut [0.0; 15]), Err(Error::Shape { .. })));
        let beyond = u64::try_from(set.limit()).unwrap() + 1;
        assert!(matches!(set.fill(0..beyond, &mut []), Err(Error::TooLarge { .. })));
    }
    assert!(matches!(search_korobov(0, 1), Err(Error::Empty { .. })));
    assert!(matches!(search_korobov(8, 0), Err(Error::Empty { .. })));
}
