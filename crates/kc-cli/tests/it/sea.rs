//! `kc attention sea`, `sea-init`, `sea-distill` and `sparse` on the golden cases.

use std::collections::BTreeMap;
use std::path::Path;

use kc_core::{AnyTensor, Bytes, DType, Tensor};
use kc_testing::{Tol, assert_close, golden, golden_dir, golden_json};
use serde_json::{Value, json};

use crate::support::{json as read_json, kc_fails, kc_json, kc_ok};

const CASES: [&str; 6] =
    ["causal", "bidirectional_padded", "group_batch", "group_head", "group_query", "long_span"];

fn file(case: &str, what: &str) -> String {
    golden_dir().join("sea").join(case).join(what).display().to_string()
}

fn flat(path: &Path) -> AnyTensor {
    let any = kc_io::read(path).expect("a tensor");
    AnyTensor::new(any.dtype(), vec![any.len()], Bytes::from_owner(any.bytes().to_vec())).expect("flat")
}

fn numbers(path: &Path) -> Vec<f64> {
    flat(path).to_f64::<1>("x").expect("numbers").into_vec()
}

fn same(got: &Path, want: &str, tol: f64) {
    let want = numbers(Path::new(want));
    let size = want.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    assert_close(&numbers(got), &want, Tol::abs(tol * size));
}

fn equal(got: &Path, want: &str) {
    let (got, want) = (kc_io::read(got).expect("a tensor"), kc_io::read(want).expect("a fixture"));
    assert_eq!((got.dtype(), got.shape(), got.bytes()), (want.dtype(), want.shape(), want.bytes()));
}

/// The parameters of a case in one file.
fn params(case: &str, to: &Path) {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(golden(&format!("sea/{case}"))).expect("a folder") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix("p_") {
            all.push((name.to_owned(), kc_io::read(&path).expect("a tensor")));
        }
    }
    kc_io::safetensors::write(to, &all, &BTreeMap::new()).expect("written");
}

fn lengths(case: &Value, to: &Path) -> bool {
    let Some(all) = case["lengths"].as_array() else { return false };
    let all: Vec<i64> = all.iter().map(|x| x.as_i64().expect("an integer")).collect();
    let tensor = Tensor::from_slice([all.len()], &all).expect("memory").into_any();
    kc_io::write(to, &tensor).expect("written");
    true
}

/// The settings that a user would write for a case.
fn settings(case: &Value, to: &Path) {
    let mut own = json!({
        "heads": case["H"], "head_dim": case["d"], "t_m": case["T_M"], "k": case["k"], "causal": case["causal"],
        "nb_factor": 1, "group": case["group"], "max_span": "k", "oversample": 1.0, "partial_scaler": true,
        "scale": null, "mask_padding": false,
    });
    own["max_len"] = case["T"].clone();
    kc_io::json::write(to, &own).expect("written");
}

#[test]
fn every_case_through_the_door() {
    for case in CASES {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let about = golden_json(&format!("sea/{case}/case.json"));
        params(case, &dir.join("p.safetensors"));
        settings(&about, &dir.join("c.json"));
        let [q, k, v, dy] = ["q", "k", "v", "dy"].map(|x| file(case, &format!("{x}.npy")));
        let mut base = vec![
            "attention",
            "sea",
            "--params",
            "p.safetensors",
            "--q",
            &q,
            "--k",
            &k,
            "--v",
            &v,
            "--out",
            "o.npy",
        ];
        if lengths(&about, &dir.join("l.npy")) {
            base.extend(["--lengths", "l.npy"]);
        }
        // The fixture's own description is a settings file too.
        for config in [&file(case, "case.json"), "c.json"] {
            kc_ok(dir, &[&base[..], &["--config", config]].concat());
            same(&dir.join("o.npy"), &file(case, "out.npy"), 1e-4);
        }
        let mut all =
            [&base[..], &["--config", "c.json", "--dump-dir", "d", "--grad", &dy, "--grad-dir", "g"]]
                .concat();
        let [scores, context] =
            ["teacher_scores", "teacher_context"].map(|x| file(case, &format!("{x}.npy")));
        let teacher = about["teacher"] == true;
        if teacher {
            all.extend(["--teacher-scores", &scores, "--teacher-context", &context]);
        }
        all.extend(["--threads", "2", "--report", "r.json"]);
        let report = kc_json(dir, &all, "r.json");
        same(&dir.join("o.npy"), &file(case, "out.npy"), 1e-4);
        for what in ["est_score", "est_prob", "scales", "performer", "enc", "sparse_ctx", "avg"] {
            same(&dir.join(format!("d/{what}.npy")), &file(case, &format!("{what}.npy")), 1e-4);
        }
        for what in ["keep", "crow", "cols", "nnz"] {
            equal(&dir.join(format!("d/{what}.npy")), &file(case, &format!("{what}.npy")));
        }
        let mut checked = 0;
        for entry in std::fs::read_dir(dir.join("g")).expect("a folder") {
            let path = entry.expect("a file").path();
            let want = file(case, &path.file_name().expect("a name").to_string_lossy());
            if Path::new(&want).exists() {
                same(&path, &want, 1e-3);
                checked += 1;
            }
        }
        assert!(checked >= 10, "{case}: {checked} gradients");
        if teacher {
            for what in ["kl_est", "mse_est", "kl_score", "mse_score", "mse_ctx", "loss"] {
                let want = numbers(Path::new(&file(case, &format!("{what}.npy"))))[0];
                let got = report["result"][what].as_f64().or(report[what].as_f64()).expect("a loss");
                assert!((got - want).abs() <= 1e-3 * want, "{case} {what}: {got} {want}");
            }
        }
    }
}

#[test]
fn lengths_and_values_may_have_any_fitting_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let case = "bidirectional_padded";
    let config = file(case, "case.json");
    params(case, &dir.join("p.safetensors"));
    for x in ["q", "k", "v"] {
        let wide = kc_io::read(Path::new(&file(case, &format!("{x}.npy")))).expect("a tensor");
        let wide = wide.to_f64::<4>(x).expect("numbers").into_any();
        kc_io::write(dir.join(format!("{x}.npy")), &wide).expect("written");
    }
    let lengths = [36u8, 27];
    let all = [
        Tensor::from_slice([2], &lengths).expect("memory").into_any(),
        Tensor::from_slice([2], &lengths.map(i16::from)).expect("memory").into_any(),
        Tensor::from_slice([2], &lengths.map(u64::from)).expect("memory").into_any(),
        Tensor::from_slice([2], &lengths.map(i32::from)).expect("memory").into_any(),
    ];
    let base = [
        "attention",
        "sea",
        "--config",
        &config,
        "--params",
        "p.safetensors",
        "--q",
        "q.npy",
        "--k",
        "k.npy",
    ];
    let base = [&base[..], &["--v", "v.npy", "--out", "o.npy", "--lengths", "l.npy"]].concat();
    for lengths in all {
        kc_io::write(dir.join("l.npy"), &lengths).expect("written");
        kc_ok(dir, &base);
        same(&dir.join("o.npy"), &file(case, "out.npy"), 1e-4);
    }
    for (lengths, message) in
        [([0i64, 27], "lengths: expected 2 lengths of 1 to 36"), ([-1, 27], "lengths: expected 1")]
    {
        kc_io::write(dir.join("l.npy"), &Tensor::from_slice([2], &lengths).expect("memory").into_any())
            .expect("written");
        kc_fails(dir, &base, 1, message);
    }
}

#[test]
fn sparse_attention_on_a_given_mask() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for case in ["causal", "bidirectional_padded"] {
        let [q, k, v, crow, cols] = ["q", "k", "v", "crow", "cols"].map(|x| file(case, &format!("{x}.npy")));
        let args = ["attention", "sparse", "--q", &q, "--k", &k, "--v", &v, "--crow", &crow, "--cols", &cols];
        kc_ok(dir, &[&args[..], &["--out", "o.npy"]].concat());
        // The fixture's result has the gate in it.
        let (got, want) = (numbers(&dir.join("o.npy")), numbers(Path::new(&file(case, "sparse_ctx.npy"))));
        let scales = numbers(Path::new(&file(case, "scales.npy")));
        let gated: Vec<f64> =
            got.iter().enumerate().map(|(i, x)| x / (1.0 + (-scales[i / 16 * 2]).exp())).collect();
        assert_close(&gated, &want, Tol::abs(1e-5));
    }
    let mut unsorted: Tensor<i64, 1> =
        flat(Path::new(&file("causal", "cols.npy"))).to_tensor("cols").expect("ids");
    unsorted.as_mut_slice().reverse();
    kc_io::write(dir.join("bad.npy"), &unsorted.into_any()).expect("written");
    let [q, k, v, crow] = ["q", "k", "v", "crow"].map(|x| file("causal", &format!("{x}.npy")));
    let args = ["attention", "sparse", "--q", &q, "--k", &k, "--v", &v, "--crow", &crow, "--cols", "bad.npy"];
    kc_fails(dir, &[&args[..], &["--out", "x.npy"]].concat(), 1, "cols: expected");
}

#[test]
fn a_layer_is_made_and_distilled() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for case in ["causal", "bidirectional_padded"] {
        let about = golden_json(&format!("sea/{case}/case.json"));
        settings(&about, &dir.join("c.json"));
        kc_ok(dir, &["attention", "sea-init", "--config", "c.json", "--seed", "5", "--out", "p.safetensors"]);
        let proj = flat(Path::new(&format!("{}:proj", dir.join("p.safetensors").display())));
        assert_eq!((proj.dtype(), proj.len()), (DType::F32, 44 * 16));
        let [q, k, v, z] = ["q", "k", "v", "teacher_scores"].map(|x| file(case, &format!("{x}.npy")));
        let data = ["--config", "c.json", "--q", &q, "--k", &k, "--v", &v];
        let run = ["--scores", &z, "--params", "p.safetensors", "--steps", "40", "--lr", "3e-3"];
        let out = ["--out", "t.safetensors", "--report", "r.json"];
        let mut args = [&["attention", "sea-distill"][..], &data, &run, &out].concat();
        if lengths(&about, &dir.join("l.npy")) {
            args.extend(["--lengths", "l.npy"]);
        }
        kc_ok(dir, &args);
        let report = read_json(&dir.join("r.json"));
        let of = |key: &str| report["result"][key].as_f64().or(report[key].as_f64()).expect("a number");
        assert!(of("kl_est") < 0.8 * of("first_kl_est"), "{case}: {report}");
        let trained = flat(Path::new(&format!("{}:proj", dir.join("t.safetensors").display())));
        assert_eq!(trained.bytes(), proj.bytes(), "directions are not trained");
    }
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    params("causal", &dir.join("p.safetensors"));
    params("group_head", &dir.join("small.safetensors"));
    let about = golden_json("sea/causal/case.json");
    let [q, k, v] = ["q", "k", "v"].map(|x| file("causal", &format!("{x}.npy")));
    let fails = |change: &dyn Fn(&mut Value), params: &str, more: &[&str], message: &str| {
        let mut own = about.clone();
        change(&mut own);
        kc_io::json::write(dir.join("c.json"), &own).expect("written");
        let base =
            ["attention", "sea", "--config", "c.json", "--params", params, "--q", &q, "--k", &k, "--v", &v];
        kc_fails(dir, &[&base[..], &["--out", "x.npy"], more].concat(), 1, message);
    };
    let p = "p.safetensors";
    kc_io::json::write(dir.join("c.json"), &about).expect("written");
    fails(&|c| c["T_M"] = json!(30), p, &[], "t_m: expected a multiple of 4");
    fails(&|c| c["k"] = json!(0), p, &[], "k: expected a finite number above 0");
    fails(&|c| c["group"] = json!("head"), p, &[], "group: expected causal_batch");
    fails(&|c| c["group"] = json!("rows"), p, &[], "group: expected");
    fails(&|c| c["lengths"] = json!([56]), p, &[], "lengths: expected none for a causal layer");
    fails(&|c| c["colour"] = json!(1), p, &[], "colour");
    fails(&|_| {}, "small.safetensors", &[], "proj: expected [44, 16]");
    fails(&|_| {}, "none.safetensors", &[], "none.safetensors");
    fails(&|c| c["H"] = json!(3), p, &[], "c1_w: expected");
    let wide = file("long_span", "q.npy");
    fails(&|_| {}, p, &["--teacher-scores", &wide], "teacher_scores: expected");
    kc_fails(dir, &["attention", "sea", "--config", "c.json"], 2, "--params");
}
