//! The hot loops in safe code that autovectorises.
//!
//! All comparisons of magnitudes are made on the bits of `|x|`: as integers they order like the numbers, and
//! infinities and NaN come out on top of every finite value, so one maximum finds both the largest magnitude
//! and whether everything is finite.

/// Elements of one step of a loop.
const BLOCK: usize = 16;

/// Clears the sign.
pub(super) const ABS: u32 = 0x7fff_ffff;

/// `1.5 * 2^23`: adding it rounds a number below `2^22` half to even, and leaves the integer, modulo 256, in
/// the lowest byte of the sum.
const MAGIC: f32 = 12_582_912.0;

/// A quotient needs to be computed only if its estimate exceeds the maximum so far times this.
pub(super) const SLACK: f32 = 1.0 - 1.0 / (1u32 << 21) as f32;

/// What one row's encoding met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowCounts {
    /// Codes that are 0.
    pub(super) zeros: usize,
    /// Inputs that are 0.
    pub(super) exact_zeros: usize,
    /// Codes that were beyond the range and became its end.
    pub(super) clipped: usize,
    /// Inputs other than 0 whose step is 0.
    pub(super) lost: usize,
}

impl RowCounts {
    pub(super) fn add(&mut self, other: Self) {
        self.zeros += other.zeros;
        self.exact_zeros += other.exact_zeros;
        self.clipped += other.clipped;
        self.lost += other.lost;
    }
}

/// The larger one; `b` if one is NaN. Compiles to one instruction, unlike `f32::max`.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `v` in `±high`.
#[inline(always)]
fn clamp(v: f32, high: f32) -> f32 {
    let v = larger(v, -high);
    if v < high { v } else { high }
}

/// Raises `columns[j]` to the bits of `|row[j]|` for each of `R` rows; returns each row's largest bits.
/// Rows are as long as `columns`. Inlined into the functions that [`super::x86`] compiles for wider vectors.
#[inline(always)]
pub(super) fn maxima<const R: usize>(rows: [&[f32]; R], columns: &mut [u32]) -> [u32; R] {
    let k = columns.len();
    let rows = rows.map(|row| &row[..k]);
    let mut lanes = [[0u32; BLOCK]; R];
    let (blocks, tail) = columns.as_chunks_mut::<BLOCK>();
    let done = blocks.len() * BLOCK;
    for (b, block) in blocks.iter_mut().enumerate() {
        for r in 0..R {
            let x = &rows[r][b * BLOCK..b * BLOCK + BLOCK];
            for l in 0..BLOCK {
                let bits = x[l].to_bits() & ABS;
                lanes[r][l] = lanes[r][l].max(bits);
                block[l] = block[l].max(bits);
            }
        }
    }
    let mut top = lanes.map(|lanes| lanes.into_iter().fold(0, u32::max));
    for (j, column) in tail.iter_mut().enumerate() {
        for r in 0..R {
            let bits = rows[r][done + j].to_bits() & ABS;
            top[r] = top[r].max(bits);
            *column = (*column).max(bits);
        }
    }
    top
}

/// The largest bits of `|x|` in a row.
pub(super) fn row_maximum(row: &[f32]) -> u32 {
    let mut lanes = [0u32; BLOCK];
    let (blocks, tail) = row.as_chunks::<BLOCK>();
    for block in blocks {
        for l in 0..BLOCK {
            lanes[l] = lanes[l].max(block[l].to_bits() & ABS);
        }
    }
    let rest = tail.iter().fold(0, |m: u32, x| m.max(x.to_bits() & ABS));
    lanes.into_iter().fold(rest, u32::max)
}

/// The largest `|x[j]| / d[j]`, each quotient rounded to f32, and the largest bits of `|x|`. `inverse[j]` is
/// `1 / d[j]`, and both are normal numbers far from the ends of the range (or `d[j]` is infinite and `inverse[j]`
/// 0, for columns that count for nothing).
///
/// A division is made only where the product with the inverse, whose relative error is below `2^-22`, says
/// that the quotient could raise the maximum: the result is that of dividing everywhere.
pub(super) fn ratio(x: &[f32], d: &[f32], inverse: &[f32]) -> (f32, u32) {
    let k = x.len();
    let (d, inverse) = (&d[..k], &inverse[..k]);
    let mut top = 0.0f32;
    let (blocks, tail) = x.as_chunks::<BLOCK>();
    for (b, block) in blocks.iter().enumerate() {
        let inverse = &inverse[b * BLOCK..b * BLOCK + BLOCK];
        let mut any = false;
        for l in 0..BLOCK {
            any |= block[l].abs() * inverse[l] > top * SLACK;
        }
        if any {
            let d = &d[b * BLOCK..b * BLOCK + BLOCK];
            for l in 0..BLOCK {
                top = larger(block[l].abs() / d[l], top);
            }
        }
    }
    let done = blocks.len() * BLOCK;
    (larger(top, ratio_each(tail, &d[done..])), row_maximum(x))
}

/// The quotient of [`ratio`], for any `d`: columns of 0 count for nothing.
pub(super) fn ratio_each(x: &[f32], d: &[f32]) -> f32 {
    x.iter().zip(d).filter(|(_, d)| **d > 0.0).map(|(x, d)| x.abs() / d).fold(0.0, larger)
}

/// Codes of one row: `out[j]` is `x[j] / (r * d[j])`, half to even, clamped to `±limit`. Does not count what
/// is lost.
///
/// Every `r * d[j]` must be a normal number, or infinite for the columns whose codes are to be 0. Inputs are
/// finite.
pub(super) fn encode(x: &[f32], r: f32, d: &[f32], limit: i8, out: &mut [i8]) -> RowCounts {
    let k = out.len();
    let (x, d) = (&x[..k], &d[..k]);
    let high = f32::from(limit);
    let (blocks, tail) = out.as_chunks_mut::<BLOCK>();
    let done = blocks.len() * BLOCK;
    let mut counts = RowCounts::default();
    let mut top = [0.0f32; BLOCK];
    for ((block, x), d) in blocks.iter_mut().zip(x.as_chunks::<BLOCK>().0).zip(d.as_chunks::<BLOCK>().0) {
        let mut v = [0.0f32; BLOCK];
        for l in 0..BLOCK {
            v[l] = x[l] / (r * d[l]);
        }
        let mut word = [0u32; BLOCK];
        for l in 0..BLOCK {
            top[l] = larger(v[l].abs(), top[l]);
            word[l] = (clamp(v[l], high) + MAGIC).to_bits();
        }
        *block = word.map(|w| w as i8);
        counts.zeros += usize::from(block.iter().map(|q| u8::from(*q == 0)).sum::<u8>());
        counts.exact_zeros += x.iter().map(|x| u32::from(*x == 0.0)).sum::<u32>() as usize;
    }
    let beyond = beyond(limit);
    // Clipping is rare; a count in the loop above keeps it from becoming vectors.
    if top.into_iter().any(|v| v >= beyond) {
        counts.clipped = x[..done].iter().zip(d).filter(|(x, d)| (*x / (r * *d)).abs() >= beyond).count();
    }
    encode_each(&x[done..], r, &d[done..], limit, tail, &mut counts);
    counts
}

/// The smallest magnitude whose code is clipped. The codes at the ends of the range are odd, so exactly half
/// beyond them rounds away from it.
pub(super) fn beyond(limit: i8) -> f32 {
    f32::from(limit) + 0.5
}

/// The definition, element by element: for the ends of rows, and for factors so small or large that their
/// products leave the normal range.
pub(super) fn encode_each(x: &[f32], r: f32, d: &[f32], limit: i8, out: &mut [i8], counts: &mut RowCounts) {
    let high = f32::from(limit);
    for ((x, d), code) in x.iter().zip(d).zip(out) {
        let delta = r * d;
        let v = if delta == 0.0 { 0.0 } else { x / delta };
        counts.exact_zeros += usize::from(*x == 0.0);
        counts.lost += usize::from(delta == 0.0 && *x != 0.0);
        counts.clipped += usize::from(v.abs() >= beyond(limit));
        *code = (clamp(v, high) + MAGIC).to_bits() as i8;
        counts.zeros += usize::from(*code == 0);
    }
}
