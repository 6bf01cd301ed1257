//! `kc attention soft`, `soft-exact` and `newton-inverse` on the golden cases.

use std::path::Path;

use kc_core::{Element, Tensor};
use kc_testing::{Tol, assert_close, golden, golden_dir, golden_json, golden_tensor, relative_error};

use crate::support::{json, kc_fails, kc_json, kc_ok};

fn file(case: &str, name: &str) -> String {
    golden(&format!("soft/{case}/{name}.npy")).display().to_string()
}

fn stored<T: Element, const N: usize>(file: &Path) -> Tensor<T, N> {
    kc_io::read(file).and_then(|any| any.to_tensor("result")).expect("a result")
}

/// Fails if an element of a stored result differs from the fixture by more than `tol` of the largest.
#[track_caller]
fn close<const N: usize>(found: &Path, case: &str, name: &str, tol: f64) {
    let (got, want) = (stored::<f32, N>(found), golden_tensor::<f32, N>(&format!("soft/{case}/{name}.npy")));
    assert_eq!(got.shape(), want.shape(), "{case} {name}");
    let size = want.as_slice().iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert_close(got.as_slice(), want.as_slice(), Tol::abs(tol * f64::from(size)));
}

#[test]
fn every_case_with_all_gradients() {
    for case in ["conv_ridge", "conv_norm_backtrack", "avgpool_exact_norm", "avgpool_ridge_ill"] {
        let settings = golden_json(&format!("soft/{case}/case.json"));
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let [q, v, dx, w, g, b] = ["q", "v", "dx", "conv_w", "ln_g", "ln_b"].map(|name| file(case, name));
        let grid = format!("{}x{}", settings["H"], settings["W"]);
        let [ratio, iters, ridge] = ["r", "iters", "ridge"].map(|key| settings[key].to_string());
        let conv = settings["landmark"] == "conv";
        let inverse = match settings["inverse"].as_str() {
            Some("ridge") => "newton",
            Some(other) => other,
            None => panic!("no inverse"),
        };
        let mut args = vec!["attention", "soft", "--q", &q, "--v", &v, "--grid", &grid, "--ratio", &ratio];
        if conv {
            args.extend(["--landmark", "conv", "--conv-w", &w, "--ln-g", &g, "--ln-b", &b]);
        } else {
            args.extend(["--landmark", "avgpool"]);
        }
        args.extend(["--inverse", inverse, "--iters", &iters, "--ridge", &ridge]);
        if settings["norm"] == true {
            args.push("--norm");
        }
        let local = golden_dir().join(format!("soft/{case}/dw.npy"));
        let local = local.exists().then(|| local.display().to_string());
        if let Some(local) = &local {
            args.extend(["--local", local]);
        }
        args.extend(["--dx", &dx, "--grad-dir", "grads", "--out", "x.npy", "--dump-dir", "dump"]);
        args.extend(["--report", "r.json"]);
        let report = kc_json(dir, &args, "r.json");
        let residual = report["residual"].as_f64().expect("a residual");
        assert_eq!(residual > 0.1, case == "avgpool_ridge_ill", "{residual}");
        assert!(report["seconds"].as_f64().is_some_and(|s| s > 0.0) && report["run"]["seconds"].is_number());

        let (value, slope) = if case == "avgpool_ridge_ill" { (1e-5, 1e-4) } else { (2e-6, 5e-6) };
        close::<4>(&dir.join("x.npy"), case, "x", value);
        for (name, tol) in [("landmarks", 1e-6), ("a", 1e-6), ("ainv", value)] {
            close::<4>(&dir.join(format!("dump/{name}.npy")), case, name, tol);
        }
        let grads = dir.join("grads");
        close::<4>(&grads.join("dq.npy"), case, "dq", slope);
        close::<4>(&grads.join("dv.npy"), case, "dv", slope);
        assert_eq!(grads.join("dconv_w.npy").exists(), conv);
        assert_eq!(grads.join("ddw.npy").exists(), local.is_some());
        if conv {
            close::<4>(&grads.join("dconv_w.npy"), case, "dconv_w", slope);
            close::<1>(&grads.join("dln_g.npy"), case, "dln_g", slope);
            close::<1>(&grads.join("dln_b.npy"), case, "dln_b", slope);
        }
        if local.is_some() {
            close::<3>(&grads.join("ddw.npy"), case, "ddw", slope);
        }

        // The same landmarks, given, in the order of the dump.
        let given = ["--landmarks", "dump/landmarks.npy", "--inverse", inverse, "--iters", &iters];
        let again = [
            &["attention", "soft", "--q", &q, "--v", &v, "--grid", &grid, "--ratio", &ratio][..],
            &given,
            &["--ridge", &ridge, "--out", "y.npy"],
            if settings["norm"] == true { &["--norm"] } else { &[] },
        ];
        let mut again = again.concat();
        if let Some(local) = &local {
            again.extend(["--local", local]);
        }
        kc_ok(dir, &again);
        close::<4>(&dir.join("y.npy"), case, "x", value);
    }
}

#[test]
fn inverses_in_the_type_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let a = file("inverse", "a");
    for (name, mode, iters) in [
        ("newton_ridge", "newton", "20"),
        ("newton_ridge_8", "newton", "8"),
        ("newton_backtrack", "backtrack", "20"),
        ("exact", "exact", "20"),
    ] {
        let args = ["attention", "newton-inverse", "--a", &a, "--out", "y.npy", "--iters", iters];
        kc_ok(dir, &[&args[..], &["--mode", mode, "--json", "r.json"]].concat());
        let want: Tensor<f64, 2> = golden_tensor(&format!("soft/inverse/{name}.npy"));
        let got: Tensor<f64, 2> = stored(&dir.join("y.npy"));
        assert!(relative_error(got.as_slice(), want.as_slice()) < 1e-11, "{name}");
        assert_eq!(json(&dir.join("r.json"))["residual"].as_f64().expect("a number") < 1e-3, mode == "exact");
    }
    let many = file("conv_ridge", "a");
    kc_ok(dir, &["attention", "newton-inverse", "--a", &many, "--out", "y.npy"]);
    close::<4>(&dir.join("y.npy"), "conv_ridge", "ainv", 1e-6);
}

#[test]
fn exact_attention_is_what_many_landmarks_give() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (q, v) = (file("avgpool_exact_norm", "q"), file("avgpool_exact_norm", "v"));
    kc_ok(dir, &["attention", "soft-exact", "--q", &q, "--v", &v, "--out", "exact.npy"]);
    // With ratio 1 and means, every token is its own landmark.
    let all =
        ["--grid", "8x8", "--ratio", "1", "--landmark", "avgpool", "--inverse", "pinv", "--out", "x.npy"];
    kc_ok(dir, &[&["attention", "soft", "--q", &q, "--v", &v][..], &all].concat());
    let (x, exact) = (stored::<f32, 4>(&dir.join("x.npy")), stored::<f32, 4>(&dir.join("exact.npy")));
    assert!(relative_error(x.as_slice(), exact.as_slice()) < 1e-5);
    // A sequence of the same tokens has the same result.
    let line =
        ["--grid", "64", "--ratio", "1", "--landmark", "avgpool", "--inverse", "pinv", "--out", "y.npy"];
    kc_ok(dir, &[&["attention", "soft", "--q", &q, "--v", &v][..], &line].concat());
    assert_eq!(stored::<f32, 4>(&dir.join("y.npy")), x);
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (q, v, w) = (file("conv_ridge", "q"), file("conv_ridge", "v"), file("conv_ridge", "conv_w"));
    let (dw, ill) = (file("conv_norm_backtrack", "dw"), file("avgpool_ridge_ill", "q"));
    let soft = |rest: &[&str], code, message| {
        let args = ["attention", "soft", "--q", &q, "--v", &v, "--out", "x.npy"];
        kc_fails(folder.path(), &[&args[..], rest].concat(), code, message);
    };
    soft(&["--grid", "11x10", "--ratio", "3", "--landmark", "avgpool"], 1, "grid: expected 120 tokens");
    soft(&["--grid", "12x10", "--ratio", "0", "--landmark", "avgpool"], 1, "ratio: expected 1 to 10");
    soft(&["--grid", "12x10", "--ratio", "11", "--landmark", "avgpool"], 1, "ratio: expected 1 to 10");
    soft(&["--grid", "12x10", "--ratio", "2", "--conv-w", &w], 1, "conv_w: expected [16, 16, 2, 2]");
    soft(&["--grid", "12x10", "--ratio", "3"], 2, "--conv-w");
    soft(&["--grid", "12by10", "--ratio", "3"], 2, "--grid");
    let pool = ["--grid", "12x10", "--ratio", "3", "--landmark", "avgpool"];
    soft(&[&pool[..], &["--local", &dw]].concat(), 1, "local: expected [2, k, k]");
    soft(&[&pool[..], &["--most-landmarks", "11"]].concat(), 1, "larger ratio");
    soft(&[&pool[..], &["--ridge", "-1"]].concat(), 1, "ridge");
    soft(&[&pool[..], &["--dx", &ill, "--grad-dir", "g"]].concat(), 1, "dx: expected [1, 2, 120, 16]");
    soft(&[&pool[..], &["--dx", &q]].concat(), 2, "--grad-dir");
    let fails = |args: &[&str], message| kc_fails(folder.path(), args, 1, message);
    fails(&["attention", "soft-exact", "--q", &q, "--v", &ill, "--out", "x.npy"], "v: expected");
    fails(
        &["attention", "newton-inverse", "--a", &dw, "--inverse", "exact", "--out", "y.npy"],
        "a: expected a symmetric",
    );
    fails(&["attention", "newton-inverse", "--a", &q, "--out", "y.npy"], "--a: expected (.., m, m)");
    // What is wrong is told with the matrix in which it is.
    let one = |at: [usize; 3]| if at == [1, 0, 1] { f64::NAN } else { f64::from(u8::from(at[1] == at[2])) };
    for (name, value, mode, message) in [
        ("nan", one as fn([usize; 3]) -> f64, "newton", "--a: expected finite values, got NaN at [1, 0, 1]"),
        (
            "flat",
            |at| if at[0] == 1 || at[1] == at[2] { 1.0 } else { 0.0 },
            "exact",
            "--a: matrix 1: singular",
        ),
    ] {
        let file = folder.path().join(format!("{name}.npy"));
        let a = Tensor::from_fn([2, 2, 2], value).expect("matrices");
        kc_io::write(&file, &a.into_any()).expect("a file");
        let args = ["attention", "newton-inverse", "--a", &format!("{name}.npy"), "--mode", mode];
        fails(&[&args[..], &["--ridge", "0", "--out", "y.npy"]].concat(), message);
    }
}
