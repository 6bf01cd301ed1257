//! Row-sparse masks of many heads.

use kc_core::{Error, Tensor};
use kc_sparse::FlatCsr;

/// Two batch entries, two heads, two rows, three keys.
fn small() -> FlatCsr<f64> {
    let cols = [0, 2, 4, 5, 1, 3];
    FlatCsr::new([2, 2, 2, 3], &[0, 3, 4, 0, 0, 2], &cols, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()
}

#[test]
fn rows_and_heads_are_found() {
    let m = small();
    assert_eq!((m.nnz(), m.nnz_per_batch()), (6, vec![4, 2]));
    assert_eq!(m.heads(0, 0).collect::<Vec<_>>(), [(0, 0..2), (1, 2..3)]);
    assert_eq!(m.heads(0, 1).collect::<Vec<_>>(), [(1, 3..4)]);
    assert_eq!(m.heads(1, 0).count(), 0);
    assert_eq!(m.heads(1, 1).collect::<Vec<_>>(), [(0, 4..5), (1, 5..6)]);
    let dense = m.to_dense().unwrap();
    let at = [[0, 0, 0, 0], [0, 0, 0, 2], [0, 1, 0, 1], [0, 1, 1, 2], [1, 0, 1, 1], [1, 1, 1, 0]];
    assert_eq!(at.map(|i| dense[i]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(dense.as_slice().iter().filter(|x| **x != 0.0).count(), 6);
    let again = FlatCsr::<f64>::from_rows([2, 2, 2, 3], &[3, 1, 0, 2], m.cols().to_vec()).unwrap();
    assert_eq!(again.with_values(m.values().to_vec()).unwrap(), m);
}

#[test]
fn algebra_is_that_of_the_dense_matrix() {
    let mut m = small();
    let v = Tensor::from_fn([2, 2, 3, 2], |[n, h, j, c]| (n * 12 + h * 6 + j * 2 + c) as f64).unwrap();
    let (dense, got) = (m.to_dense().unwrap(), m.matmul(v.view()).unwrap());
    for i in 0..16 {
        let [n, h, t, c] = [i / 8, i / 4 % 2, i / 2 % 2, i % 2];
        let want: f64 = (0..3).map(|j| dense[[n, h, t, j]] * v[[n, h, j, c]]).sum();
        assert_eq!(got[[n, h, t, c]], want);
    }
    m.softmax();
    let dense = m.to_dense().unwrap();
    assert!((dense[[0, 0, 0, 2]] - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
    assert_eq!(dense[[0, 1, 0, 1]], 1.0, "heads of a row are apart");
    let scale = Tensor::from_fn([2, 2, 2], |[n, h, t]| (1 + n + 2 * h + 4 * t) as f64).unwrap();
    m.row_scale(scale.view()).unwrap();
    assert_eq!(m.to_dense().unwrap()[[1, 1, 1, 0]], 8.0);
    assert!(m.row_scale(Tensor::zeros([2, 2, 3]).unwrap().view()).is_err());
    assert!(m.matmul(Tensor::zeros([2, 2, 4, 2]).unwrap().view()).is_err());
}

#[test]
fn bad_arrays_are_refused() {
    let make = |shape, crow: &[i64], cols: &[i64]| FlatCsr::new(shape, crow, cols, vec![0f32; cols.len()]);
    let shape = [1, 2, 2, 3];
    assert!(make(shape, &[0, 1, 2], &[0, 5]).is_ok());
    assert!(matches!(make(shape, &[0, 2], &[0, 5]), Err(Error::Shape { .. })));
    assert!(matches!(make(shape, &[1, 1, 2], &[0, 5]), Err(Error::Argument { .. })));
    assert!(matches!(make(shape, &[0, 2, 1], &[0, 5]), Err(Error::Argument { .. })));
    assert!(matches!(make(shape, &[0, 2, 3], &[0, 5]), Err(Error::Argument { .. })));
    assert!(matches!(make(shape, &[0, 1, 1], &[0, 5]), Err(Error::Shape { .. })));
    assert!(matches!(make(shape, &[0, 2, 2], &[5, 0]), Err(Error::Argument { .. })));
    assert!(matches!(make(shape, &[0, 2, 2], &[1, 1]), Err(Error::Argument { .. })));
    assert!(matches!(make(shape, &[0, 1, 2], &[0, 6]), Err(Error::Index { index: 6, bound: 6, .. })));
    assert!(matches!(make(shape, &[0, 1, 2], &[-1, 3]), Err(Error::Argument { .. })));
    assert!(matches!(FlatCsr::new(shape, &[0, 1, 1], &[0], vec![0f32; 2]), Err(Error::Shape { .. })));
    assert!(matches!(make([1, 1 << 20, 1, 1 << 20], &[0, 0], &[]), Err(Error::TooLarge { .. })));
    assert!(FlatCsr::<f32>::from_rows(shape, &[1, 1], vec![0, 6]).is_err());
    assert!(FlatCsr::<f32>::from_rows(shape, &[1], vec![0]).is_err());
    assert!(FlatCsr::<f32>::from_rows(shape, &[1, 1], vec![0]).is_err());
    let empty = make([0, 2, 2, 3], &[], &[]).unwrap();
    assert_eq!((empty.nnz(), empty.to_dense().unwrap().len()), (0, 0));
}
