//! Products in safe code: a row at a time, from the signs as they are stored.

use super::bcq::BcqMatrix;
use super::pack::{Layout, OCTET, octet};
use super::table::{Entries, sums4};

/// Tables of 16 sums for each four activations.
pub(super) fn float_tables(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<16>().0) {
        *out = sums4(x);
    }
}

/// `sum_g (sum_b alpha part(g, b) + offset sum_g x)` of row `n`.
#[inline(always)]
fn row(w: &BcqMatrix, n: usize, sums: &[f32], part: impl Fn(usize, &[u8]) -> f32) -> f32 {
    let mut y = 0.0;
    for (g, &sum) in sums.iter().enumerate() {
        for (b, &scale) in w.group_scales(n, g).iter().enumerate() {
            y += scale * part(g, w.plane_row(b, n));
        }
        y += w.offset(n, g) * sum;
    }
    y
}

/// Row `n` by tables of f32, 32 entries for an octet.
pub(super) fn float_row(w: &BcqMatrix, layout: Layout, n: usize, tables: &[f32], sums: &[f32]) -> f32 {
    row(w, n, sums, |g, signs| {
        let tables = &tables[32 * layout.first_octet(g)..];
        let mut sum = 0.0;
        for o in 0..layout.group_octets(g) {
            let byte = usize::from(octet(signs, g * layout.group + OCTET * o));
            sum += tables[32 * o + byte % 16] + tables[32 * o + 16 + byte / 16];
        }
        sum
    })
}

/// Row `n` by tables of integers, each group with its scale.
pub(super) fn integer_row<E: Entries>(
    w: &BcqMatrix,
    layout: Layout,
    n: usize,
    tables: &[u8],
    scales: &[f32],
    sums: &[f32],
) -> f32 {
    row(w, n, sums, |g, signs| {
        let tables = &tables[E::BYTES * layout.first_octet(g)..];
        let octets = layout.group_octets(g);
        let mut sum = 0i64;
        for (o, table) in tables.chunks_exact(E::BYTES).take(octets).enumerate() {
            sum += i64::from(E::sum(table, octet(signs, g * layout.group + OCTET * o)) - 2 * E::BIAS);
        }
        scales[g] * sum as f32
    })
}

/// Row `n` by the tables of eight activations, `[ceil(K/8), 256]`; bytes that two groups share are split.
pub(super) fn literal_row(
    w: &BcqMatrix,
    layout: Layout,
    n: usize,
    x: &[f32],
    tables: &[f32],
    sums: &[f32],
) -> f32 {
    row(w, n, sums, |g, signs| {
        let (start, end) = (g * layout.group, layout.columns.min((g + 1) * layout.group));
        let mut sum = 0.0;
        let mut column = start;
        while column < end {
            let j = column / 8;
            // The zeros behind the last column are in its table.
            let last = if end == layout.columns { end.next_multiple_of(8) } else { end };
            if column.is_multiple_of(8) && column + 8 <= last {
                sum += tables[256 * j + usize::from(signs[j])];
                column += 8;
            } else {
                sum += if signs[j] >> (column % 8) & 1 == 1 { x[column] } else { -x[column] };
                column += 1;
            }
        }
        sum
    })
}

/// Rows that are reconstructed side by side.
pub(super) const LINES: usize = 16;

/// A group of up to 16 rows, to be reconstructed.
#[derive(Debug)]
pub(super) struct Block {
    /// The offset of each row.
    pub(super) offsets: [f32; LINES],
    /// Bits of minus the scales.
    pub(super) scales: [[u32; LINES]; 8],
    /// 32 columns of signs, the first at bit 0.
    pub(super) signs: [[u32; LINES]; 8],
}

/// The values at columns `first..first + panel.len() / width` of the signs, written to the first rows of lines of
/// `width`. Inlined into the function that [`super::x86`] compiles for wider vectors.
#[inline(always)]
pub(super) fn reconstruct(block: &Block, bits: usize, first: u32, width: usize, panel: &mut [f32]) {
    for (t, line) in panel.chunks_mut(width).enumerate() {
        let shift = 31 - (first + t as u32);
        let mut values = block.offsets;
        for b in 0..bits {
            for ((value, signs), scale) in values.iter_mut().zip(&block.signs[b]).zip(&block.scales[b]) {
                // A sign of +1 turns minus the scale around.
                *value += f32::from_bits(scale ^ (signs << shift & 0x8000_0000));
            }
        }
        let used = line.len().min(LINES);
        line[..used].copy_from_slice(&values[..used]);
    }
}
