//! The kernel on packed codes in safe code.

use super::input::{DIGITS, Integers, Row};
use super::{LANES, Lane, Layout, MOST, Panel, Zero};
use crate::interleaved::{BLOCK, unpack_block};

/// Sums of two panels and some rows of `X`.
pub(super) fn multiply(
    layout: Layout,
    panels: [Panel<'_>; 2],
    rows: &[Row<'_>],
    sums: &mut [[Lane; 2]; MOST],
) {
    for (p, panel) in panels.iter().enumerate() {
        let groups = panel.codes.chunks(layout.group_blocks * layout.block_bytes);
        for (g, codes) in groups.enumerate() {
            let mut parts = [[0.0; LANES]; MOST];
            for (b, block) in codes.chunks_exact(layout.block_bytes).enumerate() {
                let mut columns = [[0.0; LANES]; BLOCK];
                unpack(block, layout.width, &mut columns);
                for (row, part) in rows.iter().zip(&mut parts) {
                    let x = &row.x[g * layout.group_blocks + b];
                    for (codes, x) in columns.iter().zip(x) {
                        for l in 0..LANES {
                            part[l] += codes[l] * x;
                        }
                    }
                }
            }
            for (r, row) in rows.iter().enumerate() {
                let sum = row.sums[g];
                for l in 0..LANES {
                    let scale = panel.scales[g][l] * row.factor;
                    sums[r][p][l] += match panel.zero {
                        Zero::Constant(zero) => scale * (parts[r][l] - zero * sum),
                        Zero::Group(zeros) => scale * (parts[r][l] - zeros[g][l] * sum),
                        Zero::Added(offsets) => scale * parts[r][l] + offsets[g][l] * row.factor * sum,
                    };
                }
            }
        }
    }
}

/// Sums of two panels and one row of `X` in integers.
pub(super) fn multiply_one(layout: Layout, panels: [Panel<'_>; 2], row: Integers<'_>, sums: &mut [Lane; 2]) {
    for (panel, sums) in panels.iter().zip(sums) {
        let groups = panel.codes.chunks(layout.group_blocks * layout.block_bytes);
        for (g, (codes, digits)) in groups.zip(row.blocks.chunks(layout.group_blocks)).enumerate() {
            let mut totals = [[0i32; DIGITS]; LANES];
            for (block, digits) in codes.chunks_exact(layout.block_bytes).zip(digits) {
                let mut quads = [[0; 64]; 4];
                unpack_block(block, layout.width, &mut quads);
                for (quad, digits) in quads.iter().zip(digits) {
                    for (totals, codes) in totals.iter_mut().zip(quad.as_chunks::<4>().0) {
                        for (total, digits) in totals.iter_mut().zip(digits) {
                            for j in 0..4 {
                                *total += i32::from(codes[j]) * i32::from(digits[j] as i8);
                            }
                        }
                    }
                }
            }
            for l in 0..LANES {
                let zero = match panel.zero {
                    Zero::Constant(zero) => zero,
                    Zero::Group(zeros) => zeros[g][l],
                    Zero::Added(_) => 0.0,
                };
                // Each digit is exact.
                let mut sum = 0.0;
                for d in (0..DIGITS).rev() {
                    sum = sum * 256.0 + (totals[l][d] as f32 - zero * row.digit_sums[g][d]);
                }
                sums[l] += panel.scales[g][l] * (sum * row.steps[g]);
                if let Zero::Added(offsets) = panel.zero {
                    sums[l] += offsets[g][l] * row.sums[g];
                }
            }
        }
    }
}

/// The codes of a block, column by column.
fn unpack(block: &[u8], width: u8, out: &mut [Lane; BLOCK]) {
    let mut quads = [[0; 64]; 4];
    unpack_block(block, width, &mut quads);
    for (c, out) in out.iter_mut().enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = f32::from(quads[c / 4][4 * l + c % 4]);
        }
    }
}

/// What a block stands for, column by column: `scale (code - zero)` or `scale code + offset`.
pub(super) fn dequantize(layout: Layout, panel: Panel<'_>, g: usize, b: usize, out: &mut [Lane; BLOCK]) {
    let block = &panel.codes[(g * layout.group_blocks + b) * layout.block_bytes..][..layout.block_bytes];
    unpack(block, layout.width, out);
    let scale = &panel.scales[g];
    for column in out {
        for l in 0..LANES {
            column[l] = match panel.zero {
                Zero::Constant(zero) => scale[l] * (column[l] - zero),
                Zero::Group(zeros) => scale[l] * (column[l] - zeros[g][l]),
                Zero::Added(offsets) => scale[l] * column[l] + offsets[g][l],
            };
        }
    }
}
