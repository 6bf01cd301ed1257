//! Many values of a coordinate, with the same bits as summing its digits one by one.
//!
//! The order in which an f64 sum adds its digits is part of the result, so sums cannot be regrouped, except at their
//! beginning. Rows come in blocks of `b^K`, in which the high digits of the index are constant:
//!
//! - The first digits of the point that only depend on the low digits of the index are summed once, for all blocks.
//! - Another digit is `(low(row) + high(block)) mod b`: `low` stands in a table of bytes, and the image of the digit
//!   times its power of b in a table that is written twice in a row, so that adding `high` is an offset.
//! - A digit without a low part is the same for the block: it is one addition of a constant, for many rows at once.
//! - Digits that are too small to change a sum of at least [`TINY`] are left out, and the few smaller sums are done
//!   digit by digit.
//!
//! In base 2 digits are added with exclusive or, and the first 53 of them are one exact integer (`binary.rs`). Bases above
//! 256 would need large tables and carry their digits from row to row instead.

use super::binary::Binary;
use super::coordinate::{Coordinate, DigitMap, powers};
use super::matrix::digits_of;

/// Sums below this are done digit by digit.
const TINY: f64 = 1.0 / 4096.0;

/// Half a unit in the last place of [`TINY`]: what is smaller changes no sum from there on.
const NEGLIGIBLE: f64 = TINY * f64::EPSILON / 2.0;

/// Rows of a block, at most.
const BLOCK: u64 = 1 << 10;

/// Rows that one step of a loop works on.
const ROWS: usize = 8;

/// The largest base whose digits are bytes.
const NARROW: u32 = 256;

/// A coordinate, prepared for many rows.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    coordinate: &'a Coordinate,
    /// Sums below this need all digits.
    tiny: f64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Binary(Binary),
    Narrow(Narrow),
    Wide(Wide),
}

#[derive(Debug)]
struct Narrow {
    /// Digits of the index that vary in a block, and how many rows that makes.
    low_digits: usize,
    block: u64,
    /// The sum of the first digits, for each row of a block.
    prefix: Vec<f64>,
    /// How many digits that is.
    prefix_digits: usize,
    /// What remains to be added: for each digit of the point, where its low parts begin, if it has any.
    low_at: Vec<Option<usize>>,
    low: Vec<u8>,
    /// Terms of the sum for each remaining digit, twice.
    terms: Vec<f64>,
}

#[derive(Debug)]
struct Wide {
    powers: Vec<f64>,
    /// Images of the digits, if they are not simply shifted by ...
    images: Vec<u16>,
    /// ... this.
    shift: Vec<u32>,
}

impl<'a> Plan<'a> {
    /// Prepares for about so many rows.
    pub(super) fn new(coordinate: &'a Coordinate, rows: u64) -> Self {
        let base = coordinate.matrix.base;
        if base == 2 {
            return Self { coordinate, tiny: 0.0, kind: Kind::Binary(Binary::new(coordinate)) };
        }
        let significant = coordinate.significant();
        let largest = f64::from(base - 1);
        let kept = powers(base).take(significant).take_while(|power| power * largest >= NEGLIGIBLE).count();
        let tiny = if kept < significant { TINY } else { 0.0 };
        let kind = if base <= NARROW {
            Kind::Narrow(Narrow::new(coordinate, kept, rows))
        } else {
            Kind::Wide(Wide::new(coordinate, kept))
        };
        Self { coordinate, tiny, kind }
    }

    /// Writes the values of the rows from `first` on.
    #[inline(always)]
    pub(super) fn fill(&self, first: u64, out: &mut [f64]) {
        match &self.kind {
            Kind::Binary(binary) => binary.fill(first, out),
            Kind::Narrow(narrow) => narrow.fill(self.coordinate, first, out),
            Kind::Wide(wide) => wide.fill(self.coordinate, first, out),
        }
        if self.tiny > 0.0 {
            for (i, value) in (first..).zip(out) {
                if *value < self.tiny {
                    *value = self.coordinate.value(i);
                }
            }
        }
    }
}

impl Narrow {
    fn new(coordinate: &Coordinate, kept: usize, rows: u64) -> Self {
        let matrix = &coordinate.matrix;
        let base = u64::from(matrix.base);
        let (mut low_digits, mut block) = (1, base);
        while block * base <= BLOCK && block < rows && low_digits < matrix.columns() {
            (low_digits, block) = (low_digits + 1, block * base);
        }
        let depends = |k: usize, columns: std::ops::Range<usize>| {
            k < matrix.rows && columns.into_iter().any(|c| matrix.column(c)[k] > 0)
        };
        let varies = |k: &usize| !depends(*k, low_digits..matrix.columns());
        let prefix_digits = (0..kept).take_while(varies).count();

        // Low parts of all digits of a row: those of a row without its first digit, and a column.
        let mut low = vec![0u8; kept * block as usize];
        for k in 0..kept.min(matrix.rows) {
            let low = &mut low[k * block as usize..][..block as usize];
            let mut filled = 1;
            for c in 0..low_digits {
                let step = u32::from(matrix.column(c)[k]);
                for at in filled..filled * base as usize {
                    low[at] = ((u32::from(low[at - filled]) + step) % matrix.base) as u8;
                }
                filled *= base as usize;
            }
        }
        let images = coordinate.images(kept);
        let terms_of = |k: usize, power: f64| {
            let images = &images[k * base as usize..][..base as usize];
            images.iter().map(move |&image| power * f64::from(image))
        };
        let mut prefix = vec![0.0; block as usize];
        let mut terms = Vec::with_capacity((kept - prefix_digits) * 2 * base as usize + NARROW as usize);
        for (k, power) in powers(matrix.base).take(kept).enumerate() {
            if k < prefix_digits {
                let terms: Vec<f64> = terms_of(k, power).collect();
                for (sum, &digit) in prefix.iter_mut().zip(&low[k * block as usize..]) {
                    *sum += terms[usize::from(digit)];
                }
            } else {
                terms.extend(terms_of(k, power));
                terms.extend_from_within(terms.len() - base as usize..);
            }
        }
        // Every window of NARROW terms is inside.
        terms.resize(terms.len() + NARROW as usize, 0.0);
        let has_low = |k: usize| depends(k, 0..low_digits).then_some(k * block as usize);
        let low_at = (prefix_digits..kept).map(has_low).collect();
        Self { low_digits, block, prefix, prefix_digits, low_at, low, terms }
    }

    #[inline(always)]
    fn fill(&self, coordinate: &Coordinate, first: u64, out: &mut [f64]) {
        let mut rest = out;
        let mut row = first;
        let mut steps = Vec::with_capacity(self.low_at.len());
        let mut constants = Vec::with_capacity(self.low_at.len());
        while !rest.is_empty() {
            let start = (row % self.block) as usize;
            let (now, later) = rest.split_at_mut((self.block as usize - start).min(rest.len()));
            let mixed = self.steps(coordinate, row / self.block, &mut steps);
            now.copy_from_slice(&self.prefix[start..start + now.len()]);
            if mixed {
                self.add(start, &steps, now);
            } else {
                constants.clear();
                constants.extend(steps.iter().map(|&(_, at)| self.terms[at]).filter(|&c| c != 0.0));
                add_constants(&constants, now);
            }
            row += now.len() as u64;
            rest = later;
        }
    }

    /// For each remaining digit in the `h`-th block: where its low parts and its terms begin. True if any has low
    /// parts.
    fn steps(&self, coordinate: &Coordinate, h: u64, steps: &mut Vec<(Option<usize>, usize)>) -> bool {
        let matrix = &coordinate.matrix;
        let mut high = [0u32; super::matrix::MOST_DIGITS];
        let high = &mut high[..matrix.rows];
        for (c, digit) in (self.low_digits..matrix.columns()).zip(digits_of(h, matrix.base)) {
            if digit > 0 {
                matrix.add(c, digit, high);
            }
        }
        steps.clear();
        let mut mixed = false;
        for (at, &low) in self.low_at.iter().enumerate() {
            let high = high.get(self.prefix_digits + at).map_or(0, |&digit| digit as usize);
            steps.push((low, at * 2 * matrix.base as usize + high));
            mixed |= low.is_some();
        }
        mixed
    }

    /// Adds the remaining digits to the sums of rows `start` and on of a block.
    #[inline(always)]
    fn add(&self, start: usize, steps: &[(Option<usize>, usize)], sums: &mut [f64]) {
        let window = |at: usize| self.terms[at..].first_chunk::<{ NARROW as usize }>();
        let mut groups = sums.chunks_exact_mut(ROWS);
        let mut row = start;
        for group in groups.by_ref() {
            let mut sum = [0.0; ROWS];
            sum.copy_from_slice(group);
            for &(low, at) in steps {
                let Some(terms) = window(at) else { continue };
                match low.and_then(|low| self.low[low + row..].first_chunk::<ROWS>()) {
                    Some(low) => (0..ROWS).for_each(|q| sum[q] += terms[usize::from(low[q])]),
                    None => sum.iter_mut().for_each(|sum| *sum += terms[0]),
                }
            }
            group.copy_from_slice(&sum);
            row += ROWS;
        }
        for sum in groups.into_remainder() {
            for &(low, at) in steps {
                *sum += self.terms[at + low.map_or(0, |low| usize::from(self.low[low + row]))];
            }
            row += 1;
        }
    }
}

/// Adds the constants to every sum, one after another.
#[inline(always)]
fn add_constants(constants: &[f64], sums: &mut [f64]) {
    const WIDE: usize = 4 * ROWS;
    let mut groups = sums.chunks_exact_mut(WIDE);
    for group in groups.by_ref() {
        let mut sum = [0.0; WIDE];
        sum.copy_from_slice(group);
        for constant in constants {
            sum.iter_mut().for_each(|sum| *sum += constant);
        }
        group.copy_from_slice(&sum);
    }
    for sum in groups.into_remainder() {
        constants.iter().for_each(|constant| *sum += constant);
    }
}

impl Wide {
    fn new(coordinate: &Coordinate, kept: usize) -> Self {
        let shift = match &coordinate.map {
            DigitMap::Shift(shift) => shift[..kept].iter().map(|&s| u32::from(s)).collect(),
            _ => vec![0; kept],
        };
        let images =
            if let DigitMap::Permute(_) = coordinate.map { coordinate.images(kept) } else { Vec::new() };
        Self { powers: powers(coordinate.matrix.base).take(kept).collect(), images, shift }
    }

    /// The digits of a row are those of the row before plus a column, unless the index carries.
    fn fill(&self, coordinate: &Coordinate, first: u64, out: &mut [f64]) {
        let matrix = &coordinate.matrix;
        let base = matrix.base;
        let kept = self.powers.len();
        let mut step = vec![0; kept];
        for (slot, &v) in step.iter_mut().zip(matrix.column(0)) {
            *slot = u32::from(v);
        }
        let mut digits = vec![0; kept];
        for (i, value) in (first..).zip(out) {
            if i == first || i.is_multiple_of(base.into()) {
                digits.fill(0);
                for (slot, (digit, shift)) in digits.iter_mut().zip(matrix.digits(i).iter().zip(&self.shift))
                {
                    *slot = (digit + shift) % base;
                }
                for (slot, shift) in digits.iter_mut().zip(&self.shift).skip(matrix.rows) {
                    *slot = *shift;
                }
            } else {
                for (slot, step) in digits.iter_mut().zip(&step) {
                    *slot += step;
                    *slot -= if *slot >= base { base } else { 0 };
                }
            }
            let mut sum = 0.0;
            if self.images.is_empty() {
                for (&digit, power) in digits.iter().zip(&self.powers) {
                    sum += power * f64::from(digit);
                }
            } else {
                let images = self.images.chunks_exact(base as usize);
                for ((&digit, power), images) in digits.iter().zip(&self.powers).zip(images) {
                    sum += power * f64::from(images[digit as usize]);
                }
            }
            *value = sum;
        }
    }
}
