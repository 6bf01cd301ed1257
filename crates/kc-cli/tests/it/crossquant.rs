//! `kc quant crossquant` on the golden cases.

use kc_core::Tensor;
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor};
use serde_json::Value;

use crate::support::{json, kc_fails, kc_json, kc_ok};

fn path(case: usize, what: &str) -> String {
    golden(&format!("crossquant/case{case:02}_{what}.npy")).display().to_string()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn stored<T: kc_core::Element, const N: usize>(file: std::path::PathBuf) -> Tensor<T, N> {
    kc_io::read(file).and_then(|any| any.to_tensor("result")).expect("a result")
}

#[test]
fn every_case_through_every_verb() {
    for case in golden_json("crossquant/cases.json").as_array().expect("cases") {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let id = case["case"].as_u64().expect("a number") as usize;
        let (x, w) = (path(id, "x"), path(id, "w"));
        let [bits, wbits, alpha] = ["abits", "wbits", "alpha"].map(|key| case[key].to_string());
        let group = case["group"].as_u64().unwrap_or(0).to_string();
        let col = if case["kind"] == "static" { path(id, "col") } else { String::new() };
        let columns: &[&str] = if col.is_empty() { &[] } else { &["--columns", &col] };

        let spec = [&["--x", &x, "--bits", &bits, "--alpha", &alpha][..], columns].concat();
        let verb = |name| [&["quant", "crossquant", name][..], &spec].concat();
        kc_ok(dir, &[&verb("codes")[..], &["--out-dir", "d"]].concat());
        let report = json(&dir.join("d/report.json"));
        assert_eq!(report["clipped"], case["clipped"]);
        let codes: Tensor<i8, 2> = stored(dir.join("d/codes.npy"));
        let want: Tensor<i8, 2> = golden_tensor(&format!("crossquant/case{id:02}_codes.npy"));
        let differing = codes.as_slice().iter().zip(want.as_slice()).filter(|(a, b)| a != b).count();
        assert!(differing <= 1, "case {id}: {differing} codes");
        for (file, name) in [("d/row.npy", "r"), ("d/col.npy", "c")] {
            let want: Tensor<f32, 1> = golden_tensor(&format!("crossquant/case{id:02}_{name}.npy"));
            assert_close(stored::<f32, 1>(dir.join(file)).as_slice(), want.as_slice(), Tol::rel(1e-7));
        }

        let report = kc_json(dir, &[&verb("kernel")[..], &["--out", "k.json"]].concat(), "k.json");
        for key in [
            "kernel",
            "kernel_nonzero",
            "per_token_kernel",
            "per_token_kernel_nonzero",
            "per_column_kernel",
            "per_column_kernel_nonzero",
            "exact_zeros",
            "columns_below_row",
        ] {
            let gap = number(&report, key) - number(case, key);
            assert!(gap.abs() <= 1.5 / want.len() as f64, "case {id}: {key} {gap:e}");
        }

        let common = ["--x", &x, "--weights", &w, "--abits", &bits, "--wbits", &wbits, "--group", &group];
        let rest = ["--alpha", &alpha, "--row", "absmax", "--out", "y.npy", "--report", "r.json"];
        let matmul = |mode, columns: &[&str]| {
            let args =
                [&["quant", "crossquant", "matmul", "--mode", mode][..], &common, &rest, columns].concat();
            let report = kc_json(dir, &args, "r.json");
            assert_eq!(report["mode"], mode);
            stored::<f32, 2>(dir.join("y.npy")).into_vec()
        };
        let folded: Tensor<f64, 2> = golden_tensor(&format!("crossquant/case{id:02}_yfold.npy"));
        let fake: Tensor<f64, 2> = golden_tensor(&format!("crossquant/case{id:02}_yfake.npy"));
        let size = folded.as_slice().iter().fold(0.0, |m: f64, y| m.max(y.abs()));
        assert_close(&matmul("folded", columns), folded.as_slice(), Tol::abs(1e-5 * size));
        assert_close(&matmul("fake", &[]), fake.as_slice(), Tol::abs(1e-5 * size));
    }
}

#[test]
fn sweep_calibrate_and_remove_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (x, w) = (path(0, "x"), path(0, "w"));
    let base =
        ["quant", "crossquant", "sweep", "--x", &x, "--w", &w, "--grid", "0,0.15,1", "--out", "s.json"];
    let found = kc_json(dir, &base, "s.json");
    let case = &golden_json("crossquant/cases.json")[0];
    assert_eq!(found["points"].as_array().expect("points").len(), 3);
    assert!((number(&found["points"][1], "err_y") / number(case, "err_fake") - 1.0).abs() < 1e-3);
    assert_eq!(number(&found["points"][2], "kernel"), number(case, "per_token_kernel"));

    kc_ok(dir, &["quant", "crossquant", "calibrate", "--x", &x, "--x", &path(1, "x"), "--out", "c.npy"]);
    let columns: Tensor<f32, 1> = stored(dir.join("c.npy"));
    let both = [golden_tensor::<f32, 2>("crossquant/case00_x.npy"), golden_tensor("crossquant/case01_x.npy")];
    for (j, c) in columns.as_slice().iter().enumerate() {
        let rows = both.iter().flat_map(|x| x.as_slice().chunks(256));
        assert_eq!(*c, rows.map(|row| row[j].abs()).fold(0.0, f32::max));
    }
    kc_ok(dir, &["quant", "crossquant", "calibrate", "--x", &x, "--percentile", "50", "--out", "p.npy"]);
    let medians: Tensor<f32, 1> = stored(dir.join("p.npy"));
    assert!(medians.as_slice().iter().zip(columns.as_slice()).all(|(p, c)| p < c));

    kc_ok(dir, &["quant", "crossquant", "remove-kernel", "--x", &x, "--out", "bare.npy"]);
    let bare: Tensor<f32, 2> = stored(dir.join("bare.npy"));
    let zeros = bare.as_slice().iter().filter(|x| **x == 0.0).count() as f64 / bare.len() as f64;
    assert!((zeros - number(case, "kernel")).abs() <= 1.5 / bare.len() as f64);
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (x, w, short) = (path(0, "x"), path(0, "w"), path(3, "c"));
    let verb = |rest: &[&str], message| {
        kc_fails(folder.path(), &[&["quant", "crossquant"][..], rest].concat(), 1, message);
    };
    verb(&["codes", "--x", &x, "--alpha", "1.5", "--out-dir", "d"], "alpha: expected 0 to 1");
    verb(&["codes", "--x", &x, "--alpha", "nan", "--out-dir", "d"], "alpha: expected 0 to 1");
    verb(&["kernel", "--x", &x, "--bits", "9"], "bits: expected 2 to 8");
    verb(&["kernel", "--x", &x, "--columns", &short], "columns: expected [256]");
    verb(&["matmul", "--x", &short, "--weights", &w, "--out", "y.npy"], "--x");
    verb(&["matmul", "--x", &path(3, "x"), "--weights", &w, "--out", "y.npy"], "x: expected [T, 256]");
    kc_fails(folder.path(), &["quant", "crossquant", "codes", "--x", &x], 2, "--out-dir");
}
