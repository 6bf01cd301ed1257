//! Lines and numbers of a table, with their places for messages.

use std::fmt::Display;

use kc_core::{Error, Result};

use super::{Direction, MOST_DIMS, SOBOL_BITS, polynomials};

/// A line without its comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Counted from 1.
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// Words with the column at which they start, counted from 1 in characters.
    fn words(self) -> impl Iterator<Item = (usize, &'a str)> {
        let start = self.text.as_ptr() as usize;
        self.text.split_whitespace().map(move |word| {
            let at = word.as_ptr() as usize - start;
            (self.text.get(..at).map_or(at, |before| before.chars().count()) + 1, word)
        })
    }
}

/// The lines that are not empty.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    source: &'a str,
    lines: std::vec::IntoIter<Line<'a>>,
    /// The last line, for a file that ends too early.
    last: usize,
}

/// The largest base.
const MOST_BASE: u64 = 1 << 16;

impl<'a> Lines<'a> {
    /// The format, which the first line names, and the lines after it.
    pub(super) fn new(text: &'a str, source: &'a str) -> Result<(&'a str, Self)> {
        let mut format = None;
        let mut lines = Vec::new();
        let mut last = 1;
        for (at, whole) in text.lines().enumerate() {
            last = at + 1;
            let (before, comment) = match whole.split_once('#') {
                Some((before, comment)) => (before, Some(comment)),
                None => (whole, None),
            };
            let line = Line { number: last, text: before };
            let blank = before.trim().is_empty();
            if format.is_none() {
                if let (true, Some(comment)) = (blank, comment) {
                    format = comment.split_whitespace().next();
                    continue;
                }
                // The header of Joe and Kuo's own files.
                if before.split_whitespace().eq(["d", "s", "a", "m_i"]) {
                    format = Some("soboljk");
                    continue;
                }
                if !blank {
                    let message = "column 1: expected # and the name of a format, for instance # lattice";
                    return Err(Error::parse_line(source, last, message));
                }
            } else if !blank {
                lines.push(line);
            }
        }
        let Some(format) = format else {
            return Err(Error::parse_line(
                source,
                last,
                "column 1: expected # and the name of a format, got nothing",
            ));
        };
        Ok((format, Self { source, lines: lines.into_iter(), last }))
    }

    /// Lines that have not been read.
    pub(super) fn remaining(&self) -> usize {
        self.lines.len()
    }

    fn error(&self, line: usize, column: usize, message: impl Display) -> Error {
        Error::parse_line(self.source, line, format_args!("column {column}: {message}"))
    }

    /// The error of a format that nobody knows.
    pub(super) fn unknown(&self, format: &str) -> Error {
        let known = "lattice, dnet, plattice, sobol, soboljk, shiftmod1, dshift, lmscramble or nuscramble";
        let shown: String = format.chars().take(40).collect();
        self.error(1, 1, format_args!("expected the format {known}, got {shown}"))
    }

    fn next(&mut self, what: impl Display) -> Result<Line<'a>> {
        let line = self.lines.next();
        line.ok_or_else(|| self.error(self.last, 1, format_args!("expected {what}, but the file ends here")))
    }

    fn parse<T: std::str::FromStr>(
        &self,
        line: Line<'_>,
        (column, word): (usize, &str),
        what: &str,
    ) -> Result<T> {
        word.parse().map_err(|_| {
            let shown: String = word.chars().take(40).collect();
            self.error(line.number, column, format_args!("expected {what}, got {shown}"))
        })
    }

    /// The only word of the next line.
    fn single(&mut self, what: &str) -> Result<(Line<'a>, (usize, &'a str))> {
        let line = self.next(what)?;
        let mut words = line.words();
        match (words.next(), words.next()) {
            (Some(word), None) => Ok((line, word)),
            (_, Some((column, _))) => {
                Err(self.error(line.number, column, format_args!("expected only {what}")))
            }
            (None, None) => Err(self.error(line.number, 1, format_args!("expected {what}"))),
        }
    }

    /// A line with an integer.
    pub(super) fn number(&mut self, least: u64, most: u64, what: &str) -> Result<u64> {
        let (line, word) = self.single(what)?;
        let value = self.parse(line, word, what)?;
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(self.error(line.number, word.0, format_args!("expected {what}, {least} to {most}, got {value}")))
    }

    pub(super) fn dims(&mut self) -> Result<usize> {
        Ok(self.number(1, MOST_DIMS as u64, "the number of dimensions")? as usize)
    }

    pub(super) fn base(&mut self) -> Result<u32> {
        Ok(self.number(2, MOST_BASE, "the base")? as u32)
    }

    pub(super) fn digits(&mut self) -> Result<u32> {
        Ok(self.number(1, 64, "the number of digits")? as u32)
    }

    /// An exponent `k`, or the power `base^k`. The number of columns tells which, if the `data`-th line after this one
    /// has them.
    pub(super) fn exponent(&mut self, base: u32, data: Option<usize>) -> Result<u32> {
        let what = "an exponent k from 1 to 64, or the base to that power";
        let (line, word) = self.single(what)?;
        let value: u128 = self.parse(line, word, what)?;
        let line_of_data = data.and_then(|at| self.lines.as_slice().get(at));
        let width = line_of_data.map_or(0, |line| line.words().count() as u32);
        let exponent = match value {
            1..=64 if width > 0 && value != width.into() && super::power(base, width) == value => Some(width),
            1..=64 => Some(value as u32),
            _ => (1..=64).find(|&k| super::power(base, k) == value),
        };
        exponent.ok_or_else(|| self.error(line.number, word.0, format_args!("expected {what}, got {value}")))
    }

    /// `dims` lines of one integer below `bound`.
    pub(super) fn column(&mut self, dims: usize, bound: u64) -> Result<Vec<u64>> {
        self.rows(dims, Some(1), bound.into())
    }

    /// `dims` lines of `width` integers below `bound`; without a width, that of the first line.
    pub(super) fn rows(&mut self, dims: usize, mut width: Option<usize>, bound: u128) -> Result<Vec<u64>> {
        let mut values = Vec::new();
        for dim in 1..=dims {
            let line = self.next(format_args!("the numbers of dimension {dim} of {dims}"))?;
            let before = values.len();
            let mut end = 1;
            for (column, word) in line.words() {
                end = column + word.len();
                if width.is_some_and(|width| values.len() - before == width) {
                    let message = format_args!("expected only {} numbers", width.unwrap_or(0));
                    return Err(self.error(line.number, column, message));
                }
                let value: u64 = self.parse(line, (column, word), "an integer")?;
                if u128::from(value) >= bound {
                    let message = format_args!("expected an integer below {bound}, got {value}");
                    return Err(self.error(line.number, column, message));
                }
                values.push(value);
            }
            let count = values.len() - before;
            let width = *width.get_or_insert(count);
            if count != width {
                return Err(self.error(
                    line.number,
                    end,
                    format_args!("expected {width} numbers, got {count}"),
                ));
            }
        }
        Ok(values)
    }

    /// `dims` lines of a shift.
    pub(super) fn shifts(&mut self, dims: usize) -> Result<Vec<f64>> {
        let what = "a shift in [0, 1)";
        let mut shifts = Vec::new();
        for _ in 0..dims {
            let (line, word) = self.single(what)?;
            let shift: f64 = self.parse(line, word, what)?;
            if !(0.0..1.0).contains(&shift) {
                return Err(self.error(line.number, word.0, format_args!("expected {what}, got {shift}")));
            }
            shifts.push(shift);
        }
        Ok(shifts)
    }

    /// Direction numbers; `whole` lines also have dimension, degree and polynomial.
    pub(super) fn directions(&mut self, whole: bool) -> Result<Vec<Direction>> {
        let mut directions = Vec::new();
        let mut known = polynomials::Primitive::new();
        while let Some(line) = self.lines.next() {
            if directions.len() + 2 > MOST_DIMS {
                return Err(self.error(
                    line.number,
                    1,
                    format_args!("expected at most {MOST_DIMS} dimensions"),
                ));
            }
            let mut numbers = Vec::new();
            let mut end = 1;
            for (column, word) in line.words() {
                end = column + word.len();
                if numbers.len() > SOBOL_BITS as usize + 3 {
                    return Err(self.error(line.number, column, "expected at most 32 direction numbers"));
                }
                numbers.push((column, self.parse::<u64>(line, (column, word), "an integer")?));
            }
            let inner = if whole {
                let [(at_dim, dim), (at_degree, degree), (at_inner, inner), ..] = numbers[..] else {
                    return Err(self.error(
                        line.number,
                        end,
                        "expected dimension, degree, polynomial and numbers",
                    ));
                };
                if dim != directions.len() as u64 + 2 {
                    let message = format_args!("expected dimension {}, got {dim}", directions.len() + 2);
                    return Err(self.error(line.number, at_dim, message));
                }
                numbers.drain(..3);
                if !(1..=u64::from(SOBOL_BITS)).contains(&degree) || degree != numbers.len() as u64 {
                    let message =
                        format_args!("expected the degree {} of the numbers, got {degree}", numbers.len());
                    return Err(self.error(line.number, at_degree, message));
                }
                if inner >> (degree - 1) != 0 {
                    let message = format_args!("expected coefficients below 2^{}, got {inner}", degree - 1);
                    return Err(self.error(line.number, at_inner, message));
                }
                inner
            } else {
                let Some((degree, inner)) = known.next() else {
                    return Err(self.error(
                        line.number,
                        1,
                        "expected no more dimensions than polynomials are known",
                    ));
                };
                if degree as usize != numbers.len() {
                    let message = format_args!("expected {degree} numbers, the degree of the polynomial");
                    return Err(self.error(line.number, end, message));
                }
                inner
            };
            for (i, &(column, number)) in (1..).zip(&numbers) {
                if number.is_multiple_of(2) || number >> i != 0 {
                    let message = format_args!("expected an odd number below 2^{i}, got {number}");
                    return Err(self.error(line.number, column, message));
                }
            }
            directions
                .push(Direction { inner, numbers: numbers.into_iter().map(|(_, number)| number).collect() });
        }
        Ok(directions)
    }

    /// That nothing is left.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.lines.next() {
            None => Ok(()),
            Some(line) => {
                let column = line.words().next().map_or(1, |(column, _)| column);
                Err(self.error(line.number, column, "expected the end of the file"))
            }
        }
    }
}
