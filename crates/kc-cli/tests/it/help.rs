//! The help texts are part of the interface: a change shows in review as a changed snapshot.

use crate::support::kc_ok;

/// Every help text that a user can ask for, one after the other, in the order of the register.
fn all_help() -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let mut text = String::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = kc_ok(dir.path(), &args);
        for verb in verbs(&help).into_iter().rev() {
            open.push(path.iter().cloned().chain([verb]).collect());
        }
        text += &format!("==== kc {}\n{help}\n", path.join(" "));
    }
    text
}

/// The names under `Commands:`.
fn verbs(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    section
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_is_as_reviewed() {
    insta::assert_snapshot!(all_help());
}

#[test]
fn every_verb_shows_an_example() {
    for page in all_help().split("==== kc ").skip(1) {
        let verb = page.lines().next().unwrap_or_default();
        let is_group = page.contains("\nCommands:\n");
        assert!(is_group || page.contains("Example"), "kc {verb} --help has no example");
    }
}
