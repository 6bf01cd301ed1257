//! Measures against golden points and densities, moments and each other.

use kc_core::Tensor;
use kc_qmc::Measure;
use kc_qmc::measure::{
    BrownianConfig, BrownianMotion, Covariance, Decomposition, Gaussian, GeometricBrownianMotion, Uniform,
};
use kc_testing::{Tol, assert_close, golden_json, golden_tensor};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Transforms the golden points and compares both points and densities.
fn compare(name: &str, measure: &dyn Measure, case: &Value) {
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let want: Tensor<f64, 2> = golden_tensor(&format!("qmcpy/tm_{name}.npy"));
    let mut t = vec![0.0; u.as_slice().len()];
    measure.transform(u.as_slice(), &mut t).unwrap();
    println!("{name}");
    assert_close(&t, want.as_slice(), Tol::rel(1e-12));
    let mut density = vec![0.0; 16];
    measure.density(&t, &mut density).unwrap();
    assert_close(&density, &numbers(&case["weight"]), Tol::rel(1e-12));
}

#[test]
fn uniform_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["uniform"];
    compare("uniform", &Uniform::new(4, &numbers(&case["lower"]), &numbers(&case["upper"])).unwrap(), case);
}

#[test]
fn gaussians_are_the_golden_ones() {
    for (name, decomposition) in [("pca", Decomposition::Pca), ("cholesky", Decomposition::Cholesky)] {
        let name = format!("gaussian_{name}");
        let case = &golden_json("qmcpy/tm_cases.json")[&name];
        let covariance = Covariance::Matrix(numbers(&case["cov"]));
        let measure = Gaussian::new(4, &numbers(&case["mean"]), covariance, decomposition).unwrap();
        compare(&name, &measure, case);
    }
}

fn brownian(case: &Value, decomposition: Decomposition) -> BrownianConfig {
    let mut config = BrownianConfig::default();
    config.t_final = number(&case["t_final"]);
    config.initial = number(&case["initial"]);
    config.drift = number(&case["drift"]);
    config.diffusion = number(&case["diffusion"]);
    config.decomposition = decomposition;
    config
}

#[test]
fn brownian_motions_are_the_golden_ones() {
    for (name, decomposition) in [
        ("brownian_pca", Decomposition::Pca),
        ("brownian_cholesky", Decomposition::Cholesky),
        ("brownian_brownianbridge", Decomposition::Bridge),
    ] {
        let case = &golden_json("qmcpy/tm_cases.json")[name];
        compare(name, &BrownianMotion::new(4, &brownian(case, decomposition)).unwrap(), case);
    }
    let case = &golden_json("qmcpy/tm_cases.json")["gbm_pca"];
    compare("gbm_pca", &GeometricBrownianMotion::new(4, &brownian(case, Decomposition::Pca)).unwrap(), case);
}
