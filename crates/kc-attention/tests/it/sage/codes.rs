//! Codes, scales and means against the fixtures.

use kc_attention::sage::{Quantized, SageConfig, quantize_k, quantize_q};
use kc_core::Tensor;
use kc_testing::{Tol, assert_close, each_isa, golden_tensor};

use super::{CASES, case, config};

/// Differing codes: at most 1 of 1000, each by 1.
fn assert_codes(name: &str, got: &[i8], want: &[i8]) {
    let off: Vec<i32> =
        got.iter().zip(want).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).filter(|d| *d > 0).collect();
    assert!(
        off.iter().all(|d| *d == 1) && off.len() * 1000 <= got.len(),
        "{name}: {} codes differ",
        off.len()
    );
}

#[test]
fn codes_scales_and_means_are_those_of_the_fixtures() {
    each_isa(|isa| {
        for name in CASES {
            let config = SageConfig { isa, ..config(&case(name)["opts"]) };
            let path = |file: &str| format!("sage_attention2/{name}/{file}.npy");
            let x = |file| -> Tensor<f32, 4> { golden_tensor(&path(file)) };
            let check = |side: &str, found: &Quantized, mean: &[f32]| {
                let codes: Tensor<i8, 4> = golden_tensor(&path(&format!("{side}_codes")));
                let scales: Tensor<f32, 3> = golden_tensor(&path(&format!("{side}_scale")));
                assert_eq!(found.codes.shape(), codes.shape());
                assert_codes(name, found.codes.as_slice(), codes.as_slice());
                assert_eq!(found.scales.shape(), scales.shape());
                assert_close(found.scales.as_slice(), scales.as_slice(), Tol::rel(1e-6));
                assert_close(found.mean.as_slice(), mean, Tol::abs(1e-6));
            };
            let (q, k) = (x("q"), x("k"));
            check("q", &quantize_q(q.view(), &config).unwrap(), x("qm").as_slice());
            let km: Tensor<f32, 3> = golden_tensor(&path("km"));
            check("k", &quantize_k(k.view(), &config).unwrap(), km.as_slice());
        }
    });
}
