//! `kc snnk` on the golden cases.

use std::collections::BTreeMap;
use std::path::Path;

use kc_core::{AnyTensor, Complex, DType, Tensor};
use kc_testing::{golden, golden_json, golden_tensor};

use crate::support::{kc_fails, kc_json, kc_ok};

fn path(name: &str) -> String {
    golden(&format!("snnk/{name}.npy")).display().to_string()
}

fn read(file: &Path) -> AnyTensor {
    kc_io::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Real and imaginary parts of every element as f64.
fn parts(any: &AnyTensor) -> Vec<f64> {
    match any.dtype() {
        DType::C64 => {
            let all: Tensor<Complex<f32>, 2> = any.to_tensor("z").expect("a matrix");
            all.as_slice().iter().flat_map(|z| [f64::from(z.re), f64::from(z.im)]).collect()
        }
        DType::C128 => {
            let all: Tensor<Complex<f64>, 2> = any.to_tensor("z").expect("a matrix");
            all.as_slice().iter().flat_map(|z| [z.re, z.im]).collect()
        }
        _ => any.to_f64::<2>("x").expect("a matrix").into_vec(),
    }
}

/// The file holds the fixture, in the given type.
fn same(file: &Path, fixture: &str, dtype: DType, tol: f64) {
    let (got, want) = (read(file), read(&golden(&format!("snnk/{fixture}.npy"))));
    assert_eq!((got.dtype(), got.shape()), (dtype, want.shape()), "{fixture}");
    let (got, want) = (parts(&got), parts(&want));
    assert_eq!(got.len(), want.len(), "{fixture}");
    let size = want.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (g, w) in got.iter().zip(&want) {
        assert!((g - w).abs() <= tol * size, "{fixture}: {g} for {w}");
    }
}

/// The fixture as float64, in `dir`.
fn widened(dir: &Path, fixture: &str) -> String {
    let file = dir.join(format!("{}.npy", fixture.replace('/', "_")));
    let any = read(&golden(&format!("snnk/{fixture}.npy")));
    kc_io::write(&file, &any.to_f64::<2>("x").expect("a matrix").into_any()).expect("a file");
    file.display().to_string()
}

#[test]
fn relu_in_both_types() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (g, w, dy) = (path("relu/g"), path("relu/w"), path("relu/dy"));
    for (x, dtype, tol) in [(path("relu/x"), DType::F32, 3e-6), (widened(dir, "relu/x"), DType::F64, 1e-12)] {
        let args = ["snnk", "layer", "--x", &x, "--w", &w, "--g", &g, "--out", "y.npy"];
        let report = kc_json(
            dir,
            &[&args[..], &["--dy", &dy, "--grad-dir", "d", "--report", "r.json"]].concat(),
            "r.json",
        );
        assert_eq!((&report["parameters"], &report["weights"]), (&(16 * 64).into(), &(16 * 24).into()));
        same(&dir.join("y.npy"), "relu/y", dtype, tol);
        for name in ["psi", "dx", "dpsi"] {
            same(&dir.join(format!("d/{name}.npy")), &format!("relu/{name}"), dtype, tol);
        }
        kc_ok(dir, &["snnk", "arccos", "--x", &x, "--w", &w, "--out", "k.npy"]);
        same(&dir.join("k.npy"), "relu/arccos_limit", dtype, tol);
        let wide = if dtype == DType::F64 { widened(dir, "relu/w") } else { w.clone() };
        let map = ["--map", "relu", "--m", "64", "--g", &g];
        kc_ok(
            dir,
            &[&["snnk", "features", "--x", &wide, "--side", "w", "--out", "p.npy"][..], &map].concat(),
        );
        same(&dir.join("p.npy"), "relu/psi", dtype, tol);

        let stored: Vec<(String, AnyTensor)> = ["psi", "g", "up_w", "up_b"]
            .map(|name| (name.to_owned(), read(&golden(&format!("snnk/relu/{name}.npy")))))
            .to_vec();
        kc_io::safetensors::write(dir.join("a.safetensors"), &stored, &BTreeMap::new()).expect("a file");
        kc_ok(dir, &["snnk", "adapter", "--params", "a.safetensors", "--x", &x, "--out", "a.npy"]);
        same(&dir.join("a.npy"), "relu/adapter", dtype, tol);
    }
}

#[test]
fn universal_features_of_every_case() {
    for case in [
        "urf_cos_0.5",
        "urf_cos_1.0",
        "urf_gauss_0.5",
        "urf_lorentz_0.5",
        "urf_sech_0.5",
        "urf_sin_0.5",
        "urf_sin_1.0",
        "urf_sinc_0.5",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let of = |name: &str| path(&format!("{case}/{name}"));
        let json = golden_json(&format!("snnk/{case}/case.json"));
        let (split, lam) = (json["split"].to_string(), json["lam"].to_string());
        let (g, xi, c, b, dy) = (of("g"), of("xi"), of("c"), of("b"), of("dy"));
        let map = ["--map", "urf", "--g", &g, "--xi", &xi, "--c", &c, "--split", &split, "--lam", &lam];
        for wide in [false, true] {
            let input = |name: &str| if wide { widened(dir, &format!("{case}/{name}")) } else { of(name) };
            let (real, complex, tol) =
                if wide { (DType::F64, DType::C128, 1e-12) } else { (DType::F32, DType::C64, 1e-5) };
            let (x, w) = (input("x"), input("w"));
            let verb = |rest: &[&str]| kc_ok(dir, &[&["snnk"][..], rest, &map].concat());
            verb(&["features", "--x", &x, "--side", "x", "--out", "phi.npy"]);
            same(&dir.join("phi.npy"), &format!("{case}/phi"), complex, tol);
            verb(&["features", "--x", &w, "--side", "w", "--b", &b, "--out", "psi.npy"]);
            same(&dir.join("psi.npy"), &format!("{case}/psi"), complex, tol);
            verb(&[
                "layer",
                "--x",
                &x,
                "--w",
                &w,
                "--b",
                &b,
                "--out",
                "y.npy",
                "--dy",
                &dy,
                "--grad-dir",
                "d",
            ]);
            same(&dir.join("y.npy"), &format!("{case}/y"), real, tol);
            same(&dir.join("d/psi.npy"), &format!("{case}/psi"), complex, tol);
            same(&dir.join("d/dx.npy"), &format!("{case}/dx"), real, tol);
            same(&dir.join("d/dpsi.npy"), &format!("{case}/dpsi"), complex, tol);
        }
    }
}

#[test]
fn maclaurin_features() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let of = |name: &str| path(&format!("maclaurin_tanh/{name}"));
    let (x, w, degrees, omega) = (of("x"), of("w"), of("degrees"), of("omega"));
    let map = ["--map", "maclaurin", "--coef", "tanh", "--degrees", &degrees, "--omega", &omega];
    let verb = |rest: &[&str]| kc_ok(dir, &[&["snnk"][..], rest, &map].concat());
    verb(&["features", "--x", &x, "--out", "phi.npy"]);
    same(&dir.join("phi.npy"), "maclaurin_tanh/phi", DType::F32, 3e-6);
    verb(&["features", "--x", &w, "--side", "w", "--out", "psi.npy"]);
    same(&dir.join("psi.npy"), "maclaurin_tanh/psi", DType::F32, 3e-6);
    let (x, w) = (widened(dir, "maclaurin_tanh/x"), widened(dir, "maclaurin_tanh/w"));
    verb(&["layer", "--x", &x, "--w", &w, "--out", "y.npy"]);
    same(&dir.join("y.npy"), "maclaurin_tanh/y", DType::F64, 1e-12);
    let coefficients: Vec<f64> = golden_json("snnk/maclaurin_tanh/case.json")["coefficients"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(serde_json::Value::as_f64)
        .collect();
    let table = Tensor::from_slice([coefficients.len()], &coefficients).expect("a vector");
    kc_io::write(dir.join("c.npy"), &table.into_any()).expect("a file");
    let table = [&map[..2], &["--coef", "c.npy"], &map[4..]].concat();
    kc_ok(dir, &[&["snnk", "layer", "--x", &x, "--w", &w, "--out", "t.npy"][..], &table].concat());
    same(&dir.join("t.npy"), "maclaurin_tanh/y", DType::F64, 1e-12);
}

#[test]
fn bundles_and_fits() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let of = |name: &str| path(&format!("bundle/{name}"));
    let (x, y) = (of("x"), of("target"));
    let (weights, g) = (format!("{},{}", of("w1"), of("w2")), format!("{},{}", of("g1"), of("g2")));
    let bundle = ["snnk", "bundle", "--weights", &weights, "--g", &g, "--x", &x];
    let report = kc_json(
        dir,
        &[&bundle[..], &["--out", "y.npy", "--psi", "psi.npy", "--report", "r.json"]].concat(),
        "r.json",
    );
    assert_eq!(report["parameters"], 5 * 40);
    same(&dir.join("y.npy"), "bundle/y", DType::F64, 1e-12);
    same(&dir.join("psi.npy"), "bundle/psi", DType::F64, 1e-12);
    let fit = ["snnk", "fit", "--x", &x, "--y", &y, "--g", &g, "--out", "fit.npy"];
    kc_ok(dir, &[&fit[..], &["--ridge", "0.5"]].concat());
    same(&dir.join("fit.npy"), "bundle/fit_ridge", DType::F64, 1e-9);
    let error = |args: &[&str]| {
        let report = kc_json(dir, &[&fit[..], args, &["--report", "r.json"]].concat(), "r.json");
        report["mean_squared_error"].as_f64().expect("a number")
    };
    assert!(error(&["--ridge", "0"]) < error(&["--ridge", "0.5"]));

    let labels: Vec<i64> = (0..120).map(|i| i % 3).collect();
    let labels = Tensor::from_slice([120], &labels).expect("a vector");
    kc_io::write(dir.join("l.npy"), &labels.into_any()).expect("a file");
    let logistic = ["snnk", "fit", "--x", &x, "--y", "l.npy", "--m", "80", "--logistic", "--ridge", "0.001"];
    let report = kc_json(dir, &[&logistic[..], &["--out", "c.npy", "--report", "r.json"]].concat(), "r.json");
    assert!(report["accuracy"].as_f64().expect("a number") > 0.8, "{report}");
    assert_eq!(read(&dir.join("c.npy")).shape(), [3, 80]);
}

#[test]
fn seeds_draw_what_no_file_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (x, w) = (path("relu/x"), path("relu/w"));
    let run = |rest: &[&str], out: &str| {
        kc_ok(dir, &[&["snnk", "layer", "--x", &x, "--w", &w, "--out", out][..], rest].concat());
        parts(&read(&dir.join(out)))
    };
    for map in [
        &["--map", "relu", "--orthogonal"][..],
        &["--map", "relu", "--hadamard", "--normalize", "1"],
        &["--map", "urf", "--spectrum", "gauss", "--antithetic"],
        &["--map", "maclaurin", "--coef", "gelu", "--h01"],
    ] {
        let with = |more: &[&'static str]| [map, &["--m", "50"], more].concat();
        let first = run(&with(&["--seed", "3"]), "a.npy");
        assert_eq!(first, run(&with(&["--seed", "3", "--threads", "2"]), "b.npy"));
        assert_ne!(first, run(&with(&["--seed", "4"]), "c.npy"));
    }
    // Features of inputs and of weights share what the seed draws.
    let features = |side: &str, file: &str, out: &str| {
        let args = ["snnk", "features", "--x", file, "--side", side, "--m", "50", "--out", out];
        kc_ok(dir, &[&args[..], &["--bias"]].concat());
        parts(&read(&dir.join(out)))
    };
    let (phi, psi) = (features("x", &x, "phi.npy"), features("w", &w, "psi.npy"));
    let zeros = Tensor::<f32, 1>::zeros([16]).expect("a vector");
    kc_io::write(dir.join("b.npy"), &zeros.into_any()).expect("a file");
    let y = run(&["--m", "50", "--b", "b.npy"], "y.npy");
    let by_hand: f64 = (0..50).map(|k| phi[k] * psi[k]).sum();
    assert!((y[0] - by_hand).abs() < 1e-5);
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (x, w, g, b) = (path("relu/x"), path("relu/w"), path("relu/g"), path("urf_cos_0.5/b"));
    let (g1, xi, c) = (path("bundle/g2"), path("urf_cos_0.5/xi"), path("urf_cos_0.5/c"));
    let layer = |rest: &[&str], code, message: &str| {
        let args = [&["snnk", "layer", "--x", &x, "--w", &w, "--out", "y.npy"][..], rest].concat();
        kc_fails(dir, &args, code, message);
    };
    layer(&["--g", &g1], 1, "--g: expected [m, 24]");
    layer(&["--g", &g, "--m", "63"], 1, "--g: expected 63 rows");
    layer(&["--b", &path("relu/up_b")], 1, "b: expected [16]");
    layer(&["--b", &b, "--g", &g], 1, "one for the bias");
    layer(&["--map", "urf", "--xi", &xi, "--c", &c, "--m", "65"], 1, "--xi: expected 65");
    layer(&["--m", "0"], 1, "m: expected at least one element");
    layer(&["--map", "urf", "--lam", "-0.25"], 1, "lam: expected a number above -0.25");
    layer(&["--map", "urf", "--split", "1.5"], 1, "split: expected 0 to 1");
    layer(&["--normalize", "0"], 1, "normalize: expected a positive length");
    layer(&["--map", "urf", "--spectrum", "tan"], 2, "tan");
    layer(&["--map", "urf", "--xi", &xi], 2, "--c");
    layer(&["--xi", &xi, "--c", &c], 2, "need --map urf");
    layer(&["--map", "maclaurin", "--g", &g], 2, "signs");
    layer(&["--map", "maclaurin", "--coef", "sine"], 2, "--coef");
    layer(&["--dy", &x], 2, "--grad-dir");
    let far = golden_tensor::<f32, 2>("snnk/relu/x.npy");
    let far = Tensor::from_fn(far.shape(), |[i, j]| if i == 7 { 1e4 * far[[i, j]] } else { far[[i, j]] });
    kc_io::write(dir.join("far.npy"), &far.expect("a matrix").into_any()).expect("a file");
    let args = ["snnk", "features", "--x", "far.npy", "--map", "urf", "--out", "p.npy"];
    kc_fails(dir, &args, 1, "in row 7");
    let fit = ["snnk", "fit", "--x", &x, "--y", &x, "--m", "8", "--ridge", "-1", "--out", "p.npy"];
    kc_fails(dir, &fit, 1, "ridge: expected a finite number of at least 0");
    kc_fails(dir, &["snnk", "features", "--x", &x, "--b", &b, "--out", "p.npy"], 2, "--side w");
    std::fs::write(dir.join("a.safetensors"), b"nothing").expect("a file");
    kc_fails(
        dir,
        &["snnk", "adapter", "--params", "a.safetensors", "--x", &x, "--out", "p.npy"],
        1,
        "a.safetensors",
    );
    kc_fails(
        dir,
        &["snnk", "adapter", "--params", "none.safetensors", "--x", &x, "--out", "p.npy"],
        1,
        "none",
    );
}
