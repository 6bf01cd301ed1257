//! JSON and JSON lines.

use kc_core::{Error, Position};
use kc_io::json::{self, JsonLines};
use serde_json::{Value, json};

#[test]
fn values_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    let value = json!({"z": 1, "a": [1.5, null, "ü"], "m": {"x": -0.1}});
    json::write(&path, &value).unwrap();
    assert_eq!(json::read(&path).unwrap(), value);
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("}\n"));
}

#[test]
fn faults_have_their_line() {
    for (text, want) in [("{\n\"a\": 1,\n}", 3), ("1 2", 1), ("[1,\n2", 2), ("", 1)] {
        match json::parse(text.as_bytes(), "x") {
            Err(Error::Parse { at: Position::Line(line), .. }) => assert_eq!(line, want, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let deep = "[".repeat(1 << 20);
    assert!(matches!(json::parse(deep.as_bytes(), "x"), Err(Error::Parse { .. })));
    assert!(json::parse(b"\"\xff\"", "x").is_err());
}

#[test]
fn lines_are_read_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    let values = [json!(1), json!({"a": [2]}), json!(null)];
    json::write_lines(&path, &values).unwrap();
    let read: Vec<Value> = JsonLines::open(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, values);

    let mut lines = JsonLines::new(&b"1\n\n  \r\n{\"a\":\n2\n3"[..], "x.jsonl");
    assert_eq!(lines.next(), Some(Ok(json!(1))));
    match lines.next() {
        Some(Err(Error::Parse { at: Position::Line(4), .. })) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(lines.next(), None);
    let mut lines = JsonLines::new(&b"7"[..], "x.jsonl");
    assert_eq!((lines.next(), lines.next()), (Some(Ok(json!(7))), None));
}
