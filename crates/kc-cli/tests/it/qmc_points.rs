//! `kc qmc points`, `kc qmc discrepancy` and `kc qmc table`.

use std::path::Path;

use kc_core::{Element, Tensor};
use kc_testing::{golden, golden_json, golden_tensor};
use serde_json::Value;

use crate::support::{json, kc, kc_fails, kc_json, kc_ok};

fn stored<T: Element, const N: usize>(path: &Path) -> Tensor<T, N> {
    kc_io::read(path).and_then(|any| any.to_tensor("result")).expect("a result")
}

/// The command line of a golden sequence.
fn line(case: &Value) -> Vec<String> {
    let text = |key: &str| case[key].as_str().unwrap_or("").to_owned();
    let generator = match case["gen"].as_str().expect("a generator") {
        "digital_net_b2" if case["matrices"] == "joe_kuo.6.21201" => "sobol",
        "digital_net_b2" => "dnet",
        "latin_hypercube" => "lhs",
        other => other,
    };
    let mut line = vec!["qmc".to_owned(), "points".to_owned(), "-q".to_owned()];
    let mut add = |flag: &str, value: String| line.extend([flag.to_owned(), value]);
    add("--gen", generator.to_owned());
    match case["dims"].as_array() {
        Some(list) => add("--dims", list.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        None => add("--dim", case["d"].to_string()),
    }
    for (flag, key) in
        [("--n", "n"), ("--n-min", "n_min"), ("--seed", "seed"), ("--alpha", "alpha"), ("--bits", "t")]
    {
        let takes_alpha = ["sobol", "dnet", "faure"].contains(&generator);
        if case[key].is_u64() && (key != "alpha" || takes_alpha) {
            add(flag, case[key].to_string());
        }
    }
    let randomize = text("randomize");
    if !randomize.is_empty() && randomize != "TRUE" {
        let name =
            if randomize == "FALSE" { "none".to_owned() } else { randomize.to_lowercase().replace(' ', "-") };
        if name == "nus" && ["sobol", "dnet"].contains(&generator) {
            add("--nus-engine", "trie".to_owned());
        }
        add("--randomize", name);
    }
    if let Some(order) = case["order"].as_str() {
        add("--order", order.to_owned());
    }
    match case["vector"].as_str() {
        None | Some("kuo-33002") => {}
        Some("random M=25") => add("--vector", "random:25".to_owned()),
        Some(name) => add("--vector", name.to_lowercase()),
    }
    if generator == "dnet" {
        let file = text("matrices");
        let file = file.split(' ').next().unwrap_or("").to_owned();
        add("--table", golden(&format!("qmcpy/{file}")).display().to_string());
    }
    if generator != "hammersley" {
        add("--replications", case["replications"].to_string());
    }
    if case["output"] == "integers" {
        add("--dtype", "u64".to_owned());
    }
    add("--out", "x.npy".to_owned());
    line
}

#[test]
fn every_golden_sequence_comes_out_of_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let cases = golden_json("qmcpy/seq_cases.json");
    let cases = cases.as_array().expect("cases");
    assert_eq!(cases.len(), 77);
    for case in cases {
        let line = line(case);
        kc_ok(dir, &line.iter().map(String::as_str).collect::<Vec<_>>());
        let want = golden(&format!("qmcpy/{}", case["file"].as_str().expect("a file")));
        if case["output"] == "integers" {
            let (got, want): (Tensor<u64, 3>, _) = (stored(&dir.join("x.npy")), stored::<u64, 3>(&want));
            assert_eq!((got.shape(), got.as_slice()), (want.shape(), want.as_slice()), "{case}");
            assert_eq!(json(&dir.join("x.json"))["bits"], case["bits"]);
        } else if case["gen"] == "hammersley" {
            let (got, want): (Tensor<f64, 2>, _) = (stored(&dir.join("x.npy")), stored::<f64, 3>(&want));
            assert_eq!(got.as_slice(), want.as_slice(), "{case}");
        } else {
            let (got, want): (Tensor<f64, 3>, _) = (stored(&dir.join("x.npy")), stored::<f64, 3>(&want));
            assert_eq!((got.shape(), got.as_slice()), (want.shape(), want.as_slice()), "{case}");
        }
    }
}

#[test]
fn shapes_types_and_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let points = [
        "qmc",
        "points",
        "--gen",
        "halton",
        "--dims",
        "3,0",
        "--n",
        "100",
        "--seed",
        "12345678901234567890123",
    ];
    let with = |more: &[&str]| kc_ok(dir, &[&points[..], more].concat());
    with(&["--out", "one.npy", "--threads", "1"]);
    with(&["--out", "two.npy", "--threads", "3"]);
    with(&["--out", "single.npy", "--dtype", "f32"]);
    with(&["--out", "set.npy", "--replications", "1"]);
    with(&["--out", "tail.npy", "--n-min", "60"]);
    let one: Tensor<f64, 2> = stored(&dir.join("one.npy"));
    assert_eq!(one.shape(), [100, 2]);
    assert_eq!(one.as_slice(), stored::<f64, 2>(&dir.join("two.npy")).as_slice());
    assert_eq!(stored::<f64, 2>(&dir.join("tail.npy")).as_slice(), &one.as_slice()[120..]);
    let set: Tensor<f64, 3> = stored(&dir.join("set.npy"));
    assert_eq!((set.shape(), set.as_slice()), ([1, 100, 2], one.as_slice()));
    let single: Tensor<f32, 2> = stored(&dir.join("single.npy"));
    assert!(single.as_slice().iter().zip(one.as_slice()).all(|(a, &b)| *a == b as f32));
    let empty = kc_json(
        dir,
        &["qmc", "points", "--gen", "iid", "--dim", "2", "--n", "0", "--out", "e.npy", "--json", "e.json"],
        "e.json",
    );
    assert_eq!(empty["shape"], serde_json::json!([0, 2]));
}

#[test]
fn doubtful_choices_are_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let warned = |line: &[&str], message: &str| {
        let output =
            kc(folder.path(), &[&["qmc", "points", "--out", "x.npy", "--n", "8"][..], line].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && stderr.contains("warning: ") && stderr.contains(message),
            "{stderr}"
        );
    };
    warned(&["--gen", "lattice", "--dim", "2", "--randomize", "none"], "origin");
    warned(&["--gen", "sobol", "--dim", "2", "--randomize", "lms"], "origin");
    warned(&["--gen", "sobol", "--dim", "2", "--order", "gray"], "Gray order");
    warned(&["--gen", "hammersley", "--dim", "2"], "origin");
    warned(&["--gen", "kronecker", "--dim", "14"], "richtmyer");
    let quiet = kc(
        folder.path(),
        &["qmc", "points", "-q", "--gen", "hammersley", "--dim", "2", "--n", "8", "--out", "x.npy"],
    );
    assert!(quiet.stderr.is_empty());
}

#[test]
fn bad_input_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let fails = |line: &str, code: i32, message: &str| {
        let words: Vec<&str> =
            ["qmc", "points", "--out", "x.npy"].into_iter().chain(line.split(' ')).collect();
        kc_fails(dir, &words, code, message);
    };
    fails("--gen sobol --dim 0 --n 8", 1, "dims: expected 1 to 21201 distinct dimensions, got 0");
    fails("--gen sobol --dim 21202 --n 8", 1, "dims: expected 1 to 21201");
    fails("--gen lattice --dims 1,2,1 --n 8", 1, "1 twice");
    fails("--gen lattice --dims 9125 --n 8", 1, "9125");
    fails("--gen lattice --dim 2 --n 4 --n-min 8", 1, "rows");
    fails("--gen lattice --dim 2 --n 2097152", 1, "1048576");
    fails("--gen lattice --dim 2 --n 6", 1, "power of 2");
    fails("--gen sobol --dim 2 --n 6", 1, "power of 2");
    fails("--gen lattice --dim 2 --n 8 --replications 0", 1, "replications");
    fails("--gen lattice --dim 2 --n 8 --replications 2 --randomize none", 1, "replications");
    fails("--gen sobol --dim 2 --n 8 --bits 65", 1, "bits");
    fails("--gen sobol --dims 0,1 --n 8 --alpha 2", 1, "dims");
    fails("--gen halton --dim 2 --n 8 --replications 2 --randomize qrng", 1, "replications");
    fails("--gen halton --dim 361 --n 8 --randomize qrng", 1, "360");
    fails("--gen halton --dim 2 --n 8 --bits 65", 1, "digits");
    fails("--gen hammersley --dim 2 --n 8 --n-min 1", 1, "rows");
    fails("--gen korobov --dim 2 --n 8 --n-min 4", 1, "rows");
    fails("--gen lhs --dim 2 --n 8 --n-min 4", 1, "rows");
    fails("--gen lattice --dim 2 --n 8 --order linear --n-min 4", 1, "rows");
    fails("--gen lattice --dim 2 --n 8 --dtype u64", 1, "integer points");
    fails("--gen lattice --dim 2 --n 8 --randomize lms-ds", 1, "randomize");
    fails("--gen lattice --dim 2 --n 8 --vector random:27", 1, "vector");
    fails("--gen lattice --dim 2 --n 8 --vector suzuki", 1, "vector");
    fails("--gen lattice --dim 2 --n 8 --table missing.txt", 1, "missing.txt");
    fails("--gen lattice --dim 2 --n 8 --vector pi", 2, "vector");
    fails("--gen lattice --dim 2 --n 8 --alpha 2", 2, "--alpha");
    fails("--gen halton --dim 2 --n 8 --order gray", 2, "--order");
    fails("--gen iid --dim 2 --n 8 --randomize shift", 2, "--randomize");
    fails("--gen dnet --dim 2 --n 8", 2, "--table");
    fails("--gen sobol --dim 2 --n 8 --nus-engine hash", 2, "--randomize nus");
    fails("--gen sobol --n 8", 2, "--dim");
    fails("--gen sobol --dim 2 --dims 1 --n 8", 2, "--dims");
    fails("--gen sobol --dim 2", 2, "--n");
    fails("--gen cube --dim 2 --n 8", 2, "cube");
    fails("--gen sobol --dim 2 --n 8 --seed minus", 2, "seed");
    fails("--gen iid --dim 16777216 --n 9007199254740992", 1, "error");
}

#[test]
fn tables_of_the_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("l.txt", "# lattice\n# Kuo's\n3 # dimensions\n1048576 # 2^20\n1\n182667\n469891\n");
    write("n.txt", "# dnet\n3\n2\n2\n3\n9 3\n18 6\n");
    let table =
        kc_json(dir, &["qmc", "table", "--in", "l.txt", "--out", "l.npy", "--json", "t.json"], "t.json");
    assert_eq!((&table["format"], &table["dims"]), (&"lattice".into(), &3.into()));
    assert_eq!(stored::<u64, 1>(&dir.join("l.npy")).as_slice(), [1, 182_667, 469_891]);
    kc_ok(dir, &["qmc", "table", "--in", "l.npy", "--n", "1048576", "--out", "again.txt"]);
    kc_ok(dir, &["qmc", "table", "--in", "again.txt", "--out", "again.npy"]);
    assert_eq!(stored::<u64, 1>(&dir.join("again.npy")).as_slice(), [1, 182_667, 469_891]);

    let points = |table: &str, out: &str| {
        let line =
            ["qmc", "points", "--gen", "lattice", "--dim", "3", "--n", "16", "--table", table, "--out", out];
        kc_ok(dir, &line);
        stored::<f64, 2>(&dir.join(out))
    };
    assert_eq!(points("l.txt", "a.npy").as_slice(), points("l.npy", "b.npy").as_slice());

    // The net tables of the golden data are read from both kinds of file.
    let file = golden("qmcpy/data_dnet_nx_s5_alpha2_m32.npy").display().to_string();
    kc_ok(dir, &["qmc", "table", "--in", &file, "--out", "nx.txt"]);
    kc_ok(dir, &["qmc", "table", "--in", "nx.txt", "--out", "nx.npy"]);
    let want: Tensor<u64, 2> = golden_tensor("qmcpy/data_dnet_nx_s5_alpha2_m32.npy");
    assert_eq!(stored::<u64, 2>(&dir.join("nx.npy")).as_slice(), want.as_slice());

    let net =
        ["qmc", "points", "--gen", "dnet", "--dim", "2", "--n", "9", "--table", "n.txt", "--out", "n.npy"];
    kc_ok(dir, &[&net[..], &["--randomize", "none", "-q"]].concat());
    let points = stored::<f64, 2>(&dir.join("n.npy"));
    assert!(
        (points.as_slice()[2] - 1.0 / 3.0).abs() < 1e-15 && (points.as_slice()[3] - 2.0 / 3.0).abs() < 1e-15
    );

    write("bad.txt", "# dnet\n2\n1\n2\n3\n8 1\n");
    kc_fails(dir, &["qmc", "table", "--in", "bad.txt", "--out", "o.npy"], 1, "bad.txt: line 6: column 1");
    let line =
        ["qmc", "points", "--gen", "dnet", "--dim", "1", "--n", "4", "--table", "bad.txt", "--out", "o.npy"];
    kc_fails(dir, &line, 1, "line 6: column 1: expected an integer below 8, got 8");
    std::fs::write(dir.join("raw.txt"), [b'#', b' ', 0xFF]).expect("written");
    kc_fails(dir, &["qmc", "table", "--in", "raw.txt", "--out", "o.npy"], 1, "UTF-8");
    kc_fails(dir, &["qmc", "table", "--in", "l.npy", "--out", "o.txt"], 1, "--n");
}

#[test]
fn discrepancies_are_scipys() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let points = ["qmc", "points", "--gen", "sobol", "--dim", "4", "--n", "64", "--seed", "7"];
    kc_ok(dir, &[&points[..], &["--out", "x.npy"]].concat());
    kc_ok(dir, &[&points[..], &["--replications", "2", "--out", "r.npy"]].concat());
    let want = golden_json("qmcpy/discrepancy.json");
    for (kind, name) in [("l2-star", "L2-star"), ("cd", "CD"), ("wd", "WD"), ("md", "MD")] {
        let line = ["qmc", "discrepancy", "--in", "x.npy", "--kind", kind, "--out", "d.json"];
        let got = kc_json(dir, &line, "d.json");
        let (value, want) =
            (got["value"].as_f64().expect("a number"), want["scipy"][name].as_f64().expect("a number"));
        assert!((value - want).abs() < 1e-12, "{kind}: {value} {want}");
        assert_eq!((&got["kind"], &got["n"], &got["dims"]), (&kind.into(), &64.into(), &4.into()));
    }
    let sets =
        kc_json(dir, &["qmc", "discrepancy", "--in", "r.npy", "--kind", "md", "--out", "d.json"], "d.json");
    assert_eq!(sets["value"].as_array().expect("a list").len(), 2);
    let line = ["qmc", "discrepancy", "--in", "x.npy", "--kind", "cd"];
    kc_ok(dir, &[&line[..], &["--weights", "1,0.5,0.25,0"]].concat());
    kc_fails(dir, &[&line[..], &["--weights", "1,2"]].concat(), 1, "weights");
    kc_fails(dir, &["qmc", "discrepancy", "--in", "missing.npy", "--kind", "cd"], 1, "missing.npy");
    kc_fails(dir, &["qmc", "discrepancy", "--in", "x.npy", "--kind", "star"], 2, "star");
    std::fs::write(dir.join("bad.csv"), "0.5,1.5\n").expect("written");
    kc_fails(dir, &["qmc", "discrepancy", "--in", "bad.csv", "--kind", "cd"], 1, "[0, 1]");
}
