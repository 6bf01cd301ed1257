//! `kc xent` on the golden cases.

use std::path::Path;

use kc_core::{AnyTensor, Bytes, Tensor, bf16};
use kc_testing::{Tol, assert_close, golden, golden_dir, golden_json, relative_error};
use serde_json::Value;

use crate::support::{json, kc_fails, kc_json, kc_ok};

fn path(case: &str, what: &str) -> String {
    golden(&format!("cut_cross_entropy/{case}/{what}.npy")).display().to_string()
}

fn numbers(file: impl AsRef<Path>) -> (Vec<usize>, Vec<f64>) {
    let any = kc_io::read(file.as_ref()).expect("a file");
    let flat =
        AnyTensor::new(any.dtype(), vec![any.len()], Bytes::from_owner(any.bytes().to_vec())).expect("flat");
    (any.shape().to_vec(), flat.to_f64::<1>("file").expect("numbers").into_vec())
}

/// The flags of a golden case.
fn flags(case: &str) -> Vec<String> {
    let json = golden_json(&format!("cut_cross_entropy/{case}/case.json"));
    let mut flags: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
    for (name, file) in [("e", "e"), ("c", "c"), ("targets", "targets")] {
        flag(name, path(case, file));
    }
    for (name, file) in [("bias", "bias"), ("class-weights", "class_weights"), ("grad-out", "grad_out")] {
        if golden_dir().join(format!("cut_cross_entropy/{case}/{file}.npy")).exists() {
            flag(name, path(case, file));
        }
    }
    for key in ["softcap", "shift", "label_smoothing", "z_loss"] {
        if let Value::Number(number) = &json[key] {
            flag(&key.replace('_', "-"), number.to_string());
        }
    }
    if let Value::String(reduction) = &json["reduction"] {
        flag("reduction", reduction.clone());
    }
    flags
}

fn run(dir: &Path, case: &str, more: &[&str]) -> Value {
    let flags = flags(case);
    let base = ["xent", "loss", "--report", "r.json", "--out-loss", "l.npy", "--out-lse", "lse.npy"];
    let outputs = ["--out-de", "de.npy", "--out-dc", "dc.npy"];
    let bias: &[&str] = if flags.iter().any(|f| f == "--bias") { &["--out-dbias", "db.npy"] } else { &[] };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    kc_json(dir, &[&base[..], &outputs, bias, &flags, more].concat(), "r.json")
}

#[test]
fn every_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for case in ["mean_plain", "softcap_bias_ignore", "none_shift2", "sum_smoothing_weights"] {
        let known = golden_json(&format!("cut_cross_entropy/{case}/case.json"));
        for preset in ["cce-exact", "baseline", "cce", "full-c", "full-e"] {
            let report = run(dir, case, &["--preset", preset]);
            assert_eq!(report["n_valid"], known["n_valid"]);
            assert!(report["run"]["seconds"].is_number() && report["forward_seconds"].is_number());
            assert!(report["blocks_total"].as_u64() > Some(0) && report["peak_extra_bytes"].is_number());
            for (file, what) in [("l.npy", "loss"), ("lse.npy", "lse")] {
                let ((shape, got), (want_shape, want)) = (numbers(dir.join(file)), numbers(path(case, what)));
                assert_eq!(shape, want_shape, "{case} {what}");
                assert_close(&got, &want, Tol::new(1e-5, 1e-5));
            }
            for (file, what) in [("de.npy", "de"), ("dc.npy", "dc"), ("db.npy", "dbias")] {
                if what == "dbias" && !flags(case).contains(&"--bias".to_owned()) {
                    continue;
                }
                let ((shape, got), (want_shape, want)) = (numbers(dir.join(file)), numbers(path(case, what)));
                assert_eq!(shape, want_shape, "{case} {what}");
                let lost = relative_error(&got, &want);
                assert!(lost < 1e-5, "{case} {preset} {what}: {lost}");
            }
        }
    }
}

#[test]
fn filtered_blocks() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let known = golden_json("cut_cross_entropy/filter/case.json");
    let eps = known["filter_eps"].to_string();
    let report = run(dir, "filter", &["--filter-eps", &eps]);
    assert_eq!(report["kept"], known["kept_sorted"]);
    assert_eq!((&report["blocks_kept"], &report["blocks_total"]), (&80.into(), &96.into()));
    assert!(
        (report["loss"].as_f64().expect("a loss") / known["loss"].as_f64().expect("a loss") - 1.0).abs()
            < 1e-6
    );
    let (filtered, lost) = (numbers(dir.join("de.npy")).1, numbers(dir.join("dc.npy")).1);
    assert!(relative_error(&filtered, &numbers(path("filter", "de_filtered")).1) < 1e-5);
    let lost = relative_error(&lost, &numbers(path("filter", "dc_exact")).1);
    assert!((lost / known["dc_rel_fro"].as_f64().expect("a number") - 1.0).abs() < 1e-2);

    let report = run(dir, "filter", &["--filter-eps", &eps, "--no-sort"]);
    assert_eq!(report["kept"], known["kept_unsorted"]);

    let report = run(dir, "filter", &["--filter-eps", "none"]);
    assert_eq!((&report["kept"], &report["filter_eps"]), (&1.0.into(), &Value::Null));
    for what in ["de", "dc"] {
        let got = numbers(dir.join(format!("{what}.npy"))).1;
        assert!(relative_error(&got, &numbers(path("filter", &format!("{what}_exact"))).1) < 1e-5);
    }
    // Only one gradient is filtered.
    run(dir, "filter", &["--filter-eps", &eps, "--preset", "full-c"]);
    assert!(relative_error(&numbers(dir.join("de.npy")).1, &filtered) < 1e-6);
    assert!(relative_error(&numbers(dir.join("dc.npy")).1, &numbers(path("filter", "dc_exact")).1) < 1e-5);
}

#[test]
fn the_bits_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let mut seen = Vec::new();
    for threads in ["1", "2"] {
        run(dir, "softcap_bias_ignore", &["--threads", threads]);
        let files = ["l.npy", "lse.npy", "de.npy", "dc.npy", "db.npy"];
        seen.push(files.map(|file| std::fs::read(dir.join(file)).expect("a file")));
    }
    assert!(seen[0] == seen[1]);
}

#[test]
fn half_precision_in_and_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let half = |what: &str| {
        let any = kc_io::read(path("mean_plain", what))
            .expect("a file")
            .to_f32::<2>(what.to_owned())
            .expect("numbers");
        let mut out = Tensor::<bf16, 2>::zeros(any.shape()).expect("a tensor");
        out.as_mut_slice().iter_mut().zip(any.as_slice()).for_each(|(o, &x)| *o = bf16::from_f32(x));
        kc_io::write(dir.join(format!("{what}.safetensors")), &out.into_any()).expect("written");
    };
    half("e");
    half("c");
    let t = path("mean_plain", "targets");
    let base = ["xent", "loss", "--e", "e.safetensors", "--c", "c.safetensors", "--targets", &t];
    let outs =
        ["--filter-eps", "none", "--grad-dtype", "bf16", "--out-dc", "dc.safetensors", "--report", "r.json"];
    let report = kc_json(dir, &[&base[..], &outs].concat(), "r.json");
    let want = numbers(path("mean_plain", "loss")).1[0];
    assert!((report["loss"].as_f64().expect("a loss") / want - 1.0).abs() < 1e-2);
    let dc = kc_io::read(dir.join("dc.safetensors")).expect("a file");
    assert_eq!(dc.dtype(), kc_core::DType::BF16);
    assert!(
        relative_error(&numbers(dir.join("dc.safetensors")).1, &numbers(path("mean_plain", "dc")).1) < 2e-2
    );
}

#[test]
fn double_precision_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    // A bias that is not a number of f32, and nothing else.
    let bias = 1.0 + 1e-9;
    let file = |name: &str, shape: &[usize], values: &[f64]| {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensor = AnyTensor::new(kc_core::DType::F64, shape.to_vec(), Bytes::from_owner(bytes));
        kc_io::write(dir.join(name), &tensor.expect("a tensor")).expect("written");
    };
    file("e.npy", &[2, 1], &[0.0, 0.0]);
    file("c.npy", &[2, 1], &[1.0, 1.0]);
    file("b.npy", &[2], &[bias, 0.0]);
    let targets = Tensor::<i64, 1>::from_slice([2], &[0, 0]).expect("targets");
    kc_io::write(dir.join("t.npy"), &targets.into_any()).expect("written");
    let base = ["xent", "loss", "--e", "e.npy", "--c", "c.npy", "--targets", "t.npy", "--bias", "b.npy"];
    let outs = ["--out-dbias", "db.npy", "--grad-dtype", "f64", "--report", "r.json"];
    let report = kc_json(dir, &[&base[..], &outs].concat(), "r.json");
    let want = (-bias).exp().ln_1p();
    assert!((report["loss"].as_f64().expect("a loss") - want).abs() < 1e-14);
    let (_, dbias) = numbers(dir.join("db.npy"));
    assert!((dbias[1] - 1.0 / (1.0 + bias.exp())).abs() < 1e-14);
}

#[test]
fn presets_have_the_names_of_the_reference_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let eps = golden_json("cut_cross_entropy/filter/case.json")["filter_eps"].to_string();
    let outputs = |preset: &str| {
        run(dir, "filter", &["--preset", preset, "--filter-eps", &eps]);
        ["de.npy", "dc.npy"].map(|file| std::fs::read(dir.join(file)).expect("a file"))
    };
    for (ours, theirs) in [("full-c", "cce_kahan_full_c"), ("full-e", "cce_kahan_full_e")] {
        assert!(outputs(ours) == outputs(theirs));
    }
    for name in ["cce_exact", "cce_kahan_full", "cce_kahan_full_c_full_e", "baseline", "torch_compile"] {
        assert_eq!(run(dir, "filter", &["--preset", name])["filter_eps"], Value::Null, "{name}");
    }
}

#[test]
fn largest_logits_and_perplexity() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (e, c, t) = (path("mean_plain", "e"), path("mean_plain", "c"), path("mean_plain", "targets"));
    kc_ok(dir, &["xent", "topk", "--e", &e, "--c", &c, "--k", "5", "--out", "idx.npy"]);
    let ((shape, words), (e_shape, e_values), (c_shape, c_values)) =
        (numbers(dir.join("idx.npy")), numbers(&e), numbers(&c));
    let (d, v) = (e_shape[e_shape.len() - 1], c_shape[0]);
    assert_eq!(shape, [&e_shape[..e_shape.len() - 1], &[5]].concat());
    for (row, words) in e_values.chunks(d).zip(words.chunks(5)) {
        let logit = |j: usize| row.iter().zip(&c_values[j * d..]).map(|(x, y)| x * y).sum::<f64>();
        let mut order: Vec<usize> = (0..v).collect();
        order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)));
        assert_eq!(words.iter().map(|&w| w as usize).collect::<Vec<_>>(), order[..5]);
    }
    let report = {
        kc_ok(dir, &["xent", "ppl", "--e", &e, "--c", &c, "--targets", &t, "--json", "p.json"]);
        json(&dir.join("p.json"))
    };
    let want = numbers(path("mean_plain", "loss")).1[0].exp();
    assert!((report["perplexity"].as_f64().expect("a number") / want - 1.0).abs() < 1e-5);
    assert!(kc_ok(dir, &["xent", "ppl", "--e", &e, "--c", &c, "--targets", &t]).contains("perplexity"));
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (e, c, t) = (path("mean_plain", "e"), path("mean_plain", "c"), path("mean_plain", "targets"));
    let other = path("filter", "targets");
    let loss = |more: &[&str], code, message| {
        let base = ["xent", "loss", "--e", &e, "--c", &c, "--targets", &t];
        kc_fails(folder.path(), &[&base[..], more].concat(), code, message);
    };
    let outs = ["--out-de", "de.npy"];
    loss(&[&["--softcap", "0"][..], &outs].concat(), 1, "softcap: expected");
    loss(&["--label-smoothing", "1.5"], 1, "label_smoothing: expected 0 to 1");
    loss(&["--filter-eps", "-1"], 1, "filter_eps: expected at least 0");
    loss(&["--filter-eps", "nan"], 1, "filter_eps: expected at least 0");
    loss(&["--filter-eps", "some"], 2, "expected auto, none or a number");
    loss(&["--shift", "10000"], 1, "shift: expected below");
    loss(&["--reduction", "median"], 2, "median");
    loss(&["--preset", "fast"], 2, "fast");
    loss(&["--bias", &path("filter", "bias")], 1, "bias: expected");
    loss(&["--class-weights", &path("filter", "bias")], 1, "class_weights: expected");
    loss(&["--grad-out", &path("none_shift2", "grad_out")], 1, "--grad-out: expected one number");
    loss(&["--out-dbias", "db.npy"], 2, "--bias");
    let [e2, c2, t2] = ["e", "c", "targets"].map(|what| path("none_shift2", what));
    let base = ["xent", "loss", "--e", &e2, "--c", &c2, "--targets", &t2, "--ignore-index", "-7"];
    kc_fails(folder.path(), &base, 1, "targets: expected 0 to");
    let base = ["xent", "loss", "--e", &e, "--c", &c, "--targets", &other];
    kc_fails(folder.path(), &base, 1, "--targets: expected");
    let base = ["xent", "loss", "--e", &e, "--c", &path("filter", "c"), "--targets", &t];
    kc_fails(folder.path(), &base, 1, "c: expected [V,");
    kc_fails(
        folder.path(),
        &["xent", "topk", "--e", &e, "--c", &c, "--k", "0", "--out", "i.npy"],
        1,
        "k: expected 1",
    );
}
