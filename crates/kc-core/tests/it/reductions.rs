//! Softmax, sums, products, extremes and top-k.

use kc_core::math::{self, reference};
use kc_testing::{Tol, assert_close, each_isa, normals, sizes};
use proptest::prelude::*;

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn sums_and_products_match_the_reference_at_every_length() {
    each_isa(|isa| {
        for len in sizes(8, 256) {
            let (x, y) = (normals(len, 1), normals(len, 2));
            let want = reference::dot(&widen(&x), &widen(&y));
            let size: f64 = x.iter().zip(&y).map(|(x, y)| f64::from((x * y).abs())).sum();
            let allowed = (len as f64 / 32.0 + 6.0) * f64::from(f32::EPSILON) * size;
            let got = math::dot_with(isa, &x, &y).expect("same length");
            assert!((f64::from(got) - want).abs() <= allowed, "{isa} {len}");
            let exact = math::dot_f64_with(isa, &x, &y).expect("same length");
            assert!((exact - want).abs() <= 1e-14 * size, "{isa} {len}");
            let total: f64 = widen(&x).iter().sum();
            assert!((math::sum_f64_with(isa, &x) - total).abs() <= 1e-14 * (1.0 + size));
            assert_eq!(
                math::sum_with(isa, &x).to_bits(),
                math::sum_with(kc_core::Isa::PORTABLE, &x).to_bits()
            );
        }
    });
}

#[test]
fn softmax_and_log_sum_exp_match_the_reference() {
    each_isa(|isa| {
        for len in sizes(8, 256) {
            let x: Vec<f32> = normals(len, 3).iter().map(|x| 20.0 * x).collect();
            let mut out = vec![0.0; len];
            math::softmax_with(isa, &x, &mut out).expect("same length");
            // Rounding x - max costs half an ulp of the difference, which exp turns into a relative error.
            let range = math::min_max(&x).map_or(0.0, |(low, high)| f64::from(high - low));
            let allowed = (4.0 + range) * f64::from(f32::EPSILON);
            assert_close(&out, &reference::softmax(&widen(&x)), Tol::new(allowed, 1e-37));
            if len > 0 {
                let want = reference::log_sum_exp(&widen(&x));
                assert_close(&[math::log_sum_exp_with(isa, &x)], &[want], Tol::rel(1e-6));
            }
        }
    });
}

#[test]
fn softmax_survives_extremes() {
    each_isa(|isa| {
        let mut out = [0.0f32; 3];
        math::softmax_with(isa, &[1e30, 1e30, f32::NEG_INFINITY], &mut out).expect("same length");
        assert_eq!(out, [0.5, 0.5, 0.0]);
        math::softmax_with(isa, &[f32::NEG_INFINITY; 3], &mut out).expect("same length");
        assert!(out.iter().all(|x| x.is_nan()));
        assert_eq!(math::log_sum_exp_with(isa, &[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
        assert_eq!(math::log_sum_exp_with::<f32>(isa, &[]), f32::NEG_INFINITY);
        assert!(math::log_sum_exp_with(isa, &[1.0, f32::NAN]).is_nan());
    });
}

#[test]
fn extremes_are_found_anywhere_and_nan_propagates() {
    each_isa(|isa| {
        for len in sizes(8, 64).into_iter().filter(|&len| len > 0) {
            for at in 0..len {
                let mut x = vec![0.0f64; len];
                x[at] = 3.0;
                assert_eq!(math::min_max_with(isa, &x), Some((if len == 1 { 3.0 } else { 0.0 }, 3.0)));
                assert_eq!(math::arg_max(&x), Some(at));
                x[at] = f64::NAN;
                assert!(math::min_max_with(isa, &x).is_some_and(|(low, high)| low.is_nan() && high.is_nan()));
                assert_eq!(math::arg_max(&x), Some(at));
            }
        }
        assert_eq!(math::min_max_with::<f32>(isa, &[]), None);
    });
}

#[test]
fn top_k_puts_nan_first_and_equals_in_order() {
    each_isa(|isa| {
        let (values, at) =
            math::top_k_with(isa, &[1.0f32, 5.0, f32::NAN, 5.0, 2.0], 4).expect("k is small enough");
        assert!(values[0].is_nan());
        assert_eq!((&values[1..], &at[..]), (&[5.0, 5.0, 2.0][..], &[2, 1, 3, 4][..]));
    });
    assert!(math::top_k(&[1.0f32], 2).is_err());
    assert_eq!(math::top_k(&[1.0f32], 0).expect("k is small enough"), (vec![], vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn top_k_is_the_head_of_a_stable_sort(seed in 0u64..1000, len in 1usize..3000, share in 0.0f64..1.0) {
        // Few distinct values, so that ties are many.
        let x: Vec<f32> = normals(len, seed).iter().map(|x| (x * 4.0).round()).collect();
        let k = (share * len as f64) as usize;
        let want = reference::top_k(&widen(&x).iter().map(|x| x + 0.0).collect::<Vec<_>>(), k);
        each_isa(|isa| assert_eq!(math::top_k_with(isa, &x, k).expect("k is small enough").1, want));
    }

    #[test]
    fn softmax_sums_to_one_and_ignores_shifts(seed in 0u64..1000, len in 1usize..500, shift in -8i32..8) {
        let x: Vec<f64> = normals(len, seed).iter().map(|&x| f64::from(x)).collect();
        // A power of two shifts without rounding more than the sum itself does.
        let shifted: Vec<f64> = x.iter().map(|x| x + f64::from(shift)).collect();
        let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
        math::softmax(&x, &mut a).expect("same length");
        math::softmax(&shifted, &mut b).expect("same length");
        prop_assert!((math::sum(&a) - 1.0).abs() < 1e-12);
        assert_close(&a, &b, Tol::rel(1e-13));
    }
}
