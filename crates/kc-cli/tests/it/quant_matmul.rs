//! `kc quant matmul` and `kc quant bcq convert` on weights of every format.

use kc_core::{Element, Tensor};
use kc_testing::{golden, golden_tensor};
use serde_json::json;

use crate::support::{kc_fails, kc_json, kc_ok};

fn file(name: &str) -> String {
    golden(&format!("quant_formats/{name}")).display().to_string()
}

fn stored<T: Element, const N: usize>(file: std::path::PathBuf) -> Tensor<T, N> {
    kc_io::read(file).and_then(|any| any.to_tensor("result")).expect("a result")
}

/// `x w^T` in f64.
fn product(x: &Tensor<f32, 2>, w: &Tensor<f32, 2>) -> Vec<f64> {
    let ([m, k], n) = (x.shape(), w.shape()[0]);
    let dot = |i: usize, j: usize| {
        (0..k).map(|c| f64::from(x.as_slice()[i * k + c]) * f64::from(w.as_slice()[j * k + c])).sum()
    };
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

fn close(got: &Tensor<f32, 2>, want: &[f64], most: f64, what: &str) {
    let norm = want.iter().map(|w| w * w).sum::<f64>().sqrt();
    let gap = got.as_slice().iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum::<f64>().sqrt();
    assert!(gap <= most * norm, "{what}: {}", gap / norm);
}

#[test]
fn every_safetensors_format_multiplies_from_its_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for name in [
        "gptq_b2_g64",
        "gptq_b3_g64",
        "gptq_b4_g64",
        "gptq_b8_g64",
        "gptq_b4_g64_actorder",
        "awq_b4_g64",
        "ct_w4_g128",
        "ct_w6_g128",
    ] {
        let weights = file(&format!("{name}.safetensors"));
        let w: Tensor<f32, 2> = golden_tensor(&format!("quant_formats/{name}_deq.npy"));
        let k = w.shape()[1];
        let x = Tensor::from_slice([3, k], &kc_testing::normals(3 * k, 1)).expect("activations");
        kc_io::write(dir.join("x.npy"), &x.clone().into_any()).expect("written");
        let want = product(&x, &w);
        let matmul = ["quant", "matmul", "--x", "x.npy", "--in", &weights, "--out", "y.npy"];
        kc_ok(dir, &matmul);
        close(&stored(dir.join("y.npy")), &want, 1e-6, name);
        let report = kc_json(dir, &[&matmul[..], &["--a8", "--json", "r.json"]].concat(), "r.json");
        assert_eq!((&report["product"], &report["activations"]), (&json!("flexq"), &json!(8)));
        close(&stored(dir.join("y.npy")), &want, 0.02, name);
        // The same codes as sums of signs.
        kc_ok(dir, &["quant", "bcq", "convert", "--in", &weights, "--out", "b.safetensors"]);
        kc_ok(dir, &["quant", "bcq", "dequantize", "--packed", "b.safetensors", "--out", "b.npy"]);
        let top = w.as_slice().iter().fold(0f32, |m, w| m.max(w.abs()));
        for (got, want) in stored::<f32, 2>(dir.join("b.npy")).as_slice().iter().zip(w.as_slice()) {
            assert!((got - want).abs() <= 2e-6 * top, "{name}: {got} {want}");
        }
        kc_ok(dir, &["quant", "matmul", "--x", "x.npy", "--in", "b.safetensors", "--out", "y.npy"]);
        close(&stored(dir.join("y.npy")), &want, 2e-6, name);
    }
}

#[test]
fn every_block_of_a_gguf_file_multiplies() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (x, gguf) = (file("gguf_x.npy"), file("tiny.gguf"));
    let seen = kc_json(dir, &["quant", "inspect", "--in", &gguf, "--json", "i.json"], "i.json");
    let mut quantised = 0;
    for tensor in seen["tensors"].as_array().expect("tensors") {
        let format = tensor["format"].as_str().expect("a format");
        let Some(kind) = format.strip_prefix("gguf:").filter(|kind| kind.starts_with('Q')) else { continue };
        let name = tensor["name"].as_str().expect("a name");
        let want: Tensor<f64, 2> =
            golden_tensor(&format!("quant_formats/gguf_{}_y.npy", kind.to_ascii_lowercase()));
        kc_ok(dir, &["quant", "matmul", "--x", &x, "--in", &gguf, "--tensor", name, "--out", "y.npy"]);
        close(&stored(dir.join("y.npy")), want.as_slice(), 1e-6, kind);
        quantised += 1;
    }
    assert!(quantised >= 4);
    kc_fails(dir, &["quant", "matmul", "--x", &x, "--in", &gguf, "--out", "y.npy"], 2, "--tensor");
    kc_fails(
        dir,
        &["quant", "matmul", "--x", &x, "--in", &gguf, "--tensor", "none", "--out", "y.npy"],
        1,
        "none",
    );
}

#[test]
fn arrays_of_mat_mul_n_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for bits in [2, 4, 8] {
        let part = |what: &str| file(&format!("matmulnbits_{bits}_{what}.npy"));
        let x: Tensor<f32, 2> = golden_tensor(&format!("quant_formats/matmulnbits_{bits}_x.npy"));
        let (k, want) = (x.shape()[1].to_string(), format!("quant_formats/matmulnbits_{bits}_y.npy"));
        let (x, b, scales, zp) = (part("x"), part("b"), part("scales"), part("zp"));
        let args = ["quant", "matmul", "--x", &x, "--b", &b, "--scales", &scales, "--zp", &zp, "--k", &k];
        kc_ok(dir, &[&args[..], &["--out", "y.npy"]].concat());
        close(&stored(dir.join("y.npy")), golden_tensor::<f64, 2>(&want).as_slice(), 1e-5, "mnb");
        kc_fails(dir, &[&args[..], &["--abits", "0", "--out", "z.npy"]].concat(), 2, "--abits");
    }
}

#[test]
fn conversion_to_binary_codes_is_exact() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (gguf, w) = (file("tiny.gguf"), golden_tensor::<f32, 2>("quant_formats/gguf_q4_0_deq.npy"));
    let seen = kc_json(dir, &["quant", "inspect", "--in", &gguf, "--json", "i.json"], "i.json");
    let tensors = seen["tensors"].as_array().expect("tensors");
    let four = tensors.iter().find(|t| t["format"] == "gguf:Q4_0").expect("a tensor in Q4_0");
    let name = four["name"].as_str().expect("a name");
    let convert =
        ["quant", "convert", "--in", &gguf, "--tensor", name, "--to", "bcq", "--out", "b.safetensors"];
    let report = kc_json(dir, &[&convert[..], &["--json", "r.json"]].concat(), "r.json");
    assert_eq!(report["method"], "exact");
    kc_ok(dir, &["quant", "bcq", "dequantize", "--packed", "b.safetensors", "--out", "b.npy"]);
    let top = w.as_slice().iter().fold(0f32, |m, w| m.max(w.abs()));
    for (got, want) in stored::<f32, 2>(dir.join("b.npy")).as_slice().iter().zip(w.as_slice()) {
        assert!((got - want).abs() <= 1e-6 * top, "{got} {want}");
    }
}
