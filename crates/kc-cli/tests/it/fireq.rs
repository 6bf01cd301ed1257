//! `kc quant fp8` and `kc quant fireq` on the golden cases.

use std::path::Path;

use kc_core::{Element, Tensor};
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor, normals};
use serde_json::Value;

use crate::support::{json, kc_fails, kc_json, kc_ok};

fn path(name: &str) -> String {
    golden(&format!("fireq/{name}.npy")).display().to_string()
}

fn stored<T: Element, const N: usize>(dir: &Path, file: &str) -> Tensor<T, N> {
    kc_io::read(dir.join(file)).and_then(|any| any.to_tensor("result")).expect("a result")
}

fn fixture<T: Element, const N: usize>(name: &str) -> Tensor<T, N> {
    golden_tensor(&format!("fireq/{name}.npy"))
}

fn cases(prefix: &str) -> Vec<Value> {
    let all = golden_json("fireq/cases.json");
    let all = all.as_array().expect("cases").iter();
    all.filter(|c| c["case"].as_str().is_some_and(|name| name.starts_with(prefix))).cloned().collect()
}

fn name(case: &Value) -> &str {
    case["case"].as_str().expect("a name")
}

fn write(dir: &Path, file: &str, shape: [usize; 3], values: &[f32]) {
    let x = Tensor::from_slice(shape, values).expect("a tensor");
    kc_io::write(dir.join(file), &x.into_any()).expect("written");
}

#[test]
fn fp8_both_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let x = path("fp8_encode_in");
    let report = kc_json(
        dir,
        &["quant", "fp8", "encode", "--x", &x, "--out", "c.npy", "--quiet", "--report", "r.json"],
        "r.json",
    );
    assert_eq!(stored::<u8, 1>(dir, "c.npy"), fixture("fp8_encode_out"));
    let beyond = fixture::<f32, 1>("fp8_encode_in").as_slice().iter().filter(|x| x.abs() > 448.0).count();
    assert_eq!(report["saturated"], beyond);
    assert!(beyond > 0);

    let codes: Vec<u8> = (0..=255u8).filter(|c| c & 0x7f != 0x7f).collect();
    let codes = Tensor::from_slice([2, codes.len() / 2], &codes).expect("codes");
    kc_io::write(dir.join("codes.npy"), &codes.clone().into_any()).expect("written");
    kc_ok(dir, &["quant", "fp8", "decode", "--x", "codes.npy", "--out", "back.npy"]);
    let (back, want): (Tensor<f32, 2>, Tensor<f32, 1>) = (stored(dir, "back.npy"), fixture("fp8_decode"));
    assert_eq!(back.shape(), codes.shape());
    assert!(back.as_slice().iter().zip(codes.as_slice()).all(|(x, &c)| *x == want[[usize::from(c)]]));
}

#[test]
fn every_linear_case() {
    for case in cases("lin") {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let file = |what: &str| path(&format!("{}{what}", name(&case)));
        let group = case["group"].to_string();
        let scale = case["scale_dtype"].as_str().expect("a type");
        let per_tensor = case["per_tensor"].as_str().expect("a rule").replace('_', "-");
        let (w, x) = (file("w"), file("x"));
        let spec = ["--group", &group, "--scale-dtype", scale, "--per-tensor", &per_tensor];
        let args =
            ["quant", "fireq", "quantize", "--weights", &w, "--out", "q.safetensors", "--dump-dir", "d"];
        kc_ok(dir, &[&args[..], &spec].concat());
        assert_eq!(stored::<i8, 2>(dir, "d/q.npy"), fixture(&format!("{}q", name(&case))));
        assert_eq!(stored::<f32, 2>(dir, "d/scales.npy"), fixture(&format!("{}sw", name(&case))));
        if case["k"].as_u64().expect("columns") % 8 == 0 {
            assert_eq!(stored::<i32, 2>(dir, "d/packed.npy"), fixture(&format!("{}packed", name(&case))));
        }
        let report = json(&dir.join("d/report.json"));
        assert_eq!(report["per_tensor"], case["per_tensor_scale"]);

        let mode = case["mode"].as_str().expect("a mode").replace('_', "-");
        let epilogue = case["epilogue"].as_str().expect("an epilogue").replace('_', "-");
        let aux = if ["none", "silu"].contains(&epilogue.as_str()) { String::new() } else { file("aux") };
        let bias = if case["bias"] == true { file("bias") } else { String::new() };
        let mut args = vec!["quant", "fireq", "matmul", "--x", &x, "--mode", &mode, "--epilogue", &epilogue];
        args.extend(["--x-codes-out", "c.npy", "--x-scales-out", "s.npy", "--out", "y.npy"]);
        if !aux.is_empty() {
            args.extend(["--aux", &aux]);
        }
        if !bias.is_empty() {
            args.extend(["--bias", &bias]);
        }
        if epilogue == "square-dot" {
            args.extend(["--square-sum-out", "sq.npy"]);
        }
        let want: Tensor<f64, 2> = fixture(&format!("{}y", name(&case)));
        let size = case["ymax"].as_f64().expect("a size");
        let packed = [&args[..], &["--packed", "q.safetensors"]].concat();
        let direct = [&args[..], &["--weights", &w], &spec].concat();
        for args in [packed, direct] {
            kc_ok(dir, &args);
            assert_close(stored::<f32, 2>(dir, "y.npy").as_slice(), want.as_slice(), Tol::abs(1e-5 * size));
            assert_eq!(stored::<u8, 2>(dir, "c.npy"), fixture(&format!("{}x8", name(&case))));
            assert_eq!(stored::<f32, 1>(dir, "s.npy"), fixture(&format!("{}sx", name(&case))));
            if epilogue == "square-dot" {
                let sums: Tensor<f64, 1> = fixture(&format!("{}sqsum", name(&case)));
                assert_close(stored::<f32, 1>(dir, "sq.npy").as_slice(), sums.as_slice(), Tol::rel(1e-5));
            }
            std::fs::remove_file(dir.join("y.npy")).expect("a result");
        }
    }
}

#[test]
fn scaled_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let [norm, up, gate, down] = ["norm", "up", "gate", "down"].map(|what| path(&format!("mlp_{what}")));
    for kind in ["const", "absmax", "absmean"] {
        let files = ["--norm", &norm, "--up", &up, "--gate", &gate, "--down", &down];
        let rest = ["--kind", kind, "--out-dir", "m"];
        kc_ok(dir, &[&["quant", "fireq", "scale-mlp"][..], &files, &rest].concat());
        for what in ["up", "gate", "down"] {
            let got: Tensor<f64, 2> = stored(dir, &format!("m/{what}.npy"));
            let want: Tensor<f64, 2> = fixture(&format!("mlp_{kind}_{what}"));
            assert_close(got.as_slice(), want.as_slice(), Tol::rel(1e-12));
        }
        let got: Tensor<f64, 1> = stored(dir, "m/norm.npy");
        assert_close(
            got.as_slice(),
            fixture::<f64, 1>(&format!("mlp_{kind}_norm")).as_slice(),
            Tol::rel(1e-12),
        );
    }
    let (v, o) = (path("vo_v"), path("vo_o"));
    let args = ["quant", "fireq", "scale-vo", "--v", &v, "--o", &o, "--heads", "4", "--kv-heads", "2"];
    kc_ok(dir, &[&args[..], &["--const", "0.02", "--v-mul", "0.9", "--out-dir", "vo"]].concat());
    for what in ["v", "o"] {
        let got: Tensor<f64, 2> = stored(dir, &format!("vo/{what}.npy"));
        let want: Tensor<f64, 2> = fixture(&format!("vo_{what}_scaled"));
        assert_close(got.as_slice(), want.as_slice(), Tol::rel(1e-12));
    }
}

#[test]
fn every_attention_case() {
    for case in cases("att") {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let file = |what: &str| path(&format!("{}{what}", name(&case)));
        let group =
            (case["heads"].as_u64().unwrap_or(0) / case["kv_heads"].as_u64().unwrap_or(1)).to_string();
        let (top_k, style) = (case["top_k"].to_string(), case["style"].as_str().expect("a style"));
        let (pre, post) = (file("kpre"), file("kpost"));
        let args = ["quant", "fireq", "rope-scales", "--k-pre", &pre, "--k-post", &post, "--group", &group];
        kc_ok(dir, &[&args[..], &["--top-k", &top_k, "--style", style, "--out-dir", "f"]].concat());
        for what in ["pre", "post"] {
            let got: Tensor<f64, 2> = stored(dir, &format!("f/{what}_k.npy"));
            let want: Tensor<f64, 2> = fixture(&format!("{}{what}_k", name(&case)));
            assert_close(got.as_slice(), want.as_slice(), Tol::rel(1e-7));
            let q: Tensor<f64, 2> = stored(dir, &format!("f/{what}_q.npy"));
            assert_eq!(q.shape()[0] as u64, case["heads"].as_u64().unwrap_or(0));
            assert_eq!(q[[0, 1]], 1.0 / got[[0, 1]]);
        }
        let (q, k, v) = (file("q2"), file("k2"), file("v"));
        kc_ok(dir, &["quant", "fireq", "kv", "--x", &k, "--out-dir", "kv"]);
        assert_eq!(stored::<i8, 3>(dir, "kv/codes.npy"), fixture(&format!("{}k_codes", name(&case))));
        assert_eq!(stored::<f32, 3>(dir, "kv/scales.npy"), fixture(&format!("{}k_scales", name(&case))));

        let mut args = vec!["quant", "fireq", "attention", "--q", &q, "--k", &k, "--v", &v];
        if case["causal"] == true {
            args.push("--causal");
        }
        let mut plain = args.clone();
        if case["p_fp8"] == false {
            args.push("--no-p-fp8");
        }
        args.extend(["--out", "o.npy"]);
        kc_ok(dir, &args);
        let want: Tensor<f64, 3> = fixture(&format!("{}y", name(&case)));
        let size = want.as_slice().iter().fold(0.0, |m: f64, y| m.max(y.abs()));
        assert_close(stored::<f32, 3>(dir, "o.npy").as_slice(), want.as_slice(), Tol::abs(1e-5 * size));
        plain.extend(["--kv-bits", "16", "--no-q-fp8", "--no-p-fp8", "--out", "e.npy"]);
        kc_ok(dir, &plain);
        let exact: Tensor<f64, 3> = fixture(&format!("{}exact", name(&case)));
        assert_close(stored::<f32, 3>(dir, "e.npy").as_slice(), exact.as_slice(), Tol::abs(2e-5 * size));
    }
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    write(dir, "odd.npy", [2, 2, 7], &normals(28, 1));
    write(dir, "k.npy", [2, 2, 8], &normals(32, 2));
    write(dir, "q.npy", [2, 3, 8], &normals(48, 3));
    let mut nan = normals(32, 2);
    nan[5] = f32::NAN;
    write(dir, "nan.npy", [2, 2, 8], &nan);
    let codes = Tensor::from_slice([3], &[1u8, 0xff, 2]).expect("codes");
    kc_io::write(dir.join("codes.npy"), &codes.into_any()).expect("written");
    let (w, x, aux) = (path("lin02_w"), path("lin02_x"), path("lin04_sqsum"));
    let fails = |rest: &[&str], code, message| {
        kc_fails(dir, &[&["quant", "fireq"][..], rest].concat(), code, message);
    };
    kc_fails(
        dir,
        &["quant", "fp8", "decode", "--x", "codes.npy", "--out", "y.npy"],
        1,
        "--x: expected finite",
    );
    kc_fails(dir, &["quant", "fp8", "decode", "--x", "k.npy", "--out", "y.npy"], 1, "--x: expected uint8");
    kc_fails(
        dir,
        &["quant", "fp8", "encode", "--x", "codes.npy", "--out", "y.npy"],
        1,
        "--x: expected float16",
    );
    fails(&["quantize", "--weights", &w, "--out", "q.npy"], 2, "--out: expected a .safetensors file");
    fails(&["quantize", "--weights", &w, "--group", "0", "--out", "q.safetensors"], 1, "group: expected");
    let fixed = ["quantize", "--weights", &w, "--per-tensor", "-2", "--out", "q.safetensors"];
    fails(&fixed, 1, "per_tensor: expected a positive number");
    fails(&["quantize", "--weights", &w, "--per-tensor", "best", "--out", "q.safetensors"], 2, "min-error");
    fails(&["matmul", "--x", &x, "--out", "y.npy"], 2, "--weights");
    let product = ["matmul", "--x", &x, "--weights", &w, "--out", "y.npy"];
    fails(&[&product[..], &["--epilogue", "mul"]].concat(), 1, "aux: expected [4, 8] for mul");
    fails(&[&product[..], &["--epilogue", "add", "--aux", &w]].concat(), 1, "aux: expected [4, 8]");
    fails(&[&product[..], &["--epilogue", "add", "--aux", &aux]].concat(), 1, "--aux");
    fails(&[&product[..], &["--square-sum-out", "s.npy"]].concat(), 2, "only with --epilogue square-dot");
    fails(&["matmul", "--x", "k.npy", "--weights", &w, "--out", "y.npy"], 1, "2 dimensions");
    fails(&["matmul", "--x", &x, "--packed", "k.npy", "--out", "y.npy"], 1, "k.npy");
    let rope = |pre, more: &[&str], message| {
        let args = ["rope-scales", "--k-pre", pre, "--k-post", pre, "--group", "2", "--out-dir", "f"];
        fails(&[&args[..], more].concat(), 1, message);
    };
    rope("odd.npy", &["--top-k", "1"], "k_pre: expected an even number");
    rope("k.npy", &["--top-k", "5"], "top_k: expected at most 4");
    rope("k.npy", &["--top-k", "1", "--alpha", "0"], "alpha: expected a positive number");
    rope("k.npy", &["--top-k", "1", "--beta", "-1"], "beta: expected a positive number");
    rope("nan.npy", &["--top-k", "1"], "expected finite values, got NaN at [0, 0, 5]");
    fails(&["kv", "--x", "nan.npy", "--out-dir", "d"], 1, "expected finite values");
    let heads = ["attention", "--q", "q.npy", "--k", "k.npy", "--v", "k.npy", "--out", "o.npy"];
    fails(&heads, 1, "heads: expected a multiple of 2");
    fails(
        &["attention", "--q", "k.npy", "--k", "k.npy", "--v", "odd.npy", "--out", "o.npy"],
        1,
        "v: expected",
    );
    fails(&[&heads[..], &["--kv-bits", "8"]].concat(), 2, "--kv-bits");
    let (v, o) = (path("vo_v"), path("vo_o"));
    let vo = ["scale-vo", "--v", &v, "--o", &o, "--heads", "3", "--kv-heads", "2", "--out-dir", "d"];
    fails(&vo, 1, "heads: expected a multiple of 2");
    let (norm, up) = (path("mlp_norm"), path("mlp_up"));
    let mlp = ["scale-mlp", "--norm", &norm, "--up", &up, "--gate", &up, "--down", &up, "--out-dir", "d"];
    fails(&mlp, 1, "down: expected");
}
