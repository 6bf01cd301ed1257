//! Tables in the text formats of LDData: lattices, nets, direction numbers, and randomizations.
//!
//! A file begins with `#` and the name of its format. Header lines of one number each follow, then the data, mostly a
//! line for each dimension. `#` starts a comment; empty lines count for nothing.
//!
//! | Format | Header | Data |
//! |---|---|---|
//! | `lattice` | d, n | d lines: a component of the vector |
//! | `dnet` | base b, d, k (or b^k), r | d lines: k columns as integers of r digits, first row most significant |
//! | `plattice` | b, d, k (or b^k), modulus | d lines: a polynomial, coefficient of z^i at b^i |
//! | `soboljk` | - | a line from dimension 2 on: dimension, degree, inner coefficients, direction numbers |
//! | `sobol` | - | a line from dimension 2 on: direction numbers; the polynomials are the primitive ones in order |
//! | `shiftmod1` | d | d lines: a shift in `[0, 1)` |
//! | `dshift` | b, d, r | d lines: a shift as an integer of r digits |
//! | `lmscramble` | b, d, r | d lines: r columns as integers of r digits |
//! | `nuscramble` | b, d, r, or b, d, k, r | d lines: `b^k` blocks of random digits as integers of r digits |
//!
//! ```
//! use kc_qmc::table::Table;
//! let table = Table::parse("# lattice\n# the smallest of all\n2 # dimensions\n8\n1\n3\n", "demo")?;
//! assert_eq!(table, Table::Lattice { n: 8, vector: vec![1, 3] });
//! assert_eq!(Table::parse(&table.to_text(), "again")?, table);
//! # Ok::<(), kc_core::Error>(())
//! ```
//!
//! Source: P. L'Ecuyer and others, *Low Discrepancy Data*, <https://github.com/QMCSoftware/LDData>; S. Joe and
//! F. Y. Kuo (2008), whose own files are read as `soboljk` too.

use std::fmt::{Display, Write};

use kc_core::{Error, Result};

use crate::lattice::UserVector;
use crate::net2::{BitOrder, GeneratingMatrices};
use crate::netb::BaseMatrices;

mod polynomials;
mod text;

use text::Lines;

/// Columns and bits of the matrices that direction numbers are expanded to, as in the tables of Joe and Kuo.
const SOBOL_BITS: u32 = 32;

/// Dimensions from which on a file is refused.
const MOST_DIMS: usize = 1 << 20;

/// What a file holds. Integers of several digits hold the first digit in the most significant place.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Table {
    /// A rank-1 lattice of `n` points.
    Lattice {
        /// Points.
        n: u64,
        /// The generating vector.
        vector: Vec<u64>,
    },
    /// A digital net.
    Net {
        /// Base of the digits.
        base: u32,
        /// Digits of an entry.
        digits: u32,
        /// Columns of a matrix: `base^columns` points.
        columns: usize,
        /// Columns, matrix after matrix.
        matrices: Vec<u64>,
    },
    /// A polynomial lattice.
    PolynomialLattice {
        /// Base of the coefficients.
        base: u32,
        /// Degree of the modulus: `base^degree` points.
        degree: u32,
        /// The modulus.
        modulus: u64,
        /// The generating vector.
        generators: Vec<u64>,
    },
    /// Direction numbers of dimensions 2 and on of a Sobol' sequence.
    Sobol(Vec<Direction>),
    /// A shift modulo 1.
    Shift(Vec<f64>),
    /// A digital shift.
    DigitalShift {
        /// Base of the digits.
        base: u32,
        /// Digits of an entry.
        digits: u32,
        /// One entry for each dimension.
        values: Vec<u64>,
    },
    /// Matrices of a linear scramble.
    LinearScramble {
        /// Base of the digits.
        base: u32,
        /// Digits of an entry, and columns of a matrix.
        digits: u32,
        /// Columns, matrix after matrix.
        matrices: Vec<u64>,
    },
    /// Random digits of a nested scramble.
    NestedScramble {
        /// Base of the digits.
        base: u32,
        /// Digits of an entry.
        digits: u32,
        /// Entries for a dimension.
        points: usize,
        /// Entries, dimension after dimension.
        values: Vec<u64>,
    },
}

/// A primitive polynomial and the direction numbers that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direction {
    /// The coefficients between the first and the last, which are 1: bit `i` is that of `x^(i + 1)`.
    pub inner: u64,
    /// The first `m_1, m_2, ...`, as many as the degree; odd, `m_i < 2^i`.
    pub numbers: Vec<u64>,
}

impl Table {
    /// Reads a table. `source` names it in messages.
    ///
    /// # Errors
    /// `Parse` with line and column.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        let (format, mut lines) = Lines::new(text, source)?;
        let table = match format {
            "lattice" => {
                let dims = lines.dims()?;
                let n = lines.number(1, 1 << 52, "the number of points")?;
                Table::Lattice { n, vector: lines.column(dims, UserVector::BOUND)? }
            }
            "dnet" => {
                let (base, dims) = (lines.base()?, lines.dims()?);
                let columns = lines.exponent(base, Some(1))?;
                let digits = lines.digits()?;
                let rows = lines.rows(dims, Some(columns as usize), power(base, digits))?;
                Table::Net { base, digits, columns: columns as usize, matrices: rows }
            }
            "plattice" => {
                let (base, dims) = (lines.base()?, lines.dims()?);
                let degree = lines.exponent(base, None)?;
                let whole = power(base, degree);
                let top =
                    u64::try_from(whole.saturating_mul(base.into()).saturating_sub(1)).unwrap_or(u64::MAX);
                let least = u64::try_from(whole).unwrap_or(u64::MAX);
                let modulus = lines.number(least, top, "a polynomial of that degree")?;
                Table::PolynomialLattice { base, degree, modulus, generators: lines.column(dims, least)? }
            }
            "soboljk" => Table::Sobol(lines.directions(true)?),
            "sobol" => Table::Sobol(lines.directions(false)?),
            "shiftmod1" => {
                let dims = lines.dims()?;
                Table::Shift(lines.shifts(dims)?)
            }
            "dshift" => {
                let (base, dims, digits) = (lines.base()?, lines.dims()?, lines.digits()?);
                let values = lines.rows(dims, Some(1), power(base, digits))?;
                Table::DigitalShift { base, digits, values }
            }
            "lmscramble" => {
                let (base, dims, digits) = (lines.base()?, lines.dims()?, lines.digits()?);
                let matrices = lines.rows(dims, Some(digits as usize), power(base, digits))?;
                Table::LinearScramble { base, digits, matrices }
            }
            "nuscramble" => {
                let (base, dims) = (lines.base()?, lines.dims()?);
                // The number of points is sometimes given and sometimes not.
                let points = if lines.remaining() > dims + 1 {
                    let exponent = lines.exponent(base, None)?;
                    Some(usize::try_from(power(base, exponent)).unwrap_or(usize::MAX))
                } else {
                    None
                };
                let digits = lines.digits()?;
                let values = lines.rows(dims, points, power(base, digits))?;
                Table::NestedScramble { base, digits, points: values.len() / dims, values }
            }
            other => return Err(lines.unknown(other)),
        };
        lines.end()?;
        Ok(table)
    }

    /// A lattice of `n` points.
    ///
    /// # Errors
    /// No components, one of 2^51 or more, no points or more than 2^52.
    pub fn lattice(n: u64, vector: Vec<u64>) -> Result<Self> {
        if !(1..=1 << 52).contains(&n) {
            return Err(Error::argument("n", "1 to 2^52 points", n));
        }
        UserVector::new(vector.clone(), 0)?;
        Ok(Table::Lattice { n, vector })
    }

    /// A net in base 2 of `columns` columns per matrix, with as many digits as the largest entry.
    ///
    /// # Errors
    /// Matrices that are no net's.
    pub fn net(columns: usize, matrices: Vec<u64>) -> Result<Self> {
        let dims = matrices.len().checked_div(columns).unwrap_or(0);
        let checked = GeneratingMatrices::new([1, dims, columns], matrices.clone(), BitOrder::Msb)?;
        Ok(Table::Net { base: 2, digits: checked.bits(), columns, matrices })
    }

    /// A shift modulo 1.
    ///
    /// # Errors
    /// No coordinates, or one outside of `[0, 1)`.
    pub fn shift(shifts: Vec<f64>) -> Result<Self> {
        match shifts.iter().position(|shift| !(0.0..1.0).contains(shift)) {
            Some(at) => Err(Error::argument("shifts", "values in [0, 1)", format!("{} at {at}", shifts[at]))),
            None if shifts.is_empty() => Err(Error::empty("shifts")),
            None => Ok(Table::Shift(shifts)),
        }
    }

    /// The name of the format.
    pub fn format(&self) -> &'static str {
        match self {
            Table::Lattice { .. } => "lattice",
            Table::Net { .. } => "dnet",
            Table::PolynomialLattice { .. } => "plattice",
            Table::Sobol(_) => "soboljk",
            Table::Shift(_) => "shiftmod1",
            Table::DigitalShift { .. } => "dshift",
            Table::LinearScramble { .. } => "lmscramble",
            Table::NestedScramble { .. } => "nuscramble",
        }
    }

    /// Dimensions.
    pub fn dims(&self) -> usize {
        match self {
            Table::Lattice { vector, .. } => vector.len(),
            Table::Net { columns, matrices, .. } => matrices.len() / columns,
            Table::PolynomialLattice { generators, .. } => generators.len(),
            Table::Sobol(directions) => directions.len() + 1,
            Table::Shift(shifts) => shifts.len(),
            Table::DigitalShift { values, .. } => values.len(),
            Table::LinearScramble { digits, matrices, .. } => matrices.len() / *digits as usize,
            Table::NestedScramble { points, values, .. } => values.len() / points,
        }
    }

    /// The table as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("# {}\n", self.format());
        let dims = self.dims();
        match self {
            Table::Lattice { n, vector } => {
                header(&mut text, &[(dims as u64, "dimensions"), (*n, "points")]);
                data(&mut text, vector, 1);
            }
            Table::Net { base, digits, columns, matrices } => {
                let rows = [
                    (u64::from(*base), "base"),
                    (dims as u64, "dimensions"),
                    (*columns as u64, "columns of a matrix"),
                    (u64::from(*digits), "digits of an integer"),
                ];
                header(&mut text, &rows);
                data(&mut text, matrices, *columns);
            }
            Table::PolynomialLattice { base, degree, modulus, generators } => {
                let rows = [
                    (u64::from(*base), "base"),
                    (dims as u64, "dimensions"),
                    (u64::from(*degree), "degree of the modulus"),
                    (*modulus, "modulus"),
                ];
                header(&mut text, &rows);
                data(&mut text, generators, 1);
            }
            Table::Sobol(directions) => {
                for (dim, direction) in (2..).zip(directions) {
                    let _ = write!(text, "{dim} {} {} ", direction.numbers.len(), direction.inner);
                    data(&mut text, &direction.numbers, direction.numbers.len());
                }
            }
            Table::Shift(shifts) => {
                header(&mut text, &[(dims as u64, "dimensions")]);
                data(&mut text, shifts, 1);
            }
            Table::DigitalShift { base, digits, values } => {
                scramble_header(&mut text, *base, dims, *digits);
                data(&mut text, values, 1);
            }
            Table::LinearScramble { base, digits, matrices } => {
                scramble_header(&mut text, *base, dims, *digits);
                data(&mut text, matrices, *digits as usize);
            }
            Table::NestedScramble { base, digits, points, values } => {
                scramble_header(&mut text, *base, dims, *digits);
                data(&mut text, values, *points);
            }
        }
        text
    }

    /// The vector of a lattice, for `n` points or the next power of 2.
    ///
    /// # Errors
    /// `Unsupported` for another table; no components, one of 2^51 or more, or more than 2^52 points.
    pub fn to_vector(&self) -> Result<UserVector> {
        match self {
            Table::Lattice { n, vector } => {
                UserVector::new(vector.clone(), n.checked_next_power_of_two().map_or(64, u64::ilog2))
            }
            _ => Err(self.is_no("a lattice")),
        }
    }

    /// The matrices of a net in base 2, of a polynomial lattice, or of a Sobol' sequence (its first 32 bits).
    ///
    /// # Errors
    /// `Unsupported` for another table or base.
    pub fn to_matrices(&self) -> Result<GeneratingMatrices> {
        match self {
            Table::Net { base: 2, digits, columns, matrices } => {
                let shape = [1, matrices.len() / columns, *columns];
                GeneratingMatrices::with_bits(shape, matrices.clone(), *digits, BitOrder::Msb)
            }
            Table::PolynomialLattice { base: 2, degree, modulus, generators } => {
                GeneratingMatrices::polynomial_lattice(*modulus, generators, *degree)
            }
            Table::Sobol(directions) => {
                let bits = SOBOL_BITS as usize;
                let mut values: Vec<u64> = (0..SOBOL_BITS).map(|k| 1 << (SOBOL_BITS - 1 - k)).collect();
                values.extend(directions.iter().flat_map(Direction::columns));
                GeneratingMatrices::with_bits(
                    [1, directions.len() + 1, bits],
                    values,
                    SOBOL_BITS,
                    BitOrder::Msb,
                )
            }
            _ => Err(self.is_no("a net in base 2")),
        }
    }

    /// The matrices of a net in any base.
    ///
    /// # Errors
    /// `Unsupported` for another table.
    pub fn to_base_matrices(&self) -> Result<BaseMatrices> {
        let Table::Net { base, digits, columns, matrices } = self else {
            return Err(self.is_no("a net"));
        };
        let digit = |value: u64, k: u32| {
            let place = power(*base, digits - 1 - k);
            (u128::from(value) / place % u128::from(*base)) as u32
        };
        let values = matrices.iter().flat_map(|&value| (0..*digits).map(move |k| digit(value, k)));
        BaseMatrices::new(vec![*base; matrices.len() / columns], *columns, values.collect())
    }

    fn is_no(&self, what: &str) -> Error {
        Error::unsupported(format!("a table of format {}", self.format()), format!("{what} is needed here"))
    }
}

impl Direction {
    /// The columns of its matrix: for `k` from the degree `s` on,
    /// `m_k = m_(k-s) ^ 2^s m_(k-s) ^ XOR over i of a_i 2^i m_(k-i)`, with `a_i` the coefficient of `x^(s-i)`.
    fn columns(&self) -> Vec<u64> {
        let degree = self.numbers.len();
        let mut numbers = self.numbers.clone();
        for k in degree..SOBOL_BITS as usize {
            let oldest = numbers[k - degree];
            let mut next = oldest ^ oldest << degree;
            for i in 1..degree {
                if self.inner >> (degree - 1 - i) & 1 == 1 {
                    next ^= numbers[k - i] << i;
                }
            }
            numbers.push(next);
        }
        (0..SOBOL_BITS).zip(numbers).map(|(k, number)| number << (SOBOL_BITS - 1 - k)).collect()
    }
}

/// `base^exponent`, at most the largest number.
fn power(base: u32, exponent: u32) -> u128 {
    u128::from(base).saturating_pow(exponent)
}

fn scramble_header(text: &mut String, base: u32, dims: usize, digits: u32) {
    let rows =
        [(u64::from(base), "base"), (dims as u64, "dimensions"), (u64::from(digits), "digits of an integer")];
    header(text, &rows);
}

fn header(text: &mut String, rows: &[(u64, &str)]) {
    for (value, meaning) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{value} # {meaning}");
    }
}

/// `width` values in a line.
fn data(text: &mut String, values: &[impl Display], width: usize) {
    for line in values.chunks(width) {
        for (at, value) in line.iter().enumerate() {
            let _ = write!(text, "{}{value}", if at > 0 { " " } else { "" });
        }
        text.push('\n');
    }
}
