//! Rules about Rust source: length, unsafe, panics, leftovers.

use anyhow::Result;
use xshell::Shell;

use super::{Finding, files};
use crate::codegen::MARK;
use crate::manifest::Member;

const LONGEST: usize = 1000;
/// Files, besides `x86.rs` and folders `x86` and `micro`, that may hold unsafe code.
const UNSAFE: &[&str] = &[
    "benches/src/experiments/gemm.rs",
    "crates/kc-core/src/buffer.rs",
    "crates/kc-core/src/tensor/view.rs",
    "crates/kc-core/src/tensor/ndarray.rs",
    "crates/kc-io/src/map.rs",
    "crates/kc-linalg/src/faer.rs",
    "crates/kc-testing/src/alloc.rs",
];
/// Programs and test support may stop on what cannot happen.
const MAY_UNWRAP: &[&str] = &["crates/kc-cli/", "crates/kc-testing/"];
// Spelt in two parts, so that this file does not break its own rule.
const LEFTOVERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Checks one file, named from the root of the repository.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    let generated = text.lines().next().is_some_and(|line| line.contains(MARK));
    if lines > LONGEST && !generated {
        let fix = format!("split it; the limit is {LONGEST}");
        findings.push(Finding::new(path, format!("{lines} lines"), fix));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = LEFTOVERS.iter().find(|word| has_word(line, word)) {
            let fix = "do it, or write it down as an issue";
            findings.push(Finding::new(at(path, number), *word, fix));
        }
    }
    let code = without_comments_and_text(text);
    findings.extend(unsafety(path, &code));
    let library = path.starts_with("crates/")
        && path.contains("/src/")
        && !MAY_UNWRAP.iter().any(|start| path.starts_with(start));
    if library {
        findings.extend(unwraps(path, &without_items(&code, "#[cfg(test)]")));
    }
    findings
}

/// The crate forbids unsafe code if it has none.
pub(crate) fn forbids(sh: &Shell, member: &Member) -> Result<Vec<Finding>> {
    let source = member.folder.join("src");
    let mut any = false;
    for name in files(&source)?.iter().filter(|name| name.ends_with(".rs")) {
        any |= has_word(&without_comments_and_text(&sh.read_file(source.join(name))?), "unsafe");
    }
    let root = if source.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
    let forbidden = sh.read_file(source.join(root))?.contains("#![forbid(unsafe_code)]");
    if any || forbidden {
        return Ok(Vec::new());
    }
    let place = format!("crates/{}/src/{root}", member.name);
    Ok(vec![Finding::new(
        place,
        "a crate without unsafe code does not say so",
        "add #![forbid(unsafe_code)]",
    )])
}

fn unsafety(path: &str, code: &str) -> Vec<Finding> {
    let Some(number) = code.lines().position(|line| has_word(line, "unsafe")) else { return Vec::new() };
    let allowed = path.ends_with("/x86.rs")
        || path.contains("/x86/")
        || path.contains("/micro/")
        || UNSAFE.contains(&path)
        || path.contains("/tests/")
        || path.starts_with("benches/criterion/");
    let mut findings = Vec::new();
    if !allowed {
        let fix = "move it to x86.rs, or find a safe way; docs/unsafe.md has the list";
        findings.push(Finding::new(at(path, number), "unsafe code outside of its files", fix));
    }
    let spaceless: String = code.split_whitespace().collect();
    let reasoned = spaceless.contains("#![expect(unsafe_code,reason=");
    // The compiler wants the reason of a macro's unsafe code where the macro is used.
    if !reasoned && has_word(&without_items(code, "macro_rules!"), "unsafe") {
        let fix = "begin the file with #![expect(unsafe_code, reason = \"...\")]";
        findings.push(Finding::new(at(path, number), "unsafe code without a reason for the file", fix));
    }
    findings
}

fn unwraps(path: &str, code: &str) -> Vec<Finding> {
    // `.expect("` leaves methods of that name with other arguments alone.
    let bad = [".unwrap()", ".expect(\"", ".expect(&format!("];
    let hit = |line: &str| bad.iter().find(|word| line.contains(**word)).copied();
    let finding = |(number, line): (usize, &str)| {
        let fix = "return an error, or use a form that cannot fail";
        Some(Finding::new(at(path, number), format!("{} in a library", hit(line)?), fix))
    };
    code.lines().enumerate().filter_map(finding).collect()
}

fn at(path: &str, number: usize) -> String {
    format!("{path}:{}", number + 1)
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(i, _)| !text[..i].ends_with(part) && !text[i + word.len()..].starts_with(part))
}

/// The code with comments removed and the contents of strings and characters blanked; lines stay lines.
fn without_comments_and_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let raw = raw_string(rest).filter(|_| !out.ends_with(|p: char| p.is_alphanumeric() || p == '_'));
        let (kept, length) = if rest.starts_with("//") {
            ("", rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            ("", block_comment(rest))
        } else if let Some(length) = raw {
            ("\"\"", length)
        } else if c == '"' {
            ("\"\"", string(rest))
        } else if let Some(length) = character(rest) {
            ("''", length)
        } else {
            (&rest[..c.len_utf8()], c.len_utf8())
        };
        out.push_str(kept);
        if kept.len() != length || kept.starts_with(['"', '\'']) {
            out.extend(rest[..length].matches('\n'));
        }
        rest = &rest[length..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < text.len() {
        let rest = &text.as_bytes()[i..];
        if rest.starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if rest.starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    text.len()
}

/// The length of a raw string (`r"`, `br#"`) at the start of `text`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let closed = body.find(&end).map_or(body.len(), |i| i + end.len());
    Some(text.len() - body.len() + closed)
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; None for a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let first = body.chars().next()?;
    if first == '\\' {
        // What follows the backslash is never the closing quote.
        let skip = 1 + body[1..].chars().next()?.len_utf8();
        return Some(1 + skip + body[skip..].find('\'')? + 1);
    }
    body[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

/// Code (without comments and text) whose items that begin with `marker` are blanked; lines stay lines.
fn without_items(code: &str, marker: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(marker) {
        out.push_str(&rest[..start]);
        let length = item(&rest[start..]);
        out.extend(rest[start..start + length].matches('\n'));
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}

/// The length of an item with its attributes: to its closing brace, or to a semicolon outside of braces.
fn item(code: &str) -> usize {
    let mut depth = 0usize;
    for (i, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return i + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "crates/kc-x/src/a.rs";

    fn rules(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|f| format!("{} {}", f.place, f.rule)).collect()
    }

    #[test]
    fn unwrap_is_found_in_code_alone() {
        assert_eq!(
            rules(LIB, "fn f() {\n    g().unwrap();\n}\n"),
            ["crates/kc-x/src/a.rs:2 .unwrap() in a library"]
        );
        assert_eq!(rules(LIB, "fn f() { g().expect(\"x\"); }").len(), 1);
        for fine in [
            "/// g().unwrap()\nfn f() {}",
            "/* a /* .unwrap() */ */ fn f() {}",
            "const A: &str = \".unwrap()\";",
            "const A: &str = r#\"\".unwrap()\"#;",
            "#[cfg(test)]\nmod tests {\n    fn f() { if a { b().unwrap(); } }\n}\n",
            "#[expect(unused)]\nfn f() { parser.expect(b'(') }",
            "fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } // \".unwrap()\"",
        ] {
            assert_eq!(rules(LIB, fine), [""; 0], "{fine}");
        }
        assert_eq!(rules("crates/kc-cli/src/main.rs", "fn f() { g().unwrap(); }"), [""; 0]);
        assert_eq!(rules(LIB, "#[cfg(test)]\nmod t {}\nfn f() { g().unwrap(); }").len(), 1);
    }

    #[test]
    fn unsafe_has_its_files_and_its_reason() {
        let good = "#![expect(unsafe_code, reason = \"...\")]\nfn f() { unsafe {} }";
        assert_eq!(rules("crates/kc-x/src/room/x86.rs", good), [""; 0]);
        assert_eq!(rules("crates/kc-x/src/room/mod.rs", good).len(), 1);
        assert_eq!(rules("crates/kc-x/src/room/x86.rs", "fn f() { unsafe {} }").len(), 1);
        assert_eq!(rules(LIB, "#![forbid(unsafe_code)]\n// unsafe\nlet unsafely = 1;"), [""; 0]);
    }

    #[test]
    fn a_macro_leaves_the_reason_to_its_users() {
        let tile = "crates/kc-x/src/micro/tile.rs";
        assert_eq!(rules(tile, "macro_rules! m { () => { unsafe fn f() {} }; }"), [""; 0]);
        assert_eq!(rules(tile, "macro_rules! m { () => {}; }\nunsafe fn f() {}").len(), 1);
        let long = "#![expect(\n    unsafe_code,\n    reason = \"...\"\n)]\nunsafe fn f() {}";
        assert_eq!(rules(tile, long), [""; 0]);
    }

    #[test]
    fn long_files_and_leftovers_are_found() {
        let long = "fn f() {}\n".repeat(LONGEST + 1);
        assert_eq!(rules(LIB, &long), ["crates/kc-x/src/a.rs 1001 lines"]);
        assert_eq!(rules(LIB, &format!("//! {MARK}\n{long}")), [""; 0]);
        assert_eq!(rules(LIB, concat!("// TO", "DO: more\n")).len(), 1);
    }
}
