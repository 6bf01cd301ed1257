//! `kc mnn` on golden hidden states, on made-up files, and on wrong ones.

use std::path::Path;

use kc_core::{Element, Tensor, bf16, f16};
use kc_testing::{golden, golden_tensor};
use serde_json::Value;

use crate::support::{json, kc_fails, kc_json, kc_ok};

fn fixture(name: &str) -> std::path::PathBuf {
    golden(&format!("matrix_nuclear_norm/{name}"))
}

fn save<T: Element, const N: usize>(dir: &Path, name: &str, tensor: Tensor<T, N>) {
    kc_io::write(dir.join(name), &tensor.into_any()).expect("written");
}

fn assert_near(got: &Value, want: f64, tol: f64, what: &str) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{what}: {got} is no number"));
    assert!((got - want).abs() <= tol * want.abs(), "{what}: got {got}, want {want}");
}

#[test]
fn golden_cases_run_as_written() {
    for name in ["minilm_0", "minilm_1", "minilm_2", "minilm_3", "minilm_4", "tall", "wide_top7", "lowrank"] {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::copy(fixture(name).join("x.npy"), dir.path().join("x.npy")).expect("copied");
        let case = json(&fixture(name).join("case.json"));
        let args: Vec<&str> =
            case["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let got = kc_json(dir.path(), &args, "out.json");
        for (key, want) in case["expected"].as_object().expect("an object") {
            let tol = case["tol_rel"].as_f64().expect("a tolerance");
            assert_near(&got[key], want.as_f64().expect("a number"), tol, &format!("{name}: {key}"));
        }
        let ratio = got["mnn"].as_f64().unwrap() / got["nuclear"].as_f64().unwrap();
        assert_near(&got["surrogate_ratio"], ratio, 1e-12, "ratio");
        assert_eq!(got["zero_rows"], 0);
        assert!(got["top"].is_u64() && got["seconds"].as_f64().is_some_and(|s| s >= 0.0));
    }
}

#[test]
fn threads_and_types_agree() {
    let dir = tempfile::tempdir().expect("a folder");
    let x = golden_tensor::<f32, 2>("matrix_nuclear_norm/minilm_4/x.npy");
    let rounded = Tensor::<f16, 2>::from_fn(x.shape(), |at| f16::from_f32(x[at])).expect("halves");
    let widened = Tensor::<f32, 2>::from_fn(x.shape(), |at| rounded[at].to_f32()).expect("floats");
    let double = Tensor::<f64, 2>::from_fn(x.shape(), |at| rounded[at].to_f64()).expect("doubles");
    save(dir.path(), "h.npy", rounded);
    save(dir.path(), "f.npy", widened);
    save(dir.path(), "d.npy", double);
    let run = |file, threads| {
        kc_json(dir.path(), &["mnn", "--hidden", file, "--threads", threads, "--json", "o.json"], "o.json")
    };
    let want = run("d.npy", "1")["mnn"].as_f64().expect("a score");
    for file in ["h.npy", "f.npy"] {
        assert_eq!(run(file, "1")["mnn"], run(file, "2")["mnn"]);
        assert_near(&run(file, "2")["mnn"], want, 1e-6, file);
    }
}

#[test]
fn batches_are_cut_to_their_lengths() {
    let dir = tempfile::tempdir().expect("a folder");
    let x = golden_tensor::<f32, 2>("matrix_nuclear_norm/minilm_2/x.npy");
    let [n, d] = x.shape();
    let batch = Tensor::<f32, 3>::from_fn([3, n, d], |[_, i, j]| x[[i, j]]).expect("a batch");
    save(dir.path(), "b.npy", batch);
    save(dir.path(), "l.npy", Tensor::<i64, 1>::from_slice([3], &[n as i64, 5, 0]).expect("lengths"));
    save(dir.path(), "five.npy", x.view().slice(0, 0..5).expect("rows").to_tensor().expect("a copy"));
    let five = kc_json(dir.path(), &["mnn", "--hidden", "five.npy", "--json", "o.json"], "o.json");
    let got = kc_json(
        dir.path(),
        &["mnn", "--hidden", "b.npy", "--lengths", "l.npy", "--json", "o.json"],
        "o.json",
    );
    let expected = json(&fixture("minilm_2").join("case.json"));
    assert_near(&got["records"][0]["mnn"], expected["expected"]["mnn"].as_f64().unwrap(), 3e-6, "whole");
    assert_eq!(got["records"][1]["mnn"], five["mnn"]);
    assert_eq!(
        (&got["records"][2]["mnn_score"], &got["n_empty"], &got["n_nan"]),
        (&Value::Null, &1.into(), &0.into())
    );
    let scores = [&got["records"][0], &got["records"][1]].map(|r| r["mnn_score"].as_f64().expect("a score"));
    assert_near(&got["mean_score"], scores.iter().sum::<f64>() / 2.0, 1e-12, "mean");
    let kept = kc_json(
        dir.path(),
        &["mnn", "--hidden", "b.npy", "--lengths", "l.npy", "--reference-empty", "--json", "o.json"],
        "o.json",
    );
    assert_near(&kept["mean_score"], (scores.iter().sum::<f64>() - 1.0) / 3.0, 1e-12, "mean with -1");
    assert_eq!(kept["records"][2]["mnn_score"], -1.0);

    save(dir.path(), "long.npy", Tensor::<i32, 1>::from_slice([3], &[n as i32 + 1, 5, 0]).expect("lengths"));
    save(dir.path(), "short.npy", Tensor::<i32, 1>::from_slice([2], &[5, 5]).expect("lengths"));
    save(dir.path(), "below.npy", Tensor::<i32, 1>::from_slice([3], &[5, -5, 1]).expect("lengths"));
    save(dir.path(), "real.npy", Tensor::<f32, 1>::from_slice([3], &[5.0, 5.0, 1.0]).expect("lengths"));
    for file in ["long.npy", "short.npy", "below.npy", "real.npy"] {
        kc_fails(
            dir.path(),
            &["mnn", "--hidden", "b.npy", "--lengths", file, "--json", "x.json"],
            1,
            "--lengths",
        );
    }
    kc_fails(dir.path(), &["mnn", "--hidden", "five.npy", "--lengths", "l.npy"], 1, "for --lengths");
}

#[test]
fn folders_and_lists_of_files_are_averaged() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("in")).expect("a folder");
    for (i, name) in ["minilm_0", "minilm_3"].iter().enumerate() {
        std::fs::copy(fixture(name).join("x.npy"), dir.path().join(format!("in/{i}.npy"))).expect("copied");
    }
    save(
        &dir.path().join("in"),
        "2.npy",
        Tensor::<f32, 2>::from_slice([1, 3], &[1.0, 2.0, 3.0]).expect("one token"),
    );
    std::fs::write(dir.path().join("in/notes.txt"), "no matrix").expect("written");
    let got = kc_json(dir.path(), &["mnn", "--hidden-dir", "in", "--json", "o.json"], "o.json");
    let want = (0.40032698448850373 + 0.46535384845444827) / 2.0;
    assert_near(&got["mean_score"], want, 3e-6, "mean");
    assert_eq!((&got["n_nan"], &got["n_empty"]), (&1.into(), &0.into()));
    assert_eq!(got["records"].as_array().map(Vec::len), Some(3));
    let listed = kc_ok(dir.path(), &["mnn", "--hidden", "in/0.npy", "in/1.npy"]);
    assert!(listed.contains("in/1.npy") && listed.contains("mean_score 0.432"), "{listed}");
}

#[test]
fn layers_of_a_safetensors_file_are_scored_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let x = golden_tensor::<f32, 2>("matrix_nuclear_norm/minilm_0/x.npy");
    let half = Tensor::<bf16, 2>::from_fn(x.shape(), |at| bf16::from_f32(x[at])).expect("halves");
    let tensors = [("layer.0", x.into_any()), ("layer.1", half.into_any())];
    kc_io::safetensors::write(dir.path().join("s.safetensors"), &tensors, &Default::default())
        .expect("written");
    let args = ["mnn", "--hidden", "s.safetensors", "--tensor", "layer.0", "layer.1", "--json", "o.json"];
    let got = kc_json(dir.path(), &args, "o.json");
    assert_near(&got["records"][0]["mnn_score"], 0.40032698448850373, 3e-6, "layer.0");
    assert_near(&got["records"][1]["mnn_score"], 0.40032698448850373, 3e-3, "layer.1");
    assert_eq!(got["records"][1]["file"], "s.safetensors:layer.1");
    kc_fails(dir.path(), &["mnn", "--hidden", "s.safetensors", "--tensor", "layer.7"], 1, "layer.7");
}

#[test]
fn zero_rows_are_null_with_a_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    save(dir.path(), "x.npy", Tensor::<f32, 2>::from_slice([1, 3], &[1.0, 2.0, 3.0]).expect("one token"));
    let got = kc_json(dir.path(), &["mnn", "--hidden", "x.npy", "--exact", "--json", "o.json"], "o.json");
    assert_eq!((&got["mnn"], &got["mnn_score"], &got["nuclear"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(got["zero_rows"], 1);
    assert!(got["reason"].as_str().is_some_and(|r| r.contains("zero")));
    let got = kc_json(
        dir.path(),
        &["mnn", "--hidden", "x.npy", "--zero-rows", "drop", "--json", "o.json"],
        "o.json",
    );
    assert_eq!(got["mnn"], 0.0);
    kc_fails(dir.path(), &["mnn", "--hidden", "x.npy", "--zero-rows", "error"], 1, "row 0");
}

#[test]
fn options_reach_the_library() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(fixture("minilm_1").join("x.npy"), dir.path().join("x.npy")).expect("copied");
    let run = |more: &[&str]| {
        let args: Vec<&str> =
            ["mnn", "--hidden", "x.npy", "--json", "o.json"].iter().chain(more).copied().collect();
        kc_json(dir.path(), &args, "o.json")
    };
    let plain = run(&["--exact", "--out-column-norms", "c.npy"]);
    let norms =
        kc_io::read(dir.path().join("c.npy")).expect("norms").to_tensor::<f64, 1>("c").expect("norms");
    let mut norms = norms.into_vec();
    norms.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(norms.len(), 384);
    assert_near(&run(&["--top", "5"])["mnn"], norms[..5].iter().sum(), 1e-12, "top");
    assert_near(&run(&["--length", "7"])["mnn_score"], plain["mnn"].as_f64().unwrap() / 7.0, 1e-12, "length");
    let own = run(&["--exact", "--log-base-min", "--exact-method", "svd"]);
    assert_eq!(own["exact_method"], "svd");
    assert_near(&own["nuclear"], plain["nuclear"].as_f64().unwrap(), 1e-6, "method");
    let (min, dim) = (f64::ln(33.0), f64::ln(384.0));
    assert_near(&own["matrix_entropy"], plain["matrix_entropy"].as_f64().unwrap() * dim / min, 1e-6, "base");
    for word in ["probes", "40"] {
        let estimate = run(&["--estimate", word]);
        assert_near(&estimate["nuclear_estimate"], plain["nuclear"].as_f64().unwrap(), 0.05, "estimate");
        assert!(estimate["nuclear_std_error"].as_f64().is_some_and(|e| e > 0.0));
    }
}

#[test]
fn effective_ranks_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(fixture("minilm_4").join("x.npy"), dir.path().join("a.npy")).expect("copied");
    std::fs::copy(fixture("minilm_0").join("x.npy"), dir.path().join("b.npy")).expect("copied");
    let args = ["mnn", "diff-erank", "--a", "a.npy", "--b", "b.npy", "--json", "o.json"];
    let got = kc_json(dir.path(), &args, "o.json");
    assert_near(&got["diff_erank"], 28.567668598858976 - 7.843378594476648, 3e-6, "difference");
    assert_near(&got["erank_a"], 28.567668598858976, 3e-6, "a");
}

#[test]
fn bad_input_is_one_line_and_no_file() {
    let dir = tempfile::tempdir().expect("a folder");
    save(dir.path(), "one.npy", Tensor::<f32, 1>::zeros([4]).expect("zeros"));
    save(dir.path(), "four.npy", Tensor::<f32, 4>::zeros([1, 2, 3, 4]).expect("zeros"));
    save(dir.path(), "int.npy", Tensor::<i32, 2>::zeros([3, 4]).expect("zeros"));
    save(dir.path(), "none.npy", Tensor::<f32, 2>::zeros([0, 4]).expect("zeros"));
    let mut x = golden_tensor::<f32, 2>("matrix_nuclear_norm/minilm_0/x.npy");
    save(dir.path(), "x.npy", x.clone());
    x[[3, 17]] = f32::NAN;
    save(dir.path(), "nan.npy", x);
    for (args, code, message) in [
        (&["--hidden", "one.npy"][..], 1, "2 or 3 dimensions"),
        (&["--hidden", "four.npy"], 1, "2 or 3 dimensions"),
        (&["--hidden", "int.npy"], 1, "int32"),
        (&["--hidden", "none.npy"], 1, "none.npy"),
        (&["--hidden", "nan.npy"], 1, "NaN at [3, 17]"),
        (&["--hidden", "x.npy", "--top", "0"], 1, "top: expected 1 to 384"),
        (&["--hidden", "x.npy", "--top", "385"], 1, "top: expected 1 to 384"),
        (&["--hidden", "x.npy", "--length", "0"], 1, "length"),
        (&["--hidden", "missing.npy"], 1, "missing.npy"),
        (&["--hidden-dir", "missing"], 1, "missing"),
        (&["--hidden", "x.npy", "x.npy", "--out-column-norms", "c.npy"], 2, "only for one matrix"),
        (&["--hidden", "x.npy", "--estimate", "3"], 2, "from 4 on"),
        (&["--hidden", "x.npy", "--zero-rows", "skip"], 2, "invalid value"),
        (&[], 2, "--hidden"),
        (&["diff-erank", "--a", "x.npy"], 2, "--b"),
        (&["diff-erank", "--a", "x.npy", "--b", "one.npy"], 1, "one.npy"),
    ] {
        let args: Vec<&str> = ["mnn"].iter().chain(args).copied().chain(["--json", "o.json"]).collect();
        kc_fails(dir.path(), &args, code, message);
    }
    let empty = kc_json(
        dir.path(),
        &["mnn", "--hidden", "none.npy", "--reference-empty", "--json", "o.json"],
        "o.json",
    );
    assert_eq!(empty["mnn_score"], -1.0);
}
