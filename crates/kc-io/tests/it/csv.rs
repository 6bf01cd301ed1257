//! `.csv`.

use kc_core::{DType, Error, Position, Tensor};
use kc_io::csv::{self, Table};

use crate::support::{DTYPES, golden_tensor};

fn parse(text: &str) -> kc_core::Result<Table> {
    csv::parse(text.as_bytes(), "t.csv")
}

#[test]
fn the_first_row_holds_names_if_it_is_not_all_numbers() {
    let names = |text| parse(text).unwrap().names;
    assert_eq!(names("1,2\n3,4\n"), None);
    assert_eq!(names("nan,inf\n3,4\n"), None);
    assert_eq!(names("x,2\n3,4\n"), Some(vec!["x".to_owned(), "2".to_owned()]));
    assert_eq!(names("\"a,b\", c\n3,4\n"), Some(vec!["a,b".to_owned(), "c".to_owned()]));
    // As pandas writes an index without a name.
    assert_eq!(names(",x\n0,4\n"), Some(vec![String::new(), "x".to_owned()]));
    let only = parse("x,y\n").unwrap();
    assert_eq!(only.data.shape(), [0, 2]);
}

#[test]
fn blanks_quotes_comments_and_line_ends_do_not_matter() {
    let want = Tensor::from_slice([2, 2], &[1.0, -2.5e-3, f64::INFINITY, 4.0]).unwrap();
    for text in [
        "1,-2.5e-3\ninf,4",
        "1 ,\t-0.0025\r\n inf, 4.0 \r\n",
        "# comment\n1,-2.5e-3\n\n# more, of, it\n\"inf\",4\n",
    ] {
        assert_eq!(parse(text).unwrap().data, want, "{text}");
    }
}

#[test]
fn faults_have_their_line() {
    for (text, want) in
        [("1,2\n3\n", 2), ("1,2\n3,4\n5,x\n", 3), ("x,y\n1,\n", 2), ("1,2\n\n# c\n3,4,5\n", 4), (",1\n", 1)]
    {
        match parse(text) {
            Err(Error::Parse { at: Position::Line(line), .. }) => assert_eq!(line, want, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(parse(""), Err(Error::Parse { .. })));
    assert!(matches!(csv::parse(b"1,\xff\n", "t.csv"), Err(Error::Parse { .. })));
}

#[test]
fn every_real_type_is_written_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    for dtype in DTYPES {
        let tensor = golden_tensor(dtype, &[5, 3]);
        let result = kc_io::write(&path, &tensor);
        if matches!(dtype, DType::C64 | DType::C128) {
            assert!(matches!(result, Err(Error::DType { .. })));
            continue;
        }
        result.unwrap();
        let back = kc_io::read(&path).unwrap();
        // The fixture's doubles are the same numbers, but for the shift of the unsigned ones.
        let s = (0..15i64).map(|k| k * k % 23 - 11);
        let want: Vec<f64> = match dtype {
            DType::Bool => s.map(|s| f64::from(u8::from(s % 3 == 0))).collect(),
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => s.map(|s| (s + 11) as f64).collect(),
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => s.map(|s| s as f64).collect(),
            _ => s.map(|s| s as f64 * 0.5).collect(),
        };
        assert_eq!(back.view::<f64, 2>("t").unwrap().to_vec(), want, "{dtype}");
    }
}

#[test]
fn vectors_and_numbers_are_columns_and_three_axes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    let x = [0.1, 1e300, f64::MIN_POSITIVE, -0.0];
    kc_io::write(&path, &Tensor::from_slice([4], &x).unwrap().into_any()).unwrap();
    let back = csv::read(&path).unwrap().data;
    assert_eq!(back.shape(), [4, 1]);
    assert!(back.as_slice().iter().zip(&x).all(|(a, b)| a.to_bits() == b.to_bits()));
    kc_io::write(&path, &Tensor::from_slice([], &[2.5f32]).unwrap().into_any()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "2.5\n");
    let cube = golden_tensor(DType::F32, &[1, 2, 3]);
    assert!(matches!(kc_io::write(&path, &cube), Err(Error::Shape { .. })));
    let table = golden_tensor(DType::F32, &[2, 2]);
    csv::write(&path, &table, Some(&["a, b".to_owned(), "c".to_owned()])).unwrap();
    assert_eq!(csv::read(&path).unwrap().names.unwrap()[0], "a, b");
    assert!(csv::write(&path, &table, Some(&[])).is_err());
}
