//! Random products, with and without masks: every accumulator, phase, number of threads and level against the
//! definition.

use std::collections::HashSet;

use kc_core::{Isa, KcRng};
use kc_sparse::semiring::{MinPlus, PlusTimes};
use kc_sparse::smash::reference;
use kc_sparse::{Accumulator, Csr, Mask, Phases, Semiring, SpgemmConfig, Triplets, Workspace, spgemm_with};
use proptest::prelude::*;

use crate::support::assert_bits;

/// A matrix of about `per_row` entries a row; columns repeat and stand in any order unless `tidy`.
fn random(rng: &mut KcRng, [m, n]: [usize; 2], per_row: usize, tidy: bool) -> Csr<f64> {
    let count = if n == 0 { 0 } else { m * per_row };
    let rows: Vec<usize> = (0..count).map(|_| rng.below(m as u64) as usize).collect();
    // Half of the entries crowd into a few columns, so that rows meet and runs of neighbours arise.
    let near = n.min(48) as u64;
    let cols: Vec<usize> =
        (0..count).map(|q| rng.below(if q % 2 == 0 { near } else { n as u64 }) as usize).collect();
    let values: Vec<f64> = (0..count).map(|_| rng.normal()).collect();
    let a: Csr<f64> =
        Triplets { nrows: m, ncols: n, rows: &rows, cols: &cols, values: &values }.to_csr().expect("valid");
    if tidy { a.sum_duplicates(PlusTimes::new()) } else { a }
}

fn check<S: Semiring<Left = f64, Right = f64, Out = f64>>(
    s: S,
    a: &Csr<f64>,
    b: &Csr<f64>,
    want: &Csr<f64>,
    mask: Option<&Mask<'_>>,
) {
    let workspace = Workspace::new();
    for accumulator in Accumulator::ALL {
        for (phases, threads) in [(Phases::One, 1), (Phases::One, 3), (Phases::Two, 1), (Phases::Two, 3)] {
            for isa in Isa::available() {
                // The smallest budget cuts wide rows into blocks of columns.
                for l2_bytes in [1, 5 << 18] {
                    let config = SpgemmConfig {
                        accumulator,
                        phases,
                        threads,
                        l2_bytes,
                        mask: mask.cloned(),
                        ..SpgemmConfig::default()
                    };
                    let got = spgemm_with(isa, &workspace, s, a.view(), b.view(), &config).expect("fits");
                    assert_bits(
                        &got,
                        want,
                        &format!("{accumulator:?} {phases:?} {threads} {isa} {l2_bytes}"),
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_products_are_those_of_the_definition(
        seed in any::<u64>(),
        m in 0usize..24,
        k in 0usize..40,
        n in prop_oneof![0usize..70, 900usize..1400],
        per_row in 0usize..24,
        tidy in any::<bool>(),
        masked in 0u8..3,
    ) {
        let mut rng = KcRng::new(seed, 0);
        let a = random(&mut rng, [m, k], per_row, tidy);
        let b = random(&mut rng, [k, n], per_row, tidy);
        let pattern = random(&mut rng, [m, n], per_row, tidy);
        let marked: HashSet<(usize, usize)> = {
            let (rows, cols, _) = pattern.view().to_triplets();
            rows.into_iter().zip(cols).collect()
        };
        let allows = |i: usize, j: usize| match masked {
            0 => true,
            1 => marked.contains(&(i, j)),
            _ => !marked.contains(&(i, j)),
        };
        let mask = Mask::structural(pattern.view());
        let mask = match masked {
            0 => None,
            1 => Some(mask),
            _ => Some(mask.complement()),
        };
        let want = reference::spgemm(PlusTimes::new(), a.view(), b.view(), allows).expect("fits");
        check(PlusTimes::new(), &a, &b, &want, mask.as_ref());
        let want = reference::spgemm(MinPlus::new(), a.view(), b.view(), allows).expect("fits");
        check(MinPlus::new(), &a, &b, &want, mask.as_ref());
        // A diagonal of ones changes nothing but the order and the repetitions of columns.
        let ones = Csr::from_diagonal(&vec![1.0; m]).expect("valid");
        check(PlusTimes::new(), &ones, &a, &a.clone().sum_duplicates(PlusTimes::new()), None);
    }
}
