//! What every verb shares: flags, formats of the answer, exit codes.

use serde_json::Value;

use crate::support::{json, kc, kc_fails, kc_ok};

#[test]
fn list_names_every_system_that_lives_here() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = kc_ok(dir.path(), &["list"]);
    for door in ["kc quant crossquant", "kc mnn", "kc smash"] {
        assert!(text.contains(door), "{text}");
    }
    let here: Value = serde_json::from_str(&kc_ok(dir.path(), &["list", "--json"])).expect("JSON");
    let all: Value =
        serde_json::from_str(&kc_ok(dir.path(), &["list", "--planned", "--json"])).expect("JSON");
    let count = |v: &Value| v["systems"].as_array().map_or(0, Vec::len);
    assert_eq!(count(&all), 33);
    assert_eq!(count(&here), text.lines().count());
}

#[test]
fn info_knows_the_levels() {
    let dir = tempfile::tempdir().expect("a folder");
    let info: Value = serde_json::from_str(&kc_ok(dir.path(), &["info", "--json"])).expect("JSON");
    assert_eq!(info["levels"][0], "portable");
    let capped = kc_ok(dir.path(), &["--isa", "portable", "--threads", "3", "info", "--json"]);
    let capped: Value = serde_json::from_str(&capped).expect("JSON");
    assert_eq!(capped["level"], "portable");
    assert_eq!(capped["threads"], 3);
}

#[test]
fn json_goes_to_standard_output_or_to_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    // Before the verb, where the verb's name must not be taken for a file.
    let stdout: Value = serde_json::from_str(&kc_ok(dir.path(), &["--json", "info"])).expect("JSON");
    assert!(kc_ok(dir.path(), &["info", "--json", "info.json"]).is_empty());
    assert_eq!(json(&dir.path().join("info.json"))["levels"], stdout["levels"]);
}

#[test]
fn a_report_holds_the_run_and_the_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    kc_ok(dir.path(), &["info", "-q", "--seed", "9", "--report", "r.json"]);
    let report = json(&dir.path().join("r.json"));
    assert_eq!(report["run"]["seed"], 9);
    assert_eq!(report["run"]["program"], concat!("kc ", env!("CARGO_PKG_VERSION")));
    assert!(report["run"]["seconds"].as_f64().is_some_and(|s| s >= 0.0));
    assert_eq!(report["levels"][0], "portable");
}

#[test]
fn quiet_says_nothing_and_verbose_speaks_on_standard_error() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(kc_ok(dir.path(), &["info", "--quiet"]).is_empty());
    let verbose = kc(dir.path(), &["info", "--verbose", "--json"]);
    assert!(String::from_utf8_lossy(&verbose.stderr).contains("done in"));
    assert!(serde_json::from_slice::<Value>(&verbose.stdout).is_ok());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().expect("a folder");
    for (args, message) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&[], "Usage"),
        (&["info", "--frobnicate"], "unexpected argument"),
        (&["info", "--isa", "sse9"], "--isa: expected one of portable"),
        (&["info", "--threads=-1"], "--threads"),
        (&["info", "--threads", "1000000"], "--threads: expected at most"),
        (&["info", "-q", "-v"], "cannot be used with"),
        (&["completions", "tcsh"], "invalid value"),
    ] {
        kc_fails(dir.path(), args, 2, message);
    }
}

#[test]
fn an_unwritable_answer_is_exit_code_1() {
    let dir = tempfile::tempdir().expect("a folder");
    kc_fails(dir.path(), &["info", "--json", "no/such/folder/x.json"], 1, "no/such/folder");
}

#[test]
fn completions_and_manual_come_from_the_same_definitions() {
    let dir = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(kc_ok(dir.path(), &["completions", shell]).contains("smash"), "{shell}");
    }
    let page = kc_ok(dir.path(), &["man"]);
    assert!(page.starts_with(".ie") || page.contains(".TH kc 1"), "{}", &page[..80]);
    kc_ok(dir.path(), &["man", "--out-dir", "pages"]);
    for page in ["kc.1", "kc-smash.1", "kc-smash-multiply.1", "kc-quant-crossquant-codes.1", "kc-mnn.1"] {
        assert!(dir.path().join("pages").join(page).exists(), "{page}");
    }
}
