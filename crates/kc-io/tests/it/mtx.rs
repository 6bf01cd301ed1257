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

#[test]
fn files_of_scipy_are_read_and_expand_to_its_matrices() {
    for name in [
        "real_general",
        "real_symmetric",
        "real_skew",
        "complex_hermitian",
        "complex_general",
        "integer",
        "unsigned",
        "pattern",
        "array_real",
        "array_symmetric",
        "array_skew",
        "array_complex",
        "array_hermitian",
        "array_integer",
    ] {
        let m = mtx::read(golden(&format!("io/mm_{name}.mtx"))).unwrap_or_else(|e| panic!("{e}"));
        let want = kc_io::read(golden(&format!("io/mm_{name}.npy"))).unwrap();
        let want: Vec<Complex<f64>> = match m.field() {
            Field::Complex => want.to_tensor::<Complex<f64>, 2>(name).unwrap().into_vec(),
            Field::Integer => want
                .to_tensor::<i64, 2>(name)
                .unwrap()
                .as_slice()
                .iter()
                .map(|&x| (x as f64).into())
                .collect(),
            _ => want.to_tensor::<f64, 2>(name).unwrap().as_slice().iter().map(|&x| x.into()).collect(),
        };
        let t = m.triplets();
        let mut got = vec![Complex::new(0.0, 0.0); t.rows * t.cols];
        for e in 0..t.row.len() {
            got[t.row[e] as usize * t.cols + t.col[e] as usize] += match &t.values {
                Values::Real(v) => v[e].into(),
                Values::Integer(v) => (v[e] as f64).into(),
                Values::Complex(v) => v[e],
                _ => Complex::new(1.0, 0.0),
            };
        }
        assert_eq!(got, want, "{name}");
        if m.layout() == Layout::Array {
            let dense = m.to_dense().unwrap();
            assert_eq!(dense.shape(), [t.rows, t.cols]);
            let same = match m.field() {
                Field::Complex => dense.to_tensor::<Complex<f64>, 2>(name).unwrap().into_vec() == want,
                _ => {
                    let real = dense.to_tensor::<f64, 2>(name).unwrap();
                    real.as_slice().iter().zip(&want).all(|(a, b)| *a == b.re)
                }
            };
            assert!(same, "{name}");
        }
    }
}

#[test]
fn faults_have_their_line() {
    let coordinate = "%%MatrixMarket matrix coordinate";
    for (text, want) in [
        (String::new(), 1),
        ("%%MatrixMarket matrix coordinate real\n".to_owned(), 1),
        (format!("{coordinate} real general extra\n1 1 0\n"), 1),
        (format!("{coordinate} real general\n"), 2),
        (format!("{coordinate} real general\n% c\n\n1 x 0\n"), 4),
        (format!("{coordinate} real general\n1 1 0 0\n"), 2),
        (format!("{coordinate} real general\n2 2 1\n0 1 5\n"), 3),
        (format!("{coordinate} real general\n2 2 1\n1 3 5\n"), 3),
        (format!("{coordinate} real general\n2 2 1\n\n% c\n1 1 5 6\n"), 5),
        (format!("{coordinate} real general\n2 2 1\n1 1 5\n2 2 6\n"), 4),
        (format!("{coordinate} real general\n2 2 1\n-1 1 5\n"), 3),
        (format!("{coordinate} real general\n2 2 1\n1.0 1 5\n"), 3),
        (format!("{coordinate} integer general\n2 2 1\n1 1 5.5\n"), 3),
        (format!("{coordinate} integer general\n2 2 1\n1 1 9223372036854775808\n"), 3),
        (format!("{coordinate} complex general\n2 2 1\n1 1 5\n"), 3),
        (format!("{coordinate} pattern general\n2 2 1\n1 1 5\n"), 3),
        (format!("{coordinate} pattern skew-symmetric\n2 2 1\n2 1\n"), 1),
        (format!("{coordinate} real skew-symmetric\n2 2 1\n1 1 5\n"), 3),
        (format!("{coordinate} complex hermitian\n2 2 1\n1 1 5 1\n"), 3),
        (format!("{coordinate} real symmetric\n2 3 1\n1 1 5\n"), 2),
        ("%%MatrixMarket matrix array real general\n2 1\n1\n\n".to_owned(), 5),
        ("%%MatrixMarket matrix array real general\n2 1 2\n1\n2\n".to_owned(), 2),
    ] {
        assert_eq!(fault(&text).0, want, "{text}");
    }
}

#[test]
fn case_blanks_and_line_ends_do_not_matter() {
    let plain = parse("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 2 3.5\n2 1 -1\n").unwrap();
    for text in [
        "%%matrixmarket MATRIX Coordinate Double General\r\n\r\n  2\t2 2 \r\n% c\r\n 1  2 3.5\r\n\r\n2 1 -1",
        "%%MatrixMarket matrix coordinate real general\n%\n%%\n2 2 2\n1 2 35e-1\n  % inside\n2 1 -1.0D0\n% end",
    ] {
        assert_eq!(parse(text).unwrap(), plain, "{text}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.mtx");
    let real = || Values::Real(vec![0.1, -1e300, f64::INFINITY]);
    let complex =
        Values::Complex(vec![Complex::new(1.0, 0.0), Complex::new(0.1, -5e-324), Complex::new(2.0, 0.0)]);
    let at = |values| Entries::Coordinate { row: vec![0, 2, 1], col: vec![0, 1, 1], values };
    let cases = [
        (3, 3, Symmetry::General, at(real())),
        (3, 4, Symmetry::General, at(Values::Pattern)),
        (3, 3, Symmetry::Symmetric, at(Values::Integer(vec![i64::MIN, 0, i64::MAX]))),
        (3, 3, Symmetry::Hermitian, at(complex.clone())),
        (2, 2, Symmetry::Symmetric, Entries::Array(real())),
        (3, 3, Symmetry::SkewSymmetric, Entries::Array(real())),
        (2, 2, Symmetry::Hermitian, Entries::Array(complex)),
        (0, 5, Symmetry::General, Entries::Array(Values::Real(vec![]))),
        (0, 0, Symmetry::General, at(Values::Pattern)),
    ];
    for (rows, cols, symmetry, entries) in cases {
        let matrix = Mtx { rows, cols, symmetry, entries };
        if rows == 0 && matrix.layout() == Layout::Coordinate {
            assert!(matches!(mtx::write(&path, &matrix), Err(Error::Index { .. })));
            continue;
        }
        mtx::write(&path, &matrix).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(mtx::read(&path).unwrap(), matrix);
    }
    let wrong = [
        (2, 3, Symmetry::Symmetric, Entries::Array(real())),
        (3, 3, Symmetry::Hermitian, at(real())),
        (3, 3, Symmetry::SkewSymmetric, at(Values::Pattern)),
        (3, 3, Symmetry::General, Entries::Array(real())),
        (1, 1, Symmetry::General, Entries::Array(Values::Pattern)),
        (3, 3, Symmetry::General, at(Values::Real(vec![1.0]))),
    ];
    for (rows, cols, symmetry, entries) in wrong {
        assert!(mtx::write(&path, &Mtx { rows, cols, symmetry, entries }).is_err());
    }
}

#[test]
fn only_arrays_become_tensors() {
    let full = kc_io::read(golden("smash/mtx/full_symmetric.mtx")).unwrap();
    let full = full.view::<f64, 2>("a").unwrap();
    assert_eq!(full.shape(), [4, 4]);
    assert_eq!((full.at([0, 1]), full.at([1, 0])), (18.18952178955078, 18.18952178955078));
    assert!(matches!(kc_io::read(golden("smash/mtx/west0067.mtx")), Err(Error::Unsupported { .. })));
}
