//! A crate depends on lower floors only, and foreign crates stay where they belong.

use toml::{Table, Value};

use super::Finding;
use crate::manifest::Member;

/// Each crate and the crates of lower floors that it may use (kc-core always).
const FLOORS: &[(&str, &[&str])] = &[
    ("kc-core", &[]),
    ("kc-gemm", &[]),
    ("kc-fft", &[]),
    ("kc-io", &[]),
    ("kc-quant", &["kc-gemm"]),
    ("kc-sparse", &["kc-gemm"]),
    ("kc-conv", &["kc-gemm", "kc-fft"]),
    ("kc-xent", &["kc-gemm"]),
    ("kc-features", &["kc-gemm"]),
    ("kc-qmc", &["kc-fft"]),
    ("kc-linalg", &["kc-gemm", "kc-features"]),
    ("kc-attention", &["kc-gemm", "kc-quant", "kc-features", "kc-sparse"]),
    ("kc-kernel", &["kc-linalg", "kc-features", "kc-sparse", "kc-qmc", "kc-fft"]),
    ("kc-active", &["kc-kernel", "kc-linalg", "kc-features"]),
    ("kc-gpu", &["kc-quant", "kc-attention", "kc-conv", "kc-xent", "kc-sparse"]),
];

/// The roof and the test support may use every crate.
const ANY: &[&str] = &["kc-cli", "kc-testing"];

/// Each foreign crate and where it may be a dependency. A new one is added here with its reason in
/// docs/decisions.md.
const FOREIGN: &[(&str, &[&str])] = &[
    ("anyhow", &["kc-cli"]),
    ("bytemuck", &["kc-core"]),
    ("clap", &["kc-cli"]),
    ("clap_complete", &["kc-cli"]),
    ("clap_mangen", &["kc-cli"]),
    ("csv", &["kc-io"]),
    ("faer", &["kc-linalg"]),
    ("half", &["kc-core"]),
    ("indicatif", &["kc-cli"]),
    ("memmap2", &["kc-io"]),
    ("ndarray", &["kc-core"]),
    ("needletail", &["kc-io"]),
    ("num-complex", &["kc-core"]),
    ("rand", &["kc-core"]),
    ("rand_chacha", &["kc-core"]),
    ("rand_distr", &["kc-core"]),
    (
        "rayon",
        &[
            "kc-core",
            "kc-gemm",
            "kc-quant",
            "kc-sparse",
            "kc-linalg",
            "kc-fft",
            "kc-qmc",
            "kc-kernel",
            "kc-features",
            "kc-xent",
            "kc-attention",
            "kc-cli",
            "kc-testing",
        ],
    ),
    ("rustfft", &["kc-fft"]),
    ("safetensors", &["kc-io"]),
    ("serde_json", &["kc-io", "kc-cli", "kc-testing"]),
    ("sprs", &["kc-sparse"]),
    ("tempfile", &["kc-io", "kc-cli"]),
    ("zip", &["kc-io"]),
];

/// Checks all manifests.
pub(crate) fn check(members: &[Member], workspace: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let place = format!("crates/{}/Cargo.toml", member.name);
        for name in member.dependencies() {
            findings.extend(arrow(&place, &member.name, &name));
        }
        findings.extend(manifest(&place, member));
        for (name, value) in member.dev_dependencies() {
            if name.starts_with("kc-") && value.get("version").is_some() {
                let fix = "write `workspace = true`; cargo drops path-only development dependencies";
                findings.push(Finding::new(
                    &place,
                    format!("development dependency {name} with a version"),
                    fix,
                ));
            }
        }
        let entry = workspace.get("workspace").and_then(|w| w.get("dependencies")?.get(&member.name));
        let versioned = entry.and_then(|e| e.get("version")).is_some();
        if entry.is_some() && versioned != member.published() {
            let fix = "published crates have a version there, kc-testing only a path";
            findings.push(Finding::new("Cargo.toml", format!("workspace dependency {}", member.name), fix));
        }
    }
    findings
}

fn arrow(place: &str, from: &str, to: &str) -> Option<Finding> {
    if let Some((_, homes)) = FOREIGN.iter().find(|(name, _)| *name == to) {
        let fix = format!("it lives only in {}", homes.join(", "));
        return (!homes.contains(&from)).then(|| Finding::new(place, format!("dependency {to}"), fix));
    }
    if !to.starts_with("kc-") {
        let fix = "state its cost in docs/decisions.md and add it to the table in xtask/src/tidy/floors.rs";
        return Some(Finding::new(place, format!("unknown dependency {to}"), fix));
    }
    if ANY.contains(&from) || (to == "kc-core" && from != "kc-core") {
        return None;
    }
    let lower = FLOORS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, lower)| lower);
    let fix = "a crate uses lower floors only; see ARCHITECTURE.md";
    (!lower.contains(&to)).then(|| Finding::new(place, format!("arrow from {from} to {to}"), fix))
}

fn manifest(place: &str, member: &Member) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of = |table: &str, key: &str| member.manifest.get(table).and_then(|t| t.get(key)).cloned();
    if of("lints", "workspace") != Some(Value::Boolean(true)) {
        findings.push(Finding::new(place, "the workspace's lints are off", "add [lints] workspace = true"));
    }
    if member.published() {
        let include = of("package", "include");
        let include = include.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if !["src/**/*.rs", "README.md", "LICENSE-*"]
            .iter()
            .all(|f| include.iter().any(|i| i.as_str() == Some(f)))
        {
            let fix = r#"include = ["src/**/*.rs", "README.md", "LICENSE-*"]"#;
            findings.push(Finding::new(place, "the package's list of files is not the usual one", fix));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, text: &str) -> Member {
        Member { name: name.into(), folder: name.into(), manifest: text.parse().unwrap() }
    }

    #[test]
    fn arrows_go_down() {
        assert_eq!(arrow("m", "kc-quant", "kc-gemm"), None);
        assert_eq!(arrow("m", "kc-quant", "kc-core"), None);
        assert!(arrow("m", "kc-core", "kc-gemm").is_some());
        assert!(arrow("m", "kc-quant", "kc-sparse").is_some());
        assert!(arrow("m", "kc-sparse", "kc-io").is_some());
        assert_eq!(arrow("m", "kc-cli", "kc-io"), None);
    }

    #[test]
    fn foreign_crates_stay_at_home() {
        assert_eq!(arrow("m", "kc-linalg", "faer"), None);
        assert!(arrow("m", "kc-quant", "faer").is_some());
        assert!(arrow("m", "kc-quant", "left-pad").is_some());
    }

    #[test]
    fn manifests_are_alike() {
        let good = r#"
            package.include = ["src/**/*.rs", "README.md", "LICENSE-*"]
            lints.workspace = true
            dev-dependencies.kc-testing.workspace = true
        "#;
        let workspace: Table =
            r#"workspace.dependencies.kc-a = { path = "x", version = "0.1.0" }"#.parse().unwrap();
        assert_eq!(check(&[member("kc-a", good)], &workspace), []);
        let bad = good.replace("LICENSE-*", "x").replace("lints.workspace = true", "");
        let bad =
            bad.replace("kc-testing.workspace = true", "kc-testing = { path = \"y\", version = \"1\" }");
        assert_eq!(check(&[member("kc-a", &bad)], &workspace).len(), 3);
        let private = format!("package.publish = false\n{}", good);
        assert_eq!(check(&[member("kc-a", &private)], &workspace).len(), 1);
    }
}
