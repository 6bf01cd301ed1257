//! Rooms are complete, and fixtures small.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::{Finding, files};
use crate::register::{Register, System};

const LARGEST: u64 = 2 << 20;

/// Each system that is here has all of its files; so has each tool.
pub(crate) fn check(register: &Register, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut need = |owner: &str, what: &str, any_of: &[String]| {
        if !any_of.iter().any(|path| exists(path)) {
            let fix = format!("add one of: {}", any_of.join(", "));
            findings.push(Finding::new("systems.toml", format!("{owner} has no {what}"), fix));
        }
    };
    for system in register.systems.iter().filter(|s| s.here) {
        for (what, any_of) in furniture(system) {
            need(&system.slug, what, &any_of);
        }
    }
    for tool in &register.tools {
        let name = &tool.name;
        need(name, "experiment", &[format!("benches/src/experiments/{name}.rs")]);
        need(name, "criterion group", &[format!("benches/criterion/{name}.rs")]);
        if tool.peers {
            need(name, "peers", &[format!("benches/peers/{name}.py")]);
        }
    }
    findings
}

fn furniture(system: &System) -> Vec<(&'static str, Vec<String>)> {
    let System { slug, krate, module, door, .. } = system;
    let room =
        if module == "." { format!("crates/{krate}/src") } else { format!("crates/{krate}/src/{module}") };
    let page = if module == "." { "lib.rs" } else { "mod.rs" };
    let first = door.split(' ').next().unwrap_or(door);
    let named = |before: &str, names: &[&str]| -> Vec<String> {
        let names = if names.first() == names.last() { &names[..1] } else { names };
        names.iter().flat_map(|n| [format!("{before}/{n}.rs"), format!("{before}/{n}/mod.rs")]).collect()
    };
    let cmd = "crates/kc-cli/src/cmd";
    let mut doors = named(cmd, &[slug, module]);
    if first == door {
        doors.extend(named(cmd, &[first]));
    } else {
        doors.extend(named(&format!("{cmd}/{first}"), &[slug, module]));
    }
    vec![
        ("page", vec![format!("{room}/{page}")]),
        ("definition", vec![format!("{room}/reference.rs")]),
        ("portable code", vec![format!("{room}/portable.rs")]),
        ("tests", named(&format!("crates/{krate}/tests/it"), &[slug, module])),
        ("door", doors),
        ("experiment", vec![format!("benches/src/experiments/{slug}.rs")]),
        ("criterion group", vec![format!("benches/criterion/{slug}.rs")]),
        ("peers", vec![format!("benches/peers/{slug}.py")]),
        ("described fixtures", vec![format!("crates/kc-testing/golden/{slug}/README.md")]),
    ]
}

/// No system has more than 2 MiB of fixtures, and each folder has a README.
pub(crate) fn sizes(golden: &Path) -> Result<Vec<Finding>> {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    let names = files(golden)?;
    for name in &names {
        if let Some((system, _)) = name.split_once('/') {
            *bytes.entry(system.to_owned()).or_default() += golden.join(name).metadata()?.len();
        }
    }
    let mut findings = Vec::new();
    for (system, bytes) in bytes {
        let place = format!("crates/kc-testing/golden/{system}");
        if bytes > LARGEST {
            findings.push(Finding::new(
                &place,
                format!("{bytes} bytes of fixtures"),
                "keep them under 2 MiB",
            ));
        }
        if !names.contains(&format!("{system}/README.md")) {
            findings.push(Finding::new(&place, "no README.md", "say how the fixtures were made"));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register;

    #[test]
    fn a_missing_file_is_found() {
        let register = register::parse(register::tests::SAMPLE).unwrap();
        assert_eq!(check(&register, |_| true), []);
        let findings = check(&register, |path| !path.ends_with("smash/portable.rs"));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].rule, "smash has no portable code");
        assert_eq!(check(&register, |_| false).len(), 9 + 3);
    }

    #[test]
    fn what_is_planned_needs_nothing() {
        let text = register::tests::SAMPLE.replace("\"here\"", "\"planned\"");
        let mut register = register::parse(&text).unwrap();
        register.tools.clear();
        assert_eq!(check(&register, |_| false), []);
    }
}
