//! Decompositions: closed forms, reconstruction, orthogonality, invariances, refusals.

use kc_core::{Error, KcRng, Tensor, TensorView};
use kc_linalg::{Real, Vectors, cholesky, eigh, eigvalsh, singular_values, svd};
use kc_testing::{same_on_any_pool, strided};
use proptest::prelude::*;

fn random<T: Real>(shape: [usize; 2], seed: u64) -> Tensor<T, 2> {
    let mut rng = KcRng::new(seed, 0);
    Tensor::from_fn(shape, |_| T::from_f64(rng.normal())).unwrap()
}

fn symmetric<T: Real>(n: usize, seed: u64) -> Tensor<T, 2> {
    let a = random::<T>([n, n], seed);
    Tensor::from_fn([n, n], |[i, j]| T::from_f64(0.5 * (a[[i, j]].to_f64() + a[[j, i]].to_f64()))).unwrap()
}

fn product<T: Real>(a: TensorView<'_, T, 2>, b: TensorView<'_, T, 2>) -> Tensor<f64, 2> {
    let k = a.cols();
    Tensor::from_fn([a.rows(), b.cols()], |[i, j]| {
        (0..k).map(|l| a.at([i, l]).to_f64() * b.at([l, j]).to_f64()).sum()
    })
    .unwrap()
}

fn worst<T: Real>(a: &Tensor<f64, 2>, b: TensorView<'_, T, 2>) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.as_slice().iter().zip(b.iter()).map(|(x, y)| (x - y.to_f64()).abs()).fold(0.0, f64::max)
}

fn assert_orthogonal<T: Real>(q: &Tensor<T, 2>) {
    let [rows, cols] = q.shape();
    let gram = product(q.view().transposed(), q.view());
    let eye = Tensor::<f64, 2>::from_fn([cols, cols], |[i, j]| f64::from(u8::from(i == j))).unwrap();
    assert!(worst(&gram, eye.view()) <= 16.0 * T::EPS * (rows.max(1) as f64).sqrt(), "not orthogonal");
}

fn check_eigh<T: Real>(n: usize) {
    let a = symmetric::<T>(n, n as u64);
    let e = eigh(a.view()).unwrap();
    assert!(e.values.is_sorted());
    assert_orthogonal(&e.vectors);
    let scaled =
        Tensor::from_fn([n, n], |[i, j]| T::from_f64(e.vectors[[i, j]].to_f64() * e.values[j].to_f64()))
            .unwrap();
    let back = product(scaled.view(), e.vectors.view().transposed());
    let size = (n.max(1) as f64).sqrt();
    assert!(worst(&back, a.view()) <= 32.0 * T::EPS * size, "n = {n}: {}", worst(&back, a.view()));
    let only = eigvalsh(a.view()).unwrap();
    let gap = only.iter().zip(&e.values).map(|(x, y)| (x.to_f64() - y.to_f64()).abs()).fold(0.0, f64::max);
    // Without vectors another algorithm runs; both promise a small multiple of n eps |A|.
    let norm = e.values.iter().fold(0.0f64, |m, v| m.max(v.to_f64().abs()));
    assert!(gap <= 2.0 * T::EPS * n as f64 * norm, "n = {n}: values differ by {gap:e}");
}

fn check_svd<T: Real>(m: usize, n: usize, vectors: Vectors) {
    let a = random::<T>([m, n], (m * 31 + n) as u64);
    let s = svd(a.view(), vectors).unwrap();
    let k = m.min(n);
    assert_eq!(s.values.len(), k);
    assert!(s.values.is_sorted_by(|a, b| a >= b) && s.values.iter().all(|&v| v >= T::default()));
    let (left, right) = if vectors == Vectors::Full { (m, n) } else { (k, k) };
    assert_eq!((s.u.shape(), s.v.shape()), ([m, left], [n, right]));
    assert_orthogonal(&s.u);
    assert_orthogonal(&s.v);
    let scaled =
        Tensor::from_fn([m, k], |[i, j]| T::from_f64(s.u[[i, j]].to_f64() * s.values[j].to_f64())).unwrap();
    let v = s.v.view().slice(1, 0..k).unwrap();
    let back = product(scaled.view(), v.transposed());
    let size = (m.max(n).max(1) as f64).sqrt();
    assert!(worst(&back, a.view()) <= 64.0 * T::EPS * size, "{m} x {n}");
    let only = singular_values(a.view()).unwrap();
    for (x, y) in only.iter().zip(&s.values) {
        assert!((x.to_f64() - y.to_f64()).abs() <= 64.0 * T::EPS * size);
    }
}

#[test]
fn eigen_decompositions_reconstruct() {
    for n in [0, 1, 2, 3, 7, 16, 33, 64, 130] {
        check_eigh::<f64>(n);
        check_eigh::<f32>(n);
    }
}

#[test]
fn singular_decompositions_reconstruct() {
    for (m, n) in
        [(0, 0), (0, 3), (3, 0), (1, 1), (1, 5), (5, 1), (4, 4), (20, 7), (7, 20), (90, 40), (33, 65)]
    {
        for vectors in [Vectors::Thin, Vectors::Full] {
            check_svd::<f64>(m, n, vectors);
            check_svd::<f32>(m, n, vectors);
        }
    }
}

/// The second difference has eigenvalues 2 - 2 cos(pi k / (n + 1)).
#[test]
fn the_second_difference_has_its_known_spectrum() {
    let n = 100;
    let a = Tensor::<f64, 2>::from_fn([n, n], |[i, j]| match i.abs_diff(j) {
        0 => 2.0,
        1 => -1.0,
        _ => 0.0,
    })
    .unwrap();
    let known = |k: usize| 2.0 - 2.0 * (std::f64::consts::PI * k as f64 / (n as f64 + 1.0)).cos();
    let eigen = eigvalsh(a.view()).unwrap();
    let singular = singular_values(a.view()).unwrap();
    let factor = cholesky(a.view()).unwrap();
    for k in 0..n {
        assert!((eigen[k] - known(k + 1)).abs() < 1e-13);
        assert!((singular[n - 1 - k] - known(k + 1)).abs() < 1e-13);
        // Pivots of the second difference are (k + 2) / (k + 1).
        assert!((factor[[k, k]].powi(2) - (k as f64 + 2.0) / (k as f64 + 1.0)).abs() < 1e-13);
    }
}

#[test]
fn cholesky_reconstructs_and_names_the_pivot() {
    for n in [0, 1, 2, 5, 17, 64, 100] {
        let b = random::<f64>([n, n + 3], 5);
        let a = product(b.view(), b.view().transposed());
        let l = cholesky(a.view()).unwrap();
        for i in 0..n {
            assert!((i + 1..n).all(|j| l[[i, j]] == 0.0));
        }
        let back = product(l.view(), l.view().transposed());
        assert!(worst(&back, a.view()) <= 32.0 * f64::EPSILON * (n.max(1) as f64) * 4.0);
    }
    let mut a = Tensor::<f64, 2>::from_fn([40, 40], |[i, j]| f64::from(u8::from(i == j))).unwrap();
    a[[23, 23]] = -1.0;
    assert_eq!(cholesky(a.view()).unwrap_err(), Error::Singular { arg: "a".into(), index: 23 });
}

#[test]
fn only_the_lower_triangle_is_read() {
    let a = symmetric::<f64>(9, 3);
    let poisoned = Tensor::from_fn([9, 9], |[i, j]| if j > i { f64::NAN } else { a[[i, j]] }).unwrap();
    assert_eq!(eigvalsh(poisoned.view()).unwrap(), eigvalsh(a.view()).unwrap());
    assert_eq!(eigh(poisoned.view()).unwrap().values, eigh(a.view()).unwrap().values);
    let definite = Tensor::from_fn([9, 9], |[i, j]| if i == j { 20.0 } else { poisoned[[i, j]] }).unwrap();
    assert!(cholesky(definite.view()).unwrap().as_slice().iter().all(|x| x.is_finite()));
}

#[test]
fn any_strides_give_the_same_values() {
    let (m, n) = (9, 6);
    let values = random::<f64>([m, n], 8).into_vec();
    let views = strided(m, n, &values, f64::NAN);
    let want = singular_values(views[0].view()).unwrap();
    for other in &views {
        let got = singular_values(other.view()).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-14 * want[0]));
        let thin = svd(other.view(), Vectors::Thin).unwrap();
        assert!(thin.values.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-14 * want[0]));
    }
    let a = symmetric::<f64>(6, 2).into_vec();
    let views = strided(6, 6, &a, f64::NAN);
    let want = eigvalsh(views[0].view()).unwrap();
    for other in &views[..] {
        let got = eigvalsh(other.view()).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-14));
    }
}

#[test]
fn threads_do_not_change_bits() {
    let a = symmetric::<f64>(150, 1);
    let b = random::<f32>([120, 200], 2);
    same_on_any_pool(|| eigh(a.view()).unwrap().vectors.into_vec());
    same_on_any_pool(|| svd(b.view(), Vectors::Thin).unwrap().u.into_vec());
}

#[test]
fn bad_input_is_refused() {
    let mut a = random::<f64>([3, 4], 1);
    assert!(matches!(eigvalsh(a.view()), Err(Error::Shape { .. })));
    assert!(matches!(eigh(a.view()), Err(Error::Shape { .. })));
    assert!(matches!(cholesky(a.view()), Err(Error::Shape { .. })));
    a[[2, 1]] = f64::INFINITY;
    let error = Error::not_finite("a", &[2, 1], f64::INFINITY);
    assert_eq!(singular_values(a.view()).unwrap_err(), error);
    assert_eq!(svd(a.view(), Vectors::Thin).unwrap_err(), error);
    let square = a.view().slice(1, 0..3).unwrap();
    assert_eq!(eigh(square).unwrap_err(), error);
    assert_eq!(cholesky(square).unwrap_err(), error);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Trace, Frobenius norm, and Weyl's inequality under a perturbation of known norm.
    #[test]
    fn spectra_obey_the_invariants(n in 1usize..24, seed in 0u64..1000) {
        let a = symmetric::<f64>(n, seed);
        let values = eigvalsh(a.view()).unwrap();
        let trace: f64 = (0..n).map(|i| a[[i, i]]).sum();
        let frobenius: f64 = a.as_slice().iter().map(|x| x * x).sum();
        prop_assert!((values.iter().sum::<f64>() - trace).abs() < 1e-12 * n as f64);
        prop_assert!((values.iter().map(|v| v * v).sum::<f64>() - frobenius).abs() < 1e-12 * frobenius.max(1.0));
        let e = symmetric::<f64>(n, seed + 1);
        let bound = singular_values(e.view()).unwrap()[0];
        let sum = Tensor::from_fn([n, n], |at| a[at] + e[at]).unwrap();
        for (moved, value) in eigvalsh(sum.view()).unwrap().iter().zip(&values) {
            prop_assert!((moved - value).abs() <= bound + 1e-12);
        }
    }
}
