//! Nested uniform scrambling.

use kc_qmc::net2::reference::{Nested, nested_hash};
use kc_qmc::{DigitalNet, NusEngine, Order, Randomize, Seed, Sequence};
use kc_testing::each_isa;
use proptest::prelude::*;

use super::{config, digits, net};

const ENGINES: [NusEngine; 3] = [NusEngine::Trie, NusEngine::Hash, NusEngine::Auto];

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]
    #[test]
    fn engines_are_their_definitions(
        dims in 1usize..7,
        bits in prop::sample::select(vec![5u32, 32, 41, 60, 63, 64]),
        gray in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let with = |randomize| config(dims, seed, |c| {
            (c.randomize, c.bits) = (randomize, bits);
            c.order = if gray { Order::Gray } else { Order::Natural };
        });
        let mut raw = net(&with(Randomize::None));
        let raise = bits - raw.bits();
        let raw: Vec<u64> = digits(&mut raw, 0..256).into_iter().map(|x| x << raise).collect();
        let seeds = Seed::from(seed).spawn(dims);
        let mut tries: Vec<_> = seeds.iter().map(|seed| Nested::new(seed, bits)).collect();
        let trie: Vec<u64> = raw.iter().enumerate().map(|(i, &x)| tries[i % dims].scramble(x)).collect();
        let hash: Vec<u64> =
            raw.iter().enumerate().map(|(i, &x)| nested_hash(&seeds[i % dims], 32, bits, x)).collect();
        each_isa(|isa| {
            for (engine, want) in [(NusEngine::Trie, &trie), (NusEngine::Auto, &trie), (NusEngine::Hash, &hash)] {
                let mut net = DigitalNet::new_with(isa, with(Randomize::Nus(engine))).unwrap();
                assert_eq!(&digits(&mut net, 0..256), want, "{engine:?}");
            }
        });
    }
}

/// For each replication of the van der Corput sequence, whether digit `level` is flipped, for each value of the
/// digits before it.
fn flips(randomize: Randomize, level: u32, replications: usize) -> Vec<Vec<bool>> {
    let mut net = net(&config(1, 77, |c| (c.randomize, c.replications) = (randomize, replications)));
    let (bits, count) = (net.bits(), 2 << level);
    digits(&mut net, 0..count)
        .chunks(count as usize)
        .map(|points| {
            let mut flips = vec![false; 1 << level];
            for (i, x) in points.iter().enumerate() {
                // Point i has the bits of i, lowest first, as digits; its twin differs in digit `level`.
                let prefix = (i as u64).reverse_bits() >> (64 - level);
                if i >> level & 1 == 0 {
                    flips[prefix as usize] = x >> (bits - 1 - level) & 1 == 1;
                }
            }
            flips
        })
        .collect()
}

#[test]
fn flips_do_not_know_of_each_other() {
    // Under four prefixes that are sums of each other, the flips of a matrix always cancel; nested ones are
    // independent.
    let count = 4000;
    let bound = 5.0 * (count as f64).sqrt() / 2.0;
    let half = |hits: usize| (hits as f64 - count as f64 / 2.0).abs() < bound;
    for level in [2u32, 5, 6, 7] {
        let last = (1usize << level) - 1;
        let quartets = [[0, 1, 2, 3], [0, 1, last - 1, last], [0, last / 2, last / 2 + 1, last]];
        let parity = |flips: &[bool], at: &[usize]| at.iter().filter(|&&p| flips[p]).count() % 2 == 1;
        let matrix = flips(Randomize::LmsDs, level, 50);
        assert!(matrix.iter().all(|flips| quartets.iter().all(|at| !parity(flips, at))));
        for engine in ENGINES {
            let nested = flips(Randomize::Nus(engine), level, count);
            for at in &quartets {
                assert!(
                    half(nested.iter().filter(|flips| parity(flips, at)).count()),
                    "{engine:?} {level} {at:?}"
                );
                for pair in at.windows(2) {
                    assert!(
                        half(nested.iter().filter(|flips| parity(flips, pair)).count()),
                        "{engine:?} {pair:?}"
                    );
                }
                assert!(half(nested.iter().filter(|flips| flips[at[3]]).count()), "{engine:?} {level}");
            }
            let distinct: std::collections::HashSet<_> = nested.iter().collect();
            assert!(distinct.len() >= 16);
        }
    }
}

#[test]
fn flips_of_all_small_trees_occur_alike() {
    // The 7 flips of the first three levels: 128 trees, each in 1/128 of the replications.
    for engine in ENGINES {
        let count = 12_800;
        let mut seen = [0u32; 128];
        let mut net = net(&config(1, 3, |c| (c.randomize, c.replications) = (Randomize::Nus(engine), count)));
        let bits = net.bits();
        for points in digits(&mut net, 0..8).chunks(8) {
            let tree = (0..8u64).fold(0u64, |tree, i| {
                let x = points[i as usize] >> (bits - 3) ^ i.reverse_bits() >> 61;
                let prefix = i.reverse_bits() >> 61;
                tree | (x >> 2) << 6 | (x >> 1 & 1) << (4 + (prefix >> 2)) | (x & 1) << (prefix >> 1)
            });
            seen[tree as usize] += 1;
        }
        let chi: f64 = seen.iter().map(|&n| (f64::from(n) - 100.0).powi(2) / 100.0).sum();
        // 127 degrees of freedom: mean 127, standard deviation 16.
        assert!((127.0 - 80.0..127.0 + 80.0).contains(&chi), "{engine:?}: {chi}");
    }
}

#[test]
fn deep_digits_are_flipped_apart() {
    // Pairs of points that agree in many digits: the next digits' flips are shared up to where they part, then
    // not.
    let seeds = Seed::from(5u64).spawn(3000);
    for shared in [5u32, 6, 11, 12, 23, 35, 39] {
        let (a, b) = (0x5A5A_A5A5_1234_5678u64, 0x5A5A_A5A5_1234_5678u64 ^ 1 << (63 - shared));
        let mut equal = [0usize; 8];
        for seed in &seeds {
            let (x, y) = (nested_hash(seed, 32, 64, a), nested_hash(seed, 32, 64, b));
            assert_eq!((x ^ y).leading_zeros(), shared);
            for (after, equal) in equal.iter_mut().enumerate() {
                *equal += usize::from((x ^ y) << (shared as usize + 1 + after) >> 63 == 0);
            }
        }
        assert!(equal.iter().all(|&n| (1500 - 140..1500 + 140).contains(&n)), "{shared}: {equal:?}");
    }
}

#[test]
fn the_trie_tells_its_limit() {
    let mut far =
        net(&config(2, 0, |c| (c.randomize, c.order) = (Randomize::Nus(NusEngine::Trie), Order::Gray)));
    let error = super::error(far.points(1 << 31..(1 << 31) + 4));
    assert!(matches!(error, kc_core::Error::TooLarge { need, .. } if need > 1 << 32), "{error}");
    // Refusing changes nothing.
    assert!(far.points(0..4).is_ok());
}
