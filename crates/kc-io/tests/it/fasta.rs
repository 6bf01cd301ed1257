//! FASTA.

use kc_core::{Error, Position};
use kc_io::fasta::{self, Alphabet, Fasta};

fn dna(text: &str) -> kc_core::Result<Fasta> {
    fasta::parse(text.as_bytes(), "x.fasta", Alphabet::Nucleotide)
}

#[test]
fn names_descriptions_and_wrapped_lines_are_read() {
    let file =
        dna("\n>a one two\nACGT\r\nac gt\n".replace(' ', "").replace("onetwo", " one two").as_str()).unwrap();
    let record = &file.records[0];
    assert_eq!((record.id.as_str(), record.description.as_str()), ("a", "one two"));
    assert_eq!(record.sequence, b"ACGTACGT");
    let file = dna(">a\nAC\n>b\nGT-N\n\n").unwrap();
    assert_eq!(file.records.len(), 2);
    assert_eq!(file.records[1].sequence, b"GT-N");
}

#[test]
fn letters_outside_of_the_alphabet_are_refused_at_their_line() {
    for (text, want) in
        [(">a\nACGE\n", 2), (">a\nAC\nGT\nA!\n", 4), ("\n\n>a\nAC\n>b\nAC\nX\n", 7), (">a\nA C\n", 2)]
    {
        match dna(text) {
            Err(Error::Parse { at: Position::Line(line), .. }) => assert_eq!(line, want, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(fasta::parse(b">p\nMEEPQSDPSV*\n", "p", Alphabet::Protein).is_ok());
    assert!(fasta::parse(b">p\nACGT1\n", "p", Alphabet::Protein).is_err());
}

#[test]
fn what_is_no_fasta_is_refused() {
    for text in [
        "",
        "\n \n",
        "ACGT\n",
        "@a\nACGT\n+\nIIII\n",
        ">a\n",
        ">a\n>b\nACGT\n",
        ">a\nACGT\n>b\n",
        ">",
        "\u{1f}\u{8b}",
    ] {
        assert!(matches!(dna(text), Err(Error::Parse { .. })), "{text:?}: {:?}", dna(text));
    }
    assert!(fasta::parse(b">\xff\nACGT\n", "x", Alphabet::Nucleotide).is_err());
}

#[test]
fn alignments_have_one_length() {
    assert_eq!(dna(">a\nAC-T\n>b\nACGT\n").unwrap().aligned_len(), Ok(4));
    let error = dna(">a\nAC-T\n>b\nACGTA\n").unwrap().aligned_len().unwrap_err().to_string();
    assert!(error.contains("`b` aligned with `a` (4 letters)"), "{error}");
}

#[test]
fn what_is_written_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.fasta");
    let long = "ACGT".repeat(100);
    let file = dna(&format!(">a first one\n{long}\n>b\nA\n")).unwrap();
    fasta::write(&path, &file).unwrap();
    assert_eq!(fasta::read(&path, Alphabet::Nucleotide).unwrap(), file);
    let mut bad = file;
    bad.records[0].sequence.push(b'\n');
    assert!(fasta::write(&path, &bad).is_err());
}
