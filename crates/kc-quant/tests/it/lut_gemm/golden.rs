//! Against the fixtures of a NumPy program.

use kc_core::{Element, Tensor};
use kc_quant::lut_gemm::*;
use kc_quant::metrics::relative_error;
use kc_quant::{Group, UniformGroups, Zeros};
use kc_testing::{Tol, assert_close, golden_json, golden_tensor};
use serde_json::Value;

pub(super) fn array<T: Element, const N: usize>(case: u64, what: &str) -> Tensor<T, N> {
    golden_tensor(&format!("lut_gemm/case{case:02}_{what}.npy"))
}

pub(super) fn cases() -> Vec<Value> {
    golden_json("lut_gemm/cases.json").as_array().unwrap().clone()
}

fn spec(case: &Value) -> BcqSpec {
    BcqSpec {
        bits: case["bits"].as_u64().unwrap() as u8,
        group: Group::Size(case["group"].as_u64().unwrap() as usize),
        method: if case["method"] == "greedy" { Method::Greedy } else { Method::Alternating },
        offset: if case["offset"] == "joint" { Offset::Joint } else { Offset::None },
        ..BcqSpec::default()
    }
}

#[test]
fn solved_cases_have_the_error_of_the_fixtures() {
    for case in cases().iter().filter(|case| case["source"] == "bcq") {
        let id = case["case"].as_u64().unwrap();
        let w: Tensor<f32, 2> = array(id, "w");
        let fit = BcqMatrix::fit(w.view(), &spec(case), None).unwrap();
        let want = case["rel_sq_err"].as_f64().unwrap();
        let ratio = fit.rel_sq_error / want;
        // Neither worse than the fixture nor too good to be true.
        assert!(ratio <= 1.001 && ratio > 0.98, "case {id}: {ratio}");
        assert!((fit.round_errors.last().unwrap() / fit.rel_sq_error - 1.0).abs() < 1e-5);
        let alpha: Tensor<f32, 3> = array(id, "alpha");
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1e-6);
        let q = usize::from(fit.matrix.bits());
        let groups = fit.matrix.scales().chunks(q).zip(alpha.as_slice().chunks(q));
        let (same, all) = groups
            .fold((0, 0), |(same, all), (a, b)| (same + usize::from(a.iter().zip(b).all(near)), all + 1));
        let bits: Tensor<u8, 3> = array(id, "bits");
        let different: u32 =
            fit.matrix.planes().iter().zip(bits.as_slice()).map(|(a, b)| (a ^ b).count_ones()).sum();
        if case["kind"] != "constant" {
            assert!(same * 10 >= all * 9, "case {id}: {same} of {all} groups have the scales of the fixture");
            assert!((different as usize) < bits.len() * 8 / 50, "case {id}: {different} bits differ");
        }
    }
}

#[test]
fn rounded_codes_convert_exactly() {
    for case in cases().iter().filter(|case| case["source"] == "rtn") {
        let id = case["case"].as_u64().unwrap();
        let (w, codes): (Tensor<f32, 2>, Tensor<u8, 2>) = (array(id, "w"), array(id, "q"));
        let (scale, zero): (Tensor<f32, 2>, Tensor<i32, 2>) = (array(id, "scale"), array(id, "zero"));
        let BcqSpec { bits, group, .. } = spec(case);
        let rounded = rtn(w.view(), &RtnSpec { bits, group, ..RtnSpec::default() }).unwrap();
        assert_eq!(rounded.codes(), codes.as_slice());
        assert_close(rounded.scales(), scale.as_slice(), Tol::rel(1e-6));
        assert_eq!(*rounded.zeros(), Zeros::PerGroup(zero.as_slice().to_vec()));
        let given = UniformGroups::new(
            w.shape(),
            bits,
            rounded.group(),
            codes.as_slice().to_vec(),
            scale.as_slice().to_vec(),
            Zeros::PerGroup(zero.as_slice().to_vec()),
        )
        .unwrap();
        let matrix = BcqMatrix::from_uniform(&given).unwrap();
        assert_eq!(matrix.planes(), array::<u8, 3>(id, "bits").as_slice());
        assert_close(matrix.scales(), array::<f32, 3>(id, "alpha").as_slice(), Tol::rel(1e-6));
        assert_close(
            matrix.offsets().unwrap(),
            array::<f32, 2>(id, "offset").as_slice(),
            Tol::new(1e-6, 1e-7),
        );
        let back = matrix.dequantize().unwrap();
        assert!(relative_error(back.view(), given.dequantize().unwrap().view()).unwrap() < 1e-6);
        let error = matrix.rel_sq_error(w.view()).unwrap();
        assert!((error / case["rel_sq_err"].as_f64().unwrap() - 1.0).abs() < 1e-4, "case {id}: {error}");
    }
}

#[test]
fn products_are_those_of_the_fixtures() {
    for case in cases() {
        let id = case["case"].as_u64().unwrap();
        let BcqSpec { bits, group, .. } = spec(&case);
        let (x, w): (Tensor<f32, 2>, Tensor<f32, 2>) = (array(id, "x"), array(id, "w"));
        let offsets = array::<f32, 2>(id, "offset").into_vec();
        let matrix = BcqMatrix::from_parts(
            w.shape(),
            bits,
            group.len(w.shape()[1]).unwrap(),
            array::<u8, 3>(id, "bits").into_vec(),
            array::<f32, 3>(id, "alpha").into_vec(),
            Some(offsets),
        )
        .unwrap();
        let error = matrix.rel_sq_error(w.view()).unwrap();
        assert!((error / case["rel_sq_err"].as_f64().unwrap() - 1.0).abs() < 1e-4, "case {id}: {error}");
        let y: Tensor<f64, 2> = array(id, "y");
        let plain = reference::product(x.view(), &matrix, None).unwrap();
        assert_close(plain.as_slice(), y.as_slice(), Tol::new(1e-6, 1e-6 * case["ymax"].as_f64().unwrap()));
        let terms = reference::product_terms(x.view(), &matrix, None).unwrap();
        for kernel in super::products::kernels() {
            let layer = LutLinear::new(&matrix, None, LutMode::F32, kernel).unwrap();
            let got = layer.forward(x.view()).unwrap();
            for ((got, want), terms) in got.as_slice().iter().zip(plain.as_slice()).zip(terms.as_slice()) {
                assert!((f64::from(*got) - want).abs() <= 4e-6 * terms, "case {id}, {kernel:?}");
            }
        }
        for (mode, allowed) in [(LutMode::I16, 5e-4), (LutMode::I8, 3e-2)] {
            for kernel in super::products::kernels().filter(|k| *k != KernelChoice::Literal) {
                let layer = LutLinear::new(&matrix, None, mode, kernel).unwrap();
                let got = layer.forward(x.view()).unwrap();
                let error = relative_error(got.view(), y.view()).unwrap();
                assert!(error <= allowed && error > 1e-7, "case {id}, {mode:?}, {kernel:?}: {error:e}");
            }
        }
    }
}
