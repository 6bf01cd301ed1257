//! `kc attention sage`, `sage-quantize` and `sage-plan` on the golden cases.

use std::path::PathBuf;

use kc_core::{Element, Tensor};
use kc_testing::{Tol, assert_close, golden, golden_json, golden_tensor};

use crate::support::{kc_fails, kc_json, kc_ok};

fn path(case: &str, file: &str) -> String {
    golden(&format!("sage_attention2/{case}/{file}.npy")).display().to_string()
}

fn stored<T: Element, const N: usize>(file: PathBuf) -> Tensor<T, N> {
    kc_io::read(file).and_then(|any| any.to_tensor("result")).expect("a result")
}

/// The flags of each case.
const CASES: [(&str, &[&str]); 3] = [
    ("causal_gqa_int8", &["--bits", "8", "--gran", "per-thread"]),
    ("cross_int4_fp8", &["--bits", "4", "--gran", "per-warp", "--smooth-v", "true"]),
    ("decode_int4_int8", &["--bits", "4", "--smooth-k", "true", "--smooth-q", "auto"]),
];

#[test]
fn attention_and_its_error() {
    for (case, flags) in CASES {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let options = &golden_json(&format!("sage_attention2/{case}/case.json"));
        let [q, k, v] = ["q", "k", "v"].map(|file| path(case, file));
        let pv = options["opts"]["pv"].as_str().expect("a mode").replace('_', "-");
        let mut args =
            vec!["attention", "sage", "--q", &q, "--k", &k, "--v", &v, "--out", "o.npy", "--pv", &pv];
        args.extend(["--lse", "l.npy", "--check", "--isa", "auto", "--report", "r.json"]);
        args.extend(flags);
        if options["opts"]["causal"] == true {
            args.push("--causal");
        }
        let report = kc_json(dir, &args, "r.json");
        let out: Tensor<f32, 4> = stored(dir.join("o.npy"));
        let exact: Tensor<f32, 4> = golden_tensor(&format!("sage_attention2/{case}/o_exact.npy"));
        let error = kc_attention::compare(out.view(), exact.view()).expect("equal shapes");
        for (key, found) in [("cos", error.cos), ("rel_l1", error.rel_l1), ("rmse", error.rmse)] {
            assert!((report[key].as_f64().expect("a number") - found).abs() < 1e-5, "{case}: {key}");
        }
        assert!(error.rel_l1 <= 1.15 * options["sim_vs_exact"]["rel_l1"].as_f64().expect("a number"));
        let lse: Tensor<f32, 3> = golden_tensor(&format!("sage_attention2/{case}/lse_sim.npy"));
        assert_close(stored::<f32, 3>(dir.join("l.npy")).as_slice(), lse.as_slice(), Tol::abs(1e-4));
        for key in ["quantise_seconds", "attend_seconds", "packed_bytes"] {
            assert!(report[key].as_f64().is_some_and(|x| x > 0.0), "{key}");
        }

        let mut args = vec!["attention", "sage-quantize", "--q", &q, "--k", &k, "--out-dir", "d"];
        args.extend(flags);
        kc_ok(dir, &args);
        for side in ["q", "k"] {
            let codes: Tensor<i8, 4> = stored(dir.join(format!("d/{side}_codes.npy")));
            let want: Tensor<i8, 4> = golden_tensor(&format!("sage_attention2/{case}/{side}_codes.npy"));
            let differing = codes.as_slice().iter().zip(want.as_slice()).filter(|(a, b)| a != b).count();
            assert!(codes.shape() == want.shape() && differing * 1000 <= codes.len(), "{case} {side}");
            let scales: Tensor<f32, 3> = stored(dir.join(format!("d/{side}_scale.npy")));
            let want: Tensor<f32, 3> = golden_tensor(&format!("sage_attention2/{case}/{side}_scale.npy"));
            assert_close(scales.as_slice(), want.as_slice(), Tol::rel(1e-6));
        }
        let km: Tensor<f32, 3> = golden_tensor(&format!("sage_attention2/{case}/km.npy"));
        assert_close(stored::<f32, 3>(dir.join("d/km.npy")).as_slice(), km.as_slice(), Tol::abs(1e-6));
        let qm: Tensor<f32, 4> = golden_tensor(&format!("sage_attention2/{case}/qm.npy"));
        assert_close(stored::<f32, 4>(dir.join("d/qm.npy")).as_slice(), qm.as_slice(), Tol::abs(1e-6));
    }
}

#[test]
fn layouts_masks_and_packed_sequences() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let case = "causal_gqa_int8";
    let write =
        |name: &str, tensor: kc_core::AnyTensor| kc_io::write(dir.join(name), &tensor).expect("a file");
    let files = ["q", "k", "v"].map(|file| {
        let x: Tensor<f32, 4> = golden_tensor(&format!("sage_attention2/{case}/{file}.npy"));
        write(
            &format!("{file}.npy"),
            x.view().slice(0, 0..1).expect("a part").to_tensor().expect("memory").into_any(),
        );
        let nhd = x.view().permuted([0, 2, 1, 3]).expect("axes").slice(0, 0..1).expect("a part");
        write(&format!("{file}_nhd.npy"), nhd.to_tensor().expect("memory").into_any());
        write(&format!("{file}_packed.npy"), nhd.outer(0).to_tensor().expect("memory").into_any());
        x.shape()
    });
    let [n, nk] = [files[0][2], files[1][2]];
    let sage = |suffix: &str, rest: &[&str]| {
        let [q, k, v] = ["q", "k", "v"].map(|x| format!("{x}{suffix}.npy"));
        let base = ["attention", "sage", "--q", &q, "--k", &k, "--v", &v, "--out", "o.npy"];
        kc_ok(dir, &[&base[..], rest].concat());
        kc_io::read(dir.join("o.npy")).expect("a result")
    };
    let plain: Tensor<f32, 4> = sage("", &["--causal"]).to_tensor("o").expect("rank 4");
    let nhd: Tensor<f32, 4> =
        sage("_nhd", &["--layout", "nhd", "--causal", "--threads", "2"]).to_tensor("o").expect("rank 4");
    assert_eq!(nhd.view().permuted([0, 2, 1, 3]).expect("axes").to_vec(), plain.as_slice());
    let keep: Vec<u8> = (0..n * nk).map(|at| u8::from(at % nk <= at / nk + nk - n)).collect();
    write("m.npy", Tensor::from_slice([n, nk], &keep).expect("memory").into_any());
    let masked: Tensor<f32, 4> = sage("", &["--mask", "m.npy"]).to_tensor("o").expect("rank 4");
    assert_eq!(masked.as_slice(), plain.as_slice());
    for (name, tokens) in [("cq.npy", n), ("ck.npy", nk)] {
        write(name, Tensor::from_slice([2], &[0i64, tokens as i64]).expect("memory").into_any());
    }
    let cu = ["--cu-q", "cq.npy", "--cu-k", "ck.npy", "--causal", "--lse", "l.npy"];
    let packed: Tensor<f32, 3> = sage("_packed", &cu).to_tensor("o").expect("rank 3");
    assert_eq!(packed.as_slice(), nhd.as_slice());
    let one: Tensor<f32, 4> = sage("", &cu).to_tensor("o").expect("rank 4");
    assert_eq!(one.as_slice(), plain.as_slice());
}

#[test]
fn plans_are_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let scores = Tensor::from_slice([2, 2], &[0.90f64, 0.97, 0.95, 0.90]).expect("memory");
    kc_io::write(dir.join("s.npy"), &scores.into_any()).expect("a file");
    let plan = |flag, value| {
        let args = ["attention", "sage-plan", "--scores", "s.npy", flag, value, "--json", "p.json"];
        kc_json(dir, &args, "p.json")["plan"].to_string()
    };
    assert_eq!(plan("--eight", "2"), "[[8,4],[4,8]]");
    assert_eq!(plan("--target", "0.95"), "[[8,4],[4,4]]");
    assert_eq!(plan("--threshold", "0.95"), "[[8,4],[4,8]]");
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let [q, k, v] = ["q", "k", "v"].map(|file| path("causal_gqa_int8", file));
    let other = path("cross_int4_fp8", "k");
    let fails = |rest: &[&str], code, message| {
        let base = ["attention", "sage", "--q", &q, "--out", "o.npy"];
        kc_fails(folder.path(), &[&base[..], rest].concat(), code, message);
        assert!(!folder.path().join("o.npy").exists());
    };
    fails(&["--k", &other, "--v", &other], 1, "k: expected");
    fails(&["--k", &k, "--v", &other], 1, "v: expected");
    fails(&["--k", &k, "--v", &v, "--scale", "inf"], 1, "scale: expected a finite number");
    fails(&["--k", &k, "--v", &v, "--warpq", "12"], 1, "warpq: expected a multiple of 8");
    fails(&["--k", &k, "--v", &v, "--blkk", "96"], 1, "blkk: expected a multiple of warpk");
    fails(&["--k", &k, "--v", &v, "--mask", &k], 1, "mask: expected");
    fails(&["--k", &k, "--v", &v, "--gran", "per-row"], 2, "--gran");
    fails(&["--k", &k, "--v", &v, "--pv", "f8"], 2, "--pv");
    fails(&["--k", &k], 2, "--v");
}
