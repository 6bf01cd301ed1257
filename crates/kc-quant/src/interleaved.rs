//! [`Interleaved`]: codes in the order in which the kernels read them.
//!
//! Weights of 1 to 8 bits are held in 2, 4, 6 or 8 bits. A *panel* is `lanes` rows side by side, 8 or 16: as
//! many as a register has 32-bit lanes. A *block* is 16 columns of a panel; every group of columns is padded with
//! code 0 to whole blocks. A *quad* is four columns of a panel, one register of bytes: byte `4 r + j` is column
//! `j` of row `r`. The four quads `Q0..Q3` of a block are stored in `width / 2` registers:
//!
//! | width | registers |
//! |---|---|
//! | 2 | `Q0 \| Q1 << 2 \| Q2 << 4 \| Q3 << 6` |
//! | 4 | `Q0 \| Q1 << 4`, `Q2 \| Q3 << 4` |
//! | 6 | `Q0 \| (Q3 & 0x30) << 2`, `Q1 \| (Q3 & 0x0c) << 4`, `Q2 \| (Q3 & 3) << 6` |
//! | 8 | `Q0`, `Q1`, `Q2`, `Q3` |
//!
//! Six bits come apart in eleven operations for four registers of codes, with no shuffle. A panel is read from
//! its first byte to its last, once.

use kc_core::{AlignedBuf, Result, shape};

use crate::uniform::UniformGroups;

/// Columns of a block.
pub(crate) const BLOCK: usize = 16;

/// Packed codes of a matrix `[N, K]`.
#[derive(Debug, Clone)]
pub(crate) struct Interleaved {
    data: AlignedBuf<u8>,
    shape: [usize; 2],
    width: u8,
    group: usize,
    lanes: usize,
}

impl Interleaved {
    /// Packs the codes of `w` for registers of `lanes` 32-bit lanes.
    pub(crate) fn pack(w: &UniformGroups, lanes: usize) -> Result<Self> {
        let [n, k] = w.shape();
        let width = w.bits().next_multiple_of(2);
        let mut packed = Self { data: AlignedBuf::zeroed(0)?, shape: [n, k], width, group: w.group(), lanes };
        let panels = n.div_ceil(lanes);
        packed.data =
            AlignedBuf::zeroed(shape::checked_len("w", &[panels, packed.blocks(), packed.block_bytes()])?)?;
        let panel_bytes = packed.panel_bytes();
        if panel_bytes == 0 {
            return Ok(packed);
        }
        let (block_bytes, group_blocks) = (packed.block_bytes(), packed.group_blocks());
        let fill = |(p, panel): (usize, &mut [u8])| {
            for r in 0..lanes.min(n - p * lanes) {
                let row = &w.codes()[(p * lanes + r) * k..][..k];
                for (g, codes) in row.chunks(w.group()).enumerate() {
                    for (b, codes) in codes.chunks(BLOCK).enumerate() {
                        let at = (g * group_blocks + b) * block_bytes;
                        put(&mut panel[at..at + block_bytes], codes, width, lanes, r);
                    }
                }
            }
        };
        use rayon::prelude::*;
        packed.data.par_chunks_mut(panel_bytes).enumerate().for_each(fill);
        Ok(packed)
    }

    /// `[N, K]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits in which a code is held: 2, 4, 6 or 8.
    pub(crate) fn width(&self) -> u8 {
        self.width
    }

    /// Columns of a group; the last may be shorter.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.shape[1].div_ceil(self.group)
    }

    /// Blocks of a full group.
    pub(crate) fn group_blocks(&self) -> usize {
        self.group.div_ceil(BLOCK)
    }

    /// Blocks of a row.
    pub(crate) fn blocks(&self) -> usize {
        let k = self.shape[1];
        k / self.group * self.group_blocks() + (k % self.group).div_ceil(BLOCK)
    }

    /// Rows of a panel.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Bytes of a block of a panel.
    pub(crate) fn block_bytes(&self) -> usize {
        self.lanes * BLOCK * usize::from(self.width) / 8
    }

    fn panel_bytes(&self) -> usize {
        self.blocks() * self.block_bytes()
    }

    /// The bytes of a panel: its blocks in the order of the columns.
    pub(crate) fn panel(&self, index: usize) -> &[u8] {
        let len = self.panel_bytes();
        &self.data[index * len..][..len]
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }
}

/// Adds up to 16 codes of row `r` to a block of zeros.
fn put(block: &mut [u8], codes: &[u8], width: u8, lanes: usize, r: usize) {
    let register = 4 * lanes;
    for (c, &code) in codes.iter().enumerate() {
        let (quad, byte) = (c / 4, 4 * r + c % 4);
        match width {
            2 => block[byte] |= code << (2 * quad),
            4 => block[quad / 2 * register + byte] |= code << (4 * (quad % 2)),
            6 if quad < 3 => block[quad * register + byte] |= code,
            6 => {
                block[byte] |= (code & 0x30) << 2;
                block[register + byte] |= (code & 0x0c) << 4;
                block[2 * register + byte] |= code << 6;
            }
            _ => block[quad * register + byte] = code,
        }
    }
}

/// The four quads of a block of 8 rows or 16: `out[quad][4 r + j]`.
pub(crate) fn unpack_block(block: &[u8], width: u8, out: &mut [[u8; 64]; 4]) {
    let register = block.len() / (usize::from(width) / 2);
    for byte in 0..register {
        let at = |i: usize| block[i * register + byte];
        let quads = match width {
            2 => [at(0) & 3, at(0) >> 2 & 3, at(0) >> 4 & 3, at(0) >> 6],
            4 => [at(0) & 15, at(0) >> 4, at(1) & 15, at(1) >> 4],
            6 => {
                let [a, b, c] = [at(0), at(1), at(2)];
                [a & 63, b & 63, c & 63, a >> 2 & 0x30 | b >> 4 & 0x0c | c >> 6]
            }
            _ => [at(0), at(1), at(2), at(3)],
        };
        for (out, code) in out.iter_mut().zip(quads) {
            out[byte] = code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uniform::Zeros;

    #[test]
    fn blocks_hold_every_code_and_zeros_behind_groups() {
        for (bits, lanes, n, k, group) in [
            (6u8, 8usize, 11usize, 37usize, 20usize),
            (4, 16, 17, 32, 16),
            (1, 8, 3, 5, 5),
            (7, 16, 2, 40, 33),
        ] {
            let most = 0xff >> (8 - bits);
            let codes: Vec<u8> = (0..n * k).map(|i| (i * 29 + 7) as u8 & most).collect();
            let groups = k.div_ceil(group);
            let w = UniformGroups::new(
                [n, k],
                bits,
                group,
                codes.clone(),
                vec![1.0; n * groups],
                Zeros::Constant(0),
            )
            .unwrap();
            let packed = Interleaved::pack(&w, lanes).unwrap();
            let mut seen = vec![0u8; n * k];
            for p in 0..n.div_ceil(lanes) {
                for (b, block) in packed.panel(p).chunks(packed.block_bytes()).enumerate() {
                    let mut quads = [[0u8; 64]; 4];
                    unpack_block(block, packed.width(), &mut quads);
                    let (g, within) = (b / packed.group_blocks(), b % packed.group_blocks());
                    for r in 0..lanes {
                        for c in 0..BLOCK {
                            let code = quads[c / 4][4 * r + c % 4];
                            let inside = within * BLOCK + c;
                            let (row, column) = (p * lanes + r, g * group + inside);
                            if row < n && inside < group && column < k {
                                seen[row * k + column] = code;
                            } else {
                                assert_eq!(code, 0, "padding is 0");
                            }
                        }
                    }
                }
            }
            assert_eq!(seen, codes);
        }
    }
}
