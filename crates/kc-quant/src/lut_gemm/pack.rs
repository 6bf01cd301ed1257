//! The orders in which the kernels read signs.
//!
//! Every group is padded to whole *octets*, eight columns, of which those behind its end meet zeros in the activations.
//!
//! [`Planes`], for tables of bytes: a panel is 64 rows; for each group, plane and octet it holds 64 bytes, one for each
//! row, bit `t` for column `t`. The rows of each half are ordered as the sums of even and odd bytes come out of the
//! kernel (see [`place`]).
//!
//! [`Codes`], for weights made in registers: up to three planes at a time; a panel is four rows; a word of 32 bits
//! holds 32, 16 or 10 codes of one of eight columns, those of the first octet lowest.

use kc_core::{AlignedBuf, Result, shape};
use rayon::prelude::*;

use super::bcq::BcqMatrix;

/// Columns of an octet.
pub(super) const OCTET: usize = 8;

/// Rows of a panel of [`Planes`], and of a block of results.
pub(super) const ROWS: usize = 64;

/// Rows of a panel of [`Codes`].
pub(super) const CODE_ROWS: usize = 4;

/// How the columns of a matrix lie in octets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) columns: usize,
    pub(super) group: usize,
}

impl Layout {
    pub(super) fn of(w: &BcqMatrix) -> Self {
        Layout { columns: w.shape()[1], group: w.group() }
    }

    pub(super) fn groups(self) -> usize {
        self.columns.div_ceil(self.group)
    }

    /// Octets of group `g`.
    pub(super) fn group_octets(self, g: usize) -> usize {
        self.group.min(self.columns - g * self.group).div_ceil(OCTET)
    }

    /// Octets before group `g`.
    pub(super) fn first_octet(self, g: usize) -> usize {
        g * self.group.div_ceil(OCTET)
    }

    /// Octets of a row.
    pub(super) fn octets(self) -> usize {
        let last = self.groups() - 1;
        self.first_octet(last) + self.group_octets(last)
    }

    /// The columns in octets, zeros behind the groups.
    pub(super) fn spread(self, x: &[f32], out: &mut [f32]) {
        let padded = self.group.next_multiple_of(OCTET);
        for (x, out) in x.chunks(self.group).zip(out.chunks_mut(padded)) {
            let (head, tail) = out.split_at_mut(x.len());
            head.copy_from_slice(x);
            tail.fill(0.0);
        }
    }
}

/// The eight signs from `column` on, those behind the row 0. Signs of the next group may follow a group's end.
#[inline(always)]
pub(super) fn octet(row: &[u8], column: usize) -> u8 {
    let (at, shift) = (column / 8, column % 8);
    let low = row.get(at).copied().unwrap_or(0);
    let high = row.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([low, high]) >> shift) as u8
}

/// Where the byte of row `r` of 32 lies, so that the sums of even bytes, low and high halves of the lanes, then those
/// of odd bytes, come out as rows `0..8`, `8..16`, `16..24` and `24..32`.
pub(super) fn place(r: usize) -> usize {
    let (vector, lane) = (r / 8, r % 8);
    2 * (lane % 4) + 16 * (lane / 4) + 8 * (vector % 2) + vector / 2
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Planes {
    pub(super) layout: Layout,
    pub(super) bits: usize,
    bytes: AlignedBuf<u8>,
    /// `[panel][G][q][64]`
    scales: AlignedBuf<f32>,
    /// `[panel][G][64]`
    offsets: Option<AlignedBuf<f32>>,
}

impl Planes {
    pub(super) fn pack(w: &BcqMatrix) -> Result<Self> {
        let (layout, n, bits) = (Layout::of(w), w.shape()[0], usize::from(w.bits()));
        let (panels, groups) = (n.div_ceil(ROWS), layout.groups());
        let len = |parts: &[usize]| shape::checked_len("w", parts);
        let mut bytes = AlignedBuf::zeroed(len(&[panels, layout.octets(), bits, ROWS])?)?;
        bytes.par_chunks_mut(layout.octets() * bits * ROWS).enumerate().for_each(|(p, panel)| {
            for row in p * ROWS..n.min(p * ROWS + ROWS) {
                let r = row % ROWS;
                let at = r / 32 * 32 + place(r % 32);
                for g in 0..groups {
                    for b in 0..bits {
                        let signs = w.plane_row(b, row);
                        let first = layout.first_octet(g) * bits + b * layout.group_octets(g);
                        for o in 0..layout.group_octets(g) {
                            panel[(first + o) * ROWS + at] = octet(signs, g * layout.group + OCTET * o);
                        }
                    }
                }
            }
        });
        let mut scales = AlignedBuf::zeroed(len(&[panels, groups, bits, ROWS])?)?;
        let mut offsets = AlignedBuf::zeroed(len(&[panels, groups, ROWS])?)?;
        for row in 0..n {
            for g in 0..groups {
                let at = (row / ROWS * groups + g) * ROWS;
                for (b, &scale) in w.group_scales(row, g).iter().enumerate() {
                    scales[at * bits + b * ROWS + row % ROWS] = scale;
                }
                offsets[at + row % ROWS] = w.offset(row, g);
            }
        }
        Ok(Self { layout, bits, bytes, scales, offsets: w.offsets().map(|_| offsets) })
    }

    /// Signs of a panel.
    pub(super) fn panel(&self, p: usize) -> &[u8] {
        let len = self.layout.octets() * self.bits * ROWS;
        &self.bytes[p * len..][..len]
    }

    /// Scales of a panel, `[G][q][64]`.
    pub(super) fn scales(&self, p: usize) -> &[f32] {
        let len = self.layout.groups() * self.bits * ROWS;
        &self.scales[p * len..][..len]
    }

    /// Offsets of a panel, `[G][64]`.
    pub(super) fn offsets(&self, p: usize) -> Option<&[f32]> {
        let len = self.layout.groups() * ROWS;
        self.offsets.as_ref().map(|offsets| &offsets[p * len..][..len])
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + 4 * (self.scales.len() + self.offsets.as_ref().map_or(0, |o| o.len()))
    }
}

/// Up to three planes; see the [module](self).
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) layout: Layout,
    /// Planes, 1 to 3.
    pub(super) bits: usize,
    words: AlignedBuf<u32>,
    /// `[panel][G][4][bits + 1]`: the scales and the offset, which the first planes alone have.
    scales: AlignedBuf<f32>,
}

/// Codes in a word of 32 bits.
pub(super) const fn codes_per_word(bits: usize) -> usize {
    32 / bits
}

impl Codes {
    /// All planes of `w`, at most three at a time.
    pub(super) fn pack(w: &BcqMatrix) -> Result<Vec<Self>> {
        let q = usize::from(w.bits());
        let parts = q.div_ceil(3);
        let mut first = 0;
        let mut all = Vec::with_capacity(parts);
        for part in 0..parts {
            let bits = (q - first).div_ceil(parts - part);
            all.push(Self::of_planes(w, first, bits)?);
            first += bits;
        }
        Ok(all)
    }

    fn of_planes(w: &BcqMatrix, first: usize, bits: usize) -> Result<Self> {
        let (layout, n) = (Layout::of(w), w.shape()[0]);
        let (panels, groups, per) = (n.div_ceil(CODE_ROWS), layout.groups(), codes_per_word(bits));
        let row_words = layout.octets().div_ceil(per);
        let len = |parts: &[usize]| shape::checked_len("w", parts);
        let mut words = AlignedBuf::zeroed(len(&[panels, row_words, CODE_ROWS, OCTET])?)?;
        words.par_chunks_mut(row_words * CODE_ROWS * OCTET).enumerate().for_each(|(p, panel)| {
            for row in p * CODE_ROWS..n.min((p + 1) * CODE_ROWS) {
                for b in 0..bits {
                    let signs = w.plane_row(first + b, row);
                    for g in 0..groups {
                        for o in 0..layout.group_octets(g) {
                            let byte = octet(signs, g * layout.group + OCTET * o);
                            let step = layout.first_octet(g) + o;
                            let at = (step / per * CODE_ROWS + row % CODE_ROWS) * OCTET;
                            for (t, word) in panel[at..at + OCTET].iter_mut().enumerate() {
                                *word |= u32::from(byte >> t & 1) << (step % per * bits + b);
                            }
                        }
                    }
                }
            }
        });
        let mut scales = AlignedBuf::zeroed(len(&[panels, groups, CODE_ROWS, bits + 1])?)?;
        for row in 0..n {
            for g in 0..groups {
                let at = (row / CODE_ROWS * groups + g) * CODE_ROWS + row % CODE_ROWS;
                let to = &mut scales[at * (bits + 1)..][..bits + 1];
                to[..bits].copy_from_slice(&w.group_scales(row, g)[first..first + bits]);
                to[bits] = if first == 0 { w.offset(row, g) } else { 0.0 };
            }
        }
        Ok(Self { layout, bits, words, scales })
    }

    /// Words of a panel, `[word][4][8]`.
    pub(super) fn panel(&self, p: usize) -> &[u32] {
        let len = self.layout.octets().div_ceil(codes_per_word(self.bits)) * CODE_ROWS * OCTET;
        &self.words[p * len..][..len]
    }

    /// Scales and offsets of a panel, `[G][4][bits + 1]`.
    pub(super) fn scales(&self, p: usize) -> &[f32] {
        let len = self.layout.groups() * CODE_ROWS * (self.bits + 1);
        &self.scales[p * len..][..len]
    }

    pub(super) fn bytes(&self) -> usize {
        4 * (self.words.len() + self.scales.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_place() {
        let mut seen = [false; 32];
        (0..32).for_each(|r| seen[place(r)] = true);
        assert_eq!(seen, [true; 32]);
    }

    #[test]
    fn octets_start_at_any_column() {
        let row = [0b1010_0101, 0b0000_0011];
        assert_eq!([0, 1, 4, 8, 12, 16].map(|c| octet(&row, c)), [0xa5, 0xd2, 0x3a, 3, 0, 0]);
    }
}
