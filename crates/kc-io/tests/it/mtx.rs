//! Matrix Market files: the fixtures' sizes, every kind of fault with its line, symmetries.

use kc_core::{Complex, Error, Position};
use kc_io::mtx::{self, Entries, Field, Layout, Mtx, Symmetry, Values};
use kc_testing::{golden, golden_json};

fn read(name: &str) -> Mtx {
    mtx::read(golden(&format!("smash/mtx/{name}.mtx"))).unwrap_or_else(|e| panic!("{e}"))
}

fn parse(text: &str) -> kc_core::Result<Mtx> {
    mtx::parse(text.as_bytes(), "text")
}

#[track_caller]
fn fault(text: &str) -> (usize, String) {
    match parse(text) {
        Err(Error::Parse { at: Position::Line(line), message, .. }) => (line, message),
        other => panic!("{other:?}"),
    }
}

/// Entries with equal positions summed, in row-major order.
fn summed(m: &Mtx) -> Vec<((u32, u32), f64)> {
    let t = m.triplets();
    let mut map = std::collections::BTreeMap::new();
    for ((&i, &j), x) in t.row.iter().zip(&t.col).zip(t.values_f64().unwrap()) {
        *map.entry((i, j)).or_insert(0.0) += x;
    }
    map.into_iter().collect()
}

#[test]
fn sizes_are_those_that_scipy_sees() {
    let expected = golden_json("smash/expected.json");
    for product in expected["products"].as_array().unwrap() {
        let m = mtx::read(golden(&format!("smash/{}", product["matrix"].as_str().unwrap()))).unwrap();
        assert_eq!(product["shape"], serde_json::json!([m.rows, m.cols]), "{product}");
        assert_eq!(product["nnz"].as_u64().unwrap() as usize, summed(&m).len(), "{product}");
    }
}

#[test]
fn order_and_comments_do_not_matter() {
    let want = summed(&read("west0067"));
    assert_eq!(summed(&read("west0067_jumbled")), want);
    // The commented file has one entry more, which is not a number.
    let mut commented = summed(&read("comments_west0067"));
    assert!(commented.remove(0).1.is_nan());
    assert_eq!(commented, want);
}

#[test]
fn duplicates_are_kept_and_sum() {
    let m = read("duplicates");
    let Entries::Coordinate { row, .. } = &m.entries else { panic!() };
    assert_eq!(row.len(), 3);
    assert!(summed(&m).contains(&((1, 1), 10.5)), "{:?}", summed(&m));
}

#[test]
fn every_mangled_fixture_is_refused_at_its_line() {
    let lines = [
        ("1", 1),
        ("2", 1),
        ("3", 1),
        ("4", 1),
        ("5", 1),
        ("6", 1),
        ("7", 5),
        ("8", 4),
        ("9", 4),
        ("10", 7),
        ("11", 5),
        ("12", 5),
        ("13", 7),
        ("15", 5),
        ("16", 5),
        ("_format", 1),
    ];
    for (name, want) in lines {
        let error = mtx::read(golden(&format!("smash/bad_mtx/mangled{name}.mtx"))).unwrap_err();
        let Error::Parse { at: Position::Line(line), .. } = error else { panic!("{name}: {error}") };
        assert_eq!(line, want, "{name}: {error}");
    }
}
