//! The nine cases made by another program, and slices of a real model.

use kc_core::{Isa, Tensor};
use kc_quant::QTensor;
use kc_quant::crossquant::*;
use kc_quant::metrics::relative_error;
use kc_testing::{Tol, assert_close, each_isa, golden_json, golden_tensor};
use serde_json::Value;

struct Case {
    meta: Value,
    x: Tensor<f32, 2>,
    w: Tensor<f32, 2>,
    spec: CrossSpec,
}

fn cases() -> Vec<Case> {
    let all = golden_json("crossquant/cases.json");
    let read = |meta: &Value| {
        let name = |what: &str| format!("crossquant/case{:02}_{what}.npy", meta["case"].as_u64().unwrap());
        let columns = match meta["kind"].as_str() {
            Some("static") => Columns::Static(golden_tensor::<f32, 1>(&name("col")).into_vec()),
            _ => Columns::Dynamic,
        };
        let spec = CrossSpec {
            bits: meta["abits"].as_u64().unwrap() as u8,
            alpha: meta["alpha"].as_f64().unwrap(),
            row: RowFactor::Absmax,
            columns,
        };
        Case { meta: meta.clone(), x: golden_tensor(&name("x")), w: golden_tensor(&name("w")), spec }
    };
    all.as_array().unwrap().iter().map(read).collect()
}

impl Case {
    fn file(&self, what: &str) -> String {
        format!("crossquant/case{:02}_{what}.npy", self.meta["case"].as_u64().unwrap())
    }

    fn number(&self, key: &str) -> f64 {
        self.meta[key].as_f64().unwrap_or_else(|| panic!("no {key}"))
    }

    fn layer(&self, mode: Mode, spec: CrossSpec) -> CrossLinear {
        let config = LinearConfig {
            mode,
            spec,
            weight_bits: self.number("wbits") as u8,
            group: self.meta["group"].as_u64().unwrap_or(0) as usize,
            weight_alpha: None,
        };
        CrossLinear::new(self.w.view(), None, &config).unwrap()
    }
}

#[test]
fn codes_and_factors_on_every_level() {
    for case in cases() {
        let codes: Tensor<i8, 2> = golden_tensor(&case.file("codes"));
        let row: Tensor<f32, 1> = golden_tensor(&case.file("r"));
        let col: Tensor<f32, 1> = golden_tensor(&case.file("c"));
        each_isa(|isa: Isa| {
            let mut got = CrossCodes::new();
            quantize_with(isa, case.x.view(), &case.spec, &mut got).unwrap();
            let exact = case.spec.alpha == 0.0 || case.spec.alpha == 1.0;
            let differing = got.codes().iter().zip(codes.as_slice()).filter(|(a, b)| a != b).count();
            let allowed = if exact { 0 } else { (codes.len() as f64 * 1e-5).ceil() as usize };
            assert!(differing <= allowed, "case {}: {differing} codes differ on {isa}", case.meta["case"]);
            assert!(got.codes().iter().zip(codes.as_slice()).all(|(a, b)| (a - b).abs() <= 1));
            assert_close(got.row(), row.as_slice(), Tol::rel(1e-7));
            assert_close(got.col(), col.as_slice(), Tol::rel(1e-7));
            assert_eq!(got.clipped() as f64, case.number("clipped"));
        });
    }
}

#[test]
fn every_field_of_the_report() {
    for case in cases() {
        let report = kernel_report(case.x.view(), &case.spec).unwrap();
        let one = 1.5 / case.x.len() as f64;
        let pairs = [
            ("kernel", report.kernel.share),
            ("kernel_nonzero", report.kernel.nonzero),
            ("per_token_kernel", report.per_token.share),
            ("per_token_kernel_nonzero", report.per_token.nonzero),
            ("per_column_kernel", report.per_column.share),
            ("per_column_kernel_nonzero", report.per_column.nonzero),
            ("exact_zeros", report.exact_zeros),
            ("columns_below_row", report.columns_below_row),
            ("clipped", report.clipped as f64),
        ];
        for (key, got) in pairs {
            let want = case.number(key);
            assert!((got - want).abs() <= one, "case {}: {key} is {got}, not {want}", case.meta["case"]);
        }
        let codes = quantize(case.x.view(), &case.spec).unwrap();
        assert_eq!(kernel_of(codes.view().unwrap(), case.x.view()).unwrap(), report.kernel);
    }
}

#[test]
fn both_products() {
    for case in cases() {
        let folded: Tensor<f64, 2> = golden_tensor(&case.file("yfold"));
        let fake: Tensor<f64, 2> = golden_tensor(&case.file("yfake"));
        let exact = exact_product(&case.x, &case.w);
        // The simulated product of the fixtures takes its columns from x in every case.
        let dynamic = CrossSpec { columns: Columns::Dynamic, ..case.spec.clone() };
        for (mode, spec, want, key) in [
            (Mode::Folded, case.spec.clone(), &folded, "err_folded"),
            (Mode::Fake, dynamic, &fake, "err_fake"),
        ] {
            let got = case.layer(mode, spec).forward(case.x.view()).unwrap();
            let error = relative_error(got.view(), want.view()).unwrap();
            assert!(error < 1e-5, "case {} {}: {error:e}", case.meta["case"], mode.name());
            let from_exact = relative_error(got.view(), exact.view()).unwrap();
            assert!((from_exact / case.number(key) - 1.0).abs() < 1e-4, "case {}: {key}", case.meta["case"]);
        }
        let per_token = case.layer(Mode::PerToken, case.spec.clone()).forward(case.x.view()).unwrap();
        let error = relative_error(per_token.view(), exact.view()).unwrap();
        assert!((error / case.number("err_per_token") - 1.0).abs() < 1e-4);
        // Folded and simulated are different products unless nothing is folded.
        if case.spec.alpha < 1.0 {
            assert!(relative_error(folded.view(), fake.view()).unwrap() > 1e-3);
        }
    }
}

#[test]
fn the_reference_gives_the_same() {
    for case in cases() {
        let mine = quantize(case.x.view(), &case.spec).unwrap();
        let plain = reference::quantize(case.x.view(), &case.spec).unwrap();
        assert_eq!(mine.codes(), plain.codes);
        let weights = reference::fold(case.w.view(), &plain.col).unwrap();
        let group = case.meta["group"].as_u64().unwrap_or(0) as usize;
        let weights = QTensor::symmetric(weights.view(), case.number("wbits") as u8, group).unwrap();
        let y = reference::folded(&plain, &weights, None).unwrap();
        let want: Tensor<f64, 2> = golden_tensor(&case.file("yfold"));
        assert!(relative_error(y.view(), want.view()).unwrap() < 1e-7);
    }
}

#[test]
fn layers_of_a_real_model() {
    let slices = golden_json("quant_minilm/slices.json");
    for (tag, slice) in slices.as_object().unwrap() {
        let x: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{tag}_x.npy"));
        let w: Tensor<f32, 2> = golden_tensor(&format!("quant_minilm/{tag}_w.npy"));
        let want = |key: String| slice["rel_err"][&key].as_f64().unwrap();
        let exact = exact_product(&x, &w);
        for alpha in ["1.0", "0.5", "0.15", "0.0"] {
            for (mode, row, name) in [
                (Mode::Fake, RowFactor::Absmax, "fake"),
                (Mode::Folded, RowFactor::Absmax, "folded_absmax"),
                (Mode::Folded, RowFactor::Tight, "folded_tight"),
            ] {
                let spec = CrossSpec { alpha: alpha.parse().unwrap(), row, ..CrossSpec::default() };
                let kernel = quantize(x.view(), &spec).unwrap().kernel().share;
                if row == RowFactor::Absmax {
                    let want = want(format!("crossquant_kernel_{alpha}"));
                    assert!(
                        (kernel - want).abs() <= 1.5 / x.len() as f64,
                        "{tag} {alpha}: {kernel}, not {want}"
                    );
                }
                let config = LinearConfig { spec, ..LinearConfig::for_mode(mode) };
                let y = CrossLinear::new(w.view(), None, &config).unwrap().forward(x.view()).unwrap();
                let error = relative_error(y.view(), exact.view()).unwrap();
                let want = want(format!("crossquant_w8a8_{name}_{alpha}"));
                assert!((error / want - 1.0).abs() < 2e-3, "{tag} {name} {alpha}: {error}, not {want}");
            }
        }
    }
}

fn exact_product(x: &Tensor<f32, 2>, w: &Tensor<f32, 2>) -> Tensor<f64, 2> {
    let [[t, k], [n, _]] = [x.shape(), w.shape()];
    let at = |m: &Tensor<f32, 2>, i: usize, j: usize| f64::from(m.view().at([i, j]));
    Tensor::from_fn([t, n], |[i, j]| (0..k).map(|l| at(x, i, l) * at(w, j, l)).sum()).unwrap()
}
