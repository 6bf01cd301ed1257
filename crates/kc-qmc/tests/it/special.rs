//! Special functions against values of 40 digits.

use kc_qmc::small::{cholesky, eigen_symmetric};

#[test]
fn eigenvectors_rebuild_the_matrix() {
    for n in [1usize, 2, 3, 5, 17, 64] {
        let raw = kc_testing::normals(n * n, n as u64);
        let a: Vec<f64> =
            (0..n * n).map(|at| f64::from(raw[at]) + f64::from(raw[at % n * n + at / n])).collect();
        let eigen = eigen_symmetric(&a, n).unwrap();
        let size = a.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(eigen.values.is_sorted_by(|x, y| x >= y));
        for i in 0..n {
            for j in 0..n {
                let row = |k: usize| &eigen.vectors[k * n..(k + 1) * n];
                let rebuilt: f64 = (0..n).map(|k| eigen.values[k] * row(k)[i] * row(k)[j]).sum();
                assert!((rebuilt - a[i * n + j]).abs() < 1e-13 * size, "n = {n}");
                let dot: f64 = row(i).iter().zip(row(j)).map(|(x, y)| x * y).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-13, "n = {n}");
            }
            assert!(eigen.vectors[i * n] >= 0.0);
        }
    }
}

#[test]
fn cholesky_rebuilds_the_matrix_and_refuses_others() {
    let a = [4.0, 2.0, 2.0, 3.0];
    let l = cholesky("a", &a, 2).unwrap();
    assert_eq!(l, [2.0, 0.0, 1.0, 2f64.sqrt()]);
    assert!(matches!(
        cholesky("a", &[1.0, 2.0, 2.0, 1.0], 2),
        Err(kc_core::Error::Singular { index: 1, .. })
    ));
}
