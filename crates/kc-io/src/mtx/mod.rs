//! Matrix Market `.mtx` files: sparse matrices as coordinates, dense ones as arrays.
//!
//! ```text
//! %%MatrixMarket matrix coordinate real symmetric      banner: layout, field, symmetry; case does not matter
//! % comments and blank lines may stand anywhere
//! 3 3 2                                                rows, columns, entries (an array has no third number)
//! 1 1 2.5                                              row, column (from 1), value; in any order
//! 3 1 -1e-3
//! ```
//!
//! | | |
//! |---|---|
//! | layout | `coordinate`, `array` (column by column) |
//! | field | `real` (also `double`), `integer` (also `unsigned-integer`), `complex`, `pattern` (coordinates only) |
//! | symmetry | `general`, `symmetric`, `skew-symmetric`, `hermitian` (complex only); all but general are square |
//!
//! [`Mtx`] holds what the file holds; [`Mtx::triplets`] mirrors what a symmetric file leaves out. An entry
//! that occurs twice is kept twice: whoever builds a matrix sums them. NaN and infinities are values.
//! Numbers are rounded correctly, as by `str::parse`; an exponent may be written with `d` as in Fortran.
//!
//! Every fault is a [`kc_core::Error::Parse`] with its line: a bad banner, a size that the symmetry does not
//! allow, a short or long line, an index of 0 or beyond the size, too few or too many entries, and entries
//! that contradict the symmetry (a diagonal of a skew-symmetric matrix that is not zero, or of a Hermitian
//! one that is not real). Memory is at most four times the file's length whatever its header claims, but the
//! claimed size itself is the file's word: check `rows` before allocating something per row.
//!
//! ```
//! use kc_io::mtx;
//!
//! let text = "%%MatrixMarket matrix coordinate real symmetric\n2 2 2\n1 1 4\n2 1 0.5\n";
//! let a = mtx::parse(text.as_bytes(), "a.mtx")?;
//! let full = a.triplets();
//! assert_eq!(full.row, [0, 1, 0]);
//! assert_eq!(full.col, [0, 0, 1]);
//! assert_eq!(full.values, mtx::Values::Real(vec![4.0, 0.5, 0.5]));
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: R. Boisvert, R. Pozo, K. Remington, The Matrix Market Exchange Formats: Initial Design (NISTIR
//! 5935, 1996).

mod expand;
mod parse;
mod write;

use std::path::Path;

use kc_core::{Complex, Result};

pub use parse::parse;
pub use write::write;

use crate::map;

/// The type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// Real numbers.
    Real,
    /// Integers.
    Integer,
    /// Complex numbers.
    Complex,
    /// Positions only.
    Pattern,
}

/// Which entries are left out because others say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Symmetry {
    /// None.
    #[default]
    General,
    /// a(j, i) = a(i, j).
    Symmetric,
    /// a(j, i) = -a(i, j), and the diagonal is zero.
    SkewSymmetric,
    /// a(j, i) is the conjugate of a(i, j), and the diagonal is real.
    Hermitian,
}

/// How the entries are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// Each with its position, in any order.
    Coordinate,
    /// All of them column by column; of a symmetric matrix the lower triangle, of a skew-symmetric one
    /// without the diagonal.
    Array,
}

/// The values of the entries, in their order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// Real numbers.
    Real(Vec<f64>),
    /// Integers.
    Integer(Vec<i64>),
    /// Complex numbers.
    Complex(Vec<Complex<f64>>),
    /// No values: every entry means one.
    Pattern,
}

/// A file's entries.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Entries {
    /// Entries with positions.
    Coordinate {
        /// Row of each entry, from 0.
        row: Vec<u32>,
        /// Column of each entry, from 0.
        col: Vec<u32>,
        /// Values; none for a pattern.
        values: Values,
    },
    /// The values of an array, in the order of [`Layout::Array`].
    Array(Values),
}

/// The contents of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Mtx {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Which entries are left out.
    pub symmetry: Symmetry,
    /// The entries that the file lists.
    pub entries: Entries,
}

/// A matrix as a list of entries: the form that sparse matrices are built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Triplets {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Row of each entry, from 0.
    pub row: Vec<u32>,
    /// Column of each entry, from 0.
    pub col: Vec<u32>,
    /// Values; none for a pattern.
    pub values: Values,
}

/// Reads a file through a memory map.
pub fn read(path: impl AsRef<Path>) -> Result<Mtx> {
    let path = path.as_ref();
    parse(&map::map(path)?, &path.display().to_string())
}

impl Values {
    /// The type of the values.
    pub fn field(&self) -> Field {
        match self {
            Values::Real(_) => Field::Real,
            Values::Integer(_) => Field::Integer,
            Values::Complex(_) => Field::Complex,
            Values::Pattern => Field::Pattern,
        }
    }

    /// The number of values; none for a pattern.
    fn len(&self) -> Option<usize> {
        match self {
            Values::Real(v) => Some(v.len()),
            Values::Integer(v) => Some(v.len()),
            Values::Complex(v) => Some(v.len()),
            Values::Pattern => None,
        }
    }
}

impl Field {
    /// The word of the banner.
    fn name(self) -> &'static str {
        match self {
            Field::Real => "real",
            Field::Integer => "integer",
            Field::Complex => "complex",
            Field::Pattern => "pattern",
        }
    }
}

impl Symmetry {
    /// The word of the banner.
    fn name(self) -> &'static str {
        match self {
            Symmetry::General => "general",
            Symmetry::Symmetric => "symmetric",
            Symmetry::SkewSymmetric => "skew-symmetric",
            Symmetry::Hermitian => "hermitian",
        }
    }

    /// The number of entries that an array lists, if it can be counted.
    fn array_len(self, rows: usize, cols: usize) -> Option<usize> {
        match self {
            Symmetry::General => rows.checked_mul(cols),
            Symmetry::Symmetric | Symmetry::Hermitian => {
                rows.checked_add(1).and_then(|n| rows.checked_mul(n)).map(|n| n / 2)
            }
            Symmetry::SkewSymmetric => rows.checked_mul(rows.saturating_sub(1)).map(|n| n / 2),
        }
    }
}

impl Mtx {
    /// The type of the values.
    pub fn field(&self) -> Field {
        match &self.entries {
            Entries::Coordinate { values, .. } | Entries::Array(values) => values.field(),
        }
    }

    /// How the entries are listed.
    pub fn layout(&self) -> Layout {
        match &self.entries {
            Entries::Coordinate { .. } => Layout::Coordinate,
            Entries::Array(_) => Layout::Array,
        }
    }
}
