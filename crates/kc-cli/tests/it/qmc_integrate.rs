//! `kc qmc integrate`, `ask` and `tell`: golden runs, programs as integrands, states, bad input.

use std::path::Path;

use kc_core::Tensor;
use kc_qmc::{DigitalNet, DigitalNetConfig, Sequence};
use kc_testing::golden_json;
use serde_json::{Map, Value, json};

use crate::support::{json, kc, kc_fails, kc_json, kc_ok};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

/// The parameters of a golden case's integrand.
fn parameters(case: &Value) -> Map<String, Value> {
    let mut parameters = Map::new();
    for key in ["s", "features", "labels", "prior_mean", "prior_covariance", "option"] {
        if let Some(value) = case.get(key) {
            parameters.insert(key.to_owned(), value.clone());
        }
    }
    parameters.extend(case["options"].as_object().cloned().unwrap_or_default());
    for value in parameters.values_mut() {
        if let Value::String(text) = value {
            *text = text.to_lowercase();
        }
    }
    parameters
}

#[test]
fn golden_runs_come_out() {
    let folder = folder();
    let dir = folder.path();
    let mut seen = 0;
    for case in golden_json("qmcpy/cub_cases.json").as_array().expect("cases") {
        let integrand = case["integrand"].as_str().expect("a name");
        if integrand.starts_with("cubic3") {
            continue; // control variates are for the library
        }
        std::fs::write(dir.join("p.json"), Value::from(parameters(case)).to_string()).expect("a file");
        let algo = match case["algo"].as_str().expect("a name") {
            "rep-student-t" => "rep-t",
            "bayes-sobol" => "bayes-net",
            other => other,
        };
        let mut args: Vec<String> =
            ["qmc", "integrate", "--algo", algo, "--integrand", integrand].map(str::to_owned).into();
        args.extend(["--params", "p.json", "--out", "r.json"].map(str::to_owned));
        for (key, flag) in [
            ("d", "dim"),
            ("seed", "seed"),
            ("abs_tol", "abs-tol"),
            ("rel_tol", "rel-tol"),
            ("rmse_tol", "rmse-tol"),
            ("error", "error"),
            ("errbd", "errbd"),
            ("replications", "replications"),
            ("sampler", "sampler"),
        ] {
            match &case[key] {
                Value::Null => {}
                Value::String(text) => args.extend([format!("--{flag}"), text.clone()]),
                number => args.extend([format!("--{flag}"), number.to_string()]),
            }
        }
        let got = kc_json(dir, &args.iter().map(String::as_str).collect::<Vec<_>>(), "r.json");
        let expect = &case["expect"];
        assert_eq!(got["n_total"], expect["n_total"], "{case}");
        assert_eq!(got["exhausted"], json!(false));
        if let Some(n_level) = expect.get("n_level") {
            assert_eq!((&got["n_level"], &got["levels"]), (n_level, &case["levels"]));
        }
        for (got, want) in numbers(&got["solution"]).iter().zip(numbers(&expect["solution"])) {
            assert!((got - want).abs() <= 1e-8 * want.abs().max(1e-3), "{got} {want} in {case}");
        }
        seen += 1;
    }
    assert_eq!(seen, 67);
}

/// A program for any POSIX shell: the first coordinate.
const FIRST: &str =
    "while read -r n d; do i=0; while [ $i -lt $n ]; do read -r x rest; echo $x; i=$((i+1)); done; done";

fn with_program(dir: &Path) {
    std::fs::write(dir.join("f.sh"), FIRST).expect("a file");
}

#[test]
fn a_program_is_an_integrand_and_its_run_goes_on() {
    let folder = folder();
    let dir = folder.path();
    with_program(dir);
    let base =
        ["qmc", "integrate", "--algo", "net-g", "--dim", "2", "--command", "sh f.sh", "--out", "r.json"];
    let loose = kc_json(dir, &[&base[..], &["--abs-tol", "1e-3", "--state", "s.bin"]].concat(), "r.json");
    assert!((loose["solution"].as_f64().expect("a number") - 0.5).abs() < 1e-3);
    let resumed = kc_json(dir, &[&base[..], &["--abs-tol", "1e-4", "--resume", "s.bin"]].concat(), "r.json");
    let fresh = kc_json(dir, &[&base[..], &["--abs-tol", "1e-4"]].concat(), "r.json");
    assert_eq!(resumed, fresh);
    // Another problem, a damaged and a truncated state.
    let keister = ["qmc", "integrate", "--algo", "net-g", "--integrand", "keister", "--dim", "2", "--resume"];
    kc_fails(dir, &[&keister[..], &["s.bin"]].concat(), 1, "resume: integrand");
    kc_fails(dir, &[&base[..], &["--resume", "s.bin", "--seed", "1"]].concat(), 1, "resume: sequence");
    let state = std::fs::read(dir.join("s.bin")).expect("a state");
    std::fs::write(dir.join("short.bin"), &state[..state.len() / 2]).expect("a file");
    kc_fails(dir, &[&base[..], &["--resume", "short.bin"]].concat(), 1, "damaged or truncated");
    kc_fails(dir, &[&base[..], &["--resume", "f.sh"]].concat(), 1, "not the state of a cubature");
    kc_fails(dir, &[&base[..], &["--resume", "none.bin"]].concat(), 1, "none.bin");
}

#[test]
fn programs_that_fail_say_where() {
    let folder = folder();
    let dir = folder.path();
    for (command, message) in [
        ("no-such-program", "no-such-program"),
        ("false", "command: batch 0: the program ended (exit status: 1) after 0 of 1024 lines"),
        ("sh -c 'read -r x; echo 1; exit 3'", "(exit status: 3) after 1 of 1024 lines"),
        ("sh -c 'echo abc'", "command: batch 0: line 1: expected a number, got \"abc\""),
        ("sh -c 'echo 1; echo 1 2'", "command: batch 0: line 2: expected 1 numbers, got 2"),
        (
            "sh -c 'while read -r x; do echo nan; done'",
            "integrand: expected finite values, got NaN at [0, 0]",
        ),
        ("sh -c 'unfinished", "closing single quote"),
        ("", "command"),
    ] {
        let args = ["qmc", "integrate", "--algo", "net-g", "--dim", "3", "--command", command];
        kc_fails(dir, &args, 1, message);
    }
    let args = [
        "qmc",
        "integrate",
        "--algo",
        "net-g",
        "--dim",
        "3",
        "--command",
        "sh -c 'while read -r x; do echo 1; done'",
    ];
    kc_fails(dir, &[&args[..], &["--outputs", "2"]].concat(), 1, "expected 2 numbers, got 1");
}

/// Runs the loop of asking and telling for the product of the coordinates; gives the result.
fn converse(dir: &Path, config: &Value) -> Value {
    std::fs::write(dir.join("c.json"), config.to_string()).expect("a file");
    for _ in 0..100 {
        let ask =
            ["qmc", "ask", "--config", "c.json", "--state", "s.bin", "--points", "x.npy", "--out", "r.json"];
        let output = kc(dir, &ask);
        match output.status.code() {
            Some(0) => return json(&dir.join("r.json")),
            Some(10) => {}
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
        let x: Tensor<f64, 2> =
            kc_io::read(dir.join("x.npy")).and_then(|x| x.to_tensor("x")).expect("points");
        let y: Vec<f64> = x.as_slice().chunks_exact(x.shape()[1]).map(|u| u.iter().product()).collect();
        let y = Tensor::from_slice([y.len()], &y).expect("values");
        kc_io::write(dir.join("y.npy"), &y.into_any()).expect("a file");
        kc_ok(dir, &["qmc", "tell", "--state", "s.bin", "--values", "y.npy"]);
    }
    panic!("no end")
}

#[test]
fn asking_and_telling_reaches_the_answer() {
    let folder = folder();
    let dir = folder.path();
    for algo in ["net-g", "lattice-g", "rep-t", "mc-clt", "mc-clt-vec", "mc-g", "bayes-net", "bayes-lattice"]
    {
        let got = converse(dir, &json!({"algo": algo, "dim": 2, "seed": 7, "abs_tol": 0.02}));
        assert!((got["solution"].as_f64().expect("a number") - 0.25).abs() < 0.02, "{algo}: {got}");
        std::fs::remove_file(dir.join("s.bin")).expect("a state");
    }
    // A tighter tolerance goes on, and ends where a fresh run does.
    converse(dir, &json!({"algo": "net-g", "dim": 2, "abs_tol": 1e-3}));
    let went_on = converse(dir, &json!({"algo": "net-g", "dim": 2, "abs_tol": 1e-5}));
    std::fs::remove_file(dir.join("s.bin")).expect("a state");
    assert_eq!(went_on, converse(dir, &json!({"algo": "net-g", "dim": 2, "abs_tol": 1e-5})));
    let mut net = DigitalNet::new(DigitalNetConfig::new(2, 0u64)).expect("a net");
    assert!(net.points(0..1024).is_ok() && went_on["n_total"].as_u64() > Some(1024));
}

#[test]
fn conversations_that_go_wrong() {
    let folder = folder();
    let dir = folder.path();
    let ask = ["qmc", "ask", "--config", "c.json", "--state", "s.bin", "--points", "x.npy"];
    for (config, message) in [
        ("[1]", "expected an object of settings"),
        ("{\"dim\": 2}", "algo"),
        ("{\"algo\": \"magic\", \"dim\": 2}", "expected net-g, lattice-g"),
        ("{\"algo\": \"net-g\"}", "dim"),
        ("{\"algo\": \"net-g\", \"dim\": 0}", "dims"),
        ("{\"algo\": \"net-g\", \"dim\": 2, \"tolerance\": 1}", "unknown setting \"tolerance\""),
        ("{\"algo\": \"net-g\", \"dim\": 2, \"abs_tol\": \"x\"}", "abs_tol: expected a number"),
        ("{\"algo\": \"net-g\", \"dim\": 2, \"abs_tol\": -1}", "abs_tol"),
        ("{\"algo\": \"net-g\", \"dim\": 2, \"seed\": -1}", "seed"),
        ("{\"algo\": \"net-g\", \"dim\": 2, \"outputs\": 0}", "outputs"),
        ("{\"algo\"", "c.json"),
    ] {
        std::fs::write(dir.join("c.json"), config).expect("a file");
        kc_fails(dir, &ask, 1, message);
    }
    std::fs::write(dir.join("c.json"), "{\"algo\": \"net-g\", \"dim\": 2}").expect("a file");
    assert_eq!(kc(dir, &ask).status.code(), Some(10));
    let tell = ["qmc", "tell", "--state", "s.bin", "--values", "y.npy"];
    kc_fails(dir, &tell, 1, "y.npy");
    let save = |count: usize, value: f64| {
        let y = Tensor::from_slice([count], &vec![value; count]).expect("values");
        kc_io::write(dir.join("y.npy"), &y.into_any()).expect("a file");
    };
    save(1000, 1.0);
    kc_fails(dir, &tell, 1, "values: expected [1, 1024], got shape [1000]");
    save(1024, f64::NAN);
    kc_fails(dir, &tell, 1, "values: expected finite values, got NaN at [0, 0]");
    save(1024, 1.0);
    kc_ok(dir, &tell);
    kc_fails(dir, &tell, 1, "the cubature is finished");
    std::fs::write(dir.join("s.bin"), "nothing").expect("a file");
    kc_fails(dir, &tell, 1, "not a state of kc qmc ask");
    kc_fails(dir, &ask, 1, "not a state of kc qmc ask");
}

#[test]
fn wrong_usage_and_bad_settings() {
    let folder = folder();
    let dir = folder.path();
    let base = ["qmc", "integrate", "--integrand", "keister", "--dim", "2"];
    let run =
        |more: &[&str], code: i32, message: &str| kc_fails(dir, &[&base[..], more].concat(), code, message);
    run(&[], 2, "--algo");
    run(&["--algo", "simpson"], 2, "invalid value");
    run(&["--algo", "net-g", "--command", "cat"], 2, "cannot be used with");
    run(&["--algo", "net-g", "--abs-tol", "0"], 1, "abs_tol");
    run(&["--algo", "net-g", "--abs-tol", "-1"], 1, "abs_tol");
    run(&["--algo", "net-g", "--n-init", "1000"], 1, "n_init: expected a power of two");
    run(&["--algo", "net-g", "--replications", "2"], 1, "replications: expected 1 for net-g");
    run(&["--algo", "rep-t", "--replications", "1"], 1, "replications");
    run(&["--algo", "mlmc"], 1, "expected option");
    run(&["--algo", "mc-clt", "--alpha", "2"], 1, "alpha");
    run(&["--algo", "bayes-lattice", "--order", "5"], 1, "order");
    run(&["--algo", "pf-gp"], 2, "--threshold");
    kc_fails(
        dir,
        &["qmc", "integrate", "--algo", "net-g", "--integrand", "nothing", "--dim", "2"],
        1,
        "nothing",
    );
    kc_fails(
        dir,
        &["qmc", "integrate", "--algo", "net-g", "--integrand", "keister", "--dim", "0"],
        1,
        "dims",
    );
    kc_fails(dir, &["qmc", "integrate", "--algo", "net-g", "--dim", "2"], 2, "--integrand");
}

#[test]
fn limits_and_flags_without_meaning_are_warned_of() {
    let folder = folder();
    let dir = folder.path();
    let base = ["qmc", "integrate", "--integrand", "keister", "--dim", "2", "--json"];
    let stderr = |more: &[&str]| {
        let output = kc(dir, &[&base[..], more].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let exhausted = stderr(&["--algo", "lattice-g", "--abs-tol", "1e-13", "--n-limit", "2048"]);
    assert!(exhausted.contains("warning: the tolerance is not met"));
    let clipped = stderr(&["--algo", "lattice-g", "--n-limit", "9999999"]);
    assert!(clipped.contains("warning: --n-limit lowered to 1048576"));
    assert!(stderr(&["--algo", "net-g", "--alpha", "0.05"]).contains("--alpha means nothing to net-g"));
    assert_eq!(stderr(&["--algo", "net-g", "--replications", "1", "--rel-tol", "0"]), "");
}
