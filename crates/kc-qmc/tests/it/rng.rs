//! The generator against NumPy's.

use kc_qmc::rng::Seed;
use kc_testing::golden_json;

fn integers(value: &serde_json::Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn draws_are_numpys() {
    let cases = golden_json("qmcpy/rng.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let text = case["seed"].as_str().unwrap();
        let seed: Seed = text.parse().unwrap();
        assert_eq!(seed.name(), text);
        let pool: Vec<u64> = case["pool"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(seed.pool().map(u64::from).to_vec(), pool);

        let draw = |want: &[u64], mut next: Box<dyn FnMut() -> u64>| {
            assert_eq!(want.iter().map(|_| next()).collect::<Vec<_>>(), want);
        };
        let mut rng = seed.rng();
        draw(&integers(&case["raw"]), Box::new(move || rng.next_u64()));
        let mut rng = seed.rng();
        draw(&integers(&case["t64"]), Box::new(move || rng.bits(64)));
        let mut rng = seed.rng();
        for want in case["random"].as_array().unwrap() {
            assert_eq!(rng.uniform(), want.as_f64().unwrap());
        }
        for (bound, want) in case["below"].as_object().unwrap() {
            let (bound, mut rng) = (bound.parse::<u128>().unwrap(), seed.rng());
            draw(&integers(want), Box::new(move || rng.below(bound)));
        }
        let mut rng = seed.rng();
        for want in case["permutation_after_each_other"].as_array().unwrap() {
            let want: Vec<u32> =
                want.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
            assert_eq!(rng.permutation(want.len()), want);
        }
        let mut parent = seed.clone();
        let mut children = parent.spawn(1);
        children.extend(parent.spawn(1));
        for (child, want) in children.iter().zip(case["spawn_raw"].as_array().unwrap()) {
            let mut rng = child.rng();
            draw(&integers(want), Box::new(move || rng.next_u64()));
        }
        let mut rng = children[0].spawn(1)[0].rng();
        draw(&integers(&case["spawn_child0_grandchild0_raw"]), Box::new(move || rng.next_u64()));
    }
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    for text in ["", "-1", "1.5", "0x10", "seven", " 7"] {
        assert!(text.parse::<Seed>().is_err(), "{text:?}");
    }
}
