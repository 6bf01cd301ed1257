//! Running the program and reading what it says.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `kc` in `dir`.
pub(crate) fn kc(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kc"))
        .args(args)
        .current_dir(dir)
        .env_remove("COLUMNS")
        .output()
        .expect("kc starts")
}

/// Runs `kc`, which must succeed, and gives its standard output.
pub(crate) fn kc_ok(dir: &Path, args: &[&str]) -> String {
    let output = kc(dir, args);
    assert!(output.status.success(), "kc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `kc`, which must succeed, and reads a JSON file that it wrote.
pub(crate) fn kc_json(dir: &Path, args: &[&str], file: &str) -> Value {
    kc_ok(dir, args);
    json(&dir.join(file))
}

/// Reads a JSON file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file is there")).expect("JSON")
}

/// Runs `kc`, which must fail with `code` and one line `error: ...` that contains `message`; no file may have
/// appeared in `dir`.
pub(crate) fn kc_fails(dir: &Path, args: &[&str], code: i32, message: &str) {
    let files = || std::fs::read_dir(dir).expect("a folder").count();
    let before = files();
    let output = kc(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "kc {args:?}: {stderr}");
    assert!(stderr.contains(message), "kc {args:?}: {stderr:?} does not contain {message:?}");
    assert!(!stderr.contains("panicked"), "kc {args:?}: {stderr}");
    if code == 1 {
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "kc {args:?}: {stderr:?}");
    }
    assert_eq!(files(), before, "kc {args:?} left a file behind");
}
