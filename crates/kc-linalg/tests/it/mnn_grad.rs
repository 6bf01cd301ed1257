//! Gradients: golden, against finite differences through the whole chain, ties, zero rows.

use kc_core::{Error, KcRng, Tensor, TensorView, bf16};
use kc_linalg::mnn::{MnnConfig, ZeroRows, mnn, mnn_backward, mnn_backward_into};
use kc_testing::{Tol, assert_close, assert_gradient, golden_tensor, same_on_any_pool};

#[test]
fn golden_gradients_of_the_normalised_matrix() {
    let z = golden_tensor::<f64, 2>("matrix_nuclear_norm/grad_z.npy");
    let mut config = MnnConfig::default();
    (config.center, config.normalize) = (false, false);
    for (top, name) in [(9, "grad_expected"), (4, "grad_expected_top4")] {
        config.top = Some(top);
        let want = golden_tensor::<f64, 2>(&format!("matrix_nuclear_norm/{name}.npy"));
        let got = mnn_backward(z.view(), 1.0, &config).unwrap();
        assert_close(got.as_slice(), want.as_slice(), Tol::new(1e-12, 1e-15));
    }
}

#[test]
fn differences_agree_in_every_configuration() {
    let mut rng = KcRng::new(4, 0);
    for (rows, cols) in [(7, 5), (5, 8), (2, 3)] {
        let x = Tensor::<f64, 2>::from_fn([rows, cols], |_| rng.normal() + 0.5).unwrap();
        for (center, normalize) in [(true, true), (true, false), (false, true), (false, false)] {
            for top in [None, Some(2)] {
                let mut config = MnnConfig::default();
                (config.center, config.normalize, config.top) = (center, normalize, top);
                let f =
                    |x: &[f64]| mnn(TensorView::from_slice([rows, cols], x).unwrap(), &config).unwrap().raw;
                let gradient = mnn_backward(x.view(), 1.0, &config).unwrap();
                assert_gradient(f, x.as_slice(), gradient.as_slice(), 1e-5, 1e-7);
            }
        }
    }
}

#[test]
fn upstream_scales_and_types_agree() {
    let mut rng = KcRng::new(4, 0);
    let x = Tensor::<f64, 2>::from_fn([70, 30], |_| f64::from(bf16::from_f64(rng.normal()))).unwrap();
    let config = MnnConfig::default();
    let want = mnn_backward(x.view(), 1.0, &config).unwrap();
    let twice = mnn_backward(x.view(), 2.0, &config).unwrap();
    let doubled: Vec<f64> = want.as_slice().iter().map(|g| 2.0 * g).collect();
    assert_close(twice.as_slice(), &doubled, Tol::new(1e-12, 1e-16));
    let scale = want.as_slice().iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let single = Tensor::<f32, 2>::from_fn([70, 30], |at| x[at] as f32).unwrap();
    let got = mnn_backward(single.view(), 1.0, &config).unwrap();
    // The rounding of f32 through a decomposition: a few units, and not the same on every level.
    assert_close(got.as_slice(), want.as_slice(), Tol::abs(16.0 * f64::from(f32::EPSILON) * scale));
    let half = Tensor::<bf16, 2>::from_fn([70, 30], |at| bf16::from_f64(x[at])).unwrap();
    let got = mnn_backward(half.view(), 1.0, &config).unwrap();
    assert_close(got.as_slice(), want.as_slice(), Tol::abs(5e-3 * scale));
    // Moving all rows together changes nothing, and neither does scaling the centred matrix.
    for j in 0..30 {
        let column: f64 = (0..70).map(|i| want[[i, j]]).sum();
        assert!(column.abs() < 1e-12);
    }
    same_on_any_pool(|| mnn_backward(single.view(), 1.0, &config).unwrap().into_vec());
}

#[test]
fn equal_columns_go_to_the_lower_index() {
    let z = Tensor::<f64, 2>::from_slice([2, 4], &[1.0, 2.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
    let mut config = MnnConfig::default();
    (config.center, config.normalize, config.top) = (false, false, Some(2));
    let g = mnn_backward(z.view(), 1.0, &config).unwrap();
    assert_eq!(g.as_slice(), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    // A column of zeros has no slope.
    config.top = None;
    let z = Tensor::<f64, 2>::from_slice([2, 2], &[0.0, 2.0, 0.0, 0.0]).unwrap();
    assert_eq!(mnn_backward(z.view(), 1.0, &config).unwrap().as_slice(), [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn zero_rows_and_bad_input() {
    let x = Tensor::<f64, 2>::from_slice([3, 2], &[1.0, 2.0, -1.0, -2.0, 0.0, 0.0]).unwrap();
    let mut config = MnnConfig::default();
    assert!(mnn_backward(x.view(), 1.0, &config).unwrap().as_slice().iter().all(|g| g.is_nan()));
    config.zero_rows = ZeroRows::Drop;
    assert!(mnn_backward(x.view(), 1.0, &config).unwrap().as_slice().iter().all(|g| g.is_finite()));
    config.zero_rows = ZeroRows::Error;
    assert!(matches!(mnn_backward(x.view(), 1.0, &config), Err(Error::Argument { .. })));
    let mut out = Tensor::<f64, 2>::zeros([2, 2]).unwrap();
    config.zero_rows = ZeroRows::Drop;
    let error = mnn_backward_into(x.view(), 1.0, out.view_mut(), &config).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }));
    let mut wide = Tensor::<f64, 2>::zeros([3, 4]).unwrap();
    let part = wide.view_mut().slice(1, 0..2).unwrap();
    assert!(matches!(mnn_backward_into(x.view(), 1.0, part, &config), Err(Error::Unsupported { .. })));
}
