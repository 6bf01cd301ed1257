//! The text formats: both ways, in every variant that occurs, and whatever else a file may hold.

use kc_core::{Error, Position};
use kc_qmc::lattice::LatticeVector;
use kc_qmc::net2::NetTable;
use kc_qmc::netb::NetMatrices;
use kc_qmc::table::Table;
use kc_qmc::{
    DigitalNet, DigitalNetConfig, Dims, GeneralNet, GeneralNetConfig, Lattice, LatticeConfig, Randomize,
    Sequence,
};

/// One text of each format.
const TEXTS: [&str; 9] = [
    "# lattice\n# A lattice rule\n3 # dimensions\n8   # points\n# the vector:\n1\n3\n5 # last\n",
    "# dnet \n2 # base\n2\n3\n4 # r\n8 4 2\n12 6\t3\n",
    "#plattice\n2\n2\n3\n11\n1\n7\n",
    "# soboljk\n2 1 0 1\n3 2 1 1 3\n4 3 1 1 3 1\n5 3 2 1 1 1\n",
    "# sobol\n\n1\n1 3\n1 3 1\n1 1 1\n",
    "# shiftmod1\n2\n0.25\n1e-3\n",
    "# dshift\n3\n2\n4\n80\n5\n",
    "# lmscramble\n2\n2\n3\n7 3 1\n4 2 1\n",
    "# nuscramble\n2\n2\n1\n4\n3 9\n15 0\n",
];

#[test]
fn every_format_goes_both_ways() {
    for text in TEXTS {
        let table = Table::parse(text, "text").unwrap_or_else(|error| panic!("{text}: {error}"));
        let again = Table::parse(&table.to_text(), "again").unwrap();
        assert_eq!(again, table, "{text}");
        assert!(table.dims() >= 2 && table.dims() <= 5);
        // Lines may end the other way, and without an end.
        assert_eq!(Table::parse(&text.replace('\n', "\r\n"), "text").unwrap(), table);
        assert_eq!(Table::parse(text.trim_end(), "text").unwrap(), table);
    }
}

#[test]
fn sizes_may_be_powers() {
    let with = |k: &str| Table::parse(&format!("# dnet\n3\n1\n{k}\n2\n3 1\n"), "text");
    assert_eq!(with("2").unwrap(), with("9").unwrap());
    assert!(with("3").is_err() && with("81").is_err());
    let huge = |k: &str| Table::parse(&format!("# plattice\n2\n1\n{k}\n4294967299\n5\n"), "text").unwrap();
    assert_eq!(huge("32"), huge("4294967296"));
    let joe_kuo = Table::parse("d       s       a       m_i\n2 1 0 1\n3 2 1 1 3\n", "text").unwrap();
    assert_eq!(joe_kuo, Table::parse("# soboljk\n2 1 0 1\n3 2 1 1 3\n", "text").unwrap());
    let short = Table::parse("# nuscramble\n2\n2\n4\n3 9\n15 0\n", "text").unwrap();
    assert_eq!(short, Table::parse(TEXTS[8], "text").unwrap());
}

#[test]
fn direction_numbers_are_joe_and_kuos() {
    // The first dimensions of new-joe-kuo-6.
    let text = "# soboljk\n2 1 0 1\n3 2 1 1 3\n4 3 1 1 3 1\n5 3 2 1 1 1\n6 4 1 1 1 3 3\n7 4 4 1 3 5 13\n";
    let table = Table::parse(text, "text").unwrap();
    let dims: Vec<usize> = (0..7).collect();
    assert_eq!(table.to_matrices().unwrap(), NetTable::JoeKuo.matrices(&dims).unwrap());
    // The same without the polynomials, which are the primitive ones in order.
    let bare = "# sobol\n1\n1 3\n1 3 1\n1 1 1\n1 1 3 3\n1 3 5 13\n";
    assert_eq!(Table::parse(bare, "text").unwrap(), table);
}

#[test]
fn tables_make_points() {
    let vector = Table::parse(TEXTS[0], "text").unwrap().to_vector().unwrap();
    assert_eq!((vector.values(), vector.log2_limit()), (&[1u64, 3, 5][..], 3));
    let mut config = LatticeConfig::new(3, 0u64);
    (config.vector, config.randomize) = (LatticeVector::User(vector), Randomize::None);
    let points = Lattice::new(config).unwrap().points(0..8).unwrap();
    // Point 4 is an eighth of the vector.
    assert_eq!(points.as_slice()[12..15], [0.125, 0.375, 0.625]);

    // In base 2 both kinds of net have the same points.
    let table = Table::parse(TEXTS[1], "text").unwrap();
    let mut config = DigitalNetConfig::new(2, 0u64);
    (config.table, config.randomize) = (NetTable::Matrices(table.to_matrices().unwrap()), Randomize::None);
    let binary = DigitalNet::new(config).unwrap().points(0..8).unwrap();
    let matrices = NetMatrices::Custom(table.to_base_matrices().unwrap());
    let mut config = GeneralNetConfig::new(2, 0u64, matrices);
    config.randomize = Randomize::None;
    let general = GeneralNet::new(config).unwrap().points(0..8).unwrap();
    assert_eq!(binary.as_slice(), general.as_slice());

    // A polynomial lattice is a net: every coordinate has each eighth once.
    let table = Table::parse(TEXTS[2], "text").unwrap();
    let mut config = DigitalNetConfig::new(Dims::First(2), 0u64);
    (config.table, config.randomize) = (NetTable::Matrices(table.to_matrices().unwrap()), Randomize::None);
    let points = DigitalNet::new(config).unwrap().points(0..8).unwrap();
    for j in 0..2 {
        let mut column: Vec<u64> =
            points.as_slice().iter().skip(j).step_by(2).map(|x| (x * 8.0) as u64).collect();
        column.sort_unstable();
        assert_eq!(column, (0..8).collect::<Vec<_>>());
    }
    assert!(matches!(Table::parse(TEXTS[5], "text").unwrap().to_matrices(), Err(Error::Unsupported { .. })));
    assert!(matches!(Table::parse(TEXTS[1], "text").unwrap().to_vector(), Err(Error::Unsupported { .. })));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases = [
        ("", 1, "column 1: expected #"),
        ("\n\n", 2, "column 1: expected #"),
        ("3\n", 1, "column 1: expected #"),
        ("# cube\n3\n", 1, "expected the format lattice, dnet"),
        ("# lattice\n0\n", 2, "column 1: expected the number of dimensions, 1 to 1048576, got 0"),
        ("# lattice\n-3\n", 2, "expected the number of dimensions, got -3"),
        ("# lattice\n9999999999\n", 2, "column 1: expected the number of dimensions"),
        ("# lattice\n2 2\n", 2, "column 3: expected only the number of dimensions"),
        ("# lattice\n2\n8\n1\n", 4, "expected the numbers of dimension 2 of 2, but the file ends here"),
        ("# lattice\n2\n8\n1\n3 5\n", 5, "column 3: expected only 1 numbers"),
        ("# lattice\n2\n8\n1\n  3x # odd\n", 5, "column 3: expected an integer, got 3x"),
        ("# lattice\n1\n8\n1\n\n3\n", 6, "column 1: expected the end of the file"),
        ("# lattice\n1\n8\n2251799813685248\n", 4, "column 1: expected an integer below 2251799813685248"),
        ("# dnet\n1\n", 2, "expected the base, 2 to 65536, got 1"),
        ("# dnet\n2\n1\n3\n65\n", 5, "expected the number of digits, 1 to 64, got 65"),
        ("# dnet\n2\n1\n3\n4\n8 16 2\n", 6, "column 3: expected an integer below 16, got 16"),
        ("# dnet\n3\n1\n2\n2\n8 9\n", 6, "column 3: expected an integer below 9, got 9"),
        ("# dnet\n2\n1\n3\n4\n8 4\n", 6, "column 4: expected 3 numbers, got 2"),
        ("# dnet\n2\n1\n0\n4\n", 4, "expected an exponent k from 1 to 64, or the base to that power, got 0"),
        ("# dnet\n2\n1\n100\n4\n", 4, "got 100"),
        ("# plattice\n2\n1\n3\n7\n1\n", 5, "expected a polynomial of that degree, 8 to 15, got 7"),
        ("# plattice\n2\n1\n3\n11\n8\n", 6, "expected an integer below 8, got 8"),
        ("# soboljk\n2 1 0 1\n4 2 1 1 3\n", 3, "column 1: expected dimension 3, got 4"),
        ("# soboljk\n2 1 0\n", 2, "column 3: expected the degree 0 of the numbers, got 1"),
        ("# soboljk\n2 1\n", 2, "expected dimension, degree, polynomial and numbers"),
        ("# soboljk\n2 1 1 1\n", 2, "column 5: expected coefficients below 2^0, got 1"),
        ("# soboljk\n2 1 0 1\n3 2 1 1 2\n", 3, "column 9: expected an odd number below 2^2, got 2"),
        ("# sobol\n1\n1\n", 3, "expected 2 numbers, the degree of the polynomial"),
        ("# shiftmod1\n1\n1.0\n", 3, "column 1: expected a shift in [0, 1), got 1"),
        ("# shiftmod1\n1\nnan\n", 3, "expected a shift in [0, 1), got NaN"),
        ("# shiftmod1\n1\n0.1530364040t106301\n", 3, "expected a shift in [0, 1), got 0.1530364040t106301"),
        ("# dshift\n3\n1\n2\n9\n", 5, "expected an integer below 9, got 9"),
        ("# lmscramble\n2\n1\n2\n3\n", 5, "expected 2 numbers, got 1"),
        ("# nuscramble\n2\n2\n4\n3 9\n15\n", 6, "expected 2 numbers, got 1"),
    ];
    for (text, line, message) in cases {
        match Table::parse(text, "bad.txt") {
            Err(Error::Parse { source, at, message: got }) => {
                assert_eq!((source.as_str(), at), ("bad.txt", Position::Line(line)), "{text:?}: {got}");
                assert!(got.contains(message), "{text:?}: {got:?} does not contain {message:?}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn mutated_texts_never_panic() {
    // A small generator of its own: the same texts in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    let pieces = [
        "#",
        "# dnet",
        "\n",
        " ",
        "-1",
        "0",
        "1",
        "2",
        "64",
        "65",
        "18446744073709551615",
        "99999999999999999999",
        "4294967296",
        "1e9",
        ".",
        "é",
        "\u{feff}",
        "\t",
        "\r\n",
        "nan",
        "# sobol\n",
        "1048577",
    ];
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let mut text: Vec<char> = TEXTS[round % TEXTS.len()].chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len() + 1);
            match random(4) {
                0 if at < text.len() => drop(text.remove(at)),
                1 => text.truncate(at),
                2 => {
                    let end = (at + random(12)).min(text.len());
                    text.drain(at..end);
                }
                _ => {
                    let tail = text.split_off(at);
                    text.extend(pieces[random(pieces.len())].chars());
                    text.extend(tail);
                }
            }
        }
        let text: String = text.into_iter().collect();
        match Table::parse(&text, "mutant") {
            Ok(table) => {
                good += 1;
                assert_eq!(Table::parse(&table.to_text(), "again").unwrap(), table, "{text:?}");
                let (_, _, _) = (
                    table.to_vector().is_ok(),
                    table.to_matrices().is_ok(),
                    table.to_base_matrices().is_ok(),
                );
            }
            Err(Error::Parse { .. }) => bad += 1,
            Err(other) => panic!("{text:?}: {other}"),
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}
