//! Tiles of integer products: up to [`MAX_ROWS`] rows of activations with 32 columns of weights.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;

use kc_core::{Isa, Level};

/// Columns of a panel of weights.
pub(crate) const NR: usize = 32;
/// Most rows of a tile, over all levels.
pub(crate) const MAX_ROWS: usize = 12;

/// How four consecutive activations of one row are stored for a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quads {
    /// Two words: the 16-bit values 0 and 2, then 1 and 3.
    Pairs { tile_rows: usize },
    /// One word of four signed bytes; `shift` (0 or 128) is taken off first, so that unsigned codes fit.
    Bytes { shift: i16 },
}

impl Quads {
    pub(crate) fn of(isa: Isa, signed: bool) -> Self {
        match isa.level() {
            Level::Portable | Level::Avx2 => Quads::Pairs { tile_rows: 4 },
            Level::Avx512 => Quads::Pairs { tile_rows: MAX_ROWS },
            _ => Quads::Bytes { shift: if signed { 0 } else { 128 } },
        }
    }

    /// Rows of a full tile.
    pub(crate) fn tile_rows(self) -> usize {
        match self {
            Quads::Pairs { tile_rows } => tile_rows,
            Quads::Bytes { .. } => MAX_ROWS,
        }
    }

    /// Words per row and quad.
    pub(crate) fn words(self) -> usize {
        match self {
            Quads::Pairs { .. } => 2,
            Quads::Bytes { .. } => 1,
        }
    }

    /// What is taken off every activation before it is stored.
    pub(crate) fn shift(self) -> i16 {
        match self {
            Quads::Pairs { .. } => 0,
            Quads::Bytes { shift } => shift,
        }
    }

    /// Stores four values, less [`shift`](Self::shift), and returns their sum.
    #[inline]
    pub(crate) fn encode(self, v: [i16; 4], out: &mut [i32]) -> i32 {
        let pair = |low: i16, high: i16| (i32::from(low) & 0xffff) | (i32::from(high) << 16);
        let v = v.map(|x| x - self.shift());
        match self {
            Quads::Pairs { .. } => {
                out[0] = pair(v[0], v[2]);
                out[1] = pair(v[1], v[3]);
            }
            Quads::Bytes { .. } => out[0] = i32::from_le_bytes(v.map(|x| x as u8)),
        }
        v.into_iter().map(i32::from).sum()
    }
}

/// A block of packed activations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Rows of this block.
    pub(crate) count: usize,
    /// `[quad][row][words]`.
    pub(crate) words: &'a [i32],
    /// `[group][row]`: sums of the activations.
    pub(crate) sums: &'a [i32],
    /// Quads of a row.
    pub(crate) quads: usize,
    /// Quads of a group (the last one may be shorter).
    pub(crate) group_quads: usize,
}

/// `result[r][n] = sum_g scales[g][n] * (sum of group g)`, separate multiplication and addition.
pub(crate) fn scaled(
    isa: Isa,
    rows: Rows<'_>,
    panel: &[u8],
    scales: &[f32],
    result: &mut [[f32; NR]; MAX_ROWS],
) {
    check(isa, rows, panel);
    assert!(
        scales.len() >= rows.quads.div_ceil(rows.group_quads.max(1)) * NR,
        "a scale per group and column"
    );
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::scaled(isa, rows, panel, scales, result),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::scaled(isa, rows, panel, scales, result),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Icl | Level::Avx512Spr => vnni::scaled(isa, rows, panel, scales, result),
        _ => portable::scaled(rows, panel, scales, result),
    }
}

/// `result[r][n] =` the sum over all quads, which are one group, of the activations as stored.
pub(crate) fn sums(isa: Isa, rows: Rows<'_>, panel: &[u8], result: &mut [[i32; NR]; MAX_ROWS]) {
    check(isa, rows, panel);
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::sums(isa, rows, panel, result),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::sums(isa, rows, panel, result),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Icl | Level::Avx512Spr => vnni::sums(isa, rows, panel, result),
        _ => portable::sums(rows, panel, result),
    }
}

/// The lengths that the tiles rely on.
fn check(isa: Isa, rows: Rows<'_>, panel: &[u8]) {
    let form = Quads::of(isa, true);
    let groups = rows.quads.div_ceil(rows.group_quads.max(1));
    assert!(rows.count >= 1 && rows.count <= form.tile_rows(), "a tile has 1 to {} rows", form.tile_rows());
    assert!(rows.words.len() >= rows.count * rows.quads * form.words(), "packed rows are complete");
    assert!(panel.len() >= rows.quads * NR * 4, "a panel is complete");
    assert!(rows.sums.len() >= groups * rows.count, "a sum per group and row");
}
