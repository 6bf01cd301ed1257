//! The parser: one pass over the bytes, one line at a time.

use kc_core::{Complex, Error, Result};

use super::{Entries, Field, Layout, Mtx, Symmetry, Values};
use crate::number::float;

/// Parses the bytes of a file. `source` names it in errors.
pub fn parse(text: &[u8], source: &str) -> Result<Mtx> {
    let mut lines = Lines { text, at: 0, line: 1, source };
    let banner = banner(&mut lines)?;
    if !lines.next_data() {
        return Err(lines.wrong("expected the size of the matrix, got the end of the file"));
    }
    let rows = lines.size("the number of rows")?;
    let cols = lines.size("the number of columns")?;
    if banner.symmetry != Symmetry::General && rows != cols {
        let symmetry = banner.symmetry.name();
        return Err(
            lines.wrong(format!("expected a square matrix, as it is {symmetry}, got {rows} x {cols}"))
        );
    }
    let entries = match banner.layout {
        Layout::Coordinate => {
            let count = lines.size("the number of entries")?;
            lines.end_of_line("the size has three numbers")?;
            for (what, size) in [("rows", rows), ("cols", cols)] {
                if size > u32::MAX as usize {
                    return Err(Error::too_large(what, size as u64, u64::from(u32::MAX), "indices"));
                }
            }
            let of = Coordinates { rows, cols, symmetry: banner.symmetry, count };
            match banner.field {
                Field::Real => of.read(&mut lines, Values::Real),
                Field::Integer => of.read(&mut lines, Values::Integer),
                Field::Complex => of.read(&mut lines, Values::Complex),
                Field::Pattern => of.read(&mut lines, |_: Vec<()>| Values::Pattern),
            }?
        }
        Layout::Array => {
            lines.end_of_line("the size of an array has two numbers")?;
            let Some(count) = banner.symmetry.array_len(rows, cols) else {
                return Err(lines.wrong(format!("{rows} x {cols} numbers cannot be addressed")));
            };
            Entries::Array(match banner.field {
                Field::Real => Values::Real(array(&mut lines, count)?),
                Field::Integer => Values::Integer(array(&mut lines, count)?),
                Field::Complex => {
                    let values: Vec<Complex<f64>> = array(&mut lines, count)?;
                    if banner.symmetry == Symmetry::Hermitian {
                        check_diagonal(&values, rows, source)?;
                    }
                    Values::Complex(values)
                }
                // The banner has been checked.
                Field::Pattern => Values::Pattern,
            })
        }
    };
    if lines.next_data() {
        return Err(lines.wrong("expected the end of the file, got more entries than the size says"));
    }
    Ok(Mtx { rows, cols, symmetry: banner.symmetry, entries })
}

struct Banner {
    layout: Layout,
    field: Field,
    symmetry: Symmetry,
}

fn banner(lines: &mut Lines<'_>) -> Result<Banner> {
    let length = lines.text.iter().position(|&b| b == b'\n').unwrap_or(lines.text.len());
    let line = String::from_utf8_lossy(&lines.text[..length]).to_ascii_lowercase();
    let words: Vec<&str> = line.split_ascii_whitespace().take(6).collect();
    let [magic, object, layout, field, symmetry] = words[..] else {
        return Err(lines.wrong("expected `%%MatrixMarket matrix` and three more words"));
    };
    if magic != "%%matrixmarket" || object != "matrix" {
        return Err(lines.wrong("expected `%%MatrixMarket matrix`"));
    }
    let layout = match layout {
        "coordinate" => Layout::Coordinate,
        "array" => Layout::Array,
        other => return Err(lines.wrong(format!("expected coordinate or array, got `{other}`"))),
    };
    let field = match field {
        "real" | "double" => Field::Real,
        "integer" | "unsigned-integer" => Field::Integer,
        "complex" => Field::Complex,
        "pattern" => Field::Pattern,
        other => {
            return Err(lines.wrong(format!("expected real, integer, complex or pattern, got `{other}`")));
        }
    };
    let symmetry = match symmetry {
        "general" => Symmetry::General,
        "symmetric" => Symmetry::Symmetric,
        "skew-symmetric" => Symmetry::SkewSymmetric,
        "hermitian" => Symmetry::Hermitian,
        other => {
            let expected = "expected general, symmetric, skew-symmetric or hermitian";
            return Err(lines.wrong(format!("{expected}, got `{other}`")));
        }
    };
    if layout == Layout::Array && field == Field::Pattern {
        return Err(lines.wrong("an array cannot be a pattern"));
    }
    if symmetry == Symmetry::Hermitian && field != Field::Complex {
        return Err(lines.wrong("a Hermitian matrix is complex"));
    }
    if symmetry == Symmetry::SkewSymmetric && field == Field::Pattern {
        return Err(lines.wrong("a pattern cannot be skew-symmetric"));
    }
    lines.at = length;
    Ok(Banner { layout, field, symmetry })
}

struct Coordinates {
    rows: usize,
    cols: usize,
    symmetry: Symmetry,
    count: usize,
}

impl Coordinates {
    fn read<T: Number>(
        &self,
        lines: &mut Lines<'_>,
        values: impl FnOnce(Vec<T>) -> Values,
    ) -> Result<Entries> {
        // Each entry has two indices of a digit, what separates them, and its values.
        let capacity = self.count.min(lines.left() / (4 + 2 * T::WORDS) + 1);
        let mut row = Vec::with_capacity(capacity);
        let mut col = Vec::with_capacity(capacity);
        let mut value = Vec::with_capacity(capacity);
        for entry in 0..self.count {
            if !lines.next_data() {
                return Err(lines.wrong(format!("expected {} entries, got {entry}", self.count)));
            }
            let i = lines.index("row", self.rows)?;
            let j = lines.index("column", self.cols)?;
            let x = T::read(lines)?;
            if i == j && !x.may_be_diagonal(self.symmetry) {
                let symmetry = self.symmetry.name();
                return Err(lines.wrong(format!("this cannot be on the diagonal of a {symmetry} matrix")));
            }
            lines.end_of_line("this line has too many numbers for its field")?;
            row.push(i);
            col.push(j);
            value.push(x);
        }
        Ok(Entries::Coordinate { row, col, values: values(value) })
    }
}

fn array<T: Number>(lines: &mut Lines<'_>, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(count.min(lines.left() / (2 * T::WORDS).max(1) + 1));
    for entry in 0..count {
        if !lines.next_data() {
            return Err(lines.wrong(format!("expected {count} entries, got {entry}")));
        }
        values.push(T::read(lines)?);
        lines.end_of_line("an array has one entry on each line")?;
    }
    Ok(values)
}

/// The lines of an array's diagonal are not known any more, so that the file as a whole is to blame.
fn check_diagonal(values: &[Complex<f64>], n: usize, source: &str) -> Result<()> {
    let mut at = 0;
    for j in 0..n {
        if values[at].im != 0.0 {
            return Err(Error::parse(
                source,
                format!("the diagonal of a hermitian matrix is real, not at {j}"),
            ));
        }
        at += n - j;
    }
    Ok(())
}

/// A value of an entry.
trait Number: Sized {
    /// How many numbers of the file make one.
    const WORDS: usize;

    fn read(lines: &mut Lines<'_>) -> Result<Self>;

    fn may_be_diagonal(&self, symmetry: Symmetry) -> bool;
}

impl Number for f64 {
    const WORDS: usize = 1;

    #[inline]
    fn read(lines: &mut Lines<'_>) -> Result<Self> {
        lines.number("a number", float)
    }

    fn may_be_diagonal(&self, symmetry: Symmetry) -> bool {
        symmetry != Symmetry::SkewSymmetric || *self == 0.0
    }
}

impl Number for i64 {
    const WORDS: usize = 1;

    #[inline]
    fn read(lines: &mut Lines<'_>) -> Result<Self> {
        lines.number("an integer of 64 bits", whole)
    }

    fn may_be_diagonal(&self, symmetry: Symmetry) -> bool {
        symmetry != Symmetry::SkewSymmetric || *self == 0
    }
}

impl Number for Complex<f64> {
    const WORDS: usize = 2;

    #[inline]
    fn read(lines: &mut Lines<'_>) -> Result<Self> {
        let re = lines.number("a real part", float)?;
        let im = lines.number("an imaginary part", float)?;
        Ok(Complex { re, im })
    }

    fn may_be_diagonal(&self, symmetry: Symmetry) -> bool {
        match symmetry {
            Symmetry::Hermitian => self.im == 0.0,
            Symmetry::SkewSymmetric => self.re == 0.0 && self.im == 0.0,
            _ => true,
        }
    }
}

impl Number for () {
    const WORDS: usize = 0;

    #[inline]
    fn read(_: &mut Lines<'_>) -> Result<Self> {
        Ok(())
    }

    fn may_be_diagonal(&self, _: Symmetry) -> bool {
        true
    }
}

/// A whole number that fits its type.
fn whole<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A position in the text that knows its line.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    source: &'a str,
}

impl<'a> Lines<'a> {
    #[cold]
    fn wrong(&self, message: impl std::fmt::Display) -> Error {
        Error::parse_line(self.source, self.line, message)
    }

    fn left(&self) -> usize {
        self.text.len() - self.at
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline(always)]
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes to the next line that is neither blank nor a comment. False at the end of the file.
    #[inline]
    fn next_data(&mut self) -> bool {
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return false,
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                }
                Some(b'%') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
                }
                Some(_) => return true,
            }
        }
    }

    /// The next word of this line, perhaps empty.
    #[inline(always)]
    fn word(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let start = self.at;
        while let Some(byte) = self.peek() {
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                break;
            }
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    #[inline(always)]
    fn number<T>(&mut self, what: &str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T> {
        let word = self.word();
        match parse(word) {
            Some(number) => Ok(number),
            None => Err(self.unexpected(what, word)),
        }
    }

    #[cold]
    fn unexpected(&self, what: &str, word: &[u8]) -> Error {
        if word.is_empty() {
            return self.wrong(format!("expected {what}, got the end of the line"));
        }
        let shown = String::from_utf8_lossy(&word[..word.len().min(40)]);
        self.wrong(format!("expected {what}, got `{shown}`"))
    }

    fn size(&mut self, what: &str) -> Result<usize> {
        self.number(what, whole)
    }

    /// An index from 1 to `size`, returned from 0. `size` is at most `u32::MAX`.
    #[inline(always)]
    fn index(&mut self, what: &str, size: usize) -> Result<u32> {
        self.skip_blanks();
        let start = self.at;
        let mut value = 0u64;
        while let Some(byte) = self.peek() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            // Saturates far above every size.
            value = (value * 10 + u64::from(digit)).min(1 << 40);
            self.at += 1;
        }
        let ended = matches!(self.peek(), None | Some(b' ' | b'\t' | b'\r' | b'\n'));
        if ended && self.at > start && value >= 1 && value <= size as u64 {
            return Ok((value - 1) as u32);
        }
        self.at = start;
        let word = self.word();
        Err(self.unexpected(&format!("a {what} from 1 to {size}"), word))
    }

    #[inline(always)]
    fn end_of_line(&mut self, otherwise: &str) -> Result<()> {
        self.skip_blanks();
        match self.peek() {
            // The line itself is ended by `next_data`, so that an error here still names it.
            None | Some(b'\n') => Ok(()),
            Some(_) => Err(self.wrong(otherwise)),
        }
    }
}
