//! CSV: a table of numbers, with or without a row of names.
//!
//! The first row holds names if one of its fields is neither a number nor blank. All other fields must be
//! numbers (`nan` and `inf` are), and all rows of one length. Fields are separated by commas, may be quoted,
//! and spaces around them do not count; lines that begin with `#` are comments.
//!
//! ```
//! let table = kc_io::csv::parse(b"x, y\n1, 2.5\n3, nan\n", "t.csv")?;
//! assert_eq!(table.names.as_deref(), Some(&["x".to_owned(), "y".to_owned()][..]));
//! assert_eq!(table.data.shape(), [2, 2]);
//! assert_eq!(table.data[[0, 1]], 2.5);
//! # Ok::<(), kc_core::Error>(())
//! ```

use std::fmt::Debug;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};
use kc_core::{AnyTensor, DType, Element, Error, Float, Result, Tensor, bf16, f16};

use crate::number::float;
use crate::{atomic, map};

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The names of the columns, if the file has them.
    pub names: Option<Vec<String>>,
    /// The numbers: rows by columns.
    pub data: Tensor<f64, 2>,
}

/// Reads a file.
pub fn read(path: impl AsRef<Path>) -> Result<Table> {
    let path = path.as_ref();
    parse(&map::map(path)?, &path.display().to_string())
}

/// Parses the bytes of a file. `source` names it in errors.
pub fn parse(text: &[u8], source: &str) -> Result<Table> {
    let mut reader =
        ReaderBuilder::new().has_headers(false).trim(Trim::All).comment(Some(b'#')).from_reader(text);
    let mut record = StringRecord::new();
    let (mut names, mut values, mut columns) = (None, Vec::new(), None);
    while reader.read_record(&mut record).map_err(|error| malformed(&error, text, source))? {
        let first = columns.is_none();
        columns = Some(record.len());
        if first && record.iter().any(|field| !field.is_empty() && float(field.as_bytes()).is_none()) {
            names = Some(record.iter().map(str::to_owned).collect());
            continue;
        }
        for (column, field) in record.iter().enumerate() {
            let Some(value) = float(field.as_bytes()) else {
                let line = record.position().map_or(1, |position| line_of(position, text));
                let shown: String = field.chars().take(40).collect();
                let message = format!("expected a number in column {}, got `{shown}`", column + 1);
                return Err(Error::parse_line(source, line, message));
            };
            values.push(value);
        }
    }
    let Some(columns) = columns else { return Err(Error::parse(source, "expected at least one row")) };
    let rows = values.len().checked_div(columns).unwrap_or(0);
    Ok(Table { names, data: Tensor::from_slice([rows, columns], &values)? })
}

/// Writes a matrix, a vector (one number on each line) or a single number of any real type, each the
/// shortest that reads back to the same bits.
pub fn write(path: impl AsRef<Path>, tensor: &AnyTensor, names: Option<&[String]>) -> Result<()> {
    let path = path.as_ref();
    let (rows, columns) = match *tensor.shape() {
        [] => (1, 1),
        [rows] => (rows, 1),
        [rows, columns] => (rows, columns),
        _ => return Err(Error::shape("tensor", "at most 2 dimensions for .csv", tensor.shape())),
    };
    if let Some(names) = names.filter(|names| names.len() != columns) {
        return Err(Error::shape("names", format!("{columns} names"), &[names.len()]));
    }
    let cell = printer(tensor)?;
    atomic::write(path, |out| {
        let mut writer = csv::Writer::from_writer(out);
        let failed = |error: csv::Error| Error::io(path, &error.into());
        if let Some(names) = names {
            writer.write_record(names).map_err(failed)?;
        }
        for row in 0..rows {
            let fields = (0..columns).map(|column| cell(row * columns + column));
            writer.write_record(fields).map_err(failed)?;
        }
        writer.flush().map_err(|error| Error::io(path, &error))
    })
}

type Printer<'a> = Box<dyn Fn(usize) -> String + 'a>;

/// The text of each element.
fn printer(tensor: &AnyTensor) -> Result<Printer<'_>> {
    fn with<T: Element>(tensor: &AnyTensor, print: impl Fn(T) -> String + 'static) -> Printer<'_> {
        let bytes = tensor.bytes();
        let at = move |i: usize| {
            let size = size_of::<T>();
            print(kc_core::bytemuck::pod_read_unaligned(&bytes[i * size..(i + 1) * size]))
        };
        Box::new(at)
    }
    fn number<T: Element + Debug>(tensor: &AnyTensor) -> Printer<'_> {
        with::<T>(tensor, |x| format!("{x:?}"))
    }
    Ok(match tensor.dtype() {
        DType::Bool | DType::U8 => number::<u8>(tensor),
        DType::I8 => number::<i8>(tensor),
        DType::U16 => number::<u16>(tensor),
        DType::I16 => number::<i16>(tensor),
        DType::U32 => number::<u32>(tensor),
        DType::I32 => number::<i32>(tensor),
        DType::U64 => number::<u64>(tensor),
        DType::I64 => number::<i64>(tensor),
        DType::F16 => with::<f16>(tensor, |x| format!("{:?}", Float::to_f32(x))),
        DType::BF16 => with::<bf16>(tensor, |x| format!("{:?}", Float::to_f32(x))),
        DType::F32 => number::<f32>(tensor),
        DType::F64 => number::<f64>(tensor),
        other => return Err(Error::dtype("tensor", "a real type for .csv", other)),
    })
}

/// The line of a record. The reader's position is where it began to look for one: comments and blank lines
/// may still lie before it.
fn line_of(position: &csv::Position, text: &[u8]) -> usize {
    let from = text.get(position.byte() as usize..).unwrap_or_default();
    let before = from.split(|&b| b == b'\n').take_while(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.is_empty() || line.starts_with(b"#")
    });
    position.line() as usize + before.count()
}

fn malformed(error: &csv::Error, text: &[u8], source: &str) -> Error {
    let line = error.position().map(|position| line_of(position, text));
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} fields, got {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "expected UTF-8".to_owned(),
        _ => error.to_string(),
    };
    match line {
        Some(line) => Error::parse_line(source, line, message),
        None => Error::parse(source, message),
    }
}
