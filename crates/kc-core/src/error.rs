//! One error type for the whole workspace.
//!
//! Variants carry data, so callers match on them and messages always name the argument, what was
//! expected and what came.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::DType;

/// The result of a fallible kc function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The name of an argument, as it appears in messages.
pub type Name = Cow<'static, str>;

/// What can go wrong in any kc crate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A shape, rank or length does not fit.
    Shape {
        /// The argument.
        arg: Name,
        /// What would have been accepted, in words or as a shape.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An element type that is not accepted here.
    DType {
        /// The argument.
        arg: Name,
        /// The accepted types, in words.
        expected: String,
        /// The type that came.
        got: DType,
    },
    /// An option or value out of its range.
    Argument {
        /// The argument.
        arg: Name,
        /// The accepted range.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// An index that points outside of its dimension.
    Index {
        /// The argument that holds the index.
        arg: Name,
        /// Where in the argument it stands (for instance the row of a sparse matrix).
        at: Vec<usize>,
        /// The index.
        index: usize,
        /// Indices must be below this.
        bound: usize,
    },
    /// NaN or infinity where the definition needs finite numbers.
    NotFinite {
        /// The argument.
        arg: Name,
        /// Position of the first offending element.
        index: Vec<usize>,
        /// The value found there.
        value: f64,
    },
    /// An input without elements where at least one is needed.
    Empty {
        /// The argument.
        arg: Name,
    },
    /// More memory or a wider index would be needed than is allowed. Raised before anything is allocated.
    TooLarge {
        /// What would be too large.
        arg: Name,
        /// How much would be needed.
        need: u64,
        /// How much is available.
        limit: u64,
        /// The unit of both (for instance `bytes`, `slots`).
        unit: &'static str,
    },
    /// A matrix that cannot be factored.
    Singular {
        /// The argument.
        arg: Name,
        /// The row or pivot where it shows.
        index: usize,
    },
    /// An iteration that did not reach its tolerance.
    NotConverged {
        /// The algorithm.
        what: Name,
        /// Iterations done.
        iterations: usize,
        /// What was left.
        residual: f64,
    },
    /// A file or text that does not follow its format.
    Parse {
        /// The format or file.
        source: String,
        /// Where it stands.
        at: Position,
        /// What is wrong.
        message: String,
    },
    /// The operating system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// The kind of failure.
        kind: std::io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// Something that is valid, but not offered.
    Unsupported {
        /// What was asked for.
        what: Name,
        /// Why it is not there, and what to use instead.
        reason: String,
    },
    /// A device (GPU, driver) failed.
    Device {
        /// The device.
        device: String,
        /// Its words.
        message: String,
    },
    /// The caller's observer asked to stop.
    Cancelled,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// A line, counted from 1.
    Line(usize),
    /// A byte offset, counted from 0.
    Byte(u64),
    /// The file as a whole.
    Whole,
}

impl Error {
    /// A shape that does not fit.
    pub fn shape(arg: impl Into<Name>, expected: impl fmt::Display, got: &[usize]) -> Self {
        Error::Shape { arg: arg.into(), expected: expected.to_string(), got: got.to_vec() }
    }

    /// An element type that is not accepted.
    pub fn dtype(arg: impl Into<Name>, expected: impl fmt::Display, got: DType) -> Self {
        Error::DType { arg: arg.into(), expected: expected.to_string(), got }
    }

    /// A value out of its range.
    pub fn argument(arg: impl Into<Name>, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Argument { arg: arg.into(), expected: expected.to_string(), got: got.to_string() }
    }

    /// An index out of its dimension.
    pub fn index(arg: impl Into<Name>, at: &[usize], index: usize, bound: usize) -> Self {
        Error::Index { arg: arg.into(), at: at.to_vec(), index, bound }
    }

    /// NaN or infinity at `index`.
    pub fn not_finite(arg: impl Into<Name>, index: &[usize], value: f64) -> Self {
        Error::NotFinite { arg: arg.into(), index: index.to_vec(), value }
    }

    /// No elements.
    pub fn empty(arg: impl Into<Name>) -> Self {
        Error::Empty { arg: arg.into() }
    }

    /// More `unit` needed than allowed.
    pub fn too_large(arg: impl Into<Name>, need: u64, limit: u64, unit: &'static str) -> Self {
        Error::TooLarge { arg: arg.into(), need, limit, unit }
    }

    /// A malformed line (counted from 1).
    pub fn parse_line(source: impl Into<String>, line: usize, message: impl fmt::Display) -> Self {
        Error::Parse { source: source.into(), at: Position::Line(line), message: message.to_string() }
    }

    /// A malformed byte (counted from 0).
    pub fn parse_byte(source: impl Into<String>, offset: u64, message: impl fmt::Display) -> Self {
        Error::Parse { source: source.into(), at: Position::Byte(offset), message: message.to_string() }
    }

    /// A malformed file.
    pub fn parse(source: impl Into<String>, message: impl fmt::Display) -> Self {
        Error::Parse { source: source.into(), at: Position::Whole, message: message.to_string() }
    }

    /// An error of the operating system on `path`.
    pub fn io(path: impl AsRef<Path>, error: &std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), kind: error.kind(), message: error.to_string() }
    }

    /// Something valid that is not offered.
    pub fn unsupported(what: impl Into<Name>, reason: impl fmt::Display) -> Self {
        Error::Unsupported { what: what.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { arg, expected, got } => write!(f, "{arg}: expected {expected}, got shape {got:?}"),
            Error::DType { arg, expected, got } => write!(f, "{arg}: expected {expected}, got {got}"),
            Error::Argument { arg, expected, got } => write!(f, "{arg}: expected {expected}, got {got}"),
            Error::Index { arg, at, index, bound } => {
                write!(f, "{arg}: expected indices below {bound}, got {index} at {at:?}")
            }
            Error::NotFinite { arg, index, value } => {
                write!(f, "{arg}: expected finite values, got {value} at {index:?}")
            }
            Error::Empty { arg } => write!(f, "{arg}: expected at least one element, got none"),
            Error::TooLarge { arg, need, limit, unit } => {
                write!(f, "{arg}: expected at most {limit} {unit}, needs {need}")
            }
            Error::Singular { arg, index } => {
                write!(f, "{arg}: singular or not positive definite at {index}")
            }
            Error::NotConverged { what, iterations, residual } => {
                write!(f, "{what}: not converged after {iterations} iterations (residual {residual:e})")
            }
            Error::Parse { source, at: Position::Line(line), message } => {
                write!(f, "{source}: line {line}: {message}")
            }
            Error::Parse { source, at: Position::Byte(byte), message } => {
                write!(f, "{source}: byte {byte}: {message}")
            }
            Error::Parse { source, at: Position::Whole, message } => write!(f, "{source}: {message}"),
            Error::Io { path, message, .. } => write!(f, "{}: {message}", path.display()),
            Error::Unsupported { what, reason } => write!(f, "{what}: not supported: {reason}"),
            Error::Device { device, message } => write!(f, "{device}: {message}"),
            Error::Cancelled => write!(f, "cancelled"),
        }
    }
}

impl std::error::Error for Error {}
