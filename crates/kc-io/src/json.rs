//! JSON: results, settings, and one value per line.
//!
//! Sizes and depths are bounded: a file above [`MAX_BYTES`] and a value nested deeper than 128 are refused.
//! Memory is at most about 30 times the file (an array of empty arrays is the worst case).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use kc_core::{Error, Position, Result};
use serde_json::Value;

use crate::{atomic, map};

/// The largest file that [`read()`] accepts and the longest line of [`JsonLines`]: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// Reads one JSON value.
pub fn read(path: impl AsRef<Path>) -> Result<Value> {
    let path = path.as_ref();
    parse(&map::map(path)?, &path.display().to_string())
}

/// Parses one JSON value. `source` names it in errors.
pub fn parse(text: &[u8], source: &str) -> Result<Value> {
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::too_large(source.to_owned(), text.len() as u64, MAX_BYTES, "bytes"));
    }
    serde_json::from_slice(text).map_err(|error| malformed(&error, source, 0))
}

/// Writes one JSON value, indented, with a newline at its end.
pub fn write(path: impl AsRef<Path>, value: &Value) -> Result<()> {
    let path = path.as_ref();
    atomic::write(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value).map_err(|error| Error::io(path, &error.into()))?;
        out.write_all(b"\n").map_err(|error| Error::io(path, &error))
    })
}

/// Writes one value on each line.
pub fn write_lines<'a>(path: impl AsRef<Path>, values: impl IntoIterator<Item = &'a Value>) -> Result<()> {
    let path = path.as_ref();
    atomic::write(path, |out| {
        for value in values {
            serde_json::to_writer(&mut *out, value).map_err(|error| Error::io(path, &error.into()))?;
            out.write_all(b"\n").map_err(|error| Error::io(path, &error))?;
        }
        Ok(())
    })
}

/// The values of a file with one JSON value on each line, read one at a time. Blank lines are skipped; the
/// first error ends it.
#[derive(Debug)]
pub struct JsonLines<R = BufReader<File>> {
    reader: R,
    path: PathBuf,
    line: usize,
    buffer: Vec<u8>,
    done: bool,
}

impl JsonLines {
    /// Opens a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        Ok(Self::new(BufReader::new(file), path))
    }
}

impl<R: BufRead> JsonLines<R> {
    /// Reads from `reader`; `path` names it in errors.
    pub fn new(reader: R, path: impl AsRef<Path>) -> Self {
        Self { reader, path: path.as_ref().to_path_buf(), line: 0, buffer: Vec::new(), done: false }
    }

    /// The next value, or `None` at the end.
    fn advance(&mut self) -> Result<Option<Value>> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let mut limited = (&mut self.reader).take(MAX_BYTES + 1);
            let read = limited.read_until(b'\n', &mut self.buffer).map_err(|e| Error::io(&self.path, &e))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > MAX_BYTES {
                return Err(Error::too_large("line", read as u64, MAX_BYTES, "bytes"));
            }
            let text = self.buffer.trim_ascii();
            if !text.is_empty() {
                let source = self.path.display().to_string();
                let value = serde_json::from_slice(text);
                return value.map(Some).map_err(|error| malformed(&error, &source, self.line - 1));
            }
        }
    }
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.advance().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// A parse error at its line, counted from the first line of the file.
fn malformed(error: &serde_json::Error, source: &str, lines_before: usize) -> Error {
    // The parser's own message repeats the line, which the position says already.
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    Error::Parse {
        source: source.to_owned(),
        at: match error.line() {
            0 => Position::Whole,
            line => Position::Line(lines_before + line),
        },
        message: format!("{message} (column {})", error.column()),
    }
}
