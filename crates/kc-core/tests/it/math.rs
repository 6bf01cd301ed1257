//! Element-wise functions: error bounds at every level, special values, places in the slice.

use kc_core::math::{self, Function, Real, apply, apply_in_place, reference};
use kc_core::{Isa, KcRng};
use kc_testing::{each_isa, sizes, ulp_distance_f32, ulp_distance_f64};

/// The documented bound of each function, in ulp.
fn bound(function: Function) -> u64 {
    match function {
        Function::Exp | Function::Log | Function::Sin | Function::Cos => 2,
        _ => 4,
    }
}

/// Every 997th f32, which visits all exponents, both signs, denormals and infinities.
fn dense_f32() -> Vec<f32> {
    (0..=u32::MAX).step_by(997).map(f32::from_bits).filter(|x| !x.is_nan()).collect()
}

/// Numbers of all sizes and signs, and many around 1.
fn dense_f64() -> Vec<f64> {
    let mut rng = KcRng::new(11, 0);
    let mut x: Vec<f64> =
        (0..200_000).map(|_| f64::from_bits(rng.next_u64())).filter(|x| !x.is_nan()).collect();
    for scale in [1e-3, 1.0, 10.0, 700.0, 1e5] {
        x.extend((0..100_000).map(|_| scale * (2.0 * rng.uniform() - 1.0)));
    }
    x
}

fn evaluate<T: Real>(isa: Isa, function: Function, x: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    apply(isa, function, x, &mut out).expect("same length");
    out
}

#[test]
fn f32_stays_within_the_documented_bounds() {
    let x = dense_f32();
    for function in Function::ALL {
        each_isa(|isa| {
            let got = evaluate(isa, function, &x);
            let mut worst = (0, 0.0f32);
            for (&x, &y) in x.iter().zip(&got) {
                let want = reference::function(function, f64::from(x)) as f32;
                let ulps = ulp_distance_f32(y, want);
                if ulps > worst.0 {
                    worst = (ulps, x);
                }
            }
            assert!(u64::from(worst.0) <= bound(function), "{function:?} {isa}: {worst:?}");
        });
    }
}

#[test]
fn f64_stays_within_the_documented_bounds() {
    let x = dense_f64();
    for function in Function::ALL {
        each_isa(|isa| {
            let got = evaluate(isa, function, &x);
            let mut worst = (0, 0.0f64);
            for (&x, &y) in x.iter().zip(&got) {
                let ulps = ulp_distance_f64(y, reference::function(function, x));
                if ulps > worst.0 {
                    worst = (ulps, x);
                }
            }
            assert!(worst.0 <= bound(function), "{function:?} {isa}: {worst:?}");
        });
    }
}

#[test]
fn special_values_follow_the_standard_library() {
    let x =
        [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -1.0, f64::MIN_POSITIVE, 5e-324, f64::MAX];
    for function in Function::ALL {
        each_isa(|isa| {
            for (&x, y) in x.iter().zip(evaluate(isa, function, &x)) {
                let want = reference::function(function, x);
                assert!(
                    ulp_distance_f64(y, want) <= bound(function),
                    "{function:?}({x:e}) {isa}: {y:e}, {want:e}"
                );
                let odd =
                    !matches!(function, Function::Exp | Function::Log | Function::Sigmoid | Function::Cos);
                if x == 0.0 && odd {
                    assert_eq!(y.is_sign_negative(), x.is_sign_negative(), "{function:?}({x:?}) {isa}");
                }
            }
        });
    }
}

#[test]
fn a_result_depends_on_the_value_and_not_on_its_place() {
    each_isa(|isa| {
        for function in Function::ALL {
            for len in sizes(8, math::portable::BLOCK) {
                let x: Vec<f32> = (0..len).map(|i| 0.01 + (i % 251) as f32 * 0.11).collect();
                let whole = evaluate(isa, function, &x);
                let mut in_place = x.clone();
                apply_in_place(isa, function, &mut in_place);
                assert_eq!(whole, in_place);
                for (i, &x) in x.iter().enumerate() {
                    assert_eq!(
                        evaluate(isa, function, &[x])[0].to_bits(),
                        whole[i].to_bits(),
                        "{function:?} {isa}"
                    );
                }
            }
        }
    });
}

#[test]
fn lengths_must_agree() {
    let mut short = [0.0f32; 2];
    let error = math::exp(&[1.0f32; 3], &mut short).unwrap_err();
    assert_eq!(error.to_string(), "out: expected 3 elements, as x, got shape [2]");
    assert!(math::dot(&[1.0f64], &[1.0, 2.0]).is_err());
    assert!(math::softmax(&[1.0f64], &mut []).is_err());
}
