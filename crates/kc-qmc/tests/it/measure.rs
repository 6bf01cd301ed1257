//! Measures against golden points and densities, moments and each other.

use kc_core::Tensor;
use kc_qmc::Measure;
use kc_qmc::measure::{
    BrownianConfig, BrownianMotion, Copula, CopulaMeasure, Covariance, Decomposition, Distribution, Gaussian,
    GeometricBrownianMotion, Marginals, MaternConfig, StudentT, Uniform, matern_gp,
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

#[test]
fn a_matern_process_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["matern_gp"];
    let mut config = MaternConfig::default();
    config.length_scale = number(&case["length_scale"]);
    config.nu = number(&case["nu"]);
    config.variance = number(&case["variance"]);
    config.mean = vec![number(&case["mean"])];
    config.nugget = number(&case["nugget"]);
    compare("matern_gp", &matern_gp(&numbers(&case["points"]), 1, &config).unwrap(), case);
}

#[test]
fn a_t_distribution_is_the_golden_one() {
    let case = &golden_json("qmcpy/tm_cases.json")["student_t"];
    let measure =
        StudentT::new(&numbers(&case["loc"]), &numbers(&case["shape"]), number(&case["df"])).unwrap();
    compare("student_t", &measure, case);
}

#[test]
fn marginals_are_the_golden_ones() {
    let cases = &golden_json("qmcpy/tm_cases.json");
    let case = &cases["kumaraswamy"];
    let pairs = numbers(&case["a"]).into_iter().zip(numbers(&case["b"]));
    let list = pairs.map(|(a, b)| Distribution::Kumaraswamy { a, b }).collect();
    compare("kumaraswamy", &Marginals::new(list).unwrap(), case);

    let case = &cases["johnsons_su"];
    let [gamma, xi, delta, lambda] = ["gamma", "xi", "delta", "lam"].map(|name| number(&case[name]));
    let measure = Marginals::iid(4, Distribution::JohnsonsSu { gamma, xi, delta, lambda }).unwrap();
    compare("johnsons_su", &measure, case);

    let case = &cases["bernoulli_cont"];
    let list =
        numbers(&case["lam"]).into_iter().map(|lambda| Distribution::BernoulliCont { lambda }).collect();
    compare("bernoulli_cont", &Marginals::new(list).unwrap(), case);
}

#[test]
fn copulas_are_the_golden_ones() {
    let cases = &golden_json("qmcpy/tm_cases.json");
    for name in ["gaussian", "student", "clayton", "gumbel", "frank"] {
        let name = format!("{name}_copula");
        let case = &cases[&name];
        let list =
            case["marginals"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().parse().unwrap());
        let (list, theta): (Vec<Distribution>, _) = (list.collect(), || number(&case["theta"]));
        let copula = match name.as_str() {
            "gaussian_copula" => Copula::gaussian(4, &numbers(&case["correlation"])),
            "student_copula" => Copula::student(4, &numbers(&case["correlation"]), number(&case["df"])),
            "clayton_copula" => Copula::clayton(4, theta()),
            "gumbel_copula" => Copula::gumbel(4, theta()),
            _ => Copula::frank(4, theta()),
        };
        compare(&name, &CopulaMeasure::new(copula.unwrap(), list).unwrap(), case);
    }
}
