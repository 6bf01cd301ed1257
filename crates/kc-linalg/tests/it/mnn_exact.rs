//! The exact quantities and the estimator.

use kc_core::{Error, KcRng, Tensor};
use kc_linalg::mnn::{
    EstimateConfig, ExactMethod, LogBase, MnnConfig, SpectrumConfig, ZeroRows, diff_erank, estimate_nuclear,
    matrix_entropy, mnn, nuclear_norm_exact, reference, spectrum,
};
use kc_linalg::singular_values;
use kc_testing::{Tol, assert_close, normals, same_on_any_pool};

use crate::mnn::{CASES, case};

fn settings(method: ExactMethod) -> SpectrumConfig {
    let mut settings = SpectrumConfig::default();
    settings.method = method;
    settings
}

#[test]
fn golden_spectra_by_every_method() {
    for name in CASES {
        let (x, config, expected) = case(name);
        for method in [ExactMethod::Auto, ExactMethod::Gram, ExactMethod::Svd] {
            let s = spectrum(x.view(), &config, &settings(method)).unwrap();
            for (key, got) in [
                ("nuclear", s.nuclear),
                ("frobenius", s.frobenius),
                ("spectral", s.spectral),
                ("stable_rank", s.stable_rank),
                ("rankme", s.rankme),
                ("erank", s.erank),
                ("schatten4", s.schatten4),
                ("matrix_entropy", s.matrix_entropy),
            ] {
                let want = expected[key].as_f64().unwrap();
                assert!((got - want).abs() <= 3e-6 * want.abs(), "{name} {method:?} {key}: {got} for {want}");
            }
        }
    }
}

/// The ratio that a reader must be shown: on low rank the surrogate is far above the norm.
#[test]
fn the_surrogate_is_not_the_nuclear_norm() {
    let (x, config, _) = case("lowrank");
    let raw = mnn(x.view(), &config).unwrap().raw;
    let exact = nuclear_norm_exact(x.view(), &config, ExactMethod::Auto).unwrap();
    assert!((raw / exact - 5.048).abs() < 1e-2, "{}", raw / exact);
}

#[test]
fn auto_leaves_the_gram_matrix_when_it_loses_digits() {
    let mut rng = KcRng::new(1, 0);
    // Rank 3 exactly, in f64: all other singular values are rounding noise, which the Gram matrix lifts to
    // 1e-8 each.
    let (a, b) = (normals(60 * 3, 1), normals(3 * 50, 2));
    let low = Tensor::<f64, 2>::from_fn([60, 50], |[i, j]| {
        (0..3).map(|k| f64::from(a[i * 3 + k]) * f64::from(b[k * 50 + j])).sum::<f64>()
    })
    .unwrap();
    let full = Tensor::<f64, 2>::from_fn([60, 50], |_| rng.normal()).unwrap();
    let config = MnnConfig::default();
    let used = |x: &Tensor<f64, 2>, method| spectrum(x.view(), &config, &settings(method)).unwrap();
    assert_eq!(used(&full, ExactMethod::Auto).method, ExactMethod::Gram);
    let svd = used(&low, ExactMethod::Svd);
    let auto = used(&low, ExactMethod::Auto);
    assert_close(&[auto.nuclear], &[svd.nuclear], Tol::rel(1e-6));
    assert!(svd.singular_values[3] < 1e-12);
    let direct = singular_values(reference::normalised(low.view(), &config).unwrap().view()).unwrap();
    assert_close(&svd.singular_values[..3], &direct[..3], Tol::rel(1e-13));
}

#[test]
fn gram_of_either_side_and_of_many_panels() {
    let config = MnnConfig::default();
    for (rows, cols) in [(1, 1), (2, 1), (1, 9), (300, 7), (7, 600), (290, 300), (600, 150)] {
        let x = Tensor::<f32, 2>::from_slice([rows, cols], &normals(rows * cols, 3)).unwrap();
        let z = spectrum(x.view(), &config, &settings(ExactMethod::Gram)).unwrap();
        let s = spectrum(x.view(), &config, &settings(ExactMethod::Svd)).unwrap();
        if rows == 1 {
            assert!(z.nuclear.is_nan() && s.nuclear.is_nan() && z.singular_values.is_empty());
            continue;
        }
        assert_eq!(z.singular_values.len(), rows.min(cols));
        assert_close(
            &[z.nuclear, z.frobenius, z.spectral],
            &[s.nuclear, s.frobenius, s.spectral],
            Tol::rel(1e-6),
        );
        assert_close(&[z.frobenius], &[(rows as f64).sqrt()], Tol::rel(1e-12));
        assert!(z.nuclear <= ((rows * rows.min(cols)) as f64).sqrt() * (1.0 + 1e-12));
    }
}

#[test]
fn entropy_bases() {
    let (x, config, expected) = case("minilm_1");
    let [rows, dim] = x.shape();
    let published = matrix_entropy(x.view(), &config, LogBase::Dim).unwrap();
    let own = matrix_entropy(x.view(), &config, LogBase::MinSide).unwrap();
    assert_close(&[published], &[expected["matrix_entropy"].as_f64().unwrap()], Tol::rel(3e-6));
    assert_close(&[own * (rows as f64).ln()], &[published * (dim as f64).ln()], Tol::rel(1e-12));
    assert!(own <= 1.0);
}

#[test]
fn erank_differences() {
    let (a, config, ea) = case("minilm_4");
    let (b, _, eb) = case("minilm_0");
    let got = diff_erank(a.view(), b.view(), &config, &SpectrumConfig::default()).unwrap();
    let want = ea["erank"].as_f64().unwrap() - eb["erank"].as_f64().unwrap();
    assert_close(&[got], &[want], Tol::rel(3e-6));
    assert_eq!(diff_erank(a.view(), a.view(), &config, &SpectrumConfig::default()).unwrap(), 0.0);
}

#[test]
fn zero_rows_and_bad_input() {
    let x = Tensor::<f32, 2>::zeros([3, 4]).unwrap();
    let mut config = MnnConfig::default();
    assert!(spectrum(x.view(), &config, &SpectrumConfig::default()).unwrap().erank.is_nan());
    config.zero_rows = ZeroRows::Drop;
    assert_eq!(spectrum(x.view(), &config, &SpectrumConfig::default()).unwrap().nuclear, 0.0);
    config.zero_rows = ZeroRows::Error;
    assert!(matches!(spectrum(x.view(), &config, &SpectrumConfig::default()), Err(Error::Argument { .. })));
    let empty = Tensor::<f64, 2>::zeros([0, 4]).unwrap();
    assert!(matches!(nuclear_norm_exact(empty.view(), &config, ExactMethod::Auto), Err(Error::Empty { .. })));
    let mut bad = Tensor::<f64, 2>::zeros([3, 4]).unwrap();
    bad[[1, 2]] = f64::NAN;
    for center in [true, false] {
        config.center = center;
        let error = nuclear_norm_exact(bad.view(), &config, ExactMethod::Svd).unwrap_err();
        assert!(matches!(error, Error::NotFinite { ref index, .. } if *index == [1, 2]));
    }
}

#[test]
fn exact_values_do_not_depend_on_threads() {
    let x = Tensor::<f32, 2>::from_slice([300, 280], &normals(300 * 280, 3)).unwrap();
    same_on_any_pool(|| spectrum(x.view(), &MnnConfig::default(), &settings(ExactMethod::Gram)).unwrap());
}

#[test]
fn estimates_come_with_honest_errors() {
    let config = MnnConfig::default();
    let mut estimate = EstimateConfig::default();
    for (rows, cols) in [(400, 150), (150, 400)] {
        let x = Tensor::<f32, 2>::from_slice([rows, cols], &normals(rows * cols, 3)).unwrap();
        let exact = nuclear_norm_exact(x.view(), &config, ExactMethod::Svd).unwrap();
        let mut beyond = 0;
        for seed in 0..8 {
            estimate.seed = seed;
            let e = estimate_nuclear(x.view(), &config, &estimate).unwrap();
            assert!((e.nuclear / exact - 1.0).abs() < 0.05, "{} for {exact}", e.nuclear);
            assert!(e.std_error > 0.0 && e.std_error < 0.05 * exact);
            beyond += usize::from((e.nuclear - exact).abs() > 2.5 * e.std_error + e.quadrature_error);
        }
        assert!(beyond <= 2, "{beyond} of 8 estimates are further off than they say");
    }
    // Rank below the number of deflated vectors: nothing is left to chance.
    let (a, b) = (normals(90 * 5, 1), normals(5 * 70, 2));
    let low = Tensor::<f64, 2>::from_fn([90, 70], |[i, j]| {
        (0..5).map(|k| f64::from(a[i * 5 + k]) * f64::from(b[k * 70 + j])).sum::<f64>()
    })
    .unwrap();
    let e = estimate_nuclear(low.view(), &config, &estimate).unwrap();
    let exact = nuclear_norm_exact(low.view(), &config, ExactMethod::Svd).unwrap();
    assert_close(&[e.nuclear], &[exact], Tol::rel(1e-6));
    assert!(e.std_error < 1e-6 * exact);
}

#[test]
fn estimates_repeat_and_refuse() {
    let x = Tensor::<f32, 2>::from_slice([600, 40], &normals(600 * 40, 3)).unwrap();
    let config = MnnConfig::default();
    let e = same_on_any_pool(|| estimate_nuclear(x.view(), &config, &EstimateConfig::default()).unwrap());
    assert!(e.steps <= 24 && e.probes == 32);
    let mut few = EstimateConfig::default();
    few.probes = 3;
    assert!(matches!(estimate_nuclear(x.view(), &config, &few), Err(Error::Argument { .. })));
    few = EstimateConfig::default();
    few.steps = 1;
    assert!(matches!(estimate_nuclear(x.view(), &config, &few), Err(Error::Argument { .. })));
    let one = Tensor::<f32, 2>::zeros([1, 5]).unwrap();
    assert!(estimate_nuclear(one.view(), &config, &EstimateConfig::default()).unwrap().nuclear.is_nan());
}
