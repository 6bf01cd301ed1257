//! `kc smash` on real files.

use kc_core::Tensor;
use kc_testing::{golden, golden_dir, golden_json};

use crate::support::{json, kc_fails, kc_ok};

fn mtx(name: &str) -> String {
    golden(&format!("smash/mtx/{name}.mtx")).display().to_string()
}

/// Fails unless two archives hold the same matrix, bit by bit.
fn assert_same(got: &str, want: &str) {
    let read = |file: &str, key: &str| kc_io::read(format!("{file}:{key}")).expect(key);
    for key in ["indptr", "indices", "shape"] {
        let (got, want) = (read(got, key).to_f64::<1>(key), read(want, key).to_f64::<1>(key));
        assert_eq!(got.expect("numbers"), want.expect("numbers"), "{key} of {want:?}", want = key);
    }
    let (got, want) = (read(got, "data"), read(want, "data"));
    let bits = |t: &kc_core::AnyTensor| {
        let t: Tensor<f64, 1> = t.to_tensor("data").expect("float64");
        t.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(bits(&got), bits(&want));
}

#[test]
fn products_have_the_bits_of_the_fixtures() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("c.npz").display().to_string();
    let folder = golden_dir().join("smash").display().to_string();
    for name in ["west0067", "jagmesh7", "karate"] {
        let a = mtx(name);
        kc_ok(
            dir.path(),
            &["smash", "multiply", "--a", &a, "--b", &a, "--out", "c.npz", "--stats", "s.json"],
        );
        assert_same(&out, &format!("{folder}/{name}_AA.npz"));
        let cases = golden_json("smash/expected.json");
        let case = cases["products"]
            .as_array()
            .and_then(|all| all.iter().find(|c| c["matrix"] == format!("mtx/{name}.mtx")));
        let (case, stats) = (case.expect("a case"), json(&dir.path().join("s.json")));
        assert_eq!((&stats["products"], &stats["nnz_c"]), (&case["products"], &case["nnz_c"]));
    }
    let a = mtx("west0067");
    for ring in ["min_plus", "max_min", "or_and", "plus_pair", "any_pair"] {
        kc_ok(
            dir.path(),
            &[
                "smash",
                "multiply",
                "--a",
                &a,
                "--b",
                &a,
                "--semiring",
                ring,
                "--threads",
                "2",
                "--out",
                "c.npz",
            ],
        );
        assert_same(&out, &format!("{folder}/west0067_{ring}.npz"));
    }
    let a = mtx("karate");
    let masked = [
        "smash",
        "multiply",
        "--a",
        &a,
        "--b",
        &a,
        "--semiring",
        "plus_pair",
        "--mask",
        &a,
        "--out",
        "c.npz",
    ];
    kc_ok(dir.path(), &masked);
    assert_same(&out, &format!("{folder}/karate_masked_plus_pair.npz"));
    kc_ok(dir.path(), &[&masked[..], &["--complement"]].concat());
    assert_same(&out, &format!("{folder}/karate_cmasked_plus_pair.npz"));
}

#[test]
fn the_model_writes_the_counters_of_the_fixtures() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = golden("smash/model_er8.npz").display().to_string();
    std::fs::write(dir.path().join("cfg.json"), r#"{"spad_bytes": 65536, "token_products": 32}"#)
        .expect("written");
    let line = [
        "smash",
        "model",
        "--a",
        &a,
        "--b",
        &a,
        "--version",
        "all",
        "--config",
        "cfg.json",
        "--out",
        "r.json",
    ];
    kc_ok(dir.path(), &line);
    let (got, want) = (json(&dir.path().join("r.json")), golden_json("smash/expected.json"));
    let want: Vec<_> = want["model"].as_array().expect("a list")[3..].iter().map(|c| &c["result"]).collect();
    for (got, want) in got.as_array().expect("a list").iter().zip(want) {
        for (key, value) in want.as_object().expect("an object") {
            match value.as_u64() {
                Some(count) => assert_eq!(got[key].as_u64(), Some(count), "{key}"),
                None => assert!(
                    (got[key].as_f64().expect(key) - value.as_f64().expect(key)).abs() < 1e-12,
                    "{key}"
                ),
            }
        }
    }
}

#[test]
fn generated_matrices_repeat_and_multiply() {
    let dir = tempfile::tempdir().expect("a folder");
    for kind in ["rmat", "er", "band"] {
        let line = |out| {
            [
                "smash",
                "gen",
                "--kind",
                kind,
                "--scale",
                "7",
                "--edge-factor",
                "4",
                "--seed",
                "3",
                "--out",
                out,
            ]
        };
        kc_ok(dir.path(), &line("a.npz"));
        kc_ok(dir.path(), &line("b.npz"));
        let bytes = |name: &str| std::fs::read(dir.path().join(name)).expect("written");
        assert_eq!(bytes("a.npz"), bytes("b.npz"));
        kc_ok(dir.path(), &["smash", "multiply", "--a", "a.npz", "--b", "b.npz", "--out", "c.mtx"]);
        kc_ok(dir.path(), &["smash", "stats", "--a", "a.npz", "--b", "c.mtx"]);
    }
}

#[test]
fn bad_files_name_their_line_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = mtx("west0067");
    for entry in std::fs::read_dir(golden("smash/bad_mtx")).expect("a folder") {
        let bad = entry.expect("an entry").path().display().to_string();
        kc_fails(dir.path(), &["smash", "multiply", "--a", &bad, "--b", &a, "--out", "c.npz"], 1, "line ");
    }
    let other = mtx("karate");
    kc_fails(dir.path(), &["smash", "multiply", "--a", &a, "--b", &other, "--out", "c.npz"], 1, "[67, 67]");
    kc_fails(dir.path(), &["smash", "multiply", "--a", &a, "--b", &a, "--out", "c.txt"], 1, ".npz or .mtx");
    kc_fails(
        dir.path(),
        &["smash", "multiply", "--a", &a, "--b", &a, "--mask", &other, "--out", "c.npz"],
        1,
        "mask",
    );
    kc_fails(
        dir.path(),
        &["smash", "multiply", "--a", &a, "--b", &a, "--semiring", "plus", "--out", "c.npz"],
        2,
        "plus",
    );
}
