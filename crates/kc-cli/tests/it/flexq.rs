//! `kc quant flexq` on the golden cases.

use kc_core::{AnyTensor, Element, Tensor};
use kc_testing::{golden, golden_json, golden_tensor};
use serde_json::{Value, json};

use crate::support::{json as read_json, kc_fails, kc_json, kc_ok};

fn path(case: usize, what: &str) -> String {
    golden(&format!("flexq/case{case:02}_{what}.npy")).display().to_string()
}

fn stored<T: Element, const N: usize>(file: std::path::PathBuf) -> Tensor<T, N> {
    kc_io::read(file).and_then(|any: AnyTensor| any.to_tensor("result")).expect("a result")
}

fn group(case: &Value) -> String {
    case["group"].as_u64().map_or("row".into(), |g| g.to_string())
}

#[test]
fn every_case_through_pack_matmul_and_unpack() {
    for case in golden_json("flexq/cases.json").as_array().expect("cases") {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let id = case["case"].as_u64().expect("a number") as usize;
        let text = |key: &str| case[key].as_str().expect("a text").to_owned();
        let (x, w, group) = (path(id, "x"), path(id, "w"), group(case));
        let (scheme, dtype) = (text("scheme"), text("scale_dtype"));
        let (abits, wbits) = (case["abits"].to_string(), case["wbits"].to_string());
        let spec = ["--group", &group, "--scheme", &scheme, "--scale-dtype", &dtype];
        let mut pack = vec!["quant", "flexq", "pack", "--weights", &w, "--bits", &wbits];
        pack.extend(["--out", "q.safetensors", "--dump-dir", "d"]);
        pack.extend(spec);
        kc_ok(dir, &pack);
        let same = |got: &str, want: &str| {
            let want: Tensor<i16, 2> = golden_tensor(&format!("flexq/case{id:02}_{want}.npy"));
            assert_eq!(stored::<i16, 2>(dir.join(got)).as_slice(), want.as_slice(), "case {id}: {got}");
        };
        same("d/codes.npy", "cw");
        let scales: Tensor<f32, 2> = golden_tensor(&format!("flexq/case{id:02}_sw.npy"));
        assert_eq!(stored::<f32, 2>(dir.join("d/scales.npy")).as_slice(), scales.as_slice());
        let zeros: Tensor<i32, 2> = golden_tensor(&format!("flexq/case{id:02}_zw.npy"));
        assert_eq!(stored::<i32, 2>(dir.join("d/zeros.npy")).as_slice(), zeros.as_slice());
        let words: Tensor<i32, 2> = golden_tensor(&format!("flexq/case{id:02}_wpacked.npy"));
        assert_eq!(
            stored::<i32, 2>(dir.join("q.safetensors:weight_packed")).as_slice(),
            words.as_slice(),
            "case {id}"
        );
        let [n, k] = zeros_shape(&dir.join("q.safetensors"));
        let bits: f64 = wbits.parse().expect("a number");
        let size = std::fs::metadata(dir.join("q.safetensors")).expect("a file").len() as f64;
        let per_group = if scheme == "sym" { 32.0 } else { 64.0 };
        let packed = bits / 8.0 * (n * k) as f64 + per_group / 8.0 * zeros.len() as f64;
        assert!(size <= packed + 2.0 * n as f64 * 4.0 + 1024.0, "case {id}: {size} bytes");

        let bias = case["bias"].as_bool().expect("a boolean").then(|| path(id, "bias"));
        let want: Tensor<f64, 2> = golden_tensor(&format!("flexq/case{id:02}_y.npy"));
        let top = case["ymax"].as_f64().expect("a number");
        let mut first: Option<Vec<f32>> = None;
        for kernel in ["auto", "popcount", "portable", "reference"] {
            for source in [["--packed", "q.safetensors"], ["--weights", &w]] {
                let mut matmul =
                    vec!["quant", "flexq", "matmul", "--x", &x, "--abits", &abits, "--wbits", &wbits];
                matmul.extend(["--kernel", kernel, "--out", "y.npy", "--dump-dir", "a"]);
                matmul.extend(source);
                matmul.extend(spec);
                if let Some(bias) = &bias {
                    matmul.extend(["--bias", bias]);
                }
                kc_ok(dir, &matmul);
                same("a/codes.npy", "cx");
                let y: Tensor<f32, 2> = stored(dir.join("y.npy"));
                for (got, want) in y.as_slice().iter().zip(want.as_slice()) {
                    assert!((f64::from(*got) - want).abs() <= 1e-5 * top, "case {id}: {got} {want}");
                }
                let first = first.get_or_insert_with(|| y.as_slice().to_vec());
                assert_eq!(y.as_slice(), first, "case {id}: {kernel}");
            }
        }

        kc_ok(dir, &["quant", "flexq", "unpack", "--packed", "q.safetensors", "--out", "back.npy"]);
        let back: Tensor<f32, 2> = stored(dir.join("back.npy"));
        let (codes, groups) = (stored::<i16, 2>(dir.join("d/codes.npy")), scales.shape()[1]);
        let columns = case["group"].as_u64().map_or(k, |g| g as usize);
        for (i, got) in back.as_slice().iter().enumerate() {
            let g = i / k * groups + i % k / columns;
            let q = i32::from(codes.as_slice()[i]) - zeros.as_slice()[g];
            assert_eq!(*got, scales.as_slice()[g] * q as f32);
        }
    }
}

fn zeros_shape(file: &std::path::Path) -> [usize; 2] {
    let shape: Tensor<i64, 1> = stored(file.with_file_name("q.safetensors:weight_shape"));
    [shape.as_slice()[0] as usize, shape.as_slice()[1] as usize]
}

#[test]
fn planes_are_multiplied_without_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (planes, scales, x) = (path(0, "wplanes"), path(0, "sw"), path(0, "x"));
    let matmul = ["quant", "flexq", "matmul", "--x", &x, "--out", "y.npy"];
    let args = [&matmul[..], &["--planes", &planes, "--scales", &scales, "--json", "r.json"]].concat();
    assert_eq!(kc_json(dir, &args, "r.json")["kernel"], "popcount");
    let w = path(0, "w");
    kc_ok(dir, &["quant", "flexq", "matmul", "--x", &x, "--weights", &w, "--out", "z.npy"]);
    let (y, z): (Tensor<f32, 2>, Tensor<f32, 2>) = (stored(dir.join("y.npy")), stored(dir.join("z.npy")));
    assert_eq!(y.as_slice(), z.as_slice());
    let args = [&matmul[..], &["--planes", &planes, "--scales", &scales, "--kernel", "portable"]].concat();
    kc_fails(dir, &args, 2, "popcount");
}

#[test]
fn sensitivity_of_slices() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let slice =
        |name: &str, what: &str| golden(&format!("quant_minilm/{name}_{what}.npy")).display().to_string();
    let layers: Vec<Value> =
        [("l4_up", "l4_up"), ("l3_down", "l3_down"), ("l2_key", "l2_key"), ("l2_key_outlier", "l2_key")]
            .iter()
            .map(|(x, w)| json!({"name": x, "weights": slice(w, "w"), "x": slice(x, "x")}))
            .collect();
    std::fs::write(dir.join("layers.json"), Value::from(layers).to_string()).expect("written");
    let want = golden_json("quant_minilm/sensitivity_slices.json");
    for (policy, key) in [("threshold:2.0", "threshold_2_0"), ("budget:0.34", "budget_0_34")] {
        let verb = ["quant", "flexq", "sensitivity", "--layers", "layers.json", "--policy", policy];
        kc_ok(dir, &[&verb[..], &["--out", "plan.json"]].concat());
        let plan = read_json(&dir.join("plan.json"));
        for row in want["rows"].as_array().expect("rows") {
            let name = row["name"].as_str().expect("a name");
            let layer = &plan[name];
            for (ours, theirs) in [("e6", "a6"), ("e8", "a8"), ("e16", "a16")] {
                let gap = layer[ours].as_f64().expect("a number") - row[theirs].as_f64().expect("a number");
                assert!(gap.abs() < 1e-4, "{name} {ours}");
            }
            let eight = want[key].as_array().expect("names").contains(&json!(name));
            assert_eq!(layer["abits"], if eight { 8 } else { 6 }, "{policy}: {name}");
        }
    }
}

#[test]
fn bad_input_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (x, w) = (path(0, "x"), path(0, "w"));
    let pack = ["quant", "flexq", "pack", "--weights", &w, "--out", "q.safetensors"];
    kc_fails(dir, &[&pack[..], &["--bits", "9"]].concat(), 1, "bits: expected 1 to 8");
    kc_fails(dir, &[&pack[..], &["--group", "0"]].concat(), 1, "group");
    kc_fails(dir, &[&pack[..], &["--group", "many"]].concat(), 2, "group");
    kc_fails(dir, &[&pack[..], &["--scheme", "other"]].concat(), 2, "scheme");
    let matmul = ["quant", "flexq", "matmul", "--weights", &w, "--out", "y.npy"];
    let other = path(1, "x");
    kc_fails(dir, &[&matmul[..], &["--x", &other]].concat(), 1, "x: expected [M, 256]");
    kc_fails(dir, &[&matmul[..], &["--x", &x, "--bias", &x]].concat(), 1, "--bias");
    kc_fails(dir, &[&matmul[..], &["--x", &x, "--isa", "portable", "--kernel", "avx2"]].concat(), 1, "avx2");
    kc_fails(dir, &["quant", "flexq", "unpack", "--packed", &w, "--out", "w.npy"], 1, "packed");
    kc_ok(dir, &pack);
    let cut = std::fs::read(dir.join("q.safetensors")).expect("a file");
    std::fs::write(dir.join("cut.safetensors"), &cut[..cut.len() - 5]).expect("written");
    kc_fails(dir, &["quant", "flexq", "unpack", "--packed", "cut.safetensors", "--out", "w.npy"], 1, "cut");
    let text = String::from_utf8_lossy(&cut).replace(r#""kc.version":"1""#, r#""kc.version":"7""#);
    assert_ne!(text.as_bytes(), cut, "the version is in the file");
    let at = cut.windows(16).position(|w| w == br#""kc.version":"1""#).expect("the version");
    let mut newer = cut.clone();
    newer[at + 14] = b'7';
    std::fs::write(dir.join("newer.safetensors"), newer).expect("written");
    kc_fails(
        dir,
        &["quant", "flexq", "unpack", "--packed", "newer.safetensors", "--out", "w.npy"],
        1,
        "version",
    );
}
