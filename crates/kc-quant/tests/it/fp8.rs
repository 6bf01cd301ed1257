//! FP8 against every code and every rounding case.

use kc_core::{Error, Tensor};
use kc_quant::fp8::{self, E4M3};
use kc_testing::{each_isa, golden_tensor, normals};
use proptest::prelude::*;

#[test]
fn every_code_decodes() {
    let want: Tensor<f32, 1> = golden_tensor("fireq/fp8_decode.npy");
    let codes: Vec<u8> = (0..=255).collect();
    each_isa(|isa| {
        let mut got = vec![0.0; 256];
        fp8::decode_slice_with(isa, &codes, &mut got).unwrap();
        for (code, (got, want)) in got.iter().zip(want.as_slice()).enumerate() {
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{code}: {got} {want}");
            assert_eq!(fp8::decode(code as u8).to_bits(), got.to_bits());
        }
    });
}

#[test]
fn every_rounding_case_encodes() {
    let x: Tensor<f32, 1> = golden_tensor("fireq/fp8_encode_in.npy");
    let want: Tensor<u8, 1> = golden_tensor("fireq/fp8_encode_out.npy");
    assert!(x.len() > 500);
    each_isa(|isa| {
        let mut got = vec![0; x.len()];
        fp8::encode_slice_with(isa, x.as_slice(), &mut got).unwrap();
        assert_eq!(got, want.as_slice());
    });
    for (&x, &want) in x.as_slice().iter().zip(want.as_slice()) {
        assert_eq!(fp8::encode(x), want, "{x:e}");
    }
}

#[test]
fn codes_survive_a_round_trip() {
    for code in (0..=255u8).filter(|c| c & 0x7f != 0x7f) {
        assert_eq!(fp8::encode(fp8::decode(code)), code);
        assert_eq!(E4M3::from(f32::from(E4M3(code))), E4M3(code));
    }
    assert_eq!([f32::NAN, -f32::NAN].map(fp8::encode), [0x7f, 0x7f]);
    assert_eq!([f32::INFINITY, f32::NEG_INFINITY].map(fp8::encode), [0x7e, 0xfe]);
    assert_eq!([0.0f32, -0.0].map(fp8::encode), [0, 0x80]);
}

/// The nearest number by trying all.
fn nearest(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let gap = |code: u8| (f64::from(fp8::decode(code)) - f64::from(x.abs().min(448.0))).abs();
    // Even codes come first, so that they win ties.
    let codes = (0..=0x7eu8).step_by(2).chain((1..=0x7d).step_by(2));
    sign | codes.min_by(|&a, &b| gap(a).total_cmp(&gap(b))).unwrap()
}

proptest! {
    #[test]
    fn any_number_goes_to_the_nearest(bits in any::<u32>(), fine in -12i32..12, mantissa in 0u32..1 << 23) {
        let x = f32::from_bits(bits);
        prop_assume!(x.is_finite());
        prop_assert_eq!(fp8::encode(x), nearest(x));
        let x = f32::from_bits(((127 + fine) as u32) << 23 | mantissa);
        prop_assert_eq!(fp8::encode(x), nearest(x));
    }
}

#[test]
fn truncation_and_half_precision_would_be_seen() {
    // Ties above and below an even code, and a number that rounds wrongly when it passes through f16 first.
    assert_eq!([1.0625f32, 1.1875].map(|x| fp8::decode(fp8::encode(x))), [1.0, 1.25]);
    let twice = 1.0625f32 * (1.0 + 1e-5);
    assert_eq!(fp8::decode(fp8::encode(twice)), 1.125);
    assert_eq!(fp8::decode(fp8::encode(kc_core::f16::from_f32(twice).to_f32())), 1.0);
}

#[test]
fn every_length() {
    for len in [0usize, 1, 31, 32, 33, 65, 1000] {
        let mut x = normals(len, 3);
        x.iter_mut().step_by(3).for_each(|x| *x *= 0.01);
        let (mut codes, mut back) = (vec![0; len], vec![0.0; len]);
        fp8::encode_slice(&x, &mut codes).unwrap();
        assert!(codes.iter().zip(&x).all(|(c, x)| *c == fp8::encode(*x)));
        fp8::decode_slice(&codes, &mut back).unwrap();
        each_isa(|isa| {
            let mut rounded = x.clone();
            fp8::round_slice_with(isa, &mut rounded);
            assert_eq!(rounded, back);
        });
    }
}

#[test]
fn saturation_is_told_and_lengths_are_checked() {
    assert_eq!([447.0f32, 448.0, 449.0].map(|x| fp8::encode_checked(x).1), [false, false, true]);
    let mut codes = [0; 3];
    assert_eq!(fp8::encode_slice_checked(&[1.0, -1e6, f32::INFINITY], &mut codes).unwrap(), 2);
    assert!(matches!(fp8::encode_slice(&[1.0], &mut codes), Err(Error::Shape { .. })));
    assert!(matches!(fp8::decode_slice(&codes, &mut [0.0]), Err(Error::Shape { .. })));
    match fp8::check("codes", &[0, 0xff]) {
        Err(Error::NotFinite { index, .. }) => assert_eq!(index, [1]),
        other => panic!("{other:?}"),
    }
}
