//! The sensitivity of slices of a real model, and the plans that follow.

use kc_core::Tensor;
use kc_quant::flexq::*;
use kc_testing::{Tol, assert_close, golden_json, golden_tensor};

fn slices() -> Vec<(String, Tensor<f32, 2>, Tensor<f32, 2>)> {
    let table = golden_json("quant_minilm/sensitivity_slices.json");
    let rows = table["rows"].as_array().unwrap().clone();
    let read = |row: &serde_json::Value| {
        let name = row["name"].as_str().unwrap().to_owned();
        let weights = name.trim_end_matches("_outlier");
        let x = golden_tensor(&format!("quant_minilm/{name}_x.npy"));
        let w = golden_tensor(&format!("quant_minilm/{weights}_w.npy"));
        (name, x, w)
    };
    rows.iter().map(read).collect()
}

fn measured() -> Vec<Sensitivity> {
    let slices = slices();
    let layers: Vec<LayerSample<'_>> =
        slices.iter().map(|(name, x, w)| LayerSample { name, w: w.view(), x: x.view() }).collect();
    sensitivity(&layers, &QuantSpec::default()).unwrap()
}

#[test]
fn errors_are_those_of_the_fixture() {
    let table = golden_json("quant_minilm/sensitivity_slices.json");
    for (got, want) in measured().iter().zip(table["rows"].as_array().unwrap()) {
        assert_eq!(got.name, want["name"]);
        assert_eq!(got.macs, want["macs"].as_u64().unwrap());
        let want = ["a6", "a8", "a16"].map(|key| want[key].as_f64().unwrap());
        assert_close(&[got.e6, got.e8, got.e16], &want, Tol::abs(1e-4));
        assert!(got.weights[0] > got.weights[1] && got.weights[1] > got.weights[2]);
    }
}

#[test]
fn measured_plans_are_those_of_the_fixture_and_not_the_rule_of_names() {
    let table = golden_json("quant_minilm/sensitivity_slices.json");
    let rows = measured();
    for (policy, key) in [(Policy::default(), "threshold_2_0"), (Policy::Budget(0.34), "budget_0_34")] {
        let plan = plan(&rows, 6, &policy).unwrap();
        let eight = |name: &&serde_json::Value| plan.layers[name.as_str().unwrap()].abits == 8;
        let want = table[key].as_array().unwrap();
        assert!(want.iter().all(|name| eight(&name)));
        assert_eq!(plan.layers.values().filter(|l| l.abits == 8).count(), want.len());
    }
    // Three outlier columns move the layer into the set.
    let plan = plan(&rows, 6, &Policy::Threshold(2.0)).unwrap();
    assert_eq!((plan.layers["l2_key"].abits, plan.layers["l2_key_outlier"].abits), (6, 8));
}

#[test]
fn names_and_budgets() {
    let row = |name: &str, e6: f64, macs: u64| Sensitivity {
        name: name.into(),
        e6,
        e8: e6 / 2.0,
        e16: e6 / 3.0,
        weights: [4.0 * e6, e6, e6 / 4.0],
        macs,
    };
    let rows = [
        row("0.attention.output.dense", 0.3, 10),
        row("0.output.dense", 0.1, 40),
        row("0.down_proj", 0.2, 40),
        row("0.up_proj", 0.2, 10),
    ];
    let bits = |policy: Policy| -> Vec<u8> {
        plan(&rows, 6, &policy).unwrap().layers.values().map(|l| l.abits).collect()
    };
    // In the order of names: attention.output.dense, down_proj, output.dense, up_proj.
    assert_eq!(bits(Policy::published_names()), [6, 8, 8, 6]);
    assert_eq!(bits(Policy::Budget(0.0)), [6, 6, 6, 6]);
    assert_eq!(bits(Policy::Budget(1.0)), [8, 8, 8, 8]);
    assert_eq!(bits(Policy::Budget(0.5)), [8, 8, 6, 6]);
    let half = plan(&rows, 6, &Policy::Budget(0.5)).unwrap();
    assert!((half.share_of_8_bits() - 0.5).abs() < 1e-12);
    assert!(plan(&rows, 6, &Policy::Budget(1.5)).is_err());
    assert!(plan(&rows, 6, &Policy::Threshold(f64::NAN)).is_err());
    assert!(plan(&[rows[0].clone(), rows[0].clone()], 6, &Policy::default()).is_err());
}
