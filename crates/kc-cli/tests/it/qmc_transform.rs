//! `kc qmc transform` and `kc qmc evaluate` on the golden cases, and with bad input.

use std::path::Path;

use kc_core::Tensor;
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor};
use serde_json::{Value, json};

use crate::support::{kc_fails, kc_json, kc_ok};

fn golden_path(name: &str) -> String {
    golden(&format!("qmcpy/{name}")).display().to_string()
}

fn stored<const N: usize>(path: &Path) -> Tensor<f64, N> {
    kc_io::read(path).and_then(|any| any.to_tensor("result")).expect("a result")
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

fn save(dir: &Path, name: &str, values: &[f64], columns: usize) -> String {
    let rows = values.len() / columns;
    let tensor = Tensor::from_slice([rows, columns], values).expect("a tensor");
    kc_io::write(dir.join(name), &tensor.into_any()).expect("a file");
    name.to_owned()
}

#[test]
fn every_golden_measure_comes_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u = golden_path("tm_u.npy");
    let cases = golden_json("qmcpy/tm_cases.json");
    let mut seen = 0;
    for (name, case) in cases.as_object().expect("cases") {
        let Some(weights) = case.get("weight") else { continue };
        let mut parameters = case.clone();
        parameters.as_object_mut().expect("an object").remove("weight");
        std::fs::write(dir.join("m.json"), parameters.to_string()).expect("a file");
        let args = ["qmc", "transform", "--measure", name, "--params", "m.json", "--in", &u];
        kc_ok(dir, &[&args[..], &["--out", "t.npy", "--weights", "w.npy"]].concat());
        let want: Tensor<f64, 2> = golden_tensor(&format!("qmcpy/tm_{name}.npy"));
        let got = stored::<2>(&dir.join("t.npy"));
        assert_eq!(got.shape(), want.shape());
        assert_close(got.as_slice(), want.as_slice(), Tol::rel(1e-12));
        assert_close(stored::<1>(&dir.join("w.npy")).as_slice(), &numbers(weights), Tol::rel(1e-12));
        seen += 1;
    }
    assert_eq!(seen, 17);
}

#[test]
fn importance_weights_give_the_golden_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u = golden_path("tm_u.npy");
    let cases = golden_json("qmcpy/tm_cases.json");
    let compare = |name: &str, measure: &str, sampler: Value, g: fn(&[f64]) -> f64| {
        std::fs::write(dir.join("m.json"), json!({ "sampler": sampler }).to_string()).expect("a file");
        let args = ["qmc", "transform", "--measure", measure, "--params", "m.json", "--in", &u];
        kc_ok(dir, &[&args[..], &["--out", "t.npy", "--weights", "w.npy"]].concat());
        let (t, w) = (stored::<2>(&dir.join("t.npy")), stored::<1>(&dir.join("w.npy")));
        let values: Vec<f64> =
            t.as_slice().chunks_exact(4).zip(w.as_slice()).map(|(t, w)| g(t) * w).collect();
        assert_close(&values, &numbers(&cases[name]["values"]), Tol::rel(1e-12));
    };
    compare("lebesgue_over_gaussian", "lebesgue", json!({"measure": "gaussian", "cov": 1.5}), |t| {
        (-t.iter().map(|t| t * t).sum::<f64>()).exp()
    });
    // The same on one command line.
    let args = ["qmc", "transform", "--measure", "lebesgue:sampler=gaussian:cov=1.5", "--in", &u];
    kc_ok(dir, &[&args[..], &["--out", "s.npy", "--weights", "v.npy"]].concat());
    assert_eq!(stored::<1>(&dir.join("v.npy")), stored::<1>(&dir.join("w.npy")));
    compare("uniform_through_kumaraswamy", "uniform", json!(["kumaraswamy:a=2,b=3"]), |t| {
        t.iter().sum::<f64>().exp()
    });
}

#[test]
fn shapes_settings_and_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u = save(dir, "u.npy", &[0.5, 0.25, 0.75, 0.5, 0.5, 1.0], 2);
    let answer = kc_json(
        dir,
        &[
            "qmc",
            "transform",
            "--measure",
            "uniform:lower=-1;0,upper=1",
            "--in",
            &u,
            "--out",
            "t.npy",
            "--json",
            "a.json",
        ],
        "a.json",
    );
    assert_eq!(answer["mean"], json!([0.0, 0.5]));
    assert_eq!(stored::<2>(&dir.join("t.npy")).as_slice(), [0.0, 0.25, 0.5, 0.5, 0.0, 1.0]);
    // The end point is moved when asked.
    let args = ["qmc", "transform", "--measure", "norm", "--in", &u, "--out", "n.npy", "--open-interval"];
    kc_ok(dir, &args);
    assert!(stored::<2>(&dir.join("n.npy")).as_slice()[5] > 8.0);
    // The command line counts more than the file.
    std::fs::write(dir.join("m.json"), r#"{"rate": 1, "marginals": ["expon(2)", "poisson(3)"]}"#)
        .expect("a file");
    kc_fails(
        dir,
        &[
            "qmc",
            "transform",
            "--measure",
            "expon:rate=2",
            "--params",
            "m.json",
            "--in",
            &u,
            "--out",
            "x.npy",
        ],
        1,
        "marginals",
    );
    std::fs::write(dir.join("m.json"), r#"{"rate": 1}"#).expect("a file");
    let v = save(dir, "v.npy", &[0.5], 1);
    kc_ok(
        dir,
        &[
            "qmc",
            "transform",
            "--measure",
            "expon:rate=2",
            "--params",
            "m.json",
            "--in",
            &v,
            "--out",
            "e.npy",
        ],
    );
    assert_close(stored::<2>(&dir.join("e.npy")).as_slice(), &[2f64.ln() / 2.0], Tol::rel(1e-15));
    // Replications keep their axis; blocks stand side by side.
    let cube = Tensor::from_slice([2, 1, 3], &[0.5; 6]).expect("a tensor");
    kc_io::write(dir.join("c.npy"), &cube.into_any()).expect("a file");
    std::fs::write(
        dir.join("p.json"),
        r#"{"blocks": [{"measure": "gaussian", "mean": [1, 2], "dim": 2}, {"measure": "uniform", "upper": 4}]}"#,
    )
    .expect("a file");
    let args =
        ["qmc", "transform", "--measure", "product", "--params", "p.json", "--in", "c.npy", "--out", "b.npy"];
    kc_ok(dir, &[&args[..], &["--weights", "w.npy"]].concat());
    assert_eq!(stored::<3>(&dir.join("b.npy")).as_slice(), [1.0, 2.0, 2.0, 1.0, 2.0, 2.0]);
    assert_eq!(stored::<2>(&dir.join("w.npy")).shape(), [2, 1]);
}

#[test]
fn bad_input_of_transform() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u = save(dir, "u.npy", &[0.5, 0.25], 2);
    let fails = |measure: &str, code: i32, message: &str| {
        kc_fails(
            dir,
            &["qmc", "transform", "--measure", measure, "--in", &u, "--out", "t.npy"],
            code,
            message,
        );
    };
    fails("", 2, "NAME");
    fails("gaussian:mean", 2, "NAME");
    fails("nothing", 1, "measure: expected uniform");
    fails("gaussian:means=1", 1, "means");
    fails("gaussian:mean=x", 1, "gaussian.mean");
    fails("gaussian:mean=1;2;3", 1, "gaussian.mean");
    fails("gaussian:cov=-1", 1, "gaussian.covariance");
    fails("gaussian:cov=[[1,2],[2,1]]", 1, "positive semi-definite");
    fails("gaussian:cov=[[1,2],[2,1]],decomposition=cholesky", 1, "positive definite");
    fails("gaussian:decomposition=bridge", 1, "bridge");
    fails("gaussian_copula:correlation=[[2,0],[0,1]]", 1, "ones on the diagonal");
    fails("clayton_copula:theta=0", 1, "theta");
    fails("student_t:df=3", 1, "student_t.shape");
    fails("uniform:lower=1,upper=0", 1, "uniform.upper");
    fails("lebesgue", 1, "not supported");
    fails("poisson", 1, "poisson.rate");
    fails("uniform_triangle:a=1", 1, "a");
    for (name, values, message) in
        [("o.npy", [0.5, 1.5], "u: expected"), ("z.npy", [0.0, 0.5], "ends excluded")]
    {
        let bad = save(dir, name, &values, 2);
        kc_fails(
            dir,
            &["qmc", "transform", "--measure", "gaussian", "--in", &bad, "--out", "t.npy"],
            1,
            message,
        );
    }
    let line = Tensor::from_slice([2], &[0.5f64, 0.5]).expect("a tensor");
    kc_io::write(dir.join("l.npy"), &line.into_any()).expect("a file");
    kc_fails(
        dir,
        &["qmc", "transform", "--measure", "uniform", "--in", "l.npy", "--out", "t.npy"],
        1,
        "2 or 3 axes",
    );
    let args = [
        "qmc",
        "transform",
        "--measure",
        "zero_inflated_exp",
        "--in",
        &u,
        "--out",
        "t.npy",
        "--weights",
        "w.npy",
    ];
    kc_fails(dir, &args, 1, "density");
    std::fs::write(dir.join("m.json"), "[1]").expect("a file");
    let args =
        ["qmc", "transform", "--measure", "uniform", "--params", "m.json", "--in", &u, "--out", "t.npy"];
    kc_fails(dir, &args, 1, "JSON object");
}

#[test]
fn every_golden_integrand_comes_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u: Tensor<f64, 2> = golden_tensor("qmcpy/tm_u.npy");
    let cases = golden_json("qmcpy/integrands.json");
    for case in cases["integrands"].as_array().expect("cases").iter().step_by(3) {
        let (name, dim) =
            (case["name"].as_str().expect("a name"), case["dim"].as_u64().expect("a number") as usize);
        let points: Vec<f64> =
            u.as_slice().chunks_exact(4).flat_map(|row| (0..dim).map(|j| row[j % 4])).collect();
        let points = save(dir, "u.npy", &points, dim);
        std::fs::write(dir.join("p.json"), case["params"].to_string()).expect("a file");
        let args =
            ["qmc", "evaluate", "--integrand", name, "--params", "p.json", "--in", &points, "--out", "y.npy"];
        kc_ok(dir, &args);
        let any = kc_io::read(dir.join("y.npy")).expect("values");
        let want = numbers(&case["values"]);
        assert_eq!(any.len(), want.len(), "{name}");
        let got = match any.rank() {
            1 => any.to_tensor::<f64, 1>("y").expect("values").into_vec(),
            _ => any.to_tensor::<f64, 2>("y").expect("values").into_vec(),
        };
        assert_close(&got, &want, Tol { abs: 1e-12, ..Tol::rel(1e-12) });
    }
}

#[test]
fn bad_input_of_evaluate() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let u = save(dir, "u.npy", &[0.5, 0.25], 2);
    let fails = |integrand: &str, message: &str| {
        kc_fails(
            dir,
            &["qmc", "evaluate", "--integrand", integrand, "--in", &u, "--out", "y.npy"],
            1,
            message,
        );
    };
    fails("nothing", "integrand: expected keister");
    fails("ishigami", "dim: expected 3");
    fails("genz-oscillatory-9", "genz.kind");
    fails("genz-peak-1", "genz.family");
    fails("option:kind=bermudan", "option.kind");
    fails("option:volatility=0", "option.volatility");
    fails("box:s=a", "box.s");
    fails("keister:a=1", "only parameters that it has");
    fails("sensitivity(keister)", "2 or more coordinates");
    fails("bayesian-lr", "features");
    let args =
        ["qmc", "evaluate", "--integrand", "keister", "--in", &u, "--out", "y.npy", "--ptransform", "c9"];
    kc_fails(dir, &args, 2, "ptransform");
}
