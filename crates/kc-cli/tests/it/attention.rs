//! `kc attention exact` and `compare` on golden cases.

use std::path::Path;

use kc_core::{Tensor, bf16, f16};
use kc_testing::{Tol, assert_close, golden, golden_tensor};

use crate::support::{kc_fails, kc_json, kc_ok};

fn case(case: &str, what: &str) -> String {
    golden(&format!("sage_attention2/{case}/{what}.npy")).display().to_string()
}

fn stored<const N: usize>(file: impl AsRef<Path>) -> Tensor<f32, N> {
    kc_io::read(file.as_ref().display().to_string())
        .and_then(|any| any.to_tensor("result"))
        .expect("a result")
}

#[test]
fn golden_cases_through_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    for (name, more) in
        [("causal_gqa_int8", &["--causal"][..]), ("cross_int4_fp8", &[]), ("decode_int4_int8", &[])]
    {
        let [q, k, v, exact] = ["q", "k", "v", "o_exact"].map(|what| case(name, what));
        let args =
            ["attention", "exact", "--q", &q, "--k", &k, "--v", &v, "--out", "o.npy", "--lse", "l.npy"];
        kc_ok(dir, &[&args[..], more].concat());
        let want: Tensor<f32, 3> = golden_tensor(&format!("sage_attention2/{name}/lse_exact.npy"));
        assert_close(stored::<3>(dir.join("l.npy")).as_slice(), want.as_slice(), Tol::new(5e-7, 2e-6));
        let compare = ["attention", "compare", "--a", "o.npy", "--b", &exact, "--json", "c.json"];
        let found = kc_json(dir, &compare, "c.json");
        assert!(found["rel_l1"].as_f64().expect("a number") < 1e-6, "{found}");
    }
}

#[test]
fn masks_layouts_types_and_gradients() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let [q, k, v] = ["q", "k", "v"].map(|what| case("causal_gqa_int8", what));
    let exact = |more: &[&str]| {
        let args = ["attention", "exact", "--q", &q, "--k", &k, "--v", &v, "--out", "o.npy"];
        kc_ok(dir, &[&args[..], more].concat());
        stored::<4>(dir.join("o.npy"))
    };
    let causal = exact(&["--causal"]);
    let read: Tensor<f32, 4> = golden_tensor("sage_attention2/causal_gqa_int8/q.npy");
    let [_, _, n, _] = read.shape();
    let keys: Tensor<f32, 4> = golden_tensor("sage_attention2/causal_gqa_int8/k.npy");
    let nk = keys.shape()[2];
    let seen = |i: usize, j: usize| j + n <= i + nk;
    let keep = Tensor::<u8, 2>::from_fn([n, nk], |[i, j]| u8::from(seen(i, j))).expect("a mask");
    kc_io::write(dir.join("keep.npy"), &keep.into_any()).expect("written");
    let add = |[i, j]: [usize; 2]| if seen(i, j) { 0.0f32 } else { f32::NEG_INFINITY };
    let add = Tensor::from_fn([n, nk], add).expect("a mask");
    kc_io::write(dir.join("add.npy"), &add.into_any()).expect("written");
    assert_close(exact(&["--mask", "keep.npy"]).as_slice(), causal.as_slice(), Tol::abs(2e-6));
    assert_close(exact(&["--mask", "add.npy"]).as_slice(), causal.as_slice(), Tol::abs(2e-6));

    let halves = Tensor::from_fn(read.shape(), |i| f16::from_f32(read[i])).expect("halves");
    kc_io::write(dir.join("half.npy"), &halves.into_any()).expect("written");
    let brains = Tensor::from_fn(read.shape(), |i| bf16::from_f32(read[i])).expect("bfloats");
    kc_io::write(dir.join("brain.safetensors"), &brains.into_any()).expect("written");
    for (file, tolerance) in [("half.npy", 5e-3), ("brain.safetensors:arr_0", 4e-2)] {
        let args = ["attention", "exact", "--q", file, "--k", &k, "--v", &v, "--out", "h.npy", "--causal"];
        kc_ok(dir, &args);
        assert_close(stored::<4>(dir.join("h.npy")).as_slice(), causal.as_slice(), Tol::abs(tolerance));
    }

    // Tokens first, and the same tokens as one packed sequence.
    for (name, file) in [("q", &q), ("k", &k), ("v", &v)] {
        let x: Tensor<f32, 4> = kc_io::read(file).and_then(|x| x.to_tensor("x")).expect("a tensor");
        let x = x.view().permuted([0, 2, 1, 3]).and_then(|x| x.to_tensor()).expect("a tensor");
        let one = x.view().slice(0, 0..1).and_then(|x| x.to_tensor()).expect("a tensor");
        let [_, n, h, d] = one.shape();
        kc_io::write(dir.join(format!("{name}1.npy")), &one.reshape([n, h, d]).expect("one").into_any())
            .expect("written");
        kc_io::write(dir.join(format!("{name}.npy")), &x.into_any()).expect("written");
    }
    let args = ["attention", "exact", "--q", "q.npy", "--k", "k.npy", "--v", "v.npy", "--out", "n.npy"];
    kc_ok(dir, &[&args[..], &["--layout", "nhd", "--causal"]].concat());
    let turned = stored::<4>(dir.join("n.npy"));
    let turned = turned.view().permuted([0, 2, 1, 3]).and_then(|x| x.to_tensor()).expect("a tensor");
    assert_eq!(turned, causal);
    for (file, end) in [("cuq.npy", n), ("cuk.npy", nk)] {
        let cu = Tensor::from_slice([2], &[0i64, end as i64]).expect("offsets");
        kc_io::write(dir.join(file), &cu.into_any()).expect("written");
    }
    let args = ["attention", "exact", "--q", "q1.npy", "--k", "k1.npy", "--v", "v1.npy", "--out", "p.npy"];
    let cu = ["--cu-q", "cuq.npy", "--cu-k", "cuk.npy", "--causal"];
    kc_ok(dir, &[&args[..], &cu].concat());
    let packed = stored::<3>(dir.join("p.npy"));
    for (i, row) in packed.as_slice().chunks(packed.shape()[2]).enumerate() {
        let (token, head) = (i / packed.shape()[1], i % packed.shape()[1]);
        assert!((0..row.len()).all(|c| row[c] == causal[[0, head, token, c]]));
    }

    let back = ["--grad-out", &q, "--grad-dir", "g", "--causal"];
    exact(&back);
    let [dq, dk, dv] = ["dq", "dk", "dv"].map(|name| stored::<4>(dir.join(format!("g/{name}.npy"))));
    assert_eq!((dq.shape(), dk.shape(), dv.shape()), (read.shape(), keys.shape(), keys.shape()));
    // Weights sum to 1, so the gradients of the values add up to those of the output, over tokens and the group.
    let channel = |x: &Tensor<f32, 4>, c: usize| -> f64 {
        let d = x.shape()[3];
        x.as_slice().iter().skip(c).step_by(d).map(|x| f64::from(*x)).sum()
    };
    for c in 0..read.shape()[3] {
        assert!((channel(&dv, c) - channel(&read, c)).abs() < 1e-2, "channel {c}");
    }
    let back = [&cu[..], &["--grad-out", "q1.npy", "--grad-dir", "gp"]].concat();
    kc_ok(dir, &[&args[..], &back].concat());
    let packed_dq = stored::<3>(dir.join("gp/dq.npy"));
    assert_eq!(packed_dq.shape(), packed.shape());

    // An axis of one batch entry, in the layout's order, stays.
    for (name, x) in [("q", &read), ("k", &keys)] {
        let one = x.view().slice(0, 0..1).and_then(|x| x.to_tensor()).expect("one entry");
        kc_io::write(dir.join(format!("{name}2.npy")), &one.into_any()).expect("written");
    }
    let args = ["attention", "exact", "--q", "q2.npy", "--k", "k2.npy", "--v", "k2.npy", "--out", "p2.npy"];
    let more = ["--lse", "l2.npy", "--grad-out", "q2.npy", "--grad-dir", "g2"];
    kc_ok(dir, &[&args[..], &cu, &more].concat());
    let args = ["attention", "exact", "--q", "q1.npy", "--k", "k1.npy", "--v", "k1.npy", "--out", "p3.npy"];
    let more = ["--lse", "l3.npy", "--grad-out", "q1.npy", "--grad-dir", "g3"];
    kc_ok(dir, &[&args[..], &cu, &more].concat());
    for name in ["p2.npy p3.npy", "g2/dq.npy g3/dq.npy", "g2/dk.npy g3/dk.npy", "g2/dv.npy g3/dv.npy"] {
        let (four, three) = name.split_once(' ').expect("two files");
        let four = stored::<4>(dir.join(four));
        let four = four.view().permuted([0, 2, 1, 3]).and_then(|x| x.to_tensor()).expect("a tensor");
        assert_eq!(four.as_slice(), stored::<3>(dir.join(three)).as_slice(), "{name}");
    }
    assert_eq!(stored::<3>(dir.join("l2.npy")).as_slice(), stored::<2>(dir.join("l3.npy")).as_slice());
}

#[test]
fn caches_are_stored_appended_to_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let [q, k, v, exact] = ["q", "k", "v", "o_exact"].map(|what| case("decode_int4_int8", what));
    for (bits, values, most) in
        [("8", "f16", 3e-3), ("8", "int8", 5e-3), ("4", "int8", 2e-2), ("4", "fp8", 5e-2)]
    {
        let args =
            ["attention", "sage-cache", "--k", &k, "--v", &v, "--out", "c.safetensors", "--json", "c.json"];
        let found = kc_json(dir, &[&args[..], &["--bits", bits, "--values", values]].concat(), "c.json");
        assert_eq!((found["bits"].to_string().as_str(), found["values"].as_str()), (bits, Some(values)));
        let decode = ["attention", "sage-decode", "--cache", "c.safetensors", "--q", &q, "--out", "o.npy"];
        kc_ok(dir, &[&decode[..], &["--lse", "l.npy"]].concat());
        let compare = ["attention", "compare", "--a", "o.npy", "--b", &exact, "--json", "m.json"];
        let metrics = kc_json(dir, &compare, "m.json");
        assert!(metrics["rel_l1"].as_f64().expect("a number") < most, "{bits} {values}: {metrics}");
    }
    // The same keys once more: every weight is halved, the output stays.
    let before = stored::<4>(dir.join("o.npy"));
    let lse = stored::<3>(dir.join("l.npy"));
    let args = [
        "attention",
        "sage-cache",
        "--append",
        "c.safetensors",
        "--k",
        &k,
        "--v",
        &v,
        "--out",
        "d.safetensors",
    ];
    kc_ok(dir, &args);
    let decode = ["attention", "sage-decode", "--cache", "d.safetensors", "--q", &q, "--out", "p.npy"];
    kc_ok(dir, &[&decode[..], &["--lse", "m.npy"]].concat());
    assert_close(stored::<4>(dir.join("p.npy")).as_slice(), before.as_slice(), Tol::abs(2e-2));
    let longer = stored::<3>(dir.join("m.npy"));
    for (longer, lse) in longer.as_slice().iter().zip(lse.as_slice()) {
        assert!((longer - lse - 2f32.ln()).abs() < 1e-4);
    }
    let cache = |more: &[&str], code, message: &str| {
        let args = ["attention", "sage-cache", "--k", &k, "--v", &v, "--out", "e.safetensors"];
        kc_fails(dir, &[&args[..], more].concat(), code, message);
    };
    cache(&["--bits", "5"], 2, "--bits");
    cache(&["--page", "10"], 1, "page: expected a multiple of 64");
    cache(&["--append", &q], 1, "error");
    cache(&["--append", "c.safetensors", "--bits", "8"], 2, "--bits");
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let [q, k, v] = ["q", "k", "v"].map(|what| case("causal_gqa_int8", what));
    let other = case("cross_int4_fp8", "k");
    let exact = |q: &str, k: &str, more: &[&str], code: i32, message: &str| {
        let args = ["attention", "exact", "--q", q, "--k", k, "--v", &v, "--out", "o.npy"];
        kc_fails(dir, &[&args[..], more].concat(), code, message);
    };
    exact(&q, &other, &[], 1, "k: expected");
    exact(&q, &k, &["--scale", "nan"], 1, "scale: expected a finite number");
    exact(&q, &k, &["--mask", &other], 1, "mask: expected");
    exact(&q, &k, &["--layout", "dnh"], 2, "--layout");
    exact(&q, &k, &["--cu-q", &q], 2, "--cu-k");
    exact(&q, &k, &["--cu-q", &q, "--cu-k", &q, "--mask", &q], 2, "--mask");
    exact(&q, &k, &["--grad-out", &q], 2, "--grad-dir");
    exact("nowhere.npy", &k, &[], 1, "nowhere.npy");
    kc_fails(dir, &["attention", "compare", "--a", &q, "--b", &other], 1, "a: expected");
}
