//! `kc quantize` on a small model, and what reads its files.

use std::collections::BTreeMap;
use std::path::Path;

use kc_core::{AnyTensor, Tensor, bf16};
use kc_testing::normals;
use serde_json::{Value, json};

use crate::support::{json as read_json, kc, kc_fails, kc_json, kc_ok};

const LAYERS: [&str; 2] = ["block.0.up", "block.0.down"];

fn matrix([n, k]: [usize; 2], seed: u64) -> AnyTensor {
    Tensor::from_slice([n, k], &normals(n * k, seed)).expect("a matrix").into_any()
}

/// Two linear layers, an embedding, a norm and a bias.
fn tensors() -> Vec<(String, AnyTensor)> {
    let half: Vec<bf16> = normals(24 * 64, 2).iter().map(|x| bf16::from_f32(*x)).collect();
    vec![
        ("embed_tokens.weight".into(), matrix([10, 64], 1)),
        ("block.0.up.weight".into(), Tensor::from_slice([24, 64], &half).expect("a matrix").into_any()),
        ("block.0.up.bias".into(), Tensor::from_slice([24], &normals(24, 3)).expect("a vector").into_any()),
        ("block.0.down.weight".into(), matrix([64, 24], 4)),
        (
            "block.0.norm.weight".into(),
            Tensor::from_slice([64], &normals(64, 5)).expect("a vector").into_any(),
        ),
    ]
}

fn model(dir: &Path) {
    let metadata = BTreeMap::from([("origin".to_owned(), "a test".to_owned())]);
    kc_io::safetensors::write(dir.join("m.safetensors"), &tensors(), &metadata).expect("written");
    std::fs::create_dir(dir.join("acts")).expect("a folder");
    for (name, k, seed) in [("block.0.up", 64, 6), ("block.0.down", 24, 7)] {
        let x = matrix([5, k], seed);
        kc_io::write(dir.join(format!("acts/{name}.npy")), &x).expect("written");
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[test]
fn every_method_gives_layers_that_multiply() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    model(dir);
    for (method, most) in [("flexq", 0.03), ("bcq", 0.2), ("fireq", 0.13), ("crossquant", 0.01)] {
        let out = format!("{method}.safetensors");
        let args = ["quantize", "m.safetensors", "--method", method, "--calibration", "acts", "-o", &out];
        let report = kc_json(dir, &[&args[..], &["--json", "r.json"]].concat(), "r.json");
        assert_eq!((&report["quantised"], &report["resumed"]), (&json!(2), &json!(0)));
        assert!(!dir.join(format!("{out}.partial")).exists(), "the folder of the job is gone");
        for layer in report["layers"].as_array().expect("layers") {
            assert!(LAYERS.iter().any(|name| layer["layer"] == *name));
            let error = number(layer, "rel_error");
            assert!(error > 1e-4 && error < most, "{method}: {error}");
            assert!(number(layer, "output_error") < 2.0 * most);
        }
        // What is no layer is as it was, and so is what the file says about itself.
        let file = kc_io::SafeTensorsFile::open(dir.join(&out)).expect("a file");
        assert_eq!(file.metadata()["origin"], "a test");
        for (name, tensor) in tensors() {
            let layer = LAYERS.iter().any(|l| name == format!("{l}.weight"));
            assert_eq!(file.contains(&name), !layer, "{method}: {name}");
            if !layer {
                assert_eq!(file.get(&name).expect("a tensor").bytes(), tensor.bytes());
            }
        }

        let seen = kc_json(dir, &["quant", "inspect", "--in", &out, "--json", "i.json"], "i.json");
        assert!(seen.to_string().contains("block.0.up"), "{seen}");
        // The product of the file against the product of the numbers.
        let args = ["quant", "matmul", "--x", "acts/block.0.up.npy", "--in", &out, "--tensor", "block.0.up"];
        kc_ok(dir, &[&args[..], &["--out", "y.npy"]].concat());
        let x: Tensor<f32, 2> = kc_io::read(dir.join("acts/block.0.up.npy")).unwrap().to_tensor("x").unwrap();
        let w = tensors()[1].1.to_f32::<2>("w").expect("a matrix");
        let exact = kc_gemm::gemm(x.view(), w.view().transposed()).expect("a product");
        let y: Tensor<f32, 2> = kc_io::read(dir.join("y.npy")).unwrap().to_tensor("y").unwrap();
        let error = kc_quant::metrics::relative_error(y.view(), exact.view()).expect("an error");
        assert!(error > 1e-4 && error < 2.0 * most, "{method}: {error}");
    }
}

#[test]
fn a_job_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    model(dir);
    let quantize = ["quantize", "m.safetensors", "--calibration", "acts", "-o", "q.safetensors"];
    // Where the result should go there is a folder: everything is done, and cannot be written.
    std::fs::create_dir(dir.join("q.safetensors")).expect("a folder");
    let output = kc(dir, &quantize);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir(dir.join("q.safetensors")).expect("removed");
    // As if the job had died while it wrote the second layer.
    let journal = std::fs::read(dir.join("q.safetensors.partial/journal")).expect("a journal");
    std::fs::write(dir.join("q.safetensors.partial/journal"), &journal[..journal.len() - 20])
        .expect("written");
    let mut data = std::fs::read(dir.join("q.safetensors.partial/data")).expect("data");
    data.extend_from_slice(&[9; 1000]);
    std::fs::write(dir.join("q.safetensors.partial/data"), data).expect("written");
    let report = kc_json(dir, &[&quantize[..], &["--json", "r.json"]].concat(), "r.json");
    assert_eq!(report["resumed"], 1);

    // Other settings begin anew.
    std::fs::create_dir(dir.join("p.safetensors")).expect("a folder");
    let other = ["quantize", "m.safetensors", "-o", "p.safetensors"];
    assert_eq!(kc(dir, &other).status.code(), Some(1));
    std::fs::remove_dir(dir.join("p.safetensors")).expect("removed");
    let four = [&other[..], &["--bits", "4", "--json", "r.json"]].concat();
    assert_eq!(kc_json(dir, &four, "r.json")["resumed"], 0);

    let whole =
        ["quantize", "m.safetensors", "--calibration", "acts", "-o", "other.safetensors", "--restart"];
    assert_eq!(kc_json(dir, &[&whole[..], &["--json", "r.json"]].concat(), "r.json")["resumed"], 0);
    let same = std::fs::read(dir.join("q.safetensors")).unwrap()
        == std::fs::read(dir.join("other.safetensors")).unwrap();
    assert!(same, "the same file as in one go");
}

#[test]
fn sharded_models_stay_sharded_and_patterns_choose() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    model(dir);
    let all = tensors();
    let mut map = serde_json::Map::new();
    for (shard, range) in [("a-1.safetensors", 0..2), ("a-2.safetensors", 2..5)] {
        kc_io::safetensors::write(dir.join(shard), &all[range.clone()], &BTreeMap::new()).expect("written");
        all[range].iter().for_each(|(name, _)| {
            map.insert(name.clone(), json!(shard));
        });
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(dir.join("m.safetensors.index.json"), index).expect("written");
    let args =
        ["quantize", "m.safetensors.index.json", "--method", "fireq", "--exclude", "*.down", "-o", "out"];
    let report = kc_json(dir, &[&args[..], &["--json", "r.json"]].concat(), "r.json");
    assert_eq!(report["quantised"], 1);
    let map = read_json(&dir.join("out/model.safetensors.index.json"));
    assert_eq!(map["weight_map"]["block.0.up.packed"], "a-1.safetensors");
    assert_eq!(map["weight_map"]["block.0.down.weight"], "a-2.safetensors");
    let index = "out/model.safetensors.index.json";
    let matmul = ["quant", "matmul", "--x", "acts/block.0.up.npy", "--in", index, "--tensor", "block.0.up"];
    kc_ok(dir, &[&matmul[..], &["--out", "y.npy"]].concat());
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    model(dir);
    let quantize = ["quantize", "m.safetensors", "-o", "q.safetensors"];
    kc_fails(dir, &[&quantize[..], &["--bits", "9"]].concat(), 2, "--bits");
    kc_fails(dir, &[&quantize[..], &["--group", "0"]].concat(), 2, "--group");
    kc_fails(dir, &[&quantize[..], &["--method", "fireq", "--bits", "3"]].concat(), 2, "fireq has 4");
    kc_fails(dir, &[&quantize[..], &["--method", "crossquant"]].concat(), 2, "--calibration");
    kc_fails(dir, &[&quantize[..], &["--alpha", "2"]].concat(), 1, "alpha");
    kc_fails(dir, &["quantize", "acts/block.0.up.npy", "-o", "q.safetensors"], 2, "MODEL");
    kc_fails(dir, &["quantize", "none.safetensors", "-o", "q.safetensors"], 1, "none.safetensors");
}
