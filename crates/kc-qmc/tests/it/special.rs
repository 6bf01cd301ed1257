//! Special functions against values of 40 digits and more.

use kc_core::Isa;
use kc_qmc::small::{cholesky, eigen_symmetric};
use kc_qmc::special::{
    bessel_k, beta_pq, beta_quantile, erfc, gamma_pq, gamma_quantile, ln_gamma, normal_cdf, normal_quantile,
    normal_quantiles, normal_quantiles_with, t_cdf, t_quantile,
};
use kc_testing::{each_isa, golden_json, sizes};

/// The rows of a table of the golden file.
fn table(name: &str) -> Vec<Vec<f64>> {
    let file = golden_json("qmcpy/special.json");
    let rows = file[name].as_array().unwrap_or_else(|| panic!("no table {name}"));
    rows.iter().map(|row| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()).collect()
}

fn close(what: &str, row: &[f64], got: f64, want: f64, tolerance: f64) {
    let error = if got == want { 0.0 } else { (got - want).abs() / want.abs().max(f64::MIN_POSITIVE) };
    assert!(error <= tolerance, "{what} {row:?}: {got:e}, want {want:e}, error {error:.1e}");
}

#[test]
fn normal_quantile_is_exact_to_2e_15_on_every_level() {
    let rows = table("normal_quantile");
    for row in &rows {
        close("normal_quantile", row, normal_quantile(row[0]), row[1], 2e-15);
    }
    let u: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    each_isa(|isa| {
        let mut x = vec![0.0; u.len()];
        normal_quantiles_with(isa, &u, &mut x).unwrap();
        for (row, &x) in rows.iter().zip(&x) {
            close("normal_quantiles", row, x, row[1], 2e-15);
        }
    });
}

#[test]
fn slices_of_any_length_give_what_single_values_give() {
    let seed: kc_qmc::Seed = 3u64.into();
    let mut rng = seed.rng();
    for len in sizes(4, 256).into_iter().chain([255, 257, 1000]) {
        for scale in [1.0, 0.05, 1e-12] {
            let u: Vec<f64> = (0..len).map(|_| rng.uniform() * scale).collect();
            let mut alone = vec![0.0; len];
            normal_quantiles_with(Isa::PORTABLE, &u, &mut alone).unwrap();
            for (&u, &x) in u.iter().zip(&alone) {
                assert_eq!(x, normal_quantile(u));
            }
            each_isa(|isa| {
                let (mut all, mut one) = (vec![0.0; len], [0.0]);
                normal_quantiles_with(isa, &u, &mut all).unwrap();
                for (i, (&x, &y)) in all.iter().zip(&alone).enumerate() {
                    close("normal_quantiles", &[u[i]], x, y, 1e-15);
                    normal_quantiles_with(isa, &u[i..=i], &mut one).unwrap();
                    assert_eq!(one[0], x, "place {i} of {len}");
                }
            });
        }
    }
    assert!(normal_quantiles(&[0.5], &mut []).is_err());
}

#[test]
fn ends_and_outsiders_of_the_normal_quantile() {
    let u = [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY, 0.5, 5e-324];
    each_isa(|isa| {
        let mut x = [0.0; 8];
        normal_quantiles_with(isa, &u, &mut x).unwrap();
        assert_eq!(x[..2], [f64::NEG_INFINITY, f64::INFINITY]);
        assert!(x[2..6].iter().all(|x| x.is_nan()), "{x:?}");
        assert_eq!(x[6], 0.0);
        assert!((x[7] + 38.467).abs() < 1e-3, "{x:?}");
    });
}

#[test]
fn distribution_functions_have_small_relative_errors() {
    for row in table("normal_cdf") {
        close("normal_cdf", &row, normal_cdf(row[0]), row[1], 2e-15);
    }
    for row in table("erfc") {
        close("erfc", &row, erfc(row[0]), row[1], 2e-15);
    }
    for row in table("ln_gamma") {
        close("ln_gamma", &row, ln_gamma(row[0]), row[1], 2e-15);
    }
    for row in table("gamma_pq") {
        let (p, q) = gamma_pq(row[0], row[1]);
        close("gamma_pq p", &row, p, row[2], 1e-13);
        close("gamma_pq q", &row, q, row[3], 1e-13);
    }
    for row in table("beta_pq") {
        let (p, q) = beta_pq(row[0], row[1], row[2], 1.0 - row[2]);
        close("beta_pq p", &row, p, row[3], 1e-13);
        close("beta_pq q", &row, q, row[4], 1e-13);
    }
    for row in table("t_cdf") {
        close("t_cdf", &row, t_cdf(row[1], row[0]), row[2], 1e-13);
    }
    for row in table("bessel_k") {
        close("bessel_k", &row, bessel_k(row[0], row[1]), row[2], 1e-13);
    }
}

#[test]
fn quantiles_are_exact_to_1e_13() {
    for row in table("gamma_quantile") {
        close("gamma_quantile", &row, gamma_quantile(row[0], row[1], 1.0 - row[1]), row[2], 1e-13);
    }
    for row in table("beta_quantile") {
        let (x, y) = beta_quantile(row[0], row[1], row[2], 1.0 - row[2]);
        close("beta_quantile x", &row, x, row[3], 1e-13);
        close("beta_quantile y", &row, y, row[4], 1e-13);
    }
    for row in table("t_quantile") {
        close("t_quantile", &row, t_quantile(row[1], row[0]), row[2], 1e-13);
    }
}

#[test]
fn outsiders_of_the_other_quantiles() {
    assert_eq!(gamma_quantile(2.0, 0.0, 1.0), 0.0);
    assert_eq!(gamma_quantile(2.0, 1.0, 0.0), f64::INFINITY);
    assert!(gamma_quantile(-1.0, 0.5, 0.5).is_nan() && gamma_quantile(1.0, -0.5, 1.5).is_nan());
    assert_eq!(beta_quantile(2.0, 3.0, 0.0, 1.0), (0.0, 1.0));
    assert_eq!(beta_quantile(2.0, 3.0, 1.0, 0.0), (1.0, 0.0));
    assert!(beta_quantile(0.0, 3.0, 0.5, 0.5).0.is_nan());
    assert_eq!(t_quantile(0.0, 3.0), f64::NEG_INFINITY);
    assert_eq!(t_quantile(1.0, 3.0), f64::INFINITY);
    assert_eq!(t_quantile(0.5, 3.0), 0.0);
    assert!(
        t_quantile(1.5, 3.0).is_nan() && t_quantile(0.5, 0.0).is_nan() && t_quantile(f64::NAN, 1.0).is_nan()
    );
    assert!(gamma_pq(1.0, -1.0).0.is_nan() && beta_pq(1.0, 1.0, -0.5, 1.5).0.is_nan());
    assert!(
        bessel_k(1.0, 0.0) == f64::INFINITY
            && bessel_k(1.0, -1.0).is_nan()
            && bessel_k(1.0, f64::INFINITY) == 0.0
    );
    assert!(ln_gamma(-1.0).is_nan() && ln_gamma(0.0) == f64::INFINITY);
}

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
