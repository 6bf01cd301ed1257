//! `kc quant bcq` and `kc quant lut` on the golden cases.

use std::path::Path;

use kc_core::{Element, Level, Tensor};
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor, normals, relative_error};
use serde_json::Value;

use crate::support::{kc, kc_fails, kc_json, kc_ok};

fn path(case: u64, what: &str) -> String {
    golden(&format!("lut_gemm/case{case:02}_{what}.npy")).display().to_string()
}

fn array<T: Element, const N: usize>(case: u64, what: &str) -> Tensor<T, N> {
    golden_tensor(&format!("lut_gemm/case{case:02}_{what}.npy"))
}

fn stored<T: Element, const N: usize>(file: impl AsRef<Path>) -> Tensor<T, N> {
    kc_io::read(file.as_ref()).and_then(|any| any.to_tensor("result")).expect("a result")
}

fn store<T: Element, const N: usize>(file: impl AsRef<Path>, tensor: Tensor<T, N>) {
    kc_io::write(file.as_ref(), &tensor.into_any()).expect("a file");
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[test]
fn every_case_through_every_verb() {
    for case in golden_json("lut_gemm/cases.json").as_array().expect("cases") {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let id = case["case"].as_u64().expect("a number");
        let (x, w) = (path(id, "x"), path(id, "w"));
        let (bits, group) = (case["bits"].to_string(), case["group"].to_string());
        let want = number(case, "rel_sq_err");
        let common = ["--bits", &bits, "--group", &group, "--out", "q.safetensors", "--report", "r.json"];
        if case["source"] == "bcq" {
            let text = |key: &str| case[key].as_str().expect("a name").to_owned();
            let (method, offset) = (text("method"), text("offset"));
            let verb =
                ["quant", "bcq", "quantize", "--weights", &w, "--method", &method, "--offset", &offset];
            let report = kc_json(dir, &[&verb[..], &common, &["--dump-dir", "d"]].concat(), "r.json");
            let error = number(&report, "rel_sq_error");
            assert!(error <= 1.001 * want && error > 0.98 * want, "case {id}: {error} of {want}");
            let rounds = report["round_errors"].as_array().expect("a list");
            assert_eq!(rounds.len(), if method == "greedy" { 1 } else { 16 });
            let groups = number(case, "k") / number(case, "group");
            let scales = number(case, "bits") + f64::from(u8::from(offset == "joint"));
            let stored_bits = number(case, "bits") + scales * 32.0 * groups / number(case, "k");
            assert_eq!(number(&report, "bits_per_weight"), stored_bits);
            if case["kind"] != "constant" {
                assert_eq!(
                    stored::<u8, 3>(dir.join("d/bits.npy")).as_slice(),
                    array::<u8, 3>(id, "bits").as_slice()
                );
                for (file, name) in [("d/alpha.npy", "alpha"), ("d/offset.npy", "offset")] {
                    let got = kc_io::read(dir.join(file)).expect("a file").to_f64_vec();
                    let want = kc_io::read(path(id, name)).expect("a file").to_f64_vec();
                    assert_close(&got, &want, Tol::new(1e-5, 1e-9));
                }
            }
        } else {
            let (q, s, z) = (path(id, "q"), path(id, "scale"), path(id, "zero"));
            let parts = ["--codes", &q, "--scales", &s, "--zeros", &z];
            kc_ok(dir, &[&["quant", "bcq", "from-uniform"][..], &parts, &common].concat());
            let rounded =
                ["--bits", &bits, "--group", &group, "--out", "rtn.safetensors", "--report", "rtn.json"];
            let verb = [&["quant", "bcq", "rtn", "--weights", &w][..], &rounded].concat();
            let error = number(&kc_json(dir, &verb, "rtn.json"), "rel_sq_error");
            assert!((error / want - 1.0).abs() < 1e-4, "case {id}: {error} of {want}");
        }

        kc_ok(dir, &["quant", "bcq", "dequantize", "--packed", "q.safetensors", "--out", "back.npy"]);
        let (back, w): (Tensor<f32, 2>, Tensor<f32, 2>) = (stored(dir.join("back.npy")), array(id, "w"));
        let error = relative_error(back.as_slice(), w.as_slice()).powi(2);
        assert!((error / want - 1.0).abs() < 2e-3, "case {id}: {error} of {want}");

        let y: Tensor<f64, 2> = array(id, "y");
        let product = |mode: &str, kernel: &str| {
            let verb = ["quant", "lut", "matmul", "--x", &x, "--packed", "q.safetensors", "--out", "y.npy"];
            let options = ["--mode", mode, "--kernel", kernel, "--report", "r.json"];
            let report = kc_json(dir, &[&verb[..], &options].concat(), "r.json");
            assert_eq!(report["mode"], mode);
            assert!(report["crossover"].is_number() || kernel == "literal");
            (stored::<f32, 2>(dir.join("y.npy")), report)
        };
        for kernel in ["auto", "portable", "literal"] {
            let (got, report) = product("f32", kernel);
            assert!(kernel == "auto" || report["kernel"] == kernel);
            if case["kind"] != "constant" {
                assert!(relative_error(got.as_slice(), y.as_slice()) < 1e-5, "case {id} {kernel}");
            }
            assert_close(got.as_slice(), y.as_slice(), Tol::abs(1e-4 * number(case, "ymax")));
        }
        let (exact, _) = product("f32", "auto");
        for (mode, allowed) in [("i16", 5e-4), ("i8", 3e-2)] {
            let error = relative_error(product(mode, "auto").0.as_slice(), exact.as_slice());
            assert!(error > 1e-7 && error < allowed, "case {id} {mode}: {error}");
        }
    }
}

/// Any type as f64, for comparisons.
trait ToF64 {
    fn to_f64_vec(&self) -> Vec<f64>;
}

impl ToF64 for kc_core::AnyTensor {
    fn to_f64_vec(&self) -> Vec<f64> {
        match self.rank() {
            2 => self.to_f64::<2>("x").expect("numbers").into_vec(),
            _ => self.to_f64::<3>("x").expect("numbers").into_vec(),
        }
    }
}

#[test]
fn options_reach_the_library() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    store(dir.join("w.npy"), Tensor::from_slice([8, 200], &normals(1600, 1)).expect("a tensor"));
    store(dir.join("h.npy"), Tensor::from_slice([200], &[1.0f32; 200]).expect("a tensor"));
    store(dir.join("b.npy"), Tensor::from_slice([8], &normals(8, 2)).expect("a tensor"));
    store(dir.join("x.npy"), Tensor::from_slice([1, 200], &normals(200, 3)).expect("a tensor"));
    let quantize = |options: &[&str]| {
        let verb = [
            "quant",
            "bcq",
            "quantize",
            "--weights",
            "w.npy",
            "--out",
            "q.safetensors",
            "--report",
            "r.json",
        ];
        kc_json(dir, &[&verb[..], options].concat(), "r.json")
    };
    let plain = number(&quantize(&[]), "rel_sq_error");
    let best = quantize(&["--offset", "joint", "--init", "best", "--scale-dtype", "f16", "--group", "row"]);
    assert_eq!((number(&best, "group"), &best["init"]), (200.0, &Value::from("best")));
    assert_eq!(number(&best, "bits_per_weight"), 3.0 + 4.0 * 16.0 / 200.0);
    for (options, change) in [
        (&["--rounds", "1"][..], true),
        (&["--offset", "mean"], true),
        (&["--init", "uniform", "--offset", "joint"], true),
        (&["--exponent", "1", "--clipping", "0.9"], true),
        (&["--pruning", "0.2"], true),
        (&["--bits", "5"], true),
        (&["--importance", "h.npy"], false),
    ] {
        let error = number(&quantize(options), "rel_sq_error");
        assert_eq!(error != plain, change, "{options:?}: {error} {plain}");
    }
    // For scales of 3 bits that fall fast enough it finds the same signs.
    assert_eq!(quantize(&["--assign", "greedy"])["assign"], "greedy");
    assert_eq!(quantize(&["--method", "greedy"])["method"], "greedy");
    quantize(&[]);
    let matmul = |threads: &str| {
        let verb = ["quant", "lut", "matmul", "--x", "x.npy", "--packed", "q.safetensors", "--out", "y.npy"];
        kc_ok(dir, &[&verb[..], &["--bias", "b.npy", "--threads", threads]].concat());
        stored::<f32, 2>(dir.join("y.npy")).into_vec()
    };
    assert_eq!(matmul("1"), matmul("2"));
    kc_ok(dir, &["quant", "lut", "table", "--x", "x.npy", "--mu", "8", "--out", "lut.npy"]);
    let (table, x): (Tensor<f32, 2>, Vec<f32>) = (stored(dir.join("lut.npy")), normals(200, 3));
    assert_eq!(table.shape(), [25, 256]);
    assert!((table[[1, 255]] - x[8..16].iter().sum::<f32>()).abs() < 1e-5);
    assert!((table[[1, 254]] - table[[1, 255]] + 2.0 * x[8]).abs() < 1e-5);

    // Real zeros between codes.
    store(dir.join("c.npy"), Tensor::from_slice([1, 4], &[0i32, 1, 2, 3]).expect("a tensor"));
    store(dir.join("s.npy"), Tensor::from_slice([1, 1], &[0.5f32]).expect("a tensor"));
    store(dir.join("z.npy"), Tensor::from_slice([1, 1], &[1.5f32]).expect("a tensor"));
    let parts =
        ["--codes", "c.npy", "--scales", "s.npy", "--zeros", "z.npy", "--bits", "2", "--group", "row"];
    kc_ok(dir, &[&["quant", "bcq", "from-uniform", "--out", "u.safetensors"][..], &parts].concat());
    kc_ok(dir, &["quant", "bcq", "dequantize", "--packed", "u.safetensors", "--out", "u.npy"]);
    assert_eq!(stored::<f32, 2>(dir.join("u.npy")).as_slice(), [-0.75, -0.25, 0.25, 0.75]);
}

#[test]
fn bad_input_is_one_line_and_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let mut w = normals(64, 4);
    store(dir.join("w.npy"), Tensor::from_slice([4, 16], &w).expect("a tensor"));
    w[5] = f32::NAN;
    store(dir.join("nan.npy"), Tensor::from_slice([4, 16], &w).expect("a tensor"));
    store(dir.join("neg.npy"), Tensor::from_slice([16], &[-1.0f32; 16]).expect("a tensor"));
    kc_ok(dir, &["quant", "bcq", "quantize", "--weights", "w.npy", "--out", "q.safetensors"]);
    let fails = |args: &[&str], code: i32, message: &str| {
        kc_fails(dir, &[&["quant"][..], args].concat(), code, message);
    };
    let quantize = |options: &[&str], code: i32, message: &str| {
        let verb = ["bcq", "quantize", "--out", "o.safetensors"];
        fails(&[&verb[..], options].concat(), code, message);
    };
    quantize(&["--weights", "nan.npy"], 1, "w");
    quantize(&["--weights", "none.npy"], 1, "none.npy");
    quantize(&["--weights", "w.npy", "--bits", "9"], 1, "bits: expected 1 to 8");
    quantize(&["--weights", "w.npy", "--init", "uniform"], 1, "init");
    quantize(&["--weights", "w.npy", "--importance", "neg.npy"], 1, "importance");
    quantize(&["--weights", "w.npy", "--importance", "nan.npy"], 1, "importance");
    quantize(&["--weights", "w.npy", "--group", "0"], 2, "--group");
    quantize(&["--weights", "w.npy", "--group", "rows"], 2, "--group");
    quantize(&["--weights", "w.npy", "--method", "magic"], 2, "--method");
    fails(&["bcq", "dequantize", "--packed", "w.npy", "--out", "o.npy"], 1, "w.npy");
    let multiply = |x: &str, options: &[&str], code: i32, message: &str| {
        let verb = ["lut", "matmul", "--x", x, "--packed", "q.safetensors", "--out", "o.npy"];
        fails(&[&verb[..], options].concat(), code, message);
    };
    multiply("nan.npy", &[], 1, "x");
    multiply("neg.npy", &[], 1, "--x");
    multiply("w.npy", &["--mode", "i8", "--kernel", "literal"], 1, "mode");
    multiply("w.npy", &["--bias", "neg.npy"], 1, "bias");
    if kc_core::Isa::detect(Level::Avx512).is_none() {
        multiply("w.npy", &["--kernel", "avx512"], 1, "avx512");
    }
    fails(&["lut", "table", "--x", "w.npy", "--out", "o.npy"], 1, "--x");
    fails(&["lut", "table", "--x", "neg.npy", "--mu", "4", "--out", "o.npy"], 2, "--mu");
    // A file whose last bits lie behind the last column, and one that was cut.
    let file = std::fs::read(dir.join("q.safetensors")).expect("a file");
    std::fs::write(dir.join("cut.safetensors"), &file[..file.len() - 9]).expect("a file");
    let cut = kc(dir, &["quant", "bcq", "dequantize", "--packed", "cut.safetensors", "--out", "o.npy"]);
    assert_eq!(cut.status.code(), Some(1));
}
