//! `kc kernel` on golden data, and on wrong ones.

use std::path::Path;

use kc_core::{Complex, Element, Tensor};
use kc_testing::{golden, golden_json, golden_tensor};
use serde_json::{Value, json};

use crate::support::{kc_fails, kc_ok};

pub(crate) const KINDS: [(&str, &str); 5] = [
    ("si", "si"),
    ("dsi", "dsi"),
    ("dsi_aa", "dsi-aa"),
    ("si_combined", "si-combined"),
    ("dsi_combined", "dsi-combined"),
];

pub(crate) fn save<T: Element, const N: usize>(dir: &Path, name: &str, tensor: Tensor<T, N>) {
    kc_io::write(dir.join(name), &tensor.into_any()).expect("written");
}

pub(crate) fn load<const N: usize>(path: &Path) -> Tensor<f64, N> {
    kc_io::read(path).expect("read").to_f64("x").expect("numbers")
}

pub(crate) fn assert_near(got: &[f64], want: &[f64], tol: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tol * scale, "{what} at {i}: got {got}, want {want}");
    }
}

pub(crate) fn case(kind: &str) -> Value {
    let cases = golden_json("qmcpy/kern_cases.json");
    cases.as_array().expect("a list").iter().find(|case| case["kind"] == kind).expect("the kind").clone()
}

/// Copies `kern_<kind>_<what>.npy` for each name, and writes p.json.
pub(crate) fn prepare(dir: &Path, kind: &str, names: &[&str]) {
    for name in names {
        std::fs::copy(golden(&format!("qmcpy/kern_{kind}_{name}.npy")), dir.join(format!("{name}.npy")))
            .expect("copied");
    }
    let alpha = kc_io::read(golden(&format!("qmcpy/kern_{kind}_alpha.npy"))).expect("read");
    let alpha = match alpha.rank() {
        1 => json!(alpha.to_f64::<1>("alpha").expect("numbers").into_vec()),
        _ => json!(alpha.to_f64::<2>("alpha").expect("numbers").as_slice().chunks(4).collect::<Vec<_>>()),
    };
    let case = case(kind);
    let mut params =
        json!({"alpha": alpha, "gamma": case["gamma"], "scale": case["scale"], "noise": case["noise"]});
    if !case["t"].is_null() {
        params["t"] = case["t"].clone();
    }
    std::fs::write(dir.join("p.json"), params.to_string()).expect("written");
}

#[test]
fn transforms_of_golden_rows() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(golden("qmcpy/ft_in.npy"), dir.path().join("x.npy")).expect("copied");
    for kind in ["fftbr", "ifftbr"] {
        kc_ok(dir.path(), &["kernel", "ft", "--kind", kind, "--in", "x.npy", "--out", "y.npy"]);
        let got: Tensor<Complex<f64>, 2> =
            kc_io::read(dir.path().join("y.npy")).expect("read").to_tensor("y").expect("complex");
        let want = golden_tensor::<Complex<f64>, 2>(&format!("qmcpy/ft_{kind}.npy"));
        for (got, want) in got.as_slice().iter().zip(want.as_slice()) {
            assert!((got - want).norm() < 1e-14, "{kind}");
        }
    }
    let x = golden_tensor::<Complex<f64>, 2>("qmcpy/ft_in.npy");
    let real = Tensor::<f64, 2>::from_fn(x.shape(), |at| x[at].re).expect("real parts");
    save(dir.path(), "r.npy", real);
    kc_ok(dir.path(), &["kernel", "ft", "--kind", "fwht", "--in", "r.npy", "--out", "w.npy"]);
    let want = golden_tensor::<f64, 2>("qmcpy/ft_fwht_real.npy");
    assert_near(load::<2>(&dir.path().join("w.npy")).as_slice(), want.as_slice(), 1e-14, "fwht");
    // Real input, complex output; there and back.
    kc_ok(dir.path(), &["kernel", "ft", "--kind", "fftbr", "--in", "r.npy", "--out", "f.npy"]);
    kc_ok(dir.path(), &["kernel", "ft", "--kind", "ifftbr", "--in", "f.npy", "--out", "b.npy"]);
    let back: Tensor<Complex<f64>, 2> =
        kc_io::read(dir.path().join("b.npy")).expect("read").to_tensor("b").expect("complex");
    assert!(back.as_slice().iter().zip(x.as_slice()).all(|(b, x)| (b - x.re).norm() < 1e-14));
}

#[test]
fn golden_matrices_and_their_algebra() {
    for (kind, name) in KINDS {
        let dir = tempfile::tempdir().expect("a folder");
        prepare(dir.path(), kind, &["x", "y", "k0", "eig", "gram_times_y", "coeffs"]);
        let run = |verb: &str, rest: &[&str]| {
            let mut args =
                vec!["kernel", verb, "--kind", name, "--x", "x.npy", "--params", "p.json", "--out", "o.npy"];
            args.extend(rest);
            kc_ok(dir.path(), &args);
        };
        let want = |what: &str| load::<1>(&dir.path().join(format!("{what}.npy"))).into_vec();
        let out = dir.path().join("o.npy");
        run("gram", &[]);
        let k = load::<2>(&out);
        assert_eq!(k.shape(), [64, 64]);
        let column: Vec<f64> = (0..64).map(|i| k[[i, 0]]).collect();
        assert_near(&column, &want("k0"), 3e-11, kind);
        assert!((0..64).all(|i| (0..64).all(|j| k[[i, j]] == k[[j, i]])), "{kind} is not symmetric");
        run("fast", &["--op", "eig"]);
        assert_near(load::<1>(&out).as_slice(), &want("eig"), 3e-11, kind);
        run("fast", &["--op", "mul", "--in", "y.npy"]);
        assert_near(load::<1>(&out).as_slice(), &want("gram_times_y"), 3e-11, kind);
        run("fast", &["--op", "solve", "--in", "y.npy"]);
        assert_near(load::<1>(&out).as_slice(), &want("coeffs"), 1e-10, kind);
        run("fast", &["--op", "logdet"]);
        let noise = case(kind)["noise"].as_f64().expect("a number");
        let log_det: f64 = want("eig").iter().map(|v| (v + noise).ln()).sum();
        assert_near(load::<1>(&out).as_slice(), &[log_det], 1e-10, kind);
    }
}

#[test]
fn columns_and_other_points() {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path(), "si", &["x", "xs", "y", "gram_times_y"]);
    let y = load::<1>(&dir.path().join("y.npy"));
    save(
        dir.path(),
        "two.npy",
        Tensor::<f64, 2>::from_fn([64, 2], |[i, o]| y[[i]] * (o as f64 + 1.0)).expect("two"),
    );
    let fast = ["kernel", "fast", "--kind", "si", "--x", "x.npy", "--params", "p.json", "--op", "mul"];
    kc_ok(dir.path(), &[&fast[..], &["--in", "two.npy", "--out", "o.npy"]].concat());
    let two = load::<2>(&dir.path().join("o.npy"));
    let want = load::<1>(&dir.path().join("gram_times_y.npy"));
    let second: Vec<f64> = (0..64).map(|i| two[[i, 1]] / 2.0).collect();
    assert_near(&second, want.as_slice(), 3e-11, "second column");
    kc_ok(
        dir.path(),
        &[
            "kernel", "gram", "--kind", "si", "--x", "x.npy", "--z", "xs.npy", "--params", "p.json", "--out",
            "o.npy",
        ],
    );
    assert_eq!(load::<2>(&dir.path().join("o.npy")).shape(), [64, 7]);
}

#[test]
fn bad_input_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path();
    prepare(at, "si", &["x", "y"]);
    save(at, "three.npy", Tensor::<f64, 1>::zeros([3]).expect("three"));
    save(at, "nan.npy", Tensor::<f64, 1>::from_slice([4], &[0.0, f64::NAN, 0.0, 0.0]).expect("four"));
    save(at, "ints.npy", Tensor::<i64, 1>::zeros([4]).expect("four"));
    let ft = |file| ["kernel", "ft", "--kind", "fwht", "--in", file, "--out", "o.npy"];
    kc_fails(at, &ft("three.npy"), 1, "power of two");
    kc_fails(at, &ft("nan.npy"), 1, "finite");
    kc_fails(at, &ft("ints.npy"), 1, "complex128 or float64");
    kc_fails(at, &ft("none.npy"), 1, "none.npy");

    let x = load::<2>(&at.join("x.npy"));
    let mut swapped = x.as_slice().to_vec();
    swapped.swap(4, 8);
    save(at, "swapped.npy", Tensor::from_slice([64, 4], &swapped).expect("points"));
    save(at, "far.npy", Tensor::<f64, 2>::from_fn([64, 4], |i| x[i] + 1.5).expect("points"));
    save(at, "sixty.npy", Tensor::from_slice([60, 4], &x.as_slice()[..240]).expect("points"));
    let eig = |file| ["kernel", "fast", "--kind", "si", "--x", file, "--op", "eig", "--out", "o.npy"];
    kc_fails(at, &eig("swapped.npy"), 1, "natural order");
    kc_fails(at, &eig("far.npy"), 1, "[0, 1]");
    kc_fails(at, &eig("sixty.npy"), 1, "power of two");
    kc_fails(
        at,
        &["kernel", "fast", "--kind", "si", "--x", "x.npy", "--op", "mul", "--out", "o.npy"],
        2,
        "--in",
    );
    kc_fails(
        at,
        &[
            "kernel",
            "fast",
            "--kind",
            "si",
            "--x",
            "x.npy",
            "--op",
            "mul",
            "--in",
            "three.npy",
            "--out",
            "o.npy",
        ],
        1,
        "64 rows",
    );

    let gram =
        |kind| ["kernel", "gram", "--kind", kind, "--x", "x.npy", "--params", "q.json", "--out", "o.npy"];
    for (kind, params, message) in [
        ("si", r#"{"alpha": 6}"#, "1 to 5"),
        ("si", r#"{"alpha": 0}"#, "1 to 5"),
        ("si", r#"{"alpha": 1.5}"#, "whole"),
        ("si", r#"{"alpha": [1, 2]}"#, "one per dimension"),
        ("si", r#"{"gamma": -1}"#, "gamma"),
        ("si", r#"{"gamma": [1, 2, 3]}"#, "gamma"),
        ("si", r#"{"scale": 0}"#, "scale"),
        ("si", r#"{"noise": 0}"#, "noise"),
        ("si", r#"{"noise": "much"}"#, "noise"),
        ("si", r#"{"beta": 1}"#, "beta"),
        ("si", "[1]", "object"),
        ("si", "{", "q.json"),
        ("dsi", r#"{"alpha": 5}"#, "1 to 4"),
        ("dsi", r#"{"t": 65}"#, "1 to 64"),
        ("dsi", r#"{"t": 0}"#, "1 to 64"),
        ("dsi-aa", r#"{"alpha": 0}"#, "alpha"),
        ("dsi-combined", r#"{"alpha": [[1, 2], [3]]}"#, "4 rows"),
        ("si-combined", r#"{"alpha": [1, 1, -1, 1]}"#, "alpha"),
    ] {
        let _ = std::fs::remove_file(at.join("q.json"));
        std::fs::write(at.join("q.json"), params).expect("written");
        kc_fails(at, &gram(kind), 1, message);
    }
    std::fs::write(at.join("q.json"), r#"{"t": 8}"#).expect("written");
    save(at, "digits.npy", Tensor::<u64, 2>::from_slice([1, 1], &[256]).expect("digits"));
    kc_fails(
        at,
        &["kernel", "gram", "--kind", "dsi", "--x", "digits.npy", "--params", "q.json", "--out", "o.npy"],
        1,
        "2^8",
    );
}
