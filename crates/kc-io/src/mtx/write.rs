//! The writer.

use std::io::{self, Write};
use std::path::Path;

use kc_core::{Error, Result};

use super::{Entries, Field, Layout, Mtx, Symmetry, Values};
use crate::atomic;

/// Writes a file. Numbers are the shortest that read back to the same bits.
pub fn write(path: impl AsRef<Path>, matrix: &Mtx) -> Result<()> {
    matrix.check()?;
    let path = path.as_ref();
    atomic::write(path, |out| matrix.print(out).map_err(|error| Error::io(path, &error)))
}

impl Mtx {
    /// Whatever a caller builds must be a file that reads back.
    fn check(&self) -> Result<()> {
        let (rows, cols) = (self.rows, self.cols);
        if self.symmetry != Symmetry::General && rows != cols {
            return Err(Error::shape("matrix", "a square one for its symmetry", &[rows, cols]));
        }
        let field = self.field();
        let fits = match self.symmetry {
            Symmetry::Hermitian => field == Field::Complex,
            Symmetry::SkewSymmetric => field != Field::Pattern,
            _ => true,
        };
        if !fits || (self.layout() == Layout::Array && field == Field::Pattern) {
            let got = format!("{:?} {} {}", self.layout(), field.name(), self.symmetry.name());
            return Err(Error::argument("matrix", "a field that its layout and symmetry allow", got));
        }
        match &self.entries {
            Entries::Coordinate { row, col, values } => {
                let lengths = [row.len(), col.len(), values.len().unwrap_or(row.len())];
                if lengths.iter().any(|&n| n != row.len()) {
                    return Err(Error::shape("entries", "rows, columns and values of one length", &lengths));
                }
                for (arg, index, bound) in [("row", row, rows), ("col", col, cols)] {
                    if let Some(at) = index.iter().position(|&i| i as usize >= bound) {
                        return Err(Error::index(arg, &[at], index[at] as usize, bound));
                    }
                }
                Ok(())
            }
            Entries::Array(values) => {
                let want = self.symmetry.array_len(rows, cols);
                if want != values.len() {
                    let got = values.len().unwrap_or(0);
                    return Err(Error::shape("entries", format!("{want:?} values"), &[got]));
                }
                Ok(())
            }
        }
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let layout = match self.layout() {
            Layout::Coordinate => "coordinate",
            Layout::Array => "array",
        };
        writeln!(out, "%%MatrixMarket matrix {layout} {} {}", self.field().name(), self.symmetry.name())?;
        write!(out, "{} {}", self.rows, self.cols)?;
        match &self.entries {
            Entries::Coordinate { row, col, values } => {
                writeln!(out, " {}", row.len())?;
                let at = row.iter().zip(col).map(|(i, j)| (u64::from(*i) + 1, u64::from(*j) + 1));
                match values {
                    Values::Real(v) => at.zip(v).try_for_each(|((i, j), x)| writeln!(out, "{i} {j} {x:?}")),
                    Values::Integer(v) => at.zip(v).try_for_each(|((i, j), x)| writeln!(out, "{i} {j} {x}")),
                    Values::Complex(v) => {
                        at.zip(v).try_for_each(|((i, j), z)| writeln!(out, "{i} {j} {:?} {:?}", z.re, z.im))
                    }
                    Values::Pattern => at.into_iter().try_for_each(|(i, j)| writeln!(out, "{i} {j}")),
                }
            }
            Entries::Array(values) => {
                writeln!(out)?;
                match values {
                    Values::Real(v) => v.iter().try_for_each(|x| writeln!(out, "{x:?}")),
                    Values::Integer(v) => v.iter().try_for_each(|x| writeln!(out, "{x}")),
                    Values::Complex(v) => v.iter().try_for_each(|z| writeln!(out, "{:?} {:?}", z.re, z.im)),
                    Values::Pattern => Ok(()),
                }
            }
        }
    }
}
