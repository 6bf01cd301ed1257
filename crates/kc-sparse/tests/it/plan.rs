//! Plans: the bits of a fresh product, no allocation, no changed length.

use kc_core::Error;
use kc_sparse::semiring::{AnyPair, MinPlus, PlusTimes};
use kc_sparse::smash::generate;
use kc_sparse::{Csr, PlanConfig, SpgemmConfig, SpgemmPlan, spgemm};
use kc_testing::alloc::measure;

#[test]
fn executing_gives_the_bits_of_a_fresh_product_and_allocates_nothing() {
    let rmat = generate::rmat(9, 8, generate::GRAPH500, 7).expect("small");
    let band = generate::band(900, 8, 7).expect("small");
    let er = generate::er(10, 2, 7).expect("small");
    for (a, places) in [(&rmat, 4 * 50_000), (&er, 4 * 4000), (&band, 8 * 15_000)] {
        same_bits(a.clone(), places);
    }
    // Whole runs of a band take 8 bytes, not 4 for each of 17 products.
    let plan = SpgemmPlan::new(band.view(), band.view(), &PlanConfig::default()).expect("fits");
    assert!(plan.bytes() < 3 * band.bytes() + 4 * 33 * 900 + 8 * 15_300 + 40_000, "{}", plan.bytes());
}

fn same_bits(mut a: Csr<f64>, places: usize) {
    for config in [
        PlanConfig { threads: 1, ..PlanConfig::default() },
        PlanConfig { threads: 3, ..PlanConfig::default() },
        PlanConfig { slot_limit: 0, threads: 1 },
        PlanConfig { slot_limit: 0, threads: 3 },
    ] {
        let plan = SpgemmPlan::new(a.view(), a.view(), &config).expect("fits");
        let mut c = vec![0.0; plan.nnz()];
        for round in 0..3 {
            a.values_mut()
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = ((i * 37 + round) % 101) as f64 * 0.1 - 5.0);
            let want = spgemm(PlusTimes::new(), a.view(), a.view(), &SpgemmConfig::default()).expect("fits");
            let run = || plan.execute(PlusTimes::new(), a.values(), a.values(), &mut c).expect("lengths");
            let ((), memory) = measure(run);
            if config.threads == 1 {
                assert_eq!(memory.count, 0, "{config:?}");
            }
            assert_eq!((plan.indptr(), plan.indices()), (want.indptr(), want.indices()));
            let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&c) == bits(want.values()), "{config:?}");
        }
        plan.execute(MinPlus::new(), a.values(), a.values(), &mut c).expect("lengths");
        let want = spgemm(MinPlus::new(), a.view(), a.view(), &SpgemmConfig::default()).expect("fits");
        assert_eq!(c, want.values());
        plan.execute(AnyPair::new(), a.values(), a.values(), &mut c).expect("lengths");
        assert!(c.iter().all(|&x| x == 1.0));
        if config.slot_limit > 0 {
            assert!(plan.bytes() > places);
        }
    }
}

#[test]
fn changed_lengths_are_refused() {
    let a: Csr<f64> = Csr::from_diagonal(&[1.0, 2.0]).expect("valid");
    let plan = SpgemmPlan::new(a.view(), a.view(), &PlanConfig::default()).expect("fits");
    let (two, three) = ([1.0; 2], [1.0; 3]);
    for (a, b, mut c, name) in [
        (&three[..], &two[..], vec![0.0; 2], "a"),
        (&two, &three, vec![0.0; 2], "b"),
        (&two, &two, vec![0.0; 3], "c"),
    ] {
        let error = plan.execute(PlusTimes::new(), a, b, &mut c).expect_err("a wrong length");
        assert!(matches!(&error, Error::Shape { arg, .. } if arg == name), "{error}");
    }
}

#[test]
fn empty_products_are_planned_too() {
    let a: Csr<f64> = Csr::empty(0, 3).expect("valid");
    let b: Csr<f64> = Csr::empty(3, 0).expect("valid");
    let plan = SpgemmPlan::new(a.view(), b.view(), &PlanConfig::default()).expect("fits");
    assert_eq!(plan.nnz(), 0);
    plan.execute(PlusTimes::new(), &[], &[], &mut [0.0; 0]).expect("nothing to do");
}
