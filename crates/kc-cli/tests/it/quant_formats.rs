//! `kc quant inspect` and `kc quant convert` on the golden files.

use std::path::Path;

use kc_core::Tensor;
use kc_testing::{golden, golden_tensor};
use serde_json::Value;

use crate::support::{kc, kc_fails, kc_json, kc_ok};

fn path(name: &str) -> String {
    golden(&format!("quant_formats/{name}")).display().to_string()
}

/// `kc quant convert` with a report.
fn convert(dir: &Path, args: &[&str]) -> Value {
    kc_json(dir, &[&["quant", "convert"][..], args, &["--json", "r.json"]].concat(), "r.json")
}

#[track_caller]
fn assert_bits(file: &Path, fixture: &str) {
    let got: Tensor<f32, 2> = kc_io::read(file).and_then(|any| any.to_tensor("out")).expect("a matrix");
    let want: Tensor<f32, 2> = golden_tensor(&format!("quant_formats/{fixture}_deq.npy"));
    assert_eq!(got.shape(), want.shape(), "{fixture}");
    let same = got.as_slice().iter().zip(want.as_slice()).all(|(g, w)| g.to_bits() == w.to_bits());
    assert!(same, "{fixture}");
}

const LAYERS: [&str; 8] = [
    "gptq_b2_g64",
    "gptq_b3_g64",
    "gptq_b4_g64",
    "gptq_b8_g64",
    "gptq_b4_g64_actorder",
    "awq_b4_g64",
    "ct_w4_g128",
    "ct_w6_g128",
];

#[test]
fn every_file_becomes_its_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for name in LAYERS {
        let file = path(&format!("{name}.safetensors"));
        let report = convert(dir, &["--in", &file, "--tensor", "layer", "--to", "npy", "--out", "w.npy"]);
        assert_eq!(report["method"], "exact");
        assert_bits(&dir.join("w.npy"), name);
    }
    for kind in ["q6_k", "q4_0", "q8_0", "q4_k"] {
        let tensor = format!("b.{kind}");
        convert(dir, &["--in", &path("tiny.gguf"), "--tensor", &tensor, "--to", "npy", "--out", "w.npy"]);
        assert_bits(&dir.join("w.npy"), &format!("gguf_{kind}"));
    }
    for bits in ["2", "4", "8"] {
        let array = |what: &str| path(&format!("matmulnbits_{bits}_{what}.npy"));
        let (b, scales, zp) = (array("b"), array("scales"), array("zp"));
        let k = golden_tensor::<f32, 2>(&format!("quant_formats/matmulnbits_{bits}_x.npy")).shape()[1]
            .to_string();
        let arrays = ["--b", &b, "--scales", &scales, "--zp", &zp, "--k", &k];
        convert(dir, &[&arrays[..], &["--to", "npy", "--out", "w.npy"]].concat());
        assert_bits(&dir.join("w.npy"), &format!("matmulnbits_{bits}"));
        let told =
            [&arrays[..], &["--bits", bits, "--from", "mnb", "--to", "npy", "--out", "v.npy"]].concat();
        convert(dir, &told);
        assert_bits(&dir.join("v.npy"), &format!("matmulnbits_{bits}"));
    }
}

/// What a target holds exactly is read back with the numbers that were written.
#[test]
fn exact_targets_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for (name, target, out) in [
        ("gptq_b4_g64", "gptq_v2", "q.safetensors"),
        ("gptq_b4_g64", "awq", "q.safetensors"),
        ("gptq_b3_g64", "ct", "q.safetensors"),
        ("gptq_b2_g64", "flexq", "q.safetensors"),
        ("gptq_b8_g64", "ct", "q.safetensors"),
        ("gptq_b4_g64_actorder", "gptq", "q.safetensors"),
        ("gptq_b4_g64_actorder", "gptq_v2", "q.safetensors"),
        ("gptq_b4_g64_actorder", "ct", "q.safetensors"),
        ("awq_b4_g64", "gptq_v2", "q.safetensors"),
        ("awq_b4_g64", "ct", "q.safetensors"),
        ("ct_w4_g128", "ct", "q.safetensors"),
        ("ct_w6_g128", "flexq", "q.safetensors"),
        ("ct_w4_g128", "gguf:Q8_0", "q.gguf"),
        ("ct_w4_g128", "gguf:Q4_0", "q.gguf"),
    ] {
        let file = path(&format!("{name}.safetensors"));
        let what = format!("{name} to {target}");
        let report = convert(dir, &["--in", &file, "--tensor", "layer", "--to", target, "--out", out]);
        assert_eq!(report["method"], "exact", "{what}: {report}");
        // Without flags: the file says which version its zeros have.
        let back = convert(dir, &["--in", out, "--tensor", "layer", "--to", "npy", "--out", "w.npy"]);
        assert_eq!(back["method"], "exact");
        assert_bits(&dir.join("w.npy"), name);
    }
    for (kind, target) in [("q6_k", "flexq"), ("q4_0", "ct"), ("q8_0", "flexq"), ("q4_0", "flexq")] {
        let tensor = format!("b.{kind}");
        let report = convert(
            dir,
            &["--in", &path("tiny.gguf"), "--tensor", &tensor, "--to", target, "--out", "q.safetensors"],
        );
        assert_eq!(report["method"], "exact", "{kind}: {report}");
        convert(dir, &["--in", "q.safetensors", "--tensor", &tensor, "--to", "npy", "--out", "w.npy"]);
        assert_bits(&dir.join("w.npy"), &format!("gguf_{kind}"));
    }
    // Arrays of MatMulNBits, in an archive.
    let report = convert(
        dir,
        &["--in", &path("ct_w4_g128.safetensors"), "--tensor", "layer", "--to", "mnb", "--out", "n.npz"],
    );
    assert_eq!((&report["method"], &report["bits"]), (&"exact".into(), &4.into()));
    let arrays =
        ["--b", "n.npz:b", "--scales", "n.npz:scales", "--k", "256", "--to", "npy", "--out", "w.npy"];
    convert(dir, &arrays);
    assert_bits(&dir.join("w.npy"), "ct_w4_g128");
}

#[test]
fn numbers_are_requantised_and_the_error_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let w = path("gguf_w.npy");
    for (target, out, low, high) in [
        ("gptq", "q.safetensors", 0.05, 0.15),
        ("ct", "q.safetensors", 0.05, 0.15),
        ("flexq", "q.safetensors", 0.005, 0.04),
        ("mnb", "q.npz", 0.05, 0.15),
        ("gguf:Q4_0", "q.gguf", 0.05, 0.09),
        ("gguf:Q8_0", "q.gguf", 0.002, 0.006),
        ("gguf:Q4_K", "q.gguf", 0.05, 0.0704),
        ("gguf:Q6_K", "q.gguf", 0.01, 0.0185),
    ] {
        let rest = ["--to", target, "--out", out, "--json", "r.json"];
        // GPTQ fills words of 32 bits along N, of which the fixture has 6 rows.
        if target == "gptq" {
            kc_fails(dir, &[&["quant", "convert", "--in", &w][..], &rest].concat(), 1, "do not fill words");
            continue;
        }
        let output = kc(dir, &[&["quant", "convert", "--in", &w][..], &rest].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("requantize, relative error"), "{target}: {said}");
        let report = crate::support::json(&dir.join("r.json"));
        assert_eq!(report["method"], "requantize");
        let error = report["rel_error"].as_f64().expect("a number");
        assert!((low..high).contains(&error), "{target}: {error}");
    }
    // Offsets are no zeros: Q4_K has none that flexq holds.
    let report = convert(
        dir,
        &["--in", &path("tiny.gguf"), "--tensor", "b.q4_k", "--to", "flexq", "--out", "q.safetensors"],
    );
    assert_eq!((&report["method"], &report["bits"]), (&"requantize".into(), &6.into()));
    assert!(report["reason"].as_str().is_some_and(|r| r.contains("offsets")));
}

#[test]
fn inspecting_tells_formats_and_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let of =
        |file: &str| kc_json(dir, &["quant", "inspect", "--in", &path(file), "--json", "i.json"], "i.json");
    let found = of("tiny.gguf");
    let tensors = found["tensors"].as_array().expect("a list");
    let at = |i: usize, key: &str| tensors[i][key].clone();
    assert_eq!((tensors.len(), at(0, "format"), at(0, "bits")), (5, "gguf:F32".into(), Value::Null));
    assert_eq!((at(1, "name"), at(1, "format")), ("b.q6_k".into(), "gguf:Q6_K".into()));
    assert_eq!(
        (at(1, "bits"), at(1, "group"), at(1, "bits_per_weight")),
        (6.into(), 16.into(), 6.5625.into())
    );
    assert_eq!(at(1, "shape"), serde_json::json!([6, 512]));
    for (file, format, bits, group) in [
        ("gptq_b3_g64", "gptq", 3, Value::from(64)),
        ("gptq_b4_g64_actorder", "gptq", 4, Value::Null),
        ("awq_b4_g64", "awq", 4, 64.into()),
        ("ct_w6_g128", "ct", 6, 128.into()),
    ] {
        let found = of(&format!("{file}.safetensors"));
        let layer = &found["tensors"][0];
        assert_eq!(found["tensors"].as_array().map(Vec::len), Some(1));
        assert_eq!((&layer["name"], &layer["format"]), (&"layer".into(), &format.into()), "{file}");
        assert_eq!((&layer["bits"], &layer["group"]), (&bits.into(), &group), "{file}");
    }
    let text = kc_ok(dir, &["quant", "inspect", "--in", &path("tiny.gguf")]);
    assert!(text.lines().count() == 6 && text.contains("gguf:Q4_K"), "{text}");
}

#[test]
fn whole_files_keep_what_has_no_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let report =
        convert(dir, &["--in", &path("tiny.gguf"), "--all", "--to", "flexq", "--out", "m.safetensors"]);
    assert_eq!((&report["copied"], report["tensors"].as_array().map(Vec::len)), (&1.into(), Some(4)));
    let found = kc_json(dir, &["quant", "inspect", "--in", "m.safetensors", "--json", "i.json"], "i.json");
    assert_eq!(found["tensors"].as_array().map(Vec::len), Some(5));
    // The same type is copied block by block, and the metadata stay.
    convert(dir, &["--in", &path("tiny.gguf"), "--all", "--to", "gguf:Q6_K", "--out", "m.gguf"]);
    let back = convert(dir, &["--in", "m.gguf", "--tensor", "b.q6_k", "--to", "npy", "--out", "w.npy"]);
    assert_eq!(back["method"], "exact");
    assert_bits(&dir.join("w.npy"), "gguf_q6_k");
    convert(dir, &["--in", &path("tiny.gguf"), "--all", "--to", "npy", "--out", "m.npz"]);
    assert_eq!(kc_io::NpzFile::open(dir.join("m.npz")).expect("an archive").names().len(), 5);
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let tiny = std::fs::read(path("tiny.gguf")).expect("the fixture");
    let mut version = tiny.clone();
    version[4] = 1;
    for (name, bytes) in
        [("short.gguf", &tiny[..5000]), ("magic.gguf", &b"GGML and more of it"[..]), ("old.gguf", &version)]
    {
        std::fs::write(dir.join(name), bytes).expect("written");
    }
    let (gguf, order) = (path("tiny.gguf"), path("gptq_b4_g64_actorder.safetensors"));
    let b = path("matmulnbits_4_b.npy");
    let verb = |args: &[&str], code, message| {
        kc_fails(dir, &[&["quant", "convert"][..], args].concat(), code, message);
    };
    verb(
        &["--in", "short.gguf", "--tensor", "b.q4_k", "--to", "npy", "--out", "w.npy"],
        1,
        "outside of the file",
    );
    verb(&["--in", "magic.gguf", "--to", "npy", "--out", "w.npy"], 1, "magic");
    verb(&["--in", "old.gguf", "--to", "npy", "--out", "w.npy"], 1, "version 1");
    verb(&["--in", &gguf, "--to", "npy", "--out", "w.npy"], 2, "--tensor");
    verb(&["--in", &gguf, "--tensor", "c", "--to", "npy", "--out", "w.npy"], 1, "b.q4_0");
    verb(&["--in", &gguf, "--tensor", "b.q4_k", "--to", "gguf:Q9", "--out", "w.gguf"], 2, "gguf:Q4_0");
    verb(&["--in", &gguf, "--tensor", "b.q4_k", "--to", "ct", "--out", "w.npy"], 2, ".safetensors");
    verb(&["--in", &gguf, "--from", "awq", "--tensor", "b.q4_k", "--to", "npy", "--out", "w.npy"], 2, "GGUF");
    let flexq = ["--tensor", "layer", "--no-permute", "--to", "flexq", "--out", "w.safetensors"];
    verb(&[&["--in", &order][..], &flexq].concat(), 1, "activation order");
    verb(
        &["--in", &order, "--tensor", "layer", "--from", "awq", "--to", "npy", "--out", "w.npy"],
        1,
        "qzeros",
    );
    verb(
        &["--in", &order, "--tensor", "layer", "--bits", "3", "--to", "npy", "--out", "w.npy"],
        1,
        "qweight",
    );
    verb(&["--b", &b, "--to", "npy", "--out", "w.npy"], 2, "--scales");
    verb(&["--to", "npy", "--out", "w.npy"], 2, "--in");
    let report = kc(dir, &["quant", "inspect", "--in", "short.gguf"]);
    assert_eq!(report.status.code(), Some(1));
}
