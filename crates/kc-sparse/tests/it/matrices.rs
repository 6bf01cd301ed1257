//! Conversions, element-wise operations and dense products.

use kc_core::{Error, KcRng, Tensor};
use kc_sparse::semiring::PlusTimes;
use kc_sparse::spmv::{spmm, spmv};
use kc_sparse::{Csr, Order, Triplets, ops};
use proptest::prelude::*;

use crate::support::{assert_bits, mtx};

fn entries() -> impl Strategy<Value = (usize, usize, Vec<(usize, usize, i32)>)> {
    (1usize..12, 1usize..12)
        .prop_flat_map(|(m, n)| (Just(m), Just(n), prop::collection::vec((0..m, 0..n, -9i32..10), 0..40)))
}

fn build(m: usize, n: usize, entries: &[(usize, usize, i32)]) -> Csr<f64> {
    let rows: Vec<usize> = entries.iter().map(|e| e.0).collect();
    let cols: Vec<usize> = entries.iter().map(|e| e.1).collect();
    let values: Vec<f64> = entries.iter().map(|e| f64::from(e.2)).collect();
    Triplets { nrows: m, ncols: n, rows: &rows, cols: &cols, values: &values }.to_csr().expect("valid")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn conversions_keep_the_matrix((m, n, entries) in entries()) {
        let a = build(m, n, &entries);
        let dense = a.view().to_dense().expect("small");
        let tidy = a.clone().sum_duplicates(PlusTimes::new());
        prop_assert_eq!(tidy.order(), Order::Strict);
        prop_assert_eq!(&tidy.view().to_dense().expect("small"), &dense);
        prop_assert_eq!(&tidy.transpose().expect("fits").transpose().expect("fits"), &tidy);
        let (indptr, indices, values) = tidy.view().to_csc().expect("fits");
        prop_assert_eq!(&Csr::from_csc(m, n, &indptr, &indices, &values).expect("valid"), &tidy);
        let (rows, cols, values) = tidy.view().to_triplets();
        let t = Triplets { nrows: m, ncols: n, rows: &rows, cols: &cols, values: &values };
        prop_assert_eq!(&t.to_csr::<u32>().expect("valid"), &tidy);
        let shrunk: Csr<f64> = Csr::from_dense(dense.view()).expect("small");
        prop_assert_eq!(&shrunk, &ops::drop_zeros(tidy.clone()));
        #[cfg(feature = "sprs")]
        {
            let foreign = sprs_of(&tidy);
            prop_assert_eq!(&Csr::<f64>::try_from(&foreign).expect("valid"), &tidy);
            prop_assert_eq!(&Csr::<f64>::try_from(&foreign.to_csc()).expect("valid"), &tidy);
        }
    }

    #[test]
    fn operations_match_dense_ones((m, n, entries) in entries(), seed in 0u64..100) {
        let a = build(m, n, &entries);
        let dense = a.view().to_dense().expect("small");
        let at = |i: usize, j: usize| dense[[i, j]];
        let row_sums: Vec<f64> = (0..m).map(|i| (0..n).map(|j| at(i, j)).sum()).collect();
        let col_sums: Vec<f64> = (0..n).map(|j| (0..m).map(|i| at(i, j)).sum()).collect();
        prop_assert_eq!(ops::row_sums(a.view()), row_sums);
        prop_assert_eq!(ops::col_sums(a.view()), col_sums);
        prop_assert_eq!(ops::diagonal(a.view()), (0..m.min(n)).map(|i| at(i, i)).collect::<Vec<_>>());
        let double = ops::add(PlusTimes::new(), a.view(), a.view()).expect("same shape");
        let mut scaled = a.clone();
        ops::scale(&mut scaled, 2.0);
        prop_assert_eq!(double.view().to_dense().expect("small"), scaled.view().to_dense().expect("small"));
        let mut rng = KcRng::new(seed, 0);
        let (p, q) = (rng.permutation(m), rng.permutation(n));
        let moved = ops::permute_rows(a.view(), &p).expect("a permutation");
        let moved = ops::permute_cols(moved.view(), &q).expect("a permutation");
        let want = Tensor::from_fn([m, n], |[i, j]| at(p[i], q[j])).expect("small");
        prop_assert_eq!(moved.view().to_dense().expect("small"), want);
        let x: Vec<f64> = (0..n).map(|j| j as f64 - 2.0).collect();
        let y: Vec<f64> = (0..m).map(|i| (0..n).map(|j| at(i, j) * x[j]).sum()).collect();
        prop_assert_eq!(spmv(a.view(), &x).expect("fits"), y);
    }
}

#[cfg(feature = "sprs")]
fn sprs_of(a: &Csr<f64>) -> sprs::CsMat<f64> {
    a.clone().into()
}

#[test]
fn dense_products_agree_column_by_column() {
    let a = mtx("cryg2500");
    for width in [1usize, 3, 8, 17] {
        let x =
            Tensor::from_fn([2500, width], |[i, j]| ((i * 7 + j * 13) % 251) as f64 * 0.01).expect("small");
        let y = kc_testing::same_on_any_pool(|| spmm(a.view(), x.view()).expect("fits"));
        for j in 0..width {
            let column: Vec<f64> = (0..2500).map(|i| x[[i, j]]).collect();
            let want = kc_testing::same_on_any_pool(|| spmv(a.view(), &column).expect("fits"));
            assert!((0..2500).all(|i| y[[i, j]].to_bits() == want[i].to_bits()), "column {j} of {width}");
        }
    }
    assert!(matches!(spmv(a.view(), &[0.0; 3]), Err(Error::Shape { .. })));
}

#[test]
fn bad_coordinates_and_permutations_are_refused() {
    let t = |rows: &[usize], cols: &[usize], values: &[f64]| -> kc_core::Result<Csr<f64>> {
        Triplets { nrows: 2, ncols: 2, rows, cols, values }.to_csr()
    };
    assert_eq!(t(&[2], &[0], &[1.0]), Err(Error::index("rows", &[0], 2, 2)));
    assert_eq!(t(&[0], &[5], &[1.0]), Err(Error::index("cols", &[0], 5, 2)));
    assert!(matches!(t(&[0, 1], &[0], &[1.0]), Err(Error::Shape { .. })));
    let a: Csr<f64> = Csr::from_diagonal(&[1.0, 2.0]).expect("valid");
    for order in [&[0usize][..], &[0, 0], &[0, 2]] {
        assert!(ops::permute_rows(a.view(), order).is_err());
        assert!(ops::permute_cols(a.view(), order).is_err());
    }
    let b: Csr<f64> = Csr::from_diagonal(&[1.0]).expect("valid");
    assert!(matches!(ops::add(PlusTimes::new(), a.view(), b.view()), Err(Error::Shape { .. })));
}

#[test]
fn sorting_keeps_the_order_of_repetitions() {
    let a: Csr<f64> = Csr::new(1, 4, vec![0, 4], vec![3, 1, 3, 0], vec![1.0, 2.0, 3.0, 4.0]).expect("valid");
    let sorted = a.view().sorted();
    assert_eq!((sorted.indices(), sorted.values()), (&[0, 1, 3, 3][..], &[4.0, 2.0, 1.0, 3.0][..]));
    let tidy = a.sum_duplicates(PlusTimes::new());
    let want = Csr::new(1, 4, vec![0, 3], vec![0, 1, 3], vec![4.0, 2.0, 4.0]).expect("valid");
    assert_bits(&tidy, &want, "summed");
}
