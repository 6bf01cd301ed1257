//! Discrepancies: golden data, the definition, figures of merit and the search for vectors.

use kc_core::{Error, TensorView};
use kc_qmc::discrepancy::{
    Kind, cbc, discrepancy, discrepancy_with, lattice_p, plain_cbc, reference, weighted_discrepancy,
};
use kc_qmc::{DigitalNet, DigitalNetConfig, Seed, Sequence};
use kc_testing::{each_isa, golden_json, same_on_any_pool};

const KINDS: [Kind; 4] = [Kind::L2Star, Kind::Centered, Kind::WrapAround, Kind::Mixture];

fn random(len: usize, seed: u64) -> Vec<f64> {
    let mut rng = Seed::from(seed).rng();
    (0..len).map(|_| rng.uniform()).collect()
}

fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1e-3), "{got:e} {want:e}");
}

#[test]
fn values_are_the_golden_ones() {
    let golden = golden_json("qmcpy/discrepancy.json");
    let points = DigitalNet::new(DigitalNetConfig::new(4, 7u64)).unwrap().points(0..64).unwrap();
    let points = TensorView::from_slice([64, 4], points.as_slice()).unwrap();
    let names = ["L2-star", "CD", "WD", "MD"];
    for (kind, name) in KINDS.into_iter().zip(names) {
        let want = golden["scipy"][name].as_f64().unwrap();
        close(discrepancy(points, kind).unwrap(), want, 1e-10);
    }
    let lattice = &golden["p2_lattice"];
    let z: Vec<u64> = lattice["z"].as_array().unwrap().iter().map(|z| z.as_u64().unwrap()).collect();
    let gamma: Vec<f64> = lattice["gamma"].as_array().unwrap().iter().map(|g| g.as_f64().unwrap()).collect();
    let got = lattice_p(2, lattice["n"].as_u64().unwrap(), &z, &gamma).unwrap();
    close(got, lattice["value"].as_f64().unwrap(), 1e-12);
}

#[test]
fn every_level_follows_the_definition() {
    for n in [1, 2, 3, 31, 32, 33, 64, 101] {
        for d in [1, 2, 5] {
            let mut x: Vec<f64> = random(n * d, 3);
            if n == 33 {
                x[..2 * d].fill(1.0);
                x[2 * d..5 * d].fill(0.0);
            }
            let weights: Vec<f64> = (0..d).map(|j| 1.5 / (j + 1) as f64).collect();
            let points = TensorView::from_slice([n, d], &x).unwrap();
            for kind in KINDS {
                for weights in [None, Some(&weights[..])] {
                    let want = reference::discrepancy(&x, d, kind, weights);
                    each_isa(|isa| close(discrepancy_with(isa, points, kind, weights).unwrap(), want, 1e-11));
                    same_on_any_pool(|| {
                        discrepancy_with(kc_core::Isa::best(), points, kind, weights).unwrap().to_bits()
                    });
                }
            }
        }
    }
}

#[test]
fn weights_of_nothing_leave_coordinates_out() {
    let x: Vec<f64> = random(3 * 40, 5);
    let without: Vec<f64> = x.chunks(3).flat_map(|row| [row[0], row[2]]).collect();
    let (all, some) =
        (TensorView::from_slice([40, 3], &x).unwrap(), TensorView::from_slice([40, 2], &without).unwrap());
    for kind in KINDS {
        let got = weighted_discrepancy(all, kind, &[1.0, 0.0, 0.5]).unwrap();
        close(got, weighted_discrepancy(some, kind, &[1.0, 0.5]).unwrap(), 1e-11);
    }
}

#[test]
fn strided_points_are_read_in_place() {
    let x: Vec<f64> = random(3 * 40, 5);
    let points = TensorView::from_slice([3, 40], &x).unwrap().transposed();
    let rows = points.to_tensor().unwrap();
    for kind in KINDS {
        assert_eq!(discrepancy(points, kind).unwrap(), discrepancy(rows.view(), kind).unwrap());
    }
}

/// `lattice_p` as a sum over frequencies of the dual lattice would have it, by its kernel in plain loops.
fn p_by_definition(alpha: u32, n: u64, z: &[u64], weights: &[f64]) -> f64 {
    let kernel = |x: f64| {
        (1..20_000)
            .map(|h| 2.0 * (std::f64::consts::TAU * h as f64 * x).cos() / f64::from(h).powi(alpha as i32))
            .sum::<f64>()
    };
    let term = |k: u64| -> f64 {
        z.iter().zip(weights).map(|(z, w)| 1.0 + w * kernel((k * z % n) as f64 / n as f64)).product()
    };
    (0..n).map(term).sum::<f64>() / n as f64 - 1.0
}

#[test]
fn merits_are_fourier_sums() {
    for (alpha, tolerance) in [(2, 1e-2), (4, 1e-9), (6, 1e-9)] {
        let (z, weights) = ([1, 5, 22], [1.0, 0.5, 0.25]);
        let want = p_by_definition(alpha, 13, &z, &weights);
        close(lattice_p(alpha, 13, &z, &weights).unwrap(), want, tolerance);
    }
    assert!(lattice_p(2, 1, &[0], &[1.0]).unwrap() > 3.28);
    same_on_any_pool(|| lattice_p(2, 20_011, &[1, 77, 1234], &[1.0; 3]).unwrap().to_bits());
}

#[test]
fn the_search_finds_the_best_component() {
    for n in [1u64, 2, 3, 7, 8, 16, 31, 60, 64, 101] {
        for alpha in [2, 4, 6] {
            let weights = [1.0, 0.7, 0.4, 0.2];
            let found = cbc(alpha, n, &weights).unwrap();
            for j in 1..4 {
                let merit = |z: u64| {
                    let mut vector = found[..j].to_vec();
                    vector.push(z);
                    lattice_p(alpha, n, &vector, &weights[..j + 1]).unwrap()
                };
                let here = merit(found[j]);
                for z in (1..n).filter(|&z| gcd(z, n) == 1) {
                    let other = merit(z);
                    let noise = 1e-11 * (1.0 + other.abs());
                    assert!(other >= here - noise, "{n} {alpha} {j}: {z} is better than {}", found[j]);
                    assert!(z >= found[j] || other > here + 1e-15, "{n} {alpha} {j}: {z} is as good");
                }
            }
        }
    }
}

#[test]
fn the_fast_search_finds_the_same() {
    let weights: Vec<f64> = (1..=6).map(|j| 0.9f64.powi(j)).collect();
    for n in [16u64, 17, 19, 31, 32, 97, 128, 257, 499, 512, 1024, 2003] {
        for alpha in [2, 4] {
            assert_eq!(
                cbc(alpha, n, &weights).unwrap(),
                plain_cbc(alpha, n, &weights).unwrap(),
                "{n} {alpha}"
            );
        }
    }
    // Far beyond what plain sums could do in a test.
    let found = cbc(2, 1 << 16, &weights[..3]).unwrap();
    let random = lattice_p(2, 1 << 16, &[1, 12_345, 54_321], &weights[..3]).unwrap();
    assert!(lattice_p(2, 1 << 16, &found, &weights[..3]).unwrap() < random);
}

fn view(shape: [usize; 2], x: &[f64]) -> TensorView<'_, f64, 2> {
    TensorView::from_slice(shape, x).unwrap()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn bad_input_is_refused() {
    assert!(matches!(discrepancy(view([0, 2], &[]), Kind::Centered), Err(Error::Empty { .. })));
    assert!(matches!(discrepancy(view([2, 0], &[]), Kind::Centered), Err(Error::Empty { .. })));
    for bad in [-1e-9, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
        let x = [0.5, bad];
        let result = discrepancy(view([1, 2], &x), Kind::L2Star);
        assert!(matches!(result, Err(Error::Argument { .. })), "{bad}");
    }
    let x = [0.5, 0.25];
    let weighted = |weights: &[f64]| weighted_discrepancy(view([1, 2], &x), Kind::Mixture, weights);
    assert!(matches!(weighted(&[1.0]), Err(Error::Shape { .. })));
    assert!(matches!(weighted(&[1.0, -1.0]), Err(Error::Argument { .. })));
    assert!(matches!(weighted(&[f64::NAN, 1.0]), Err(Error::NotFinite { .. })));
    assert!(matches!(lattice_p(3, 8, &[1], &[1.0]), Err(Error::Argument { .. })));
    assert!(matches!(lattice_p(2, 0, &[1], &[1.0]), Err(Error::Empty { .. })));
    assert!(matches!(lattice_p(2, 8, &[], &[]), Err(Error::Empty { .. })));
    assert!(matches!(lattice_p(2, 1 << 40, &[1], &[1.0]), Err(Error::TooLarge { .. })));
    assert!(matches!(lattice_p(2, 8, &[1, 3], &[1.0]), Err(Error::Shape { .. })));
    assert!(matches!(cbc(2, 8, &[]), Err(Error::Empty { .. })));
    assert!(matches!(cbc(2, (1 << 31) + 1, &[1.0]), Err(Error::TooLarge { .. })));
    assert!(matches!(plain_cbc(2, 1 << 27, &[1.0]), Err(Error::TooLarge { .. })));
}
