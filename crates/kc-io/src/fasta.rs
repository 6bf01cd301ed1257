//! FASTA: named sequences of proteins or nucleotides.
//!
//! Letters are checked against the alphabet and turned into capitals; gaps (`-`, `.`) are kept, so that
//! alignments are read as they are. Compressed files are refused: unpack them first.
//!
//! ```
//! use kc_io::fasta::{self, Alphabet};
//!
//! let file = b">a first\nACGT\nacg-\n>b\nACGTACGT\n";
//! let sequences = fasta::parse(file, "x.fasta", Alphabet::Nucleotide)?;
//! assert_eq!(sequences.records[0].id, "a");
//! assert_eq!(sequences.records[0].sequence, b"ACGTACG-");
//! assert_eq!(sequences.aligned_len()?, 8);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::path::Path;

use kc_core::{Error, Result};
use needletail::errors::ParseError;
use needletail::parser::{FastaReader, FastxReader};

use crate::{atomic, map};

/// The letters that a sequence may have, besides the gaps `-` and `.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alphabet {
    /// The 20 amino acids, `U`, `O`, the ambiguous `B`, `J`, `Z`, `X`, and the stop `*`.
    Protein,
    /// `A`, `C`, `G`, `T`, `U` and the ambiguous letters of IUPAC.
    Nucleotide,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The first word behind `>`.
    pub id: String,
    /// The rest of that line.
    pub description: String,
    /// Capital letters and gaps.
    pub sequence: Vec<u8>,
}

/// The sequences of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fasta {
    /// In the order of the file.
    pub records: Vec<Record>,
    /// What the letters mean.
    pub alphabet: Alphabet,
}

impl Alphabet {
    /// True if the capital letter `letter` is in the alphabet, or a gap.
    pub fn contains(self, letter: u8) -> bool {
        let letters: &[u8] = match self {
            Alphabet::Protein => b"ACDEFGHIKLMNPQRSTVWYUOBJZX*",
            Alphabet::Nucleotide => b"ACGTURYSWKMBDHVN",
        };
        matches!(letter, b'-' | b'.') || letters.contains(&letter)
    }
}

impl Fasta {
    /// The common length of all sequences, or an error that names the first that differs.
    pub fn aligned_len(&self) -> Result<usize> {
        let Some(first) = self.records.first() else { return Err(Error::empty("sequences")) };
        let len = first.sequence.len();
        match self.records.iter().find(|record| record.sequence.len() != len) {
            None => Ok(len),
            Some(other) => {
                let expected = format!("`{}` aligned with `{}` ({len} letters)", other.id, first.id);
                Err(Error::shape("sequences", expected, &[other.sequence.len()]))
            }
        }
    }
}

/// Reads a file.
pub fn read(path: impl AsRef<Path>, alphabet: Alphabet) -> Result<Fasta> {
    let path = path.as_ref();
    parse(&map::map(path)?, &path.display().to_string(), alphabet)
}

/// Parses the bytes of a file. `source` names it in errors.
pub fn parse(text: &[u8], source: &str, alphabet: Alphabet) -> Result<Fasta> {
    let allowed: [bool; 256] = std::array::from_fn(|b| alphabet.contains((b as u8).to_ascii_uppercase()));
    // The reader would loop over blank lines in front of the first record as over a record.
    let skipped = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let lines_before = text[..skipped].iter().filter(|&&b| b == b'\n').count();
    if text.get(skipped) != Some(&b'>') {
        return Err(Error::parse_line(source, lines_before + 1, "expected `>` and a name"));
    }
    let mut reader = FastaReader::new(&text[skipped..]);
    let mut records = Vec::new();
    while let Some(record) = reader.next() {
        let record = record.map_err(|error| malformed(&error, source, lines_before))?;
        let line = lines_before + record.start_line_number() as usize;
        let Ok(title) = std::str::from_utf8(record.id()) else {
            return Err(Error::parse_line(source, line, "expected a name in UTF-8"));
        };
        let (id, description) = title.split_once([' ', '\t']).unwrap_or((title, ""));
        let sequence = letters(record.raw_seq(), &allowed)
            .map_err(|(offset, message)| Error::parse_line(source, line + 1 + offset, message))?;
        if sequence.is_empty() {
            return Err(Error::parse_line(source, line, format!("`{id}` has no sequence")));
        }
        records.push(Record { id: id.to_owned(), description: description.trim().to_owned(), sequence });
    }
    Ok(Fasta { records, alphabet })
}

/// Writes a file, 60 letters on a line.
pub fn write(path: impl AsRef<Path>, sequences: &Fasta) -> Result<()> {
    const WIDTH: usize = 60;
    for record in &sequences.records {
        if record.id.contains(char::is_whitespace) || record.description.contains(['\n', '\r']) {
            return Err(Error::argument("id", "a name without spaces, on one line", &record.id));
        }
        if let Some(&letter) = record.sequence.iter().find(|&&b| !sequences.alphabet.contains(b)) {
            let letter = char::from(letter);
            return Err(Error::argument("sequence", format!("letters of {:?}", sequences.alphabet), letter));
        }
    }
    let path = path.as_ref();
    atomic::write(path, |out| {
        let mut print = || {
            for record in &sequences.records {
                let space = if record.description.is_empty() { "" } else { " " };
                writeln!(out, ">{}{space}{}", record.id, record.description)?;
                for line in record.sequence.chunks(WIDTH) {
                    out.write_all(line)?;
                    out.write_all(b"\n")?;
                }
            }
            Ok(())
        };
        print().map_err(|error| Error::io(path, &error))
    })
}

/// The letters of a sequence without its line ends, or the number of lines before a fault.
fn letters(lines: &[u8], allowed: &[bool; 256]) -> std::result::Result<Vec<u8>, (usize, String)> {
    let mut sequence = Vec::with_capacity(lines.len());
    for (offset, line) in lines.split(|&b| b == b'\n').enumerate() {
        for &letter in line.trim_ascii() {
            if !allowed[usize::from(letter)] {
                let shown = letter.escape_ascii();
                return Err((offset, format!("`{shown}` is not in the alphabet")));
            }
            sequence.push(letter.to_ascii_uppercase());
        }
    }
    Ok(sequence)
}

fn malformed(error: &ParseError, source: &str, lines_before: usize) -> Error {
    match error.position.line {
        0 => Error::parse(source, error),
        line => Error::parse_line(source, lines_before + line as usize, error),
    }
}
