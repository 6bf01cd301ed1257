//! `kc gp`: golden predictions, a fit from end to end, and hostile models.

use std::path::Path;

use kc_core::Tensor;
use kc_kernel::gp::{FastGp, GpConfig};
use kc_kernel::{KernelConfig, Points, SiKernel, Smoothness};
use kc_qmc::lattice::{Lattice, LatticeConfig};
use serde_json::{Value, json};

use crate::kernel::{assert_near, load, save};
use crate::support::{json, kc_fails, kc_json, kc_ok};

/// Values of a smooth function at the lattice of seed 7, the points, and some others.
fn data(dir: &Path, n: usize) -> Vec<f64> {
    let kernel = SiKernel::new(KernelConfig::new(Smoothness::order(2, 2))).expect("a kernel");
    let lattice = Lattice::new(LatticeConfig::new(2, 7u64)).expect("a lattice");
    let mut gp = FastGp::lattice(lattice, kernel, &GpConfig::default()).expect("a process");
    let x = gp.next_points(n).expect("points");
    let y: Vec<f64> = x.as_slice().chunks(2).map(f).collect();
    save(dir, "y.npy", Tensor::from_slice([n], &y).expect("values"));
    let xs =
        Tensor::<f64, 2>::from_fn([5, 2], |[i, j]| (0.37 * (i + 2 * j + 1) as f64).fract()).expect("points");
    save(dir, "xs.npy", xs);
    y
}

fn f(x: &[f64]) -> f64 {
    (std::f64::consts::TAU * x[0]).sin() * (1.0 + (std::f64::consts::TAU * x[1]).cos()) + 2.0
}

fn fit<'a>(n: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let start = [
        "gp", "fit", "--kind", "si", "--seq", "lattice", "--dim", "2", "--n", n, "--seed", "7", "--y",
        "y.npy",
    ];
    [&start[..], rest].concat()
}

#[test]
fn a_fit_predicts_and_integrates() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    data(at, 256);
    for loss in ["mll", "gcv", "loo"] {
        kc_ok(at, &fit("256", &["--loss", loss, "--out", "model.json"]));
        let predict =
            ["gp", "predict", "--model", "model.json", "--x", "xs.npy", "--mean", "m.npy", "--var", "v.npy"];
        let rest = ["--cov", "c.npy", "--cubature", "i.json"];
        let integral = kc_json(at, &[&predict[..], &rest].concat(), "i.json");
        assert!((integral["mean"].as_f64().unwrap() - 2.0).abs() < 1e-4, "{loss}: {integral}");
        let xs = load::<2>(&at.join("xs.npy"));
        let want: Vec<f64> = xs.as_slice().chunks(2).map(f).collect();
        assert_near(load::<1>(&at.join("m.npy")).as_slice(), &want, 1e-3, loss);
        let (v, c) = (load::<1>(&at.join("v.npy")), load::<2>(&at.join("c.npy")));
        let diagonal: Vec<f64> = (0..5).map(|i| c[[i, i]]).collect();
        let scale = json(&at.join("model.json"))["params"]["scale"].as_f64().unwrap();
        assert!(v.as_slice().iter().zip(&diagonal).all(|(v, d)| (v - d).abs() < 1e-12 * scale && *v >= 0.0));
    }
}

#[test]
fn given_parameters_are_kept_without_iterations() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    let y = data(at, 64);
    std::fs::write(
        at.join("p.json"),
        r#"{"alpha": [1, 2], "gamma": [0.5, 0.25], "scale": 2, "noise": 0.001}"#,
    )
    .unwrap();
    kc_ok(at, &fit("64", &["--params", "p.json", "--iterations", "0", "--out", "model.json"]));
    let model = json(&at.join("model.json"));
    assert_eq!(model["params"]["gamma"], json!([0.5, 0.25]));
    kc_ok(
        at,
        &["gp", "predict", "--model", "model.json", "--x", "xs.npy", "--mean", "m.npy", "--var", "v.npy"],
    );

    let mut config = KernelConfig::new(Smoothness::Orders(vec![1, 2]));
    (config.weights, config.scale) = (vec![0.5, 0.25], 2.0);
    let kernel = SiKernel::new(config).unwrap();
    let mut settings = GpConfig::default();
    settings.noise = Some(0.001);
    let lattice = Lattice::new(LatticeConfig::new(2, 7u64)).unwrap();
    let mut gp = FastGp::lattice(lattice, kernel.clone(), &settings).unwrap();
    gp.next_points(64).unwrap();
    gp.add_values(&y).unwrap();
    let xs = Points::from_rows(&kernel, load::<2>(&at.join("xs.npy")).view()).unwrap();
    assert_eq!(load::<1>(&at.join("m.npy")).as_slice(), gp.mean(&xs).unwrap().as_slice());
    assert_eq!(load::<1>(&at.join("v.npy")).as_slice(), gp.variance(&xs).unwrap());
}

#[test]
fn nets_and_several_outputs() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    data(at, 64);
    save(
        at,
        "y.npy",
        Tensor::<f64, 2>::from_fn([128, 2], |[i, o]| ((i * 37 + o) % 11) as f64).expect("values"),
    );
    for kind in ["dsi", "dsi-aa", "dsi-combined"] {
        let args = ["gp", "fit", "--kind", kind, "--seq", "net", "--dim", "2", "--n", "128", "--seed", "3"];
        let rest = [
            "--y",
            "y.npy",
            "--train",
            "scale,gamma,noise,alpha",
            "--iterations",
            "20",
            "--out",
            "model.json",
        ];
        kc_ok(at, &[&args[..], &rest].concat());
        kc_ok(at, &["gp", "predict", "--model", "model.json", "--x", "xs.npy", "--mean", "m.npy"]);
        assert_eq!(load::<2>(&at.join("m.npy")).shape(), [5, 2]);
    }
}

#[test]
fn wrong_calls_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    data(at, 64);
    kc_fails(at, &fit("63", &["--out", "m.json"]), 1, "63 rows");
    let net = [
        "gp", "fit", "--kind", "si", "--seq", "net", "--dim", "2", "--n", "64", "--y", "y.npy", "--out",
        "m.json",
    ];
    kc_fails(at, &net, 2, "--seq");
    let dim = [
        "gp", "fit", "--kind", "si", "--seq", "lattice", "--dim", "0", "--n", "64", "--y", "y.npy", "--out",
        "m",
    ];
    kc_fails(at, &dim, 1, "dimension");
    let mut y = load::<1>(&at.join("y.npy")).into_vec();
    y[5] = f64::NAN;
    save(at, "y.npy", Tensor::from_slice([64], &y).unwrap());
    kc_fails(at, &fit("64", &["--out", "m.json"]), 1, "finite");
    save(at, "y.npy", Tensor::<f64, 1>::zeros([48]).unwrap());
    kc_fails(at, &fit("48", &["--out", "m.json"]), 1, "power of two");
}

#[test]
fn hostile_models_are_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    data(at, 16);
    kc_ok(at, &fit("16", &["--iterations", "3", "--out", "model.json"]));
    let good = json(&at.join("model.json"));
    let predict = ["gp", "predict", "--model", "bad.json", "--x", "xs.npy", "--mean", "m.npy"];
    let change = |path: &[&str], value: Value| {
        let mut model = good.clone();
        let mut place = &mut model;
        for key in path {
            place = &mut place[*key];
        }
        *place = value;
        std::fs::write(at.join("bad.json"), model.to_string()).unwrap();
    };
    change(&["n"], json!(16));
    kc_ok(at, &predict);
    std::fs::remove_file(at.join("m.npy")).unwrap();
    for (path, value, message) in [
        (&["format"][..], json!("other"), "format"),
        (&["kind"], json!("unkind"), "kind"),
        (&["kind"], json!("dsi"), "seq"),
        (&["seq"], json!(null), "seq"),
        (&["n"], json!(1u64 << 60), "at most"),
        (&["n"], json!(17), "power of two"),
        (&["n"], json!(32), "32 rows"),
        (&["n"], json!(-16), "n"),
        (&["dim"], json!(1u64 << 40), "gamma"),
        (&["dim"], json!(0), "dim"),
        (&["seed"], json!("x"), "seed"),
        (&["seed"], json!(-1), "seed"),
        (&["params"], json!(3), "gamma"),
        (&["params", "gamma"], json!([1.0, -1.0]), "gamma"),
        (&["params", "noise"], json!(null), "noise"),
        (&["params", "alpha"], json!([9, 9]), "alpha"),
        (&["y"], json!("none"), "y"),
        (&["y"], json!([]), "rows"),
        (&["y"], json!([[1.0], [1.0, 2.0]]), "y"),
        (&["y"], json!([1.0, "two"]), "y"),
    ] {
        change(path, value);
        kc_fails(at, &predict, 1, message);
    }
    std::fs::write(at.join("bad.json"), "{\"format\": \"kc gp 1\"").unwrap();
    kc_fails(at, &predict, 1, "bad.json");
    change(&["n"], json!(16));
    save(at, "xs.npy", Tensor::<f64, 2>::zeros([3, 5]).unwrap());
    kc_fails(at, &predict, 1, "one column per dimension");
    kc_fails(at, &["gp", "predict", "--model", "bad.json", "--x", "xs.npy"], 2, "--mean");
}
