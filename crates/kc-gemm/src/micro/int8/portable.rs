//! The tile in safe code.

use super::{MAX_ROWS, NR, Rows};

/// Sums of one group: unsigned weights with 16-bit activations.
fn group(rows: Rows<'_>, row: usize, quads: std::ops::Range<usize>, panel: &[u8]) -> [i32; NR] {
    let mut sums = [0i32; NR];
    for q in quads {
        let words = &rows.words[(q * rows.count + row) * 2..][..2];
        let (a0, a2) = (i32::from(words[0] as i16), words[0] >> 16);
        let (a1, a3) = (i32::from(words[1] as i16), words[1] >> 16);
        let (weights, _) = panel[q * NR * 4..][..NR * 4].as_chunks::<4>();
        for (sum, w) in sums.iter_mut().zip(weights) {
            let [w0, w1, w2, w3] = w.map(i32::from);
            *sum = sum.wrapping_add(a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3);
        }
    }
    sums
}

pub(super) fn scaled(rows: Rows<'_>, panel: &[u8], scales: &[f32], result: &mut [[f32; NR]; MAX_ROWS]) {
    for (row, out) in result[..rows.count].iter_mut().enumerate() {
        *out = [0.0; NR];
        for (g, scales) in scales.chunks_exact(NR).enumerate() {
            let quads = g * rows.group_quads..rows.quads.min((g + 1) * rows.group_quads);
            let surplus = rows.sums[g * rows.count + row].wrapping_mul(128);
            let sums = group(rows, row, quads, panel);
            for ((o, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                *o += sum.wrapping_sub(surplus) as f32 * scale;
            }
        }
    }
}

pub(super) fn sums(rows: Rows<'_>, panel: &[u8], result: &mut [[i32; NR]; MAX_ROWS]) {
    for (row, out) in result[..rows.count].iter_mut().enumerate() {
        let surplus = rows.sums.get(row).map_or(0, |s| s.wrapping_mul(128));
        *out = group(rows, row, 0..rows.quads, panel).map(|s| s.wrapping_sub(surplus));
    }
}
